"""The prediction of the resize pass's time, from a small machine code and a few views."""

from __future__ import annotations

import numpy as np
import pytest

from patchmill.benchmarks.lib.machine_code.counting import Instruction, MachineCode
from patchmill.benchmarks.lib.views import predicted
from patchmill.benchmarks.lib.views.predicted import Instructions, Steps
from patchmill.benchmarks.lib.views.stages import make_input
from patchmill.loaders import presets


def test_instructions_of_steps_strips_and_tiles():
    branches = {50: 30, 60: 20, 90: 70}  # two nested loops, then the jitter's
    code = [
        Instruction(at, "BRA" if at in branches else "FFMA", branches.get(at)) for at in range(100)
    ]
    count = Instructions.of(MachineCode(code, 128, 0))
    assert (count.step, count.strip) == (21, 41 - 21)
    assert count.tile == pytest.approx(100 - 41 - 21 + predicted.JITTER * predicted.CONTRAST * 21)


def test_steps_of_views_by_hand():
    batch = make_input(presets.moco_v2(64), 1)
    rows = batch.rows.copy()
    for name, value in {"box": 128, "full": 64}.items():
        rows[f"{name}_h"] = rows[f"{name}_w"] = value
    rows["win_y"] = rows["win_x"] = 0
    # Bilinear, halved: tiles 0..31 and 32..63 reach over source pixels 0..65 and 63..128.
    tall, wide = -(-65 // 16), -(-65 // 32)
    views = batch.targets[0].count
    expected = Steps(4 * views, 2 * 2 * wide * views, 4 * tall * wide * views)
    assert predicted.steps(rows, batch.targets, 32, 16, 32) == expected


def test_waiting_warps_take_longer():
    count, work = Instructions(100, 50, 1000.0), Steps(10, 20, 40)
    busy, waiting = predicted.seconds(count, work, 2, 12)
    assert busy == pytest.approx(2 * (4000 + 1000 + 10_000) / (1.98e9 * 132 * 4))
    assert waiting == pytest.approx(busy * (100 + predicted.STALL) / 300)
    assert predicted.seconds(count, work, 2, 64)[1] == busy
    assert np.isfinite(waiting)
