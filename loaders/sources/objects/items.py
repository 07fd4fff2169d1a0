"""Images and labels in the items of a data set, and raw pixels as bytes that decoders read.

Raw pixels are passed on as a PPM: `P6 WIDTH HEIGHT 255`, a line feed, then the RGB bytes. Every
pipeline copies such pixels instead of decoding them.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from patchmill.loaders.files.regular_files import read_file
from patchmill.loaders.sources.names import IMAGE_NAMES, LABEL_NAMES

_CHANNELS = (1, 3, 4)


class NotAnImage(Exception):
    """The item holds nothing that can be augmented; the message says what it holds."""


def image_of(item: Any) -> bytes:
    """Encoded bytes of an item's image; NotAnImage or OSError."""
    return _encoded(parts(item)[0])


def label_of(item: Any) -> int | None:
    """The label of an item; None for an item without one."""
    label = parts(item)[1]
    if label is None or isinstance(label, bool | str | bytes):
        return None
    try:
        return operator.index(label)
    except TypeError:
        pass
    if _is_tensor(label) and label.ndim == 0:
        return int(label)
    return None


def parts(item: Any) -> tuple[Any, Any]:
    """An item's image and label: by name in a mapping, by position in a tuple."""
    if isinstance(item, Mapping):
        if set(item) == {"bytes", "path"}:
            return item, None
        name = next((name for name in IMAGE_NAMES if name in item), None)
        if name is None:
            listed = ", ".join(map(str, list(item)[:6]))
            raise NotAnImage(f"has no image among its keys {listed}")
        return item[name], next((item[one] for one in LABEL_NAMES if one in item), None)
    if isinstance(item, list | tuple) and item:
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def ppm(pixels: np.ndarray) -> bytes:
    """uint8 [height, width, 3] as a PPM."""
    height, width, _ = pixels.shape
    return b"P6 %d %d 255\n" % (width, height) + pixels.tobytes()


def _encoded(image: Any) -> bytes:
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, Mapping) and "bytes" in image:  # an undecoded image of Hugging Face's
        if image["bytes"] is not None:
            return bytes(image["bytes"])
        image = image.get("path")
        if image is None:
            raise OSError("the row has neither bytes nor a path")
    if isinstance(image, str | os.PathLike):
        return read_file(image)
    if type(image).__module__.partition(".")[0] == "PIL":
        from patchmill.loaders.decode.bad_image import BadImage
        from patchmill.loaders.decode.with_pil import to_rgb

        try:
            return ppm(to_rgb(image))
        except BadImage as problem:
            raise OSError(str(problem)) from None
    if _is_tensor(image):
        pixels = _rgb(image.detach().cpu().numpy(), channels_first=True)
    else:
        pixels = _rgb(image, channels_first=False) if isinstance(image, np.ndarray) else None
    if pixels is None:
        raise NotAnImage(f"is {described(image)}")
    return ppm(pixels)


def described(value: Any) -> str:
    """A value in a few words: `a float32 tensor [3, 32, 32]`, `an object of type int`."""
    if _is_tensor(value) or isinstance(value, np.ndarray):
        kind = "array" if isinstance(value, np.ndarray) else "tensor"
        dtype = str(value.dtype).removeprefix("torch.")
        return f"a {dtype} {kind} {list(value.shape)}"
    return f"an object of type {type(value).__name__}"


def _rgb(array: np.ndarray, channels_first: bool) -> np.ndarray | None:
    """uint8 pixels of one, three or four channels as [height, width, 3]; None for other arrays."""
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or not array.size:
        return None
    if array.ndim == 2:
        array = array[:, :, None]
    first, last = array.shape[0] in _CHANNELS, array.shape[2] in _CHANNELS
    if not (first or last):
        return None
    if first and (channels_first or not last):
        array = array.transpose(1, 2, 0)
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    return array[:, :, :3]


def _is_tensor(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] in ("torch", "torchvision") and hasattr(
        value, "detach"
    )
