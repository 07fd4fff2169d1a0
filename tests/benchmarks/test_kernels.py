"""The kernel benchmark: hand-computed floors, the command and its errors."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from patchmill.benchmarks import kernels
from patchmill.benchmarks.lib.views import stages as view_stages
from patchmill.benchmarks.lib.views.floors import COLOUR, GREY, LUMA, NORMALISE, floors, total
from patchmill.benchmarks.operations import contrast, measure
from patchmill.benchmarks.operations.case import (
    COMPILED,
    EAGER,
    OURS,
    Case,
    Floor,
    with_backward,
)
from patchmill.kernels.views.decisions import CONTRAST, GREY_LAST, HUE, NO_JITTER, ROW, Target
from patchmill.loaders import presets
from patchmill.loaders.common.errors import MillError

SMALL = "dino(local_crops=2, global_size=40, local_size=16)"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["kernels.py", *arguments])
    kernels.main()


def test_floors_by_hand():
    """Boxes of 128 x 192 pixels resized to views of 64: by 2 vertically and 3 horizontally."""
    target = Target("view", 3, 64, True, (0.5,) * 3, (0.5,) * 3)
    rows = np.zeros((1, 3), ROW)
    rows["box_h"], rows["box_w"], rows["full_h"], rows["full_w"] = 128, 192, 64, 64
    rows["box_y"][:, 2], rows["box_x"][:, 2] = 70, 100
    rows["order"], rows["contrast"], rows["brightness"], rows["saturation"] = NO_JITTER, 1, 1, 1
    rows["hue"][:, 1:], rows["contrast"][:, 1:] = 0.1, 1.5
    rows["order"][:, 1:] = HUE | CONTRAST << 2 | 2 << 4
    rows["grey"][:, 1] = GREY_LAST
    rows["sigma"][:, 2], rows["radius"][:, 2] = 1.0, 3
    stage_floors = floors(rows, np.array([[200, 300]]), [target], 2, 32)

    area, once = 64 * 64, 3 * 64 * 64 * 2
    resize, contrast, blur = stage_floors["resize"], stage_floors["contrast"], stage_floors["blur"]
    shown = 2 * 128 * 192 - (128 - 70) * (192 - 100)  # two views show the same, one overlaps it
    assert resize.bytes == 3 * shown + once + 2 * 6 * area
    assert resize.filter == 3 * 3 * area * (4 * 3 * 2 + 4 * 2)  # across first
    assert resize.other == area * (NORMALISE + 2 * (COLOUR[HUE] + LUMA))
    assert contrast.bytes == 6 * area + once + 12 * area
    assert contrast.other == area * (2 * COLOUR[CONTRAST] + GREY + NORMALISE)
    assert blur.bytes == 6 * area + once
    assert blur.filter == 3 * area * 2 * 7
    assert blur.memory(1e3) == blur.bytes / 1e3
    assert blur.arithmetic(10, 1e9) == blur.filter / 10

    combined = total(stage_floors.values())
    assert combined.bytes == resize.bytes + contrast.bytes + blur.bytes
    assert combined.filter == resize.filter + blur.filter
    assert combined.other == resize.other + contrast.other + blur.other


def test_a_window_reads_only_the_pixels_it_shows():
    """A quarter of a resized box, from its middle; then one half outside of it."""
    target = Target("cells", 2, 20, False, (0.5,) * 3, (0.5,) * 3)
    rows = np.zeros((1, 2), ROW)
    rows["box_h"], rows["box_w"], rows["full_h"], rows["full_w"] = 81, 40, 40, 40
    rows["order"], rows["contrast"] = NO_JITTER, 1
    rows["win_y"], rows["win_x"] = [10, -10], [10, 30]
    stage_floors = floors(rows, np.array([[100, 100]]), [target], 4, 32)
    written = 2 * 3 * 20 * 20 * 4
    first = (61 - 20) * 20  # rows 20.25 to 60.75
    second = 21 * 10  # rows 0 to 20.25, columns 30 to 40: none of the first's
    assert stage_floors["resize"].bytes == 3 * (first + second) + written


def test_small_views_need_no_contrast_pass():
    target = Target("view", 1, 32, False, (0.5,) * 3, (0.5,) * 3)
    rows = np.zeros((1, 1), ROW)
    rows["box_h"], rows["box_w"], rows["full_h"], rows["full_w"] = 32, 32, 32, 32
    rows["contrast"] = 1.5
    stage_floors = floors(rows, np.array([[32, 32]]), [target], 4, 32)
    assert stage_floors["contrast"].bytes == stage_floors["blur"].bytes == 0
    assert stage_floors["resize"].bytes == 3 * 32 * 32 * (1 + 4)


def test_the_cpu_renderers_stages(tmp_path: Path, monkeypatch, capsys):
    out = tmp_path / "out.json"
    small = ["--recipe", SMALL, "--batch-size", "2", "--rounds", "2", "--json", str(out)]
    run(monkeypatch, "views", "--device", "cpu", *small)
    result = json.loads(out.read_text())
    names = ["resize", "colour", "blur", "finish", "all stages"]
    assert [stage["stage"] for stage in result["stages"]] == names
    assert all(stage["us"] > 0 for stage in result["stages"])
    assert result["pixels"] == 2 * (2 * 40**2 + 2 * 16**2)
    assert "medians of 2 rounds" in capsys.readouterr().out


def test_a_missing_gpu_is_reported(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MillError, match="no CUDA device here: use --device cpu"):
        run(monkeypatch, "views", "--device", "cuda")


def test_wrong_numbers_are_refused(monkeypatch):
    with pytest.raises(MillError, match="must be above 0"):
        run(monkeypatch, "views", "--device", "cpu", "--rounds", "0")
    with pytest.raises(MillError, match="must be above 0"):
        run(monkeypatch, "views", "--device", "cpu", "--batch-size", "0")
    with pytest.raises(MillError, match="--rounds"):
        run(monkeypatch, "views", "--rounds", "many")


def test_operations_are_named_one_by_one_or_all(monkeypatch, tmp_path):
    with pytest.raises(MillError, match="no kernel 'contrats'"):
        run(monkeypatch, "contrats")
    with pytest.raises(MillError, match="by themselves"):
        run(monkeypatch, "views", "contrast")
    with pytest.raises(MillError, match="only for views"):
        run(monkeypatch, "contrast", "--dtype", "uint8")
    with pytest.raises(MillError, match="cannot draw views"):
        run(monkeypatch, "views", "--plot", str(tmp_path / "out.png"))


@pytest.fixture
def small(monkeypatch):
    """Replace all cases by a small one whose compiled contender fails."""
    x = torch.randn(300, 300, requires_grad=True)

    def fails() -> None:
        raise RuntimeError("no compiler")

    def make(device: torch.device, dtype: torch.dtype) -> list[Case]:
        runs = {
            OURS: with_backward(torch.tanh, x, wanted=[x]),
            EAGER: with_backward(lambda x: torch.tanh(x.repeat(50, 1)), x, wanted=[x]),
            COMPILED: fails,
        }
        return [Case("tanh", "300 x 300", runs, Floor(3 * 4 * x.numel()))]

    monkeypatch.setattr(contrast, "cases", make)
    monkeypatch.setattr(measure, "TURN", 0.001)


def test_an_operation_is_measured_shown_and_drawn(small, monkeypatch, tmp_path, capsys):
    out, plot = tmp_path / "out.json", tmp_path / "out.png"
    where = ["--device", "cpu", "--rounds", "2", "--json", str(out), "--plot", str(plot)]
    run(monkeypatch, "contrast", *where)
    result = json.loads(out.read_text())
    (case,) = result["cases"]
    ours, eager = case["contenders"]
    assert (case["operation"], ours["name"], eager["name"]) == ("tanh", OURS, EAGER)
    assert eager["times_eager"] == 1 and ours["ms"] > 0
    assert eager["extra_mib"] > 50 * 300 * 300 * 4 / 2**20 > ours["extra_mib"]
    (row,) = result["rows"]
    assert row["name"] == "tanh, 300 x 300" and row["ms"] == ours["ms"]
    assert row["eager_mib"] == eager["extra_mib"] and "times_compiled" not in row
    assert result["notes"] == ["tanh: torch.compile fails (RuntimeError)"]
    assert plot.stat().st_size > 1000
    assert "tanh, 300 x 300" in capsys.readouterr().out


@pytest.mark.parametrize("name", kernels.OPERATIONS)
def test_contenders_compute_the_same(name):
    """All contenders at the sizes of the CPU's cases, except the compiled ones."""
    module = importlib.import_module(f"patchmill.benchmarks.operations.{name}")
    for case in module.cases(torch.device("cpu"), torch.float32):
        results = {name: run() for name, run in case.contenders.items() if COMPILED not in name}
        expected = flat(results.pop(EAGER))
        # In 16 bits, eager PyTorch rounds lengths and similarities, and some best matches differ.
        most = 0.3 if "bfloat16" in case.shape else 1e-4
        for name, result in results.items():
            assert (flat(result) - expected).norm() < most * expected.norm(), (case.shape, name)


def flat(result: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
    tensors = [result] if isinstance(result, torch.Tensor) else result
    return torch.cat([it.detach().float().flatten() for it in tensors])


@pytest.mark.gpu
def test_the_gpu_renderers_stages(tmp_path: Path, monkeypatch):
    out = tmp_path / "out.json"
    run(monkeypatch, "views", "--batch-size", "16", "--rounds", "3", "--json", str(out))
    stages = json.loads(out.read_text())["stages"]
    names = ["weigh", "resize", "contrast", "blur", "all launches"]
    assert [stage["stage"] for stage in stages[:5]] == names
    assert all(0 < stage["floor_share"] <= 1 for stage in stages[1:5])


def test_inputs_are_reproducible():
    first, again = (view_stages.make_input(presets.moco_v2(32), 3) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first.images, again.images, strict=True))
    assert np.array_equal(first.rows, again.rows)
