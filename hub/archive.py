"""The archive's interface: blocks of codes in, nearest observations out. One conformance suite holds every engine to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edge.batch import Range, Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ArchiveBlock:
    """A run of one device's observations with the numbers they have in the archive.

    first_uid: uid of its first observation; the others follow. uids are given once, in the order of arrival, by
    hub.registry, and order ties. device: number of the device in the registry.
    """

    first_uid: int
    device: int
    epoch: int
    run: Run

    @property
    def n(self) -> int:
        """Return how many observations it holds."""
        return self.run.n


@dataclass(frozen=True, slots=True)
class Filter:
    """Which observations a search may find; None = all.

    devices: numbers; since_ns <= wall_ns < until_ns, UTC; hours: of the day, 0..23, of the clock that is
    utc_offset_s ahead of UTC. What has no wall clock is in no period and no hour.
    """

    devices: frozenset[int] | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    hours: frozenset[int] | None = None
    utc_offset_s: int = 0


@dataclass(frozen=True, slots=True)
class ArchiveHit:
    """An observation that a search found. distance: bits; wall_ns: None where unknown; times of its source as in edge."""

    uid: int
    device: int
    epoch: int
    seq: int
    distance: int
    wall_ns: int | None
    source: str
    first_sample: int
    n_samples: int
    sample_rate_hz: int


class Archive(Protocol):
    """Where codes are kept. All methods raise ArchiveError; implementations are safe to call from several threads."""

    def add(self, blocks: Sequence[ArchiveBlock]) -> None:
        """Keep blocks; they are on the disk when it returns. A block that is there already (its first_uid) stays as it is."""

    def search(
        self,
        codes: NDArray[np.uint8],  # [n_queries, n_bytes], a prefix where shorter than what is kept
        code_space: str,
        k: int,
        where: Filter,
        max_distance: Sequence[int] | None = None,  # one for each query: all within it, k at most
    ) -> list[list[ArchiveHit]]:
        """Return for each query the k nearest by (distance, uid), exact."""

    def histogram(
        self, code: NDArray[np.uint8], code_space: str, where: Filter, max_distance: int, bin_s: int
    ) -> Mapping[int, int]:
        """Return how many observations lie within max_distance, by floor(wall_ns / 1e9 / bin_s)."""

    def counts(self) -> Mapping[tuple[int, str], int]:
        """Return how many observations there are of each (device, code space)."""

    def blocks(self, first_uid: int = 0) -> Iterator[ArchiveBlock]:
        """Walk through everything in the order of uid, for migration and export; blocks may be cut otherwise than they came."""

    def ranges(self) -> Sequence[Range]:
        """Return the uids that are there as (first, n) in order, those side by side as one."""

    def codes_of(self, uids: Sequence[int]) -> Mapping[int, bytes]:
        """Return the codes of those observations that are there, by uid: to search by one of them, or to rank anew."""

    def close(self) -> None:
        """Free what is held."""
