"""stable-pretraining's SimCLR, on patchmill's views.

`StablePretrainingDataModule` takes the arguments of `loaders.build`, and yields the dicts that
stable-pretraining's forward functions and callbacks read. It replaces spt.data.DataModule and the
transforms.

Data wait in a step: 818 ms before, 78 ms after, on 2 cores
(python benchmarks/hosts.py --hosts stable-pretraining; benchmarks/results/hosts.json).

    python examples/with_stable_pretraining.py [DATA]
"""

import sys

import lightning.pytorch as pl
import stable_pretraining as spt
import torch
from stable_pretraining.forward import simclr

from patchmill.loaders.adapt import StablePretrainingDataModule

if __name__ == "__main__":
    data = sys.argv[1] if len(sys.argv) > 1 else "scenes:32"
    views = StablePretrainingDataModule(data, "simclr(size=64)", 16)
    backbone = spt.backbone.from_torchvision("resnet18")
    backbone.fc = torch.nn.Identity()
    module = spt.Module(
        forward=simclr,
        backbone=backbone,
        projector=torch.nn.Linear(512, 64),
        simclr_loss=spt.losses.NTXEntLoss(temperature=0.5),
        optim={"optimizer": {"type": "AdamW", "lr": 1e-3}},
    )
    trainer = pl.Trainer(max_steps=2, accelerator="auto", devices=1, default_root_dir="build")
    trainer.fit(module, datamodule=views)
    print(f"loss {trainer.callback_metrics['fit/loss_epoch'].item():.3f}")
