"""edge-search: ask a new question over every observation of a store, in plain words or by an example sound."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge import require
from edge.bundle import Bundle, default_bundle
from edge.calibration import probability
from edge.codes import pack
from edge.errors import FieldcubeError, UsageError
from edge.store_reader import Hit, Period, StoreReader
from edge.store_schema import store_path
from edge.utf8 import print_utf8, shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ROWS_PER_TABLE = 1000
_EXAMPLE = """example:
  edge-search "a dog barking" --store fieldcube.sqlite --since 2026-05-01 --top 5
  edge-search --sound phoebe.wav --json
  edge-search --image deer.jpg --bundle image-bundle"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run edge-search; return 0, 1 when it failed, 2 for bad usage."""
    print_utf8(sys.stdout)
    args = _parse_arguments(argv)
    try:
        _search(args)
        sys.stdout.flush()
    except FieldcubeError as error:
        print(f"edge-search: error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output, for example head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("edge-search: stopped", file=sys.stderr)
        return 1
    return 0


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="edge-search",
        description="Search everything that a recorder has stored for a sound or a picture described in words.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("text", nargs="?", help="what to look for, in words")
    add("--sound", type=Path, metavar="FILE", help="look for what sounds like this recording instead")
    add("--image", type=Path, metavar="FILE", help="look for what looks like this picture instead")
    add(
        "--store",
        type=store_path,
        metavar="PATH",
        help="file, or folder of observations.sqlite (./fieldcube.sqlite)",
    )
    add("--bundle", type=Path, metavar="FOLDER", help="the bundle that recorded (default: the starter)")
    add("--top", type=int, default=20, metavar="N", help="how many results, 0 = all (default: 20)")
    add("--since", metavar="TIME", help="only from this time on, ISO 8601, UTC where no zone is given")
    add("--until", metavar="TIME", help="only before this time")
    add("--asymmetric", action="store_true", help="weigh each bit by how sure the query is of it")
    add("--json", action="store_true", help="print one JSON object a line")
    return parser.parse_args(argv)


def _search(args: argparse.Namespace) -> None:
    given = [each for each in (args.text, args.sound, args.image) if each is not None]
    if len(given) != 1:
        raise UsageError(
            f"expected a text, --sound FILE or --image FILE, found {len(given)} of them; see edge-search --help"
        )
    if args.text is not None and not args.text.strip():
        raise UsageError("expected what to look for in words, found an empty text")
    if args.text is not None:
        require.text(UsageError, "text", args.text)
    if args.top < 0:
        raise UsageError(f"--top: expected 0 (all) or more, found {args.top}")
    period = Period.parse(args.since, args.until)
    query = shown(given[0])
    with StoreReader.open(args.store) as reader:  # before the encoder: a wrong path is told at once
        bundle = Bundle.load(args.bundle or default_bundle())
        space = bundle.manifest.code_space
        logits = _logits(bundle, args)
        if args.asymmetric:
            hits = reader.asymmetric_top_k(logits, space, args.top, period)
        else:
            hits = reader.top_k(pack(logits, bundle.manifest.code_bits), space, args.top, period)
        records = _records(hits, query, bundle)
        if args.json:
            for record in records:
                sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
        else:
            _print_tables(records, query)
        _note_what_was_left_out(reader, space, period)


def _logits(bundle: Bundle, args: argparse.Namespace) -> NDArray[np.float32]:
    """Return the logits float32 [code_bits] of what is looked for."""
    if args.sound is not None:
        return _sound_logits(bundle, args.sound)
    if args.image is not None:
        return _image_logits(bundle, args.image)
    return _text_logits(bundle, args.text)


def _text_logits(bundle: Bundle, text: str) -> NDArray[np.float32]:
    """Return the logits float32 [code_bits] of a sentence."""
    from edge.encoder import (
        open_text_encoder,
    )  # brings onnxruntime: only after the arguments are known to be good

    return open_text_encoder(bundle).encode(text)


def _sound_logits(bundle: Bundle, sound: Path) -> NDArray[np.float32]:
    """Return the mean logits float32 [code_bits] of the windows of a recording."""
    from edge.encoder import encode_file, open_audio_encoder

    return encode_file(open_audio_encoder(bundle), sound)


def _image_logits(bundle: Bundle, image: Path) -> NDArray[np.float32]:
    """Return the logits float32 [code_bits] of a picture."""
    from edge.encoder import encode_picture, open_image_encoder

    return encode_picture(open_image_encoder(bundle), image)


def _records(hits: Iterator[Hit], query: str, bundle: Bundle) -> Iterator[dict[str, Any]]:
    """Return the results as --json prints them (DESIGN.md, "What a program may read")."""
    calibration = bundle.manifest.calibration
    for rank, hit in enumerate(hits, start=1):
        yield {
            "type": "result",
            "rank": rank,
            "query": query,
            "source": hit.source,
            "offset_s": hit.offset_s,
            "duration_s": hit.duration_s,
            "started_at": hit.started_at,
            "distance": hit.distance,
            "probability": None if calibration is None else probability(calibration, hit.distance),
        }


def _print_tables(records: Iterator[dict[str, Any]], query: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(markup=False, highlight=False)  # a source may be called "[1].wav"
    n_rows = 0
    while chunk := list(islice(records, _ROWS_PER_TABLE)):
        table = Table(title=None if n_rows else Text(query), title_justify="left", box=box.SIMPLE_HEAD)
        for heading in ("#", "prob.", "bits", "at", "started (UTC)"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("source", overflow="fold")
        for record in chunk:
            likely = "-" if record["probability"] is None else f"{record['probability']:.2f}"
            start = "-" if record["started_at"] is None else record["started_at"][:19].replace("T", " ")
            bits = f"{record['distance']:.4g}"
            at = _clock(record["offset_s"]) if record["duration_s"] else "-"  # a picture has no length
            table.add_row(str(record["rank"]), likely, bits, at, start, record["source"])
        console.print(table)
        n_rows += len(chunk)
    if n_rows == 0:
        console.print("no observations")


def _clock(seconds: float) -> str:
    """Return seconds as h:mm:ss.s."""
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{int(minutes // 60)}:{int(minutes % 60):02d}:{rest:04.1f}"


def _note_what_was_left_out(reader: StoreReader, space: str, period: Period) -> None:
    n_other = sum(n for name, n in reader.counts().items() if name != space)
    if n_other:
        print(f"edge-search: {n_other} observations of other code spaces were not searched", file=sys.stderr)
    if not period.is_always and (n := reader.n_without_time()):
        print(f"edge-search: {n} observations of unknown time are in no period", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
