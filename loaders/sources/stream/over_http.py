"""Shards on web servers, read by Python's own HTTP client.

Proxies are set by `http_proxy`, `https_proxy` and `no_proxy`; trusted certificates are the system's
or those of `SSL_CERT_FILE`. A user and password in a URL are sent to that host only.
"""

from __future__ import annotations

import base64
import functools
import http.client
import re
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Generator
from typing import Any, NamedTuple

from patchmill.loaders.sources.stream import faults
from patchmill.loaders.sources.stream.faults import StreamFault
from patchmill.loaders.sources.stream.patience import Halt

_CHUNK = 1 << 18
_SAFE = "%/:?#[]@!$&'()*+,;=~"  # characters of a URL that are not escaped


class HttpShard:
    """A shard on a web server; `open` may be called again to continue after a fault."""

    def __init__(self, url: str, timeout_s: float, halt: Halt) -> None:
        self._url, self._timeout_s, self._halt = url, timeout_s, halt
        self._version: _Version | None = None
        self.has_known_end = False  # True if the server reports the length: an early end shows

    def open(self, offset: int) -> tuple[int, Generator[bytes]]:
        """The start, `offset` or 0 if the server does not support ranges, and the bytes from it."""
        response = self._request(offset)
        start = _range_start(response, offset)
        length = response.headers.get("Content-Length", "")
        size = start + int(length) if length.isdecimal() else None
        version = _Version(size, response.headers.get("ETag"), response.headers["Last-Modified"])
        if self._version is not None and not self._version.equals(version):
            raise StreamFault("it was replaced while it was read", "start again")
        self._version, self.has_known_end = version, size is not None
        return start, self._chunks(response, start, size)

    def _request(self, offset: int) -> http.client.HTTPResponse:
        try:
            request = _request(self._url)
            if offset:
                request.add_header("Range", f"bytes={offset}-")
            response = _opener(self._halt).open(request, timeout=self._timeout_s)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:
                raise StreamFault(f"it ends before byte {offset}", "start again") from None
            retry_after = error.headers.get("Retry-After")
            raise faults.of_status(error.code, error.reason, retry_after) from None
        except urllib.error.URLError as error:
            reason = error.reason
            if not isinstance(reason, Exception):
                reason = ValueError(reason)
            raise faults.of_network(reason, self._timeout_s) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise faults.of_network(error, self._timeout_s) from None
        if response.status not in (200, 206):
            response.close()
            raise faults.of_status(response.status, response.reason)
        return response

    def _chunks(
        self, response: http.client.HTTPResponse, start: int, size: int | None
    ) -> Generator[bytes]:
        position = start
        with response:
            while True:
                try:
                    chunk = response.read1(_CHUNK)
                except (OSError, http.client.HTTPException, ValueError) as error:
                    raise faults.of_network(error, self._timeout_s) from None
                if not chunk:
                    break
                position += len(chunk)
                yield chunk
        if size is not None and position < size:
            reason = f"the connection ended after {position:,} of {size:,} bytes"
            raise StreamFault(reason, faults.CHECK_NETWORK, retry=True)


class _Version(NamedTuple):
    """Validators that distinguish versions of the content of a URL."""

    size: int | None
    etag: str | None
    modified: str | None

    def equals(self, other: _Version) -> bool:
        """True unless the length, or both tag and time, differ: mirrors use different tags."""
        if None not in (self.size, other.size) and self.size != other.size:
            return False
        return self.etag == other.etag or self.modified == other.modified


def _range_start(response: http.client.HTTPResponse, offset: int) -> int:
    """The offset of the first byte of a response; 0 if the server ignores ranges."""
    if response.status == 200:
        return 0
    content = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if content and int(content[1]) == offset:
        return offset
    response.close()
    raise StreamFault("the server answers with another range than requested", "download it")


# ---------------------------------------------------------------------------------- urllib's parts


def _request(url: str) -> urllib.request.Request:
    """A request that sends the user and password of the URL to that host only."""
    parts = urllib.parse.urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    plain = urllib.parse.urlunsplit(parts._replace(netloc=host, fragment=""))
    request = urllib.request.Request(urllib.parse.quote(plain, safe=_SAFE))
    request.add_header("User-Agent", "patchmill")
    if at:
        token = base64.b64encode(urllib.parse.unquote_to_bytes(user)).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request


def _opener(halt: Halt) -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_Http(halt), _Https(halt), _Redirects())


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects as in urllib, but also for 308, and with credentials on the same host."""

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request:
        request = _request(newurl)
        if (byte_range := req.get_header("Range")) is not None:
            request.add_header("Range", byte_range)
        credentials = req.unredirected_hdrs.get("Authorization")
        if credentials and (request.type, request.host) == (req.type, req.host):
            request.add_unredirected_header("Authorization", credentials)
        return request


class _Http(urllib.request.HTTPHandler):
    def __init__(self, halt: Halt) -> None:
        super().__init__()
        self._connection = functools.partial(_Connection, halt)

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, halt: Halt) -> None:
        super().__init__()
        self._connection = functools.partial(_TlsConnection, halt)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, req)


class _Connection(http.client.HTTPConnection):
    """A connection whose waits a `Halt` can interrupt."""

    def __init__(self, halt: Halt, host: str, **options: Any) -> None:
        super().__init__(host, **options)
        self._halt = halt

    def connect(self) -> None:
        super().connect()
        self._halt.end_by(functools.partial(_shut, self.sock))


class _TlsConnection(_Connection, http.client.HTTPSConnection):
    """The same over TLS: `connect` continues with that of HTTPSConnection."""


def _shut(connection: socket.socket) -> None:
    """Wake the thread that waits for the socket; SSLSocket.shutdown is for that thread only."""
    socket.socket.shutdown(connection, socket.SHUT_RDWR)
