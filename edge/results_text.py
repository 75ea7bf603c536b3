"""Stored text on a terminal: names, sentences and notes come from files that others wrote."""

from __future__ import annotations


def plain(text: str) -> str:
    """Return text without what would move a terminal's cursor, colour it or turn its direction: a space for each such letter."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
