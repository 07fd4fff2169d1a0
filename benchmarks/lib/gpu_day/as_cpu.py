"""pytest plugin that rehearses GPU tests on a CPU, where "cuda" means the CPU.

`-p patchmill.benchmarks.lib.gpu_day.as_cpu`. One case of each test function is run, with little
memory and time, to find mistakes that fail anywhere: names, arguments, imports, fixtures. Any other
error on a CPU is not a failure: the test is skipped, with the reason.
"""

from __future__ import annotations

import contextlib
import resource
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

SECONDS = 20  # a test
MEMORY = 4 << 30  # bytes, beyond those that the process has reserved initially
MISTAKES = (NameError, AttributeError, TypeError, ImportError, SyntaxError, KeyError)


class TooLong(Exception):
    """Raised if a test takes too long on a CPU."""


class CudaIsCpu(TorchFunctionMode):
    """Replaces the device in every call."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is torch.Tensor.cuda:
            return args[0].clone()
        args = tuple(map(_on_cpu, args))
        return function(*args, **{name: _on_cpu(value) for name, value in (kwargs or {}).items()})


class Stream:
    """A stream or an event on which all work is always complete."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name not in ("synchronize", "wait_stream", "wait_event", "record", "query"):
            raise AttributeError(name)
        return lambda *_, **__: True

    def record_event(self, *_: Any) -> Stream:
        return self


FAKES: dict[str, Any] = {
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "get_device_capability": lambda *_: (9, 0),
    "get_device_properties": lambda *_: SimpleNamespace(total_memory=MEMORY),
    "mem_get_info": lambda *_: (MEMORY, MEMORY),
    "Stream": Stream,
    "Event": Stream,
    "stream": contextlib.nullcontext,
    "current_stream": Stream,
    **{
        name: lambda *_: 0
        for name in ("memory_allocated", "memory_reserved", "max_memory_allocated")
    },
    **{
        name: lambda *_: None
        for name in (
            "synchronize",
            "reset_peak_memory_stats",
            "set_sync_debug_mode",
            "empty_cache",
            "set_per_process_memory_fraction",
            "_sleep",
        )
    },
}


def pytest_configure(config: pytest.Config) -> None:
    for name, fake in FAKES.items():
        setattr(torch.cuda, name, fake)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Keep the first case of each function."""
    first: dict[Any, Any] = {}
    for item in items:
        first.setdefault((item.path, getattr(item, "originalname", item.name)), item)
    items[:] = first.values()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    limit = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_reserved() + MEMORY, limit[1]))
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    try:
        with CudaIsCpu():
            yield
    except MISTAKES:
        raise
    except (Exception, pytest.fail.Exception) as error:
        text = " ".join(str(error).split())[:120]
        pytest.skip(f"another outcome on a CPU: {type(error).__name__}: {text}")
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, limit)


def _on_cpu(value: Any) -> Any:
    if isinstance(value, str) and value.partition(":")[0] == "cuda":
        return "cpu"
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device("cpu")
    return value


def _reserved() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _too_long(*_: object) -> None:
    raise TooLong(f"more than {SECONDS} s")
