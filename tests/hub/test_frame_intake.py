"""Radio from end to end: a real store, the real carrier, a bad link, and the hub's ingest; each record exactly once."""

from __future__ import annotations

import os
import pty
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.batch import Batch, Progress, Receipt, decode_receipt, encode_batch, encode_envelope
from edge.device_key import DeviceKey
from edge.errors import ConfigError, FieldcubeError, SyncError, WireError
from edge.frames import from_stream, to_stream
from edge.frames_link import FrameLink
from edge.observation import Detection, Instant, Observation
from edge.store import ObservationStore
from edge.store_runs import StoreRuns
from edge.sync_carrier import RefusedError
from edge.sync_frames import FrameCarrier, joined, without
from edge.sync_plan import Limit, Plan
from hub.archive import Archive
from hub.frame_intake import FrameIntake
from hub.ingest import Ingest
from hub.store_frames import MAX_WAITING, FrameStore
from hub.store_registry import Registry
from tests.simulate.fuzz_frames import fuzz_frames
from tests.simulate.recorder import Recorder

RATE_HZ = 44_100  # 5-s windows whose length in ns is a fraction: nothing may be rounded twice
HOP = 110_250
START_NS = 1_777_777_777 * 10**9 + 123_456_789


@dataclass
class Field:
    """A recorder in the field whose frames land in a file."""

    folder: Path
    recorder: Recorder
    hub_public: bytes
    n_bytes: int = 51
    link: str = "lora"

    @property
    def store(self) -> Path:
        return self.folder / "observations.sqlite"

    def observe(self, n: int, detected: dict[int, str], gap_samples: int = 0) -> list[Observation]:
        made = []
        with ObservationStore.open(self.store, self.recorder.name) as store:
            for _ in range(n):
                seq = store.next_seq
                first = seq * HOP + gap_samples
                passed = first * 10**9 // RATE_HZ
                instant = Instant("boot", 10**12 + passed, START_NS + passed, "ntp")
                code = random.Random(seq).randbytes(32)
                each = Observation(
                    store.device_id, store.epoch, seq, code, "test-0123456789ab", "microphone:m", first,
                    RATE_HZ, 2 * HOP, instant,
                )  # fmt: skip
                query = detected.get(seq)
                found = (
                    [
                        Detection(
                            store.device_id,
                            store.epoch,
                            seq,
                            query,
                            f"a {query}",
                            60 + seq % 50,
                            0.8,
                            0.2,
                            None,
                        )
                    ]
                    if query
                    else []
                )
                store.add(each, found)
                made.append(each)
        return made

    def carrier(self, inbox: Path | None = None) -> FrameCarrier:
        link = FrameLink(self.folder / "air", self.hub_public, self.n_bytes, inbox=inbox)
        return FrameCarrier(link, self.recorder.key, self.folder / "frames.json", self.store)

    def visit(self, inbox: Path | None = None, at_s: int = 1_790_000_000, **limits: Any) -> list[bytes]:
        """Send all that waits, as edge-sync does; return the frames."""
        (self.folder / "air").unlink(missing_ok=True)
        carrier = self.carrier(inbox)
        health: dict[str, Any] | None = {"at_ns": at_s * 10**9, "clock": "ntp"}
        with StoreRuns.open(self.store) as runs:
            plan = Plan(runs, self.link)  # type: ignore[arg-type]
            empty = Batch(runs.device_id, runs.epoch, runs.made())
            receipt = self.send(carrier, empty)
            while True:
                batch = plan.next_batch(receipt.progress, Limit(100_000, **limits), health)
                if not (batch.runs or batch.detections or batch.events or batch.dropped or batch.health):
                    break
                receipt, health = self.send(carrier, batch), None
        path = self.folder / "air"
        return list(from_stream(path.read_bytes())) if path.exists() else []

    def send(self, carrier: FrameCarrier, batch: Batch) -> Receipt:
        payload = encode_batch(batch)
        body = encode_envelope(batch.device_id, payload, self.recorder.key.sign("batch", payload))
        return decode_receipt(carrier.send("batch", body).content)


@pytest.fixture
def hub_key() -> DeviceKey:
    return DeviceKey(Ed25519PrivateKey.from_private_bytes(b"h" * 32))


@pytest.fixture
def field(tmp_path: Path, owl: Recorder, hub_key: DeviceKey) -> Field:
    (tmp_path / "field").mkdir()
    return Field(tmp_path / "field", owl, hub_key.public)


