"""Faults of streamed shards: the reason, whether a retry can help, and a remedy."""

from __future__ import annotations

import email.utils
import http.client
import re
import socket
import ssl
import time
from http import HTTPStatus

from patchmill.loaders.sources.stream.redact import redact

CHECK_URL = "check the URL"
CHECK_NETWORK = "check the URL and the network"
CHECK_CREDENTIALS = "check the credentials, and if the URL is a signed one, whether it has expired"

_LONGEST_REASON = 300  # characters


class StreamFault(Exception):
    """A failure to open or read a shard; the message is a clause such as "it is empty"."""

    def __init__(
        self, reason: str, remedy: str, *, retry: bool = False, wait_s: float = 0.0
    ) -> None:
        super().__init__(redact(one_line(reason)))
        self.remedy = remedy
        self.retry = retry  # True if a retry can help
        self.wait_s = wait_s  # minimum wait before the next attempt


def one_line(text: str) -> str:
    """`text` with spaces for line breaks, truncated if it is very long."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 3]}..."


def of_status(
    status: int, phrase: str = "", retry_after: str | None = None, who: str = "the server"
) -> StreamFault:
    """The fault behind an HTTP status other than 2xx."""
    if not phrase and status in HTTPStatus._value2member_map_:
        phrase = HTTPStatus(status).phrase
    answer = f"{who} answers {status} {phrase}".rstrip()
    if 300 <= status < 400:
        return StreamFault(
            f"{who} redirects ({status}) in a loop, or to something other than a web address",
            CHECK_URL,
        )
    if can_recover(status):
        return StreamFault(answer, CHECK_NETWORK, retry=True, wait_s=_seconds(retry_after))
    return StreamFault(answer, CHECK_CREDENTIALS if status in (401, 403, 407) else CHECK_URL)


def can_recover(status: int) -> bool:
    """True for the statuses of an overloaded, restarting or impatient server."""
    return status in (408, 425, 429) or (status >= 500 and status not in (501, 505))


def of_network(error: Exception, timeout_s: float) -> StreamFault:
    """The fault behind an exception of sockets, TLS or http.client."""
    if isinstance(error, TimeoutError | socket.timeout):
        reason = f"the server has sent nothing for {timeout_s:g} s"
        return StreamFault(reason, CHECK_NETWORK, retry=True)
    if isinstance(error, ssl.SSLCertVerificationError):
        return StreamFault(
            f"the server's certificate is not trusted ({error.verify_message})",
            "set SSL_CERT_FILE to a file of the certificates to trust",
        )
    if isinstance(error, socket.gaierror):
        passing = error.errno == socket.EAI_AGAIN
        reason = f"the host name cannot be resolved ({error.strerror})"
        return StreamFault(reason, CHECK_NETWORK, retry=passing)
    if refused := re.search(r"Tunnel connection failed: (\d{3}) ?(.*)", str(error)):
        return of_status(int(refused[1]), refused[2], who="the proxy")
    if isinstance(error, http.client.IncompleteRead | http.client.RemoteDisconnected):
        return StreamFault("the server closed the connection", CHECK_NETWORK, retry=True)
    if isinstance(error, OSError):
        reason = f"the connection fails ({error.strerror or error})"
        return StreamFault(reason, CHECK_NETWORK, retry=True)
    if isinstance(error, http.client.BadStatusLine | http.client.LineTooLong):
        return StreamFault("the server does not speak HTTP", CHECK_URL)
    return StreamFault(f"the URL cannot be used ({error})", CHECK_URL)


def _seconds(retry_after: str | None) -> float:
    """Seconds from a Retry-After header, which holds a number or a date; 0 without one."""
    if not retry_after:
        return 0.0
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        at = email.utils.parsedate_to_datetime(retry_after)
    except (TypeError, ValueError):
        return 0.0
    return max(at.timestamp() - time.time(), 0.0)
