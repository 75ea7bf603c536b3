"""Serving: the hub's parts opened, put together and closed in order, behind uvicorn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from edge.errors import HubError
from hub.app import create_app
from hub.archive_sqlite import SqliteArchive
from hub.guard import read_token
from hub.ingest import Ingest
from hub.settings import Settings
from hub.store_registry import Registry

if TYPE_CHECKING:
    from fastapi import FastAPI

    from edge.bundle import Bundle
    from hub.archive import Archive

_START_S = 30.0
_CONNECTIONS = 4096


@contextmanager
def opened_hub(
    settings: Settings,
    bundle: Bundle | None = None,
    archive: Archive | None = None,
    now_ns: Callable[[], int] = time.time_ns,
) -> Iterator[FastAPI]:
    """Open what a hub is made of and give its application. archive: None = the default engine in the hub's folder.

    At the end, what has been acknowledged is handed to the archive and everything is closed. Raises HubError.
    """
    settings.folder.mkdir(parents=True, exist_ok=True)
    token = read_token(settings.token_path)
    held = SqliteArchive.open(settings.archive_path) if archive is None else archive
    try:
        with (
            Registry.open(settings.registry_path, settings.quota_bytes_per_day) as registry,
            Ingest(registry, held, now_ns, settings.max_waiting) as ingest,
        ):
            yield create_app(registry, held, bundle, settings, ingest, now_ns, token)
    finally:
        held.close()


def server_of(app: FastAPI, settings: Settings) -> uvicorn.Server:
    """Return a server that listens where the settings say once it runs."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        limit_concurrency=_CONNECTIONS,
        backlog=_CONNECTIONS,
        timeout_keep_alive=120,  # a recorder keeps its connection from batch to batch
        timeout_graceful_shutdown=10,
        proxy_headers=True,
        forwarded_allow_ips="127.0.0.1",
    )
    return uvicorn.Server(config)


@contextmanager
def running(app: FastAPI, settings: Settings) -> Iterator[str]:
    """Run the application in a thread and give its URL. Raises HubError where it cannot listen."""
    server = server_of(app, settings)
    thread = threading.Thread(target=server.run, name="uvicorn", daemon=True)
    thread.start()
    until = time.monotonic() + _START_S
    while not server.started:
        if not thread.is_alive() or time.monotonic() > until:
            raise HubError(f"{settings.host}:{settings.port}: expected a free place to listen, found none")
        time.sleep(0.01)
    try:
        yield f"http://{settings.host}:{port_of(server)}"
    finally:
        server.should_exit = True
        thread.join()


def port_of(server: uvicorn.Server) -> int:
    """Return the port on which a running server listens."""
    return int(server.servers[0].sockets[0].getsockname()[1])
