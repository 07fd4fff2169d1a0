"""A file of masks gives back what was put into it, and notices damage."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import helpers_prepare as making
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.copypaste import mask_file, masks
from patchmill.loaders.copypaste.mask_file import DEGENERATE, GOOD, MISSING, MaskFile
from patchmill.loaders.prepare import inspect_masks
from patchmill.loaders.sources import open_source

shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))
whys = st.sampled_from(["", "", "only 1.0% of the image is foreground", "ümlaut"])


def levels(shape: tuple[int, int]) -> np.ndarray:
    """Random grey levels out of the sixteen that a file stores."""
    numbers = np.random.default_rng(shape[0] * 41 + shape[1])
    return numbers.integers(0, 16, shape).astype(np.uint8) * np.uint8(17)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.one_of(st.none(), st.tuples(shapes, whys)), max_size=6))
def test_round_trip(tmp_path: Path, samples: list[tuple[tuple[int, int], str] | None]) -> None:
    def rows() -> list[mask_file.MaskRow]:
        return [
            mask_file.mask_row(levels(one[0]), 0.25, 0.75, one[1])
            if one
            else mask_file.missing_row("bad")
            for one in samples
        ]

    path = tmp_path / "some.masks"
    counts = mask_file.write_mask_file(path, rows, len(samples), {"hello": 1})
    assert [path.name] == os.listdir(tmp_path)
    file = MaskFile(path)
    assert len(file) == len(samples) == sum(counts.values())
    assert file.meta["hello"] == 1 and file.meta["counts"] == counts
    for i, one in enumerate(samples):
        if one is None:
            assert (file.states[i], file.mask(i), file.why(i)) == (MISSING, None, "bad")
            continue
        shape, why = one
        assert (file.states[i], file.why(i)) == (DEGENERATE if why else GOOD, why)
        assert (file.foregrounds[i], file.confidences[i]) == (0.25, 0.75)
        np.testing.assert_array_equal(file.mask(i), levels(shape))


def written(path: Path) -> Path:
    rows = [mask_file.mask_row(levels((20, 30)), 0.5, 0.5, "") for _ in range(3)]
    mask_file.write_mask_file(path, lambda: rows, 3, {})
    return path


def test_a_damaged_mask_is_an_os_error_and_the_others_are_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a.masks")
    png = MaskFile(path).png(1)
    assert png is not None
    data = bytearray(path.read_bytes())
    second = data.index(png, data.index(png) + 1)
    data[second + 60] ^= 1
    path.write_bytes(bytes(data))
    file = MaskFile(path)
    with pytest.raises(OSError, match="checksum"):
        file.mask(1)
    for i in (0, 2):
        np.testing.assert_array_equal(file.mask(i), levels((20, 30)))


def test_truncated_foreign_and_missing_files_are_one_sentence(tmp_path: Path) -> None:
    path = written(tmp_path / "a.masks")
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(MillError, match=r"a\.masks: it is truncated"):
        MaskFile(path)
    path.write_bytes(b"something else")
    with pytest.raises(MillError, match="not a file of this program"):
        MaskFile(path)
    with pytest.raises(MillError, match="No such file"):
        MaskFile(tmp_path / "none.masks")


def test_open_files_are_closed(tmp_path: Path) -> None:
    path = written(tmp_path / "a.masks")
    before = len(os.listdir("/proc/self/fd"))
    file = MaskFile(path)
    file.mask(0)
    del file
    assert len(os.listdir("/proc/self/fd")) <= before


GS = {"method": "gs", "version": 1}


@pytest.mark.parametrize(
    "meta",
    [
        {"source": 5},
        {"samples": 4},
        {"samples": "3"},
        {"max_side": None},
        {"made": []},
        {"made_by": "a\x1b[2J"},
        {"estimator": []},
        {"estimator": {"method": "gs"}},
        {"estimator": GS | {"method": 3}},
        {"estimator": GS | {"version": "1"}},
        {"estimator": GS | {"fingerprint": 7}},
    ],
    ids=str,
)
def test_metadata_of_another_kind_is_one_sentence(tmp_path: Path, meta: dict[str, Any]) -> None:
    """The file's checksums match: its author computed them."""
    path = tmp_path / "a.masks"
    rows = [mask_file.mask_row(levels((20, 30)), 0.5, 0.5, "") for _ in range(3)]
    mask_file.write_mask_file(path, lambda: rows, 3, meta)
    with pytest.raises(MillError, match=r"a\.masks: it is damaged"):
        MaskFile(path)


@pytest.mark.parametrize("meta", [{}, {"estimator": GS}, {"counts": 5}])
def test_missing_metadata_is_optional(tmp_path: Path, meta: dict[str, Any]) -> None:
    source = open_source(making.photos(tmp_path / "src", 3))
    rows = [mask_file.mask_row(levels((20, 30)), 0.5, 0.5, "") for _ in range(3)]
    path = tmp_path / "a.masks"
    mask_file.write_mask_file(path, lambda: rows, 3, {"source": source.fingerprint, **meta})
    assert masks.open_mask_file(path, source, method="gs").plane(2) is not None
    text, problems = inspect_masks.inspect_file(path)
    assert "masks of 3 images" in text and not problems


def test_shares_beyond_one_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.masks"
    for share in (1.5, -0.1, float("nan")):
        row = mask_file.mask_row(levels((20, 30)), share, 0.5, "")
        mask_file.write_mask_file(path, lambda row=row: [row], 1, {})
        with pytest.raises(MillError, match="it is damaged"):
            MaskFile(path)
