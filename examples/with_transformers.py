"""Hugging Face's MAE in Hugging Face's Trainer, on patchmill's views.

`LoaderTrainer` is a `transformers.Trainer` that takes a loader instead of a dataset: Accelerate
does not shard it again, and `resume_from_checkpoint` resumes instantly in the middle of an epoch.

Data wait in a step: 150 ms before, 32 ms after, on 2 cores
(python benchmarks/hosts.py --hosts transformers; benchmarks/results/hosts.json).

    python examples/with_transformers.py [DATA]
"""

import sys

import torch
from transformers import TrainingArguments, ViTMAEConfig, ViTMAEForPreTraining

from patchmill import loaders
from patchmill.loaders import Crop, Recipe, Views
from patchmill.loaders.adapt import LoaderTrainer, as_transformers

device = "cuda" if torch.cuda.is_available() else "cpu"
data = sys.argv[1] if len(sys.argv) > 1 else "scenes:32"
mae = Recipe((Views("view", 1, 64, Crop((0.2, 1.0)), interpolation="bicubic"),), name="mae")
loader = as_transformers(loaders.build(data, mae, 8, device=device))

small = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
decoder = {"decoder_hidden_size": 32, "decoder_num_hidden_layers": 1}
heads = {"decoder_num_attention_heads": 4, "decoder_intermediate_size": 64}
model = ViTMAEForPreTraining(ViTMAEConfig(image_size=64, **small, **decoder, **heads))
arguments = TrainingArguments(
    "build/mae", num_train_epochs=1, per_device_train_batch_size=8, logging_steps=1, report_to=[]
)
LoaderTrainer(model, arguments, loader=loader).train()
