"""The machine: Python, cores, memory, and the folders that patchmill writes to."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from patchmill.command.doctor.finding import Finding
from patchmill.loaders.common.threads import available_cores, core_limit
from patchmill.loaders.files import cache
from patchmill.loaders.files.host import file_system, memory_limit

GIB = 2**30
LEAST_SHARED = 1 * GIB
LEAST_CACHE = 2 * GIB  # free, for indexes and compiled code
MOST_ENTRIES = 200_000  # of the cache to count
NETWORK = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "smb3", "ceph", "fuse.sshfs", "9p")


def python() -> Iterator[Finding]:
    yield Finding("Python", "ok", f"{platform.python_version()}, {sys.executable}")
    yield Finding("system", "ok", f"{platform.system()} {platform.release()}, {_distribution()}")


def cores() -> Iterator[Finding]:
    usable, visible, limit = available_cores(), os.cpu_count() or 1, core_limit()
    text = f"{_cpu()}: {usable} of {visible} cores are this process's"
    if limit is not None and limit < usable - 0.5:
        yield Finding(
            "cores",
            "warning",
            f"{text}, but it is limited to the time of {limit:g}",
            "more loading threads than that slow each other down",
            f"workers={max(1, round(limit))} of loaders.build, train.workers of training",
        )
    else:
        yield Finding("cores", "ok", text)
    flags = _cpu_flags()
    if flags and "avx2" not in flags:
        yield Finding("vectors", "warning", "no AVX2", "views are rendered more slowly")
    elif flags:
        yield Finding("vectors", "ok", "AVX-512" if "avx512bw" in flags else "AVX2")


def memory() -> Iterator[Finding]:
    total, available, limit = _meminfo("MemTotal"), _meminfo("MemAvailable"), memory_limit()
    if not total:
        return
    text = f"{total / GIB:.0f} GiB, {available / GIB:.0f} GiB of them free"
    if limit is not None and limit < total:
        text += f"; this process may use {limit / GIB:.1f} GiB"
    yield Finding("memory", "ok", text)
    shared = shutil.disk_usage("/dev/shm") if os.path.isdir("/dev/shm") else None
    if shared and shared.total < LEAST_SHARED:
        yield Finding(
            "/dev/shm",
            "warning",
            f"{shared.total / 2**20:.0f} MiB",
            "NCCL, and DataLoader's processes of other libraries, can run out of it; patchmill's "
            "loaders need none",
            "docker run --shm-size=8g, or --ipc=host",
        )
    elif shared:
        yield Finding("/dev/shm", "ok", f"{shared.free / GIB:.1f} GiB free")


def open_files() -> Iterator[Finding]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = "no limit" if soft == resource.RLIM_INFINITY else f"{soft:,} at a time"
    if 0 < soft < 1024:
        yield Finding(
            "open files", "warning", text, "data of many shards can exceed it", f"ulimit -n {hard}"
        )
    else:
        yield Finding("open files", "ok", text)


def cache_folder() -> Iterator[Finding]:
    root = cache.root()
    existing = next(path for path in (root, *root.absolute().parents) if path.exists())
    remedy = "export PATCHMILL_CACHE=DIR, a folder that can be written"
    cost = "indexes of data, masks and made-up scenes cannot be kept, and loaders do not start"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root) as file:
            file.write(b"doctor")
    except OSError as error:
        problem = error.strerror or str(error)
        yield Finding("cache", "broken", f"{root}: {problem}", cost, remedy)
        return
    kind, free = file_system(existing), shutil.disk_usage(existing).free
    text = f"{root}: {_size(root)}, {free / GIB:.0f} GiB free on {kind}"
    if free < LEAST_CACHE:
        yield Finding("cache", "warning", text, "indexes and compiled code may not fit", remedy)
    elif kind in NETWORK:
        yield Finding(
            "cache",
            "warning",
            text,
            "a network disk makes starts slower, and its locks may not work",
            "export PATCHMILL_CACHE=DIR, a folder on a local disk",
        )
    else:
        yield Finding("cache", "ok", text)


def disk() -> Iterator[Finding]:
    here = Path.cwd()
    usage, kind = shutil.disk_usage(here), file_system(here)
    text = f"{usage.free / GIB:.0f} of {usage.total / GIB:.0f} GiB free in {here} ({kind})"
    if usage.free < LEAST_CACHE:
        yield Finding("disk", "warning", text, "checkpoints of runs may not fit", "free some space")
    else:
        yield Finding("disk", "ok", text)


PROBES = {
    "Python": python,
    "cores": cores,
    "memory": memory,
    "open files": open_files,
    "cache": cache_folder,
    "disk": disk,
}


# --------------------------------------------------------------------------- what the system says


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.machine())
    except OSError:
        return platform.machine()


def _proc(file: str, key: str) -> str:
    try:
        lines = Path("/proc", file).read_text().splitlines()
    except OSError:
        return ""
    values = (line.partition(":")[2].strip() for line in lines if line.startswith(key))
    return next(values, "")


def _cpu() -> str:
    return _proc("cpuinfo", "model name") or platform.processor() or platform.machine()


def _cpu_flags() -> set[str]:
    return set(_proc("cpuinfo", "flags").split())


def _meminfo(key: str) -> int:
    fields = _proc("meminfo", f"{key}:").split()
    return int(fields[0]) * 1024 if fields else 0


def _size(folder: Path) -> str:
    """Size of all files in a folder, or of some of them if there are very many."""
    total = entries = 0
    for parent, _, files in os.walk(folder):
        for file in files:
            entries += 1
            try:
                total += os.lstat(os.path.join(parent, file)).st_size
            except OSError:
                continue
        if entries > MOST_ENTRIES:
            return f"more than {total / GIB:.1f} GiB"
    return f"{total / GIB:.1f} GiB" if total >= GIB / 10 else f"{total / 2**20:.0f} MiB"
