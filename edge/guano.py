"""GUANO metadata (guano-md.org, version 1.0): `key: value` lines that travel inside a recording."""

from __future__ import annotations

from collections.abc import Mapping

VERSION_KEY = "GUANO|Version"
VERSION = "1.0"


def compose(fields: Mapping[str, str]) -> str:
    r"""Return the text of a GUANO block, version first; line breaks in a value are written `\n`."""
    lines = [f"{VERSION_KEY}: {VERSION}"]
    for key, value in fields.items():
        if ":" in key or "\n" in key:
            raise ValueError(f"GUANO key: expected no colon and no line break, found {key!r}")
        lines.append(f"{key}: {value}".replace("\r", "").replace("\n", "\\n"))
    return "\n".join(lines) + "\n"


def parse(text: str) -> dict[str, str]:
    """Return the fields of a GUANO block, without the version; empty where the text is not GUANO."""
    lines = text.strip("\0 \r\n\ufeff").splitlines()
    if not lines or not lines[0].startswith(VERSION_KEY):
        return {}
    pairs = (line.partition(":") for line in lines[1:])
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}
