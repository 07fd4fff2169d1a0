"""Processes that train together: how they meet, and what they pass around.

For a process that is alone, everything here does nothing.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from patchmill.loaders.common.errors import MillError
from patchmill.training.ranks import rendezvous

MEET = datetime.timedelta(minutes=10)  # how long ranks wait for the last one to start
HANG = datetime.timedelta(minutes=15)  # how long one waits in a collective before it gives up
CPU = torch.device("cpu")


@dataclass(frozen=True)
class World:
    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on this machine
    device: torch.device = CPU


_world = World()
_store: dist.Store | None = None  # where ranks leave notes, beside what they compute together


def connect(device: str = "auto") -> World:
    """Meet the other processes of the run, if it has more than one."""
    global _world, _store
    place = rendezvous.place()
    if place is None:
        _world = World(device=_device(device, 0, 1))
        return _world
    rank, size, local_rank = place[:3]
    world = World(rank, size, local_rank, _device(device, local_rank, size))
    _store = _meet(place, world.device)
    _world = world
    return world


def current() -> World:
    return _world


def notes() -> dist.Store | None:
    """Where ranks can read what others left, even others that have failed; None when alone."""
    return _store


def close() -> None:
    """Part from the others, when all have come this far."""
    global _world, _store
    if _world.size > 1:
        barrier()
        dist.destroy_process_group()
    _world, _store = World(device=_world.device), None


# ------------------------------------------------------------------------------------- collectives


def gather(x: torch.Tensor) -> torch.Tensor:
    """The rows of all ranks, rank after rank; each rank gives as many.

    The gradient of a rank's rows is the sum of what all ranks' losses say of them, so that the
    mean over ranks that DDP takes is the gradient of the mean of the losses.
    """
    return x if _world.size == 1 else _Gather.apply(x)  # type: ignore[no-untyped-call]


def gather_stopped(x: torch.Tensor) -> torch.Tensor:
    """`gather` without gradient."""
    return x.detach() if _world.size == 1 else _all_rows(x.detach())


def shuffle(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As many rows, drawn from those of all ranks, and the order that `unshuffle` needs.

    So that a batch norm sees keys among others than their queries (MoCo's shuffled BN).
    """
    if _world.size == 1:
        return x, torch.arange(len(x))
    order = torch.randperm(len(x) * _world.size).to(x.device)
    dist.broadcast(order, src=0)
    return gather_stopped(x)[_mine(order)], order


def unshuffle(x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Undo `shuffle`, for rows made of its rows."""
    return x if _world.size == 1 else gather_stopped(x)[_mine(order.argsort())]


def mean(values: torch.Tensor) -> torch.Tensor:
    """Over ranks, element by element."""
    if _world.size == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total / _world.size


def any_of(flag: bool) -> bool:
    """Whether it is set on any rank."""
    if _world.size == 1:
        return flag
    flags = torch.tensor(int(flag))
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags)


def objects(mine: Any) -> list[Any]:
    """Small plain data of all ranks, by rank."""
    if _world.size == 1:
        return [mine]
    found = [None] * _world.size
    dist.all_gather_object(found, mine)
    return found


def follow_first(tensors: Iterable[torch.Tensor]) -> None:
    """Make them what they are on rank 0."""
    if _world.size > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def barrier() -> None:
    any_of(False)


def _mine(rows: torch.Tensor) -> torch.Tensor:
    return rows.chunk(_world.size)[_world.rank]


def _all_rows(x: torch.Tensor) -> torch.Tensor:
    rows = x.new_empty(_world.size * len(x), *x.shape[1:])
    dist.all_gather_into_tensor(rows, x.contiguous())
    return rows


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return _all_rows(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        if grad.is_cuda:
            mine = grad.new_empty(len(grad) // _world.size, *grad.shape[1:])
            dist.reduce_scatter_tensor(mine, grad.contiguous())
            return mine
        total = grad.clone(memory_format=torch.contiguous_format)  # gloo cannot reduce_scatter
        dist.all_reduce(total)
        return _mine(total)


# ----------------------------------------------------------------------------------------- meeting


def _meet(place: rendezvous.Place, device: torch.device) -> dist.Store:
    """Begin the process group; the store for notes."""
    rank, size, _, host, port = place
    try:
        store = dist.TCPStore(host, port, size, _hosts_store(rank), MEET, wait_for_workers=False)
        life = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # torchrun's store outlives ranks
        dist.init_process_group(
            # With GPUs, what is on a CPU still goes by gloo: flags are agreed on without waiting
            # for the GPU's work.
            "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl",
            store=dist.PrefixStore(f"group{life}", store),
            rank=rank,
            world_size=size,
            timeout=HANG,
            device_id=None if device.type == "cpu" else device,
        )
    except (RuntimeError, OSError) as error:  # torch's network errors are RuntimeErrors
        raise MillError(
            f"rank {rank} of {size} could not join the others at {host}:{port} "
            f"({str(error).splitlines()[0]}): MASTER_ADDR must name a host that all reach, "
            "MASTER_PORT a port of it that is free, and all ranks must start"
        ) from None
    return dist.PrefixStore(f"notes{life}", store)


def _hosts_store(rank: int) -> bool:
    """Whether the others meet at this process; torchrun provides a place itself."""
    return rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"


def _device(device: str, local_rank: int, size: int) -> torch.device:
    count = torch.cuda.device_count()
    if device == "cpu" or (device == "auto" and not count):
        return CPU
    if device not in ("auto", "cuda") and size > 1:
        raise MillError(f"train.device={device} is one device for {size} processes: take cuda")
    name = f"cuda:{local_rank}" if device in ("auto", "cuda") else device
    try:
        found = torch.device(name)
    except RuntimeError:
        found = CPU
    if found.type != "cuda" or (found.index or 0) >= count:
        raise MillError(
            f"train.device={device} was asked for, which is {name} here, and torch sees {count} "
            "GPUs: take auto, cpu, cuda or cuda:N"
        )
    torch.cuda.set_device(found)
    return found
