"""Camtrap DP 1.0.2: detections as a data package for GBIF, Agouti and others. Its "observation" is our detection; mapped here alone.

https://camtrap-dp.tdwg.org. A recorder is a deployment, from its first window to its last. A clip that is here, or the file in which
something was detected, is a medium. What people called wrong is left out; what nobody judged says so with its probability.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import uuid
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from edge.errors import UsageError
from hub.answers import iso_s
from hub.exports import Row

VERSION = "1.0.2"
_URL = f"https://raw.githubusercontent.com/tdwg/camtrap-dp/{VERSION}"
_NS = 10**9
_DEPLOYMENTS = (
    "deploymentID", "locationID", "locationName", "latitude", "longitude", "coordinateUncertainty", "deploymentStart",
    "deploymentEnd", "setupBy", "cameraID", "cameraModel", "cameraDelay", "cameraHeight", "cameraDepth", "cameraTilt",
    "cameraHeading", "detectionDistance", "timestampIssues", "baitUse", "featureType", "habitat", "deploymentGroups",
    "deploymentTags", "deploymentComments",
)  # fmt: skip
_MEDIA = (
    "mediaID", "deploymentID", "captureMethod", "timestamp", "filePath", "filePublic", "fileName", "fileMediatype",
    "exifData", "favorite", "mediaComments",
)  # fmt: skip
_OBSERVATIONS = (
    "observationID", "deploymentID", "mediaID", "eventID", "eventStart", "eventEnd", "observationLevel", "observationType",
    "cameraSetupType", "scientificName", "count", "lifeStage", "sex", "behavior", "individualID",
    "individualPositionRadius", "individualPositionAngle", "individualSpeed", "bboxX", "bboxY", "bboxWidth", "bboxHeight",
    "classificationMethod", "classifiedBy", "classificationTimestamp", "classificationProbability", "observationTags",
    "observationComments",
)  # fmt: skip
_KINDS = {
    "flac": "audio/flac",
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "ogg": "audio/ogg",
    "opus": "audio/opus",
}
_KINDS |= {"jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png"}

Period = tuple[int, int]  # of a recorder's windows: first and end, s since 1970


@dataclass(frozen=True, slots=True)
class Package:
    """What a package says of itself. created: UTC, s since 1970; contributor: who answers for it; taxa: by query."""

    title: str
    created_s: int
    contributor: str
    taxa: Mapping[str, str]
    software: str


@dataclass(frozen=True, slots=True)
class _Medium:
    """A file: its path in the package, or in the recorder's own folders; clip: of the hub, to be packed, None where it is not here."""

    id: str
    path: str
    kind: str
    start_s: int
    clip: str | None


def write_camtrap(
    package: Package, rows: Iterable[Row], periods: Mapping[str, Period], clips: Path, file: IO[bytes]
) -> None:
    """Write the package as a zip: datapackage.json, three tables, and the clips that are here.

    periods: by name of the recorder; clips: the hub's folder of them. Raises UsageError where a recorder has no place, or nothing is
    left to write.
    """
    kept = [
        row
        for row in rows
        if row.started_ns is not None and (row.verdict is None or row.verdict.answer != "wrong")
    ]
    devices = {row.device.name: row.device for row in kept}
    if not devices:
        raise UsageError("Camtrap DP: expected detections with a time that nobody called wrong, found none")
    without = sorted(device.name for device in devices.values() if device.latitude is None)
    if without:
        raise UsageError(
            f"Camtrap DP: expected the place of every recorder, found none of {', '.join(without)}; "
            "give it under Recorders, or leave them out with the filter"
        )
    media: dict[str, tuple[str, _Medium]] = {}
    observations = []
    for row in kept:
        medium = _medium(row)
        if medium is not None:
            media.setdefault(medium.id, (row.device.name, medium))
        observations.append(_observation(row, medium, package))
    spans = {name: _span(name, kept, periods) for name in devices}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "deployments.csv",
            _table(_DEPLOYMENTS, [_deployment(devices[name], *spans[name]) for name in sorted(devices)]),
        )
        archive.writestr(
            "media.csv", _table(_MEDIA, [_media_row(name, each) for name, each in media.values()])
        )
        archive.writestr("observations.csv", _table(_OBSERVATIONS, observations))
        archive.writestr(
            "datapackage.json", json.dumps(_descriptor(package, kept, spans), indent=2, ensure_ascii=False)
        )
        for _, each in media.values():
            if each.clip is not None and (clips / each.clip).is_file():
                archive.write(clips / each.clip, each.path, zipfile.ZIP_STORED)


def _observation(row: Row, medium: _Medium | None, package: Package) -> dict[str, Any]:
    found, verdict = row.judged.detection, row.verdict
    start_s = (row.started_ns or 0) // _NS
    name = package.taxa.get(found.query)
    is_judged = verdict is not None and verdict.answer == "right"
    said = "" if verdict is None else f"; a person said: {verdict.answer}"
    return {
        "observationID": _id(row.observation, found.query),
        "deploymentID": row.device.name,
        "mediaID": "" if medium is None else medium.id,
        "eventID": _id(row.observation),
        "eventStart": iso_s(start_s),
        "eventEnd": iso_s(start_s + max(round(row.duration_s or 0.0), 0)),
        "observationLevel": "event" if medium is None else "media",
        "observationType": "animal" if name else "unclassified",
        "scientificName": name or "",
        "classificationMethod": "human" if is_judged else "machine",
        "classifiedBy": package.contributor if is_judged else package.software,
        "classificationTimestamp": iso_s(
            (verdict.given_ns if is_judged and verdict else found.received_ns) // _NS
        ),
        "classificationProbability": "" if is_judged else f"{found.probability:.4f}",
        "observationTags": f"query:{_tag(found.query)}",
        "observationComments": f"asked for: {found.text}; {found.distance} bits away{said}",
    }


