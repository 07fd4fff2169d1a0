"""How fast saliency maps are made, and how well they find what is in made scenes.

    python benchmarks/saliency.py [--data DIR] [--workers 1] [--weights FILE] [--json FILE]

All methods make maps of the same decoded images, 500x375 (or upright), and take turns; the first
round is not counted. Beside them stands RBD as one writes it with scikit-image's superpixels and
NumPy. Quality is measured on scenes, whose foregrounds are known.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
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

Plane = Callable[[np.ndarray], np.ndarray]  # uint8 [h, w, 3] to uint8 [h, w]


@dataclass(frozen=True)
class Row:
    """One method's figures, as they are written to JSON."""

    name: str
    stage: str
    images_per_s: float  # the median of the rounds
    spread: float  # of the middle half of the rounds, as a share of the median
    workers: int
    ms_per_image: float  # of one worker
    separation: float  # mean saliency of the foreground less that of the background
    f_measure: float  # beta^2 = 0.3, of the map above twice its mean
    mae: float
    degenerate: int  # scenes whose map is marked as not to be used


def main() -> None:
    arguments = _arguments()
    report.check_writable(arguments.json)
    source = open_source(arguments.data or f"scenes:{arguments.count}")
    images = [_fitted(decode(data)) for data in Sample(source, arguments.count).encoded]
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
    methods: dict[str, Plane], images: list[np.ndarray], rounds: int, workers: int
) -> dict[str, list[float]]:
    """Images per second of each method in each round."""
    with ThreadPoolExecutor(workers) as pool:
        turns = {name: partial(_rate, pool, method, images) for name, method in methods.items()}
        timing.interleave(turns, 1)
        return timing.interleave(turns, rounds)


def _rate(pool: ThreadPoolExecutor, method: Plane, images: list[np.ndarray]) -> float:
    start = time.perf_counter()
    for _ in pool.map(method, images):
        pass
    return len(images) / (time.perf_counter() - start)


def quality(method: Plane, scenes: Scenes) -> tuple[float, float, float, int]:
    """Means over the scenes of separation, F-measure and MAE, and how many maps are degenerate."""

    def judge(index: int) -> tuple[float, float, float, int]:
        plane, mask = method(decode(scenes.read(index))), scenes.mask(index) > 0
        apart = (plane[mask].mean() - plane[~mask].mean()) / 255
        doubtful = assess_map(plane, None).degenerate
        return apart, f_measure(plane, mask), abs(plane / 255 - mask).mean(), doubtful

    found = np.array(list(map_in_threads(judge, range(len(scenes)), 2)), float)
    return (*found[:, :3].mean(axis=0), int(found[:, 3].sum()))


def f_measure(plane: np.ndarray, mask: np.ndarray, beta2: float = 0.3) -> float:
    chosen = plane >= max(min(2 * plane.mean(), 255), 1)
    hit = (chosen & mask).sum()
    if not hit:
        return 0.0
    precision, recall = hit / chosen.sum(), hit / mask.sum()
    return float((1 + beta2) * precision * recall / (beta2 * precision + recall))


def _methods(weights: str | None) -> dict[str, Plane]:
    texts = {name: name for name in ("gs", "mc", "rbd")}
    if weights:
        texts["learned"] = f"learned(weights={weights!r}, size=96)"
    methods = {name: _plane_of(saliency.estimator(text)) for name, text in texts.items()}
    try:
        from patchmill.benchmarks.peers.saliency import rbd
    except ImportError:
        print(f"{PEER} is left out: pip install 'patchmill[bench]'")
        return methods
    return methods | {PEER: rbd}


def _plane_of(estimator: saliency.Estimator) -> Plane:
    return lambda image: estimator(image).plane


def _fitted(image: np.ndarray) -> np.ndarray:
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
) -> Row:
    rate = timing.summary(rates)
    return Row(
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


def _table(rows: list[Row], count: int, scenes: str) -> str:
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


def _arguments() -> argparse.Namespace:
    parser = report.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="a folder of images, or scenes (the default)")
    parser.add_argument("--count", type=int, default=24, help="images at most")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1, help="threads for each method")
    parser.add_argument("--scenes", type=int, default=100, help="scenes to measure quality on")
    parser.add_argument("--seed", type=int, default=5, help="of those scenes")
    parser.add_argument("--weights", help="also this network, which sees 96x96 pixels")
    parser.add_argument("--json", help="write the table here too")
    return parser.parse_args()


if __name__ == "__main__":
    run_command(main)
