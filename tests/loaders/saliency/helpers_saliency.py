"""Pictures whose foreground is known, and how well a map finds it."""

import numpy as np


def plain(height=200, width=260, seed=0, at=(0.5, 0.5), size=0.28):
    """A red disc on a faintly noisy green ground: picture and mask."""
    ys, xs = np.mgrid[:height, :width]
    short = min(height, width)
    mask = np.hypot(ys - at[0] * height, xs - at[1] * width) < size * short
    noise = np.random.default_rng(seed).normal(0, 4, (height, width, 1))
    colours = np.where(mask[..., None], (190, 60, 50), (90, 140, 80)) + noise
    return np.clip(colours, 0, 255).astype(np.uint8), mask


def separation(plane: np.ndarray, mask: np.ndarray) -> float:
    """Mean saliency of the foreground less that of the background."""
    return float((plane[mask].mean() - plane[~mask].mean()) / 255)


def mae(plane: np.ndarray, mask: np.ndarray) -> float:
    return float(abs(plane / 255 - mask).mean())


def f_measure(plane: np.ndarray, mask: np.ndarray) -> float:
    """F-measure with beta^2 = 0.3 of the map thresholded at twice its mean."""
    chosen = plane >= max(min(2 * plane.mean(), 255), 1)
    hit = float((chosen & mask).sum())
    if not hit:
        return 0.0
    precision, recall = hit / chosen.sum(), hit / mask.sum()
    return 1.3 * precision * recall / (0.3 * precision + recall)
