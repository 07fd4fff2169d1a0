"""Compare JPEG decoders on this CPU: their speed, and their pixels with PIL's.

    python benchmarks/decoders.py [--data DIR] [--workers 1] [--json FILE]

Every library decodes the same encoded images from memory to RGB. The libraries take turns in
rotating order, so that changes in the machine's speed affect all of them alike; the first round is
a warm-up.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import PIL
from PIL import Image

import patchmill
from patchmill.benchmarks.lib import report, sample, timing
from patchmill.benchmarks.lib.sample import Sample
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.decode.decoder import Decoder
from patchmill.loaders.sources import open_source

Decode = Callable[[bytes], Any]  # returns the library's own image type
AsRgb = Callable[[Any], np.ndarray]  # converts that to uint8 [height, width, 3] RGB


@dataclass(frozen=True)
class Library:
    decode: Decode
    as_rgb: AsRgb
    version: str


@dataclass(frozen=True)
class DecoderRow:
    """One library's results, with the keys of its JSON row."""

    name: str
    stage: str
    images_per_s: float  # the median of the rounds
    spread: float  # interquartile range as a share of the median
    workers: int
    version: str
    ms_per_image: float
    megabytes_per_s: float  # of encoded data
    as_pil: float  # share of images with the same pixels as PIL's


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _arguments(argv)
    report.check_writable(arguments.json)
    source = open_source(arguments.data or f"scenes:{arguments.count}")
    images = [data for data in Sample(source, arguments.count).encoded if data[:2] == sample.JPEG]
    if not images:
        raise MillError(f"there are no JPEGs in {source.name!r}")
    about = sample.describe(images)
    rows = measure(images, arguments.rounds, arguments.workers)
    print(_table(rows, about))
    if arguments.json:
        report.write_json(arguments.json, {"images": about, "rows": list(map(asdict, rows))})


def measure(images: list[bytes], rounds: int, workers: int) -> list[DecoderRow]:
    """Rows of all installed libraries, fastest first."""
    pixels = list(map(_by_pil, images))
    pools = {name: pool for name, open in LIBRARIES.items() if (pool := _pool(name, open, workers))}
    turns = {name: partial(pool.rate, images) for name, pool in pools.items()}
    timing.interleave(turns, 1)
    rates = timing.interleave(turns, rounds)
    rows = [
        _row(name, pool.library, images, pixels, rates[name], workers)
        for name, pool in pools.items()
    ]
    return sorted(rows, key=lambda row: -row.images_per_s)


def _pool(name: str, open: Callable[[], Library], workers: int) -> DecoderPool | None:
    try:
        return DecoderPool(open, workers)
    except Exception as error:  # not installed, or no system library
        print(f"{name} is skipped: {str(error).splitlines()[0]}")
        return None


class DecoderPool:
    """A pool of threads, each with its own decoder."""

    def __init__(self, open: Callable[[], Library], workers: int) -> None:
        self._decoders = [open() for _ in range(workers)]
        self._threads = ThreadPoolExecutor(workers)
        self.library = self._decoders[0]

    def rate(self, images: list[bytes]) -> float:
        """Images per second of all threads together, each with an equal share of the images."""
        start = time.perf_counter()
        workers = len(self._decoders)
        functions = [decoder.decode for decoder in self._decoders]
        shares = (images[i::workers] for i in range(workers))
        list(self._threads.map(_decode_all, functions, shares))
        return len(images) / (time.perf_counter() - start)


def _decode_all(decode: Decode, images: list[bytes]) -> None:
    for data in images:
        decode(data)


def _row(
    name: str,
    library: Library,
    images: list[bytes],
    pixels: list[np.ndarray],
    rates: list[float],
    workers: int,
) -> DecoderRow:
    rate = timing.summary(rates)
    pairs = zip(images, pixels, strict=True)
    same = [np.array_equal(library.as_rgb(library.decode(data)), rgb) for data, rgb in pairs]
    return DecoderRow(
        name=name,
        stage="decode",
        images_per_s=round(rate.median, 1),
        spread=round(rate.spread, 3),
        workers=workers,
        version=library.version,
        ms_per_image=round(1000 / rate.median, 3),
        megabytes_per_s=round(rate.median * sum(map(len, images)) / len(images) / 1e6, 1),
        as_pil=round(statistics.fmean(same), 3),
    )


