"""Sheets of masks, and of views that are pasted by them."""

from __future__ import annotations

from pathlib import Path

import helpers_prepare as making
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from patchmill import loaders
from patchmill.kernels.views.decisions import PASTE_NEVER
from patchmill.loaders import recipe
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.copypaste import masks
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.plan import draw
from patchmill.loaders.prepare import make_masks
from patchmill.loaders.prepare.options import MaskOptions
from patchmill.loaders.preview import command
from patchmill.loaders.preview import mask_sheet as preview_masks
from patchmill.loaders.preview import paste as preview_paste
from patchmill.loaders.preview.command import contact_sheet
from patchmill.loaders.preview.layout import TILE_GAP, layout_of
from patchmill.loaders.preview.mask_sheet import (
    ALARM,
    WIDTH,
    MaskedSample,
    draw_mask_sheet,
    mask_sheet,
)
from patchmill.loaders.preview.paste import PasteInputs
from patchmill.loaders.preview.samples import Mask, open_mask_source
from patchmill.loaders.preview.tiles import zoom_factor
from patchmill.loaders.recipe_load import load_recipe
from patchmill.loaders.sources import open_source

SCENES = "scenes(count=6, size=64)"


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))


def dilo(p: float, background: str = "grey") -> recipe.Recipe:
    return load_recipe(f"dilo(size=96, paste={p}, background={background!r})")


# ---------------------------------------------------------------------------------- whose masks


def test_masks_are_those_that_a_loader_finds(tmp_path: Path) -> None:
    folder = making.photos(tmp_path / "src", 4)
    source = open_source(folder)
    image = decode(source.read(0))
    made = open_mask_source(source)
    assert made.title.startswith("rbd, version 1") and made.name == source.name
    mask = made.get(0, image)
    assert mask.plane is not None and mask.confidence is not None
    assert set(np.unique(mask.plane) % 17) == {0}, "as in a file: 16 levels"

    path = masks.default_mask_path(source)
    make_masks.make(source, path, MaskOptions("gs", 32), 2)
    found = open_mask_source(source)
    assert found.title.startswith("gs, version 1") and found.name == str(path)
    assert open_mask_source(source, "mc").title.startswith("mc, version 1")
    own = open_mask_source(open_source(SCENES))
    assert own.title == "the data's own" and own.get(0, image).confidence is None


def test_the_sheet_of_a_data_set(tmp_path: Path) -> None:
    own, made = mask_sheet(SCENES, count=3), mask_sheet(SCENES, "rbd", count=3)
    assert own.width == made.width == WIDTH and own != made
    assert mask_sheet(SCENES, count=3) == own


def test_unreadable_samples_are_on_the_sheet(tmp_path: Path) -> None:
    folder = making.write_folder(tmp_path / "src", {"a.jpg": b"no image", "b.jpg": making.jpeg(1)})
    shown = np.asarray(mask_sheet(folder, ids=[0, 1]))
    assert (shown == ALARM).all(2).any(), "in red"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "sheet.png"
    command.main([SCENES, "--masks", "--ids", "2,0", "--out", str(out)])
    assert Image.open(out).width == WIDTH
    assert capsys.readouterr().out.startswith(f"{out}: {WIDTH} x ")
    first = out.read_bytes()
    command.main([SCENES, "--method", "gs", "--ids", "2,0", "--out", str(out)])
    assert out.read_bytes() != first


# ---------------------------------------------------------------------------------------- the sheet

sides = st.integers(1, 90)
samples = st.tuples(sides, sides, st.booleans(), st.sampled_from(["", "only 1.0% of it " * 9]))


@settings(deadline=None, max_examples=15)
@given(st.lists(samples, min_size=1, max_size=7))
def test_any_shapes_fit(shapes: list[tuple[int, int, bool, str]]) -> None:
    shown = []
    for i, (height, width, masked, why) in enumerate(shapes):
        image = np.full((height, width, 3), 40 * i, np.uint8)
        plane = np.eye(width, height, dtype=np.uint8) * np.uint8(255) if masked else None
        mask = Mask(plane, 0.5, None if i % 2 else 0.5, why)
        shown.append(MaskedSample(i, "ant" * (i % 3), None if i == 5 else image, mask))
    made = draw_mask_sheet(shown, "title", "about")
    assert made.width == WIDTH
    rows = list(preview_masks._rows(shown))
    assert [one for row, _ in rows for one in row] == shown
    for row, height in rows:
        cards = [preview_masks._card(one, height) for one in row]
        wide = (
            sum(card.width + preview_masks.SAMPLE_GAP for card in cards) - preview_masks.SAMPLE_GAP
        )
        alone = len(row) == 1
        assert wide <= WIDTH - 2 * preview_masks.MARGIN + 12 or alone


