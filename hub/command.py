"""edge-hub: run the central server, let recorders in, and look after them."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edge.bundle import Bundle, default_bundle
from edge.errors import FieldcubeError, HubError, UsageError
from edge.observation import iso_utc
from edge.utf8 import print_utf8, shown
from hub.archive_engines import file_of, open_archive
from hub.enrolment import new_code
from hub.index_command import add_arguments as add_index_arguments
from hub.index_command import run_index
from hub.migration import add_arguments as add_migration_arguments
from hub.migration import run_migration
from hub.mqtt import MqttIntake
from hub.publisher import Publisher
from hub.serving import Server, opened_hub, read_hub_key
from hub.settings import DEFAULT_PORT, Settings
from hub.store_backup import restore_backup, write_backup
from hub.store_registry import Registry
from hub.store_registry_devices import Device

_EXAMPLE = """example:
  edge-hub serve --folder /srv/fieldcube --behind-proxy
  edge-hub enrol --folder /srv/fieldcube --device owl-1
  edge-hub devices --folder /srv/fieldcube
  edge-hub approve owl-1 --folder /srv/fieldcube"""
_DAY_S = 86_400.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run edge-hub; return 0, 1 when it failed, 2 for bad usage."""
    print_utf8(sys.stdout)
    args = _parse_arguments(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except FieldcubeError as error:
        print(f"edge-hub: error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output, for example head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("edge-hub: stopped", file=sys.stderr)
        return 1
    return code


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="edge-hub",
        description="Take in the codes of a fleet of recorders and search all of them in plain words.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = _command(commands, "serve", _serve, "run the server")
    serve.add_argument("--host", default="127.0.0.1", help="where to listen (default: this computer alone)")
    serve.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"(default {DEFAULT_PORT})")
    serve.add_argument(
        "--behind-proxy",
        action="store_true",
        help="a proxy passes on what others send: the page asks for the token",
    )
    serve.add_argument(
        "--bundle", type=Path, help="folder of the bundle that searches (default: the starter)"
    )
    serve.add_argument(
        "--archive", metavar="PLACE", help="of the codes (default: sqlite:FOLDER/archive.sqlite)"
    )
    serve.add_argument(
        "--quota-mb", type=float, default=1024.0, help="that a recorder may send in a day (default 1024)"
    )
    serve.add_argument(
        "--mqtt", metavar="URL", help="take batches at this broker too: mqtts://user:password@broker:8883"
    )
    serve.add_argument(
        "--ask-again", action="store_true", help="let recorders send again what an empty archive lacks"
    )
    serve.add_argument("--mqtt-ca-file", type=Path, metavar="FILE", help="who may vouch for the broker (PEM)")
    enrol = _command(commands, "enrol", _enrol, "make a single-use code that lets one recorder in")
    enrol.add_argument(
        "--device", metavar="NAME", help="the only recorder that may use it (default: any new one)"
    )
    enrol.add_argument("--days", type=float, default=7.0, help="that it is valid (default 7)")
    devices = _command(commands, "devices", _devices, "list the recorders")
    devices.add_argument("--json", action="store_true", help="one object a line")
    for name, help_text in (
        ("approve", "let a recorder in that waits, or a revoked one again"),
        ("revoke", "take nothing more from a recorder"),
    ):
        _command(commands, name, _set_status, help_text).add_argument("name", help="of the recorder")
    forget = _command(
        commands, "forget", _forget, "remove a recorder that waits or is revoked and sent nothing"
    )
    forget.add_argument("name", help="of the recorder")
    add = _command(commands, "add", _add, "let a recorder in that has only a radio")
    add.add_argument("name", help="of the recorder, its device_id")
    add.add_argument("key", help="64 hexadecimal digits, as `edge-sync --status` shows them there")
    _command(commands, "key", _show_key, "show the hub's public key, for recorders with a radio or MQTT")
    _command(
        commands, "root", _show_root, "show root.json, with which recorders check what the hub publishes"
    )
    place = _command(commands, "place", _set_place, "say where a recorder stands")
    place.add_argument("name", help="of the recorder")
    place.add_argument("latitude", type=float, help="degrees, WGS 84; write -- before a negative one")
    place.add_argument("longitude", type=float)
    backup = _command(commands, "backup", _backup, "copy what the hub keeps, but for clips, while it runs")
    backup.add_argument("copy", type=Path, help="folder of the copy, which must not exist yet")
    restore = _command(commands, "restore", _restore, "put a copy back, while the hub is stopped")
    restore.add_argument("copy", type=Path, help="folder that `edge-hub backup` wrote")
    for each in (backup, restore):
        each.add_argument("--archive", metavar="PLACE", help="as the hub is served with")
    add_index_arguments(
        _command(commands, "index", _index, "encode recordings and pictures that exist already")
    )
    migrate = commands.add_parser("migrate", help="copy the archive of codes to another engine, and compare")
    add_migration_arguments(migrate)
    migrate.set_defaults(run=_migrate)
    return parser.parse_args(argv)


def _command(commands: Any, name: str, run: object, help_text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help_text, description=help_text)
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("fieldcube-hub"),
        help="of everything the hub keeps (default: %(default)s)",
    )
    parser.set_defaults(run=run, command=name)
    return parser


