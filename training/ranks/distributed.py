"""Process group and collectives; with a single process, every collective is the identity."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from patchmill.kernels.common.upload import upload
from patchmill.loaders.common import ranks
from patchmill.loaders.common.errors import MillError
from patchmill.loaders.common.printed import brief
from patchmill.training.ranks import rendezvous
from patchmill.training.ranks.reasons import reason

JOIN_TIMEOUT = datetime.timedelta(minutes=10)  # until the last rank has started
COLLECTIVE_TIMEOUT = datetime.timedelta(minutes=15)  # before a rank gives up on the others
CPU = torch.device("cpu")


@dataclass(frozen=True)
class World:
    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on this machine
    device: torch.device = CPU


_world = World()
_store: dist.Store | None = None


def connect(device: str = "auto") -> World:
    """Choose this rank's device and, with several processes, start the process group."""
    global _world, _store
    info = rendezvous.find()
    if info is None:
        _world = World(device=_device(device, 0, 1))
        return _world
    rank, size, local_rank = info[:3]
    world = World(rank, size, local_rank, _device(device, local_rank, size))
    _store = _init_process_group(info, world.device)
    _world = world
    return world


def current() -> World:
    return _world


def error_store() -> dist.Store | None:
    """Key-value store for error messages, readable after a rank has failed; None for one rank."""
    return _store


def close() -> None:
    """Destroy the process group once all ranks have called this."""
    global _world, _store
    if _world.size > 1:
        barrier()
        dist.destroy_process_group()
    _world, _store = World(device=_world.device), None


# ------------------------------------------------------------------------------------- collectives


def gather(x: torch.Tensor) -> torch.Tensor:
    """All-gather rows [n, ...] of every rank to [world * n, ...], with gradient.

    The backward pass sums the gradients of all ranks' losses with respect to this rank's rows, so
    that DDP's mean over ranks is the gradient of the mean loss.
    """
    return x if _world.size == 1 else _Gather.apply(x)  # type: ignore[no-untyped-call]


def all_reduce(x: torch.Tensor) -> torch.Tensor:
    """Element-wise sum over ranks, with gradient: the backward pass sums all ranks' gradients.

    As for `gather`, DDP's mean over ranks is then the gradient of the mean loss.
    """
    return x if _world.size == 1 else _AllReduce.apply(x)  # type: ignore[no-untyped-call]


def gather_no_grad(x: torch.Tensor) -> torch.Tensor:
    """`gather` without gradient."""
    return x.detach() if _world.size == 1 else _all_gather(x.detach())


def shuffle(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Redistribute rows over ranks in a random order: MoCo's shuffled batch norm.

    Return this rank's rows and the permutation, to be passed to `unshuffle`.
    """
    if _world.size == 1:
        return x, torch.arange(len(x))
    order = upload(torch.randperm(len(x) * _world.size), x.device)
    dist.broadcast(order, src=0)
    return gather_no_grad(x)[_local_chunk(order)], order


def unshuffle(x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Undo `shuffle` on rows computed from the shuffled ones."""
    return x if _world.size == 1 else gather_no_grad(x)[_local_chunk(order.argsort())]


def mean(values: torch.Tensor) -> torch.Tensor:
    """Element-wise mean over ranks."""
    if _world.size == 1:
        return values
    return _total(values.detach()) / _world.size


def any_rank(flag: bool) -> bool:
    """True if the flag is set on any rank."""
    if _world.size == 1:
        return flag
    flags = torch.tensor(int(flag))
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags)


def gather_objects(value: Any) -> list[Any]:
    """Gather one small picklable value per rank, in rank order."""
    if _world.size == 1:
        return [value]
    values = [None] * _world.size
    dist.all_gather_object(values, value)
    return values


def broadcast_from_rank0(tensors: Iterable[torch.Tensor]) -> None:
    """Overwrite the tensors in place with those of rank 0."""
    if _world.size > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def barrier() -> None:
    any_rank(False)