@pytest.fixture
def intake(tmp_path: Path, registry: Registry, ingest: Ingest, hub_key: DeviceKey) -> Iterator[FrameIntake]:
    store = FrameStore(tmp_path / "frames.sqlite")
    yield FrameIntake(registry, ingest, store, hub_key)
    store.close()


def detections(registry: Registry) -> list[tuple[Any, ...]]:
    with registry.database.reading() as connection:
        return connection.execute(
            "SELECT number, seq, query, text, distance, wall_ns FROM detection ORDER BY number"
        ).fetchall()


def expected(field: Field) -> list[tuple[Any, ...]]:
    with StoreRuns.open(field.store) as runs:
        return [
            (number, d.seq, d.query, d.text, d.distance, int(next(runs.runs(d.seq, 1)).columns.wall_ns[0]))
            for number, d in runs.detections(0, runs.made()[1])
        ]


def test_detections_come_home_in_51_bytes_with_their_times(
    field: Field, intake: FrameIntake, registry: Registry
) -> None:
    field.observe(600, {i: ("owl", "chainsaw")[i % 2] for i in range(0, 600, 7)})
    frames = field.visit()
    assert max(map(len, frames)) <= 51
    kinds = [frame[0] & 15 for frame in frames]
    assert kinds.count(2) == 1  # one anchor: sound came steadily
    assert kinds.count(4) == 13  # 86 detections, 7 a frame
    assert [intake.take(frame) for frame in frames] == ["kept"] * len(frames)
    assert detections(registry) == expected(field)
    assert registry.devices.named("owl-1").health["n_observations"] == 600
    with registry.database.reading() as connection:
        (found,) = connection.execute("SELECT DISTINCT probability FROM detection").fetchall()
    assert abs(found[0] - 0.8) <= 1 / 510
    field.observe(10, {605: "owl"})
    again = field.visit(at_s=1_790_000_900)
    assert [frame[0] & 15 for frame in again] == [4, 6]  # nothing is told twice
    for frame in again:
        intake.take(frame)
    assert detections(registry) == expected(field)


def test_codes_come_home_exactly_as_they_were(
    field: Field, intake: FrameIntake, ingest: Ingest, archive: Archive
) -> None:
    made = field.observe(50, {})
    made += field.observe(5, {}, gap_samples=77_777)
    fast = replace(field, link="lte", n_bytes=340)
    frames = fast.visit()
    assert [frame[0] & 15 for frame in frames] == [1, 2, 3, 3, 3, 3, 3, 3, 2, 3, 6]
    for frame in frames:
        assert intake.take(frame) == "kept"
    assert ingest.wait_archived(10)
    found = [each for block in archive.blocks() for each in block.run.observations("owl-1", block.epoch)]
    assert sorted(found, key=lambda each: each.seq) == made


def test_order_does_not_matter_and_twice_is_once(
    field: Field, intake: FrameIntake, registry: Registry
) -> None:
    field.observe(300, dict.fromkeys(range(0, 300, 5), "owl"), 0)
    field.observe(300, dict.fromkeys(range(300, 600, 5), "fox"), 5)
    frames = field.visit()
    for seed in range(3):
        order = [*frames, *frames]
        random.Random(seed).shuffle(order)
        for frame in order:
            assert intake.take(frame) in ("kept", "waiting")
    assert detections(registry) == expected(field)
    with registry.database.reading() as connection:
        assert connection.execute("SELECT count(*) FROM conflict").fetchone() == (0,)


def test_what_was_lost_on_the_air_goes_again_after_a_receipt(
    field: Field, intake: FrameIntake, registry: Registry, tmp_path: Path
) -> None:
    chance = random.Random(8)
    inbox = tmp_path / "inbox"
    field.observe(400, dict.fromkeys(range(0, 400, 3), "owl"))
    for round_ in range(12):
        frames = field.visit(inbox, 1_790_000_000 + 900 * round_)
        for frame in frames:
            if chance.random() > 0.4:
                intake.take(frame)
        told = intake.receipt("owl-1", 51, 1_790_000_000 + 900 * round_ + 1)
        if told is not None and chance.random() > 0.3:
            inbox.write_bytes(to_stream(told))
        if detections(registry) == expected(field):
            break
    assert detections(registry) == expected(field)
    assert round_ > 1


