"""Plain PyTorch with DistributedDataParallel, on patchmill's views.

The loader takes rank and world size from torch.distributed: no DistributedSampler to write or to
forget. Save `loader.state_dict()` in a checkpoint, and training resumes in the middle of an epoch,
even with another number of ranks (and the same global batch).

Data wait in a step: 1210 ms before, 75 ms after, on 2 cores
(python benchmarks/hosts.py --hosts torchvision; benchmarks/results/hosts.json).

    python examples/plain_ddp.py [DATA]
    torchrun --nproc-per-node 2 examples/plain_ddp.py [DATA]
    srun --ntasks 2 python examples/plain_ddp.py [DATA]
"""

import os
import subprocess
import sys

import timm
import torch
from torch import distributed
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from patchmill import loaders

env = os.environ
if "RANK" not in env and "SLURM_PROCID" in env:  # started by srun
    hosts = ["scontrol", "show", "hostnames", env["SLURM_JOB_NODELIST"]]
    env["MASTER_ADDR"] = subprocess.check_output(hosts, text=True).split()[0]
    env["MASTER_PORT"] = str(20_000 + int(env["SLURM_JOB_ID"]) % 10_000)
    env["RANK"], env["WORLD_SIZE"] = env["SLURM_PROCID"], env["SLURM_NTASKS"]
    env["LOCAL_RANK"] = env["SLURM_LOCALID"]
alone = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
env |= {} if "RANK" in env else alone
on_gpu = torch.cuda.is_available()
distributed.init_process_group("nccl" if on_gpu else "gloo")
device = torch.device("cuda", int(env.get("LOCAL_RANK", 0))) if on_gpu else torch.device("cpu")

data = sys.argv[1] if len(sys.argv) > 1 else "scenes:32"
loader = loaders.build(data, "simclr(size=64)", 8, device=device)

model = DistributedDataParallel(timm.create_model("resnet18", num_classes=64).to(device))
optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
seen = []
for batch in loader:
    crops, _labels = batch
    features = F.normalize(model(torch.cat(crops)))
    similarity = (features @ features.T / 0.5).fill_diagonal_(-torch.inf)
    partners = torch.arange(len(features), device=device).roll(len(batch))
    loss = F.cross_entropy(similarity, partners)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    seen += batch.ids.tolist()
print(f"rank {distributed.get_rank()} saw images {sorted(seen)}", flush=True)
distributed.destroy_process_group()
