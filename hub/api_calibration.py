"""/api: what recorders have learnt at their sites, and how many false alarms the fleet is to expect of each query."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from fastapi import APIRouter, Request

from edge.background import MIN_WINDOWS
from hub.answers import finite, iso_ns
from hub.parts import hub_of
from hub.store_registry_calibrations import Calibrations, Judgements, KeptCalibration
from hub.store_registry_devices import Device

router = APIRouter(prefix="/api", tags=["fleet"])

_NOTHING = Judgements(0, {})


@router.get("/calibration")
def calibration(request: Request) -> dict[str, Any]:
    """Return by query each site's threshold and expected false alarms a day, their sum, and what people said there.

    Recorders that may send are counted, no others. expected_per_day of a query is the sum over those sites where it is known.
    """
    registry = hub_of(request).registry
    devices = {each.number: each for each in registry.devices.all() if each.status == "enrolled"}
    calibrations = Calibrations(registry.database)
    judged = calibrations.judgements()
    known = [each for each in calibrations.all() if each.device in devices]
    queries = []
    for name, found in groupby(known, lambda each: each.site.name):
        sites = [
            _site(each, devices[each.device], judged.get((each.device, name), _NOTHING)) for each in found
        ]
        queries.append({"name": name, **_pooled(sites), "sites": sites})
    return {"queries": queries}


def _pooled(sites: Sequence[dict[str, Any]]) -> dict[str, Any]:
    expected = [each["expected_per_day"] for each in sites if each["expected_per_day"] is not None]
    counts = ("wanted_per_day", "hours", "n_detections", "n_right", "n_wrong", "n_unsure")
    return {
        "n_recorders": len(sites),
        "n_expected": len(expected),
        "expected_per_day": sum(expected) if expected else None,
        **{name: sum(each[name] for each in sites) for name in counts},
    }


def _site(kept: KeptCalibration, device: Device, judged: Judgements) -> dict[str, Any]:
    site = kept.site
    return {
        "device": device.name,
        "title": device.title,
        "at": iso_ns(kept.at_ns),
        "digest": site.digest.hex(),
        "threshold_bits": finite(site.threshold_bits),
        "wanted_per_day": site.wanted_per_day,
        "expected_per_day": finite(site.expected_per_day),
        "hours": site.hours,
        "learnt": site.n_windows >= MIN_WINDOWS,
        "histogram": {"first": site.first, "windows": [each / 4 for each in site.quarters]},
        "n_detections": judged.n_detections,
        **{f"n_{answer}": judged.by_answer.get(answer, 0) for answer in ("right", "wrong", "unsure")},
    }
