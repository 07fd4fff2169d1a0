"""Description of the machine and library versions for reports; memory and CPU counters."""

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

# Reported when installed.
LIBRARIES = (
    "torch",
    "torchvision",
    "torchcodec",
    "triton",
    "kornia",
    "albumentations",
    "albucore",
    "opencv-python",
    "opencv-python-headless",
    "spdl",
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
    "lightning",
    "lightly",
    "stable-pretraining",
    "transformers",
    "timm",
)

# Query field of nvidia-smi -> key of the report; clocks are the maximum clocks.
_GPU_FACTS = {
    "name": "name",
    "driver_version": "driver",
    "memory.total": "memory_mib",
    "clocks.max.sm": "clock_mhz",
    "clocks.max.mem": "memory_clock_mhz",
    "power.limit": "power_limit_w",
}


def describe() -> dict[str, Any]:
    """The `machine` entry of every JSON result."""
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
    """Name and memory of a GPU, for headlines."""
    import torch

    about = torch.cuda.get_device_properties(torch.device(device))
    return f"{about.name}, {about.total_memory / 2**30:.0f} GiB"


def gpu_facts() -> dict[str, Any]:
    """CUDA version, and the current GPU's driver, clocks and power limit if nvidia-smi runs."""
    import torch

    facts: dict[str, Any] = {"cuda": torch.version.cuda}
    uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
    query = f"--query-gpu={','.join(_GPU_FACTS)}"
    command = ["nvidia-smi", f"--id=GPU-{uuid}", query, "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return facts
    return facts | parse_gpu_facts(output.stdout)


def parse_gpu_facts(line: str) -> dict[str, Any]:
    """Parse a line of nvidia-smi's CSV; numeric fields become floats."""
    cells = [cell.strip() for cell in line.strip().split(",")]
    return {
        name: float(cell) if re.fullmatch(r"[\d.]+", cell) and cell.count(".") < 2 else cell
        for name, cell in zip(_GPU_FACTS.values(), cells, strict=False)
    }


def gpu_memory_used() -> int:
    """Bytes of the current GPU's memory in use by any process; 0 if CUDA is not initialised."""
    import torch

    if not torch.cuda.is_initialized():
        return 0
    free, total = torch.cuda.mem_get_info()
    return total - free


def free_gpu_cache() -> None:
    """Return torch's cached GPU memory, so that later allocations show up as used memory."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def versions() -> dict[str, str]:
    installed = {"patchmill": _patchmill_version()}
    return installed | {name: found for name in LIBRARIES if (found := version(name))}


def version(package: str) -> str:
    """The installed version; "" if none is."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _patchmill_version() -> str:
    """The version, with the commit when running from a repository."""
    folder = Path(patchmill.__file__).parent.parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return patchmill.__version__
    return f"{patchmill.__version__} ({commit.stdout.strip()})"


def resident_bytes() -> int:
    """Current resident memory of this process."""
    return _status_bytes("VmRSS") or peak_bytes()


def peak_bytes() -> int:
    """Peak resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return _status_bytes("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status_bytes(field: str) -> int | None:
    try:
        match = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return int(match[1]) * 1024 if match else None


def proportional_bytes(pid: int | None) -> int:
    """Proportional set size of a process: shared pages divided by their users; 0 if unknown."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    match = re.search(r"^Pss:\s*(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def busy_core_seconds() -> float:
    """CPU time of all processes on all cores since boot; 0 without /proc/stat."""
    try:
        fields = Path("/proc/stat").read_text().split(maxsplit=9)
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, softirq, stolen = map(int, fields[1:9])
    return (user + nice + system + irq + softirq + stolen) / os.sysconf("SC_CLK_TCK")
