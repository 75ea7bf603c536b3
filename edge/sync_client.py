"""The way to the hub over HTTPS: one kept connection, and every answer taken with suspicion."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import cbor2
import urllib3
from urllib3.util import SKIP_HEADER, Timeout

import edge
from edge.batch import Purpose
from edge.errors import ConfigError, SyncError
from edge.sync_budget import line_bytes
from edge.sync_carrier import Answer, RefusedError
from edge.urls import without_password

LOG = logging.getLogger(__name__)

_PATHS: dict[Purpose, str] = {
    "batch": "/v1/batches",
    "enrolment": "/v1/enrolment",
    "clip": "/v1/clips",
}
_CBOR = "application/cbor"
MAX_ANSWER_BYTES = 1 << 20
_MAX_SHOWN = 200  # characters of a refusal's reason
_PATIENCE_S, _SLOWEST_BYTES_PER_S = 90.0, 20.0
_HEAD_BYTES = 350  # of a request and its answer, without their bodies
_HANDSHAKE_BYTES = 4_500  # of TLS, when a connection is made


class HttpCarrier:
    """Delivers envelopes to one hub. Not thread-safe; call close() at the end.

    url: https://host[:port][/path]. Redirects are not followed, proxies of the environment not used.
    Raises ConfigError: a URL of another kind, a ca_file that cannot be read.
    """

    def __init__(
        self,
        url: str,
        ca_file: Path | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ConfigError(
                f"hub: expected a URL such as https://hub.example.org, found {without_password(url)!r}"
            )
        try:
            port = parts.port
        except ValueError as error:
            raise ConfigError(
                f"hub: expected a port from 0 to 65535, found {without_password(url)!r}"
            ) from error
        self._url, self._path, self._clock, self._patience_s = (
            without_password(url),
            parts.path.rstrip("/"),
            clock,
            patience_s,
        )
        self._is_tls = parts.scheme == "https"
        self._n_connections = 0
        self._pool: urllib3.HTTPConnectionPool
        if self._is_tls:
            self._pool = urllib3.HTTPSConnectionPool(
                parts.hostname, port, maxsize=1, ssl_context=_trust(ca_file)
            )
        else:
            self._pool = urllib3.HTTPConnectionPool(parts.hostname, port, maxsize=1)

    def close(self) -> None:
        """Hang up."""
        self._pool.close()

    def send(self, purpose: Purpose, body: bytes) -> Answer:
        """Post an envelope; return the answer of a 200. Raises RefusedError, SyncError."""
        timeout_s = self._patience_s + len(body) / _SLOWEST_BYTES_PER_S
        deadline_s = self._clock() + timeout_s
        try:
            response = self._pool.urlopen(
                "POST",
                self._path + _PATHS[purpose],
                body=body,
                headers={
                    "Content-Type": _CBOR,
                    "Accept": _CBOR,
                    "Accept-Encoding": SKIP_HEADER,
                    "User-Agent": f"fieldcube/{edge.__version__}",
                },
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
                timeout=Timeout(connect=timeout_s, read=timeout_s),
            )
            try:
                content = self._read(response, deadline_s)
            except BaseException:
                response.close()  # what is left of the answer must not be taken for the next one
                raise
            response.release_conn()
        except urllib3.exceptions.SSLError as error:
            raise SyncError(
                f"{self._url}: expected a certificate that can be trusted, found: {error}; check the clock "
                "of this recorder, the hub's certificate and ca_file"
            ) from error
        except urllib3.exceptions.HTTPError as error:
            raise SyncError(f"{self._url}: expected an answer of the hub, found: {_reason(error)}") from error
        if response.status != 200:
            raise self._refused(response, content)
        if response.headers.get("Content-Type", "").split(";")[0].strip() != _CBOR:
            raise SyncError(
                f"{self._url}: expected an answer of the hub ({_CBOR}), found {response.headers.get('Content-Type')}; "
                "is it another server, or a page that asks to sign in?"
            )
        return Answer(content, self._line_bytes(len(body), len(content)))

    def _read(self, response: urllib3.BaseHTTPResponse, deadline_s: float) -> bytes:
        """Read a body that is small and comes in time, whatever the other side does."""
        content = b""
        while part := response.read1(65_536, decode_content=False):
            content += part
            if len(content) > MAX_ANSWER_BYTES:
                raise SyncError(
                    f"{self._url}: expected at most {MAX_ANSWER_BYTES} bytes of an answer, found more"
                )
            if self._clock() > deadline_s:
                raise SyncError(f"{self._url}: expected an answer in time, found one that does not end")
        return content

    def _line_bytes(self, n_sent: int, n_received: int) -> int:
        """Estimate what a request took, and the connection where a new one was made for it."""
        is_new = self._pool.num_connections > self._n_connections
        self._n_connections = self._pool.num_connections
        handshake = _HANDSHAKE_BYTES if self._is_tls and is_new else 0
        return line_bytes(n_sent) + line_bytes(n_received) + _HEAD_BYTES + handshake

    def _refused(self, response: urllib3.BaseHTTPResponse, content: bytes) -> RefusedError:
        after = _retry_after_s(response.headers.get("Retry-After"), datetime.now(timezone.utc))
        told = _told(content) if response.headers.get("Content-Type", "").startswith(_CBOR) else ""
        return RefusedError(
            f"{self._url}: the hub answers {response.status}{': ' if told else ''}{told}",
            response.status,
            after,
        )


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{ca_file}: expected certificates in PEM, found {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _retry_after_s(value: str | None, now: datetime) -> float | None:
    """Return the seconds of a Retry-After header, a number or a date; None where it makes no sense."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value.strip()[:9])
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    return max(0.0, (when - now).total_seconds()) if when.tzinfo else None


def _told(content: bytes) -> str:
    """Return the reason in a refusal, as plain text."""
    try:
        table = cbor2.loads(content)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError):
        return ""
    reason = table.get("error") if isinstance(table, dict) else None
    if not isinstance(reason, str):
        return ""
    return "".join(c if c.isprintable() else " " for c in reason[:_MAX_SHOWN])


def _reason(error: urllib3.exceptions.HTTPError) -> str:
    """Return what went wrong without the object that urllib3 puts before it."""
    return str(error).split("object at 0x", 1)[-1].split(">: ", 1)[-1] or type(error).__name__
