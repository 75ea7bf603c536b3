"""A hub as a process of its own: the real edge-hub serve, started, killed and asked what it keeps."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from hub.archive_sqlite import SqliteArchive
from hub.settings import Settings
from hub.store_registry import Registry

_LISTENING = re.compile(r"listening at (http://\S+)")
_SMALL_DISK_BYTES = 1 << 30  # more is never filled by a test


class HubProcess:
    """edge-hub serve on a folder. log: of what it says; url: changes with each start."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self.url, self._log = folder, "", log
        self.settings = Settings(folder)
        self._process: subprocess.Popen[str] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def is_running(self) -> bool:
        """Return whether there is a process."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Return the process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> bool:
        """Start it; return whether it listens: on a full disk it may not."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hub.command", "serve", "--folder", self.folder, "--port", "0"],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if found := _LISTENING.search(line):
                self.url = found.group(1)
                return True
        self.kill()
        return False

    def kill(self) -> None:
        """Kill it, whatever it does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to stop, and wait until it has."""
        self._end(signal.SIGTERM)

    def fill_disk(self) -> None:
        """Leave no room on the file system that the folder is on, which must be a small one."""
        total = shutil.disk_usage(self.folder).total
        assert total <= _SMALL_DISK_BYTES, (
            f"{self.folder}: expected a small file system of its own, found {total} bytes"
        )
        with (self.folder / "ballast").open("ab", buffering=0) as ballast:
            for n_bytes in (1 << 20, 1 << 12):
                try:
                    while True:
                        ballast.write(bytes(n_bytes))
                except OSError:
                    continue

    def free_disk(self) -> None:
        """Make room again."""
        (self.folder / "ballast").unlink(missing_ok=True)

    def observations(self) -> Iterator[tuple[str, int, int, bytes]]:
        """Give (device, epoch, seq, code) of all that the archive keeps; the hub must not run."""
        assert not self.is_running
        with Registry.open(self.settings.registry_path) as registry:
            names = {device.number: device.name for device in registry.devices.all()}
        archive = SqliteArchive.open(self.settings.archive_path)
        try:
            for block in archive.blocks():
                name = names[block.device]
                for each in block.run.observations(name, block.epoch):
                    yield name, block.epoch, each.seq, each.code
        finally:
            archive.close()

    def rows(self, statement: str) -> list[tuple[object, ...]]:
        """Return what the registry answers; the hub must not run."""
        assert not self.is_running
        with (
            Registry.open(self.settings.registry_path) as registry,
            registry.database.reading() as connection,
        ):
            return connection.execute(statement).fetchall()

    def __enter__(self) -> HubProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None
