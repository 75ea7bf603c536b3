"""manifest.json of a bundle: each file, its sha256, and all that is needed to use it. FORMAT_VERSION = 1.

A bundle with an encoder in two files has SPLIT_FORMAT_VERSION = 2: who knows only version 1 must not take the features
of a tower for logits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar, get_args

from edge import require
from edge.errors import BundleError
from edge.manifest_inputs import AudioInput, ImageInput, TextInput, require_plain_name, require_sha256

FORMAT_VERSION = 1
SPLIT_FORMAT_VERSION = 2

Modality = Literal["audio", "image", "text"]
Runtime = Literal["onnx", "tflite"]

_PROVENANCE_KEYS = ("train_run", "commit", "data")
_OPTIONAL_KEYS = ("pad_id", "head", "reference")  # written only where they say something
_T = TypeVar("_T")

_INPUTS: dict[str, type[AudioInput] | type[ImageInput] | type[TextInput]] = {
    "audio": AudioInput,
    "image": ImageInput,
    "text": TextInput,
}


@dataclass(frozen=True, slots=True)
class HeadEntry:
    """The second file of an encoder whose tower and head are two, run by the same runtime.

    features: name of the tower's output and of the head's input, float32 [1, n_features].
    """

    file: str
    sha256: str
    precision: str
    n_features: int
    features: str = "features"

    def __post_init__(self) -> None:
        require_plain_name("file", self.file)
        require_sha256("sha256", self.sha256)
        require.text(BundleError, "precision", self.precision)
        require.integer(BundleError, "n_features", self.n_features, 1, 2**31 - 1)
        require.text(BundleError, "features", self.features)


@dataclass(frozen=True, slots=True)
class EncoderEntry:
    """One encoder: what it encodes (modality), what runs it (runtime), its numbers (precision).

    file: plain name inside the bundle; output: name of the tensor with the logits, float32 [1, code_bits].
    head: None where file holds the whole encoder; else file is the tower, and output one of the head.
    size_bytes: of the file as found by Bundle.load, 0 where it was left off; not part of the manifest.
    """

    modality: Modality
    runtime: Runtime
    precision: str
    file: str
    sha256: str
    input: AudioInput | ImageInput | TextInput
    output: str = "logits"
    head: HeadEntry | None = None
    size_bytes: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        require.one_of(BundleError, "modality", self.modality, get_args(Modality))
        require.one_of(BundleError, "runtime", self.runtime, get_args(Runtime))
        require.text(BundleError, "precision", self.precision)
        require_plain_name("file", self.file)
        require_sha256("sha256", self.sha256)
        require.instance(BundleError, "input", self.input, (_INPUTS[self.modality],))
        require.text(BundleError, "output", self.output)
        if self.head is not None:
            require.instance(BundleError, "head", self.head, (HeadEntry,))
            if self.head.file == self.file:
                raise BundleError(f"head.file: expected another file than the tower's, found {self.file!r}")


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

    inputs: of audio int16 or float32 [n, window_samples]; of images uint8 [n, height, width, 3], RGB before it is
    resized; texts (unicode) of text. For each runtime that the bundle has: logits_onnx or logits_tflite float32
    [n, code_bits], codes_onnx or codes_tflite uint8 [n, code_bits // 8].
    tolerance: |golden logit| above which a bit must be equal on any CPU.
    """

    modality: Modality
    file: str
    sha256: str
    tolerance: float

    def __post_init__(self) -> None:
        require.one_of(BundleError, "modality", self.modality, get_args(Modality))
        require_plain_name("file", self.file)
        require_sha256("sha256", self.sha256)
        require.number(BundleError, "tolerance", self.tolerance, 0.0, 1e6)


@dataclass(frozen=True, slots=True)
class ReferenceEntry:
    """A .npz (no pickle) of codes that alarms are judged by before a site is known (edge.reference).

    hop_s: from one background window to the next; source: what was heard, for people.
    """

    file: str
    sha256: str
    hop_s: float
    source: str

    def __post_init__(self) -> None:
        require_plain_name("file", self.file)
        require_sha256("sha256", self.sha256)
        require.number(BundleError, "hop_s", self.hop_s, 0.01, 86_400.0)
        require.text(BundleError, "source", self.source)


