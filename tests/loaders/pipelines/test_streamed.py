"""Loaders on streamed shards: the same plans, exact resumes, replaced samples, clear errors."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_pipelines import GLANCE, RECIPE, encoded, make_loader, mill_threads
from helpers_server import Fault, serve

from patchmill.kernels.views.cpu import render
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.plan import draw
from patchmill.loaders.sources.stream import patience
from patchmill.loaders.sources.stream.stream import Stream

webdataset = pytest.importorskip("webdataset")

SHARD = 13  # samples


@pytest.fixture
def urls(tmp_path: Path) -> list[str]:
    """Four shards of pictures 0 to 51; many .jpg members are PNGs."""
    for shard in range(4):
        with webdataset.TarWriter(str(tmp_path / f"{shard}.tar"), encoder=False) as writer:
            for n in range(shard * SHARD, (shard + 1) * SHARD):
                writer.write({"__key__": f"{n:03}", "jpg": encoded(n), "cls": b"%d" % (n % 3)})
    return [f"file://{tmp_path / f'{shard}.tar'}" for shard in range(4)]


def stream(urls: list[str], **settings: Any) -> Stream:
    return Stream(urls, window=5, **settings)


def number(id: int) -> int:
    """The picture's number, from the id of its sample."""
    return (id >> 32) * SHARD + (id & 0xFFFFFFFF)


def test_one_epoch_is_every_sample_once(urls: list[str]) -> None:
    loader = make_loader(stream(urls), drop_last=False, batch_size=5)
    epochs = []
    for _ in range(2):
        epochs.append([id for batch in loader for id in batch.ids.tolist()])
        assert sorted(map(number, epochs[-1])) == list(range(52))
    assert epochs[0] != epochs[1]
    with pytest.raises(TypeError, match="a stream has no known length"):
        len(loader)
    assert len(list(make_loader(stream(urls), batch_size=5))) == 10


def test_views_and_labels_match_the_sample(urls: list[str]) -> None:
    """Plans depend on seed, epoch and id alone."""
    for batch in make_loader(stream(urls), RECIPE, batch_size=6, seed=3):
        ids = batch.ids.tolist()
        assert batch.labels.tolist() == [number(id) % 3 for id in ids]
        images = [decode(encoded(number(id))) for id in ids]
        rows = draw.draw(RECIPE, 3, 0, ids, [image.shape[:2] for image in images]).rows
        expected = render.render(images, rows, draw.targets(RECIPE))
        for name, views in batch.views.items():
            assert torch.equal(views, expected[name])


@pytest.mark.parametrize("steps", [None, 3, 30])
def test_a_resume_is_exact(urls: list[str], steps: int | None) -> None:
    """In a window, between epochs, and in a second round through the shards."""
    settings: dict[str, Any] = {"recipe": RECIPE, "batch_size": 4, "steps": steps, "workers": 3}
    whole = make_loader(stream(urls), **settings)
    batches, states = [], [whole.state_dict()]
    for _ in range(2):
        for batch in whole:
            batches.append((batch.ids.tolist(), batch.views["local"].clone()))
            states.append(copy.deepcopy(whole.state_dict()))
    for cut in range(0, len(batches), 3):
        loader = make_loader(stream(urls), **settings)
        loader.load_state_dict(json.loads(json.dumps(states[cut])))
        rest = [(batch.ids.tolist(), batch.views["local"].clone()) for batch in loader]
        assert rest
        for ours, theirs in zip(rest, batches[cut:], strict=False):
            assert ours[0] == theirs[0]
            assert torch.equal(ours[1], theirs[1])


def test_ranks_read_shards_of_their_own(urls: list[str]) -> None:
    seen: list[set[int]] = []
    for rank in range(2):
        loader = make_loader(stream(urls), batch_size=5, rank=rank, world_size=2, steps=5)
        assert len(loader) == 5
        seen.append({number(id) for batch in loader for id in batch.ids.tolist()})
    assert len(seen[0]) == len(seen[1]) == 25
    assert not seen[0] & seen[1]


def test_shards_are_reread_with_other_plans_if_they_do_not_suffice(
    urls: list[str],
) -> None:
    loader = make_loader(stream(urls[:1]), batch_size=4, steps=9)
    found: dict[int, list[bytes]] = {}
    for batch in loader:
        for slot, id in enumerate(batch.ids.tolist()):
            found.setdefault(id, []).append(batch.rows[slot].tobytes())
    assert sum(map(len, found.values())) == 36
    assert max(map(len, found.values())) == 3
    assert all(len(set(rows)) == len(rows) for rows in found.values())