def _medium(row: Row) -> _Medium | None:
    """Return the file that shows a detection: its clip where it is here, else the recording or picture it is in; None of live sound."""
    found = row.judged.detection
    start_s = (row.started_ns or 0) // _NS
    if row.file is not None:
        return _Medium(
            _id(row.observation, "clip"), f"clips/{row.file}", _kind(row.file, row), start_s, row.file
        )
    source = found.source or ""
    if not source or source == "stdin" or source.startswith("microphone:"):
        return None
    path = "/".join(part for part in PurePosixPath(source).parts if part not in ("/", "..", "."))
    path = re.sub(r"\.{2,}", ".", path).lstrip("~.") or "file"
    file_start_s = int(start_s - (row.offset_s or 0.0))
    return _Medium(_id(row.device.name, found.epoch, source), path, _kind(path, row), file_start_s, None)


def _kind(path: str, row: Row) -> str:
    ending = PurePosixPath(path).suffix.lower().lstrip(".")
    unknown = "image/x-unknown" if row.duration_s == 0 else "audio/x-unknown"
    return _KINDS.get(ending, unknown)


def _media_row(device: str, medium: _Medium) -> dict[str, Any]:
    return {
        "mediaID": medium.id,
        "deploymentID": device,
        "captureMethod": "activityDetection" if medium.clip is not None else "timeLapse",
        "timestamp": iso_s(medium.start_s),
        "filePath": medium.path,
        "filePublic": "false",
        "fileName": PurePosixPath(medium.path).name,
        "fileMediatype": medium.kind,
    }


def _deployment(device: Any, start_s: int, end_s: int) -> dict[str, Any]:
    return {
        "deploymentID": device.name,
        "locationName": device.title,
        "latitude": f"{device.latitude:.6f}",
        "longitude": f"{device.longitude:.6f}",
        "deploymentStart": iso_s(start_s),
        "deploymentEnd": iso_s(end_s),
        "cameraID": device.name,
        "cameraModel": "fieldcube recorder",
        "timestampIssues": "false",
        "deploymentComments": "from the first window of sound or picture that arrived to the last",
    }


def _span(name: str, rows: Sequence[Row], periods: Mapping[str, Period]) -> Period:
    """Return from when to when a recorder listened; never shorter than from its first detection to its last."""
    starts = [(row.started_ns or 0) // _NS for row in rows if row.device.name == name]
    lasting = max(round(row.duration_s or 0.0) for row in rows if row.device.name == name)
    first, end = periods.get(name, (min(starts), max(starts)))
    return min(first, *starts), max(end, max(starts) + lasting)


def _descriptor(package: Package, rows: Sequence[Row], spans: Mapping[str, Period]) -> dict[str, Any]:
    names = sorted(
        {
            package.taxa[row.judged.detection.query]
            for row in rows
            if row.judged.detection.query in package.taxa
        }
    )
    levels = sorted({"event" if _medium(row) is None else "media" for row in rows})
    resources = [
        {
            "name": name,
            "path": f"{name}.csv",
            "profile": "tabular-data-resource",
            "format": "csv",
            "mediatype": "text/csv",
            "encoding": "utf-8",
            "schema": f"{_URL}/{name}-table-schema.json",
        }
        for name in ("deployments", "media", "observations")
    ]
    return {
        "resources": resources,
        "profile": f"{_URL}/camtrap-dp-profile.json",
        "name": re.sub(r"[^a-z0-9]+", "-", package.title.lower()).strip("-") or "fieldcube",
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{package.title} {package.created_s}")),
        "created": iso_s(package.created_s),
        "title": package.title,
        "version": iso_s(package.created_s)[:10],
        "contributors": [{"title": package.contributor, "role": "contributor"}],
        "description": (
            "Detections of recorders that compare codes of sound and pictures with sentences. classificationProbability is the "
            "calibrated probability of a detection, not a distance. What people called wrong, and what has no known time, is left out."
        ),
        "sources": [{"title": package.software}],
        "project": {
            "title": package.title,
            "samplingDesign": "opportunistic",
            "captureMethod": ["activityDetection", "timeLapse"],
            "individualAnimals": False,
            "observationLevel": levels,
        },
        "spatial": _box([row.device for row in rows]),
        "temporal": {
            "start": iso_s(min(first for first, _ in spans.values()))[:10],
            "end": iso_s(max(end for _, end in spans.values()))[:10],
        },
        "taxonomic": [{"scientificName": name} for name in names],
    }


def _box(devices: Sequence[Any]) -> dict[str, Any]:
    """Return the box around places as GeoJSON."""
    south, north = min(each.latitude for each in devices), max(each.latitude for each in devices)
    west, east = min(each.longitude for each in devices), max(each.longitude for each in devices)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def _table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _id(*parts: object) -> str:
    """Return a short id that is the same whenever the same is exported."""
    return hashlib.blake2b("\0".join(str(part) for part in parts).encode(), digest_size=8).hexdigest()


def _tag(text: str) -> str:
    return re.sub(r"[|:\s]+", " ", text).strip()
