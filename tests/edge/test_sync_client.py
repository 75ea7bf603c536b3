"""The connection to the hub: certificates, time limits, what a refusal says, and one connection for many requests."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from ipaddress import ip_address
from pathlib import Path

import pytest

pytest.importorskip("cbor2")
pytest.importorskip("cryptography")
pytest.importorskip("urllib3")

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from edge.batch import encode_envelope
from edge.device_key import DeviceKey
from edge.errors import ConfigError, SyncError
from edge.sync_carrier import RefusedError
from edge.sync_client import HttpCarrier
from tests.simulate.small_hub import Reply, SmallHub, refusal, small_hub


@pytest.fixture
def body(tmp_path: Path) -> bytes:
    """Return a request for enrolment."""
    key = DeviceKey.open(tmp_path / "device.key")
    payload = cbor2.dumps({"format_version": 1, "device": "owl-1", "public": key.public, "code": None})
    return encode_envelope("owl-1", payload, key.sign("enrolment", payload))


def certificate(folder: Path, *, host: str = "127.0.0.1", days: int = 1) -> Path:
    """Write a certificate that vouches for itself, and its key, into one PEM file."""
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hub")])
    now = datetime.now(timezone.utc)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=3))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, None)
    )
    path = folder / f"{host}-{days}-{key.public_key().public_bytes_raw().hex()[:8]}.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(built.public_bytes(Encoding.PEM) + private)
    return path


@contextmanager
def tls_hub(pem: Path) -> Iterator[SmallHub]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with small_hub(context) as hub:
        yield hub


def test_a_hub_with_a_certificate_that_is_trusted_is_spoken_to(tmp_path: Path, body: bytes) -> None:
    pem = certificate(tmp_path)
    with tls_hub(pem) as hub, closing(HttpCarrier(hub.url, pem)) as carrier:
        first = carrier.send("enrolment", body)
        second = carrier.send("enrolment", body)
    assert cbor2.loads(first.content) == {"status": "enrolled"}
    assert second.n_line_bytes < first.n_line_bytes  # the connection was kept


@pytest.mark.parametrize("kind", ["unknown", "of another host", "expired", "of the system"])
def test_a_wrong_certificate_gets_nothing(tmp_path: Path, body: bytes, kind: str) -> None:
    pem = certificate(
        tmp_path,
        host="127.0.0.2" if kind == "of another host" else "127.0.0.1",
        days=-1 if kind == "expired" else 1,
    )
    trusted = {"unknown": certificate(tmp_path), "of the system": None}.get(kind, pem)
    with tls_hub(pem) as hub, closing(HttpCarrier(hub.url, trusted)) as carrier:
        with pytest.raises(SyncError, match="expected a certificate that can be trusted"):
            carrier.send("enrolment", body)
        assert hub.paths == []


@pytest.mark.parametrize(
    "url",
    ["hub.example.org", "ftp://hub", "https://", "http://hub:99999", "https://hub?x=1", "https://hub#a"],
)
def test_a_url_that_names_no_hub_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="hub: expected a "):
        HttpCarrier(url)


def test_a_ca_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.pem: expected certificates in PEM"):
        HttpCarrier("https://hub", tmp_path / "no.pem")
    (tmp_path / "text.pem").write_text("text", encoding="ascii")
    with pytest.raises(ConfigError, match=r"text\.pem: expected certificates in PEM"):
        HttpCarrier("https://hub", tmp_path / "text.pem")


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("120", 120, 120),
        (" 7 ", 7, 7),
        (format_datetime(datetime.now(timezone.utc) + timedelta(hours=1), usegmt=True), 3300, 3600),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0, 0),
        ("soon", None, None),
        ("-5", None, None),
        ("1.5", None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(body: bytes, header: str, low: float, high: float) -> None:
    with small_hub() as hub, closing(HttpCarrier(hub.url)) as carrier:
        hub.faults = [lambda _: refusal(503, "busy", **{"Retry-After": header})]
        with pytest.raises(RefusedError, match="answers 503: busy") as caught:
            carrier.send("enrolment", body)
    found = caught.value.retry_after_s
    assert found is None if low is None else low <= found <= high


def test_what_a_refusal_says_is_cut_and_made_plain(body: bytes) -> None:
    with small_hub() as hub, closing(HttpCarrier(hub.url)) as carrier:
        hub.faults = [lambda _: refusal(400, "a\x1b[31m\n" + "b" * 1000)]
        with pytest.raises(RefusedError) as caught:
            carrier.send("enrolment", body)
    assert str(caught.value).endswith("answers 400: a [31m " + "b" * 193)


def test_a_path_before_the_hubs_own_is_kept(body: bytes) -> None:
    with small_hub() as hub, closing(HttpCarrier(f"{hub.url}/field/")) as carrier:
        hub.faults = [lambda _: Reply()]
        carrier.send("enrolment", body)
        assert hub.paths == ["/field/v1/enrolment"]


@contextmanager
def talking(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """Run a server that says what it is told to one caller, and give its URL."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        caller, _ = server.accept()
        with caller:
            caller.recv(65_536)
            talk(caller)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        thread.join()
        server.close()


def test_a_hub_that_never_answers_is_given_up(body: bytes) -> None:
    done = threading.Event()

    def wait(_: socket.socket) -> None:
        done.wait(10)

    with talking(wait) as url, closing(HttpCarrier(url, patience_s=0.05)) as carrier:
        with pytest.raises(SyncError, match="Read timed out"):
            carrier.send("enrolment", b"")
        done.set()


def test_an_answer_that_drips_without_end_is_given_up(body: bytes) -> None:
    ticks = iter(range(0, 10_000, 60))

    def drip(caller: socket.socket) -> None:
        caller.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/cbor\r\nContent-Length: 500000\r\n\r\n")
        try:
            while True:
                caller.sendall(b"x")
        except OSError:
            pass

    with (
        talking(drip) as url,
        closing(HttpCarrier(url, clock=lambda: float(next(ticks)))) as carrier,
        pytest.raises(SyncError, match="found one that does not end|at most"),
    ):
        carrier.send("enrolment", body)


@pytest.mark.parametrize(
    "noise", [b"", b"\0" * 70_000, b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", b"SSH-2.0-x\r\n\r\n"]
)
def test_what_is_no_http_is_a_failure_like_any_other(body: bytes, noise: bytes) -> None:
    with (
        talking(lambda caller: caller.sendall(noise)) as url,
        closing(HttpCarrier(url)) as carrier,
        pytest.raises(SyncError, match="found"),
    ):
        carrier.send("enrolment", body)


def test_nobody_there_is_a_failure_that_says_so(body: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with (
        closing(HttpCarrier(f"http://127.0.0.1:{port}")) as carrier,
        pytest.raises(SyncError, match="Connection refused"),
    ):
        carrier.send("enrolment", body)
