"""edge-queries --explain: what the bundle, and what a site has learnt, say to the lines of a watchlist."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge.bundle import AudioInput, Bundle
from edge.config import Config
from edge.encoder import open_text_encoder
from edge.errors import UsageError
from edge.explain import Explanation, Ground, explain
from edge.explain_warnings import Known, known_of
from edge.monitor_alarms import open_alarms, state_path
from edge.reference import load_reference
from edge.store_schema import store_path
from edge.utf8 import shown
from edge.watchlist import Watchlist


def explained(
    bundle: Bundle, watchlist: Watchlist, hop_s: float | None, store: Path | None
) -> list[Explanation]:
    """Return what is expected of the lines.

    hop_s: from window to window, None = half a window of sound; store: of the recorder whose learnt thresholds count, None = the bundle's.
    Raises UsageError for a store that is not there, BundleError for a bundle that cannot be read.
    """
    if store is not None and not (store_path(store).is_file() or state_path(store).is_file()):
        raise UsageError(
            f"--store {store}: expected the store of edge-monitor, found none; leave --store off"
        )
    always = replace(watchlist, queries=tuple(replace(query, active=None) for query in watchlist.queries))
    config, reference = Config(), load_reference(bundle)
    ground = None
    if reference is None:
        _note("the bundle has no reference codes: no thresholds; make them with export/reference.py")
    else:
        alarms = open_alarms(bundle, always, config, hop_s or _half_window_s(bundle), store)
        assert alarms is not None  # the bundle has a reference
        ground = Ground(alarms, reference, store is not None)
    return explain(watchlist, known_sentences(bundle), ground, config.monitor.alarms_per_day)


def table(explanations: list[Explanation]) -> Iterator[str]:
    """Yield the lines of a table for people, warnings below their line."""
    levels = sorted({level for each in explanations for level, _ in each.recall})
    width = max((len(shown(each.query.name)) for each in explanations), default=4)
    heads = " ".join(f"{f'{level:g} dB':>7}" for level in levels)
    is_achieved = any(each.achieved_per_day for each in explanations)
    head = f"{'had (95 %)':>20}" if is_achieved else ""
    yield f"{'line':{width}}  {'bits':>6} {'wanted/day':>10} {'expected':>8}{head}  {heads}".rstrip()
    for each in explanations:
        found = dict(each.recall)
        recall = " ".join(f"{f'{found[level]:.0%}' if level in found else '-':>7}" for level in levels)
        bits = "-" if each.threshold_bits is None else f"{each.threshold_bits:.1f}"
        expected = "-" if each.expected_per_day is None else f"{each.expected_per_day:.3g}"
        learnt = "  learnt here" if each.is_learnt else ""
        name, had = shown(each.query.name), f"{_had(each):>20}" if is_achieved else ""
        yield f"{name:{width}}  {bits:>6} {each.wanted_per_day:>10g} {expected:>8}{had}  {recall}{learnt}".rstrip()
        yield from (f"  warning: {warned.message}" for warned in each.warnings)


def _had(each: Explanation) -> str:
    if each.achieved_per_day is None:
        return "-"
    rate, low, high = each.achieved_per_day
    return f"{rate:.3g} ({low:.2g}-{high:.2g})"


def json_line(each: Explanation) -> str:
    """Return one line as JSON; its keys are those of the table."""
    record = {
        "type": "explanation",
        "name": each.query.name,
        "text": shown(each.query.text),
        "threshold_bits": each.threshold_bits,
        "wanted_per_day": each.wanted_per_day,
        "expected_per_day": each.expected_per_day,
        "learnt": each.is_learnt,
        "achieved_per_day": None if each.achieved_per_day is None else list(each.achieved_per_day),
        "recall": [{"snr_db": level, "found": found} for level, found in each.recall],
        "warnings": [{"kind": warned.kind, "message": warned.message} for warned in each.warnings],
    }
    return json.dumps(record, ensure_ascii=False)


def _half_window_s(bundle: Bundle) -> float:
    for entry in bundle.manifest.encoders:
        if isinstance(entry.input, AudioInput):
            return entry.input.window_samples / entry.input.sample_rate_hz / 2
    raise UsageError(
        "--hop: expected seconds from one observation to the next, found none; the bundle hears no sound"
    )


def known_sentences(bundle: Bundle) -> Known | None:
    """Return the trained sentences; None, and told, where the bundle does not list them or has no text encoder here."""
    classes = bundle.manifest.provenance.get("classes")
    has_text = any(entry.modality == "text" for entry in bundle.manifest.encoders)
    if not has_text or not isinstance(classes, (list, tuple)) or not classes:
        missing = "list of trained classes (provenance)" if has_text else "text encoder here"
        _note(f"the bundle has no {missing}: it is not told which sounds it never heard")
        return None
    encoder = open_text_encoder(bundle)
    texts = [str(text) for text in classes]
    return known_of(texts, np.stack([encoder.encode(text) for text in texts]))


def _note(text: str) -> None:
    print(f"edge-queries: note: {text}", file=sys.stderr)
