"""edge-check: see whether this board, with this bundle and configuration, would do its work in the field."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from edge.bundle import Bundle, default_bundle
from edge.check_board import (
    Check,
    check_clips,
    check_clock,
    check_disk,
    check_memory,
    check_microphone,
    check_store,
    picture_memory_mb,
)
from edge.check_encoders import check_golden, check_picture_speed, check_speed
from edge.config import Config, read_config
from edge.config_installed import with_installed
from edge.encoder import AudioEncoder, compile_queries, open_audio_encoder, open_image_encoder
from edge.errors import FieldcubeError, UsageError
from edge.matcher import Matcher
from edge.store_schema import store_path
from edge.utf8 import print_utf8
from edge.watchlist import Watchlist, load_watchlist
from edge.windows import hop_samples

_EXAMPLE = """example:
  edge-check
  edge-check --config /etc/fieldcube/rpi4.toml --microphone --json"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run edge-check; return 0, 1 when something would fail in the field, 2 for bad usage."""
    print_utf8(sys.stdout)
    args = _parse_arguments(argv)
    try:
        config = _configuration(args)
        n_failed = _tell(checks(config), as_json=args.json)
        sys.stdout.flush()
    except FieldcubeError as error:
        print(f"edge-check: error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output, for example head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("edge-check: stopped", file=sys.stderr)
        return 1
    return 1 if n_failed else 0


def checks(config: Config) -> Iterator[Check]:
    """Yield every check that a configuration calls for, in an order in which each trusts those before it."""
    yield check_clock()
    yield check_disk(config.monitor)
    if config.monitor.clips and config.monitor.clips_dir is not None:
        yield check_clips(config.monitor)
    yield check_store(config.monitor, config.deployment.device_id)
    if config.audio.microphone is not None:
        yield check_microphone(config.audio)
    bundle, found = _load(config)
    yield found
    if bundle is None:  # nothing that follows could be trusted
        return
    manifest = bundle.manifest
    yield Check("licence", True, manifest.licence, hint=manifest.licence_note or None)
    yield Check(
        "calibration",
        manifest.calibration is not None,
        None if manifest.calibration is None else manifest.calibration.source,
        hint=None
        if manifest.calibration
        else "no distance says how likely a sound is: export with a calibration",
    )
    held = {entry.modality for entry in manifest.encoders if entry.size_bytes}
    options = config.encoder.runtime, config.encoder.threads
    try:
        if "audio" in held or "image" not in held:
            encoder = open_audio_encoder(bundle, *options)
            yield Check("encoder", True, encoder.runtime)
            yield _check_hop(encoder, config.monitor.hop_s)
            yield check_speed(encoder, config.monitor.hop_s)
        if "image" in held:
            image_encoder = open_image_encoder(bundle, *options)
            yield Check("encoder of pictures", True, image_encoder.runtime)
            yield check_picture_speed(image_encoder)
    except FieldcubeError as error:
        yield Check("encoder", False, None, hint=str(error))
        return
    # before other encoders are opened
    yield check_memory(limit_mb=picture_memory_mb()) if "image" in held else check_memory()
    yield from check_golden(bundle)
    if config.monitor.queries is not None:
        yield _check_queries(bundle, config)


def _load(config: Config) -> tuple[Bundle | None, Check]:
    """Return the bundle where every file that is there is as it was written; encoders may be left off a board."""
    folder = config.encoder.bundle or default_bundle()
    try:
        bundle = Bundle.load(folder)
        for encoder in bundle.manifest.encoders:
            if encoder.size_bytes:
                bundle.read_all(encoder)
        for golden in bundle.manifest.golden:
            bundle.read(golden)
    except FieldcubeError as error:
        return None, Check("bundle", False, str(folder), hint=str(error))
    left_off = [entry.file for entry in bundle.manifest.encoders if not entry.size_bytes]
    hint = f"left off: {', '.join(left_off)}" if left_off else None
    return bundle, Check("bundle", True, f"{bundle.manifest.name} {bundle.manifest.version}", hint=hint)


def _check_hop(encoder: AudioEncoder, hop_s: float | None) -> Check:
    """See that windows follow each other without sound between them."""
    rate_hz, window_samples = encoder.sample_rate_hz, encoder.window_samples
    window_s = window_samples / rate_hz
    try:
        found_s = hop_samples(hop_s, window_samples, rate_hz) / rate_hz
    except UsageError as error:
        return Check("hop", False, hop_s, "s", window_s, str(error))
    return Check("hop", True, found_s, "s", window_s)


def _check_queries(bundle: Bundle, config: Config) -> Check:
    """Compile the watchlist, or see that it was compiled for this bundle, and that a recorder could match it."""
    assert config.monitor.queries is not None  # asked only then
    manifest = bundle.manifest
    try:
        loaded = load_watchlist(config.monitor.queries, manifest.code_space, manifest.code_bits)
        if not isinstance(loaded, Watchlist):
            loaded = compile_queries(bundle, loaded, config.encoder.runtime)
        if manifest.calibration is not None:  # its lack is told already
            Matcher(loaded, manifest.decoys, manifest.calibration)
    except FieldcubeError as error:
        return Check("queries", False, str(config.monitor.queries), hint=str(error))
    return Check("queries", True, sum(not query.decoy for query in loaded.queries), "queries")


def _tell(found: Iterable[Check], *, as_json: bool) -> int:
    """Print the checks as they come; return how many failed."""
    n_failed = 0
    for check in found:
        n_failed += not check.ok
        print(json.dumps(check.record(), ensure_ascii=False) if as_json else check.line(), flush=True)
    if not as_json:
        print("ready for the field" if not n_failed else f"{n_failed} failed: not ready for the field")
    return n_failed


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="edge-check",
        description="Check that this board would do its work in the field; exit 1 where it would not.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config", type=Path, metavar="FILE", help="the configuration that edge-monitor is to run with")
    add("--bundle", type=Path, metavar="FOLDER", help="encoders and calibration (default: the starter)")
    add("--runtime", choices=("auto", "onnx", "tflite"), help="what is to run the encoder (auto)")
    add("--threads", type=int, metavar="N", help="of the encoder (1)")
    add("--hop", type=float, metavar="SECONDS", help="from window to window (half a window)")
    add("--queries", type=Path, metavar="FILE", help="watchlist to check")
    add("--store", type=store_path, metavar="PATH", help="where the database will be (./fieldcube.sqlite)")
    add("--clips", type=Path, metavar="FOLDER", help="where clips will be (beside the store)")
    add("--device-id", metavar="NAME", help="of this recorder (as its store knows)")
    add("--microphone", nargs="?", const="", metavar="NAME", help="check this microphone; no name = default")
    add("--json", action="store_true", help="print one JSON object a line")
    return parser.parse_args(argv)


def _configuration(args: argparse.Namespace) -> Config:
    """Return the configuration file, or the defaults, with the flags on top of it."""
    config = with_installed(read_config(args.config)) if args.config else Config()
    encoder = {"bundle": args.bundle, "runtime": args.runtime, "threads": args.threads}
    monitor = {"hop_s": args.hop, "queries": args.queries, "store": args.store, "clips_dir": args.clips}
    monitor["clips"] = None if args.clips is None else True
    audio = config.audio
    if args.microphone is not None:
        audio = replace(audio, input=(), microphone=args.microphone)
    deployment = config.deployment
    if args.device_id is not None:
        deployment = replace(deployment, device_id=args.device_id)
    return replace(
        config,
        deployment=deployment,
        audio=audio,
        encoder=replace(config.encoder, **{k: v for k, v in encoder.items() if v is not None}),
        monitor=replace(config.monitor, **{k: v for k, v in monitor.items() if v is not None}),
    )


if __name__ == "__main__":
    sys.exit(main())
