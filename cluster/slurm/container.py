"""Containers in which the processes of a job run: `container` in a cluster's profile.

    container:
      image: /images/torch.sif     # or docker://pytorch/pytorch:2.9.0-cuda13-runtime
      runtime: apptainer           # or pyxis, a plugin of srun
      mounts: [/data, /scratch:/tmp]
      python: python3              # the container's; it needs what setup.cfg lists
      options: [--ipc]             # any other options of the runtime

The job's folder and the working directory are always mounted. The batch script itself, which merges
logs and requeues, runs outside.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchmill.loaders.common.calls import nearest
from patchmill.loaders.common.errors import MillError

RUNTIMES = ("apptainer", "pyxis")
FIELDS = {"image": "", "runtime": "apptainer", "mounts": (), "python": "python3", "options": ()}
EXAMPLE = "container: {image: /images/torch.sif}"


def check(container: Mapping[str, Any]) -> None:
    """Raise a MillError if this does not describe a container."""
    for name in container:
        if name not in FIELDS:
            raise MillError(f"container has no {name}{nearest(str(name), FIELDS)}")
    if container and not container.get("image"):
        raise MillError(f"container needs an image, as in {EXAMPLE}")
    if container.get("runtime", RUNTIMES[0]) not in RUNTIMES:
        raise MillError(
            f"container.runtime must be {' or '.join(RUNTIMES)}, not {container['runtime']!r}"
        )
    for name in ("mounts", "options"):
        texts = container.get(name, ())
        if not isinstance(texts, list | tuple) or not all(isinstance(t, str) for t in texts):
            raise MillError(f"container.{name} must be a list of strings, as in [/data]")
    for name in ("image", "python"):
        if not isinstance(container.get(name, ""), str):
            raise MillError(f"container.{name} must be a string, not {container[name]!r}")
    image = str(container.get("image", ""))
    if image.startswith(("/", "~", ".")) and not os.path.exists(os.path.expanduser(image)):
        raise MillError(f"there is no container image {image}")


def command(container: Mapping[str, Any], folder: Path, python: str) -> list[str]:
    """Command that starts Python for a job in `folder`, inside the container if there is one."""
    if not container:
        return [python]
    if container.get("runtime", RUNTIMES[0]) == "pyxis":
        return [container.get("python", FIELDS["python"])]
    mounts = [part for mount in _mounts(container, folder) for part in ("--bind", mount)]
    options = ["--nv", *mounts, *container.get("options", ())]
    image = os.path.expanduser(container["image"])
    return ["apptainer", "exec", *options, image, container.get("python", FIELDS["python"])]


def srun_options(container: Mapping[str, Any], folder: Path) -> list[str]:
    """Options of srun that start its processes in a container through pyxis."""
    if container.get("runtime") != "pyxis":
        return []
    mounts = [mount if ":" in mount else f"{mount}:{mount}" for mount in _mounts(container, folder)]
    return [
        f"--container-image={container['image']}",
        f"--container-mounts={','.join(mounts)}",
        *container.get("options", ()),
    ]


def _mounts(container: Mapping[str, Any], folder: Path) -> list[str]:
    """Folders mounted inside: the run's, the working directory, and those listed in the profile."""
    return [*map(str, dict.fromkeys([folder.parents[1], Path.cwd()])), *container.get("mounts", ())]
