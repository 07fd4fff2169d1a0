"""`SamplerFace`: a loader's sample order, with the interface of torch's DistributedSampler."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patchmill.loaders.loader import Loader


class SamplerFace:
    """Attributes of torch's DistributedSampler, for `loader.sampler.set_epoch(epoch)` and logs."""

    shuffle = True

    def __init__(self, loader: Loader, rank: int, num_replicas: int) -> None:
        self._loader, self.rank, self.num_replicas = loader, rank, num_replicas

    @property
    def epoch(self) -> int:
        return self._loader.epoch

    @property
    def seed(self) -> int:
        return self._loader.seed

    @property
    def drop_last(self) -> bool:
        return self._loader.drop_last

    def set_epoch(self, epoch: int) -> None:
        self._loader.set_epoch(epoch)

    def __len__(self) -> int:
        """Samples per epoch of this rank, counting an incomplete last batch as full."""
        return len(self._loader) * self._loader.batch_size
