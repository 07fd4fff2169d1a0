"""Mix against timm.data.Mixup, its draws, and the batches of a loader."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers_operations import photo_like
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from timm.data.mixup import Mixup

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.operations import Mix
from patchmill.loaders.operations.mix import _beta, mix_views

SIZE, CLASSES = 20, 5
LABELS = torch.tensor([0, 3, 1, 4, 2, 0, 1, 2])
IDS = np.arange(100, 108)


class Script:
    """NumPy's global random numbers, replaced by the decisions of a Mixing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, mix: Mix, mixing: Any) -> None:
        count = len(mixing.weight) if mix.mode == "element" else 1
        weight, cut = mixing.weight[:count], mixing.cut[:count]
        one = mix.mode == "batch"
        self.uniforms = [np.where(cut, 0.0, 1.0), np.zeros(count)]  # switch, happens
        if one:
            self.uniforms.reverse()
        if not (mix.mixup and mix.cutmix):
            self.uniforms = [np.zeros(count)]
        self.centres = [int(c * SIZE) for row in mixing.centre[:count][cut] for c in row]
        monkeypatch.setattr(np.random, "rand", lambda *n: self.uniforms.pop(0)[0 if one else ...])
        monkeypatch.setattr(np.random, "beta", lambda *a, size=None: weight[0] if one else weight)
        monkeypatch.setattr(np.random, "randint", self.randint)

    def randint(self, low: int, high: int, size: Any = None) -> int:
        assert (low, high) == (0, SIZE)
        return self.centres.pop(0)


@pytest.mark.parametrize("mode", ["batch", "element"])
@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 1.0), (0.4, 0.0), (0.0, 1.0)])
def test_batches_are_timms_for_the_same_decisions(
    monkeypatch: pytest.MonkeyPatch, mode: Any, mixup: float, cutmix: float
):
    mix = Mix(CLASSES, mixup, cutmix, mode=mode)
    for epoch in range(6):
        images = photo_like(8, SIZE, epoch)
        mixing = mix.decide(7, epoch, IDS)
        found, targets = mix(images.clone(), LABELS, IDS, seed=7, epoch=epoch)
        with monkeypatch.context() as patch:
            Script(patch, mix, mixing)
            theirs = Mixup(
                mixup, cutmix, mode="elem" if mode == "element" else mode, num_classes=CLASSES
            )
            expected, expected_targets = theirs(images.clone(), LABELS)
        assert torch.allclose(found, expected, atol=1e-6)
        assert torch.allclose(targets, expected_targets, atol=1e-6)
        assert torch.allclose(targets.sum(1), torch.ones(8))


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 3.0])
def test_weights_are_beta(alpha: float):
    mix = Mix(CLASSES, alpha, 0, mode="element")
    weights = mix.decide(0, 0, np.arange(4000)).weight
    assert stats.kstest(weights, stats.beta(alpha, alpha).cdf).pvalue > 0.01
    assert np.isfinite(weights).all() and _beta(np.full(1, alpha), np.zeros((1, 146))).size == 1


def test_probabilities():
    mix = Mix(CLASSES, p=0.4, switch_p=0.3, mode="element")
    mixing = mix.decide(1, 0, np.arange(5000))
    assert abs((mixing.weight < 1).mean() - 0.4) < 0.03
    assert abs(mixing.cut[mixing.weight < 1].mean() - 0.3) < 0.03


@given(st.integers(0, 2**64 - 1), st.integers(0, 1000), st.integers(1, 8))
def test_in_element_mode_each_sample_has_its_own_decisions(seed: int, epoch: int, count: int):
    mix = Mix(CLASSES, mode="element")
    together, alone = mix.decide(seed, epoch, IDS), mix.decide(seed, epoch, IDS[:1])
    assert together.weight[0] == alone.weight[0] and together.cut[0] == alone.cut[0]
    batch = Mix(CLASSES).decide(seed, epoch, IDS[:count])
    assert batch.alike and len(batch.weight) == count


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.uint8])
@pytest.mark.parametrize("mode", ["batch", "element"])
def test_every_dtype_is_mixed_alike(dtype: torch.dtype, mode: Any):
    images = photo_like(8, SIZE)
    stored = (images * 255).to(dtype) if dtype == torch.uint8 else images.to(dtype)
    for epoch in range(4):
        mixing = Mix(CLASSES, mode=mode).decide(0, epoch, IDS)
        exact = {"a": stored.float()[:, None].clone()}
        rounded = {"a": stored[:, None].clone()}
        mix_views(exact, mixing)
        mix_views(rounded, mixing)
        atol = 0.51 if dtype == torch.uint8 else 0.006
        assert torch.allclose(rounded["a"].float(), exact["a"], rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Mix(1), "Mix: classes must be a whole number of at least 2, not 1"),
        (lambda: Mix(10, mixup=0, cutmix=0), "mixup and cutmix are both 0"),
        (lambda: Mix(10, mode="pair"), r"mode must be batch \| element"),
        (lambda: Mix(10, p=2), "p must be a number from 0 to 1, not 2"),
    ],
)
def test_mistakes_are_one_sentence(make: Any, complaint: str):
    with pytest.raises(MillError, match=complaint):
        make()
