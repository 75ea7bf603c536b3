"""Delivering to a hub over real connections: everything once, whatever is lost, refused, cut, forgotten or lied about."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cbor2")
pytest.importorskip("cryptography")
pytest.importorskip("urllib3")

import cbor2

from edge.batch import Batch, Progress, Receipt, encode_receipt
from edge.config import Sync
from edge.device_key import DeviceKey
from edge.errors import ConfigError, StoreError, SyncError
from edge.observation import Instant
from edge.store import ObservationStore
from edge.store_cursor import Contact, SyncCursor, cursor_path
from edge.store_reader import StoreReader
from edge.sync_visits import Clocks, run, status
from tests.simulate.observations import FIRST_WALL_NS, detection, observation
from tests.simulate.small_hub import CBOR, Reply, SmallHub, refusal, small_hub

NOW_NS = FIRST_WALL_NS + 3600 * 10**9


@dataclass
class FakeClock:
    """Time that passes only in sleep()."""

    now_s: float = 0.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds

    def now(self) -> Instant:
        return Instant("boot-1", self.boottime_ns(), self.now_ns(), "ntp")

    def now_ns(self) -> int:
        return NOW_NS + int(self.now_s * 10**9)

    def boottime_ns(self) -> int:
        return 10**12

    def clocks(self) -> Clocks:
        return Clocks(self, self.now_ns, lambda: self.now_s, self.sleep, random.Random(1))


@dataclass
class Recorder:
    """A store, and edge-sync on it."""

    path: Path
    settings: Sync
    clock: FakeClock = field(default_factory=FakeClock)

    def record(self, n: int, detections: int = 0) -> None:
        with ObservationStore.open(self.path, "owl-1", block_observations=64) as store:
            for i in range(n):
                found = observation(store)
                store.add(found, [detection(found, f"owl {i % 3}")] if i < detections else [])

    def sync(self, for_s: float = 3600.0, **options: Any) -> Any:
        options = {"follow": False, "at_once": False, **options}
        return run(self.settings, self.path, self.clock.clocks(), for_s=for_s, **options)

    def lose_cursor(self) -> None:
        cursor_path(self.path).unlink()


@pytest.fixture
def hub() -> Iterator[SmallHub]:
    with small_hub() as running:
        yield running


@pytest.fixture
def recorder(tmp_path: Path, hub: SmallHub) -> Recorder:
    return Recorder(tmp_path / "s.sqlite", Sync(hub=hub.url))


def assert_all_is_there(recorder: Recorder, hub: SmallHub, *, without: tuple[int, ...] = ()) -> None:
    """Require that the hub has exactly what the store has, and nothing differed."""
    with StoreReader.open(recorder.path) as reader:
        there = {o.seq: o for o in reader.observations()}
        found = [d for _, d in reader.detections()]
        events = reader.events()
    assert {seq: each for (_, seq), each in hub.observations.items()} == {
        seq: each for seq, each in there.items() if seq not in without
    }
    assert [hub.detections[key] for key in sorted(hub.detections)] == found
    assert [hub.events[key] for key in sorted(hub.events)] == events
    assert hub.n_conflicts == 0


def test_everything_is_delivered_and_the_next_visit_sends_only_what_is_new(
    recorder: Recorder, hub: SmallHub
) -> None:
    recorder.record(300, detections=7)
    with ObservationStore.open(recorder.path) as store:
        store.record_skipped("a.wav", "damaged")
    totals = recorder.sync()
    assert_all_is_there(recorder, hub)
    assert (totals.n_observations, totals.n_detections, totals.n_events) == (300, 7, 1)
    assert totals.n_code_bytes == 300 * 32
    assert hub.health["n_observations"] == 300
    recorder.record(5)
    assert recorder.sync().n_observations == 5
    assert_all_is_there(recorder, hub)
    assert recorder.clock.slept == []


def test_detections_go_before_the_codes(recorder: Recorder, hub: SmallHub) -> None:
    recorder.settings = replace(recorder.settings, batch_bytes=2_000)
    recorder.record(300, detections=20)
    recorder.sync()
    with_records = [batch for batch in hub.batches if batch.detections or batch.runs]
    kinds = [bool(batch.runs) for batch in with_records]
    assert len(with_records) > 5
    assert [batch.detections for batch in with_records[kinds.index(True) + 1 :]] == [()] * kinds[1:].count(
        True
    )
    assert_all_is_there(recorder, hub)


def test_a_lost_cursor_costs_two_questions(recorder: Recorder, hub: SmallHub) -> None:
    recorder.record(100)
    recorder.sync()
    recorder.lose_cursor()
    recorder.record(3)
    hub.batches.clear()
    assert recorder.sync().n_observations == 3
    # and the newest ones again, which tell whether this is the store that the hub heard of
    assert [sum(run.n for run in batch.runs) for batch in hub.batches] == [0, 16, 3]


def test_a_damaged_cursor_is_begun_anew_and_a_foreign_file_left_alone(
    recorder: Recorder, hub: SmallHub, caplog: pytest.LogCaptureFixture
) -> None:
    recorder.record(10)
    recorder.sync()
    cursor_path(recorder.path).write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 40)
    recorder.sync()
    assert "begun anew" in caplog.text
    assert_all_is_there(recorder, hub)
    cursor_path(recorder.path).write_bytes(recorder.path.read_bytes())
    with pytest.raises(StoreError, match="found another SQLite database"):
        recorder.sync()


def test_a_hub_that_lost_records_gets_them_again(recorder: Recorder, hub: SmallHub) -> None:
    recorder.record(200, detections=4)
    recorder.sync()
    for key in [key for key in hub.observations if key[1] % 50 in (7, 8) or key[1] > 180]:
        del hub.observations[key]
    hub.detections.clear()
    recorder.sync()
    recorder.sync()
    assert_all_is_there(recorder, hub)


def lost(answer: Callable[[], Reply]) -> Reply:
    """Keep what came; the answer is cut before its first byte."""
    return replace(answer(), n_cut=0)


def unheard(_: Callable[[], Reply]) -> Reply:
    """Hear nothing; the connection ends."""
    return Reply(body=b"x" * 100, n_cut=0)


def twice(answer: Callable[[], Reply]) -> Reply:
    answer()
    return answer()


def of_another_epoch(_: Callable[[], Reply]) -> Reply:
    """Say that all is kept, of something else."""
    progress = {"observations": Progress(150), "detections": Progress(3), "events": Progress(0)}
    return Reply(body=encode_receipt(Receipt(12345, progress)))


def impossible(missing: list[list[int]], n: int = 5) -> Callable[[Callable[[], Reply]], Reply]:
    """Return a fault: the receipt has such ranges."""

    def lie(answer: Callable[[], Reply]) -> Reply:
        table = cbor2.loads(answer().body)
        if "epoch" not in table:  # of the enrolment
            return refusal(503, "busy")
        return Reply(
            body=cbor2.dumps({**table, "progress": {key: [n, missing] for key in table["progress"]}})
        )

    return lie


FAULTS: dict[str, Any] = {
    "lost reply": lost,
    "lost request": unheard,
    "cut reply": lambda answer: replace(answer(), n_cut=9),
    "twice": twice,
    "500": lambda _: Reply(500, b"oops", {"Content-Type": "text/plain"}),
    "503 after keeping": lambda answer: (answer(), refusal(503, "busy"))[1],
    "redirect": lambda _: Reply(302, b"", {"Location": "http://127.0.0.1:9/"}),
    "sign-in page": lambda _: Reply(body=b"<html>", headers={"Content-Type": "text/html"}),
    "garbage": lambda _: Reply(body=random.Random(3).randbytes(500)),
    "empty": lambda _: Reply(),
    "endless": lambda _: Reply(body=bytes(3 << 20)),
    "no receipt": lambda _: Reply(body=cbor2.dumps({"format_version": 1})),
    "another version": lambda _: Reply(body=cbor2.dumps({"format_version": 99})),
    "another epoch": of_another_epoch,
    "range beyond the end": impossible([[4, 9]]),
    "negative range": impossible([[-1, 2]]),
    "empty range": impossible([[2, 0]]),
    "ranges backwards": impossible([[3, 1], [1, 1]]),
    "negative end": impossible([], -1),
    "endless end": impossible([], 2**63),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("n_good", [0, 2])
def test_faults_are_outlived(recorder: Recorder, hub: SmallHub, name: str, n_good: int) -> None:
    recorder.settings = replace(recorder.settings, batch_bytes=2_000)
    recorder.record(150, detections=3)
    hub.faults = [lambda answer: answer()] * n_good + [FAULTS[name]] * 3
    recorder.sync()
    assert_all_is_there(recorder, hub)
    assert len(recorder.clock.slept) == (0 if name == "twice" else 3)
    assert [wait <= 4.0 * 2**n for n, wait in enumerate(recorder.clock.slept, start=1)] == [True] * len(
        recorder.clock.slept
    )


def test_a_mixture_of_faults_ends_with_everything_once(recorder: Recorder, hub: SmallHub) -> None:
    recorder.settings = replace(recorder.settings, batch_bytes=3_000)
    chosen = random.Random(7)
    recorder.record(400, detections=30)
    for _ in range(6):
        hub.faults = [FAULTS[chosen.choice(sorted(FAULTS))] for _ in range(6)]
        if chosen.random() < 0.5 and cursor_path(recorder.path).exists():
            recorder.lose_cursor()
        recorder.record(40, detections=2)
        recorder.sync(for_s=1e8)
    assert_all_is_there(recorder, hub)


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("step", range(14))
def test_killed_at_any_step_it_goes_on(
    recorder: Recorder, hub: SmallHub, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every write of the cursor and every request is a step; what runs after the kill sees only files."""
    recorder.settings = replace(recorder.settings, batch_bytes=4_000)
    recorder.record(300, detections=5)
    n_steps = 0

    def killing(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            nonlocal n_steps
            n_steps += 1
            if n_steps == step + 1:
                raise Killed
            return function(*args, **more)

        return call

    for name in ("keep_contact", "keep_progress", "use_bytes"):
        monkeypatch.setattr(SyncCursor, name, killing(getattr(SyncCursor, name)))
    with pytest.raises(Killed):
        recorder.sync()
    monkeypatch.undo()
    recorder.sync()
    assert_all_is_there(recorder, hub)


def test_retry_after_is_kept_also_by_the_next_process(recorder: Recorder, hub: SmallHub) -> None:
    recorder.record(10)
    hub.faults = [lambda answer: answer(), lambda _: refusal(429, "quota", **{"Retry-After": "7200"})]
    with pytest.raises(SyncError, match="answers 429: quota"):
        recorder.sync(for_s=600)
    n_requests = len(hub.paths)
    with pytest.raises(SyncError, match=r"not before 20.+Z; or give --now"):
        recorder.sync(for_s=600)
    assert len(hub.paths) == n_requests
    recorder.clock.now_s += 7000
    recorder.sync(for_s=600)
    assert recorder.clock.slept
    assert recorder.clock.now_s >= 7200
    assert_all_is_there(recorder, hub)


def test_now_does_not_wait_and_a_clock_set_back_neither(recorder: Recorder, hub: SmallHub) -> None:
    recorder.record(10)
    hub.faults = [lambda _: refusal(503, "busy", **{"Retry-After": "50000"})]
    with pytest.raises(SyncError):
        recorder.sync(for_s=1)
    recorder.sync(at_once=True)
    assert_all_is_there(recorder, hub)
    hub.faults = [lambda _: refusal(503, "busy", **{"Retry-After": "50000"})]
    with pytest.raises(SyncError):
        recorder.sync(for_s=1)
    recorder.clock.now_s -= 10 * 86_400
    recorder.sync(for_s=1)
    assert recorder.clock.slept == []


def test_an_absurd_retry_after_is_not_believed(recorder: Recorder, hub: SmallHub) -> None:
    recorder.record(1)
    hub.faults = [lambda _: refusal(503, "busy", **{"Retry-After": "99999999999999"})]
    recorder.sync(for_s=1e9)
    assert recorder.clock.now_s < 90_000


def test_a_recorder_waits_for_approval(
    recorder: Recorder, hub: SmallHub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    recorder.record(10)
    hub.status = "pending"
    assert recorder.sync().is_pending
    assert "waits to be approved" in caplog.text
    assert hub.batches == []
    hub.status = "enrolled"
    recorder.settings = replace(recorder.settings, code="abcd-efgh")
    recorder.sync()
    assert hub.code == "abcd-efgh"
    assert_all_is_there(recorder, hub)
    recorder.record(1)
    recorder.sync()
    assert hub.paths.count("/v1/enrolment") == 2


def test_a_revoked_recorder_stops_and_comes_back_when_let_in_again(recorder: Recorder, hub: SmallHub) -> None:
    recorder.record(10)
    recorder.sync()
    recorder.record(10)
    hub.status = "revoked"
    with pytest.raises(SyncError, match="answers 401: not enrolled"):
        recorder.sync(for_s=0)
    with pytest.raises(SyncError, match="expected enrolled or pending, found 'revoked'"):
        recorder.sync(for_s=0, at_once=True)
    assert len(hub.observations) == 10
    hub.status = "enrolled"
    recorder.sync(at_once=True)
    assert_all_is_there(recorder, hub)


def test_another_key_enrols_anew(recorder: Recorder, hub: SmallHub, tmp_path: Path) -> None:
    recorder.record(3)
    recorder.sync()
    recorder.settings = replace(recorder.settings, key=tmp_path / "new.key")
    recorder.sync()
    assert hub.public == DeviceKey.open(tmp_path / "new.key").public
    assert recorder.clock.slept == []
    assert (tmp_path / "device.key").stat().st_mode & 0o777 == 0o600


def test_one_record_that_the_hub_refuses_does_not_hold_up_the_others(
    recorder: Recorder, hub: SmallHub, caplog: pytest.LogCaptureFixture
) -> None:
    recorder.record(100, detections=3)

    def poison(batch: Batch) -> Reply | None:
        has_42 = any(run.first_seq <= 42 < run.first_seq + run.n for run in batch.runs)
        return refusal(400, "no 42") if has_42 else None

    hub.check = poison
    recorder.sync()
    assert_all_is_there(recorder, hub, without=(42,))
    assert "refuses number 42 of observations, left out from now on" in caplog.text
    hub.check = lambda batch: None
    recorder.record(1)
    recorder.sync()
    assert (hub.batches[-1].epoch, 42) not in hub.observations


def test_a_hub_that_refuses_everything_makes_nothing_be_left_out(recorder: Recorder, hub: SmallHub) -> None:
    recorder.record(50)
    recorder.sync()
    recorder.record(50)
    hub.check = lambda batch: refusal(400, "another format")
    with pytest.raises(SyncError, match="another format"):
        recorder.sync(for_s=0)
    hub.check = lambda batch: None
    recorder.sync(at_once=True)
    assert_all_is_there(recorder, hub)


def test_a_hub_that_was_put_back_to_an_old_state_gets_all_again_and_nothing_is_left_out(
    recorder: Recorder, hub: SmallHub
) -> None:
    recorder.record(200)
    recorder.sync()
    recorder.record(10)
    hub.observations.clear()

    def near(batch: Batch) -> Reply | None:
        known = hub.progress(batch.epoch, "observations").next
        far = any(run.first_seq > known + 150 for run in batch.runs)
        return refusal(400, "too far ahead") if far else None

    hub.check = near
    recorder.sync()
    assert_all_is_there(recorder, hub)
    with SyncCursor.open(recorder.path) as cursor:
        assert cursor.refused(hub.url, hub.batches[-1].epoch) == {}


def test_batches_that_are_too_large_become_smaller(recorder: Recorder, hub: SmallHub) -> None:
    recorder.record(200)
    hub.check = lambda batch: refusal(413, "too large") if sum(run.n for run in batch.runs) > 30 else None
    recorder.sync()
    assert_all_is_there(recorder, hub)


def test_a_receipt_for_nothing_is_a_failure_and_not_an_endless_loop(
    recorder: Recorder, hub: SmallHub
) -> None:
    recorder.record(10)

    def forgetful(batch: Batch) -> Reply:
        progress = dict.fromkeys(("observations", "detections", "events"), Progress(0))
        return Reply(body=encode_receipt(Receipt(batch.epoch, progress)))

    hub.check = forgetful
    with pytest.raises(SyncError, match="found one for nothing"):
        recorder.sync(for_s=0)
    assert len(hub.paths) == 3  # enrolment, the question, one batch


def test_a_new_epoch_is_delivered_from_its_beginning(recorder: Recorder, hub: SmallHub) -> None:
    recorder.record(20)
    recorder.sync()
    recorder.path.rename(recorder.path.with_name("old.sqlite"))
    recorder.record(15)
    recorder.sync()
    assert len({epoch for epoch, _ in hub.observations}) == 2
    assert len(hub.observations) == 35


def test_dropped_observations_are_told_and_not_waited_for(recorder: Recorder, hub: SmallHub) -> None:
    recorder.record(30)
    with ObservationStore.open(recorder.path) as store:
        store._uncommitted.dropped = [(30, 10)]
        store._next_seq = 40
        store._due_s = 0.0
        store.flush()
    recorder.record(30)
    recorder.sync()
    assert {seq for _, seq in hub.dropped} == set(range(30, 40))
    assert {seq for _, seq in hub.observations} == {*range(30), *range(40, 70)}
    n_batches = len(hub.batches)
    recorder.sync()
    assert [batch.dropped for batch in hub.batches[n_batches:]] == [()]


def test_the_budget_of_a_day_holds_and_keeps_room_for_detections(recorder: Recorder, hub: SmallHub) -> None:
    recorder.settings = replace(recorder.settings, daily_bytes=20_000, batch_bytes=4_000)
    recorder.record(2000)
    totals = recorder.sync()
    assert totals.is_over_budget
    assert totals.n_code_bytes > 8_000
    assert totals.n_line_bytes < 17_000
    recorder.record(5, detections=5)
    assert recorder.sync().n_detections == 5
    assert len(hub.detections) == 5
    with SyncCursor.open(recorder.path) as cursor:
        assert cursor.used_bytes(NOW_NS // (86_400 * 10**9), "lte") <= 20_000
    for _ in range(10):
        recorder.clock.now_s += 86_400
        recorder.sync()
    assert_all_is_there(recorder, hub)


def test_bytes_that_were_sent_for_nothing_count_as_well(recorder: Recorder, hub: SmallHub) -> None:
    def used_bytes() -> int:
        with SyncCursor.open(recorder.path) as cursor:
            return cursor.used_bytes(NOW_NS // (86_400 * 10**9), "lte")

    recorder.record(1)
    recorder.sync()
    before = used_bytes()
    recorder.record(100)
    hub.faults = [FAULTS["500"]]
    with pytest.raises(SyncError):
        recorder.sync(for_s=0)
    assert used_bytes() - before > 3_200


def test_over_a_satellite_the_best_codes_travel_with_their_detections(
    recorder: Recorder, hub: SmallHub
) -> None:
    recorder.settings = replace(recorder.settings, link="satellite")
    recorder.record(200, detections=6)
    recorder.sync()
    assert len(hub.detections) == 6
    assert {seq for _, seq in hub.observations} == {0, 1, 2}  # one of each of the three queries
    assert "listened_s" in " ".join(hub.health)
    recorder.settings = replace(recorder.settings, link="lte")
    recorder.sync()
    assert_all_is_there(recorder, hub)


def test_over_lora_only_detections_go(recorder: Recorder, hub: SmallHub) -> None:
    recorder.settings = replace(recorder.settings, link="lora")
    recorder.record(50, detections=6)
    recorder.sync()
    assert (len(hub.detections), len(hub.observations)) == (6, 0)


def test_sound_leaves_the_device_only_where_it_may_and_somebody_asks(
    recorder: Recorder, hub: SmallHub, tmp_path: Path
) -> None:
    recorder.record(5, detections=2)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.flac").write_bytes(b"sound")
    with StoreReader.open(recorder.path) as reader:
        epoch = reader.epoch
    hub.clips_wanted = ((epoch, 1), (epoch, 4), (epoch, 10**9), (epoch + 1, 1), (epoch, -1))
    recorder.sync()
    assert hub.clips == {}
    recorder.settings = replace(recorder.settings, clips=True)
    assert recorder.sync().n_clips == 1
    assert hub.clips == {1: b"sound"}
    n = hub.paths.count("/v1/clips")
    recorder.sync()
    assert hub.paths.count("/v1/clips") == n


def test_two_do_not_run_at_once(recorder: Recorder, hub: SmallHub) -> None:
    recorder.record(1)
    with SyncCursor.open(recorder.path) as cursor:
        assert cursor.contact(hub.url) == Contact()
        # another process: a record lock is one of a process
        import subprocess
        import sys

        code = f"from edge.store_cursor import SyncCursor; SyncCursor.open({str(recorder.path)!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "expected to be the only writer" in done.stderr


def test_status_tells_what_waits_and_asks_nobody(recorder: Recorder, hub: SmallHub) -> None:
    recorder.record(12, detections=2)
    told = status(recorder.settings, recorder.path, recorder.clock.clocks())
    assert (told["observations_waiting"], told["detections_waiting"], told["enrolled"]) == (12, 2, False)
    assert hub.paths == []
    recorder.sync()
    told = status(recorder.settings, recorder.path, recorder.clock.clocks())
    assert (told["observations_waiting"], told["detections_waiting"], told["enrolled"]) == (0, 0, True)
    assert told["last_contact"].endswith("Z")
    assert told["bytes_today"] > 12 * 32


def test_a_password_in_the_hubs_url_is_never_shown(
    recorder: Recorder, hub: SmallHub, caplog: pytest.LogCaptureFixture
) -> None:
    recorder.record(5)
    recorder.settings = replace(recorder.settings, hub=hub.url.replace("://", "://owl:hunter2@"))
    hub.faults = [lambda answer: refusal(500, "not now")] * 2
    with caplog.at_level(logging.INFO):
        recorder.sync()
        told = status(recorder.settings, recorder.path, recorder.clock.clocks())
        hub.faults = [lambda answer: refusal(500, "not now")] * 9
        recorder.record(5)
        with pytest.raises(SyncError) as failed:
            recorder.sync(for_s=0)
        with pytest.raises(ConfigError) as wrong:
            recorder.settings = replace(recorder.settings, hub="ftp://owl:hunter2@there")
            recorder.sync(for_s=0, at_once=True)
    assert told["hub"] == hub.url
    shown = f"{told} {failed.value} {wrong.value} {caplog.text}"
    assert "127.0.0.1" in shown
    assert "hunter2" not in shown
    assert b"hunter2" not in cursor_path(recorder.path).read_bytes()


def test_following_goes_on_for_ever_and_sees_a_new_store(recorder: Recorder, hub: SmallHub) -> None:
    recorder.record(3)
    n_visits = 0

    class EnoughError(Exception):
        pass

    def sleep(seconds: float) -> None:
        nonlocal n_visits
        n_visits += 1
        if n_visits == 1:
            assert seconds == recorder.settings.interval_s
            recorder.path.rename(recorder.path.with_name("damaged.sqlite"))  # as edge-monitor does
        elif n_visits == 2:  # no store for a moment
            recorder.record(4)
        else:
            raise EnoughError

    clocks = replace(recorder.clock.clocks(), sleep=sleep)
    with pytest.raises(EnoughError):
        run(recorder.settings, recorder.path, clocks, for_s=0, follow=True, at_once=False)
    assert len(hub.observations) == 7


def test_the_answers_kind_is_looked_at(hub: SmallHub, recorder: Recorder) -> None:
    recorder.record(1)
    hub.faults = [lambda answer: replace(answer(), headers={"Content-Type": f"{CBOR}; v=1"})]
    recorder.sync()
    assert recorder.clock.slept == []
