"""`estimate`: the saliency map of an image, by any of the methods, with what is known about it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from patchmill.loaders.common import calls
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.saliency.settings import GS, MC, RBD, VERSION, Learned, fingerprint

METHODS: dict[str, Callable[..., Any]] = {"rbd": RBD, "gs": GS, "mc": MC, "learned": Learned}

MAX_PIXELS = 210_000  # larger pictures are shrunk to this many: 350 superpixels of 600
MIN_WORKING_SIDE = (
    128  # pictures with a shorter side are magnified, so that superpixels have pixels
)
MIN_SIDE = 16  # no map is made of a picture with a shorter side
FLAT = 2.0  # CIELAB units; no map is made of a picture whose superpixels all differ less

LEAST_FOREGROUND, MOST_FOREGROUND = 0.02, 0.9
LEAST_CONFIDENCE = 0.5

_SPECK = np.zeros((MIN_SIDE, MIN_SIDE, 3), np.uint8)
_SPECK[5:10, 5:10] = 255


@dataclass(frozen=True)
class Saliency:
    """A map, and whether it is worth using."""

    plane: np.ndarray  # uint8 [h, w]: 0 background, 255 foreground
    foreground: float  # share of pixels that are more salient than not
    confidence: float  # 1: all is black or white; 0: all is grey
    connectivity: float | None  # RBD: superpixels' mean connectivity to the boundary
    degenerate: bool  # training should not use it
    why: str  # it is degenerate; else empty


@dataclass(frozen=True)
class Estimator:
    """Makes maps; call it from as many threads as you like."""

    method: str
    constants: Any
    fingerprint: str  # equal for estimators that give equal maps
    work: Callable[[np.ndarray], tuple[np.ndarray, float | None]]

    def __call__(self, image: np.ndarray, longest: int | None = None) -> Saliency:
        """The map of a uint8 [h, w, 3] RGB image (or [h, w, 1], or [h, w]).

        It has the image's size or, with `longest`, at most so many pixels on the longer side.
        """
        image = _rgb(image)
        height, width = _shrunk(image.shape[0], image.shape[1], longest)
        if min(image.shape[:2]) < MIN_SIDE:
            why = f"the image has a side of fewer than {MIN_SIDE} pixels"
            return Saliency(np.zeros((height, width), np.uint8), 0.0, 0.0, None, True, why)
        from patchmill.loaders.saliency.resample import resize

        plane, connectivity = self.work(image)
        plane = resize(plane[..., None], height, width)[..., 0]
        return assess_map(plane, connectivity)

    def metadata(self) -> dict[str, Any]:
        """What made a map, for the file that holds it."""
        return {
            "method": self.method,
            "version": VERSION,
            "constants": asdict(self.constants),
            "fingerprint": self.fingerprint,
        }


def estimate(image: np.ndarray, method: str = "rbd", longest: int | None = None) -> Saliency:
    """One map; see `Estimator`. `method` is a name, or one with constants: `"mc(steepness=8)"`."""
    return estimator(method)(image, longest)


@functools.lru_cache(maxsize=16)
def estimator(method: str = "rbd") -> Estimator:
    """What makes maps by this method: loads its network, or compiles what it needs."""
    constants = calls.call(method, METHODS, "saliency method")
    name, _ = calls.parse(method)
    if isinstance(constants, Learned):
        from patchmill.loaders.saliency.learned.network import opened

        network = opened(constants)
        anywhere = replace(constants, weights="", device="")
        return Estimator(name, constants, fingerprint(anywhere, network.digest), network)
    from patchmill.kernels.common.jit import announce_compilation

    work = functools.partial(by_hand, constants)
    with announce_compilation():
        work(_SPECK)
    return Estimator(name, constants, fingerprint(constants), work)


def by_hand(by: GS | MC | RBD, image: np.ndarray) -> tuple[np.ndarray, float | None]:
    """uint8 [h, w] at the working size by GS, MC or RBD, 0 in the picture's frame if it has one."""
    from patchmill.loaders.saliency import frame, resample
    from patchmill.loaders.saliency.estimators.geodesic import geodesic_saliency
    from patchmill.loaders.saliency.estimators.markov_chain import markov_chain_saliency
    from patchmill.loaders.saliency.estimators.robust_background import robust_background_saliency
    from patchmill.loaders.saliency.superpixels import lab, paint, slic
    from patchmill.loaders.saliency.superpixels.graph import build_graph

    saliency: Any = {
        GS: geodesic_saliency,
        MC: markov_chain_saliency,
        RBD: robust_background_saliency,
    }[type(by)]
    picture = resample.resize(image, *working_size(*image.shape[:2]))
    plane = np.zeros(picture.shape[:2], np.uint8)
    rows, columns = slice(0, len(picture)), slice(0, picture.shape[1])
    if by.remove_frame:
        rows, columns = frame.inside(picture, by.frame_width, by.frame_density)
    picture = np.ascontiguousarray(picture[rows, columns])
    height, width = picture.shape[:2]
    labels, count = slic.superpixels(
        lab.rgb_to_lab(picture), width, by.count(height * width), by.compactness, by.iterations
    )
    graph = build_graph(picture, labels, count)
    if graph.colour.max() < FLAT:
        return plane, None
    values, connectivity = saliency(graph, labels, by)
    paint.paint(np.rint(values * 255).astype(np.uint8), labels, plane, rows.start, columns.start)
    return plane, connectivity


def working_size(height: int, width: int) -> tuple[int, int]:
    """Height and width at which superpixels are made, of the same aspect."""
    scale = max(1.0, MIN_WORKING_SIDE / min(height, width))
    scale = min(scale, math.sqrt(MAX_PIXELS / (height * width)))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _shrunk(height: int, width: int, longest: int | None) -> tuple[int, int]:
    if longest is None or max(height, width) <= longest:
        return height, width
    scale = longest / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _rgb(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or 0 in image.shape:
        raise MillError(
            f"saliency needs a uint8 image [height, width, 3], not {image.dtype} "
            f"{list(image.shape)}: decode it to RGB"
        )
    planes = image if image.ndim == 3 else image[..., None]
    if planes.shape[2] not in (1, 3):
        raise MillError(
            f"saliency needs an image of 1 or 3 channels, not {planes.shape[2]}: convert it to RGB"
        )
    # Compiled code is made for writable, contiguous arrays; others are rare.
    return np.require(np.repeat(planes, 3 // planes.shape[2], axis=2), requirements=["C", "W"])


def assess_map(plane: np.ndarray, connectivity: float | None) -> Saliency:
    """A finished map, and what is wrong with it, if anything."""
    from patchmill.loaders.saliency.superpixels.paint import levels
    from patchmill.loaders.saliency.thresholds import ambiguity_of_histogram

    counts = levels(plane)
    foreground = float(counts[128:].sum() / plane.size)
    confidence = (5 - ambiguity_of_histogram(counts)) / 4
    why = ""
    if foreground < LEAST_FOREGROUND:
        why = f"only {foreground:.1%} of the image is foreground"
    elif foreground > MOST_FOREGROUND:
        why = f"{foreground:.1%} of the image is foreground"
    elif confidence < LEAST_CONFIDENCE:
        why = f"most of the map is neither foreground nor background (confidence {confidence:.2f})"
    return Saliency(plane, foreground, confidence, connectivity, bool(why), why)
