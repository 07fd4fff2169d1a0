"""Conflicting settings are reported before any data are opened or painted."""

from __future__ import annotations

from pathlib import Path

import helpers_runs
import pytest

from patchmill.loaders.common.errors import MillError
from patchmill.loaders.sources import recognise
from patchmill.training.ranks.distributed import World
from patchmill.training.runtime import setup


@pytest.mark.parametrize(
    ("overrides", "ranks", "sentence"),
    [
        ({"train__batch_size": 12}, 1, "the queue of 32 keys is not a multiple of a batch"),
        ({"train__batch_size": 16}, 3, "train.batch_size=16 cannot be divided among 3 ranks"),
        ({"method__split_bn": 3}, 1, "method.split_bn=3 cannot split the 8 images"),
        ({"model": "resnet50", "model__name": "resnet5"}, 1, "resnet5"),
    ],
)
def test_a_batch_that_does_not_fit_is_reported_first(
    overrides: dict[str, object], ranks: int, sentence: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    def opened(data: object) -> None:
        raise AssertionError(f"{data} was opened")

    monkeypatch.setattr(recognise, "open_any", opened)
    config = helpers_runs.config(tmp_path, **overrides)
    with pytest.raises(MillError, match=sentence):
        with setup.build_run(config, World(size=ranks), tmp_path / "run"):
            pass
