"""Blocks of an archive cut otherwise: into pieces that are cheap to read one by one, each with its own few names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import numpy as np

from edge.batch import Range, Run
from edge.errors import ArchiveError
from edge.store_blocks import Columns, pack_columns, planes_of
from hub.archive import ArchiveBlock

if TYPE_CHECKING:
    from numpy.typing import NDArray


def cut(block: ArchiveBlock, most: int) -> Iterator[tuple[ArchiveBlock, Columns]]:
    """Give a block in pieces of at most `most` observations, with their columns.

    Raises WireError for a run whose columns are damaged, StoreError for codes that are.
    """
    run = block.run
    columns, planes = run.unpacked(), planes_of(run.codes, run.n)
    if run.n <= most:
        yield block, columns
        return
    for start in range(0, run.n, most):
        stop = min(start + most, run.n)
        part = Columns(*(getattr(columns, field.name)[start:stop] for field in fields(Columns)))
        source, sources = _only_used(part.source, run.sources)
        boot, boots = _only_used(part.boot, run.boots)
        own = replace(part, source=source, boot=boot)
        codes = planes[:, start:stop].astype("<u8").tobytes()
        piece = Run(
            run.first_seq + start, stop - start, run.code_space, sources, boots, pack_columns(own), codes
        )
        yield ArchiveBlock(block.first_uid + start, block.device, block.epoch, piece), own


def after(block: ArchiveBlock, first_uid: int) -> ArchiveBlock:
    """Return the part of a block from first_uid on, which lies in it or before it. Raises WireError."""
    start = first_uid - block.first_uid
    if start <= 0:
        return block
    return ArchiveBlock(first_uid, block.device, block.epoch, block.run.part(start, block.n))


def joined(ranges: Iterable[Range]) -> list[Range]:
    """Return ranges (first, n) in order, those side by side or one over the other as one."""
    found: list[Range] = []
    for first, n in sorted(ranges):
        if found and first <= found[-1][0] + found[-1][1]:
            start, before = found[-1]
            found[-1] = (start, max(before, first + n - start))
        else:
            found.append((first, n))
    return found


def _only_used(ids: NDArray[np.int64], names: tuple[str, ...]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return ids in a list of only those names that occur."""
    used, renumbered = np.unique(ids, return_inverse=True)
    return renumbered.astype(np.int64), tuple(names[each] for each in used)


def require_codes(place: str, widths: Mapping[str, int], code_space: str, n_planes: int) -> None:
    """Raise ArchiveError where an archive that is not empty has no codes that a query could be compared with.

    place: of the archive; widths: the most planes of each code space that it has; n_planes: of the query.
    """
    if widths and code_space not in widths:
        raise ArchiveError(
            f"{place}: expected codes of code space {code_space}, found only those of "
            f"{', '.join(sorted(widths))}; search with the bundle that made them"
        )
    if widths and widths[code_space] < n_planes:
        raise ArchiveError(
            f"{place}: expected codes of {64 * n_planes} bits in code space {code_space}, found "
            f"{64 * widths[code_space]}; search with a prefix"
        )
