"""The registry: everything a hub knows but the codes, in one SQLite file. An acknowledged row survives a power cut."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from hub.store_registry_database import Database
from hub.store_registry_devices import Devices
from hub.store_registry_intake import Intake
from hub.store_registry_people import People
from hub.store_registry_results import Results

QUOTA_BYTES_PER_DAY = 1 << 30


class Registry:
    """The tables of a hub by what they are for. Safe to use from several threads; one process opens it for ingest.

    devices: who may send; intake: what came; results: detections, effort, verdicts; people: clips wanted, watchlists.
    Every method raises HubError, NoRoomError where the disk is full.
    """

    @classmethod
    def open(cls, path: Path, quota_bytes_per_day: int = QUOTA_BYTES_PER_DAY) -> Registry:
        """Open or create the registry in a file. Raises HubError for another program's file or a newer one."""
        return cls(Database(path), quota_bytes_per_day)

    def __init__(self, database: Database, quota_bytes_per_day: int) -> None:
        self.database = database
        self.devices = Devices(database)
        self.intake = Intake(database, quota_bytes_per_day)
        self.results = Results(database)
        self.people = People(database)

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    def __enter__(self) -> Registry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
