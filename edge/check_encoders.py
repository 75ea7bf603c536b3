"""Checks of a bundle's encoders on this board: golden inputs give the golden codes, and fast enough."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle, Modality, Runtime
from edge.check_board import Check
from edge.encoder import (
    Encoder,
    ImageEncoder,
    available_runtimes,
    open_audio_encoder,
    open_image_encoder,
    open_text_encoder,
)
from edge.errors import BundleError, FieldcubeError

MAX_LOAD = 0.7  # of a core: above it, a hot or busy board falls behind
MIN_AGREEMENT = (
    0.97  # of bits, each counted from its median over the inputs: bits that never change prove nothing
)
_N_SPEED_WINDOWS = 5


def runtimes_to_check(bundle: Bundle, modality: Modality) -> list[Runtime]:
    """Return the runtimes that are installed and that the bundle has an encoder here for."""
    held = {e.runtime for e in bundle.manifest.encoders if e.modality == modality and e.size_bytes}
    return [runtime for runtime in available_runtimes() if runtime in held]


def check_golden(bundle: Bundle) -> Iterator[Check]:
    """Encode the golden inputs again, in every runtime that is installed and that the bundle has an encoder here for."""
    checks = {"audio": check_audio, "image": check_image, "text": check_text}
    for modality in get_args(Modality):
        for runtime in runtimes_to_check(bundle, modality):
            yield from checks[modality](bundle, runtime)


def check_speed(
    encoder: Encoder, hop_s: float | None, clock: Callable[[], float] = time.perf_counter
) -> Check:
    """Measure the share of one core that the encoder takes: median time for a window over the hop."""
    noise = np.random.default_rng(0).normal(0, 0.1, encoder.window_samples).astype(np.float32)
    encoder.encode(noise)  # the first run allocates
    times_s = []
    for _ in range(_N_SPEED_WINDOWS):
        start = clock()
        encoder.encode(noise)
        times_s.append(clock() - start)
    hop_s = hop_s or encoder.window_samples / encoder.sample_rate_hz / 2
    load = statistics.median(times_s) / hop_s
    hint = None if load <= MAX_LOAD else "take a longer hop, more threads or a smaller bundle"
    return Check("speed", load <= MAX_LOAD, load, "real-time factor", MAX_LOAD, hint)


def check_picture_speed(encoder: ImageEncoder, clock: Callable[[], float] = time.perf_counter) -> Check:
    """Measure how long the encoder takes for a picture: median time. Pictures wait, so there is no limit."""
    grey = np.zeros((3, encoder.takes.size, encoder.takes.size), np.float32)
    encoder.encode(grey)  # the first run allocates
    times_s = []
    for _ in range(_N_SPEED_WINDOWS):
        start = clock()
        encoder.encode(grey)
        times_s.append(clock() - start)
    return Check("speed of pictures", True, statistics.median(times_s), "s")


def check_audio(bundle: Bundle, runtime: Runtime) -> Iterator[Check]:
    """Encode the golden windows again in one runtime."""

    def encode(arrays: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        encoder = open_audio_encoder(bundle, runtime)
        return np.stack([encoder.encode(golden_samples(window)) for window in arrays["inputs"]])

    yield from _compared(bundle, "audio", runtime, encode)


def check_image(bundle: Bundle, runtime: Runtime) -> Iterator[Check]:
    """Resize and encode the golden pictures again in one runtime."""

    def encode(arrays: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        from edge.images import pixels_of  # brings Pillow: only where there are pictures

        encoder = open_image_encoder(bundle, runtime)
        return np.stack([encoder.encode(pixels_of(picture, encoder.takes)) for picture in arrays["inputs"]])

    yield from _compared(bundle, "image", runtime, encode)


def check_text(bundle: Bundle, runtime: Runtime) -> Iterator[Check]:
    """Encode the golden sentences again in one runtime."""

    def encode(arrays: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        encoder = open_text_encoder(bundle, runtime=runtime)
        return np.stack([encoder.encode(str(text)) for text in arrays["texts"]])

    yield from _compared(bundle, "text", runtime, encode)


def golden_samples(window: NDArray[Any]) -> NDArray[np.float32]:
    """Return a golden window as float32; int16 ones were scaled by 32767 when the bundle was made."""
    if window.dtype == np.int16:
        return window.astype(np.float32) / np.float32(32767)
    return window.astype(np.float32)


def agreement(golden: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Return the share of equal bits of logits [n, n_bits], each counted from the golden median over n inputs.

    The median lies between the two middle inputs, on none of them: rounding would decide that one's bit.
    """
    order, middle = np.sort(golden, axis=0), len(golden) // 2
    median = (order[middle - 1] + order[middle]) / 2 if middle else np.zeros_like(golden[0])
    return float(np.mean((golden >= median) == (found >= median)))


def n_broken(golden: NDArray[np.float32], found: NDArray[np.float32], tolerance: float) -> int:
    """Return how many bits differ although their golden logit is farther from zero than the tolerance."""
    return int(np.count_nonzero(((golden >= 0) != (found >= 0)) & (np.abs(golden) > tolerance)))


def _compared(
    bundle: Bundle,
    modality: Modality,
    runtime: Runtime,
    encode: Callable[[dict[str, NDArray[Any]]], NDArray[np.float32]],
) -> Iterator[Check]:
    """Yield what golden inputs gave: bits that had to be equal, and the agreement of all."""
    name = f"golden {modality} {runtime}"
    try:
        arrays = bundle.golden(modality)
        key = "texts" if modality == "text" else "inputs"
        if arrays is None or key not in arrays or f"logits_{runtime}" not in arrays:
            raise BundleError(f"{bundle.folder}: expected golden {modality} inputs for {runtime}, found none")
        golden, found = arrays[f"logits_{runtime}"], encode(arrays)
        if golden.shape != found.shape:
            raise BundleError(f"{bundle.folder}: expected golden logits {found.shape}, found {golden.shape}")
    except FieldcubeError as error:
        yield Check(name, False, None, hint=str(error))
        return
    tolerance = next(entry.tolerance for entry in bundle.manifest.golden if entry.modality == modality)
    broken, agreed = n_broken(golden, found, tolerance), agreement(golden, found)
    why = "this board computes other codes: use another --runtime, or update it, and report the board"
    yield Check(name, broken == 0, broken, "wrong bits", 0, why if broken else None)
    ok = agreed >= MIN_AGREEMENT
    yield Check(f"{name} bits", ok, agreed, "equal", MIN_AGREEMENT, None if ok else why)
