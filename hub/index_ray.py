"""Workers of a Ray cluster: one actor for each CPU, on whatever machine. Needs the extra ray and fieldcube on every node."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, cast

from edge.bundle import Bundle
from edge.errors import FieldcubeError, HubError, MissingDependencyError
from hub.index_encoding import Encoded, EncodingSettings, FileEncoder
from hub.index_files import open_archive
from hub.index_schedule import Ended, Worker
from hub.index_workers import Orders, encode_task
from hub.store_index import Task


class RayCrew:
    """Starts actors on a cluster. The place of the archive must mean the same files on every node: a shared folder, or a URL.

    address: ray's, such as 10.0.0.5:6379, auto, or ray://host:10001. Use it as long as the process lives, then close().
    """

    def __init__(self, address: str, orders: Orders) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingDependencyError(
                "--ray: needs the library ray; run: pip install fieldcube[hub,ray]"
            ) from error
        self._ray: Any = ray
        try:
            ray.init(address=address, log_to_driver=False, configure_logging=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise HubError(f"--ray {address}: expected a Ray cluster, found: {error}") from error
        files = {each.name: each.read_bytes() for each in orders.bundle.iterdir() if each.is_file()}
        self._bundle = ray.put(files)
        self._orders = orders
        self._actor = ray.remote(max_restarts=0, max_task_retries=0, num_cpus=1)(_Encoder)

    @property
    def n_cpus(self) -> int:
        """Return how many workers the cluster has room for."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def hire(self) -> Worker:
        """Start an actor; it begins when a CPU of the cluster is free."""
        actor = self._actor.remote(self._bundle, self._orders.place, self._orders.settings)
        return _Remote(self._ray, actor)

    def wait(self, workers: list[Worker], timeout_s: float) -> list[tuple[Worker, Encoded | Ended]]:
        """Return what the actors answered, and which of them ended. Raises HubError where one cannot begin."""
        by_answer = {cast(_Remote, worker).expected: cast(_Remote, worker) for worker in workers}
        ready, _ = self._ray.wait(list(by_answer), num_returns=1, timeout=timeout_s)
        told: list[tuple[Worker, Encoded | Ended]] = []
        for answer in ready:
            worker = by_answer[answer]
            try:
                found = self._ray.get(answer)
            except self._ray.exceptions.RayError as error:
                told.append((worker, Ended(str(error).strip().partition("\n")[0], worker.has_begun)))
                continue
            if not worker.has_begun:
                if found:
                    raise HubError(found)
                worker.has_begun = True
            else:
                told.append((worker, found))
        return told

    def close(self) -> None:
        """Leave the cluster."""
        self._ray.shutdown()


class _Remote:
    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor, self.has_begun = ray, actor, False
        self._begun, self._answer = actor.begin.remote(), None

    @property
    def expected(self) -> Any:
        """Return the answer that comes next."""
        return self._answer if self.has_begun else self._begun

    def give(self, task: Task) -> None:
        """Send a file."""
        self._answer = self._actor.encode.remote(task)

    def end(self) -> None:
        """Kill the actor."""
        self._ray.kill(self._actor)


class _Encoder:
    """What lives on the cluster: the bundle, copied to the node, and its encoders."""

    def __init__(self, bundle: dict[str, bytes], place: str, settings: EncodingSettings) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fieldcube-bundle-")
        for name, content in bundle.items():
            (Path(self._folder.name) / name).write_bytes(content)
        self._place, self._settings = place, settings

    def begin(self) -> str:
        """Open the encoders; return why that cannot be, "" where it can."""
        try:
            self._archive = open_archive(self._place)
            self._encoder = FileEncoder(Bundle.load(Path(self._folder.name)), self._settings)
        except FieldcubeError as error:
            return str(error)
        return ""

    def encode(self, task: Task) -> Encoded:
        """Encode a file."""
        return encode_task(self._archive, self._encoder, self._settings, task)
