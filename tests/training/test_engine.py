"""A run trains, logs and saves as its settings say; failures are reported."""

from __future__ import annotations

import signal
from pathlib import Path

import helpers_runs
import pytest
import torch
from helpers_methods import Tiny

from patchmill.loaders.common.errors import MillError
from patchmill.training.runtime import checkpoint, hooks, records, run_folder

pytestmark = pytest.mark.usefixtures("no_report")

STEPS = 3 * helpers_runs.EPOCH


def test_a_tuned_loader_trains_the_same_network(reference: dict, tmp_path: Path):
    overrides = {"train__workers": "auto", "train__prefetch": "auto"}
    folder = helpers_runs.train(helpers_runs.config(tmp_path, **overrides))
    helpers_runs.assert_same(reference, helpers_runs.final(folder))


def test_the_loaders_bottleneck_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    sentences = iter(["decoding sets the pace"] * 9)
    monkeypatch.setattr(hooks.advice, "sentence", lambda *arguments: next(sentences))
    monkeypatch.setattr(hooks, "WAITING", 0.0)
    folder = helpers_runs.train(helpers_runs.config(tmp_path, train__log_every=10))
    said = [line for line in capsys.readouterr().err.splitlines() if "training waits" in line]
    assert len(said) == 1 and said[0].endswith("% of the time: decoding sets the pace")
    assert run_folder.read_status(folder)["loader"]["advice"] == "decoding sets the pace"


def test_a_run_writes_its_files(reference: dict, tmp_path: Path):
    folder = helpers_runs.train(helpers_runs.config(tmp_path, evaluate="knn"))
    helpers_runs.assert_same(reference, helpers_runs.final(folder))  # evaluation changes nothing
    status = run_folder.read_status(folder)
    assert (status["state"], status["step"], status["steps"]) == ("done", STEPS, STEPS)
    assert status["loader"]["stages"]["decode"]["items"] >= STEPS * 8
    assert 0 <= status["loader"]["wait_share"] <= 1 and status["loader"]["bad"] == 0
    assert [row["step"] for row in records.evaluations(folder)] == [0, 5, 10, 15]
    log = records.read(folder)
    assert log["step"] == [*range(2, STEPS, 2), STEPS]
    assert {"loss", "spread", "lr", "images_per_s", "wait", "grad_norm", "epoch"} <= set(log)
    # Four batches fill the queue: the first loss is that of the fifth step.
    assert [loss is None for loss in log["loss"]] == [True, True, *[False] * (len(log["loss"]) - 2)]
    assert list(log)[:3] == ["step", "loss", "spread"]
    assert [path.name for path in checkpoint.find_all(folder)] == [
        f"step-{step:08d}.pt" for step in (5, 10, 15)
    ]
    best = checkpoint.load(folder / "checkpoints" / "best.pt")
    found = {row["step"]: row["knn"] for row in records.evaluations(folder) if row["step"]}
    assert found[best["step"]] == max(found.values())
    for name in ("config.yaml", "views.png"):
        assert (folder / name).is_file()
    assert not list(folder.glob("stacks*"))


def test_the_share_of_pasted_views_is_logged(tmp_path: Path):
    """Scenes all have masks: the rate is the recipe's."""
    for rate, expected in ((0.0, 0.0), (1.0, 1.0), (0.3, 0.3)):
        folder = helpers_runs.train(
            helpers_runs.config(
                tmp_path,
                name=f"at-{rate}",
                method="dilo",
                method__views=f"dilo(size=16, paste={rate})",
                train__epochs=6 if rate == 0.3 else 1,
            )
        )
        pasted = records.read(folder)["pasted"]
        assert sum(pasted) / len(pasted) == pytest.approx(expected, abs=0.05)


@pytest.mark.xdist_group("ffcv")
def test_copy_paste_with_ffcv_trains_the_same_network(tmp_path: Path):
    pytest.importorskip("ffcv")
    from helpers_recipes_alike import beton_of_scenes  # which ranks of other tests do not find

    beton, losses = beton_of_scenes(tmp_path / "scenes.beton", 16, 32), []
    for pipeline in ("threads", "ffcv"):
        folder = helpers_runs.train(
            helpers_runs.config(
                tmp_path,
                name=pipeline,
                method="dilo",
                method__views="dilo(size=16, paste=0.7, background='images')",
                data__train=beton,
                train__pipeline=pipeline,
                train__epochs=2,
                train__log_every=1,
            )
        )
        losses.append(records.read(folder)["loss"])
    assert len(losses[0]) == 4 and losses[0] == losses[1]


def test_micro_batches_and_leftovers_of_an_epoch(tmp_path: Path, monkeypatch):
    """9 batches in an epoch, 4 in a step: the one left over is in no step."""
    overrides = dict(
        method="simclr", method__views="simclr(size=16)", method__dim=4, method__hidden=5
    )
    overrides = {**overrides, "data.train": "scenes(count=38, size=32)"}
    given = dict(train__batch_size=16, train__accumulate=4, train__epochs=2)
    for key in ("method.queue", "method.symmetric"):
        monkeypatch.delitem(helpers_runs.OVERRIDES, key)
    whole = helpers_runs.final(
        helpers_runs.train(helpers_runs.config(tmp_path / "whole", **overrides, **given))
    )
    assert whole["step"] == 4
    for step in (1, 2, 3):
        config = helpers_runs.config(tmp_path / str(step), **overrides, **given)
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            helpers_runs.stop_at(patch, step, signal.SIGTERM)
            helpers_runs.train(config)
        helpers_runs.assert_same(whole, helpers_runs.final(helpers_runs.train(config)))


