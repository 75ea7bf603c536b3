"""edge-queries: compile the sentences of a watchlist into codes, or list what is in one."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from edge.bundle import Bundle, default_bundle
from edge.errors import FieldcubeError, UsageError, WatchlistError
from edge.utf8 import print_utf8, shown
from edge.watchlist import Query, Watchlist, load_watchlist, read_watchlist, write_watchlist

_EXAMPLE = """example:
  edge-queries watchlist.txt                      (check it, and list what it asks for)
  edge-queries watchlist.txt -o watchlist.json    (compile it, for a recorder without a text encoder)
  edge-queries watchlist.txt --explain            (what to expect of each line, and which cannot work)"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run edge-queries; return 0, 1 when it failed, 2 for bad usage or a bad list."""
    print_utf8(sys.stdout)
    args = _parse_arguments(argv)
    try:
        _run(args)
        sys.stdout.flush()
    except FieldcubeError as error:
        print(f"edge-queries: error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output, for example head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("edge-queries: stopped", file=sys.stderr)
        return 1
    return 0


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="edge-queries",
        description="Compile a watchlist, or list its queries.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("watchlist", type=Path, help="watchlist.txt, or a compiled watchlist.json")
    add("-o", "--output", type=Path, metavar="FILE", help="write the compiled list here")
    add("--bundle", type=Path, metavar="FOLDER", help="the bundle of the recorder (default: the starter)")
    add(
        "--runtime",
        choices=("auto", "onnx", "tflite"),
        default="auto",
        help="for sound: and image: queries (auto)",
    )
    add("--json", action="store_true", help="print one JSON object a line")
    add(
        "--explain", action="store_true", help="tell threshold, expected false alarms and recall of each line"
    )
    add("--hop", type=_seconds, metavar="S", help="with --explain: from window to window (half a window)")
    add("--store", type=Path, metavar="PATH", help="with --explain: thresholds learnt beside this store")
    args = parser.parse_args(argv)
    if not args.explain and (args.hop is not None or args.store is not None):
        parser.error("--hop and --store: expected with --explain, found without")
    if args.explain and args.output is not None:
        parser.error("-o: expected without --explain, found with it; compile the list by a run of its own")
    return args


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"expected seconds in 0.1..3600, found {text!r}")
    return seconds


def _run(args: argparse.Namespace) -> None:
    loaded = load_watchlist(args.watchlist)
    if args.explain:
        _explain(loaded, args)
        return
    queries: Iterable[Query] = loaded.queries if isinstance(loaded, Watchlist) else loaded
    if args.output is not None:
        _require_replaceable(args.output, args.watchlist)
        bundle = Bundle.load(args.bundle or default_bundle())
        compiled = _compiled(loaded, bundle, args)
        write_watchlist(args.output, compiled)
        queries = compiled.queries
        if not args.json:
            n, space = len(compiled.queries), compiled.code_space
            print(f"{args.output}: {n} queries in code space {space}", file=sys.stderr)
    for query in queries:
        print(_json_line(query) if args.json else _line(query))


def _explain(loaded: Watchlist | list[Query], args: argparse.Namespace) -> None:
    from edge.queries_explain import explained, json_line, table  # brings the encoders

    bundle = Bundle.load(args.bundle or default_bundle())
    explanations = explained(bundle, _compiled(loaded, bundle, args), args.hop, args.store)
    for line in map(json_line, explanations) if args.json else table(explanations):
        print(line)


def _require_replaceable(output: Path, watchlist: Path) -> None:
    """Raise UsageError where -o names the list itself, or anything that is there and is no compiled list."""
    if not output.exists():
        return
    if output.samefile(watchlist):
        raise UsageError(f"-o {output}: expected another file than the watchlist, found the same; rename it")
    try:
        if not output.is_file():
            raise WatchlistError("no regular file")
        read_watchlist(output)
    except WatchlistError as error:
        raise UsageError(
            f"-o {output}: expected a new file or a compiled list to replace, found {error}; "
            "give another -o, or remove it"
        ) from error


def _compiled(loaded: Watchlist | list[Query], bundle: Bundle, args: argparse.Namespace) -> Watchlist:
    """Return the list in codes of the bundle; one that was compiled before is only checked."""
    manifest = bundle.manifest
    if isinstance(loaded, Watchlist):
        checked = load_watchlist(args.watchlist, manifest.code_space, manifest.code_bits)
        assert isinstance(checked, Watchlist)  # the same file a moment ago
        return checked
    from edge.encoder import compile_queries  # brings a runtime: only where codes are asked for

    return compile_queries(bundle, loaded, args.runtime)


def _json_line(query: Query) -> str:
    record = {
        "type": "query",
        "name": query.name,
        "text": shown(query.text),
        "kind": query.kind,
        "decoy": query.decoy,
        "min_probability": query.min_probability,
        "alarms_per_day": query.alarms_per_day,
        "confirm": list(query.confirm),
        "cooldown_s": query.cooldown_s,
        "priority": query.priority,
        "active": query.active,
        "group": query.group,
        "combine": query.combine,
        "parts": [part.text for part in query.parts],
        "code": None if query.code is None else query.code.hex(),
    }
    return json.dumps(record, ensure_ascii=False)


def _line(query: Query) -> str:
    prefix = ("decoy: " if query.decoy else "") + ("" if query.kind == "text" else f"{query.kind}: ")
    options = [f"name={query.name}"] if query.name != query.text else []
    n, m = query.confirm
    given = {
        "probability": None if query.min_probability is None else f"{query.min_probability:.12g}",
        "alarms_per_day": None if query.alarms_per_day is None else f"{query.alarms_per_day:.12g}",
        "confirm": None if m == 1 else f"{n}/{m}",
        "cooldown": None if query.cooldown_s is None else f"{query.cooldown_s:.12g}s",
        "priority": None if query.priority == "normal" else query.priority,
        "active": query.active,
        "group": query.group,
    }
    options += [f"{key}={value}" for key, value in given.items() if value is not None]
    return " | ".join([f"{prefix}{shown(query.text)}", *options])


if __name__ == "__main__":
    sys.exit(main())
