"""SimCLR in plain Lightning, on patchmill's views.

`LightningDataModule` takes the arguments of `loaders.build`. It builds the loader once Lightning
has set up its ranks, on the GPU that Lightning trains on; `fit(ckpt_path=...)` resumes in the
middle of an epoch.

Data wait in a step: 1210 ms before, 75 ms after, on 2 cores
(python benchmarks/hosts.py --hosts torchvision; benchmarks/results/hosts.json).

    python examples/with_lightning.py [DATA] [DEVICES]
"""

import sys

import lightning.pytorch as pl
import timm
import torch
from torch.nn import functional as F

from patchmill.loaders.adapt import LightningDataModule


class SimCLR(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = timm.create_model("resnet18", num_classes=64)
        self.seen: list[int] = []

    def training_step(self, batch, _):
        crops, _labels = batch
        self.seen += batch.ids.tolist()
        features = F.normalize(self.net(torch.cat(crops)))
        similarity = (features @ features.T / 0.5).fill_diagonal_(-torch.inf)
        partners = torch.arange(len(features), device=self.device).roll(len(batch))
        return F.cross_entropy(similarity, partners)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-3)

    def on_train_epoch_end(self):
        print(f"rank {self.global_rank} saw images {sorted(self.seen)}", flush=True)
        self.seen.clear()


if __name__ == "__main__":
    data = sys.argv[1] if len(sys.argv) > 1 else "scenes:32"
    devices = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    trainer = pl.Trainer(
        max_epochs=1, accelerator="auto", devices=devices, default_root_dir="build"
    )
    trainer.fit(SimCLR(), datamodule=LightningDataModule(data, "simclr(size=64)", 8))
