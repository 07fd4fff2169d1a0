"""Ranks see different images without being told which: torchrun, and Lightning's ddp."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers_examples import EXAMPLES, run_python, seen_by_ranks

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

# stable-pretraining gives every trainer callbacks that inspect the machine for seconds.
WITHOUT_CALLBACKS = f"""
import runpy
from lightning.pytorch.trainer.connectors import callback_connector
callback_connector._load_external_callbacks = lambda group: []
runpy.run_path({str(EXAMPLES / "with_lightning.py")!r}, run_name="__main__")
"""


def test_two_ranks_of_torchrun(tmp_path: Path) -> None:
    output = run_python([*TORCHRUN, str(EXAMPLES / "plain_ddp.py"), "scenes:32"], tmp_path)
    assert_disjoint(output)


TRAINER = """
import torch, transformers
from patchmill import loaders
from patchmill.loaders import Recipe, Views
from patchmill.loaders.adapt import LoaderTrainer, as_dicts

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.seen = torch.nn.Linear(3 * 8 * 8, 1), []
    def forward(self, pixel_values, ids):
        self.seen += ids.tolist()
        return {"loss": self.net(pixel_values.flatten(1)).mean()}

quiet = {"report_to": [], "disable_tqdm": True, "save_strategy": "no"}
arguments = transformers.TrainingArguments("out", num_train_epochs=1, use_cpu=True, **quiet)
loader = loaders.build("scenes:32", Recipe((Views("view", 1, 8),)), 8)
model = Model()
LoaderTrainer(model, arguments, loader=as_dicts(loader, pixel_values="view", ids="ids")).train()
print(f"rank {torch.distributed.get_rank()} saw images {sorted(model.seen)}", flush=True)
"""


@pytest.mark.slow
def test_two_ranks_of_transformers(tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    script = tmp_path / "script.py"
    script.write_text(TRAINER)
    assert_disjoint(run_python([*TORCHRUN, str(script)], tmp_path))


def test_two_ranks_of_lightning(tmp_path: Path) -> None:
    pytest.importorskip("lightning", reason="lightning is not installed")
    script = tmp_path / "script.py"  # which Lightning starts again, for the other rank
    script.write_text(WITHOUT_CALLBACKS)
    assert_disjoint(run_python([str(script), "scenes:32", "2"], tmp_path))


def assert_disjoint(output: str) -> None:
    seen = seen_by_ranks(output)
    assert sorted(seen) == [0, 1] and len(seen[0]) == len(seen[1]) == 16
    assert sorted(seen[0] + seen[1]) == list(range(32))
