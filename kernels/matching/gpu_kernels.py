"""What runs on the GPU: `measure`, `match` and `settle` find matches, `choose` keeps some.

`pull` makes the gradient by those. Maps are contiguous, [count, tokens, D]. NaN is compared as
infinity, which no cosine is. A pair's map that is not there is read as map 0, and cosines are NaN.
"""

from __future__ import annotations

import triton
import triton.language as tl

INF = tl.constexpr(float("inf"))


@triton.jit(do_not_specialize=["count"])
def measure(rows, scales, count, D: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr):
    """What makes each row's norm 1: 0 for a norm of 0, NaN for one that is not finite.

    Reads every row once, writes 4 bytes for each; 2 operations a number.
    """
    first = tl.program_id(0) * ROWS
    squares = tl.zeros([ROWS, WIDE], tl.float32)
    for left in range(0, D, WIDE):
        some = _tile(rows, first, count, left, D, WIDE, ROWS).to(tl.float32)
        squares += some * some
    norm = tl.sqrt_rn(tl.sum(squares, 1))
    scale = tl.where(norm == 0, 0.0, tl.where(norm < INF, tl.div_rn(1.0, norm), float("nan")))
    row = first + tl.arange(0, ROWS)
    tl.store(scales + row, scale, mask=row < count)


