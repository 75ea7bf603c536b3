"""SiteCalibration: what a recorder has learnt of one query at its site, as it travels with a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge import require
from edge.errors import WireError
from edge.observation import MAX_INT

MAX_SITE_CALIBRATIONS = 1000  # of one batch
MAX_NAME_CHARACTERS = 500
MAX_BINS = 257  # distances 0..256
DIGEST_BYTES = 8
_MAX_QUARTERS = 2**40  # of one count
_MAX_PER_DAY = 1e6


@dataclass(frozen=True, slots=True)
class SiteCalibration:
    """The background of one query at one site.

    digest: of the query's codes and how they are put together, the same at every site; threshold_bits: windows up to so many bits alarm,
    a fraction is the share of time in which one bit more does, None = it cannot alarm yet; wanted_per_day, expected_per_day: false
    alarms a day of listening, expected at that threshold, None = not known; hop_s: from window to window; quarters: quarters of windows
    of the site by distance in bits from `first`, the last of them may stand for all that are further away. Counts fade with time.
    """

    name: str
    digest: bytes
    threshold_bits: float | None
    wanted_per_day: float
    expected_per_day: float | None
    hop_s: float
    first: int
    quarters: tuple[int, ...]

    def __post_init__(self) -> None:
        require.text(WireError, "calibration: name", self.name)
        require.integer(
            WireError, "calibration: characters of the name", len(self.name), 1, MAX_NAME_CHARACTERS
        )
        require.instance(WireError, "calibration: digest", self.digest, (bytes,))
        require.integer(
            WireError, "calibration: bytes of the digest", len(self.digest), DIGEST_BYTES, DIGEST_BYTES
        )
        if self.threshold_bits is not None:
            require.number(WireError, "calibration: threshold", self.threshold_bits, -10_000, 10_000)
        require.number(WireError, "calibration: wanted", self.wanted_per_day, 0, _MAX_PER_DAY)
        if self.expected_per_day is not None:
            require.number(WireError, "calibration: expected", self.expected_per_day, 0, _MAX_PER_DAY)
        require.number(WireError, "calibration: hop", self.hop_s, 0.001, 86_400)
        require.integer(WireError, "calibration: first", self.first, 0, MAX_BINS)
        require.integer(WireError, "calibration: bins", self.first + len(self.quarters), 0, MAX_BINS)
        for each in self.quarters:
            require.integer(WireError, "calibration: count", each, 0, _MAX_QUARTERS)

    @property
    def n_windows(self) -> float:
        """Return how many windows of the site the histogram stands for."""
        return sum(self.quarters) / 4

    @property
    def hours(self) -> float:
        """Return how many hours of the site the histogram stands for."""
        return self.n_windows * self.hop_s / 3600


@dataclass(frozen=True, slots=True)
class SiteCalibrations:
    """Some of a recorder's. at_ns: wall clock when it was learnt; n_queries: how many there are, of which these may be a part."""

    at_ns: int
    n_queries: int
    sites: tuple[SiteCalibration, ...]

    def __post_init__(self) -> None:
        require.integer(WireError, "calibrations: at_ns", self.at_ns, 0, MAX_INT)
        require.integer(WireError, "calibrations: queries", self.n_queries, 0, MAX_INT)
        require.integer(WireError, "calibrations: number", len(self.sites), 0, MAX_SITE_CALIBRATIONS)


def quarters_of(counts: Sequence[float]) -> tuple[int, tuple[int, ...]]:
    """Return (first, quarters) of counts of windows by distance [n_bins], without the empty ends."""
    quarters = [round(4 * each) for each in counts]
    filled = [place for place, each in enumerate(quarters) if each]
    if not filled:
        return 0, ()
    return filled[0], tuple(quarters[filled[0] : filled[-1] + 1])


def record_of(site: SiteCalibration) -> list[object]:
    """Return one of them as CBOR holds it."""
    facts = [site.threshold_bits, site.wanted_per_day, site.expected_per_day, site.hop_s]
    return [site.name, site.digest, *facts, site.first, pack_quarters(site.quarters)]


def encode_calibrations(calibrations: SiteCalibrations) -> list[object]:
    """Return them as CBOR holds them."""
    return [calibrations.at_ns, calibrations.n_queries, [record_of(each) for each in calibrations.sites]]


def decode_calibrations(table: Any) -> SiteCalibrations | None:
    """Return what encode_calibrations made, None for None. Raises WireError, and TypeError or ValueError for another shape."""
    if table is None:
        return None
    at_ns, n_queries, records = table
    require.instance(WireError, "calibrations", records, (list,))
    require.integer(WireError, "calibrations: number", len(records), 0, MAX_SITE_CALIBRATIONS)
    sites = []
    for record in records:
        name, digest, threshold, wanted, expected, hop_s, first, packed = record
        require.instance(WireError, "calibration: histogram", packed, (bytes,))
        quarters = unpack_quarters(packed)
        sites.append(SiteCalibration(name, digest, threshold, wanted, expected, hop_s, first, quarters))
    return SiteCalibrations(at_ns, n_queries, tuple(sites))


def pack_quarters(quarters: Sequence[int]) -> bytes:
    """Return counts as bytes of 7 bits each, the lowest first; the top bit says that more follow (LEB128)."""
    packed = bytearray()
    for each in quarters:
        left = each
        while left > 0x7F:
            packed.append(left & 0x7F | 0x80)
            left >>= 7
        packed.append(left)
    return bytes(packed)


def unpack_quarters(packed: bytes) -> tuple[int, ...]:
    """Return the counts in the bytes of pack_quarters. Raises WireError."""
    most = math.ceil(_MAX_QUARTERS.bit_length() / 7)
    require.integer(WireError, "calibration: bytes of the histogram", len(packed), 0, most * MAX_BINS)
    quarters, value, shift = [], 0, 0
    for byte in packed:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            quarters.append(value)
            value, shift = 0, 0
        elif shift >= 7 * most:
            raise WireError(f"calibration: expected counts of at most {most} bytes, found a longer one")
    if shift:
        raise WireError("calibration: expected whole counts, found one that is cut off")
    return tuple(quarters)
