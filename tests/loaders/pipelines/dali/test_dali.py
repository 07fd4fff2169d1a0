"""The pipeline on DALI has the samples and, on the CPU, the pixels of the threads pipeline."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers_odd_images import jpeg, odd, picture, rotated, saved, write_odd
from helpers_pipelines import RECIPE, Pictures, make_loader, mill_threads

pytest.importorskip("nvidia.dali", reason="needs DALI")

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decode.jpeg_header import plain_jpeg
from patchmill.loaders.order import permutation
from patchmill.loaders.pipelines import crew, spec
from patchmill.loaders.pipelines.dali import decoder as dali_decoder
from patchmill.loaders.pipelines.dali import feeder, gather
from patchmill.loaders.pipelines.dali.decoder import BatchDecoder, Refused

ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def by_dali(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_PIPELINE", "dali")


class Files(Pictures):
    """Encoded images that a test may change later."""

    def __init__(self, files: Sequence[bytes]) -> None:
        super().__init__(len(files))
        self.files = list(files)

    def read(self, index: int) -> bytes:
        if self.on_read:
            self.on_read(index)
        return self.files[index]


def jpegs(count: int) -> Files:
    return Files([jpeg(seed, 40 + seed % 7, 50 - seed % 5) for seed in range(count)])


def assert_same_epochs(ours: Any, theirs: Any, epochs: int = 1) -> None:
    """Compare two loaders, iterated in lockstep."""
    for _ in range(epochs):
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one.ids, other.ids)
            assert one.labels is other.labels is None or torch.equal(one.labels, other.labels)
            assert (one.rows == other.rows).all()
            assert (one.shapes == other.shapes).all()
            for name in other.views:
                assert torch.equal(one.views[name], other.views[name])
    assert set(ours.ledger._bad) == set(theirs.ledger._bad)


def pair(source: Any, tmp_path: Path, **settings: Any) -> list[Any]:
    return [
        make_loader(source, RECIPE, ledger=tmp_path / name, pipeline=name, **settings)
        for name in ("dali", "threads")
    ]


# ------------------------------------------------------------------------------- samples and pixels


@pytest.mark.parametrize("batch_size", [1, 7, 24])
def test_odd_files_equal_those_of_threads(tmp_path: Path, batch_size: int) -> None:
    folder = write_odd(tmp_path / "odd")
    ours, theirs = pair(folder, tmp_path, batch_size=batch_size, drop_last=False)
    assert_same_epochs(ours, theirs, epochs=2)
    assert 4 <= len(ours.ledger) <= 10


@pytest.mark.parametrize("name", odd())
def test_every_odd_file_alone_among_plain_ones(tmp_path: Path, name: str) -> None:
    source = jpegs(6)
    source.files[3] = odd()[name]
    assert_same_epochs(*pair(source, tmp_path, batch_size=3))


def test_damage_that_only_pil_detects(tmp_path: Path) -> None:
    """DALI ignores a marker that does not belong into the data: a deviation."""
    source = jpegs(6)
    data = source.files[3]
    source.files[3] = data[:900] + bytes(255 - byte for byte in data[900:940]) + data[940:]
    ours, theirs = pair(source, tmp_path, batch_size=6)
    ids, substituted = next(iter(ours)).ids.tolist(), next(iter(theirs)).ids.tolist()
    assert set(theirs.ledger._bad) == {3}
    assert ids in (substituted, permutation.Order(6, 0).ids(0, 0, 6).tolist())


def test_plain_jpegs_go_to_dali() -> None:
    """Everything that decoders decode differently is left to the threads."""
    threads = {"cmyk", "adobe rgb", "much garbage behind", "no end", "png", "alpha", "palette"}
    threads |= {"gif", "webp", "sixteen bits", "empty", "text", "truncated", "larger than allowed"}
    assert {name for name, data in odd().items() if plain_jpeg(data) is None} == threads
    assert plain_jpeg(odd()["plain"]) == plain_jpeg(odd()["exif"]) == (57, 83)


def test_dalis_parser_is_asked_once_about_a_header_with_exif_and_never_about_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of the file's header is noticed."""
    asked = []

    def ask(encoded: np.ndarray, max_pixels: int) -> bool:
        asked.append(encoded.tobytes())
        return dali_decoder.has_decodable_header(encoded, max_pixels)

    monkeypatch.setattr(gather, "has_decodable_header", ask)
    files = [jpeg(n, **({"exif": rotated()} if n % 2 else {})) for n in range(12)]
    for number, data in enumerate(files):
        (tmp_path / f"{number:02}.jpg").write_bytes(data)
    loader = make_loader(str(tmp_path), RECIPE, ledger=tmp_path / "ledger")
    for _ in range(2):
        for _ in loader:
            pass
    assert sorted(asked) == sorted(files[1::2])
    del asked[:]
    changed = (tmp_path / "03.jpg").read_bytes().replace(b"Exif\0\0", b"Exif\0\1")
    (tmp_path / "03.jpg").write_bytes(changed)
    for _ in loader:
        pass
    assert asked == [changed]


