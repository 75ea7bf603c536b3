"""The example of a reverse proxy, run by a real nginx: TLS outside, the hub on loopback."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

import cbor2
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from edge.batch import Progress, decode_receipt
from hub.enrolment import new_code
from hub.serving import opened_hub, running
from hub.settings import Settings
from hub.store_registry import Registry
from tests.hub.conftest import NOW_NS
from tests.simulate.recorder import Recorder

EXAMPLE = Path(__file__).parents[2] / "firmware_configs" / "hub" / "nginx.conf"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


def free_port() -> int:
    with closing(socket.socket()) as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def write_certificate(folder: Path) -> None:
    """Write a certificate for 127.0.0.1 that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hub")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, SHA256())
    )
    (folder / "fullchain.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "privkey.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_certificate(tmp_path)
    return tmp_path


@pytest.fixture
def proxied(folder: Path) -> Iterator[tuple[httpx.Client, Settings]]:
    """Return a client of nginx, and the settings of the hub behind it."""
    settings = Settings(folder / "hub", port=0, behind_proxy=True)
    with opened_hub(settings, now_ns=lambda: NOW_NS) as app, running(app, settings) as url:
        port = free_port()
        site = EXAMPLE.read_text(encoding="utf-8")
        site = re.sub(r"listen 80;", f"listen 127.0.0.1:{free_port()};", site)
        site = re.sub(r"listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;", site)
        site = site.replace("http://127.0.0.1:8077", url)
        site = re.sub(r"/etc/letsencrypt/live/hub.example.org", str(folder), site)
        temporary = " ".join(
            f"{kind}_temp_path {folder}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (folder / "nginx.conf").write_text(
            f"daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; user {Path.home().owner()};"
            f" events {{}} http {{ access_log off; {temporary} {site} }}",
            encoding="utf-8",
        )
        assert NGINX is not None
        process = subprocess.Popen(
            [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")], stderr=subprocess.PIPE
        )
        try:
            _wait(port, process)
            context = ssl.create_default_context(cafile=str(folder / "fullchain.pem"))
            with httpx.Client(
                base_url=f"https://127.0.0.1:{port}", verify=context, trust_env=False
            ) as client:
                yield client, settings
        finally:
            process.terminate()
            process.communicate(timeout=20)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert process.poll() is None, process.communicate()[1]
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            time.sleep(0.02)  # nothing tells that nginx listens
        else:
            return
    raise AssertionError("nginx does not listen")


def test_recorders_deliver_over_tls_and_people_need_the_token(proxied: tuple[httpx.Client, Settings]) -> None:
    client, settings = proxied
    recorder = Recorder("owl-1")
    token = settings.token_path.read_text().strip()
    assert client.get("/openapi.json").status_code == 303
    assert client.get("/api/devices").status_code == 401
    entered = client.post("/login", data={"token": token})
    assert entered.status_code == 303
    assert "secure" in entered.headers["set-cookie"].lower()
    assert client.get("/openapi.json").status_code == 200

    with Registry.open(settings.registry_path) as registry:
        code = new_code(registry, "owl-1", NOW_NS)
    answer = client.post("/v1/enrolment", content=recorder.enrolment(code))
    assert cbor2.loads(answer.content)["status"] == "enrolled"
    answer = client.post("/v1/batches", content=recorder.sent(0, 1000))
    assert decode_receipt(answer.content).progress["observations"] == Progress(1000)
    assert client.post("/v1/batches", content=bytes((8 << 20) + 1)).status_code == 413  # the hub's answer
