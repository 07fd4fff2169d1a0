"""Skips what this machine cannot run, and says why."""

import functools
import shutil

import pytest


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, missing in (("gpu", missing_gpu), ("slurm", missing_slurm)):
        if item.get_closest_marker(marker) and (reason := missing()):
            pytest.skip(reason)


@functools.cache
def missing_gpu() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "needs a CUDA device"


@functools.cache
def missing_slurm() -> str | None:
    daemons = [name for name in ("slurmctld", "slurmd") if not shutil.which(name)]
    return f"needs {' and '.join(daemons)} on this machine" if daemons else None
