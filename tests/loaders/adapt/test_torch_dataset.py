"""A loader as an IterableDataset, in torch's and in torchdata's loaders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers_pipelines import make_loader
from torch.utils.data import DataLoader

from patchmill.loaders.adapt import as_torch_dataset, as_tuples
from patchmill.loaders.common.errors import MillError


def all_ids(batches: Any) -> list[list[int]]:
    return [batch.ids.tolist() for batch in batches]


def test_batches_pass_through_torchs_dataloader() -> None:
    dataset = as_torch_dataset(make_loader())
    loader: Any = DataLoader(dataset, batch_size=None)
    assert len(loader) == len(make_loader()) == 6
    assert all_ids(loader) == all_ids(make_loader())
    dataset.set_epoch(0)
    assert all_ids(loader) == all_ids(make_loader())
    for crops, labels in DataLoader(as_torch_dataset(as_tuples(make_loader())), batch_size=None):
        assert crops[0].shape == (4, 3, 8, 8) and labels.shape == (4,)


def test_worker_processes_are_refused() -> None:
    loader: Any = DataLoader(as_torch_dataset(make_loader()), batch_size=None, num_workers=1)
    with pytest.raises(MillError, match="each worker process would make every batch again"):
        next(iter(loader))


def test_batching_again_is_refused() -> None:
    with pytest.raises(MillError, match=r"use DataLoader.*batch_size=None"):
        next(iter(DataLoader(as_torch_dataset(make_loader()))))
    with pytest.raises(MillError, match="not a range"):
        as_torch_dataset(range(3))  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [0, 2, 6, 8])
def test_torchdata_resumes_where_it_was(steps: int, tmp_path: Path) -> None:
    reason = "torchdata is not installed"
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason=reason)

    def opened() -> Any:
        return stateful.StatefulDataLoader(as_torch_dataset(make_loader()), batch_size=None)

    whole = make_loader()
    expected = all_ids(whole) + all_ids(whole)
    loader = opened()
    seen = [batch for _ in range(steps // 6) for batch in all_ids(loader)]
    iterator = iter(loader)
    seen += [next(iterator).ids.tolist() for _ in range(steps % 6)]
    assert seen == expected[:steps]
    torch.save(loader.state_dict(), tmp_path / "state.pt")
    resumed = opened()
    resumed.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert all_ids(resumed) == expected[steps : 12 if steps >= 6 else 6]
