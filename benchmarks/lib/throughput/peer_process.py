"""A peer in another Python interpreter: the contender in this process, and its counterpart there.

They exchange lines of JSON: first the peer's arguments and whether it has started, then the seconds
of each turn and its images per second. The other interpreter needs the peer's library and torch,
not patchmill: this copy's folder is appended to its path, after its own packages.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, TextIO

import patchmill
from patchmill.benchmarks import peers
from patchmill.benchmarks.lib import machine
from patchmill.benchmarks.lib.throughput.batches import Making, peer_contender
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Recipe

_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from patchmill.benchmarks.lib.throughput import peer_process; peer_process.serve()"
)
_SECONDS_TO_CLOSE = 10.0


class PeerProcess:
    """Contender whose peer runs and is measured in the interpreter `python`."""

    stage = "loader"

    def __init__(
        self,
        name: str,
        python: str,
        paths: Sequence[str],
        recipe: Recipe,
        batch_size: int,
        workers: int,
        device: str = "cpu",
    ) -> None:
        peer = peers.load(name)
        self.name, self.workers = name, workers
        self.making = Making(peer.DECODER, peer.ANTIALIASED)
        self.remark = ""  # about the interpreter, once it runs
        self._python = python
        self._request = {
            "name": name,
            "paths": list(paths),
            "recipe": recipe.to_dict(),
            "batch_size": batch_size,
            "workers": workers,
            "device": device,
        }
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[bytes] | None = None

    def open(self) -> None:
        root = str(Path(patchmill.__file__).resolve().parents[1])
        self._errors = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(
                [self._python, "-c", _PROGRAM, root],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
            )
        except OSError as error:
            raise MillError(
                f"cannot run {self._python!r} for the {self.name} peer: {error.strerror}"
            ) from None
        python, version = self._ask(self._request)["runs"]
        self.remark = f"{self.name} ran in its own Python, {python}, as version {version}"

    def measure(self, seconds: float) -> float:
        return self._ask({"seconds": seconds})["rate"]

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process and self._process.stdin and self._process.stdout
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line) if line else {"error": self._last_line()}
        if "error" in answer:
            raise MillError(answer["error"])
        return answer

    def _last_line(self) -> str:
        assert self._errors
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        said = [line for line in map(str.strip, lines) if line]
        return f"{self._python} ended: {said[-1] if said else 'without a word'}"

    def close(self) -> None:
        if self._process and self._process.stdin and self._process.stdout:
            try:  # closing the pipe is not enough: workers forked since then hold it open
                print("null", file=self._process.stdin, flush=True)
                self._process.wait(_SECONDS_TO_CLOSE)
            except (OSError, subprocess.TimeoutExpired):
                self._process.kill()
                self._process.wait()
            with contextlib.suppress(BrokenPipeError):  # for data it did not read before it ended
                self._process.stdin.close()
            self._process.stdout.close()
        if self._errors:
            self._errors.close()


# -------------------------------------------------------------------------- in the other process


def serve() -> None:
    """Answer requests until one is null or the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keep output of libraries apart from answers
    requests = iter(sys.stdin)
    try:
        contender, remark = _start(json.loads(next(requests)))
    except Exception as error:
        _answer(answers, {"error": str(error).split("\n")[0] or type(error).__name__})
        return
    _answer(answers, {"runs": remark})
    try:
        for line in requests:
            request = json.loads(line)
            if request is None:
                break
            _answer(answers, {"rate": contender.measure(request["seconds"])})
    finally:
        contender.close()


def _start(request: dict[str, Any]) -> tuple[Any, tuple[str, str]]:
    import torch

    torch.set_num_threads(1)
    recipe = Recipe.from_dict(request.pop("recipe"))
    contender = peer_contender(recipe=recipe, **request)
    contender.open()
    return contender, (platform.python_version(), machine.version(request["name"]))


def _answer(answers: TextIO, content: dict[str, Any]) -> None:
    print(json.dumps(content), file=answers, flush=True)
