"""The registry's part in radio frames: when detections were whose observations have not come, and what is settled."""

from __future__ import annotations

from collections.abc import Iterable

from edge.batch import Progress, Stream
from hub.store_registry_database import Database
from hub.store_registry_ranges import progress


def tell_times(
    database: Database, device: int, epoch: int, times: Iterable[tuple[int, int | None]], code_space: str
) -> None:
    """Tell detections by seq when they were, UTC in ns; what an observation says, once it comes, goes before this."""
    with database.writing() as connection:
        connection.executemany(
            "UPDATE detection SET wall_ns = ?, code_space = ? WHERE device = ? AND epoch = ? AND seq = ?"
            " AND uid IS NULL AND wall_ns IS NULL",
            [(wall_ns, code_space, device, epoch, seq) for seq, wall_ns in times if wall_ns is not None],
        )


def settled(database: Database, device: int, epoch: int, stream: Stream) -> Progress:
    """Return what the hub keeps of a stream."""
    with database.reading() as connection:
        return progress(connection, device, epoch, stream)
