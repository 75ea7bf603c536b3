"""What every loader gives: items that can be read wherever they lie, and the species that they show."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from edge.errors import FieldcubeError


class DatasetError(FieldcubeError):
    """A data set that is not there or not in its format."""


@dataclass(frozen=True, slots=True)
class Species:
    """One class of a data set. taxonomy: kingdom, phylum, class, order, family, genus, species epithet, as far as known; group: for figures by group."""

    key: str
    scientific: str
    common: str
    taxonomy: tuple[str, ...]
    group: str


class Content(Protocol):
    """Bytes of an item, wherever they lie."""

    @property
    def name(self) -> str:
        """Return a name for messages."""
        ...

    def read(self) -> bytes:
        """Return all of it."""
        ...


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file of its own."""

    path: Path

    @property
    def name(self) -> str:
        """Return its path."""
        return str(self.path)

    def read(self) -> bytes:
        """Return its bytes. Raises DatasetError where it cannot be read."""
        try:
            return self.path.read_bytes()
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            found = error.strerror if isinstance(error, OSError) else error
            raise DatasetError(f"{self.path}: expected a file of the data set, found {found}") from error


@dataclass(frozen=True, slots=True)
class PieceContent:
    """A member of a larger file (tar): n_bytes from offset."""

    path: Path
    member: str
    offset: int
    n_bytes: int

    @property
    def name(self) -> str:
        """Return the file and the member."""
        return f"{self.path}:{self.member}"

    def read(self) -> bytes:
        """Return its bytes. Raises DatasetError where the file became shorter or cannot be read."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.offset)
                content = stream.read(self.n_bytes)
        except OSError as error:
            raise DatasetError(
                f"{self.path}: expected a file of the data set, found {error.strerror}"
            ) from error
        if len(content) != self.n_bytes:
            raise DatasetError(
                f"{self.name}: expected {self.n_bytes} bytes, found {len(content)}; the file was cut"
            )
        return content


@dataclass(frozen=True, slots=True)
class ParquetContent:
    """The `bytes` field of a struct column in one row of a parquet file."""

    path: Path
    row_group: int
    row: int
    column: str

    @property
    def name(self) -> str:
        """Return the file and the row."""
        return f"{self.path}, row group {self.row_group}, row {self.row}"

    def read(self) -> bytes:
        """Return its bytes. Raises DatasetError where the cell has none."""
        cell = _column(self.path, self.row_group, self.column)[self.row].as_py()
        content = cell.get("bytes") if isinstance(cell, Mapping) else cell
        if not isinstance(content, bytes):
            raise DatasetError(
                f"{self.name}: expected bytes in column {self.column}, found {type(content).__name__}"
            )
        return content


@lru_cache(maxsize=2)
def _column(path: Path, row_group: int, column: str) -> Any:
    """A column of a row group, kept for the rows that are read next."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path).read_row_group(row_group, columns=[column])
    except (OSError, pyarrow.ArrowException) as error:
        raise DatasetError(f"{path}: expected a parquet file of the data set, found: {error}") from error
    return table.column(column)


@dataclass(frozen=True, slots=True)
class Item:
    """One observation. species: keys, several in a soundscape, () = none of them; group: for figures by group."""

    content: Content
    species: tuple[str, ...]
    group: str
    start_s: float | None = None  # part of a recording; None = all of it
    duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class TextQuery:
    """A sentence with its right answers, indices of items; candidates: the items that may be shown for it (empty = all of them)."""

    text: str
    relevant: frozenset[int]
    group: str
    candidates: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set, opened; nothing is decoded yet."""

    name: str
    modality: Literal["audio", "image"]
    items: tuple[Item, ...]
    species: Mapping[str, Species]
    queries: tuple[TextQuery, ...] = ()

    def __post_init__(self) -> None:
        if not self.items:
            raise DatasetError(f"data set {self.name}: expected items, found none")
        unknown = {key for item in self.items for key in item.species} - set(self.species)
        if unknown:
            raise DatasetError(
                f"data set {self.name}: expected a species for every item, found none for {sorted(unknown)[0]!r}"
            )


def load_audio(item: Item, rate_hz: int) -> NDArray[np.float32]:
    """Decode an item to float32 mono [n] at a rate. Raises DatasetError for what is no sound."""
    try:
        with soundfile.SoundFile(io.BytesIO(item.content.read())) as stream:
            start = round((item.start_s or 0.0) * stream.samplerate)
            stream.seek(min(start, len(stream)))
            frames = -1 if item.duration_s is None else round(item.duration_s * stream.samplerate)
            samples = stream.read(frames, dtype="float32", always_2d=True).mean(axis=1)
            found_hz = stream.samplerate
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise DatasetError(f"{item.content.name}: expected sound, found: {error}") from error
    if not len(samples):
        raise DatasetError(f"{item.content.name}: expected sound, found none from {item.start_s or 0} s on")
    if found_hz != rate_hz:
        samples = soxr.resample(samples, found_hz, rate_hz, quality="HQ")
    return np.asarray(samples, dtype=np.float32)


def load_image(item: Item) -> Image.Image:
    """Decode an item to an upright RGB picture. Raises DatasetError for what is no picture."""
    try:
        with Image.open(io.BytesIO(item.content.read())) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise DatasetError(f"{item.content.name}: expected a picture, found: {error}") from error
