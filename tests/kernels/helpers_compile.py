"""Compile Triton kernels to machine code without a GPU, read its resource usage, and count it.

The architectures are an A100 and an H100, or those of PATCHMILL_ARCHITECTURES ("90 100"). The file
named by PATCHMILL_COMPILED gets a line of JSON per kernel; benchmarks/compile_matrix.py sets both
variables, compares all counts with `budgets.csv`, and writes that table. Otherwise only the first
variant of each kernel in it is counted for an H100 and compared: disassembly takes 0.3 s.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from patchmill.benchmarks.lib.machine_code import budgets, counting

ARCHITECTURES = [int(name) for name in os.environ.get("PATCHMILL_ARCHITECTURES", "80 90").split()]
BUDGETS = Path(__file__).with_name("budgets.csv")
COUNTED = 90  # architecture whose code is compared in every run


class Usage(NamedTuple):
    registers: int  # per thread
    spilled: int  # bytes per thread
    shared: int  # bytes per block


def resource_usage(
    kernel: Any, types: Mapping[str, str], constants: Mapping[str, Any], options: Mapping[str, Any],
    capability: int, folder: Path,
) -> Usage:  # fmt: skip
    """Compile for a compute capability; skips without Triton, or if kernels are interpreted.

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
    assert usage.registers > 8, "the kernel compiled to a trap: the compiler gave up silently"
    name = kernel_name(kernel)
    excess = _count(name, variant_name(signature, constants), compiled, capability)
    assert not excess, f"{name}'s machine code exceeds its budget: {', '.join(excess)}"
    return usage


def kernel_name(kernel: Any) -> str:
    """folder.name, such as views.resize."""
    return f"{kernel.__module__.split('.kernels.')[1].split('.')[0]}.{kernel.__name__}"


def variant_name(signature: Mapping[str, str], constants: Mapping[str, Any]) -> str:
    """The constants, and the element types of the pointers."""
    numbers = [of.strip("*") for of in signature.values() if re.match(r"\*(bf|fp|u8)", of)]
    settings = [f"{name}={value}" for name, value in constants.items()]
    return " ".join([*sorted(settings), *numbers])


def _count(name: str, variant: str, compiled: Any, capability: int) -> list[str]:
    """List the counts that exceed the budget; empty if nothing is counted."""
    import triton

    record = os.environ.get("PATCHMILL_COMPILED")
    table = _table()
    first = capability == COUNTED and budgets.first_variants(table).get(name) == variant
    if not (record or first):
        return []
    code = counting.read(compiled.asm["cubin"], triton.knobs.nvidia.cuobjdump.path)
    meta = compiled.metadata
    counts = budgets.counts(code, capability, meta.shared, meta.num_warps)
    version = ".".join(triton.__version__.split(".")[:2])
    if record:
        line = {"kernel": name, "variant": variant, "triton": version, "architecture": capability}
        with open(record, "a") as lines:
            lines.write(json.dumps(line | asdict(counts)) + "\n")
        return []
    budget = budgets.budget_of(table, name, variant, version)
    return budgets.excess(counts, budget) if budget else []


@functools.cache
def _table() -> budgets.Table:
    return budgets.read(BUDGETS) if BUDGETS.exists() else {}


def _registers_and_stack(machine_code: bytes, folder: Path) -> tuple[int, int]:
    import triton

    file = folder / "kernel.cubin"
    file.write_bytes(machine_code)
    tool = triton.knobs.nvidia.cuobjdump.path
    run = subprocess.run([tool, "-res-usage", file], capture_output=True, text=True, check=True)
    found = re.search(r"REG:(\d+) STACK:(\d+)", run.stdout)
    assert found, run.stdout
    return int(found[1]), int(found[2])
