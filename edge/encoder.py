"""Encoders: a window of sound, a picture or a sentence becomes the logits of a code. Opened from a bundle."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge.bundle import AudioInput, Bundle, ImageInput, Runtime
from edge.encoder_runtimes import RuntimeChoice, array_function, available_runtimes, choose, text_function
from edge.errors import AudioError, BundleError, EncoderError
from edge.watchlist import Query, Watchlist, compile_watchlist

__all__ = [
    "AudioEncoder",
    "Encoder",
    "ImageEncoder",
    "Logits",
    "RuntimeChoice",
    "TextEncoder",
    "available_runtimes",
    "compile_queries",
    "encode_file",
    "encode_picture",
    "open_audio_encoder",
    "open_image_encoder",
    "open_text_encoder",
]

Logits = NDArray[np.float32]


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
class ImageEncoder:
    """An encoder of pictures; takes: size and resize; run: float32 [3, size, size] -> float32 [code_bits]."""

    code_space: str
    code_bits: int
    runtime: Runtime
    takes: ImageInput
    file: Path
    run: Callable[[NDArray[np.float32]], Logits]

    def encode(self, pixels: NDArray[np.float32]) -> Logits:
        """Return the logits float32 [code_bits] of what edge.images.pixels_of gives for a picture.

        Raises EncoderError for pixels of another shape or type, and for logits that are not finite.
        """
        shape = (3, self.takes.size, self.takes.size)
        if pixels.shape != shape or pixels.dtype != np.float32:
            found = f"{pixels.dtype} {pixels.shape}"
            raise EncoderError(f"{self.file}: expected pixels float32 {shape}, found {found}")
        return _checked(self.run(pixels), self.code_bits, self.file)


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """An encoder of sentences; run: sentence -> float32 [code_bits]; file: for messages."""

    code_space: str
    code_bits: int
    runtime: Runtime
    file: Path
    run: Callable[[str], Logits]

    def encode(self, text: str) -> Logits:
        """Return the logits float32 [code_bits] of a sentence. Raises EncoderError where they are not finite."""
        if not text.strip():
            raise EncoderError(f"{self.file}: expected a sentence, found an empty text")
        return _checked(self.run(text), self.code_bits, self.file)


def open_audio_encoder(bundle: Bundle, runtime: RuntimeChoice = "auto", n_threads: int = 1) -> AudioEncoder:
    """Open the encoder of sound of a bundle; its hash is checked before it is parsed.

    runtime: auto takes onnx where the bundle has it and it is installed, else tflite. Raises BundleError,
    MissingDependencyError with the pip command, EncoderError where the library refuses the file.
    """
    entry = choose(bundle, "audio", runtime)
    assert isinstance(entry.input, AudioInput)  # the manifest holds an audio input for every audio encoder
    audio, manifest = entry.input, bundle.manifest
    run = array_function(bundle, entry, "samples", (audio.window_samples,), n_threads)
    return AudioEncoder(
        manifest.code_space,
        manifest.code_bits,
        entry.runtime,
        audio.sample_rate_hz,
        audio.window_samples,
        bundle.folder / entry.file,
        run,
    )


def open_image_encoder(bundle: Bundle, runtime: RuntimeChoice = "auto", n_threads: int = 1) -> ImageEncoder:
    """Open the encoder of pictures of a bundle. runtime, errors: as open_audio_encoder."""
    from edge.images import require_known_resize  # brings Pillow: only where there are pictures

    entry = choose(bundle, "image", runtime)
    assert isinstance(entry.input, ImageInput)  # the manifest holds an image input for every image encoder
    takes, manifest = entry.input, bundle.manifest
    require_known_resize(takes, bundle.folder / "manifest.json")
    run = array_function(bundle, entry, "pixels", (3, takes.size, takes.size), n_threads)
    file = bundle.folder / entry.file
    _give_memory_back()  # what was needed to open it: as much again as the file
    return ImageEncoder(manifest.code_space, manifest.code_bits, entry.runtime, takes, file, run)


def open_text_encoder(bundle: Bundle, n_threads: int = 1, runtime: RuntimeChoice = "auto") -> TextEncoder:
    """Open the encoder of sentences of a bundle. runtime, errors: as open_audio_encoder.

    It may be left off a board: the BundleError then says how to compile a watchlist elsewhere.
    """
    try:
        entry = choose(bundle, "text", runtime)
        content, tokenizer = bundle.read(entry), bundle.read_tokenizer(entry)
    except BundleError as error:
        raise BundleError(
            f"{error}; without it, compile sentences where it is: edge-queries watchlist.txt -o watchlist.json"
        ) from error
    run = text_function(bundle, entry, content, tokenizer, n_threads)
    file = bundle.folder / entry.file
    return TextEncoder(bundle.manifest.code_space, bundle.manifest.code_bits, entry.runtime, file, run)


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


def encode_picture(encoder: ImageEncoder, path: Path) -> Logits:
    """Return the logits float32 [code_bits] of a picture file. Raises ImageError where it cannot be read."""
    from edge.images import pixels_of, read_image

    return encoder.encode(pixels_of(read_image(Path(path)).image, encoder.takes))


def compile_queries(
    bundle: Bundle, queries: Sequence[Query], runtime: RuntimeChoice = "auto", n_threads: int = 1
) -> Watchlist:
    """Return the queries with the codes that a bundle gives them; encoders are opened for this and released.

    runtime: of sound and pictures. Raises WatchlistError for a kind that the bundle cannot encode, AudioError or
    ImageError for an example that cannot be heard or seen, and what opening an encoder raises.
    """
    try:
        return _compiled(bundle, queries, runtime, n_threads)
    finally:
        _give_memory_back()


def _compiled(bundle: Bundle, queries: Sequence[Query], runtime: RuntimeChoice, n_threads: int) -> Watchlist:
    """Compile with encoders that are gone when this returns."""
    kinds = {query.kind for query in queries}
    has_image = any(entry.modality == "image" for entry in bundle.manifest.encoders)
    text = open_text_encoder(bundle, n_threads) if "text" in kinds else None
    audio = open_audio_encoder(bundle, runtime, n_threads) if "sound" in kinds else None
    image = open_image_encoder(bundle, runtime, n_threads) if "image" in kinds and has_image else None

    def encode_text(sentence: str) -> Logits:
        assert text is not None  # opened above for every list with a sentence
        return text.encode(sentence)

    def encode_sound(path: Path) -> Logits:
        assert audio is not None  # opened above for every list with an example
        return encode_file(audio, path)

    def encode_image(path: Path) -> Logits:
        assert image is not None  # passed on only where it was opened
        return encode_picture(image, path)

    manifest = bundle.manifest
    return compile_watchlist(
        queries,
        encode_text,
        encode_sound,
        manifest.code_space,
        manifest.code_bits,
        f"{manifest.name} {manifest.version}",
        encode_image=None if image is None else encode_image,
    )


def _give_memory_back() -> None:
    """Return freed memory to the system: glibc would keep the 40 MB of a text encoder for the life of a recorder."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):  # another C library: it has its own way
        return


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
