"""/api: detections, what people say of them, and how many there were when."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel

from edge.errors import HubError, UsageError
from edge.verdict import ANSWERS, Answer, Verdict
from hub.answers import finite, iso_ns, iso_s
from hub.api_clips import Key, clip_state, key_of_name, key_of_uid
from hub.api_search import searcher_of
from hub.archive import Filter
from hub.asked import asked_for
from hub.parts import Hub, hub_of
from hub.store_registry_devices import Device
from hub.store_registry_views import Asked, Judged, Views

router = APIRouter(prefix="/api", tags=["results"])

MAX_PAGE = 500
MAX_MARKS = 1000


class SaidBody(BaseModel):
    """A verdict about an observation and a query. uid, or device, epoch (text: more digits than JSON keeps) and seq."""

    query: str
    answer: Answer
    uid: int | None = None
    device: str | None = None
    epoch: str | None = None
    seq: int | None = None
    text: str = ""
    distance: int | None = None
    probability: float | None = None
    note: str = ""


@router.get("/detections")
def detections(
    request: Request,
    asked: Annotated[Asked, Depends(asked_for)],
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> dict[str, Any]:
    """Return detections, the newest first, and how many there are by verdict and by recorder."""
    hub = hub_of(request)
    views = Views(hub.registry.database)
    tally = views.tally(asked)
    devices = {device.number: device for device in hub.registry.devices.all()}
    by_device = {devices[number].name: n for number, n in tally.by_device.items()}
    records = [_record(hub, devices, judged) for judged in views.page(asked, limit, offset)]
    return {
        "total": tally.total,
        "verdicts": tally.by_said,
        "by_device": by_device,
        "detections": records,
    }


@router.get("/queries")
def queries(request: Request) -> dict[str, Any]:
    """Return the queries that there are detections of, the most frequent first."""
    found: dict[str, dict[str, Any]] = {}
    for query, text, n in hub_of(request).registry.results.queries():
        each = found.setdefault(query, {"query": query, "text": text, "n": 0})
        each["n"] += n
    return {"queries": sorted(found.values(), key=lambda each: (-each["n"], each["query"]))}


@router.post("/verdicts")
def verdicts(request: Request, body: SaidBody) -> dict[str, Any]:
    """Keep what a person says of an observation and a query; it replaces what was said before."""
    hub = hub_of(request)
    device, epoch, seq = _key_of_body(hub, body)
    judged = Views(hub.registry.database).of(device.number, epoch, seq, body.query)
    detection = None if judged is None else judged.detection
    code_space = None if detection is None else detection.code_space
    if detection is not None:
        text, distance, probability = detection.text, detection.distance, detection.probability
    elif body.distance is not None and 0 <= (body.probability or 0.0) <= 1:
        text, distance, probability = body.text or body.query, body.distance, body.probability or 0.0
    else:
        raise UsageError("verdict: expected distance and probability of what is no detection, found none")
    verdict = Verdict(
        device.name,
        epoch,
        seq,
        body.query,
        text,
        code_space or _code_space(hub, device),
        distance,
        probability,
        body.answer,
        hub.now_ns(),
        body.note,
    )
    hub.registry.results.keep_verdicts([verdict])
    return {
        "device": device.name,
        "epoch": str(epoch),
        "seq": seq,
        "query": body.query,
        "answer": body.answer,
    }


@router.get("/marks")
def marks(
    request: Request, query: str, uid: Annotated[list[int], Query(max_length=MAX_MARKS)]
) -> dict[str, Any]:
    """Return for observations by uid what was said of them and a query, and whether their clip is here."""
    hub = hub_of(request)
    views = Views(hub.registry.database)
    found: dict[str, dict[str, Any]] = {}
    for each in uid:
        identity = hub.registry.results.identity_of(each)
        if identity is None:
            continue
        number, epoch, seq = identity
        name = hub.registry.devices.numbered(number).name
        found[str(each)] = {
            "verdict": views.answer(name, epoch, seq, query),
            "clip": clip_state(hub.registry.people.clip(number, epoch, seq)),
        }
    return {"marks": found, "answers": ANSWERS}


@router.get("/heatmap")
def heatmap(
    request: Request,
    asked: Annotated[Asked, Depends(asked_for)],
    code: Annotated[str, Query(description="of a question, hexadecimal: count what is near it instead")] = "",
    per_day: Annotated[float | None, Query(description="near: so often a day in the background")] = None,
    max_distance: Annotated[int | None, Query(ge=0, le=256, description="near: within so many bits")] = None,
) -> dict[str, Any]:
    """Return how many detections, or windows near a question, there were by day and hour of the day."""
    if not code:
        return heat_of(Views(hub_of(request).registry.database).hours(asked))
    searcher = searcher_of(request)
    try:
        question = searcher.code(bytes.fromhex(code), code)
    except ValueError as error:
        raise UsageError(f"code: expected hexadecimal digits, found {code!r}") from error
    bits = max_distance if per_day is None else searcher.max_distance(question, per_day)
    if bits is None or asked.query is not None or asked.said is not None:
        raise UsageError("code: expected per_day or max_distance, no query and no verdict, found otherwise")
    where = Filter(asked.devices, asked.since_ns, asked.until_ns, asked.hours, asked.utc_offset_s)
    return {**heat_of(searcher.hours(question, where, bits).items()), "max_distance": bits}


def heat_of(hours: Iterable[tuple[int, int]]) -> dict[str, Any]:
    """Return counts by hour since 1970 as {first, last: days, cells: [[day, hour of the day, count], ...]}."""
    cells = [[iso_s(hour * 3600)[:10], hour % 24, n] for hour, n in hours]
    return {
        "first": cells[0][0] if cells else None,
        "last": cells[-1][0] if cells else None,
        "cells": cells,
    }


def _key_of_body(hub: Hub, body: SaidBody) -> Key:
    if body.uid is not None:
        return key_of_uid(hub, body.uid)
    if body.device is None or body.epoch is None or body.seq is None:
        raise UsageError("verdict: expected uid, or device, epoch and seq, found neither")
    return key_of_name(hub, body.device, body.epoch, str(body.seq))


def _code_space(hub: Hub, device: Device) -> str:
    """Return the code space that a device's codes have; of the bundle where none have come."""
    spaces = [space for number, space in hub.archive.counts() if number == device.number]
    if spaces:
        return spaces[-1]
    if hub.bundle is None:
        raise HubError(f"{device.name}: expected codes of it, or a bundle at the hub, found neither")
    return hub.bundle.manifest.code_space


def _record(hub: Hub, devices: dict[int, Device], judged: Judged) -> dict[str, Any]:
    found = judged.detection
    rate_hz = found.sample_rate_hz
    return {
        "uid": found.uid,
        "device": devices[found.device].name,
        "epoch": str(found.epoch),
        "seq": found.seq,
        "query": found.query,
        "text": found.text,
        "started_at": iso_ns(found.wall_ns),
        "received_at": iso_ns(found.received_ns),
        "source": found.source,
        "offset_s": None if rate_hz is None or found.first_sample is None else found.first_sample / rate_hz,
        "duration_s": None if rate_hz is None or found.n_samples is None else found.n_samples / rate_hz,
        "distance": found.distance,
        "probability": found.probability,
        "false_alarms_per_day": finite(found.false_alarms_per_day),
        "verdict": None if judged.verdict is None else judged.verdict.answer,
        "note": "" if judged.verdict is None else judged.verdict.note,
        "clip": clip_state(hub.registry.people.clip(found.device, found.epoch, found.seq)),
    }
