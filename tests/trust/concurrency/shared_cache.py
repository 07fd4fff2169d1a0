"""Loaders that share one decoded cache, across several processes and within each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import helpers_pipelines
import helpers_ranks

from trust.check import Check, Outcome, Task

PROCESSES, IMAGES = 3, 40

PROGRAM = """
import hashlib, random
import helpers_pipelines
from patchmill import loaders

rank, chosen = int(os.environ["RANK"]), random.Random({seed!r} + os.environ["RANK"])
for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
    os.environ.pop(name, None)
os.environ["PATCHMILL_CACHE"] = {home!r}

def open_loader():
    return loaders.build(
        {data!r}, helpers_pipelines.RECIPE, chosen.choice([1, 3, 8, 40]), seed=3,
        workers=chosen.randint(1, 3), cache={cache!r}, drop_last=False, world_size=1, rank=0,
    )

def note(batch, epoch, seen):
    for slot, id in enumerate(batch.ids.tolist()):
        views = b"".join(group[slot].numpy().tobytes() for group in batch.views.values())
        seen.append([epoch, id, hashlib.sha256(views).hexdigest()])

seen, two = [], [open_loader(), open_loader()]
for epoch in range(2):
    iterators = [iter(loader) for loader in two]
    while iterators:
        iterator = chosen.choice(iterators)
        batch = next(iterator, None)
        if batch is None:
            iterators.remove(iterator)
        else:
            note(batch, epoch, seen)
print(json.dumps(seen))
"""


def run(task: Task) -> Outcome:
    """Fill and read one cache concurrently; views are the same as without it."""
    outcome, data = Outcome(), task.folder / "data"
    data.mkdir()
    for index in range(IMAGES):
        (data / f"{index:02}.png").write_bytes(helpers_pipelines.encoded(index))
    (alone,) = _run(task, data, None, "alone", 1)
    wanted = {(epoch, id): views for epoch, id, views in alone}
    for index in range(task.tries):
        folder = task.folder / "cache"
        shutil.rmtree(folder, ignore_errors=True)
        # In half of the tries the cache is too small for all images.
        size = task.random(index).choice(("10MB", "100KB"))
        outcome.tried(size)
        name = f"seed {task.seed}, try {index}"
        try:
            for seen in _run(task, data, f"disk:{folder}:{size}", name, PROCESSES):
                outcome.lost += 4 * IMAGES - len(seen)
                if any(wanted[epoch, id] != views for epoch, id, views in seen):
                    outcome.failed(f"{name}: views differ")
        except RuntimeError as error:
            outcome.failed(f"{name}: {error}")
        task.note(f"{index + 1} tries")
    return outcome


def _run(
    task: Task, data: Path, cache: str | None, name: str, processes: int
) -> list[list[tuple[int, int, str]]]:
    """Epochs, ids and hashes of the views that each process has seen, of two loaders."""
    out = task.folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    program = PROGRAM.format(seed=name, home=str(task.folder / "home"), data=str(data), cache=cache)
    ended = helpers_ranks.run(program, out, processes)
    for one in ended:
        if one.code:
            raise RuntimeError(one.err[-1500:])
    return [json.loads(one.out) for one in ended]


CHECKS = (
    Check(
        "shared-cache", "two loaders in each of three processes, with one decoded cache",
        run, short=0, standard=12, long=300, seconds=100,
    ),
)  # fmt: skip
