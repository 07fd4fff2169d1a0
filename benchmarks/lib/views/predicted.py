"""Predict the time of the resize pass on a GPU from its machine code: a count, not a measurement.

    python -m patchmill.benchmarks.lib.views.predicted [--recipe dino] [--batch-size 256]

Instructions are counted per warp: those of a step (the innermost loop), of a strip (the loop around
it) and all others once, which is an upper bound: of alternatives, one runs. A scheduler issues one
a cycle if it has a warp that can go on; a step makes its warp wait STALL cycles in all for shared
memory, tensor cores and what is left of its loads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from patchmill.benchmarks.lib import report
from patchmill.benchmarks.lib.machine_code import counting, occupancy
from patchmill.benchmarks.lib.machine_code.counting import MachineCode
from patchmill.benchmarks.lib.views.floors import floors
from patchmill.benchmarks.lib.views.stages import make_input
from patchmill.kernels.views.decisions import Target
from patchmill.loaders import presets
from patchmill.loaders.common.errors import run_command

CLOCK, MULTIPROCESSORS, BANDWIDTH = 1.98e9, 132, 4.3e12  # of an H200
STEP = 16, 32  # source rows and columns of a step
STALL = 400  # cycles a step; an assumption
JITTER = (
    1 / 3
)  # of the jitter's loop, by one operation on average: hue is most of it, blends little
CONTRAST = 0.8 * 1.5  # operations before a contrast, in DINO's recipe


@dataclass(frozen=True)
class Steps:
    """What a batch needs of the resize pass."""

    tiles: int
    strips: int
    steps: int


@dataclass(frozen=True)
class Instructions:
    """Of one warp."""

    step: int
    strip: int  # without its steps
    tile: float  # without its strips

    @staticmethod
    def of(code: MachineCode) -> Instructions:
        step = code.hottest
        strip = min(
            (loop for loop in code.loops if step and loop.holds(step)),
            key=lambda loop: loop.last - loop.first,
        )
        inner, outer = len(code.within(step)), len(code.within(strip))
        jitter = max(
            len(code.within(loop)) for loop in code.loops if loop.depth == 1 and loop != strip
        )
        once = len(code.by_depth()[0])
        return Instructions(inner, outer - inner, once + JITTER * CONTRAST * jitter)


def steps(rows: np.ndarray, targets: Sequence[Target], tile: int, down: int, across: int) -> Steps:
    """Steps of `down` x `across` source pixels, summed over the tiles of all views."""
    tiles = strips = total = first = 0
    for target in targets:
        group = rows[:, first : first + target.count].ravel()
        first += target.count
        needed = [
            -(-_lengths(group, axis, target, tile) // taps)
            for axis, taps in (("h", down), ("w", across))
        ]
        tiles += needed[0].shape[1] ** 2 * len(group)
        strips += int(needed[1].sum()) * needed[0].shape[1]
        total += int((needed[0].sum(1) * needed[1].sum(1)).sum())
    return Steps(tiles, strips, total)


def _lengths(rows: np.ndarray, axis: str, target: Target, tile: int) -> np.ndarray:
    """Source pixels under each tile along an axis, [rows, tiles], as `gpu.footprint` has them."""
    window = rows[{"h": "win_y", "w": "win_x"}[axis]].astype(np.int64)[:, None]
    box, full = (rows[name + axis].astype(np.float64)[:, None] for name in ("box_", "full_"))
    scale = box / full
    reach = (2 if target.bicubic else 1) * np.maximum(scale, 1)
    begin = window + tile * np.arange(-(-target.size // tile))
    low = np.clip(begin, 0, full - 1)
    high = np.clip(np.minimum(begin + tile, window + target.size) - 1, 0, full - 1)
    start = np.maximum((low + 0.5) * scale - reach, 0).astype(np.int64)
    stop = np.minimum(((high + 0.5) * scale + reach).astype(np.int64) + 1, box.astype(np.int64))
    return stop - start


def seconds(
    count: Instructions, work: Steps, warps_of_a_tile: int, warps: int, stall: float = STALL
) -> tuple[float, float]:
    """If schedulers always issue, and with `warps` on a multiprocessor that wait."""
    of_all = warps_of_a_tile * (
        work.steps * count.step + work.strips * count.strip + work.tiles * count.tile
    )
    issue = of_all / (CLOCK * MULTIPROCESSORS * occupancy.SCHEDULERS)
    mine = warps / occupancy.SCHEDULERS
    return issue, issue / min(1, mine * count.step / (count.step + stall))


def machine_code(capability: int = 90) -> tuple[MachineCode, int, int]:
    """The resize kernel for large bicubic views in bfloat16; warps of a tile, and at once."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from patchmill.kernels.views.gpu.launch import COMPILER, constants, resize
    from patchmill.kernels.views.gpu.tables import Pass, Variant

    empty = Pass(np.zeros(0), np.zeros(0), 0)
    given = constants(resize, Variant(32, True, True, 1, *[empty] * 4), channels_last=False)
    options = {name: given.pop(name) for name in (*COMPILER, "num_warps")}
    signature = {name: TYPES.get(name, "i32") for name in resize.arg_names}
    signature |= dict.fromkeys(given, "constexpr")
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(resize.arg_names)
        if signature[name].startswith("*")
    }
    source = ASTSource(fn=resize, signature=signature, constexprs=given, attrs=aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    code = counting.read(compiled.asm["cubin"], triton.knobs.nvidia.cuobjdump.path)
    warps = occupancy.warps(
        capability, code.registers, compiled.metadata.shared, options["num_warps"]
    )
    return code, options["num_warps"], warps


TYPES = {
    "images": "*i64", "paste_table": "*i64", "filter_table": "*i32", "weights": "*fp16",
    "rows": "*i32", "slots": "*i64", "groups": "*i32", "out": "*bf16", "planes": "*fp16",
    "luma_sums": "*fp32",
}  # fmt: skip


def main(words: Sequence[str] | None = None) -> None:
    parser = report.Parser("predicted", __doc__)
    parser.add_argument("--recipe", default="dino")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--json", metavar="FILE")
    settings = parser.parse_args(words)
    report.check_writable(settings.json)
    batch = make_input(presets.ALL[settings.recipe](), settings.batch_size)
    code, warps_of_a_tile, warps = machine_code()
    count, work = Instructions.of(code), steps(batch.rows, batch.targets, 32, *STEP)
    issue, waiting = seconds(count, work, warps_of_a_tile, warps)
    floor = floors(batch.rows, batch.shapes, batch.targets, 2, 32)["resize"].memory(BANDWIDTH)
    found = {
        **asdict(count), **asdict(work), "registers": code.registers, "spilled": code.spilled,
        "warps": warps, "floor_ms": 1e3 * floor, "issue_ms": 1e3 * issue, "ms": 1e3 * waiting,
        "floor_share": floor / waiting,
    }  # fmt: skip
    for name, value in found.items():
        print(f"{name:12} {value:12.4g}" if isinstance(value, float) else f"{name:12} {value:12}")
    if settings.json:
        report.write_json(settings.json, found)


if __name__ == "__main__":
    run_command(main)
