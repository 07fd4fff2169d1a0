"""Constants of each estimator: those of its authors' released code unless noted.

GS: Wei, Wen, Zhu, Sun 2012. MC: Jiang, Zhang, Lu, Yang, Yang 2013. RBD: Zhu, Liang, Wei, Sun 2014.
Lengths are in pixels at the working size (`estimate.working_size`), colour distances in CIELAB
units, positions relative to the image's height and width.

Fingerprints hash the `repr` of these classes, and mask files store their fields: the names of the
classes GS, MC, RBD and Learned and of all fields must not change.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

from patchmill.loaders.common.errors import MillError

VERSION = 1  # increase whenever the same constants give different maps

# Ranges other than 0 to a million; sigmas must not be 0, and tables must fit in memory.
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
class SlicConstants:
    """Superpixels: compactness `m` of Achanta et al. and k-means iterations; frame removal."""

    compactness: float = 20.0
    iterations: int = 10
    remove_frame: bool = True
    frame_width: int = 30  # widest frame that is searched for
    frame_density: float = 0.6  # least share of edge pixels in a frame's row or column

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
class AreaConstants(SlicConstants):
    """Superpixels of about `area` pixels, as in GS and RBD. Our addition for small images: at least
    `fewest` superpixels, as long as they have `least_area` pixels."""

    area: int = 600
    fewest: int = 200
    least_area: int = 160
    band: int = 8  # superpixels with a pixel in this outer band are boundary

    def count(self, pixels: int) -> int:
        return max(round(pixels / self.area), min(self.fewest, round(pixels / self.least_area)), 1)


@dataclass(frozen=True)
class GS(AreaConstants):
    """Geodesic saliency."""

    nearest: float = 5.0  # boundary superpixels compared with each one, per 200 superpixels
    place_weight: float = 3.0
    spread: float = 1.0  # range of differences above which boundary superpixels are excluded
    kept: float = 0.5  # largest normalised difference that counts as background
    saturated: float = 0.02  # share of superpixels with saliency 1


@dataclass(frozen=True)
class MC(SlicConstants):
    """Absorbing Markov chain."""

    superpixels: int = 250
    steepness: float = 10.0
    least_affinity: float = 1e-5
    least_degree: float = 1.1  # superpixels of lower degree are outliers
    frame_affinity: float = 13.0  # a border with less affinity to the rest is an artificial frame
    accepted: float = 2.0  # a map below this ambiguity is not reweighted
    outlier_above: float = 0.3  # outliers next to a superpixel more salient than this are salient

    def count(self, pixels: int) -> int:
        return self.superpixels


@dataclass(frozen=True)
class RBD(AreaConstants):
    """Robust background detection."""

    place_sigma: float = 0.4
    connectivity_sigma: float = 1.0
    background_from: float = 3.0  # boundary connectivity above which background is certain
    background_weight: float = 1000.0
    background_factor: float = 5.0
    smoothness: float = 0.1  # added to the weight between neighbours, whatever their colour


@dataclass(frozen=True)
class Learned:
    """A network supplied by the user (see `learned/network.py`) with input [1, 3, size, size].

    `weights` is a TorchScript program (.pt, .ts), an ONNX model (.onnx), or weights of the small
    U2-Net (.safetensors, .pth).
    """

    weights: str
    size: int = 320
    device: str = "cpu"
    normalise: bool = True  # min-max normalise the map

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 16 <= self.size <= 2048:
            raise MillError(f"size must be 16 to 2048 pixels, not {self.size!r}")
        if not isinstance(self.weights, str) or not isinstance(self.device, str):
            raise MillError(
                f"weights and device must be text, not {self.weights!r}, {self.device!r}"
            )


def fingerprint(constants: object, *more: str) -> str:
    """Hash of the version, the constants and `more`; equal for equal estimators."""
    return hashlib.sha256(repr((VERSION, constants, *more)).encode()).hexdigest()[:16]
