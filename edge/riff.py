"""The chunks of a WAV file that libsndfile does not show: the sound its header promises, and GUANO."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

_MAX_CHUNKS = 1000  # a damaged header must not send us round for ever
_MAX_GUANO_BYTES = 1 << 20
_UNKNOWN_BYTES = 0xFFFFFF00  # programs that write to a pipe put 0xFFFFFFFF or a little less


@dataclass(frozen=True, slots=True)
class WavHeader:
    """What the chunks of a WAV file say.

    promised_bytes: size of the sound as written in the header, None where the writer did not know it.
    present_bytes: how much of it the file really has, or what follows where the header says 0.
    guano: text of the `guan` chunk, or "".
    """

    promised_bytes: int | None
    present_bytes: int
    guano: str


def read_wav_header(file: BinaryIO) -> WavHeader | None:
    """Walk the chunks of a RIFF, RF64 or BW64 file; None where it is no WAV. Moves the file's position."""
    file.seek(0)
    start = file.read(12)
    if len(start) < 12 or start[:4] not in (b"RIFF", b"RF64", b"BW64") or start[8:] != b"WAVE":
        return None
    file_bytes = file.seek(0, 2)
    offset, wide_bytes, guano = 12, 0, ""
    promised: int | None = None
    present = 0
    for _ in range(_MAX_CHUNKS):
        file.seek(offset)
        head = file.read(8)
        if len(head) < 8:
            break
        name, size = head[:4], int(struct.unpack("<I", head[4:])[0])
        if name == b"ds64":  # 64-bit sizes of RF64: RIFF, then data
            sizes = file.read(16)
            wide_bytes = int(struct.unpack("<Q", sizes[8:])[0]) if len(sizes) == 16 else 0
        elif name == b"guan":
            guano = file.read(min(size, _MAX_GUANO_BYTES)).decode("utf-8", "replace")
        elif name == b"data":
            size = wide_bytes if size >= _UNKNOWN_BYTES and wide_bytes else size
            present = max(0, min(size or file_bytes, file_bytes - offset - 8))
            unknown = _UNKNOWN_BYTES <= size <= 0xFFFFFFFF and not wide_bytes
            promised = None if unknown else size
        offset += 8 + size + size % 2
    return WavHeader(promised, present, guano)
