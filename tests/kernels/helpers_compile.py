"""Triton kernels compiled to machine code without a GPU, and what that code needs of one."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ARCHITECTURES = (80, 90)  # A100, H100


class Needs(NamedTuple):
    registers: int  # of one thread
    spilled: int  # bytes of one thread
    shared: int  # bytes of one block


def needs(
    kernel: Any, types: Mapping[str, str], constants: Mapping[str, Any], options: Mapping[str, Any],
    capability: int, folder: Path,
) -> Needs:  # fmt: skip
    """`types` are of the arguments, as "*fp32" or "i32"; pointers are taken to be aligned.

    `constants` are its tl.constexpr arguments, `options` what a launch says, as num_warps.
    """
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("kernels are interpreted in this process")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kinds = {name: "constexpr" if name in constants else types[name] for name in kernel.arg_names}
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(kernel.arg_names)
        if kinds[name].startswith("*")
    }
    source = ASTSource(fn=kernel, signature=kinds, constexprs=dict(constants), attrs=aligned)
    target = GPUTarget("cuda", capability, 32)
    compiled = triton.compile(source, target=target, options=dict(options))
    return Needs(*_usage(compiled.asm["cubin"], folder), compiled.metadata.shared)


def _usage(machine_code: bytes, folder: Path) -> tuple[int, int]:
    import triton

    file = folder / "kernel.cubin"
    file.write_bytes(machine_code)
    tool = triton.knobs.nvidia.cuobjdump.path
    run = subprocess.run([tool, "-res-usage", file], capture_output=True, text=True, check=True)
    found = re.search(r"REG:(\d+) STACK:(\d+)", run.stdout)
    assert found, run.stdout
    return int(found[1]), int(found[2])
