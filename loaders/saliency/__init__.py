"""What of an image is foreground: maps for copy-paste, made by hand or by a network.

    from patchmill.loaders import saliency

    found = saliency.estimate(image, "rbd")  # uint8 [h, w, 3] in; "rbd", "gs", "mc", "learned(...)"
    found.plane, found.foreground, found.confidence, found.degenerate, found.why

`estimator("rbd")` makes many: it may be called from many threads at once, and its `metadata()` says
what made the maps. Pictures of more than 210 000 pixels are worked on at that size.
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
