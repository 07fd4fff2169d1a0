"""The decoder benchmark measures every installed library and compares its pixels with PIL's."""

import json
import sys
from pathlib import Path

import pytest

from patchmill.benchmarks import decoders


def test_every_installed_library_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path))
    command = ["decoders.py", "--data", "scenes(count=4, size=64)", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", [*command, "--json", str(tmp_path / "out.json")])
    decoders.main()
    report = json.loads((tmp_path / "out.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    assert {"patchmill", "simplejpeg", "PIL"} <= set(rows)
    assert report["images"]["count"] == 4 and report["machine"]["cores"] >= 1
    for name in ("patchmill", "simplejpeg", "PIL"):
        assert rows[name]["images_per_s"] > 0 and rows[name]["as_pil"] == 1
        assert rows[name]["stage"] == "decode" and rows[name]["workers"] == 1
