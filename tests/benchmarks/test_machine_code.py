"""Machine code counts: loops, widths, occupancy, and budgets."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from patchmill.benchmarks.lib.machine_code import budgets, counting, matrix, occupancy

LISTING = """
Resource usage:
 Function sum_rows:
  REG:168 STACK:24 SHARED:1024 LOCAL:0 CONSTANT[0]:616 TEXTURE:0 SURFACE:0 SAMPLER:0
	code for sm_90a
		Function : sum_rows
        /*0000*/                   LDC R1, c[0x0][0x28] ;                /* 0x00000a00ff017b82 */
                                                                         /* 0x000fe20000000800 */
        /*0010*/                   DMUL R2, R2, R4 ;                     /* 0x00000a00ff017b82 */
        /*0020*/                   I2F.F64 R2, R4 ;
        /*0030*/              @!P0 LDG.E.LTC128B.128 R4, desc[UR6][R2.64] ;
        /*0040*/              @!P3 LDG.E.U16.CONSTANT R4, desc[UR6][R2.64] ;
        /*0050*/                   HFMA2.MMA R11, -RZ, RZ, 0, 1.78 ;
        /*0060*/                   LDSM.16.M88.4 R4, [R3] ;
        /*0070*/                   HMMA.16816.F32 R4, R4, R6, R4 ;
        /*0080*/               @P1 BRA 0x60 ;
        /*0090*/              @!UP2 BRA.U UP0, 0xb0 ;
        /*00a0*/                   STG.E.64 desc[UR6][R2.64], R4 ;
        /*00b0*/               @P1 BRA 0x30 ;
        /*00c0*/                   EXIT ;
        /*00d0*/                   BRA 0xd0 ;
        /*00e0*/                   NOP ;
"""


def test_a_listing_is_counted():
    code = counting.parse(LISTING)
    assert (code.registers, code.spilled) == (168, 24)
    assert len(code.instructions) == 13, "neither the code words nor the padding"
    assert [len(body) for body in code.nest] == [4, 6, 3]
    assert not code.other_loops
    assert counting.kinds(code.within(code.hottest)) == {"shared": 1, "tensor": 1, "other": 1}
    assert counting.widths(code.instructions, "load") == {16: 1, 2: 1}
    assert counting.widths(code.instructions, "store") == {8: 1}
    assert counting.kinds(code.instructions)["float64"] == 2


@pytest.mark.parametrize(
    ("needs", "warps"),
    [
        ((90, 168, 4096, 2), 12),
        ((90, 32, 0, 4), 64),
        ((80, 32, 80 * 1024, 4), 8),
        ((90, 8, 0, 1), 32),
    ],
    ids=["registers", "warps", "shared", "blocks"],
)
def test_occupancy_is_limited_by(needs: tuple[int, int, int, int], warps: int):
    assert occupancy.warps(*needs) == warps


GOOD = budgets.Counts(
    instructions=1000, loop=200, tensor=14, shared_accesses=9, loads="4x4 3x16", stores="6x8",
    float64=0, registers=128, spilled=0, shared=2048, warps=16,
)  # fmt: skip


@pytest.mark.parametrize(
    "worse",
    [
        {"loop": 211},
        {"loads": "28x4"},  # the same bytes, no longer 16 at a time
        {"loads": "4x4 4x16"},
        {"stores": "24x2"},
        {"float64": 1},
        {"spilled": 8},
        {"warps": 12},
    ],
    ids=str,
)
def test_counts_worse_than_their_budget_fail(worse: dict[str, Any]):
    assert len(budgets.excess(replace(GOOD, **worse), GOOD)) == 1


@pytest.mark.parametrize("better", [{}, {"loop": 150}, {"loads": "3x16"}, {"warps": 24}], ids=str)
def test_counts_no_worse_pass(better: dict[str, Any]):
    assert budgets.excess(replace(GOOD, **better), GOOD) == []


def test_the_table_is_read_as_written_and_holds_the_worst_of_all_gpus(tmp_path: Path):
    usage = "\n".join(
        json.dumps({"kernel": "views.blur", "variant": "TILE=32", "triton": "3.8"} | more)
        for more in (
            {"architecture": 80, **asdict(replace(GOOD, loop=210, warps=12))},
            {"architecture": 90, **asdict(replace(GOOD, loads="8x2 2x16"))},
        )
    )
    found = matrix.lines(matrix.compiled(usage))
    budgets.write(tmp_path / "budgets.csv", found)
    table = budgets.read(tmp_path / "budgets.csv")
    expected = replace(GOOD, loop=210, warps=12, loads="8x2 2x16")
    assert table == found
    assert [line.counts for line in table.values()] == [expected]
    # A Triton missing from the table has the budget of the others.
    assert budgets.budget_of(table, "views.blur", "TILE=32", "3.9") == expected
    assert matrix.beyond(matrix.compiled(usage), table, everything=True) == []
    assert matrix.beyond([], table, everything=True) == [
        "views.blur [TILE=32] has a budget, but no test compiles it"
    ]


def test_a_load_that_becomes_narrow_is_found_in_compiled_code():
    """The same kernel, with and without the hint that rows start at multiples of 16."""
    triton = pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("kernels are interpreted in this process")
    from helpers_machine_code import copy_row
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    found = []
    for known in (16, 1):
        attributes = {(i,): [["tt.divisibility", known]] for i in range(3)}
        signature = {"source": "*fp16", "out": "*fp16", "pitch": "i32", "SIZE": "constexpr"}
        source = ASTSource(copy_row, signature, {"SIZE": 1024}, attributes)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
        code = counting.read(compiled.asm["cubin"], triton.knobs.nvidia.cuobjdump.path)
        found.append(budgets.counts(code, 90, compiled.metadata.shared, 4))
    wide, narrow = found
    assert wide.loads == wide.stores == "1x16"
    assert [phrase.split()[0] for phrase in budgets.excess(narrow, wide)] == [
        "instructions", "loads", "stores",
    ]  # fmt: skip
