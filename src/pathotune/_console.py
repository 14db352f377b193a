"""What the command line says to people: progress as it comes, results as a plain table.

Progress goes to one stream and overwrites itself on a terminal; in a log it
comes line by line and not too often.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pathotune.events import Note, Progress

if TYPE_CHECKING:
    from typing import TextIO

    from pathotune.events import Event

QUIET_S = 2.0  # between two lines of progress where they cannot overwrite each other


class Teller:
    """Tells on standard error what a job does, and keeps its warnings for the result."""

    def __init__(self, stream: TextIO) -> None:
        self.warnings: list[str] = []
        self._stream = stream
        self._live = stream.isatty()
        self._last = 0.0
        self._open = False

    def __call__(self, event: Event) -> None:
        """Show a note at once, progress not too often."""
        if isinstance(event, Note):
            if event.level == "warning":
                self.warnings.append(event.text)
            self.close()
            self._say(f"{event.text}\n")
        elif isinstance(event, Progress):
            now = time.monotonic()
            last_step = event.done >= event.total
            if not last_step and now - self._last < (0.1 if self._live else QUIET_S):
                return
            self._last = now
            left = f", about {event.seconds_left:.0f} s left" if event.seconds_left else ""
            text = f"{event.what}: {event.done} of {event.total}{left}"
            if self._live:
                self._say(f"\r\x1b[K{text}")
                self._open = True
            else:
                self._say(f"{text}\n")

    def close(self) -> None:
        """End a line that was being overwritten."""
        if self._open:
            self._say("\n")
            self._open = False

    def _say(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def plain(value: Any, indent: str = "") -> str:
    """Return a result for a reader: one line a fact, lists and tables indented."""
    if isinstance(value, dict):
        width = max((len(str(k)) for k in value), default=0)
        lines = []
        for name, inner in value.items():
            if isinstance(inner, dict | list) and inner and not _flat(inner):
                lines += [f"{indent}{name}:", plain(inner, indent + "  ")]
            else:
                lines.append(f"{indent}{name!s:<{width}}  {plain(inner)}")
        return "\n".join(lines)
    if isinstance(value, list):
        if _flat(value):
            return ", ".join(plain(v) for v in value)
        return "\n".join(plain(v, indent) + ("\n" if isinstance(v, dict) else "") for v in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not known" if value is None else str(value)


def _flat(value: Any) -> bool:
    return isinstance(value, list) and not any(isinstance(v, dict | list) for v in value)
