"""What can be found wrong before a job is queued, and waits for hours to find it itself.

Each complaint is one sentence, and nothing has been written by then.
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
from patchmill.training import data, methods
from patchmill.training.config import compose, rules
from patchmill.training.config.recipes import training_recipe
from patchmill.training.config.settings import Config
from patchmill.training.nets import backbones
from patchmill.training.ranks.distributed import World
from patchmill.training.runtime import checkpoint

COPIES = 2  # of the weights in an optimiser's state, at most
SLACK = 1 << 28  # bytes, for logs, pictures and code


def check(config: Config, ranks: int) -> None:
    """A run's folder, disk, network and data; the plan has looked at its batch."""
    folder = Path(config.out) / config.name
    record.check_free(folder)
    _check_earlier(config, folder)
    place = _writable(folder)
    _check_room(config, place, ranks)
    _check_data(config, ranks)


def probe(resources: Resources) -> None:
    """Whether a node has what training imports: waits until one is free."""
    words = ["srun", "--nodes=1", "--ntasks=1", "--time=5", "--job-name=patchmill-probe"]
    for name in ("partition", "account", "qos", "constraint"):
        if value := getattr(resources, name):
            words.append(f"--{name}={value}")
    code = "import patchmill.training.engine, submitit"
    with commands.clean_environment():
        done = subprocess.run(
            [*words, sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    if done.returncode:
        last = [it for it in done.stderr.splitlines() if not it.startswith("srun:")][-1:]
        why = last[0] if last else commands.sentence(done.stderr)
        raise MillError(f"a node cannot run {sys.executable} as it must for training: {why}")


def _check_earlier(config: Config, folder: Path) -> None:
    """What training would refuse to go on from."""
    if not checkpoint.kept(folder):
        return
    if config.resume == "never":
        raise MillError(f"{folder} holds a run already, and resume=never: choose another --name")
    if not (folder / compose.FILE).exists():
        return
    if difference := compose.difference(compose.load(folder), config):
        raise MillError(
            f"{folder} holds another run: {difference}; go on with the same settings, or begin "
            "another run, as --name NAME"
        )


def _writable(folder: Path) -> Path:
    """The nearest folder that is there."""
    place = next(it for it in (folder, *folder.parents) if it.exists())
    if not place.is_dir():
        raise MillError(f"{place} is no folder, and the run is to lie in it: choose another --dir")
    if not os.access(place, os.W_OK | os.X_OK):
        raise MillError(f"you may not write to {place}: choose another --dir for the run")
    return place


def _check_data(config: Config, ranks: int) -> None:
    """Opens what training does, as its first rank, but on the CPU: the GPUs are elsewhere."""
    here = copy.deepcopy(config)
    here.train.device, here.train.pipeline, here.train.workers = "cpu", "threads", 1
    with tempfile.TemporaryDirectory(prefix="patchmill-") as folder:
        data.open_training(here, World(size=ranks), Path(folder)).close()
    if config.evaluate.knn_every and config.data.test:
        splits: tuple[data.Split, ...] = ("train", "test")
        for split in splits:
            data.open_evaluation(here, World(size=ranks), split).close()


def _check_room(config: Config, place: Path, ranks: int) -> None:
    one = _network(config, ranks) * (1 + COPIES)
    # Those that are kept, the best, and one that is being written.
    needed = one * (config.train.keep + 2) + SLACK
    free = shutil.disk_usage(place).free
    if free < needed:
        raise MillError(
            f"{place} has {free / 1e9:.1f} GB left, and checkpoints take up to {needed / 1e9:.1f} "
            "GB: make room, choose another --dir, or keep fewer, as train.keep=1"
        )


def _network(config: Config, ranks: int) -> int:
    """Bytes; made without weights, to see whether it can be."""
    (view, *_) = training_recipe(config).views
    labels = data.labels(config) if methods.METHODS[config.method_name].needs_labels else None
    with torch.device("meta"):
        method = methods.build(config, backbones.build(config.model, view.size), labels)
    rules.check_batch(config, method, ranks)
    return sum(it.numel() * it.element_size() for it in method.state_dict().values())