def test_batches_without_a_plain_jpeg(tmp_path: Path) -> None:
    files = [jpeg(n) if n < 5 else saved(picture(n, 20, 30), "PNG") for n in range(40)]
    assert_same_epochs(*pair(Files(files), tmp_path, batch_size=2))
    assert_same_epochs(*pair(Files(files[5:]), tmp_path))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.uint8])
def test_types_and_channels_last(tmp_path: Path, dtype: torch.dtype) -> None:
    assert_same_epochs(*pair(jpegs(12), tmp_path, dtype=dtype, channels_last=True))


def test_a_resume_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    source = jpegs(24)
    ours, theirs = pair(source, tmp_path, seed=3)
    for loader in (ours, theirs):
        for step, _ in enumerate(loader):
            if step == 2:
                break
    state = ours.state_dict()
    assert state == theirs.state_dict()
    ours, theirs = pair(source, tmp_path, seed=3, workers=1, prefetch=1)
    for loader in (ours, theirs):
        loader.load_state_dict(state)
    assert_same_epochs(ours, theirs, epochs=2)


# ------------------------------------------------------------------------------ what DALI refuses


class RefusingDecoder:
    """Makes DALI refuse some images, and counts how often it gets them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refuses: Callable[[bytes], bool]) -> None:
        self.refuses, self.refused_images, self.reason = refuses, 0, "I would rather not"
        self._submit, self._take = BatchDecoder.submit, BatchDecoder.take
        self._verdicts: list[int] = []
        monkeypatch.setattr(BatchDecoder, "submit", lambda *args: self.submit(*args))
        monkeypatch.setattr(BatchDecoder, "take", lambda *args: self.take(*args))

    def submit(self, decoder: BatchDecoder, encoded: Sequence[np.ndarray]) -> None:
        self._verdicts.append(sum(self.refuses(one.tobytes()) for one in encoded))
        self.refused_images += self._verdicts[-1]
        self._submit(decoder, encoded)

    def take(self, decoder: BatchDecoder, stream: Any = None) -> Any:
        decoded = self._take(decoder, stream)
        if self._verdicts.pop(0):
            raise Refused(self.reason)
        return decoded


@pytest.mark.parametrize("found", [True, False])
def test_images_that_dali_refuses_and_pil_reads_are_decoded_by_threads_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """One by one, or with the whole batch if DALI cannot say which it is."""
    source = jpegs(24)
    refuses = {source.files[id] for id in (2, 3, 17)}
    refusing = RefusingDecoder(monkeypatch, lambda data: data in refuses)
    refused = [
        lambda encoded, *_: [i for i, one in enumerate(encoded) if one.tobytes() in refuses],
        lambda *_: [],
    ]
    monkeypatch.setattr(dali_decoder, "find_undecodable", refused[not found])
    ours, theirs = pair(source, tmp_path)
    assert_same_epochs(ours, theirs)
    assert refusing.refused_images == 3
    assert ("that DALI cannot decode: I would rather not" in caplog.text) == (not found)
    assert_same_epochs(ours, theirs, epochs=2)
    assert refusing.refused_images == 3
    assert not ours.ledger._bad


def test_batches_in_which_all_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = RefusingDecoder(monkeypatch, lambda data: True)
    monkeypatch.setattr(
        dali_decoder, "find_undecodable", lambda encoded, *_: [*range(len(encoded))]
    )
    ours, theirs = pair(jpegs(24), tmp_path)
    assert_same_epochs(ours, theirs, epochs=2)
    assert refusing.refused_images == 24


def test_a_refused_bad_image_is_replaced_while_the_next_batches_are_in_flight(
    tmp_path: Path,
) -> None:
    """A damaged JPEG with its end marker, so that DALI gets it."""
    source, wanted = jpegs(24), permutation.Order(24, 0).ids(0, 0, 24).tolist()
    broken = {wanted[k] for k in (0, 5, 6, 9, 23)}
    for id in broken:
        source.files[id] = odd()["only a header"]
        assert plain_jpeg(source.files[id])
    ours, theirs = pair(source, tmp_path, prefetch=3)
    assert_same_epochs(ours, theirs, epochs=2)
    assert set(ours.ledger._bad) == broken


def test_images_of_another_size_than_in_the_header_are_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plans are drawn for the size in the header."""
    source = jpegs(12)
    true_shape = {data: plain_jpeg(data) for data in source.files}

    def plain(data: bytes) -> tuple[int, int] | None:
        height, width = true_shape[data] or (0, 0)
        return (height + (data == source.files[4]), width)

    monkeypatch.setattr(feeder, "plain_jpeg", plain)
    ours, theirs = pair(source, tmp_path)
    assert_same_epochs(ours, theirs, epochs=2)


