"""What a reader needs to know to place a number: the machine, and the versions of what ran."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import patchmill
from patchmill.loaders.common.threads import available_cores

# Whatever a benchmark may have used; those that are not installed are left out.
LIBRARIES = (
    "torch",
    "torchvision",
    "torchcodec",
    "triton",
    "kornia",
    "scikit-image",
    "numpy",
    "numba",
    "pillow",
    "simplejpeg",
    "nvidia-dali-cuda130",
    "nvidia-dali-cuda120",
    "nvidia-nvimgcodec-cu13",
    "nvidia-nvimgcodec-cu12",
    "ffcv",
)


# Of nvidia-smi, and what they are called here; clocks are the highest that the GPU may take.
_GPU_FACTS = {
    "name": "name",
    "driver_version": "driver",
    "memory.total": "memory_mib",
    "clocks.max.sm": "clock_mhz",
    "clocks.max.mem": "memory_clock_mhz",
    "power.limit": "power_limit_w",
}


def describe() -> dict[str, Any]:
    about = {
        "cpu": cpu(),
        "cores": cores(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "gpus": gpus(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
    }
    return about | ({"gpu": gpu_facts()} if about["gpus"] else {})


def cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def cores() -> int:
    """Number of cores that this process may run on."""
    return available_cores()


def gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def gpu(device: str) -> str:
    import torch

    about = torch.cuda.get_device_properties(torch.device(device))
    return f"{about.name}, {about.total_memory / 2**30:.0f} GiB"


def gpu_facts() -> dict[str, Any]:
    """Of the current GPU; without nvidia-smi only what torch knows."""
    import torch

    facts: dict[str, Any] = {"cuda": torch.version.cuda}
    uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
    which, asked = f"--id=GPU-{uuid}", f"--query-gpu={','.join(_GPU_FACTS)}"
    command = ["nvidia-smi", which, asked, "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return facts
    return facts | parse_gpu_facts(told.stdout)


def parse_gpu_facts(line: str) -> dict[str, Any]:
    """What nvidia-smi says, as numbers where they are numbers."""
    cells = [cell.strip() for cell in line.strip().split(",")]
    return {
        name: float(cell) if re.fullmatch(r"[\d.]+", cell) and cell.count(".") < 2 else cell
        for name, cell in zip(_GPU_FACTS.values(), cells, strict=False)
    }


def gpu_taken() -> int:
    """Bytes of the current GPU's memory that are taken, by whomever; 0 where no GPU is in use."""
    import torch

    if not torch.cuda.is_initialized():
        return 0
    free, total = torch.cuda.mem_get_info()
    return total - free


def free_gpu_cache() -> None:
    """So that what is taken next shows, rather than coming from memory that torch has kept."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def versions() -> dict[str, str]:
    found = {"patchmill": _own_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _own_version() -> str:
    """With the commit, where the project runs from its repository."""
    folder = Path(patchmill.__file__).parent.parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return patchmill.__version__
    return f"{patchmill.__version__} ({commit.stdout.strip()})"


def resident() -> int:
    """Bytes of memory that this process now has."""
    return _status("VmRSS") or peak()


def peak() -> int:
    """The most bytes of memory that this process has had at once."""
    unit = 1 if sys.platform == "darwin" else 1024
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(field: str) -> int | None:
    try:
        found = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def proportional(pid: int | None) -> int:
    """Bytes of memory that a process has, its part of what it shares with others; 0 if unknown."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^Pss:\s*(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def busy_seconds() -> float:
    """Of all cores' time, what anybody has worked in; 0 where the system does not tell."""
    try:
        fields = Path("/proc/stat").read_text().split(maxsplit=9)
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, softirq, stolen = map(int, fields[1:9])
    return (user + nice + system + irq + softirq + stolen) / os.sysconf("SC_CLK_TCK")
