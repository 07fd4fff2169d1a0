"""Views drawn for the page exactly as in training, from the seed, the epoch and the step.

Runs neither write nor compute anything for this: the plan of a batch follows from its position.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from patchmill.loaders.common import plain_yaml
from patchmill.loaders.common.errors import MillError
from patchmill.training.config import compose
from patchmill.training.watch import run_files
from patchmill.training.watch.shelf import Run

if TYPE_CHECKING:
    import numpy as np

    from patchmill.loaders.preview.view_sheet import SheetSample
    from patchmill.loaders.recipe import Recipe
    from patchmill.loaders.sources import Source
    from patchmill.training.config.settings import Config

SHOWN = 4  # images at a time
LARGEST = 640  # longest side of an original, in pixels
MOST_BOXES = 64  # views of an image that are sent individually
CACHED = 32  # drawings


@dataclass(frozen=True)
class Subject:
    """Data, and a recipe whose views are drawn."""

    data: str
    recipe: str
    seed: int = 0
    masks: str | None = None
    backgrounds: str | None = None
    bins: tuple[int, ...] = ()  # of GTSA: bins along a side of a shared region, by view group


@dataclass(frozen=True)
class Place:
    """Position of images in training: `first` images after `start` in an epoch's order."""

    epoch: int
    start: int
    first: int = 0


class Drawings:
    """Draws one request at a time, and caches the last ones."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done: OrderedDict[Any, dict[str, Any]] = OrderedDict()
        self._sources: dict[str, Source] = {}
        self._configs: dict[tuple[str, bytes], Config] = {}

    def of_run(self, run: Run, step: int | None, first: int) -> dict[str, Any]:
        """Images from `first` on of a step's batch, by default the latest step's."""
        with self.turn():
            config, status = self._config(run), run.status
            newest = max(_whole(status.get("step")), 1)
            steps = _whole(status.get("steps")) or newest
            step = min(max(step or newest, 1), steps)
            per_epoch = max(steps // config.train.epochs, 1)
            epoch, index = divmod(step - 1, per_epoch)
            batch = config.train.batch_size
            first = min(max(first, 0), batch - 1)
            place = Place(epoch, index * batch, first)
            shown = min(SHOWN, batch - first)
            about = {"step": step, "steps": steps, "epoch": epoch, "batch": batch}
            return about | self._draw(_subject(config), place, shown)

    def of_data(self, subject: Subject, epoch: int, first: int) -> dict[str, Any]:
        with self.turn():
            return {"epoch": epoch} | self._draw(subject, Place(epoch, 0, max(first, 0)), SHOWN)

    def encoded(self, run: Run, id: int) -> bytes:
        """Encoded bytes of a sample of a run's data."""
        with self.turn():
            source = self.open(_subject(self._config(run)).data)
        if not 0 <= id < len(source):
            raise MillError(f"{source.name} has no sample {id}")
        return source.read(id)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for other requests, then run the body at low priority."""
        with self._lock:
            _let_others_first()
            yield

    def _draw(self, subject: Subject, place: Place, count: int) -> dict[str, Any]:
        key = (subject, place)
        if key not in self._done:
            self._done[key] = _drawn(self.open(subject.data), subject, place, count)
        self._done.move_to_end(key)
        while len(self._done) > CACHED:
            self._done.popitem(last=False)
        return self._done[key]

    def open(self, data: str) -> Source:
        """The data, opened once; MillError if they cannot be opened here."""
        from patchmill.loaders.sources import open_source

        if "://" in data or data.startswith("pipe:"):
            raise MillError(
                f"the data is streamed from {data}, and the page does not download data"
            )
        if data not in self._sources:
            self._sources[data] = open_source(data)
        return self._sources[data]

    def _config(self, run: Run) -> Config:
        try:
            text = run_files.read(run.folder / compose.FILE)
        except OSError:
            raise MillError(f"the run has no {compose.FILE} yet") from None
        key = (run.name, text)
        if key not in self._configs:
            try:
                self._configs[key] = compose.from_plain(plain_yaml.load(text))
            except plain_yaml.NotYaml:
                raise MillError(f"{compose.FILE} of {run.name} is not valid YAML") from None
        return self._configs[key]


def _let_others_first() -> None:
    """Lower the priority of this thread in favour of a run on this machine."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def _subject(config: Config) -> Subject:
    data = config.data
    bins = tuple(getattr(config.method, "bins", ()))
    views = config.method.views
    return Subject(data.train, views, config.seed, data.masks, data.backgrounds, bins)


def _drawn(source: Source, subject: Subject, place: Place, count: int) -> dict[str, Any]:
    from patchmill.loaders.order.permutation import Order
    from patchmill.loaders.preview.command import draw_samples
    from patchmill.loaders.recipe_load import load_recipe

    recipe = load_recipe(subject.recipe)
    total = len(source)
    start = (place.start + place.first) % max(total, 1)
    ids = Order(total, subject.seed).ids(place.epoch, start, min(start + count, total)).tolist()
    samples = draw_samples(
        source, recipe, ids, subject.seed, place.epoch, subject.backgrounds, subject.masks
    )
    return {
        "data": source.name,
        "recipe": subject.recipe,
        "first": place.first,
        "total": total,
        "bins": list(subject.bins),
        "groups": [{"name": group.name, "size": group.size} for group in recipe.views],
        "samples": [_sample(source, recipe, sample) for sample in samples],
    }


def _sample(source: Source, recipe: Recipe, sample: SheetSample) -> dict[str, Any]:
    from patchmill.loaders.preview.tiles import view_tiles, zoom_factor

    named = {"id": sample.id, "label": sample.label, "where": source.where(sample.id)}
    if sample.image is None or sample.batch is None:
        return named | {"problem": sample.problem}
    views: list[dict[str, Any]] = []
    zoom = min(zoom_factor(recipe), 1.0)
    for number, tiles in enumerate(view_tiles(sample.batch, recipe, zoom, sample.extra)):
        for tile in tiles[: MOST_BOXES - len(views)]:
            views.append(
                {
                    "group": number,
                    "image": _data_uri(tile.image),
                    "box": [round(float(corner), 2) for corner in tile.box.corners],
                    "flip": tile.box.flip,
                    "turns": tile.box.turns,
                    "grid": list(tile.box.grid),
                    "words": tile.words,
                }
            )
    about: dict[str, Any] = {
        "image": _data_uri(_small(sample.image)),
        "shape": list(sample.image.shape[:2]),
    }
    if sample.mask is not None:
        about["mask"] = _data_uri(_small(sample.mask.plane)) if _shows(sample.mask.plane) else None
        about["unused"] = sample.mask.why
        pasted = sample.composite
        about["composite"] = None if pasted is None else _data_uri(_small(pasted))
    return named | about | {"views": views}


def _shows(plane: np.ndarray | None) -> bool:
    return plane is not None and plane.size > 0


def _small(pixels: Any) -> Image.Image:
    image = Image.fromarray(pixels)
    image.thumbnail((LARGEST, LARGEST))
    return image


def _data_uri(image: Image.Image) -> str:
    out = io.BytesIO()
    if max(image.size) <= 32:
        image.save(out, "PNG")
        kind = "png"
    else:
        image.save(out, "JPEG", quality=90, subsampling=0)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"


def _whole(value: object) -> int:
    return int(value) if isinstance(value, int | float) and run_files.is_number(value) else 0