def test_the_cut_out_keeps_the_foreground_only() -> None:
    numbers = np.random.default_rng(0)
    image = Image.fromarray(numbers.integers(0, 256, (40, 60, 3), np.uint8))
    plane = np.zeros((40, 60), np.uint8)
    plane[:, :30] = 255
    shown = np.asarray(preview_masks.cut_out(image, Image.fromarray(plane), (1, 2, 3)))
    np.testing.assert_array_equal(shown[:, :28], np.asarray(image)[:, :28])
    beyond = shown[:, 33:].astype(int)
    assert np.ptp(beyond, axis=2).max() == 0 and beyond.min() > 180
    assert (np.abs(shown[:, 30:32].astype(int) - [1, 2, 3]).max(2) < 90).any()


# ---------------------------------------------------------------------------------- pasted views


@pytest.mark.parametrize("background", ["grey", "texture", "images"])
def test_pasted_views_equal_those_of_the_loader(tmp_path: Path, background: str) -> None:
    chosen = dilo(0.7, background)
    batch = next(iter(loaders.build(SCENES, chosen, 6, seed=3, dtype=torch.uint8)))
    layout, pasted = layout_of(chosen, zoom_factor(chosen)), 0
    for at, id in enumerate(batch.ids.tolist()):
        made = np.asarray(contact_sheet(SCENES, chosen, seed=3, ids=[id]))
        side = chosen.views[0].size * int(zoom_factor(chosen))
        for i, view in enumerate(batch.views["views"][at].permute(0, 2, 3, 1).numpy()):
            wanted = view.repeat(side // view.shape[0], 0).repeat(side // view.shape[0], 1)
            left = layout.lefts[0] + i * (layout.blocks[0].cell + TILE_GAP)
            rows = (made[:, left : left + side] == wanted[0]).all((1, 2))
            top = int(np.argmax(rows))
            np.testing.assert_array_equal(made[top : top + side, left : left + side], wanted)
        pasted += int((batch.rows[at]["paste"] != PASTE_NEVER).sum())
    assert pasted > 3


def test_an_unusable_mask_pastes_nothing() -> None:
    source, chosen = open_source(SCENES), dilo(1.0, "images")
    for mask in (Mask(None, why="there is none"), Mask(np.zeros((4, 4), np.uint8), why="flat")):
        rows = draw.draw(chosen, 0, 0, [0], [(64, 64)]).rows
        assert (rows["paste"] != PASTE_NEVER).all()
        inputs = preview_paste.find_inputs(mask, rows, lambda _: None, 0)
        assert inputs.background is None and (rows["paste"] == PASTE_NEVER).all()
        assert preview_paste.composite(decode(source.read(0)), rows[0], inputs) is None


def test_the_composite_is_the_whole_image_on_its_background() -> None:
    image = np.full((30, 50, 3), 200, np.uint8)
    plane = np.zeros((30, 50), np.uint8)
    plane[:, :25] = 255
    rows = draw.draw(dilo(1.0), 5, 0, [0], [(30, 50)]).rows[0]
    rows["mask_sigma"] = 0
    whole = preview_paste.composite(image, rows, PasteInputs(Mask(plane)))
    assert whole is not None and whole.shape == (256, 256, 3)
    assert (whole[:, :120] == 200).all()
    assert np.abs(whole[:, 136:].astype(int) - int(rows[0]["background"])).max() <= 1


def test_a_recipe_with_copy_paste_can_be_seen_before_masks_are_made(tmp_path: Path) -> None:
    folder = making.photos(tmp_path / "src", 2)
    made = contact_sheet(folder, dilo(1.0), count=2)
    plain = contact_sheet(folder, load_recipe("moco_v2(size=96)"), count=2)
    assert made.height > plain.height


def test_separate_backgrounds_equal_those_of_the_loader(tmp_path: Path) -> None:
    folder = making.photos(tmp_path / "grounds", 5)
    chosen = dilo(1.0, "images")
    source = open_source(SCENES)
    batch = next(
        iter(loaders.build(SCENES, chosen, 6, seed=3, dtype=torch.uint8, backgrounds=folder))
    )
    paste = preview_paste.inputs_finder(source, chosen, folder, 3, 0)
    assert paste is not None
    for at, id in enumerate(batch.ids.tolist()):
        image = decode(source.read(id))
        drawn = draw.draw(chosen, 3, 0, [id], [image.shape[:2]])
        views = command._render(id, image, chosen, drawn, paste(id, image, drawn.rows)).views
        assert torch.equal(views["views"][0], batch.views["views"][at])
    with pytest.raises(MillError, match="backgrounds are for copy-paste on images"):
        contact_sheet(SCENES, dilo(1.0), backgrounds=folder)


def test_computed_masks_choose_the_same_backgrounds_as_a_file(
    tmp_path: Path,
) -> None:
    folder = making.photos(tmp_path / "src", 12)
    before = np.asarray(contact_sheet(folder, dilo(1.0, "images"), count=3))
    source = open_source(folder)
    make_masks.make(source, masks.default_mask_path(source), MaskOptions("rbd"), workers=1)
    np.testing.assert_array_equal(contact_sheet(folder, dilo(1.0, "images"), count=3), before)
