"""Rank and world size: where they are from, and what contradicts them."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchmill.loaders.common import ranks
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.ranks import GIVEN, SINGLE, Rank

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
SLURM = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "SLURM_JOB_ID": "7"}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TORCHRUN, *SLURM):
        monkeypatch.delenv(name, raising=False)


def start(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def group(monkeypatch: pytest.MonkeyPatch, rank: int, size: int) -> None:
    """Pretend that a process group has started."""
    fake = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        get_rank=lambda: rank,
        get_world_size=lambda: size,
    )
    monkeypatch.setitem(sys.modules, "torch.distributed", fake)


def test_a_single_process_has_rank_0_of_1() -> None:
    assert ranks.choose(None, None) == SINGLE


def test_launchers_give_the_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranks.launched(TORCHRUN) == Rank(3, 8, "torchrun")
    assert ranks.launched(SLURM) == Rank(1, 2, "SLURM")
    assert ranks.launched({**SLURM, **TORCHRUN}) == Rank(3, 8, "torchrun")
    start(monkeypatch, SLURM)
    assert ranks.choose(None, None) == Rank(1, 2, "SLURM")


def test_a_batch_script_is_not_a_rank() -> None:
    assert ranks.launched({k: v for k, v in SLURM.items() if k != "SLURM_STEP_ID"}) is None
    assert ranks.launched({**TORCHRUN, "WORLD_SIZE": "1"}) is None
    assert ranks.launched({"SLURM_NTASKS": "2(x2)", "WORLD_SIZE": "abc"}) is None


def test_the_process_group_comes_before_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    start(monkeypatch, TORCHRUN)
    group(monkeypatch, 1, 2)
    assert ranks.choose(None, None) == Rank(1, 2, "torch.distributed")


@given(size=st.integers(1, 50), data=st.data())
def test_without_a_launcher_any_rank_may_be_given(size: int, data: st.DataObject) -> None:
    rank = data.draw(st.integers(0, size - 1))
    assert ranks.choose(rank, size) == Rank(rank, size, GIVEN)


def test_contradictions_with_the_process_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    start(monkeypatch, TORCHRUN)
    for given_values in ((2, 8), (3, 16), (0, 9)):
        with pytest.raises(MillError, match="contradicts this process, which is rank 3 of 8 by to"):
            ranks.choose(*given_values)
    for given_values in ((2, None), (None, 4)):
        with pytest.raises(MillError, match=r"does not fit this process.*rank and world_size, or"):
            ranks.choose(*given_values)


def test_a_smaller_world_may_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Model-parallel groups read alike; evaluation on every rank reads everything."""
    start(monkeypatch, TORCHRUN)
    assert ranks.choose(1, 4)[:2] == (1, 4)
    assert ranks.choose(0, 1)[:2] == (0, 1)
    assert ranks.choose(3, 8)[:2] == ranks.choose(3, None)[:2] == ranks.choose(None, 8)[:2]


def test_a_rank_detected_too_early_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    early, given_rank = ranks.choose(None, None), ranks.choose(0, 1)
    ranks.check(early)
    group(monkeypatch, 1, 2)
    with pytest.raises(MillError, match=r"built for rank 0 of 1, but this process is rank 1 of 2"):
        ranks.check(early)
    ranks.check(given_rank)
    ranks.check(ranks.choose(None, None))


def test_damaged_variables_are_named() -> None:
    for text in ("two", "2(x2)", "-2", "1_0", "9" * 5000):
        with pytest.raises(MillError, match=r"WORLD_SIZE=.* in the environment is not a whole num"):
            ranks.launched({**TORCHRUN, "WORLD_SIZE": text})
    with pytest.raises(MillError, match="RANK=8 in the environment must be below WORLD_SIZE=8"):
        ranks.launched({**TORCHRUN, "RANK": "8"})
    with pytest.raises(MillError, match="SLURM_PROCID is missing from the environment"):
        ranks.launched({k: v for k, v in SLURM.items() if k != "SLURM_PROCID"})


@pytest.mark.parametrize(
    ("environ", "gpus", "index"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0"}, 1, 0),  # as SLURM numbers a task's own
        ({"CUDA_VISIBLE_DEVICES": "3"}, 1, 0),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8f2e"}, 1, 0),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, 4, 3),
        ({}, 4, 3),
        ({}, 1, 3),  # four ranks of a machine with one GPU
        ({"CUDA_VISIBLE_DEVICES": "0", "TORCHELASTIC_RUN_ID": "1"}, 1, 3),
    ],
)
def test_a_rank_uses_the_gpu_of_its_local_rank_or_its_only_one(
    environ: dict[str, str], gpus: int, index: int
):
    assert ranks.gpu_index(3, gpus, environ) == index
