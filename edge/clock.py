"""What time it is, by two clocks, and what the wall clock is worth."""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path
from typing import Protocol

from edge.observation import ClockState, Instant

_NS = 1_000_000_000
_PLAUSIBLE_NS = (
    1_735_689_600 * _NS
)  # 2025-01-01: before this program existed, so a clock below it was never set
_TIMEX_BYTES = 256  # struct timex has 208 on 64-bit Linux; mode 0 in its first word asks and changes nothing
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


class Clock(Protocol):
    """The two clocks of a recorder."""

    def now(self) -> Instant:
        """Return the present moment; wall_ns None while the wall clock is unset."""
        ...

    def boottime_ns(self) -> int:
        """Return ns since boot, suspended time included: cheap enough for an audio callback."""
        ...


class SystemClock:
    """The clocks of this computer."""

    def __init__(self) -> None:
        self._boot_id = _first_line(Path("/proc/sys/kernel/random/boot_id"))
        self._has_rtc = Path("/dev/rtc0").exists() or sys.platform != "linux"  # small boards have none

    def now(self) -> Instant:
        """Return the present moment; a clock that nobody has set gives wall_ns None, never a wrong UTC."""
        wall_ns = time.time_ns()
        state = clock_state(wall_ns, synchronised=_synchronised(), has_rtc=self._has_rtc)
        return Instant(self._boot_id, self.boottime_ns(), None if state == "unset" else wall_ns, state)

    def boottime_ns(self) -> int:
        """Return ns since boot, suspended time included where the system can tell."""
        clock_id = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        return time.clock_gettime_ns(clock_id)


def clock_state(wall_ns: int, *, synchronised: bool, has_rtc: bool) -> ClockState:
    """Return what a wall clock is worth: set over the network, kept by a battery, or unset."""
    if wall_ns < _PLAUSIBLE_NS:
        return "unset"
    if synchronised:
        return "ntp"
    return "rtc" if has_rtc else "unset"


def later(instant: Instant, n_samples: int, rate_hz: int) -> Instant:
    """Return the instant of the sample that comes n_samples after that of instant, by the sample counter."""
    passed_ns = n_samples * _NS // rate_hz
    wall_ns = None if instant.wall_ns is None else instant.wall_ns + passed_ns
    return Instant(instant.boot_id, instant.boottime_ns + passed_ns, wall_ns, instant.clock_state)


def _synchronised() -> bool:
    """Ask the kernel whether a time service (timesyncd, chrony, ntpd, gpsd behind one) holds the clock."""
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError, TypeError):  # no such call outside Linux
        return False
    answer = int(adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))
    return 0 <= answer < _TIME_ERROR


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
