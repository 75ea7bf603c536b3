from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.errors import ArchiveError, UsageError
from hub.archive import Filter
from hub.archive_clickhouse_schema import main, statements
from tests.simulate.archive_blocks import SPACE, fleet_blocks

pytest.importorskip("chdb", reason="900 MB")

from hub.archive_clickhouse import ClickHouseArchive
from hub.archive_engines import open_archive


@pytest.fixture
def archive(chdb_folder: Path) -> Iterator[ClickHouseArchive]:
    opened = open_archive(f"chdb:{chdb_folder}?database=d{secrets.token_hex(8)}")
    assert isinstance(opened, ClickHouseArchive)
    yield opened
    opened.close()


def test_an_insert_that_is_tried_again_is_kept_once(
    archive: ClickHouseArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the answer was lost and the first attempt has not come through yet when the second looks."""
    blocks = list(fleet_blocks(5_000, 3, run=700))
    monkeypatch.setattr(archive, "_absent", list)
    archive.add(blocks)
    archive.add(blocks)
    assert sum(archive.counts().values()) == 5_000


def test_what_one_call_adds_may_be_larger_than_an_insert(
    archive: ClickHouseArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.archive_clickhouse.INSERT_ROWS", 2_000)
    archive.add(list(fleet_blocks(9_000, 2, run=900)))
    (hits,) = archive.search(np.zeros((1, 32), np.uint8), SPACE, 9_000, Filter())
    assert sorted(hit.uid for hit in hits) == list(range(9_000))


def test_statements_for_a_cluster_are_clickhouse_sql(archive: ClickHouseArchive) -> None:
    made = statements("fieldcube", "fleet")
    for statement in made:
        tree = archive._client.command(f"EXPLAIN AST {statement}")
        assert "ON CLUSTER fleet" in statement
        assert tree
    with pytest.raises(Exception, match="Syntax error"):
        archive._client.command(f"EXPLAIN AST {made[1].replace('ORDER BY', 'ORDERED')}")


def test_the_command_prints_the_statements(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fieldcube", "--cluster", "fleet"]) == 0
    printed = capsys.readouterr().out
    assert printed.count(";") == 3
    assert "ReplicatedMergeTree" in printed
    assert main(["field-cube"]) == 2
    assert "letters, digits and underscores" in capsys.readouterr().err


def test_names_that_could_hide_sql_are_refused() -> None:
    with pytest.raises(UsageError, match="underscores"):
        statements("x; DROP DATABASE x")


def test_a_server_that_does_not_answer_is_told_without_its_password() -> None:
    with pytest.raises(ArchiveError, match=r"^clickhouse://127\.0\.0\.1:9: expected") as told:
        open_archive("clickhouse://reader:secret@127.0.0.1:9")
    assert "secret" not in str(told.value)
