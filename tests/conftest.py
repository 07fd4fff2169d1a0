"""Skips tests that this machine cannot run, with the reason."""

import functools
import logging
import os
import shutil
import sys
from collections.abc import Iterator

import pytest

# Before anything imports torch: makes its waiting threads sleep (see patchmill/script.py).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

NO_GPU = "needs a CUDA device"
# Parts of names of tests that run in one process, so that their shared set-up happens once.
SHARING = ("ffcv", "slurm", "gpu_day", "test_site", "test_packaging")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Run tests that share costly set-up in one process, which starts with them.

    Selected by name: xdist's groups have no effect since pytest 9.2 (pytest-xdist#1386).
    """
    from xdist.scheduler import LoadGroupScheduling

    class Scheduling(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            shared = next((word for word in SHARING if word in nodeid), None)
            return shared or super()._split_scope(nodeid)

    config.option.loadscopereorder = False  # keep the order of the next function
    return Scheduling(config, log) if config.getoption("dist") == "loadgroup" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest tests first, so that no worker is left alone with one at the end."""
    first = ("test_interpreted", *SHARING)
    items.sort(key=lambda item: next((i for i, it in enumerate(first) if it in item.nodeid), 99))


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, missing in (("gpu", missing_gpu), ("slurm", missing_slurm)):
        if item.get_closest_marker(marker) and (reason := missing()):
            pytest.skip(reason)


@pytest.fixture(autouse=True, scope="session")
def cache_of_this_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Isolate the tests from the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATCHMILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def logging_stays_as_it_is() -> Iterator[None]:
    """Undo stable-pretraining's changes to logging and tracebacks on import.

    Lightning's Trainer imports it if it is installed.
    """
    handlers, level, hook = logging.root.handlers[:], logging.root.level, sys.excepthook
    yield
    logging.root.handlers[:], sys.excepthook = handlers, hook
    logging.root.setLevel(level)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    if count := sum(NO_GPU in reason for reason in skipped):
        terminalreporter.write_line(f"{count} tests need a CUDA device and were skipped")


@functools.cache
def missing_gpu() -> str | None:
    import torch

    return None if torch.cuda.is_available() else NO_GPU


@functools.cache
def missing_slurm() -> str | None:
    daemons = [name for name in ("slurmctld", "slurmd") if not shutil.which(name)]
    return f"needs {' and '.join(daemons)} on this machine" if daemons else None
