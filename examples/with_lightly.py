"""lightly's SimCLR, with its loss and head, on patchmill's views.

`as_lightly` yields what lightly's datasets do: the list of views, labels and filenames. It replaces
LightlyDataset, SimCLRTransform and DataLoader.

Data wait in a step: 948 ms before, 114 ms after, on 2 cores
(python benchmarks/hosts.py --hosts lightly; benchmarks/results/hosts.json).

    python examples/with_lightly.py [DATA]
"""

import sys

import timm
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead

from patchmill import loaders
from patchmill.loaders.adapt import as_lightly

device = "cuda" if torch.cuda.is_available() else "cpu"
data = sys.argv[1] if len(sys.argv) > 1 else "scenes:32"
dataloader = as_lightly(loaders.build(data, "simclr(size=64)", 16, device=device))

backbone = timm.create_model("resnet18", num_classes=0).to(device)
head = SimCLRProjectionHead(512, 512, 64).to(device)
criterion = NTXentLoss()
optimizer = torch.optim.SGD([*backbone.parameters(), *head.parameters()], lr=0.06)
for epoch in range(2):
    for (x0, x1), _targets, _filenames in dataloader:
        loss = criterion(head(backbone(x0)), head(backbone(x1)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(f"epoch {epoch} loss {loss.item():.3f}")
