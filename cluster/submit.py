"""Queue training on SLURM, or run it here: patchmill submit --nodes 8 method=dilo

--help lists the options.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchmill.loaders.common.errors import MillError, run_command

if TYPE_CHECKING:
    from patchmill.cluster.job.process import TrainingTask
    from patchmill.cluster.job_plan import JobPlan
    from patchmill.cluster.resources import Resources
    from patchmill.cluster.sweeps import Runs
    from patchmill.training.config.settings import Config


def main(arguments: Sequence[str] | None = None) -> None:
    from patchmill.cluster import options

    argv = list(sys.argv[1:] if arguments is None else arguments)
    if argv and argv[0] in options.PREPARE_COMMANDS:
        options.read_preparation(argv)  # --help, before torch is loaded
        from patchmill.cluster.prepare import submit

        submit.main(argv)
        return
    args = options.read(argv)  # --help, before torch is loaded
    options.refuse_without_effect(args, argv)
    from patchmill.cluster import job_plan, preflight, resources, sweeps
    from patchmill.cluster.job import stage
    from patchmill.cluster.slurm import commands

    requested = options.resource_options(args)
    needs = _after(resources.load(requested, args.cluster), args.after)
    settings = options.training_settings(args)
    runs = sweeps.expand(settings, args.sweep)
    here = args.local or not (commands.is_available() or args.dry_run)
    if here and args.after:
        raise MillError(
            "--after is for jobs in SLURM's queue, and this run starts here immediately"
        )
    if here:
        needs = _of_this_machine(needs, requested)
    plans, refused = [], None
    for config in runs.configs:
        if needs.stage:
            stage.files(config.data.train)
        plans.append(job_plan.make(config, needs, args.throughput, here=here, overrides=settings))
        try:
            preflight.check(config, plans[-1].ranks)
        except MillError as error:
            if not args.dry_run:
                raise
            refused = refused or error
    if args.probe and not here:
        preflight.probe(needs)
    _print_plans(runs, plans)
    if args.dry_run:
        _show(needs, runs, here)
        if refused:
            raise refused
    elif here:
        sys.exit(_run_here(needs, runs, argv))
    else:
        _queue(needs, runs, argv, args.follow)


def _after(needs: Resources, runs: Sequence[str]) -> Resources:
    """Start after these runs or jobs have succeeded, and after the profile's own dependency."""
    from patchmill.cluster.job import record

    ids = [run if run.isdecimal() else record.last_job(Path(run)).id for run in runs]
    if not ids:
        return needs
    after = "afterok:" + ":".join(ids)
    dependency = f"{needs.dependency},{after}" if needs.dependency else after
    return dataclasses.replace(needs, dependency=dependency)


def _of_this_machine(needs: Resources, requested: Mapping[str, Any]) -> Resources:
    """Use all GPUs of this machine unless the options say otherwise."""
    import torch

    if needs.nodes > 1 and "nodes" in requested:
        raise MillError(
            f"--nodes {needs.nodes} needs SLURM, and training here is on one machine: omit it"
        )
    gpus = requested.get("gpus_per_node", torch.cuda.device_count())
    if gpus > torch.cuda.device_count():
        raise MillError(f"--gpus-per-node {gpus}: this machine has {torch.cuda.device_count()}")
    tasks = requested.get("tasks_per_node")
    return dataclasses.replace(needs, nodes=1, gpus_per_node=gpus, tasks_per_node=tasks)


def _print_plans(runs: Runs, plans: Sequence[JobPlan]) -> None:
    from patchmill.cluster import job_plan

    count = f" ({len(plans)} runs)" if runs.is_sweep else ""
    print(f"{'run':<16} {runs.folder}{count}")
    print(job_plan.table(plans))
    for warning in dict.fromkeys(text for plan in plans for text in plan.warnings()):
        print(f"warning: {warning}", file=sys.stderr)


# ------------------------------------------------------------------------------- show, queue or run


def _show(needs: Resources, runs: Runs, here: bool) -> None:
    from patchmill.cluster.slurm import commands

    if here:
        print("\nwould run here, without SLURM")
        return
    text = _script(needs, runs)
    print(f"\n{text}")
    if commands.is_available():
        print(f"sbatch: {commands.check_script(text)}")


def _script(needs: Resources, runs: Runs) -> str:
    from patchmill.cluster.job import record
    from patchmill.cluster.slurm import script

    slurm = script.executor(needs, record.next_folder(runs.folder), runs.folder.name)
    return script.text(slurm, len(runs.configs))


def _queue(needs: Resources, runs: Runs, argv: Sequence[str], follow_logs: bool) -> None:
    from patchmill.cluster.job import follow, record
    from patchmill.cluster.slurm import commands, queue, script

    commands.check_script(_script(needs, runs))
    with record.new_folder(runs.folder) as folder:
        commit = queue.save_code(folder, argv)
        slurm = script.executor(needs, folder, runs.folder.name)
        ids = queue.submit(slurm, [_task(config, needs, commit) for config in runs.configs])
    jobs = [record.new(id, folder, False, commit) for id in ids]
    for config, job in zip(runs.configs, jobs, strict=True):
        run = _run_folder(config)
        run.mkdir(exist_ok=True)
        record.write(run, job)
    print(f"{'job':<16} {ids[0].partition('_')[0]}, queued")
    print(f"{'logs':<16} {folder}")
    if follow_logs:
        for job in jobs:
            follow.follow(job, lambda: bool(record.state(job)))  # noqa: B023
    else:
        first = _run_folder(runs.configs[0])
        print(f"{'to watch':<16} patchmill status --tail {first}")
        print(f"{'to cancel':<16} patchmill status --cancel {first}")


def _run_here(needs: Resources, runs: Runs, argv: Sequence[str]) -> int:
    """Train the runs one after another; return the exit code of the first that fails, else 0."""
    from patchmill.cluster.job import local, record
    from patchmill.cluster.slurm import queue

    for config in runs.configs:
        run = _run_folder(config)
        with record.new_folder(run) as folder:
            commit = queue.save_code(folder, argv)
            task = _task(config, needs, commit)
            started, job = local.start(task, folder, needs.tasks, needs.gpus_per_node, commit)
            record.write(run, job)
        if code := started.wait(job, run):
            return code
    return 0


def _task(config: Config, needs: Resources, commit: str) -> TrainingTask:
    from patchmill.cluster.job.process import TrainingTask
    from patchmill.training.config import compose

    stage = needs.stage and str(needs.stage)
    return TrainingTask(compose.plain(config), needs.requeue, str(Path.cwd()), commit, stage)


def _run_folder(config: Config) -> Path:
    return Path(config.out) / config.name


if __name__ == "__main__":
    run_command(main)
