"""/api: recorders, where they stand and how they are; enrolment codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from edge.errors import UsageError
from hub.answers import finite, iso_ns, iso_s
from hub.effort import coverage
from hub.enrolment import DEFAULT_VALID_S, new_code
from hub.parts import Hub, hub_of
from hub.store_registry_devices import Device, Status
from hub.store_registry_results import Effort
from hub.store_registry_views import Views

router = APIRouter(prefix="/api", tags=["fleet"])

GOOD_S, LATE_S = 26 * 3600, 72 * 3600  # since the last code: a delivery a day is good
MAX_DAYS = 92
_NS = 10**9


class DeviceBody(BaseModel):
    """What a person changes of a recorder; what is left out stays as it is."""

    status: Status | None = None
    title: str | None = Field(None, max_length=80)
    latitude: float | None = None
    longitude: float | None = None


class CodeBody(BaseModel):
    """For which recorder a code is, None = any new one."""

    device: str | None = None


@router.get("/devices")
def devices(request: Request) -> dict[str, Any]:
    """Return all recorders: where they stand, how they are, how much of theirs is here."""
    hub = hub_of(request)
    now_ns = hub.now_ns()
    n_detections = Views(hub.registry.database).n_detections()
    efforts: dict[int, list[Effort]] = {}
    for each in hub.registry.results.efforts():
        efforts.setdefault(each.device, []).append(each)
    return {
        "now": iso_ns(now_ns),
        "devices": [
            _device(device, efforts.get(device.number, []), n_detections.get(device.number, 0), now_ns)
            for device in hub.registry.devices.all()
        ],
    }


@router.get("/devices/{name:path}/coverage")
def device_coverage(
    request: Request, name: str, days: Annotated[int, Query(ge=1, le=MAX_DAYS)] = 7
) -> dict[str, Any]:
    """Return how much of the last days a recorder listened, by its codes that are here; hours of UTC."""
    hub = hub_of(request)
    found = coverage(hub.archive, hub.registry.devices.named(name).number, hub.now_ns(), days)
    first_s = (hub.now_ns() // _NS // 86_400 - days + 1) * 86_400
    return {
        "share": found.share,
        "last_at": None if found.last_s is None else iso_s(found.last_s),
        "days": [
            {"day": iso_s(first_s + 86_400 * day)[:10], "hours": found.hours[24 * day : 24 * day + 24]}
            for day in range(days)
        ],
    }


@router.get("/devices/{name:path}")
def device(request: Request, name: str) -> dict[str, Any]:
    """Return a recorder with its gaps, what it has lost, and what came twice and differed."""
    hub = hub_of(request)
    found = hub.registry.devices.named(name)
    results = hub.registry.results
    return {
        **_device(
            found,
            results.efforts(found.number),
            Views(hub.registry.database).n_detections().get(found.number, 0),
            hub.now_ns(),
        ),
        "events": [
            {
                "kind": each.kind,
                "source": each.source,
                "n_samples": each.n_samples,
                "offset_s": each.first_sample / max(each.sample_rate_hz, 1),
                "duration_s": each.n_samples / max(each.sample_rate_hz, 1),
                "before_seq": each.before_seq,
                "reason": each.reason,
                "received_at": iso_ns(each.received_ns),
            }
            for each in results.events(found.number)
        ],
        "dropped": [
            {"epoch": str(epoch), "first_seq": first, "n": n, "reason": reason}
            for epoch, first, n, reason in results.dropped(found.number)
        ],
        "conflicts": _conflicts(hub, found.number),
    }


@router.post("/devices/{name:path}")
def change_device(request: Request, name: str, body: DeviceBody) -> dict[str, Any]:
    """Approve or revoke a recorder, say what it is called and where it stands."""
    hub = hub_of(request)
    kept = hub.registry.devices
    found = kept.named(name)
    if body.status == "pending":
        raise UsageError("status: expected enrolled or revoked, found pending")
    if {"latitude", "longitude"} & body.model_fields_set:
        found = kept.set_place(name, body.latitude, body.longitude)
    if body.title is not None:
        found = kept.set_title(name, body.title.strip())
    if body.status is not None:
        found = kept.set_status(name, body.status)
    return {"name": found.name, "title": found.title, "status": found.status}


@router.post("/enrolment-codes")
def enrolment_code(request: Request, body: CodeBody) -> dict[str, Any]:
    """Make a code that lets one recorder in, once."""
    hub = hub_of(request)
    now_ns = hub.now_ns()
    code = new_code(hub.registry, body.device, now_ns)
    return {"code": code, "device": body.device, "until": iso_ns(now_ns + int(DEFAULT_VALID_S * _NS))}


@router.get("/health")
def health(request: Request) -> dict[str, Any]:
    """Return how many recorders are in which state, and what came twice and differed."""
    hub = hub_of(request)
    states: dict[str, int] = {}
    for each in hub.registry.devices.all():
        state = state_of(each, hub.now_ns())
        states[state] = states.get(state, 0) + 1
    return {"states": states, "conflicts": _conflicts(hub)}


def state_of(device: Device, now_ns: int) -> str:
    """Return pending, revoked, never, good, late or silent: by when the recorder last wrote a code, as far as the hub knows."""
    if device.status != "enrolled":
        return device.status
    last_ns = last_code_ns(device, now_ns)
    if last_ns is None:
        return "never"
    age_s = (now_ns - last_ns) / _NS
    return "good" if age_s <= GOOD_S else "late" if age_s <= LATE_S else "silent"


def last_code_ns(device: Device, now_ns: int) -> int | None:
    """Return when a recorder last wrote a code: as its heartbeat says, else when something new last came.

    A clock that is not set, or ahead of the hub's, tells nothing.
    """
    told = device.health.get("last_code_ns")
    if isinstance(told, int) and 0 < told <= now_ns and device.health.get("clock") != "unset":
        return told
    return device.seen_ns


def _device(device: Device, efforts: Sequence[Effort], n_detections: int, now_ns: int) -> dict[str, Any]:
    n_kept, n_dropped = sum(each.n_kept for each in efforts), sum(each.n_dropped for each in efforts)
    n_made = sum(each.n_made for each in efforts)
    return {
        "name": device.name,
        "title": device.title,
        "status": device.status,
        "state": state_of(device, now_ns),
        "fingerprint": device.fingerprint,
        "latitude": device.latitude,
        "longitude": device.longitude,
        "added_at": iso_ns(device.added_ns),
        "seen_at": iso_ns(device.seen_ns),
        "last_code_at": iso_ns(last_code_ns(device, now_ns)),
        "n_observations": n_kept,
        "n_missing": max(0, n_made - n_kept - n_dropped),
        "n_dropped": n_dropped,
        "n_detections": n_detections,
        "health_at": iso_ns(device.health_at_ns),
        "health": _plain(device.health),
    }


def _plain(health: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a heartbeat that JSON and a browser can hold."""
    return {
        key: value if isinstance(value, bool) or not isinstance(value, (int, float)) else finite(value)
        for key, value in health.items()
        if isinstance(value, (str, bool, int, float)) and key not in ("at_ns", "last_code_ns")
    }


def _conflicts(hub: Hub, number: int | None = None) -> list[dict[str, Any]]:
    names = {device.number: device.name for device in hub.registry.devices.all()}
    return [
        {
            "device": names[each.device],
            "stream": each.stream,
            "first": each.first,
            "n": each.n,
            "n_times": each.n_times,
            "first_at": iso_ns(each.first_ns),
            "last_at": iso_ns(each.last_ns),
        }
        for each in hub.registry.results.conflicts(number)
    ]
