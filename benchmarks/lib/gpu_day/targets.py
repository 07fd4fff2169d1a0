"""Figures that the steps measure, and their targets."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Read = Callable[[dict[str, Any]], float | None]


@dataclass(frozen=True)
class Figure:
    """A number from a step's result, and a target that it should be above or below."""

    title: str
    step: str
    read: Read
    text: str = "{:,.0f}"
    least: float | None = None
    most: float | None = None

    def value(self, out: Path) -> float | None:
        """The number; None if the step has no result or lacks this number."""
        try:
            return self.read(json.loads((out / f"{self.step}.json").read_text()))
        except (OSError, ValueError, LookupError, TypeError):
            return None

    @property
    def target(self) -> str:
        if self.least is not None:
            return f"at least {self.text.format(self.least)}"
        return "" if self.most is None else f"at most {self.text.format(self.most)}"

    def reached(self, value: float) -> bool | None:
        """None without a target."""
        if self.least is not None:
            return value >= self.least
        return None if self.most is None else value <= self.most


def stage(name: str, key: str) -> Read:
    """A column of the renderer's stages."""
    return lambda result: _row(result["stages"], "stage", name)[key]


def row(name: str, key: str) -> Read:
    return lambda result: _row(result["rows"], "name", name)[key]


def entry(*path: str) -> Read:
    def read(result: Any) -> Any:
        for key in path:
            result = result[key]
        return result

    return read


def least_gain(result: dict[str, Any]) -> float:
    return min(each["times_eager"] for each in result["rows"])


def _row(rows: list[dict[str, Any]], key: str, name: str) -> dict[str, Any]:
    return next((each for each in rows if each[key] == name), {})


ALL, OURS, CEILING = "all launches", "patchmill", "cached batches"
WAITS = ("gpu_waits_per_step",)
SHARE, RATE = "{:.0%}", "{:,.0f}"

FIGURES: Sequence[Figure] = (
    Figure("renderer: floor over time", "renderer-time", stage(ALL, "floor_share"), SHARE, 0.4),
    Figure("renderer: µs a batch of 256", "renderer-time", stage(ALL, "us")),
    Figure(
        "renderer, resize: floor over time", "renderer-time", stage("resize", "floor_share"), SHARE
    ),
    Figure(
        "renderer, contrast: floor over time",
        "renderer-time",
        stage("contrast", "floor_share"),
        SHARE,
    ),
    Figure("renderer, blur: floor over time", "renderer-time", stage("blur", "floor_share"), SHARE),
    Figure(
        "renderer's time over decoding's, by DALI",
        "dali-rate",
        entry("views_alone", "share_of_decode_time"),
        SHARE,
        most=0.1,
    ),
    Figure(
        "renderer's time over decoding's, by the fastest decoder",
        "threads-rate",
        entry("views_alone", "share_of_decode_time"),
        SHARE,
        most=0.1,
    ),
    Figure(
        "DALI's loader over bare decoding",
        "dali-rate",
        entry("ratios", "loader / bare decode"),
        SHARE,
        0.95,
    ),
    Figure(
        "MoCo, fed by the loader over cached batches",
        "training-moco",
        row(OURS, "of_ceiling"),
        SHARE,
        0.95,
    ),
    Figure("MoCo, images/s, fed by the loader", "training-moco", row(OURS, "images_per_s")),
    Figure("MoCo, images/s, cached batches", "training-moco", row(CEILING, "images_per_s")),
    Figure("MoCo, waiting for data", "training-moco", row(OURS, "wait"), "{:.1%}"),
    Figure(
        "MoCo, calls of a step that wait for the GPU",
        "training-moco",
        entry(*WAITS),
        "{:.1f}",
        most=0.0,
    ),
    Figure(
        "ViT-S/16, fed by the loader over cached batches",
        "training-vit",
        row(OURS, "of_ceiling"),
        SHARE,
        0.95,
    ),
    # Published, of Barlow Twins with this network, views and batch on one H200, augmented there.
    Figure(
        "ViT-S/16, images/s, fed by the loader",
        "training-vit",
        row(OURS, "images_per_s"),
        RATE,
        871,
    ),
    Figure("ViT-S/16, images/s, cached batches", "training-vit", row(CEILING, "images_per_s")),
    Figure("ViT-S/16, waiting for data", "training-vit", row(OURS, "wait"), "{:.1%}"),
    Figure(
        "ViT-S/16, calls of a step that wait for the GPU",
        "training-vit",
        entry(*WAITS),
        "{:.1f}",
        most=0.0,
    ),
    Figure("images/s, pipeline of threads", "threads-rate", row("loader", "images_per_s")),
    Figure("images/s, pipeline of DALI", "dali-rate", row("loader", "images_per_s")),
    Figure("images/s, DALI's bare decoding", "dali-rate", row("decode by dali", "images_per_s")),
    Figure("other kernels: least gain over eager PyTorch", "kernels-time", least_gain, "{:.1f} x"),
    Figure("our loader over DALI's operators", "peers", row("dali", "loader_ratio"), "{:.1f} x"),
    Figure(
        "our loader over torchvision v2 on the GPU",
        "peers",
        row("torchvision-gpu", "loader_ratio"),
        "{:.1f} x",
    ),
    Figure("our loader over kornia", "peers", row("kornia", "loader_ratio"), "{:.1f} x"),
)
