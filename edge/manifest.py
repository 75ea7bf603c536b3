"""manifest.json of a bundle: each file, its sha256, and all that is needed to use it. FORMAT_VERSION = 1."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar, get_args

from edge import require
from edge.errors import BundleError

FORMAT_VERSION = 1

Modality = Literal["audio", "image", "text"]
Runtime = Literal["onnx", "tflite"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX = 2**31 - 1
_PROVENANCE_KEYS = ("train_run", "commit", "data")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class AudioInput:
    """Input of an audio encoder: float32 mono [window_samples] in [-1, 1] at sample_rate_hz."""

    sample_rate_hz: int
    window_samples: int

    def __post_init__(self) -> None:
        require.integer(BundleError, "sample_rate_hz", self.sample_rate_hz, 1, _MAX)
        require.integer(BundleError, "window_samples", self.window_samples, 1, _MAX)


@dataclass(frozen=True, slots=True)
class ImageInput:
    """Input of an image encoder: RGB, size x size pixels, (x / 255 - mean) / std for each channel.

    resize: how an image becomes square, for example "shortest-side-centre-crop".
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str

    def __post_init__(self) -> None:
        require.integer(BundleError, "size", self.size, 1, _MAX)
        for name, triple, low in (("mean", self.mean, -math.inf), ("std", self.std, 1e-9)):
            if not isinstance(triple, tuple) or len(triple) != 3:
                raise require.wrong(BundleError, name, "three numbers", triple)
            for value in triple:
                require.number(BundleError, name, value, low, math.inf)
        require.text(BundleError, "resize", self.resize)


@dataclass(frozen=True, slots=True)
class TextInput:
    """Input of a text encoder: token ids from a tokenizers file, at most max_tokens of them."""

    max_tokens: int
    tokenizer: str
    tokenizer_sha256: str

    def __post_init__(self) -> None:
        require.integer(BundleError, "max_tokens", self.max_tokens, 1, _MAX)
        _require_plain_name("tokenizer", self.tokenizer)
        _require_sha256("tokenizer_sha256", self.tokenizer_sha256)


_INPUTS: dict[str, type[AudioInput] | type[ImageInput] | type[TextInput]] = {
    "audio": AudioInput,
    "image": ImageInput,
    "text": TextInput,
}


@dataclass(frozen=True, slots=True)
class EncoderEntry:
    """One encoder file: what it encodes (modality), what runs it (runtime), its numbers (precision).

    file: plain name inside the bundle; output: name of its output tensor, float32 [1, code_bits] logits.
    size_bytes: of the file as found by Bundle.load, 0 where it was left off; not part of the manifest.
    """

    modality: Modality
    runtime: Runtime
    precision: str
    file: str
    sha256: str
    input: AudioInput | ImageInput | TextInput
    output: str = "logits"
    size_bytes: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        require.one_of(BundleError, "modality", self.modality, get_args(Modality))
        require.one_of(BundleError, "runtime", self.runtime, get_args(Runtime))
        require.text(BundleError, "precision", self.precision)
        _require_plain_name("file", self.file)
        _require_sha256("sha256", self.sha256)
        require.instance(BundleError, "input", self.input, (_INPUTS[self.modality],))
        require.text(BundleError, "output", self.output)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Probability that a sound fits a query: sigmoid(coefficient * distance + intercept), distance in bits.

    coefficient < 0 (nearer is likelier); n_pairs and source say from what it was fitted.
    """

    method: Literal["logistic"]
    coefficient: float
    intercept: float
    n_pairs: int
    source: str

    def __post_init__(self) -> None:
        require.one_of(BundleError, "method", self.method, ("logistic",))
        require.number(BundleError, "coefficient", self.coefficient, -1e6, -1e-9)
        require.number(BundleError, "intercept", self.intercept, -1e6, 1e6)
        require.integer(BundleError, "n_pairs", self.n_pairs, 0, 2**63 - 1)
        require.text(BundleError, "source", self.source)


@dataclass(frozen=True, slots=True)
class Decoy:
    """A sentence that never alarms and only competes with the queries; code: packed, code_bits // 8 bytes."""

    text: str
    code: bytes

    def __post_init__(self) -> None:
        require.text(BundleError, "text", self.text)
        require.instance(BundleError, "code", self.code, (bytes,))


@dataclass(frozen=True, slots=True)
class GoldenEntry:
    """A .npz (no pickle) with inputs and the outputs expected of every runtime.

    audio: inputs [n, window_samples], logits_onnx and logits_tflite float32 [n, code_bits], codes_onnx and
    codes_tflite uint8 [n, code_bits // 8]; text: texts (unicode), logits_onnx, codes_onnx.
    tolerance: |golden logit| above which a bit must be equal on any CPU.
    """

    modality: Modality
    file: str
    sha256: str
    tolerance: float

    def __post_init__(self) -> None:
        require.one_of(BundleError, "modality", self.modality, get_args(Modality))
        _require_plain_name("file", self.file)
        _require_sha256("sha256", self.sha256)
        require.number(BundleError, "tolerance", self.tolerance, 0.0, 1e6)


