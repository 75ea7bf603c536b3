"""/api/exports: detections, and the effort behind them, in the formats of other programs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from starlette.background import BackgroundTask

from edge import __version__
from edge.errors import HubError
from hub.answers import iso_s
from hub.asked import asked_for
from hub.camtrap import Package, write_camtrap
from hub.darwin_core import occurrence_lines
from hub.effort import hours_of, minutes_of, span_s
from hub.exports import Row, csv_lines, table_lines, write_audacity, write_parquet, write_raven
from hub.parts import Hub, hub_of
from hub.store_registry_views import Asked, Views
from hub.taxa import taxa_of

router = APIRouter(prefix="/api/exports", tags=["exports"])

SOFTWARE = f"fieldcube {__version__}"
_EFFORT = ("recorder", "hour", "n_windows", "minutes")
_NS = 10**9

Taxa = Annotated[list[str] | None, Query(description="QUERY=SCIENTIFIC NAME; may come more than once")]


@router.get("/csv", response_class=StreamingResponse)
def export_csv(request: Request, asked: Annotated[Asked, Depends(asked_for)]) -> Response:
    """Return detections as CSV, the oldest first."""
    return _text(csv_lines(rows_of(hub_of(request), asked)), "detections.csv")


@router.get("/parquet", response_class=FileResponse)
def export_parquet(request: Request, asked: Annotated[Asked, Depends(asked_for)]) -> Response:
    """Return detections as Parquet."""
    rows = rows_of(hub_of(request), asked)
    return _file("detections.parquet", lambda path: write_parquet(rows, path))


@router.get("/raven", response_class=FileResponse)
def export_raven(request: Request, asked: Annotated[Asked, Depends(asked_for)]) -> Response:
    """Return a zip with a Raven selection table for each recording."""
    rows = rows_of(hub_of(request), asked)
    return _file("raven.zip", _opened(lambda file: write_raven(rows, file)))


@router.get("/audacity", response_class=FileResponse)
def export_audacity(request: Request, asked: Annotated[Asked, Depends(asked_for)]) -> Response:
    """Return a zip with an Audacity label track for each recording."""
    rows = rows_of(hub_of(request), asked)
    return _file("audacity.zip", _opened(lambda file: write_audacity(rows, file)))


@router.get("/dwc", response_class=StreamingResponse)
def export_darwin_core(
    request: Request, asked: Annotated[Asked, Depends(asked_for)], taxon: Taxa = None
) -> Response:
    """Return Darwin Core occurrences as CSV."""
    lines = occurrence_lines(rows_of(hub_of(request), asked), taxa_of(taxon or ()), SOFTWARE)
    return _text(lines, "occurrences.csv")


@router.get("/camtrap", response_class=FileResponse)
def export_camtrap(
    request: Request,
    asked: Annotated[Asked, Depends(asked_for)],
    taxon: Taxa = None,
    title: Annotated[str, Query(max_length=200)] = "Detections of fieldcube recorders",
    contributor: Annotated[str, Query(max_length=200)] = "fieldcube hub",
) -> Response:
    """Return a Camtrap DP 1.0.2 data package as a zip, with the clips that are here."""
    hub = hub_of(request)
    package = Package(title, hub.now_ns() // _NS, contributor, taxa_of(taxon or ()), SOFTWARE)
    periods = {}
    for device in hub.registry.devices.all():
        if asked.devices is None or device.number in asked.devices:
            found = span_s(minutes_of(hub.archive, device.number, asked.since_ns, asked.until_ns))
            if found is not None:
                periods[device.name] = found
    rows = rows_of(hub, asked)
    clips = hub.settings.clips_folder
    return _file("camtrap-dp.zip", _opened(lambda file: write_camtrap(package, rows, periods, clips, file)))


@router.get("/effort", response_class=StreamingResponse)
def export_effort(request: Request, asked: Annotated[Asked, Depends(asked_for)]) -> Response:
    """Return for each recorder and hour how many minutes it listened: what was not heard there is no absence."""
    hub = hub_of(request)

    def hours() -> Iterator[dict[str, Any]]:
        for device in hub.registry.devices.all():
            if asked.devices is None or device.number in asked.devices:
                minutes = minutes_of(hub.archive, device.number, asked.since_ns, asked.until_ns)
                for each in hours_of(minutes):
                    values = (device.name, iso_s(each.start_s), each.n_windows, each.minutes)
                    yield dict(zip(_EFFORT, values, strict=True))

    return _text(table_lines(_EFFORT, hours()), "effort.csv")


def rows_of(hub: Hub, asked: Asked) -> Iterator[Row]:
    """Give detections for an export, the oldest first."""
    devices = {device.number: device for device in hub.registry.devices.all()}
    for judged in Views(hub.registry.database).all(asked):
        found = judged.detection
        clip = hub.registry.people.clip(found.device, found.epoch, found.seq)
        yield Row(devices[found.device], judged, None if clip is None else clip.file)


def _text(lines: Iterable[str], name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(lines, media_type="text/csv; charset=utf-8", headers=headers)


def _file(name: str, write: Callable[[Path], None]) -> Response:
    """Return what write puts into a file, which is removed when it has been sent."""
    with tempfile.NamedTemporaryFile(prefix="fieldcube-", suffix=f"-{name}", delete=False) as made:
        path = Path(made.name)
    try:
        write(path)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise HubError(f"{path}: expected room for an export, found {error}") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return FileResponse(path, filename=name, background=BackgroundTask(path.unlink, missing_ok=True))


def _opened(write: Callable[[IO[bytes]], None]) -> Callable[[Path], None]:
    def write_to(path: Path) -> None:
        with path.open("wb") as file:
            write(file)

    return write_to
