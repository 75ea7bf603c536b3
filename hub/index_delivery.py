"""How the observations of an archive enter a hub: through its registry, or over HTTP as a recorder's do where it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Protocol

import cbor2
import urllib3

from edge.batch import (
    FORMAT_VERSION,
    Batch,
    Purpose,
    Receipt,
    decode_receipt,
    encode_batch,
    encode_envelope,
)
from edge.device_key import DeviceKey
from edge.errors import HubError
from hub.archive_engines import open_archive
from hub.ingest import Ingest
from hub.settings import Settings
from hub.store_registry import Registry

_TIMEOUT_S = 60.0
_TRIES = 12  # of one batch, an hour of a hub that is away
_LONGEST_WAIT_S = 600.0
_MAX_RETRY_AFTER_S = 86_400.0  # until the next day's quota; a hub that says more is not believed
_LATER = (429, 500, 502, 503, 504, 507)


class Deliver(Protocol):
    """Where batches go."""

    def enrol(self, device_id: str) -> None:
        """Make an archive known as a device. Raises HubError."""

    def keep(self, batch: Batch) -> Receipt:
        """Return the receipt of a batch that is committed and synced. Raises HubError."""


class FolderDelivery:
    """Opens the files of a hub that does not run. Use it as a context manager or call close().

    archive: place of its codes, "" = the default engine in its folder. Raises HubError, also where the hub runs.
    """

    def __init__(
        self, settings: Settings, archive: str = "", now_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._now_ns = now_ns
        self._key = DeviceKey.open(settings.folder / "index.key")
        with ExitStack() as opened:
            self._registry = opened.enter_context(Registry.open(settings.registry_path))
            codes = open_archive(archive or str(settings.archive_path))
            opened.callback(codes.close)
            try:
                self._ingest = opened.enter_context(Ingest(self._registry, codes, now_ns))
            except HubError as error:
                raise HubError(f"{error}, or give its address: --hub URL") from error
            self._opened = opened.pop_all()

    def enrol(self, device_id: str) -> None:
        """Enter an archive as a device, approved by whoever may write the hub's folder."""
        devices = self._registry.devices
        entered = devices.enrol(device_id, self._key.public, None, self._now_ns())
        if entered.status != "enrolled":
            entered = devices.set_status(device_id, "enrolled")
        self._device = entered

    def keep(self, batch: Batch) -> Receipt:
        """Return the receipt of a batch of the archive that enrol() entered last."""
        return self._ingest.keep(self._device, batch)

    def close(self) -> None:
        """Hand what is committed to the archive, and close the files."""
        self._opened.close()

    def __enter__(self) -> FolderDelivery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class UrlDelivery:
    """Sends signed batches to a hub that runs, here or elsewhere, and waits where it asks to come again."""

    def __init__(
        self, url: str, key_path: Path, code: str | None, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._url, self._code, self._sleep = url.rstrip("/"), code, sleep
        self._key = DeviceKey.open(key_path)
        self._http = urllib3.PoolManager(retries=False, timeout=_TIMEOUT_S)
        self._device_id = ""

    def enrol(self, device_id: str) -> None:
        """Ask the hub to take an archive as a device; it says so where a person must approve it first."""
        self._device_id = device_id
        request = {
            "format_version": FORMAT_VERSION,
            "device": device_id,
            "public": self._key.public,
            "code": self._code,
        }
        answer = self._post("enrolment", "/v1/enrolment", cbor2.dumps(request))
        try:
            status = cbor2.loads(answer)["status"]
        except (cbor2.CBORError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise HubError(f"{self._url}: expected the answer of a hub, found {answer[:80]!r}") from error
        if status != "enrolled":
            raise HubError(
                f"{self._url}: expected an archive that is enrolled, found {status}; approve {device_id} at the hub, "
                "or give --code of edge-hub enrol, and run the same command again"
            )

    def keep(self, batch: Batch) -> Receipt:
        """Return the receipt of a batch."""
        return decode_receipt(self._post("batch", "/v1/batches", encode_batch(batch)))

    def close(self) -> None:
        """Close the connections."""
        self._http.clear()

    def __enter__(self) -> UrlDelivery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _post(self, purpose: Purpose, path: str, payload: bytes) -> bytes:
        body = encode_envelope(self._device_id, payload, self._key.sign(purpose, payload))
        headers = {"Content-Type": "application/cbor", "Accept": "application/cbor"}
        reason, wait_s = "", 1.0
        for _ in range(_TRIES):
            asked_s = 0.0
            try:
                answer = self._http.request("POST", self._url + path, body=body, headers=headers)
            except urllib3.exceptions.HTTPError as error:
                reason = str(error)
            else:
                if answer.status == 200:
                    return bytes(answer.data)
                reason = f"HTTP {answer.status} {answer.data[:300]!r}"
                if answer.status not in _LATER:
                    break
                asked = answer.headers.get("Retry-After", "")
                asked_s = float(asked[:9]) if asked.isascii() and asked.isdigit() else 0.0
            self._sleep(max(wait_s, min(asked_s, _MAX_RETRY_AFTER_S)))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        raise HubError(
            f"{self._url}: expected the receipt of a hub, found: {reason}; nothing is lost, run the same command again"
        )
