"""Untrained networks as runs, so that they can be evaluated like trained ones."""

from __future__ import annotations

from pathlib import Path

from patchmill.training.config import compose
from patchmill.training.evaluation import trained_run
from patchmill.training.ranks import distributed
from patchmill.training.runtime import checkpoint, run_folder


def store(folder: Path, like: Path) -> None:
    """Make `folder` a finished run without steps: the initial networks of the run `like`."""
    if run_folder.read_status(folder).get("state") == "done":
        return
    config = compose.load(like)
    config.out, config.name = str(folder.parent), folder.name
    method = trained_run.untrained(config, distributed.connect("cpu"))
    saved = {"version": checkpoint.VERSION, "step": 0, "epoch": 0.0, "method": method.state_dict()}
    folder.mkdir(parents=True, exist_ok=True)
    compose.save(config, folder)
    writer = checkpoint.Writer(folder, keep=1)
    writer.save(saved)
    writer.wait()
    run_folder.Status(folder).end("done", step=0, steps=0)
