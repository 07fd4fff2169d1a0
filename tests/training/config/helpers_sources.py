"""Settings of every method at every scale, each under the source that its value is from.

SETTINGS[method, scale] maps a source to settings and values. OURS is a choice of this project.
RECALLED settings are from memory or from summaries of a paper: they are listed, and not compared.
Long lists of a method are in a `helpers_sources_METHOD.py` beside this file.
"""

from __future__ import annotations

from typing import Any

from patchmill.loaders.recipe import Blur, Colour, CopyPaste, Crop, Grid, Shift, Window

MOCO = "facebookresearch/moco, main_moco.py and moco/builder.py"
MOCO_DEMO = "facebookresearch/moco, its CIFAR-10 demo, a notebook"
TORCHVISION = "torchvision's default, moco/builder.py:41 and EMP-SSL's model/model.py:14"
DILO = "the example loader released with DiLo"
VICREG = "facebookresearch/vicreg, main_vicreg.py:278-299 for LARS, augmentations.py for views"
VICREG_INIT = "facebookresearch/vicreg, main_vicreg.py:189-191"
VICREG_README = "facebookresearch/vicreg, README: batch, rate and epochs"
SOLO_LEARN = "solo-learn, scripts/pretrain/cifar"
SIMCLR = "google-research/simclr, model_util.py:157-165 for the head, resnet.py for zeros"
NMCE = "zengyi-li/NMCE-release, train_selfsup.py, func.py for the warm-up"
EMP = "tsb0601/EMP-SSL, main.py, dataset/aug.py for 32 pixels and aug4img.py for 224"
EMP_README = "tsb0601/EMP-SSL, README"
STEM = "3 x 3 at stride 1: MoCo's CIFAR-10 demo, NMCE, EMP-SSL and solo-learn agree"
OURS = "ours"
RECALLED = "recalled"

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.201)
HALF = (0.5, 0.5, 0.5)
NO_BLUR = Blur(0.0)

CIFAR_STEM = {"model.name": "resnet18", "model.stem": "cifar"}
WHOLE = {"evaluate.view": "eval(size=32, short_side=32)", "views.size": 32}
DEMO = {
    "model.name": "resnet10t", "model.stem": "imagenet", "optim.warmup": 0.25,
    "train.sync_bn": False, **WHOLE,
}  # fmt: skip
ADAMW = {
    **DEMO, "optim.name": "adamw", "optim.lr": 1e-3, "optim.scaled": False,
    "optim.weight_decay": 0.01, "optim.exclude": True, "optim.per_epoch": False,
    "optim.warmup_start": None, "optim.final": 0.0, "train.epochs": 3, "train.batch_size": 64,
}  # fmt: skip
SMALL = {
    **ADAMW, "model.name": "test_resnet", "optim.lr": 3e-3, "train.epochs": 6,
    "train.batch_size": 128,
}  # fmt: skip
V1_COLOUR = {"views.colour": Colour(0.4, 0.4, 0.4, 0.4, p=1.0, grey=0.2, grey_first=True)}
HUE_VIEWS = {
    "views.count": 2, "views.crop": Crop((0.4, 1.0)), "views.blur": None, **V1_COLOUR,
    "views.interpolation": "bilinear", "views.flip": 0.5,
}  # fmt: skip

