"""`patchmill masks`: the masks of the estimator, described and verified."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pytest
from helpers_prepare_masks import BAD, COUNT, make, mask_photos

from patchmill.loaders.copypaste.mask_file import MISSING, MaskFile
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.prepare import command, inspect_data
from patchmill.loaders.prepare.make_masks import MasksResult
from patchmill.loaders.saliency import estimate
from patchmill.loaders.sources import open_source


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    return mask_photos(tmp_path / "src")


def test_masks_equal_those_of_the_estimator(photos: Path, tmp_path: Path) -> None:
    result = make(photos, tmp_path / "x.masks")
    assert isinstance(result, MasksResult) and result.images == COUNT
    source, file = open_source(photos), MaskFile(tmp_path / "x.masks")
    assert len(file) == COUNT and file.meta["source"] == source.fingerprint
    assert file.meta["estimator"]["method"] == "gs" and "constants" in file.meta["estimator"]
    for i in range(COUNT):
        if "bad" in source.where(i):
            assert (file.states[i], file.mask(i)) == (MISSING, None)
            assert "not an image" in file.why(i)
            continue
        wanted = estimate(decode(source.read(i)), "gs", 24)
        plane = file.mask(i)
        assert plane is not None and plane.shape == wanted.plane.shape == (16, 24)
        assert np.abs(plane.astype(int) - wanted.plane).max() <= 8
        assert file.why(i) == wanted.why
        assert file.foregrounds[i] == np.float32(wanted.foreground)
        assert file.confidences[i] == np.float32(wanted.confidence)
    assert make(photos, tmp_path / "x.masks") is None


def test_the_command(
    photos: Path, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "patchmill"):
        command.main(["masks", str(photos), "--method", "gs", "--max-side", "24", "--workers", "1"])
    told = capsys.readouterr().out
    assert f"{COUNT} images, " in told and f"complete: {photos}.masks" in told
    assert re.search(rf"gs masks for {COUNT} images: about \d:\d\d:\d\d, at ", caplog.text)
    command.main(["masks", str(photos), "--method", "gs", "--max-side", "24"])
    assert "is complete already: nothing to do" in capsys.readouterr().out
    command.main(["inspect", f"{photos}.masks"])
    told = capsys.readouterr().out
    assert f"masks      {COUNT - BAD} by gs, version 1 (constants " in told
    assert re.search(r"degenerate \d+ of them \(\d+\.\d%\)", told)
    assert f"missing    {BAD}, the first for image " in told
    assert f"the checksums of {COUNT - BAD} masks: nothing differs" in told


def test_inspect_names_a_damaged_mask(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.masks"
    make(photos, path)
    file = MaskFile(path)
    chosen = next(i for i in range(COUNT) if file.states[i] != MISSING)
    png, data = file.png(chosen), bytearray(path.read_bytes())
    assert png is not None
    data[data.index(png) + len(png) // 2] ^= 1
    path.write_bytes(bytes(data))
    text, problems = inspect_data.inspect(path)
    assert text.endswith(f"the checksums of {COUNT - BAD} masks: {len(problems)} problems")
    assert problems[0].startswith(f"mask {chosen} of {path}: its mask is damaged")
