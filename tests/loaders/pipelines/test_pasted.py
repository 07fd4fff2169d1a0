"""Copy-paste in loaders: every pipeline pastes by the same masks on the same images."""

from __future__ import annotations

import copy
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_pipelines import RECIPE, Masked, Pictures, encoded, make_loader

from patchmill.kernels.views.cpu import render
from patchmill.kernels.views.decisions import PASTE_NEVER
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.copypaste.mask_png import encode_mask
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.order import permutation
from patchmill.loaders.plan import draw
from patchmill.loaders.recipe import CopyPaste, Recipe

SAMPLES = 24


def recipe(background: str, p: float = 0.7) -> Recipe:
    paste = CopyPaste(p=p, background=background, blur_sigma=2.0)
    return Recipe(tuple(replace(group, paste=paste) for group in RECIPE.views), name="pasting")


def expected(ids: list[int], views: Recipe, source: Masked) -> tuple[Any, np.ndarray]:
    """Views by the renderer from the same decision rows."""
    images = [decode(source.read(id)) for id in ids]
    rows = draw.draw(views, 0, 0, ids, [image.shape[:2] for image in images]).rows
    masks = [source.mask(id) if id % 4 in (0, 3) else None for id in ids]
    for row, mask in zip(rows, masks, strict=True):
        if mask is None:
            row["paste"] = PASTE_NEVER
    others = [background_of(id, candidates(id), source) for id in ids]
    background_images = [decode(source.read(id)) for id in others]
    made = render.render(
        images, rows, draw.targets(views), masks=masks, backgrounds=background_images
    )
    return made, rows


def candidates(id: int) -> list[int]:
    return [int(draw.background_candidate(np.uint64(0), 0, id, SAMPLES, n)) for n in range(8)]


def background_of(id: int, drawn: list[int], source: Masked) -> int:
    """The candidate with the least foreground; those without a usable mask come last."""

    def foreground(other: int) -> float:
        mask = source.mask(other) if other % 4 in (0, 3) else None
        return 2.0 if mask is None else float(np.float32((mask >= 128).mean()))

    return min((other for other in drawn if other != id), key=foreground)


@pytest.mark.parametrize("background", ["grey", "texture", "images"])
@pytest.mark.parametrize("pipeline", ["threads", "dali"])
def test_views_equal_those_of_the_renderer(background: str, pipeline: str) -> None:
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
        drawn = draw.draw(views, 0, 0, ids, batch.shapes).rows["paste"].any(1)
        without += int(drawn.sum() - rows["paste"].any(1).sum())
        for name, group in batch.views.items():
            assert torch.equal(group, made[name])
        shown = torch.cat([batch.pasted[name] for name in batch.views], dim=1)
        assert (shown.numpy() == (rows["paste"] != PASTE_NEVER)).all()
        assert all(
            batch.pasted[name].shape == group.shape[:2] for name, group in batch.views.items()
        )
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
            for group in ours.pasted.values():
                assert group[slot].tolist() == [id % 4 in (0, 3)] * group.shape[1]
        assert not any(group.any() for group in theirs.pasted.values())


def test_images_without_a_mask_are_no_backgrounds() -> None:
    """Backgrounds are chosen by the masks alone, without reading the other candidates."""
    source = Masked(SAMPLES)
    taken = [background_of(id, candidates(id), source) for id in range(SAMPLES)]
    assert {other % 4 for other in taken} == {0, 3}
    assert taken != [candidates(id)[0] for id in range(SAMPLES)]
    read: list[int] = []
    loader = make_loader(Masked(SAMPLES, read.append), recipe("images", p=1.0), workers=1)
    for _ in loader:
        pass
    pasted = [id for id in range(SAMPLES) if id % 4 in (0, 3)]
    assert sorted(read) == sorted([*range(SAMPLES), *(taken[id] for id in pasted)])


