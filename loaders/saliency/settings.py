"""The numbers of each estimator: those of its authors' released code unless noted.

GS: Wei, Wen, Zhu, Sun 2012. MC: Jiang, Zhang, Lu, Yang, Yang 2013. RBD: Zhu, Liang, Wei, Sun 2014.
Lengths are in pixels of the working picture (`maps.working_size`), colour distances in CIELAB
units, places in shares of the picture's height and width.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

from patchmill.loaders.common.errors import MillError

VERSION = 1  # raised whenever the same constants give other maps

# Where something else than 0 to a million is meant; sigmas must not be 0, and tables must fit.
_BOUNDS = {
    "compactness": (1e-3, 1e3),
    "iterations": (1, 100),
    "area": (100, 10**6),
    "fewest": (1, 2000),
    "least_area": (16, 10**6),
    "superpixels": (10, 2000),
    "place_sigma": (1e-3, 1e3),
    "connectivity_sigma": (1e-3, 1e3),
    "smoothness": (1e-6, 1e3),
    "saturated": (0, 1),
}


@dataclass(frozen=True)
class Slic:
    """Superpixels: compactness `m` of Achanta et al., and rounds of k-means."""

    compactness: float = 20.0
    iterations: int = 10
    remove_frame: bool = True
    frame_width: int = 30  # a frame is looked for this far from each side
    frame_density: float = 0.6  # share of a row or column that edge pixels of a frame cover

    def __post_init__(self) -> None:
        for field in fields(self):
            value, low, high = getattr(self, field.name), *_BOUNDS.get(field.name, (0, 1e6))
            wanted = type(field.default)
            if wanted is float and type(value) is int:
                object.__setattr__(self, field.name, float(value))
            elif type(value) is not wanted:
                raise MillError(f"{field.name} must be of type {wanted.__name__}, not {value!r}")
            if wanted is not bool and not low <= value <= high:
                raise MillError(f"{field.name} must be {low:g} to {high:g}, not {value!r}")


@dataclass(frozen=True)
class Cells(Slic):
    """About `area` pixels a superpixel, as GS and RBD have it. Ours, for small pictures: at least
    `fewest` superpixels, while they have `least_area` pixels."""

    area: int = 600
    fewest: int = 200
    least_area: int = 160
    band: int = 8  # what has a pixel in this outer band is boundary

    def count(self, pixels: int) -> int:
        return max(round(pixels / self.area), min(self.fewest, round(pixels / self.least_area)), 1)


@dataclass(frozen=True)
class GS(Cells):
    """Geodesic saliency."""

    nearest: float = 5.0  # boundary pieces that one is compared with, of 200 superpixels
    place_weight: float = 3.0
    spread: float = 1.0  # of the comparisons, beyond which some boundary pieces are left out
    kept: float = 0.5  # the normalised comparison up to which a piece is background
    saturated: float = 0.02  # share of superpixels that are wholly salient


@dataclass(frozen=True)
class MC(Slic):
    """Absorbing Markov chain."""

    superpixels: int = 250
    steepness: float = 10.0
    least_affinity: float = 1e-5
    least_degree: float = 1.1  # what is tied less to the others is an outlier
    frame_affinity: float = 13.0  # a border that is tied less to the rest is an artificial frame
    accepted: float = 2.0  # score of the map below which it is not weighted anew
    outlier_above: float = 0.3  # an outlier beside something more salient than this is salient

    def count(self, pixels: int) -> int:
        return self.superpixels


@dataclass(frozen=True)
class RBD(Cells):
    """Robust background detection."""

    place_sigma: float = 0.4
    connectivity_sigma: float = 1.0
    background_from: float = 3.0  # connectivity beyond which a superpixel is certainly background
    background_weight: float = 1000.0
    background_factor: float = 5.0
    smoothness: float = 0.1  # added between neighbours of whatever colour


@dataclass(frozen=True)
class Learned:
    """A network of the user's (see `learned.py`); `size` is the side of the square it sees.

    `weights` is a TorchScript program (.pt, .ts), an ONNX model (.onnx), or weights of the small
    U2-Net (.safetensors, .pth).
    """

    weights: str
    size: int = 320
    device: str = "cpu"
    normalise: bool = True  # the map's own least and largest values become 0 and 1

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 16 <= self.size <= 2048:
            raise MillError(f"size must be 16 to 2048 pixels, not {self.size!r}")
        if not isinstance(self.weights, str) or not isinstance(self.device, str):
            raise MillError(
                f"weights and device must be text, not {self.weights!r}, {self.device!r}"
            )


def fingerprint(constants: object, *more: str) -> str:
    """Equal for equal estimators of this version."""
    return hashlib.sha256(repr((VERSION, constants, *more)).encode()).hexdigest()[:16]