def test_an_old_receipt_changes_nothing(
    field: Field, intake: FrameIntake, registry: Registry, tmp_path: Path
) -> None:
    inbox = tmp_path / "inbox"
    field.observe(30, dict.fromkeys(range(30), "owl"))
    frames = field.visit()
    for frame in frames[:-2] + frames[-1:]:
        intake.take(frame)
    old = intake.receipt("owl-1", 51, 1_790_000_001)
    assert old is not None
    inbox.write_bytes(to_stream(old))
    assert [frame[0] & 15 for frame in field.visit(inbox, 1_790_000_900)][-2:] == [4, 6]
    assert [frame[0] & 15 for frame in field.visit(inbox, 1_790_001_800)] == [6]


def test_what_relies_on_a_lost_context_waits_for_it_over_a_restart(
    field: Field, registry: Registry, ingest: Ingest, hub_key: DeviceKey, tmp_path: Path
) -> None:
    field.observe(40, dict.fromkeys(range(0, 40, 2), "owl"))
    frames = field.visit()
    needed = [frame for frame in frames if frame[0] & 15 in (1, 2)]
    others = [frame for frame in frames if frame not in needed]
    store = FrameStore(tmp_path / "frames.sqlite")
    first = FrameIntake(registry, ingest, store, hub_key)
    assert {first.take(frame) for frame in others} == {"waiting"}
    assert detections(registry) == []
    store.close()
    store = FrameStore(tmp_path / "frames.sqlite")
    second = FrameIntake(registry, ingest, store, hub_key)
    for frame in reversed(needed):
        second.take(frame)
    store.close()
    assert detections(registry) == expected(field)


def test_a_context_goes_again_now_and_then(field: Field) -> None:
    field.observe(5, {1: "owl"})
    kinds = [[frame[0] & 15 for frame in field.visit(at_s=1_790_000_000 + i)] for i in range(50)]
    assert [i for i, found in enumerate(kinds) if 1 in found] == list(range(0, 50, 4))
    assert kinds[4][-2:] == [2, 6]


def test_a_new_query_and_a_new_epoch_get_a_context(
    field: Field, intake: FrameIntake, registry: Registry
) -> None:
    field.observe(5, {1: "owl"})
    frames = field.visit()
    field.observe(5, {6: "fox"})
    frames += field.visit(at_s=1_790_000_001)
    for path in field.folder.glob("observations*"):
        path.unlink()
    field.observe(5, {2: "owl"})
    frames += field.visit(at_s=1_790_000_002)
    for frame in frames:
        assert intake.take(frame) == "kept"
    assert [(row[0], row[2]) for row in detections(registry)] == [(0, "owl"), (0, "owl"), (1, "fox")]


def test_frames_of_others_are_refused(
    field: Field, intake: FrameIntake, registry: Registry, hub_key: DeviceKey, tmp_path: Path
) -> None:
    field.observe(20, {1: "owl"})
    frames = field.visit()
    stranger = Recorder("owl-1", seed=9)
    forged = FrameCarrier(
        FrameLink(tmp_path / "forged", hub_key.public, 51), stranger.key, tmp_path / "f.json", field.store
    )
    (field.folder / "frames.json").unlink()
    with StoreRuns.open(field.store) as runs:
        plan = Plan(runs, "lora")
        batch = plan.next_batch(
            {s: Progress(0) for s in ("observations", "detections", "events")}, Limit(9000), None
        )  # type: ignore[misc]
        field.send(forged, batch)
    counts = intake.take_stream((tmp_path / "forged").read_bytes())
    assert counts["kept"] == 0
    assert detections(registry) == []
    registry.devices.set_status("owl-1", "revoked")
    for frame in frames:
        with pytest.raises(WireError, match="enrolled"):
            intake.take(frame)
    with pytest.raises(WireError):
        intake.take(b"\x11" + bytes(100))


def test_waiting_frames_are_bounded(field: Field, intake: FrameIntake, tmp_path: Path) -> None:
    field.observe(3, {1: "owl"})
    frame = bytearray(field.visit()[-2])
    for i in range(MAX_WAITING + 20):
        frame[8:12] = i.to_bytes(4, "little")
        assert intake.take(bytes(frame)) == "waiting"
    store = FrameStore(tmp_path / "frames.sqlite")
    assert len(store.waiting(1)) == MAX_WAITING
    store.close()


def test_noise_never_stops_the_intake(field: Field, intake: FrameIntake, registry: Registry) -> None:
    field.observe(60, dict.fromkeys(range(0, 60, 3), "owl"))
    frames = field.visit()
    for frame in frames[:6]:
        intake.take(frame)
    chance = random.Random(2)
    for _ in range(300):
        changed = bytearray(chance.choice(frames))
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        try:
            intake.take(bytes(changed[: chance.randrange(13, len(changed) + 1)]))
        except FieldcubeError:
            continue
    for frame in frames:
        intake.take(frame)
    assert detections(registry) == expected(field)


