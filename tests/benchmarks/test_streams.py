"""The benchmark of streams: contenders and shares."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from patchmill.benchmarks import streams


def test_all_streams_in_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("AWS_ENDPOINT_URL", *streams._S3_SETTINGS):
        monkeypatch.setenv(name, "")  # to be restored
    out = tmp_path / "out.json"
    small = "dino(local_crops=1, global_size=32, local_size=16)"
    streams.main(
        ["--data", "scenes(count=6, size=64)", "--copies", "2", "--recipe", small, "--rounds", "1",
         "--batch-size", "4", "--workers", "1", "--json", str(out)]
    )  # fmt: skip
    content = json.loads(out.read_text())
    rates, reads = content["images_per_s"], content["read_mb_per_s"]
    assert {streams.LOCAL, "file://", "http://"} <= set(rates)
    assert ("s3://" in rates) != any("s3:// is skipped" in note for note in content["notes"])
    assert {streams.LOCAL, *reads} == set(rates)
    assert all(row["median"] > 0 for row in (*rates.values(), *reads.values()))
    assert "share of local shards" in capsys.readouterr().out
