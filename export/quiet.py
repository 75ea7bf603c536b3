"""Silence for converters that warn about their own internals."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_warnings() -> Iterator[None]:
    """Ignore warnings inside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
