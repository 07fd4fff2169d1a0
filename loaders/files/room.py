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


def free_memory(
    root: Path = _CGROUP,
    groups: Path = Path("/proc/self/cgroup"),
    meminfo: Path = Path("/proc/meminfo"),
) -> int | None:
    """Bytes that this process may still take without swapping; None where that is not known.

    The smallest of what the machine has, and what is left to each control group that the process
    is in: a container's, a job's.
    """
    left = [_left(folder) for folder in _own_groups(root, groups)]
    known = [size for size in (_figure(meminfo, "MemAvailable:", 1024), *left) if size is not None]
    return min(known, default=None)


def _own_groups(root: Path, groups: Path) -> list[Path]:
    """Folders of the control groups of memory that this process is in, of either version."""
    try:
        lines = [line.split(":", 2) for line in groups.read_text().splitlines()]
    except OSError:
        lines = []
    paths = {Path("/")} | {Path(path) for _, kinds, path in lines if kinds in ("", "memory")}
    inside = {parent for path in paths for parent in (path, *path.parents)}
    return [top / str(path).lstrip("/") for top in (root, root / "memory") for path in inside]


def _left(group: Path) -> int | None:
    """Bytes left to a control group, counting files that it only caches; None without a limit."""
    for most, usage in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            limit, used = int((group / most).read_text()), int((group / usage).read_text())
        except (OSError, ValueError):
            continue
        kinds = ("inactive_file ", "active_file ")
        cached = sum(_figure(group / "memory.stat", kind, 1) or 0 for kind in kinds)
        return max(limit - used + cached, 0) if limit < 2**60 else None
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
