"""Files go to workers in order; what ends a worker or keeps it too long is put aside, and the rest goes on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edge.errors import HubError
from hub.index_encoding import Encoded
from hub.index_schedule import Ended, Worker, encode_all
from hub.store_index import Task


class Scripted:
    """A worker that does with a file what the script says."""

    def __init__(self) -> None:
        self.task: Task | None = None
        self.has_ended = False

    def give(self, task: Task) -> None:
        self.task = task

    def end(self) -> None:
        self.has_ended = True


class ScriptedCrew:
    """Lets 10 s pass with each wait."""

    def __init__(self, does: Callable[[str], Encoded | Ended | None]) -> None:
        self.does, self.hired, self.given, self.now_s = does, list[Scripted](), list[str](), 0.0

    def hire(self) -> Worker:
        self.hired.append(Scripted())
        return self.hired[-1]

    def wait(self, workers: list[Worker], timeout_s: float) -> list[tuple[Worker, Encoded | Ended]]:
        self.now_s += 10.0
        told: list[tuple[Worker, Encoded | Ended]] = []
        for worker in workers:
            assert isinstance(worker, Scripted)
            assert worker.task is not None
            self.given.append(worker.task.name)
            answer = self.does(worker.task.name)
            if answer is not None:
                told.append((worker, answer))
        return told


def encode(crew: ScriptedCrew, names: str, n_workers: int = 1) -> dict[str, str]:
    """Return what became of files by name: their digest, or what was wrong."""
    tasks = iter([Task(i, name.encode(), 1) for i, name in enumerate(names)])
    done = encode_all(
        tasks,
        crew,
        n_workers,
        lambda task, reason: Encoded("", problem=reason),
        file_timeout_s=60.0,
        clock=lambda: crew.now_s,
    )
    return {each[0].name: each[1].problem or each[1].digest for each in done if each is not None}


def test_files_are_begun_in_order_by_as_many_workers_as_asked() -> None:
    crew = ScriptedCrew(Encoded)
    assert encode(crew, "abcde", n_workers=2) == {name: name for name in "abcde"}
    assert crew.given == list("abcde")
    assert len(crew.hired) == 2
    assert all(worker.has_ended for worker in crew.hired)


def test_a_file_that_ends_its_worker_is_tried_twice() -> None:
    crew = ScriptedCrew(lambda name: Ended("signal 11", True) if name == "b" else Encoded(name))
    found = encode(crew, "abc")
    assert "ended 2 times (signal 11)" in found.pop("b")
    assert found == {"a": "a", "c": "c"}
    assert crew.given == list("abbc")


def test_many_bad_files_in_a_row_do_not_stop_it() -> None:
    crew = ScriptedCrew(lambda name: Encoded(name) if name == "z" else Ended("signal 11", True))
    assert encode(crew, "abcdefghijz", n_workers=2)["z"] == "z"


def test_workers_that_cannot_start_are_an_error_and_no_fault_of_a_file() -> None:
    starts = iter([Ended("signal 9", False)] * 3)
    crew = ScriptedCrew(lambda name: next(starts, Encoded(name)))
    assert encode(crew, "ab") == {"a": "a", "b": "b"}
    with pytest.raises(HubError, match="fewer --workers"):
        encode(ScriptedCrew(lambda name: Ended("signal 9", False)), "ab")


def test_a_file_that_takes_too_long_is_put_aside_with_its_worker() -> None:
    crew = ScriptedCrew(lambda name: None if name == "b" else Encoded(name))
    found = encode(crew, "abc")
    assert "60 s" in found.pop("b")
    assert found == {"a": "a", "c": "c"}
    assert len(crew.hired) == 2
