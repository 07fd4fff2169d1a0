"""On the CPU: products of blocks by the BLAS, searched while they are in the processor's cache.

Neighbouring pairs are multiplied together where their maps lie evenly in memory, as they do for a
batch whose pairs are listed image by image or view by view: nothing is gathered for it.

Each block is one thread's: results are the same to the bit, whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from patchmill.kernels.common import jit
from patchmill.kernels.common.floats16 import as_numpy
from patchmill.kernels.common.parallel import parallel_for, parallel_ranges
from patchmill.kernels.matching import cpu_loops as loops
from patchmill.kernels.matching.kept import Kept

ROWS = 256  # tokens of a in a block of products
NUMBERS = 1 << 16  # in a block, at most
PAIRS = 8  # in a block, at most
CONVERTED = 1 << 16  # numbers of maps that a thread makes float32 at once


def best(
    a: torch.Tensor, b: torch.Tensor, of_a: torch.Tensor, of_b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    found = search(a, b, of_a, of_b, scales(a), scales(b))
    return found.best_a, found.place_a.long(), found.best_b, found.place_b.long()


def correspond(
    student: torch.Tensor,
    teacher: torch.Tensor,
    of_student: torch.Tensor,
    of_teacher: torch.Tensor,
    keep: int,
) -> tuple[torch.Tensor, Kept]:
    scale_a, scale_b = scales(student), scales(teacher)
    found = search(student, teacher, of_student, of_teacher, scale_a, scale_b)
    mean_a, partner_a = select(found.best_a, found.place_a, keep)
    mean_b, partner_b = select(found.best_b, found.place_b, keep)
    kept = Kept(partner_a, found.best_a, partner_b, found.best_b, scale_a, scale_b)
    return (mean_a + mean_b) / -2, kept


def select(
    similarity: torch.Tensor, place: torch.Tensor, keep: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of each row's `keep` best, and their places; -1 for the others."""
    highest, which = similarity.sort(dim=1, descending=True, stable=True)
    which = which[:, :keep]
    partner = torch.full_like(place, -1).scatter_(1, which, place.gather(1, which))
    return highest[:, :keep].mean(1), partner


def scales(maps: torch.Tensor) -> torch.Tensor:
    """What makes a token's norm 1: 0 for those of norm 0, NaN where there is no finite norm."""
    found = torch.empty(maps.shape[:2])
    blocks = list(spans(len(maps), at_once(maps)))

    def work(task: int) -> None:
        some = blocks[task]
        torch.linalg.vector_norm(maps[some].float(), dim=2, out=found[some])

    parallel_for(work, len(blocks))
    found.masked_fill_(found.isinf(), torch.nan)
    return found.reciprocal_().masked_fill_(found.isinf(), 0)


class Found(NamedTuple):
    best_a: torch.Tensor  # [R, A] float32
    place_a: torch.Tensor  # [R, A] int32
    best_b: torch.Tensor  # [R, B]
    place_b: torch.Tensor


