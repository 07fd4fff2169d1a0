"""Measure the time from process start to a target accuracy of self-supervised learning.

    python benchmarks/speedrun.py [--data scenes] [--seeds 3] [--json FILE] [key=value ...]
    python benchmarks/speedrun.py --data cifar10-5000 --root DIR
    python benchmarks/speedrun.py --data cifar10 --root DIR               # on a GPU
    python benchmarks/speedrun.py --data imagenette --root DIR            # on a GPU
    python benchmarks/speedrun.py --dry-run

Each seed is a fresh process of `training/run.py` that ends at its first evaluation with the
accuracy of its row (evaluate.stop_at). The clock starts before the process and stops when that
evaluation is complete: imports, compilation into empty caches, reading and decoding, checkpoints
and all evaluations are counted, of which airbench's clock counts only the last evaluation.
Start-up and evaluations are also reported separately. A seed that does not reach the accuracy
within its epochs is reported as failed; means are then over the others.

The table has the mean, the standard deviation, and the fastest and slowest seed. Further settings
apply to all rows. Runs are stored in --out: a finished seed is read, an unfinished one is
restarted. With --warm-caches, kernels that were compiled before are used.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchmill.benchmarks.lib import machine, report, runs, seeds
from patchmill.benchmarks.lib.report import Parser
from patchmill.loaders.common import ranks
from patchmill.loaders.common.errors import MillError, run_command
from patchmill.loaders.common.progress import track
from patchmill.loaders.files.writing import write_atomic

if TYPE_CHECKING:
    from patchmill.training.config.settings import Config

RECORD = "speedrun.json"  # of a finished seed, in its run's folder
CACHES = ("PATCHMILL_CACHE", "NUMBA_CACHE_DIR", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
METRICS = {"knn": "kNN", "linear_online": "linear"}


@dataclass(frozen=True)
class Row:
    """A race: data, the target accuracy, and the fastest settings known to us."""

    overrides: tuple[str, ...]
    device: str  # cpu or cuda
    root: bool = True  # needs --root
    images: Mapping[str, int] = field(default_factory=dict)  # of each split; the rest is not used
    published: str = ""


# On a CPU: timm's smallest ResNet, in bf16, for which a CPU should have AVX-512 BF16 or AMX.
SMALL = (
    *("method=simclr", "scale=demo", "method.views=moco_v1(size=32, scale=(0.4, 1.0))"),
    *("model.name=test_resnet", "train.batch_size=128", "train.precision=bf16"),
    *("train.channels_last=true", "data.cache=ram:1GB", "evaluate.knn_every=2"),
)
ROWS = {
    "scenes": Row(
        (
            *("data=scenes", *SMALL, "method.temperature=0.2", "optim.lr=0.003"),
            *("optim.warmup=1", "train.epochs=12", "evaluate.stop_at=0.3"),
        ),
        "cpu",
        root=False,
    ),
    "cifar10-5000": Row(
        (
            *("data=cifar10", *SMALL, "method.temperature=0.1", "optim.lr=0.004"),
            *("optim.warmup=0.5", "train.epochs=8", "evaluate.stop_at=0.4"),
            "evaluate.images=5000",
        ),
        "cpu",
        images={"train": 5000, "test": 2000},
    ),
    "cifar10": Row(
        (
            *("method=emp_ssl", "data=cifar10", "train.epochs=5", "data.cache=device:1GB"),
            *("evaluate.stop_at=0.8", "evaluate.knn_every=1"),
        ),
        "cuda",
        published="EMP-SSL, linear probe: 80.6 % after one epoch, 90.7 % after ten; no time",
    ),
    "imagenette": Row(
        (
            # lightly's benchmark: network, batch, optimiser, head, temperature and kNN
            *("method=simclr", "data=imagenette", "model=resnet18", "model.stem=imagenet"),
            *("optim=sgd", "optim.lr=0.06", "optim.weight_decay=5e-4", "optim.schedule=cosine"),
            *("method.hidden=512", "method.dim=128", "method.temperature=0.5"),
            *("train.epochs=800", "train.batch_size=256", "data.cache=device:4GB"),
            *("evaluate.k=200", "evaluate.temperature=0.1", "evaluate.knn_every=10"),
            "evaluate.stop_at=0.889",
        ),
        "cuda",
        published="lightly: SimCLR, 800 epochs, kNN 88.9 % in 193 minutes on an A6000",
    ),
    "imagenette-vit": Row(
        (
            *("method=lejepa", "data=imagenette", "model=vit_small", "model.patch=16"),
            *("train.epochs=200", "train.batch_size=256", "data.cache=device:4GB"),
            *("evaluate.knn_every=5", "evaluate.stop_at=0.871"),
            "evaluate.stop_metric=linear_online",
        ),
        "cuda",
        published="stable-pretraining: LeJEPA, ViT-S/16, 200 epochs, linear 87.1 % on an A100",
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _arguments(argv)
    if arguments.dry_run:
        dry_run(arguments.data or list(ROWS), arguments)
        return
    report.check_writable(arguments.json)
    names = arguments.data or ["scenes"]
    for name in names:
        _check(name, arguments)
    rows = []
    with track("seeds", len(names) * arguments.seeds) as advance:
        for name in names:
            given = _overrides(name, arguments)
            results = []
            for seed in range(arguments.seeds):
                folder = arguments.out / f"{name}-{seed}"
                results.append(run(folder, [*given, f"seed={seed}"], arguments.warm_caches))
                advance(1)
            rows.append(summary(name, _composed(given), arguments.settings, results))
    print("\n".join(lines(rows, arguments)))
    if arguments.json:
        conditions = {"threads": _threads(), "warm_caches": arguments.warm_caches}
        report.write_json(arguments.json, {"seeds": arguments.seeds, **conditions, "rows": rows})


# ----------------------------------------------------------------------------------------- one seed


def run(folder: Path, overrides: Sequence[str], warm_caches: bool = False) -> dict[str, Any]:
    """Race one seed in a new process, or read it; returns its times and accuracies."""
    record = folder / RECORD
    asked = {"words": list(overrides), "warm_caches": warm_caches}
    if record.exists():
        saved = json.loads(record.read_text())
        if asked != {key: saved[key] for key in asked}:
            raise MillError(f"{folder} holds a seed with other settings: choose another --out=DIR")
        return saved
    if folder.exists():
        shutil.rmtree(folder)  # of a seed that was interrupted
    with _caches(warm_caches) as environment:
        cpu_before, began = _cpu_seconds(), time.time()
        runs.train(folder, *overrides, environment=environment)
    cpu_s = round(_cpu_seconds() - cpu_before, 2)
    result = asked | measured(folder, began) | {"cpu_s": cpu_s}
    write_atomic(record, json.dumps(result, indent=1) + "\n")
    return result


def measured(folder: Path, began: float) -> dict[str, Any]:
    """Figures of a run whose process started at time `began`."""
    from patchmill.training.config import compose
    from patchmill.training.runtime import records, run_folder

    status, metric = run_folder.read_status(folder), compose.load(folder).evaluate.stop_metric
    accuracies = [row[metric] for row in records.evaluations(folder) if metric in row]
    return {
        "reached": "reached" in status,
        "seconds": round(status.get("reached", status["time"]) - began, 2),
        "start_up_s": round(status["began"] - began, 2),
        "evaluation_s": round(status["evaluation_s"], 2),
        "epochs": round(status["epoch"], 2),
        "untrained": accuracies[0],
        "accuracy": accuracies[-1],
        "best": max(accuracies),
    }


def _cpu_seconds() -> float:
    """CPU seconds of all child processes that were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@contextmanager
