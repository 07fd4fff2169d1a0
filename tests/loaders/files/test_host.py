"""Free memory is the least of what the machine, a container and a job have left."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchmill.loaders.files import host

GIB = 2**30


def group(folder: Path, limit: str, used: int, cached: int = 0, version: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for name, text in zip(names, (limit, str(used)), strict=True):
        (folder / name).write_text(text)
    lines = f"anon 7\ninactive_file {cached}\nactive_file 0\n"
    (folder / "memory.stat").write_text(lines)


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    (tmp_path / "meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable: {8 * GIB // 1024} kB\n")
    return tmp_path / "meminfo"


def free(tmp_path: Path, meminfo: Path, own: str = "") -> int | None:
    (tmp_path / "cgroup").write_text(own)
    return host.free_memory(tmp_path / "groups", tmp_path / "cgroup", meminfo)


def test_a_machine_without_limits(tmp_path: Path, meminfo: Path) -> None:
    assert free(tmp_path, meminfo) == 8 * GIB
    assert free(tmp_path, tmp_path / "none") is None
    group(tmp_path / "groups", "max", GIB)
    assert free(tmp_path, meminfo) == 8 * GIB


def test_a_container_and_the_files_that_it_only_caches(tmp_path: Path, meminfo: Path) -> None:
    group(tmp_path / "groups", str(4 * GIB), 3 * GIB, GIB)
    assert free(tmp_path, meminfo) == 2 * GIB
    group(tmp_path / "groups", str(4 * GIB), 5 * GIB)
    assert free(tmp_path, meminfo) == 0


def test_a_job_within_limits_of_its_own(tmp_path: Path, meminfo: Path) -> None:
    group(tmp_path / "groups" / "slurm" / "job_7", str(3 * GIB), GIB)
    group(tmp_path / "groups" / "slurm" / "job_7" / "step_0", "max", GIB)
    assert free(tmp_path, meminfo, "0::/slurm/job_7/step_0\n") == 2 * GIB


def test_groups_of_the_first_version(tmp_path: Path, meminfo: Path) -> None:
    group(tmp_path / "groups" / "memory" / "job", str(6 * GIB), GIB, version=1)
    group(tmp_path / "groups" / "memory", str(2**63 - 4096), GIB, version=1)
    assert free(tmp_path, meminfo, "4:cpu:/other\n9:memory:/job\n") == 5 * GIB
