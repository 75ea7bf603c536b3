"""Files, folders and pipes become blocks: same bits for any block size, right stamps."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from edge.audio import AudioEvent, Block, End, FileSource, PcmSource, Skipped
from edge.errors import AudioError
from edge.guano import compose
from edge.observation import Instant

NOW = Instant("boot", 5_000_000_000, 1_800_000_000_000_000_000, "ntp")


class StoppedClock:
    def now(self) -> Instant:
        return NOW

    def boottime_ns(self) -> int:
        return NOW.boottime_ns


def noise(n: int, seed: int = 0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal(n) * 0.1).astype(np.float32)


def heard(paths: Sequence[Path], rate_hz: int = 32_000, block_s: float = 1.0) -> list[AudioEvent]:
    return list(FileSource(paths, rate_hz, block_s, StoppedClock()).events())


def sound_of(events: Sequence[AudioEvent]) -> NDArray[np.float32]:
    return np.concatenate([event.samples for event in events if isinstance(event, Block)])


def skipped(events: Sequence[AudioEvent]) -> list[Skipped]:
    return [event for event in events if isinstance(event, Skipped)]


def add_chunk(path: Path, name: bytes, content: bytes) -> None:
    content += b"\0" * (len(content) % 2)
    wav = path.read_bytes() + name + struct.pack("<I", len(content)) + content
    path.write_bytes(wav[:4] + struct.pack("<I", len(wav) - 8) + wav[8:])


@pytest.mark.parametrize("rate_in_hz", [8_000, 32_000, 44_100, 48_000, 384_000])
def test_block_size_changes_no_bit(tmp_path: Path, rate_in_hz: int) -> None:
    soundfile.write(tmp_path / "a.wav", noise(int(2.73 * rate_in_hz) + 1), rate_in_hz)
    seconds = sound_of(heard([tmp_path / "a.wav"]))
    assert len(seconds) == round((int(2.73 * rate_in_hz) + 1) * 32_000 / rate_in_hz)
    for block_s in (0.0101, 0.25, 60.0):
        events = heard([tmp_path / "a.wav"], block_s=block_s)
        np.testing.assert_array_equal(sound_of(events), seconds)
        starts = [event.first_sample for event in events if isinstance(event, Block)]
        assert starts == [i * round(block_s * 32_000) for i in range(len(starts))]


def test_resampling_keeps_a_tone(tmp_path: Path) -> None:
    soundfile.write(
        tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 1000 * np.arange(44_100) / 44_100), 44_100, "FLOAT"
    )
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(32_000) / 32_000)
    np.testing.assert_allclose(sound_of(heard([tmp_path / "a.wav"]))[500:-500], tone[500:-500], atol=1e-4)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_every_wav_format_gives_the_same_sound(tmp_path: Path, subtype: str) -> None:
    pcm = np.random.default_rng(0).integers(-32768, 32768, 40_000, dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", pcm / 32768, 32_000, subtype)
    np.testing.assert_array_equal(sound_of(heard([tmp_path / "a.wav"])), pcm.astype(np.float32) / 32768)


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3", "aiff", "w64", "caf", "rf64"])
def test_pieces_of_a_compressed_file_are_the_whole_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise(70_000), 32_000)
    events = heard([path])
    whole = soundfile.read(path, dtype="float32")[0]
    np.testing.assert_allclose(sound_of(events), whole, rtol=0, atol=1e-7)  # MP3 decoding rounds by the piece
    assert isinstance(events[-1], End)
    assert not skipped(events)


def test_channels_are_averaged(tmp_path: Path) -> None:
    stereo = np.stack([noise(50_000, 1), noise(50_000, 2)], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, 32_000, "FLOAT")
    np.testing.assert_array_equal(sound_of(heard([tmp_path / "a.wav"])), stereo.mean(axis=1))


def test_a_folder_goes_on_after_bad_files(tmp_path: Path) -> None:
    (tmp_path / "sub" / ".hidden").mkdir(parents=True)
    soundfile.write(tmp_path / "b.WAV", noise(1000), 32_000, format="WAV")
    soundfile.write(tmp_path / "sub" / "c.flac", noise(1000), 32_000)
    soundfile.write(tmp_path / "sub" / ".hidden" / "d.wav", noise(1000), 32_000)
    soundfile.write(tmp_path / "._b.wav", noise(1000), 32_000)
    (tmp_path / "a.wav").write_text("this is text\n" * 100, encoding="utf-8")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "notes.txt").write_text("not sound", encoding="utf-8")
    events = heard([tmp_path])
    assert [(Path(event.source).name, event.reason) for event in skipped(events)] == [
        ("a.wav", "not a sound file that can be read: Format not recognised"),
        ("empty.wav", "empty: no bytes"),
    ]
    ends = [event.source for event in events if isinstance(event, End)]
    assert ends == [str(tmp_path / "b.WAV"), str(tmp_path / "sub" / "c.flac")]


def test_a_file_named_outright_is_tried_whatever_it_is_called(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "sound.dat", noise(1000), 32_000, format="FLAC")
    assert isinstance(heard([tmp_path / "sound.dat"])[-1], End)
    assert skipped(heard([tmp_path]))[0].reason == "no sound files in this folder"


def test_our_own_clips_are_heard_only_where_they_are_named_outright(tmp_path: Path) -> None:
    clips = tmp_path / "fieldcube-clips"
    clips.mkdir()
    soundfile.write(tmp_path / "a.flac", noise(1000), 32_000)
    soundfile.write(clips / "a_000003.00s_owl.clip.flac", noise(1000), 32_000)
    assert {event.source for event in heard([tmp_path])} == {str(tmp_path / "a.flac")}
    (nothing,) = skipped(heard([clips]))
    assert nothing.reason.startswith("no sound files in this folder but 1 clips")
    assert isinstance(heard([clips / "a_000003.00s_owl.clip.flac"])[-1], End)


def test_recordings_are_reported_as_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "card" / "night").mkdir(parents=True)
    soundfile.write(tmp_path / "a.wav", noise(1000), 32_000)
    soundfile.write(tmp_path / "card" / "night" / "b.wav", noise(1000), 32_000)
    given = ["./a.wav", "a.wav", "card/", "./card", str(tmp_path / "a.wav"), "./gone.wav"]
    sources = [event.source for event in FileSource(given, 32_000).events() if not isinstance(event, Block)]
    expected = ["./a.wav", "a.wav", "card/night/b.wav", "./card/night/b.wav", f"{tmp_path}/a.wav"]
    assert sources == [*expected, "./gone.wav"]


def test_what_is_not_there_is_skipped(tmp_path: Path) -> None:
    assert heard([tmp_path / "no.wav"]) == [Skipped(str(tmp_path / "no.wav"), "no such file or folder")]


def test_a_file_name_that_is_not_utf8_can_be_reported(tmp_path: Path) -> None:
    path = Path(f"{tmp_path}/\udcff.wav")
    soundfile.write(tmp_path / "a.wav", noise(1000), 32_000)
    (tmp_path / "a.wav").rename(path)
    (end,) = [event for event in heard([path]) if isinstance(event, End)]
    assert end.source == f"{tmp_path}/\\xff.wav"


def start_of(path: Path) -> tuple[int | None, str]:
    first = heard([path])[0]
    assert isinstance(first, Block)
    assert (first.instant.boot_id, first.instant.boottime_ns) == ("boot", NOW.boottime_ns)
    return first.instant.wall_ns, first.instant.clock_state


@pytest.mark.parametrize(
    ("timestamp", "wall_ns"),
    [
        ("2026-05-04T03:02:01Z", 1_777_863_721_000_000_000),
        ("2026-05-04T05:02:01.25+02:00", 1_777_863_721_250_000_000),
        ("2026-05-03 20:02:01-0700", 1_777_863_721_000_000_000),
        ("2026-05-04T03:02:01", 1_777_863_721_000_000_000),
        ("1970-01-01T00:00:05Z", None),
        ("2026-13-04T03:02:01Z", None),
    ],
)
def test_guano_tells_when_a_recording_began(tmp_path: Path, timestamp: str, wall_ns: int | None) -> None:
    soundfile.write(tmp_path / "20200101_000000.wav", noise(1000), 32_000)
    add_chunk(tmp_path / "20200101_000000.wav", b"guan", compose({"Timestamp": timestamp}).encode())
    assert start_of(tmp_path / "20200101_000000.wav") == (wall_ns, "unset" if wall_ns is None else "rtc")


@pytest.mark.parametrize(
    ("name", "wall_ns"),
    [
        ("20260504_030201.WAV", 1_777_863_721_000_000_000),
        ("S4A01234_20260504_030201_000.wav", 1_777_863_721_000_000_000),
        ("20261304_030201.wav", None),
        ("19700101_000005.wav", None),
        ("30001231_101010.wav", None),  # in ns since 1970 more than 63 bits
        ("21010101_000000.wav", None),
        ("21001231_235959.wav", 4_133_980_799_000_000_000),
        ("120260504_030201.wav", None),
        ("owl.wav", None),
    ],
)
def test_a_file_name_tells_when_a_recording_began(tmp_path: Path, name: str, wall_ns: int | None) -> None:
    soundfile.write(tmp_path / name, noise(1000), 32_000, format="WAV")
    assert start_of(tmp_path / name) == (wall_ns, "unset" if wall_ns is None else "rtc")


def test_the_comment_of_an_audiomoth_knows_its_zone(tmp_path: Path) -> None:
    with soundfile.SoundFile(
        tmp_path / "20260504_050201.WAV", "w", 32_000, 1, "PCM_16", format="WAV"
    ) as file:
        file.comment = "Recorded at 05:02:01 04/05/2026 (UTC+2) by AudioMoth 24E1440362B4CB3F at medium gain."
        file.write(noise(1000))
    assert start_of(tmp_path / "20260504_050201.WAV") == (1_777_863_721_000_000_000, "rtc")


def test_stamps_come_from_the_sample_counter(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "20260504_030201.wav", noise(3 * 44_100), 44_100)
    blocks = [event for event in heard([tmp_path], block_s=0.5) if isinstance(event, Block)]
    assert [block.first_sample for block in blocks] == [16_000 * i for i in range(6)]
    assert [block.instant.wall_ns for block in blocks] == [
        1_777_863_721_000_000_000 + 500_000_000 * i for i in range(6)
    ]


class Trickle(io.RawIOBase):
    """A pipe that gives a few bytes at a time, never whole frames."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._content.read(min(size, 1001))


