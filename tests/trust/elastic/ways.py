"""Ways to load one data set: its formats, and the runs that hypothesis draws for them."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from helpers_archives import write_zip
from helpers_parquet import write_images
from helpers_pipelines import encoded
from helpers_shards import HOURS_AGO, write_tar
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from patchmill.loaders.prepare import make_decoded
from patchmill.loaders.sources.beton.writer import BetonWriter
from patchmill.loaders.sources.folder import Folder

COUNT, EPOCHS = 106, 2  # the last batch has samples for each of 8 ranks
BAD = (8, 57, 60)  # numbers of truncated images
WORLD_SIZES = (1, 2, 3, 4, 6, 8)
GLOBAL_BATCHES = (24, 48)  # every world size has an equal share
CACHES = ("", "ram:5MB", "ram:60KB", "disk:5MB")  # 60KB hold some of the images


@dataclass(frozen=True)
class Leg:
    """A run that continues where the last one stopped, with its number of ranks and steps."""

    world_size: int
    workers: int
    prefetch: int
    pipeline: str
    cache: str
    steps: int


@dataclass(frozen=True)
class Way:
    """Legs that together cover all epochs, on data of one format."""

    form: str
    global_batch: int
    drop_last: bool
    legs: tuple[Leg, ...]

    @property
    def steps(self) -> int:
        """Steps of all epochs together."""
        whole, rest = divmod(COUNT, self.global_batch)
        return EPOCHS * (whole + (bool(rest) and not self.drop_last))


def write_formats(root: Path) -> dict[str, Path]:
    """Write the same samples in the same order in each format: {format: path}."""
    for number in range(COUNT):
        path = root / "folder" / "ab"[number % 2] / f"{number:03}.{'png' if number % 3 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = encoded(number)
        path.write_bytes(encoded(3 * number)[:400] if number in BAD else data)
        os.utime(path, (HOURS_AGO, HOURS_AGO))
    folder = Folder(root / "folder")
    assert folder.labels is not None
    images, labels = [folder.read(id) for id in range(COUNT)], folder.labels.tolist()
    names = [os.path.relpath(folder.where(id), root / "folder") for id in range(COUNT)]
    files = dict(zip(names, images, strict=True))
    (root / "shards").mkdir()
    for number in range(3):
        part = list(files.items())[number * 40 : number * 40 + 40]
        write_tar(root / "shards" / f"data-{number:06}.tar", part)
    write_zip(root / "all.zip", files)
    with BetonWriter(root / "all.beton", COUNT, folder.classes) as writer:
        for data, label in zip(images, labels, strict=True):
            writer.add(data, label)
    make_decoded.make(folder, root / "decoded", "5MB", 2, 0, 1)
    found = {"folder": root / "folder", "shards": root / "shards", "zip": root / "all.zip"}
    found |= {"beton": root / "all.beton", "decoded": root / "folder"}
    if importlib.util.find_spec("pyarrow"):
        found["parquet"] = root / "all.parquet"
        write_images(found["parquet"], images, labels, folder.classes)
    return found


def pipelines(form: str) -> list[str]:
    """Installed pipelines that read a format, the default one first."""
    found = ["threads"]
    if importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.dali"):
        found.append("dali")
    if form == "beton" and importlib.util.find_spec("ffcv"):
        found.append("ffcv")
    return found


@st.composite
def ways(draw: DrawFn, forms: list[str], every_pipeline: bool = True) -> Way:
    form = draw(st.sampled_from(forms))
    way = Way(form, draw(st.sampled_from(GLOBAL_BATCHES)), draw(st.booleans()), ())
    legs: list[Leg] = []
    while (left := way.steps - sum(leg.steps for leg in legs)) > 0:
        pipeline = draw(st.sampled_from(pipelines(form)[: None if every_pipeline else 1]))
        caches = ("",) if pipeline == "ffcv" else CACHES  # it has no decoded cache
        leg = Leg(
            world_size=draw(st.sampled_from(WORLD_SIZES)),
            workers=draw(st.integers(1, 3)),
            prefetch=draw(st.integers(1, 3)),
            pipeline=pipeline,
            cache="disk:5MB" if form == "decoded" else draw(st.sampled_from(caches)),
            steps=draw(st.integers(1, left)) if len(legs) < 3 else left,
        )
        legs.append(leg)
    return Way(way.form, way.global_batch, way.drop_last, tuple(legs))
