"""As much of S3 as reading needs, on loopback: lists a bucket page by page, gives objects and parts of them."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "cards"
_PAGE = 3  # keys in one answer: real ones hold 1000
_CHANGED = 1_790_000_000.0


class _Bucket(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: Mapping[str, bytes]
    requests: list[str]

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """List the bucket, or give an object."""
        url = urlsplit(self.path)
        self.requests.append(f"{self.command} {self.path}")
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        if bucket != BUCKET:
            self._answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
        elif key:
            self._object(key)
        else:
            self._list({name: values[0] for name, values in parse_qs(url.query).items()})

    def do_HEAD(self) -> None:
        """Say how large an object is."""
        self.do_GET()

    def _object(self, key: str) -> None:
        content = self.objects.get(key)
        if content is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if part:
            first, last = int(part[1]), min(int(part[2] or len(content)), len(content) - 1)
            self._answer(206, content[first : last + 1], f"bytes {first}-{last}/{len(content)}")
        else:
            self._answer(200, content)

    def _list(self, query: Mapping[str, str]) -> None:
        prefix, after = query.get("prefix", ""), query.get("continuation-token", "")
        keys = [key for key in sorted(self.objects) if key.startswith(prefix) and key > after]
        page = keys[:_PAGE]
        changed = "2026-09-21T12:00:00.000Z"
        found = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{changed}</LastModified><ETag>&quot;x&quot;</ETag>"
            f"<Size>{len(self.objects[key])}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for key in page
        )
        more = (
            f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if len(keys) > _PAGE else ""
        )
        self._answer(
            200,
            (
                f"<ListBucketResult><Name>{BUCKET}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
                f"<MaxKeys>{_PAGE}</MaxKeys><IsTruncated>{str(bool(more)).lower()}</IsTruncated>{found}{more}</ListBucketResult>"
            ).encode(),
        )

    def _answer(self, status: int, content: bytes, content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Last-Modified", formatdate(_CHANGED, usegmt=True))
        self.send_header("ETag", '"x"')
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@contextmanager
def fake_s3(objects: Mapping[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """Serve a bucket; give the URL of its root, for pyarrow, and the requests as they come."""
    requests: list[str] = []
    handler = type("Bucket", (_Bucket,), {"objects": objects, "requests": requests})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="fake-s3", daemon=True)
    thread.start()
    place = f"127.0.0.1:{server.server_address[1]}"
    try:
        yield f"s3://key:secret@{BUCKET}{{}}?region=eu&scheme=http&endpoint_override={place}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
