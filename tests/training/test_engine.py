"""A run is the same however often it is stopped and resumed; failures are reported."""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from pathlib import Path

import helpers_ranks
import helpers_runs
import pytest
import torch
from helpers_methods import Mapped, Tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchmill.loaders.common.errors import MillError
from patchmill.training import report
from patchmill.training.evaluation import online
from patchmill.training.ranks import signals
from patchmill.training.runtime import checkpoint, hooks, records, run_folder, setup

STEPS = 3 * helpers_runs.EPOCH


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(report, "write", lambda folder: folder / "report.html", raising=False)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an undisturbed run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "write", lambda folder: folder / "report.html", raising=False)
        torch.set_num_threads(1)
        return helpers_runs.train(helpers_runs.config(tmp_path_factory.mktemp("reference")))


@pytest.fixture(scope="module")
def reference(undisturbed: Path) -> dict:
    """Final state of an undisturbed run."""
    return helpers_runs.final(undisturbed)


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, number: int) -> None:
    """Send this process a signal in the middle of a step."""
    saw = hooks.Hooks.after_backward

    def saw_and_signal(self, batch, losses):
        saw(self, batch, losses)
        if self._state.step + 1 == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(hooks.Hooks, "after_backward", saw_and_signal)


def test_a_tuned_loader_teaches_the_same(reference: dict, tmp_path: Path):
    words = {"train__workers": "auto", "train__prefetch": "auto"}
    folder = helpers_runs.train(helpers_runs.config(tmp_path, **words))
    helpers_runs.assert_same(reference, helpers_runs.final(folder))


def test_what_holds_the_loader_up_is_said_once(
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
def test_copy_paste_by_ffcv_teaches_the_same(tmp_path: Path):
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


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_a_signal_saves_and_the_next_start_resumes(number, reference, tmp_path, monkeypatch):
    step = 7 if number != signal.SIGINT else 10  # in an epoch, and at the end of one
    given = helpers_runs.config(tmp_path, evaluate="knn")
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        stop_at(patch, step, number)
        with pytest.raises(SystemExit) as end:
            helpers_runs.train(given)
    assert end.value.code == signals.STOPPED == 75
    assert signal.getsignal(number) is before
    folder = tmp_path / "run"
    assert helpers_runs.final(folder)["step"] == step
    assert (run_folder.read_status(folder)["state"], run_folder.read_status(folder)["step"]) == (
        "stopped",
        step,
    )
    helpers_runs.assert_same(reference, helpers_runs.final(helpers_runs.train(given)))
    assert run_folder.read_status(folder)["restarts"] == 1
    assert [row["step"] for row in records.evaluations(folder)] == [0, 5, 10, 15]
    assert records.read(folder)["step"] == [*range(2, STEPS, 2), STEPS]


def test_a_signal_in_the_last_step_leaves_the_evaluation_to_the_next_start(
    reference, tmp_path, monkeypatch
):
    given = helpers_runs.config(tmp_path, evaluate="knn")
    with monkeypatch.context() as patch, pytest.raises(signals.Stopped):
        stop_at(patch, STEPS, signal.SIGTERM)
        helpers_runs.train(given)
    folder = tmp_path / "run"
    assert run_folder.read_status(folder)["state"] == "stopped"
    assert [row["step"] for row in records.evaluations(folder)] == [0, 5, 10]
    helpers_runs.assert_same(reference, helpers_runs.final(helpers_runs.train(given)))
    assert run_folder.read_status(folder)["state"] == "done"
    assert [row["step"] for row in records.evaluations(folder)] == [0, 5, 10, 15]


def test_a_signal_during_set_up_ends_the_run_before_its_first_step(
    tmp_path, monkeypatch, capfd: pytest.CaptureFixture[str]
):
    def build(config, world):
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("set-up goes on")

    monkeypatch.setattr(setup, "_build_method", build)
    with pytest.raises(signals.Stopped) as end:
        helpers_runs.train(helpers_runs.config(tmp_path))
    assert (end.value.code, end.value.signal) == (75, signal.SIGINT)
    assert checkpoint.find_all(tmp_path / "run") == []
    assert "SIGINT received: exiting, since nothing is to be saved" in capfd.readouterr().err


def test_a_signal_during_an_evaluation_ends_the_run_with_what_was_saved(
    reference, tmp_path, monkeypatch
):
    """The next start repeats the evaluation."""
    measure, measured = online.measure, []

    def measure_and_signal(*arguments):
        measured.append(measure(*arguments))
        if len(measured) == 2:  # the untrained network's was the first
            os.kill(os.getpid(), signal.SIGTERM)
        return measured[-1]

    given = helpers_runs.config(tmp_path, evaluate="knn")
    with monkeypatch.context() as patch, pytest.raises(signals.Stopped):
        patch.setattr(online, "measure", measure_and_signal)
        helpers_runs.train(given)
    folder = tmp_path / "run"
    status = run_folder.read_status(folder)
    assert (status["state"], status["step"]) == ("stopped", 5)
    assert helpers_runs.final(folder)["step"] == 5
    assert [row["step"] for row in records.evaluations(folder)] == [0]
    helpers_runs.assert_same(reference, helpers_runs.final(helpers_runs.train(given)))
    assert [row["step"] for row in records.evaluations(folder)] == [0, 5, 10, 15]


@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.integers(1, STEPS - 1), min_size=1, max_size=3, unique=True))
def test_any_number_of_stops_changes_nothing(reference, undisturbed, tmp_path_factory, stops):
    """Neither the final state nor a row of log.csv, but for what is measured in seconds."""
    given = helpers_runs.config(tmp_path_factory.mktemp("stops"))
    for step in sorted(stops):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
            stop_at(patch, step, signal.SIGTERM)
            helpers_runs.train(given)
    folder = helpers_runs.train(given)
    helpers_runs.assert_same(reference, helpers_runs.final(folder))
    assert helpers_runs.logged(folder) == helpers_runs.logged(undisturbed)


