"""Pictures of a run's input: drawn once, with masks if the recipe pastes."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import helpers_runs
import pytest
from PIL import Image

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.preview.command import contact_sheet
from patchmill.loaders.preview.mask_sheet import mask_sheet
from patchmill.training.runtime import pictures

SCENES = "scenes(count=20, size=32)"


def test_views_with_the_masks_that_paste_them(tmp_path: Path):
    pictures.write_views(SCENES, "dilo(size=16)", tmp_path / pictures.VIEWS, count=2)
    assert sorted(it.name for it in tmp_path.iterdir()) == [pictures.MASKS, pictures.VIEWS]
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            image.load()
            assert min(image.size) > 100


def test_no_masks_where_nothing_is_pasted(tmp_path: Path):
    pictures.write_views(SCENES, "moco_v2(size=16)", tmp_path / pictures.VIEWS, count=1)
    assert [it.name for it in tmp_path.iterdir()] == [pictures.VIEWS]


def test_masks_come_from_the_file_that_training_uses(tmp_path: Path, caplog):
    overrides = {"method": "dilo", "method__views": "dilo(size=16)"}
    config = helpers_runs.config(tmp_path, data__masks=tmp_path / "nowhere.masks", **overrides)
    with caplog.at_level(logging.INFO, "patchmill"):
        pictures.draw(config, tmp_path)
    assert "nowhere.masks" in caplog.text and not list(tmp_path.iterdir())


@pytest.mark.parametrize("sheet", [partial(contact_sheet, recipe="dilo(size=16)"), mask_sheet])
def test_a_missing_mask_file_is_an_error_in_both_sheets(sheet, tmp_path: Path):
    with pytest.raises(MillError, match="nowhere"):
        sheet(SCENES, masks=tmp_path / "nowhere.masks")


def test_a_run_draws_them_once(tmp_path: Path):
    config = helpers_runs.config(tmp_path)
    pictures.draw(config, tmp_path)
    first = (tmp_path / pictures.VIEWS).stat()
    pictures.draw(config, tmp_path)
    assert (tmp_path / pictures.VIEWS).stat() == first


def test_a_picture_that_cannot_be_drawn_is_no_error(tmp_path: Path, caplog):
    config = helpers_runs.config(tmp_path, data__train=tmp_path / "nothing-here")
    with caplog.at_level(logging.INFO, "patchmill"):
        pictures.draw(config, tmp_path)
    assert "no picture of views" in caplog.text and not list(tmp_path.iterdir())
