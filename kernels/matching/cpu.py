"""CPU backend: block products by the BLAS, reduced to best matches while they are in the cache.

Consecutive pairs are multiplied in one batched product if their maps lie at even strides in memory,
as for a batch whose pairs are listed image by image or view by view: nothing is gathered.

Each block belongs to one thread: results are bit-identical for any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from patchmill.kernels.common import compiling
from patchmill.kernels.common.floats16 import as_numpy
from patchmill.kernels.common.parallel import parallel_for, parallel_ranges
from patchmill.kernels.matching import cpu_loops as loops
from patchmill.kernels.matching.saved import Saved

ROWS = 256  # tokens of a in a block of products
BLOCK_ELEMENTS = 1 << 16  # elements of a block, at most
PAIRS = 8  # pairs of a block, at most
CONVERTED = 1 << 16  # elements of maps that a thread converts to float32 at a time


def best_matches(
    a: torch.Tensor, b: torch.Tensor, a_index: torch.Tensor, b_index: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Similarity and argmax (int64) for the tokens of a, and those for the tokens of b."""
    best = search(a, b, a_index, b_index, inverse_norms(a), inverse_norms(b))
    return best.max_a, best.argmax_a.long(), best.max_b, best.argmax_b.long()


def correspond(
    student: torch.Tensor,
    teacher: torch.Tensor,
    student_index: torch.Tensor,
    teacher_index: torch.Tensor,
    keep: int,
) -> tuple[torch.Tensor, Saved]:
    """Losses [R], and the tensors that the backward pass needs."""
    inverse_norm_a, inverse_norm_b = inverse_norms(student), inverse_norms(teacher)
    best = search(student, teacher, student_index, teacher_index, inverse_norm_a, inverse_norm_b)
    mean_a, match_a = top_k(best.max_a, best.argmax_a, keep)
    mean_b, match_b = top_k(best.max_b, best.argmax_b, keep)
    saved = Saved(match_a, best.max_a, match_b, best.max_b, inverse_norm_a, inverse_norm_b)
    return (mean_a + mean_b) / -2, saved