MOCO_VIEWS = {
    "views.count": 2, "views.size": 224, "views.crop": Crop((0.2, 1.0)), "views.flip": 0.5,
    "views.colour": Colour(0.4, 0.4, 0.4, 0.1, p=0.8, grey=0.2),
    "views.blur": Blur(0.5, (0.1, 2.0)), "views.solarise": 0.0, "views.interpolation": "bilinear",
}  # fmt: skip
MOCO_V2 = {
    "method.hidden": 2048, "method.dim": 128, "method.queue": 65536, "method.momentum": 0.999,
    "method.temperature": 0.2, "method.shuffle_bn": True, "method.symmetric": False,
    "method.split_bn": 0, "model.name": "resnet50",
    "optim.name": "sgd", "optim.lr": 0.03, "optim.scaled": False, "optim.momentum": 0.9,
    "optim.nesterov": False, "optim.weight_decay": 1e-4, "optim.exclude": False,
    "optim.schedule": "cosine", "optim.per_epoch": True, "optim.warmup": 0.0, "optim.final": 0.0,
    "train.epochs": 200, "train.batch_size": 256,
}  # fmt: skip
CIFAR_VIEWS = {  # of MoCo's demo, and of NMCE
    "views.count": 2, "views.crop": Crop((0.08, 1.0)), "views.flip": 0.5,
    "views.colour": Colour(0.4, 0.4, 0.4, 0.1, p=0.8, grey=0.2), "views.blur": NO_BLUR,
    "views.mean": CIFAR_MEAN, "views.std": CIFAR_STD,
}  # fmt: skip
MOCO_CIFAR = {
    "method.hidden": 0, "method.dim": 128, "method.queue": 4096, "method.momentum": 0.99,
    "method.temperature": 0.1, "method.shuffle_bn": True, "method.split_bn": 8,
    "method.symmetric": False, **CIFAR_STEM, **CIFAR_VIEWS,
    "optim.name": "sgd", "optim.lr": 0.06, "optim.scaled": False, "optim.momentum": 0.9,
    "optim.weight_decay": 5e-4, "optim.exclude": False, "optim.schedule": "cosine",
    "optim.per_epoch": True, "optim.warmup": 0.0, "train.epochs": 200, "train.batch_size": 512,
    "evaluate.k": 200, "evaluate.temperature": 0.1, "evaluate.space": "z",
}  # fmt: skip
MOCO_SMALL = {
    **SMALL, "method.hidden": 512, "method.queue": 1024, "method.momentum": 0.99,
    "method.temperature": 0.2, "method.split_bn": 4, "method.symmetric": True,
    "optim.per_epoch": True,
    **HUE_VIEWS,
}  # fmt: skip
PASTE = {"views.paste": CopyPaste(p=0.3, background="grey", blur_p=0.5, blur_sigma=5.0)}

