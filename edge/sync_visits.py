"""Visits to the hub: one after the other until all is delivered, or for ever; waiting longer after each failure."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edge.batch import STREAMS, Progress
from edge.clock import Clock, SystemClock
from edge.config import Sync
from edge.device_key import DeviceKey, fingerprint
from edge.errors import BundleError, ConfigError, StoreError, SyncError
from edge.frames_link import FrameLink
from edge.observation import iso_utc
from edge.store_cursor import SyncCursor
from edge.store_epochs import sections
from edge.store_runs import StoreRuns
from edge.sync_airtime import Airtime
from edge.sync_backoff import MAX_RETRY_AFTER_S, delay_s
from edge.sync_budget import Budget
from edge.sync_carrier import Carrier, RefusedError
from edge.sync_client import HttpCarrier
from edge.sync_delivery import Delivery, Totals
from edge.sync_frames import FrameCarrier
from edge.sync_health import health
from edge.sync_mqtt import MqttCarrier
from edge.sync_pace import Pace
from edge.sync_plan import unsettled
from edge.update_install import Installed
from edge.urls import without_password

LOG = logging.getLogger(__name__)

_OWN_HOSTS = ("localhost", "127.0.0.1", "::1")
_NS = 10**9
_MAX_WAIT_NS = int(2 * MAX_RETRY_AFTER_S) * _NS  # longer ones come of a clock that was set back


@dataclass(frozen=True, slots=True)
class Clocks:
    """What time it is, how long things take, waiting, and chance."""

    system: Clock
    now_ns: Callable[[], int]
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]
    jitter: random.Random


def system_clocks() -> Clocks:
    """Return those of this computer."""
    return Clocks(SystemClock(), time.time_ns, time.monotonic, time.sleep, random.Random())


def open_carrier(settings: Sync, key: DeviceKey, store: Path, cursor: SyncCursor, clock: Clock) -> Carrier:
    """Return the way to the hub that its URL names. Raises ConfigError."""
    assert settings.hub is not None
    parts = urlsplit(settings.hub)
    if parts.scheme == "http" and parts.hostname not in _OWN_HOSTS:
        LOG.warning(
            "%s: not encrypted: everybody on the way can read, and invent the hub's answers",
            without_password(settings.hub),
        )
    if parts.scheme in ("http", "https"):
        return HttpCarrier(settings.hub, settings.ca_file)
    if parts.scheme in ("mqtt", "mqtts"):
        return MqttCarrier(settings.hub, settings.ca_file)
    if parts.scheme == "frames":
        link, airtime = FrameLink.of_url(settings.hub), None
        if settings.link == "lora":
            airtime = Airtime(
                cursor,
                clock.now,
                settings.lora_airtime_s,
                settings.lora_spreading_factor,
                settings.lora_overhead_bytes,
                link.n_bytes,
            )
        return FrameCarrier(link, key, store.with_name("frames.json"), store, airtime)
    found = without_password(settings.hub)
    raise ConfigError(f"hub: expected a URL that begins with https, mqtts or frames://, found {found!r}")


def key_path(settings: Sync, store: Path) -> Path:
    """Return where this device's key is."""
    return settings.key or store.with_name("device.key")


def run(
    settings: Sync,
    store: Path,
    clocks: Clocks,
    *,
    for_s: float,
    follow: bool,
    at_once: bool,
    updates: Path | None = None,
) -> Totals:
    """Visit the hub until all is delivered or, with follow, for ever.

    for_s: how long to try again; at_once: also where an earlier run was told to wait; updates: folder of what was installed
    from the hub, which is told there.
    Raises SyncError, StoreError: what failed last; ConfigError: what no visit could change.
    """
    totals, pace = Totals(), Pace(settings.batch_bytes)
    deadline_s = clocks.monotonic() + for_s
    with ExitStack() as stack:
        if not store.is_file():
            StoreRuns.open(store).close()  # says that there is none before files appear beside it
        cursor = stack.enter_context(SyncCursor.open(store))
        key = DeviceKey.open(key_path(settings, store))
        carrier = stack.enter_context(closing(open_carrier(settings, key, store, cursor, clocks.system)))
        visits = _Visits(_named(settings), store, cursor, carrier, key, clocks, pace, totals, updates)
        if not at_once:
            visits.wait_as_told(deadline_s, follow=follow)
        while True:
            wait_s = visits.visit(None if follow else deadline_s)
            if wait_s is None:
                if not follow:
                    return totals
                wait_s = settings.interval_s
            clocks.sleep(wait_s)


