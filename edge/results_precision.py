"""edge-results precision: how often each query's detections are right, by the verdicts that were given."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edge.bundle import Bundle, Calibration, default_bundle
from edge.precision import MIN_OF_EACH, Precision, precisions
from edge.results_text import plain
from edge.store_reader import StoreReader
from edge.store_schema import store_path
from edge.store_verdicts import read_verdicts
from edge.utf8 import shown

_NOTE = """precision: share of right ones among the right and wrong; between: its 95 % interval (Wilson). Half at: the distance at
which a detection is as likely right as wrong, fitted to the verdicts, with the bundle's curve as what is expected before any; from 10
right and 10 wrong on. edge-monitor gives the query this curve's probabilities from its next start on."""


def run(argv: Sequence[str]) -> None:
    """Run edge-results precision. Raises FieldcubeError."""
    args = _parse_arguments(argv)
    manifest = Bundle.load(args.bundle or default_bundle()).manifest
    verdicts = read_verdicts(args.store)
    if not verdicts:
        StoreReader.open(args.store).close()  # or say that there is no such store
        print("edge-results: no verdicts yet; edge-results verify asks for them", file=sys.stderr)
    found = [each for each in precisions(verdicts.values()) if args.query in (None, each.query, each.text)]
    if verdicts and not found:
        print(f"edge-results: no verdicts on {plain(shown(args.query))}", file=sys.stderr)
    records = [
        _record(each, manifest.calibration if each.code_space == manifest.code_space else None)
        for each in found
    ]
    if args.json:
        sys.stdout.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    else:
        sys.stdout.writelines(_table(records, manifest.code_space))


def _parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="edge-results precision", description="Tell how often detections are right.", epilog=_NOTE
    )
    add = parser.add_argument
    add(
        "--store",
        type=store_path,
        metavar="PATH",
        help="file, or folder of observations.sqlite (./fieldcube.sqlite)",
    )
    add("--query", metavar="NAME", help="only this query, by its name or its text")
    add(
        "--bundle",
        type=Path,
        metavar="DIR",
        help="the bundle that edge-monitor runs (default: the one that ships)",
    )
    add("--json", action="store_true", help="one JSON object a line")
    return parser.parse_args(argv)


def _record(precision: Precision, prior: Calibration | None) -> dict[str, Any]:
    """Return what --json prints; prior: None = of another code space, for which there is no fit."""
    fit = None if prior is None else precision.fit(prior)
    low, high = precision.interval
    return {
        "type": "precision",
        "query": precision.query,
        "text": precision.text,
        "code_space": precision.code_space,
        "n_right": precision.n_right,
        "n_wrong": precision.n_wrong,
        "n_unsure": precision.n_unsure,
        "precision": precision.value,
        "low": low,
        "high": high,
        "fit": None
        if fit is None
        else {"coefficient": fit.coefficient, "intercept": fit.intercept, "n": fit.n_pairs},
    }


def _table(records: Sequence[dict[str, Any]], code_space: str) -> Iterator[str]:
    """Give lines for people, the header first; none where there is nothing to tell.

    A name that was given to several sentences has the sentence behind it.
    """
    if not records:
        return
    texts: dict[str, set[str]] = {}
    for record in records:
        texts.setdefault(record["query"], set()).add(record["text"])
    names = [
        plain(record["query"] + (f": {record['text']}" if len(texts[record["query"]]) > 1 else ""))
        for record in records
    ]
    width = max(5, *map(len, names))
    yield f"{'query':{width}}  right  wrong  unsure  precision  between      half at\n"
    for name, record in zip(names, records, strict=True):
        counts = f"{record['n_right']:5}  {record['n_wrong']:5}  {record['n_unsure']:6}"
        share = "-" if record["precision"] is None else f"{record['precision']:.2f}"
        between = f"{record['low']:.2f}..{record['high']:.2f}"
        yield f"{name:{width}}  {counts}  {share:>9}  {between:11}  {_fit(record, code_space)}\n"


def _fit(record: dict[str, Any], code_space: str) -> str:
    if record["code_space"] != code_space:
        return f"- (code space {plain(record['code_space'])}: give its --bundle)"
    if record["fit"] is not None:
        return f"{-record['fit']['intercept'] / record['fit']['coefficient']:.1f} bits"
    missing = {kind: MIN_OF_EACH - record[f"n_{kind}"] for kind in ("right", "wrong")}
    wanted = " and ".join(f"{n} more {kind}" for kind, n in missing.items() if n > 0)
    return f"- ({wanted or 'the bundle has no calibration to start from'})"
