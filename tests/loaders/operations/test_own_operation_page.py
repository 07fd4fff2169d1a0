"""The changes on docs/guides/own-operation.md fuse an operation into all renderers.

Its other code blocks are run as those of every page.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from patchmill.loaders import operation as registry
from patchmill.loaders.operations import RandomErasing
from patchmill.loaders.recipe import Recipe

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/guides/own-operation.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def blocks(language: str) -> list[str]:
    return [code for name, code in BLOCKS if name == language]


def test_the_recipe_in_yaml_is_read():
    text, _ = blocks("yaml")
    extra = Recipe.from_yaml(text).views[0].extra
    assert extra[0] == RandomErasing(p=0.25, mode="pixel") and extra[1].kind == "Posterise"


def test_the_page_lists_every_operation():
    listed = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    built_in = {k for k, cls in registry.KINDS.items() if cls.__module__.startswith("patchmill.")}
    assert built_in <= listed


# ------------------------------------------------------------------------------------ fused: invert


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code with the page's changes."""
    copy = tmp_path_factory.mktemp("fused")
    for folder in ("patchmill", "kernels", "loaders"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    shutil.copy(ROOT / "setup.cfg", copy)  # the mark of a checkout
    for change in blocks("diff"):
        head, *lines = change.splitlines()
        path = copy / head.removeprefix("--- ")
        before = "".join(f"{line[1:]}\n" for line in lines if line[:1] in " -")
        after = "".join(f"{line[1:]}\n" for line in lines if line[:1] in " +")
        text = path.read_text()
        assert text.count(before) == 1, f"{path.name} has {text.count(before)} of:\n{before}"
        path.write_text(text.replace(before, after))
    return copy


SETTING = """
from dataclasses import replace
from patchmill.loaders import Recipe, Views
plain = Recipe((Views("a", 2, 8),))
recipe = Recipe((Views("a", 2, 8, invert=(0.0, 1.0)),))
assert plain.fingerprint() == "{fingerprint}" != recipe.fingerprint()
assert Recipe.from_yaml(recipe.to_yaml()) == recipe
try:
    Recipe((Views("a", 2, 8, invert=2.0),))
except Exception as error:
    assert "invert must be probabilities" in str(error)
"""

DEFINITION = """
import numpy as np, torch
from patchmill.kernels.views import decisions, reference
image = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
row = np.zeros(1, decisions.ROW)[0]
for name in ("box_h", "box_w", "full_h", "full_w"):
    row[name] = 8
row["order"] = decisions.NO_JITTER
target = decisions.Target("a", 1, 8, False, (0, 0, 0), (1, 1, 1))
view = reference.render_view(image, row, target)
row["invert"] = 1
assert torch.equal(reference.render_view(image, row, target), 1 - view)
"""

RENDERERS = """
import numpy as np, torch
from patchmill.kernels.views import reference
from patchmill.kernels.views.{module} import render
from patchmill.loaders import Recipe, Views
from patchmill.loaders.plan import draw
from patchmill.loaders.preview.text import describe_draws
recipe = Recipe((Views("a", 3, 8, invert=(0.0, 0.5, 1.0), solarise=0.5),))
images = [np.random.default_rng(i).integers(0, 256, (9, 11, 3), np.uint8) for i in range(6)]
plan = draw.draw(recipe, 0, 0, range(6), [image.shape[:2] for image in images])
inverted = plan.rows["invert"].astype(bool)
assert not inverted[:, 0].any() and inverted[:, 2].all() and 0 < inverted[:, 1].sum() < 6
assert "invert" in describe_draws(plan.rows[0, 2:])
targets = draw.targets(recipe)
expected = reference.render(images, plan.rows, targets)["a"]
on_device = images if "{module}" == "cpu" else [torch.from_numpy(image) for image in images]
found = render.render(on_device, plan.rows, targets)["a"]
level = 1 / 255 / 0.224
error = (found - expected).abs()
# At the threshold of solarising, a rounded value may fall on the other side.
assert (error > 1.5 * level).float().mean() < 0.02 and error.mean() < level / 2
plain = Recipe((Views("a", 3, 8, solarise=0.5),))
before = draw.draw(plain, 0, 0, range(6), [image.shape[:2] for image in images]).rows
assert all((before[n] == plan.rows[n]).all() for n in before.dtype.names if n != "invert")
"""


def run(code: str, copy: Path, **environment: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(copy), **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=copy, env=environment, capture_output=True, text=True
    )
    if done.stderr.startswith("skip: "):
        pytest.skip(done.stderr.removeprefix("skip: "))
    assert done.returncode == 0, done.stderr


def test_the_fused_operation_is_a_setting_and_has_a_definition(changed: Path):
    fingerprint = Recipe.from_yaml("views: [{name: a, count: 2, size: 8}]").fingerprint()
    run(SETTING.format(fingerprint=fingerprint) + DEFINITION, changed)


@pytest.mark.slow  # the renderer is compiled
def test_the_cpu_renders_the_fused_operation(changed: Path, tmp_path: Path):
    run(RENDERERS.format(module="cpu"), changed, PATCHMILL_CACHE=str(tmp_path))


@pytest.mark.slow
def test_the_gpu_renders_the_fused_operation(changed: Path, tmp_path: Path):
    settings = {"TRITON_INTERPRET": "1", "PATCHMILL_CACHE": str(tmp_path)}
    can_interpret = f"""
import sys
sys.path.append({str(ROOT / "tests")!r})
import helpers_interpreter
if reason := helpers_interpreter.skip_reason():
    sys.exit("skip: " + reason)
"""
    run(can_interpret + RENDERERS.format(module="gpu"), changed, **settings)
