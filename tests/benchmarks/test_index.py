"""The benchmark of huge indexes, on a small one."""

from __future__ import annotations

from pathlib import Path

from patchmill.benchmarks import index


def test_a_small_index_goes_the_whole_way(tmp_path: Path) -> None:
    found = index.measure(tmp_path, samples=200_000, shards=4)
    assert 40 <= found["index, bytes a sample"] < 40.1
    assert found["most memory, MiB"] >= found["memory before the walk, MiB"]
    assert all(value > 0 for value in found.values())
