"""Free memory, as the machine and its container allow it, and kinds of file systems."""

from __future__ import annotations

from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def memory_limit(root: Path = _CGROUP) -> int | None:
    """Bytes of memory that a container gets; None without a limit."""
    for file in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limit = int((root / file).read_text())
            return limit if limit < 2**60 else None
        except (OSError, ValueError):
            continue
    return None


def free_memory(root: Path = _CGROUP, meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes that this process may still take without swapping; None where that is not known."""
    available = _figure(meminfo, "MemAvailable:", 1024)
    limit, used = memory_limit(root), _used(root)
    if limit is None or used is None:
        return available
    left = max(limit - used, 0)
    return left if available is None else min(left, available)


def _used(root: Path) -> int | None:
    """Bytes of memory in use in the container, without the files that it only caches."""
    for usage, stat in (
        ("memory.current", "memory.stat"),
        ("memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            used = int((root / usage).read_text())
        except (OSError, ValueError):
            continue
        cached = (_figure(root / stat, f"{kind}_file ", 1) or 0 for kind in ("inactive", "active"))
        return used - sum(cached)
    return None


def _figure(file: Path, key: str, unit: int) -> int | None:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    values = (int(line[len(key) :].split()[0]) * unit for line in lines if line.startswith(key))
    return next(values, None)


def file_system(path: Path) -> str:
    """Kind of the file system that holds `path`: ext4, nfs4, overlay, ..."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "a disk"
    resolved = path.resolve()
    holding = [(len(at), kind) for _, at, kind, *_ in mounts if resolved.is_relative_to(at)]
    return max(holding, default=(0, "a disk"))[1]
