"""Advice on a loader's speed: made-up statistics, and the knobs that they call for."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

import pytest

from patchmill import loaders
from patchmill.loaders import advice
from patchmill.loaders.advice import Facts
from patchmill.loaders.decoded import spec as cache_spec
from patchmill.loaders.decoded.cache_stats import CacheStats
from patchmill.loaders.pipelines import spec, stages
from patchmill.loaders.prepare import command
from patchmill.loaders.stats import Stage, Stats

ITEMS = 10_000
HELPS = "sets the pace; what helps:"
ALL = 'cache="ram:53GB" for all decoded images'
FACTS = Facts(cores=4, samples=100_000, image_bytes=500_000, free_bytes=100 * 10**9)
CACHED = CacheStats("ram", 10, 100, 1000, 10**8, 10**9, full=False)


def stats(table: stages.StageTable, slowest: str, crew: str = "workers", **changes: Any) -> Stats:
    """Statistics in which a stage of a crew takes most of the time, and the loop waits."""
    workers = changes.pop("workers", 4)
    found = {}
    for name, each in (table | {"workers": (*table["workers"], *changes.pop("more", ()))}).items():
        for stage in each:
            lanes = workers if name == "workers" else 1
            if crew == name:
                share = 0.8 if stage == slowest else 0.05
            else:
                share = 0.1
            found[stage] = Stage(ITEMS, 100.0 * lanes * share, lanes, share, name)
    return Stats(found, workers, 100.0, **{"waited": 50.0, "bad": 0, "facts": FACTS, **changes})


def facts(**changes: Any) -> Facts:
    return dataclasses.replace(FACTS, **changes)


CPU, GPU, DALI_GPU = stages.THREADS_CPU, stages.THREADS_GPU, stages.DALI_GPU
FILES, ON_GPU = facts(single_files=True), facts(device="cuda", gpu=True)
LARGE = facts(image_bytes=4e6, gpu=True)
ROOMY = facts(device="cuda", gpu=True, device_bytes=110 * 10**9)
FULL_DEVICE = CacheStats("device", 10, 100, 1000, 10**8, 10**9, full=True)
WITH_DALI = facts(pipeline="dali", device="cuda", gpu=True)

TABLE = {
    "the training loop": (
        stats(CPU, "decode", waited=1.0),
        "the training loop sets the pace: nothing to gain in the loader",
    ),
    "reading of files": (
        stats(CPU, "read", facts=FILES),
        f'reading {HELPS} workers=26 or workers="auto", shards instead of single files (patchmill '
        f"prepare), {ALL}, or a copy on a local disk",
    ),
    "reading with many workers": (
        stats(CPU, "read", workers=64),
        f"reading {HELPS} {ALL}, or a copy on a local disk",
    ),
    "painting": (
        stats(CPU, "read", facts=facts(painted=True)),
        f"reading {HELPS} {ALL}, scenes painted once (patchmill prepare), or more cores",
    ),
    "decoding": (
        stats(CPU, "decode"),
        f"decoding {HELPS} {ALL}, or more cores",
    ),
    "decoding large images": (
        stats(CPU, "decode", facts=LARGE),
        f'decoding {HELPS} cache="disk:FOLDER:420GB" for all decoded images, '
        'device="cuda", smaller files (patchmill prepare --max-side 512), or more cores',
    ),
    "decoding in threads for a GPU": (
        stats(GPU, "decode", facts=ON_GPU),
        f'decoding {HELPS} {ALL}, pipeline="dali", or more cores',
    ),
    "decoding while a cache fills": (
        stats(CPU, "decode", cache=CACHED),
        f"decoding {HELPS} the next epoch, which finds these images in the cache, or more cores",
    ),
    "decoding beside a full cache": (
        stats(CPU, "decode", cache=dataclasses.replace(CACHED, full=True)),
        f"decoding {HELPS} {ALL}, or more cores",
    ),
    "decoding of a stream": (
        stats(CPU, "decode", facts=facts(samples=None)),
        f"decoding {HELPS} more cores",
    ),
    "decoding by DALI": (
        stats(DALI_GPU, "decode", "dali", facts=WITH_DALI),
        f"DALI's decoding {HELPS} {ALL}, or more cores",
    ),
    "rendering": (
        stats(CPU, "render"),
        f"rendering {HELPS} fewer or smaller views, or more cores",
    ),
    "rendering beside a GPU": (
        stats(CPU, "render", facts=facts(gpu=True)),
        f'rendering {HELPS} device="cuda", fewer or smaller views, or more cores',
    ),
    "rendering on a GPU": (
        stats(DALI_GPU, "render", "gpu", facts=WITH_DALI),
        f"rendering on the GPU {HELPS} fewer or smaller views",
    ),
    "upload": (
        stats(GPU, "upload", "gpu", facts=ON_GPU),
        f'uploading images {HELPS} pipeline="dali", or smaller images',
    ),
    "upload to a GPU with room for the images": (
        stats(GPU, "upload", "gpu", facts=ROOMY),
        f'uploading images {HELPS} cache="device:53GB" for all decoded images, '
        'pipeline="dali", or smaller images',
    ),
    "upload of images in RAM": (
        stats(GPU, "upload", "gpu", facts=ROOMY, cache=CACHED),
        f'{HELPS} cache="device:53GB" for all decoded images, ',
    ),
    "upload beside a full cache on the GPU": (
        stats(GPU, "upload", "gpu", facts=ROOMY, cache=FULL_DEVICE),
        f'uploading images {HELPS} pipeline="dali", or smaller images',
    ),
    "decoding for a GPU with room for the images": (
        stats(GPU, "decode", facts=ROOMY),
        f'decoding {HELPS} cache="device:53GB" for all decoded images, ',
    ),
    "idle workers": (
        stats(CPU, "decode", idle=0.8),
        'workers wait for something to do; what helps: prefetch=4 or prefetch="auto"',
    ),
    "idle workers of a stream": (
        stats(CPU, "decode", idle=0.8, facts=facts(samples=None)),
        "shards that arrive faster",
    ),
    "small images": (
        dataclasses.replace(
            stats(CPU, "decode"),
            stages={
                name: dataclasses.replace(stage, items=10**8)
                for name, stage in stats(CPU, "decode").stages.items()
            },
        ),
        f"the interpreter's overhead per image {HELPS} {ALL}, or workers=2",
    ),
    "masks": (
        stats(CPU, "mask", more=("mask",)),
        f"reading masks {HELPS} a file of masks (patchmill masks), or more cores",
    ),
    "own operations": (
        stats(CPU, "extra", more=("extra",)),
        "the recipe's own operations set the pace; what helps: fewer of the recipe's own",
    ),
    "planning": (
        stats(CPU, "plan"),
        f"planning {HELPS} fewer views, or more cores",
    ),
    "inspecting": (
        stats(stages.DALI_CPU, "inspect", facts=facts(pipeline="dali")),
        'plain JPEGs, which DALI decodes, pipeline="threads", or more cores',
    ),
    "nothing yet": (
        Stats({"read": Stage(0, 0.0, 1, 0.0, "workers")}, 1, 1.0, 1.0, 0),
        "no batch has been made yet",
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_the_sentence_names_stage_and_knobs(case: str):
    figures, expected = TABLE[case]
    assert expected in figures.advice
    assert figures.advice in str(figures)
    assert "\n" not in figures.advice and len(figures.advice) < 260


@pytest.mark.parametrize("case", TABLE)
def test_every_knob_exists(case: str):
    parameters = inspect.signature(loaders.build).parameters
    for name, value in re.findall(r"(\w+)=(\"[^\"]*\"|[^\s,]+)", TABLE[case][0].advice):
        assert name in parameters
        if name == "cache":
            cache_spec.parse(value.strip('"'))
        if name == "pipeline":
            assert value.strip('"') in spec.CHOICES
        if name in ("workers", "prefetch"):
            assert value == '"auto"' or int(value) > 0
    options = command.parser().format_help()
    for option in re.findall(r"--[\w-]+", TABLE[case][0].advice):
        assert option in options


def test_every_stage_of_every_pipeline_has_a_sentence():
    tables = (CPU, GPU, DALI_GPU, stages.DALI_CPU, stages.FFCV)
    for table in tables:
        more = {"workers": ("mask", "extra") if "render" in table["workers"] else ("mask",)}
        if "gpu" in table:
            more["gpu"] = ("extra",)
        for crew, names in table.items():
            for stage in (*names, *more.get(crew, ())):
                full = {each: (*table[each], *more.get(each, ())) for each in table}
                assert " the pace; what helps: " in stats(full, stage, crew).advice


def test_a_command_line_has_names_and_values_of_its_own():
    figures = stats(CPU, "read", facts=FILES)
    text = advice.sentence(figures, {"workers": "train.workers", "cache": "data.cache"})
    assert "train.workers=26 or train.workers=auto" in text
    assert "data.cache=ram:53GB for all" in text and '"' not in text


@pytest.mark.parametrize(
    ("needed", "size"),
    [(10, "1MB"), (1e6, "1MB"), (52.5e6, "53MB"), (9.91e9, "10GB"), (1.23e9, "1.3GB"),
     (999.9e9, "1000GB"), (2.04e12, "2.1TB"), (12.1e15, "12100TB")],
)  # fmt: skip
def test_sizes_are_rounded_up(needed: float, size: str):
    assert advice._size(needed) == size
    assert needed <= cache_spec.parse_size(size, "size")
