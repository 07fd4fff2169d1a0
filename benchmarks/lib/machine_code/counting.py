"""Count a kernel's machine instructions by kind, inside and outside of its loops.

A loop is a branch to an earlier address; instructions count once per loop, however many threads
skip them. The hottest loop is the deepest, and among those the longest.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

_LINE = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?PT?\d* +)?([A-Z][A-Z0-9_.]*)([^;]*);")
_TARGET = re.compile(r"0x([0-9a-f]+)\s*$")
_USAGE = re.compile(r"REG:(\d+) STACK:(\d+)")
_WIDTHS = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16, "256": 32}
_TENSOR = re.compile(r"[HIQBOD]G?MMA|UTC\w*MMA")
_FLOAT64 = re.compile(r"D(ADD|MUL|FMA|SETP|MNMX)|(F2F|I2F|F2I|FRND)\.(\w+\.)*F64|MUFU\.\w*64H")
# Opcode, up to the first dot: the kind of memory instruction.
_MEMORY = {
    "LDG": "load", "LDGSTS": "load", "STG": "store", "LDS": "shared", "LDSM": "shared",
    "STS": "shared", "STSM": "shared", "LDL": "local", "STL": "local",
}  # fmt: skip


@dataclass(frozen=True)
class Instruction:
    address: int
    opcode: str  # with all its suffixes
    target: int | None  # of a branch

    @property
    def kind(self) -> str:
        """load, store, shared, local, tensor, float64 or other."""
        memory = _MEMORY.get(self.opcode.split(".")[0])
        if memory:
            return memory
        if _TENSOR.match(self.opcode):
            return "tensor"
        return "float64" if _FLOAT64.match(self.opcode) else "other"

    @property
    def width(self) -> int:
        """Bytes that each thread moves by a memory instruction."""
        return next((_WIDTHS[it] for it in self.opcode.split(".") if it in _WIDTHS), 4)


@dataclass(frozen=True)
class Loop:
    """Addresses of a loop, ends included, and its nesting depth, itself included."""

    first: int
    last: int
    depth: int

    def has(self, at: Instruction) -> bool:
        return self.first <= at.address <= self.last

    def holds(self, other: Loop) -> bool:
        return self.first <= other.first and other.last <= self.last and self != other


@dataclass(frozen=True)
class MachineCode:
    """One kernel."""

    instructions: Sequence[Instruction]
    registers: int  # per thread
    spilled: int  # bytes per thread

    @cached_property
    def loops(self) -> list[Loop]:
        ends: dict[int, int] = {}  # by header: several branches back to it form one loop
        for at in self.instructions:
            if at.target is not None and at.target < at.address:
                ends[at.target] = max(at.address, ends.get(at.target, 0))
        spans = list(ends.items())
        return [
            Loop(a, b, sum(first <= a and b <= last for first, last in spans)) for a, b in spans
        ]

    @cached_property
    def hottest(self) -> Loop | None:
        return max(self.loops, key=lambda loop: (loop.depth, loop.last - loop.first), default=None)

    def within(self, loop: Loop | None) -> list[Instruction]:
        """The loop's instructions; all instructions without a loop."""
        if loop is None:
            return list(self.instructions)
        return [at for at in self.instructions if loop.has(at)]

    def by_depth(self) -> list[list[Instruction]]:
        """Instructions at nesting depth 0, 1, 2 ...; deeper ones are not counted."""
        depths = max((loop.depth for loop in self.loops), default=0)
        bodies: list[list[Instruction]] = [[] for _ in range(depths + 1)]
        for at in self.instructions:
            bodies[max((it.depth for it in self.loops if it.has(at)), default=0)].append(at)
        return bodies

    @cached_property
    def nest(self) -> list[list[Instruction]]:
        """Instructions outside of loops, then in each loop around the hottest, outermost first.

        Each excludes those of nested loops.
        """
        hottest = self.hottest
        around = [it for it in self.loops if hottest in (it, None) or it.holds(hottest)]
        around.sort(key=lambda loop: loop.depth)
        bodies: list[list[Instruction]] = [[] for _ in range(len(around) + 1)]
        for at in self.instructions:
            depth = sum(loop.has(at) for loop in around)
            if sum(loop.has(at) for loop in self.loops) == depth:
                bodies[depth].append(at)
        return bodies

    @cached_property
    def other_loops(self) -> list[Instruction]:
        """Instructions in loops that neither contain the hottest nor are it."""
        nested = {at.address for body in self.nest for at in body}
        return [at for at in self.instructions if at.address not in nested]


def read(cubin: bytes, tool: str) -> MachineCode:
    """Disassemble with `tool`, the path of a cuobjdump with an nvdisasm next to it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.cubin")
        file.write_bytes(cubin)
        command = [tool, "-res-usage", "-sass", str(file)]
        return parse(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def parse(listing: str) -> MachineCode:
    """Parse cuobjdump's listing of one kernel."""
    usage = _USAGE.search(listing)
    if usage is None:
        raise ValueError(f"no resource usage in this listing: {listing[:200]!r}")
    instructions = []
    for address, opcode, operands in _LINE.findall(listing):
        target = _TARGET.search(operands) if "BRA" in opcode else None
        at = int(target[1], 16) if target else None
        instructions.append(Instruction(int(address, 16), opcode, at))
    return MachineCode(_without_padding(instructions), int(usage[1]), int(usage[2]))


def _without_padding(instructions: list[Instruction]) -> list[Instruction]:
    """Remove the branch to itself after a kernel's end and everything after it."""
    for i, at in enumerate(instructions):
        if at.target == at.address:
            return instructions[:i]
    return instructions


def kinds(instructions: Sequence[Instruction]) -> Counter[str]:
    return Counter(at.kind for at in instructions)


def widths(instructions: Sequence[Instruction], kind: str) -> Counter[int]:
    """Memory instructions of one kind by their bytes per thread."""
    return Counter(at.width for at in instructions if at.kind == kind)
