"""Masks from the data or from a mask file: which is found, and which masks training may use."""

from __future__ import annotations

import io
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import helpers_prepare as making
import numpy as np
import pytest
from helpers_mask_shards import write_mask_shard
from hypothesis import given
from hypothesis.extra import numpy as arrays
from PIL import Image

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.copypaste import mask_file, masks
from patchmill.loaders.copypaste.mask_png import encode_mask
from patchmill.loaders.copypaste.masks import DEGENERATE, MISSING, UNREADABLE, USED, MaskStats
from patchmill.loaders.prepare import make_masks
from patchmill.loaders.prepare.options import MaskOptions
from patchmill.loaders.saliency import estimator
from patchmill.loaders.sources import Source, open_source
from patchmill.loaders.sources.beton.source import Beton
from patchmill.loaders.sources.beton.writer import BetonWriter
from patchmill.loaders.sources.shards import index
from patchmill.loaders.sources.shards.source import Shards


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))


def half(height: int = 20, width: int = 30) -> np.ndarray:
    """Foreground on the left."""
    plane = np.zeros((height, width), np.uint8)
    plane[:, : width // 2] = 255
    return plane


def colours() -> bytes:
    data = io.BytesIO()
    Image.fromarray(half()).convert("RGB").save(data, "PNG")
    return data.getvalue()


# Of each kind of sample: its mask's bytes, and what becomes of them.
KINDS: dict[str, tuple[bytes, str]] = {
    "good": (encode_mask(half()), USED),
    "none": (b"", MISSING),
    "black": (encode_mask(np.zeros((9, 9), np.uint8)), DEGENERATE),
    "white": (encode_mask(np.full((9, 9), 255, np.uint8)), DEGENERATE),
    "broken": (b"\x89PNG no more", UNREADABLE),
    "other size": (encode_mask(half(7, 5)), USED),
}


def shards(folder: Path, kinds: list[bytes]) -> Source:
    return Shards(write_mask_shard(folder / "some.tar", kinds))


def beton(folder: Path, kinds: list[bytes]) -> Source:
    with BetonWriter(folder / "some.beton", len(kinds), masks=True) as writer:
        for i, mask in enumerate(kinds):
            writer.add(making.jpeg(i), 0, mask)
    return Beton(folder / "some.beton")


@pytest.mark.parametrize("make", [shards, beton])
def test_masks_that_came_with_the_data(tmp_path: Path, make: Any) -> None:
    source = make(tmp_path, [data for data, _ in KINDS.values()])
    found = masks.open_masks(source)
    assert found is not None
    for i, (name, (_, state)) in enumerate(KINDS.items()):
        look, plane = found.lookup(i), found.plane(i)
        assert look.state == state, name
        assert bool(look.why) == (state != USED), name
        assert (plane is not None) == (state == USED), name
    np.testing.assert_array_equal(found.plane(0), half())
    np.testing.assert_array_equal(found.plane(5), half(7, 5))
    stats = found.stats()
    assert stats == MaskStats(used=4, missing=1, degenerate=2, unreadable=1)
    assert stats.without == 4


@pytest.mark.parametrize(("make", "name"), [(shards, "2.mask.png"), (beton, "sample 2 at byte")])
def test_a_mask_of_three_channels_is_an_error_that_names_it(
    tmp_path: Path, make: Any, name: str
) -> None:
    found = masks.open_masks(make(tmp_path, [encode_mask(half())] * 2 + [colours()]))
    assert found is not None and found.plane(1) is not None
    with pytest.raises(MillError, match=rf"some.*{name}.* has 3 channels, but a mask is grey"):
        found.plane(2)


def test_scenes_have_masks() -> None:
    source = open_source("scenes(count=3, size=48)")
    found = masks.open_masks(source)
    assert found is not None
    for i in range(3):
        np.testing.assert_array_equal(found.lookup(i).plane, source.mask(i))  # type: ignore[attr-defined]
        assert 0 < found.lookup(i).foreground < 1


def test_without_any(tmp_path: Path) -> None:
    assert masks.open_masks(open_source(making.photos(tmp_path / "src", 2))) is None
    tar = tmp_path / "no.tar"
    assert masks.open_masks(Shards(write_mask_shard(tar, [b"", b""]))) is None


@given(arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_a_mask_of_one_side_only_is_degenerate(plane: np.ndarray) -> None:
    foreground = (plane >= 128).mean()
    assert bool(masks.degenerate_reason(plane)) == (foreground in (0, 1))
    if foreground in (0, 1):
        assert ("foreground" if foreground else "background") in masks.degenerate_reason(plane)


def test_threads_count_every_lookup_once(tmp_path: Path) -> None:
    found = masks.open_masks(beton(tmp_path, [data for data, _ in KINDS.values()]))
    assert found is not None
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(found.plane, list(range(6)) * 50))
    assert found.stats() == MaskStats(used=100, missing=50, degenerate=100, unreadable=50)


def test_the_first_unreadable_mask_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = masks.open_masks(beton(tmp_path, [b"broken", encode_mask(half()), b"broken"]))
    assert found is not None
    for i in (1, 2, 0):
        found.plane(i)
    told = [r.message for r in caplog.records if "cannot be used" in r.message]
    assert len(told) == 1 and told[0].startswith("mask 2 of ")


# ------------------------------------------------------------------------------- the file beside it


def make_file(source: Source, out: Path | None = None, method: str = "gs") -> Path:
    out = out or masks.default_mask_path(source)
    make_masks.make(source, out, MaskOptions(method, max_side=32), workers=2)
    return out


def test_it_is_found_next_to_the_data_or_in_the_cache(tmp_path: Path) -> None:
    folder = making.photos(tmp_path / "src", 4)
    source = open_source(folder)
    assert masks.find_mask_file(source) is None
    assert masks.default_mask_path(source) == tmp_path / "src.masks"
    path = make_file(source)
    assert masks.find_mask_file(open_source(str(folder) + "/")) == path == tmp_path / "src.masks"
    found = masks.open_masks(source)
    assert found is not None and found.name == str(path)

    scenes = open_source("scenes(count=2, size=48)")
    path = make_file(scenes)
    assert path.parent == tmp_path / "cache" / "masks"
    assert masks.find_mask_file(open_source("scenes(count=2, size=48)")) == path
    assert masks.find_mask_file(open_source("scenes(count=3, size=48)")) is None
    found = masks.open_masks(scenes)
    assert found is not None and found.file is not None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_it_goes_to_the_cache_if_the_folder_is_not_writable(tmp_path: Path) -> None:
    source = open_source(making.photos(tmp_path / "ro" / "src", 2))
    (tmp_path / "ro").chmod(0o500)
    try:
        assert masks.default_mask_path(source).parent == tmp_path / "cache" / "masks"
    finally:
        (tmp_path / "ro").chmod(0o700)


def test_other_data_is_refused(tmp_path: Path) -> None:
    path = make_file(open_source(making.photos(tmp_path / "src", 4)))
    (tmp_path / "src" / "class0" / "new.jpg").write_bytes(making.jpeg(9))
    with pytest.raises(MillError, match=r"masks of other data \(4 images\) than .* \(5\): make"):
        masks.open_masks(open_source(tmp_path / "src"))
    with pytest.raises(MillError, match=f"cannot use {tmp_path / 'none'}: No such file"):
        masks.open_masks(open_source(tmp_path / "src"), tmp_path / "none")
    assert path.exists()


def test_degenerate_and_missing_masks_are_not_used(tmp_path: Path) -> None:
    source = open_source(making.photos(tmp_path / "src", 4))
    rows = [
        mask_file.mask_row(half(), 0.5, 1.0, ""),
        mask_file.mask_row(half(), 0.01, 1.0, "only 1.0% of the image is foreground"),
        mask_file.missing_row("not an image"),
        mask_file.mask_row(np.zeros((9, 9), np.uint8), 0.5, 1.0, ""),
    ]
    made = estimator("gs").metadata()
    meta = {"source": source.fingerprint, "samples": 4, "estimator": made}
    mask_file.write_mask_file(tmp_path / "x.masks", lambda: rows, 4, meta)
    found = masks.open_mask_file(tmp_path / "x.masks", source)
    assert [found.plane(i) is not None for i in range(4)] == [True, False, False, False]
    assert found.stats() == MaskStats(used=1, degenerate=2, missing=1)
    assert "only 1.0%" in found.lookup(1).why and found.lookup(1).plane is not None
    assert found.lookup(2).why == "not an image"


@pytest.mark.parametrize(
    ("method", "warned"),
    [
        (None, ""),
        ("gs", ""),
        ("rbd", "rbd, version 1"),
        ("gs(spread=2.0)", "gs, version 1"),
        ("learned", "learned, version 1"),
    ],
)
def test_masks_of_another_method_are_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, method: str | None, warned: str
) -> None:
    source = open_source(making.photos(tmp_path / "src", 2))
    make_file(source)
    masks.open_masks(source, method=method)
    told = [record.message for record in caplog.records]
    if not warned:
        assert told == []
    else:
        assert len(told) == 1
        assert "src.masks were made by gs, version 1 (constants " in told[0]
        assert f", not by {warned}" in told[0]


def test_masks_of_another_version_are_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(making.photos(tmp_path / "src", 2))
    make_file(source)
    making.prepare(source, tmp_path / "out")
    monkeypatch.setattr("patchmill.loaders.saliency.VERSION", 2)
    for data in (source, open_source(tmp_path / "out")):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "patchmill"):
            assert masks.open_masks(data) is not None
        (told,) = [record.message for record in caplog.records]
        assert "made by gs, version 1 (" in told and "not by gs, version 2 (" in told


def test_an_index_written_by_a_tool_has_masks_checked(tmp_path: Path) -> None:
    source = shards(tmp_path, [encode_mask(half())] * 3)
    path = tmp_path / "some.tar"
    index.write_index(path, index.scan_shard(path, checksums=True))
    data = path.read_bytes()
    mask = encode_mask(half())
    path.write_bytes(data.replace(mask, mask[:-1] + b"?", 1))
    os.utime(path, ns=(path.stat().st_atime_ns, 1_600_000_000_000_000_000))
    found = masks.open_masks(Shards(path))
    assert found is not None and len(source) == 3
    assert found.lookup(0).state == UNREADABLE and found.lookup(1).state == USED
