"""Data parallelism: a full replica on each rank (DDP), or sharded parameters (FSDP2)."""

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


def wrap(method: Method, parallel: str, world: distributed.World) -> nn.Module:
    """Wrap the method to average gradients over ranks; return it unchanged for one rank."""
    if world.size == 1:
        return method
    return _shard(method, world) if parallel == "fsdp" else replicate(method, world)


def replicate(module: nn.Module, world: distributed.World) -> nn.Module:
    """Wrap the module in DDP, a full replica on each rank; return it unchanged for one rank."""
    if world.size == 1:
        return module
    from torch.nn.parallel import DistributedDataParallel

    # No buffer broadcast in each step: batch-norm statistics may differ between ranks until the
    # next checkpoint; queues never do.
    parameters = inspect.signature(DistributedDataParallel).parameters
    sync = "forward_sync_buffers" if "forward_sync_buffers" in parameters else "broadcast_buffers"
    options: dict[str, Any] = {sync: False, "gradient_as_bucket_view": True}
    return DistributedDataParallel(module, **options)


def convert_sync_bn(method: Method, world: distributed.World) -> Method:
    """Replace batch norms with SyncBatchNorm, in place."""
    if world.size == 1:
        return method
    if world.device.type != "cuda":
        raise MillError("train.sync_bn=true needs GPUs: torch has no SyncBatchNorm for the CPU")
    nn.SyncBatchNorm.convert_sync_batchnorm(method)
    return method


def is_sharded(model: nn.Module) -> bool:
    return hasattr(model, "set_requires_gradient_sync")  # which FSDP2 adds


def full_norm(norm: torch.Tensor) -> torch.Tensor:
    """Return the norm over all shards."""
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


@contextlib.contextmanager
def grad_sync(model: Any, enabled: bool) -> Iterator[None]:
    """Let backward passes inside reduce gradients over ranks, or only accumulate them."""
    if is_sharded(model):
        model.set_requires_gradient_sync(enabled)
        yield
    elif hasattr(model, "no_sync") and not enabled:
        with model.no_sync():
            yield
    else:
        yield


def full_state(state: Any, keep: bool) -> Any:
    """Copy a state dict to the CPU, with sharded tensors gathered.

    A collective: all ranks must call it; those without `keep` get None instead of tensors.
    """
    if isinstance(state, DTensor):
        full = state.full_tensor()
        return full.cpu() if keep else None
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True) if keep else None
    if isinstance(state, dict):
        return {key: full_state(value, keep) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(full_state(value, keep) for value in state)
    return state


def load_optimiser(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a full optimiser state, sharded like the parameters."""
    params = [param for group in optimiser.param_groups for param in group["params"]]
    sharded = {
        index: {name: _shard_like(params[index], value) for name, value in entries.items()}
        for index, entries in state["state"].items()
    }
    optimiser.load_state_dict(state | {"state": sharded})


def _shard_like(param: torch.Tensor, value: Any) -> Any:
    if not isinstance(param, DTensor) or getattr(value, "shape", None) != param.shape:
        return value
    return distribute_tensor(value.to(param.device), param.device_mesh, param.placements)


def _shard(method: Method, world: distributed.World) -> nn.Module:
    """Shard with one FSDP unit per block of each network: only active blocks are gathered."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(world.device.type, (world.size,))
    teachers = [part.module for part in method.modules() if isinstance(part, Teacher)]
    for network in (method.backbone, *(net for teacher in teachers for net in teacher.children())):
        for stack in network.children():
            if isinstance(stack, nn.Sequential | nn.ModuleList):
                for block in stack:
                    fully_shard(block, mesh=mesh)
    # Evaluation calls these separately, and dense methods take feature maps from them.
    for part in dict.fromkeys((*method.networks("student"), *method.networks())):
        if part is not None:
            fully_shard(part, mesh=mesh)
            if hasattr(part, "forward_intermediates"):
                register_fsdp_forward_method(part, "forward_intermediates")
    fully_shard(method, mesh=mesh)
    return method
