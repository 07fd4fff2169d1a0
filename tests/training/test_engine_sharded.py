"""Sharded backbones give the feature maps and the teachers that dense methods need."""

from __future__ import annotations

from pathlib import Path

import helpers_methods
import helpers_ranks
import helpers_runs
import pytest
import torch


def test_gtsa_learns_the_same_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for key in [key for key in helpers_runs.OVERRIDES if key.startswith("method.")]:
        monkeypatch.delitem(helpers_runs.OVERRIDES, key)  # MoCo's
    overrides = dict(
        method="gtsa",
        method__views="gtsa(global_size=16, local_crops=1, local_size=8)",
        method__dim=4,
        method__match_after=0,
        method__bins="[3,2]",
        train__epochs=2,
        optim__clip_each=0.05,
        evaluate="knn",
    )
    helpers_ranks.run_well(
        f"""
overrides = {overrides!r}
for key in [key for key in helpers_runs.OVERRIDES if key.startswith("method.")]:
    del helpers_runs.OVERRIDES[key]
overrides |= dict(name="shards", train__parallel="fsdp")
helpers_runs.train(helpers_runs.config({str(tmp_path)!r}, **overrides), helpers_methods.Smooth)
""",
        tmp_path,
    )
    config = helpers_runs.config(tmp_path, name="alone", **overrides)
    alone = helpers_runs.final(helpers_runs.train(config, helpers_methods.Smooth))
    shards = helpers_runs.final(tmp_path / "shards")
    torch.testing.assert_close(shards["method"], alone["method"], rtol=1e-3, atol=1e-5)
