"""Images too large for `--max-pixels`, and machines too small for the workers."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import helpers_prepare as making
import pytest
from helpers_shards import HOURS_AGO

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.copypaste.mask_file import MaskFile
from patchmill.loaders.decode.bad_image import MAX_PIXELS
from patchmill.loaders.decoded.opening import open_store
from patchmill.loaders.prepare import command, images, make_decoded
from patchmill.loaders.sources import open_source

SMALL, LARGE = 4, 2
AREA = 40 * 60  # of the small ones
TOLD = "60 x 80 pixels are more than the 2400 that max_pixels allows"
LIMIT = ["--max-pixels", str(AREA)]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """JPEGs and PNGs, some of them large."""
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "home"))
    folder = making.photos(tmp_path / "src", SMALL)
    large = making.Image.fromarray(making.pixels(1, 80, 60))
    files = {"large.jpg": making.jpeg(0, 80, 60), "large.png": making.by_pil(large, "PNG")}
    return making.write_folder(folder, {f"class0/{name}": data for name, data in files.items()})


@pytest.mark.parametrize("out", ["shards", "all.beton"])
@pytest.mark.parametrize("more", [[], ["--max-side", "30"], ["--verify"]])
def test_prepare_skips_larger_images(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture, out: str, more: list[str]
) -> None:
    command.main([str(photos), str(tmp_path / out), *LIMIT, *more])
    assert f"skipped: {LARGE}, listed in " in capsys.readouterr().out
    (listed,) = tmp_path.rglob("*bad.jsonl")
    assert listed.read_text().count(TOLD) == LARGE
    assert len(open_source(tmp_path / out)) == SMALL
    with pytest.raises(MillError, match=f"made with --max-pixels {AREA}, not {MAX_PIXELS}: give"):
        command.main([str(photos), str(tmp_path / out), *more])
    command.main([str(photos), str(tmp_path / out), *more, "--overwrite"])
    assert len(open_source(tmp_path / out)) == SMALL + LARGE


def test_masks_skip_larger_images(photos: Path) -> None:
    made, options = Path(f"{photos}.masks"), ["masks", str(photos), "--method", "gs"]
    command.main([*options, *LIMIT])
    source, file = open_source(photos), MaskFile(made)
    for id in range(SMALL + LARGE):
        if "large." in source.where(id):
            assert file.why(id) == TOLD
        else:
            assert file.mask(id) is not None
    with pytest.raises(MillError, match=f"made with --max-pixels {AREA}, not {MAX_PIXELS}: give"):
        command.main(options)
    command.main([*options, "--overwrite"])
    assert all(MaskFile(made).mask(id) is not None for id in range(SMALL + LARGE))


def test_decoded_images_skip_larger_images(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for path in photos.rglob("*.*"):
        os.utime(path, (HOURS_AGO, HOURS_AGO))  # new files are not kept, as they may change
    options = [str(photos), str(tmp_path / "out"), "--format", "decoded", "--size", "1MB"]
    command.main([*options, *LIMIT])
    told = capsys.readouterr().out
    assert f"{SMALL} of {SMALL + LARGE} images" in told and TOLD in told
    command.main(options)
    assert f"{SMALL + LARGE} of {SMALL + LARGE} images" in capsys.readouterr().out
    store = open_store(f"disk:{tmp_path / 'out'}:1MB", open_source(photos))
    assert store is not None and all(store.image(id) is not None for id in range(SMALL + LARGE))


def test_images_whose_header_exceeds_the_limit_are_skipped_undecoded(tmp_path: Path) -> None:
    """Unchanged images are not decoded, and loaders would call them bad samples."""
    data, said = making.bulky(0, 200_000), struct.pack(">HH", 9000, 9000)
    data = data.replace(b"\x00\x20\x00\x30", said, 1)
    folder = making.photos(tmp_path / "src", 4)
    making.write_folder(folder, {"class0/bomb.jpg": data})
    result = making.prepare(folder, tmp_path / "out")
    assert result is not None
    assert [bad.reason for bad in result.tally.bad] == [
        "9000 x 9000 pixels are more than the 67108864 that max_pixels allows"
    ]
    again = making.prepare(folder, tmp_path / "larger", max_pixels=9000 * 9000)
    assert again is not None and again.tally.samples == 5


@pytest.mark.parametrize("words", [["SRC", "OUT"], ["SRC", "OUT", "--format", "decoded"]])
def test_an_invalid_limit_is_refused(photos: Path, tmp_path: Path, words: list[str]) -> None:
    given = [str({"SRC": photos, "OUT": tmp_path / "out"}.get(word, word)) for word in words]
    for most in ("0", "178956971"):
        with pytest.raises(MillError, match=f"--max-pixels must be 1 to 178956970, not {most}"):
            command.main([*given, "--max-pixels", most])


@pytest.mark.parametrize("made", ["shards", "decoded", "masks"])
def test_running_out_of_memory_is_one_sentence_and_skips_no_image(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    def no_memory(*_: object, **__: object) -> None:
        bytearray(1 << 60)

    where = {"shards": (images, "convert"), "masks": (images, "decode_rgb")}
    out = str(tmp_path / "out")
    given = {
        "shards": [str(photos), out],
        "decoded": [str(photos), out, "--format", "decoded", "--size", "1MB"],
        "masks": ["masks", str(photos), "--method", "gs", "--out", f"{out}.masks"],
    }[made]
    with monkeypatch.context() as patch:
        patch.setattr(*where.get(made, (make_decoded, "decode")), no_memory)
        with pytest.raises(MillError, match="no memory for another image ") as raised:
            command.main([*given, "--workers", "2"])
    told = str(raised.value)
    assert "use fewer --workers (2 now)" in told and "continues where it stopped" in told
    command.main(given)
    if made != "masks":
        assert not list(tmp_path.rglob("bad*.jsonl"))
