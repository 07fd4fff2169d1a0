"""Settings of BYOL at every scale, each under the source that its value is from."""

from __future__ import annotations

from typing import Any

from helpers_sources import HUE_VIEWS, OURS, RECALLED, SMALL, SOLO_LARS, SOLO_LEARN, WHOLE

from patchmill.loaders.recipe import Blur, Colour, Crop

BYOL = "google-deepmind/deepmind-research, byol/configs/byol.py for 1000 epochs, and byol/utils"
BYOL_README = "google-deepmind/deepmind-research, byol/README.md"

SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    ("byol", "paper"): {
        BYOL: {
            "method.hidden": 4096, "method.dim": 256, "method.momentum": 0.996,
            "optim.name": "lars", "optim.lars": "vicreg", "optim.lr": 0.2, "optim.scaled": True,
            "optim.momentum": 0.9, "optim.nesterov": False, "optim.weight_decay": 1.5e-6,
            "optim.exclude": True, "optim.eta": 0.001, "optim.schedule": "cosine",
            "optim.per_epoch": False, "optim.warmup": 10.0, "optim.final": 0.0,
            "train.epochs": 1000, "train.sync_bn": True,
            "views.colour": Colour(0.4, 0.4, 0.2, 0.1, p=0.8, grey=0.2), "views.flip": 0.5,
            "views.blur": Blur((1.0, 0.1), (0.1, 2.0)), "views.solarise": (0.0, 0.2),
            "views.count": 2, "views.size": 224, "views.crop": Crop((0.08, 1.0)),
            "views.interpolation": "bicubic",
        },
        BYOL_README: {"zero_init": False, "model.name": "resnet50", "train.batch_size": 4096},
    },
    ("byol", "cifar"): {
        SOLO_LEARN: {
            **SOLO_LARS, "method.hidden": 4096, "method.dim": 256, "method.momentum": 0.99,
            "optim.lr": 1.0, "optim.weight_decay": 1e-5, "views.count": 2,
            "views.crop": Crop((0.08, 1.0)), "views.blur": None, "views.solarise": (0.0, 0.2),
            "views.colour": Colour(0.4, 0.4, 0.2, 0.1, p=0.8, grey=0.2), "views.flip": 0.5,
        },
        BYOL_README: {"zero_init": False},
        OURS: {**WHOLE, "optim.scaled": True, "views.interpolation": "bicubic"},
        RECALLED: ["optim.warmup"],
    },
    ("byol", "demo"): {
        BYOL_README: {"zero_init": False},
        OURS: {
            **SMALL, **HUE_VIEWS, "method.hidden": 512, "method.dim": 128, "method.momentum": 0.99,
            "optim.lars": "vicreg", "optim.eta": 0.001,
        },
    },
}  # fmt: skip
