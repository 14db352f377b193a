#!/usr/bin/env bash
# Looks whether the system libraries of a napari window are there, and installs what is missing:
# as root with apt-get, else with sudo. Where neither works it prints the packages and goes on,
# because the command line and everything that needs no window work without them.
set -u

packages=(
  python3-venv xvfb xauth libegl1 libgl1 libglx-mesa0 libgl1-mesa-dri libopengl0 libglib2.0-0
  libxkbcommon-x11-0 libdbus-1-3 libfontconfig1 libxcb-cursor0 libxcb-icccm4 libxcb-image0
  libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-shape0 libxcb-xfixes0 libxcb-xinerama0
)

have() { dpkg-query -W -f '${Status}\n' "$1" 2>/dev/null | grep -q '^install ok installed'; }

if ! command -v dpkg-query >/dev/null; then
  echo "This is not a Debian or Ubuntu system, so the system libraries were not checked."
  echo "If the window does not open, install the libraries of Qt 6 for X11, OpenGL and Xvfb."
  exit 0
fi

missing=()
for package in "${packages[@]}"; do
  # A Python of one's own brings venv along; some libraries were renamed to ...t64.
  if [ "$package" = python3-venv ] && "$1" -c 'import ensurepip' 2>/dev/null; then continue; fi
  have "$package" || have "${package}t64" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

echo "Installing missing system packages: ${missing[*]}"
install() { "$@" apt-get update -q && "$@" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -q --no-install-recommends "${missing[@]}"; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if [ "$(id -u)" = 0 ]; then
  install >"$log" 2>&1 && exit 0
elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
  install sudo >"$log" 2>&1 && exit 0
else
  echo "Neither root nor sudo is at hand." >"$log"
fi
tail -n 3 "$log"
echo
echo "Please have these packages installed, then run the same command again:"
echo "  apt-get install ${missing[*]}"
echo "Going on without them; the window and its pictures may not work."
exit 0
