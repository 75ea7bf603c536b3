"""The paper's tables: what was copied, its known slips, and rows of ours beside them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from train.paper import ENCODERS, TABLE_OF_KIND, TABLES, beside, column_key, paper_row, read_tables


def test_every_table_is_complete():
    figures = read_tables()
    assert len(figures) == 2 * 5 * 12 + 5 * 6 + 5 * 7 + 3 * 7
    assert {f.table for f in figures} == set(TABLES)
    assert {f.encoder for f in figures} == set(ENCODERS.values())
    assert set(TABLE_OF_KIND.values()) <= set(TABLES)
    keys = [(f.table, f.encoder, f.representation, f.column) for f in figures]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(
    ("table", "encoder", "representation", "column", "percent"),
    [
        ("I", "BioCLIP", "binary 128", "Amphibians", 8.42),
        ("I", "BioCLIP-2", "binary 256", "Avg", 84.14),
        ("II", "BioLingual", "continuous LoRA 256", "Mammalia", 59.28),
        ("III", "BioLingual", "binary 256", "SSW", 55.75),
        ("IV", "BioLingual", "continuous LoRA 128", "Avg", 30.71),
    ],
)
def test_known_numbers(table, encoder, representation, column, percent):
    assert paper_row(table, encoder, representation)[column] == percent


def test_averages_are_means_of_their_columns_but_in_table_two():
    rows = {(f.table, f.encoder, f.representation) for f in read_tables()}
    off = set()
    for key in rows:
        row = paper_row(*key)
        average = row.pop("Avg")
        if abs(np.mean(list(row.values())) - average) > 0.02:
            off.add(key[0])
    assert off == {"II"}


def test_a_row_of_ours_stands_under_the_papers():
    ours = {
        "binary 256": {"Ray-finned Fishes": 50.0, "Birds": 61.5, "Avg": 55.75, "Fungi of the sea": 1.0},
        "asymmetric 256": {"Birds": 62.0},
        "binary 128 prefix": {"Birds": 40.25},
    }
    table = beside("I", ["BioCLIP"], ours, "tiny, run 1")
    console = Console(width=260, file=io.StringIO())
    console.print(table)
    lines = console.file.getvalue().splitlines()
    heading = next(line for line in lines if "representation" in line)
    assert "Ray-finned Fishes" not in heading
    assert heading.index("Avg") > heading.index("Fungi of the sea")
    rows = [line for line in lines if "256" in line and "LoRA" not in line]
    assert "BioCLIP (paper)" in rows[0]
    assert "63.41" in rows[0]
    assert "tiny, run 1" in rows[1]
    assert "61.50" in rows[1]
    assert "50.00" in rows[1]
    assert rows[0].index("63.41") == rows[1].index("61.50")
    at_128 = [i for i, line in enumerate(lines) if "binary 128" in line]
    assert "37.49" in lines[at_128[0]]
    assert "40.25" in lines[at_128[1]]  # the prefix of a longer code stands under the paper's own 128 bits
    assert len(at_128) == 2
    assert rows[2].count(".") == 1  # asymmetric: no row of the paper, one figure of ours


def test_column_names_meet():
    assert column_key("Ray-finned_fishes") == column_key("Ray-finned Fishes")
    assert column_key("HSN") == column_key("hsn")