@dataclass(slots=True)
class _Visits:
    settings: Sync
    store: Path
    cursor: SyncCursor
    carrier: Carrier
    key: DeviceKey
    clocks: Clocks
    pace: Pace
    totals: Totals
    updates: Path | None

    def visit(self, deadline_s: float | None) -> float | None:
        """Visit once; return how long to wait after a failure, None where it went well.

        Raises what failed where waiting would go beyond the deadline.
        """
        settings, clocks = self.settings, self.clocks
        try:
            with StoreRuns.open(self.store) as runs:  # anew: a damaged store is put aside by edge-monitor
                Delivery(
                    runs,
                    self.cursor,
                    self.carrier,
                    self.key,
                    settings,
                    lambda: (
                        health(runs, clocks.system.now(), clocks.now_ns(), settings.link)
                        | _installed(self.updates)
                    ),
                    clocks.system.now,
                    clocks.now_ns,
                    clocks.monotonic,
                    self.pace,
                    self.totals,
                ).visit()
        except (SyncError, StoreError) as error:
            wait_s = self._failed(error)
            if deadline_s is not None and clocks.monotonic() + wait_s > deadline_s:
                raise
            LOG.warning("%s; trying again in %.0f s", error, wait_s)
            return wait_s
        self._tell()
        return None

    def wait_as_told(self, deadline_s: float, *, follow: bool) -> None:
        """Wait until the time that an earlier run was told. Raises SyncError where that is after the deadline."""
        assert self.settings.hub is not None
        wait_ns = self.cursor.contact(self.settings.hub).not_before_ns - self.clocks.now_ns()
        if not 0 < wait_ns <= _MAX_WAIT_NS:
            return
        if not follow and self.clocks.monotonic() + wait_ns / _NS > deadline_s:
            when = iso_utc(self.clocks.now_ns() + wait_ns)
            raise SyncError(
                f"{self.settings.hub}: failed before, or asked to wait: not before {when}; or give --now"
            )
        self.clocks.sleep(wait_ns / _NS)

    def _failed(self, error: SyncError | StoreError) -> float:
        """Remember a failure; return how long to wait."""
        assert self.settings.hub is not None
        after_s = error.retry_after_s if isinstance(error, RefusedError) else None
        contact = self.cursor.contact(self.settings.hub)
        n_failures = contact.n_failures + 1
        wait_s = delay_s(n_failures, after_s, self.clocks.jitter)
        not_before_ns = self.clocks.now_ns() + int(wait_s * _NS)
        self.cursor.keep_contact(
            self.settings.hub, replace(contact, n_failures=n_failures, not_before_ns=not_before_ns)
        )
        return wait_s

    def _tell(self) -> None:
        if self.totals.is_pending:
            LOG.info(
                "%s: this recorder waits to be approved there; its fingerprint is %s",
                self.settings.hub,
                fingerprint(self.key.public),
            )
        if self.totals.is_over_budget:
            LOG.info(
                "%s: today's bytes are used up (%s a day); the rest goes tomorrow",
                self.settings.hub,
                self.settings.daily_bytes,
            )
        if self.totals.is_over_airtime:
            LOG.info(
                "%s: this hour's %g s on the air are used up; the rest goes at the next visits",
                self.settings.hub,
                self.settings.lora_airtime_s,
            )


def _installed(folder: Path | None) -> dict[str, str | int | bool]:
    """Return which pair runs, {} where none was installed; what is damaged there keeps nothing from being delivered."""
    if folder is None or not Installed(folder).is_begun:
        return {}
    try:
        return Installed(folder).report()
    except BundleError as error:
        LOG.warning("what is installed is not told: %s", error)
        return {}


def _named(settings: Sync) -> Sync:
    """Return settings whose hub is a name that may be logged, told and remembered: no password is in it."""
    return replace(settings, hub=None if settings.hub is None else without_password(settings.hub))


def summary(totals: Totals) -> dict[str, Any]:
    """Return what was done, as edge-sync prints it."""
    return {"type": "sync", **asdict(totals)}


def status(settings: Sync, store: Path, clocks: Clocks) -> dict[str, Any]:
    """Return what waits to be delivered, as far as this side knows. Raises StoreError while another edge-sync runs."""
    settings = _named(settings)
    assert settings.hub is not None
    with StoreRuns.open(store) as runs, SyncCursor.open(store) as cursor:
        contact = cursor.contact(settings.hub)
        parts = sections(runs)
        waiting = dict.fromkeys((f"{stream}_waiting" for stream in STREAMS), 0)
        for part in parts:
            known = cursor.progress(settings.hub, part.epoch)
            for stream, made in zip(STREAMS, part.made(), strict=True):
                ranges = unsettled(Progress(*known.get(stream, (0, ()))), made)
                waiting[f"{stream}_waiting"] += sum(n for _, n in ranges)
        refused = [cursor.refused(settings.hub, part.epoch) for part in parts]
        key = DeviceKey.open(key_path(settings, store))
        return {
            "type": "status",
            "hub": settings.hub,
            "device": runs.device_id,
            "fingerprint": fingerprint(key.public),
            "key": key.public.hex(),
            "enrolled": contact.public == key.public,
            **waiting,
            "epochs": len(parts),
            "refused": sum(len(numbers) for each in refused for numbers in each.values()),
            "last_contact": iso_utc(contact.last_ns) if contact.last_ns else None,
            "failures": contact.n_failures,
            "bytes_today": Budget(cursor, settings.link, None).used(clocks.system.now()),
        }
