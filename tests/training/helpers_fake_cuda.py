"""A fake GPU: tensors without memory on a fake CUDA device, and the waits for it.

Everything runs as it would on a GPU but for the numbers: torch computes shapes and types, autograd
its graph, custom operators their GPU code, whose Triton kernels are not launched. What would make
the program wait for the GPU goes into `FakeCuda.waits`:

* reading a number or a shape that the GPU computes: `item`, `tolist`, `if tensor`, a boolean mask;
* a copy between CPU and GPU that is not `non_blocking`, is not from page-locked memory, or changes
  the type on the way, for which torch makes a copy in other memory;
* lists and CPU tensors as indices, and other operands on the CPU but numbers, which are copied;
* `synchronize` of the device, a stream or an event.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import nn
from torch._library.custom_ops import OPDEFS
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _foreach_utils
from torch.utils._pytree import tree_leaves

import patchmill
from patchmill.loaders.batch import ViewBatch

aten = torch.ops.aten
CUDA, META = torch.device("cuda", 0), torch.device("meta")
ROOT = Path(patchmill.__file__).resolve().parents[1]
COPIED = (aten.where.self, aten.index_put.default, aten.index_put_.default)  # even numbers


class Wait(NamedTuple):
    where: str  # file and function of ours
    what: str


class FakeCuda(FakeTensorMode):
    """A mode in which CUDA tensors are fake; see the module.

    To C++ a tensor is on the meta device, whose backward pass needs no driver; to Python on CUDA.
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.waits: list[Wait] = []
        self._pinned: dict[int, Any] = {}  # storages by address, which is theirs while they live
        self._nested = False

    def wait(self, what: str) -> None:
        self.waits.append(Wait(_place(), what))

    def dispatch(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.prim.device.default:
            return _device_in_cpp(args[0])
        kwargs = dict(kwargs or {})
        if kwargs.get("device") == META and not self.in_kernel_invocation:
            kwargs["device"] = CUDA
        if func is aten.nonzero.default:
            if args[0].is_cuda:
                self.wait("nonzero, or a boolean mask")
            with self:
                return torch.empty(1, args[0].ndim, dtype=torch.int64, device=args[0].device)
        if self._nested:  # a decomposition, of which a GPU knows nothing
            return super().dispatch(func, types, args, kwargs)
        if func.namespace == "patchmill":
            with self:
                return OPDEFS[func._schema.name]._init_fn(*args, **kwargs)
        self._nested = True
        try:
            return self._checked(func, types, args, kwargs)
        finally:
            self._nested = False

    def _checked(self, func: Any, types: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        on_gpu = any(tensor.is_cuda for tensor in tensors)
        if func is aten.is_pinned.default:
            return _storage(args[0]) in self._pinned
        if func is aten._pin_memory.default:
            return self._pin(torch.empty_like(args[0]))
        if func in (aten._local_scalar_dense.default, aten.equal.default):
            if on_gpu:
                self.wait("item, or the like")
            elif (known := getattr(args[0], "constant", None)) is not None:
                return known.item()
            return int(args[0].dtype == torch.bool or args[0].is_floating_point())  # unknown
        if func is aten._to_copy.default:
            target = kwargs.get("device") or args[0].device
            blocking = not kwargs.get("non_blocking", False)
            self._check_copy(args[0], target, kwargs.get("dtype") or args[0].dtype, blocking)
        elif func is aten.copy_.default:
            blocking = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
            self._check_copy(args[1], args[0].device, args[0].dtype, blocking)
        elif on_gpu and any(
            tensor.is_cpu and (tensor.ndim or func in COPIED) for tensor in tensors
        ):
            self.wait(f"{func} with a tensor on the CPU")
        out = super().dispatch(func, types, args, kwargs)
        return self._pin(out) if kwargs.get("pin_memory") else out

    def _check_copy(
        self, source: torch.Tensor, device: torch.device, dtype: torch.dtype, blocking: bool
    ) -> None:
        if source.device.type == device.type:
            return
        way = f"copy from {source.device.type} to {device.type}"
        if blocking:
            self.wait(f"blocking {way}")
        elif source.is_cpu and _storage(source) not in self._pinned:
            self.wait(f"{way} from pageable memory")
        elif source.is_cpu and source.dtype != dtype:
            self.wait(f"{way} that changes the type")

    def _pin(self, tensor: torch.Tensor) -> torch.Tensor:
        self._pinned[_storage(tensor)] = tensor.untyped_storage()
        return tensor


@contextlib.contextmanager
def fake_cuda() -> Iterator[FakeCuda]:
    """The mode, and a torch that believes in its GPU; for one thread."""
    mode = FakeCuda()
    kinds = [*_foreach_utils._foreach_supported_types, FakeTensor]
    gpu = types.SimpleNamespace(multi_processor_count=132)
    with contextlib.ExitStack() as stack, mode:

        def patch(owner: Any, **values: Any) -> None:
            for name, value in values.items():
                if hasattr(owner, name):
                    stack.enter_context(mock.patch.object(owner, name, value))

        patch(
            FakeTensor,
            is_cuda=property(lambda tensor: tensor.device.type == "cuda"),
            is_cpu=property(lambda tensor: tensor.device.type == "cpu"),
            __torch_dispatch__=_asking_for_devices(),
            __getitem__=_indexed(mode, torch.Tensor.__getitem__),
            __setitem__=_indexed(mode, torch.Tensor.__setitem__),
            new_tensor=lambda tensor, data: torch.tensor(data, device=tensor.device),
        )
        patch(
            torch.cuda,
            is_available=lambda: True,
            is_bf16_supported=lambda *_, **__: True,
            device=lambda _: contextlib.nullcontext(),
            get_device_properties=lambda _: gpu,
            max_memory_allocated=lambda _: 0,
            synchronize=lambda *_: mode.wait("synchronize"),
        )
        for owner in (torch.cuda.Stream, torch.cuda.Event):
            patch(owner, synchronize=lambda *_: mode.wait("synchronize"))
        patch(_foreach_utils, _foreach_supported_types=kinds)
        patch(sys.modules[torch.optim.Optimizer.__module__], _foreach_supported_types=kinds)
        checks = ("_cuda_graph_capture_health_check", "_accelerator_graph_capture_health_check")
        patch(torch.optim.Optimizer, **dict.fromkeys(checks, lambda _: None))
        from triton.runtime.jit import JITFunction

        patch(JITFunction, run=_launch)
        yield mode


def move(module: nn.Module) -> nn.Module:
    """The module with fake parameters and buffers on the GPU, in place; in `fake_cuda`."""
    moved: dict[int, torch.Tensor] = {}  # shared ones stay shared
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = moved.setdefault(id(tensor), on_gpu(tensor))
    return module


def on_gpu(tensor: torch.Tensor) -> torch.Tensor:
    """A fake of a tensor, on the GPU."""
    fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=CUDA)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(fake, tensor.requires_grad)
    return fake


def batch_on_gpu(batch: ViewBatch) -> ViewBatch:
    """The batch as a loader with device="cuda" gives it: views and labels are there already."""
    return batch._with(on_gpu)


def _device_in_cpp(tensor: Any) -> torch.device:
    return META if tensor.fake_device.type == "cuda" else tensor.fake_device


def _asking_for_devices() -> Any:
    """FakeTensor's own dispatch, where no mode is active."""
    dispatch = FakeTensor.__torch_dispatch__.__func__  # type: ignore[attr-defined]

    def answer(
        kind: type, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.prim.device.default:
            return _device_in_cpp(args[0])
        return dispatch(kind, func, types, args, kwargs)

    return classmethod(answer)


def _indexed(mode: FakeCuda, method: Callable[..., Any]) -> Callable[..., Any]:
    """`__getitem__` or `__setitem__`; torch makes a tensor of a list, and copies it."""

    def checked(tensor: torch.Tensor, index: Any, *value: torch.Tensor) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        if tensor.is_cuda and any(isinstance(part, list | range) for part in parts):
            mode.wait("a list as an index")
        return method(tensor, index, *value)

    return checked


def _launch(kernel: Any, *args: Any, **options: Any) -> None:
    """Launch nothing; the pointers must be the GPU's."""
    for value in (*args, *options.values()):
        if isinstance(value, torch.Tensor):
            assert value.is_cuda, f"{kernel.__name__} gets a tensor on the CPU"


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _place() -> str:
    """The innermost function of ours that is being called: `training/methods/moco.py: _key`."""
    frame = sys._getframe(1)
    while frame.f_back:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT) and path.parts[len(ROOT.parts)] not in ("tests", ".venv"):
            return f"{path.relative_to(ROOT)}: {frame.f_code.co_name}"
        frame = frame.f_back
    return "outside"
