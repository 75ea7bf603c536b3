"""Latency and peak memory of one exported encoder, in a process that does nothing else (export.full_size starts it).

Example:
    python export/measure.py --inputs inputs.npz --threads 2 audio.onnx
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_RUNS = 15  # after two that allocate; the fastest counts: other programs only ever make it slower
Feed = list[NDArray[Any]]  # inputs of a graph in its order


def onnx_graph(file: Path, n_threads: int) -> Callable[[Feed], Feed]:
    """Open an ONNX graph."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return lambda feed: session.run(None, dict(zip(names, feed, strict=True)))


def tflite_graph(file: Path, n_threads: int) -> Callable[[Feed], Feed]:
    """Open a TFLite graph; inputs in order of their names."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(file), num_threads=n_threads)
    interpreter.allocate_tensors()
    sources = sorted(interpreter.get_input_details(), key=lambda each: each["name"])
    target = interpreter.get_output_details()[0]["index"]

    def run(feed: Feed) -> Feed:
        for source, value in zip(sources, feed, strict=True):
            interpreter.set_tensor(source["index"], value)
        interpreter.invoke()
        return [interpreter.get_tensor(target).copy()]

    return run


def peak_bytes() -> int:
    """The most memory that this process ever held. Source: proc(5), VmHWM; ru_maxrss would count the parent's before exec."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status: expected a line VmHWM, found none")


def main(argv: Sequence[str] | None = None) -> int:
    """Print {"ms", "peak_bytes"} of a chain of graphs (a tower and its head, or one file)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="+", help="one file, or tower and head")
    parser.add_argument(
        "--inputs", type=Path, required=True, help=".npz with the inputs of the first file, in order"
    )
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    with np.load(arguments.inputs, allow_pickle=False) as arrays:
        given = [arrays[name] for name in arrays.files]
    graphs = [
        (onnx_graph if file.suffix == ".onnx" else tflite_graph)(file, arguments.threads)
        for file in arguments.files
    ]
    times_s = []
    for _ in range(N_RUNS + 2):
        start, values = time.perf_counter(), given
        for graph in graphs:
            values = graph(values)
        times_s.append(time.perf_counter() - start)
    print(json.dumps({"ms": 1000 * min(times_s[2:]), "peak_bytes": peak_bytes()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
