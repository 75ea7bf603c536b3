"""UTF-8 for everything that is stored or printed, also where a path has other bytes or a terminal another encoding."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TextIO

_BYTE = re.compile("[\udc80-\udcff]")  # how Python holds a byte of a path or an argument that is no UTF-8
_SURROGATE = re.compile("[\ud800-\udfff]")


def is_utf8(text: str) -> bool:
    """Return whether text can be encoded: it has no lone surrogates."""
    return text.isascii() or _SURROGATE.search(text) is None


def shown(path: Path | str) -> str:
    r"""Return a path as text that any file or database takes: a byte that is no UTF-8 becomes \xff."""
    text = str(path)
    if is_utf8(text):
        return text
    text = _BYTE.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def print_utf8(stream: TextIO) -> None:
    """Make a stream write UTF-8 whatever the locale is; a command calls it for stdout before it says anything."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