def _by_pil(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


# ------------------------------------------------------------------------------------ the libraries


def _patchmill() -> Library:
    return Library(Decoder(), np.asarray, patchmill.__version__)


def _simplejpeg() -> Library:
    import simplejpeg

    return Library(
        lambda data: simplejpeg.decode_jpeg(data, "RGB"), np.asarray, simplejpeg.__version__
    )


def _nvimagecodec() -> Library:
    from nvidia import nvimgcodec as codec

    decoder = codec.Decoder(
        device_id=codec.NVIMGCODEC_DEVICE_CPU_ONLY,
        max_num_cpu_threads=1,
        backends=[codec.Backend(codec.CPU_ONLY)],
    )
    parameters = codec.DecodeParams(apply_exif_orientation=False)
    return Library(
        lambda data: decoder.decode(data, params=parameters), np.asarray, codec.__version__
    )


def _torchcodec() -> Library:
    import torch
    import torchcodec
    from torchcodec.decoders import decode_jpeg

    torch.set_num_threads(1)
    return Library(lambda data: decode_jpeg(_tensor(data)), _channels_last, torchcodec.__version__)


def _torchvision() -> Library:
    import torch
    import torchvision

    torch.set_num_threads(1)
    rgb = torchvision.io.ImageReadMode.RGB
    return Library(
        lambda data: torchvision.io.decode_jpeg(_tensor(data), mode=rgb),
        _channels_last,
        torchvision.__version__,
    )


def _pyturbojpeg() -> Library:
    import turbojpeg

    decoder = turbojpeg.TurboJPEG()
    version = importlib.metadata.version("PyTurboJPEG")
    return Library(lambda data: decoder.decode(data, turbojpeg.TJPF_RGB), np.asarray, version)


def _opencv() -> Library:
    import cv2

    cv2.setNumThreads(1)
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    return Library(
        lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), flags), np.asarray, cv2.__version__
    )


def _pil() -> Library:
    return Library(_by_pil, np.asarray, PIL.__version__)


def _tensor(data: bytes) -> Any:
    import torch

    return torch.from_numpy(np.frombuffer(data, np.uint8).copy())


def _channels_last(image: Any) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


LIBRARIES: dict[str, Callable[[], Library]] = {
    "patchmill": _patchmill,
    "simplejpeg": _simplejpeg,
    "nvImageCodec on CPU": _nvimagecodec,
    "torchcodec": _torchcodec,
    "torchvision.io": _torchvision,
    "PyTurboJPEG": _pyturbojpeg,
    "OpenCV": _opencv,
    "PIL": _pil,
}


# --------------------------------------------------------------------------------------- the report


def _table(rows: list[DecoderRow], about: dict[str, Any]) -> str:
    head = "{count} images, on average {kilobytes} kB and {kilopixels} kpx".format(**about)
    lines = [head, f"{'library':<22}{'images/s':>10}{'spread':>8}{'ms':>8}{'MB/s':>8}{'as PIL':>8}"]
    for row in rows:
        lines.append(
            f"{row.name:<22}{row.images_per_s:>10.0f}{row.spread:>8.1%}{row.ms_per_image:>8.2f}"
            f"{row.megabytes_per_s:>8.0f}{row.as_pil:>8.0%}"
        )
    return "\n".join(lines)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = report.Parser("decoders", __doc__)
    parser.add_argument("--data", help="a folder of JPEGs, or scenes (the default)")
    parser.add_argument("--count", type=int, default=200, help="images at most (%(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="measured rounds (%(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="threads per library (%(default)s)")
    parser.add_argument("--json", help="write the results here too")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_command(main)
