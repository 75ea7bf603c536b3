"""The microphone as a source of sound: it is listened to for ever, and what it does not give is a Gap."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge.audio_events import AudioEvent, Block, BlockStream, Gap, mono
from edge.clock import Clock, SystemClock, later
from edge.errors import AudioError
from edge.microphone_devices import Microphone, find_microphone, list_microphones, load_portaudio
from edge.observation import Instant

SampleFormat = Literal["int16", "int32", "float32"]
_FULL_SCALE: dict[str, float] = {"int16": 2.0**15, "int32": 2.0**31, "float32": 1.0}
# Native rates of most hardware first: ALSA's own conversion to any other is a linear one.
_USUAL_RATES_HZ = (48_000, 44_100)
_CALLBACKS_PER_S = 10
_NS = 1_000_000_000
_GAP_REPORT_S = 60.0  # while a device is away, one Gap is given in this time
_LATE_NS = _NS  # sound later than this against the sample counter: frames were lost, or the computer slept

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """What one callback brought: frames [n, channels] of the device; n_lost frames went before them."""

    frames: NDArray[Any]
    n_lost: int
    overflowed: bool
    boottime_ns: int  # when it was there


class MicrophoneSource:
    """A microphone by name (a part is enough) or `vid:pid[:serial]`; None = the default one.

    The callback copies a block into a bounded queue (queue_s); what does not fit is counted: a Gap.
    A device that is not there, is lost, or gives nothing for stall_s is opened again every retry_s, for ever.
    rate_in_hz, channels: None = what the device likes best. wait: how to sleep between attempts.
    sample_format: what the device is asked for. portaudio: the module sounddevice, or a stand-in.
    """

    def __init__(
        self,
        device: str | None,
        rate_hz: int,
        *,
        rate_in_hz: int | None = None,
        channels: int | None = None,
        sample_format: SampleFormat = "int16",
        block_s: float = 1.0,
        queue_s: float = 30.0,
        stall_s: float = 5.0,
        retry_s: float = 2.0,
        clock: Clock | None = None,
        wait: Callable[[float], None] = time.sleep,
        portaudio: Any = None,
    ) -> None:
        self._portaudio = portaudio or load_portaudio()
        self._device, self._rate_hz, self._block_s = device, rate_hz, block_s
        self._rate_in_hz, self._channels, self._format = rate_in_hz, channels, sample_format
        self._stall_s, self._retry_s, self._wait = stall_s, retry_s, wait
        self._clock = clock or SystemClock()
        self._queue: queue.Queue[_Chunk] = queue.Queue(max(1, round(queue_s * _CALLBACKS_PER_S)))
        self._n_lost = 0
        self._overflowed = False
        self._ended = False

    @property
    def sample_rate_hz(self) -> int:
        """Return the rate of the blocks."""
        return self._rate_hz

    def events(self) -> Iterator[AudioEvent]:
        """Yield Blocks and Gaps for ever; frames and gaps together are the time that passed.

        Raises AudioError where the name fits several devices at the start.
        """
        source = f"microphone:{self._device or 'default'}"
        blocks = BlockStream(source, self._rate_hz, self._rate_hz, self._block_s, self._clock.now())
        reported = ""
        while True:
            stream, problem = self._open(blocks)
            shortest_gap_s = _GAP_REPORT_S
            if stream is not None:
                _log.info("%s: recording at %s Hz", source, blocks.rate_in_hz)
                try:
                    yield from self._listen(blocks)
                finally:
                    self._close(stream)
                problem, reported = f"no sound for {self._stall_s:g} s: the device is lost", ""
                shortest_gap_s = 0.0
            if problem != reported:
                _log.warning("%s: %s; trying again every %g s", source, problem, self._retry_s)
                reported = problem
            yield from self._silence(blocks, problem, shortest_gap_s)
            self._wait(self._retry_s)
            self._refresh()

    def _open(self, blocks: BlockStream) -> tuple[Any, str]:
        """Start the device; return its stream, or None and why not."""
        pa = self._portaudio
        try:
            found = list_microphones(pa)
            microphone = find_microphone(self._device, found)
            if microphone is None:
                names = "; ".join(m.name for m in found) or "none"
                return None, f"expected a device {self._device or 'that can record'!r}, found {names}"
            rate_in_hz, channels = self._settings(microphone)
            self._drain()
            stream = pa.InputStream(
                device=microphone.index,
                samplerate=rate_in_hz,
                channels=channels,
                dtype=self._format,
                blocksize=rate_in_hz // _CALLBACKS_PER_S,
                callback=self._callback,
            )
            blocks.rate_in_hz = rate_in_hz
            stream.start()
        except AudioError as error:  # several devices fit
            if not blocks.next_sample:
                raise
            return None, str(error)
        except (pa.PortAudioError, OSError, ValueError) as error:
            return None, f"cannot be opened: {error}"
        return stream, ""

    def _close(self, stream: Any) -> None:
        try:
            stream.abort()
            stream.close()
        except self._portaudio.PortAudioError as error:
            _log.debug("closing a lost device: %s", error)

    def _refresh(self) -> None:
        """Make PortAudio look for devices again; it sees a replugged one in no other way."""
        try:
            self._portaudio._terminate()
            self._portaudio._initialize()
        except self._portaudio.PortAudioError as error:
            _log.debug("looking for devices again: %s", error)

    def _drain(self) -> None:
        """Forget what a stream that was closed left behind."""
        while not self._queue.empty():
            self._queue.get_nowait()
        self._n_lost, self._overflowed = 0, False

    def _settings(self, microphone: Microphone) -> tuple[int, int]:
        """Return the first rate and number of channels that the device accepts."""
        pa = self._portaudio
        preferred = (*_USUAL_RATES_HZ, microphone.default_rate_hz, self._rate_hz)
        rates_hz = preferred if self._rate_in_hz is None else (self._rate_in_hz,)
        counts = (1, min(2, microphone.n_channels)) if self._channels is None else (self._channels,)
        refused = None
        for rate_hz in rates_hz:
            for channels in counts:
                try:
                    pa.check_input_settings(microphone.index, channels, self._format, None, rate_hz)
                except pa.PortAudioError as error:
                    refused = error
                    continue
                return rate_hz, channels
        raise ValueError(
            f"{microphone.name}: expected {self._format} at one of {rates_hz} Hz, refused: {refused}"
        )

    def _callback(self, frames: NDArray[Any], n_frames: int, _time: object, status: Any) -> None:
        """Copy a block into the queue; runs in PortAudio's thread, and must never wait."""
        overflowed = self._overflowed or bool(getattr(status, "input_overflow", False))
        chunk = _Chunk(frames.copy(), self._n_lost, overflowed, self._clock.boottime_ns())
        try:
            self._queue.put_nowait(chunk)
        except queue.Full:
            self._n_lost += n_frames
            self._overflowed = overflowed
            return
        self._n_lost, self._overflowed = 0, False

    def _listen(self, blocks: BlockStream) -> Iterator[Block | Gap]:
        """Yield what the open device gives, until it gives nothing for stall_s."""
        is_first = True
        while True:
            try:
                chunk = self._queue.get(timeout=self._stall_s)
            except queue.Empty:
                return
            heard_ns = chunk.boottime_ns - len(chunk.frames) * _NS // blocks.rate_in_hz
            if not blocks.next_sample:
                blocks.start = replace(blocks.start, boottime_ns=max(0, heard_ns))
            late_ns = heard_ns - later(blocks.start, blocks.next_sample, self._rate_hz).boottime_ns
            n_late = max(0, late_ns * self._rate_hz // _NS)
            if is_first and n_late:
                yield from blocks.skip(n_late, "the device was away")
            elif chunk.n_lost:
                n_samples = round(chunk.n_lost * self._rate_hz / blocks.rate_in_hz)
                yield from blocks.skip(n_samples, "could not keep up: the queue of the microphone was full")
            elif chunk.overflowed:
                yield from blocks.skip(max(1, n_late), "overflow in the sound card")
            elif late_ns > _LATE_NS:
                yield from blocks.skip(n_late, "sound came late: frames were lost")
            is_first = False
            blocks.start = self._with_wall_clock(blocks.start)
            scale = np.float32(1.0 / _FULL_SCALE[self._format])
            yield from blocks.push(mono(chunk.frames.astype(np.float32) * scale))

    def _silence(self, blocks: BlockStream, reason: str, shortest_s: float) -> Iterator[Block | Gap]:
        """End the segment, and count what is missing up to now once it is shortest_s or more."""
        yield from blocks.flush()
        expected_ns = later(blocks.start, blocks.next_sample, self._rate_hz).boottime_ns
        n_samples = (self._clock.boottime_ns() - expected_ns) * self._rate_hz // _NS
        if n_samples > shortest_s * self._rate_hz:
            yield from blocks.skip(n_samples, reason)

    def _with_wall_clock(self, start: Instant) -> Instant:
        """Return start with the UTC that it had, as the wall clock says now."""
        now = self._clock.now()
        wall_ns = None if now.wall_ns is None else now.wall_ns - (now.boottime_ns - start.boottime_ns)
        return Instant(start.boot_id, start.boottime_ns, wall_ns, now.clock_state)