def test_a_bad_sample_is_replaced_by_one_of_its_batch(tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "a.tar"), encoder=False) as writer:
        for n in range(24):
            writer.write({"__key__": f"{n:03}", "jpg": b"no picture" if n == 7 else encoded(n)})
    url = f"file://{tmp_path / 'a.tar'}"
    found = []
    for workers in (1, 4):
        loader = make_loader(stream([url]), workers=workers)
        for batch in loader:
            assert len(batch) == 4
            assert batch.labels is None
            assert 7 not in batch.ids
            found.append(batch.ids.tolist())
        (line,) = loader.ledger.path.read_text().splitlines()
        entry = json.loads(line)
        assert entry["id"] == 7
        assert entry["where"].startswith(f"{url}: at byte ")
    assert found[:6] == found[6:]
    assert sorted(len(set(ids)) for ids in found[:6]) == [3, 4, 4, 4, 4, 4]


def test_only_samples_of_batches_in_the_making_are_held(urls: list[str]) -> None:
    loader = make_loader(stream(urls), prefetch=2)
    for _ in range(2):
        for _ in loader:
            assert len(loader.source._held) <= 2 * 4
            assert len(loader._schedule._positions) <= 2 + 2
    assert not loader.source._held
    assert not mill_threads()


def test_an_early_end_leaves_nothing_running(urls: list[str]) -> None:
    loader = make_loader(stream(urls))
    for _ in loader:
        break
    assert sum(len(batch) for batch in loader) == 52
    loader.close()


def test_mistakes_are_mill_errors(urls: list[str], tmp_path: Path) -> None:
    with pytest.raises(MillError, match="set the batches of an epoch, as in steps=1000"):
        make_loader(stream(urls), rank=0, world_size=2)
    with pytest.raises(MillError, match="cannot be distributed to 5 ranks"):
        make_loader(stream(urls), rank=0, world_size=5, steps=1)
    with pytest.raises(MillError, match="steps is for streamed shards"):
        make_loader(24, steps=3)
    with pytest.raises(MillError, match="steps must be a whole number of at least 1"):
        make_loader(stream(urls), steps=0)
    with pytest.raises(MillError, match="hold less than one batch of 64"):
        list(make_loader(stream(urls), batch_size=64, steps=2))
    state = make_loader(stream(urls), steps=2).state_dict()
    for other in ({"batch_size": 3}, {"steps": 3}, {"rank": 1, "world_size": 2}):
        settings = {"steps": 2, "batch_size": 4, **other}
        with pytest.raises(MillError, match="the state was saved with another"):
            make_loader(stream(urls), **settings).load_state_dict(state)
    with pytest.raises(MillError, match="damaged: its offset is -1"):
        make_loader(stream(urls), steps=2).load_state_dict({**state, "offset": -1})


def test_urls_are_opened_as_they_are(urls: list[str]) -> None:
    (ours, theirs) = (
        [batch.ids.tolist() for batch in make_loader(data, GLANCE)] for data in (urls, Stream(urls))
    )
    assert ours == theirs


def test_a_server_that_cuts_changes_no_batch(
    urls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_FIRST_DELAY_S", 0.0)
    expected = [batch.ids.tolist() for batch in make_loader(stream(urls), GLANCE)]
    with serve(tmp_path) as server:
        for n in range(4):
            server.faults[f"/{n}.tar"] = [Fault(cut=7000), Fault(503), Fault(cut=3000)]
        served = stream([f"{server.url}/{n}.tar" for n in range(4)])
        assert [batch.ids.tolist() for batch in make_loader(served, GLANCE)] == expected
        assert not any(server.faults.values())


def test_a_missing_shard_comes_up_in_the_loop_of_its_rank(tmp_path: Path, urls: list[str]) -> None:
    """One of two ranks stops at once; no thread goes on and the other rank is not held up."""
    with serve(tmp_path) as server:
        names = [f"{server.url}/{name}.tar" for name in (0, 1, 2, "missing")]
        ends = []
        for rank in range(2):
            loader = make_loader(stream(names), GLANCE, rank=rank, world_size=2, steps=6)
            try:
                ends.append(sum(len(batch) for batch in loader))
            except MillError as error:
                ends.append(str(error))
            assert not mill_threads()
    failure = (
        f"cannot read the shard {server.url}/missing.tar: the server answers 404 Not Found; "
        "check the URL"
    )
    assert sorted(ends, key=str) == [6 * 4, failure]
