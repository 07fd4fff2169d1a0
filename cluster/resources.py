"""Resources of a job, from the cluster's profile, the user's file and the command line."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from patchmill.cluster.slurm import container
from patchmill.loaders.common import plain_yaml
from patchmill.loaders.common import settings as typed
from patchmill.loaders.common.calls import nearest
from patchmill.loaders.common.errors import MillError
from patchmill.training.config.settings import Count, Whole

PROFILES = Path(__file__).parent / "profiles"
DEFAULT_PROFILE = "slurm"
VARIABLE_NAME = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Resources:
    nodes: Count = 1
    gpus_per_node: Whole = 8
    tasks_per_node: Count | None = None  # processes; by default one for each GPU
    cpus_per_task: Count = 8
    time: str = "24:00:00"  # in sbatch's format: minutes, hours:minutes:seconds, days-hours
    mem: str | None = None  # of a node, such as 400G; 0 for all of it
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    dependency: str | None = None
    comment: str | None = None
    requeue: bool = True
    signal_delay: Count = 180  # seconds before the time limit at which SLURM signals
    array_parallelism: Count = 256  # tasks of an array that run at the same time
    env: Any = field(default_factory=dict)  # environment of the job, such as NCCL_SOCKET_IFNAME
    setup: Any = ()  # shell lines before training, such as module load cuda
    bind: Literal["none", "cores", "numa"] = "none"  # processes to cores, or to NUMA nodes
    stage: str | None = None  # folder on each node's own disk to copy the training data to
    notify: str | None = None  # shell command to run on events of the job; see docs/cluster.md
    container: Any = field(default_factory=dict)  # image to run in; see cluster/slurm/container.py
    slurm: Any = field(default_factory=dict)  # any other option of sbatch -> its value

    @property
    def tasks(self) -> int:
        """Processes on each node."""
        return self.tasks_per_node or max(self.gpus_per_node, 1)


def load(options: Mapping[str, Any], profile: str | None = None) -> Resources:
    """Merge profile, user's file and options; later ones take precedence."""
    user = _read(user_file()) if user_file().is_file() else {}
    profile = profile or user.get("cluster", DEFAULT_PROFILE)
    user = {key: value for key, value in user.items() if key != "cluster"}
    base = _read(_profile_path(str(profile)))
    merged = {**base, **user, **options}
    for key in ("env", "slurm", "container"):
        merged[key] = {**_mapping(base, key), **_mapping(user, key), **options.get(key, {})}
    resources: Resources = typed.from_plain(Resources, merged)
    _check(resources)
    return resources


def user_file() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "patchmill" / "cluster.yaml"


def limit_minutes(text: str) -> int:
    """Minutes of a time limit in sbatch's notation, rounded up."""
    days, dash, clock = text.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in [*parts, days if dash else "0"]) or len(parts) > 3:
        raise MillError(f"time={text} is not a time limit: write minutes, 24:00:00 or 2-00:00:00")
    numbers = [int(part) for part in parts]
    if not dash and len(numbers) < 3:  # minutes, and perhaps seconds
        numbers.insert(0, 0)
    hours, mins, seconds = [*numbers, 0, 0][:3]
    total = ((int(days or 0) * 24 + hours) * 60 + mins) * 60 + seconds
    if not total:
        raise MillError(f"time={text} is not a time above 0: write minutes, 24:00:00 or 2-00:00:00")
    return -(-total // 60)


def _check(resources: Resources) -> None:
    lines = resources.setup
    if not isinstance(lines, list | tuple) or not all(isinstance(line, str) for line in lines):
        raise MillError("setup must be a list of shell lines")
    container.check(resources.container)
    for name in resources.env:
        if not VARIABLE_NAME.fullmatch(str(name)):
            raise MillError(f"env: {name!r} is not a name for an environment variable")
    # SLURM may signal a minute early, and starting takes time too.
    delay = resources.signal_delay
    if limit_minutes(resources.time) * 60 < delay + 60:
        raise MillError(
            f"time={resources.time} leaves no time to train: its last checkpoint is saved {delay} "
            f"to {delay + 60} seconds before the limit; ask for more, or set signal_delay"
        )


def _mapping(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key) or {}
    if not isinstance(value, dict):
        raise MillError(f"{key} must be a mapping, not {value!r}")
    return value


def _profile_path(name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    profiles = {path.stem: "" for path in sorted(PROFILES.glob("*.yaml"))}
    if name not in profiles:
        raise MillError(
            f"there is no cluster {name!r}{nearest(name, profiles)}; or name a YAML file"
        )
    return PROFILES / f"{name}.yaml"


def _read(path: Path) -> dict[str, Any]:
    try:
        data = plain_yaml.load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise MillError(f"cannot read {path}: {error.strerror}") from None
    except (plain_yaml.NotYaml, UnicodeDecodeError) as error:
        raise MillError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise MillError(f"{path} must be a mapping, as in partition: gpu")
    return data
