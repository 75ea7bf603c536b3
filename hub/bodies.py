"""Bodies of requests: read whole, but never more bytes than the hub has memory for, whoever sends them."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from hub.refusal import BusyError, TooLargeError

_SILENCE_S = 120.0  # within a body; a slow line sends something now and then


class Bodies:
    """Reads bodies of up to max_bytes, all that are being read together of up to max_total_bytes; for one event loop."""

    def __init__(self, max_bytes: int, max_total_bytes: int) -> None:
        self._max_bytes, self._max_total_bytes = max_bytes, max_total_bytes
        self._n_bytes = 0

    async def read(self, request: Request, silence_s: float = _SILENCE_S) -> bytes:
        """Return the body. Raises TooLargeError, and BusyError where too much is being read or nothing comes any more."""
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_bytes:
            raise TooLargeError(f"body: expected at most {self._max_bytes} bytes, found {declared}")
        stream, chunks, n_bytes = request.stream(), list[bytes](), 0
        try:
            while True:
                try:
                    chunk = await asyncio.wait_for(anext(stream), silence_s)
                except StopAsyncIteration:
                    return b"".join(chunks)
                n_bytes += len(chunk)
                self._n_bytes += len(chunk)
                if n_bytes > self._max_bytes:
                    raise TooLargeError(f"body: expected at most {self._max_bytes} bytes, found more")
                if self._n_bytes > self._max_total_bytes:
                    raise BusyError(
                        f"expected less than {self._max_total_bytes} bytes of bodies at once; come again"
                    )
                chunks.append(chunk)
        except (asyncio.TimeoutError, ClientDisconnect) as error:
            raise BusyError("body: expected all of it, found its end missing") from error
        finally:
            self._n_bytes -= n_bytes
