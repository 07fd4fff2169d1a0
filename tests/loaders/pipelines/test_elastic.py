"""Same order and pixels for every world size and worker count, and after every resume."""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import pytest
import torch
from helpers_pipelines import RECIPE, Pictures, make_loader
from torch import Tensor

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Recipe, Views

COUNT, GLOBAL_BATCH, EPOCHS = 30, 8, 2
WORLDS = (1, 2, 4)


class Step(NamedTuple):
    """Samples that all ranks together consumed at one step."""

    ids: list[int]
    views: dict[str, Tensor]
    labels: list[int]


def ranks(world_size: int, **settings: Any) -> list[Any]:
    share = GLOBAL_BATCH // world_size
    return [
        make_loader(COUNT, RECIPE, share, seed=5, rank=rank, world_size=world_size, **settings)
        for rank in range(world_size)
    ]


def run(crew: list[Any], steps: int) -> list[Step]:
    """Some steps, over as many epochs as it takes, all ranks in lockstep as in training."""
    done: list[Step] = []
    while len(done) < steps:
        for batches in zip(*crew, strict=True):
            done.append(together(list(batches)))
            if len(done) == steps:
                break
    return done


def together(batches: list[Any]) -> Step:
    names = batches[0].views
    return Step(
        [id for batch in batches for id in batch.ids.tolist()],
        {name: torch.cat([batch.views[name] for batch in batches]) for name in names},
        [label for batch in batches for label in batch.labels.tolist()],
    )


def assert_same(steps: list[Step], expected: list[Step]) -> None:
    assert [step.ids for step in steps] == [step.ids for step in expected]
    assert [step.labels for step in steps] == [step.labels for step in expected]
    for step, other in zip(steps, expected, strict=True):
        for name in other.views:
            assert torch.equal(step.views[name], other.views[name])


@pytest.fixture(scope="module", params=[True, False], ids=["drop_last", "keep_last"])
def uninterrupted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`drop_last`, and the steps of two epochs on one rank."""
    ledger = tmp_path_factory.mktemp("elastic") / "ledger"
    (loader,) = ranks(1, drop_last=request.param, ledger=ledger)
    return request.param, run([loader], EPOCHS * len(loader))


def test_an_epoch_has_every_sample_once_and_the_next_has_another_order(uninterrupted: Any) -> None:
    drop_last, steps = uninterrupted
    half = len(steps) // EPOCHS
    epochs = [[id for step in part for id in step.ids] for part in (steps[:half], steps[half:])]
    for ids in epochs:
        assert len(ids) == len(set(ids)) == (COUNT - COUNT % GLOBAL_BATCH if drop_last else COUNT)
    assert epochs[0] != epochs[1]
    assert all(step.labels == [id % 3 for id in step.ids] for step in steps)


@pytest.mark.parametrize(
    ("pipeline", "world_size", "workers"),
    [*product(["threads"], WORLDS, [1, 3]), ("dali", 1, 1), ("dali", 2, 3)],
    indirect=["pipeline"],
)
def test_every_world_size_and_worker_count_gives_the_same(
    pipeline: str, uninterrupted: Any, world_size: int, workers: int
) -> None:
    drop_last, expected = uninterrupted
    crew = ranks(world_size, drop_last=drop_last, workers=workers, prefetch=workers)
    assert_same(run(crew, len(expected)), expected)


@pytest.mark.parametrize(
    ("pipeline", "before", "after"),
    [*product(["threads"], WORLDS, WORLDS), ("dali", 1, 2), ("dali", 2, 1)],
    indirect=["pipeline"],
)
def test_stopped_anywhere_and_resumed_on_any_world_size(
    pipeline: str, uninterrupted: Any, before: int, after: int
) -> None:
    drop_last, expected = uninterrupted
    in_epoch = len(expected) // EPOCHS
    for stop in (1, in_epoch - 1, in_epoch, in_epoch + 1, len(expected) - 1):
        first = ranks(before, drop_last=drop_last)
        assert_same(run(first, stop), expected[:stop])
        states = [loader.state_dict() for loader in first]
        assert all(state == states[0] for state in states)
        second = ranks(after, drop_last=drop_last, workers=1)
        for loader in second:
            loader.load_state_dict(states[0])
        assert_same(run(second, len(expected) - stop), expected[stop:])


def test_the_state_survives_torch_save(tmp_path: Any) -> None:
    loader = make_loader()
    next(iter(loader))
    torch.save(loader.state_dict(), tmp_path / "state")
    assert torch.load(tmp_path / "state", weights_only=True) == loader.state_dict()


# -------------------------------------------------------------------------------- epochs and states


def ids_of(loader: Any) -> list[int]:
    return [id for batch in loader for id in batch.ids.tolist()]


def test_the_state_after_the_last_batch_begins_the_next_epoch() -> None:
    loader, other = make_loader(), make_loader()
    for batch in loader:
        last = loader.state_dict()
        assert len(batch) == 4
    assert last == loader.state_dict()
    assert (last["epoch"], last["consumed"], loader.epoch) == (1, 0, 1)
    other.load_state_dict(last)
    assert ids_of(other) == ids_of(loader)
    assert loader.epoch == other.epoch == 2


def test_leaving_an_epoch_early_begins_the_next() -> None:
    loader, other = make_loader(), make_loader()
    epochs = [ids_of(other) for _ in range(4)]
    for batch in loader:
        assert batch.ids.tolist() == epochs[0][:4]
        break
    assert ids_of(loader) == epochs[1]
    next(iter(loader))
    assert loader.epoch == 2
    assert ids_of(loader) == epochs[3]


def test_iter_alone_does_not_start_an_epoch() -> None:
    loader, other = make_loader(), make_loader()
    iter(loader)
    assert ids_of(loader) == ids_of(other)


def test_state_dict_changes_nothing_and_load_state_dict_goes_back() -> None:
    loader, states, seen = make_loader(), [], []
    for batch in loader:
        states.append(loader.state_dict())
        seen.append(batch.ids.tolist())
    for state, rest in zip(states, range(1, 7), strict=True):
        loader.load_state_dict(state)
        assert loader.state_dict() == state
        ids = ids_of(loader) if rest < 6 else []
        assert ids == [id for step in seen[rest:] for id in step]


def test_a_state_of_another_loader_is_refused_by_field() -> None:
    state = make_loader().state_dict()
    other_recipe = Recipe((Views("view", 1, 9),))
    for field, loader in {
        "data": make_loader(25),
        "recipe": make_loader(recipe=other_recipe),
        "seed": make_loader(seed=1),
        "global_batch": make_loader(batch_size=3),
    }.items():
        with pytest.raises(MillError, match=f"another {field} ") as error:
            loader.load_state_dict(state)
        assert "\n" not in str(error.value)
    same = make_loader(batch_size=2, rank=0, world_size=2, workers=1, prefetch=1, dtype=torch.uint8)
    same.load_state_dict(state)


@pytest.mark.parametrize(
    "damage",
    [
        None,
        {},
        {"version": 99},
        {"epoch": -1},
        {"epoch": "two"},
        {"consumed": None},
        {"consumed": 1.5},
        {"consumed": 3},
        {"seed": None},
    ],
)
def test_a_damaged_state_is_refused(damage: Any) -> None:
    loader = make_loader()
    state = {**loader.state_dict(), **damage} if damage else damage
    with pytest.raises(MillError, match="state"):
        loader.load_state_dict(state)
    assert loader.epoch == 0


def test_without_labels_there_are_none() -> None:
    source = Pictures(8)
    source.labels = None
    assert next(iter(make_loader(source))).labels is None
