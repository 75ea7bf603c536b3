"""A hub in the standard library: keeps what recorders send in sets, and misbehaves as a test says."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cbor2

from edge.batch import (
    STREAMS,
    Batch,
    Progress,
    Receipt,
    Stream,
    decode_batch,
    decode_envelope,
    encode_receipt,
)
from edge.device_key import is_signed
from edge.observation import Detection, Observation
from edge.store_schema import Event

CBOR = "application/cbor"


@dataclass(slots=True)
class Reply:
    """What is answered. n_cut: close the connection after so many bytes of the body, None = all of it."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": CBOR})
    n_cut: int | None = None


Fault = Callable[[Callable[[], Reply]], Reply]  # gets what would keep the request and answer it


@dataclass(slots=True)
class SmallHub:
    """One device's records. faults: what happens to the next requests, in turn; then all goes well."""

    url: str = ""
    status: str = "enrolled"
    code: str | None = None
    public: bytes = b""
    observations: dict[tuple[int, int], Observation] = field(default_factory=dict)
    detections: dict[tuple[int, int], Detection] = field(default_factory=dict)
    events: dict[tuple[int, int], Event] = field(default_factory=dict)
    dropped: set[tuple[int, int]] = field(default_factory=set)
    health: dict[str, Any] = field(default_factory=dict)
    clips_wanted: tuple[tuple[int, int], ...] = ()
    clips: dict[int, bytes] = field(default_factory=dict)
    batches: list[Batch] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    check: Callable[[Batch], Reply | None] = lambda batch: None
    n_conflicts: int = 0

    def answer(self, path: str, body: bytes) -> Reply:
        """Keep what came and answer it, or do what the next fault says."""
        self.paths.append(path)
        if self.faults:
            return self.faults.pop(0)(lambda: self.keep(path, body))
        return self.keep(path, body)

    def keep(self, path: str, body: bytes) -> Reply:
        """Answer as a hub should."""
        name, payload, signature = decode_envelope(body)
        if path == "/v1/enrolment":
            table = cbor2.loads(payload)
            assert is_signed(table["public"], "enrolment", payload, signature)
            self.public, self.code = table["public"], table["code"]
            return Reply(body=cbor2.dumps({"status": self.status}))
        purpose = "batch" if path == "/v1/batches" else "clip"
        if self.status != "enrolled" or not is_signed(self.public, purpose, payload, signature):
            return refusal(401, "not enrolled")
        if purpose == "clip":
            table = cbor2.loads(payload)
            self.clips[table["seq"]] = table["audio"]
            return Reply(body=cbor2.dumps({"status": "kept"}))
        batch = decode_batch(payload)
        assert batch.device_id == name
        return self.check(batch) or Reply(body=encode_receipt(self.take(batch)))

    def take(self, batch: Batch) -> Receipt:
        """Keep a batch."""
        self.batches.append(batch)
        epoch, n_before = batch.epoch, self.n_conflicts
        for run in batch.runs:
            for each in run.observations(batch.device_id, epoch):
                self._once(self.observations, (epoch, each.seq), each)
        for number, detection in batch.detections:
            self._once(self.detections, (epoch, number), detection)
        for event in batch.events:
            self._once(self.events, (epoch, event.number), event)
        for first, n, _ in batch.dropped:
            self.dropped |= {(epoch, seq) for seq in range(first, first + n)}
        self.health = dict(batch.health or self.health)
        progress = {stream: self.progress(epoch, stream) for stream in STREAMS}
        wanted = tuple(each for each in self.clips_wanted if each[1] not in self.clips)
        return Receipt(epoch, progress, self.n_conflicts - n_before, wanted)

    def progress(self, epoch: int, stream: Stream) -> Progress:
        """Return what is kept of a stream."""
        kept = set(getattr(self, stream)) | (self.dropped if stream == "observations" else set())
        numbers = sorted(number for known, number in kept if known == epoch)
        missing, last = [], -1
        for number in numbers:
            if number > last + 1:
                missing.append((last + 1, number - last - 1))
            last = number
        return Progress(last + 1, tuple(missing))

    def _once(self, kept: dict[Any, Any], key: tuple[int, int], value: object) -> None:
        if kept.setdefault(key, value) != value:
            self.n_conflicts += 1


def refusal(status: int, reason: str, **headers: str) -> Reply:
    """Return an answer that says no."""
    return Reply(status, cbor2.dumps({"error": reason}), {"Content-Type": CBOR, **headers})


@contextmanager
def small_hub(tls: ssl.SSLContext | None = None) -> Iterator[SmallHub]:
    """Run a hub on loopback."""
    hub = SmallHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            reply = hub.answer(self.path, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body[: reply.n_cut])
            self.close_connection |= reply.n_cut is not None

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # a connection that the recorder has ended

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    hub.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
