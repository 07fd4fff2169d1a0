"""Compile a kernel launch for a GPU that is not present."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from patchmill.benchmarks.lib.machine_code import counting
from patchmill.benchmarks.lib.machine_code.counting import MachineCode


class NoGPU:
    """Just enough of a Triton driver to compile a launch."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)


def compile_launch(
    kernel: Any, arguments: Mapping[str, Any], capability: int
) -> tuple[MachineCode, Any]:
    """The machine code of a launch with these arguments, and Triton's metadata."""
    import triton
    from triton.runtime import driver

    driver.set_active(NoGPU(capability))
    try:
        compiled = kernel.warmup(grid=(1,), **arguments)
    finally:
        with contextlib.suppress(RuntimeError):  # if there is no driver to restore
            driver.reset_active()
    code = counting.read(compiled.asm["cubin"], triton.knobs.nvidia.cuobjdump.path)
    return code, compiled.metadata
