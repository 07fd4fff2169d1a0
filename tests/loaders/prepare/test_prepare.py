"""Prepared data has the bytes, labels and order of its source; mistakes are one sentence."""

import json
import os
import re
from pathlib import Path

import helpers_prepare as making
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.order.permutation import Order
from patchmill.loaders.prepare import command
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.folder import Folder


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))
    for name in list(os.environ):
        if name.startswith("SLURM_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("out", ["shards", "all.beton"])
def test_samples_and_labels_are_written_in_the_order_of_the_seed(tmp_path: Path, out: str):
    source = Folder(making.photos(tmp_path / "src"))
    making.prepare(source, tmp_path / out, "beton" if "." in out else "shards", seed=7)
    made = open_source(tmp_path / out)
    order = Order(30, 7).ids(0, 0, 30)
    before = making.samples(source)
    assert making.samples(made) == [before[i] for i in order]
    assert made.classes == ["class0", "class1", "class2"]


@pytest.mark.parametrize("out", ["shards", "all.beton"])
def test_without_a_shuffle_the_order_is_kept(tmp_path: Path, out: str):
    source = Folder(making.photos(tmp_path / "src"))
    making.prepare(source, tmp_path / out, "beton" if "." in out else "shards", seed=None)
    assert making.samples(open_source(tmp_path / out)) == making.samples(source)


def test_images_without_labels_have_none(tmp_path: Path):
    making.write_folder(tmp_path / "src", {f"{i}.jpg": making.jpeg(i) for i in range(3)})
    making.prepare(tmp_path / "src", tmp_path / "out")
    made = open_source(tmp_path / "out")
    assert (made.labels, made.classes) == (None, [])
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["samples"] == 3


def test_shards_of_shards_and_betons_of_shards(tmp_path: Path):
    source = Folder(making.photos(tmp_path / "src"))
    making.prepare(source, tmp_path / "one", seed=None)
    making.prepare(tmp_path / "one", tmp_path / "two", seed=None)
    making.prepare(tmp_path / "two", tmp_path / "three.beton", "beton", seed=None)
    making.prepare(tmp_path / "three.beton", tmp_path / "four", seed=None)
    made = open_source(tmp_path / "four")
    assert making.samples(made) == making.samples(source)


def test_scenes_can_be_prepared(tmp_path: Path):
    making.prepare("scenes:4", tmp_path / "out", seed=None)
    assert making.samples(open_source(tmp_path / "out")) == making.samples(open_source("scenes:4"))


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(100, 400_000), min_size=1, max_size=30), st.integers(1, 3))
def test_the_output_does_not_depend_on_the_number_of_workers(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], workers: int
):
    folder = tmp_path_factory.mktemp("sizes")
    files = {f"{i}.jpg": making.bulky(i, size) for i, size in enumerate(sizes)}
    source = Folder(making.write_folder(folder / "src", files))
    for count, name in ((1, "a"), (workers + 1, "b")):
        making.prepare(source, folder / name, shard_size=1_000_000, workers=count)
    made = making.content(folder / "a")
    assert made == making.content(folder / "b")
    shards = [data for name, data in made.items() if name.endswith(".tar")]
    assert all(len(data) <= 1_000_000 for data in shards)
    assert sorted(data for data, _ in making.samples(open_source(folder / "a"))) == sorted(
        files.values()
    )


