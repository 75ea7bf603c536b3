"""Encoders: a window of sound or a sentence becomes the logits of a code. Opened from a bundle; which runtime runs is decided here."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.bundle import AudioInput, Bundle, EncoderEntry, Runtime, TextInput
from edge.errors import AudioError, BundleError, EncoderError, MissingDependencyError
from edge.watchlist import Query, Watchlist, compile_watchlist

Logits = NDArray[np.float32]
RuntimeChoice = Literal["auto", "onnx", "tflite"]

_RUNTIMES: tuple[Runtime, ...] = ("onnx", "tflite")  # in the order in which "auto" tries them
_LIBRARIES: dict[Runtime, tuple[str, ...]] = {
    "onnx": ("onnxruntime",),
    "tflite": ("ai_edge_litert.interpreter", "tflite_runtime.interpreter"),
}
_INSTALL: dict[Runtime, str] = {"onnx": "pip install onnxruntime", "tflite": "pip install ai-edge-litert"}


class Encoder(Protocol):
    """What the pipeline needs of an encoder of sound."""

    @property
    def code_space(self) -> str:
        """Return the id of the encoders whose codes may be compared."""
        ...

    @property
    def code_bits(self) -> int:
        """Return the number of logits."""
        ...

    @property
    def runtime(self) -> Runtime:
        """Return what runs it."""
        ...

    @property
    def sample_rate_hz(self) -> int:
        """Return the rate of the samples it takes."""
        ...

    @property
    def window_samples(self) -> int:
        """Return the length of a window."""
        ...

    def encode(self, samples: NDArray[np.float32]) -> Logits:
        """Return the logits [code_bits] of samples [window_samples]."""
        ...


@dataclass(frozen=True, slots=True)
class AudioEncoder:
    """An encoder of sound; run: float32 [window_samples] -> float32 [code_bits]; file: for messages."""

    code_space: str
    code_bits: int
    runtime: Runtime
    sample_rate_hz: int
    window_samples: int
    file: Path
    run: Callable[[NDArray[np.float32]], Logits]

    def encode(self, samples: NDArray[np.float32]) -> Logits:
        """Return the logits float32 [code_bits] of samples float32 [window_samples], mono, -1..1.

        Raises EncoderError for samples of another shape or type, and for logits that are not finite.
        """
        if samples.shape != (self.window_samples,) or samples.dtype != np.float32:
            found = f"{samples.dtype} {samples.shape}"
            raise EncoderError(
                f"{self.file}: expected samples float32 ({self.window_samples},), found {found}"
            )
        return _checked(self.run(samples), self.code_bits, self.file)


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """An encoder of sentences; run: sentence -> float32 [code_bits]; file: for messages."""

    code_space: str
    code_bits: int
    file: Path
    run: Callable[[str], Logits]

    def encode(self, text: str) -> Logits:
        """Return the logits float32 [code_bits] of a sentence. Raises EncoderError where they are not finite."""
        if not text.strip():
            raise EncoderError(f"{self.file}: expected a sentence, found an empty text")
        return _checked(self.run(text), self.code_bits, self.file)


def available_runtimes() -> tuple[Runtime, ...]:
    """Return the runtimes whose library can be imported here."""
    return tuple(runtime for runtime in _RUNTIMES if not _why_missing(runtime))


def open_audio_encoder(bundle: Bundle, runtime: RuntimeChoice = "auto", n_threads: int = 1) -> AudioEncoder:
    """Open the encoder of sound of a bundle; its hash is checked before it is parsed.

    runtime: auto takes onnx where the bundle has it and it is installed, else tflite. Raises BundleError,
    MissingDependencyError with the pip command, EncoderError where the library refuses the file.
    """
    entry = _choose(bundle, runtime)
    assert isinstance(entry.input, AudioInput)  # the manifest holds an audio input for every audio encoder
    file, bits = bundle.folder / entry.file, bundle.manifest.code_bits
    run: Callable[[NDArray[np.float32]], Logits]
    if entry.runtime == "onnx":
        from edge.onnx_encoder import audio_function as onnx_function

        run = onnx_function(bundle.read(entry), file, entry.output, n_threads)
    else:
        from edge.tflite_encoder import audio_function as tflite_function

        run = tflite_function(bundle.read(entry), file, entry.input.window_samples, bits, n_threads)
    space, audio = bundle.manifest.code_space, entry.input
    return AudioEncoder(space, bits, entry.runtime, audio.sample_rate_hz, audio.window_samples, file, run)


def open_text_encoder(bundle: Bundle, n_threads: int = 1) -> TextEncoder:
    """Open the encoder of sentences of a bundle (onnx only). Errors as open_audio_encoder.

    It may be left off a board: the BundleError then says how to compile a watchlist elsewhere.
    """
    try:
        entry = bundle.encoder_entry("text", "onnx")
        content, tokenizer = bundle.read(entry), bundle.read_tokenizer(entry)
    except BundleError as error:
        raise BundleError(
            f"{error}; without it, compile sentences where it is: edge-queries watchlist.txt -o watchlist.json"
        ) from error
    if reason := _why_missing("onnx"):
        raise _missing(["onnx"], f"text encoder: {reason}")
    from edge.onnx_encoder import text_function

    assert isinstance(entry.input, TextInput)  # the manifest holds a text input for every text encoder
    file = bundle.folder / entry.file
    run = text_function(content, file, tokenizer, entry.input.max_tokens, entry.output, n_threads)
    return TextEncoder(bundle.manifest.code_space, bundle.manifest.code_bits, file, run)


def encode_file(encoder: Encoder, path: Path) -> Logits:
    """Return the mean logits float32 [code_bits] of the windows of a recording, one after the other.

    Raises AudioError where it is not heard whole: a query that stands for half an example asks something else.
    """
    from edge.audio import End, FileSource  # brings libsndfile: only where an example is given
    from edge.windows import Window, windows

    events = FileSource([Path(path)], encoder.sample_rate_hz).events()
    total, n_windows = np.zeros(encoder.code_bits, np.float64), 0
    for item in windows(events, encoder.window_samples, encoder.window_samples, encoder.sample_rate_hz):
        if isinstance(item, Window):
            total += encoder.encode(item.samples)
            n_windows += 1
        elif not isinstance(item, End):
            raise AudioError(f"{path}: expected a recording that can be encoded, found: {item.reason}")
    assert n_windows  # windows tells of every recording that has none
    return (total / n_windows).astype(np.float32)


def compile_queries(
    bundle: Bundle, queries: Sequence[Query], runtime: RuntimeChoice = "auto", n_threads: int = 1
) -> Watchlist:
    """Return the queries with the codes that a bundle gives them; encoders are opened for this and released.

    Raises WatchlistError for a kind that the bundle cannot encode, AudioError for an example that cannot be
    heard, and what opening an encoder raises.
    """
    try:
        return _compiled(bundle, queries, runtime, n_threads)
    finally:
        _give_memory_back()


def _compiled(bundle: Bundle, queries: Sequence[Query], runtime: RuntimeChoice, n_threads: int) -> Watchlist:
    """Compile with encoders that are gone when this returns."""
    kinds = {query.kind for query in queries}
    text = open_text_encoder(bundle, n_threads) if "text" in kinds else None
    audio = open_audio_encoder(bundle, runtime, n_threads) if "sound" in kinds else None

    def encode_text(sentence: str) -> Logits:
        assert text is not None  # opened above for every list with a sentence
        return text.encode(sentence)

    def encode_sound(path: Path) -> Logits:
        assert audio is not None  # opened above for every list with an example
        return encode_file(audio, path)

    manifest = bundle.manifest
    name = f"{manifest.name} {manifest.version}"
    return compile_watchlist(
        queries, encode_text, encode_sound, manifest.code_space, manifest.code_bits, name
    )


def _choose(bundle: Bundle, runtime: RuntimeChoice) -> EncoderEntry:
    """Return the audio encoder that is to run."""
    if runtime != "auto":
        entry = bundle.encoder_entry("audio", runtime)
        if reason := _why_missing(runtime):
            raise _missing([runtime], f"runtime {runtime}: {reason}")
        return entry
    held = [entry for entry in bundle.manifest.encoders if entry.modality == "audio"]
    if not held:
        return bundle.encoder_entry("audio")  # raises, and says what is there
    held.sort(key=lambda entry: _RUNTIMES.index(entry.runtime))
    reasons = []
    for entry in held:
        reason = _why_missing(entry.runtime)  # one after the other: each library costs memory
        if not reason:
            return entry
        reasons.append(reason)
    raise _missing([entry.runtime for entry in held], f"{bundle.folder}: {'; '.join(reasons)}")


def _give_memory_back() -> None:
    """Return freed memory to the system: glibc would keep the 40 MB of a text encoder for the life of a recorder."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):  # another C library: it has its own way
        return


