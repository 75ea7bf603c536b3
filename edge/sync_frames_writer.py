"""Batches as frames: what was not told before goes first (context, anchors), then detections, codes and how the recorder is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from edge.batch import Batch
from edge.errors import WireError
from edge.frames import (
    MAX_OFFSET,
    NO_DIGEST,
    CodeRecord,
    DetectionRecord,
    Kind,
    digest_of,
    encode_codes,
    encode_detections,
    encode_frame,
    n_fitting,
)
from edge.frames_context import (
    MAX_NAMES,
    MAX_QUERIES,
    Anchor,
    Context,
    encode_heartbeat,
    part_numbers,
    parts_of,
)
from edge.observation import Detection, Observation

REPEAT_CONTEXT = 4  # heartbeats, a day as they go by default, after which the context goes again, for receivers that cannot ask for it
MAX_ANCHORS = 64
_NO_SPACE = "unknown"  # before anything was detected

Facts = Callable[[int], Observation | None]


@dataclass(slots=True)
class Told:
    """What the receiver was told and needs not be told again: survives between visits."""

    context: bytes = b""
    anchors: list[bytes] = field(default_factory=list)
    n_heartbeats: int = 0


@dataclass(slots=True)
class FrameWriter:
    """Turns batches of one device into frames. facts: gives the observation with a seq, None where it no longer exists."""

    key: bytes
    device_id: str
    frame_bytes: int
    facts: Facts
    told: Told

    def frames(self, batch: Batch) -> Iterator[bytes]:
        """Give the frames of a batch, each of at most frame_bytes. Events and dropped ranges have no frames."""
        seen = [(number, each, self.facts(each.seq)) for number, each in batch.detections]
        codes = [each for run in batch.runs for each in run.observations(self.device_id, batch.epoch)]
        known = [found for _, _, found in seen if found is not None] + codes
        if not (seen or codes or batch.health):
            return
        spaces = {(each.code_space, len(each.code)) for each in known}
        if len(spaces) > 1:
            raise WireError(
                f"frames: expected codes of one code space, found {sorted(spaces)}; send fewer at once"
            )
        yield from self._context(batch, known, [each for _, each, _ in seen])
        yield from self._detections(seen)
        yield from self._codes(codes)
        if batch.health:
            at_s = int(batch.health["at_ns"]) // 10**9
            yield self._frame("heartbeat", encode_heartbeat(batch.next, batch.health), at_s)
            self.told.n_heartbeats += 1

    def _context(
        self, batch: Batch, known: Sequence[Observation], detections: Sequence[Detection]
    ) -> Iterator[bytes]:
        """Tell the names that are needed, where they are new or it was long ago."""
        told = Context.decoded(self.told.context) if self.told.context else None
        if told is not None and told.epoch != batch.epoch:
            told = None
        space, code_bytes = (known[0].code_space, len(known[0].code)) if known else (None, None)
        sources = _joined(told.sources if told else (), (each.source for each in known), MAX_NAMES)
        boots = _joined(told.boots if told else (), (each.instant.boot_id for each in known), MAX_NAMES)
        queries = _joined(
            told.queries if told else (), ((each.query, each.text) for each in detections), MAX_QUERIES
        )
        needed = Context(
            batch.epoch,
            space or (told.code_space if told else _NO_SPACE),
            code_bytes or (told.code_bytes if told else 32),
            sources,
            boots,
            queries,
        )
        if needed != told:
            self.told.context, self.told.anchors, self.told.n_heartbeats = needed.encoded(), [], 0
        elif self.told.n_heartbeats < REPEAT_CONTEXT:
            return
        self.told.n_heartbeats = 0
        yield from self._told_again()

    def _told_again(self) -> Iterator[bytes]:
        content = self.told.context
        bodies = parts_of(content, self.frame_bytes)
        for index, body in enumerate(bodies):
            number, seq = part_numbers(digest_of(content), index, len(bodies))
            yield encode_frame(self.key, "context", self.device_id, body, number, seq)
        if self.told.anchors:
            yield self._anchor_frame(Anchor.decoded(self.told.anchors[-1]))

    def _detections(self, seen: Iterable[tuple[int, Detection, Observation | None]]) -> Iterator[bytes]:
        places = {query: place for place, query in enumerate(self._told_context.queries)}
        most = n_fitting("detections", self.frame_bytes)
        group: list[DetectionRecord] = []
        first, base, anchor = 0, 0, None
        for number, each, found in seen:
            offset = each.seq - base
            follows = bool(group) and len(group) < most and number == first + len(group)
            if not (follows and 0 <= offset <= MAX_OFFSET and self._is_told(anchor, found)):
                if group:
                    yield self._detections_frame(group, first, base, anchor)
                anchor = None
                if found is not None:
                    anchor, new = self._anchored(found)
                    yield from new
                group, first, base, offset = [], number, each.seq, 0
            place = places[(each.query, each.text)]
            group.append(DetectionRecord(offset, place, each.distance, each.probability))
        if group:
            yield self._detections_frame(group, first, base, anchor)

    def _codes(self, codes: Iterable[Observation]) -> Iterator[bytes]:
        most = n_fitting("codes", self.frame_bytes, self._told_context.code_bytes)
        group: list[CodeRecord] = []
        base, anchor = 0, None
        for each in codes:
            offset = each.seq - base
            fits = group and len(group) < most and 0 <= offset <= MAX_OFFSET
            if not (fits and self._is_told(anchor, each)):
                if group and anchor is not None:
                    yield self._frame("codes", encode_codes(group), 0, base, anchor)
                anchor, new = self._anchored(each)
                yield from new
                group, base, offset = [], each.seq, 0
            group.append(CodeRecord(offset, each.code))
        if group and anchor is not None:
            yield self._frame("codes", encode_codes(group), 0, base, anchor)

    def _anchored(self, each: Observation) -> tuple[Anchor, list[bytes]]:
        """Return the anchor from which an observation follows, and its frame where it is a new one."""
        earlier = [Anchor.decoded(content) for content in self.told.anchors]
        nearest = max((a for a in earlier if a.seq <= each.seq), key=lambda a: a.seq, default=None)
        if nearest is not None and self._is_told(nearest, each):
            return nearest, []
        following = self.facts(each.seq + 1)
        hop = 0
        if following is not None and following.source == each.source:
            hop = max(0, min(following.first_sample - each.first_sample, 2**24 - 1))
        anchor = Anchor.of(each, hop, self._told_context)
        self.told.anchors = [*self.told.anchors, anchor.encoded()][-MAX_ANCHORS:]
        return anchor, [self._anchor_frame(anchor)]

    def _is_told(self, anchor: Anchor | None, each: Observation | None) -> bool:
        """Return whether a receiver makes exactly this observation of an anchor."""
        if anchor is None or each is None:
            return anchor is None and each is None
        return anchor.observation(self.device_id, self._told_context, each.seq, each.code) == each

    def _detections_frame(
        self, group: Sequence[DetectionRecord], number: int, seq: int, anchor: Anchor | None
    ) -> bytes:
        kind: Kind = "untimed" if anchor is None else "detections"
        return self._frame(kind, encode_detections(group), number, seq, anchor)

    def _anchor_frame(self, anchor: Anchor) -> bytes:
        return self._frame("anchor", anchor.encoded(), 0, anchor.seq)

    def _frame(
        self, kind: Kind, body: bytes, number: int = 0, seq: int = 0, anchor: Anchor | None = None
    ) -> bytes:
        relies_on = digest_of(self.told.context) + (NO_DIGEST if anchor is None else anchor.digest)
        return encode_frame(self.key, kind, self.device_id, body, number, seq, relies_on)

    @property
    def _told_context(self) -> Context:
        return Context.decoded(self.told.context)


def _joined(told: tuple, new: Iterable, limit: int) -> tuple:  # type: ignore[type-arg]
    """Return names in a stable order: those told before keep their places while there is room for all."""
    needed = tuple(dict.fromkeys(new))
    both = tuple(dict.fromkeys((*told, *needed)))
    return both if len(both) <= limit else needed
