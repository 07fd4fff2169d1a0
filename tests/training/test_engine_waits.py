"""A training step never makes the program wait for the GPU."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import torch.distributed as dist
from helpers_fake_cuda import CUDA, batch_on_gpu, fake_cuda, move
from helpers_methods import TURNED, crops, example, make, noise_groups

pytest.importorskip("triton")

from patchmill.kernels.common.upload import upload
from patchmill.loaders.batch import ViewBatch
from patchmill.training import engine, methods
from patchmill.training.config import compose
from patchmill.training.config.settings import Config
from patchmill.training.methods import METHODS
from patchmill.training.optim import optimizers
from patchmill.training.ranks import distributed
from patchmill.training.ranks.distributed import World
from patchmill.training.runtime import hooks
from patchmill.training.runtime.state import State

STEPS = 2
LOGGING = {  # what a step that is logged may wait for
    ("training/runtime/metrics.py: check", "blocking copy from cuda to cpu"),
    ("training/runtime/hooks.py: _log", "item, or the like"),
}
SCALER = ("training/engine.py: train_steps", "item, or the like")


class Feed:
    """A loader with one batch, over and over."""

    def __init__(self, batch: ViewBatch) -> None:
        self._batch = batch

    def __iter__(self) -> Iterator[ViewBatch]:
        return itertools.repeat(self._batch)

    def stats(self) -> Any:
        return SimpleNamespace(plain=dict, wait_share=0.0)


class FewSteps(hooks.Hooks):
    """The hooks of a run on rank 0, which ends after a few steps; its outputs take anything."""

    def __init__(self, state: State) -> None:
        super().__init__(state, SimpleNamespace(first=0), Mock(), hooks.Outputs(*(Mock(),) * 4))

    def after_step(self, grad_norm: torch.Tensor | None, lr: float) -> None:
        super().after_step(grad_norm, lr)
        self.stopped = int(self._state.step == STEPS)


def settings(name: str, *overrides: str) -> Config:
    return compose.compose([f"method={name}", "data=scenes", "optim.clip_each=3.0", *overrides])


class StrictSteps(FewSteps):
    """After the first step, which tries out algorithms, torch raises an error for what waits."""

    def after_step(self, grad_norm: torch.Tensor | None, lr: float) -> None:
        super().after_step(grad_norm, lr)
        torch.cuda.set_sync_debug_mode("error")


def train_fake(config: Config, method: Any, batch: ViewBatch, folder: Path) -> State:
    """`train` on the fake GPU; in `fake_cuda`."""
    return train(config, move(method), batch_on_gpu(batch), folder)


def train(
    config: Config, method: Any, batch: ViewBatch, folder: Path, kind: type[FewSteps] = FewSteps
) -> State:
    """Train for STEPS steps of an epoch of ten, in bfloat16, by the engine's own loop."""
    optimiser = optimizers.build(config.optim, method)
    scaler = torch.amp.GradScaler("cuda", enabled=config.train.precision == "fp16")
    amp = torch.float16 if scaler.is_enabled() else torch.bfloat16
    world, feed = World(device=CUDA), Feed(batch)
    state = State(config, world, folder, method, method, optimiser, scaler, feed, amp, 10)
    engine.train_steps(state, kind(state))
    return state


