"""The paper's tables as data, and a row of ours printed beside theirs."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from rich.table import Table

AVERAGE = "Avg"
PREFIX = " prefix"  # ends the name of codes of ours that are the first bits of longer ones
TABLES = {
    "I": "text-to-image mAP@1000, iNaturalist 2024",
    "II": "text-to-audio mAP@1000, iNatSounds 2024",
    "III": "text-to-audio mAP@1000, soundscapes",
    "IV": "zero-shot accuracy, soundscapes",
}
# The paper's encoder of a tower's name, and its table of a data set's kind (the first part of a data set's spec).
ENCODERS = {"bioclip": "BioCLIP", "bioclip-2": "BioCLIP-2", "biolingual": "BioLingual"}
TABLE_OF_KIND = {"inat24": "I", "inatsounds": "II", "birdset": "III"}


@dataclass(frozen=True, slots=True)
class PaperFigure:
    """One number of a table."""

    table: str  # "I".."IV"
    encoder: str
    representation: str
    column: str  # group or data set; "Avg"
    percent: float


def read_tables() -> tuple[PaperFigure, ...]:
    """Read all figures, in the order of the tables."""
    file = resources.files("train") / "tables" / "paper_tables.csv"
    with file.open(encoding="utf-8", newline="") as stream:
        return tuple(
            PaperFigure(r["table"], r["encoder"], r["representation"], r["column"], float(r["percent"]))
            for r in csv.DictReader(stream)
        )


def paper_row(table: str, encoder: str, representation: str) -> dict[str, float]:
    """Percent of every column of one row of a table; empty where the paper has no such row."""
    return {
        f.column: f.percent
        for f in read_tables()
        if (f.table, f.encoder, f.representation) == (table, encoder, representation)
    }


def column_key(name: str) -> str:
    """Form under which a group of ours and a column of theirs are the same: "Ray-finned Fishes" = "Ray-finned_fishes"."""
    return name.casefold().replace("_", " ").strip()


def beside(
    table: str,
    encoders: Sequence[str],
    ours: Mapping[str, Mapping[str, float]],
    name: str,
) -> Table:
    """Lay out our rows under the paper's rows of the same representation.

    Args:
        table: "I".."IV".
        encoders: the paper's encoders to show.
        ours: percent of every column for each representation; representations that the paper lacks (asymmetric, ITQ) come last.
        name: of our encoder and run.
    """
    theirs = [f for f in read_tables() if f.table == table and f.encoder in encoders]
    columns = {column_key(f.column): f.column for f in theirs if f.column != AVERAGE}
    for row in ours.values():
        columns |= {column_key(c): c for c in row if c != AVERAGE and column_key(c) not in columns}
    columns[column_key(AVERAGE)] = AVERAGE
    printed = Table(title=f"Table {table}, {TABLES[table]}, percent")
    printed.add_column("encoder")
    printed.add_column("representation")
    for column in columns.values():
        printed.add_column(column, justify="right")
    shown = list(dict.fromkeys(f.representation for f in theirs))
    rest = [r for r in ours if r.removesuffix(PREFIX) not in shown]
    for representation in [*shown, *rest]:
        for encoder in encoders:
            figures = paper_row(table, encoder, representation)
            if figures:
                printed.add_row(f"{encoder} (paper)", representation, *cells(figures, columns))
        for own in dict.fromkeys((representation, f"{representation}{PREFIX}")):
            if own in ours:
                printed.add_row(name, own, *cells(ours[own], columns))
    return printed


def cells(figures: Mapping[str, float], columns: Mapping[str, str]) -> list[str]:
    """Text of every column, "-" where there is no figure; columns maps the key of a column to its heading."""
    keyed = {column_key(column): percent for column, percent in figures.items()}
    return [f"{keyed[key]:.2f}" if key in keyed else "-" for key in columns]
