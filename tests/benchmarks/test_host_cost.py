"""The GIL benchmark: kinds of data, both pipelines, no GPU."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers_odd_images import jpeg

from patchmill.benchmarks import host_cost
from patchmill.benchmarks.host_cost import Released
from patchmill.loaders.common.errors import MillError

SMALL = ["--copies", "4", "--batch-size", "8", "--rounds", "1", "--recipe", "simclr(size=16)"]


@pytest.fixture
def data(tmp_path: Path) -> str:
    (tmp_path / "data").mkdir()
    for number in range(4):
        (tmp_path / "data" / f"{number}.jpg").write_bytes(jpeg(number))
    return str(tmp_path / "data")


@pytest.mark.parametrize(
    ("pipeline", "formats"),
    [
        pytest.param("dali", ("beton",), id="dali"),
        pytest.param("dali", host_cost.FORMATS, id="dali: all formats", marks=pytest.mark.slow),
        pytest.param("threads", host_cost.FORMATS, id="threads"),
    ],
)
def test_every_part_of_every_kind_of_data_has_a_row(
    pipeline: str,
    formats: tuple[str, ...],
    data: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("triton")
    if pipeline == "dali":
        pytest.importorskip("nvidia.dali", reason="needs DALI")
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(host_cost, "FORMATS", formats)
    out, threads = tmp_path / "out.json", torch.get_num_threads()
    argv = [*SMALL, "--data", data, "--pipeline", pipeline, "--json", str(out)]
    monkeypatch.setattr(sys, "argv", ["host_cost.py", *argv])
    try:
        host_cost.main(argv)
    finally:
        torch.set_num_threads(threads)
    content = json.loads(out.read_text())
    parts = (host_cost.FIRST, host_cost.LATER, host_cost.FEEDING, host_cost.TOTAL)
    names = [f"{kind}: {part}" for kind in formats for part in parts]
    assert [row["name"] for row in content["rows"]] == names
    assert all(row["us_per_image"] > 0 and row["most_images_per_s"] > 0 for row in content["rows"])
    assert (content["pipeline"], content["batch_size"]) == (pipeline, 8)
    assert "images/s at most" in capsys.readouterr().out


def test_time_of_calls_that_release_the_lock_is_counted_once() -> None:
    released = Released()
    inner = released.timed(lambda: time.sleep(0.02))
    released.timed(lambda: [inner(), inner()])()
    assert released.nanoseconds >= 0.04e9 and not released.inside


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--rounds", "0"], "--rounds must be above 0"),
        (["--batch-size", "-1"], "--batch-size must be above 0"),
        (["--copies", "1", "--batch-size", "3"], "4 images are less than two batches of 3"),
    ],
)
def test_a_mistake_is_one_sentence(argv: list[str], said: str, data: str) -> None:
    with pytest.raises(MillError, match=said) as caught:
        host_cost.main(["--data", data, "--pipeline", "threads", *argv])
    assert "\n" not in str(caught.value)