def _serve(args: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    settings = Settings(
        args.folder,
        args.host,
        args.port,
        behind_proxy=args.behind_proxy,
        quota_bytes_per_day=max(1, round(args.quota_mb * 1e6)),
    )
    bundle = Bundle.load(args.bundle or default_bundle())
    archive = open_archive(args.archive) if args.archive else None

    def listening(port: int) -> None:
        print(f"listening at http://{settings.host}:{port}", flush=True)
        if not settings.local_is_free:
            print(f"people need the token in {settings.token_path}", flush=True)
        if args.mqtt is not None:
            print(f"taking batches at {urlsplit(args.mqtt).hostname} too", flush=True)

    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # uvicorn raises them again when it has stopped; then all is closed
        signal.signal(number, lambda *_: None)
    with ExitStack() as opened:
        app = opened.enter_context(opened_hub(settings, bundle, archive, ask_again=args.ask_again))
        if args.mqtt is not None:
            opened.enter_context(
                MqttIntake(args.mqtt, app.state.hub, read_hub_key(settings), args.mqtt_ca_file)
            )
        server = Server(app, settings, listening)
        try:
            server.run()
        except SystemExit as error:  # how uvicorn tells that it cannot listen
            raise HubError(f"{args.host}:{args.port}: expected a free place to listen, found none") from error
    return 0


def _show_key(args: argparse.Namespace) -> int:
    print(read_hub_key(Settings(args.folder)).public.hex())
    return 0


def _show_root(args: argparse.Namespace) -> int:
    publisher = Publisher(Settings(args.folder).updates_folder, lambda: datetime.now(timezone.utc))
    sys.stdout.write(publisher.root.decode())
    return 0


def _add(args: argparse.Namespace) -> int:
    try:
        public = bytes.fromhex(args.key)
    except ValueError:
        public = b""
    if len(public) != 32:
        raise UsageError(f"key: expected 64 hexadecimal digits, found {args.key!r}")
    with _registry(args) as registry:
        registry.devices.enrol(args.name, public, None, time.time_ns())
        registry.devices.set_status(args.name, "enrolled")
    return 0


def _enrol(args: argparse.Namespace) -> int:
    with Registry.open(Settings(args.folder).registry_path) as registry:
        print(new_code(registry, args.device, time.time_ns(), args.days * _DAY_S))
    return 0


def _devices(args: argparse.Namespace) -> int:
    with _registry(args) as registry:
        efforts = registry.results.efforts()
        for device in registry.devices.all():
            mine = [effort for effort in efforts if effort.device == device.number]
            record = _record(device, sum(effort.n_kept for effort in mine), sum(e.n_dropped for e in mine))
            if args.json:
                print(json.dumps(record, ensure_ascii=False))
            else:
                print(
                    f"{shown(device.name):24} {device.status:9} key {device.fingerprint}  "
                    f"{record['n_observations']:>10} observations  last {record['seen_at'] or 'never'}"
                )
    return 0


def _record(device: Device, n_observations: int, n_dropped: int) -> dict[str, Any]:
    """Return what --json says of a recorder."""
    return {
        "type": "device",
        "name": device.name,
        "title": device.title,
        "status": device.status,
        "fingerprint": device.fingerprint,
        "latitude": device.latitude,
        "longitude": device.longitude,
        "seen_at": None if device.seen_ns is None else iso_utc(device.seen_ns),
        "n_observations": n_observations,
        "n_dropped": n_dropped,
        "health": dict(device.health),
    }


def _set_status(args: argparse.Namespace) -> int:
    with _registry(args) as registry:
        registry.devices.set_status(args.name, "enrolled" if args.command == "approve" else "revoked")
    return 0


def _forget(args: argparse.Namespace) -> int:
    with _registry(args) as registry:
        registry.devices.forget(args.name)
    return 0


def _set_place(args: argparse.Namespace) -> int:
    with _registry(args) as registry:
        registry.devices.set_place(args.name, args.latitude, args.longitude)
    return 0


def _backup(args: argparse.Namespace) -> int:
    with _registry(args) as registry:
        has_codes = write_backup(Settings(args.folder), registry, _archive_file(args), args.copy)
    if not has_codes:
        print(
            "edge-hub: the codes are not in this copy: copy them by the means of their engine",
            file=sys.stderr,
        )
    return 0


def _restore(args: argparse.Namespace) -> int:
    aside = restore_backup(Settings(args.folder), _archive_file(args), args.copy, datetime.now(timezone.utc))
    if aside is not None:
        print(f"what was there is in {aside} now")
    return 0


def _archive_file(args: argparse.Namespace) -> Path | None:
    """Return the file of the archive, None where another engine has the codes."""
    return file_of(args.archive) if args.archive else Settings(args.folder).archive_path


def _index(args: argparse.Namespace) -> int:
    return run_index(args, Settings(args.folder))


def _migrate(args: argparse.Namespace) -> int:
    found = run_migration(args.source, args.target)
    print(f"{found.n} observations, blake2b {found.blake2b} of both")
    return 0


def _registry(args: argparse.Namespace) -> Registry:
    """Open the registry that is in a folder; the server may run meanwhile. Raises HubError where there is none."""
    path = Settings(args.folder).registry_path
    if not path.is_file():
        raise HubError(f"{path}: expected the registry of a hub, found no such file; give --folder")
    return Registry.open(path)


if __name__ == "__main__":
    sys.exit(main())
