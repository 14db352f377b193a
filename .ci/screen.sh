#!/usr/bin/env bash
# Runs a command on a screen of 1600 x 1000: the one that is there when asked to with
# OWN_SCREEN=1, else a virtual one, so that tests never open windows on somebody's desk.
set -u
if [ "${OWN_SCREEN:-}" != 1 ] && command -v Xvfb >/dev/null; then
  # Xvfb picks a free display itself: two runs on one computer do not meet.
  file=$(mktemp)
  Xvfb -displayfd 3 -screen 0 1600x1000x24 -nolisten tcp 3>"$file" 2>/dev/null &
  xvfb=$!
  trap 'kill $xvfb 2>/dev/null; rm -f "$file"' EXIT
  for _ in $(seq 100); do [ -s "$file" ] && break; sleep 0.1; done
  export DISPLAY=":$(tr -d '\n' <"$file")" QT_QPA_PLATFORM=xcb
  unset WAYLAND_DISPLAY
fi
"$@"
