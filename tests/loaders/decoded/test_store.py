"""Images of a store are those that were put in, whoever else uses it and whatever became of it."""

from __future__ import annotations

import os
import shutil
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers_decoded import Noise, as_another_process, fill, held, only_file
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.decoded import locks, places, records
from patchmill.loaders.decoded.opening import open_store
from patchmill.loaders.decoded.store import Store

COUNT = 12


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, COUNT - 1)), max_size=40),
    st.sampled_from(["1KB", "20KB", "1MB"]),
    st.booleans(),
)
def test_processes_share_what_each_of_them_decodes(
    work: list[tuple[int, int]], size: str, stamped: bool
) -> None:
    source = Noise(COUNT, stamped)
    with tempfile.TemporaryDirectory() as folder:
        stores = [as_another_process(Path(folder), source, size) for _ in range(3)]
        for who, id in work:
            fill(stores[who], [id])
        seen = [held(store, source) for store in stores]
        assert seen[0] == seen[1] == seen[2]
        asked = sorted({id for _, id in work})
        assert seen[0] == asked if size == "1MB" else set(seen[0]) <= set(asked)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_pages_lost_in_a_power_failure_cost_only_their_images(
    data: st.DataObject,
) -> None:
    source = Noise(COUNT)
    with tempfile.TemporaryDirectory() as folder:
        fill(as_another_process(Path(folder), source, "300KB"), range(COUNT))
        path = only_file(Path(folder))
        with open(path, "r+b") as file:
            pages = path.stat().st_size // records.PAGE
            for page in data.draw(st.sets(st.integers(0, pages), max_size=12)):
                file.seek(page * records.PAGE)
                file.write(bytes(records.PAGE))
            if data.draw(st.booleans()):
                file.truncate(data.draw(st.integers(0, path.stat().st_size)))
        store = as_another_process(Path(folder), source, "300KB")
        left = held(store, source)
        fill(store, range(COUNT))
        filled = held(store, source)
        assert set(left) <= set(filled)
        assert held(as_another_process(Path(folder), source, "300KB"), source) == filled


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sets(st.integers(0, COUNT - 1)), max_size=5), st.booleans())
def test_an_image_that_changed_between_runs_is_decoded_again(
    changes: list[set[int]], stamped: bool
) -> None:
    source = Noise(COUNT, stamped)
    with tempfile.TemporaryDirectory() as folder:
        for changed in [set(), *changes]:
            for id in changed:
                source.versions[id] += 1
            store = as_another_process(Path(folder), source)
            before = held(store, source)
            assert set(before) == set(range(COUNT)) - changed or not before
            fill(store, range(COUNT))
            assert held(store, source) == list(range(COUNT))
            del store


def test_images_that_do_not_fit_are_skipped_and_smaller_ones_still_fit(tmp_path: Path) -> None:
    source = Noise(40)
    store = as_another_process(tmp_path, source, "60KB")
    fill(store, range(40))
    there = held(store, source)
    assert store.full and 3 < len(there) < 40
    assert store.stats(0).bytes <= 60_000


def test_a_store_in_which_most_images_have_changed_is_recreated(tmp_path: Path) -> None:
    source = Noise(COUNT)
    size = sum(records.aligned(decode(source.read(id)).nbytes) for id in range(COUNT))
    text = f"{int(size * 1.2)}B"
    fill(as_another_process(tmp_path, source, text), range(COUNT))
    source.versions = [2] * COUNT
    assert held(as_another_process(tmp_path, source, text), source) == []
    store = as_another_process(tmp_path, source, text)
    fill(store, range(COUNT))
    assert held(store, source) == list(range(COUNT))


def test_a_sample_that_is_just_changing_is_not_kept(tmp_path: Path) -> None:
    source = Noise(2)
    source.versions[1] = 0  # a stamp of 0
    store = as_another_process(tmp_path, source)
    fill(store, range(2))
    assert held(store, source) == [0]


def test_a_forked_child_reads_and_does_not_fill(tmp_path: Path) -> None:
    source = Noise(2)
    store = as_another_process(tmp_path, source)
    fill(store, [0])
    child = os.fork()
    if not child:
        fill(store, [0, 1])
        os._exit(0 if held(store, source) == [0] else 1)
    assert os.waitpid(child, 0)[1] == 0
    fill(store, [1])
    assert held(store, source) == [0, 1]


def opened(text: str, source: Noise) -> Store:
    store = open_store(text, source)
    assert store is not None
    return store


