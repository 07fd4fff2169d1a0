"""Protocols of detection: the published values, the user's, and mistakes in one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from patchmill.loaders.common.errors import MillError
from patchmill.training.evaluation.detect.protocols import PROTOCOLS, resolve
from patchmill.training.evaluation.detect.settings import Settings
from patchmill.training.optim.schedules import rates_at


def rates(name: str, images: int, steps: list[int], **settings: Any) -> list[float]:
    protocol = resolve(name, Settings(**settings), images)
    return [rates_at(protocol.optim, protocol.batch, step, protocol.total, 1).lr for step in steps]


def test_gtsa_on_coco():
    """12 epochs of 117266 images in batches of 8; drops at epochs 8 and 11."""
    protocol = resolve("coco", Settings(), 117_266)
    assert protocol.total == 175_899 and (protocol.drop_path, protocol.norm) == (0.05, False)
    assert protocol.short_sides == (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    assert (protocol.long_side, protocol.test_side, protocol.batch) == (1333, 800, 8)
    assert (protocol.optim.name, protocol.optim.weight_decay) == ("adamw", 0.05)
    epoch = 117_266 / 8
    steps = [0, 500, 1000, int(8 * epoch) - 1, int(8 * epoch) + 1, int(11 * epoch) + 1]
    expected = [0, 2.5e-5, 5e-5, 5e-5, 5e-6, 5e-7]
    assert rates("coco", 117_266, steps) == pytest.approx(expected)


def test_moco_on_voc_and_coco():
    steps = [0, 50, 100, 17_999, 18_000, 21_999, 22_000, 23_999]
    expected = [0, 0.01, 0.02, 0.02, 0.002, 0.002, 2e-4, 2e-4]
    assert rates("moco_voc", 16_551, steps) == pytest.approx(expected)
    steps = [500, 119_999, 120_000, 160_000]
    assert rates("moco_coco", 117_266, steps) == pytest.approx([0.01, 0.02, 0.002, 2e-4])
    voc, coco = (resolve(name, Settings(), 9) for name in ("moco_voc", "moco_coco"))
    assert (voc.total, coco.total, voc.batch) == (24_000, 180_000, 16)
    assert (voc.short_sides[0], coco.short_sides[0], voc.test_side) == (480, 640, 800)
    assert (voc.optim.name, voc.optim.momentum, voc.optim.weight_decay) == ("sgd", 0.9, 1e-4)
    assert voc.norm and voc.drop_path == 0


def test_every_value_can_be_set():
    settings = dict(
        iterations=50, drops=(0.5,), warmup=5, batch=3, optimiser="sgd", lr=0.5, weight_decay=0.25,
        grad_clip=2.0, drop_path=0.5, short_sides=(40,), long_side=90, test_side=48, channels=16,
        regions=4, proposals=30,
    )  # fmt: skip
    assert set(settings) | {"epochs"} == {
        key for key in vars(Settings()) if key not in ("train", "test", "train_images",
        "test_images", "protocol", "head", "freeze", "untrained", "seed", "picture")
    }  # fmt: skip
    for name in PROTOCOLS:
        protocol = resolve(name, Settings(**settings), 100)
        plain = {**vars(protocol.optim), **vars(protocol)}
        assert {**settings, "optimiser": None} == {
            **{key: plain[key] for key in settings if key != "optimiser"},
            "optimiser": None,
        }
        assert protocol.optim.name == "sgd" and protocol.total == 50
        assert rates(name, 100, [0, 5, 24, 25], **settings) == [0, 0.5, 0.5, 0.05]


def test_epochs_instead_of_iterations():
    assert resolve("demo", Settings(epochs=2, batch=10, warmup=0), 25).total == 5
    assert resolve("coco", Settings(iterations=7, warmup=0), 25).total == 7
    with pytest.raises(MillError, match="iterations= or epochs=, not both"):
        resolve("demo", Settings(epochs=2, iterations=3), 25)
    with pytest.raises(MillError, match="has no size for the training images"):
        resolve("demo", Settings(short_sides=()), 25)
    with pytest.raises(MillError, match="warmup=1000 takes all of the 7 iterations"):
        resolve("coco", Settings(iterations=7), 25)
