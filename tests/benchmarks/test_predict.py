"""The model of the renderer's GPU time: trip counts from rows, times from machine code."""

from __future__ import annotations

import numpy as np
import pytest

from patchmill.benchmarks.lib.machine_code import counting
from patchmill.benchmarks.lib.machine_code.counting import Instruction
from patchmill.benchmarks.lib.views import predict
from patchmill.benchmarks.lib.views.work import Work, work
from patchmill.kernels.views.decisions import CONTRAST, ROW, Target

TARGET = Target("view", 2, 64, True, (0.5,) * 3, (0.5,) * 3)
CONSTANTS = {
    "resize": {"TILE": 32, "TAPS_Y": 16, "TAPS_X": 32},
    "contrast": {"TILE": 32, "PIXELS": 2048, "STEP": 1024},
    "blur": {"TILE": 32, "TAPS_Y": 64, "TAPS_X": 16},
}


def rows() -> np.ndarray:
    """Two views of an image of 128 x 128 at half its scale: one plain, one with all passes."""
    plain = np.zeros(1, ROW)
    for side in ("box_h", "box_w"):
        plain[side] = 128
    plain["full_h"] = plain["full_w"] = 64
    plain["order"], plain["contrast"] = -1, 1
    full = plain.copy()
    full["order"], full["contrast"], full["sigma"], full["radius"] = CONTRAST, 0.5, 1.0, 3
    return np.stack([plain, full], 1)


def test_blocks_trips_and_bytes_are_those_of_the_rows():
    found = work(rows(), np.array([[128, 128]]), [TARGET], 2, CONSTANTS)
    resize, contrast, blur = found["resize"], found["contrast"], found["blur"]
    # A tile reads 68 of 128 source pixels a line: 3 strips of 32, 5 steps of 16.
    assert (resize.blocks, resize.trips) == (8, [24, 8 * 3 * 5])
    assert resize.memory_bytes == 3 * 128**2 + 3 * 64**2 * 2, "the image, and the finished view"
    assert (contrast.blocks, contrast.trips) == (2, [4, 4 * 4 / 4])
    # The first tile of a line reads 35 pixels, the second from 24, a multiple of 8, on.
    assert (blur.blocks, blur.trips) == (4, [4, 4, 4 * 3])
    assert blur.memory_bytes == 3 * 64**2 * 2, "planes stay in the cache"


def test_a_stage_takes_as_long_as_its_busiest_part():
    instructions = [Instruction(16 * i, "FFMA", None) for i in range(100)]
    instructions[10] = Instruction(160, "LDG.E.128", None)
    code = counting.MachineCode(instructions, registers=168, spilled=0)
    many = Work(1e6, [], 0, 5.5e6, 4.3e6)
    found = predict.predict("resize", 2, code, 4096, 2, many)
    cycles = 132 * 1.98e9
    assert found.warps == 12 and found.instructions == 2e8
    expected = {
        "issue": 2e8 / 3 / cycles,  # 12 warps, each every fourth cycle
        "load/store": 4 * 2e6 / cycles,
        "tensor": 0,
        "cache": 1e-6,
        "memory": 1e-6,
    }
    assert found.parts == pytest.approx(expected)
    assert found.limit == "issue"
    assert found.seconds == pytest.approx(expected["issue"] + 2 * predict.LAUNCH)
    with pytest.raises(ValueError, match="0 nested loops, not 1"):
        predict.predict("resize", 2, code, 4096, 2, Work(1, [1], 0, 0, 0))
