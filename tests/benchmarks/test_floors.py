"""Floors count colours and grey levels, and are at chance on scenes without class colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from patchmill.benchmarks.lib import floors

HALVES = {"a": (0, 130, 255), "b": (63, 64, 191)}


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Two classes of two images each: a colour on the left, and a black right quarter."""
    for name, left in HALVES.items():
        image = np.zeros((8, 12, 3), np.uint8)
        image[:, :9] = left
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.fromarray(image).save(tmp_path / name / f"{number}.png")
    return str(tmp_path)


def test_histograms_count_colours_of_the_image_and_of_its_centre(folder: str) -> None:
    described, labels = floors.describe(folder)
    assert labels.tolist() == [0, 0, 1, 1]
    expected = torch.zeros(4, 64)
    expected[:2, 0 * 16 + 2 * 4 + 3] = expected[2:, 0 * 16 + 1 * 4 + 2] = 1
    torch.testing.assert_close(described["centre_histogram"] ** 2, expected)
    expected *= 0.75
    expected[:, 0] = 0.25
    torch.testing.assert_close(described["histogram"] ** 2, expected)


def test_six_numbers_are_means_and_deviations(folder: str) -> None:
    described, _ = floors.describe(folder)
    for row, left in zip(described["six_numbers"][::2], HALVES.values(), strict=True):
        share = torch.tensor(left) / 255
        torch.testing.assert_close(row, torch.cat([0.75 * share, share * (3 / 16) ** 0.5]))


def test_grey_pixels_are_means_of_the_image(folder: str) -> None:
    described, _ = floors.describe(folder)
    side = floors.SIDE
    first = described["grey_pixels"][0].reshape(side, side)
    assert first[:, : 3 * side // 4].mean().item() == pytest.approx(105 / 255, abs=0.01)
    assert first[:, 3 * side // 4 :].max() == 0


def test_each_floor_separates_classes_of_different_colours(folder: str) -> None:
    assert floors.knn_accuracies(folder, folder, k=2) == dict.fromkeys(floors.DESCRIPTORS, 1.0)


def test_the_majority_of_the_nearest_decides_and_the_nearest_a_tie() -> None:
    bank, labels = torch.tensor([[0.0], [1.0], [1.1], [5.0]]), torch.tensor([0, 1, 1, 2])
    queries = torch.tensor([[0.1], [4.0]])

    def accuracy(expected: list[int], k: int) -> float:
        return floors._knn_accuracy(bank, labels, queries, torch.tensor(expected), k)

    assert accuracy([1, 1], 3) == accuracy([0, 2], 2) == accuracy([0, 2], 1) == 1.0
    assert accuracy([1, 1], 9) == 1.0 and accuracy([0, 2], 3) == 0.0


def test_colours_of_scenes_reveal_their_classes_only_with_a_bias() -> None:
    def accuracies(bias: float) -> dict[str, float]:
        settings = f"size=16, objects=(1, 1), colour_bias={bias}"
        return floors.knn_accuracies(
            f"scenes(count=200, {settings})", f"scenes(count=100, seed=1, {settings})"
        )

    biased, free = accuracies(1.0), accuracies(0.0)
    assert biased["centre_histogram"] > 0.4 and biased["histogram"] > 0.3
    assert max(free[name] for name in ("six_numbers", "histogram", "centre_histogram")) < 0.2
