"""A peer in another interpreter: turns over a pipe, and failures there."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchmill.benchmarks import throughput
from patchmill.benchmarks.lib import timing
from patchmill.benchmarks.lib.throughput.peer_process import PeerProcess
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.recipe import Recipe, Views

RECIPE = Recipe((Views("view", 2, 16),), name="two")


@pytest.fixture
def photo(tmp_path: Path) -> str:
    path = str(tmp_path / "photo.jpg")
    Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save(path)
    return path


def test_turns_are_measured_there(photo):
    contender = PeerProcess("torchvision", sys.executable, [photo], RECIPE, 2, 1)
    before = timing.cpu_seconds()
    contender.open()
    assert contender.measure(0.05) > 0 and contender.measure(0.05) > 0
    assert timing.cpu_seconds() - before > 0.5  # importing torch there, for one
    assert contender.remark.startswith("torchvision ran in its own Python, 3.")
    assert contender.making.antialiased and contender.making.decoder == "Pillow"
    process = contender._process
    contender.close()
    assert process and process.returncode == 0 and not multiprocessing.active_children()


def test_another_python_needs_no_patchmill(photo, tmp_path):
    """A bare interpreter fails at the first missing package."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')
    bare.chmod(0o755)
    contender = PeerProcess("torchvision", str(bare), [photo], RECIPE, 2, 1)
    try:
        with pytest.raises(MillError) as caught:
            contender.open()
    finally:
        contender.close()
    assert "No module named" in str(caught.value) and "patchmill" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_peer_that_is_missing_there_says_so(photo):
    contender = PeerProcess("kornia", sys.executable, [photo], RECIPE, 2, 1)
    try:
        with pytest.raises(MillError, match="it is for GPUs"):
            contender.open()
    finally:
        contender.close()


def test_an_interpreter_that_is_none_is_one_sentence(photo, tmp_path):
    contender = PeerProcess("torchvision", str(tmp_path / "nothing"), [photo], RECIPE, 2, 1)
    with pytest.raises(MillError, match="nothing' for the torchvision peer: No such"):
        contender.open()
    contender.close()
    contender = PeerProcess("torchvision", "/bin/false", [photo], RECIPE, 2, 1)
    with pytest.raises(MillError, match="/bin/false ended: without a word"):
        contender.open()
    contender.close()


def test_peers_of_other_interpreters_join_the_chosen_ones():
    argv = ["--peers", "torchvision", "--peer-python", "albumentationsx=~/env/bin/python"]
    settings = throughput._settings(argv)
    assert settings.peers == ["torchvision", "albumentationsx"]
    assert settings.peer_python["albumentationsx"].endswith("/env/bin/python")
    for wrong in ("albumentationsx", "=python", "albumentationsx="):
        with pytest.raises(MillError, match="--peer-python is NAME=PATH"):
            throughput._settings(["--peer-python", wrong])
    with pytest.raises(MillError, match="no peer 'albumentationz'; did you mean"):
        throughput._settings(["--peer-python", "albumentationz=python"])
