"""A container, bindings, staged data, notifications and dependencies on a real SLURM."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from helpers_sandbox import logs, on, queue, until_done

from patchmill.cluster import resources
from patchmill.loaders.prepare.command import main as prepare

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.usefixtures("cluster")]

APPTAINER = """#!/bin/bash
# Stands in for a container: notes its arguments, and runs what follows the image.
echo "$*" >> {noted}
while [ "$1" != IMAGE.sif ]; do shift; done
shift 2
exec {python} "$@"
"""


def test_a_profile_with_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(["scenes(count=64, size=32)", str(tmp_path / "shards"), "--format", "shards"])
    apptainer = tmp_path / "bin" / "apptainer"
    apptainer.parent.mkdir()
    apptainer.write_text(APPTAINER.format(noted=tmp_path / "noted", python=sys.executable))
    apptainer.chmod(0o755)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    resources.user_file().parent.mkdir(parents=True)
    resources.user_file().write_text(
        f"bind: cores\nstage: {tmp_path}/disk\ncontainer: {{image: IMAGE.sif}}\n"
        f"notify: echo $PATCHMILL_EVENT $(basename $PATCHMILL_RUN) >> {tmp_path}/heard\n"
        f"setup: ['export PATH={apptainer.parent}:$PATH']\n"
    )
    overrides = {"method": "moco", "data.train": str(tmp_path / "shards")}
    first = queue(tmp_path / "a", *on(1, 2), **overrides)
    second = queue(tmp_path / "b", *on(1, 2), "--after", str(first), **overrides)
    until_done(first)
    until_done(second)
    assert (tmp_path / "noted").read_text().count("exec --nv --bind") == 4
    assert logs(first).count("staged") == 1 and logs(second).count("staged") == 0
    # The second started after the first had ended.
    assert (tmp_path / "heard").read_text().split("\n")[:4] == [
        "started run", "done run", "started run", "done run",
    ]  # fmt: skip
