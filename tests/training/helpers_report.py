"""Folders of made-up runs, for tests of the report."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from PIL import Image

from patchmill.training.runtime.records import Recorder

CONFIG = """\
method_name: {method}
method: {{views: '{method}(size=64)', queue: 4096}}
scale: demo
size: 64
data: {{name: scenes, train: 'scenes(count=2000, size=64)', test: 'scenes:500'}}
model: {{name: resnet10t}}
train: {{epochs: 10, batch_size: 128}}
name: {method}-scenes-demo
"""
STEPS, EPOCH = 300, 30

KNN = {"knn": 0.713, "untrained": 0.346, "view": "eval(size=64)", "k": 20, "bank": 2000}
PROBES = {
    "protocol": "moco",
    "space": "h",
    "probes": [{"lr": 30.0, "last": 0.741, "best": 0.752}, {"lr": 3.0, "last": 0.7, "best": 0.7}],
}
COLUMNS = ("central", "1 patch", "16 patches", "64 patches", "256 patches")
PATCHES = {
    "k": 20,
    "temperature": 0.07,
    "recipes": {name: {"views": []} for name in COLUMNS},
    "columns": {
        name: {
            "h": {"knn": 0.5 + i / 20, "linear": 0.6 + i / 20, "linear_best": 0.61 + i / 20},
            "z": {"knn": 0.4 + i / 20, "linear": 0.5 + i / 20, "linear_best": 0.51 + i / 20},
        }
        for i, name in enumerate(COLUMNS)
    },
    "curve": {
        "patches": [1, 4, 16, 64, 256],
        "h_to_most": [0.61, 0.83, 0.95, 0.99, 1.0],
        "h_to_central": [0.5, 0.62, 0.71, 0.74, 0.745],
        "z_to_most": [0.4, 0.7, 0.91, 0.98, 1.0],
        "z_to_central": [0.2, 0.31, 0.4, 0.45, 0.46],
    },
    "neighbours": "neighbours.png",
}
SWAPS = ("backgrounds as they are", "of another class", "none")
RELIANCE = {
    "space": "h",
    "tests": {name: f"scenes(count=500, background={i})" for i, name in enumerate(SWAPS)},
    "scores": {
        metric: {name: value - i / 10 for i, name in enumerate(SWAPS)}
        for metric, value in (("knn", 0.713), ("linear", 0.741))
    },
    "gaps": {metric: {name: 0.1 for name in SWAPS[1:]} for metric in ("knn", "linear")},
}


def full(folder: Path, method: str = "dilo") -> Path:
    """Write a finished run with every kind of result."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(CONFIG.format(method=method))
    status = {
        "state": "done", "step": STEPS, "steps": STEPS, "epoch": 10, "time": 1.75e9, "restarts": 1,
        "host": "workshop", "machine": "2 cores", "versions": "patchmill 0.1, torch 2.8",
    }  # fmt: skip
    write(folder, status=status, knn=KNN, linear=PROBES, patches=PATCHES, reliance=RELIANCE)
    logged(folder)
    for number, name in enumerate(("views", "masks", "neighbours")):
        Image.new("RGB", (320, 120), (90, 120 + 40 * number, 140)).save(folder / f"{name}.png")
    return folder


def write(folder: Path, **files: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def logged(folder: Path, steps: int = STEPS) -> None:
    recorder = Recorder(folder, {}, tensorboard=False)
    for step in range(1, steps + 1):
        if ((step - 1) % EPOCH == 0 and (step - 1) % (2 * EPOCH) == 0) or step == steps:
            done = step if step == steps else step - 1
            knn = 0.346 + 0.367 * (1 - math.exp(-done / 90))
            recorder.evaluation(done, done / EPOCH, {"knn": knn})
        wave = math.sin(7.3 * step) + math.sin(2.9 * step)
        values = {
            "loss": 4.1 + 4.2 * math.exp(-step / 70) + 0.08 * wave,
            "accuracy": 0.6 - 0.55 * math.exp(-step / 80) + 0.02 * wave,
            "spread": 0.93 - 0.5 * math.exp(-step / 20),
            "lr": 0.03 * min(step / 30, 0.5 + 0.5 * math.cos(math.pi * max(step - 30, 0) / 270)),
            "images_per_s": 812 + 25 * wave - (400 if step == 1 else 0),
            "wait": 0.02 + 0.01 * abs(wave) + (0.4 if step == 1 else 0),
            "epoch": step / EPOCH,
            "grad_norm": 1.2 + 3 * math.exp(-step / 25) + 0.2 * wave,
        }
        recorder.scalars(step, values)
    recorder.close()
