"""Triton kernels: `inverse_norms`, `match_tile` and `reduce_tiles` find best matches, `top_k_loss`
keeps the best of them, `backward_token` computes the gradient.

Maps are contiguous, [count, tokens, D]. NaN is ranked as infinity, which no cosine reaches. A pair
with a map index out of range reads map 0, and its cosines are NaN.
"""

from __future__ import annotations

import triton
import triton.language as tl

from patchmill.kernels.common.triton import load_tile

INF = tl.constexpr(float("inf"))


@triton.jit(do_not_specialize=["count"])
def inverse_norms(
    rows,  # [count, D], any dtype
    norms,  # [count] float32, written
    count,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    """1 / norm of each row: 0 for a norm of 0, NaN for one that is not finite.

    Reads every row once, writes 4 bytes for each; 2 operations per element.
    """
    # Sum of squares.
    first = tl.program_id(0) * BLOCK_ROWS
    squares = tl.zeros([BLOCK_ROWS, BLOCK_D], tl.float32)
    for left in range(0, D, BLOCK_D):
        tile = load_tile(rows, first, count, left, D, BLOCK_D, BLOCK_ROWS).to(tl.float32)
        squares += tile * tile
    # IEEE-rounded inverse square root.
    norm = tl.sqrt_rn(tl.sum(squares, 1))
    inverse = tl.where(norm == 0, 0.0, tl.where(norm < INF, tl.div_rn(1.0, norm), float("nan")))
    row = first + tl.arange(0, BLOCK_ROWS)
    tl.store(norms + row, inverse, mask=row < count)


@triton.jit(do_not_specialize=["maps_a", "maps_b"])
def match_tile(
    a,  # [maps_a, A, D], any dtype
    b,  # [maps_b, B, D], dtype of a
    inverse_norm_a,  # [maps_a, A] float32
    inverse_norm_b,  # [maps_b, B] float32
    a_index,  # [pairs] int64: each pair's map of a
    b_index,  # [pairs] int64
    max_a,  # [pairs, A] float32, written
    argmax_a,  # [pairs, A] int32 or int64, written
    tile_max,  # [pairs, tiles, B] float32, written
    tile_argmax,  # [pairs, tiles, B] int32, written
    maps_a,
    maps_b,
    A: tl.constexpr,
    B: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,  # tokens of a
    BLOCK_N: tl.constexpr,  # tokens of b at a time
    BLOCK_K: tl.constexpr,  # elements of a token multiplied at a time
    PRECISION: tl.constexpr,
):
    """Cosines of a tile of a pair's tokens of a with all of its tokens of b, reduced to maxima.

    A matrix product fused with a row and a column argmax. Row maxima are final; column maxima are
    partial, one for each tile, and reduced by `reduce_tiles`. Reads the tile ceil(B / BLOCK_N)
    times and all of the pair's map of b once, both through the L2 cache if pairs share maps;
    writes 12 bytes per token of a and 8 per token of b. 2 BLOCK_M B D operations.
    """
    # This program's pair and tile of a.
    tiles: tl.constexpr = (A + BLOCK_M - 1) // BLOCK_M
    pair, first = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles * BLOCK_M
    map_a, invalid_a = _map_of(a_index, pair, maps_a)
    map_b, invalid_b = _map_of(b_index, pair, maps_b)
    tokens_a, tokens_b = a + map_a * A * D, b + map_b * B * D
    row = first + tl.arange(0, BLOCK_M)
    row_scale = tl.load(inverse_norm_a + map_a * A + row, mask=row < A, other=0.0)
    row_scale = tl.where(invalid_a | invalid_b, float("nan"), row_scale)
    row_max = tl.full([BLOCK_M], -INF, tl.float32)
    row_argmax = tl.zeros([BLOCK_M], tl.int32)
    tile_offset = (pair * tiles + first // BLOCK_M) * B
    for start in range(0, B, BLOCK_N):
        # Cosines of one block of b.
        column = start + tl.arange(0, BLOCK_N)
        scale = tl.load(inverse_norm_b + map_b * B + column, mask=column < B, other=0.0)
        cosine = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        for left in range(0, D, BLOCK_K):
            tile_a = load_tile(tokens_a, first, A, left, D, BLOCK_K, BLOCK_M)
            tile_b = load_tile(tokens_b, start, B, left, D, BLOCK_K, BLOCK_N)
            cosine = tl.dot(tile_a, tl.trans(tile_b), cosine, input_precision=PRECISION)
        cosine = cosine * row_scale[:, None] * scale[None, :]
        # Rank NaN as infinity, tokens beyond the maps as -infinity.
        cosine = tl.where(cosine == cosine, cosine, INF)
        exists = (row < A)[:, None] & (column < B)[None, :]
        cosine = tl.where(exists, cosine, -INF)
        # Running row maxima; ties go to the first.
        block_max, block_argmax = tl.max(cosine, 1, return_indices=True)
        row_argmax = tl.where(block_max > row_max, start + block_argmax, row_argmax)
        row_max = tl.maximum(block_max, row_max)
        # Column maxima of this tile.
        column_max, column_argmax = tl.max(cosine, 0, return_indices=True)
        tl.store(tile_max + tile_offset + column, column_max, mask=column < B)
        tl.store(tile_argmax + tile_offset + column, first + column_argmax, mask=column < B)
    # Final row maxima.
    tl.store(max_a + pair * A + row, _inf_to_nan(row_max), mask=row < A)
    tl.store(argmax_a + pair * A + row, row_argmax, mask=row < A)


@triton.jit(do_not_specialize=["count"])
def reduce_tiles(
    tile_max,  # [pairs, TILES, B] float32
    tile_argmax,  # [pairs, TILES, B] int32
    max_b,  # [pairs, B] float32, written
    argmax_b,  # [pairs, B] int32 or int64, written
    count,  # pairs * B
    TILES: tl.constexpr,
    B: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Reduce the column maxima of `match_tile` over the tiles, for BLOCK tokens of b.

    Ties go to the first, as tiles are in order. Reads the partial maxima once, writes 12 bytes per
    token.
    """
    token = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = token < count
    offset = token // B * TILES * B + token % B
    best = tl.full([BLOCK], -INF, tl.float32)
    argmax = tl.zeros([BLOCK], tl.int32)
    for tile in range(TILES):
        cosine = tl.load(tile_max + offset + tile * B, mask=mask, other=-INF)
        index = tl.load(tile_argmax + offset + tile * B, mask=mask, other=0)
        argmax = tl.where(cosine > best, index, argmax)
        best = tl.maximum(cosine, best)
    tl.store(max_b + token, _inf_to_nan(best), mask=mask)
    tl.store(argmax_b + token, argmax, mask=mask)


@triton.jit
def top_k_loss(
    max_a,  # [pairs, A] float32
    match_a,  # [pairs, A] int32: argmax, overwritten with -1 if the token does not count
    max_b,  # [pairs, B] float32
    match_b,  # [pairs, B] int32, likewise
    losses,  # [pairs] float32, written
    A: tl.constexpr,
    B: tl.constexpr,
    KEEP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Loss of one pair: minus the mean of the KEEP best similarities of each map (top-k).

    Reads 8 and writes 4 bytes per token; A A + B B comparisons.
    """
    pair = tl.program_id(0).to(tl.int64)
    total = _top_k_sum(max_a + pair * A, match_a + pair * A, A, KEEP, BLOCK)
    total += _top_k_sum(max_b + pair * B, match_b + pair * B, B, KEEP, BLOCK)
    tl.store(losses + pair, total * (-0.5 / KEEP))


@triton.jit
def _top_k_sum(
    similarity,  # [COUNT] float32
    match,  # [COUNT] int32, overwritten with -1 if the token is not kept
    COUNT: tl.constexpr,
    KEEP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum of the KEEP highest of COUNT, by rank: a token is kept if fewer than KEEP precede it."""
    total = tl.zeros([BLOCK], tl.float32)
    for first in range(0, COUNT, BLOCK):
        token = first + tl.arange(0, BLOCK)
        mask = token < COUNT
        cosine = tl.load(similarity + token, mask=mask, other=-INF)
        rank = tl.where(cosine == cosine, cosine, INF)
        # Count the tokens that are higher, or equal and earlier.
        before = tl.zeros([BLOCK], tl.int32)
        for left in range(0, COUNT, BLOCK):
            other = left + tl.arange(0, BLOCK)
            other_rank = tl.load(similarity + other, mask=other < COUNT, other=-INF)
            other_rank = tl.where(other_rank == other_rank, other_rank, INF)[None, :]
            higher = other_rank > rank[:, None]
            higher = higher | ((other_rank == rank[:, None]) & (other[None, :] < token[:, None]))
            before += tl.sum(higher.to(tl.int32), 1)
        dropped = before >= KEEP
        tl.store(match + token, tl.full([BLOCK], -1, tl.int32), mask=mask & dropped)
        total += tl.where(mask & (dropped == 0), cosine, 0.0)
    return tl.sum(total, 0)


@triton.jit(do_not_specialize=["maps_b"])
def backward_token(
    student,  # [maps, A, D], any dtype
    teacher,  # [maps_b, B, D], dtype of the student
    inverse_norm_a,  # [maps, A] float32
    inverse_norm_b,  # [maps_b, B] float32
    teacher_index,  # [pairs] int64: each pair's map of the teacher
    order,  # [pairs] int64: pairs sorted by the student's map
    offsets,  # [maps + 1] int64: where the pairs of each map begin in `order`
    weights,  # [pairs] float32: gradient w.r.t. the cosine of a match that counts
    match_a,  # [pairs, A] int32, -1 where the token does not count
    similarity_a,  # [pairs, A] float32
    match_b,  # [pairs, B] int32
    similarity_b,  # [pairs, B] float32
    out,  # [maps, A, D], dtype of the student, written
    maps_b,
    A: tl.constexpr,
    B: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,  # at least D
    BLOCK: tl.constexpr,  # matches of the teacher scanned at a time
):
    """Gradient of one token s of the student: sum of weight (t/|t| - cos s/|s|) / |s|.

    Gathers its matches t that count, pair by pair and within a pair by index: no atomics, so two
    runs are bit-identical. Reads each t and, in each pair, the B matches of the teacher's tokens,
    most of them from the caches; reads and writes its own row once. 2 D operations per match.
    """
    map_a, token = (tl.program_id(0) // A).to(tl.int64), tl.program_id(0) % A
    inner = tl.arange(0, BLOCK_D)
    mask = inner < D
    total = tl.zeros([BLOCK_D], tl.float32)
    weighted_cosine = 0.0
    for slot in range(tl.load(offsets + map_a), tl.load(offsets + map_a + 1)):
        pair = tl.load(order + slot)
        map_b, _ = _map_of(teacher_index, pair, maps_b)
        weight = tl.load(weights + pair)
        others, scales = teacher + map_b * B * D, inverse_norm_b + map_b * B
        # The token's own match.
        other = tl.load(match_a + pair * A + token)
        if other >= 0:
            weighted_cosine += weight * tl.load(similarity_a + pair * A + token)
            row = tl.load(others + other * D + inner, mask=mask, other=0.0).to(tl.float32)
            total += weight * tl.load(scales + other) * row
        # The teacher's tokens that it is the match of, in order.
        for first in range(0, B, BLOCK):
            column = first + tl.arange(0, BLOCK)
            match = tl.load(match_b + pair * B + column, mask=column < B, other=-1)
            matching = tl.where(match == token, column, B)
            other = tl.min(matching, 0)
            while other < B:
                weighted_cosine += weight * tl.load(similarity_b + pair * B + other)
                row = tl.load(others + other * D + inner, mask=mask, other=0.0).to(tl.float32)
                total += weight * tl.load(scales + other) * row
                matching = tl.where(matching == other, B, matching)
                other = tl.min(matching, 0)
    # Subtract the projection on the token, divide by its norm, write.
    scale = tl.load(inverse_norm_a + map_a * A + token)
    place = (map_a * A + token) * D + inner
    own = tl.load(student + place, mask=mask, other=0.0).to(tl.float32)
    grad = (total - weighted_cosine * scale * own) * scale
    tl.store(out + place, grad.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _map_of(
    index,  # [pairs] int64
    pair,
    count,
):
    """A pair's map, or 0 if the index is out of range, and whether it is."""
    number = tl.load(index + pair)
    invalid = (number < 0) | (number >= count)
    return tl.where(invalid, 0, number), invalid


@triton.jit
def _inf_to_nan(cosine):
    return tl.where(cosine == INF, float("nan"), cosine)
