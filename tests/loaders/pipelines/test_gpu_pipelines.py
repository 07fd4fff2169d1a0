"""The threads pipeline with batches uploaded to a GPU."""

from __future__ import annotations

import pytest
import torch
from pipelinemaking import RECIPE, make_loader

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("channels_last", [False, True])
def test_batches_are_those_of_the_cpu(channels_last: bool) -> None:
    settings = {"dtype": torch.bfloat16, "channels_last": channels_last}
    on_cpu = make_loader(recipe=RECIPE, **settings)
    on_gpu = make_loader(recipe=RECIPE, device="cuda", **settings)
    for _ in range(2):
        for ours, theirs in zip(on_gpu, on_cpu, strict=True):
            assert torch.equal(ours.ids, theirs.ids)
            assert ours.labels.device.type == ours.geometry["local"].box.device.type == "cuda"
            assert torch.equal(ours.labels.cpu(), theirs.labels)
            for name, views in ours.views.items():
                assert views.device.type == "cuda"
                assert views.stride() == theirs.views[name].stride()
                assert torch.equal(views.cpu(), theirs.views[name])


def test_memory_that_is_being_copied_is_not_written_again() -> None:
    """With the GPU far behind, so that copies are under way while later batches are made."""
    expected = [batch.views["global"] for batch in make_loader(96, RECIPE)]
    loader, seen = make_loader(96, RECIPE, device="cuda"), []
    for batch in loader:
        torch.cuda._sleep(20_000_000)
        seen.append(batch.views["global"] + 0)
    for ours, theirs in zip(seen, expected, strict=True):
        assert torch.equal(ours.cpu(), theirs)