@dataclass(frozen=True, slots=True)
class Manifest:
    """All of manifest.json.

    code_space: id of the encoders whose codes may be compared; code_bits: 64, 128, 192 or 256.
    provenance: at least train_run, commit, data; figures: measured, by name. Raises BundleError when invalid.
    """

    name: str
    version: str
    code_space: str
    code_bits: int
    encoders: tuple[EncoderEntry, ...]
    calibration: Calibration | None
    decoys: tuple[Decoy, ...]
    golden: tuple[GoldenEntry, ...]
    licence: str
    licence_note: str
    provenance: Mapping[str, Any]
    figures: Mapping[str, Any]
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        require.one_of(BundleError, "format_version", self.format_version, (FORMAT_VERSION,))
        for name in ("name", "version", "code_space", "licence"):
            require.text(BundleError, name, getattr(self, name))
        require.text(BundleError, "licence_note", self.licence_note, may_be_empty=True)
        require.one_of(BundleError, "code_bits", self.code_bits, (64, 128, 192, 256))
        _require_entries("encoders", self.encoders, EncoderEntry)
        _require_entries("decoys", self.decoys, Decoy)
        _require_entries("golden", self.golden, GoldenEntry)
        if self.calibration is not None:
            require.instance(BundleError, "calibration", self.calibration, (Calibration,))
        for i, decoy in enumerate(self.decoys):
            if len(decoy.code) * 8 != self.code_bits:
                found = f"{len(decoy.code) * 8} bits"
                raise BundleError(
                    f"decoys[{i}].code: expected {self.code_bits} bits (code_bits), found {found}"
                )
        kinds = [(entry.modality, entry.runtime) for entry in self.encoders]
        if len(set(kinds)) < len(kinds) or not kinds:
            shown = ", ".join(f"{modality}/{runtime}" for modality, runtime in kinds) or "none"
            raise BundleError(f"encoders: expected one for each modality and runtime, found {shown}")
        require.keys(BundleError, "provenance", self.provenance, _PROVENANCE_KEYS)
        require.instance(BundleError, "figures", self.figures, (Mapping,))


def parse_manifest(content: bytes, file: str) -> Manifest:
    """Return the manifest in the bytes of a manifest.json; unknown keys are ignored.

    file: path for messages. Raises BundleError naming file, key, expected and found.
    """
    try:
        root = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{file}: expected JSON in UTF-8, found {error}") from error
    require.version(
        BundleError, file, root, FORMAT_VERSION, "use the bundle and the fieldcube of one release"
    )
    names = [each.name for each in fields(Manifest)]
    root = dict(require.keys(BundleError, file, root, names))
    try:
        root["encoders"] = tuple(_encoder(item, at) for at, item in _items(root, "encoders"))
        root["decoys"] = tuple(_decoy(item, at) for at, item in _items(root, "decoys"))
        root["golden"] = tuple(_build(GoldenEntry, item, at) for at, item in _items(root, "golden"))
        if root["calibration"] is not None:
            root["calibration"] = _build(Calibration, root["calibration"], "calibration")
        return Manifest(**{name: root[name] for name in names})
    except BundleError as error:
        raise BundleError(f"{file}: {error}") from error


def format_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of manifest.json: UTF-8, two spaces, keys in the order of the dataclasses."""
    root = asdict(manifest)
    for entry in root["encoders"]:
        del entry["size_bytes"]
    for decoy in root["decoys"]:
        decoy["code"] = decoy["code"].hex()
    root = {"format_version": root.pop("format_version"), **root}
    return (json.dumps(root, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")


def _items(root: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    """Return (place for messages, item) of the list under key."""
    require.instance(BundleError, key, root[key], (list,))
    return [(f"{key}[{i}]", item) for i, item in enumerate(root[key])]


def _encoder(item: object, at: str) -> EncoderEntry:
    """Build one encoder entry; its modality says which input it has."""
    names = [each.name for each in fields(EncoderEntry) if each.name != "size_bytes"]
    values = {
        name: value for name, value in require.keys(BundleError, at, item, names).items() if name in names
    }
    require.one_of(BundleError, f"{at}.modality", values["modality"], get_args(Modality))
    values["input"] = _build(_INPUTS[values["modality"]], values["input"], f"{at}.input")
    return _build(EncoderEntry, values, at)


def _decoy(item: object, at: str) -> Decoy:
    """Build one decoy; its code is hexadecimal in JSON."""
    values = dict(require.keys(BundleError, at, item, ("text", "code")))
    try:
        values["code"] = bytes.fromhex(values["code"])
    except (TypeError, ValueError) as error:
        raise require.wrong(BundleError, f"{at}.code", "hexadecimal digits", values["code"]) from error
    return _build(Decoy, values, at)


def _build(kind: type[_T], item: object, at: str) -> _T:
    """Build a dataclass from a JSON object: every field a key, lists as tuples; at: place for errors."""
    names = [each.name for each in fields(kind) if each.name != "size_bytes"]  # type: ignore[arg-type]
    values = require.keys(BundleError, at, item, names)
    try:
        return kind(**{n: tuple(v) if isinstance(v := values[n], list) else v for n in names})
    except BundleError as error:
        raise BundleError(f"{at}.{error}") from error


def _require_plain_name(name: str, value: object) -> None:
    """Require a file name that cannot leave the bundle: no separator, no drive, not hidden."""
    require.text(BundleError, name, value)
    text = str(value)
    if any(mark in text for mark in "/\\:\0") or text.startswith(".") or text == "manifest.json":
        raise require.wrong(BundleError, name, "a plain file name inside the bundle", value)


def _require_sha256(name: str, value: object) -> None:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise require.wrong(BundleError, name, "a sha256 of 64 lower-case hexadecimal digits", value)


def _require_entries(name: str, value: tuple[object, ...], kind: type) -> None:
    require.instance(BundleError, name, value, (tuple,))
    for i, item in enumerate(value):
        require.instance(BundleError, f"{name}[{i}]", item, (kind,))
