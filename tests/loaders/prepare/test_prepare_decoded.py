"""`prepare --format decoded` fills a store ahead of training, and goes on where it stopped."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decode import decoder
from patchmill.loaders.decoded import places
from patchmill.loaders.decoded.opening import open_store
from patchmill.loaders.prepare import command, make_decoded
from patchmill.loaders.sources import open_source

COUNT = 40


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "home"))
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(COUNT):
        stream = io.BytesIO()
        Image.new("RGB", (20 + number, 30), (number, 2, 3)).save(stream, "PNG")
        (folder / f"{number:02}.png").write_bytes(stream.getvalue())
        os.utime(folder / f"{number:02}.png", (1e9, 1e9))
    return folder


def held(photos: Path, out: Path) -> list[int]:
    source = open_source(str(photos))
    store = open_store(f"disk:{out}:1MB", source)
    assert store is not None
    images = {id: store.image(id) for id in range(len(source))}
    for id, image in images.items():
        if image is not None:
            np.testing.assert_array_equal(image, decoder.decode(source.read(id)))
    return [id for id, image in images.items() if image is not None]


def run(photos: Path, out: Path, *more: str) -> None:
    command.main([str(photos), str(out), "--format", "decoded", "--size", "1MB", *more])


def test_a_store_is_filled_once(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(photos, tmp_path / "out")
    text = capsys.readouterr().out
    assert f"{COUNT} of {COUNT} images" in text and "images/s" in text
    assert f"for training: data.cache=disk:{tmp_path / 'out'}:" in text
    assert held(photos, tmp_path / "out") == list(range(COUNT))
    run(photos, tmp_path / "out")
    assert "images/s" not in capsys.readouterr().out


def test_an_interrupted_run_continues(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []

    def interrupted(data: bytes, max_pixels: int) -> np.ndarray:
        decoded.append(len(data))
        if len(decoded) == 20:
            raise KeyboardInterrupt
        return decoder.decode(data, max_pixels=max_pixels)

    monkeypatch.setattr(make_decoded, "decode", interrupted)
    with pytest.raises(MillError, match="interrupted; the same command continues"):
        run(photos, tmp_path / "out", "--workers", "1")
    done = len(decoded) - 1
    assert 19 <= done < COUNT
    run(photos, tmp_path / "out")
    assert len(decoded) - 1 == COUNT
    assert held(photos, tmp_path / "out") == list(range(COUNT))


def test_ranks_share_the_work_on_one_machine(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(photos, tmp_path / "out", "--rank", "1", "--world-size", "2")
    assert held(photos, tmp_path / "out") == list(range(1, COUNT, 2))
    run(photos, tmp_path / "out", "--rank", "0", "--world-size", "2")
    assert held(photos, tmp_path / "out") == list(range(COUNT))
    monkeypatch.setattr(places, "host_part", lambda path: "-node7")
    with pytest.raises(MillError, match="is on a network disk, where every machine keeps"):
        run(photos, tmp_path / "out", "--rank", "0", "--world-size", "2")


def test_images_that_do_not_fit_or_cannot_be_read_are_skipped(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "07.png").write_bytes(b"no picture")
    run(photos, tmp_path / "out")
    text = capsys.readouterr().out
    assert f"{COUNT - 1} of {COUNT} images" in text
    assert f"skipped: 1: {photos / '07.png'} (" in text
    command.main([str(photos), str(tmp_path / "small"), "--format", "decoded", "--size", "20KB"])
    assert "full: the other images are decoded during training" in capsys.readouterr().out


def test_images_that_do_not_fit_into_the_store_are_not_counted(
    photos: Path, tmp_path: Path
) -> None:
    """The rest of a chunk, once the store is full."""
    source = open_source(str(photos))
    result = make_decoded.make(source, tmp_path / "small", "20KB", workers=1)
    assert result.full and 0 < result.made == result.images < COUNT
    assert result.made == len(held(photos, tmp_path / "small"))


def test_no_image_that_can_be_decoded(photos: Path, tmp_path: Path) -> None:
    for path in photos.iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(MillError, match="none of the 40 images can be decoded; the first is "):
        run(photos, tmp_path / "out")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--max-side", "64"], "--max-side is not for --format decoded"),
        (["--verify"], "--verify is not for --format decoded"),
        (["--no-shuffle"], "--no-shuffle is not for --format decoded"),
        (["--overwrite"], "--overwrite is not for --format decoded"),
        (["--size", "much"], "--size: 'much' is not a size"),
        (["--size", "9000000GB"], "is larger than the free space"),
        (["--rank", "2", "--world-size", "2"], "--rank must be 0 to 1, not 2"),
    ],
)
def test_options_of_other_formats(
    photos: Path, tmp_path: Path, more: list[str], message: str
) -> None:
    with pytest.raises(MillError, match=message):
        run(photos, tmp_path / "out", *more)


def test_sizes_are_for_decoded_images(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(MillError, match="--size is for --format decoded"):
        command.main([str(photos), str(tmp_path / "shards"), "--size", "1MB"])
    with pytest.raises(MillError, match="is for the machine that trains on the images"):
        command.remaining([str(photos), str(tmp_path / "out"), "--format", "decoded"])
