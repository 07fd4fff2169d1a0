"""`as_torch_dataset`: a loader as an IterableDataset, for code that requires torch's DataLoader.

    DataLoader(as_torch_dataset(loader), batch_size=None)

Also works with torchdata's StatefulDataLoader, whose state is then the loader's position.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

from torch.utils.data import IterableDataset, get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map

from patchmill.loaders.adapt.adapted import Adapted, check_loader
from patchmill.loaders.batch import ViewBatch
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.loader import Loader


def as_torch_dataset(loader: Loader | Adapted) -> LoaderDataset:
    """The batches of a loader, adapted or not, as an IterableDataset of whole batches.

    Use it in a DataLoader with `batch_size=None` and without workers: a loader has its own threads.
    """
    return LoaderDataset(loader)


class LoaderDataset(IterableDataset):
    """The batches of one epoch per iteration."""

    def __init__(self, loader: Loader | Adapted) -> None:
        self.loader = loader if isinstance(loader, Adapted) else check_loader(loader)

    def __iter__(self) -> Iterator[Any]:
        if get_worker_info() is not None:
            raise MillError(
                "a loader of patchmill has its own threads, and each worker process would make "
                "every batch again: use DataLoader(..., batch_size=None, num_workers=0)"
            )
        return iter(self.loader)

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int) -> None:
        self.loader.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loader.load_state_dict(state)


def _refuse(batches: list[ViewBatch], *, collate_fn_map: Any = None) -> NoReturn:
    raise MillError(
        "a loader of patchmill yields whole batches, which DataLoader would batch again: "
        "use DataLoader(..., batch_size=None)"
    )


default_collate_fn_map[ViewBatch] = _refuse