VICREG_LARS = {
    "optim.name": "lars", "optim.lars": "vicreg", "optim.scaled": True, "optim.eta": 0.001,
    "optim.exclude": True, "optim.schedule": "cosine", "optim.warmup": 10.0, "optim.final": 0.001,
    "optim.warmup_start": None, "train.sync_bn": True,
}  # fmt: skip
VICREG_WEIGHTS = {"method.invariance": 25.0, "method.variance": 25.0, "method.covariance": 1.0}
NMCE_LARS = {
    "optim.name": "lars", "optim.lars": "wrapper", "optim.lars_clip": True, "optim.lr": 0.3,
    "optim.scaled": False, "optim.momentum": 0.9, "optim.nesterov": False, "optim.eta": 0.02,
    "optim.weight_decay": 1e-4, "optim.exclude": True,
}  # fmt: skip
NMCE_TCR = {
    "method.hidden": 4096, "method.dim": 128, "method.eps": 0.2, "method.weight": 30.0, **NMCE_LARS,
    "optim.schedule": "cosine", "optim.per_epoch": True, "optim.warmup": 10.0,
    "optim.warmup_start": 0.1, "optim.final": 0.0, "train.batch_size": 1024,
}  # fmt: skip
SOLO_LARS = {
    "optim.name": "lars", "optim.lars": "wrapper", "optim.lars_clip": True, "optim.eta": 0.02,
    "optim.weight_decay": 1e-4, "optim.exclude": True, "train.epochs": 1000,
    "train.batch_size": 256, **CIFAR_STEM,
}  # fmt: skip
EMP_VIEWS = {
    "views.flip": 0.5, "views.colour": Colour(0.4, 0.4, 0.4, 0.2, p=0.8, grey=0.2),
    "views.blur": Blur(0.1, (0.1, 2.0)), "views.solarise": 0.1, "views.mean": HALF,
    "views.std": HALF,
}  # fmt: skip
EMP_SSL = {
    "method.hidden": 4096, "method.dim": 1024, "method.eps": 0.2, "method.weight": 200.0,
    "model.name": "resnet18", "optim.name": "lars", "optim.lars": "wrapper",
    "optim.lars_clip": True, "optim.lr": 0.3, "optim.scaled": False, "optim.momentum": 0.9,
    "optim.nesterov": True, "optim.weight_decay": 1e-4, "optim.eta": 0.005, "optim.exclude": True,
    "optim.schedule": "cosine", "optim.per_epoch": False, "optim.warmup": 0.0, "optim.final": 0.0,
    "train.batch_size": 100, "views.count": 20, **EMP_VIEWS,
}  # fmt: skip
EMP_SQUARE = {"views.crop": Crop((0.25, 0.25), (1.0, 1.0))}
BAGSSL_COLOUR = {
    "views.colour": Colour(0.4, 0.4, 0.4, 0.1, p=0.8, grey=0.2), "views.mean": CIFAR_MEAN,
    "views.std": CIFAR_STD,
}  # fmt: skip
BAGSSL_TCR = {"method.objective": "tcr", "method.dim": 128}
SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    ("moco", "paper"): {MOCO: MOCO_V2 | MOCO_VIEWS, TORCHVISION: {"zero_init": False}},
    ("moco", "cifar"): {MOCO_DEMO: MOCO_CIFAR, TORCHVISION: {"zero_init": False}, OURS: WHOLE},
    ("moco", "demo"): {OURS: MOCO_SMALL, TORCHVISION: {"zero_init": False}},
    ("moco_v1", "paper"): {
        MOCO: {
            **MOCO_V2, **MOCO_VIEWS, **V1_COLOUR, "method.hidden": 0, "method.temperature": 0.07,
            "optim.schedule": "steps", "optim.milestones": [120.0, 160.0], "optim.gamma": 0.1,
            "views.blur": None,
        },
        TORCHVISION: {"zero_init": False},
    },
    ("moco_v1", "cifar"): {MOCO_DEMO: MOCO_CIFAR, TORCHVISION: {"zero_init": False}, OURS: WHOLE},
    ("moco_v1", "demo"): {
        OURS: {
            **MOCO_SMALL, "method.hidden": 0,
        },
    },
    ("dilo", "paper"): {DILO: PASTE, MOCO: MOCO_V2 | MOCO_VIEWS, TORCHVISION: {"zero_init": False}},
    ("dilo", "cifar"): {DILO: PASTE, MOCO_DEMO: MOCO_CIFAR, OURS: WHOLE},
    ("dilo", "demo"): {DILO: PASTE, OURS: MOCO_SMALL},
    ("simclr", "paper"): {
        SIMCLR: {"method.norm": True, "zero_init": True},
        OURS: {"optim.lars": "vicreg", "train.epochs": 100},
        RECALLED: [
            "method.hidden", "method.dim", "method.temperature", "model.name", "optim.name",
            "optim.lr", "optim.scaled", "optim.weight_decay", "optim.eta", "optim.warmup",
            "train.batch_size", "train.sync_bn", "views.count", "views.size", "views.colour",
            "views.blur", "views.interpolation",
        ],
    },
    ("simclr", "cifar"): {
        SOLO_LEARN: {
            **SOLO_LARS, "method.hidden": 2048, "method.dim": 256, "method.temperature": 0.2,
            "method.norm": False, "optim.lr": 0.4, "views.count": 2,
            "views.crop": Crop((0.08, 1.0)),
            "views.colour": Colour(0.8, 0.8, 0.8, 0.2, p=0.8, grey=0.2), "views.blur": Blur(0.5),
        },
        SIMCLR: {"zero_init": True},
        OURS: {**WHOLE, "optim.scaled": True, "views.interpolation": "bicubic"},
        RECALLED: ["optim.warmup"],
    },
    ("simclr", "demo"): {
        SIMCLR: {"method.norm": True, "zero_init": True},
        OURS: {
            **SMALL, **HUE_VIEWS, "method.hidden": 512, "method.temperature": 0.2,
            "optim.lars": "vicreg", "optim.eta": 0.001,
        },
    },
    ("vicreg", "paper"): {
        VICREG: {
            **VICREG_WEIGHTS, **VICREG_LARS, "method.expander": [8192, 8192, 8192],
            "optim.weight_decay": 1e-6, "views.count": 2, "views.size": 224,
            "views.crop": Crop((0.08, 1.0)), "views.interpolation": "bicubic", "views.flip": 0.5,
            "views.colour": Colour(0.4, 0.4, 0.2, 0.1, p=0.8, grey=0.2),
            "views.blur": Blur((1.0, 0.1), (0.1, 2.0)), "views.solarise": (0.0, 0.2),
        },
        VICREG_INIT: {"zero_init": True},
        VICREG_README: {"optim.lr": 0.2, "train.batch_size": 2048, "train.epochs": 1000},
    },
    ("vicreg", "cifar"): {
        SOLO_LEARN: {
            **SOLO_LARS, "method.expander": [2048, 2048, 2048], "method.invariance": 25.0,
            "method.variance": 2 * 25.0,  # theirs weighs the sum of two terms, ours their mean
            "method.covariance": 1.0, "optim.lr": 0.3, "views.count": 2,
            "views.crop": Crop((0.2, 1.0)), "views.blur": None, "views.solarise": 0.1,
            "views.colour": Colour(0.4, 0.4, 0.2, 0.1, p=0.8, grey=0.2),
        },
        VICREG_INIT: {"zero_init": True},
        OURS: {
            **WHOLE, "optim.scaled": True, "optim.final": 0.0, "views.interpolation": "bicubic",
        },
        RECALLED: ["optim.warmup"],
    },
    ("vicreg", "demo"): {
        VICREG_INIT: {"zero_init": True},
        OURS: {
            **SMALL, **HUE_VIEWS, **VICREG_WEIGHTS, "method.expander": [512, 512, 512],
            "optim.lars": "vicreg", "optim.eta": 0.001,
        },
    },
    ("tcr", "paper"): {
        NMCE: NMCE_TCR,
        OURS: {
            "zero_init": False, "model.name": "resnet50", "train.epochs": 100, "views.count": 2,
            "views.size": 224, "views.colour": Colour(0.4, 0.4, 0.4, 0.1),
            "views.blur": Blur(0.5, kernel=23), "views.interpolation": "bicubic",
        },
    },
    ("tcr", "cifar"): {
        NMCE: {**NMCE_TCR, **CIFAR_STEM, **CIFAR_VIEWS, "train.epochs": 600},
        OURS: {"zero_init": False, **WHOLE},
    },
    ("tcr", "demo"): {
        NMCE: {"method.dim": 128, "method.eps": 0.2, "method.weight": 30.0},
        OURS: {**SMALL, **HUE_VIEWS, "zero_init": False, "method.hidden": 512},
    },
    ("bagssl", "paper"): {
        VICREG: {
            **VICREG_WEIGHTS, **VICREG_LARS, "optim.weight_decay": 1e-6,
            "views.colour": Colour(0.4, 0.4, 0.2, 0.1, p=0.8, grey=0.2),
        },
        VICREG_INIT: {"zero_init": True},
        VICREG_README: {"optim.lr": 0.3, "train.batch_size": 512, "train.epochs": 100},
        SOLO_LEARN: {"method.momentum": 0.99},
        OURS: {
            "method.objective": "vicreg", "method.hidden": [8192, 8192], "method.dim": 8192,
            "method.temperature": 0.2, "model.name": "resnet50", "model.stem": "cifar",
            "views.count": 2, "views.size": 32, "views.crop": Window(256),
            "views.blur": Blur((1.0, 0.1)),
        },
    },
    ("bagssl", "cifar"): {
        NMCE: {**NMCE_LARS, "method.eps": 0.2, "method.weight": 30.0, **BAGSSL_COLOUR},
        STEM: {"model.stem": "cifar"},
        SOLO_LEARN: {"method.momentum": 0.99},
        OURS: {
            **BAGSSL_TCR, "zero_init": False, "method.hidden": [4096, 4096],
            "method.temperature": 0.2, "optim.warmup": 10.0, "optim.final": 0.0,
            "evaluate.view": "eval(size=72, short_side=72)", "views.count": 2, "views.size": 32,
        },
        RECALLED: ["model.name", "train.epochs", "train.batch_size", "views.crop"],
    },
    ("bagssl", "demo"): {
        NMCE: {
            "method.eps": 0.2, "method.weight": 30.0, "views.mean": CIFAR_MEAN,
            "views.std": CIFAR_STD,
        },
        SIMCLR: {"views.colour": Colour(0.8, 0.8, 0.8, 0.2, p=0.8, grey=0.2)},
        OURS: {
            **SMALL, "zero_init": False, "method.objective": "simclr", "method.dim": 128,
            "method.hidden": [512], "method.temperature": 0.2, "views.count": 4,
            "views.crop": Crop((0.4, 0.4), (1.0, 1.0)), "train.epochs": 4, "train.batch_size": 64,
            "optim.lars": "vicreg", "optim.eta": 0.001,
        },
    },
    ("emp_ssl", "paper"): {
        EMP: {
            **EMP_SSL, "views.size": 224, "views.crop": Crop((0.25, 0.25), (3 / 4, 4 / 3)),
            "views.interpolation": "bicubic",
        },
        EMP_README: {"train.epochs": 10},
        TORCHVISION: {"zero_init": False},
        OURS: {"evaluate.view": "eval(size=448, short_side=512)"},
    },
    ("emp_ssl", "cifar"): {
        EMP: {
            **EMP_SSL, **CIFAR_STEM, **EMP_SQUARE, "views.size": 32,
            "views.interpolation": "bilinear",
        },
        EMP_README: {"train.epochs": 30},
        TORCHVISION: {"zero_init": False},
        OURS: {"evaluate.view": "eval(size=64, short_side=64)"},
    },
    ("emp_ssl", "demo"): {
        EMP: {**EMP_VIEWS, "method.eps": 0.2, "method.weight": 200.0},
        TORCHVISION: {"zero_init": False},
        OURS: {
            **SMALL, "method.hidden": 1024, "method.dim": 256, "optim.nesterov": True,
            "optim.eta": 0.005, "train.epochs": 3, "train.batch_size": 50, "views.count": 8,
            "views.crop": Crop((0.4, 0.4), (1.0, 1.0)),
        },
    },
    ("supervised", "paper"): {
        OURS: {"zero_init": False, "optim.schedule": "cosine", "views.crop": Grid(1, 1, Crop())},
        RECALLED: [
            "model.name", "optim.lr", "optim.scaled", "optim.nesterov", "optim.exclude",
            "optim.warmup", "train.epochs", "views.size",
        ],
    },
    ("supervised", "cifar"): {
        OURS: {"zero_init": False, **WHOLE, "train.batch_size": 128},
        STEM: {"model.stem": "cifar"},
        RECALLED: [
            "model.name", "optim.lr", "optim.nesterov", "optim.weight_decay", "optim.exclude",
            "views.crop", "views.mean", "views.std",
        ],
    },
    ("supervised", "demo"): {
        OURS: {
            **DEMO, "model.name": "test_resnet", "zero_init": False, "optim.lr": 0.1,
            "optim.scaled": False, "optim.nesterov": True, "optim.weight_decay": 5e-4,
            "optim.exclude": False, "train.epochs": 12, "train.batch_size": 64,
            "views.crop": Grid(1, 1, Shift(4)),
            "views.mean": CIFAR_MEAN, "views.std": CIFAR_STD,
        },
    },
}  # fmt: skip
