"""Thumbnails of what can be decoded of bad samples."""

from __future__ import annotations

import io
import warnings

from PIL import Image, ImageFile

from patchmill.loaders.common.errors import MillError
from patchmill.training.watch.drawings import Drawings
from patchmill.training.watch.shelf import Run

SIDE = 192  # pixels
MOST_PIXELS = 50_000_000

# Sent instead of a missing thumbnail, which would be an error in the page's console.
NOTHING = b"""<svg xmlns="http://www.w3.org/2000/svg" width="96" height="72" viewBox="0 0 96 72">
<rect width="96" height="72" fill="#8884"/>
<path d="M34 24l28 28m0-28l-28 28" stroke="#888" stroke-width="3"/></svg>"""


def thumbnail(drawings: Drawings, run: Run, id: int) -> bytes | None:
    """A JPEG of a sample in the run's ledger; None if nothing of it can be decoded."""
    if not any(entry["id"] == id for entry in run.ledger):
        return None
    try:
        data = drawings.encoded(run, id)
    except (MillError, OSError):
        return None
    with drawings.turn():  # no other image is decoded at the same time
        return decode_part(data)


def decode_part(data: bytes) -> bytes | None:
    """A JPEG of as much of an image as can be decoded; None if nothing can."""
    out = io.BytesIO()
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data))
            if image.width * image.height > MOST_PIXELS:
                return None
            image.draft("RGB", (SIDE, SIDE))
            image.thumbnail((SIDE, SIDE))
            if not image.getbbox():  # all black
                return None
            image.convert("RGB").save(out, "JPEG", quality=85)
    except Exception:  # PIL's decoders raise anything on broken bytes
        return None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
    return out.getvalue()
