"""The sound of a detection: its window and little more, from the clip, else from the recording."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from edge.audio_events import AudioEvent, Block, End
from edge.clips import ClipWriter
from edge.errors import AudioError, UsageError
from edge.observation import PICTURE_RATE_HZ, Detection, Instant, Observation
from edge.results_listen import Evidence, evidence_of, play, save
from edge.windows import Window, windows

RATE_HZ = 8000
INSTANT = Instant("boot", 0, None, "unset")
SOUND: NDArray[np.int16] = np.random.default_rng(5).integers(-9000, 9000, 40 * RATE_HZ, np.int16)


class Loudspeaker:
    """Stands for the module sounddevice: remembers what it was given."""

    class PortAudioError(Exception):
        """What PortAudio raises."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error, self.played, self.stopped = error, [], 0  # type: ignore[var-annotated]

    def play(self, samples: Any, rate_hz: int, blocking: bool) -> None:
        assert blocking
        self.played.append((samples, rate_hz))
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        self.stopped += 1


def observed(source: str, second: int) -> Observation:
    return Observation(
        "dev", 5, second, bytes(32), "space", source, second * RATE_HZ, RATE_HZ, 3 * RATE_HZ, INSTANT
    )


def detected(observation: Observation, clip: Path | None = None) -> Detection:
    return Detection(
        "dev", 5, observation.seq, "Barn owl?", "an owl", 60, 0.5, None, None if clip is None else str(clip)
    )


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "day" / "a.wav"
    path.parent.mkdir()
    soundfile.write(path, SOUND, RATE_HZ, subtype="PCM_16")
    return path


def heard(source: str) -> Iterator[AudioEvent]:
    for at in range(0, len(SOUND), RATE_HZ):
        yield Block(source, (SOUND[at : at + RATE_HZ] / 32768).astype(np.float32), at, INSTANT)
    yield End(source)


def write_clip(folder: Path, observations: list[Observation]) -> Path:
    """Write one clip around several windows, as edge-monitor does, and return its path."""
    clips = ClipWriter(folder, 2.0, 2.0, rate_hz=RATE_HZ, window_samples=3 * RATE_HZ)
    wanted, paths = {each.first_sample: each for each in observations}, set()
    for window in windows(clips.listen(heard(observations[0].source)), 3 * RATE_HZ, RATE_HZ, RATE_HZ):
        if isinstance(window, Window) and window.first_sample in wanted:
            paths.add(clips.keep(window, wanted[window.first_sample], ["owl"]))
    clips.close()
    (path,) = paths
    assert path is not None
    return path


def sound_of(path: Path) -> NDArray[np.int16]:
    samples, rate_hz = soundfile.read(path, dtype="int16")
    assert rate_hz == RATE_HZ
    return np.asarray(samples)


def test_a_long_clip_is_heard_around_the_window_only(tmp_path: Path) -> None:
    both = [observed("gone.wav", 10), observed("gone.wav", 14)]
    clip = write_clip(tmp_path / "clips", both)
    assert len(sound_of(clip)) == 11 * RATE_HZ  # from 8 s to 19 s
    for observation, start in zip(both, (9, 13), strict=True):
        found = evidence_of(observation, detected(observation, clip), tmp_path / "a.sqlite")
        assert found == Evidence(clip, start - 8.0, start - 8.0 + 5.0)
        kept = sound_of(save(found, observation.seq, "Barn owl?", tmp_path / "heard"))
        np.testing.assert_array_equal(kept, SOUND[start * RATE_HZ : (start + 5) * RATE_HZ])
    names = sorted(path.name for path in (tmp_path / "heard").iterdir())
    assert names == ["00000010_barn-owl.flac", "00000014_barn-owl.flac"]


def test_a_clip_that_begins_late_is_heard_from_its_begin(tmp_path: Path) -> None:
    first = observed("gone.wav", 0)
    clip = write_clip(tmp_path / "clips", [first])
    assert evidence_of(first, detected(first, clip), tmp_path / "a.sqlite") == Evidence(clip, 0.0, 4.0)


def test_a_clip_is_found_beside_a_store_that_was_moved(tmp_path: Path) -> None:
    observation = observed("gone.wav", 10)
    clip = write_clip(tmp_path / "moved" / "clips", [observation])
    found = detected(observation, Path("/var/lib/recorder/clips") / clip.name)
    evidence = evidence_of(observation, found, tmp_path / "moved" / "a.sqlite")
    assert evidence is not None
    assert evidence.path == clip
    assert evidence_of(observation, found, tmp_path / "a.sqlite") is None


@pytest.mark.parametrize("change", [{"device_id": "d2"}, {"epoch": 6}])
def test_another_stores_clip_of_the_same_name_is_passed_over(
    tmp_path: Path, recording: Path, change: dict[str, Any]
) -> None:
    observation = observed(str(recording), 10)
    clip = write_clip(tmp_path / "clips", [observation])
    other = replace(observation, **change)
    assert evidence_of(other, detected(observation, clip), tmp_path / "a.sqlite") == Evidence(
        recording, 9.0, 14.0
    )


