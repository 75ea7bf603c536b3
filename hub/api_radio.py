"""/api: frames that a receiver brings, what recorders with a radio are to be told, and queries for them by satellite."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from edge import require
from edge.downlink import MAX_DOWNLINK_BYTES, Downlink, DownlinkQuery, encode_downlink, split_queries
from edge.encoder import compile_queries
from edge.errors import UsageError
from edge.frames import MAX_FRAME_BYTES, MIN_FRAME_BYTES, SATELLITE_BYTES, to_stream
from edge.query import Query
from hub.api_watchlists import MAX_WATCHLIST_CHARACTERS
from hub.bodies import Bodies
from hub.frame_intake import FrameIntake
from hub.parts import hub_of
from hub.watchlist_explain import read_lines

router = APIRouter(prefix="/api", tags=["radio"])

MAX_FRAMES_BYTES = 4 << 20  # of one request
_NS = 10**9


class DownlinkBody(BaseModel):
    """Queries for one recorder or for all. replaces: those of earlier messages go; max_bytes: of one message."""

    text: str = Field(max_length=MAX_WATCHLIST_CHARACTERS)
    device: str | None = None
    replaces: bool = False
    max_bytes: int = Field(MAX_DOWNLINK_BYTES, ge=128, le=1024)


@router.post("/frames")
async def frames(request: Request) -> dict[str, int]:
    """Take a stream of frames (SLIP, as edge-sync writes it); return how many were kept, wait, and were refused."""
    body = await Bodies(MAX_FRAMES_BYTES, MAX_FRAMES_BYTES).read(request)
    return await run_in_threadpool(_intake(request).take_stream, body)


@router.get("/frames/{device:path}/receipt")
def receipt(request: Request, device: str, max_bytes: int = SATELLITE_BYTES) -> Response:
    """Return the frame, as a stream, that tells a recorder what is kept; 204 where there is nothing to tell yet."""
    require.integer(UsageError, "max_bytes", max_bytes, MIN_FRAME_BYTES, MAX_FRAME_BYTES)
    hub = hub_of(request)
    found = _intake(request).receipt(device, max_bytes, hub.now_ns() // _NS)
    if found is None:
        return Response(status_code=204)
    return Response(to_stream(found), media_type="application/octet-stream")


@router.post("/downlinks")
def downlinks(request: Request, body: DownlinkBody) -> dict[str, Any]:
    """Return signed messages that put the lines of a watchlist onto a recorder; each goes out once, in their order.

    `messages` are hexadecimal, as satellite gateways take them; `stream` is all of them as they stand in a recorder's inbox.
    """
    hub = hub_of(request)
    bundle = hub.required_bundle
    if body.device is not None:
        hub.registry.devices.named(body.device)
    watchlist = compile_queries(bundle, read_lines(body.text))
    groups = split_queries([_by_radio(each) for each in watchlist.queries], body.max_bytes)
    if not groups:
        raise UsageError("text: expected at least one line, found none")
    intake = _intake(request)
    at_s = intake.next_downlink_s(hub.now_ns() // _NS, len(groups))
    sent = [
        encode_downlink(
            intake.hub_key,
            body.device or "",
            watchlist.code_space,
            Downlink(at_s + place, group, body.device is None, body.replaces and place == 0),
            body.max_bytes,
        )
        for place, group in enumerate(groups)
    ]
    return {
        "messages": [each.hex() for each in sent],
        "stream": b"".join(map(to_stream, sent)).hex(),
        "queries": [[query.name for query in group] for group in groups],
    }


def _by_radio(query: Query) -> DownlinkQuery:
    """Return what goes by radio of a line: its name, its code and its number of false alarms."""
    plain = Query(
        query.name, query.text, code=query.code, logits=query.logits, alarms_per_day=query.alarms_per_day
    )
    if query != plain:
        raise UsageError(
            f"{query.name}: expected a sentence and its number of false alarms, found more; by radio go no decoys, no & "
            "and OR, no hours and no other options"
        )
    return DownlinkQuery(query.name, query.code, query.alarms_per_day)


def _intake(request: Request) -> FrameIntake:
    found = request.app.state.frames
    assert isinstance(found, FrameIntake)
    return found
