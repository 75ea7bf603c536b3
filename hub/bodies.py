"""Bodies of requests: read whole, but never more bytes than the hub has memory for, whoever sends them.

Where the room is full, whoever holds most of it gives way, so that many slow senders cannot keep recorders out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address

from starlette.requests import ClientDisconnect, Request

from hub.refusal import BusyError, TooLargeError

_PASS_OVER_S = 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How slowly a body may come, as slow as edge-sync itself has patience with.

    silence_s: with nothing; slowest_bytes_per_s: that all of it must keep up with after silence_s; longest_s: for any body.
    """

    silence_s: float = 120.0
    slowest_bytes_per_s: float = 20.0
    longest_s: float = 3600.0


@dataclass(slots=True, eq=False)
class _Held:
    """What came of one body. gives_way: done when another needs its room; is_whole: it is being worked on."""

    sender: str
    gives_way: asyncio.Future[None]
    chunks: list[bytes] = field(default_factory=list)
    n_bytes: int = 0
    is_whole: bool = False


class Bodies:
    """Reads bodies of up to max_bytes, all that are held together of up to max_total_bytes; for one event loop."""

    def __init__(self, max_bytes: int, max_total_bytes: int, patience: Patience = Patience()) -> None:
        self._max_bytes, self._max_total_bytes, self._patience = max_bytes, max_total_bytes, patience
        self._held: set[_Held] = set()
        self._n_bytes = 0  # of them

    async def read(self, request: Request) -> bytes:
        """Return the body, as reading() gives it; its room is free again at once."""
        async with self.reading(request) as body:
            return body

    @asynccontextmanager
    async def reading(self, request: Request) -> AsyncIterator[bytes]:
        """Give the body; its room is taken until the block ends.

        Raises TooLargeError, and BusyError where there is no room or too little comes in time.
        """
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_bytes:
            await _pass_over(request, self._max_bytes)
            raise TooLargeError(f"body: expected at most {self._max_bytes} bytes, found {declared}")
        held = _Held(_sender(request), asyncio.get_running_loop().create_future())
        self._held.add(held)
        try:
            await self._fill(held, request)
            held.is_whole = True
            body = b"".join(held.chunks)
            held.chunks.clear()
            yield body
        finally:
            self._drop(held)

    async def _fill(self, held: _Held, request: Request) -> None:
        stream, now_s = request.stream(), asyncio.get_running_loop().time
        begun_s = now_s()
        while True:
            chunk = await self._next(
                stream, held, min(self._patience.silence_s, self._left_s(held, now_s() - begun_s))
            )
            if chunk is None:
                return
            if held.n_bytes + len(chunk) > self._max_bytes:
                raise TooLargeError(f"body: expected at most {self._max_bytes} bytes, found more")
            held.n_bytes += len(chunk)
            self._n_bytes += len(chunk)
            held.chunks.append(chunk)
            self._make_room(held)

    def _left_s(self, held: _Held, passed_s: float) -> float:
        """Return how long the next chunk may take."""
        patience = self._patience
        slowest_s = patience.silence_s + held.n_bytes / patience.slowest_bytes_per_s
        return max(0.0, min(patience.longest_s, slowest_s) - passed_s)

    async def _next(self, stream: AsyncIterator[bytes], held: _Held, timeout_s: float) -> bytes | None:
        """Return what comes next, None at the end."""
        coming = asyncio.ensure_future(anext(stream, None))
        try:
            await asyncio.wait(
                (coming, held.gives_way), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if held.gives_way.done():
                raise self._full()
            if not coming.done():
                raise BusyError("body: expected all of it in time, found its end missing")
            return coming.result()
        except ClientDisconnect as error:
            raise BusyError("body: expected all of it, found its end missing") from error
        finally:
            if not coming.cancel() and not coming.cancelled():
                coming.exception()  # has been seen

    def _make_room(self, newcomer: _Held) -> None:
        """Let the largest body of whoever holds most give way until all fit. Raises BusyError where that is the newcomer."""
        while self._n_bytes > self._max_total_bytes:
            held_by: Counter[str] = Counter()
            for each in self._held:
                held_by[each.sender] += each.n_bytes
            unfinished = [each for each in self._held if not each.is_whole]
            largest = max(unfinished, key=lambda each: (held_by[each.sender], each.n_bytes, each is newcomer))
            self._drop(largest)
            if largest is newcomer:
                raise self._full()
            largest.gives_way.set_result(None)

    def _drop(self, held: _Held) -> None:
        if held in self._held:
            self._held.remove(held)
            self._n_bytes -= held.n_bytes
            held.chunks.clear()

    def _full(self) -> BusyError:
        return BusyError(f"expected less than {self._max_total_bytes} bytes of bodies at once; come again")


async def _pass_over(request: Request, max_bytes: int) -> None:
    """Let a body that is too long go by, some of it for some seconds: a proxy that still sends would not see the answer."""
    n_bytes = 0

    async def read() -> None:
        nonlocal n_bytes
        async for chunk in request.stream():
            n_bytes += len(chunk)
            if n_bytes > 2 * max_bytes:
                return

    with suppress(asyncio.TimeoutError, ClientDisconnect):
        await asyncio.wait_for(read(), _PASS_OVER_S)


def _sender(request: Request) -> str:
    """Return the address that a request came from, of IPv6 the network of 64 bits that one household or server has."""
    host = request.client.host if request.client is not None else ""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    return str(int(address) >> 64) if address.version == 6 else host
