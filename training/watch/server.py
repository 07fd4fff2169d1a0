"""The web server: bound to loopback, GET only, for clients that have the key."""

from __future__ import annotations

import hmac
import logging
import secrets
import socket
import sys
import threading
import urllib.parse
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from patchmill.loaders.common.errors import MillError
from patchmill.training.watch.routes import Answer, Refused, Site

log = logging.getLogger("patchmill")

ADDRESS = "127.0.0.1"
TRIES = 50  # ports, starting with the first
MOST_CLIENTS = 128  # concurrent connections; a page has one or two
IDLE = 30.0  # seconds after which a silent connection is closed
HOSTS = ("127.0.0.1", "localhost", "[::1]")  # on any port, as ssh -L may use another

# No text from a run can make the browser execute or fetch anything else.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Server(ThreadingHTTPServer):
    """Serves one site on the first free port from `port` on; only on `port` if `exact`.

    Every user of a machine can reach its loopback, so the printed URL contains a key; the browser
    keeps it as a cookie.
    """

    address = ADDRESS
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, site: Site, port: int, exact: bool = False) -> None:
        self.site, self.key = site, secrets.token_urlsafe(18)
        self.cookie = f"patchmill-{secrets.token_hex(4)}"  # cookies are shared between ports
        self.ends = threading.Event()
        self.slots = threading.BoundedSemaphore(MOST_CLIENTS)
        self._bind(port, exact)

    @property
    def port(self) -> int:
        return self.server_address[1]

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.port}/?key={self.key}"

    def _bind(self, port: int, exact: bool) -> None:
        for candidate in range(port, port + 1 if exact else min(port + TRIES, 2**16)):
            try:
                super().__init__((ADDRESS, candidate), Handler)
                return
            except OSError:
                continue
        where = f"port {port}" if exact else f"the ports from {port} on"
        raise MillError(f"cannot listen on {where}: choose another, such as --port {port + TRIES}")

    def server_bind(self) -> None:
        # http.server's own method looks up the machine's name, which may query a name server.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = ADDRESS, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # OSError: the page was closed
            log.error("a request failed: %r", error)

    def stop(self) -> None:
        self.ends.set()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "patchmill", ""
    timeout = IDLE

    def handle(self) -> None:
        if not self.server.slots.acquire(blocking=False):
            self.connection.settimeout(1.0)
            self.wfile.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        try:
            super().handle()
        finally:
            self.server.slots.release()

    def do_GET(self) -> None:
        try:
            self._answer()
        except Refused as refused:
            self._send(refused.status, "text/plain", f"{refused}\n".encode())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):  # any other method
            return self._refuse_method
        raise AttributeError(name)

    def _refuse_method(self) -> None:
        self.close_connection = True  # a body may follow
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"GET only\n", {"Allow": "GET"})

    def _answer(self) -> None:
        self._check_host()
        path, _, text = self.path.partition("?")
        try:
            query = urllib.parse.parse_qs(text, max_num_fields=64)
        except ValueError:
            raise Refused(HTTPStatus.BAD_REQUEST, "too many parameters") from None
        if path == "/" and "key" in query:
            self._let_in(query["key"][0])
            return
        self._check_key()
        if path == "/events":
            self._stream(query)
            return
        answer: Answer = self.server.site.answer(path, query)
        self._send(HTTPStatus.OK, answer.kind, answer.body)

    # ----------------------------------------------------------------------------------- who asks

    def _check_host(self) -> None:
        """Refuse host names other than this machine's: another page may have rebound one to it."""
        name = self.headers.get("Host", "")
        if name.rpartition(":")[0] not in HOSTS and name not in HOSTS:
            raise Refused(HTTPStatus.MISDIRECTED_REQUEST, "ask for 127.0.0.1 or localhost")
        if self.headers.get("Sec-Fetch-Site", "none") in ("cross-site", "same-site"):
            if self.headers.get("Sec-Fetch-Mode") != "navigate":
                raise Refused(HTTPStatus.FORBIDDEN, "asked by a page of another origin")

    def _let_in(self, key: str) -> None:
        """Send the page, with the key as a cookie; the page removes it from the URL."""
        if not hmac.compare_digest(key.encode(), self.server.key.encode()):
            raise Refused(HTTPStatus.FORBIDDEN, KEY_WANTED)
        cookie = f"{self.server.cookie}={key}; HttpOnly; SameSite=Strict; Path=/"
        page = self.server.site.answer("/", {})
        self._send(HTTPStatus.OK, page.kind, page.body, {"Set-Cookie": cookie})

    def _check_key(self) -> None:
        try:
            cookies = SimpleCookie(self.headers.get("Cookie", ""))
        except CookieError:
            cookies = SimpleCookie()
        kept = cookies.get(self.server.cookie)
        if not kept or not hmac.compare_digest(kept.value.encode(), self.server.key.encode()):
            raise Refused(HTTPStatus.FORBIDDEN, KEY_WANTED)

    # ------------------------------------------------------------------------------------ answers

    def _stream(self, query: dict[str, list[str]]) -> None:
        self.close_connection = True
        self.send_response(HTTPStatus.OK)
        self._send_headers({"Content-Type": "text/event-stream", "Connection": "close"})
        for text in self.server.site.events(query.get("run", []), self.server.ends.wait):
            self.wfile.write(text.encode())
            self.wfile.flush()

    def _send(
        self, status: HTTPStatus, kind: str, body: bytes, more: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        kind = f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
        self._send_headers({"Content-Type": kind, "Content-Length": str(len(body))} | (more or {}))
        self.wfile.write(body)

    def _send_headers(self, more: dict[str, str]) -> None:
        for name, value in (HEADERS | more).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


KEY_WANTED = "open the address that patchmill watch printed: it holds the key of this page"
