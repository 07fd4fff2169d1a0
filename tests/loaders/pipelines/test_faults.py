"""Bad samples and broken sources: replaced and recorded, or one clear error; never a hang."""

from __future__ import annotations

import json
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers_odd_entries import REASONS, add_odd_entries, soon
from helpers_pipelines import (
    RECIPE,
    Pictures,
    batch_pool,
    encoded,
    make_loader,
    mill_threads,
    pixels,
)

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.order import permutation
from patchmill.loaders.pipelines import memory, samples

pytestmark = pytest.mark.usefixtures("pipeline")

PHOTO = encoded(30)  # a JPEG
DAMAGE: dict[str, Callable[[], bytes]] = {
    "empty.jpg": lambda: b"",
    "truncated.jpg": lambda: PHOTO[: len(PHOTO) // 2],
    "header_only.jpg": lambda: PHOTO[:20],
    "corrupt.png": lambda: encoded(31)[:60] + bytes(40) + encoded(31)[100:],
    "text.png": lambda: b"this is no picture",
    "page.jpg": lambda: b"<html><body>404</body></html>",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """20 good images, two of them mislabelled (the bytes decide), and the bad ones."""
    path = tmp_path / "photos"
    path.mkdir()
    for index in range(20):
        right = "jpg" if index % 3 == 0 else "png"
        wrong = "png" if right == "jpg" else "jpg"
        (path / f"{index:02}.{wrong if index < 2 else right}").write_bytes(encoded(index))
    for name, make in DAMAGE.items():
        (path / name).write_bytes(make())
    return path


def entries(ledger: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ledger.read_text().splitlines()]


# -------------------------------------------------------------------------------------- bad samples


def test_bad_files_are_listed_with_path_and_reason(folder: Path, tmp_path: Path) -> None:
    loader = make_loader(folder, drop_last=False, ledger=tmp_path / "bad.jsonl")
    assert not (tmp_path / "bad.jsonl").exists()
    seen = [id for batch in loader for id in batch.ids.tolist()]
    listed = entries(tmp_path / "bad.jsonl")
    assert {entry["where"] for entry in listed} == {str(folder / name) for name in DAMAGE}
    assert all(entry["reason"] and "\n" not in entry["reason"] for entry in listed)
    bad = {entry["id"] for entry in listed}
    assert set(seen) == set(range(26)) - bad
    assert len(seen) == 26
    assert loader.stats().bad == len(loader.ledger) == 6


def test_what_is_no_file_is_listed_and_nobody_waits_for_it(folder: Path, tmp_path: Path) -> None:
    for name in DAMAGE:
        (folder / name).unlink()
    add_odd_entries(folder)
    loader = make_loader(folder, drop_last=False, ledger=tmp_path / "bad.jsonl")
    batches = soon(lambda: [batch.ids.tolist() for batch in loader], folder / "pipe.jpg")
    assert sum(map(len, batches)) == 20 + len(REASONS)
    listed = entries(tmp_path / "bad.jsonl")
    assert {Path(entry["where"]).name: entry["reason"] for entry in listed} == REASONS


def test_an_image_of_more_pixels_than_the_loader_allows_is_a_bad_sample(tmp_path: Path) -> None:
    """However it is encoded; a loader resumes only with the same limit."""
    source, most = Pictures(24), 1000
    areas = [pixels(index).size // 3 for index in range(24)]
    loader = make_loader(source, max_pixels=most, ledger=tmp_path / "bad.jsonl", drop_last=False)
    shapes = [shape for batch in loader for shape in batch.shapes.tolist()]
    assert len(shapes) == 24 and max(height * width for height, width in shapes) <= most
    listed = entries(tmp_path / "bad.jsonl")
    assert {entry["id"] for entry in listed} == {i for i in range(24) if areas[i] > most}
    assert 0 < len(listed) < 10
    assert all(
        "pixels are more than the 1000 that max_pixels allows" in e["reason"] for e in listed
    )
    with pytest.raises(MillError, match=r"another max_pixels \(1000, here None\)"):
        make_loader(source).load_state_dict(loader.state_dict())
    with pytest.raises(MillError, match="max_pixels must be a whole number from 1 to 178956970"):
        make_loader(source, max_pixels=1 << 30)


def test_batches_keep_their_size_and_labels_follow_the_substitute(folder: Path) -> None:
    for index, path in enumerate(sorted(folder.iterdir())):
        into = folder / f"class_{index % 3}"
        into.mkdir(exist_ok=True)
        path.rename(into / path.name)
    loader = make_loader(folder, batch_size=13)
    for batch in loader:
        assert len(batch) == 13
        expected = [loader.source.where(id).split("class_")[1][0] for id in batch.ids.tolist()]
        assert [str(label) for label in batch.labels.tolist()] == expected


def test_the_substitute_is_the_same_for_all_workers_ranks_and_resumes(folder: Path) -> None:
    found = []
    for world_size, workers, stop in ((1, 1, 0), (1, 4, 0), (2, 2, 0), (1, 2, 1)):
        crew = [
            make_loader(
                folder, RECIPE, 8 // world_size, workers=workers, rank=rank, world_size=world_size
            )
            for rank in range(world_size)
        ]
        ids = []
        for step, batches in enumerate(zip(*crew, strict=True)):
            ids += [id for batch in batches for id in batch.ids.tolist()]
            if step + 1 == stop:
                break
        if stop:
            again = make_loader(folder, RECIPE, 8)
            again.load_state_dict(crew[0].state_dict())
            ids += [id for batch in again for id in batch.ids.tolist()]
        found.append(ids)
    assert all(ids == found[0] for ids in found)

    loader = make_loader(folder, RECIPE, 8)
    wanted = permutation.Order(26, 0).ids(0, 0, 24).tolist()
    bad = {id for id in range(26) if Path(loader.source.where(id)).name in DAMAGE}
    for got, id in zip(found[0], wanted, strict=True):
        attempt, expected = 0, id
        while expected in bad:
            expected = permutation.substitute(0, 0, id, attempt, 26)
            attempt += 1
        assert got == expected


def test_a_known_bad_sample_is_not_read_again() -> None:
    def fail_on_3(index: int) -> None:
        reads.append(index)
        if index == 3:
            raise OSError(5, "Input/output error")

    reads: list[int] = []
    loader = make_loader(Pictures(24, fail_on_3))
    for _ in range(3):
        assert all(3 not in batch.ids for batch in loader)
    assert reads.count(3) == 1
    (entry,) = entries(loader.ledger.path)
    assert entry == {"id": 3, "where": "picture 3", "reason": "Input/output error"}


def test_a_file_deleted_after_indexing_is_a_bad_sample(folder: Path) -> None:
    loader = make_loader(folder)
    (folder / "05.png").unlink()
    assert sum(len(batch) for batch in loader) == 24
    reasons = {Path(entry["where"]).name: entry["reason"] for entry in entries(loader.ledger.path)}
    assert reasons["05.png"] == "No such file or directory"


def test_more_than_the_limit_is_an_error_with_the_ledgers_path() -> None:
    def fail(index: int) -> None:
        if index % 2:
            raise OSError("no luck")

    loader = make_loader(Pictures(40, fail), workers=3)
    with pytest.raises(MillError, match="more than the 10 that are tolerated") as error:
        for _ in loader:
            pass
    assert str(loader.ledger.path) in str(error.value)
    assert len(entries(loader.ledger.path)) == len(loader.ledger) > 10
    assert not mill_threads()


def test_the_limit_is_one_in_a_thousand() -> None:
    def fail(index: int) -> None:
        if index < 20:
            raise OSError("no luck")

    loader = make_loader(Pictures(20_500, fail), batch_size=1)
    iterator = iter(loader)
    loader.ledger.record(20_000, "elsewhere", "for another reason")
    next(iterator)
    assert loader.ledger.limit == 20
    iterator.close()


def test_a_source_without_a_readable_sample_is_an_error() -> None:
    def fail(index: int) -> None:
        raise OSError("no luck")

    with pytest.raises(MillError, match=r"ledger|see "):
        for _ in make_loader(Pictures(8, fail)):
            pass


def test_a_ledger_that_cannot_be_written_is_a_mill_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    def fail(index: int) -> None:
        raise OSError("no luck")

    loader = make_loader(Pictures(8, fail), ledger=tmp_path / "file" / "ledger")
    with pytest.raises(MillError, match="cannot write the ledger"):
        next(iter(loader))


def test_two_loaders_may_share_a_ledgers_path(tmp_path: Path) -> None:
    def fail(index: int) -> None:
        if index in (1, 2, 5, 7):
            raise OSError("no luck")

    pair = [make_loader(Pictures(8, fail), ledger=tmp_path / "ledger", workers=4) for _ in range(2)]
    for _ in zip(*pair, strict=True):
        pass
    assert {entry["id"] for entry in entries(tmp_path / "ledger")} == {1, 2, 5, 7}
    assert list(tmp_path.glob("*.part")) == []


# ----------------------------------------------------------------------------------- broken sources


class BrokenError(RuntimeError):
    pass


def stumble(index: int) -> None:
    raise BrokenError(f"stumbled over {index}")


@pytest.mark.parametrize("workers", [1, 4])
def test_a_bug_in_a_source_is_raised_with_its_traceback(workers: int) -> None:
    loader = make_loader(Pictures(24, stumble), workers=workers)
    with pytest.raises(BrokenError, match="stumbled over") as error:
        next(iter(loader))
    trace = "".join(traceback.format_exception(error.value))
    assert "in stumble" in trace
    assert not mill_threads()
    assert len(loader.ledger) == 0


def test_batches_before_the_bug_are_handed_over() -> None:
    ids = permutation.Order(24, 0).ids(0, 0, 24).tolist()
    loader = make_loader(Pictures(24, lambda index: stumble(index) if index == ids[9] else None))
    seen = []
    with pytest.raises(BrokenError):
        for batch in loader:
            seen += batch.ids.tolist()
    assert seen == ids[:8]
    assert loader.state_dict()["consumed"] == 8


def test_nothing_is_read_for_a_batch_that_has_failed() -> None:
    reads = []

    def fail_once(index: int) -> None:
        reads.append(index)
        if len(reads) == 1:
            stumble(index)

    with pytest.raises(BrokenError):
        next(iter(make_loader(Pictures(2000, fail_once), batch_size=1000, workers=1)))
    assert len(reads) < 1000


def test_a_loader_can_be_iterated_again_after_an_error() -> None:
    broken = [True]
    source = Pictures(24, lambda index: stumble(index) if broken[0] else None)
    loader = make_loader(source)
    with pytest.raises(BrokenError):
        next(iter(loader))
    broken[0] = False
    assert sum(len(batch) for batch in loader) == 24


def test_a_kept_error_keeps_no_batch_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[memory.BlockPool] = []
    monkeypatch.setattr(memory.BlockPool, "allocate", noting(memory.BlockPool.allocate, made))
    loader = make_loader(Pictures(24, stumble), workers=3)
    try:
        next(iter(loader))
    except BrokenError as error:
        kept = error
    assert kept.__traceback__ is not None
    pool = batch_pool(loader)
    assert len(pool._free) == made.count(pool) > 0


def noting(method: Callable[..., Any], owners: list[Any]) -> Callable[..., Any]:
    def noted(self: Any, *arguments: Any) -> Any:
        owners.append(self)
        return method(self, *arguments)

    return noted


def test_system_exit_in_a_source_is_raised() -> None:
    def leave(index: int) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        next(iter(make_loader(Pictures(24, leave))))


def test_a_read_that_does_not_return_does_not_block_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from patchmill.loaders.pipelines import crew

    monkeypatch.setattr(crew, "JOIN_TIMEOUT_S", 1.0)
    ids = permutation.Order(24, 0).ids(0, 0, 24).tolist()
    reached, stuck = threading.Event(), threading.Event()

    def wait_once_stuck(index: int) -> None:
        if index == ids[8]:
            reached.set()
            stuck.wait()

    source = Pictures(24, wait_once_stuck)
    loader = make_loader(source, workers=2)
    iterator = iter(loader)
    next(iterator)
    next(iterator)
    assert reached.wait(60)
    iterator.close()
    assert "1 threads still wait for a sample" in caplog.text
    source.on_read = None
    assert sum(len(batch) for batch in loader) == 24  # by a worker in the stuck one's place
    stuck.set()
    for thread in mill_threads():
        thread.join(60)


def test_the_search_for_a_substitute_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(index: int) -> None:
        raise OSError("no luck")

    monkeypatch.setattr(samples, "MOST_SUBSTITUTES", 5)
    with pytest.raises(MillError, match="no readable sample was found in 5 draws"):
        next(iter(make_loader(Pictures(24, fail), workers=1)))