def top_k(
    similarity: torch.Tensor, argmax: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of each row's k best similarities, and their matches; -1 for the other tokens."""
    ranked, tokens = similarity.sort(dim=1, descending=True, stable=True)
    tokens = tokens[:, :k]
    match = torch.full_like(argmax, -1).scatter_(1, tokens, argmax.gather(1, tokens))
    return ranked[:, :k].mean(1), match


def inverse_norms(maps: torch.Tensor) -> torch.Tensor:
    """1 / norm of each token: 0 for a norm of 0, NaN if the norm is not finite."""
    norms = torch.empty(maps.shape[:2])
    blocks = list(slices(len(maps), max(1, CONVERTED // max(maps[:1].numel(), 1))))

    def work(task: int) -> None:
        block = blocks[task]
        torch.linalg.vector_norm(maps[block].float(), dim=2, out=norms[block])

    parallel_for(work, len(blocks))
    norms.masked_fill_(norms.isinf(), torch.nan)
    return norms.reciprocal_().masked_fill_(norms.isinf(), 0)


class Best(NamedTuple):
    """Best similarity of each token so far, and the index of its match."""

    max_a: torch.Tensor  # [R, A] float32
    argmax_a: torch.Tensor  # [R, A] int32
    max_b: torch.Tensor  # [R, B]
    argmax_b: torch.Tensor


def search(
    a: torch.Tensor,
    b: torch.Tensor,
    a_index: torch.Tensor,
    b_index: torch.Tensor,
    inverse_norm_a: torch.Tensor,
    inverse_norm_b: torch.Tensor,
) -> Best:
    """Best matches of all pairs, block by block."""
    check_range(a_index, len(a), "first")
    check_range(b_index, len(b), "second")
    best = Best(*empty_best(len(a_index), a.shape[1]), *empty_best(len(b_index), b.shape[1]))
    rows = min(a.shape[1], ROWS)
    columns = min(b.shape[1], BLOCK_ELEMENTS // rows)
    most_pairs = max(1, min(PAIRS, BLOCK_ELEMENTS // (rows * columns)))
    runs = list(pair_runs(a_index, b_index, most_pairs))

    def work(task: int) -> None:
        memory = torch.empty(most_pairs * rows * columns)
        for block_a in slices(a.shape[1], rows):
            for block_b in slices(b.shape[1], columns):
                search_block(
                    runs[task], a, b, block_a, block_b, inverse_norm_a, inverse_norm_b, best, memory
                )

    with compiling.announce_compilation():
        parallel_for(work, len(runs))
    for similarity in (best.max_a, best.max_b):  # loops rank NaN as infinity
        similarity.masked_fill_(similarity == torch.inf, torch.nan)
    return best


def search_block(
    run: PairRun,
    a: torch.Tensor,
    b: torch.Tensor,
    rows: slice,
    columns: slice,
    inverse_norm_a: torch.Tensor,
    inverse_norm_b: torch.Tensor,
    best: Best,
    memory: torch.Tensor,
) -> None:
    """Products of a block of tokens, for all pairs of a run, reduced into `best`."""
    maps_a, maps_b = run.of_a(a[:, rows]), run.of_b(b[:, columns])
    shape = len(maps_a), maps_a.shape[1], maps_b.shape[1]
    products = memory[: shape[0] * shape[1] * shape[2]].view(shape)
    torch.bmm(maps_a, maps_b.mT, out=products)
    # Loops are compiled for contiguous arrays.
    inverse_norm_a = run.of_a(inverse_norm_a[:, rows]).contiguous()
    inverse_norm_b = run.of_b(inverse_norm_b[:, columns]).contiguous()
    arrays = [array.numpy() for array in (products, inverse_norm_a, inverse_norm_b, *best)]
    loops.update_best(*arrays, run.pairs.start, rows.start, columns.start)


class PairRun(NamedTuple):
    """Consecutive pairs whose maps lie at even strides in memory, or are all the same map."""

    pairs: slice
    first: tuple[int, int]  # the maps of the first pair
    step: tuple[int, int]  # from one pair's maps to the next pair's

    def of_a(self, maps: torch.Tensor) -> torch.Tensor:
        return self._select(maps, 0)

    def of_b(self, maps: torch.Tensor) -> torch.Tensor:
        return self._select(maps, 1)

    def _select(self, maps: torch.Tensor, side: int) -> torch.Tensor:
        count, first, step = self.pairs.stop - self.pairs.start, self.first[side], self.step[side]
        if step == 0:
            return maps[first].float().expand(count, *maps.shape[1:])
        return maps[first : first + step * (count - 1) + 1 : step].float()


def pair_runs(a_index: torch.Tensor, b_index: torch.Tensor, most: int) -> Iterator[PairRun]:
    """All pairs in order, in runs of at most `most`."""
    pairs = list(zip(a_index.tolist(), b_index.tolist(), strict=True))
    steps = [(a - c, b - d) for (a, b), (c, d) in zip(pairs[1:], pairs[:-1], strict=True)]
    start = 0
    while start < len(pairs):
        stop, step = start + 1, (0, 0)
        if stop < len(pairs) and min(steps[start]) >= 0:
            step = steps[start]
            while stop < min(len(pairs), start + most) and steps[stop - 1] == step:
                stop += 1
        yield PairRun(slice(start, stop), pairs[start], step)
        start = stop


def empty_best(pairs: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Initial best: -inf and index 0, which every cosine beats."""
    similarity = torch.full((pairs, tokens), -torch.inf)
    return similarity, torch.zeros((pairs, tokens), dtype=torch.int32)


def check_range(index: torch.Tensor, count: int, which: str) -> None:
    """Raise ValueError if a pair's map does not exist."""
    if len(index) and not 0 <= index.min() <= index.max() < count:
        raise ValueError(
            f"the {which} of each pair must be the index of a map, 0 to {count - 1}, not "
            f"{int(index.min())} to {int(index.max())}"
        )


# ---------------------------------------------------------------------------------------- gradients


def correspond_backward(
    weight: torch.Tensor,
    student: torch.Tensor,
    teacher: torch.Tensor,
    student_index: torch.Tensor,
    teacher_index: torch.Tensor,
    saved: Saved,
) -> torch.Tensor:
    """Gradient w.r.t. the student of the sum of kept cosines, weighted per pair by `weight` [R]."""
    out = torch.empty_like(student)
    order = student_index.argsort(stable=True)
    offsets = torch.searchsorted(student_index[order], torch.arange(len(student) + 1))
    args = out, student, teacher, weight, teacher_index, order, offsets, *saved
    arrays = [as_numpy(tensor) for tensor in args]
    with compiling.announce_compilation():
        parallel_ranges(
            lambda start, stop: loops.correspond_backward(*arrays, start, stop), len(student)
        )
    return out


def slices(count: int, length: int) -> Iterator[slice]:
    """Split [0, count) into slices of at most `length`."""
    return (slice(start, min(start + length, count)) for start in range(0, count, max(length, 1)))