def _caches(warm: bool) -> Iterator[dict[str, str]]:
    """Environment with empty caches for compiled code and indexes; unchanged with warm caches."""
    if warm:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="patchmill-") as folder:
        yield {name: f"{folder}/{name.lower()}" for name in CACHES}


# ----------------------------------------------------------------------------------------- settings


def _overrides(name: str, arguments: argparse.Namespace) -> list[str]:
    """Overrides of a row's runs, without the seed."""
    row = ROWS[name]
    root = str(arguments.root)
    if row.images:
        root = str(subset(arguments.out / "data" / name, arguments.root, row.images))
    return row_overrides(row, root, arguments.settings)


def row_overrides(row: Row, root: str, settings: Sequence[str]) -> list[str]:
    overrides = [*row.overrides, f"train.device={row.device}", "log.tensorboard=false"]
    return [*overrides, *([f"data.root={root}"] if row.root else []), *settings]


def _check(name: str, arguments: argparse.Namespace) -> None:
    """Raise a MillError for a row that cannot run here, before any seed runs."""
    if ROWS[name].root and arguments.root is None:
        raise MillError(f"--data {name} needs --root DIR, the folder of its images")
    _composed(_overrides(name, arguments))


def _composed(overrides: Sequence[str]) -> Config:
    from patchmill.training.config import compose

    config = compose.compose(overrides)
    if config.evaluate.stop_at is None:
        raise MillError("a speedrun needs an accuracy to reach, as evaluate.stop_at=0.5")
    return config


