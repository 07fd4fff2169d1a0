"""Records of a run survive a kill, and resume without a gap or an extra row."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import logging
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchmill.loaders.common.errors import MillError
from patchmill.training.runtime import records
from patchmill.training.runtime.records import EVALUATIONS, LOG, Recorder


def record(folder: Path, steps: range, start: int = 0, **options) -> None:
    recorder = Recorder(folder, {}, start=start, tensorboard=False, **options)
    for step in steps:
        recorder.scalars(step, {"loss": 1 / step, "lr": 0.1 * step})
        if step % 5 == 0:
            recorder.evaluation(step, step / 10, {"knn": step / 100})
    recorder.close()


def test_rows_come_back_as_columns(tmp_path: Path):
    record(tmp_path, range(1, 4))
    found = records.read(tmp_path)
    assert found["step"] == [1, 2, 3]
    assert found["loss"] == pytest.approx([1, 1 / 2, 1 / 3])
    assert (tmp_path / LOG).read_text().startswith("step,loss,lr\n1,1,0.1\n")


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 40))
def test_rows_after_the_checkpoint_of_a_killed_run_are_dropped(
    tmp_path: Path, died: int, start: int, torn: int
):
    """The run dies after `died` steps with a torn line, and resumes at an earlier checkpoint."""
    start = min(start, died)
    for path in tmp_path.iterdir():
        path.unlink()
    record(tmp_path, range(1, died + 1))
    for name, line in ((LOG, "31,0.123456,0.5\n"), (EVALUATIONS, '{"step": 31, "knn": 0.5}\n')):
        with open(tmp_path / name, "a") as file:
            file.write(line[: min(torn, len(line) - 1)])
    record(tmp_path, range(start + 1, 36), start=start)
    assert records.read(tmp_path)["step"] == list(range(1, 36))
    assert [it["step"] for it in records.evaluations(tmp_path)] == list(range(5, 36, 5))


def test_a_cut_line_is_reported(tmp_path: Path, caplog):
    record(tmp_path, range(1, 6))
    with open(tmp_path / LOG, "a") as file:
        file.write("6,0.1")
    with caplog.at_level(logging.INFO, "patchmill"):
        record(tmp_path, range(6, 7), start=5)
    (said,) = caplog.messages
    assert said.endswith("log.csv ends in a partial line, which is cut")


DAMAGE = {
    "no UTF-8": (b"\n3,", b"\n\xff3,"),
    "no number": (b"\n3,", b"\n3,low"),
    "zeros": (b"\n3,", b"\n" + b"\x00" * 99 + b"3,"),
    "a cell more": (b"\n3,", b"\n3,1,"),
    "no step": (b"\n3,", b"\n-3,"),
}


@pytest.mark.parametrize("old, new", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_log_loses_only_its_bad_lines(old, new, tmp_path: Path, caplog):
    record(tmp_path, range(1, 6))
    damaged = (tmp_path / LOG).read_bytes().replace(old, new)
    (tmp_path / LOG).write_bytes(damaged)
    assert records.read(tmp_path)["step"] == [1, 2, 4, 5]
    record(tmp_path, range(6, 8), start=5)
    assert (tmp_path / "log.csv.damaged").read_bytes() == damaged
    assert "has a line that cannot be read, removed from now on" in caplog.text
    caplog.clear()
    assert records.read(tmp_path)["step"] == [1, 2, 4, 5, 6, 7] and not caplog.messages


def test_a_damaged_header_makes_a_new_log(tmp_path: Path, caplog):
    record(tmp_path, range(1, 4))
    (tmp_path / LOG).write_bytes(b"\xfe" + (tmp_path / LOG).read_bytes())
    record(tmp_path, range(4, 5), start=3)
    assert records.read(tmp_path)["step"] == [4]
    assert "4 lines that cannot be read" in caplog.text
    assert len((tmp_path / "log.csv.damaged").read_bytes().splitlines()) == 4


@pytest.mark.parametrize(
    "line", [b'{"step": 5, "knn": \xff}', b'["step"]', b'{"step": "5"}', b"[" * 9000, b"7"]
)
def test_damaged_evaluations_lose_only_their_bad_lines(line, tmp_path: Path, caplog):
    record(tmp_path, range(1, 11))
    path = tmp_path / EVALUATIONS
    first, second = path.read_bytes().splitlines()
    path.write_bytes(first + b"\n" + line + b"\n" + second + b"\n")
    assert [row["knn"] for row in records.evaluations(tmp_path)] == [0.05, 0.1]
    record(tmp_path, range(11, 16), start=10)
    assert [row["step"] for row in records.evaluations(tmp_path)] == [5, 10, 15]
    assert path.read_bytes().startswith(first + b"\n" + second + b"\n")
    assert line in (tmp_path / "evaluations.jsonl.damaged").read_bytes()


def test_new_names_make_new_columns(tmp_path: Path):
    recorder = Recorder(tmp_path, {}, tensorboard=False)
    recorder.scalars(1, {"loss": 1.0})
    recorder.scalars(2, {"loss": 2.0, "grad_norm": 3.0})
    recorder.scalars(3, {"grad_norm": 4.0})
    recorder.close()
    assert records.read(tmp_path) == {
        "step": [1, 2, 3], "loss": [1, 2, None], "grad_norm": [None, 3, 4],
    }  # fmt: skip


def test_a_value_that_is_not_known_is_an_empty_cell(tmp_path: Path):
    """Columns keep their order, and TensorBoard has no point there."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recorder = Recorder(tmp_path, {})
    recorder.scalars(1, {"loss": None, "lr": 0.1})
    recorder.scalars(2, {"loss": 2.0, "lr": 0.1})
    recorder.close()
    assert (tmp_path / LOG).read_text() == "step,loss,lr\n1,,0.1\n2,2,0.1\n"
    assert records.read(tmp_path)["loss"] == [None, 2]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [it.step for it in events.Scalars("train/loss")] == [2]


