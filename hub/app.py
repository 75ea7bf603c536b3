"""The hub's ASGI application: what recorders send, in CBOR; what people ask is in routers of other modules."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cbor2
from fastapi import APIRouter, FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from edge.batch import encode_receipt
from edge.errors import FieldcubeError, HubError, WireError
from hub.bodies import Bodies
from hub.clips import keep_clip
from hub.enrolment import MAX_REQUEST_BYTES, enrol
from hub.guard import Guard
from hub.ingest import Ingest
from hub.page_files import PageFiles
from hub.parts import Hub
from hub.refusal import RefusedError
from hub.settings import Settings
from hub.store_registry import Registry

if TYPE_CHECKING:
    from edge.bundle import Bundle
    from hub.archive import Archive

CBOR = "application/cbor"
_DECODING = 4  # messages at once: while one is decoded it takes several times its size


def create_app(
    registry: Registry,
    archive: Archive,
    bundle: Bundle | None,
    settings: Settings,
    ingest: Ingest,
    now_ns: Callable[[], int],
    token: str,
    routers: Sequence[APIRouter] = (),
) -> FastAPI:
    """Return the application. token: what people must bring; routers: of what they ask, below /api."""
    app = FastAPI(
        title="fieldcube hub", version="1", docs_url=None, redoc_url=None
    )  # their pages load from outside
    app.state.hub = Hub(registry, archive, bundle, settings, ingest, now_ns)
    app.add_exception_handler(FieldcubeError, _refused)
    _add_device_routes(app, app.state.hub)
    for router in routers:
        app.include_router(router)
    app.mount("/", PageFiles(), name="page")
    app.add_middleware(Guard, token=token, local_is_free=settings.local_is_free)
    return app


def _add_device_routes(app: FastAPI, hub: Hub) -> None:
    bodies = Bodies(hub.settings.max_body_bytes, hub.settings.max_bodies_bytes)
    small = Bodies(MAX_REQUEST_BYTES, hub.settings.max_body_bytes)
    decoding, entering = asyncio.Semaphore(_DECODING), asyncio.Semaphore(1)

    @app.post("/v1/enrolment", tags=["recorders"], openapi_extra=_body("envelope of purpose enrolment"))
    async def enrolment(request: Request) -> Response:
        """Make a recorder's key known: {"status": "enrolled"} with a valid code, "pending" until a person approves."""
        async with small.reading(request) as body, entering:
            device = await run_in_threadpool(enrol, hub.registry, body, hub.now_ns())
        return _answer(request, {"status": device.status, "fingerprint": device.fingerprint})

    @app.post("/v1/batches", tags=["recorders"], openapi_extra=_body("envelope of purpose batch"))
    async def batches(request: Request) -> Response:
        """Keep a batch; the receipt says what is on the disk."""
        async with bodies.reading(request) as body:
            async with decoding:
                waiting = await run_in_threadpool(hub.ingest.submit, body)
            kept = await asyncio.wrap_future(waiting)  # no thread waits for the disk
        return Response(encode_receipt(kept.receipt), media_type=CBOR)

    @app.post("/v1/clips", tags=["recorders"], openapi_extra=_body("envelope of purpose clip"))
    async def clips(request: Request) -> Response:
        """Keep a clip that somebody asked for."""
        async with bodies.reading(request) as body, decoding:
            await run_in_threadpool(keep_clip, hub.registry, hub.settings.clips_folder, body, hub.now_ns())
        return _answer(request, {"status": "kept"})


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body of a person's request. Raises TooLargeError, BusyError."""
    return await Bodies(limit, limit).read(request)


def status_of(error: FieldcubeError) -> int:
    """Return the HTTP status that an error is answered with."""
    if isinstance(error, RefusedError):
        return error.status
    if isinstance(error, WireError):
        return 400
    return 503 if isinstance(error, HubError) else 422


async def _refused(request: Request, error: Exception) -> Response:
    """Answer an error; recorders get CBOR, people JSON."""
    assert isinstance(error, FieldcubeError)
    headers = {}
    if isinstance(error, RefusedError) and error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    return _answer(request, {"error": str(error)}, status_of(error), headers)


def _answer(
    request: Request, table: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    accepted = request.headers.get("accept", "*/*")
    is_cbor = request.url.path.startswith("/v1/") and "application/json" not in accepted
    content = cbor2.dumps(dict(table)) if is_cbor else json.dumps(table).encode()
    return Response(content, status, headers, media_type=CBOR if is_cbor else "application/json")


def _body(description: str) -> dict[str, Any]:
    """Return what OpenAPI says of a CBOR body."""
    content = {CBOR: {"schema": {"type": "string", "format": "binary"}}}
    return {"requestBody": {"required": True, "description": description, "content": content}}
