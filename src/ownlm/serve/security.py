"""Who may use the server, checked before anything else reads a request.

The `Host` check stops a page on another site that made its name point to this machine (DNS rebinding); the `Origin`
check stops one that posts to it directly. Both hold without a key; with one, everything but `/health` asks for it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ownlm.serve.errors import error_object
from ownlm.serve.settings import ServeSettings, is_loopback

COOKIE = "ownlm_key"
OPEN_PATHS = ("/health",)
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
HEADERS = {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "SAMEORIGIN", "Referrer-Policy": "same-origin"}


class Gatekeeper:
    """ASGI middleware around everything, the Studio's pages and websockets included."""

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None and scope["type"] == "http":
            buffered = await self._limited(scope, receive)
            if buffered is None:
                refusal = _refuse(413, f"The body is larger than {self.settings.max_body:,} bytes.", "body_too_large")
            else:
                receive = buffered
        if refusal is None:
            await self.app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await _refuse_websocket(receive, send)
        else:
            await refusal(scope, receive, send)

    # ---- the checks

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.settings.loopback and not is_loopback(_hostname(host)):
            return _refuse(403, f"This server answers to this machine's own names only, not to '{host[:100]}'.", "host")
        origin = headers.get("origin")
        unsafe = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        if unsafe and origin is not None and _netloc(origin) != host.lower():
            return _refuse(403, f"Pages of {origin[:100]} may not use this server.", "origin")
        if self.settings.api_key and scope["path"] not in OPEN_PATHS:
            return self._key_refusal(scope, headers, self.settings.api_key)
        return None

    def _key_refusal(self, scope: Scope, headers: Headers, key: str) -> Response | None:
        if holds_key(headers, key):
            return None
        bearer = headers.get("authorization", "")
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("key", [""])[0]
        if scope["type"] == "http" and scope["method"] == "GET" and _equal(given, key):
            # A browser opens `/?key=...` once, then carries a cookie; the key disappears from the address.
            redirect = RedirectResponse("/" + scope["path"].lstrip("/\\"), 303)
            redirect.set_cookie(COOKIE, cookie_of(key), httponly=True, samesite="strict", max_age=30 * 86400)
            return redirect
        what = "The API key is wrong." if bearer or given else "This server asks for an API key"
        how = "" if bearer or given else " (Authorization: Bearer KEY; in a browser, open /?key=KEY once)."
        answer = _refuse(401, what + how, "invalid_api_key")
        answer.headers["WWW-Authenticate"] = "Bearer"
        return answer

    # ---- the body

    async def _limited(self, scope: Scope, receive: Receive) -> Receive | None:
        """A `receive` whose body is not larger than allowed; None when it is.

        With a `Content-Length` the server itself sees that no more comes. Without one the body is read here first.
        """
        headers = Headers(scope=scope)
        length = headers.get("content-length")
        if length is not None:
            return receive if length.isdigit() and int(length) <= self.settings.max_body else None
        if "transfer-encoding" not in headers:
            return receive
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return _replay([message], receive)
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.settings.max_body:
                return None
        return _replay([{"type": "http.request", "body": body, "more_body": False}], receive)


def holds_key(headers: Headers, key: str) -> bool:
    """Whether a request brings the key: as a bearer, or a browser's cookie."""
    bearer = headers.get("authorization", "")
    if bearer[:7].lower() == "bearer " and _equal(bearer[7:].strip(), key):
        return True
    return _equal(_cookie(headers), cookie_of(key))


def cookie_of(key: str) -> str:
    """What a browser keeps in place of the key."""
    return hmac.new(key.encode(), b"ownlm studio", hashlib.sha256).hexdigest()


def _equal(given: str, wanted: str) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())


def _cookie(headers: Headers) -> str:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _hostname(host: str) -> str:
    """The `Host` header without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _netloc(origin: str) -> str | None:
    """Host and port of an `Origin`; "null" and nonsense equal no host."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _replay(messages: Iterable[Message], receive: Receive) -> Receive:
    waiting = list(messages)

    async def again() -> Message:
        return waiting.pop(0) if waiting else await receive()

    return again


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending


def _refuse(status: int, message: str, code: str) -> Response:
    return JSONResponse(error_object(status, message, code), status)


async def _refuse_websocket(receive: Receive, send: Send) -> None:
    await receive()  # websocket.connect
    await send({"type": "websocket.close", "code": 1008})