@pytest.mark.parametrize(
    "words",
    [
        dict(method="byol", method__views="vicreg(size=16)", method__hidden=8),
        dict(
            method="lejepa",
            method__views="lejepa(global_size=16, local_crops=1, local_size=12)",
            method__hidden="[8]",
            method__directions=16,
        ),
        dict(
            method="dino",
            method__views="dino(global_size=16, local_crops=1, local_size=12)",
            method__hidden=8,
            method__dim=4,
            method__prototypes=16,
            model__drop_path=0.1,
            optim__clip_each=0.1,
        ),
        dict(
            method="gtsa",
            method__views="gtsa(global_size=16, local_crops=1, local_size=8)",
            method__dim=4,
            method__match_after=0,
            method__bins="[3,2]",
        ),
    ],
    ids=lambda words: words["method"],
)
def test_every_kind_of_method_resumes(words, tmp_path: Path, monkeypatch):
    for key in [key for key in helpers_runs.WORDS if key.startswith("method.")]:
        monkeypatch.delitem(helpers_runs.WORDS, key)  # MoCo's
    words |= dict(train__epochs=2)
    network = Mapped if words["method"] == "gtsa" else Tiny
    whole = helpers_runs.train(helpers_runs.config(tmp_path / "whole", **words), network)
    config = helpers_runs.config(tmp_path / "stopped", **words)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        stop_at(patch, 7, signal.SIGTERM)
        helpers_runs.train(config, network)
    resumed = helpers_runs.final(helpers_runs.train(config, network))
    helpers_runs.assert_same(helpers_runs.final(whole), resumed)


