"""What edge-update is asked to do: flags go before the configuration file, that before defaults."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from edge.config import Config, Encoding, Updates, read_config
from edge.errors import ConfigError, UsageError
from edge.frames_link import FrameLink
from edge.store_schema import store_path

_EXAMPLE = """example:
  edge-update --config /etc/fieldcube/config.toml
  edge-update --folder updates --adopt watchlist.txt --bundle bundle
  edge-update --folder updates --hub https://hub.example.org --root root.json --store /var/lib/fieldcube"""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is installed, from where, and how.

    updates: its folder is never None, nor is hub where root is not; queries, encoder: what runs before anything was
    installed; ca_file: who may vouch for the hub; store: of the recorder; inbox, hub_public: of messages by radio, None =
    none come, and None = the key that came with the installed pair.
    """

    folder: Path
    updates: Updates
    encoder: Encoding
    queries: Path | None
    ca_file: Path | None
    store: Path
    inbox: Path | None
    hub_public: bytes | None


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the flags."""
    parser = argparse.ArgumentParser(
        prog="edge-update",
        description="Take the newest bundle and watchlist from the hub, as a pair, and go back where they fail.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config", type=Path, metavar="FILE", help="configuration (TOML); flags go before it")
    add("--folder", type=Path, help="of pairs; edge-monitor runs from FOLDER/current of it")
    add(
        "--adopt", type=Path, metavar="FILE", help="begin with this watchlist and --bundle, and fetch nothing"
    )
    add("--bundle", type=Path, metavar="FOLDER", help="to begin with (default: the starter)")
    add("--hub", metavar="URL", help="where pairs are published")
    add("--root", type=Path, metavar="FILE", help="root.json of the hub, brought here once by a safe way")
    add("--ca-file", type=Path, metavar="FILE", help="who may vouch for the hub (PEM; as the system says)")
    add("--watchlist", metavar="NAME", help="of the watchlist at the hub (default)")
    add("--inbox", type=Path, metavar="FILE", help="in which signed messages come by radio")
    add("--hub-key", metavar="HEX", help="who may sign them: 64 digits, as `edge-hub key` shows them")
    add("--store", type=store_path, metavar="PATH", help="of the recorder: a pair on trial must add to it")
    add("--restart", metavar="COMMAND", help="that lets edge-monitor begin anew (FOLDER/restart is written)")
    add("--runtime", choices=("auto", "onnx", "tflite"), help="that the recorder uses (auto)")
    add("--trial", type=float, metavar="SECONDS", help="of a new pair (3600)")
    add("--codes", type=int, metavar="N", help="that it must make in its trial (10)")
    add("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(argv)


def settings_of(args: argparse.Namespace) -> Settings | None:
    """Return what is asked for, None where the configuration wants no updates. Raises UsageError, ConfigError."""
    config = read_config(args.config) if args.config else Config()
    updates = _over(config.updates, args)
    folder = updates.folder
    if folder is None:
        if args.config:
            return None
        raise UsageError("--folder: expected where pairs are installed, found none; give it here or --config")
    inbox, hub_public = _radio(config, args)
    if not args.adopt:
        updates = replace(updates, hub=_published_at(config, updates))
        if updates.hub is None and updates.root is not None:
            raise UsageError("hub: expected where pairs are published, https://..., found none")
        if updates.hub is not None and updates.root is None:
            raise UsageError(
                f"root: expected the root.json of {updates.hub}, found none; there, run: edge-hub root > root.json, "
                "and bring it here by a safe way"
            )
    encoder = config.encoder
    return Settings(
        folder,
        updates,
        replace(encoder, bundle=args.bundle or encoder.bundle, runtime=args.runtime or encoder.runtime),
        args.adopt or config.monitor.queries,
        args.ca_file or config.sync.ca_file,
        store_path(args.store or config.monitor.store),
        inbox,
        hub_public,
    )


def _over(updates: Updates, args: argparse.Namespace) -> Updates:
    """Return a section of the configuration with the flags that were given."""
    given = {name: getattr(args, name) for name in ("folder", "hub", "root", "watchlist", "restart")}
    given |= {"trial_s": args.trial, "trial_codes": args.codes}
    try:
        return replace(updates, **{name: value for name, value in given.items() if value is not None})
    except ConfigError as error:
        raise UsageError(f"flags: {error}") from error


def _published_at(config: Config, updates: Updates) -> str | None:
    """Return where pairs are published: over HTTP only, whatever else carries codes."""
    hub = updates.hub or config.sync.hub
    return hub if updates.hub or urlsplit(hub or "").scheme in ("http", "https") else None


def _radio(config: Config, args: argparse.Namespace) -> tuple[Path | None, bytes | None]:
    """Return the inbox and the key of the hub, 32 bytes, of the flags or of the URL in [sync]."""
    hub = config.sync.hub
    link = FrameLink.of_url(hub) if hub is not None and hub.startswith("frames:") else None
    inbox, public = (None, None) if link is None else (link.inbox, link.hub_public)
    if args.hub_key is not None:
        try:
            public = bytes.fromhex(args.hub_key)
        except ValueError:
            public = b""
        if len(public) != 32:
            raise UsageError(f"--hub-key: expected 64 hexadecimal digits, found {args.hub_key!r}")
    return args.inbox or inbox, public
