"""Serving: the hub's parts opened, put together and closed in order, behind uvicorn."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import uvicorn

from edge.device_key import DeviceKey
from edge.errors import ConfigError, HubError
from hub import (
    api_calibration,
    api_clips,
    api_exports,
    api_fleet,
    api_radio,
    api_results,
    api_search,
    api_updates,
    api_watchlists,
)
from hub.app import create_app
from hub.archive_sqlite import SqliteArchive
from hub.frame_intake import FrameIntake
from hub.guard import read_token
from hub.ingest import Ingest
from hub.publisher import Publisher
from hub.publishing import Publishing
from hub.settings import Settings
from hub.store_frames import FrameStore
from hub.store_registry import Registry

if TYPE_CHECKING:
    from fastapi import FastAPI

    from edge.bundle import Bundle
    from hub.archive import Archive

ROUTERS = tuple(
    module.router
    for module in (
        api_search,
        api_results,
        api_clips,
        api_exports,
        api_fleet,
        api_watchlists,
        api_calibration,
        api_updates,
        api_radio,
    )
)
_START_S = 30.0
_CONNECTIONS = 4096


def read_hub_key(settings: Settings) -> DeviceKey:
    """Return the hub's own key, made at the first call, mode 0600. Raises HubError."""
    try:
        settings.hub_key_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return DeviceKey.open(settings.hub_key_path)
    except (OSError, ConfigError) as error:
        raise HubError(
            f"{settings.hub_key_path}: expected a place for the hub's key, found {error}"
        ) from error


@contextmanager
def opened_hub(
    settings: Settings,
    bundle: Bundle | None = None,
    archive: Archive | None = None,
    now_ns: Callable[[], int] = time.time_ns,
    *,
    ask_again: bool = False,
) -> Iterator[FastAPI]:
    """Open what a hub is made of and give its application. archive: None = the default engine in the hub's folder.

    ask_again: recorders are asked again for all that an empty archive lacks.

    At the end, what has been acknowledged is handed to the archive and everything is closed. Raises HubError.
    """
    settings.folder.mkdir(parents=True, exist_ok=True)
    token = read_token(settings.token_path)
    held = SqliteArchive.open(settings.archive_path) if archive is None else archive
    try:
        with ExitStack() as opened:
            registry = opened.enter_context(
                Registry.open(settings.registry_path, settings.quota_bytes_per_day)
            )
            ingest = opened.enter_context(
                Ingest(registry, held, now_ns, settings.max_waiting, ask_again=ask_again)
            )
            if bundle is not None:
                publisher = Publisher(settings.updates_folder, lambda: datetime.now(timezone.utc))
                opened.enter_context(Publishing(registry, publisher, bundle, time.monotonic))
            app = create_app(registry, held, bundle, settings, ingest, now_ns, token, ROUTERS)
            store = opened.enter_context(closing(FrameStore(settings.frames_path)))
            app.state.frames = FrameIntake(registry, ingest, store, read_hub_key(settings))
            yield app
    finally:
        held.close()


class Server(uvicorn.Server):
    """Listens where the settings say once it runs. listening: called with the port as soon as it does."""

    def __init__(self, app: FastAPI, settings: Settings, listening: Callable[[int], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=_CONNECTIONS,
                backlog=_CONNECTIONS,
                timeout_keep_alive=120,  # a recorder keeps its connection from batch to batch
                timeout_graceful_shutdown=10,
                proxy_headers=True,
                forwarded_allow_ips="127.0.0.1",
            )
        )
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.started:
            self._listening(int(self.servers[0].sockets[0].getsockname()[1]))


@contextmanager
def running(app: FastAPI, settings: Settings) -> Iterator[str]:
    """Run the application in a thread and give its URL. Raises HubError where it cannot listen."""
    ports: queue.Queue[int | None] = queue.Queue()
    server = Server(app, settings, ports.put)

    def serve() -> None:
        try:
            server.run()
        except SystemExit:  # how uvicorn tells that it cannot listen
            ports.put(None)

    thread = threading.Thread(target=serve, name="uvicorn", daemon=True)
    thread.start()
    port = ports.get(timeout=_START_S)
    if port is None:
        raise HubError(f"{settings.host}:{settings.port}: expected a free place to listen, found none")
    try:
        yield f"http://{settings.host}:{port}"
    finally:
        server.should_exit = True
        thread.join()
