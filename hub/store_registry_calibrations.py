"""What recorders have learnt of queries at their sites, in the registry, and how their detections were judged."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge.batch_calibration import SiteCalibration, SiteCalibrations, pack_quarters, unpack_quarters
from edge.verdict import Answer
from hub.store_registry_database import Database

MAX_QUERIES = 2_000  # of a device; beyond them the oldest are forgotten
KEPT_NS = 60 * 86_400 * 10**9  # that were not sent again: the query is no longer asked for
_COLUMNS = "query, digest, threshold_bits, wanted_per_day, expected_per_day, hop_s, first, quarters"


@dataclass(frozen=True, slots=True)
class KeptCalibration:
    """A site's calibration. device: number; at_ns: when it was learnt, by the recorder's clock."""

    device: int
    at_ns: int
    site: SiteCalibration


@dataclass(frozen=True, slots=True)
class Judgements:
    """Detections of a query by a device, and what people said of them."""

    n_detections: int
    by_answer: Mapping[Answer, int]


def keep_calibrations(
    connection: sqlite3.Connection, device: int, told: SiteCalibrations, now_ns: int
) -> None:
    """Keep what is newer than what is known. Once all queries of a recorder are known as of one time, the others are forgotten."""
    for each in told.sites:
        values = (each.digest, each.threshold_bits, each.wanted_per_day, each.expected_per_day, each.hop_s)
        connection.execute(
            f"INSERT INTO calibration (device, at_ns, received_ns, {_COLUMNS}) VALUES ({', '.join('?' * 11)})"
            " ON CONFLICT DO UPDATE SET at_ns = excluded.at_ns, received_ns = excluded.received_ns,"
            " digest = excluded.digest, threshold_bits = excluded.threshold_bits,"
            " wanted_per_day = excluded.wanted_per_day, expected_per_day = excluded.expected_per_day,"
            " hop_s = excluded.hop_s, first = excluded.first, quarters = excluded.quarters"
            " WHERE excluded.at_ns >= at_ns",
            (device, told.at_ns, now_ns, each.name, *values, each.first, pack_quarters(each.quarters)),
        )
    (n_told,) = connection.execute(
        "SELECT count(*) FROM calibration WHERE device = ? AND at_ns = ?", (device, told.at_ns)
    ).fetchone()
    if told.n_queries and n_told >= told.n_queries:
        connection.execute("DELETE FROM calibration WHERE device = ? AND at_ns < ?", (device, told.at_ns))
    connection.execute(
        "DELETE FROM calibration WHERE device = ? AND (received_ns < ? OR query IN (SELECT query FROM calibration"
        " WHERE device = ? ORDER BY received_ns DESC, query LIMIT -1 OFFSET ?))",
        (device, now_ns - KEPT_NS, device, MAX_QUERIES),
    )


class Calibrations:
    """Reads what was kept."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[KeptCalibration]:
        """Return all of them by query and device."""
        with self._database.reading() as connection:
            rows = connection.execute(
                f"SELECT device, at_ns, {_COLUMNS} FROM calibration ORDER BY query, device"
            ).fetchall()
        return [KeptCalibration(device, at_ns, _site(facts)) for device, at_ns, *facts in rows]

    def judgements(self) -> dict[tuple[int, str], Judgements]:
        """Return by (device, query) how many detections there are and what was said of them."""
        with self._database.reading() as connection:
            counted = connection.execute(
                "SELECT device, query, count(*) FROM detection WHERE query IN (SELECT query FROM calibration) GROUP BY 1, 2"
            ).fetchall()
            said = connection.execute(
                "SELECT device.number, verdict.query, verdict.answer, count(*) FROM verdict"
                " JOIN device ON device.name = verdict.device JOIN detection ON detection.device = device.number"
                " AND detection.epoch = verdict.epoch AND detection.seq = verdict.seq AND detection.query = verdict.query"
                " GROUP BY 1, 2, 3"
            ).fetchall()
        answers: dict[tuple[int, str], dict[Answer, int]] = {}
        for device, query, answer, n in said:
            answers.setdefault((device, query), {})[answer] = n
        return {
            (device, query): Judgements(n, answers.get((device, query), {})) for device, query, n in counted
        }


def _site(facts: Sequence[Any]) -> SiteCalibration:
    name, digest, threshold, wanted, expected, hop_s, first, packed = facts
    return SiteCalibration(name, digest, threshold, wanted, expected, hop_s, first, unpack_quarters(packed))