def test_tensorboard_has_every_step_once(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, steps in ((0, range(1, 11)), (6, range(7, 15))):
        recorder = Recorder(tmp_path, {}, start=start)
        for step in steps:
            recorder.scalars(step, {"loss": step + start})
        recorder.evaluation(step, 1.0, {"knn": 0.5})
        recorder.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [it.step for it in events.Scalars("train/loss")] == list(range(1, 15))
    assert [it.step for it in events.Scalars("evaluate/knn")] == [14]


def test_rows_are_kept_until_a_full_disk_has_space(tmp_path: Path, monkeypatch, caplog):
    """Half of a row was written when the disk was full."""
    recorder = Recorder(tmp_path, {}, tensorboard=False)
    recorder.scalars(1, {"loss": 1.0})
    with open(tmp_path / LOG, "a") as file:
        file.write("2,0.")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("builtins.open", full)
    with caplog.at_level(logging.INFO, "patchmill"):
        recorder.scalars(2, {"loss": 1.0})
        recorder.scalars(3, {"loss": 1.0})
        monkeypatch.undo()
        assert records.read(tmp_path)["step"] == [1]
        recorder.evaluation(3, 0.5, {"knn": 0.5})
    assert caplog.messages == [
        "cannot write log.csv and evaluations.jsonl: the disk is full (No space left on device); "
        "rows are kept until there is disk space",
        "log.csv and evaluations.jsonl can be written again",
    ]
    assert records.read(tmp_path)["step"] == [1, 2, 3]
    assert [row["step"] for row in records.evaluations(tmp_path)] == [3]


def test_a_full_disk_stops_tensorboard_with_a_sentence(tmp_path: Path, monkeypatch, caplog):
    """The writer has no thread, which would print a traceback."""
    recorder = Recorder(tmp_path, {})
    recorder.scalars(1, {"loss": 1.0})
    ((_, tensorboard),) = [recorder._sinks]
    with open("/dev/full", "wb") as full:
        monkeypatch.setattr(tensorboard._file._writer, "_writer", full)
        recorder.scalars(2, {"loss": 1.0})
        recorder.scalars(3, {"loss": 1.0})
        with contextlib.suppress(OSError):
            full.close()
    assert caplog.messages == [
        "cannot write tensorboard: the disk is full (No space left on device); the run continues "
        "without it"
    ]
    assert records.read(tmp_path)["step"] == [1, 2, 3]


def test_missing_wandb_is_an_error(tmp_path: Path, monkeypatch):
    records.check_wandb(None)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MillError, match=r"log.wandb=project needs wandb, .*: pip install wandb"):
        records.check_wandb("project")


def test_a_folder_of_logs_is_not_the_package_wandb(tmp_path: Path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    if (package := importlib.util.find_spec("wandb")) and package.origin:
        pytest.skip("wandb is installed")
    with pytest.raises(MillError, match="pip install wandb"):
        records.check_wandb("project")


def test_restarts_continue_one_wandb_run(tmp_path: Path, monkeypatch):
    class Fake:
        def __init__(self):
            self.runs, self.logged = [], []

        def init(self, **options):
            self.runs.append(options)
            return self

        def log(self, values, step):
            self.logged.append((step, values))

        def finish(self):
            pass

    fake = Fake()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for start in (0, 1):
        record(tmp_path, range(start + 1, start + 2), start=start, wandb="project")
    assert len({run["id"] for run in fake.runs}) == 1 and len(fake.runs) == 2
    assert fake.logged[0] == (1, {"train/loss": 1.0, "train/lr": 0.1})