@pytest.mark.parametrize("pipe", [io.BytesIO, Trickle])
def test_a_pipe_is_heard_sample_for_sample(pipe: Callable[[bytes], io.BytesIO]) -> None:
    pcm = np.random.default_rng(0).integers(-32768, 32768, (70_001, 2), dtype=np.int16)
    events = list(
        PcmSource(pipe(pcm.astype("<i2").tobytes() + b"x"), 32_000, 32_000, 2, 0.5, StoppedClock()).events()
    )
    np.testing.assert_array_equal(sound_of(events), (pcm.astype(np.float32) / 32768).mean(axis=1))
    assert events[-1] == End("stdin")
    assert isinstance(events[0], Block)
    assert events[0].instant.clock_state == "ntp"
    assert events[0].instant.boottime_ns < NOW.boottime_ns  # the first sample came before it was read


def test_a_pipe_with_nothing_is_skipped() -> None:
    assert list(PcmSource(io.BytesIO(b""), 8_000, 32_000).events()) == [Skipped("stdin", "empty: no samples")]


def test_a_pipe_at_an_impossible_rate_is_refused() -> None:
    with pytest.raises(AudioError, match="found 0 Hz"):
        PcmSource(io.BytesIO(b""), 0, 32_000)


def test_a_file_that_vanishes_while_folders_are_searched_is_skipped(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, noise(1000), 32_000)
    events: Iterator[AudioEvent] = FileSource([tmp_path / "a.wav", tmp_path / "b.wav"], 32_000).events()
    assert isinstance(next(events), Block)
    (tmp_path / "b.wav").unlink()
    assert list(events)[1:] == [Skipped(str(tmp_path / "b.wav"), "no such file or folder")]
