"""Guarded tensors to test the memory that kernels access, and processes that may crash on it.

Kernels run in `GuardedMemory`, within `trouble`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import tempfile
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import torch
from helpers_guarded import Guarded
from hypothesis import Phase, Verbosity, settings
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

ENDS = (False, True)  # end of the memory at which a tensor is placed
POISON = 0xFF  # every byte: NaN in floats, -1 in integers
FRESH = ("aten::lift_fresh",)  # last operation of torch.tensor: its result is not shared yet


class GuardedMemory(TorchDispatchMode):
    """Every tensor created in its context is guarded; uninitialised memory is poisoned.

    `given` are read-only copies for the kernels to read.
    """

    def __init__(self, at_end: bool) -> None:
        super().__init__()
        self._at_end = at_end

    def given(self, *tensors: torch.Tensor | None) -> list[Any]:
        return [None if it is None else self._copy(it, freeze=True) for it in tensors]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        results = func(*args, **(kwargs or {}))
        leaves, _ = tree_flatten((args, kwargs))
        known = {_storage(it) for it in leaves if isinstance(it, torch.Tensor)}
        fresh = func.name().startswith(FRESH)

        def guard(result: torch.Tensor) -> torch.Tensor:
            if _storage(result) in known and not fresh:
                return result
            return self._copy(result, poison="empty" in func.name())

        return tree_map_only(torch.Tensor, guard, results)

    def _copy(
        self, tensor: torch.Tensor, freeze: bool = False, poison: bool = False
    ) -> torch.Tensor:
        """Guarded copy with the same values and strides; gaps between them are poisoned."""
        if not tensor.numel():
            return tensor
        sides = zip(tensor.shape, tensor.stride(), strict=True)
        elements = 1 + sum((length - 1) * stride for length, stride in sides)
        memory = Guarded(elements * tensor.element_size(), self._at_end)
        memory.bytes[:] = POISON
        flat = torch.from_numpy(memory.bytes).view(tensor.dtype)
        copy = flat.as_strided(tensor.shape, tensor.stride())
        if not poison:
            once = tuple(slice(1 if stride == 0 else None) for stride in tensor.stride())
            copy[once] = tensor[once]
        if freeze:
            memory.freeze()
        return copy


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def trouble(check: Callable[[], None]) -> str | None:
    """Run `check` in a fork: return its exception, or where a segmentation fault ended it.

    A fault comes with the last printed text; None if nothing is wrong.
    """
    with tempfile.TemporaryFile("w+", buffering=1) as report:
        child = os.fork()
        if not child:
            _run(check, report)
        _, status = os.waitpid(child, 0)
        report.seek(0)
        text = report.read()
    if os.WIFSIGNALED(status):
        printed, _, where = text.partition("Fatal Python error")
        return f"{signal.Signals(os.WTERMSIG(status)).name}\n{printed[-500:]}{where[:2000]}"
    return text[-5000:] if os.waitstatus_to_exitcode(status) else None


def _run(check: Callable[[], None], report: TextIO) -> None:
    """Body of the fork, which has no other threads; never returns."""
    code = 1
    try:
        torch.set_num_threads(1)
        faulthandler.enable(report, all_threads=False)
        with contextlib.redirect_stdout(report):
            check()
        code = 0
    except BaseException:
        traceback.print_exc(file=report)
    finally:
        os._exit(code)


def random_cases(count: int = 8) -> settings:
    """The same cases each time, each printed before it runs; a failure ends them."""
    return settings(
        max_examples=count, deadline=None, derandomize=True, database=None,
        phases=[Phase.generate],
        verbosity=Verbosity.verbose,
    )  # fmt: skip


with GuardedMemory(True):  # slow imports, done once here instead of in every fork
    torch.empty(1)