def test_too_many_bad_images_end_the_run(tmp_path: Path) -> None:
    source = jpegs(40)
    for id in range(0, 40, 2):
        source.files[id] = odd()["only a header"]
    loader = make_loader(source, ledger=tmp_path / "ledger")
    with pytest.raises(MillError, match="more than the 10 that are tolerated"):
        for _ in loader:
            pass
    assert not mill_threads()


# -------------------------------------------------------------------------------- ends and failures


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_an_epoch_left_with_batches_in_flight(tmp_path: Path, steps: int) -> None:
    source = jpegs(24)
    ours, theirs = pair(source, tmp_path, prefetch=4)
    for loader in (ours, theirs):
        for _ in range(3):
            for step, _ in enumerate(loader):
                if step == steps:
                    break
    assert not mill_threads()
    assert_same_epochs(ours, theirs, epochs=2)


@pytest.mark.parametrize("method", ["submit", "take"])
@pytest.mark.parametrize("call", [1, 2, 4])
def test_a_failure_of_the_decoder_is_raised_and_the_next_iteration_gets_another(
    monkeypatch: pytest.MonkeyPatch, method: str, call: int
) -> None:
    original, calls = getattr(BatchDecoder, method), []

    def fail(decoder: BatchDecoder, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            decoder.close()  # as the decoder does
            raise MemoryError("no memory at all")
        return original(decoder, *arguments)

    monkeypatch.setattr(BatchDecoder, method, fail)
    loader = make_loader(jpegs(24), RECIPE)
    with pytest.raises(MillError, match=r"no memory for another batch \(no memory at all\)"):
        for _ in loader:
            pass
    assert not mill_threads()
    assert sum(len(batch) for batch in loader) == 24
    assert loader.stats().stages["decode"].items >= 24


def test_a_late_feeder_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A feeder that still waits for DALI when its iteration is dismissed."""
    monkeypatch.setattr(crew, "JOIN_TIMEOUT_S", 1.0)
    gate, waiting, original = threading.Event(), threading.Event(), BatchDecoder.take

    def take(decoder: BatchDecoder, stream: Any = None) -> Any:
        waiting.set()
        assert gate.wait(60)
        return original(decoder, stream)

    loader = make_loader(jpegs(24), prefetch=1)
    with monkeypatch.context() as patch:
        patch.setattr(BatchDecoder, "take", take)
        run = loader._start()
        for job in islice(run._upcoming, 2):
            run._start(job)
        run._feeder_jobs.allow(2)
        assert waiting.wait(60)
        run.dismiss()
    assert len(mill_threads()) == 1
    assert sum(len(batch) for batch in loader) == 24
    gate.set()
    for thread in mill_threads():
        thread.join(60)


def test_without_dali_it_is_a_mill_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    sentence = (
        r"^pipeline 'dali' needs DALI, which is not installed: pip install 'patchmill\[dali\]'$"
    )
    with pytest.raises(MillError, match=sentence):
        make_loader(4)


def test_on_the_cpu_it_needs_no_triton() -> None:
    """PyTorch for CPUs comes without it."""
    script = """
import sys
sys.modules["triton"] = None
from helpers_pipelines import make_loader
print(sum(len(batch) for batch in make_loader(12)))
"""
    paths = f"{ROOT}:{ROOT / 'tests' / 'loaders' / 'pipelines'}"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout, done.returncode) == ("12\n", 0), done.stderr


def test_the_hardware_share_is_ignored_on_the_cpu(tmp_path: Path) -> None:
    ours = make_loader(jpegs(8), RECIPE, pipeline="dali(hardware=0.5)")
    assert spec.choose("dali(hardware=0.5)") == spec.DaliChoice(0.5)
    assert_same_epochs(ours, make_loader(jpegs(8), RECIPE, pipeline="threads"))
