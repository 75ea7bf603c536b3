"""One visit to the hub: enrol where that is needed, then send until the hub keeps all that the link is for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import cbor2

from edge.batch import (
    FORMAT_VERSION,
    STREAMS,
    Batch,
    Progress,
    Purpose,
    Receipt,
    Stream,
    decode_receipt,
    encode_batch,
    encode_envelope,
)
from edge.config import Sync
from edge.device_key import DeviceKey
from edge.errors import SyncError, WireError
from edge.observation import MAX_INT, Instant
from edge.store_cursor import Stretch, SyncCursor
from edge.store_epochs import Numbers, Section, begin_epoch, sections
from edge.store_runs import StoreRuns
from edge.sync_budget import Budget, line_bytes
from edge.sync_calibration import calibrations
from edge.sync_carrier import Answer, Carrier, RefusedError
from edge.sync_clips import clip_payload
from edge.sync_copies import Sure
from edge.sync_heartbeat import Heartbeats
from edge.sync_pace import LEAST_BYTES, Pace
from edge.sync_plan import Limit, Plan, gone, n_records, only_record

LOG = logging.getLogger(__name__)

_MUCH, _MUCH_BY_RADIO = 256, 8  # records that wait, before which the hub is asked what it keeps


@dataclass(slots=True)
class Totals:
    """What was sent and came back since the program began. n_code_bytes: of codes alone; n_line_bytes: both ways, estimated."""

    n_batches: int = 0
    n_observations: int = 0
    n_detections: int = 0
    n_events: int = 0
    n_clips: int = 0
    n_conflicts: int = 0
    n_code_bytes: int = 0
    n_line_bytes: int = 0
    n_epochs_begun: int = 0
    is_over_budget: bool = False
    is_over_airtime: bool = False
    is_pending: bool = False


class Delivery:
    """Brings a store's records to one hub. now: by both clocks; now_ns: the wall clock; clock: s, for how long things take.

    What was sent is known from the hub's receipts alone, so it may be killed at any moment and begin again anywhere.
    """

    def __init__(
        self,
        store: StoreRuns,
        cursor: SyncCursor,
        carrier: Carrier,
        key: DeviceKey,
        settings: Sync,
        health: Callable[[], Mapping[str, Any]],
        now: Callable[[], Instant],
        now_ns: Callable[[], int],
        clock: Callable[[], float],
        pace: Pace,
        totals: Totals,
    ) -> None:
        assert settings.hub is not None  # nobody opens a carrier to nowhere
        self._hub, self._settings = settings.hub, settings
        self._is_by_frames = urlsplit(settings.hub).scheme == "frames"
        self._store, self._cursor, self._carrier, self._key = store, cursor, carrier, key
        self._health, self._now, self._now_ns, self._clock = health, now, now_ns, clock
        self._budget = Budget(cursor, settings.link, settings.daily_bytes)
        self._heartbeats = Heartbeats(cursor, settings.hub, settings)
        self._pace, self.totals, self._is_full = pace, totals, False

    def visit(self) -> None:
        """Send all that waits, as far as today's budget goes. Raises SyncError; what was acknowledged stays so."""
        self._is_full = False
        self.totals.is_over_budget = self.totals.is_over_airtime = self.totals.is_pending = False
        if not self._is_enrolled():
            return
        receipt: Receipt | None = None
        waiting = sections(self._store)
        while waiting and not self._is_full:
            section = waiting.pop(0)
            answer, parts = self._deliver(section)
            receipt, waiting = answer or receipt, [*parts, *waiting]
        if receipt is not None:
            self._tell_calibrations()
        if receipt is not None and self._settings.clips and self._settings.link == "lte":
            self._send_clips(receipt)

    def _deliver(self, section: Section) -> tuple[Receipt | None, Sequence[Section]]:
        """Send what waits of a part of the store; return the last receipt, and the parts that it turns out to be."""
        progress = self._remembered(section)
        if not section.is_open and progress is not None and not self._waits(section, progress):
            return None, ()
        sure = Sure.of(section, self._cursor.marks(self._hub, section.epoch))
        if progress is not None and section.is_open and self._asks_first(section, progress, sure):
            progress = None
        receipt: Receipt | None = None
        while True:
            batch = self._next(section, progress, with_health=section.is_open and receipt is None)
            if batch is None or (receipt is not None and not n_records(batch)):
                break
            answer, known = self._send(section, batch, progress)
            if answer is not None and section.is_open:
                at = self._differs_from(section, batch, answer, sure)
                if at is not None:
                    return answer, self._begun_anew(section, at)
            if answer is not None and n_records(batch) and known == progress and not self._is_full:
                raise SyncError(f"{self._hub}: expected a receipt for what was sent, found one for nothing")
            receipt, progress = answer or receipt, known
            if self._is_full:
                break
        if receipt is not None and section.is_open and sure.is_changed:
            self._cursor.keep_mark(self._hub, section.epoch, sure.mark())
        return receipt, ()

    def _asks_first(self, section: Section, progress: Mapping[Stream, Progress], sure: Sure) -> bool:
        """Return whether the hub is asked what it keeps before anything is sent: what is remembered may be of another card.

        Where much waits that is done in any case: a restored card has forgotten what it sent since.
        """
        if not sure.is_newest or any(progress[stream].next > sure.next[stream] for stream in STREAMS):
            return True
        if self._is_by_frames:
            return False
        n_made = dict(zip(STREAMS, section.made(), strict=True))
        streams = STREAMS if self._settings.link == "lte" else STREAMS[1:]
        n_waiting = sum(n_made[stream] - progress[stream].next for stream in streams)
        return n_waiting >= (_MUCH if self._settings.link == "lte" else _MUCH_BY_RADIO)

    def _waits(self, section: Section, progress: Mapping[Stream, Progress]) -> bool:
        return n_records(self._plan(section).next_batch(progress, Limit(LEAST_BYTES), None)) > 0

    def _differs_from(self, section: Section, batch: Batch, receipt: Receipt, sure: Sure) -> Numbers | None:
        """Return from where on a store is not the one that the hub heard of before; None where it is."""
        if self._is_by_frames:  # nothing comes back that could be compared
            return sure.beyond(receipt.progress)

        def ask(question: Batch) -> int:
            return self._receipt(section, self._post("batch", encode_batch(question))).n_conflicts

        return sure.compare(batch, receipt, ask)

    def _begun_anew(self, section: Section, at: Numbers) -> Sequence[Section]:
        """Let what differs from what the hub keeps go by a new epoch, and say so."""
        parts = begin_epoch(section, at)
        LOG.warning(
            "%s: keeps something else than %s from number %d of epoch %d on: this is an older copy of a card, or another "
            "recorder runs on a copy of it. %s",
            self._hub,
            section.path,
            at[0] - section.first[0],
            section.epoch,
            "Nothing was recorded since; what will be, goes by a new epoch"
            if parts is None
            else f"What was recorded since goes by a new epoch, {parts[1].epoch}",
        )
        if parts is None:
            return ()
        self.totals.n_epochs_begun += 1
        return parts

    def _is_enrolled(self) -> bool:
        """Enrol this device's key where that is not done yet; return whether the hub takes its batches."""
        contact = self._cursor.contact(self._hub)
        if contact.public == self._key.public:
            return True
        payload = cbor2.dumps(
            {
                "format_version": FORMAT_VERSION,
                "device": self._store.device_id,
                "public": self._key.public,
                "code": self._settings.code,
            }
        )
        status = _enrolment_status(self._post("enrolment", payload).content)
        if status == "pending":
            self.totals.is_pending = True
            return False
        if status != "enrolled":
            raise SyncError(f"{self._hub}: expected enrolled or pending, found {status!r}")
        LOG.info("%s: enrolled as %s", self._hub, self._store.device_id)
        self._cursor.keep_contact(self._hub, replace(contact, public=self._key.public))
        return True

    def _remembered(self, section: Section) -> Mapping[Stream, Progress] | None:
        """Return what the hub kept when it was last heard of, None where that is not known."""
        kept = self._cursor.progress(self._hub, section.epoch)
        if not kept.keys() >= set(STREAMS):
            return None
        return {stream: Progress(*kept[stream]) for stream in STREAMS}

    def _next(
        self, section: Section, progress: Mapping[Stream, Progress] | None, *, with_health: bool
    ) -> Batch | None:
        """Return the next batch, None where there is no budget or need; the first of a visit says how the recorder is."""
        now = self._now()
        left, for_codes = self._budget.left(now), self._budget.left_for_codes(now)
        if left is not None and left < LEAST_BYTES:
            self.totals.is_over_budget = True
            return None
        health = self._health() if with_health and self._heartbeats.is_due(now) else None
        if progress is None:  # a question: the receipt tells where to go on
            return Batch(section.device_id, section.epoch, section.made(), health=health)
        codes = for_codes is None or for_codes >= LEAST_BYTES
        known = [each for each in (left, for_codes if codes else None) if each is not None]
        n_bytes = min([self._pace.n_bytes, *known])
        plan = self._plan(section)
        batch = plan.next_batch(progress, Limit(n_bytes, self._pace.n_records, codes), health)
        if not codes and not n_records(batch):
            whole = plan.next_batch(progress, Limit(n_bytes, self._pace.n_records), None)
            self.totals.is_over_budget = n_records(whole) > 0
        is_dear = self._heartbeats.is_seldom and not self._is_by_frames  # frames of nothing are none
        return None if is_dear and health is None and not n_records(batch) else batch

    def _plan(self, section: Section) -> Plan:
        refused = self._cursor.refused(self._hub, section.epoch)
        return Plan(section, self._settings.link, {s: refused.get(s, frozenset()) for s in STREAMS})

    def _send(
        self, section: Section, batch: Batch, progress: Mapping[Stream, Progress] | None
    ) -> tuple[Receipt | None, Mapping[Stream, Progress] | None]:
        """Send a batch; return its receipt, None where the hub wants another one in its place, and what the hub keeps."""
        started_s = self._clock()
        try:
            answer = self._post("batch", encode_batch(batch))
        except RefusedError as error:
            if error.status not in (400, 413) or not n_records(batch):
                raise
            return None, self._isolate(section, batch, error, progress)
        except SyncError:
            self._pace.failed()
            raise
        receipt = self._receipt(section, answer)
        self._pace.answered(self._clock() - started_s)
        if batch.health is not None and answer.is_health_told:
            self._heartbeats.told(self._now())
        self._is_full = self.totals.is_over_airtime = answer.is_full
        self._count(gone(batch, receipt.progress) if answer.is_full else batch)
        return receipt, self._settled(batch, receipt)

    def _isolate(
        self, section: Section, batch: Batch, error: RefusedError, progress: Mapping[Stream, Progress] | None
    ) -> Mapping[Stream, Progress] | None:
        """Find the one record that the hub refuses and leave it out from now on; the others must not wait for it.

        Returns what the hub keeps: a batch may be refused as it is too far ahead of a hub that was put back to an old state.
        Raises the refusal of an empty batch: then it is not about a record.
        """
        n = n_records(batch)
        if n == 1 or (error.status == 400 and self._pace.is_whole()):
            empty = replace(batch, runs=(), detections=(), events=(), dropped=())
            known = self._settled(empty, self._receipt(section, self._post("batch", encode_batch(empty))))
            if known != progress:
                return known
        self._pace.refused(n)
        if n == 1:
            stream, number = only_record(batch)
            LOG.warning(
                "%s: refuses number %d of %s, left out from now on: %s", self._hub, number, stream, error
            )
            self._cursor.refuse(self._hub, section.epoch, stream, number, str(error))
        return progress

    def _receipt(self, section: Section, answer: Answer) -> Receipt:
        """Return a receipt that can be believed. Raises SyncError."""
        try:
            receipt = decode_receipt(answer.content)
        except WireError as error:
            raise SyncError(f"{self._hub}: expected a receipt, found: {error}") from error
        if receipt.epoch != section.epoch:
            raise SyncError(f"{self._hub}: expected a receipt of this epoch, found that of another")
        for stream in STREAMS:
            each, end = receipt.progress[stream], 0
            for first, n in each.missing:
                if not (end <= first and n >= 1 and first + n <= each.next):
                    raise SyncError(f"{self._hub}: expected missing ranges in order, found {first}, {n}")
                end = first + n
            if not 0 <= each.next <= MAX_INT:
                raise SyncError(f"{self._hub}: expected a number from 0, found {each.next}")
        return receipt

    def _settled(self, batch: Batch, receipt: Receipt) -> Mapping[Stream, Progress]:
        """Take a receipt as the state of the hub, and remember it."""
        if receipt.n_conflicts:
            LOG.warning(
                "%s: %d records differ from what it was sent before; does another recorder run on a copy of this card?",
                self._hub,
                receipt.n_conflicts,
            )
        self.totals.n_conflicts += receipt.n_conflicts
        kept: dict[str, Stretch] = {
            stream: (each.next, each.missing) for stream, each in receipt.progress.items()
        }
        self._cursor.keep_progress(self._hub, batch.epoch, kept)
        contact = self._cursor.contact(self._hub)
        self._cursor.keep_contact(
            self._hub, replace(contact, n_failures=0, not_before_ns=0, last_ns=self._now_ns())
        )
        return receipt.progress

    def _tell_calibrations(self) -> None:
        """Tell the hub what was learnt of the site, once a day; a hub that does not take it is not asked again today."""
        link, day = self._settings.link, self._budget.day(self._now())
        if self._hub.startswith("frames:") or self._cursor.told_day(self._hub, link) == day:
            return
        parts = calibrations(self._store.path, link, self._pace.n_bytes, day)
        for part in parts:
            store = self._store
            batch = encode_batch(Batch(store.device_id, store.epoch, store.made(), calibrations=part))
            left = self._budget.left(self._now())
            if left is not None and left < line_bytes(len(batch)):
                self.totals.is_over_budget = True
                return
            try:
                self._post("batch", batch)
            except RefusedError as error:
                if error.status not in (400, 413):
                    raise
                LOG.warning("%s: does not take what was learnt of the site: %s", self._hub, error)
                break
        if parts:
            self._cursor.keep_told(self._hub, link, day)

    def _send_clips(self, receipt: Receipt) -> None:
        for epoch, seq in receipt.clips:
            payloads = (clip_payload(section, epoch, seq) for section in sections(self._store))
            payload = next((each for each in payloads if each is not None), None)
            if payload is None:
                continue
            left = self._budget.left_for_codes(self._now())
            if left is not None and left < line_bytes(len(payload)):
                self.totals.is_over_budget = True
                return
            try:
                self._post("clip", payload)
            except RefusedError as error:
                if error.status not in (400, 404, 413):
                    raise
                LOG.warning("%s: does not take the sound of %d: %s", self._hub, seq, error)
            else:
                self.totals.n_clips += 1

    def _post(self, purpose: Purpose, payload: bytes) -> Answer:
        """Sign and send; every byte counts, also of what fails."""
        body = encode_envelope(self._store.device_id, payload, self._key.sign(purpose, payload))
        try:
            answer = self._carrier.send(purpose, body)
        except SyncError as error:
            self._spend(line_bytes(len(body)))
            if isinstance(error, RefusedError) and error.status == 401:  # asked again at the next visit
                contact = self._cursor.contact(self._hub)
                self._cursor.keep_contact(self._hub, replace(contact, public=b""))
            raise
        self._spend(answer.n_line_bytes)
        return answer

    def _spend(self, n_bytes: int) -> None:
        self._budget.spend(n_bytes, self._now())
        self.totals.n_line_bytes += n_bytes

    def _count(self, batch: Batch) -> None:
        totals = self.totals
        totals.n_batches += 1
        totals.n_observations += sum(run.n for run in batch.runs)
        totals.n_detections += len(batch.detections)
        totals.n_events += len(batch.events)
        totals.n_code_bytes += sum(len(run.codes) for run in batch.runs)


def _enrolment_status(content: bytes) -> object:
    try:
        table = cbor2.loads(content)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise SyncError(f"enrolment: expected the hub's answer, found damaged bytes ({error})") from error
    return table.get("status") if isinstance(table, dict) else None
