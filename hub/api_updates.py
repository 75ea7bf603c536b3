"""/v1/updates: what the publisher has signed, for recorders; nothing of it is secret, and the keys lie elsewhere."""

from __future__ import annotations

import re

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response

from hub.parts import hub_of
from hub.refusal import UnknownError

router = APIRouter(prefix="/v1/updates", tags=["recorders"])

_METADATA = re.compile(r"timestamp\.json|[0-9]{1,9}\.(root|targets|snapshot)\.json")
_TARGET = re.compile(r"(pairs|files)/[0-9a-f]{64}\.[A-Za-z0-9_-]{1,64}(\.json)?")


@router.get("/metadata/{name}")
def metadata(request: Request, name: str) -> Response:
    """Return a file of signed metadata."""
    return _file(request, "metadata", name, _METADATA)


@router.get("/targets/{path:path}")
def targets(request: Request, path: str) -> Response:
    """Return the description of a pair, or a file that one names."""
    return _file(request, "targets", path, _TARGET)


def _file(request: Request, folder: str, name: str, allowed: re.Pattern[str]) -> Response:
    path = hub_of(request).settings.updates_folder / folder / name
    if not allowed.fullmatch(name) or not path.is_file():
        raise UnknownError(f"updates: expected something that is published, found {name!r}")
    return FileResponse(path, media_type="application/octet-stream", headers={"Cache-Control": "no-cache"})