@pytest.mark.parametrize("name", METHODS)
def test_a_step_waits_for_nothing(name: str, tmp_path: Path):
    config = settings(name, "optim.grad_clip=1.0", "train.log_every=100")
    method, batch = make(name), example(name)
    with fake_cuda() as cuda:
        state = train_fake(config, method, batch, tmp_path)
    assert not cuda.waits
    assert state.step == STEPS and state.optimiser.state


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("moco", dict(split_bn=4, symmetric=True)),
        ("simclr", {}),
        ("tcr", {}),
        ("dino", {}),
        ("lejepa", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_of_two_ranks_waits_for_nothing(
    name: str, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """But for the parts of torch: DDP and the collectives themselves."""
    for collective in (
        "broadcast",
        "all_reduce",
        "all_gather_into_tensor",
        "reduce_scatter_tensor",
    ):
        monkeypatch.setattr(dist, collective, Mock())
    monkeypatch.setattr(distributed, "_world", World(0, 2, 0, CUDA))
    config, method, batch = (
        settings(name, "train.log_every=100"),
        make(name, **changes),
        example(name),
    )
    with fake_cuda() as cuda:
        assert train_fake(config, method, batch, tmp_path).step == STEPS
    assert not cuda.waits


@pytest.mark.parametrize(
    ("overrides", "groups"),
    [
        (["dino", "model.name=vit_tiny_patch16_224", "model.depth=1", "model.positions=dino",
          "model.drop_path=0.1"], {"global": (2, 32), "local": (1, 16)}),
        (["moco", "model.name=resnet10t", "method.split_bn=2"], {"views": (2, 32)}),
    ],
    ids=["vit", "resnet"],
)  # fmt: skip
def test_networks_of_timm_wait_for_nothing(
    overrides: list[str], groups: dict[str, tuple[int, int]], tmp_path: Path
):
    config = settings(overrides[0], "size=32", "scale=demo", "train.log_every=100", *overrides[1:])
    method = methods.build(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch = noise_groups(8, groups)
    with fake_cuda() as cuda:
        train_fake(config, method, batch, tmp_path)
    assert not cuda.waits


def test_a_logged_step_waits_where_it_reads_what_it_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hooks.advice, "sentence", lambda *_: "")
    config = settings("moco", f"train.log_every={STEPS}")
    method, batch = make("moco"), example("moco")
    with fake_cuda() as cuda:
        train_fake(config, method, batch, tmp_path)
    assert {tuple(wait) for wait in cuda.waits} == LOGGING


def test_fp16_waits_once_a_step_to_see_whether_gradients_overflowed(tmp_path: Path):
    config = settings("simclr", "train.precision=fp16", "train.log_every=100")
    method, batch = make("simclr"), example("simclr")
    with fake_cuda() as cuda:
        train_fake(config, method, batch, tmp_path)
    assert [tuple(wait) for wait in cuda.waits] == [SCALER] * STEPS


def test_where_views_lie_and_which_were_pasted_is_not_waited_for():
    with fake_cuda() as cuda:
        batch = batch_on_gpu(crops(4, TURNED))
        tensors = [*batch.pasted.values(), *vars(batch.geometry["local"]).values()]
        assert all(tensor.is_cuda for tensor in tensors) and len(tensors) == 6
    assert not cuda.waits


@pytest.mark.gpu
@pytest.mark.parametrize("name", METHODS)
def test_torch_finds_no_wait_on_a_gpu_either(name: str, tmp_path: Path):
    config = settings(name, "optim.grad_clip=1.0", "train.log_every=100")
    method, batch = make(name).to(CUDA), example(name).to(CUDA)
    try:
        state = train(config, method, batch, tmp_path, StrictSteps)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert state.step == STEPS


# ----------------------------------------------------------------------------- the fake GPU itself

WAITS = {
    "item": lambda x: x.sum().item(),
    "if": lambda x: bool(x.sum() > 0),
    "tolist": lambda x: x[0].tolist(),
    "equal": lambda x: torch.equal(x, x),
    "mask": lambda x: x[x > 0],
    "cpu": lambda x: x.cpu(),
    "to": lambda x: torch.randperm(4).to(x.device),
    "pageable": lambda x: torch.randperm(4).to(x.device, non_blocking=True),
    "other type": lambda x: torch.ones(4).pin_memory().to(x.device, torch.int64, non_blocking=True),
    "copy_": lambda x: x.copy_(torch.ones(4, 4)),
    "tensor": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "new_tensor": lambda x: x.new_tensor([1.0, 2.0]),
    "list": lambda x: x[[0, -1]],
    "set by list": lambda x: x.__setitem__([0, -1], 1.0),
    "cpu index": lambda x: x[torch.arange(2)],
    "cpu operand": lambda x: torch.where(x > 0, x, torch.tensor(0.0)),
    "synchronize": lambda x: torch.cuda.synchronize(),
}
FREE = {
    "number": lambda x: torch.where(x > 0, x / 3, 0.0).clamp(max=1).new_full((), 2.0),
    "cpu number": lambda x: x * torch.tensor(2.0),
    "upload": lambda x: x[upload(torch.arange(2), x.device)],
    "pinned": lambda x: x.copy_(torch.ones(4, 4).pin_memory(), non_blocking=True),
    "to cpu": lambda x: x.to("cpu", non_blocking=True),
    "index": lambda x: x[0, :2] + x[x.argsort(1)].sum(),
    "cpu alone": lambda x: torch.ones(4)[[0, 1]].sum().item(),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_is_found(name: str):
    with fake_cuda() as cuda:
        WAITS[name](torch.ones(4, 4, device=CUDA))
    assert cuda.waits


@pytest.mark.parametrize("name", FREE)
def test_no_wait_is_found_where_there_is_none(name: str):
    with fake_cuda() as cuda:
        FREE[name](torch.ones(4, 4, device=CUDA))
    assert not cuda.waits
