"""Memory available on the host or in its container, and types of file systems."""

from __future__ import annotations

from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def memory_limit(root: Path = _CGROUP) -> int | None:
    """Memory limit of the container in bytes; None without a limit."""
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
    """Bytes that this process can still allocate without swapping; None if unknown.

    This is the minimum of the machine's available memory and the memory left in each control group
    of the process, such as a container's or a job's.
    """
    left = [_left(folder) for folder in _own_groups(root, groups)]
    known = [size for size in (_figure(meminfo, "MemAvailable:", 1024), *left) if size is not None]
    return min(known, default=None)


def _own_groups(root: Path, groups: Path) -> list[Path]:
    """Folders of this process's memory control groups, of either version."""
    try:
        lines = [line.split(":", 2) for line in groups.read_text().splitlines()]
    except OSError:
        lines = []
    paths = {Path("/")} | {Path(path) for _, kinds, path in lines if kinds in ("", "memory")}
    inside = {parent for path in paths for parent in (path, *path.parents)}
    return [top / str(path).lstrip("/") for top in (root, root / "memory") for path in inside]


def _left(group: Path) -> int | None:
    """Bytes left in a control group, counting its page cache as free; None without a limit."""
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
    """Type of the file system that holds `path`: ext4, nfs4, overlay, ..."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "a disk"
    resolved = path.resolve()
    holding = [(len(at), kind) for _, at, kind, *_ in mounts if resolved.is_relative_to(at)]
    return max(holding, default=(0, "a disk"))[1]