def _why_missing(runtime: Runtime) -> str:
    """Return why no library of a runtime can be imported, or "" where one can."""
    reasons = []
    for name in _LIBRARIES[runtime]:
        try:
            importlib.import_module(name)
        except ImportError as error:  # also a library that is there and fails to load
            reasons.append(str(error))
        else:
            return ""
    return (
        f"expected {' or '.join(name.partition('.')[0] for name in _LIBRARIES[runtime])}, found {reasons[0]}"
    )


def _missing(runtimes: Sequence[Runtime], what: str) -> MissingDependencyError:
    return MissingDependencyError(f"{what}; run: {' or '.join(_INSTALL[runtime] for runtime in runtimes)}")


def _checked(logits: Logits, code_bits: int, file: Path) -> Logits:
    """Return logits that may become a code."""
    if logits.shape != (code_bits,) or logits.dtype != np.float32:
        found = f"{logits.dtype} {logits.shape}"
        raise EncoderError(f"{file}: expected logits float32 ({code_bits},), found {found}")
    if not np.isfinite(logits).all():
        n_bad = int(np.count_nonzero(~np.isfinite(logits)))
        raise EncoderError(
            f"{file}: expected finite logits, found {n_bad} that are not; "
            "run edge-check, and copy the bundle again where it fails"
        )
    return logits
