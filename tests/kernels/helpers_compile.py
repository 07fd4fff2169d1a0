"""Compile Triton kernels to machine code without a GPU and read its resource usage.

The architectures are an A100 and an H100, or those of PATCHMILL_ARCHITECTURES ("90 100"). The file
named by PATCHMILL_COMPILED gets a line of JSON for each kernel; benchmarks/compile_matrix.py sets
both variables.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ARCHITECTURES = [int(name) for name in os.environ.get("PATCHMILL_ARCHITECTURES", "80 90").split()]


class Usage(NamedTuple):
    registers: int  # per thread
    spilled: int  # bytes per thread
    shared: int  # bytes per block


def resource_usage(
    kernel: Any, types: Mapping[str, str], constants: Mapping[str, Any], options: Mapping[str, Any],
    capability: int, folder: Path,
) -> Usage:  # fmt: skip
    """Compile for a compute capability; skips without Triton, or where kernels are interpreted.

    `types` are the arguments' types, such as "*fp32" or "i32"; pointers are assumed 16-byte
    aligned. `constants` are the tl.constexpr arguments, `options` launch options such as num_warps.
    """
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("kernels are interpreted in this process")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {
        name: "constexpr" if name in constants else types[name] for name in kernel.arg_names
    }
    aligned = {
        (position,): [["tt.divisibility", 16]]
        for position, name in enumerate(kernel.arg_names)
        if signature[name].startswith("*")
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=dict(constants), attrs=aligned)
    target = GPUTarget("cuda", capability, 32)
    compiled = triton.compile(source, target=target, options=dict(options))
    usage = Usage(*_registers_and_stack(compiled.asm["cubin"], folder), compiled.metadata.shared)
    assert usage.registers > 8, "only a trap is left of the kernel: the compiler gave up silently"
    if file := os.environ.get("PATCHMILL_COMPILED"):
        with open(file, "a") as lines:
            lines.write(json.dumps({"kernel": kernel.__name__, **usage._asdict()}) + "\n")
    return usage


def _registers_and_stack(machine_code: bytes, folder: Path) -> tuple[int, int]:
    import triton

    file = folder / "kernel.cubin"
    file.write_bytes(machine_code)
    tool = triton.knobs.nvidia.cuobjdump.path
    run = subprocess.run([tool, "-res-usage", file], capture_output=True, text=True, check=True)
    found = re.search(r"REG:(\d+) STACK:(\d+)", run.stdout)
    assert found, run.stdout
    return int(found[1]), int(found[2])
