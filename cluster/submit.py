"""Queues training on SLURM, or runs it here: python cluster/submit.py --nodes 8 method=dilo

--help lists the options.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchmill.loaders.common.errors import MillError, run_command

if TYPE_CHECKING:
    from patchmill.cluster.job.process import Training
    from patchmill.cluster.resources import Resources
    from patchmill.cluster.sweeps import Runs
    from patchmill.training.config.settings import Config


def main(arguments: Sequence[str] | None = None) -> None:
    from patchmill.cluster import forecast, options, preflight, resources, sweeps
    from patchmill.cluster.slurm import commands

    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in options.PREPARATIONS:
        from patchmill.cluster.prepare import submit

        submit.main(words)
        return
    given = options.read(words)
    asked = options.asked(given)
    needs = resources.find(asked, given.cluster)
    runs = sweeps.runs(options.words(given), given.sweep)
    here = given.local or not (commands.is_there() or given.dry_run)
    if here:
        needs = _of_this_machine(needs, asked)
    refused = None
    for config in runs.configs:
        planned = forecast.of(config, needs, given.throughput)
        try:
            preflight.check(config, planned.ranks)
        except MillError as error:
            if not given.dry_run:
                raise
            refused = refused or error
    if given.probe and not here:
        preflight.probe(needs)
    print(f"{'run':<16} {runs.folder}" + _counted(runs))
    print(planned)
    for warning in planned.warnings():
        print(f"warning: {warning}", file=sys.stderr)
    if given.dry_run:
        _show(needs, runs, here)
        if refused:
            raise refused
    elif here:
        sys.exit(_run(needs, runs, words))
    else:
        _queue(needs, runs, words, given)


def _of_this_machine(needs: Resources, asked: Mapping[str, Any]) -> Resources:
    """All GPUs here, unless told otherwise."""
    import torch

    if needs.nodes > 1 and "nodes" in asked:
        raise MillError(
            f"--nodes {needs.nodes} needs SLURM, and training here is on one machine: leave it out"
        )
    gpus = asked.get("gpus_per_node", torch.cuda.device_count())
    if gpus > torch.cuda.device_count():
        raise MillError(f"--gpus-per-node {gpus}: this machine has {torch.cuda.device_count()}")
    tasks = asked.get("tasks_per_node")
    return dataclasses.replace(needs, nodes=1, gpus_per_node=gpus, tasks_per_node=tasks)


def _counted(runs: Runs) -> str:
    return f" ({len(runs.configs)} runs; what follows is of each)" if runs.is_sweep else ""


# ------------------------------------------------------------------------------ what becomes of it


def _show(needs: Resources, runs: Runs, here: bool) -> None:
    from patchmill.cluster.slurm import commands

    if here:
        print("\nit would run here, without SLURM")
        return
    text = _script(needs, runs)
    print(f"\n{text}")
    if commands.is_there():
        print(f"sbatch: {commands.try_script(text)}")


def _script(needs: Resources, runs: Runs) -> str:
    from patchmill.cluster.job import record as jobs
    from patchmill.cluster.slurm import script

    made = script.executor(needs, jobs.next_folder(runs.folder), runs.folder.name)
    return script.text(made, len(runs.configs))


def _queue(needs: Resources, runs: Runs, words: Sequence[str], given: argparse.Namespace) -> None:
    from patchmill.cluster.job import follow
    from patchmill.cluster.job import record as jobs
    from patchmill.cluster.slurm import commands, queue, script

    commands.try_script(_script(needs, runs))
    with jobs.begun(runs.folder) as folder:
        commit = queue.describe(folder, words)
        made = script.executor(needs, folder, runs.folder.name)
        ids = queue.submit(made, [_task(config, needs, commit) for config in runs.configs])
    records = [jobs.now(id, folder, False, commit) for id in ids]
    for config, record in zip(runs.configs, records, strict=True):
        run = Path(config.out) / config.name
        run.mkdir(exist_ok=True)
        jobs.write(run, record)
    print(f"{'job':<16} {ids[0].partition('_')[0]}, queued")
    print(f"{'logs':<16} {folder}")
    if given.follow:
        for record in records:
            follow.until(record, lambda: bool(jobs.state(record)))  # noqa: B023
    else:
        print(f"{'to watch':<16} python cluster/status.py --tail {_first(runs)}")
        print(f"{'to cancel':<16} python cluster/status.py --cancel {_first(runs)}")


def _run(needs: Resources, runs: Runs, words: Sequence[str]) -> int:
    """Here, one run after the other; the exit code is of the first that does not end well."""
    from patchmill.cluster.job import local
    from patchmill.cluster.job import record as jobs
    from patchmill.cluster.slurm import queue

    for config in runs.configs:
        run = Path(config.out) / config.name
        with jobs.begun(run) as folder:
            commit = queue.describe(folder, words)
            task = _task(config, needs, commit)
            started, record = local.start(task, folder, needs.tasks, needs.gpus_per_node, commit)
            jobs.write(run, record)
        if code := started.wait(record, run):
            return code
    return 0


def _task(config: Config, needs: Resources, commit: str) -> Training:
    from patchmill.cluster.job.process import Training
    from patchmill.training.config import compose

    return Training(compose.plain(config), needs.requeue, str(Path.cwd()), commit)


def _first(runs: Runs) -> Path:
    return Path(runs.configs[0].out) / runs.configs[0].name


if __name__ == "__main__":
    here = Path(__file__).parent.resolve()
    if sys.path and Path(sys.path[0]).resolve() == here:
        del sys.path[0]  # a script's folder comes first, and its names are not meant to be modules
    run_command(main)
