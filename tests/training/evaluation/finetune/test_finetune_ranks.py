"""Fine-tuning on several ranks gives the network that one rank gives."""

from __future__ import annotations

import json
from pathlib import Path

import helpers_ranks
import pytest

PROGRAM = """
import sys
sys.path[:0] = [{here!r}, {above!r}]
import json
from pathlib import Path
import helpers_finetune
import helpers_trained
from torch import nn
from patchmill.training.evaluation import trained_run
from patchmill.training.evaluation.finetune import train
from patchmill.training.nets import backbones

class Plain(nn.Sequential):  # without batch norm, which sees a rank's images alone
    num_features = 5
    def __init__(self):
        super().__init__(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

backbones.build = lambda settings, size, **_: Plain()
world = distributed.connect("cpu")
config = helpers_trained.settings(Path({out!r}), **helpers_finetune.OVERRIDES)
method = trained_run.untrained(config, world)
run = trained_run.TrainedRun(Path({out!r}), config, world, method, None, 1, 1.0)
networks = []
fit = train.fit
train.fit = lambda network, *others: networks.append(network) or fit(network, *others)
result = helpers_finetune.evaluate(run, baseline=True, lr=0.2, layer_decay=1.0)
weights = [values.sum(dtype=torch.float64).item() for values in networks[0].state_dict().values()]
print(json.dumps([weights, result.data["finetuned"]]))
distributed.close()
"""


def test_two_ranks_learn_as_one_does(tmp_path: Path):
    here = Path(__file__).parent
    result = []
    for size in (1, 2):
        (folder := tmp_path / str(size)).mkdir()
        values = {"here": str(here), "above": str(here.parent), "out": str(folder)}
        result += map(json.loads, helpers_ranks.run_well(PROGRAM.format(**values), folder, size))
    (one, scores), (first, scores_of_2), second = result
    assert [first, scores_of_2] == second
    assert first == pytest.approx(one, rel=1e-4, abs=1e-5)
    for title, row in scores.items():
        assert scores_of_2[title]["final_loss"] == pytest.approx(row["final_loss"], rel=1e-4)
        assert scores_of_2[title]["top1"] == pytest.approx(row["top1"], abs=0.05)
