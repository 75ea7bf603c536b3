"""Migration: everything of one archive into another, whatever their engines, verified by counts and digests."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from edge.codes import from_planes
from edge.errors import ArchiveError, FieldcubeError
from edge.store_blocks import Columns, planes_of
from edge.utf8 import print_utf8
from hub.archive import Archive, ArchiveBlock
from hub.archive_engines import open_archive

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCKS_AT_ONCE = 256  # handed to add() together: one sync, one insert
_EXAMPLE = """example:
  edge-hub migrate sqlite:/srv/fieldcube/archive.sqlite clickhouse://hub:secret@db1:8123
  (stop the hub first; afterwards start it with --archive and the new place)"""


@dataclass(frozen=True, slots=True)
class Digest:
    """What an archive holds. blake2b: of every observation in the order of uid, however it is cut into blocks."""

    n: int
    blake2b: str


def migrate(source: Archive, target: Archive, progress: Callable[[int], object] = lambda _n: None) -> Digest:
    """Copy what target lacks, then compare both; a copy that was broken off is continued where it was.

    progress: called with a number of observations, first for those copied, then for those compared.
    Returns the digest that both have. Raises ArchiveError where they differ, or one cannot be read or written.
    """
    _copy(source.blocks(), target, progress)  # what is there stays as it is
    if source.counts() != target.counts():  # grown since an earlier copy, within the last block of it
        _copy(source.blocks(_end(target)), target, progress)
    ours, theirs = source.counts(), target.counts()
    if ours != theirs:
        different = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
        device, space = different[0]
        raise ArchiveError(
            f"migration: expected {ours.get(different[0], 0)} observations of device {device} in {space}, found "
            f"{theirs.get(different[0], 0)}, and {len(different) - 1} more that differ; give an empty target"
        )
    wanted, found = digest(source, progress), digest(target, progress)
    if wanted != found:
        raise ArchiveError(
            f"migration: expected the digest {wanted.blake2b} of {wanted.n} observations, found {found.blake2b} of "
            f"{found.n}; keep the source, and give an empty target"
        )
    return found


def digest(archive: Archive, progress: Callable[[int], object] = lambda _n: None) -> Digest:
    """Return the digest of an archive. Raises ArchiveError."""
    total, n = hashlib.blake2b(digest_size=16), 0
    for block in archive.blocks():
        total.update(_rows(block).tobytes())
        n += block.n
        progress(block.n)
    return Digest(n, total.hexdigest())


def _copy(walk: Iterator[ArchiveBlock], target: Archive, progress: Callable[[int], object]) -> None:
    while some := list(islice(walk, _BLOCKS_AT_ONCE)):
        target.add(some)
        progress(sum(block.n for block in some))


def _end(archive: Archive) -> int:
    """Return the uid behind the last one."""
    return max((block.first_uid + block.n for block in archive.blocks()), default=0)


def _rows(block: ArchiveBlock) -> NDArray[Any]:
    """Return a block as bytes [n, m] in which every observation is said alike wherever the block was cut."""
    run, columns = block.run, block.run.unpacked()
    names = {"source": run.sources, "boot": run.boots}
    parts: list[NDArray[Any]] = [
        block.first_uid + np.arange(run.n),
        np.full(run.n, block.device),
        np.full(run.n, block.epoch),
        run.first_seq + np.arange(run.n),
        np.full(run.n, _name_digest(run.code_space)),
        np.full(run.n, len(run.codes) // run.n),
    ]
    for field in fields(Columns):
        values: NDArray[np.int64] = getattr(columns, field.name)
        if field.name in names:
            values = np.array([_name_digest(name) for name in names[field.name]], np.int64)[values]
        parts.append(values)
    numbers = np.stack([part.astype("<i8") for part in parts], axis=1).view(np.uint8)
    codes = from_planes(planes_of(run.codes, run.n))
    return np.concatenate([numbers, codes], axis=1)


def _name_digest(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little", signed=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("source", help="sqlite:PATH, chdb:PATH or clickhouse://USER:PASSWORD@HOST:8123")
    parser.add_argument("target", help="the same; created where there is none")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLE


def run_migration(source_place: str, target_place: str) -> Digest:
    """Open both archives and migrate, with a progress bar on stderr where that is a terminal. Raises ArchiveError."""
    source = open_archive(source_place)
    try:
        target = open_archive(target_place)
        try:
            n = sum(source.counts().values())
            with tqdm(total=3 * n, unit="obs", unit_scale=True, disable=not sys.stderr.isatty()) as bar:
                return migrate(source, target, bar.update)
        finally:
            target.close()
    finally:
        source.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the migration; return 0, 1 when it failed."""
    print_utf8(sys.stdout)
    parser = argparse.ArgumentParser(prog="python -m hub.migration", description=__doc__)
    add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        found = run_migration(args.source, args.target)
    except FieldcubeError as error:
        print(f"migration: error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{found.n} observations, blake2b {found.blake2b} of both")
    return 0


if __name__ == "__main__":
    sys.exit(main())
