"""Operations of a recipe's own and mixing, in every pipeline on the CPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from helpers_pipelines import RECIPE, Pictures, make_loader, mill_threads
from torch import Tensor

from patchmill.loaders import operations
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.operations import (
    GaussianNoise,
    Mix,
    Operation,
    Posterise,
    RandomErasing,
    Rotation,
)
from patchmill.loaders.operations.mix import mix_views
from patchmill.loaders.pipelines import extra as extra_module
from patchmill.loaders.recipe import Grid, Recipe, Shift, Views

pytestmark = pytest.mark.usefixtures("pipeline")

OWN = replace(
    RECIPE,
    views=(
        replace(RECIPE.views[0], extra=(GaussianNoise(p=(1.0, 0.3)), Rotation(), Posterise())),
        replace(RECIPE.views[1], extra=(RandomErasing(p=0.5, mode="pixel"), RandomErasing(0.5))),
    ),
)
COUNT = 24


def views_by_id(batches: Any) -> dict[int, dict[str, Tensor]]:
    return {
        id: {name: group[i].clone() for name, group in batch.views.items()}
        for batch in batches
        for i, id in enumerate(batch.ids.tolist())
    }


def assert_equal(ours: dict[int, dict[str, Tensor]], theirs: dict[int, dict[str, Tensor]]) -> None:
    assert ours.keys() == theirs.keys()
    for id, groups in theirs.items():
        for name, group in groups.items():
            assert torch.equal(ours[id][name], group), (id, name)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are worked on three samples at a time."""
    numbers = sum(3 * group.size**2 * group.total for group in OWN.views)
    monkeypatch.setitem(extra_module._PART_BYTES, "cpu", 3 * 4 * numbers)


def test_every_batch_size_worker_count_and_rank_gives_a_sample_the_same_views(
    monkeypatch: pytest.MonkeyPatch, small_parts: None
) -> None:
    expected = views_by_id(make_loader(COUNT, OWN, 8, seed=3))
    assert len(expected) == COUNT
    plain = views_by_id(make_loader(COUNT, RECIPE, 8, seed=3))
    assert sum(not torch.equal(expected[i]["global"][0], plain[i]["global"][0]) for i in plain) > 20
    assert_equal(
        views_by_id(make_loader(COUNT, OWN, 5, seed=3, workers=1, drop_last=False)), expected
    )
    monkeypatch.setitem(extra_module._PART_BYTES, "cpu", 1)
    ranks = [make_loader(COUNT, OWN, 4, seed=3, rank=rank, world_size=2) for rank in range(2)]
    assert_equal({k: v for rank in ranks for k, v in views_by_id(rank).items()}, expected)


def test_epochs_differ_and_a_resumed_one_does_not() -> None:
    loader = make_loader(COUNT, OWN, 4, seed=1)
    epochs = [views_by_id(loader) for _ in range(2)]
    for i, _ in enumerate(loader):
        if i == 2:
            state = loader.state_dict()
            break
    again = make_loader(COUNT, OWN, 4, seed=1, workers=1)
    again.load_state_dict(state)
    rest = views_by_id(again)
    assert len(rest) == COUNT - 12
    whole = make_loader(COUNT, OWN, 4, seed=1)
    whole.set_epoch(2)
    third = views_by_id(whole)
    assert_equal(rest, {id: third[id] for id in rest})
    assert not torch.equal(epochs[0][5]["local"], epochs[1][5]["local"])
    with pytest.raises(MillError, match="another recipe"):
        make_loader(COUNT, RECIPE, 4, seed=1).load_state_dict(state)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.uint8])
def test_every_dtype_and_layout_gets_the_same_operations(
    dtype: torch.dtype, channels_last: bool
) -> None:
    exact = replace(OWN.views[0], extra=(Rotation(1.0, fill=(0, 0, 0)), RandomErasing(1.0)))
    recipe = Recipe((exact,))
    expected = views_by_id(make_loader(8, recipe, 4))
    settings = {"dtype": dtype, "channels_last": channels_last}
    mean, std = (torch.tensor(of)[:, None, None] for of in (exact.mean, exact.std))
    for batch in make_loader(8, recipe, 4, **settings):
        group = batch.views["global"]
        assert group.dtype == dtype
        assert group[:, 0].is_contiguous(
            memory_format=torch.channels_last if channels_last else torch.contiguous_format
        )
        for id, views in zip(batch.ids.tolist(), group.float(), strict=True):
            unit = views / 255 if dtype == torch.uint8 else views * std + mean
            assert (unit - (expected[id]["global"] * std + mean)).abs().max() < 0.01


def test_operations_follow_each_other_and_know_their_group() -> None:
    recipe = Recipe((Views("a", 2, 8, extra=(Scale(by=2), Lift(), Scale(by=0.5))),))
    plain = views_by_id(make_loader(8, Recipe((Views("a", 2, 8),)), 4, dtype=torch.float32))
    mean, std = (
        torch.tensor(of)[:, None, None] for of in (recipe.views[0].mean, recipe.views[0].std)
    )
    for id, groups in views_by_id(make_loader(8, recipe, 4)).items():
        unit = groups["a"] * std + mean
        expected = (plain[id]["a"] * std + mean) + 0.5 * recipe.views[0].mean[0]
        assert torch.allclose(unit, expected, atol=1e-6)


@dataclass(frozen=True)
class Scale(Operation):
    by: float = 1.0

    def __call__(self, views: Tensor, draws: operations.Draws) -> Tensor:
        return views * self.by


