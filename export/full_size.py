"""Export towers at their true size in every way, and measure: one table for all of them (scripts/check_models.sh, docs/models.md).

Heads are ITQ without training, fitted on real observations, so that every bit is balanced also where the weights are random.

Example:
    python export/full_size.py --encoder clap:random --dataset 'fieldcube:../data?sets=esc10' --json build/models.json
    python export/full_size.py --json build/models.json --table docs/models.md
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

if __name__ == "__main__":  # run as a file: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edge.bundle import Runtime
from edge.errors import FieldcubeError
from export import tower_source
from export.parity import SURE, retrieval
from export.tower_command import examples_of
from export.tower_export import (
    Files,
    Job,
    Logits,
    export_float,
    observation_job,
    open_files,
    quantize,
    run,
    text_job,
)
from export.tower_quantize import precisions_of
from export.tower_source import TowerSource, from_towers
from train.metrics import centred_agreement, raw_agreement
from train.towers import open_towers

TEXTS = (
    "a dog barks", "rain", "a bird sings at dawn", "frogs at a pond", "a chainsaw", "an owl calls at night",
    "a fox at night", "a deer with two calves", "an empty scene", "a boar with young", "a crab on a beach", "an eagle in flight",
)  # fmt: skip
START, END = "<!-- table -->", "<!-- end of table -->"


@dataclass(frozen=True, slots=True)
class Measured:
    """One line of the table."""

    encoder: str
    kind: str
    runtime: str
    precision: str
    n_bytes: int
    difference: float  # the largest of a logit from PyTorch's, relative to the largest logit
    n_wrong: int  # bits that differ where PyTorch's logit is not near 0
    raw: float
    centred: float
    map_change: float
    ms_1: float
    ms_2: float
    peak_bytes: int
    export_s: float
    n_inputs: int


def measured_alone(job: Job, runtime: Runtime, files: Files, n_threads: int) -> tuple[float, int]:
    """(ms, bytes) of an encoder in a process of its own."""
    arguments = job.arguments(job.compared[0]) if runtime == "onnx" else job.fixed(job.compared[0])
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.npz"
        np.savez(inputs, *(each.numpy() for each in arguments))
        chain = [str(file) for file in (files.tower, files.head) if file is not None]
        script = Path(__file__).with_name("measure.py")
        command = [sys.executable, str(script), "--inputs", str(inputs), "--threads", str(n_threads), *chain]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FieldcubeError(f"{files.tower.name}: expected a run of its own, found: {done.stderr[-500:]}")
    found = json.loads(done.stdout)
    return found["ms"], found["peak_bytes"]


def rows_of(
    job: Job,
    reference: Logits,
    other: Logits,
    source: TowerSource,
    runtime: Runtime,
    folder: Path,
    console: Console,
) -> list[Measured]:
    """Export an encoder for one runtime in float and in every precision; reference: PyTorch's logits of it, other: of the other encoder."""
    queries = len(source.parity.queries)

    def search(logits: Logits) -> float:
        pair = (logits[:queries], other) if job.kind == "text" else (other[:queries], logits)
        return retrieval(*pair, source.parity)

    started = time.perf_counter()
    float_files = files = export_float(job, runtime, False, folder)
    rows = []
    for precision in ("float", *precisions_of(job.kind, runtime)):
        if precision != "float":
            started = time.perf_counter()
            files = quantize(job, runtime, precision, float_files, folder)
        export_s = time.perf_counter() - started
        logits = run(open_files(job, runtime, files), job.compared)
        is_wrong = ((logits >= 0) != (reference >= 0)) & (np.abs(reference) > SURE)
        (ms_1, peak), (ms_2, _) = (measured_alone(job, runtime, files, n) for n in (1, 2))
        row = Measured(
            source.pair.name,
            job.kind,
            runtime,
            precision,
            files.size_bytes,
            float(np.abs(logits - reference).max() / np.abs(reference).max()),
            int(is_wrong.sum()),
            raw_agreement(reference, logits),
            centred_agreement(reference, logits),
            search(logits) - search(reference),
            ms_1,
            ms_2,
            peak,
            export_s,
            len(reference),
        )
        rows.append(row)
        console.print(table_row(row))
    return rows