def test_micro_batches_and_leftovers_of_an_epoch(tmp_path: Path, monkeypatch):
    """9 batches in an epoch, 4 in a step: the one left over is in no step."""
    words = dict(method="simclr", method__views="simclr(size=16)", method__dim=4, method__hidden=5)
    words = {**words, "data.train": "scenes(count=38, size=32)"}
    given = dict(train__batch_size=16, train__accumulate=4, train__epochs=2)
    for key in ("method.queue", "method.symmetric"):
        monkeypatch.delitem(helpers_runs.WORDS, key)
    whole = helpers_runs.final(
        helpers_runs.train(helpers_runs.config(tmp_path / "whole", **words, **given))
    )
    assert whole["step"] == 4
    for step in (1, 2, 3):
        config = helpers_runs.config(tmp_path / str(step), **words, **given)
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            stop_at(patch, step, signal.SIGTERM)
            helpers_runs.train(config)
        helpers_runs.assert_same(whole, helpers_runs.final(helpers_runs.train(config)))


def test_micro_batches_add_up_to_the_whole_gradient(tmp_path: Path, monkeypatch):
    """For a loss that is a mean over images, and a network without batch norm."""
    for name in ("method.queue", "method.symmetric", "method.dim", "method.hidden"):
        monkeypatch.delitem(helpers_runs.WORDS, name)
    words = dict(method="supervised", method__views="moco_v1(size=16)", train__epochs=1)
    one = helpers_runs.final(
        helpers_runs.train(helpers_runs.config(tmp_path / "1", **words), Plain)
    )
    parts = helpers_runs.config(tmp_path / "4", **words, train__accumulate=4)
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
    words = dict(train__precision=precision, optim__grad_clip=1.0)
    whole = helpers_runs.final(helpers_runs.train(helpers_runs.config(tmp_path / "whole", **words)))
    assert all(it.dtype != torch.bfloat16 for it in whole["method"].values())
    assert bool(whole["scaler"]) == (precision == "fp16")
    config = helpers_runs.config(tmp_path / "stopped", **words)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        stop_at(patch, 8, signal.SIGUSR1)
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
    words = dict(train__epochs=1, optim__momentum=0, optim__nesterov=False, optim__weight_decay=0)
    words |= dict(optim__schedule="constant", train__log_every=1)
    helpers_runs.train(helpers_runs.config(tmp_path / "free", **words))
    helpers_runs.train(helpers_runs.config(tmp_path / "clipped", **words, optim__grad_clip=1e-4))
    weights = {
        name: checkpoint.load(checkpoint.path_at(tmp_path / name / "run", 5))["method"]
        for name in ("free", "clipped")
    }
    moved = records.read(tmp_path / "clipped" / "run")
    assert min(moved["grad_norm"]) > 1e-4  # what it was before
    start = helpers_runs.train(helpers_runs.config(tmp_path / "start", **words, optim__lr=1e-30))
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


