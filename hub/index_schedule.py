"""Which worker encodes which file: in order, and a file that ends its worker, or takes too long, is put aside."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Protocol

from edge.errors import HubError
from hub.index_encoding import Encoded
from hub.store_index import Task

MAX_TRIES = 2  # of a file whose worker ended: the first time it may have been the memory that others used
_MAX_BAD_STARTS = 3
_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Ended:
    """A worker that is no more; reason: why; had_begun: it was ready to encode before that."""

    reason: str
    had_begun: bool


class Worker(Protocol):
    """Encodes one file after the other, elsewhere."""

    def give(self, task: Task) -> None:
        """Let it encode a file; poll() tells what came of it."""

    def end(self) -> None:
        """End it at once, whatever it does."""


class Crew(Protocol):
    """Makes workers and listens to them all."""

    def hire(self) -> Worker:
        """Start a worker. Raises HubError."""

    def wait(self, workers: list[Worker], timeout_s: float) -> list[tuple[Worker, Encoded | Ended]]:
        """Return what workers have to tell, after timeout_s at the latest. Raises HubError where one cannot begin."""


Refuse = Callable[[Task, str], Encoded]


def encode_all(
    tasks: Iterator[Task],
    crew: Crew,
    n_workers: int,
    refuse: Refuse,
    *,
    file_timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[tuple[Task, Encoded] | None, None, None]:
    """Yield what files come to, in the order in which they are done; None now and then while nothing is.

    Workers begin files in the order of tasks. All workers are ended when this ends, however it does.
    Raises HubError where workers end again and again before they have encoded anything.
    """
    again: deque[tuple[Task, int]] = deque()
    busy: dict[Worker, tuple[Task, int, float]] = {}
    idle: list[Worker] = []
    n_bad_starts = 0

    def next_task() -> tuple[Task, int] | None:
        if again:
            return again.popleft()
        task = next(tasks, None)
        return None if task is None else (task, 1)

    try:
        while True:
            while len(busy) < n_workers and (chosen := next_task()) is not None:
                worker = idle.pop() if idle else crew.hire()
                busy[worker] = (*chosen, clock())
                worker.give(chosen[0])
            if not busy:
                return
            for worker, told in crew.wait(list(busy), _POLL_S):
                task, n_tries, _ = busy.pop(worker)
                if isinstance(told, Encoded):
                    n_bad_starts = 0
                    idle.append(worker)
                    yield task, told
                    continue
                worker.end()
                if not told.had_begun:
                    n_bad_starts += 1
                    if n_bad_starts > _MAX_BAD_STARTS:
                        raise HubError(
                            f"expected workers that start, found {n_bad_starts} that ended before that ({told.reason}); "
                            "nothing is lost: give more memory or fewer --workers, and run the same command again"
                        )
                    again.append((task, n_tries))
                    continue
                if n_tries < MAX_TRIES:
                    again.append((task, n_tries + 1))
                    continue
                yield (
                    task,
                    refuse(task, f"its worker ended {n_tries} times ({told.reason}) while encoding it"),
                )
            for worker, (task, _, began_s) in list(busy.items()):
                if clock() - began_s > file_timeout_s:
                    del busy[worker]
                    worker.end()
                    yield task, refuse(task, f"not encoded within {file_timeout_s:g} s")
            yield None
    finally:
        for worker in (*busy, *idle):
            worker.end()
