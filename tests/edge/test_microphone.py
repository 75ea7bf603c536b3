"""The microphone is heard for ever: lost frames are gaps, lost devices come back."""

from __future__ import annotations

import ctypes.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.audio_events import AudioEvent, Block, Gap
from edge.microphone import MicrophoneSource
from edge.observation import Instant

RATE_HZ = 8000
CHUNK = RATE_HZ // 10


class FakeClock:
    """Boottime that stands still unless it is moved; UTC = boottime + 1,000 s once it is set."""

    def __init__(self) -> None:
        self.ns = 50_000_000_000
        self.is_set = True

    def boottime_ns(self) -> int:
        return self.ns

    def now(self) -> Instant:
        wall_ns = self.ns + 1_000_000_000_000 if self.is_set else None
        return Instant("boot", self.ns, wall_ns, "ntp" if self.is_set else "unset")


class FakePortAudio:
    """Stands in for sounddevice: each opened stream plays one script, all of it as soon as it is started."""

    class PortAudioError(Exception):
        pass

    def __init__(self, clock: FakeClock, *scripts: Callable[[FakeStream], None] | str) -> None:
        self.clock, self.scripts = clock, list(scripts)
        self.names = ["HDMI", "USB Microphone: Audio (hw:1,0)"]
        self.n_refreshed = 0
        self.opened: list[dict[str, Any]] = []
        self.closed: list[FakeStream] = []

    def query_devices(self) -> list[dict[str, Any]]:
        return [
            {"name": name, "max_input_channels": 0 if name == "HDMI" else 1, "default_samplerate": 44100.0}
            for name in self.names
        ]

    def check_input_settings(self, device: int, channels: int, dtype: str, extra: None, rate_hz: int) -> None:
        if rate_hz != RATE_HZ:
            raise self.PortAudioError("Invalid sample rate")

    def InputStream(self, **options: Any) -> FakeStream:  # noqa: N802
        self.opened.append(options)
        script = self.scripts.pop(0)
        if isinstance(script, str):
            raise self.PortAudioError(script)
        return FakeStream(self, script, options["callback"])

    def _terminate(self) -> None:
        self.n_refreshed += 1

    def _initialize(self) -> None:
        pass


class FakeStream:
    def __init__(
        self, portaudio: FakePortAudio, script: Callable[[FakeStream], None], callback: Callable[..., None]
    ) -> None:
        self.portaudio, self.script, self.callback = portaudio, script, callback
        self.buffer = np.zeros((CHUNK, 1), np.int16)

    def start(self) -> None:
        self.script(self)

    def give(self, pcm: NDArray[np.int16], overflow: bool = False) -> None:
        """Pass chunks as PortAudio does: in time, in one buffer that is used again and again."""
        for start in range(0, len(pcm), CHUNK):
            self.buffer[:, 0] = pcm[start : start + CHUNK]
            self.portaudio.clock.ns += CHUNK * 1_000_000_000 // RATE_HZ
            self.callback(self.buffer, CHUNK, None, SimpleNamespace(input_overflow=overflow and start == 0))

    def abort(self) -> None:
        self.portaudio.closed.append(self)

    def close(self) -> None:
        pass


def pcm(n_chunks: int, seed: int = 0) -> NDArray[np.int16]:
    return np.random.default_rng(seed).integers(-32768, 32768, n_chunks * CHUNK).astype(np.int16)


def scale(sound: NDArray[np.int16]) -> NDArray[np.float32]:
    return sound.astype(np.float32) / 32768


def microphone(portaudio: FakePortAudio, **options: Any) -> MicrophoneSource:
    options = {"block_s": 0.1, "stall_s": 0.01, "wait": lambda _: None, **options}
    return MicrophoneSource("usb mic", RATE_HZ, clock=portaudio.clock, portaudio=portaudio, **options)


