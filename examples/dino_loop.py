"""DINO's training loop, as in facebookresearch/dino main_dino.py, on patchmill's views.

The line that builds `data_loader` replaces main_dino.py's transform, ImageFolder,
DistributedSampler and DataLoader; the loop is unchanged.

Data wait in a step: 1805 ms before, 94 ms after, on 2 cores
(python benchmarks/hosts.py --hosts dino; benchmarks/results/hosts.json).

    python examples/dino_loop.py [DATA]
"""

import copy
import sys

import timm
import torch
from torch.nn import functional as F

from patchmill import loaders

device = "cuda" if torch.cuda.is_available() else "cpu"
data = sys.argv[1] if len(sys.argv) > 1 else "scenes:64"
recipe = "dino(global_size=64, local_size=32, local_crops=4)"
data_loader = loaders.build(data, recipe, 16, device=device)

torch.manual_seed(0)
tiny = {"img_size": 64, "dynamic_img_size": True, "depth": 2}
student = timm.create_model("vit_tiny_patch16_224", **tiny).to(device)
teacher = copy.deepcopy(student).requires_grad_(False)
optimizer = torch.optim.AdamW(student.parameters(), 5e-4)
centre = torch.zeros(1, 1000, device=device)
for epoch in range(2):
    data_loader.sampler.set_epoch(epoch)
    for it, (images, _) in enumerate(data_loader):
        teacher_output = teacher(torch.cat(images[:2]))
        targets = F.softmax((teacher_output - centre) / 0.04, -1).chunk(2)
        student_output = torch.cat([student(torch.cat(images[:2])), student(torch.cat(images[2:]))])
        views = F.log_softmax(student_output / 0.1, -1).chunk(len(images))
        pairs = [(t, v) for i, t in enumerate(targets) for j, v in enumerate(views) if i != j]
        loss = torch.stack([-(t * v).sum(-1).mean() for t, v in pairs]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        centre = 0.9 * centre + 0.1 * teacher_output.mean(0, keepdim=True)
        for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
            old.lerp_(new.detach(), 1 - 0.996)
        print(f"epoch {epoch} [{it + 1}/{len(data_loader)}] loss {loss.item():.3f}")
