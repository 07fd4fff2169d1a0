"""Shards in object stores, read in blocks by fsspec's file systems: s3fs, gcsfs, adlfs and others.

Credentials and endpoints are those that the libraries find in the environment and their own files.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import urllib.parse
from collections.abc import Generator, Iterator
from typing import Any

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.threads import read_ahead
from patchmill.loaders.sources.stream import faults
from patchmill.loaders.sources.stream.faults import StreamFault
from patchmill.loaders.sources.stream.patience import Halt
from patchmill.loaders.sources.stream.redact import redact

_BLOCK = 8 << 20

_NO_FILE = os.strerror(errno.ENOENT)
_AUTHORITY = ("credential", "auth", "token", "profile")  # in names of exceptions
_PASSING = ("connection", "connect", "disconnected", "protocol")


class StoreShard:
    """An object of a store; `open` may be called again to continue after a fault."""

    has_known_end = True

    def __init__(self, url: str, timeout_s: float, halt: Halt) -> None:
        self._url, self._timeout_s, self._halt = url, timeout_s, halt
        self._size: int | None = None

    def open(self, offset: int) -> tuple[int, Generator[bytes]]:
        return offset, read_ahead(self._blocks(offset), 1)

    def _blocks(self, offset: int) -> Generator[bytes]:
        try:
            system, path = open_system(self._url, self._timeout_s)
            while self._size is None or offset < self._size:
                # Read first: the error of a GET is more informative than that of a HEAD.
                block = self._read(system, path, offset)
                if self._size is None:
                    self._size = (
                        system.info(path)["size"] if len(block) == _BLOCK else offset + len(block)
                    )
                offset += len(block)
                if not block:
                    break
                yield block
        except StreamFault:
            raise
        except Exception as error:
            if self._size is None and offset == 0 and 416 in map(_status, _causes(error)):
                return  # there is no first byte: the object is empty
            raise fault_of(error, self._timeout_s) from None
        if self._size is not None and offset < self._size:
            reason = f"the store sent {offset:,} of {self._size:,} bytes"
            raise StreamFault(reason, faults.CHECK_NETWORK, retry=True)

    def _read(self, system: Any, path: str, offset: int) -> bytes:
        end = offset + _BLOCK if self._size is None else min(offset + _BLOCK, self._size)
        if not getattr(system, "async_impl", False):
            return system.cat_file(path, start=offset, end=end)
        block = asyncio.wait_for(system._cat_file(path, start=offset, end=end), self._timeout_s)
        future = asyncio.run_coroutine_threadsafe(block, system.loop)
        self._halt.end_by(future.cancel)
        return future.result()


def is_installed(scheme: str) -> bool:
    """True if fsspec and its file system for the scheme can be imported."""
    try:
        import fsspec

        fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError):
        return False
    return True


def expand_glob(url: str, timeout_s: float) -> list[str]:
    """URLs of the objects that match, sorted."""
    scheme, place = url.split("://")[0], urllib.parse.urlsplit(url).netloc
    try:
        system, pattern = open_system(url, timeout_s)
        names = system.glob(pattern)
    except Exception as error:
        fault = fault_of(error, timeout_s)
        raise MillError(f"cannot list {redact(url)}: {fault}; {fault.remedy}") from None
    paths = [name.lstrip("/").partition("/")[2] for name in names]  # without the bucket
    return [f"{scheme}://{place}/{path}" for path in sorted(paths)]


def open_system(url: str, timeout_s: float) -> tuple[Any, str]:
    """The file system that a URL belongs to, and the path in it."""
    scheme, _, rest = url.partition("://")
    system = _system(scheme, rest.partition("/")[0], timeout_s, os.getpid())
    return system, system._strip_protocol(url)


@functools.lru_cache(maxsize=16)
def _system(scheme: str, place: str, timeout_s: float, process: int) -> Any:
    """A private file system, whose settings affect no other code; it does not survive a fork."""
    from fsspec.config import conf
    from fsspec.core import url_to_fs

    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if scheme in ("s3", "s3a"):
        limits = {"connect_timeout": timeout_s, "read_timeout": timeout_s}
        chosen = conf.get(scheme, {}).get("config_kwargs", {})
        options["config_kwargs"] = {**limits, "retries": {"total_max_attempts": 1}, **chosen}
    system, _ = url_to_fs(f"{scheme}://{place}/", **options)
    if hasattr(system, "retries"):
        system.retries = 1  # our retries are logged
    return system


# ----------------------------------------------------------------------------------------- faults


def fault_of(error: Exception, timeout_s: float) -> StreamFault:
    """The fault behind an exception of a store's library, which can be of any class."""
    causes = list(_causes(error))
    names = " ".join(type(cause).__name__ for cause in causes).lower()
    status = next((s for cause in causes if (s := _status(cause)) is not None), None)
    message = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if "payload" in names or "incomplete" in names:  # aiohttp gives these a status of its own
        reason = f"the store closed the connection ({message})"
        return StreamFault(reason, faults.CHECK_NETWORK, retry=True)
    if isinstance(error, FileNotFoundError):
        status = status or 404
    if status is not None and status >= 300:
        known = faults.of_status(status, who="the store")
        is_known = message.strip("'\"").lower() in str(known).lower() or message == _NO_FILE
        detail = "" if is_known else f" ({message})"
        refused = isinstance(error, PermissionError)  # even by 400, as when a token has expired
        remedy = faults.CHECK_CREDENTIALS if refused else known.remedy
        return StreamFault(f"{known}{detail}", remedy, retry=known.retry)
    if isinstance(error, PermissionError) or any(word in names for word in _AUTHORITY):
        return StreamFault(f"the store refuses access ({message})", faults.CHECK_CREDENTIALS)
    if "timeout" in names:
        reason = f"the store has not sent the next {_BLOCK >> 20} MiB within {timeout_s:g} s"
        return StreamFault(reason, faults.CHECK_NETWORK, retry=True)
    passing = any(word in names for word in _PASSING)
    remedy = faults.CHECK_NETWORK if passing else f"{faults.CHECK_URL} and the credentials"
    return StreamFault(f"the store cannot be read ({message})", remedy, retry=passing)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _status(error: BaseException) -> int | None:
    """The HTTP status that an exception of botocore, gcsfs, azure or huggingface_hub carries."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    for value in (
        response,
        getattr(response, "status_code", None),
        *(getattr(error, name, None) for name in ("status_code", "status", "code")),
    ):
        if value is not None and str(value).isdecimal() and 100 <= int(str(value)) < 600:
            return int(str(value))
    return None