def up_to_gap(events: Iterator[AudioEvent]) -> tuple[NDArray[np.float32], Gap]:
    found: list[NDArray[np.float32]] = []
    for event in events:
        if isinstance(event, Gap):
            return np.concatenate(found) if found else np.empty(0, np.float32), event
        assert isinstance(event, Block)
        found.append(event.samples)
    raise AssertionError("no gap came")


def test_blocks_are_copies_of_what_the_device_gave() -> None:
    clock, sound = FakeClock(), pcm(12)
    portaudio = FakePortAudio(clock, lambda stream: stream.give(sound))
    events = microphone(portaudio).events()
    found = list(islice(events, 12))
    events.close()
    assert [block.first_sample for block in found if isinstance(block, Block)] == [
        i * CHUNK for i in range(12)
    ]
    np.testing.assert_array_equal(
        np.concatenate([b.samples for b in found if isinstance(b, Block)]), scale(sound)
    )
    first = found[0]
    assert isinstance(first, Block)
    assert first.source == "microphone:usb mic"
    assert first.instant == Instant("boot", 50_000_000_000, 1_050_000_000_000, "ntp")
    assert portaudio.opened[0]["device"] == 1
    assert portaudio.closed, "the device stays open after the last event"


def test_frames_that_do_not_fit_the_queue_are_a_gap_of_their_number() -> None:
    def flood(stream: FakeStream) -> None:
        stream.give(sound)

    clock, sound = FakeClock(), pcm(30)
    source = microphone(FakePortAudio(clock, flood, flood), queue_s=1.0)
    events = source.events()
    heard, gap = up_to_gap(events)
    np.testing.assert_array_equal(heard, scale(sound[: 10 * CHUNK]))
    assert (gap.first_sample, gap.n_samples) == (10 * CHUNK, 20 * CHUNK)


def test_a_queue_that_was_full_for_a_while_gives_a_gap_in_its_place() -> None:
    clock, sound = FakeClock(), pcm(18)
    streams: list[FakeStream] = []

    def begin(stream: FakeStream) -> None:
        streams.append(stream)
        stream.give(sound[: 15 * CHUNK])  # the queue holds 10

    events = microphone(FakePortAudio(clock, begin), queue_s=1.0, stall_s=10.0).events()
    before = [next(events) for _ in range(10)]
    streams[0].give(sound[15 * CHUNK :])
    gap, after = next(events), next(events)
    assert gap == Gap(
        "microphone:usb mic", 10 * CHUNK, 5 * CHUNK, "could not keep up: the queue of the microphone was full"
    )
    assert isinstance(after, Block)
    assert after.first_sample == 15 * CHUNK
    np.testing.assert_array_equal(after.samples, scale(sound[15 * CHUNK : 16 * CHUNK]))
    assert len(before) == 10
    assert after.instant.boottime_ns == 51_500_000_000


def test_an_overflow_in_the_sound_card_is_a_gap_of_the_time_lost() -> None:
    def overflow(stream: FakeStream) -> None:
        stream.give(pcm(5))
        stream.portaudio.clock.ns += 400_000_000
        stream.give(pcm(5, seed=1), overflow=True)

    _, gap = up_to_gap(microphone(FakePortAudio(FakeClock(), overflow)).events())
    assert (gap.first_sample, gap.n_samples, gap.reason) == (
        5 * CHUNK,
        4 * CHUNK,
        "overflow in the sound card",
    )


def test_a_computer_that_slept_has_a_gap_and_right_times_afterwards() -> None:
    def sleep(stream: FakeStream) -> None:
        stream.give(pcm(5))
        stream.portaudio.clock.ns += 3_600_000_000_000
        stream.give(pcm(5, seed=1))

    events = microphone(FakePortAudio(FakeClock(), sleep)).events()
    _, gap = up_to_gap(events)
    assert gap.n_samples == 3600 * RATE_HZ
    after = next(events)
    assert isinstance(after, Block)
    assert after.instant.boottime_ns == 50_000_000_000 + 500_000_000 + 3_600_000_000_000


