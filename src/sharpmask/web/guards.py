"""Checks that come before every endpoint: from which page a request comes, and how large it is; and the headers that
tell a browser what the page may do.

Plain ASGI, so that a body is counted while it arrives and an answer is passed on as it is.
"""

import asyncio
import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    # Everything from this server, nothing from elsewhere, no inline code.
    "content-security-policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class SecurityHeaders:
    """Adds the headers above to every answer, and forbids storing those that do not say how long they hold."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class SamePage:
    """Refuses requests under another name than this server's, and those that another site's page sends.

    The first stops DNS rebinding: a stranger's page whose name is made to point to this machine. An address in numbers
    cannot be rebound and is always right. The second stops pages that know the address and post to it blindly.

    Args:
        hosts: names that this server may be called by, besides localhost.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str] = ()) -> None:
        self.app = app
        self.hosts = {host.lower().rstrip(".") for host in hosts} | {"localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            complaint = self._complaint(headers)
            if complaint is not None:
                await JSONResponse({"detail": complaint[1]}, complaint[0])(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _complaint(self, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not self._is_known(_host_name(f"//{host}")):
            return 400, f"the host '{host[:100]}' is not a name of this server; start it with --allow-host to add one"
        origin = headers.get("origin")
        if origin is not None and origin.lower().partition("://")[2] != host.lower():
            return 403, "requests from the pages of other sites are refused"
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            return 403, "requests from the pages of other sites are refused"
        return None

    def _is_known(self, name: str | None) -> bool:
        if name is None:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.rstrip(".") in self.hosts
        return True


def _host_name(address: str) -> str | None:
    """The name in lower case, without port and brackets; None where there is none or it cannot be read."""
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018 - raises ValueError for a port that is no number
        return parts.hostname if parts.path == "" and parts.username is None else None
    except ValueError:
        return None


class _TooLarge(Exception):
    pass


class _TooSlow(Exception):
    pass


class BodyLimit:
    """Refuses bodies of more than `max_body` bytes, at once where the length is announced, else when they pass it, and
    those that take more than `timeout` seconds to arrive."""

    def __init__(self, app: ASGIApp, max_body: int, timeout: float) -> None:
        self.app, self.max_body, self.timeout = app, max_body, timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        received, complete, started = 0, False, False
        deadline = asyncio.get_running_loop().time() + self.timeout

        async def counted() -> Message:
            nonlocal received, complete
            if complete:  # what comes now is the end of the connection, which may take its time
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise _TooSlow from None
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > self.max_body:
                raise _TooLarge
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            announced = Headers(scope=scope).get("content-length", "")
            if announced.isdecimal() and int(announced) > self.max_body:
                raise _TooLarge
            await self.app(scope, counted, watched)
        except (_TooLarge, _TooSlow) as error:
            if started:
                raise
            await self._refuse(error)(scope, receive, send)

    def _refuse(self, error: Exception) -> JSONResponse:
        close = {"connection": "close"}  # the rest of the body is not read
        if isinstance(error, _TooSlow):
            return JSONResponse({"detail": f"the request took more than {self.timeout:g} s to arrive"}, 408, close)
        limit = f"{self.max_body / 2**20:.3g} MiB"
        return JSONResponse({"detail": f"the request is larger than the limit of {limit}"}, 413, close)
