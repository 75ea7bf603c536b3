"""Darwin Core occurrences (https://dwc.tdwg.org/terms): detections as one table for GBIF and others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hub.answers import iso_s
from hub.exports import Row, table_lines

COLUMNS = (
    *("occurrenceID", "basisOfRecord", "occurrenceStatus", "eventID", "eventDate", "samplingProtocol", "locationID", "locality"),
    *("decimalLatitude", "decimalLongitude", "geodeticDatum", "scientificName", "verbatimIdentification", "identifiedBy"),
    *("dateIdentified", "identificationVerificationStatus", "identificationRemarks", "recordedBy", "associatedMedia"),
)  # fmt: skip
_NS = 10**9


def occurrence_lines(rows: Iterable[Row], taxa: Mapping[str, str], software: str) -> Iterator[str]:
    """Give occurrences as CSV, the header first; what people called wrong, or has no time, is left out.

    taxa: scientific name of each query, empty where none was given: verbatimIdentification is the sentence that was asked for.
    """
    yield from table_lines(COLUMNS, (_occurrence(row, taxa, software) for row in rows if _counts(row)))


def _counts(row: Row) -> bool:
    return row.started_ns is not None and (row.verdict is None or row.verdict.answer != "wrong")


def _occurrence(row: Row, taxa: Mapping[str, str], software: str) -> dict[str, Any]:
    found, device, verdict = row.judged.detection, row.device, row.verdict
    start_s = (row.started_ns or 0) // _NS
    end_s = start_s + round(row.duration_s or 0.0)
    has_place = device.latitude is not None
    is_judged = verdict is not None and verdict.answer == "right"
    status = "verified by human" if is_judged else "unverified" if verdict is None else "human was unsure"
    return {
        "occurrenceID": f"{row.observation}/{found.query}",
        "basisOfRecord": "MachineObservation",
        "occurrenceStatus": "present",
        "eventID": row.observation,
        "eventDate": iso_s(start_s) if end_s == start_s else f"{iso_s(start_s)}/{iso_s(end_s)}",
        "samplingProtocol": "camera trap" if row.duration_s == 0 else "passive acoustic monitoring",
        "locationID": device.name,
        "locality": device.title,
        "decimalLatitude": f"{device.latitude:.6f}" if has_place else "",
        "decimalLongitude": f"{device.longitude:.6f}" if has_place else "",
        "geodeticDatum": "EPSG:4326" if has_place else "",
        "scientificName": taxa.get(found.query, ""),
        "verbatimIdentification": found.text,
        "identifiedBy": "" if is_judged else software,
        "dateIdentified": iso_s((verdict.given_ns if verdict is not None else found.received_ns) // _NS),
        "identificationVerificationStatus": status,
        "identificationRemarks": f"probability {found.probability:.4f}; {found.distance} bits from the sentence",
        "recordedBy": software,
        "associatedMedia": row.file or "",
    }