def test_a_serial_line_gets_the_same_bytes(field: Field) -> None:
    field.observe(8, {1: "owl"})
    frames = field.visit()
    (field.folder / "frames.json").unlink()
    controller, device = pty.openpty()
    try:
        link = FrameLink(Path(os.ttyname(device)), field.hub_public, 51, 2400)
        carrier = FrameCarrier(link, field.recorder.key, field.folder / "frames.json", field.store)
        with StoreRuns.open(field.store) as runs:
            progress = {s: Progress(0) for s in ("observations", "detections", "events")}
            batch = Plan(runs, "lora").next_batch(progress, Limit(9000), None)  # type: ignore[arg-type]
        read: list[bytes] = []
        wanted = sum(len(to_stream(frame)) for frame in frames[:-1])

        def listen() -> None:
            while sum(map(len, read)) < wanted:
                read.append(os.read(controller, 4096))

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        field.send(carrier, batch)
        thread.join(10)
        assert list(from_stream(b"".join(read))) == frames[:-1]
    finally:
        os.close(controller)
        os.close(device)


def test_a_modem_that_is_absent_is_an_error_and_no_file(field: Field) -> None:
    place = Path("/dev/fieldcube-no-such-modem")
    field.observe(3, {})
    link = FrameLink(place, field.hub_public, 51)
    carrier = FrameCarrier(link, field.recorder.key, field.folder / "frames.json", field.store)
    with StoreRuns.open(field.store) as runs:
        batch = Batch(runs.device_id, runs.epoch, runs.made(), health={"at_ns": 1, "clock": "ntp"})
    try:
        with pytest.raises(SyncError, match="serial line"):
            field.send(carrier, batch)
        assert not place.exists()
    finally:
        place.unlink(missing_ok=True)


def test_links_that_make_no_sense_are_refused(field: Field, tmp_path: Path) -> None:
    key = "ab" * 32
    found = FrameLink.of_url(f"frames:///dev/ttyUSB0?bytes=51&baud=2400&hub={key}&inbox=/tmp/in")
    assert found == FrameLink(Path("/dev/ttyUSB0"), bytes.fromhex(key), 51, 2400, Path("/tmp/in"))
    for url in (
        "frames:///x",
        f"frames:///x?hub={key}&bytes=50",
        f"frames:///x?hub={key}&baud=7",
        f"frames:///x?hub={key}&speed=7",
        f"frames://host/x?hub={key}",
        "frames:///x?hub=ab",
        f"https:///x?hub={key}",
        f"frames:///x?hub={key}&bytes=many",
    ):
        with pytest.raises(ConfigError, match="expected"):
            FrameLink.of_url(url)
    field.observe(3, {1: "owl"})
    carrier = FrameCarrier(
        FrameLink(tmp_path / "no" / "where", field.hub_public, 51),
        field.recorder.key,
        tmp_path / "m",
        field.store,
    )
    with pytest.raises(SyncError, match="where"):
        field.send(carrier, Batch("owl-1", 1, (3, 1, 0), health={"at_ns": 5}))
    with pytest.raises(RefusedError):
        carrier.send("clip", field.recorder.clip(1, b"x"))


def test_a_lost_memory_costs_bytes_and_nothing_else(
    field: Field, intake: FrameIntake, registry: Registry
) -> None:
    field.observe(60, dict.fromkeys(range(0, 60, 3), "owl"))
    frames = field.visit()
    for damage in (b"", b"{", b'{"format_version": 2}', b"[]"):
        (field.folder / "frames.json").write_bytes(damage)
        frames += field.visit(at_s=1_790_000_001)
    for frame in frames:
        intake.take(frame)
    assert detections(registry) == expected(field)


def test_ranges_are_joined_and_parted() -> None:
    assert joined([(0, 3), (5, 2)], (3, 2)) == [(0, 7)]
    assert joined([(4, 1)], (0, 2)) == [(0, 2), (4, 1)]
    assert without([(0, 10), (20, 5)], (8, 14)) == [(0, 8), (22, 3)]
    many: list[tuple[int, int]] = [(2 * i, 1) for i in range(2000)]
    assert joined(many, (10_000, 1))[0] == (0, 3)


def test_damaged_frames_are_refused_or_wait(tmp_path: Path) -> None:
    answers = fuzz_frames(tmp_path, 1_000)
    assert answers["WireError"] > 100
    assert answers["waiting"] > 100
    assert answers["kept"] > 5  # a damaged body may say something else that is whole
