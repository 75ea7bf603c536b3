"""Search: a question becomes a code, the archive finds what is nearest, and the bundle says what a distance is worth."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from edge.background import LEAST_PER_DAY
from edge.bundle import AudioInput, Bundle
from edge.calibration import probability
from edge.codes import hamming, pack
from edge.errors import AudioError, FieldcubeError, HubError, ImageError, UsageError
from edge.false_alarms import Tail, tail_of
from edge.reference import load_reference
from hub.archive import Archive, ArchiveHit, Filter
from hub.refusal import UnknownError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_TOP = 1000  # results of one question
MAX_QUERIES = 64  # of one batch
MAX_TEXT = 1000  # characters of a question
PREFIX_BITS = (64, 128, 192)
_CACHED = 1024  # questions whose codes are kept
_DAY_S = 86_400
_HOUR_S = 3600
_COARSE = 50  # times as many results of a first pass as are asked for ...
_LEAST_COARSE = 2000  # ... and so many at least

_Opened = TypeVar("_Opened")


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What is looked for. code: uint8 [n_bytes]; tail: how near the bundle's background comes to it, None = not known."""

    shown: str
    code: NDArray[np.uint8]
    tail: Tail | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found, best first. max_distance: in bits, None = any; is_whole: whether nothing within it was left out."""

    question: Question
    hits: Sequence[ArchiveHit]
    max_distance: int | None
    is_whole: bool


class Searcher:
    """Asks an archive with a bundle. Encoders are opened by the first question that needs one; safe to share by threads."""

    def __init__(self, archive: Archive, bundle: Bundle | None) -> None:
        self._archive = archive
        self._bundle = bundle
        self._lock = threading.RLock()  # of encoders and questions
        self._opened: dict[str, Any] = {}
        self._questions: OrderedDict[str, Question] = OrderedDict()

    @property
    def bundle(self) -> Bundle:
        """Return the bundle. Raises HubError where the hub has none."""
        if self._bundle is None:
            raise HubError("search: expected a bundle at the hub, found none; start it with --bundle FOLDER")
        return self._bundle

    @property
    def code_space(self) -> str:
        """Return the code space that is searched."""
        return self.bundle.manifest.code_space

    @property
    def windows_per_day(self) -> float | None:
        """Return the windows of a recorder that listens all day, a window beginning each half window; None of pictures."""
        audio = [each.input for each in self.bundle.manifest.encoders if isinstance(each.input, AudioInput)]
        if not audio:
            return None
        return _DAY_S * audio[0].sample_rate_hz / max(1, audio[0].window_samples // 2)

    def text(self, text: str) -> Question:
        """Return the question in a sentence. Raises UsageError for one that cannot be asked."""
        plain = " ".join(text.split())
        if not plain or len(plain) > MAX_TEXT:
            raise UsageError(f"query: expected a sentence of up to {MAX_TEXT} characters, found {len(plain)}")
        with self._lock:
            if plain in self._questions:
                self._questions.move_to_end(plain)
                return self._questions[plain]
            from edge.encoder import open_text_encoder  # brings a runtime: only where something is asked

            encoder = self._held("text", lambda: open_text_encoder(self.bundle))
            question = self._question(plain, pack(encoder.encode(plain)))
            self._questions[plain] = question
            if len(self._questions) > _CACHED:
                self._questions.popitem(last=False)
            return question

    def sound(self, content: bytes) -> Question:
        """Return the question that the bytes of a recording ask. Raises AudioError, BundleError."""
        from edge.encoder import encode_file, open_audio_encoder

        with self._lock:
            encoder = self._held("audio", lambda: open_audio_encoder(self.bundle))
            logits = _of_file(content, AudioError, lambda path: encode_file(encoder, path))
        return self._question("example sound", pack(logits))

    def picture(self, content: bytes) -> Question:
        """Return the question that the bytes of a picture ask. Raises ImageError, BundleError."""
        from edge.encoder import encode_picture, open_image_encoder

        with self._lock:
            encoder = self._held("image", lambda: open_image_encoder(self.bundle))
            logits = _of_file(content, ImageError, lambda path: encode_picture(encoder, path))
        return self._question("example picture", pack(logits))

    def like(self, uid: int) -> Question:
        """Return the question for what is like an observation. Raises UnknownError."""
        code = self._archive.codes_of([uid]).get(uid)
        if code is None:
            raise UnknownError(f"uid: expected an observation of the archive, found {uid}")
        return self.code(code, f"like {uid}")

    def code(self, code: bytes, shown: str) -> Question:
        """Return the question that a code, or a prefix of one, asks. Raises UsageError."""
        bits = self.bundle.manifest.code_bits
        if len(code) not in (8, 16, 24, 32) or len(code) * 8 > bits:
            raise UsageError(f"code: expected 64, 128 ... {bits} bits, found {8 * len(code)}")
        return self._question(shown, np.frombuffer(code, np.uint8))

    def max_distance(self, question: Question, per_day: float) -> int:
        """Return within how many bits the background comes at most per_day times a day at a recorder; -1 = never.

        Raises UsageError where the bundle has no background of sound, or the question is a prefix.
        """
        windows_per_day = self.windows_per_day
        if question.tail is None or windows_per_day is None:
            raise UsageError(
                "per_day: expected a bundle with a reference of background sound and a whole code, found none; "
                "ask without per_day"
            )
        if not 0 < per_day < windows_per_day / 2:
            raise UsageError(
                f"per_day: expected more than 0 and below {windows_per_day / 2:g}, found {per_day:g}"
            )
        return max(question.tail.threshold(per_day / windows_per_day).distance, -1)

    def per_day(self, question: Question, distance: int) -> float | None:
        """Return how often a day the background comes as near at a recorder, None where it is not known."""
        if question.tail is None or self.windows_per_day is None:
            return None
        return max(question.tail.probability(distance) * self.windows_per_day, LEAST_PER_DAY)

    def probability(self, question: Question, distance: int) -> float | None:
        """Return the probability that an observation fits, None for a prefix and where the bundle has no calibration."""
        calibration = self.bundle.manifest.calibration
        is_whole = len(question.code) * 8 == self.bundle.manifest.code_bits
        return probability(calibration, distance) if calibration is not None and is_whole else None

    def search(
        self,
        questions: Sequence[Question],
        top: int,
        where: Filter,
        per_day: float | None = None,
        prefix_bits: int | None = None,
    ) -> list[Answer]:
        """Return the nearest of each question; per_day: all within that many false alarms a day, top at most.

        prefix_bits: a first pass over so many bits, its nearest ranked by all of them: reads less of a ClickHouse larger
        than memory (the engine sqlite reads whole codes), and may miss some. Raises UsageError, ArchiveError.
        """
        if not 1 <= top <= MAX_TOP:
            raise UsageError(f"top: expected 1 to {MAX_TOP}, found {top}")
        if not 1 <= len(questions) <= MAX_QUERIES:
            raise UsageError(f"queries: expected 1 to {MAX_QUERIES}, found {len(questions)}")
        limits = [None if per_day is None else self.max_distance(each, per_day) for each in questions]
        if prefix_bits is not None:
            return [
                self._coarse(question, top, where, limit, prefix_bits)
                for question, limit in zip(questions, limits, strict=True)
            ]
        found: dict[int, list[ArchiveHit]] = {}
        for width in {len(each.code) for each in questions}:  # codes of one width are one batch
            rows = [i for i, each in enumerate(questions) if len(each.code) == width]
            most = None if per_day is None else [_bits(limits[row]) for row in rows]
            codes = np.stack([questions[row].code for row in rows])
            # one more than asked for tells whether there is more
            hits = self._archive.search(codes, self.code_space, top + 1, where, most)
            found.update(zip(rows, hits, strict=True))
        return [
            Answer(question, found[i][:top], limits[i], len(found[i]) <= top)
            for i, question in enumerate(questions)
        ]

    def hours(self, question: Question, where: Filter, max_distance: int) -> Mapping[int, int]:
        """Return how many observations within max_distance begin in each hour since 1970 of the filter's clock."""
        quarter_s = _HOUR_S // 4  # every clock in use is ahead of UTC by a whole number of quarters
        counted = self._archive.histogram(question.code, self.code_space, where, max_distance, quarter_s)
        hours: dict[int, int] = {}
        for quarter, n in counted.items():
            hour = (quarter * quarter_s + where.utc_offset_s) // _HOUR_S
            hours[hour] = hours.get(hour, 0) + n
        return dict(sorted(hours.items()))

    def _coarse(
        self, question: Question, top: int, where: Filter, limit: int | None, prefix_bits: int
    ) -> Answer:
        if prefix_bits not in PREFIX_BITS or prefix_bits >= 8 * len(question.code):
            raise UsageError(
                f"prefix_bits: expected one of {PREFIX_BITS} below the code's bits, found {prefix_bits}"
            )
        prefix = question.code[None, : prefix_bits // 8]
        n_first = max(_LEAST_COARSE, _COARSE * top)
        most = None if limit is None else [limit]  # a prefix is never farther than the whole code
        (first,) = self._archive.search(prefix, self.code_space, n_first, where, most)
        codes = self._archive.codes_of([hit.uid for hit in first])
        whole = [hit for hit in first if len(codes[hit.uid]) == len(question.code)]
        if not whole:
            return Answer(question, (), limit, len(first) < n_first)
        matrix = np.frombuffer(b"".join(codes[hit.uid] for hit in whole), np.uint8).reshape(len(whole), -1)
        distances = hamming(question.code, matrix)
        ranked = sorted(zip(distances.tolist(), whole, strict=True), key=lambda each: (each[0], each[1].uid))
        hits = [
            replace(hit, distance=distance) for distance, hit in ranked if limit is None or distance <= limit
        ]
        return Answer(question, hits[:top], limit, len(first) < n_first and len(hits) <= top)

    def _question(self, shown: str, code: NDArray[np.uint8]) -> Question:
        with self._lock:
            reference = self._held("reference", lambda: load_reference(self.bundle))
        if reference is None or reference.background.shape[1] != len(code) or not len(reference.background):
            return Question(shown, code, None)
        counts = np.bincount(hamming(code, reference.background), minlength=8 * len(code) + 1)
        return Question(shown, code, tail_of(counts.astype(np.float64)))

    def _held(self, name: str, opener: Callable[[], _Opened]) -> _Opened:
        """Return what was opened under a name, or open it. The caller locks."""
        if name not in self._opened:
            self._opened[name] = opener()
        opened: _Opened = self._opened[name]
        return opened


def notes_of(counts: Mapping[tuple[int, str], int], code_space: str, answers: Iterable[Answer]) -> list[str]:
    """Return what a person is told beside the results: what could not be searched, and whether there is more."""
    notes = []
    n_other = sum(n for (_, space), n in counts.items() if space != code_space)
    if n_other:
        notes.append(f"{n_other:,} observations of other code spaces were not searched.")
    if any(not each.is_whole and each.max_distance is not None for each in answers):
        notes.append("There is more within the distance: ask for more results, or narrow the filters.")
    return notes


def _of_file(
    content: bytes, kind: type[FieldcubeError], encode: Callable[[Path], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Return the logits of an example that libraries want as a file; errors do not tell where that was."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "example"
        path.write_bytes(content)
        try:
            return encode(path)
        except kind as error:
            raise kind(str(error).replace(str(path), "example")) from error


def _bits(limit: int | None) -> int:
    assert limit is not None  # all have one, or none
    return limit
