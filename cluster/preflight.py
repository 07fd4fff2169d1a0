"""Check for problems that would make a job fail: folder, checkpoints, disk, network and data.

Runs before queueing, and writes nothing. Each problem is a MillError of one sentence.
"""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from patchmill.cluster.job import record
from patchmill.cluster.job.snapshot import ROOT
from patchmill.cluster.resources import Resources
from patchmill.cluster.slurm import commands
from patchmill.loaders.common.errors import MillError
from patchmill.training import data, data_notes, methods
from patchmill.training.config import compose, rules
from patchmill.training.config.settings import Config
from patchmill.training.ranks.distributed import World
from patchmill.training.runtime import checkpoint

MAX_OPTIMIZER_COPIES = 2  # of the weights, in an optimiser's state
OTHER_FILES = 1 << 28  # bytes for logs, pictures and code


def check(config: Config, ranks: int) -> None:
    """Check everything except the batch size, which job_plan.make checks."""
    folder = Path(config.out) / config.name
    record.check_free(folder)
    _check_earlier(config, folder)
    existing = _check_writable(folder)
    _check_disk(config, existing, ranks)
    _check_data(config, ranks)


def probe(resources: Resources) -> None:
    """Import what training needs on a node; waits until one is free."""
    command = ["srun", "--nodes=1", "--ntasks=1", "--time=5", "--job-name=patchmill-probe"]
    for name in ("partition", "account", "qos", "constraint"):
        if value := getattr(resources, name):
            command.append(f"--{name}={value}")
    code = "import patchmill.training.engine, submitit"
    with commands.clean_environment():
        done = subprocess.run(
            [*command, sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if not line.startswith("srun:")]
        why = errors[-1] if errors else commands.message(done.stderr)
        raise MillError(f"{sys.executable} cannot train on a node: {why}")


def _check_earlier(config: Config, folder: Path) -> None:
    """Refuse a folder whose checkpoints training would not resume from."""
    if not checkpoint.find_all(folder):
        return
    if config.resume == "never":
        raise MillError(f"{folder} holds a run already, and resume=never: choose another --name")
    if not (folder / compose.FILE).exists():
        return
    if difference := compose.difference(compose.load(folder), config):
        raise MillError(
            f"{folder} holds another run: {difference}; continue it with the same settings, or "
            "start another run with --name NAME"
        )


def _check_writable(folder: Path) -> Path:
    """Return the nearest existing folder, which must be writable."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise MillError(f"{existing} is not a folder: choose another --dir for the run")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise MillError(f"no permission to write to {existing}: choose another --dir for the run")
    return existing


def _check_data(config: Config, ranks: int) -> None:
    """Open the data as rank 0 will, but on the CPU, as the GPUs are on the nodes."""
    here = copy.deepcopy(config)
    here.train.device, here.train.pipeline, here.train.workers = "cpu", "threads", 1
    with tempfile.TemporaryDirectory(prefix="patchmill-") as folder:
        data.open_training(here, World(size=ranks), Path(folder)).close()
    if config.evaluate.knn_every and data_notes.measurable(config):
        labelled = data_notes.labelled(config)
        splits: tuple[data.Split, ...] = ("train", "test")
        for split in splits:
            data.open_evaluation(here, World(size=ranks), split, labelled=labelled).close()


def _check_disk(config: Config, folder: Path, ranks: int) -> None:
    checkpoint_bytes = _network_bytes(config, ranks) * (1 + MAX_OPTIMIZER_COPIES)
    # The kept ones, the best one, and one that is being written.
    needed = checkpoint_bytes * (config.train.keep + 2) + OTHER_FILES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise MillError(
            f"{folder} has {free / 1e9:.1f} GB left, and checkpoints take up to {needed / 1e9:.1f} "
            "GB: free some space, choose another --dir, or keep fewer with train.keep=1"
        )


def _network_bytes(config: Config, ranks: int) -> int:
    """Bytes of the weights; building the network, on the meta device, also checks its settings."""
    classes = data.classes_to_learn(config)
    with torch.device("meta"):
        method = methods.build(config, classes)
    rules.check_batch(config, method, ranks)
    return sum(t.numel() * t.element_size() for t in method.state_dict().values())