def test_a_full_disk_ends_the_run_and_the_next_start_resumes(reference, tmp_path, monkeypatch):
    save = torch.save

    def full(saved, file):
        if saved["step"] == 10:
            file.write(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(saved, file)

    with monkeypatch.context() as patch, pytest.raises(MillError) as caught:
        patch.setattr(torch, "save", full)
        helpers_runs.train(helpers_runs.config(tmp_path))
    assert "step-00000010.pt: the disk is full (No space left on device); make room, then" in str(
        caught.value
    )
    assert run_folder.read_status(tmp_path / "run")["state"] == "failed"
    helpers_runs.assert_same(
        reference, helpers_runs.final(helpers_runs.train(helpers_runs.config(tmp_path)))
    )


@pytest.mark.parametrize("name", ["checkpoints", ".log.csv.part"])
def test_a_disk_that_is_full_at_the_start(name, tmp_path: Path, monkeypatch):
    """One sentence, wherever the disk fills; the next start begins anew."""

    def full(call):
        def checked(path, *rest, **options):
            if Path(str(path)).name == name:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call(path, *rest, **options)

        return checked

    with monkeypatch.context() as patch:
        for module, function in ((builtins, "open"), (io, "open"), (os, "mkdir")):
            patch.setattr(module, function, full(getattr(module, function)))
        with pytest.raises(MillError, match=r"^cannot write .*/run.*: the disk is full .*; make "):
            helpers_runs.train(helpers_runs.config(tmp_path, train__epochs=1))
    assert run_folder.read_status(tmp_path / "run")["state"] == "failed"
    helpers_runs.train(helpers_runs.config(tmp_path, train__epochs=1))


@pytest.mark.parametrize(
    "content", [b"[1]", b"\xff", b'{"restarts": "two", "step": [], "time": {}}', b"[" * 9000]
)
def test_a_status_of_another_shape_is_written_anew(content: bytes, tmp_path: Path):
    (tmp_path / run_folder.STATUS).write_bytes(content)
    assert run_folder.read_status(tmp_path) == {}
    run_folder.Status(tmp_path, step=3)
    assert run_folder.read_status(tmp_path)["restarts"] == 0


def test_a_run_of_other_settings_is_not_resumed(tmp_path: Path):
    helpers_runs.train(helpers_runs.config(tmp_path, train__epochs=1))
    with pytest.raises(MillError, match=r"another run: optim.lr was 0.05 and is 0.1 now"):
        helpers_runs.train(helpers_runs.config(tmp_path, train__epochs=1, optim__lr=0.1))
    other = helpers_runs.config(tmp_path, train__epochs=1, train__workers=2, train__log_every=1)
    helpers_runs.train(other)  # which is not about what is learnt


def test_resume_never_refuses_an_existing_run(tmp_path: Path):
    helpers_runs.train(helpers_runs.config(tmp_path, train__epochs=1, resume="never"))
    with pytest.raises(MillError, match=r"run holds a run already, and resume=never"):
        helpers_runs.train(helpers_runs.config(tmp_path, train__epochs=1, resume="never"))


def test_resuming_from_an_earlier_checkpoint_of_the_run(reference: dict, tmp_path: Path):
    folder = helpers_runs.train(helpers_runs.config(tmp_path))
    again = helpers_runs.config(tmp_path, resume=checkpoint.path_at(folder, 5))
    helpers_runs.assert_same(reference, helpers_runs.final(helpers_runs.train(again)))
    assert len(list((folder / "checkpoints").glob("*.aside"))) == 2


def test_a_run_in_another_folder_resumes_from_a_checkpoint(reference: dict, tmp_path: Path):
    first = helpers_runs.train(helpers_runs.config(tmp_path))
    words = dict(name="other", resume=checkpoint.path_at(first, 5))
    other = helpers_runs.train(helpers_runs.config(tmp_path, **words))
    helpers_runs.assert_same(reference, helpers_runs.final(other))
    assert records.read(other)["step"][0] == 6
    helpers_runs.train(helpers_runs.config(tmp_path, **words))  # started again, it is finished
    with pytest.raises(MillError, match=r"there is no checkpoint .*nowhere.pt"):
        helpers_runs.train(helpers_runs.config(tmp_path, name="third", resume="nowhere.pt"))


def test_batches_that_do_not_suit_the_method(tmp_path: Path):
    with pytest.raises(MillError, match="queue of 32 keys is not a whole number of batches of 12"):
        helpers_runs.train(helpers_runs.config(tmp_path, train__batch_size=12))


def test_two_runs_in_one_folder(tmp_path: Path):
    with (
        run_folder.lock(tmp_path / "run"),
        pytest.raises(MillError, match="another process is writing"),
    ):
        helpers_runs.train(helpers_runs.config(tmp_path))


# ------------------------------------------------------------------------------------- as a process


@pytest.mark.parametrize("rename", [2, 5, 7, 9])
def test_a_process_that_is_killed_anywhere_resumes(rename, reference, tmp_path: Path):
    """Killed before the n-th rename: of settings, status, pictures, logs or checkpoints."""
    (ended,) = helpers_ranks.run(
        f"""
        left = [{rename}]
        replace = os.replace
        def dies(*names):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(*names)
        os.replace = dies
        helpers_runs.train(helpers_runs.config({str(tmp_path)!r}))
        """,
        tmp_path,
        size=1,
    )
    assert ended.code == -signal.SIGKILL
    assert run_folder.read_status(tmp_path / "run").get("state") in (None, "running")
    helpers_runs.assert_same(
        reference, helpers_runs.final(helpers_runs.train(helpers_runs.config(tmp_path)))
    )
