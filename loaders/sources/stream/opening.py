"""Choose the reader of a shard by the scheme of its URL, and list the matches of a pattern."""

from __future__ import annotations

import functools
import glob
import logging
import re
import shlex
import shutil
from collections.abc import Generator, Sequence
from typing import Protocol

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources.shards import paths
from patchmill.loaders.sources.stream import over_fsspec
from patchmill.loaders.sources.stream.over_commands import CommandShard, FileShard
from patchmill.loaders.sources.stream.over_http import HttpShard
from patchmill.loaders.sources.stream.patience import Halt, Patience
from patchmill.loaders.sources.stream.redact import redact

log = logging.getLogger("patchmill")

_STORES = {  # scheme -> the package with its file system for fsspec
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "hf": "huggingface_hub",
}
_COMMANDS = {"s3": "aws s3 cp {} -", "gs": "gsutil cat {}"}  # where that is not installed
_BY_COMMAND = ("ais", "scp", "sftp", "ftps")


class Shard(Protocol):
    """A shard that can be opened repeatedly."""

    @property
    def has_known_end(self) -> bool:
        """True if a broken connection cannot be mistaken for the end of the shard."""
        ...

    def open(self, offset: int) -> tuple[int, Generator[bytes]]:
        """The offset it starts from, at most `offset`, and the data from there, in chunks."""
        ...


def open_shard(url: str, patience: Patience, halt: Halt) -> Shard:
    """The shard behind a URL; nothing is read yet."""
    scheme = _scheme(url)
    if scheme in ("http", "https"):
        return HttpShard(url, patience.timeout_s, halt)
    if scheme == "pipe":
        return CommandShard(url.removeprefix("pipe:"), "check the command", halt)
    if scheme == "file":
        return FileShard(_path(url))
    if over_fsspec.is_installed(scheme):
        return over_fsspec.StoreShard(url, patience.timeout_s, halt)
    if scheme in _COMMANDS:
        command = _COMMANDS[scheme].format(shlex.quote(url))
        remedy = f"check the credentials; {_STORES[scheme]} explains failures: {_install(scheme)}"
        return CommandShard(command, remedy, halt)
    return CommandShard(_command(url), "check the URL", halt)


def expand(urls: str | Sequence[str], patience: Patience) -> list[str]:
    """URLs of all shards: brace ranges in their order, patterns and folders sorted."""
    expanded = paths.expand_urls(urls)
    for scheme in dict.fromkeys(map(_scheme, expanded)):
        _check_scheme(scheme, next(url for url in expanded if _scheme(url) == scheme))
    return [shard for url in expanded for shard in _expand_pattern(url, patience)]


def _expand_pattern(url: str, patience: Patience) -> list[str]:
    scheme = _scheme(url)
    if scheme == "pipe":
        return [url]
    if scheme in ("http", "https"):
        if re.search(r"[*\[]", url.partition("://")[2].partition("?")[0].partition("/")[2]):
            raise MillError(
                f"web servers do not list files, so {redact(url)!r} matches none: "
                "write a range, as in data-{000000..000146}.tar"
            )
        return [url]
    pattern = f"{url}*.tar" if url.endswith("/") else url
    if not glob.has_magic(pattern):
        return [url]
    if scheme == "file":
        matches = [f"file://{path}" for path in sorted(glob.glob(_path(pattern)))]
    elif over_fsspec.is_installed(scheme):
        matches = over_fsspec.expand_glob(pattern, patience.timeout_s)
    elif scheme in _STORES:
        package = _STORES[scheme]
        raise MillError(f"{redact(url)} is a pattern, which needs {package}: {_install(scheme)}")
    else:
        raise MillError(
            f"{redact(url)} is a pattern, and {scheme}:// lists no files: write a range"
        )
    if not matches:
        raise MillError(f"no shard matches {redact(pattern)}: check the pattern")
    return matches


def _check_scheme(scheme: str, url: str) -> None:
    """Reject what cannot be read here; log what reads it, if there is a choice."""
    if scheme in ("http", "https", "pipe", "file", *_BY_COMMAND):
        return
    if over_fsspec.is_installed(scheme):
        _say_once(
            f"{scheme}:// is read by fsspec with {_STORES.get(scheme, 'its own file system')}"
        )
    elif scheme in _COMMANDS and shutil.which(command := _COMMANDS[scheme].split()[0]):
        _say_once(
            f"{scheme}:// is read by the command {command}; {_STORES[scheme]} is faster and "
            f"explains failures: {_install(scheme)}"
        )
    elif scheme in _STORES:
        raise MillError(
            f"streaming from {redact(url)} needs the package {_STORES[scheme]}: {_install(scheme)}"
        )
    else:
        known = ", ".join(sorted(("http", "https", "file", *_STORES, *_BY_COMMAND)))
        raise MillError(
            f"shards cannot be streamed from {redact(url)!r}: it must begin with one of {known} "
            "and ://, or another scheme of fsspec; pipe:COMMAND reads from anything"
        )


@functools.cache
def _say_once(text: str) -> None:
    log.info("%s", text)


def _install(scheme: str) -> str:
    return f"pip install fsspec {_STORES[scheme]}"


def _command(url: str) -> str:
    quoted = shlex.quote(url)
    if url.startswith("ais:"):
        return f"ais get {quoted} -"
    return f"curl --connect-timeout 30 -f -s -S -L {quoted}"


def _scheme(url: str) -> str:
    return url.partition(":")[0].lower()


def _path(url: str) -> str:
    """The path of a file URL."""
    return re.sub(r"^file:(//)?", "", url)
