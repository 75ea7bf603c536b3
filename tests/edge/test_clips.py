"""Clips hold the sound around detections, say what they are, and never stop a recording."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

import edge.clips
from edge.audio import FileSource
from edge.audio_events import AudioEvent, Block, End, Gap
from edge.clips import ClipWriter
from edge.guano import parse
from edge.observation import Instant, Observation
from edge.windows import Window, windows

RATE_HZ = 8000
START = Instant("boot", 7_000_000_000, 1_777_863_721_000_000_000, "rtc")  # 2026-05-04T03:02:01Z


def noise(seconds: float) -> NDArray[np.float32]:
    pcm = np.random.default_rng(0).integers(-9000, 9000, round(seconds * RATE_HZ))
    return (pcm / 32768).astype(np.float32)


def blocks(samples: NDArray[np.float32], start: Instant = START, first: int = 0) -> list[AudioEvent]:
    found: list[AudioEvent] = []
    for at in range(0, len(samples), RATE_HZ):
        passed_ns = (first + at) * 1_000_000_000 // RATE_HZ
        wall_ns = None if start.wall_ns is None else start.wall_ns + passed_ns
        instant = Instant("boot", start.boottime_ns + passed_ns, wall_ns, start.clock_state)
        found.append(Block("owls/a.wav", samples[at : at + RATE_HZ], first + at, instant))
    return found


def writer(
    folder: Path, pre_s: float = 1.0, post_s: float = 1.0, **options: float | int | None
) -> ClipWriter:
    return ClipWriter(folder, pre_s, post_s, rate_hz=RATE_HZ, window_samples=3 * RATE_HZ, **options)  # type: ignore[arg-type]


def observed(window: Window) -> Observation:
    second = window.first_sample // RATE_HZ
    return Observation(
        "owl-1",
        5,
        second,
        bytes(32),
        "space",
        window.source,
        window.first_sample,
        RATE_HZ,
        window.n_samples,
        START,
    )


def keep_at(clips: ClipWriter, events: Iterable[AudioEvent], seconds: Iterable[float]) -> list[Path | None]:
    """Run events through windows of 3 s each second, and keep those that start at the given seconds."""
    wanted = {round(second * RATE_HZ) for second in seconds}
    paths = [
        clips.keep(window, observed(window), ["barn owl"], [window.first_sample % 100])
        for window in windows(clips.listen(events), 3 * RATE_HZ, RATE_HZ, RATE_HZ)
        if isinstance(window, Window) and window.first_sample in wanted
    ]
    clips.close()
    return paths


def test_a_clip_has_its_pre_roll_and_post_roll_and_says_what_it_is(tmp_path: Path) -> None:
    samples = noise(20)
    clips = writer(tmp_path / "clips", pre_s=2.0, post_s=1.5, latitude=-33.5, longitude=151.25)
    (path,) = keep_at(clips, [*blocks(samples), End("owls/a.wav")], [6])
    assert path == tmp_path / "clips" / "20260504_030205_barn-owl.clip.flac"
    assert [found.name for found in (tmp_path / "clips").iterdir()] == [path.name]
    with soundfile.SoundFile(path) as file:
        assert (file.format, file.subtype, file.samplerate) == ("FLAC", "PCM_16", RATE_HZ)
        np.testing.assert_array_equal(
            file.read(dtype="float32"), samples[4 * RATE_HZ : round(10.5 * RATE_HZ)]
        )
        assert file.comment.startswith("GUANO|Version: 1.0\n")
        assert parse(file.comment) == {
            "Make": "fieldcube",
            "Model": "fieldcube",
            "Samplerate": "8000",
            "Length": "6.500",
            "Timestamp": "2026-05-04T03:02:05.000Z",
            "Loc Position": "-33.5 151.25",
            "Original Filename": "owls/a.wav",
            "Fieldcube|clock": "rtc",
            "Fieldcube|offset": "4.000",
            "Fieldcube|observation": "owl-1/5/6",
            "Fieldcube|code space": "space",
            "Fieldcube|query": "barn owl",
            "Fieldcube|distance": "0",
        }


def test_a_clip_read_again_knows_its_time(tmp_path: Path) -> None:
    (path,) = keep_at(writer(tmp_path), blocks(noise(10)), [5])
    assert path is not None
    path.rename(tmp_path / "renamed.flac")
    first = next(FileSource([tmp_path / "renamed.flac"], RATE_HZ).events())
    assert isinstance(first, Block)
    assert first.instant.wall_ns == 1_777_863_725_000_000_000


def test_clips_that_overlap_become_one(tmp_path: Path) -> None:
    samples = noise(40)
    paths = keep_at(writer(tmp_path), blocks(samples), [5, 6, 10, 16])  # 4..9, 5..10, 9..14; 15..20
    assert paths[0] == paths[1] == paths[2] != paths[3]
    assert len(list(tmp_path.iterdir())) == 2
    assert paths[0] is not None
    np.testing.assert_array_equal(
        soundfile.read(paths[0], dtype="float32")[0], samples[4 * RATE_HZ : 14 * RATE_HZ]
    )


def test_a_sound_that_does_not_end_is_cut_without_losing_or_doubling_any(tmp_path: Path) -> None:
    samples = noise(60)
    clips = writer(tmp_path, max_s=10.0)
    paths = keep_at(clips, blocks(samples), range(1, 40))
    found = [soundfile.read(path, dtype="float32")[0] for path in sorted(filter(None, set(paths)))]
    assert max(map(len, found)) == 10 * RATE_HZ
    np.testing.assert_array_equal(np.concatenate(found), samples[: (39 + 3 + 1) * RATE_HZ])


def test_a_clip_ends_at_a_gap(tmp_path: Path) -> None:
    samples = noise(20)
    events = [*blocks(samples[: 8 * RATE_HZ]), Gap("owls/a.wav", 8 * RATE_HZ, 100, "overflow")]
    events += blocks(samples[8 * RATE_HZ :], first=8 * RATE_HZ + 100)
    before, after = keep_at(writer(tmp_path), events, [5, 8 + 100 / RATE_HZ])
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(
        soundfile.read(before, dtype="float32")[0], samples[4 * RATE_HZ : 8 * RATE_HZ]
    )
    np.testing.assert_array_equal(
        soundfile.read(after, dtype="float32")[0], samples[8 * RATE_HZ : 12 * RATE_HZ]
    )


def test_a_clip_is_written_as_soon_as_its_segment_ends(tmp_path: Path) -> None:
    clips = writer(tmp_path)
    for window in windows(
        clips.listen([*blocks(noise(4)), End("owls/a.wav")]), 3 * RATE_HZ, RATE_HZ, RATE_HZ
    ):
        if isinstance(window, Window):
            clips.keep(window, observed(window), ["owl"])
    assert clips.n_written == 1


def test_a_short_sound_is_kept_whole(tmp_path: Path) -> None:
    (path,) = keep_at(writer(tmp_path), [*blocks(noise(1.5)), End("owls/a.wav")], [0])
    assert path is not None
    assert len(soundfile.read(path)[0]) == round(1.5 * RATE_HZ)


def test_without_a_wall_clock_a_clip_is_named_after_its_source(tmp_path: Path) -> None:
    unset = Instant("boot", 0, None, "unset")
    clips = writer(tmp_path)
    (path,) = keep_at(clips, blocks(noise(10), unset), [4])
    assert path == tmp_path / "a_000003.00s_barn-owl.clip.flac"
    assert "Timestamp" not in parse(soundfile.SoundFile(path).comment)
    (again,) = keep_at(writer(tmp_path), blocks(noise(10), unset), [4])
    assert again == tmp_path / "a_000003.00s_barn-owl-2.clip.flac"


def test_names_of_queries_are_safe_in_a_file_name(tmp_path: Path) -> None:
    clips = writer(tmp_path)
    for event in clips.listen(blocks(noise(4))):
        assert isinstance(event, Block)
    window = Window(noise(3), "owls/a.wav", 0, 3 * RATE_HZ, RATE_HZ, START)
    path = clips.keep(window, observed(window), ["../../etc/Größe: フクロウ" + "x" * 200])
    clips.close()
    assert path is not None
    assert path.parent == tmp_path
    assert path.name.startswith("20260504_030201_etc-größe-フクロウx")
    assert path.exists()


def test_sound_that_was_never_heard_gives_no_clip(tmp_path: Path) -> None:
    window = Window(noise(3), "owls/a.wav", 0, 3 * RATE_HZ, RATE_HZ, START)
    assert writer(tmp_path).keep(window, observed(window), ["owl"]) is None


def test_the_quota_costs_the_oldest_clips_and_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "recording.flac").write_bytes(bytes(10_000))
    (first,) = keep_at(writer(tmp_path), blocks(noise(10)), [4])
    assert first is not None
    size = first.stat().st_size
    (tmp_path / ".old.clip.flac.77.tmp").write_bytes(b"half a clip")
    paths = keep_at(writer(tmp_path, quota_bytes=3 * size + size // 2), blocks(noise(60)), [10, 20, 30, 40])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["recording.flac", *(path.name for path in paths[1:] if path)]
    )


def test_a_clip_larger_than_the_quota_is_given_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clips = writer(tmp_path, quota_bytes=1000)
    keep_at(clips, blocks(noise(10)), [4])
    assert list(tmp_path.iterdir()) == []
    assert (clips.n_written, clips.n_lost) == (0, 1)
    assert "the quota of clips" in caplog.text


def test_a_full_disk_is_one_warning_and_recording_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file, n_calls = edge.clips.write_file, 0

    def disk_full_twice(path: Path, content: bytes) -> None:
        nonlocal n_calls
        n_calls += 1
        if n_calls <= 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_file(path, content)

    monkeypatch.setattr(edge.clips, "write_file", disk_full_twice)
    caplog.set_level(logging.INFO)
    clips = writer(tmp_path)
    paths = keep_at(clips, blocks(noise(50)), [4, 20, 40])
    assert [path is not None and path.exists() for path in paths] == [False, False, True]
    assert (clips.n_written, clips.n_lost) == (1, 2)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "No space left on device" in caplog.records[0].message


def test_a_folder_that_cannot_be_made_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "clips").write_text("a file is in the way", encoding="utf-8")
    keep_at(writer(tmp_path / "clips"), blocks(noise(10)), [4])
    assert "the clip is lost" in caplog.text


def test_sound_above_full_scale_is_clipped_not_wrapped(tmp_path: Path) -> None:
    samples = np.concatenate([np.full(4 * RATE_HZ, 1.5), np.full(4 * RATE_HZ, -1.5)]).astype(np.float32)
    (path,) = keep_at(writer(tmp_path), [*blocks(samples), End("owls/a.wav")], [2])
    assert path is not None
    kept = soundfile.read(path, dtype="int16")[0]
    assert (kept.max(), kept.min()) == (32767, -32768)
