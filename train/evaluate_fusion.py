"""Figures of events that were both heard and seen: sound, picture, and place, alone and added before the sign."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge.errors import FieldcubeError
from train.combination import fuse, with_place
from train.evaluate_codes import Representation
from train.metrics import hamming_table
from train.questions import Vectors

if TYPE_CHECKING:
    from train.datasets import Dataset

PRIOR_COLUMNS = ("event", "species", "weight")


class FusionError(FieldcubeError):
    """Events that cannot be paired, or a prior that does not fit them."""


def event_of(name: str) -> str:
    """Name of the event that a file shows: its stem, "sounds/0017.wav" and "pictures/0017.jpg" are event 0017."""
    return PurePath(name).stem


def paired_items(sounds: Dataset, pictures: Dataset) -> tuple[list[int], list[int], tuple[str, ...]]:
    """Items of the events that are in both data sets, in the order of the sounds, with the events' names.

    Raises:
        FusionError: an event twice in one data set, no event in both, or one with different species.
    """
    places = []
    for dataset in (sounds, pictures):
        place: dict[str, int] = {}
        for index, item in enumerate(dataset.items):
            event = event_of(item.content.name)
            if event in place:
                raise FusionError(
                    f"{dataset.name}: expected one item for each event (file stem), found two of {event!r}"
                )
            place[event] = index
        places.append(place)
    events = tuple(event for event in places[0] if event in places[1])
    if not events:
        raise FusionError(
            f"{sounds.name} and {pictures.name}: expected files of the same stem, found none; name both files of an event alike"
        )
    for event in events:
        heard, seen = sounds.items[places[0][event]].species, pictures.items[places[1][event]].species
        if set(heard) != set(seen):
            raise FusionError(
                f"event {event!r}: expected the same species in both data sets, found {heard} and {seen}"
            )
    return [places[0][e] for e in events], [places[1][e] for e in events], events


def read_prior(file: Path, events: Sequence[str], species: Sequence[str]) -> NDArray[np.float32]:
    """Read how likely each species is at each event's place and date, [n_events, n_species]; what is not listed counts 0.

    The file is a CSV with the columns event, species (its key), weight (>= 0; rows of an event need not sum to 1). An event that is
    not in it has no prior. Other events and species in the file are passed over.

    Raises:
        FusionError: no such file, other columns, or a weight that is no number >= 0.
    """
    if not file.is_file():
        raise FusionError(
            f"{file}: expected a CSV with the columns {', '.join(PRIOR_COLUMNS)}, found no file"
        )
    rows, columns = ({name: i for i, name in enumerate(names)} for names in (events, species))
    prior = np.zeros((len(events), len(species)), dtype=np.float32)
    with file.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        if not set(PRIOR_COLUMNS) <= set(reader.fieldnames or ()):
            raise FusionError(
                f"{file}: expected the columns {', '.join(PRIOR_COLUMNS)}, found {', '.join(reader.fieldnames or ()) or 'none'}"
            )
        for row in reader:
            try:
                weight = float(row["weight"])
            except (TypeError, ValueError):
                weight = float("nan")
            if not 0 <= weight < float("inf"):
                raise FusionError(
                    f"{file}:{reader.line_num}: expected a weight of 0 or more, found {row['weight']!r}"
                )
            if row["event"] in rows and row["species"] in columns:
                prior[rows[row["event"]], columns[row["species"]]] = weight
    return prior


def fusion(
    queries: Vectors,
    sound: Vectors,
    picture: Vectors,
    prior: NDArray[np.float32] | None = None,
    place_weight: float = 1.0,
) -> list[Representation]:
    """Codes of the same events from each modality, from both, and with the place.

    Args:
        queries: [n_queries, n_bits]; sound, picture: [n_events, n_bits], logits of one code space.
        prior: [n_events, n_queries], see read_prior.
        place_weight: of the place beside the others, whose mean |logit| is 1 each.
    """
    n_bits = queries.shape[1]
    items = {"sound": sound, "picture": picture, "sound + picture": fuse(sound, picture)}
    if prior is not None:
        items |= {
            f"{name} + place": with_place(logits, prior, queries, place_weight)
            for name, logits in list(items.items())
        }
    return [
        Representation(f"binary {n_bits}, {name}", n_bits, queries, logits, hamming_table)
        for name, logits in items.items()
    ]
