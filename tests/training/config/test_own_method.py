"""A method of the user's own is chosen as `module:Class`, with the recipe that lies beside it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from patchmill.loaders.common.errors import MillError
from patchmill.training.config import compose
from patchmill.training.methods import find
from patchmill.training.methods.simclr import SimCLR

SOURCE = """
from dataclasses import dataclass
from patchmill.training.methods.simclr import SimCLR, SimCLRSettings

@dataclass
class Settings(SimCLRSettings):
    push: float = 0.5  # how far

class Mine(SimCLR):
    Settings = Settings

class NoMethod:
    pass
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with `mine_method.py` in it."""
    (tmp_path / "mine_method.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine_method", raising=False)
    importlib.invalidate_caches()
    return tmp_path


def test_without_a_recipe_defaults_are_those_of_the_settings(folder: Path):
    config = compose.compose(["method=mine_method:Mine", "data=scenes"])
    assert issubclass(find(config.method_name), SimCLR)
    assert (config.name, config.method.push) == ("mine_method-scenes-demo", 0.5)
    assert (config.method.views, config.optim.name) == ("simclr", "sgd")


def test_recipe_and_scale_beside_the_module_count_and_words_win(folder: Path):
    (folder / "mine_method.yaml").write_text(
        "defaults: [simclr, _self_]\nmethod: {push: 2.0}\ntrain: {epochs: 17}\n"
    )
    (folder / "mine_method-demo.yaml").write_text("method: {push: 3.0}\n")
    paper = compose.compose(["method=mine_method:Mine", "data=scenes", "scale=paper"])
    assert (paper.method.push, paper.train.epochs, paper.optim.name) == (2.0, 17, "lars")
    demo = compose.compose(["method=mine_method:Mine", "data=scenes"])
    assert demo.method.push == 3.0
    word = compose.compose(["method=mine_method:Mine", "data=scenes", "method.push=4"])
    assert word.method.push == 4.0


def test_a_run_of_it_is_read_back(folder: Path):
    config = compose.compose(["method=mine_method:Mine", "data=scenes"])
    compose.save(config, folder)
    assert compose.load(folder) == config


def test_a_module_in_a_package_and_one_named_like_a_method(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("mine_package", "mine_package.moco"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (folder / "mine_package").mkdir()
    (folder / "mine_package/__init__.py").touch()
    (folder / "mine_package/moco.py").write_text(SOURCE)
    (folder / "mine_package/moco.yaml").write_text("train: {epochs: 3}\n")
    config = compose.compose(["method=mine_package.moco:Mine", "data=scenes", "scale=paper"])
    assert (config.name, config.train.epochs) == ("moco-scenes-paper", 3)
    assert compose.compose(["method=moco", "scale=paper"]).train.epochs == 200


WRONG = {
    "nowhere:Mine": "there is no module nowhere in",
    "nowhere.deeper:Mine": "there is no module nowhere.deeper in",
    "mine_method:": "write module:Name",
    "mine_method.py:Mine": "there is no module mine_method.py in",
    "mine-method:Mine": "write module:Name",
    "mine_method:Min": "the module mine_method has no 'Min'",
    "mine_method:NoMethod": "must be a subclass",
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_one_sentence(folder: Path, name: str):
    with pytest.raises(MillError) as raised:
        compose.compose([f"method={name}", "data=scenes"])
    assert WRONG[name] in str(raised.value) and "\n" not in str(raised.value)


def test_mistakes_in_the_files_are_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch):
    overrides = ["method=mine_method:Mine", "data=scenes", "scale=paper"]
    for content, message in [
        ("train: {epochs: soon}\n", "train.epochs must be"),
        ("trian: {epochs: 3}\n", "trian"),
        ("defaults: [simclear, _self_]\n", "simclear"),
        ("- 3\n", "must hold settings"),
        ("a: [\n", "cannot read"),
    ]:
        (folder / "mine_method.yaml").write_text(content)
        with pytest.raises(MillError, match=message) as raised:
            compose.compose(overrides)
        assert "\n" not in str(raised.value)
    (folder / "mine_broken.py").write_text("import nothing_of_this_name\n")
    importlib.invalidate_caches()
    with pytest.raises(MillError, match="cannot be imported: ModuleNotFoundError"):
        compose.compose(["method=mine_broken:Mine", "data=scenes"])
