"""Copy-paste in pipeline `ffcv`: masks, backgrounds, pixels and counts of pipeline `threads`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import helpers_ffcv as ffcv
import pytest
import torch
from helpers_beton import overwrite_image
from helpers_masked_beton import KINDS, pasting, plane, write_masked
from helpers_pipelines import Pictures, make_loader

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.copypaste import mask_file
from patchmill.loaders.recipe import Recipe
from patchmill.loaders.sources.beton.source import Beton

COUNT, BATCH = 30, 7


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_masked(tmp_path / "masked.beton", COUNT)


def listed(ledger: Path) -> list[str]:
    return sorted(ledger.read_text().splitlines())


def assert_alike(path: Path, tmp_path: Path, recipe: Recipe, **settings: Any) -> tuple[Any, Any]:
    """Two epochs of both pipelines; returns the loaders."""
    settings = {"batch_size": BATCH, "drop_last": False, "seed": 5, "recipe": recipe, **settings}
    ours, theirs = (
        make_loader(path, pipeline=name, ledger=tmp_path / name, **settings)
        for name in ("ffcv", "threads")
    )
    for _ in range(2):
        for one, other in zip(list(ours), theirs, strict=True):
            assert one.ids.tolist() == other.ids.tolist()
            assert (one.rows == other.rows).all()
            for name, views in other.views.items():
                assert torch.equal(one.views[name], views)
                assert torch.equal(one.pasted[name], other.pasted[name])
    return ours, theirs


def masks_of(loader: Any) -> Any:
    return loader.pipeline._config.masks


def test_masks_in_a_beton(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for id in (8, 21):
        overwrite_image(path, 2 * id, b"no picture")  # between two images lies a mask
    in_python: list[int] = []
    original = ffcv.Pasting._read

    def read(self: Any, id: int, *rest: int) -> int:
        in_python.append(id)
        return original(self, id, *rest)

    monkeypatch.setattr(ffcv.Pasting, "_read", read)
    recipe = pasting("grey", "texture", "images")
    ours, theirs = assert_alike(path, tmp_path, recipe)
    mine, other = ours.stats(), theirs.stats()
    assert mine.unmasked == other.unmasked > 10
    assert mine.stages["mask"].items == other.stages["mask"].items > 40
    assert mine.stages["decode"].items == other.stages["decode"].items > 2 * COUNT
    assert masks_of(ours).stats() == masks_of(theirs).stats()
    assert listed(tmp_path / "ffcv") == listed(tmp_path / "threads")
    assert {json.loads(line)["id"] for line in listed(tmp_path / "ffcv")} == {8, 21}
    assert {id % KINDS for id in in_python} == {2, 3}  # masks with filters, and damaged ones

    def broken(*_: Any) -> None:
        raise MillError("a mask is grey")

    monkeypatch.setattr(masks_of(ours), "plane", broken)
    with pytest.raises(MillError, match="a mask is grey"):
        list(ours)


def test_masks_of_a_mask_file(path: Path, tmp_path: Path) -> None:
    """The file's table says which masks are usable, and their shares of foreground."""

    def row(index: int) -> mask_file.MaskRow:
        kind = index % KINDS
        if kind == 5:
            return mask_file.missing_row("no image")
        share = float((plane(index) >= 128).mean())
        return mask_file.mask_row(plane(index), share, 1.0, "useless" if kind == 4 else "")

    source = Beton(path)
    meta = {"source": source.fingerprint, "samples": COUNT, "estimator": None}
    file = tmp_path / "some.masks"
    mask_file.write_mask_file(file, lambda: map(row, range(COUNT)), COUNT, meta)
    recipe = pasting("grey", "images")
    ours, theirs = assert_alike(path, tmp_path, recipe, masks=file)
    assert ours.stats().unmasked == theirs.stats().unmasked > 5
    assert masks_of(ours).stats() == masks_of(theirs).stats()
    assert masks_of(ours).stats().degenerate > 0 < masks_of(ours).stats().missing


@pytest.mark.slow
def test_what_compiled_code_cannot_look_up(path: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Backgrounds of another data set, and masks that are not where compiled code could read."""
    monkeypatch.setattr(Beton, "mask_places", lambda _: None)

    def fail(index: int) -> None:
        if index % 7 == 3:
            raise OSError("no luck")

    others = Pictures(14, fail)
    ours, theirs = assert_alike(path, tmp_path, pasting("images"), backgrounds=others)
    assert ours.stats().unmasked == theirs.stats().unmasked > 5
    lists = [listed(tmp_path / f"{name}-backgrounds") for name in ("ffcv", "threads")]
    assert lists[0] == lists[1] and len(lists[0]) == 2
