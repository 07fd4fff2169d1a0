"""`prepare masks`: the same file whatever interrupts or shares the work; masks follow the data."""

from __future__ import annotations

import io
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import helpers_prepare as making
import numpy as np
import pytest
from helpers_mask_shards import write_mask_shard

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.copypaste import masks
from patchmill.loaders.copypaste.mask_file import MISSING, MaskFile
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.prepare import command, inspect_data, make_masks, mask_log
from patchmill.loaders.prepare.make_masks import MaskOptions, MasksResult
from patchmill.loaders.saliency import estimate
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.folder import Folder

ROOT = Path(__file__).resolve().parents[3]
COUNT, BAD = 24, 2
OPTIONS = {"method": "gs", "max_side": 24}


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHMILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = making.photos(tmp_path / "src", COUNT - BAD)
    return making.write_folder(folder, {f"class0/bad{i}.jpg": b"no image" for i in range(BAD)})


def make(data: Path, out: Path, workers: int = 2, overwrite: bool = False, **options: object):
    given = MaskOptions(**{**OPTIONS, **options})  # type: ignore[arg-type]
    return make_masks.make(open_source(data), out, given, workers, overwrite)


# ------------------------------------------------------------------------------------ what is made


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
    assert f"missing    {BAD}, first that of image " in told
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
    assert problems[0].startswith(f"mask {chosen} of {path}: its mask was damaged")


# -------------------------------------------------------------------------------- always the same


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("world_size", [1, 2, 5, 30])
def test_the_file_does_not_depend_on_threads_or_ranks(
    photos: Path, tmp_path: Path, workers: int, world_size: int
) -> None:
    make(photos, tmp_path / "alone.masks")
    (tmp_path / "shared").mkdir()
    out = tmp_path / "shared" / "some.masks"
    for rank in reversed(range(world_size)):
        assert not out.exists()
        result = make(photos, out, workers, rank=rank, world_size=world_size)
        assert result is not None and result.unfinished_ranks == list(range(rank))
    assert out.read_bytes() == (tmp_path / "alone.masks").read_bytes()
    assert os.listdir(out.parent) == [out.name]
    assert make(photos, out, rank=0, world_size=world_size) is None


