"""The benchmark of huge indexes, on a small index."""

from __future__ import annotations

from pathlib import Path

from patchmill.benchmarks import index


def test_all_results_of_a_small_index(tmp_path: Path) -> None:
    results = index.measure(tmp_path, samples=200_000, shards=4)
    assert 34 <= results["index, bytes a sample"] < 34.1
    assert results["most memory, MiB"] >= results["memory before the walk, MiB"]
    assert all(value > 0 for value in results.values())
