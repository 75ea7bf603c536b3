"""Verdict: what a person says of a detection. Kept beside the store it is about (edge.store_verdicts)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from edge import require
from edge.errors import ObservationError
from edge.observation import MAX_INT, Detection, Observation

Answer = Literal["right", "wrong", "unsure"]
ANSWERS: tuple[Answer, ...] = get_args(Answer)

Identity = tuple[str, int, int, str]  # device_id, epoch, seq, query: one verdict each


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer about one detection, with what a fit needs of the detection when its store is gone.

    text, code_space, distance, probability: of the detection, as it was stored: a name may get another sentence, and
    distances of another code space mean something else. given_ns: UTC in ns since 1970 when it was given.
    Raises ObservationError on an impossible value.
    """

    device_id: str
    epoch: int
    seq: int
    query: str
    text: str
    code_space: str
    distance: int
    probability: float
    answer: Answer
    given_ns: int
    note: str = ""

    def __post_init__(self) -> None:
        for name in ("device_id", "query", "text", "code_space"):
            require.text(ObservationError, name, getattr(self, name))
        require.integer(ObservationError, "epoch", self.epoch, 0, MAX_INT)
        require.integer(ObservationError, "seq", self.seq, 0, MAX_INT)
        require.integer(ObservationError, "distance", self.distance, 0, 256)
        require.number(ObservationError, "probability", self.probability, 0.0, 1.0)
        require.one_of(ObservationError, "answer", self.answer, ANSWERS)
        require.integer(ObservationError, "given_ns", self.given_ns, 0, MAX_INT)
        require.text(ObservationError, "note", self.note, may_be_empty=True)

    @property
    def identity(self) -> Identity:
        """Return of which detection it is."""
        return self.device_id, self.epoch, self.seq, self.query


def identity_of(detection: Detection) -> Identity:
    """Return the identity that a verdict about a detection has."""
    return detection.device_id, detection.epoch, detection.seq, detection.query


def verdict_on(
    observation: Observation, detection: Detection, answer: Answer, given_ns: int, note: str = ""
) -> Verdict:
    """Return the verdict about a detection of an observation."""
    return Verdict(
        *identity_of(detection),
        text=detection.text,
        code_space=observation.code_space,
        distance=detection.distance,
        probability=detection.probability,
        answer=answer,
        given_ns=given_ns,
        note=note,
    )
