"""What edge-monitor is asked to do: flags go before the configuration file, that before defaults."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from edge import require
from edge.config import STDIN, Audio, Config, Deployment, Encoding, Monitor, read_config
from edge.config_installed import with_installed
from edge.errors import ConfigError, UsageError
from edge.store_schema import store_path

_Section = TypeVar("_Section", Deployment, Audio, Encoding, Monitor)

_EXAMPLE = """example:
  edge-monitor --queries watchlist.txt --input recordings/
  edge-monitor --queries watchlist.txt --input pictures/ --bundle image-bundle
  edge-monitor --queries watchlist.txt --microphone "USB Audio" --json
  arecord -t raw -f S16_LE -r 48000 | edge-monitor --queries watchlist.txt --input - --rate 48000
  edge-monitor --config /etc/fieldcube/rpi4.toml"""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the flags."""
    parser = argparse.ArgumentParser(
        prog="edge-monitor",
        description="Listen, or look at pictures, and tell when something of the watchlist is there.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--queries", type=Path, metavar="FILE", help="watchlist.txt, or one compiled by edge-queries")
    add(
        "--input",
        nargs="+",
        metavar="PATH",
        help="files and folders of sound or, with a bundle for them, pictures; - = raw PCM on standard input",
    )
    add(
        "--microphone",
        nargs="?",
        const="",
        metavar="NAME",
        help="part of a name, or vid:pid[:serial]; none = default",
    )
    add(
        "--rate",
        type=int,
        metavar="HZ",
        help="sample rate of standard input or the microphone; not for files",
    )
    add(
        "--channels",
        type=int,
        metavar="N",
        help="channels of standard input or the microphone; not for files",
    )
    add("--config", type=Path, metavar="FILE", help="configuration (TOML); flags go before it")
    add("--bundle", type=Path, metavar="FOLDER", help="encoders and calibration (default: the starter)")
    add("--runtime", choices=("auto", "onnx", "tflite"), help="what runs the encoder (auto)")
    add("--threads", type=int, metavar="N", help="of the encoder (1)")
    add("--hop", type=float, metavar="SECONDS", help="from window to window of sound (half a window)")
    add(
        "--store",
        type=store_path,
        metavar="PATH",
        help="database, or folder of observations.sqlite (./fieldcube.sqlite)",
    )
    add("--no-store", action="store_true", help="remember nothing; no clips either, unless --clips says so")
    add("--clips", type=Path, metavar="FOLDER", help="for the sound around detections (beside the store)")
    add("--no-clips", action="store_true", help="keep no sound")
    add("--device-id", metavar="NAME", help="of this recorder (as its store knows, or recorder)")
    add("--json", action="store_true", help="print one JSON object a line")
    add("--view", action=argparse.BooleanOptionalAction, default=None, help="live view (on a terminal)")
    return parser.parse_args(argv)


def configuration(args: argparse.Namespace) -> Config:
    """Return the configuration file, or the defaults, with the flags on top of it.

    Raises UsageError for flags that contradict each other or miss something, ConfigError for the file.
    """
    for first, second in (("input", "microphone"), ("store", "no_store"), ("clips", "no_clips")):
        if getattr(args, first) is not None and getattr(args, second) not in (None, False):
            raise UsageError(f"--{first}: expected it without --{second.replace('_', '-')}, found both")
    for name in ("device_id", "microphone"):
        if getattr(args, name) is not None:
            option = f"--{name.replace('_', '-')}"
            require.text(UsageError, option, getattr(args, name), may_be_empty=name == "microphone")
    config = with_installed(read_config(args.config)) if args.config else Config()
    audio = config.audio
    if args.microphone is not None:
        audio = replace(audio, input=(), microphone=args.microphone)
    elif args.input is not None:
        audio = _of_inputs(tuple(args.input), audio)
    monitor = config.monitor
    if args.no_clips or (args.no_store and args.clips is None):
        monitor = replace(monitor, clips=False)
    elif args.clips is not None:
        monitor = replace(monitor, clips=True)
    config = Config(
        deployment=_over(config.deployment, device_id=args.device_id),
        audio=_over(audio, sample_rate_hz=args.rate, channels=args.channels),
        encoder=_over(config.encoder, bundle=args.bundle, runtime=args.runtime, threads=args.threads),
        monitor=_over(monitor, queries=args.queries, hop_s=args.hop, store=args.store, clips_dir=args.clips),
        updates=config.updates,
    )
    _require_all(config)
    return config


def _of_inputs(inputs: tuple[str, ...], audio: Audio) -> Audio:
    """Return what --input asks for; of the file's keys those stay that can be about it.

    Raises UsageError for standard input beside others.
    """
    is_stdin = STDIN in inputs
    rate_hz, channels = (audio.sample_rate_hz, audio.channels) if is_stdin else (None, None)
    return _over(Audio(), input=inputs, sample_rate_hz=rate_hz, channels=channels)


def _require_all(config: Config) -> None:
    """Require what has no default."""
    where = "as a flag or in the file of --config"
    if config.monitor.queries is None:
        raise UsageError(f"expected --queries FILE, {where}; write one sentence a line, such as: dog barking")
    if not config.audio.input and config.audio.microphone is None:
        raise UsageError(f"expected --input PATH or --microphone [NAME], {where}")
    if STDIN in config.audio.input and config.audio.sample_rate_hz is None:
        raise UsageError(f"--input -: expected --rate HZ of what the pipe carries, {where}")


def _over(section: _Section, **flags: Any) -> _Section:
    """Return a section of the configuration with the flags that were given."""
    try:
        return replace(section, **{key: value for key, value in flags.items() if value is not None})
    except ConfigError as error:
        raise UsageError(f"flags: {error}") from error
