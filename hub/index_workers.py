"""Workers that are processes of this machine: one file at a time, one thread each."""

from __future__ import annotations

import multiprocessing
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import cast

from edge.bundle import Bundle
from edge.errors import FieldcubeError, HubError
from hub.index_encoding import Encoded, EncodingSettings, FileEncoder, refused
from hub.index_files import FileArchive, open_archive
from hub.index_schedule import Ended, Worker
from hub.store_index import Task

_END_S = 5.0


@dataclass(frozen=True, slots=True)
class Orders:
    """What every worker needs to know."""

    bundle: Path
    place: str
    settings: EncodingSettings


@dataclass(frozen=True, slots=True)
class _Ready:
    """A worker has opened its encoders."""


@dataclass(frozen=True, slots=True)
class _Unable:
    """A worker cannot begin: what is wrong is wrong for all of them."""

    reason: str


class ProcessCrew:
    """Starts processes anew (no fork: the runtime's threads would not live in it)."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._context = multiprocessing.get_context("spawn")

    def hire(self) -> Worker:
        """Start a process."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._orders), daemon=True)
        try:
            process.start()
        except OSError as error:
            raise HubError(
                f"expected to start a worker process, found {error}; give fewer --workers"
            ) from error
        theirs.close()
        return _Process(process, ours)

    def wait(self, workers: list[Worker], timeout_s: float) -> list[tuple[Worker, Encoded | Ended]]:
        """Return what the processes sent, and which of them ended. Raises HubError where one cannot begin."""
        by_connection = {cast(_Process, worker).connection: cast(_Process, worker) for worker in workers}
        told: list[tuple[Worker, Encoded | Ended]] = []
        for ready in wait(list(by_connection), timeout_s):
            worker = by_connection[cast(Connection, ready)]
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                told.append((worker, Ended(worker.how_it_ended(), worker.has_begun)))
                continue
            if isinstance(message, _Unable):
                raise HubError(message.reason)
            if isinstance(message, _Ready):
                worker.has_begun = True
            else:
                told.append((worker, message))
        return told


class _Process:
    def __init__(self, process: multiprocessing.process.BaseProcess, connection: Connection) -> None:
        self._process, self.connection, self.has_begun = process, connection, False

    def give(self, task: Task) -> None:
        """Send a file; that the process is gone is seen when its answer is waited for."""
        try:
            self.connection.send(task)
        except OSError:
            return

    def end(self) -> None:
        """Kill the process."""
        self.connection.close()
        self._process.kill()
        self._process.join(_END_S)

    def how_it_ended(self) -> str:
        """Return its exit status, or the signal."""
        self._process.join(_END_S)
        code = self._process.exitcode
        return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"


def encode_task(
    archive: FileArchive, encoder: FileEncoder, settings: EncodingSettings, task: Task
) -> Encoded:
    """Encode a file; whatever is wrong with it becomes a problem of this file alone."""
    try:
        with archive.local(task.path) as path:
            return encoder.encode(path, task.name, task.known)
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        return refused(settings, task.name, reason, is_unreadable=True)
    except Exception as error:  # its decoders raise whatever a damaged file leads them to
        return refused(settings, task.name, f"not encoded: {type(error).__name__}: {error}")


def _work(connection: Connection, orders: Orders) -> None:
    """Encode files until the other end is closed, as it is when that process was killed."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # the terminal sends it to all; the first process ends the others
    try:
        archive = open_archive(orders.place)
        encoder = FileEncoder(Bundle.load(orders.bundle), orders.settings)
    except FieldcubeError as error:
        connection.send(_Unable(str(error)))
        return
    try:
        connection.send(_Ready())
        while True:
            connection.send(encode_task(archive, encoder, orders.settings, connection.recv()))
    except (EOFError, OSError):
        return
