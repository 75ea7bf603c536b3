"""Reconciliation: a registry and an archive that are not of the same moment made one again, before anything is taken in.

What the registry says is in the archive and is not, recorders are asked for again. What only the archive has is entered in the
registry; where that cannot be, it is set aside in a file of its own. Nothing is lost silently, and nothing is there twice.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import islice

from edge.batch import Range
from edge.errors import HubError
from hub.archive import Archive, ArchiveBlock
from hub.archive_blocks import joined
from hub.archive_sqlite import SqliteArchive
from hub.digests import run_digests
from hub.store_registry import Registry
from hub.store_registry_repair import Repair, without

log = logging.getLogger(__name__)

_BLOCKS_AT_ONCE = 256


def reconcile(registry: Registry, archive: Archive, now_ns: int, *, ask_again: bool = False) -> None:
    """Make a registry and an archive agree; nothing may be taken in meanwhile.

    ask_again: also where the archive is empty, which may as well be a wrong place. Raises HubError, which says what to do,
    where a person must decide.
    """
    repair = Repair(registry.database)
    (kept, wanted), found = repair.uids(), list(archive.ranges())
    lost, unknown = without(wanted, found), without(found, kept)
    if lost and not found and not ask_again:
        raise HubError(
            f"{registry.database.path}: expected the archive of {_n(wanted)} observations, found an empty one; give its place with "
            "--archive, or bring it back with edge-hub restore, or start once with --ask-again: recorders then send again what "
            "they still have"
        )
    if unknown and not repair.n_devices():
        raise HubError(
            f"{registry.database.path}: expected the registry of an archive that has {_n(unknown)} observations, found an empty one; "
            "bring it back with edge-hub restore, or begin anew with another --archive"
        )
    if lost:
        by_device = ", ".join(f"{n} of {name}" for name, n in repair.forget(lost).items())
        log.warning(
            "the archive lacks %d observations that had come (%s); recorders are asked for them again, folders of recordings "
            "must be indexed anew under another --name",
            _n(lost),
            by_device,
        )
    if unknown:
        _enter(registry, repair, archive, unknown, now_ns)


def _enter(
    registry: Registry, repair: Repair, archive: Archive, unknown: Sequence[Range], now_ns: int
) -> None:
    """Enter in the registry what only the archive has, and set aside what cannot be."""
    left: list[Range] = []
    for first, n in unknown:
        walk, n_left = archive.blocks(first), n
        while n_left > 0:
            blocks = _until(list(islice(walk, _BLOCKS_AT_ONCE)), first + n)
            n_left -= sum(block.n for block in blocks)
            digested = [
                (block, run_digests(block.run, block.run.unpacked(), registry.intake.digest_key))
                for block in blocks
            ]
            left += [(block.first_uid, block.n) for block in repair.adopt(digested, now_ns)]
    repair.begin_behind(unknown[-1][0] + unknown[-1][1])
    log.warning("the archive is newer: %d observations entered in the registry", _n(unknown) - _n(left))
    if left:
        _set_aside(archive, joined(left))


def _until(blocks: Sequence[ArchiveBlock], end: int) -> list[ArchiveBlock]:
    """Return blocks, or what of them lies before a uid. Raises HubError where there is nothing more."""
    found = [
        block
        if block.first_uid + block.n <= end
        else ArchiveBlock(
            block.first_uid, block.device, block.epoch, block.run.part(0, end - block.first_uid)
        )
        for block in blocks
        if block.first_uid < end
    ]
    if not found:
        raise HubError(
            f"archive: expected observations up to uid {end}, found fewer; is another hub at work on it?"
        )
    return found


def _set_aside(archive: Archive, left: Sequence[Range]) -> None:
    """Move observations of unknown recorders, or that came again meanwhile, into a file beside the archive."""
    if not isinstance(archive, SqliteArchive):
        raise HubError(
            f"archive: expected observations that the registry knows, found {_n(left)} from uid {left[0][0]} on of recorders that it "
            "does not know, or that came again; remove them there (DELETE ... WHERE uid ...), or start with another --archive"
        )
    path = archive.path.with_name(f"{archive.path.stem}-set-aside-{left[0][0]}.sqlite")
    aside = SqliteArchive.open(path)
    try:
        for first, n in left:
            walk, n_left = archive.blocks(first), n
            while n_left > 0:
                blocks = _until(list(islice(walk, _BLOCKS_AT_ONCE)), first + n)
                aside.add(blocks)
                n_left -= sum(block.n for block in blocks)
    finally:
        aside.close()
    archive.remove(left)
    log.warning(
        "%d observations of recorders that the registry does not know, or that came again, are in %s now",
        _n(left),
        path,
    )


def _n(ranges: Sequence[Range]) -> int:
    return sum(n for _, n in ranges)