def test_images_larger_than_max_side_shrink_and_others_are_kept(tmp_path: Path):
    files = {
        "large.jpg": making.jpeg(1, 300, 500),
        "tall.png": making.by_pil(Image.fromarray(making.pixels(2, 400, 130)), "PNG"),
        "right.jpg": making.jpeg(3, 100, 100),
        "small.png": making.by_pil(Image.fromarray(making.pixels(4, 9, 20)), "PNG"),
        "huge_grey.jpg": making.by_pil(Image.fromarray(making.pixels(5, 900, 800)[..., 0]), "JPEG"),
    }
    source = Folder(making.write_folder(tmp_path / "src", files))
    result = making.prepare(source, tmp_path / "out", max_side=100, quality=92, seed=None)
    assert result is not None and result.tally.changes == {"made smaller": 3}
    made = open_source(tmp_path / "out")
    found = {Path(source.where(i)).name: made.read(i) for i in range(5)}
    assert found["right.jpg"] == files["right.jpg"]
    assert found["small.png"] == files["small.png"]
    shapes = {name: decode(data).shape for name, data in found.items()}
    assert shapes["large.jpg"] == (60, 100, 3)
    assert shapes["tall.png"] == (100, 33, 3) or shapes["tall.png"] == (100, 32, 3)
    assert shapes["huge_grey.jpg"] == (100, 89, 3)
    smaller = np.asarray(
        Image.fromarray(making.pixels(1, 300, 500)).resize((100, 60), Image.Resampling.BICUBIC)
    )
    assert np.abs(decode(found["large.jpg"]).astype(int) - smaller).mean() < 2
    grey = Image.open(__import__("io").BytesIO(found["huge_grey.jpg"]))
    assert grey.mode == "L"


def test_a_beton_holds_odd_images_as_the_same_pixels(tmp_path: Path):
    rgb = Image.fromarray(making.pixels(1))
    files = {
        "a.jpg": making.jpeg(0),
        "b.png": making.by_pil(rgb, "PNG"),
        "c.jpg": making.by_pil(rgb.convert("CMYK"), "JPEG"),
        "d.gif": making.by_pil(rgb, "GIF"),
        "e.png": making.by_pil(
            Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 99), "PNG"
        ),
    }
    source = Folder(making.write_folder(tmp_path / "src", files))
    result = making.prepare(source, tmp_path / "x.beton", "beton", seed=None)
    assert result is not None and result.tally.changes == {"stored as raw pixels": 4}
    assert result.tally.traits == {"png": 2, "cmyk": 1, "gif": 1, "16 bit": 1}
    made = open_source(tmp_path / "x.beton")
    for i in range(5):
        np.testing.assert_array_equal(decode(made.read(i)), decode(source.read(i)))


def test_pixels_too_many_for_a_page_become_a_good_jpeg(tmp_path: Path):
    large = making.pixels(1, 1700, 1800)
    data = making.by_pil(Image.fromarray(large), "PNG", compress_level=1)
    making.write_folder(tmp_path / "src", {"a.png": data, "b.jpg": making.jpeg(1)})
    result = making.prepare(tmp_path / "src", tmp_path / "x.beton", "beton", seed=None)
    assert result is not None
    assert result.tally.changes == {"stored as JPEG of quality 95": 1}
    made = decode(open_source(tmp_path / "x.beton").read(0))
    assert np.abs(made.astype(int) - large).mean() < 2


# -------------------------------------------------------------------------------------- bad images