def subset(folder: Path, root: Path, images: Mapping[str, int]) -> Path:
    """Lists of the first images of every class, in a folder that data.root= takes."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in images.items():
        classes = sorted(path for path in (root / split).glob("*") if path.is_dir())
        if not classes:
            raise MillError(f"--root {root} has no folder {split} with a folder for each class")
        lines = ["path,label"]
        for number, path in enumerate(classes):
            files = sorted(file.resolve() for file in path.iterdir() if file.is_file())
            lines += [f"{file},{number}" for file in files[: count // len(classes)]]
        write_atomic(folder / f"{split}.csv", "\n".join(lines) + "\n")
    return folder


def dry_run(names: Sequence[str], arguments: argparse.Namespace) -> None:
    """Print the command of every row, composed with placeholders for its data."""
    gpus = machine.gpus()
    with tempfile.TemporaryDirectory(prefix="patchmill-") as folder:
        for split in ("train", "test", "val"):
            Path(folder, split).mkdir()
        for name in names:
            row = ROWS[name]
            config = _composed(row_overrides(row, folder, arguments.settings))
            most = f"at most {config.train.epochs} epochs"
            print(f"{name}: {_target(config)}, {_about(config)}, {most}")
            command = ["python", "training/run.py", *row_overrides(row, "DIR", arguments.settings)]
            print(f"  {shlex.join([*command, 'seed=0'])}")
            if row.published:
                print(f"  published: {row.published}")
            if row.device == "cuda" and not gpus:
                print("  not measured here: this machine has no GPU")


def _target(config: Config) -> str:
    return f"{METRICS[config.evaluate.stop_metric]} {100 * (config.evaluate.stop_at or 0):g} %"


def _about(config: Config) -> str:
    return f"{config.method_name}, {config.model.name}, {config.size} px"


def _threads() -> int:
    """Threads of the network on a CPU."""
    return ranks.number(os.environ, "OMP_NUM_THREADS", machine.cores())


# --------------------------------------------------------------------------------------- the report


def summary(
    name: str, config: Config, settings: Sequence[str], results: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A row of the table: figures of the seeds that reached the accuracy, and all seeds."""
    reached = [result for result in results if result["reached"]]
    row: dict[str, Any] = {
        "name": name,
        "target": _target(config),
        "network": _about(config),
        "words": row_overrides(ROWS[name], "DIR", settings),
        "started": len(results),
        "reached": len(reached),
        "most_epochs": config.train.epochs,
    }
    if ROWS[name].published:
        row["published"] = ROWS[name].published
    if reached:
        columns = (
            *("seconds", "start_up_s", "evaluation_s", "cpu_s"),
            *("epochs", "untrained", "accuracy"),
        )
        row |= seeds.row(name, [{c: result[c] for c in columns} for result in reached])
        seconds = [result["seconds"] for result in reached]
        row |= {"fastest": min(seconds), "slowest": max(seconds)}
    asked = ("words", "warm_caches")  # the same for all seeds
    figures = [{k: v for k, v in result.items() if k not in asked} for result in results]
    return row | {"runs": figures}


def lines(rows: Sequence[Mapping[str, Any]], arguments: argparse.Namespace) -> Iterator[str]:
    hardware = f"{machine.cpu()}, {machine.cores()} cores, threads of the network: {_threads()}"
    on_gpu = any(ROWS[row["name"]].device == "cuda" for row in rows)
    yield ", ".join([hardware, *(machine.gpus() if on_gpu else [])])
    caches = "caches as they were" if arguments.warm_caches else "empty caches"
    yield f"seconds from the process's start, with {caches}; mean ± std (fastest to slowest seed)"
    titles = ("epochs", "seconds", "start-up", "evaluating", "of CPU", "untrained", "reached")
    yield f"{'':<16}{'to reach':>14}{'seeds':>9}" + "".join(f"{t:>14}" for t in titles)
    for row in rows:
        yield "".join(_cells(row))
        yield f"  {row['network']}"
        if "published" in row:
            yield f"  published: {row['published']}"
        for number, result in enumerate(row["runs"]):
            if not result["reached"]:
                best = f"{100 * result['best']:.1f} % at best"
                yield f"  seed {number} failed: {best} in {result['epochs']:g} epochs"


def _cells(row: Mapping[str, Any]) -> Iterator[str]:
    seeds_there = f"{row['reached']} of {row['started']}"
    yield f"{row['name']:<16}{row['target']:>14}{seeds_there:>9}"
    if not row["reached"]:
        return
    yield f"{row['epochs']:>14.1f}"
    deviation = f" ± {row['seconds_std']:.1f}" if "seconds_std" in row else ""
    yield f"{row['seconds']:.1f}{deviation}".rjust(14)
    yield f"{row['start_up_s']:>14.1f}{row['evaluation_s']:>14.1f}{row['cpu_s']:>14.1f}"
    yield f"{100 * row['untrained']:>12.1f} %{100 * row['accuracy']:>12.1f} %"
    yield f"  ({row['fastest']:.1f} to {row['slowest']:.1f})"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser("speedrun", __doc__, "[key=value ...]")
    parser.add_argument("--data", default="", help=f"any of {', '.join(ROWS)} (scenes)")
    parser.add_argument("--root", type=Path, metavar="DIR", help="the images of a row but scenes")
    parser.add_argument("--seeds", type=int, default=3, help="runs per row (%(default)s)")
    parser.add_argument(
        "--warm-caches", action="store_true", help="use kernels that were compiled before"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/speedrun"), help="folder of the runs (%(default)s)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the results here too")
    parser.add_argument("--dry-run", action="store_true", help="print the rows, run nothing")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of all runs")
    arguments = parser.parse_intermixed_args(argv)
    arguments.data = [name for name in arguments.data.split(",") if name]
    for name in arguments.data:
        if name not in ROWS:
            raise MillError(f"there is no row {name}: choose from {', '.join(ROWS)}")
    if arguments.seeds < 1:
        raise MillError("--seeds must be at least 1")
    return arguments


if __name__ == "__main__":
    run_command(main)
