"""What a job asks of SLURM: the cluster's profile, the user's own file, and the command line."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchmill.loaders.common import settings as typed
from patchmill.loaders.common.calls import nearest
from patchmill.loaders.common.errors import MillError
from patchmill.training.config.settings import Count, Whole

FOLDER = Path(__file__).parent / "profiles"
USUAL = "slurm"
NAME = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Resources:
    nodes: Count = 1
    gpus_per_node: Whole = 8
    tasks_per_node: Count | None = None  # processes; by default one for each GPU
    cpus_per_task: Count = 8
    time: str = "24:00:00"  # as sbatch takes it: minutes, hours:minutes:seconds, days-hours
    mem: str | None = None  # of a node, as 400G; 0 is all of it
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    dependency: str | None = None
    comment: str | None = None
    requeue: bool = True
    signal_delay: Count = 180  # seconds before the time limit at which a checkpoint is asked for
    array_parallelism: Count = 256  # runs of a sweep at a time
    env: Any = field(default_factory=dict)  # variables of the job, such as NCCL_SOCKET_IFNAME
    setup: Any = ()  # lines of shell before training, such as module load cuda
    slurm: Any = field(default_factory=dict)  # any other option of sbatch -> its value

    @property
    def tasks(self) -> int:
        """Processes on each node."""
        return self.tasks_per_node or max(self.gpus_per_node, 1)


def find(given: Mapping[str, Any], profile: str | None = None) -> Resources:
    """The last of profile, user's file and `given` that says something holds."""
    own = _read(user_file()) if user_file().is_file() else {}
    profile = profile or own.get("cluster", USUAL)
    own = {key: value for key, value in own.items() if key != "cluster"}
    told = _read(_profile(str(profile)))
    merged = {**told, **own, **given}
    for key in ("env", "slurm"):
        merged[key] = {**_mapping(told, key), **_mapping(own, key), **given.get(key, {})}
    found: Resources = typed.from_plain(Resources, merged)
    _check(found)
    return found


def user_file() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "patchmill" / "cluster.yaml"


def minutes(text: str) -> int:
    """Of a time limit as sbatch takes it, rounded up."""
    days, dash, clock = text.rpartition("-")
    parts = clock.split(":")
    if not all(it.isdigit() for it in [*parts, days if dash else "0"]) or len(parts) > 3:
        raise MillError(f"time={text} is no time limit: write minutes, 24:00:00 or 2-00:00:00")
    numbers = [int(it) for it in parts]
    if not dash and len(numbers) < 3:  # minutes, and perhaps seconds
        numbers.insert(0, 0)
    hours, mins, seconds = [*numbers, 0, 0][:3]
    total = ((int(days or 0) * 24 + hours) * 60 + mins) * 60 + seconds
    if not total:
        raise MillError(f"time={text} is no time at all: write minutes, 24:00:00 or 2-00:00:00")
    return -(-total // 60)


def _check(found: Resources) -> None:
    lines = found.setup
    if not isinstance(lines, list | tuple) or not all(isinstance(it, str) for it in lines):
        raise MillError("setup must be a list of lines of shell")
    for name in found.env:
        if not NAME.fullmatch(str(name)):
            raise MillError(f"env: {name!r} is no name of an environment variable")
    # SLURM may send its signal a minute early, and starting takes a while, too.
    if minutes(found.time) * 60 < found.signal_delay + 60:
        raise MillError(
            f"time={found.time} leaves no time to train: a checkpoint is asked for "
            f"{found.signal_delay} to {found.signal_delay + 60} seconds before it is over; take "
            "more, or set signal_delay in a profile"
        )


def _mapping(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = data.get(key) or {}
    if not isinstance(found, dict):
        raise MillError(f"{key} must be a mapping, not {found!r}")
    return found


def _profile(name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    known = {path.stem: "" for path in sorted(FOLDER.glob("*.yaml"))}
    if name not in known:
        raise MillError(f"there is no cluster {name!r}{nearest(name, known)}; or name a YAML file")
    return FOLDER / f"{name}.yaml"


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise MillError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MillError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise MillError(f"{path} must be a mapping, as in partition: gpu")
    return data
