"""An HTTP proxy on loopback that loses, doubles, cuts and falsifies what passes through it, as a chooser tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, get_args
from urllib.parse import urlsplit

Kind = Literal[
    "none",  # passed on as it is
    "lost request",  # the hub never hears of it
    "lost reply",  # the hub has done it, the recorder never hears
    "doubled",  # the hub gets it twice
    "cut request",  # the hub gets n bytes of it
    "cut reply",  # the recorder gets n bytes of the reply
    "error",  # 500 instead of the hub
    "garbage",  # 200, and a body of noise
    "no HTTP",  # noise instead of a reply
]
KINDS: tuple[Kind, ...] = get_args(Kind)
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one request; n_bytes: after how many a cut comes."""

    kind: Kind = "none"
    n_bytes: int = 0


def random_faults(seed: int, share: float) -> Callable[[], Fault]:
    """Return a chooser of faults for this share of requests, each kind as often; cuts lie anywhere in the first 6 kB."""
    chosen = random.Random(seed)

    def choose() -> Fault:
        if chosen.random() >= share:
            return Fault()
        return Fault(chosen.choice(KINDS[1:]), int(2 ** chosen.uniform(0, 12.5)))

    return choose


class FaultProxy:
    """Runs in a thread of its own. url: where recorders find it; upstream: the hub's URL, may be changed; n: faults by kind."""

    def __init__(self, upstream: str, choose: Callable[[], Fault] = Fault, seed: int = 0) -> None:
        self.upstream, self.choose, self.n = upstream, choose, Counter[Kind]()
        self._noise = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self.url = ""

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        opening = asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=4096)
        self._server = asyncio.run_coroutine_threadsafe(opening, self._loop).result(_TIMEOUT_S)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection of a recorder, request after request, until a fault ends it."""
        with contextlib.suppress(OSError, EOFError, ValueError, asyncio.CancelledError):
            while await self._pass_on(await _message(reader), writer):
                pass
        writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await writer.wait_closed()

    async def _pass_on(self, request: bytes, writer: asyncio.StreamWriter) -> bool:
        """Do with a request what the chooser says; return whether the connection lives on."""
        fault = self.choose()
        self.n[fault.kind] += 1
        if fault.kind == "lost request":
            return False
        if fault.kind == "error":
            reply = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops"
        elif fault.kind == "garbage":
            noise = self._noise.randbytes(200)
            reply = (
                b"HTTP/1.1 200 OK\r\nContent-Type: application/cbor\r\nContent-Length: 200\r\n\r\n" + noise
            )
        elif fault.kind == "no HTTP":
            reply = self._noise.randbytes(64) + b"\r\n\r\n"
        elif fault.kind == "cut request":
            await self._ask(request[: fault.n_bytes], is_whole=False)
            return False
        else:
            reply = await self._ask(request)
            if fault.kind == "doubled":
                reply = await self._ask(request)
        if fault.kind == "lost reply" or not reply:
            return False
        cut = fault.kind == "cut reply" and fault.n_bytes < len(reply)
        writer.write(reply[: fault.n_bytes] if cut else reply)
        await writer.drain()
        return not cut and fault.kind != "no HTTP"

    async def _ask(self, request: bytes, *, is_whole: bool = True) -> bytes:
        """Return the hub's reply, b"" where it gives none, as while it is down."""
        place = urlsplit(self.upstream)
        try:
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
        except OSError:
            return b""
        try:
            writer.write(request)
            await writer.drain()
            if not is_whole:
                return b""
            return await asyncio.wait_for(_message(reader), _TIMEOUT_S)
        except (OSError, EOFError, ValueError, asyncio.TimeoutError):
            return b""
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _message(reader: asyncio.StreamReader) -> bytes:
    """Return one HTTP message, head and body. Raises EOFError where there is no whole one, ValueError for no HTTP."""
    head = await reader.readuntil(b"\r\n\r\n")
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
    }
    if b"chunked" not in headers.get(b"transfer-encoding", b"").lower():
        return head + await reader.readexactly(int(headers.get(b"content-length", b"0")))
    body = b""
    while True:
        size = await reader.readuntil(b"\r\n")
        chunk = await reader.readexactly(int(size.partition(b";")[0], 16) + 2)
        body += size + chunk
        if len(chunk) == 2:
            return head + body
