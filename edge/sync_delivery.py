"""One visit to the hub: enrol where that is needed, then send until the hub keeps all that the link is for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

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
from edge.observation import MAX_INT
from edge.store_cursor import Stretch, SyncCursor
from edge.store_runs import StoreRuns
from edge.sync_budget import Budget, line_bytes
from edge.sync_calibration import calibrations
from edge.sync_carrier import Answer, Carrier, RefusedError
from edge.sync_clips import clip_payload
from edge.sync_pace import LEAST_BYTES, Pace
from edge.sync_plan import Limit, Plan, n_records, only_record

LOG = logging.getLogger(__name__)

_DAY_NS = 86_400 * 10**9


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
    is_over_budget: bool = False
    is_pending: bool = False


class Delivery:
    """Brings a store's records to one hub. now_ns: the wall clock, UTC; clock: seconds, for how long things take.

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
        now_ns: Callable[[], int],
        clock: Callable[[], float],
        pace: Pace,
        totals: Totals,
    ) -> None:
        assert settings.hub is not None  # nobody opens a carrier to nowhere
        self._hub, self._settings = settings.hub, settings
        self._store, self._cursor, self._carrier, self._key = store, cursor, carrier, key
        self._health, self._now_ns, self._clock = health, now_ns, clock
        self._budget = Budget(cursor, settings.link, settings.daily_bytes)
        self._pace, self.totals = pace, totals

    def visit(self) -> None:
        """Send all that waits, as far as today's budget goes. Raises SyncError; what was acknowledged stays so."""
        self.totals.is_over_budget = self.totals.is_pending = False
        if not self._is_enrolled():
            return
        progress = self._remembered()
        receipt: Receipt | None = None
        while True:
            batch = self._next(progress, with_health=receipt is None)
            if batch is None:
                break
            if receipt is not None and not n_records(batch):
                break
            answer, known = self._send(batch, progress)
            if answer is not None and n_records(batch) and known == progress:
                raise SyncError(f"{self._hub}: expected a receipt for what was sent, found one for nothing")
            receipt, progress = answer or receipt, known
        if receipt is not None:
            self._tell_calibrations()
        if receipt is not None and self._settings.clips and self._settings.link == "lte":
            self._send_clips(receipt)

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

    def _remembered(self) -> Mapping[Stream, Progress] | None:
        """Return what the hub kept when it was last heard of, None where that is not known."""
        kept = self._cursor.progress(self._hub, self._store.epoch)
        if not kept.keys() >= set(STREAMS):
            return None
        return {stream: Progress(*kept[stream]) for stream in STREAMS}

    def _next(self, progress: Mapping[Stream, Progress] | None, *, with_health: bool) -> Batch | None:
        """Return the next batch, None where today's budget is used up; the first of a visit says how the recorder is."""
        now_ns = self._now_ns()
        left, for_codes = self._budget.left(now_ns), self._budget.left_for_codes(now_ns)
        if left is not None and left < LEAST_BYTES:
            self.totals.is_over_budget = True
            return None
        health = self._health() if with_health else None
        if progress is None:  # a question: the receipt tells where to go on
            return Batch(self._store.device_id, self._store.epoch, self._store.made(), health=health)
        codes = for_codes is None or for_codes >= LEAST_BYTES
        known = [each for each in (left, for_codes if codes else None) if each is not None]
        n_bytes = min([self._pace.n_bytes, *known])
        refused = self._cursor.refused(self._hub, self._store.epoch)
        plan = Plan(self._store, self._settings.link, {s: refused.get(s, frozenset()) for s in STREAMS})
        batch = plan.next_batch(progress, Limit(n_bytes, self._pace.n_records, codes), health)
        if not codes and not n_records(batch):
            whole = plan.next_batch(progress, Limit(n_bytes, self._pace.n_records), None)
            self.totals.is_over_budget = n_records(whole) > 0
        return batch

    def _send(
        self, batch: Batch, progress: Mapping[Stream, Progress] | None
    ) -> tuple[Receipt | None, Mapping[Stream, Progress] | None]:
        """Send a batch; return its receipt, None where the hub wants another one in its place, and what the hub keeps."""
        started_s = self._clock()
        try:
            answer = self._post("batch", encode_batch(batch))
        except RefusedError as error:
            if error.status not in (400, 413) or not n_records(batch):
                raise
            return None, self._isolate(batch, error, progress)
        except SyncError:
            self._pace.failed()
            raise
        receipt = self._receipt(answer)
        self._pace.answered(self._clock() - started_s)
        self._count(batch)
        return receipt, self._settled(batch, receipt)

    def _isolate(
        self, batch: Batch, error: RefusedError, progress: Mapping[Stream, Progress] | None
    ) -> Mapping[Stream, Progress] | None:
        """Find the one record that the hub refuses and leave it out from now on; the others must not wait for it.

        Returns what the hub keeps: a batch may be refused as it is too far ahead of a hub that was put back to an old state.
        Raises the refusal of an empty batch: then it is not about a record.
        """
        n = n_records(batch)
        if n == 1 or (error.status == 400 and self._pace.is_whole()):
            empty = replace(batch, runs=(), detections=(), events=(), dropped=())
            known = self._settled(empty, self._receipt(self._post("batch", encode_batch(empty))))
            if known != progress:
                return known
        self._pace.refused(n)
        if n == 1:
            stream, number = only_record(batch)
            LOG.warning(
                "%s: refuses number %d of %s, left out from now on: %s", self._hub, number, stream, error
            )
            self._cursor.refuse(self._hub, self._store.epoch, stream, number, str(error))
        return progress

    def _receipt(self, answer: Answer) -> Receipt:
        """Return a receipt that can be believed. Raises SyncError."""
        try:
            receipt = decode_receipt(answer.content)
        except WireError as error:
            raise SyncError(f"{self._hub}: expected a receipt, found: {error}") from error
        if receipt.epoch != self._store.epoch:
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
        for stream, made in zip(STREAMS, self._store.made(), strict=True):
            if receipt.progress[stream].next > made:
                raise SyncError(
                    f"{self._hub}: keeps {receipt.progress[stream].next} {stream} of this epoch, but {self._store.path} "
                    f"has made {made}: this is an older copy of a card, or another recorder runs on a copy of it. "
                    "Move the store away: edge-monitor begins a new one, with an epoch of its own"
                )
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
        link, day = self._settings.link, self._now_ns() // _DAY_NS
        if self._hub.startswith("frames:") or self._cursor.told_day(self._hub, link) == day:
            return
        parts = calibrations(self._store.path, link, self._pace.n_bytes, day)
        for part in parts:
            store = self._store
            batch = encode_batch(Batch(store.device_id, store.epoch, store.made(), calibrations=part))
            left = self._budget.left(self._now_ns())
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
            payload = clip_payload(self._store, epoch, seq)
            if payload is None:
                continue
            left = self._budget.left_for_codes(self._now_ns())
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
        self._budget.spend(n_bytes, self._now_ns())
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
