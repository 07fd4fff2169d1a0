"""Several ranks learn what one learns, resume where others stopped, and end together."""

from __future__ import annotations

import json
from pathlib import Path

import helpers_ranks
import helpers_runs
import pytest
import torch

from patchmill.training import report
from patchmill.training.runtime import hooks, records


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(report, "write", lambda folder: folder / "report.html", raising=False)


def test_gradients_are_those_of_one_process_with_all_images(tmp_path: Path):
    """For methods whose loss is over the global batch, with batch norms in evaluation mode."""
    helpers_ranks.run_well(
        """
        import copy
        from dataclasses import replace
        from torch import nn
        from patchmill.training.ranks import sharding
        from patchmill.training.methods import METHODS, Progress, selfie

        cases = [
            ("moco", dict(dim=4, hidden=5, queue=32)),
            ("dilo", dict(dim=4, hidden=0, queue=32, symmetric=True)),
            ("simclr", dict(hidden=5, dim=4)),
            ("vicreg", dict(expander=[8, 8])),
            ("tcr", dict(hidden=8, dim=4)),
            ("emp_ssl", dict(hidden=8, dim=4)),
            ("byol", dict(hidden=8, dim=4)),
            ("lejepa", dict(hidden=[8], dim=4, directions=16)),
            ("dino", dict(hidden=8, dim=4, prototypes=16)),
            ("gtsa", dict(dim=4, bins=(3, 2))),
            *(("bagssl", dict(hidden=[8], dim=4, objective=it)) for it in
              ("tcr", "vicreg", "simclr", "byol")),
            ("selfie", dict(views="selfie(size=16)", masked=0.5, heads=2, dropout=0.0)),
        ]
        batches = {name: helpers_methods.noise(8, views=4 if name == "selfie" else 2)
                   for name, _ in cases}
        batches["gtsa"] = helpers_methods.crops(8, "gtsa(global_size=16, local_size=8)")
        orders = torch.rand(8, 4).argsort(1)  # of Selfie's patches, which ranks draw by themselves
        selfie.permutations = lambda grids, cells, device: orders[rows]
        rows = slice(None)
        whole = []
        for name, settings in cases:
            torch.manual_seed(0)
            network = helpers_methods.Mapped if name == "gtsa" else helpers_methods.Tiny
            method = METHODS[name](METHODS[name].Settings(**settings), network())
            for module in method.modules():
                if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                    module.eval()
            whole.append((method, copy.deepcopy(method)))
            method.on_step_start(Progress(0, 1, 0.0, 1))
            method(batches[name]).loss.backward()
        world = distributed.connect("cpu")
        rows = slice(4 * world.rank, 4 * world.rank + 4)
        for (name, _), (one, both) in zip(cases, whole):
            batch = batches[name]
            mine = replace(batch, views={key: views[rows] for key, views in batch.views.items()},
                           ids=batch.ids[rows], labels=batch.labels[rows],
                           rows=batch.rows[rows], shapes=batch.shapes[rows])
            both.on_step_start(Progress(0, 1, 0.0, 1))
            model = sharding.wrap(both, "ddp", world)
            model(mine).loss.backward()
            for (key, its), mine_too in zip(one.named_parameters(), both.parameters()):
                if its.requires_grad:
                    torch.testing.assert_close(mine_too.grad, its.grad, rtol=1e-4, atol=1e-5,
                                               msg=lambda text: f"{name} {key} {text}")
            for its, mine_too in zip(one.buffers(), both.buffers()):
                if its.ndim == 2:  # a queue: ranks put in both views' keys, one rank after another
                    its, mine_too = its.sort(0)[0], mine_too.sort(0)[0]
                torch.testing.assert_close(mine_too, its)
        distributed.close()
        """,
        tmp_path,
    )


RUNS = """
from helpers_runs import stop_at
from test_engine import Blocks, Plain
out = {out!r}
seen = []
saw = hooks.Hooks.after_backward
def record(self, batch, losses):
    seen.append([self._state.step, batch.ids.tolist()])
    saw(self, batch, losses)
hooks.Hooks.after_backward = record
def train(name, network=Plain, **overrides):
    seen.clear()
    code = 0
    try:
        helpers_runs.train(helpers_runs.config(out, name=name, **overrides), network)
    except SystemExit as end:
        code = end.code
    rank = int(os.environ["RANK"])
    open(f"{{out}}/{{name}}-{{rank}}.json", "a").write(json.dumps([code, seen]) + "\\n")
    next_rendezvous()
"""