@triton.jit(do_not_specialize=["maps_a", "maps_b"])
def match(
    a, b, scales_a, scales_b, of_a, of_b, best_a, place_a, part_b, part_place_b, maps_a, maps_b,
    A: tl.constexpr, B: tl.constexpr, D: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of a pair's tokens of a, and all of its tokens of b: what is best for each.

    Final for the tokens of a; for those of b a part, [pairs, tiles, B], that `settle` puts
    together. Reads the tile ceil(B / COLUMNS) times and all of the pair's map of b once, both
    through the L2 cache when pairs share maps; writes 12 bytes for each token of a and 8 for each
    of b. 2 ROWS B D operations.
    """
    tiles: tl.constexpr = (A + ROWS - 1) // ROWS
    pair, first = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles * ROWS
    map_a, lost_a = _map(of_a, pair, maps_a)
    map_b, lost_b = _map(of_b, pair, maps_b)
    near, far = a + map_a * A * D, b + map_b * B * D
    row = first + tl.arange(0, ROWS)
    row_scale = tl.load(scales_a + map_a * A + row, mask=row < A, other=0.0)
    row_scale = tl.where(lost_a | lost_b, float("nan"), row_scale)
    best = tl.full([ROWS], -INF, tl.float32)
    place = tl.zeros([ROWS], tl.int32)
    part = (pair * tiles + first // ROWS) * B
    for start in range(0, B, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        scale = tl.load(scales_b + map_b * B + column, mask=column < B, other=0.0)
        cosine = tl.zeros([ROWS, COLUMNS], tl.float32)
        for left in range(0, D, DEEP):
            some = _tile(near, first, A, left, D, DEEP, ROWS)
            others = _tile(far, start, B, left, D, DEEP, COLUMNS)
            cosine = tl.dot(some, tl.trans(others), cosine, input_precision=PRECISION)
        cosine = cosine * row_scale[:, None] * scale[None, :]
        cosine = tl.where(cosine == cosine, cosine, INF)
        there = (row < A)[:, None] & (column < B)[None, :]
        cosine = tl.where(there, cosine, -INF)
        top, which = tl.max(cosine, 1, return_indices=True)
        place = tl.where(top > best, start + which, place)
        best = tl.maximum(top, best)
        top, which = tl.max(cosine, 0, return_indices=True)
        tl.store(part_b + part + column, top, mask=column < B)
        tl.store(part_place_b + part + column, first + which, mask=column < B)
    tl.store(best_a + pair * A + row, _with_nan(best), mask=row < A)
    tl.store(place_a + pair * A + row, place, mask=row < A)


@triton.jit(do_not_specialize=["count"])
def settle(
    parts, part_places, best, place, count,
    TILES: tl.constexpr, B: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The best of the parts, [pairs, TILES, B], of each of `count` tokens of b in all pairs.

    The first of equals, as tiles are in order. Reads the parts once, writes 12 bytes a token.
    """
    token = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    seen = token < count
    part = token // B * TILES * B + token % B
    top = tl.full([BLOCK], -INF, tl.float32)
    which = tl.zeros([BLOCK], tl.int32)
    for tile in range(TILES):
        other = tl.load(parts + part + tile * B, mask=seen, other=-INF)
        where = tl.load(part_places + part + tile * B, mask=seen, other=0)
        which = tl.where(other > top, where, which)
        top = tl.maximum(other, top)
    tl.store(best + token, _with_nan(top), mask=seen)
    tl.store(place + token, which, mask=seen)


@triton.jit
def choose(
    best_a, place_a, best_b, place_b, losses,
    A: tl.constexpr, B: tl.constexpr, KEEP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One pair's loss; where a token is not among the KEEP best of its map, its place becomes -1.

    Reads 8 and writes 4 bytes for each token; A A + B B comparisons.
    """
    pair = tl.program_id(0).to(tl.int64)
    kept = _keep(best_a + pair * A, place_a + pair * A, A, KEEP, BLOCK)
    kept += _keep(best_b + pair * B, place_b + pair * B, B, KEEP, BLOCK)
    tl.store(losses + pair, kept * (-0.5 / KEEP))


@triton.jit
def _keep(best, place, COUNT: tl.constexpr, KEEP: tl.constexpr, BLOCK: tl.constexpr):
    """The sum of the KEEP highest of COUNT; a token is kept if fewer than KEEP come before it."""
    total = tl.zeros([BLOCK], tl.float32)
    for first in range(0, COUNT, BLOCK):
        token = first + tl.arange(0, BLOCK)
        seen = token < COUNT
        cosine = tl.load(best + token, mask=seen, other=-INF)
        rank = tl.where(cosine == cosine, cosine, INF)
        before = tl.zeros([BLOCK], tl.int32)
        for left in range(0, COUNT, BLOCK):
            other = left + tl.arange(0, BLOCK)
            theirs = tl.load(best + other, mask=other < COUNT, other=-INF)
            theirs = tl.where(theirs == theirs, theirs, INF)[None, :]
            higher = theirs > rank[:, None]
            higher = higher | ((theirs == rank[:, None]) & (other[None, :] < token[:, None]))
            before += tl.sum(higher.to(tl.int32), 1)
        left_out = before >= KEEP
        tl.store(place + token, tl.full([BLOCK], -1, tl.int32), mask=seen & left_out)
        total += tl.where(seen & (left_out == 0), cosine, 0.0)
    return tl.sum(total, 0)


@triton.jit(do_not_specialize=["maps_b"])
def pull(
    student, teacher, scales_a, scales_b, of_b, order, ends, weights,
    partner_a, best_a, partner_b, best_b, out, maps_b,
    A: tl.constexpr, B: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient of one token s of the student: sum of weight (t/|t| - cos s/|s|) / |s|.

    t are its matches that count, pair by pair, and in a pair by their place: two runs are equal to
    the bit. Reads each t and, in each pair, the B partners of the teacher's tokens, most of them
    from the caches; reads and writes its own row once. 2 D operations a match.
    """
    map_a, token = (tl.program_id(0) // A).to(tl.int64), tl.program_id(0) % A
    inner = tl.arange(0, WIDE)
    deep = inner < D
    grown = tl.zeros([WIDE], tl.float32)
    along = 0.0
    for slot in range(tl.load(ends + map_a), tl.load(ends + map_a + 1)):
        pair = tl.load(order + slot)
        map_b, _ = _map(of_b, pair, maps_b)
        weight = tl.load(weights + pair)
        others, scales = teacher + map_b * B * D, scales_b + map_b * B
        other = tl.load(partner_a + pair * A + token)
        if other >= 0:
            along += weight * tl.load(best_a + pair * A + token)
            row = tl.load(others + other * D + inner, mask=deep, other=0.0).to(tl.float32)
            grown += weight * tl.load(scales + other) * row
        for first in range(0, B, BLOCK):
            column = first + tl.arange(0, BLOCK)
            partner = tl.load(partner_b + pair * B + column, mask=column < B, other=-1)
            mine = tl.where(partner == token, column, B)
            other = tl.min(mine, 0)
            while other < B:
                along += weight * tl.load(best_b + pair * B + other)
                row = tl.load(others + other * D + inner, mask=deep, other=0.0).to(tl.float32)
                grown += weight * tl.load(scales + other) * row
                mine = tl.where(mine == other, B, mine)
                other = tl.min(mine, 0)
    scale = tl.load(scales_a + map_a * A + token)
    place = (map_a * A + token) * D + inner
    own = tl.load(student + place, mask=deep, other=0.0).to(tl.float32)
    found = (grown - along * scale * own) * scale
    tl.store(out + place, found.to(out.dtype.element_ty), mask=deep)


@triton.jit
def _map(maps, pair, count):
    """The number of a pair's map, and whether there is no such map."""
    number = tl.load(maps + pair)
    lost = (number < 0) | (number >= count)
    return tl.where(lost, 0, number), lost


@triton.jit
def _with_nan(best):
    return tl.where(best == INF, float("nan"), best)


@triton.jit
def _tile(
    base, first, count, left, D: tl.constexpr, WIDE: tl.constexpr, LONG: tl.constexpr
):  # fmt: skip
    """Rows from `first`, columns from `left`; zeros where there are none."""
    step, inner = tl.arange(0, LONG), left + tl.arange(0, WIDE)
    seen = (first + step < count)[:, None]
    if D % WIDE:
        seen = seen & (inner < D)[None, :]
    start = base + tl.cast(first, tl.int64) * D
    return tl.load(start + step[:, None] * D + inner[None, :], mask=seen, other=0.0)