def _local_chunk(rows: torch.Tensor) -> torch.Tensor:
    return rows.chunk(_world.size)[_world.rank]


def _all_gather(x: torch.Tensor) -> torch.Tensor:
    rows = x.new_empty(_world.size * len(x), *x.shape[1:])
    dist.all_gather_into_tensor(rows, x.contiguous())
    return rows


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return _all_gather(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        if grad.is_cuda:
            local_grad = grad.new_empty(len(grad) // _world.size, *grad.shape[1:])
            dist.reduce_scatter_tensor(local_grad, grad.contiguous())
            return local_grad
        return _local_chunk(_total(grad))  # gloo cannot reduce_scatter


class _AllReduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return _total(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return _total(grad)


def _total(x: torch.Tensor) -> torch.Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


# ----------------------------------------------------------------------------------- process group


def _init_process_group(info: rendezvous.RankInfo, device: torch.device) -> dist.Store:
    """Join the other ranks; return the store for error messages."""
    rank, size, _, host, port = info
    try:
        store = dist.TCPStore(
            host, port, size, _hosts_store(rank), JOIN_TIMEOUT, wait_for_workers=False
        )
        # torchrun's store outlives a restart of its ranks: keys of different attempts must differ.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        if device.type == "cuda":
            gpu = str(torch.cuda.get_device_properties(device).uuid)
            _check_gpus(dist.PrefixStore(f"gpus{attempt}", store), gpu, rank, size)
        dist.init_process_group(
            # With GPUs, CPU tensors still use gloo: ranks agree on flags without waiting for the
            # GPU's work.
            "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl",
            store=dist.PrefixStore(f"group{attempt}", store),
            rank=rank,
            world_size=size,
            timeout=COLLECTIVE_TIMEOUT,
            device_id=None if device.type == "cpu" else device,
        )
    except (RuntimeError, OSError) as error:  # torch's network errors are RuntimeErrors
        raise MillError(
            f"rank {rank} of {size} could not join the others at {host}:{port} "
            f"({reason(error)}): MASTER_ADDR must name a host that all ranks can reach, "
            "MASTER_PORT a free port on it, and all ranks must start"
        ) from None
    return dist.PrefixStore(f"notes{attempt}", store)


def _check_gpus(store: dist.Store, gpu: str, rank: int, size: int) -> None:
    """Raise a MillError if another rank has this rank's GPU, which NCCL cannot share."""
    store.set(str(rank), gpu)
    for other in range(size):
        if other != rank and store.get(str(other)).decode() == gpu:
            raise MillError(
                f"ranks {min(rank, other)} and {max(rank, other)} have the same GPU: start one "
                "process per GPU on each machine, and give each its own GPU, as "
                "srun --gpus-per-task=1 does"
            )


def _hosts_store(rank: int) -> bool:
    """True if this process serves the TCP store; under torchrun, its agent does."""
    return rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"


def _device(device: str, local_rank: int, size: int) -> torch.device:
    number = device.removeprefix("cuda:")
    is_number = number.isascii() and number.isdigit() and len(number) < 9
    if device not in ("auto", "cpu", "cuda") and (number == device or not is_number):
        raise MillError(
            f"train.device must be auto, cpu, cuda or cuda:N, not {brief(device)}; GPUs are cuda"
        )
    count = torch.cuda.device_count()
    if device == "cpu" or (device == "auto" and not count):
        return CPU
    if device not in ("auto", "cuda") and size > 1:
        raise MillError(f"train.device={device} is one device for {size} processes: use cuda")
    name = f"cuda:{ranks.gpu_index(local_rank, count)}" if device in ("auto", "cuda") else device
    if int(name.removeprefix("cuda:")) >= count:
        wanted = "" if device == name else f", which is {name} for this rank,"
        raise MillError(
            f"train.device={device}{wanted} was requested, but torch sees {count} GPUs: "
            + ("use cuda, or another number" if count else "use cpu, or install torch for your GPU")
        )
    chosen = torch.device(name)
    torch.cuda.set_device(chosen)
    return chosen