@pytest.mark.parametrize("world_size", [2, 4])
def test_every_world_size_has_the_same_backgrounds(world_size: int) -> None:
    views = recipe("images")
    whole = list(make_loader(Masked(SAMPLES), views, 8))
    crew = [
        make_loader(Masked(SAMPLES), views, 8 // world_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for batch, shares in zip(whole, zip(*crew, strict=True), strict=True):
        for name, group in batch.views.items():
            assert torch.equal(group, torch.cat([share.views[name] for share in shares]))


def test_an_unreadable_background_is_substituted_and_listed() -> None:
    def fail(index: int) -> None:
        if index in (3, 8):
            raise OSError("no luck")

    loader = make_loader(Masked(SAMPLES, fail), recipe("images"), workers=3)
    assert sum(len(batch) for batch in loader) == SAMPLES
    assert len(loader.ledger) == 2


def test_data_without_masks_is_a_mill_error() -> None:
    with pytest.raises(MillError, match=r"needs masks for copy-paste.*patchmill masks pictures"):
        make_loader(Pictures(SAMPLES), recipe("grey"))
    with pytest.raises(MillError, match="masks are for copy-paste"):
        make_loader(Pictures(SAMPLES), masks="some.masks")


def test_a_state_resumes_with_the_same_masks_only() -> None:
    state = make_loader(Masked(SAMPLES), recipe("grey")).state_dict()
    other = Masked(SAMPLES)
    loader = make_loader(other, recipe("grey"))
    loader.load_state_dict(state)
    loader._masks = "others"
    with pytest.raises(MillError, match="another masks"):
        loader.load_state_dict(state)


# ---------------------------------------------------------------------- backgrounds from other data


@pytest.mark.parametrize("pipeline", ["threads", "dali"])
def test_backgrounds_from_another_data_set(pipeline: str) -> None:
    if pipeline == "dali":
        pytest.importorskip("nvidia.dali")
    source, views, other_data = Masked(SAMPLES), recipe("images"), Pictures(40)
    seen: set[int] = set()
    for batch in make_loader(source, views, 6, pipeline=pipeline, backgrounds=other_data):
        ids = batch.ids.tolist()
        images = [decode(source.read(id)) for id in ids]
        masks = [source.mask(id) if id % 4 in (0, 3) else None for id in ids]
        background_ids = [int(draw.background_id(np.uint64(0), 0, id, 40)) for id in ids]
        seen.update(background_ids)
        background_images = [decode(other_data.read(id)) for id in background_ids]
        made = render.render(
            images, batch.rows, draw.targets(views), masks=masks, backgrounds=background_images
        )
        for name, group in batch.views.items():
            assert torch.equal(group, made[name])
    assert len(seen) > 12 and max(seen) > SAMPLES


def test_an_unreadable_background_of_another_data_set_is_listed_apart() -> None:
    def fail(index: int) -> None:
        if index % 7 == 3:
            raise OSError("no luck")

    other_data = Pictures(14, fail)
    loader = make_loader(
        Masked(SAMPLES), recipe("images", p=1.0), workers=3, backgrounds=other_data
    )
    assert sum(len(batch) for batch in loader) == SAMPLES
    assert len(loader.ledger) == 0
    path = loader.ledger.path.with_name(f"{loader.ledger.path.stem}-backgrounds.jsonl")
    listed = [json.loads(line) for line in path.read_text().splitlines()]
    assert listed and {entry["id"] for entry in listed} <= {3, 10}
    assert all(entry["where"] == f"picture {entry['id']}" for entry in listed)


def test_a_state_resumes_with_the_same_backgrounds_only(tmp_path: Path) -> None:
    settings = {"backgrounds": Pictures(9)}
    state = make_loader(Masked(SAMPLES), recipe("images"), **settings).state_dict()
    make_loader(Masked(SAMPLES), recipe("images"), **settings).load_state_dict(state)
    for other in ({}, {"backgrounds": Pictures(8)}):
        with pytest.raises(MillError, match="another backgrounds"):
            make_loader(Masked(SAMPLES), recipe("images"), **other).load_state_dict(state)
    with pytest.raises(MillError, match="backgrounds are for copy-paste on images, which"):
        make_loader(Masked(SAMPLES), recipe("grey"), **settings)
    with pytest.raises(MillError, match="there is no folder"):
        make_loader(Masked(SAMPLES), recipe("images"), backgrounds=tmp_path / "none")
    with pytest.raises(MillError, match="has no images to use as backgrounds"):
        make_loader(Masked(SAMPLES), recipe("images"), backgrounds=Pictures(0))


# ---------------------------------------------------------------------------------------- streams


@pytest.fixture
def url(tmp_path: Path) -> str:
    """One shard of all samples, with their masks."""
    pytest.importorskip("webdataset")
    source = Masked(SAMPLES)
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for id in range(SAMPLES):
            mask = source.mask(id)
            members = {"jpg": encoded(id), "mask.png": b"" if mask is None else encode_mask(mask)}
            for extension, data in members.items():
                if data:
                    member = tarfile.TarInfo(f"{id:03}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return f"file://{tmp_path / '0.tar'}"


@pytest.fixture
def streamed(url: str) -> Callable[..., Any]:
    """Loaders of two rounds through the shard, in batches that do not divide it."""
    return lambda **more: make_loader([url], recipe("images"), 7, steps=6, **more)


def test_backgrounds_in_a_stream_come_from_the_batch(streamed: Callable[..., Any]) -> None:
    source, views = Masked(SAMPLES), recipe("images")
    for step, batch in enumerate(streamed(workers=3)):
        epoch, ids = (step >= 3) << 24, batch.ids.tolist()
        images = [decode(source.read(id)) for id in ids]
        masks = [source.mask(id) if id % 4 in (0, 3) else None for id in ids]
        background_images = []
        for id in ids:
            drawn = [ids[permutation.substitute(0, epoch, id, 100 + n, len(ids))] for n in range(8)]
            background_images.append(decode(source.read(background_of(id, drawn, source))))
        made = render.render(
            images, batch.rows, draw.targets(views), masks=masks, backgrounds=background_images
        )
        for name, group in batch.views.items():
            assert torch.equal(group, made[name])


def test_a_resumed_stream_has_the_same_backgrounds(streamed: Callable[..., Any]) -> None:
    whole, batches, states = streamed(), [], []
    for batch in whole:
        batches.append(batch.views["global"].clone())
        states.append(copy.deepcopy(whole.state_dict()))
    for cut in (1, 3):
        loader = streamed(workers=1, prefetch=5)
        loader.load_state_dict(states[cut])
        for ours, theirs in zip(loader, batches[cut + 1 :], strict=True):
            assert torch.equal(ours.views["global"], theirs)
