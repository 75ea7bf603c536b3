"""Pictures in files and folders, one after the other, with the time at which each was taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.audio_events import Skipped
from edge.bundle import ImageInput
from edge.clock import Clock, SystemClock
from edge.file_search import PICTURE_SUFFIXES, files_below
from edge.images import Pixels, pixels_of, try_image
from edge.observation import ClockState, Instant
from edge.utf8 import shown


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """What an image encoder takes: pixels float32 [3, size, size], and of which file and moment they are."""

    pixels: Pixels
    source: str
    instant: Instant


class PictureSource:
    """Pictures in files and folders, read one by one.

    Folders are searched in depth, in order of name; hidden files are left out. What cannot be read whole is a Skipped, and the
    rest goes on. A file is reported as it was given, one in a folder as the folder was given and the way from there. The wall
    clock of a picture is edge.recording_time.picture_taken_ns (state rtc: a camera's clock) or unknown; its boottime is the
    moment of reading.
    """

    def __init__(self, paths: Sequence[Path | str], takes: ImageInput, clock: Clock | None = None) -> None:
        self._paths, self._takes, self._clock = tuple(paths), takes, clock or SystemClock()

    def events(self) -> Iterator[Picture | Skipped]:
        """Yield every picture, and a Skipped for each file or folder that gives none."""
        for found in self._files():
            if isinstance(found, Skipped):
                yield found
                continue
            source, read = shown(found), try_image(Path(found))
            if isinstance(read, str):
                yield Skipped(source, read)
                continue
            now = self._clock.now()
            state: ClockState = "unset" if read.taken_ns is None else "rtc"
            instant = Instant(now.boot_id, now.boottime_ns, read.taken_ns, state)
            yield Picture(pixels_of(read.image, self._takes), source, instant)

    def _files(self) -> Iterator[Path | str | Skipped]:
        for given in self._paths:
            path = Path(given)
            if path.is_dir():
                yield from _search(given)
            elif path.is_file():
                yield given
            else:
                reason = "not a regular file" if path.exists() else "no such file or folder"
                yield Skipped(shown(given), reason)


def _search(folder: Path | str) -> Iterator[str | Skipped]:
    """Yield the pictures below a folder, and what could not be searched."""
    n_found = 0
    for found in files_below(folder, PICTURE_SUFFIXES):
        n_found += 1
        yield (
            Skipped(shown(found.filename), f"cannot be read: {found.strerror}")
            if isinstance(found, OSError)
            else found
        )
    if not n_found:
        yield Skipped(shown(folder), "no pictures in this folder")
