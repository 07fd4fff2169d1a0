"""Contact sheets show the views of training, for all recipes and shapes of images."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from patchmill import loaders
from patchmill.kernels.views.cpu import render
from patchmill.kernels.views.decisions import NO_JITTER, ROW, Target
from patchmill.loaders import operations, recipe
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.order.permutation import Order
from patchmill.loaders.preview import boxes as preview_boxes
from patchmill.loaders.preview import command as preview
from patchmill.loaders.preview import text
from patchmill.loaders.preview.command import contact_sheet
from patchmill.loaders.preview.layout import TILE_GAP, Layout, layout_of
from patchmill.loaders.preview.tiles import zoom_factor
from patchmill.loaders.recipe_load import load_recipe

SMALL_DINO = "dino(local_crops=3, global_size=64, local_size=32)"


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six images of noise in two classes, among them a very wide, a very tall and a tiny one."""
    numbers = np.random.default_rng(0)
    shapes = [(60, 80), (90, 70), (8, 160), (160, 8), (1, 1), (50, 50)]
    for i, shape in enumerate(shapes):
        folder = tmp_path / "photos" / ("ant", "bee")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = numbers.integers(0, 256, (*shape, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "photos"


# -------------------------------------------------------------------------- what you see is trained


def views_on(pixels: np.ndarray, layout: Layout, top: int) -> dict[str, np.ndarray]:
    """The pixels of the one sample's views, cut out of its sheet."""
    found = {}
    for block, left in zip(layout.blocks, layout.lefts, strict=True):
        side = block.group.size
        assert block.columns == block.group.count, "one row of pictures"
        lefts = [left + i * (block.cell + TILE_GAP) for i in range(block.group.count)]
        found[block.group.name] = np.stack([pixels[top:, x:][:side, :side] for x in lefts])
    return found


@pytest.mark.parametrize("epoch", [0, 3])
def test_views_equal_those_of_the_loader(photos: Path, epoch: int) -> None:
    chosen = load_recipe("dino(local_crops=2, global_size=200, local_size=150)")
    chosen = operations.add(chosen, operations.GaussianNoise(), operations.Posterise())
    loader = loaders.build(photos, chosen, 1, seed=7, dtype=torch.uint8)
    loader.load_state_dict({**loader.state_dict(), "epoch": epoch})
    batch = next(iter(loader))
    sheet = contact_sheet(photos, chosen, seed=7, epoch=epoch, count=1)
    layout = layout_of(chosen, zoom_factor(chosen))
    assert zoom_factor(chosen) == 1 and not layout.stacked
    views = batch.views["global"][0].permute(0, 2, 3, 1).numpy()
    top = find_row(np.asarray(sheet), views[0], layout.lefts[0])
    shown = views_on(np.asarray(sheet), layout, top)
    for name, group in batch.views.items():
        np.testing.assert_array_equal(shown[name], group[0].permute(0, 2, 3, 1).numpy())


def find_row(sheet: np.ndarray, view: np.ndarray, left: int) -> int:
    """Find the view's first row of pixels on the sheet."""
    rows = (sheet[:, left : left + view.shape[1]] == view[0]).all((1, 2))
    assert rows.any(), "the view is not on the sheet"
    return int(np.argmax(rows))


def test_without_ids_the_first_samples_of_the_epoch_are_shown(photos: Path) -> None:
    ids = Order(6, 3).ids(2, 0, 2).tolist()
    told = contact_sheet(photos, SMALL_DINO, seed=3, epoch=2, ids=ids)
    assert told == contact_sheet(photos, SMALL_DINO, seed=3, epoch=2, count=2)
    assert told != contact_sheet(photos, SMALL_DINO, seed=3, epoch=2, ids=ids[::-1])


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_the_marked_side_is_up_in_the_view(flip: bool, turns: int) -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    sides = np.s_[:8, 8:24], np.s_[8:24, 24:], np.s_[24:, 8:24], np.s_[8:24, :8]
    for side, at in enumerate(sides):
        image[at] = 50 * (side + 1)
    row = np.zeros(1, ROW)
    for name in ("box_h", "box_w", "full_h", "full_w"):
        row[name] = 32
    row["flip"], row["turns"], row["order"] = flip, turns, NO_JITTER
    target = Target("view", 1, 32, False, (0, 0, 0), (1, 1, 1))
    view = render.render([image], row[None], [target], dtype=torch.uint8)["view"]
    assert int(view[0, 0, 0, 3, 16]) == 50 * (preview_boxes.up_side(flip, turns) + 1)


# ----------------------------------------------------------------------------- all sorts of recipes

STACKED = recipe.Recipe(
    (
        recipe.Views("huge", 3, 520, turns=True, solarise=0.5),
        recipe.Views("cells", 2, 24, recipe.Grid(3, 4), colour=recipe.Colour(0.4, 0.4, 0.4, 0.1)),
        recipe.Views("tiny", 30, 16, recipe.Shift(2), blur=recipe.Blur()),
        recipe.Views("spread", 1, 16, recipe.Spread(3, 2)),
    )
)


@pytest.mark.parametrize(
    "chosen",
    [
        SMALL_DINO,
        "gtsa",
        "selfie",
        "selfie(size=224)",
        "emp_ssl(patches=20)",
        "emp_ssl(patches=200)",
        "bagssl",
        "bagssl(patches=7, size=48, short_side=64)",
        "eval",
        STACKED,
    ],
    ids=str,
)
def test_every_recipe_gives_a_sheet_of_reasonable_size(
    photos: Path, chosen: str | recipe.Recipe
) -> None:
    sheet = contact_sheet(photos, chosen, count=6)
    assert sheet.mode == "RGB" and 600 <= sheet.width <= 2000
    edge = np.asarray(sheet.convert("L"))
    assert edge[:, :20].min() == edge[:, -20:].min() == 255, "margins are empty"
    assert edge[-12:].min() == edge[:12].min() == 255


def test_a_recipe_can_be_a_yaml_file(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(load_recipe(SMALL_DINO).to_yaml())
    told, read = (np.asarray(contact_sheet(photos, r, count=1)) for r in (SMALL_DINO, file))
    np.testing.assert_array_equal(told[100:], read[100:])  # the title is above


def test_bad_samples_are_shown_as_such(photos: Path) -> None:
    good = contact_sheet(photos, SMALL_DINO, ids=[0])
    (photos / "ant" / "0.png").write_bytes(b"")
    bad = contact_sheet(photos, SMALL_DINO, ids=[0])
    assert bad.width == good.width
    levels, counts = np.unique(np.asarray(bad).reshape(-1, 3), axis=0, return_counts=True)
    second = levels[np.argsort(counts)[-2]]
    assert second.tolist() == [225, 228, 232], "a grey tile is all there is"
    assert contact_sheet(photos, SMALL_DINO, ids=[0, 1]).height > bad.height


# ---------------------------------------------------------------------------------- its small parts


def row(**values: float) -> np.ndarray:
    one = np.zeros(1, ROW)
    one["order"] = NO_JITTER
    for name, value in values.items():
        one[name] = value
    return one


def test_captions_list_the_drawn_augmentations() -> None:
    everything = row(flip=1, turns=3, order=27, grey=1, sigma=1.26, solarise=1)
    words = text.describe_draws(everything)
    assert words == ["flip", "turn 270°", "jitter", "grey", "blur 1.3", "solarise"]
    assert text.abbreviate(words) == ["F", "T270", "J", "G", "B1.3", "S"]
    assert text.describe_draws(row()) == []
    grid = np.concatenate([row(flip=1), row(flip=1, sigma=1.0), row(flip=1)])
    assert text.describe_draws(grid) == ["flip", "blur 1/3"]
    assert text.abbreviate(["flip", "blur 1/3"]) == ["F", "B1/3"]
    some = [("RandomErasing", np.array([True, False, True])), ("Gamma", np.zeros(3, bool))]
    assert text.describe_draws(grid, some) == ["flip", "blur 1/3", "RandomErasing 2/3"]
    assert text.abbreviate(["RandomErasing 2/3", "Gamma", "own"]) == ["RE2/3", "G", "ow"]


@given(st.lists(st.text("abcm .", min_size=1, max_size=12), max_size=12), st.integers(40, 300))
def test_wrapped_text_fits_and_elided_text_too(pieces: list[str], room: int) -> None:
    lines = text.wrap(pieces, 13, room, " · ")
    assert all(text.text_width(line, 13) <= room for line in lines)
    if all(text.text_width(piece, 13) <= room for piece in pieces):
        assert " · ".join(lines) == " · ".join(pieces)


corner = st.floats(0, 300)
box = st.tuples(corner, corner, corner, corner).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)


@given(st.lists(box, max_size=24))
def test_numbers_do_not_overlap(boxes: list[preview_boxes.Corners]) -> None:
    occupied = preview_boxes._Occupied((300, 300))
    places = [occupied.place(preview_boxes._badge_positions(box, 17, 16)) for box in boxes]
    for (l1, t1, r1, b1), (l2, t2, r2, b2) in itertools.combinations(filter(None, places), 2):
        assert r1 < l2 or r2 < l1 or b1 < t2 or b2 < t1
    assert all(0 <= min(p) and max(p) <= 300 for p in places if p)


# ------------------------------------------------------------------------------------- command line


def test_the_command_writes_one_file(photos: Path, tmp_path: Path) -> None:
    for name in ("sheet.png", "sheet.JPG"):
        out = tmp_path / name
        preview.main([str(photos), "--recipe", SMALL_DINO, "--ids", "0, 3", "--out", str(out)])
        assert Image.open(out).size == contact_sheet(photos, SMALL_DINO, ids=[0, 3]).size
    assert sorted(p.name for p in tmp_path.glob("*sheet*")) == ["sheet.JPG", "sheet.png"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--recipe", "dyno"], "did you mean 'dino'"),
        (["--recipe", "missing.yaml"], "cannot read the recipe missing.yaml"),
        (["--out", "sheet.gif"], r"its name must end in \.png"),
        (["--out", "nowhere/sheet.png"], "there is no folder nowhere"),
        (["--ids", "6"], "has the samples 0 to 5, but no 6"),
        (["--ids", "1,x"], "write sample numbers with commas"),
        (["--ids", ""], "write sample numbers with commas"),
        (["--count", "0"], "count must be at least 1"),
        (["--seed", "-1"], "seed must be 0 to"),
        (["--epoch", "-1"], "epoch must be 0 to"),
    ],
)
def test_mistakes_are_reported_in_one_sentence(
    photos: Path, arguments: list[str], complaint: str
) -> None:
    with pytest.raises(MillError, match=complaint) as error:
        preview.main([str(photos), *arguments])
    assert "\n" not in str(error.value)


def test_a_sheet_that_cannot_be_written_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "sheet.png").mkdir()
    with pytest.raises(MillError, match=r"cannot write .*sheet\.png"):
        preview.main([str(photos), "--recipe", "eval", "--out", str(tmp_path / "sheet.png")])
    assert not list(tmp_path.glob(".*sheet.png"))


def test_a_mistake_ends_the_command_with_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "patchmill.loaders.preview", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
