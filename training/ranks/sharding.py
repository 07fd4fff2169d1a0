"""How a method is spread over ranks: whole on each of them (DDP), or in pieces (FSDP2)."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from patchmill.loaders.common.errors import MillError
from patchmill.training.methods import Method
from patchmill.training.nets.ema import Teacher
from patchmill.training.ranks import distributed


def spread(method: Method, parallel: str, world: distributed.World) -> nn.Module:
    """What to call for a loss, so that gradients become the mean over ranks."""
    if world.size == 1:
        return method
    if parallel == "fsdp":
        return _shard(method, world)
    from torch.nn.parallel import DistributedDataParallel

    # Statistics of batch norms differ among ranks between checkpoints, and queues never do: sending
    # all of that at every step would buy nothing.
    known = inspect.signature(DistributedDataParallel).parameters
    sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {sync: False, "gradient_as_bucket_view": True}
    return DistributedDataParallel(method, **options)


def sync_norms(method: Method, world: distributed.World) -> Method:
    """With batch norms over the batches of all ranks."""
    if world.size == 1:
        return method
    if world.device.type != "cuda":
        raise MillError("train.sync_bn=true needs GPUs: torch has no such batch norm for the CPU")
    nn.SyncBatchNorm.convert_sync_batchnorm(method)
    return method


def in_pieces(model: nn.Module) -> bool:
    return hasattr(model, "set_requires_gradient_sync")  # which FSDP2 adds


def total(norm: torch.Tensor) -> torch.Tensor:
    """Over all pieces."""
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


@contextlib.contextmanager
def gradients(model: Any, complete: bool) -> Iterator[None]:
    """Backward passes in here leave the exchange among ranks for later, unless it is `complete`."""
    if in_pieces(model):
        model.set_requires_gradient_sync(complete)
        yield
    elif hasattr(model, "no_sync") and not complete:
        with model.no_sync():
            yield
    else:
        yield


def whole(state: Any, keep: bool) -> Any:
    """The same data on the CPU, apart from what is trained on, with pieces put together.

    All ranks have to call it; those that do not `keep` it get None for tensors.
    """
    if isinstance(state, DTensor):
        full = state.full_tensor()
        return full.cpu() if keep else None
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True) if keep else None
    if isinstance(state, dict):
        return {key: whole(value, keep) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(whole(value, keep) for value in state)
    return state


def load_optimiser(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Whole state, in pieces where the parameters are."""
    params = [param for group in optimiser.param_groups for param in group["params"]]
    cut = {
        number: {name: _like(params[number], value) for name, value in known.items()}
        for number, known in state["state"].items()
    }
    optimiser.load_state_dict(state | {"state": cut})


def _like(param: torch.Tensor, value: Any) -> Any:
    if not isinstance(param, DTensor) or getattr(value, "shape", None) != param.shape:
        return value
    return distribute_tensor(value.to(param.device), param.device_mesh, param.placements)


def _shard(method: Method, world: distributed.World) -> nn.Module:
    """Blocks of networks are units: only those at work are whole in memory."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    teachers = [part.module for part in method.modules() if isinstance(part, Teacher)]
    for network in (method.backbone, *(net for teacher in teachers for net in teacher.children())):
        for stack in network.children():
            if isinstance(stack, nn.Sequential | nn.ModuleList):
                for block in stack:
                    fully_shard(block, mesh=mesh)
    fully_shard(method.backbone, mesh=mesh)  # which is also called alone, to evaluate it
    fully_shard(method, mesh=mesh)
    return method