def measure(
    encoder: str,
    dataset: str,
    runtimes: Sequence[Runtime],
    kinds: Sequence[str],
    n_inputs: int,
    console: Console,
) -> list[Measured]:
    """All rows of one pair of towers."""
    pair = open_towers(encoder)
    source = from_towers(pair, "itq", TEXTS, examples_of(dataset, pair), None, n_inputs)
    jobs = [observation_job(source), text_job(source)]
    references = [job.logits(job.compared) for job in jobs]
    rows = []
    for job, reference, other in zip(jobs, references, reversed(references), strict=True):
        for runtime in (
            runtimes if job.kind in kinds or (job.kind != "text" and "observation" in kinds) else ()
        ):
            with tempfile.TemporaryDirectory() as folder:
                rows += rows_of(job, reference, other, source, runtime, Path(folder), console)
    return rows


def table_row(row: Measured) -> str:
    """A line of Markdown."""
    cells = (
        f"{row.encoder} {row.kind}",
        row.runtime,
        row.precision,
        f"{row.n_bytes / 1e6:.1f}",
        f"{row.difference:.1e}",
        str(row.n_wrong),
        f"{row.raw:.4f}",
        f"{row.centred:.4f}",
        f"{100 * row.map_change:+.2f}",
        f"{row.ms_1:.0f}",
        f"{row.ms_2:.0f}",
        f"{row.peak_bytes / 1e6:.0f}",
        f"{row.export_s:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def table(rows: Sequence[Measured]) -> str:
    """The whole table in Markdown."""
    headings = (
        "graph", "runtime", "precision", "MB", "max relative difference", "wrong sure bits", "bits equal", "centred", "mAP change (points)",
        "ms, 1 thread", "ms, 2 threads", "peak MB", "export s",
    )  # fmt: skip
    lines = [f"| {' | '.join(headings)} |", f"|{'---|' * 3}{'---:|' * (len(headings) - 3)}"]
    return "\n".join([*lines, *(table_row(row) for row in rows)])


def read_rows(file: Path) -> list[Measured]:
    """Rows of earlier runs; none where there is no file."""
    return [Measured(**row) for row in json.loads(file.read_text(encoding="utf-8"))] if file.is_file() else []


def write_table(rows: Sequence[Measured], file: Path) -> None:
    """Put the table between its marks in a document; a document without them is refused."""
    text = file.read_text(encoding="utf-8")
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise FieldcubeError(f"{file}: expected the marks {START} and {END}, found none")
    file.write_text(f"{before}{START}\n{table(rows)}\n{END}{after}", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", help="towers to measure (as for to_onnx.py)")
    parser.add_argument("--dataset", help="real observations (docs/formats.md)")
    parser.add_argument("--runtimes", nargs="+", default=["onnx", "tflite"], choices=("onnx", "tflite"))
    parser.add_argument(
        "--kinds", nargs="+", default=["observation", "text"], choices=("observation", "text")
    )
    parser.add_argument(
        "--inputs", type=int, default=tower_source.N_PARITY, help="compared (default %(default)s)"
    )
    parser.add_argument("--json", type=Path, required=True, help="rows are added to it, or replaced in it")
    parser.add_argument("--table", type=Path, help="Markdown file whose table is replaced")
    arguments = parser.parse_args(argv)
    console = Console(soft_wrap=True)
    try:
        rows = read_rows(arguments.json)
        if arguments.encoder:
            found = measure(
                arguments.encoder,
                arguments.dataset,
                arguments.runtimes,
                arguments.kinds,
                arguments.inputs,
                console,
            )
            new = {(row.encoder, row.kind, row.runtime, row.precision) for row in found}
            kept = [row for row in rows if (row.encoder, row.kind, row.runtime, row.precision) not in new]
            rows = sorted([*kept, *found], key=lambda row: (row.encoder, row.kind, row.runtime))
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")
        if arguments.table:
            write_table(rows, arguments.table)
    except FieldcubeError as error:
        print(f"full_size: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