@dataclass(frozen=True)
class Lift(Operation):
    def __call__(self, views: Tensor, draws: operations.Draws) -> Tensor:
        return views.add_(draws.group.mean[0])


def test_the_cells_of_a_grid_are_operated_on_each() -> None:
    grids = Recipe((Views("g", 2, 4, Grid(2, 2, Shift(1)), extra=(GaussianNoise(p=(0.0, 1.0)),)),))
    plain = replace(grids, views=(replace(grids.views[0], extra=()),))
    ours, theirs = views_by_id(make_loader(8, grids, 4)), views_by_id(make_loader(8, plain, 4))
    for id in theirs:
        changed = (ours[id]["g"] != theirs[id]["g"]).flatten(1).any(1)
        assert changed.tolist() == [False] * 4 + [True] * 4


def test_statistics_have_a_stage_of_their_own(small_parts: None) -> None:
    loader = make_loader(COUNT, OWN, 8)
    for _ in range(2):
        list(loader)
    stage = loader.stats().stages["extra"]
    assert stage.items == 2 * COUNT and stage.seconds > 0 and stage.crew == "workers"
    assert "extra" not in make_loader(COUNT, RECIPE, 8).stats().stages


# ------------------------------------------------------------------------------------------- faults


@dataclass(frozen=True)
class Fails(Operation):
    armed: ClassVar[bool] = False

    def __call__(self, views: Tensor, draws: operations.Draws) -> Tensor:
        if Fails.armed:
            raise KeyError("a mistake in user code")
        return views


def test_an_exception_of_an_operation_reaches_the_training_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = Recipe((Views("a", 1, 8, extra=(Fails(),)),))
    loader = make_loader(COUNT, recipe, 4)
    assert len(list(loader)) == COUNT // 4
    monkeypatch.setattr(Fails, "armed", True)
    with pytest.raises(KeyError, match="a mistake in user code") as caught:
        list(loader)
    assert any(entry.name == "__call__" for entry in caught.traceback)
    assert not mill_threads()
    with pytest.raises(KeyError):  # already when the loader is built
        make_loader(COUNT, recipe, 4)
    monkeypatch.setattr(Fails, "armed", False)
    assert len(list(loader)) == COUNT // 4


@dataclass(frozen=True)
class Wrong(Operation):
    def __call__(self, views: Tensor, draws: operations.Draws) -> Tensor:
        return views[..., ::2, ::2]


def test_a_wrong_result_is_refused_before_the_first_batch() -> None:
    recipe = Recipe((Views("a", 1, 8, extra=(Wrong(),)),))
    said = (
        r"views 'a': the operation Wrong returned .*\(3, 3, 4, 4\) on cpu, and must return .*8, 8"
    )
    with pytest.raises(MillError, match=said):
        make_loader(COUNT, recipe, 4)


def test_threads_of_the_training_loop_keep_their_number() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        list(make_loader(COUNT, OWN, 8))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


# ------------------------------------------------------------------------------------------- mixing


@pytest.mark.parametrize("mode", ["batch", "element"])
def test_batches_are_mixed_after_the_operations(mode: Any, small_parts: None) -> None:
    mix = Mix(classes=3, mode=mode)
    ours, theirs = make_loader(COUNT, OWN, 8, seed=2, mix=mix), make_loader(COUNT, OWN, 8, seed=2)
    mixed = 0
    for epoch in range(2):
        for one, other in zip(ours, list(theirs), strict=True):
            assert torch.equal(one.ids, other.ids)
            mixing = mix.decide(2, epoch, one.ids.numpy())
            expected = {name: group.clone() for name, group in other.views.items()}
            mix_views(expected, mixing)
            for name in expected:
                assert torch.equal(one.views[name], expected[name])
            assert torch.equal(one.labels, mix.soft_labels(other.labels, mixing, 16))
            assert one.labels.shape == (8, 3) and one.labels.dtype == torch.float32
            mixed += not torch.equal(one.views["global"], other.views["global"])
    assert mixed == 6
    assert ours.stats().stages["extra"].items == 2 * COUNT


def test_a_mixing_loader_resumes() -> None:
    loader = make_loader(COUNT, RECIPE, 4, mix=Mix(classes=3))
    whole = [batch.labels.tolist() for batch in loader]
    again = make_loader(COUNT, RECIPE, 4, mix=Mix(classes=3), workers=1)
    for _ in again:
        state = again.state_dict()
        break
    resumed = make_loader(COUNT, RECIPE, 4, mix=Mix(classes=3))
    resumed.load_state_dict(state)
    assert [batch.labels.tolist() for batch in resumed] == whole[1:]
    for other in (None, Mix(classes=3, mixup=0.1)):
        with pytest.raises(MillError, match="another mix"):
            make_loader(COUNT, RECIPE, 4, mix=other).load_state_dict(state)


@pytest.mark.parametrize(
    ("mix", "complaint"),
    [
        (0.8, r"mix must be an operations\.Mix such as Mix\(classes=1000\), not 0\.8"),
        (Mix(2), "mix has 2 classes, but pictures has the label 2"),
    ],
)
def test_mistakes_with_mix_are_one_sentence(mix: Any, complaint: str) -> None:
    with pytest.raises(MillError, match=complaint):
        make_loader(COUNT, RECIPE, 4, mix=mix)


def test_data_without_labels_cannot_be_mixed() -> None:
    source = Pictures(8)
    source.labels = None
    with pytest.raises(MillError, match="mix makes soft labels, but pictures has no labels"):
        make_loader(source, RECIPE, 4, mix=Mix(3))
