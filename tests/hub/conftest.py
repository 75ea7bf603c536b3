"""A registry, an archive and a running hub, all real, in a temporary folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.archive_sqlite import SqliteArchive
from hub.enrolment import enrol
from hub.ingest import Ingest
from hub.store_registry import Registry
from tests.simulate.recorder import Recorder

NOW_NS = 1_790_000_000 * 10**9


@pytest.fixture(scope="session")
def chdb_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the one folder of ClickHouse embedded that this process may own; each test has a database of its own in it."""
    return tmp_path_factory.mktemp("chdb")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(tmp_path / "hub.sqlite") as opened:
        yield opened


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[SqliteArchive]:
    opened = SqliteArchive.open(tmp_path / "archive.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def ingest(registry: Registry, archive: SqliteArchive) -> Iterator[Ingest]:
    with Ingest(registry, archive, lambda: NOW_NS) as running:
        yield running


@pytest.fixture
def owl(registry: Registry) -> Recorder:
    """Return a recorder that is enrolled."""
    recorder = Recorder("owl-1")
    enrol(registry, recorder.enrolment(), NOW_NS)
    registry.devices.set_status("owl-1", "enrolled")
    return recorder
