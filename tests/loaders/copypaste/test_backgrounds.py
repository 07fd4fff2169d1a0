"""Backgrounds for copy-paste: of eight candidates, the one whose mask has the least foreground."""

from __future__ import annotations

from pathlib import Path

import helpers_prepare as making
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchmill.loaders.copypaste import mask_file, masks
from patchmill.loaders.copypaste.backgrounds import CANDIDATES, candidates, least_foreground
from patchmill.loaders.plan import draw
from patchmill.loaders.sources import open_source


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))


def test_eight_are_drawn_independently_and_never_the_image_itself() -> None:
    ids = range(300)
    table = np.array([candidates(5, 2, id, 1000) for id in ids])
    assert table.shape == (300, CANDIDATES) == (300, 8)
    assert (
        table[:, 0] == [draw.background_candidate(np.uint64(5), 2, id, 1000) for id in ids]
    ).all()
    assert not (table == np.arange(300)[:, None]).any()
    assert len(np.unique(table)) > 850  # of 1000, in 2400 draws: 909 are to be expected
    between = np.corrcoef(table.T)[np.triu_indices(8, 1)]
    assert np.abs(between).max() < 0.25
    assert candidates(5, 3, 0, 1000) != candidates(5, 2, 0, 1000) != candidates(6, 2, 0, 1000)
    assert candidates(0, 0, 0, 1) == [0] * 8 and candidates(0, 0, 1, 2) == [0] * 8


shares = st.dictionaries(st.integers(0, 9), st.none() | st.floats(0, 1), min_size=10)


@given(shares, st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(0, 9))
def test_the_candidate_with_least_foreground_is_chosen(
    known: dict[int, float | None], candidates: list[int], id: int
) -> None:
    taken = least_foreground(id, candidates, known.__getitem__)
    others = [other for other in candidates if other != id]
    if not others:
        assert taken == id
        return
    assert taken in others
    seen = [share for other in others if (share := known[other]) is not None]
    if not seen:
        assert taken == others[0]
        return
    assert known[taken] == min(seen)
    assert taken == next(other for other in others if known[other] == min(seen))


def test_foreground_is_read_from_a_mask_file_without_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(making.photos(tmp_path / "src", 3))
    plane = np.tile(np.array([0, 0, 0, 255], np.uint8), (4, 4))
    rows = [
        mask_file.mask_row(plane, 0.25, 1.0, ""),
        mask_file.mask_row(plane, 0.01, 1.0, "too little"),
        mask_file.missing_row("not an image"),
    ]
    meta = {"source": source.fingerprint, "samples": 3, "estimator": {"method": "gs", "version": 1}}
    mask_file.write_mask_file(tmp_path / "x.masks", lambda: rows, 3, meta)
    found = masks.open_mask_file(tmp_path / "x.masks", source)
    monkeypatch.setattr(found.file, "mask", None)
    assert [found.foreground(i) for i in range(3)] == [0.25, None, None]
    assert least_foreground(9, [2, 1, 0], found.foreground) == 0


def test_other_masks_are_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source("scenes(count=3, size=48)")
    asked: list[int] = []
    mask = source.mask  # type: ignore[attr-defined]
    monkeypatch.setattr(source, "mask", lambda id: asked.append(id) or mask(id))
    found = masks.open_masks(source)
    assert found is not None
    for id in (2, 0, 2, 0, 2):
        assert found.foreground(id) == pytest.approx(mask(id).mean() / 255, abs=1e-6)
    assert asked == [2, 0]
    assert found.stats() == masks.MaskStats()


def test_chosen_backgrounds_show_less_foreground() -> None:
    """Chosen backgrounds show less foreground than images on average."""
    found = masks.open_masks(open_source("scenes(count=40, size=48)"))
    assert found is not None
    share = [found.foreground(id) or 1.0 for id in range(40)]
    taken = [least_foreground(id, candidates(0, 0, id, 40), found.foreground) for id in range(40)]
    assert np.mean([share[id] for id in taken]) < 0.75 * np.mean(share)
