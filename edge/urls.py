"""URLs of hubs, brokers and databases, as they may be shown."""

from __future__ import annotations


def without_password(url: str) -> str:
    """Return a URL as it may be shown: without the name and password before its host."""
    before, mark, place = url.partition("://")
    return url if place.startswith("/") else f"{before}{mark}{place.rpartition('@')[2]}"
