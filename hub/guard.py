"""Guard: who may see the page and /api: whoever brings the hub's token, and who sits at the hub's own computer.

A request is from the same computer where the hub listens on loopback alone, and neither the name it was asked by nor a
header of a proxy says that it came from elsewhere. A proxy need not say so: behind one everybody needs the token
(--behind-proxy). What another site's page asks a browser for changes nothing without the token.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge.errors import HubError

COOKIE = "fieldcube"
LOGIN_PATH = "/login"
_OPEN = "/v1/"  # recorders bring their signature
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
_PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via")
# nothing of the page comes from outside, and no other page may frame it
_POLICY = "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
_SAFE = ("GET", "HEAD", "OPTIONS")
_MAX_FORM_BYTES = 4096
_YEAR_S = 365 * 86_400

_FORM = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>fieldcube hub</title>
<style>body{font:1.1rem system-ui;max-width:22rem;margin:20vh auto;padding:0 1rem}
input,button{font:inherit;width:100%%;box-sizing:border-box;padding:.6rem;margin:.3rem 0}</style>
<h1>fieldcube hub</h1>
<form method="post" action="/login"><label for="token">Token (in the file <code>token</code> of the hub's folder)</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button>Open</button></form>%s</html>
"""


def read_token(path: Path) -> str:
    """Return the token in a file; make one, mode 0600, where there is no file. Raises HubError."""
    try:
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(24) + "\n")
                file.flush()
                os.fsync(file.fileno())
        mode = stat.S_IMODE(path.stat().st_mode)
        token = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise HubError(f"{path}: expected a place for the hub's token, found {error}") from error
    if mode & 0o077:
        raise HubError(
            f"{path}: expected a token that only its user may read, found mode {mode:04o}; run: chmod 600 {path}"
        )
    if len(token) < 16:
        raise HubError(
            f"{path}: expected a token of at least 16 characters, found {len(token)}; remove the file"
        )
    return token


class Guard:
    """ASGI middleware: lets pass who brings the token as a bearer or in the cookie that the form has set.

    local_is_free: whether requests of the same computer need none.
    """

    def __init__(self, app: ASGIApp, token: str, *, local_is_free: bool) -> None:
        self._app, self._token, self._local_is_free = app, token.encode(), local_is_free

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand the request on."""
        if scope["type"] != "http" or str(scope["path"]).startswith(_OPEN):
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = _POLICY
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "same-origin"
            await send(message)

        request = Request(scope, receive)
        if request.url.path == LOGIN_PATH:
            answer: Response = await self._login(request)
        elif self._has_token(request) or (
            self._local_is_free and _is_local(request) and not _is_foreign(request)
        ):
            await self._app(scope, receive, send_guarded)
            return
        elif request.method == "GET" and not request.url.path.startswith("/api/"):
            answer = RedirectResponse(LOGIN_PATH, 303)
        else:
            answer = JSONResponse({"error": "expected the hub's token"}, 401, {"WWW-Authenticate": "Bearer"})
        answer.headers["Cache-Control"] = "no-store"
        await answer(scope, receive, send_guarded)

    def _has_token(self, request: Request) -> bool:
        kind, _, bearer = request.headers.get("authorization", "").partition(" ")
        found = bearer if kind.lower() == "bearer" else request.cookies.get(COOKIE, "")
        return self._is_token(found)

    def _is_token(self, found: str) -> bool:
        return hmac.compare_digest(found.strip().encode("utf-8", "replace"), self._token)

    async def _login(self, request: Request) -> Response:
        if request.method != "POST":
            return HTMLResponse(_FORM % "")
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_FORM_BYTES:
                return HTMLResponse(_FORM % "", 413)
        token = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0]
        if not self._is_token(token):
            return HTMLResponse(_FORM % '<p role="alert">That is not the token of this hub.</p>', 401)
        answer = RedirectResponse("/", 303)
        forwarded = request.headers.get("x-forwarded-proto", request.url.scheme)
        answer.set_cookie(
            COOKIE, token.strip(), _YEAR_S, httponly=True, samesite="strict", secure=forwarded == "https"
        )
        return answer


def _is_local(request: Request) -> bool:
    """Return whether a request to a hub on loopback was made on the same computer, by a name that only it has.

    A foreign page can make a browser ask 127.0.0.1, but not under the name 127.0.0.1 (DNS rebinding).
    """
    host = request.headers.get("host", "")
    name = host.rsplit(":", 1)[0] if host.rpartition(":")[2].isdecimal() else host
    return name.lower() in _LOCAL_NAMES and not any(header in request.headers for header in _PROXY_HEADERS)


def _is_foreign(request: Request) -> bool:
    """Return whether a request that may change something was made by a page of another origin, as browsers tell."""
    if request.method in _SAFE:
        return False
    if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return True
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower()
