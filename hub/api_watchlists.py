"""/api: watchlists and what is to be expected of their lines; what has been asked for; the bundle."""

from __future__ import annotations

import re
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from edge.bundle import AudioInput
from edge.errors import UsageError, WatchlistError
from edge.explain import Explanation
from hub.answers import finite, iso_ns
from hub.parts import Hub, hub_of
from hub.store_registry_people import KeptWatchlist
from hub.watchlist_explain import Explainer, read_lines, trouble_of

router = APIRouter(prefix="/api", tags=["watchlists"])

MAX_WATCHLIST_CHARACTERS = 100_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class TextBody(BaseModel):
    """The text of a watchlist."""

    text: str = Field(max_length=MAX_WATCHLIST_CHARACTERS)


@router.get("/watchlists")
def watchlists(request: Request) -> dict[str, Any]:
    """Return all watchlists."""
    hub = hub_of(request)
    return {"watchlists": [_watchlist(hub, each) for each in hub.registry.people.watchlists()]}


@router.post("/watchlists/explain")
def explain_watchlist(request: Request, body: TextBody) -> dict[str, Any]:
    """Return what is to be expected of the lines of a text, or the line that cannot be read and why."""
    explainer = explainer_of(request)
    try:
        found = explainer.explained(body.text)
    except WatchlistError as error:
        trouble = trouble_of(error)
        return {"error": trouble.message, "line": trouble.line, "explanations": [], "notes": []}
    explanations = [_explanation(each) for each in found]
    return {"error": None, "line": None, "explanations": explanations, "notes": explainer.notes()}


@router.get("/watchlists/{name}")
def watchlist(request: Request, name: str) -> dict[str, Any]:
    """Return a watchlist."""
    hub = hub_of(request)
    return _watchlist(hub, hub.registry.people.watchlist(name))


@router.put("/watchlists/{name}")
def keep_watchlist(request: Request, name: str, body: TextBody) -> dict[str, Any]:
    """Keep the text of a watchlist as its next version. A list that cannot be read is refused."""
    hub = hub_of(request)
    if not _NAME.fullmatch(name):
        raise UsageError(f"name: expected up to 64 letters, digits, - and _, found {name!r}")
    read_lines(body.text)
    return _watchlist(hub, hub.registry.people.keep_watchlist(name, body.text, hub.now_ns()))


@router.get("/suggestions")
def suggestions(request: Request) -> dict[str, Any]:
    """Return what people have asked for: sentences of watchlists, then queries that there are detections of."""
    hub = hub_of(request)
    found: dict[str, str] = {}
    for each in hub.registry.people.watchlists():
        for query in read_lines(each.text):
            for text in [part.text for part in query.parts] or [query.text]:
                if not query.decoy:
                    found.setdefault(text, query.group or each.name)
    for name, text, n in hub.registry.results.queries():
        found.setdefault(text, f"{n} detections" if name == text else f"{name}, {n} detections")
    return {"suggestions": [{"text": text, "detail": detail} for text, detail in found.items()]}


@router.get("/bundles")
def bundles(request: Request) -> dict[str, Any]:
    """Return the bundle whose codes are searched here."""
    bundle = hub_of(request).bundle
    if bundle is None:
        return {"bundles": []}
    manifest = bundle.manifest
    encoders = [
        {
            "modality": each.modality,
            "runtime": each.runtime,
            "precision": each.precision,
            "window_s": each.input.window_samples / each.input.sample_rate_hz
            if isinstance(each.input, AudioInput)
            else None,
        }
        for each in manifest.encoders
    ]
    found = {
        name: getattr(manifest, name) for name in ("name", "version", "code_space", "code_bits", "licence")
    }
    return {"bundles": [{**found, "encoders": encoders}]}


def explainer_of(request: Request) -> Explainer:
    """Return what explains the lists of this hub, made when it is first needed. Raises HubError without a bundle."""
    bundle = hub_of(request).required_bundle
    state = request.app.state
    if not hasattr(state, "explainer"):
        state.explainer = Explainer(bundle)
    found = state.explainer
    assert isinstance(found, Explainer)
    return found


def _watchlist(hub: Hub, kept: KeptWatchlist) -> dict[str, Any]:
    installed = [
        {"device": each.name, "version": each.health["watchlist_version"]}
        for each in hub.registry.devices.all()
        if each.health.get("watchlist") == kept.name and isinstance(each.health.get("watchlist_version"), int)
    ]
    return {
        "name": kept.name,
        "text": kept.text,
        "version": kept.version,
        "changed_at": iso_ns(kept.changed_ns),
        "installed": installed,
    }


def _explanation(each: Explanation) -> dict[str, Any]:
    return {
        "name": each.query.name,
        "text": each.query.text,
        "threshold_bits": each.threshold_bits,
        "wanted_per_day": each.wanted_per_day,
        "expected_per_day": finite(each.expected_per_day),
        "learnt": each.is_learnt,
        "recall": [{"snr_db": level, "found": found} for level, found in each.recall],
        "warnings": [{"kind": warned.kind, "message": warned.message} for warned in each.warnings],
    }
