"""The main path with real parts: what is heard becomes observations, detections, clips, and nothing stops it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.audio import FileSource
from edge.audio_events import Block, End, Gap, Skipped
from edge.bundle import Bundle
from edge.clips import ClipWriter
from edge.codes import pack
from edge.encoder import AudioEncoder
from edge.errors import EncoderError, StoreError
from edge.matcher import Matcher
from edge.observation import Detection, Instant, Observation
from edge.pipeline import Pipeline
from edge.pipeline_keeper import Keeper
from edge.store import ObservationStore
from edge.store_reader import StoreReader
from edge.store_tables import StoreTables
from edge.unstored import Unstored
from edge.watchlist import Watchlist

RATE_HZ = 8_000
BOOT = Instant("boot", 0, None, "unset")


class Notes:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.observed_: list[tuple[Observation, tuple[Detection, ...]]] = []
        self.told: list[Any] = []
        self.n_blocks = 0

    def heard(self, block: Block) -> None:
        self.n_blocks += 1

    def observed(self, observation: Observation, detections: Sequence[Detection]) -> None:
        self.observed_.append((observation, tuple(detections)))

    def lost(self, gap: Gap, sample_rate_hz: int) -> None:
        self.told.append((gap.reason, gap.first_sample, gap.n_samples, sample_rate_hz))

    def skipped(self, skipped: Skipped) -> None:
        self.told.append((skipped.source, skipped.reason))

    def failing(self, reason: str) -> None:
        self.told.append(reason)


@pytest.fixture
def build(encoder: AudioEncoder, watchlist: Watchlist, tiny: Bundle) -> Callable[..., Pipeline]:
    def pipeline(
        store: Any = None, clips: ClipWriter | None = None, hop_samples: int = 8_000, **parts: Any
    ) -> Pipeline:
        assert tiny.manifest.calibration is not None
        matcher = Matcher(watchlist, tiny.manifest.decoys, tiny.manifest.calibration)
        using = parts.pop("encoder", encoder)
        keeper = Keeper(store or Unstored("dev"), Notes())
        return Pipeline(using, matcher, keeper, clips, hop_samples, **parts)

    return pipeline


def notes(pipeline: Pipeline) -> Notes:
    assert isinstance(pipeline.keeper.listener, Notes)
    return pipeline.keeper.listener


def tone(hz: float, seconds: float, first_sample: int = 0) -> Block:
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return Block("a.wav", (0.3 * np.sin(2 * np.pi * hz * t)).astype(np.float32), first_sample, BOOT)


def test_every_window_becomes_an_observation_with_the_code_of_its_sound(
    build: Callable[..., Pipeline], encoder: AudioEncoder
) -> None:
    pipeline = build()
    block = tone(700, 3.0)
    pipeline.run([block, End("a.wav")])
    found = [observation for observation, _ in notes(pipeline).observed_]
    assert [(o.seq, o.first_sample, o.n_samples, o.sample_rate_hz) for o in found] == [
        (i, i * 8_000, 8_000, 8_000) for i in range(3)
    ]
    assert [o.code for o in found] == [
        pack(encoder.encode(block.samples[i * 8_000 : (i + 1) * 8_000])).tobytes() for i in range(3)
    ]
    assert {(o.device_id, o.source, o.code_space) for o in found} == {("dev", "a.wav", encoder.code_space)}
    assert pipeline.keeper.totals.n_windows == 3
    assert pipeline.keeper.totals.seconds_audio == pytest.approx(3.0)


def test_sounds_of_the_watchlist_are_detected_and_others_are_not(build: Callable[..., Pipeline]) -> None:
    pipeline = build()
    pipeline.run([tone(500, 1), tone(1000, 1, 8_000), tone(2500, 1, 16_000), End("a.wav")])
    found = [[d.query for d in detections] for _, detections in notes(pipeline).observed_]
    assert found == [["low"], [], ["high"]]
    assert pipeline.keeper.totals.n_detections == 2


def test_the_hop_sets_how_many_windows_there_are(build: Callable[..., Pipeline]) -> None:
    pipeline = build(hop_samples=2_000)
    pipeline.run([tone(500, 3), End("a.wav")])
    assert [o.first_sample for o, _ in notes(pipeline).observed_] == list(range(0, 16_001, 2_000))


def test_everything_is_in_the_store(build: Callable[..., Pipeline], write_tones: Any, tmp_path: Path) -> None:
    sound = write_tones(tmp_path / "in" / "a.wav", (0, 2), (500, 2), (0, 2))
    (tmp_path / "in" / "b.wav").write_bytes(b"no sound")
    store = ObservationStore.open(tmp_path / "s.sqlite", "dev")
    with store:
        pipeline = build(store, hop_samples=4_000)
        pipeline.run(FileSource([tmp_path / "in"], RATE_HZ).events())
    with StoreReader.open(tmp_path / "s.sqlite") as reader:
        assert list(reader.observations()) == [observation for observation, _ in notes(pipeline).observed_]
        detected = list(reader.detections())
        (skipped,) = reader.events()
    assert [detection for _, detection in detected] == [d for _, ds in notes(pipeline).observed_ for d in ds]
    assert {observation.source for observation, _ in detected} == {str(sound)}
    assert (skipped.kind, skipped.source) == ("skipped", str(tmp_path / "in" / "b.wav"))


def test_what_waits_is_written_while_nothing_is_heard(build: Callable[..., Pipeline], tmp_path: Path) -> None:
    now = [0.0]
    n_stored = []
    path = tmp_path / "s.sqlite"
    store = ObservationStore.open(path, "dev", commit_interval_s=5, clock=lambda: now[0])
    with store:

        def events() -> Iterator[Block | None]:
            yield tone(500, 2)
            for _ in range(3):
                now[0] += 2.5
                yield None
                with StoreReader.open(path) as reader:
                    n_stored.append(len(list(reader.observations())))

        build(store).run(events())
    assert n_stored == [0, 2, 2]


def test_a_store_that_fails_is_told_once_however_often_it_is_asked(
    build: Callable[..., Pipeline], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    store = ObservationStore.open(tmp_path / "s.sqlite", "dev", commit_interval_s=5, clock=lambda: now[0])

    def full(*_: object) -> None:
        raise OSError("disk full")

    def events() -> Iterator[Block | None]:
        monkeypatch.setattr(StoreTables, "write", full)
        for i in range(8):
            yield tone(500, 1, i * 8_000)
            now[0] += 2.0
        monkeypatch.undo()
        now[0] += 5.0
        yield None

    with store:
        pipeline = build(store)
        pipeline.run(events())
    first, last = notes(pipeline).told
    assert "disk full" in first
    assert last == ""


def test_a_detection_carries_the_clip_that_is_written(build: Callable[..., Pipeline], tmp_path: Path) -> None:
    clips = ClipWriter(tmp_path / "clips", 1.0, 1.0, rate_hz=RATE_HZ, window_samples=8_000)
    pipeline = build(clips=clips)
    pipeline.run([tone(1000, 2), tone(500, 1, 16_000), tone(1000, 2, 24_000), End("a.wav")])
    (clip,) = [d.clip for _, detections in notes(pipeline).observed_ for d in detections]
    assert clip is not None
    assert list((tmp_path / "clips").iterdir()) == [Path(clip)]


def test_clips_in_a_folder_of_any_bytes_are_stored(build: Callable[..., Pipeline], tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"K\xe4uzchen")
    clips = ClipWriter(folder, 1.0, 1.0, rate_hz=RATE_HZ, window_samples=8_000)
    with ObservationStore.open(tmp_path / "s.sqlite", "dev") as store:
        build(store, clips).run([tone(500, 1), End("a.wav")])
    with StoreReader.open(tmp_path / "s.sqlite") as reader:
        ((_, detection),) = reader.detections()
    assert detection.clip is not None
    assert detection.clip.startswith(f"{tmp_path}/K\\xe4uzchen/")
    assert len(list(folder.iterdir())) == 1


def test_gaps_and_skipped_files_are_counted_told_and_break_windows(build: Callable[..., Pipeline]) -> None:
    pipeline = build()
    gap, skipped = Gap("a.wav", 8_000, 800, "lost"), Skipped("b.wav", "bad")
    pipeline.run([tone(500, 1), gap, tone(500, 1, 8_800), End("a.wav"), skipped])
    assert notes(pipeline).told == [("lost", 8_000, 800, RATE_HZ), ("b.wav", "bad")]
    assert [o.first_sample for o, _ in notes(pipeline).observed_] == [0, 8_800]
    assert (pipeline.keeper.totals.n_gaps, pipeline.keeper.totals.n_skipped) == (1, 1)


class FailingStore(Unstored):
    """Fails while it is told to."""

    fails = False

    def add(self, observation: Observation, detections: Sequence[Detection] = ()) -> None:
        super().add(observation, detections)
        if self.fails:
            raise StoreError("disk full")


def test_a_store_that_cannot_write_does_not_stop_detections(build: Callable[..., Pipeline]) -> None:
    store = FailingStore("dev")
    pipeline = build(store)

    def events() -> Iterator[Block | End]:
        yield tone(500, 1)
        store.fails = True
        yield tone(500, 2, 8_000)
        store.fails = False
        yield tone(500, 1, 24_000)
        yield End("a.wav")

    pipeline.run(events())
    assert notes(pipeline).told == ["disk full", ""]  # once when it begins, once when it ends
    assert [len(detections) for _, detections in notes(pipeline).observed_] == [1, 1, 1, 1]


class FragileEncoder:
    """Refuses loud windows."""

    def __init__(self, encoder: AudioEncoder) -> None:
        self._encoder = encoder
        self.code_space, self.code_bits, self.runtime = encoder.code_space, encoder.code_bits, encoder.runtime
        self.sample_rate_hz, self.window_samples = encoder.sample_rate_hz, encoder.window_samples

    def encode(self, samples: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        if np.abs(samples).max() > 0.9:
            raise EncoderError("too loud")
        return self._encoder.encode(samples)


def test_sound_that_the_encoder_refuses_becomes_a_gap(
    build: Callable[..., Pipeline], encoder: AudioEncoder
) -> None:
    pipeline = build(encoder=FragileEncoder(encoder))
    loud = Block("a.wav", np.ones(8_000, np.float32), 8_000, BOOT)
    pipeline.run([tone(500, 1), loud, tone(500, 1, 16_000), End("a.wav")])
    assert notes(pipeline).told == [("not encoded: too loud", 8_000, 8_000, RATE_HZ)]
    assert [(o.seq, o.first_sample) for o, _ in notes(pipeline).observed_] == [(0, 0), (1, 16_000)]


def test_busy_time_leaves_out_the_waiting_for_sound(build: Callable[..., Pipeline]) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.25
        return now[0]

    def events() -> Iterator[Block | End]:
        for i in range(4):
            now[0] += 100.0
            yield tone(500, 1, i * 8_000)
        yield End("a.wav")

    pipeline = build(clock=clock)
    pipeline.run(events())
    assert pipeline.keeper.totals.busy_s == pytest.approx(4 * 0.25)