def test_a_lost_device_is_opened_again_until_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    clock, sound = FakeClock(), pcm(5)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        clock.ns += round(seconds * 1e9)
        portaudio.names = ["HDMI", "Other", "USB Microphone: Audio (hw:2,0)"] if len(waits) == 3 else ["HDMI"]

    portaudio = FakePortAudio(clock, lambda stream: stream.give(sound), lambda stream: stream.give(sound))
    events = microphone(portaudio, wait=wait).events()
    assert len([next(events) for _ in range(5)]) == 5
    clock.ns += 5_000_000_000
    lost = next(events)
    assert lost == Gap(
        "microphone:usb mic", 5 * CHUNK, 5 * RATE_HZ, "no sound for 0.01 s: the device is lost"
    )
    back, after = next(events), next(events)
    assert back == Gap("microphone:usb mic", 5 * CHUNK + 5 * RATE_HZ, 6 * RATE_HZ, "the device was away")
    assert isinstance(after, Block)
    assert after.first_sample == 5 * CHUNK + 11 * RATE_HZ
    np.testing.assert_array_equal(after.samples, scale(sound[:CHUNK]))
    assert waits == [2.0, 2.0, 2.0]
    assert portaudio.n_refreshed == 3  # PortAudio sees a replugged device in no other way
    assert [options["device"] for options in portaudio.opened] == [1, 2]
    messages = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(messages) == 2, "one for the loss, one for what is there instead; none for each attempt"


def test_a_device_that_is_away_for_long_is_a_gap_every_minute() -> None:
    clock = FakeClock()

    def wait(seconds: float) -> None:
        clock.ns += round(seconds * 1e9)

    portaudio = FakePortAudio(clock, *["Device unavailable"] * 100)
    gaps = list(islice(microphone(portaudio, wait=wait).events(), 3))
    assert [gap.n_samples for gap in gaps if isinstance(gap, Gap)] == [62 * RATE_HZ] * 3


def test_utc_is_taken_when_the_clock_gets_set() -> None:
    clock = FakeClock()
    clock.is_set = False
    portaudio = FakePortAudio(clock, lambda stream: stream.give(pcm(3)))
    events = microphone(portaudio, stall_s=10.0).events()
    first = next(events)
    clock.is_set = True
    second = next(events)
    assert isinstance(first, Block)
    assert isinstance(second, Block)
    assert (first.instant.wall_ns, first.instant.clock_state) == (None, "unset")
    assert second.instant == Instant("boot", 50_100_000_000, 1_050_100_000_000, "ntp")


REAL = """
import itertools, json, sys
import numpy as np
from edge.audio_events import Block
from edge.microphone import MicrophoneSource
from edge.microphone_devices import list_microphones
queue_s, n = float(sys.argv[1]), int(sys.argv[2])
source = MicrophoneSource("virtmic", 48000, queue_s=queue_s, block_s=0.5)
found = list(itertools.islice(source.events(), n))
np.concatenate([e.samples for e in found if isinstance(e, Block)]).tofile(sys.argv[3])
print(json.dumps([[type(e).__name__, e.first_sample] for e in found]))
"""


@pytest.mark.skipif(
    ctypes.util.find_library("portaudio") is None,
    reason="PortAudio is not installed (apt install libportaudio2)",
)
def test_the_real_portaudio_is_heard_bit_for_bit(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).integers(-32768, 32768, 48_000 * 20).astype("<i2")
    sound.tofile(tmp_path / "mic.raw")
    (tmp_path / ".asoundrc").write_text(
        'pcm.virtmic { type file slave.pcm "null" file "/dev/null" '
        f'infile "{tmp_path}/mic.raw" format "raw" }}\n',
        encoding="utf-8",
    )
    result = subprocess.run(
        [sys.executable, "-c", REAL, "600", "8", str(tmp_path / "heard.f32")],
        env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == [["Block", 24_000 * i] for i in range(8)]
    heard = np.fromfile(tmp_path / "heard.f32", np.float32)
    np.testing.assert_array_equal(heard, sound[: 4 * 48_000].astype(np.float32) / 32768)
