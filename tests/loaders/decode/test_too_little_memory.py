"""A good image for which there is no memory is no bad image."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from trust.faults import disk_faults, limits

from patchmill.loaders.decode.decoder import BadImage, decode

SIDE = 2500
PIXELS = np.arange(SIDE, dtype=np.uint16).astype(np.uint8)[:, None, None]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("megabytes", [2, 12, 30])
def test_a_good_image_is_decoded_or_there_is_no_memory(format: str, megabytes: int) -> None:
    file = io.BytesIO()
    image = Image.fromarray(np.broadcast_to(PIXELS, (SIDE, SIDE, 3)).copy())
    image.save(file, format, **({"progressive": True} if format == "JPEG" else {}))

    def decode_with_little() -> str:
        with limits.limited("AS", megabytes << 20):
            try:
                decode(file.getvalue())
            except MemoryError:
                return "no memory"
            except BadImage as bad:
                return str(bad)
        return "decoded"

    del image
    assert disk_faults.run(decode_with_little).told in ("no memory", "decoded")


def test_a_bad_image_is_one_however_much_memory_there_is() -> None:
    with pytest.raises(BadImage, match="known type"):
        decode(b"no image")