def search(
    a: torch.Tensor,
    b: torch.Tensor,
    of_a: torch.Tensor,
    of_b: torch.Tensor,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
) -> Found:
    check_range(of_a, len(a), "first")
    check_range(of_b, len(b), "second")
    found = Found(*nothing(len(of_a), a.shape[1]), *nothing(len(of_b), b.shape[1]))
    rows = min(a.shape[1], ROWS)
    columns = min(b.shape[1], NUMBERS // rows)
    most = max(1, min(PAIRS, NUMBERS // (rows * columns)))
    every = list(runs(of_a, of_b, most))

    def work(task: int) -> None:
        memory = torch.empty(most * rows * columns)
        for left in spans(a.shape[1], rows):
            for right in spans(b.shape[1], columns):
                take_in(every[task], a, b, left, right, scale_a, scale_b, found, memory)

    with jit.announce_compilation():
        parallel_for(work, len(every))
    for similarity in (found.best_a, found.best_b):
        similarity.masked_fill_(similarity == torch.inf, torch.nan)
    return found


def take_in(
    run: Run,
    a: torch.Tensor,
    b: torch.Tensor,
    rows: slice,
    columns: slice,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
    found: Found,
    memory: torch.Tensor,
) -> None:
    """A block of products: of these tokens, for all pairs of a run."""
    near, far = run.of_a(a[:, rows]), run.of_b(b[:, columns])
    shape = len(near), near.shape[1], far.shape[1]
    products = memory[: shape[0] * shape[1] * shape[2]].view(shape)
    torch.bmm(near, far.mT, out=products)
    scale_a = run.of_a(scale_a[:, rows]).contiguous()  # loops are compiled for contiguous arrays
    scale_b = run.of_b(scale_b[:, columns]).contiguous()
    arrays = [array.numpy() for array in (products, scale_a, scale_b, *found)]
    loops.take_in(*arrays, run.pairs.start, rows.start, columns.start)


class Run(NamedTuple):
    """Pairs whose maps lie at even distances in memory, or are the same one."""

    pairs: slice
    first: tuple[int, int]  # the maps of the first pair
    step: tuple[int, int]  # from one pair's maps to the next one's

    def of_a(self, maps: torch.Tensor) -> torch.Tensor:
        return self._of(maps, 0)

    def of_b(self, maps: torch.Tensor) -> torch.Tensor:
        return self._of(maps, 1)

    def _of(self, maps: torch.Tensor, side: int) -> torch.Tensor:
        count, first, step = self.pairs.stop - self.pairs.start, self.first[side], self.step[side]
        if step == 0:
            return maps[first].float().expand(count, *maps.shape[1:])
        return maps[first : first + step * (count - 1) + 1 : step].float()


def runs(of_a: torch.Tensor, of_b: torch.Tensor, most: int) -> Iterator[Run]:
    """All pairs, in their order, in runs of at most `most`."""
    pairs = list(zip(of_a.tolist(), of_b.tolist(), strict=True))
    steps = [(a - c, b - d) for (a, b), (c, d) in zip(pairs[1:], pairs[:-1], strict=True)]
    start = 0
    while start < len(pairs):
        stop, step = start + 1, (0, 0)
        if stop < len(pairs) and min(steps[start]) >= 0:
            step = steps[start]
            while stop < min(len(pairs), start + most) and steps[stop - 1] == step:
                stop += 1
        yield Run(slice(start, stop), pairs[start], step)
        start = stop


def nothing(rows: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    found = torch.full((rows, tokens), -torch.inf)
    return found, torch.zeros((rows, tokens), dtype=torch.int32)


def check_range(maps: torch.Tensor, count: int, which: str) -> None:
    if len(maps) and not 0 <= maps.min() <= maps.max() < count:
        raise ValueError(
            f"the {which} of each pair must be the number of a map, 0 to {count - 1}, not "
            f"{int(maps.min())} to {int(maps.max())}"
        )


# ---------------------------------------------------------------------------------------- gradients


def pulled(
    weight: torch.Tensor,
    student: torch.Tensor,
    teacher: torch.Tensor,
    of_student: torch.Tensor,
    of_teacher: torch.Tensor,
    kept: Kept,
) -> torch.Tensor:
    """The gradient by the student, for losses that are sums of cosines, each pair's by `weight`."""
    out = torch.empty_like(student)
    order = of_student.argsort(stable=True)
    ends = torch.searchsorted(of_student[order], torch.arange(len(student) + 1))
    given = out, student, teacher, weight, of_teacher, order, ends, *kept
    arrays = [as_numpy(tensor) for tensor in given]
    with jit.announce_compilation():
        parallel_ranges(lambda start, stop: loops.pull(*arrays, start, stop), len(student))
    return out


def at_once(maps: torch.Tensor) -> int:
    """How many maps."""
    return max(1, CONVERTED // max(maps[:1].numel(), 1))


def spans(count: int, length: int) -> Iterator[slice]:
    """[0, count) in slices of at most `length`."""
    return (slice(start, min(start + length, count)) for start in range(0, count, max(length, 1)))
