"""Measure the speed of saliency methods and their quality on synthetic scenes.

    python benchmarks/saliency.py [--data DIR] [--workers 1] [--weights FILE] [--json FILE]

All methods process the same decoded images of 500x375 pixels (or upright) in turns; the first round
is a warm-up. The peer is RBD written with scikit-image's superpixels and NumPy. Quality is measured
on scenes, whose foreground masks are known.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from patchmill.benchmarks.lib import report, timing
from patchmill.benchmarks.lib.sample import Sample
from patchmill.loaders import saliency
from patchmill.loaders.common.errors import run_command
from patchmill.loaders.common.threads import map_in_threads
from patchmill.loaders.decode.decoder import decode
from patchmill.loaders.saliency.estimate import assess_map
from patchmill.loaders.saliency.resample import resize
from patchmill.loaders.sources import open_source
from patchmill.loaders.sources.scenes.source import Scenes

PEER = "scikit-image + NumPy: rbd"
LONG, SHORT = 500, 375

Method = Callable[[np.ndarray], np.ndarray]  # uint8 [h, w, 3] to uint8 [h, w]


@dataclass(frozen=True)
class SaliencyRow:
    """One method's results, with the keys of its JSON row."""

    name: str
    stage: str
    images_per_s: float  # the median of the rounds
    spread: float  # interquartile range as a share of the median
    workers: int
    ms_per_image: float  # of one worker
    separation: float  # mean saliency of the foreground minus that of the rest
    f_measure: float  # beta^2 = 0.3, of the map thresholded at twice its mean
    mae: float
    degenerate: int  # scenes whose map is marked as unusable


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _arguments(argv)
    report.check_writable(arguments.json)
    source = open_source(arguments.data or f"scenes:{arguments.count}")
    images = [_resized(decode(data)) for data in Sample(source, arguments.count).encoded]
    methods = _methods(arguments.weights)
    rates = measure(methods, images, arguments.rounds, arguments.workers)
    scenes = Scenes(arguments.scenes, seed=arguments.seed)
    rows = [
        _row(name, rates[name], arguments.workers, *quality(method, scenes))
        for name, method in methods.items()
    ]
    about = {"count": len(images), "pixels": LONG * SHORT, "source": source.name}
    print(_table(rows, len(images), scenes.name))
    if arguments.json:
        content = {"images": about, "scenes": scenes.name, "rows": list(map(asdict, rows))}
        report.write_json(arguments.json, content)


def measure(
    methods: dict[str, Method], images: list[np.ndarray], rounds: int, workers: int
) -> dict[str, list[float]]:
    """Images per second of each method in each round."""
    with ThreadPoolExecutor(workers) as pool:
        turns = {name: partial(_rate, pool, method, images) for name, method in methods.items()}
        timing.interleave(turns, 1)  # warm-up
        return timing.interleave(turns, rounds)


def _rate(pool: ThreadPoolExecutor, method: Method, images: list[np.ndarray]) -> float:
    start = time.perf_counter()
    for _ in pool.map(method, images):
        pass
    return len(images) / (time.perf_counter() - start)


def quality(method: Method, scenes: Scenes) -> tuple[float, float, float, int]:
    """Mean separation, F-measure and MAE over the scenes, and the number of degenerate maps."""

    def scores(index: int) -> tuple[float, float, float, int]:
        plane, mask = method(decode(scenes.read(index))), scenes.mask(index) > 0
        separation = (plane[mask].mean() - plane[~mask].mean()) / 255
        degenerate = assess_map(plane, None).degenerate
        return separation, f_measure(plane, mask), abs(plane / 255 - mask).mean(), degenerate

    by_scene = np.array(list(map_in_threads(scores, range(len(scenes)), 2)), float)
    return (*by_scene[:, :3].mean(axis=0), int(by_scene[:, 3].sum()))


def f_measure(plane: np.ndarray, mask: np.ndarray, beta2: float = 0.3) -> float:
    salient = plane >= max(min(2 * plane.mean(), 255), 1)
    hit = (salient & mask).sum()
    if not hit:
        return 0.0
    precision, recall = hit / salient.sum(), hit / mask.sum()
    return float((1 + beta2) * precision * recall / (beta2 * precision + recall))


def _methods(weights: str | None) -> dict[str, Method]:
    texts = {name: name for name in ("gs", "mc", "rbd")}
    if weights:
        texts["learned"] = f"learned(weights={weights!r}, size=96)"
    methods = {name: _method(saliency.estimator(text)) for name, text in texts.items()}
    try:
        from patchmill.benchmarks.peers.saliency import rbd
    except ImportError:
        print(f"{PEER} is skipped: pip install 'patchmill[bench]'")
        return methods
    return methods | {PEER: rbd}


def _method(estimator: saliency.Estimator) -> Method:
    return lambda image: estimator(image).plane


def _resized(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return resize(image, *((SHORT, LONG) if width >= height else (LONG, SHORT)))


# --------------------------------------------------------------------------------------- the report


def _row(
    name: str,
    rates: list[float],
    workers: int,
    separation: float,
    f: float,
    mae: float,
    degenerate: int,
) -> SaliencyRow:
    rate = timing.summary(rates)
    return SaliencyRow(
        name=name,
        stage="saliency",
        images_per_s=round(rate.median, 2),
        spread=round(rate.spread, 3),
        workers=workers,
        ms_per_image=round(1000 * workers / rate.median, 2),
        separation=round(separation, 3),
        f_measure=round(f, 3),
        mae=round(mae, 3),
        degenerate=degenerate,
    )


def _table(rows: list[SaliencyRow], count: int, scenes: str) -> str:
    lines = [
        f"{count} images of {LONG}x{SHORT}; quality on {scenes}",
        f"{'method':<27}{'images/s':>10}{'spread':>8}{'ms':>8}{'fg - bg':>9}{'F':>7}{'MAE':>7}"
        f"{'degenerate':>12}",
    ]
    for row in rows:
        lines.append(
            f"{row.name:<27}{row.images_per_s:>10.1f}{row.spread:>8.1%}{row.ms_per_image:>8.1f}"
            f"{row.separation:>9.3f}{row.f_measure:>7.3f}{row.mae:>7.3f}{row.degenerate:>12}"
        )
    return "\n".join(lines)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = report.Parser("saliency", __doc__)
    parser.add_argument("--data", help="a folder of images, or scenes (the default)")
    parser.add_argument("--count", type=int, default=24, help="images at most (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (%(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="threads per method (%(default)s)")
    parser.add_argument(
        "--scenes", type=int, default=100, help="scenes for the quality (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=5, help="seed of the scenes (%(default)s)")
    parser.add_argument(
        "--weights", help="also measure a learned method of 96x96 pixels with these weights"
    )
    parser.add_argument("--json", help="write the results here too")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_command(main)