def recorded(out: Path, name: str) -> list[list]:
    """For each start of a run: exit codes of the ranks, and ids of each step over both."""
    starts = []
    files = [(out / f"{name}-{rank}.json").read_text().splitlines() for rank in (0, 1)]
    for first, second in zip(*files, strict=True):
        (code, seen), (other, also) = json.loads(first), json.loads(second)
        steps = {a[0]: a[1] + b[1] for a, b in zip(seen, also, strict=True)}
        starts.append([(code, other), steps])
    return starts


def test_two_ranks_and_one_rank_learn_the_same_across_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from test_engine import Blocks, Plain

    helpers_ranks.run_well(
        RUNS.format(out=str(tmp_path))
        + """
import pytest
train("both", evaluate="knn")
train("normed", helpers_methods.Tiny)
with pytest.MonkeyPatch.context() as patch:
    if os.environ["RANK"] == "1":  # one rank alone is told to stop
        stop_at(patch, 7, signal.SIGTERM)
    train("stopped")
    if os.environ["RANK"] == "1":
        patch.undo()
train("stopped")
with pytest.MonkeyPatch.context() as patch:
    stop_at(patch, 3, signal.SIGUSR2)
    train("moved")
train("pieces", Blocks, train__parallel="fsdp", evaluate="moco")  # kNN in z
with pytest.MonkeyPatch.context() as patch:
    stop_at(patch, 8, signal.SIGUSR1)
    train("joined", Blocks, train__parallel="fsdp", optim__grad_clip=0.1)
""",
        tmp_path,
    )
    alone = helpers_runs.final(
        helpers_runs.train(helpers_runs.config(tmp_path, name="alone"), Plain)
    )
    ((codes, ids),) = recorded(tmp_path, "both")
    assert codes == (0, 0) and len(ids) == 15
    both = helpers_runs.final(tmp_path / "both")
    torch.testing.assert_close(both["method"], alone["method"], rtol=1e-3, atol=1e-5)

    # Stopped by a signal to one rank: both save the same step, and go on as if nothing had been.
    (codes, before), (_, after) = recorded(tmp_path, "stopped")
    assert (
        codes == (75, 75) and list(before) == list(range(8)) and list(after) == list(range(8, 15))
    )
    assert before | after == ids
    helpers_runs.assert_same(both, helpers_runs.final(tmp_path / "stopped"))

    # One rank goes on where two stopped: with the same images, and the same result but rounding.
    seen = {}
    saw = hooks.Hooks.after_backward
    monkeypatch.setattr(
        hooks.Hooks,
        "after_backward",
        lambda self, batch, losses: (
            seen.update({self._state.step: batch.ids.tolist()}),
            saw(self, batch, losses),
        ),
    )
    moved = helpers_runs.final(
        helpers_runs.train(helpers_runs.config(tmp_path, name="moved"), Plain)
    )
    assert seen == {step: ids[step] for step in range(4, 15)}
    torch.testing.assert_close(moved["method"], alone["method"], rtol=1e-3, atol=1e-5)

    # In pieces: the same, in the same files.
    alone = helpers_runs.final(
        helpers_runs.train(helpers_runs.config(tmp_path, name="whole"), Blocks)
    )
    pieces = helpers_runs.final(tmp_path / "pieces")
    for part in ("method", "optimiser"):
        torch.testing.assert_close(pieces[part], alone[part], rtol=1e-3, atol=1e-5)
    overrides = dict(optim__grad_clip=0.1)
    alone = helpers_runs.final(
        helpers_runs.train(helpers_runs.config(tmp_path, name="clipped", **overrides), Blocks)
    )
    joined = helpers_runs.final(
        helpers_runs.train(helpers_runs.config(tmp_path, name="joined", **overrides), Blocks)
    )
    torch.testing.assert_close(joined["method"], alone["method"], rtol=1e-3, atol=1e-5)

    assert [row["step"] for row in records.evaluations(tmp_path / "pieces")] == [5, 10, 15]
    assert [row["step"] for row in records.evaluations(tmp_path / "both")] == [0, 5, 10, 15]
