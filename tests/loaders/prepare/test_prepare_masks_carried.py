"""`patchmill prepare` carries masks along, into shards and into a .beton."""

from __future__ import annotations

from pathlib import Path

import helpers_prepare as making
import numpy as np
import pytest
from helpers_mask_shards import write_mask_shard
from helpers_prepare_masks import make, mask_photos

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.copypaste import masks
from patchmill.loaders.prepare import inspect_data, make_masks
from patchmill.loaders.prepare.options import MaskOptions
from patchmill.loaders.sources import open_source


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return mask_photos(tmp_path / "src")


@pytest.mark.parametrize("out", ["shards", "all.beton"])
@pytest.mark.parametrize("own", [True, False])
def test_prepare_carries_masks_along(tmp_path: Path, out: str, own: bool) -> None:
    """Usable masks, from the data itself or from a file."""
    source = open_source("scenes(count=12, size=48)")
    if not own:
        make_masks.make(source, masks.default_mask_path(source), MaskOptions("rbd", 32), 2)
    found = masks.open_masks(source)
    assert found is not None
    making.prepare(source, tmp_path / out, "beton" if "." in out else "shards")
    made = open_source(tmp_path / out)
    carried = masks.open_masks(made)
    assert carried is not None
    images = {source.read(i): i for i in range(12)}
    used = 0
    for i in range(12):
        wanted = found.plane(images[made.read(i)])
        plane = carried.plane(i)
        used += wanted is not None
        assert (plane is None) == (wanted is None)
        if wanted is not None:
            np.testing.assert_array_equal(plane, wanted)
    assert used > 0
    assert carried.estimator == (None if own else found.estimator)
    text, problems = inspect_data.inspect(tmp_path / out)
    assert problems == []
    by = "" if own else " by rbd, version 1"
    assert f"masks      {used}{by}" in text
    assert making.prepare(source, tmp_path / out, "beton" if "." in out else "shards") is None


def test_prepared_without_masks_is_not_continued_with_them(photos: Path, tmp_path: Path) -> None:
    making.prepare(photos, tmp_path / "out")
    make(photos, Path(f"{photos}.masks"))
    with pytest.raises(MillError, match="other masks"):
        making.prepare(photos, tmp_path / "out")


def test_a_mask_with_colours_stops_prepare(tmp_path: Path) -> None:
    coloured = making.by_pil(making.Image.new("RGB", (9, 9)), "PNG")
    (tmp_path / "in").mkdir()
    write_mask_shard(tmp_path / "in" / "a.tar", [b"", coloured])
    with pytest.raises(MillError, match=r"a\.tar: 1\.mask\.png .*has 3 channels"):
        making.prepare(tmp_path / "in" / "a.tar", tmp_path / "out")
    _, problems = inspect_data.inspect(tmp_path / "in")
    assert len(problems) == 1 and "has 3 channels" in problems[0]
