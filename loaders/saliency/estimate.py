"""`estimate`: the saliency map of an image by any method, with statistics on its quality."""

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

MAX_PIXELS = 210_000  # larger images are shrunk to this: 350 superpixels of 600 pixels
MIN_WORKING_SIDE = 128  # images with a shorter side are enlarged: superpixels need pixels
MIN_SIDE = 16  # images with a shorter side get an empty, degenerate map
FLAT = 2.0  # CIELAB units: an image whose superpixels all differ by less gets an empty map

LEAST_FOREGROUND, MOST_FOREGROUND = 0.02, 0.9
LEAST_CONFIDENCE = 0.5

_WARMUP_IMAGE = np.zeros((MIN_SIDE, MIN_SIDE, 3), np.uint8)
_WARMUP_IMAGE[5:10, 5:10] = 255


@dataclass(frozen=True)
class Saliency:
    """A saliency map, with a verdict on its use for training."""

    plane: np.ndarray  # uint8 [h, w]: 0 background, 255 foreground
    foreground: float  # share of pixels of at least 128
    confidence: float  # 1: all black or white; 0: all mid-grey
    connectivity: float | None  # RBD: mean boundary connectivity of the superpixels
    degenerate: bool  # training should not use it
    why: str  # the reason if it is degenerate; else empty


@dataclass(frozen=True)
class Estimator:
    """Estimates saliency maps; safe to call from many threads."""

    method: str
    constants: Any
    fingerprint: str  # equal for estimators that give equal maps
    compute_map: Callable[[np.ndarray], tuple[np.ndarray, float | None]]

    def __call__(self, image: np.ndarray, longest: int | None = None) -> Saliency:
        """The map of a uint8 [h, w, 3] RGB image, or of a grey [h, w, 1] or [h, w] one.

        It has the image's size or, with `longest`, at most that many pixels on the longer side.
        """
        image = _to_rgb(image)
        height, width = _limit_side(image.shape[0], image.shape[1], longest)
        if min(image.shape[:2]) < MIN_SIDE:
            why = f"the image has a side of fewer than {MIN_SIDE} pixels"
            return Saliency(np.zeros((height, width), np.uint8), 0.0, 0.0, None, True, why)
        from patchmill.loaders.saliency.resample import resize

        plane, connectivity = self.compute_map(image)
        plane = resize(plane[..., None], height, width)[..., 0]
        return assess_map(plane, connectivity)

    def metadata(self) -> dict[str, Any]:
        """Metadata that identify the estimator in the file of its maps."""
        return {
            "method": self.method,
            "version": VERSION,
            "constants": asdict(self.constants),
            "fingerprint": self.fingerprint,
        }


def estimate(image: np.ndarray, method: str = "rbd", longest: int | None = None) -> Saliency:
    """The map of one image; `method` is a name, or a call with constants: `"mc(steepness=8)"`."""
    return estimator(method)(image, longest)


@functools.lru_cache(maxsize=16)
def estimator(method: str = "rbd") -> Estimator:
    """Create an estimator: load the network of a learned one, or compile the others' kernels."""
    constants = calls.call(method, METHODS, "saliency method")
    name, _ = calls.parse(method)
    if isinstance(constants, Learned):
        from patchmill.loaders.saliency.learned.network import open_network

        network = open_network(constants)
        portable = replace(constants, weights="", device="")
        return Estimator(name, constants, fingerprint(portable, network.digest), network)
    from patchmill.kernels.common.compiling import announce_compilation

    compute_map = functools.partial(superpixel_map, constants)
    with announce_compilation():
        compute_map(_WARMUP_IMAGE)
    return Estimator(name, constants, fingerprint(constants), compute_map)


def superpixel_map(constants: GS | MC | RBD, image: np.ndarray) -> tuple[np.ndarray, float | None]:
    """The map by GS, MC or RBD as uint8 [h, w] at the working size; 0 in an artificial frame."""
    from patchmill.loaders.saliency import frame, resample
    from patchmill.loaders.saliency.estimators.geodesic import geodesic_saliency
    from patchmill.loaders.saliency.estimators.markov_chain import markov_chain_saliency
    from patchmill.loaders.saliency.estimators.robust_background import robust_background_saliency
    from patchmill.loaders.saliency.superpixels import lab, slic
    from patchmill.loaders.saliency.superpixels.graph import build_graph, paint_superpixels

    saliency: Any = {
        GS: geodesic_saliency,
        MC: markov_chain_saliency,
        RBD: robust_background_saliency,
    }[type(constants)]
    image = resample.resize(image, *working_size(*image.shape[:2]))
    plane = np.zeros(image.shape[:2], np.uint8)
    rows, columns = slice(0, len(image)), slice(0, image.shape[1])
    if constants.remove_frame:
        rows, columns = frame.inside(image, constants.frame_width, constants.frame_density)
    image = np.ascontiguousarray(image[rows, columns])
    height, width = image.shape[:2]
    labels, count = slic.superpixels(
        lab.rgb_to_lab(image),
        width,
        constants.count(height * width),
        constants.compactness,
        constants.iterations,
    )
    graph = build_graph(image, labels, count)
    if graph.colour_distances.max() < FLAT:
        return plane, None
    values, connectivity = saliency(graph, labels, constants)
    levels = np.rint(values * 255).astype(np.uint8)
    paint_superpixels(levels, labels, plane, rows.start, columns.start)
    return plane, connectivity


def working_size(height: int, width: int) -> tuple[int, int]:
    """Height and width at which superpixels are computed; keeps the aspect ratio."""
    scale = max(1.0, MIN_WORKING_SIDE / min(height, width))
    scale = min(scale, math.sqrt(MAX_PIXELS / (height * width)))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _limit_side(height: int, width: int, longest: int | None) -> tuple[int, int]:
    if longest is None or max(height, width) <= longest:
        return height, width
    scale = longest / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _to_rgb(image: np.ndarray) -> np.ndarray:
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
    # The compiled code needs writable, contiguous arrays; others are rare and copied.
    return np.require(np.repeat(planes, 3 // planes.shape[2], axis=2), requirements=["C", "W"])


def assess_map(plane: np.ndarray, connectivity: float | None) -> Saliency:
    """Measure a finished map and decide whether it is degenerate."""
    from patchmill.loaders.saliency.thresholds import ambiguity_of_histogram, grey_histogram

    counts = grey_histogram(plane)
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
