"""Ranks see different images without being told which: torchrun, and Lightning's ddp."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers_examples import EXAMPLES, run_python, seen_by_ranks

# stable-pretraining gives every trainer callbacks that inspect the machine for seconds.
WITHOUT_CALLBACKS = f"""
import runpy
from lightning.pytorch.trainer.connectors import callback_connector
callback_connector._load_external_callbacks = lambda group: []
runpy.run_path({str(EXAMPLES / "with_lightning.py")!r}, run_name="__main__")
"""


def test_two_ranks_of_torchrun(tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    output = run_python([*torchrun, str(EXAMPLES / "plain_ddp.py"), "scenes:32"], tmp_path)
    assert_disjoint(output)


def test_two_ranks_of_lightning(tmp_path: Path) -> None:
    pytest.importorskip("lightning", reason="lightning is not installed")
    script = tmp_path / "script.py"  # which Lightning starts again, for the other rank
    script.write_text(WITHOUT_CALLBACKS)
    assert_disjoint(run_python([str(script), "scenes:32", "2"], tmp_path))


def assert_disjoint(output: str) -> None:
    seen = seen_by_ranks(output)
    assert sorted(seen) == [0, 1] and len(seen[0]) == len(seen[1]) == 16
    assert sorted(seen[0] + seen[1]) == list(range(32))
