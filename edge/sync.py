"""edge-sync: bring what a recorder has stored to the hub, over any line, each observation exactly once."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from edge import require
from edge.config import Config, Link, Sync, read_config
from edge.errors import FieldcubeError, MissingDependencyError, UsageError
from edge.store_schema import store_path
from edge.utf8 import print_utf8

_EXAMPLE = """example:
  edge-sync --hub https://hub.example.org --code 4f7k-29aq-m3zt-8w5e
  edge-sync --config /etc/fieldcube/config.toml --status
  edge-sync --config /etc/fieldcube/config.toml --follow"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run edge-sync; return 0, 1 when it failed, 2 for bad usage."""
    print_utf8(sys.stdout)
    args = _parse_arguments(argv)
    logging.basicConfig(format="edge-sync: %(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        _run(args)
        sys.stdout.flush()
    except FieldcubeError as error:
        print(f"edge-sync: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("edge-sync: stopped; what was acknowledged stays so", file=sys.stderr)
        return 1
    return 0


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="edge-sync",
        description="Deliver what a recorder has stored to the hub; run it again at any time, nothing is sent for good "
        "before the hub says that it keeps it.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config", type=Path, metavar="FILE", help="configuration (TOML); flags go before it")
    add("--store", type=store_path, metavar="PATH", help="file, or folder of observations.sqlite")
    add(
        "--hub",
        metavar="URL",
        help="where to: https://host[:port], mqtts://broker?hub=KEY, or frames:///file-or-serial-line?hub=KEY",
    )
    add(
        "--code",
        metavar="CODE",
        help="single-use enrolment code of the hub; without, a person approves there",
    )
    add("--key", type=Path, metavar="FILE", help="this device's own key (device.key beside the store)")
    add("--ca-file", type=Path, metavar="FILE", help="who may vouch for the hub (PEM; as the system says)")
    add(
        "--link", choices=get_args(Link), help="what the line is for: everything, or the most important (lte)"
    )
    add("--for", dest="for_s", type=float, default=600.0, metavar="SECONDS", help="try again this long (600)")
    add("--follow", action="store_true", help="stay, and deliver what comes; for ever")
    add(
        "--now",
        action="store_true",
        help="do not wait, though the hub asked for it or the line failed before",
    )
    add("--status", action="store_true", help="only tell what waits to be delivered; asks nobody")
    add("--json", action="store_true", help="print one JSON object a line")
    return parser.parse_args(argv)


def _run(args: argparse.Namespace) -> None:
    if not 0 <= args.for_s <= 1e9:
        raise UsageError(f"--for: expected seconds from 0 to 1e9, found {args.for_s}")
    config = read_config(args.config) if args.config else Config()
    given = {name: getattr(args, name) for name in ("hub", "code", "key", "ca_file", "link")}
    for name in ("hub", "code"):
        if given[name] is not None:
            require.text(UsageError, f"--{name}", given[name])
    settings = replace(config.sync, **{name: value for name, value in given.items() if value is not None})
    store = store_path(args.store or config.monitor.store)
    if settings.hub is None:
        if args.config and not args.status:  # an installation whose owner wants no hub: nothing to do
            print(f"{args.config}: [sync] hub is none: nothing is sent anywhere", file=sys.stderr)
            return
        raise UsageError("--hub: expected the URL of a hub, found none; give it here or as hub in [sync]")
    _visit(args, settings, store, config.updates.folder)


def _visit(args: argparse.Namespace, settings: Sync, store: Path, updates: Path | None) -> None:
    try:
        from edge import sync_visits  # here, so that what is missing can be told
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"edge-sync needs {error.name}, which is not installed; run: pip install 'fieldcube[field]'"
        ) from error
    clocks = sync_visits.system_clocks()
    if args.status:
        _show(sync_visits.status(settings, store, clocks), as_json=args.json)
        return
    try:
        totals = sync_visits.run(
            settings,
            store,
            clocks,
            for_s=args.for_s,
            follow=args.follow,
            at_once=args.now,
            updates=updates,
        )
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{settings.hub}: needs {error.name}, which is not installed; run: pip install 'fieldcube[field]'"
        ) from error
    _show(sync_visits.summary(totals), as_json=args.json)


def _show(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(told, ensure_ascii=False))
        return
    for name, value in told.items():
        if name != "type":
            print(f"{name.replace('_', ' ')}: {'-' if value is None else value}")


if __name__ == "__main__":
    sys.exit(main())
