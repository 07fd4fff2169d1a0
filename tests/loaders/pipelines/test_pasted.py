"""Copy-paste in loaders: every pipeline pastes by the same masks on the same images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pipelinemaking import RECIPE, Masked, Pictures, make_loader

from patchmill.kernels.views import cpu
from patchmill.kernels.views.rows import PASTE_NEVER
from patchmill.loaders import plan
from patchmill.loaders.decode import decode
from patchmill.loaders.errors import MillError
from patchmill.loaders.recipe import CopyPaste, Recipe

SAMPLES = 24


def recipe(background: str, p: float = 0.7) -> Recipe:
    paste = CopyPaste(p=p, background=background, blur_radius=2.0)
    return Recipe(tuple(replace(group, paste=paste) for group in RECIPE.views), name="pasting")


def expected(ids: list[int], views: Recipe, source: Masked) -> tuple[Any, np.ndarray]:
    """What the renderer makes of the same decisions."""
    images = [decode(source.read(id)) for id in ids]
    rows = plan.draw(views, 0, 0, ids, [image.shape[:2] for image in images]).rows
    masks = [source.mask(id) if id % 4 in (0, 3) else None for id in ids]
    for row, mask in zip(rows, masks, strict=True):
        if mask is None:
            row["paste"] = PASTE_NEVER
    others = [plan.companion(np.uint64(0), 0, id, SAMPLES) for id in ids]
    companions = [decode(source.read(id)) for id in others]
    made = cpu.render(images, rows, plan.targets(views), masks=masks, companions=companions)
    return made, rows


@pytest.mark.parametrize("background", ["grey", "texture", "images"])
@pytest.mark.parametrize("pipeline", ["threads", "dali"])
def test_views_are_those_of_the_renderer(background: str, pipeline: str) -> None:
    if pipeline == "dali":
        pytest.importorskip("nvidia.dali")
    source, views = Masked(SAMPLES), recipe(background)
    loader = make_loader(source, views, 6, pipeline=pipeline)
    pasted, without = 0, 0
    for batch in loader:
        ids = batch.ids.tolist()
        made, rows = expected(ids, views, source)
        assert (batch.rows["paste"] == rows["paste"]).all()
        pasted += int((rows["paste"] != PASTE_NEVER).sum())
        drawn = plan.draw(views, 0, 0, ids, batch.shapes).rows["paste"].any(1)
        without += int(drawn.sum() - rows["paste"].any(1).sum())
        for name, group in batch.views.items():
            assert torch.equal(group, made[name])
    assert pasted > 20
    assert loader.stats().unmasked == without > 0
    assert f"{without} times no usable mask" in str(loader.stats())
    assert loader.stats().stages["mask"].items > 0


def test_without_a_mask_it_is_the_recipe_without_copy_paste() -> None:
    pasting = make_loader(Masked(SAMPLES), recipe("grey", p=1.0))
    plain = make_loader(Masked(SAMPLES), RECIPE)
    for ours, theirs in zip(pasting, plain, strict=True):
        for slot, id in enumerate(ours.ids.tolist()):
            same = [torch.equal(ours.views[n][slot], theirs.views[n][slot]) for n in ours.views]
            assert all(same) if id % 4 in (1, 2) else not any(same)


def test_a_bad_companion_is_replaced_and_listed() -> None:
    def fail(index: int) -> None:
        if index in (3, 8):
            raise OSError("no luck")

    loader = make_loader(Masked(SAMPLES, fail), recipe("images"), workers=3)
    assert sum(len(batch) for batch in loader) == SAMPLES
    assert len(loader.ledger) == 2


def test_data_without_masks_is_one_sentence() -> None:
    with pytest.raises(MillError, match=r"pastes by masks.*prepare masks pictures"):
        make_loader(Pictures(SAMPLES), recipe("grey"))
    with pytest.raises(MillError, match="masks are for copy-paste"):
        make_loader(Pictures(SAMPLES), masks="some.masks")


def test_a_state_goes_on_with_the_same_masks_only() -> None:
    state = make_loader(Masked(SAMPLES), recipe("grey")).state_dict()
    other = Masked(SAMPLES)
    loader = make_loader(other, recipe("grey"))
    loader.load_state_dict(state)
    loader._masks = "others"
    with pytest.raises(MillError, match="another masks"):
        loader.load_state_dict(state)
