"""Start SLURM with eight nodes on this machine, once for all tests that need it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import helpers_sandbox
import pytest

from patchmill.training.config import compose


def compile_all(folder: Path) -> None:
    """Compile once what each rank would compile in its own copy of the code."""
    from patchmill.training import engine

    overrides = {**helpers_sandbox.OVERRIDES, "train.epochs": "1", "out": str(folder)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATCHMILL_CACHE", str(folder / "cache"))
        engine.train(compose.compose([f"{key}={value}" for key, value in overrides.items()]))


@pytest.fixture(scope="session")
def slurm_conf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("slurm")
    compile_all(tmp_path_factory.mktemp("compiled"))
    with helpers_sandbox.numbers() as (port, job):
        command = [helpers_sandbox.SCRIPT, "start", folder, "8", "8", str(port), str(job)]
        try:
            subprocess.run(command, check=True)
            yield folder / "slurm.conf"
        finally:
            subprocess.run([helpers_sandbox.SCRIPT, "stop", folder], check=True)


@pytest.fixture(scope="module")
def cluster(slurm_conf: Path) -> Iterator[None]:
    """Let only these tests use that SLURM."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(slurm_conf))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("XDG_CONFIG_HOME", str(slurm_conf.parent))  # no user profile
        # Nodes share this machine's disk, and so its compiled kernels.
        patch.setenv("PATCHMILL_CACHE", str(slurm_conf.parent / "cache"))
        yield
