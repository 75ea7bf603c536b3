"""How long frames are on the air by LoRa, and how much of each hour they may take."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

from edge.errors import ConfigError
from edge.observation import Instant
from edge.store_cursor import SyncCursor

_NS = 10**9
_HOUR_NS = 3600 * _NS
_BANDWIDTH_HZ = 125_000
_PREAMBLE_SYMBOLS = 8 + 4.25
_SLOW_SYMBOL_S = 0.016  # from here on a symbol carries two bits less, so that it survives drift


def airtime_s(n_bytes: int, spreading_factor: int) -> float:
    """Return how long a LoRa packet of n bytes takes, in s, at 125 kHz, coding rate 4/5, with header and checksum.

    Source: Semtech SX1276/77/78/79 datasheet, section 4.1.1.7, time on air.
    """
    symbol_s = (1 << spreading_factor) / _BANDWIDTH_HZ
    bits_of_symbol = spreading_factor - (2 if symbol_s > _SLOW_SYMBOL_S else 0)
    n_blocks = max(0, ceil((8 * n_bytes - 4 * spreading_factor + 28 + 16) / (4 * bits_of_symbol)))
    return (_PREAMBLE_SYMBOLS + 8 + 5 * n_blocks) * symbol_s


class Airtime:
    """Counts the seconds on the air of each hour. overhead_bytes: of a packet beside its frame.

    Raises ConfigError where one frame of frame_bytes, the largest, takes more than seconds_per_hour.
    """

    def __init__(
        self,
        cursor: SyncCursor,
        now: Callable[[], Instant],
        seconds_per_hour: float,
        spreading_factor: int,
        overhead_bytes: int,
        frame_bytes: int,
    ) -> None:
        self._cursor, self._now = cursor, now
        self._seconds_per_hour, self._spreading_factor = seconds_per_hour, spreading_factor
        self._overhead_bytes = overhead_bytes
        if self.of(frame_bytes) > seconds_per_hour:
            raise ConfigError(
                f"lora_airtime_s: expected at least {self.of(frame_bytes):.1f} s, which one frame of {frame_bytes} bytes takes "
                f"at spreading factor {spreading_factor}, found {seconds_per_hour:g}; make frames smaller (bytes= in hub), or "
                "the spreading factor"
            )

    def of(self, frame_bytes: int) -> float:
        """Return how many seconds a frame takes."""
        return airtime_s(frame_bytes + self._overhead_bytes, self._spreading_factor)

    def left_s(self) -> float:
        """Return how many seconds may still be sent now, at least 0."""
        now = self._cursor.running.moment(self._now())
        used = sum(ms for at, ms in self._cursor.running.on_air() if at.passed_ns(now) < _HOUR_NS)
        return max(0.0, self._seconds_per_hour - used / 1000)

    def spend(self, seconds: float) -> None:
        """Count seconds of this hour."""
        now = self._cursor.running.moment(self._now())
        self._cursor.running.add_on_air(now, ceil(seconds * 1000), now.running_ns - _HOUR_NS)