@dataclass(frozen=True, slots=True)
class Manifest:
    """All of manifest.json.

    code_space: id of the encoders whose codes may be compared; code_bits: 64, 128, 192 or 256.
    provenance: at least train_run, commit, data; figures: measured, by name; format_version: raised to
    SPLIT_FORMAT_VERSION where an encoder is split. Raises BundleError when invalid.
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
    reference: ReferenceEntry | None = None
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        require.one_of(
            BundleError, "format_version", self.format_version, (FORMAT_VERSION, SPLIT_FORMAT_VERSION)
        )
        for name in ("name", "version", "code_space", "licence"):
            require.text(BundleError, name, getattr(self, name))
        require.text(BundleError, "licence_note", self.licence_note, may_be_empty=True)
        require.one_of(BundleError, "code_bits", self.code_bits, (64, 128, 192, 256))
        _require_entries("encoders", self.encoders, EncoderEntry)
        _require_entries("decoys", self.decoys, Decoy)
        _require_entries("golden", self.golden, GoldenEntry)
        if self.calibration is not None:
            require.instance(BundleError, "calibration", self.calibration, (Calibration,))
        if self.reference is not None:
            require.instance(BundleError, "reference", self.reference, (ReferenceEntry,))
        for i, decoy in enumerate(self.decoys):
            if len(decoy.code) * 8 != self.code_bits:
                found = f"{len(decoy.code) * 8} bits"
                raise BundleError(
                    f"decoys[{i}].code: expected {self.code_bits} bits (code_bits), found {found}"
                )
        if any(entry.head for entry in self.encoders):
            object.__setattr__(self, "format_version", SPLIT_FORMAT_VERSION)
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
    is_split = isinstance(root, Mapping) and root.get("format_version") == SPLIT_FORMAT_VERSION
    version = SPLIT_FORMAT_VERSION if is_split else FORMAT_VERSION
    require.version(BundleError, file, root, version, "use the bundle and the fieldcube of one release")
    names = [each.name for each in fields(Manifest)]
    root = dict(require.keys(BundleError, file, root, [n for n in names if n not in _OPTIONAL_KEYS]))
    try:
        root["encoders"] = tuple(_encoder(item, at) for at, item in _items(root, "encoders"))
        root["decoys"] = tuple(_decoy(item, at) for at, item in _items(root, "decoys"))
        root["golden"] = tuple(_build(GoldenEntry, item, at) for at, item in _items(root, "golden"))
        if root["calibration"] is not None:
            root["calibration"] = _build(Calibration, root["calibration"], "calibration")
        if root.get("reference") is not None:
            root["reference"] = _build(ReferenceEntry, root["reference"], "reference")
        return Manifest(**{name: root[name] for name in names if name in root})
    except BundleError as error:
        raise BundleError(f"{file}: {error}") from error


def format_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of manifest.json: UTF-8, two spaces, keys in the order of the dataclasses."""
    root = asdict(manifest)
    for entry in root["encoders"]:
        del entry["size_bytes"]
        for holder in (entry, entry["input"]):
            for key in _OPTIONAL_KEYS:
                if key in holder and holder[key] is None:
                    del holder[key]
    if root["reference"] is None:
        del root["reference"]
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
    required = [name for name in names if name not in _OPTIONAL_KEYS]
    values = {
        name: value for name, value in require.keys(BundleError, at, item, required).items() if name in names
    }
    require.one_of(BundleError, f"{at}.modality", values["modality"], get_args(Modality))
    values["input"] = _build(_INPUTS[values["modality"]], values["input"], f"{at}.input")
    if values.get("head") is not None:
        values["head"] = _build(HeadEntry, values["head"], f"{at}.head")
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
    values = require.keys(BundleError, at, item, [name for name in names if name not in _OPTIONAL_KEYS])
    given = {name: values[name] for name in names if name in values}
    try:
        return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in given.items()})
    except BundleError as error:
        raise BundleError(f"{at}.{error}") from error


def _require_entries(name: str, value: tuple[object, ...], kind: type) -> None:
    require.instance(BundleError, name, value, (tuple,))
    for i, item in enumerate(value):
        require.instance(BundleError, f"{name}[{i}]", item, (kind,))
