"""Verdicts that come from a script or a table: each must be about one detection of this store, or none is kept."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.errors import UsageError
from edge.store_reader import Found, StoreReader
from edge.utf8 import shown
from edge.verdict import ANSWERS, Answer, Identity, identity_of


@dataclass(frozen=True, slots=True)
class _Given:
    """An answer as it was given. where: for messages; query: None = the only one; checks: columns that must fit."""

    where: str
    seq: int
    query: str | None
    answer: Answer
    note: str = ""
    checks: tuple[tuple[str, str], ...] = ()


def given_answers(
    reader: StoreReader, settings: Sequence[str], table: Path | None, query: str | None
) -> list[tuple[Found, Answer, str]]:
    """Return the detection, the answer and the note of every `SEQ=VERDICT` and of every row of a table that has a verdict.

    query: name or text of the query that all are about, None = any. Where one is given twice the last counts.
    Raises UsageError: no verdict, no such detection, several at one seq, a table of another store.
    """
    given = [_setting(text) for text in settings]
    if table is not None:
        given += _rows(table)
    wanted = {each.seq for each in given}
    found: dict[int, list[Found]] = {}
    for pair in reader.detections(query=query):
        if pair[1].seq in wanted:
            found.setdefault(pair[1].seq, []).append(pair)
    answers: dict[Identity, tuple[Found, Answer, str]] = {}
    for each in given:
        pair = _only(each, found.get(each.seq, []), reader.path)
        answers[identity_of(pair[1])] = (pair, each.answer, each.note)
    return list(answers.values())


def _setting(text: str) -> _Given:
    """Read SEQ=VERDICT."""
    seq, _, answer = text.partition("=")
    return _Given(f"--set {shown(text)}", _seq("--set", seq), None, _answer(f"--set {shown(text)}", answer))


def _rows(table: Path) -> Iterator[_Given]:
    """Read the rows with a verdict; those without are detections that nobody judged."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            columns = rows.fieldnames or []
            if missing := {"seq", "verdict"} - set(columns):
                raise UsageError(
                    f"{table}: expected comma-separated columns seq and verdict, found no {' and no '.join(sorted(missing))} "
                    f"among {', '.join(map(shown, columns)) or 'none'}; edge-results --format csv writes them"
                )
            for row in rows:
                if (row["verdict"] or "").strip():
                    yield _row(f"{table}:{rows.line_num}", row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(
            f"{table}: expected a CSV table in UTF-8, found {error}; give another --import"
        ) from error


def _row(where: str, row: Mapping[str, str | None]) -> _Given:
    checks = tuple((name, row[name] or "") for name in ("source", "distance") if name in row)
    answer = _answer(where, row["verdict"] or "")
    return _Given(
        where, _seq(where, row["seq"] or ""), row.get("query") or None, answer, row.get("note") or "", checks
    )


def _only(given: _Given, found: Sequence[Found], store: Path) -> Found:
    """Return the one detection that an answer is about."""
    fitting = [pair for pair in found if given.query in (None, pair[1].query)]
    if len(fitting) != 1:
        what = f"a detection of seq {given.seq}" + (f" and query {given.query}" if given.query else "")
        queries = ", ".join(pair[1].query for pair in fitting)
        several = (
            f"found several: {queries}; give --query" if fitting else "found none; edge-results lists them"
        )
        raise UsageError(f"{given.where}: expected {what} in {store}, {several}")
    observation, detection = fitting[0]
    of_store = {"source": observation.source, "distance": str(detection.distance)}
    for name, value in given.checks:
        if value != of_store[name]:
            raise UsageError(
                f"{given.where}: expected {name} {of_store[name]} as in {store}, found {value}; "
                "give the --store that the table was made of"
            )
    return fitting[0]


def _seq(where: str, text: str) -> int:
    if not re.fullmatch(r"\d{1,18}", text.strip(), re.ASCII):
        raise UsageError(
            f"{where}: expected a seq as edge-results --format csv gives it, found {shown(text)!r}"
        )
    return int(text)


def _answer(where: str, text: str) -> Answer:
    for answer in ANSWERS:
        if text.strip().lower() == answer:
            return answer
    raise UsageError(f"{where}: expected a verdict of {', '.join(ANSWERS)}, found {shown(text)!r}")
