"""Checks of the fields of a contract; each raises the error class it is given: expected ..., found ..."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from edge.errors import FieldcubeError
from edge.utf8 import is_utf8

_Error = type[FieldcubeError]
_MAX_SHOWN = 120  # characters of what was found


def text(error: _Error, name: str, value: object, *, may_be_empty: bool = False) -> None:
    """Require a string that UTF-8 can hold, not empty unless may_be_empty."""
    if not isinstance(value, str) or not (value or may_be_empty):
        raise wrong(error, name, "text" if may_be_empty else "non-empty text", value)
    if not is_utf8(value):
        raise wrong(error, name, "text in UTF-8", value)


def integer(error: _Error, name: str, value: object, low: int, high: int) -> None:
    """Require an int (not a bool) from low to high."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise wrong(error, name, f"an integer from {low} to {high}", value)


def number(error: _Error, name: str, value: object, low: float, high: float) -> None:
    """Require an int or float (not a bool, not NaN) from low to high."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
        raise wrong(error, name, f"a number from {low} to {high}", value)


def one_of(error: _Error, name: str, value: object, allowed: Sequence[object]) -> None:
    """Require one of the allowed values."""
    if not any(value == choice and type(value) is type(choice) for choice in allowed):
        raise wrong(error, name, f"one of {', '.join(map(str, allowed))}", value)


def instance(error: _Error, name: str, value: object, kinds: tuple[type, ...]) -> None:
    """Require an instance of one of kinds."""
    if not isinstance(value, kinds):
        raise wrong(error, name, " or ".join(kind.__name__ for kind in kinds), value)


def keys(error: _Error, what: str, value: object, required: Sequence[str]) -> Mapping[str, Any]:
    """Require a mapping with every required key and return it; the error names all that are missing."""
    if not isinstance(value, Mapping):
        raise error(f"{what}: expected a mapping, found {type(value).__name__}")
    missing = [key for key in required if key not in value]
    if missing:
        found = _shortened(", ".join(str(key)[:_MAX_SHOWN] for key in islice(value, _MAX_SHOWN)) or "none")
        raise error(
            f"{what}: expected the keys {', '.join(required)}; missing {', '.join(missing)}, found {found}"
        )
    return value


def version(error: _Error, what: str, value: object, expected: int, todo: str) -> None:
    """Require a mapping whose format_version, where it has one, is the expected one; todo says what to do."""
    if isinstance(value, Mapping) and "format_version" in value:
        found = value["format_version"]
        if found != expected or isinstance(found, bool):
            raise error(
                f"{what}: expected format_version {expected}, found {_shortened(repr(found))}; {todo}"
            )


def wrong(error: _Error, name: str, expected: str, found: object) -> FieldcubeError:
    """Return the error for one field; long values are shortened."""
    return error(f"{name}: expected {expected}, found {_shortened(repr(found))}")


def _shortened(shown: str) -> str:
    return shown if len(shown) <= _MAX_SHOWN else shown[: _MAX_SHOWN - 3] + "..."
