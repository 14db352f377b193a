"""Reads typed values out of a TOML table and says which key is wrong.

People write model cards by hand, so a mistake must come back as "this file,
this key, this is why" and not as a traceback. Keys that nobody asked for are
mistakes too: a mistyped ``halo`` would otherwise silently be the default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pathotune.events import PathotuneError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MISSING: Any = object()


class Table:
    """A TOML table of the card at `path`; `at` is where in the card it stands."""

    def __init__(self, raw: Mapping[str, Any], path: Path, at: str = "") -> None:
        self._raw = raw
        self._path = path
        self._at = at
        self._asked: set[str] = set()

    def wrong(self, key: str, why: str) -> PathotuneError:
        """Return the error that names the file and the key."""
        return PathotuneError(
            f"In the model card {self._path.name}, {self._at}{key} {why}.",
            f"Mend it in {self._path}.",
        )

    def _get(self, key: str, default: Any, kind: type | tuple[type, ...], what: str) -> Any:
        self._asked.add(key)
        value = self._raw.get(key, default)
        if value is _MISSING:
            raise self.wrong(key, "is missing")
        if value is default:
            return value
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(key, f"must be {what}")
        return value

    def text(self, key: str, default: str = _MISSING) -> str:
        """Return a string; an empty one counts as missing."""
        value: str = self._get(key, default, str, "a text in quotes")
        if not value and default is _MISSING:
            raise self.wrong(key, "is empty")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false."""
        return bool(self._get(key, default, bool, "true or false"))

    def number(self, key: str, *, above: float, default: float = _MISSING) -> float:
        """Return a number greater than `above`, or the default."""
        found = self._get(key, default, (int, float), "a number")
        value = float(found)
        if found is default:
            return value
        if not above < value < float("inf"):
            raise self.wrong(key, f"must be a number above {above:g}")
        return value

    def integer(self, key: str, default: int | None = _MISSING, *, low: int) -> int | None:
        """Return a whole number of at least `low`."""
        value: int | None = self._get(key, default, int, "a whole number")
        if value is not None and value < low:
            raise self.wrong(key, f"must be at least {low}")
        return value

    def needed_integer(self, key: str, *, low: int) -> int:
        """Return a whole number that the card must give."""
        value = self.integer(key, low=low)
        return low if value is None else value

    def numbers(self, key: str, length: int, *, above: float = float("-inf")) -> tuple[float, ...]:
        """Return `length` numbers, each greater than `above`."""
        values = self._get(key, _MISSING, list, f"a list of {length} numbers")
        if len(values) != length or not all(
            isinstance(v, int | float) and not isinstance(v, bool) and v > above for v in values
        ):
            raise self.wrong(key, f"must be a list of {length} numbers")
        return tuple(float(v) for v in values)

    def integers(self, key: str) -> tuple[int, ...]:
        """Return whole numbers."""
        values = self._get(key, _MISSING, list, "a list of whole numbers")
        if not all(isinstance(v, int) and not isinstance(v, bool) for v in values):
            raise self.wrong(key, "must be a list of whole numbers")
        return tuple(values)

    def one_of(self, key: str, choices: tuple[str, ...], default: str = _MISSING) -> str:
        """Return one of the words in `choices`."""
        value = self.text(key, default)
        if value not in choices:
            raise self.wrong(key, f"must be one of {', '.join(choices)}")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        """Return a table as it stands, empty when it is not there."""
        return dict(self._get(key, {}, dict, "a table"))

    def table(self, key: str) -> Table:
        """Return a table that the card must have."""
        return Table(self._get(key, _MISSING, dict, "a table"), self._path, f"{self._at}{key}.")

    def maybe_table(self, key: str) -> Table | None:
        """Return a table, or None."""
        return self.table(key) if key in self._raw else None

    def tables(self, key: str) -> tuple[Table, ...]:
        """Return a list of tables with at least one entry."""
        raws = self._get(key, _MISSING, list, f"one or more [[{key}]] tables")
        if not raws or not all(isinstance(r, dict) for r in raws):
            raise self.wrong(key, f"must be one or more [[{key}]] tables")
        return tuple(Table(r, self._path, f"{self._at}{key}[{i}].") for i, r in enumerate(raws))

    def done(self) -> None:
        """Raise when the table has keys that nobody asked for."""
        for key in self._raw:
            if key not in self._asked:
                raise self.wrong(key, "is not a key of a model card")
