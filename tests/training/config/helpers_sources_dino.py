"""Settings of DINO and GTSA at every scale, each under the source that its value is from."""

from __future__ import annotations

from typing import Any

from helpers_sources import CIFAR_STEM, DEMO, OURS, RECALLED, SOLO_LEARN
from helpers_sources_lejepa import of

from patchmill.loaders.recipe import Blur, Colour, Crop

DINO = "facebookresearch/dino, main_dino.py and its flags' defaults"
DINO_README = "facebookresearch/dino, README: 100 epochs of ViT-S/16 with a batch of 512"
DINO_RESNET = "facebookresearch/dino, README: the command for ResNet-50"
GTSA = "bok3948/GTSA, c0dfe2b: gtsa.py, the pre-training script, lr_sched.py:10"

HEAD = {
    "method.hidden": 2048, "method.dim": 256, "method.norm": False, "method.prototypes": 65536,
    "method.fixed_gain": True, "method.freeze": 1.0, "method.temperature": 0.1,
    "method.teacher_temperature": 0.04, "method.first_temperature": 0.04,
    "method.warmup_temperature": 0, "method.centre_momentum": 0.9, "method.momentum": 0.996,
}  # fmt: skip
SCHEDULE = {  # which GTSA took over
    "optim.name": "adamw", "optim.lr": 5e-4, "optim.scaled": True, "optim.weight_decay": 0.04,
    "optim.weight_decay_end": 0.4, "optim.exclude": True, "optim.schedule": "cosine",
    "optim.per_epoch": False, "optim.warmup": 10.0, "optim.warmup_end": True,
    "optim.min_lr": 1e-6, "optim.clip_each": 3.0, "optim.grad_clip": None,
}  # fmt: skip
CROPS = {
    "colour": Colour(0.4, 0.4, 0.2, 0.1, p=0.8, grey=0.2), "flip": 0.5,
    "interpolation": "bicubic", "turns": False,
}  # fmt: skip
GLOBAL = {
    **CROPS, "count": 2, "size": 224, "blur": Blur((1.0, 0.1), (0.1, 2.0)), "solarise": (0.0, 0.2),
}  # fmt: skip
LOCAL = {**CROPS, "count": 8, "size": 96, "blur": Blur(0.5, (0.1, 2.0)), "solarise": 0.0}
TURNED = {
    "colour": Colour(0.8, 0.8, 0.8, 0.2, p=0.8, grey=0.2), "flip": 0.0, "turns": True,
    "blur": Blur(0.2, (0.1, 2.0)), "solarise": 0.0, "interpolation": "bilinear",
}  # fmt: skip

MILD = {name: value for name, value in TURNED.items() if name != "colour"}
MILD_COLOUR = Colour(0.8 * 0.4, 0.8 * 0.4, 0.8 * 0.4, 0.2 * 0.4)

SOLO_DINO = {
    "method.prototypes": 4096, "method.momentum": 0.9995, "optim.name": "lars",
    "optim.lars": "wrapper", "optim.lars_clip": True, "optim.lr": 0.3, "optim.eta": 0.02,
    "optim.weight_decay": 1e-6, "optim.weight_decay_end": None, "optim.clip_each": None,
    "optim.min_lr": None, **CIFAR_STEM,
}  # fmt: skip
DINO_CIFAR: dict[str, Any] = {
    SOLO_LEARN: SOLO_DINO,
    DINO: {
        **of("views", CROPS), "views.blur": Blur((1.0, 0.1)), "views.solarise": (0.0, 0.2),
    },
    OURS: {
        "views.count": 2, "views.size": 32, "views.crop": Crop((0.08, 1.0)), "zero_init": False,
        "evaluate.view": "eval(size=32, short_side=32)", "optim.scaled": True,
        "optim.momentum": 0.9,
    },
    RECALLED: ["train.epochs", "train.batch_size", "optim.warmup", "model.positions"],
}  # fmt: skip
DINO_DEMO: dict[str, Any] = {
    DINO: {
        "method.temperature": 0.1, "method.teacher_temperature": 0.04,
        "method.first_temperature": 0.04, "method.centre_momentum": 0.9, "method.freeze": 1.0,
        "optim.exclude": True, "optim.schedule": "cosine", "optim.warmup_end": True,
        **of("global", {**CROPS, "count": 2}), **of("local", CROPS),
    },
    OURS: {
        **{name: value for name, value in DEMO.items() if name != "views.size"},
        "method.hidden": 512, "method.dim": 128, "method.norm": True, "method.prototypes": 512,
        "method.momentum": 0.99, "model.drop_path": 0.0, "optim.name": "adamw",
        "optim.scaled": False, "optim.lr": 1e-3, "optim.weight_decay": 0.01,
        "optim.weight_decay_end": None, "optim.clip_each": None, "optim.min_lr": None,
        "train.epochs": 5, "train.batch_size": 64, "global.crop": Crop((0.25, 1.0)),
        "local.crop": Crop((0.1, 0.4)), "global.size": 32, "local.size": 16, "local.count": 4,
        "global.blur": Blur((0.0, 0.0)), "local.blur": Blur(0.0), "global.solarise": (0.0, 0.0),
        "zero_init": False,
    },
    RECALLED: ["model.positions"],
}  # fmt: skip
GTSA_LOSSES = {
    "method.crop": 1.0, "method.match": 0.5, "method.rotation": 0.5,
    "method.first_residual": True,
}  # fmt: skip

SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    ("dino", "paper"): {
        DINO: {
            **HEAD, **SCHEDULE, "model.drop_path": 0.1, "model.positions": "dino",
            "model.name": "vit_small_patch16_224", "model.pool": "token",
            **of("global", {**GLOBAL, "crop": Crop((0.4, 1.0))}),
            **of("local", {**LOCAL, "crop": Crop((0.05, 0.4))}),
            "evaluate.encoder": "auto", "zero_init": False,
        },
        DINO_README: {"train.epochs": 100, "train.batch_size": 512},
    },
    ("dino", "cifar"): DINO_CIFAR,
    ("dino", "demo"): DINO_DEMO,
    ("dino_resnet", "paper"): {
        DINO: {
            **HEAD, **{name: value for name, value in SCHEDULE.items() if name not in (
                "optim.name", "optim.lr", "optim.weight_decay", "optim.weight_decay_end",
            )},
            **of("global", GLOBAL), **of("local", LOCAL), "zero_init": False,
        },
        DINO_RESNET: {
            "model.name": "resnet50", "model.drop_path": 0.0, "optim.name": "sgd",
            "optim.lr": 0.03, "optim.momentum": 0.9, "optim.weight_decay": 1e-4,
            "optim.weight_decay_end": 1e-4, "global.crop": Crop((0.14, 1.0)),
            "local.crop": Crop((0.05, 0.14)),
        },
        DINO_README: {"train.epochs": 100, "train.batch_size": 512},
    },
    ("dino_resnet", "cifar"): DINO_CIFAR,
    ("dino_resnet", "demo"): DINO_DEMO,
    ("gtsa", "paper"): {
        GTSA: {
            **GTSA_LOSSES, **SCHEDULE, "method.dim": 768, "method.bins": [10, 4],
            "method.match_after": 10, "method.momentum": 0.996,
            "model.name": "vit_small_patch16_224", "model.drop_path": 0.1,
            "model.positions": "dino", "train.epochs": 100, "train.batch_size": 512,
            **of("global", {
                **TURNED, "count": 2, "size": 224, "crop": Crop((0.3, 1.0), min_overlap=0.02),
            }),
            **of("local", {
                **TURNED, "count": 8, "size": 96, "crop": Crop((0.1, 0.3), min_overlap=0.01),
            }),
        },
        OURS: {"model.pool": "mean", "evaluate.encoder": "auto", "zero_init": False},
    },
    ("gtsa", "cifar"): {
        GTSA: {
            **GTSA_LOSSES, **SCHEDULE, "method.match_after": 10, "method.momentum": 0.996,
            "model.drop_path": 0.1, "model.positions": "dino",
            **of("global", {**TURNED, "count": 2, "crop": Crop((0.3, 1.0), min_overlap=0.02)}),
            **of("local", {**TURNED, "count": 8, "crop": Crop((0.1, 0.3), min_overlap=0.01)}),
        },
        OURS: {
            "method.dim": 384, "method.bins": [6, 3], "model.name": "vit_tiny_patch16_224",
            "model.pool": "mean", "global.size": 32, "local.size": 16, "train.epochs": 200,
            "train.batch_size": 512, "evaluate.view": "eval(size=32, short_side=32)",
            "zero_init": False,
        },
    },
    ("gtsa", "demo"): {
        GTSA: {
            **GTSA_LOSSES, "model.positions": "dino", "optim.name": "adamw", "optim.exclude": True,
            "optim.schedule": "cosine", "optim.warmup_end": True, "optim.clip_each": 3.0,
            **of("global", {**MILD, "count": 2, "crop": Crop((0.3, 1.0), min_overlap=0.02)}),
            **of("local", {**MILD, "crop": Crop((0.1, 0.3), min_overlap=0.01)}),
        },
        OURS: {
            "method.dim": 128, "method.bins": [2, 2], "method.match_after": 0,
            "method.momentum": 0.95, "model.name": "test_resnet", "model.stem": "imagenet",
            "model.drop_path": 0.0, "model.pool": "mean", "global.size": 64, "local.size": 48,
            "local.count": 2, "global.colour": MILD_COLOUR, "local.colour": MILD_COLOUR,
            "optim.scaled": False, "optim.lr": 3e-3, "optim.weight_decay": 0.04,
            "optim.weight_decay_end": 0.04, "optim.warmup": 0.25, "optim.min_lr": 0.0,
            "train.epochs": 3, "train.batch_size": 32,
            "evaluate.view": "eval(size=32, short_side=32)", "zero_init": False,
        },
    },
}  # fmt: skip