def test_micro_batches_add_up_to_the_whole_gradient(tmp_path: Path, monkeypatch):
    """For a loss that is a mean over images, and a network without batch norm."""
    for name in ("method.queue", "method.symmetric", "method.dim", "method.hidden"):
        monkeypatch.delitem(helpers_runs.OVERRIDES, name)
    overrides = dict(method="supervised", method__views="moco_v1(size=16)", train__epochs=1)
    one = helpers_runs.final(
        helpers_runs.train(helpers_runs.config(tmp_path / "1", **overrides), Plain)
    )
    parts = helpers_runs.config(tmp_path / "4", **overrides, train__accumulate=4)
    four = helpers_runs.final(helpers_runs.train(parts, Plain))
    torch.testing.assert_close(four["method"], one["method"])


class Blocks(torch.nn.Module):
    """A network like timm's, whose Sequential's blocks are FSDP's units."""

    num_features = 6

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 6, 3)
        self.blocks = torch.nn.Sequential(*(torch.nn.Conv2d(6, 6, 3) for _ in range(2)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.stem(x).relu()).relu().mean((2, 3))


class Plain(torch.nn.Module):
    num_features = 6

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).relu().mean((2, 3))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_trains_and_resumes(precision, tmp_path, monkeypatch):
    overrides = dict(train__precision=precision, optim__grad_clip=1.0)
    whole = helpers_runs.final(
        helpers_runs.train(helpers_runs.config(tmp_path / "whole", **overrides))
    )
    assert all(it.dtype != torch.bfloat16 for it in whole["method"].values())
    assert bool(whole["scaler"]) == (precision == "fp16")
    config = helpers_runs.config(tmp_path / "stopped", **overrides)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        helpers_runs.stop_at(patch, 8, signal.SIGUSR1)
        helpers_runs.train(config)
    helpers_runs.assert_same(whole, helpers_runs.final(helpers_runs.train(config)))


def test_compiling_compiles_the_backbone_and_its_teacher(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__)
    )
    folder = helpers_runs.train(helpers_runs.config(tmp_path, train__epochs=1, train__compile=True))
    assert compiled == ["Tiny", "Teacher"]
    assert "backbone.conv.weight" in helpers_runs.final(folder)["method"]


def test_gradients_are_clipped(tmp_path: Path):
    overrides = dict(
        train__epochs=1, optim__momentum=0, optim__nesterov=False, optim__weight_decay=0
    )
    overrides |= dict(optim__schedule="constant", train__log_every=1)
    helpers_runs.train(helpers_runs.config(tmp_path / "free", **overrides))
    helpers_runs.train(
        helpers_runs.config(tmp_path / "clipped", **overrides, optim__grad_clip=1e-4)
    )
    weights = {
        name: checkpoint.load(checkpoint.path_at(tmp_path / name / "run", 5))["method"]
        for name in ("free", "clipped")
    }
    moved = records.read(tmp_path / "clipped" / "run")
    assert min(moved["grad_norm"]) > 1e-4  # what it was before
    start = helpers_runs.train(
        helpers_runs.config(tmp_path / "start", **overrides, optim__lr=1e-30)
    )
    start = checkpoint.load(checkpoint.path_at(start, 5))["method"]
    keys = [key for key in start if key.startswith("projector")]
    apart = sum((weights["clipped"][key] - start[key]).norm() ** 2 for key in keys) ** 0.5
    assert (
        apart <= 5 * 0.05 * 1e-4 < sum((weights["free"][key] - start[key]).norm() for key in keys)
    )


# --------------------------------------------------------------------------------- what goes wrong


class Explodes(Tiny):
    """Outputs NaN for its 12th training batch."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and torch.is_grad_enabled():
            type(self).calls += 1
        return super().forward(x) * (float("nan") if self.calls == 12 else 1.0)


def test_divergence_names_step_and_samples_and_keeps_the_last_good_state(tmp_path, monkeypatch):
    monkeypatch.setattr(Explodes, "calls", 0)
    seen = []
    saw = hooks.Hooks.after_backward
    monkeypatch.setattr(
        hooks.Hooks,
        "after_backward",
        lambda self, batch, losses: (seen.append(batch.ids), saw(self, batch, losses)),
    )
    with pytest.raises(MillError, match=r"diverged at step 12 \(loss nan") as caught:
        helpers_runs.train(
            helpers_runs.config(tmp_path, train__log_every=100, train__checkpoint_every=7), Explodes
        )
    assert f"with samples {', '.join(map(str, seen[11].tolist()))}:" in str(caught.value)
    assert str(caught.value).endswith("step-00000010.pt")
    folder = tmp_path / "run"
    assert [path.name[-5:-3] for path in checkpoint.find_all(folder)] == ["05", "07", "10"]
    assert run_folder.read_status(folder)["state"] == "failed"


def test_weights_that_are_not_finite_are_not_saved(tmp_path, monkeypatch):
    """The loss of step 5 is finite, its gradient is not, and a checkpoint is due."""
    from patchmill.training import engine

    clip = engine._clip_gradients

    def poisoned(state, wants_norm):
        if state.step == 4:
            next(state.method.projector.parameters()).grad.fill_(float("inf"))
        return clip(state, wants_norm)

    monkeypatch.setattr(engine, "_clip_gradients", poisoned)
    with pytest.raises(MillError, match=r"diverged at step 5 \(its weights .* the beginning"):
        helpers_runs.train(helpers_runs.config(tmp_path))
    assert not checkpoint.find_all(tmp_path / "run")


def test_batches_that_do_not_suit_the_method(tmp_path: Path):
    with pytest.raises(MillError, match="queue of 32 keys is not a multiple of a batch"):
        helpers_runs.train(helpers_runs.config(tmp_path, train__batch_size=12))
