"""The loop of timm's train.py, with Mixup, on patchmill's views.

`as_timm` has the interface of timm's own loader: `(input, target)`, `len`, `sampler.set_epoch`,
`mixup_enabled`. It replaces create_dataset, create_loader and create_transform.

Data wait in a step: 273 ms before, 46 ms after, on 2 cores
(python benchmarks/hosts.py --hosts timm; benchmarks/results/hosts.json).

    python examples/with_timm.py [DATA]
"""

import sys

import timm
import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler

from patchmill import loaders
from patchmill.loaders import Colour, Recipe, Views
from patchmill.loaders.adapt import as_timm

device = "cuda" if torch.cuda.is_available() else "cpu"
data = sys.argv[1] if len(sys.argv) > 1 else "scenes:32"
jitter = Colour(0.4, 0.4, 0.4, p=1.0, grey=0.0)  # train.py's defaults
view = Views("view", 1, 64, colour=jitter, interpolation="bicubic")
imagenet = Recipe((view,), name="imagenet")
mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=10)
loader_train = as_timm(loaders.build(data, imagenet, 16, device=device), mixup)

model = timm.create_model("resnet18", num_classes=10).to(device)
train_loss_fn = SoftTargetCrossEntropy()
optimizer = create_optimizer_v2(model, "adamw", lr=1e-3)
lr_scheduler = CosineLRScheduler(optimizer, 2 * len(loader_train), t_in_epochs=False)
num_updates = 0
for epoch in range(2):
    loader_train.sampler.set_epoch(epoch)
    for input, target in loader_train:
        loss = train_loss_fn(model(input), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        num_updates += 1
        lr_scheduler.step_update(num_updates)
    print(f"epoch {epoch} loss {loss.item():.3f}")
