"""A good image for which there is no memory is no bad image."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from trust.faults import disk_faults, limits

from patchmill.loaders.decode.decoder import BadImage, decode

SIDE = 5000


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_a_good_image_for_which_there_is_no_memory(format: str, tmp_path: Path) -> None:
    path = tmp_path / "image"

    def write() -> str:  # in another process, which does not leave its memory to this one
        options = {"JPEG": {"progressive": True}, "PNG": {"compress_level": 1}}.get(format, {})
        Image.new("RGB", (SIDE, SIDE), "green").save(path, format, **options)
        return ""

    disk_faults.run(write)
    data = path.read_bytes()

    def decode_with_little() -> str:
        with limits.limited("AS", 4 << 20):
            _blocks = limits.fill_freed()  # of earlier tests: decoding would reuse it
            try:
                decode(data)
            except MemoryError:
                return "no memory"
            except BadImage as bad:
                return str(bad)
        return "decoded"

    assert disk_faults.run(decode_with_little).output == "no memory"


def test_a_bad_image_is_bad_with_any_amount_of_memory() -> None:
    with pytest.raises(BadImage, match="known type"):
        decode(b"no image")