@pytest.mark.parametrize("out", ["shards", "all.beton"])
def test_bad_images_are_listed_and_skipped(tmp_path: Path, out: str):
    making.photos(tmp_path / "src")
    whole = making.jpeg(1)
    damaged = {"empty.jpg": b"", "cut.jpg": whole[: len(whole) // 2], "text.jpg": b"hello"}
    making.write_folder(tmp_path / "src" / "class1", damaged)
    source = Folder(tmp_path / "src")
    result = making.prepare(source, tmp_path / out, "beton" if "." in out else "shards")
    assert result is not None
    assert len(open_source(tmp_path / out)) == result.tally.samples == 30
    entries = list(map(json.loads, result.paths.bad_list.read_text().splitlines()))
    assert {Path(entry["where"]).name for entry in entries} == set(damaged)
    assert all(source.where(entry["id"]) == entry["where"] for entry in entries)
    assert next(e for e in entries if "empty" in e["where"])["reason"] == "the file is empty"


def test_damage_between_header_and_end_is_found_by_verify(tmp_path: Path):
    files = {"a.jpg": making.bulky(1, 5000), "b.jpg": making.jpeg(1)}
    source = Folder(making.write_folder(tmp_path / "src", files))
    assert len_of(making.prepare(source, tmp_path / "kept")) == 2
    assert len_of(making.prepare(source, tmp_path / "verified", verify=True)) == 1
    assert len_of(making.prepare(source, tmp_path / "smaller", max_side=1000)) == 1


def len_of(result) -> int:
    return result.tally.samples


def test_nothing_but_bad_images_is_an_error_and_no_data_set(tmp_path: Path):
    making.write_folder(tmp_path / "src", {"a.jpg": b"no", "b.jpg": b"neither"})
    with pytest.raises(MillError, match="none of the 2 images can be used"):
        making.prepare(tmp_path / "src", tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_too_many_bad_images_stop_the_run(tmp_path: Path):
    files = {f"{i:03d}.jpg": b"bad" if i % 2 else making.jpeg(i) for i in range(300)}
    making.write_folder(tmp_path / "src", files)
    with pytest.raises(MillError, match=r"101 of the first 202 images cannot be used.*bad\.jsonl"):
        making.prepare(tmp_path / "src", tmp_path / "out", seed=None)
    assert len((tmp_path / "out" / "bad.jsonl").read_text().splitlines()) == 101


# ------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 1}, "--seed 0, not 1"),
        ({"seed": None}, "--seed 0, not none"),
        ({"max_side": 50}, "--max-side none, not 50"),
        ({"shard_size": 2_000_000}, "--shard-size 256000000, not 2000000"),
        ({"verify": True}, "--verify off, not on"),
    ],
)
def test_changed_options_need_overwrite(tmp_path: Path, changed: dict, named: str):
    source = Folder(making.photos(tmp_path / "src", 6))
    making.prepare(source, tmp_path / "out")
    before = making.content(tmp_path / "out")
    with pytest.raises(MillError, match=re.escape(named)):
        making.prepare(source, tmp_path / "out", **changed)
    assert making.content(tmp_path / "out") == before
    making.prepare(source, tmp_path / "out", overwrite=True, **changed)
    making.prepare(source, tmp_path / "anew", **changed)
    assert making.content(tmp_path / "out") == making.content(tmp_path / "anew")


@pytest.mark.parametrize("out", ["shards", "all.beton"])
def test_a_complete_output_is_not_written_again(tmp_path: Path, out: str):
    source = Folder(making.photos(tmp_path / "src", 6))
    format = "beton" if "." in out else "shards"
    making.prepare(source, tmp_path / out, format)
    assert making.prepare(source, tmp_path / out, format) is None


def test_a_changed_source_is_refused(tmp_path: Path):
    making.photos(tmp_path / "src", 6)
    making.prepare(tmp_path / "src", tmp_path / "out")
    making.write_folder(tmp_path / "src", {"class0/new.jpg": making.jpeg(1)})
    with pytest.raises(MillError, match="a source that has changed"):
        making.prepare(tmp_path / "src", tmp_path / "out")


def test_folders_with_foreign_files_are_refused(tmp_path: Path):
    making.photos(tmp_path / "src", 3)
    making.write_folder(tmp_path / "out", {"precious.txt": b"mine"})
    for overwrite in (False, True):
        with pytest.raises(MillError, match=r"holds 'precious\.txt'"):
            making.prepare(tmp_path / "src", tmp_path / "out", overwrite=overwrite)
    assert making.content(tmp_path / "out") == {"precious.txt": b"mine"}


def test_a_beton_of_unknown_origin_is_not_overwritten(tmp_path: Path):
    making.photos(tmp_path / "src", 3)
    (tmp_path / "x.beton").write_bytes(b"mine")
    with pytest.raises(MillError, match="no record of how it was made"):
        making.prepare(tmp_path / "src", tmp_path / "x.beton", "beton")
    assert (tmp_path / "x.beton").read_bytes() == b"mine"


def test_an_output_inside_the_source_is_refused(tmp_path: Path):
    making.photos(tmp_path / "src", 3)
    for out in ("src", "src/out", "src/class0/../out"):
        with pytest.raises(MillError, match="is inside the source"):
            making.prepare(tmp_path / "src", tmp_path / out)


def test_shards_are_not_prepared_into_their_own_folder(tmp_path: Path):
    making.prepare(making.photos(tmp_path / "src", 3), tmp_path / "out")
    before = making.content(tmp_path / "out")
    with pytest.raises(MillError, match="another source"):
        making.prepare(tmp_path / "out", tmp_path / "out")
    assert making.content(tmp_path / "out") == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_missing_permission_is_reported_in_one_sentence(tmp_path: Path):
    making.photos(tmp_path / "src", 3)
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(MillError, match=r"cannot write .*Permission denied"):
        making.prepare(tmp_path / "src", tmp_path / "locked" / "out")


@pytest.mark.parametrize("format", ["shards", "beton"])
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_reported_in_one_sentence_and_leaves_no_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
):
    """The error of a real device, /dev/full, after the first writes have succeeded."""
    making.write_folder(tmp_path / "src", {f"{i}.jpg": making.bulky(i, 300_000) for i in range(12)})
    out = tmp_path / ("x.beton" if format == "beton" else "out")
    fsync, calls = os.fsync, []

    def full(file: int) -> None:
        calls.append(file)
        if len(calls) == 4:
            with open("/dev/full", "wb", buffering=0) as device:
                device.write(b"x")
        fsync(file)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(MillError, match="No space left on device"):
            making.prepare(tmp_path / "src", out, format, shard_size=1_000_000)
    assert not out.is_file()
    assert not (out / "dataset.json").exists()
    assert making.prepare(tmp_path / "src", out, format, shard_size=1_000_000) is not None
    assert len(open_source(out)) == 12