def test_ranks_at_once(photos: Path, tmp_path: Path) -> None:
    make(photos, tmp_path / "alone.masks")
    (tmp_path / "shared").mkdir()
    out = tmp_path / "shared" / "some.masks"
    threads = [
        threading.Thread(target=make, args=(photos, out, 1), kwargs={"rank": i, "world_size": 4})
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert out.read_bytes() == (tmp_path / "alone.masks").read_bytes()
    assert os.listdir(out.parent) == [out.name]


# A child for each run, forked before there are threads; it counts down the calls that change the
# disk, and then kills itself in the middle of one.
RUNNER = """
import os, signal, sys
from pathlib import Path
from patchmill.loaders.prepare import make_masks, mask_log
from patchmill.loaders.saliency import estimate
from patchmill.loaders.sources import open_source
import numpy as np

estimate(np.zeros((40, 60, 3), np.uint8), "gs", 24)
source = open_source(sys.argv[1])
mask_log._WRITE_BYTES = 400

def counted(call, left, half):
    def wrapped(*arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            if half:
                call(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return wrapped

def run(out, calls=None):
    child = os.fork()
    if child == 0:
        if calls is not None:
            left = [calls]
            for name in ("fsync", "replace", "write", "unlink", "ftruncate"):
                setattr(os, name, counted(getattr(os, name), left, name == "write"))
        make_masks.make(source, Path(out), make_masks.MaskOptions("gs", 24), 2)
        os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL

calls, killed = 0, True
while killed:
    out = f"{sys.argv[2]}/{calls}/some.masks"
    os.mkdir(os.path.dirname(out))
    killed = run(out, calls)
    if killed:
        assert not run(out)
    print(calls, flush=True)
    calls += 1
"""


def test_killed_at_any_write_and_run_again(photos: Path, tmp_path: Path) -> None:
    make(photos, tmp_path / "alone.masks")
    (tmp_path / "killed").mkdir()
    given = [sys.executable, "-c", RUNNER, str(photos), str(tmp_path / "killed")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    told = subprocess.run(
        given, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    runs = told.stdout.split()
    assert len(runs) > 8
    expected = (tmp_path / "alone.masks").read_bytes()
    for calls in runs:
        assert making.content(tmp_path / "killed" / calls) == {"some.masks": expected}, calls


def test_an_interrupted_run_is_resumed(photos: Path, tmp_path: Path) -> None:
    out, read = tmp_path / "x.masks", []

    class Cut(Folder):
        def read(self, index: int) -> bytes:
            read.append(index)
            if index == 17:
                raise KeyboardInterrupt
            return super().read(index)

    with pytest.raises(KeyboardInterrupt):
        make_masks.make(Cut(photos), out, MaskOptions("gs", 24), 1)
    (log,) = tmp_path.glob(".x.masks.0000.part")
    begun = len(list(mask_log.rows(log)))
    assert 0 < begun <= 17
    result = make(photos, out)
    assert result is not None and result.images == COUNT - begun
    make(photos, tmp_path / "y.masks")
    assert out.read_bytes() == (tmp_path / "y.masks").read_bytes()


def test_damage_in_a_log_costs_only_the_rows_behind_it(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.masks"
    make(photos, out, rank=0, world_size=2)
    log = tmp_path / ".x.masks.0000.part"
    assert mask_log.is_done(log)
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(bytes(data))
    kept = len(list(mask_log.rows(log)))
    assert 0 < kept < COUNT // 2
    log.write_bytes(bytes(data[:-5]))  # or else it ends as one that is done
    result = make(photos, out, rank=0, world_size=2)
    assert result is not None and result.images == COUNT // 2 - kept
    make(photos, out, rank=1, world_size=2)
    make(photos, tmp_path / "y.masks")
    assert out.read_bytes() == (tmp_path / "y.masks").read_bytes()


def test_a_damaged_log_is_not_merged(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.masks"
    make(photos, out, rank=0, world_size=2)
    log = tmp_path / ".x.masks.0000.part"
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(bytes(data))  # with the mark of one that is done
    result = make(photos, out, rank=1, world_size=2)
    assert result is not None and result.unfinished_ranks == [0] and not out.exists()
    given = MaskOptions("gs", 24, 1, 2)
    assert make_masks.unfinished_ranks(open_source(photos), out, given) == [0]
    make(photos, out, rank=0, world_size=2)
    make(photos, tmp_path / "y.masks")
    assert out.read_bytes() == (tmp_path / "y.masks").read_bytes()


def test_a_disk_that_is_full_for_a_moment_repeats_no_row(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(photos, tmp_path / "y.masks")
    out, write, left = tmp_path / "x.masks", os.write, [2]

    def in_part(file: int, data: memoryview) -> int:
        """Write the first of the rows, then nothing once, then all."""
        left[0] -= 1
        if left[0] == 0:
            rows = [len(row) for row in packed(bytes(data))]
            return write(file, data[: rows[0]])
        if left[0] == -1:
            raise OSError(28, os.strerror(28))
        return write(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(mask_log, "_WRITE_BYTES", 400)
        patch.setattr(mask_log.os, "write", in_part)
        with pytest.raises(MillError, match="No space left on device"):
            make(photos, out)
    make(photos, out)
    assert out.read_bytes() == (tmp_path / "y.masks").read_bytes()


def packed(data: bytes) -> list[bytes]:
    """The rows of a log, as bytes."""
    rows, file = [], io.BytesIO(data)
    start = 0
    for _ in mask_log._rows(file):
        rows.append(data[start : file.tell()])
        start = file.tell()
    return rows


# ----------------------------------------------------------------------------------------- mistakes


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


# ----------------------------------------------------------------------------------- carried along


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


def test_an_interruption_says_how_to_continue(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(make_masks, "_log_estimated_time", interrupted)
    with pytest.raises(MillError, match="the same command continues where it stopped"):
        command.main(["masks", str(photos), "--method", "gs"])