def test_without_a_clip_the_recording_is_heard_around_the_window(tmp_path: Path, recording: Path) -> None:
    for clip in (None, tmp_path / "clips" / "removed.clip.flac"):
        observation = observed(str(recording), 20)
        found = evidence_of(observation, detected(observation, clip), tmp_path / "a.sqlite")
        assert found == Evidence(recording, 19.0, 24.0)
        kept = sound_of(save(found, 20, "owl", tmp_path / "heard"))
        np.testing.assert_array_equal(kept, SOUND[19 * RATE_HZ : 24 * RATE_HZ])
        assert str(found) == f"{recording}, from 19.0 s to 24.0 s"


def test_the_ends_of_a_recording_are_the_ends_of_its_part(tmp_path: Path, recording: Path) -> None:
    for second, expected in ((0, SOUND[: 4 * RATE_HZ]), (37, SOUND[36 * RATE_HZ :])):
        observation = observed(str(recording), second)
        found = evidence_of(observation, detected(observation), tmp_path / "a.sqlite")
        assert found is not None
        np.testing.assert_array_equal(sound_of(save(found, 0, "owl", tmp_path)), expected)


def test_without_clip_and_recording_there_is_nothing(tmp_path: Path) -> None:
    observation = observed("microphone:USB Audio", 3)
    assert evidence_of(observation, detected(observation), tmp_path / "a.sqlite") is None


def test_a_clip_without_metadata_is_taken_whole(tmp_path: Path) -> None:
    clip = tmp_path / "b.clip.flac"
    soundfile.write(clip, SOUND, RATE_HZ)
    observation = observed("gone.wav", 10)
    found = evidence_of(observation, detected(observation, clip), tmp_path / "a.sqlite")
    assert found == Evidence(clip)
    assert save(found, 3, "???", tmp_path / "heard").read_bytes() == clip.read_bytes()
    assert (tmp_path / "heard" / "00000003_detection.flac").is_file()


def test_sound_is_played_as_it_was_recorded(tmp_path: Path) -> None:
    stereo = np.stack([SOUND, -SOUND], axis=1)
    soundfile.write(tmp_path / "s.wav", stereo, 22_050, subtype="PCM_16")
    loudspeaker = Loudspeaker()
    play(Evidence(tmp_path / "s.wav", 1.0, 2.0), loudspeaker)
    ((samples, rate_hz),) = loudspeaker.played
    assert rate_hz == 22_050
    np.testing.assert_array_equal(np.rint(samples * 32768), stereo[22_050:44_100])


def test_playing_can_be_stopped(recording: Path) -> None:
    loudspeaker = Loudspeaker(KeyboardInterrupt())
    play(Evidence(recording), loudspeaker)
    assert loudspeaker.stopped == 1


def test_a_loudspeaker_that_cannot_play_is_told(recording: Path) -> None:
    with pytest.raises(AudioError, match=r"a\.wav: expected a loudspeaker that plays 8000 Hz, found no card"):
        play(Evidence(recording), Loudspeaker(Loudspeaker.PortAudioError("no card")))


def test_a_picture_is_copied_but_not_played(tmp_path: Path) -> None:
    picture = tmp_path / "deer.jpg"
    picture.write_bytes(b"a picture")
    observation = replace(observed(str(picture), 0), n_samples=0, sample_rate_hz=PICTURE_RATE_HZ)
    found = evidence_of(observation, detected(observation), tmp_path / "a.sqlite")
    assert found == Evidence(picture, is_picture=True)
    with pytest.raises(AudioError, match=r"deer\.jpg: expected sound, found a picture; look at it"):
        play(found, Loudspeaker())
    assert save(found, 0, "deer", tmp_path / "seen").read_bytes() == b"a picture"


def test_a_recording_that_became_shorter_is_told(tmp_path: Path, recording: Path) -> None:
    with pytest.raises(AudioError, match=r"a\.wav: expected sound at 50\.0 s, found 40\.0 s of sound"):
        save(Evidence(recording, 50.0, 55.0), 0, "owl", tmp_path / "heard")
    assert not (tmp_path / "heard").exists()


def test_damaged_sound_is_told(tmp_path: Path) -> None:
    clip = tmp_path / "b.clip.flac"
    clip.write_bytes(b"no sound")
    observation = observed("gone.wav", 10)
    found = evidence_of(observation, detected(observation, clip), tmp_path / "a.sqlite")
    assert found is not None
    with pytest.raises(AudioError, match=r"b\.clip\.flac: expected sound that can be read, found "):
        play(found, Loudspeaker())


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, recording: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"00000000_owl\.flac: expected a place that can be written, found "):
        save(Evidence(recording, 0.0, 1.0), 0, "owl", tmp_path / "file")
