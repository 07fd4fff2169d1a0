"""A run is the same however often it is stopped, killed and resumed, and after a full disk."""

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
from patchmill.training.evaluation import online
from patchmill.training.ranks import signals
from patchmill.training.runtime import checkpoint, records, run_folder, setup

pytestmark = pytest.mark.usefixtures("no_report")

STEPS = 3 * helpers_runs.EPOCH


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_a_signal_saves_and_the_next_start_resumes(number, reference, tmp_path, monkeypatch):
    step = 7 if number != signal.SIGINT else 10  # in an epoch, and at the end of one
    given = helpers_runs.config(tmp_path, evaluate="knn")
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        helpers_runs.stop_at(patch, step, number)
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
        helpers_runs.stop_at(patch, STEPS, signal.SIGTERM)
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
    assert "SIGINT received: exiting, as there is nothing to save" in capfd.readouterr().err


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
            helpers_runs.stop_at(patch, step, signal.SIGTERM)
            helpers_runs.train(given)
    folder = helpers_runs.train(given)
    helpers_runs.assert_same(reference, helpers_runs.final(folder))
    assert helpers_runs.logged(folder) == helpers_runs.logged(undisturbed)


@pytest.mark.parametrize(
    "overrides",
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
    ids=lambda overrides: overrides["method"],
)
def test_every_kind_of_method_resumes(overrides, tmp_path: Path, monkeypatch):
    for key in [key for key in helpers_runs.OVERRIDES if key.startswith("method.")]:
        monkeypatch.delitem(helpers_runs.OVERRIDES, key)  # MoCo's
    overrides |= dict(train__epochs=2)
    network = Mapped if overrides["method"] == "gtsa" else Tiny
    whole = helpers_runs.train(helpers_runs.config(tmp_path / "whole", **overrides), network)
    config = helpers_runs.config(tmp_path / "stopped", **overrides)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        helpers_runs.stop_at(patch, 7, signal.SIGTERM)
        helpers_runs.train(config, network)
    resumed = helpers_runs.final(helpers_runs.train(config, network))
    helpers_runs.assert_same(helpers_runs.final(whole), resumed)


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
    assert (
        "step-00000010.pt: the disk is full (No space left on device); free some disk space, then"
        in str(caught.value)
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
        with pytest.raises(
            MillError, match=r"^cannot write .*/run.*: the disk is full .*; free some"
        ):
            helpers_runs.train(helpers_runs.config(tmp_path, train__epochs=1))
    assert run_folder.read_status(tmp_path / "run")["state"] == "failed"
    helpers_runs.train(helpers_runs.config(tmp_path, train__epochs=1))


@pytest.mark.parametrize(
    "content", [b"[1]", b"\xff", b'{"restarts": "two", "step": [], "time": {}}', b"[" * 9000]
)
def test_a_status_with_other_fields_is_rewritten(content: bytes, tmp_path: Path):
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
    with pytest.raises(MillError, match=r"run already holds a run, and resume=never"):
        helpers_runs.train(helpers_runs.config(tmp_path, train__epochs=1, resume="never"))


def test_resuming_from_an_earlier_checkpoint_of_the_run(reference: dict, tmp_path: Path):
    folder = helpers_runs.train(helpers_runs.config(tmp_path))
    again = helpers_runs.config(tmp_path, resume=checkpoint.path_at(folder, 5))
    helpers_runs.assert_same(reference, helpers_runs.final(helpers_runs.train(again)))
    assert len(list((folder / "checkpoints").glob("*.aside"))) == 2


def test_a_run_in_another_folder_resumes_from_a_checkpoint(reference: dict, tmp_path: Path):
    first = helpers_runs.train(helpers_runs.config(tmp_path))
    overrides = dict(name="other", resume=checkpoint.path_at(first, 5))
    other = helpers_runs.train(helpers_runs.config(tmp_path, **overrides))
    helpers_runs.assert_same(reference, helpers_runs.final(other))
    assert records.read(other)["step"][0] == 6
    helpers_runs.train(helpers_runs.config(tmp_path, **overrides))  # started again, it is finished
    with pytest.raises(MillError, match=r"there is no checkpoint .*nowhere.pt"):
        helpers_runs.train(helpers_runs.config(tmp_path, name="third", resume="nowhere.pt"))


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
