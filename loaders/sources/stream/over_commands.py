"""Shards that a command writes to its standard output, and shards in files."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Generator
from typing import Any, BinaryIO

from patchmill.loaders.sources.stream.faults import StreamFault
from patchmill.loaders.sources.stream.patience import Halt

_CHUNK = 1 << 18
_PATIENCE_S = 1.0  # for a command to exit after SIGTERM
_NEVER_RUN = (126, 127)  # exit statuses of a shell that could not run the command
_READER_GONE = (141, -13)  # ended by SIGPIPE
# In messages of aws, gsutil, curl and cat for errors that a retry cannot fix.
_FINAL = re.compile(
    r"(error|status|http)\b\D{0,20}\b40[134]\b|\bcredentials\b|no such file|"
    r"\((40[134]|NoSuchKey|NoSuchBucket|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch)\)",
    re.IGNORECASE,
)


class CommandShard:
    """The output of a shell command, which is rerun from the beginning after a fault."""

    has_known_end = False

    def __init__(self, command: str, remedy: str, halt: Halt) -> None:
        self._command, self._remedy, self._halt = command, remedy, halt

    def open(self, offset: int) -> tuple[int, Generator[bytes]]:
        return 0, self._chunks()

    def _chunks(self) -> Generator[bytes]:
        with tempfile.TemporaryFile() as errors:
            with subprocess.Popen(
                self._command,
                shell=True,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # to be able to kill a whole pipeline
            ) as process:
                self._halt.end_by(functools.partial(_signal, process, signal.SIGKILL))
                output: Any = process.stdout
                is_read = False
                try:
                    while chunk := output.read1(_CHUNK):
                        yield chunk
                    is_read = True
                finally:
                    if not is_read:
                        _end(process)
            status = process.returncode
            if status and status not in _READER_GONE:
                message = _last_line(errors)
                reason = f"the command fails (exit {status})" + (f": {message}" if message else "")
                final = status in _NEVER_RUN or _FINAL.search(message)
                raise StreamFault(reason, self._remedy, retry=not final)


class FileShard:
    """A shard in a file named by a URL."""

    has_known_end = True

    def __init__(self, path: str) -> None:
        self._path = path

    def open(self, offset: int) -> tuple[int, Generator[bytes]]:
        try:
            file = open(self._path, "rb")
            file.seek(offset)
        except OSError as error:
            raise _file_fault(error) from None
        return offset, _file_chunks(file)


def _file_chunks(file: BinaryIO) -> Generator[bytes]:
    with file:
        try:
            while chunk := file.read(_CHUNK):
                yield chunk
        except OSError as error:
            raise _file_fault(error) from None


def _file_fault(error: OSError) -> StreamFault:
    retry = not isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError)
    return StreamFault(
        f"it cannot be opened or read ({error.strerror})", "check the path", retry=retry
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command whose output is no longer needed."""
    _signal(process, signal.SIGTERM)
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _last_line(file: BinaryIO) -> str:
    """The last non-empty line, in which aws, gsutil and curl give the reason."""
    file.seek(0, 2)
    file.seek(max(file.tell() - 4096, 0))
    lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