def test_every_loader_checks_the_samples_itself_and_other_data_has_another_file(
    tmp_path: Path,
) -> None:
    text, source = f"disk:{tmp_path}:1MB", Noise(COUNT)
    first = opened(text, source)
    fill(first, range(COUNT))
    changed = Noise(COUNT)
    changed.versions[3] = 2
    second = opened(text, changed)
    assert second is not first and second.path == first.path
    assert held(second, changed) == [id for id in range(COUNT) if id != 3]
    other = Noise(COUNT + 1)
    assert opened(text, other).path != first.path and held(opened(text, other), other) == []


def test_a_removed_folder_only_stops_the_filling(tmp_path: Path) -> None:
    source = Noise(40)
    store = as_another_process(tmp_path / "store", source, "100KB")
    fill(store, range(4))
    shutil.rmtree(tmp_path / "store")
    fill(store, range(40))
    assert store.full and {0, 1, 2, 3} <= set(held(store, source))


def test_the_garbage_collector_does_not_wait_for_a_lock_of_its_own_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "SHARED_MEMORY", tmp_path)
    store = opened("ram:1MB", Noise(COUNT))
    path = store.path
    with locks.locked(locks.lock_path(path)):
        del store
    assert path.exists() and not locks.is_used(path)
    assert opened("ram:1MB", Noise(COUNT)).path == path


def test_a_disk_whose_maps_lag_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "map_shows_writes", lambda self: False)
    with pytest.raises(MillError, match="memory maps do not show what is written to files"):
        open_store(f"disk:{tmp_path}:1MB", Noise(COUNT))
    assert not locks.is_used(only_file(tmp_path))


def test_only_missing_samples_are_prefetched_from_the_source(tmp_path: Path) -> None:
    source, announced = Noise(COUNT), list[int]()
    source.prefetch = lambda ids: announced.extend(ids.tolist())  # type: ignore[method-assign]
    fill(as_another_process(tmp_path, source), [2, 5])
    store = as_another_process(tmp_path, source)
    store.prefetch(np.arange(COUNT))
    assert announced == [id for id in range(COUNT) if id not in (2, 5)]


def test_a_full_disk_only_stops_the_filling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source, real = Noise(COUNT), os.pwrite
    store = as_another_process(tmp_path, source)
    fill(store, range(4))

    def full(file: int, data: bytes, offset: int) -> int:
        if len(data) > 100:
            raise OSError(28, "No space left on device")
        return real(file, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    fill(store, range(COUNT))
    assert held(store, source) == [0, 1, 2, 3] and store.full
    assert [record.message for record in caplog.records] == [
        f"the decoded cache {store.path} stops growing: No space left on device"
    ]


def test_another_format_is_replaced_unless_it_is_in_use(tmp_path: Path) -> None:
    source = Noise(COUNT)
    store = as_another_process(tmp_path, source)
    fill(store, range(COUNT))
    with open(store.path, "r+b") as file:
        file.write(b"another!")
    with pytest.raises(MillError, match="is in use by another version of patchmill"):
        as_another_process(tmp_path, source)
    path = store.path
    del store
    assert not locks.is_used(path)
    assert held(as_another_process(tmp_path, source), source) == []


def test_checksums_differ_if_pixels_or_their_places_do() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    known = records.checksum(image)
    for change in ((0, 0, 0), (30, 20, 1), (59, 49, 2)):
        other = image.copy()
        other[change] ^= 1
        assert records.checksum(other) != known
    flat = image.reshape(-1)
    swapped = np.concatenate([flat[4096:8192], flat[:4096], flat[8192:]]).reshape(image.shape)
    assert records.checksum(swapped) != known


def test_a_single_process_fills_its_store_to_the_last_image(tmp_path: Path) -> None:
    source = Noise(40)
    sizes = [records.aligned(decode(source.read(id)).nbytes) for id in range(40)]
    store = as_another_process(tmp_path, source, f"{sum(sizes)}B")
    fill(store, range(40))
    assert held(store, source) == list(range(40)) and not store.full


def test_a_full_store_does_not_ask_again_for_images_of_the_same_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = as_another_process(tmp_path, Noise(40), "1KB")
    image, asked = np.zeros((100, 100, 3), np.uint8), list[int]()
    monkeypatch.setattr(
        store, "_reserve", lambda size: asked.append(size) or Store._reserve(store, size)
    )
    for id in range(5):
        store.offer(id, image, 1)
    assert len(asked) == 1 and store.full


@pytest.mark.parametrize("text", [b"", b"[1]", b"not JSON"])
def test_a_header_that_is_none_has_a_fitting_checksum(text: bytes) -> None:
    start = records._START.pack(records.MAGIC, len(text), zlib.crc32(text))
    assert records.read_header((start + text).ljust(records.PAGE, b"\0")) is None
