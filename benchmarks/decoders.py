"""Which library decodes JPEGs fastest on this CPU, and whether it gives PIL's pixels.

    python benchmarks/decoders.py [--data DIR] [--workers 1] [--json FILE]

Every library decodes the same encoded images, held in memory, to RGB. The libraries take turns,
each round beginning with another, so that a change of the machine's speed meets all of them; the
first round is not counted.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import statistics
import time
from collections.abc import Callable
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

Decode = Callable[[bytes], Any]  # to whatever the library returns
AsRgb = Callable[[Any], np.ndarray]  # that, as uint8 [height, width, 3] RGB


@dataclass(frozen=True)
class Opened:
    decode: Decode
    as_rgb: AsRgb
    version: str


@dataclass(frozen=True)
class Row:
    """One library's figures, as they are written to JSON."""

    name: str
    stage: str
    images_per_s: float  # the median of the rounds
    spread: float  # of the middle half of the rounds, as a share of the median
    workers: int
    version: str
    ms_per_image: float
    megabytes_per_s: float  # of encoded data
    as_pil: float  # share of the images whose pixels are PIL's


def main() -> None:
    arguments = _arguments()
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


def measure(images: list[bytes], rounds: int, workers: int) -> list[Row]:
    """Rates of all installed libraries, fastest first."""
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


def _pool(name: str, open: Callable[[], Opened], workers: int) -> Pool | None:
    try:
        return Pool(open, workers)
    except Exception as error:  # not installed, or no system library
        print(f"{name} is left out: {str(error).splitlines()[0]}")
        return None


class Pool:
    """Threads that have each opened the library for themselves."""

    def __init__(self, open: Callable[[], Opened], workers: int) -> None:
        self._opened = [open() for _ in range(workers)]
        self._threads = ThreadPoolExecutor(workers)
        self.library = self._opened[0]

    def rate(self, images: list[bytes]) -> float:
        """Images per second, when they are divided evenly."""
        start = time.perf_counter()
        workers = len(self._opened)
        calls = [opened.decode for opened in self._opened]
        list(self._threads.map(_decode_all, calls, (images[i::workers] for i in range(workers))))
        return len(images) / (time.perf_counter() - start)


def _decode_all(call: Decode, images: list[bytes]) -> None:
    for data in images:
        call(data)


def _row(
    name: str,
    library: Opened,
    images: list[bytes],
    pixels: list[np.ndarray],
    rates: list[float],
    workers: int,
) -> Row:
    rate = timing.summary(rates)
    pairs = zip(images, pixels, strict=True)
    same = [np.array_equal(library.as_rgb(library.decode(data)), rgb) for data, rgb in pairs]
    return Row(
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


def _patchmill() -> Opened:
    return Opened(Decoder(), np.asarray, patchmill.__version__)


def _simplejpeg() -> Opened:
    import simplejpeg

    return Opened(
        lambda data: simplejpeg.decode_jpeg(data, "RGB"), np.asarray, simplejpeg.__version__
    )


def _nvimagecodec() -> Opened:
    from nvidia import nvimgcodec as codec

    decoder = codec.Decoder(
        device_id=codec.NVIMGCODEC_DEVICE_CPU_ONLY,
        max_num_cpu_threads=1,
        backends=[codec.Backend(codec.CPU_ONLY)],
    )
    parameters = codec.DecodeParams(apply_exif_orientation=False)
    return Opened(
        lambda data: decoder.decode(data, params=parameters), np.asarray, codec.__version__
    )


def _torchcodec() -> Opened:
    import torch
    import torchcodec
    from torchcodec.decoders import decode_jpeg

    torch.set_num_threads(1)
    return Opened(lambda data: decode_jpeg(_tensor(data)), _channels_last, torchcodec.__version__)


def _torchvision() -> Opened:
    import torch
    import torchvision

    torch.set_num_threads(1)
    rgb = torchvision.io.ImageReadMode.RGB
    return Opened(
        lambda data: torchvision.io.decode_jpeg(_tensor(data), mode=rgb),
        _channels_last,
        torchvision.__version__,
    )


def _pyturbojpeg() -> Opened:
    import turbojpeg

    decoder = turbojpeg.TurboJPEG()
    version = importlib.metadata.version("PyTurboJPEG")
    return Opened(lambda data: decoder.decode(data, turbojpeg.TJPF_RGB), np.asarray, version)


def _opencv() -> Opened:
    import cv2

    cv2.setNumThreads(1)
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    return Opened(
        lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), flags), np.asarray, cv2.__version__
    )


def _pil() -> Opened:
    return Opened(_by_pil, np.asarray, PIL.__version__)


def _tensor(data: bytes) -> Any:
    import torch

    return torch.from_numpy(np.frombuffer(data, np.uint8).copy())


def _channels_last(image: Any) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


LIBRARIES: dict[str, Callable[[], Opened]] = {
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


def _table(rows: list[Row], about: dict[str, Any]) -> str:
    head = "{count} images, on average {kilobytes} kB and {kilopixels} kpx".format(**about)
    lines = [head, f"{'library':<22}{'images/s':>10}{'spread':>8}{'ms':>8}{'MB/s':>8}{'as PIL':>8}"]
    for row in rows:
        lines.append(
            f"{row.name:<22}{row.images_per_s:>10.0f}{row.spread:>8.1%}{row.ms_per_image:>8.2f}"
            f"{row.megabytes_per_s:>8.0f}{row.as_pil:>8.0%}"
        )
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = report.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="a folder of JPEGs, or scenes (the default)")
    parser.add_argument("--count", type=int, default=200, help="images at most")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--workers", type=int, default=1, help="threads for each library")
    parser.add_argument("--json", help="write the table here too")
    return parser.parse_args()


if __name__ == "__main__":
    run_command(main)
