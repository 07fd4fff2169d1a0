"""python training/run.py: help, --show, and mistakes in one line."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from patchmill import training
from patchmill.loaders.common import settings as typed
from patchmill.loaders.common.errors import MillError
from patchmill.training import run
from patchmill.training.config import compose, overrides
from patchmill.training.config.settings import Config
from patchmill.training.methods import METHODS
from patchmill.training.runtime import records, run_folder

SCRIPT = Path(run.__file__)


def output(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    run.main(argv)
    return capsys.readouterr().out


def test_help_lists_methods_data_scales_and_every_setting(capsys: pytest.CaptureFixture[str]):
    text = output(capsys, "--help")
    for group in overrides.GROUPS:
        for choice, title in overrides.choices(group).items():
            assert f"  {choice} " in text and title and title in text
    for key in set(overrides.keys(Config)) - {"method", "method_name", "scale"}:
        assert f"  {key} " in text


@pytest.mark.parametrize("method", METHODS)
def test_help_for_a_method_has_its_settings_and_its_defaults(
    method: str, capsys: pytest.CaptureFixture[str]
):
    text = output(capsys, f"method={method}", "scale=paper", "-h")
    for name in typed.field_annotations(METHODS[method].Settings):
        assert f"  method.{name} " in text
    if method == "vicreg":
        assert "method.expander            [8192,8192,8192] its layer widths" in text
        assert "train.epochs               1000 " in text


def test_show_prints_the_settings_and_runs_nothing(capsys: pytest.CaptureFixture[str]):
    argv = ["method=tcr", "scale=demo", "optim.lr=0.25"]
    shown = yaml.safe_load(output(capsys, "--show", *argv))
    assert shown == compose.plain(compose.compose(argv))


def test_the_configuration_goes_to_the_engine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    given: list[Config] = []

    def train(config: Config) -> Path:
        given.append(config)
        return Path("runs", config.name)

    engine = SimpleNamespace(train=train)
    monkeypatch.setitem(sys.modules, "patchmill.training.engine", engine)
    monkeypatch.setattr(training, "engine", engine, raising=False)
    text = output(capsys, "method=moco", "data=scenes", "seed=3")
    assert text == "the run is in runs/moco-scenes-demo\n"
    assert given == [compose.compose(["method=moco", "data=scenes", "seed=3"])]


@pytest.mark.parametrize("argv", [["--lr", "3"], ["--nodes=2", "method=moco"], ["-v"]])
def test_unknown_options_are_errors(argv: list[str]):
    with pytest.raises(MillError, match=r"there is no option -.*: settings are written key=value"):
        run.main(argv)


@pytest.mark.parametrize(
    "how", [[str(SCRIPT)], ["-m", "patchmill.training.run"], ["-P", str(SCRIPT)]]
)
def test_a_mistake_ends_the_command_with_one_line(how: list[str], tmp_path: Path):
    if how[0] == "-P" and sys.version_info < (3, 11):
        pytest.skip("python -P is new in Python 3.11")
    done = subprocess.run(
        [sys.executable, *how, "method=mocco"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1
    assert done.stderr == "error: there is no method=mocco; did you mean 'moco'?\n"


def test_the_folder_of_the_script_hides_no_other_package(tmp_path: Path):
    """training/evaluate.py, for one, must not be found by another package's `import evaluate`."""
    folder = str(SCRIPT.parent)
    code = (
        f"import runpy, sys; sys.argv[1:] = ['method=mocco']; sys.path.insert(0, {folder!r})\n"
        f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        f"except SystemExit: print({folder!r} in sys.path)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_torchrun_starts_ranks_that_train_as_one(tmp_path: Path):
    argv = [
        "method=moco", "data=scenes", "scale=demo", "size=32", "method.queue=16",
        "method.split_bn=0", "data.train=scenes(count=40, size=32)", "train.batch_size=8",
        "train.epochs=1", "train.log_every=1", "train.workers=1", "train.device=cpu",
        "evaluate=never", "log.tensorboard=false", f"out={tmp_path}", "name=run",
    ]  # fmt: skip
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launcher, "--nproc-per-node=2", str(SCRIPT), *argv], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the run is in") == 1
    assert run_folder.read_status(tmp_path / "run")["state"] == "done"
    assert records.read(tmp_path / "run")["step"] == [1, 2, 3, 4, 5]