# ------------------------------------------------------------------------------------ the command


def test_the_command_reports_and_inspects(tmp_path: Path, capsys: pytest.CaptureFixture):
    rgb = Image.fromarray(making.pixels(1))
    making.photos(tmp_path / "src", 9)
    odd = {"class0/a.png": making.by_pil(rgb, "PNG"), "class0/b.jpg": b"bad"}
    making.write_folder(tmp_path / "src", odd)
    given = [str(tmp_path / "src"), str(tmp_path / "out")]
    command.main([*given, "--shard-size", "1MB", "--workers", "1"])
    told = capsys.readouterr().out
    for line in ("10 images", "unusual: 1 png", "skipped: 1", "images/s", "complete: "):
        assert line in told
    command.main(["inspect", given[1]])
    told = capsys.readouterr().out
    for line in ("samples    10 in 1 shards", "classes    3, of 3 to 4 samples", "seed 0"):
        assert line in told
    assert "the checksums of 10 images: nothing differs" in told
    command.main([*given[:2], "--shard-size", "1MB"])
    assert "complete already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--format", "beton"], "the name of a .beton must end in .beton"),
        (["--shard-size", "big"], "cannot read the size 'big'"),
        (["--shard-size", "10kB"], "--shard-size must be at least 1MB"),
        (["--quality", "0", "--max-side", "99"], "--quality must be 1 to 100"),
        (["--max-side", "0"], "--max-side must be 1 to 65535"),
        (["--workers", "-1"], "--workers must be at least 1"),
        (["--rank", "1"], "--rank and --world-size belong together"),
        (["--rank", "2", "--world-size", "2"], "--rank must be 0 to 1"),
        (["--rank", "0", "--world-size", "2", "--overwrite"], "remove OUT yourself"),
    ],
)
def test_wrong_arguments_are_reported_in_one_sentence(
    tmp_path: Path, arguments: list[str], sentence: str
):
    making.photos(tmp_path / "src", 3)
    with pytest.raises(MillError, match=re.escape(sentence)):
        command.main([str(tmp_path / "src"), str(tmp_path / "out"), *arguments])
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_a_beton_is_made_by_one_process(tmp_path: Path):
    making.photos(tmp_path / "src", 3)
    given = [str(tmp_path / "src"), str(tmp_path / "x.beton"), "--rank", "0", "--world-size", "2"]
    with pytest.raises(MillError, match=r"then make the \.beton from them"):
        command.main(given)
