"""Settings of LeJEPA at every scale, each under the source that its value is from."""

from __future__ import annotations

from typing import Any

from helpers_sources import CIFAR_STEM, HUE_VIEWS, NO_BLUR, OURS, RECALLED, SMALL, WHOLE

from patchmill.loaders.recipe import Blur, Colour, Crop

LEJEPA = "rbalestr-lab/lejepa, README"
LEJEPA_MINIMAL = "rbalestr-lab/lejepa, MINIMAL.md"
LEJEPA_SCRIPTS = "rbalestr-lab/lejepa, the training scripts"

LEJEPA_COLOUR = {
    "colour": Colour(0.4, 0.4, 0.2, 0.1, p=0.8, grey=0.2), "solarise": 0.2, "flip": 0.5,
}  # fmt: skip
LEJEPA_VIEWS = LEJEPA_COLOUR | {"blur": Blur(0.5)}


def of(group: str, rows: dict[str, Any]) -> dict[str, Any]:
    """Rows about a view group."""
    return {f"{group}.{name}": value for name, value in rows.items()}


SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    ("lejepa", "paper"): {
        LEJEPA: {
            "method.directions": 1024, "optim.name": "adamw", "optim.lr": 5e-4,
            "optim.scaled": False, "optim.weight_decay": 0.05, "optim.schedule": "cosine",
            "optim.per_epoch": False, "optim.final": 0.001, "train.epochs": 100,
            **of("global", {
                **LEJEPA_VIEWS, "count": 2, "size": 224, "crop": Crop((0.3, 1.0)),
            }),
            **of("local", {
                **LEJEPA_VIEWS, "count": 6, "size": 98, "crop": Crop((0.05, 0.3)),
            }),
        },
        LEJEPA_SCRIPTS: {"method.weight": 0.05},
        LEJEPA_MINIMAL: {
            "method.hidden": [2048, 2048], "method.dim": 128, "model.drop_path": 0.1,
            "optim.exclude": False,
        },
        OURS: {"zero_init": False, "optim.warmup": 10.0, "train.batch_size": 512},
        RECALLED: ["model.name"],
    },
    ("lejepa", "cifar"): {
        LEJEPA_MINIMAL: {
            "method.hidden": [2048, 2048], "method.dim": 16, "method.weight": 0.02,
            "method.directions": 256, "optim.name": "adamw", "optim.lr": 2e-3,
            "optim.exclude": False, "optim.warmup": 1.0, "train.epochs": 800,
            "train.batch_size": 256, "views.count": 4, "views.crop": Crop((0.08, 1.0)),
        },
        LEJEPA: {
            "optim.weight_decay": 5e-4, "optim.schedule": "cosine", "optim.final": 0.001,
            **of("views", LEJEPA_COLOUR),
        },
        OURS: {**CIFAR_STEM, **WHOLE, "zero_init": False, "views.blur": NO_BLUR},
    },
    ("lejepa", "demo"): {
        LEJEPA_SCRIPTS: {"method.weight": 0.05},
        OURS: {
            **SMALL, **HUE_VIEWS, "zero_init": False,
            "method.hidden": [512], "method.dim": 32, "method.directions": 256,
        },
    },
}  # fmt: skip
