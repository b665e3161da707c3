"""The Triton kernel of `readouts.kernels.triton.order`; for the method see there.

A column is one feature of one graph, and has a thread of its own. A key is an integer in the order of the
numbers, -0 below +0: of 64 bits for float64, of 32 bits for other dtypes. MANTISSA identifies the dtype as in
`numbers`, BITS is the size of a number.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import triton
import triton.language as tl

from readouts.kernels.triton.numbers import is_finite, narrow, number, widened
from readouts.kernels.triton.rows import flipped, offsets_of

TILE = tl.constexpr(32)  # rows that a search reads at once

# ------------------------------------------------------------------------------------- keys, ranks, results


@triton.jit
def keys_at(
    x, order, nodes, start, first, count, feature, features,
    MANTISSA: tl.constexpr, BITS: tl.constexpr, ROWS: tl.constexpr, ORDERED: tl.constexpr,
):  # fmt: skip
    """Return the keys of ROWS rows of every column, that of infinity beyond its last row.

    The tile is loaded as a vector, so that in any version of Triton a thread loads what it has to keep. Where
    `order` names no row of x, another row is read.
    """
    rows = tl.arange(0, ROWS)[:, None]
    inside = tl.reshape(rows < (count - start)[None, :], [ROWS * count.shape[0]])
    begin, rows = first + start, rows.to(tl.int64)
    if ORDERED:
        node = tl.load(order + tl.reshape(begin[None, :] + rows, inside.shape), inside, 0).to(tl.uint32)
        node = tl.minimum(node, (nodes - 1).to(tl.uint32)).to(tl.int64)
        places = node * features + tl.reshape(feature[None, :] + rows * 0, inside.shape)
    else:
        places = tl.reshape((begin * features + feature)[None, :] + rows * features, inside.shape)
    bits = tl.reshape(tl.load(x + places, inside, 2 ** (BITS - 1) - (1 << MANTISSA)), [ROWS, count.shape[0]])
    return flipped(bits.to(tl.int64 if BITS == 64 else tl.int32), BITS)


@triton.jit
def is_nan(least, greatest, MANTISSA: tl.constexpr, BITS: tl.constexpr):
    """Return whether there is a NaN between the least and the greatest key."""
    INFINITY: tl.constexpr = 2 ** (BITS - 1) - (1 << MANTISSA)
    return (greatest > INFINITY) | (least < ~INFINITY)


@triton.jit
def rank_at(ranks, graph, k, number_of_ranks, count):
    """Load rank k of every column, clamped to the rows that it has."""
    rank = tl.load(ranks + graph * number_of_ranks + k)
    return tl.where(rank < 0, 0, tl.where(rank < count, rank.to(tl.int32), tl.maximum(count - 1, 0)))


@triton.jit
def store(
    out, means, k, graph, feature, features, number_of_ranks, count, key, nan, before,
    MANTISSA: tl.constexpr, BITS: tl.constexpr, MEANS: tl.constexpr,
):  # fmt: skip
    """Store order statistic k, and return its bits; with MEANS, also the mean of statistics 0 and 1.

    With a NaN in its column a statistic is NaN; without rows it is 0.
    """
    NAN: tl.constexpr = 2 ** (BITS - 1) - (1 << (MANTISSA - 1))
    bits = tl.where(count == 0, 0, tl.where(nan, NAN, flipped(key, BITS))).to(out.dtype.element_ty)
    tl.store(out + (graph * number_of_ranks + k) * features + feature, bits)
    if MEANS and k == 1:
        a, b = number(widened(before, MANTISSA), MANTISSA), number(widened(bits, MANTISSA), MANTISSA)
        mean = tl.where(is_finite(a + b), (a + b) * 0.5, a * 0.5 + b * 0.5)
        tl.store(means + graph * features + feature, narrow(mean, MANTISSA).to(bits.dtype))
    return bits


# ------------------------------------------------------------------------------------------- sort few rows


@triton.jit
def swapped(keys, LENGTH: tl.constexpr, STEP: tl.constexpr):
    """Order the keys of rows that are STEP apart, upward and downward in alternate runs of LENGTH rows."""
    PAIRS: tl.constexpr = keys.shape[0] // (2 * STEP)
    pairs = tl.reshape(keys, [PAIRS, 2, STEP, keys.shape[1]])
    least, greatest = tl.min(pairs, 1, keep_dims=True), tl.max(pairs, 1, keep_dims=True)
    run = (tl.arange(0, PAIRS) * (2 * STEP) // LENGTH) & 1
    takes_greatest = tl.arange(0, 2)[None, :, None, None] != run[:, None, None, None]
    return tl.reshape(tl.where(takes_greatest, greatest, least), keys.shape)


@triton.jit
def sort(
    x, order, nodes, ranks, out, means, graph, feature, features, number_of_ranks, first, count,
    MANTISSA: tl.constexpr, BITS: tl.constexpr, LEVELS: tl.constexpr, ORDERED: tl.constexpr,
    MEANS: tl.constexpr,
):  # fmt: skip
    """Store the statistics of columns of at most 2**LEVELS rows, sorted in registers (bitonic sort)."""
    ROWS: tl.constexpr = 1 << LEVELS
    keys = keys_at(x, order, nodes, 0, first, count, feature, features, MANTISSA, BITS, ROWS, ORDERED)
    for level in tl.static_range(LEVELS):
        for step in tl.static_range(level + 1):
            keys = swapped(keys, 2 << level, 1 << (level - step))
    rows = tl.arange(0, ROWS)[:, None]
    least, greatest = tl.sum(tl.where(rows == 0, keys, 0), 0), tl.sum(tl.where(rows == ROWS - 1, keys, 0), 0)
    nan = is_nan(least, greatest, MANTISSA, BITS)
    bits = tl.zeros(graph.shape, out.dtype.element_ty)
    for k in range(number_of_ranks):
        rank = rank_at(ranks, graph, k, number_of_ranks, count)
        key = tl.sum(tl.where(rows == rank[None, :], keys, 0), 0)
        bits = store(
            out, means, k, graph, feature, features, number_of_ranks, count, key, nan, bits,
            MANTISSA, BITS, MEANS,
        )  # fmt: skip


# ---------------------------------------------------------------------------------------- search many rows


@triton.jit
def count_below(
    x, order, nodes, most, first, count, feature, features, low, step,
    MANTISSA: tl.constexpr, BITS: tl.constexpr, ORDERED: tl.constexpr,
):  # fmt: skip
    """Return how many keys of every column are below low + step, low + 2 step and low + 3 step."""
    one = tl.zeros(count.shape, tl.int32)
    two, three = one, one
    for start in range(0, most, TILE):
        keys = keys_at(x, order, nodes, start, first, count, feature, features, MANTISSA, BITS, TILE, ORDERED)
        one += tl.sum((keys < (low + step)[None, :]).to(tl.int32), 0)
        two += tl.sum((keys < (low + 2 * step)[None, :]).to(tl.int32), 0)
        three += tl.sum((keys < (low + 3 * step)[None, :]).to(tl.int32), 0)
    return one, two, three


@triton.jit
def search(
    x, order, nodes, most, first, count, feature, features, rank,
    MANTISSA: tl.constexpr, BITS: tl.constexpr, ORDERED: tl.constexpr,
):  # fmt: skip
    """Return a key `low` of every column: the statistic of this rank is its least key from `low` on.

    A read over the rows finds two bits of the statistic; the search ends when all are known, or earlier.
    """
    low = tl.full(count.shape, -(2 ** (BITS - 1)), tl.int64 if BITS == 64 else tl.int32)
    below = tl.zeros(count.shape, tl.int32)
    step = tl.full([], 2 ** (BITS - 2), low.dtype)
    while (step > 0) & (tl.max((below != rank).to(tl.int32), 0) != 0):
        one, two, three = count_below(
            x, order, nodes, most, first, count, feature, features, low, step, MANTISSA, BITS, ORDERED
        )
        digit = (one <= rank).to(tl.int32) + (two <= rank).to(tl.int32) + (three <= rank).to(tl.int32)
        low += digit.to(low.dtype) * step
        below = tl.where(digit == 3, three, tl.where(digit == 2, two, tl.where(digit == 1, one, below)))
        step = step >> 2
    return low


@triton.jit
def read_from(
    x, order, nodes, most, first, count, feature, features, low,
    MANTISSA: tl.constexpr, BITS: tl.constexpr, ORDERED: tl.constexpr,
):  # fmt: skip
    """Return the least key from `low` on, how many keys are below `low`, and whether there is a NaN."""
    GREATEST: tl.constexpr = 2 ** (BITS - 1) - 1
    least = tl.full(count.shape, GREATEST, low.dtype)
    found, greatest = least, ~least
    below = tl.zeros(count.shape, tl.int32)
    for start in range(0, most, TILE):
        keys = keys_at(x, order, nodes, start, first, count, feature, features, MANTISSA, BITS, TILE, ORDERED)
        is_below = keys < low[None, :]
        least, greatest = tl.minimum(least, tl.min(keys, 0)), tl.maximum(greatest, tl.max(keys, 0))
        found = tl.minimum(found, tl.min(tl.where(is_below, GREATEST, keys), 0))
        below += tl.sum(is_below.to(tl.int32), 0)
    return found, below, is_nan(least, greatest, MANTISSA, BITS)


@triton.jit
def search_columns(
    x, order, nodes, ranks, out, means, graph, feature, features, number_of_ranks, first, count, most,
    MANTISSA: tl.constexpr, BITS: tl.constexpr, ORDERED: tl.constexpr, MEANS: tl.constexpr,
):  # fmt: skip
    """Store the statistics of columns of any number of rows.

    After a search the keys of the ranks from `start` up to `stop` - 1 are known, and the next one, of rank
    `stop`. So two neighbouring ranks need one search.
    """
    key = tl.zeros(count.shape, tl.int64 if BITS == 64 else tl.int32)
    after, start, stop, nan = key, count, count, count < 0
    bits = tl.zeros(count.shape, out.dtype.element_ty)
    for k in range(number_of_ranks):
        rank = rank_at(ranks, graph, k, number_of_ranks, count)
        if tl.max(((rank < start) | (rank > stop)).to(tl.int32), 0) != 0:
            low = search(
                x, order, nodes, most, first, count, feature, features, rank, MANTISSA, BITS, ORDERED
            )
            key, stop, nan = read_from(
                x, order, nodes, most, first, count, feature, features, low, MANTISSA, BITS, ORDERED
            )
            start, stop, after = rank, rank + 1, key
            if k + 1 < number_of_ranks:
                after, stop, nan = read_from(
                    x, order, nodes, most, first, count, feature, features, key + 1, MANTISSA, BITS, ORDERED
                )
        bits = store(
            out, means, k, graph, feature, features, number_of_ranks, count,
            tl.where(rank < stop, key, after), nan, bits, MANTISSA, BITS, MEANS,
        )  # fmt: skip


# -------------------------------------------------------------------------------------------------- kernel


@triton.jit(
    do_not_specialize=["nodes", "size", "features", "number_of_ranks"],
    do_not_specialize_on_alignment=["x", "order", "ptr", "ranks"],
)
def select(
    x, order, ptr, ranks, out, means, nodes, size, features, number_of_ranks,
    MANTISSA: tl.constexpr, BITS: tl.constexpr, WIDTH: tl.constexpr, ORDERED: tl.constexpr,
    MEANS: tl.constexpr,
):  # fmt: skip
    """Store the order statistics of WIDTH columns; threads beyond the last column repeat it."""
    column = tl.program_id(0).to(tl.int64) * WIDTH + tl.arange(0, WIDTH)
    column = tl.minimum(column, size.to(tl.int64) * features - 1)
    graph, feature = column // features, column % features
    first, last = offsets_of(ptr, graph, nodes)
    count = (last - first).to(tl.int32)
    most = tl.max(count, 0)
    if most <= 16:
        sort(
            x, order, nodes, ranks, out, means, graph, feature, features, number_of_ranks, first, count,
            MANTISSA, BITS, 4, ORDERED, MEANS,
        )  # fmt: skip
    elif most <= 32:
        sort(
            x, order, nodes, ranks, out, means, graph, feature, features, number_of_ranks, first, count,
            MANTISSA, BITS, 5, ORDERED, MEANS,
        )  # fmt: skip
    elif BITS < 64 and most <= 64:
        sort(
            x, order, nodes, ranks, out, means, graph, feature, features, number_of_ranks, first, count,
            MANTISSA, BITS, 6, ORDERED, MEANS,
        )  # fmt: skip
    else:
        search_columns(
            x, order, nodes, ranks, out, means, graph, feature, features, number_of_ranks, first, count,
            most, MANTISSA, BITS, ORDERED, MEANS,
        )  # fmt: skip
