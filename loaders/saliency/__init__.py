"""Saliency maps that separate foreground from background, for copy-paste.

    from patchmill.loaders import saliency

    found = saliency.estimate(image, "rbd")  # uint8 [h, w, 3] in; "rbd", "gs", "mc", "learned(...)"
    found.plane, found.foreground, found.confidence, found.degenerate, found.why

For many images, `estimator("rbd")` returns a callable that is safe to use from many threads; its
`metadata()` identifies what made the maps. Images of more than 210 000 pixels are shrunk to that.
"""

from patchmill.loaders.saliency.estimate import METHODS, Estimator, Saliency, estimate, estimator
from patchmill.loaders.saliency.settings import GS, MC, RBD, VERSION, Learned

__all__ = [
    "GS",
    "MC",
    "METHODS",
    "RBD",
    "VERSION",
    "Estimator",
    "Learned",
    "Saliency",
    "estimate",
    "estimator",
]
