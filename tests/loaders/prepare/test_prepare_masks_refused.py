"""Mistakes in `patchmill masks`: one sentence each, and nothing that is there is lost."""

from __future__ import annotations

import threading
from pathlib import Path

import helpers_prepare as making
import pytest
from helpers_prepare_masks import COUNT, make, mask_photos

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.copypaste.mask_file import MaskFile
from patchmill.loaders.prepare import command, make_masks
from patchmill.loaders.prepare.options import MaskOptions
from patchmill.loaders.sources.folder import Folder


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    return mask_photos(tmp_path / "src")


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"method": "mc"}, "--method gs, not mc"),
        ({"method": "gs(spread=2.0)"}, "other constants"),
        ({"max_side": 32}, "--max-side 24, not 32"),
    ],
)
def test_another_estimator_or_size_needs_overwrite(
    photos: Path, tmp_path: Path, other: dict, told: str
) -> None:
    out = tmp_path / "x.masks"
    make(photos, out, rank=1, world_size=2)
    with pytest.raises(MillError, match="--world-size 2, not 1"):
        make(photos, out)
    with pytest.raises(MillError, match=told):
        make(photos, out, rank=0, world_size=2, **other)
    make(photos, out, rank=0, world_size=2)
    with pytest.raises(MillError, match=told):
        make(photos, out, **other)
    make(photos, out, overwrite=True, **other)
    make(photos, tmp_path / "y.masks", **other)
    assert out.read_bytes() == (tmp_path / "y.masks").read_bytes()


def test_changed_data_needs_overwrite(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.masks"
    make(photos, out)
    (photos / "class1" / "new.jpg").write_bytes(making.jpeg(77))
    with pytest.raises(MillError, match="another source, or a source that has changed"):
        make(photos, out)
    make(photos, out, overwrite=True)
    assert len(MaskFile(out)) == COUNT + 1


def test_foreign_files_are_not_overwritten(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "x.masks").write_text("dear diary")
    for overwrite in (False, True):
        with pytest.raises(MillError, match=r"cannot use .*x\.masks"):
            make(photos, tmp_path / "x.masks", overwrite=overwrite)
    assert (tmp_path / "x.masks").read_text() == "dear diary"


def test_a_second_process_is_refused(photos: Path, tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Folder):
        def read(self, index: int) -> bytes:
            begun.set()
            go_on.wait(60)
            return super().read(index)

    source = Slow(photos)
    thread = threading.Thread(
        target=make_masks.make, args=(source, tmp_path / "x.masks", MaskOptions("gs", 24), 1)
    )
    thread.start()
    try:
        assert begun.wait(60)
        with pytest.raises(MillError, match="another process is writing this output"):
            make(photos, tmp_path / "x.masks")
    finally:
        go_on.set()
        thread.join(60)
    assert (tmp_path / "x.masks").exists()


def test_a_source_that_is_mostly_unreadable_stops(tmp_path: Path) -> None:
    files = {f"{i}.jpg": b"no image" for i in range(150)}
    folder = making.write_folder(tmp_path / "src", files)
    with pytest.raises(MillError, match=r"101 of the first 101 images cannot be read, the latest"):
        make(folder, tmp_path / "x.masks")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--method", "magic"], "there is no saliency method 'magic'"),
        (["--weights", "w.safetensors"], "--weights is for --method learned, not rbd"),
        (["--method", "learned"], "needs --weights FILE"),
        (["--method", "learned(size=64)", "--weights", "none.safetensors"], "cannot read weights"),
        (["--method", "learned", "--weights", "none.safetensors"], "cannot read weights"),
        (["--max-side", "3"], "--max-side must be 16 to 4096 pixels, not 3"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--rank", "2", "--world-size", "2"], "--rank must be 0 to 1"),
        (["--rank", "0"], "belong together"),
        (["--out", "nowhere/x.masks"], "there is no folder nowhere"),
        (["--rank", "0", "--world-size", "2", "--overwrite"], "remove what other ranks write"),
    ],
)
def test_mistakes_are_reported_in_one_sentence(photos: Path, given: list[str], told: str) -> None:
    with pytest.raises(MillError, match=told) as error:
        command.main(["masks", str(photos), *given])
    assert "\n" not in str(error.value)
    assert not Path(f"{photos}.masks").exists()
