"""The results of one graph: sums rounded once, extremes, and where they are written.

CODES lists the reductions of the output, three bits each: the position of the name in ELEMENTARY.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import triton
import triton.language as tl

from readouts.kernels.triton.limbs import patched
from readouts.kernels.triton.numbers import (
    INFINITY_32,
    INFINITY_64,
    MAGNITUDE_32,
    MAGNITUDE_64,
    bits_of,
    divide,
    is_finite,
    narrow,
    nearest_quotient,
    nearest_sum,
    normalized,
    to_odd,
    two_product,
    unwidened,
)
from readouts.kernels.triton.rows import NONE, add_far, special_of
from readouts.reductions import ELEMENTARY

SUM, MEAN, MAX, MIN, VAR, STD = (
    tl.constexpr(ELEMENTARY.index(name)) for name in ("sum", "mean", "max", "min", "var", "std")
)
LARGE, SMALL = tl.constexpr(2.0**990), tl.constexpr(2.0**-900)  # sums whose division is exact in float64


@triton.jit
def round_sums(high, low, third, broken, special, nodes, MANTISSA: tl.constexpr):
    """Return the bits of a sum and of its mean, rounded once, the float64 mean, and which are broken."""
    nodes = tl.maximum(nodes, 1).to(tl.float64)
    high, low, third, rest, broken = normalized(high, low, third, high * 0.0, broken)
    size = tl.abs(high)
    far = (size > LARGE) | ((size < SMALL) & (size != 0.0)) | (rest != 0.0)
    quotient, a, b, broken = divide(high, low, third, nodes, broken | far.to(tl.int32))
    wide = nearest_quotient(quotient, a, b, nodes)
    if MANTISSA == 52:
        total, mean = narrow(nearest_sum(high, low, third), MANTISSA), narrow(wide, MANTISSA)
    else:
        total, mean = narrow(to_odd(high, low), MANTISSA), narrow(to_odd(quotient, a), MANTISSA)
    plain, sum_of_specials = special == 0.0, narrow(special, MANTISSA)
    total, mean = tl.where(plain, total, sum_of_specials), tl.where(plain, mean, sum_of_specials)
    return total, mean, tl.where(plain, wide, special), tl.where(plain, broken, 0)


@triton.jit
def averaged(
    x, order, begin, end, columns, features, centre, high, low, third, broken, special,
    MANTISSA: tl.constexpr, FEATURES: tl.constexpr, ORDERED: tl.constexpr, SQUARES: tl.constexpr,
):  # fmt: skip
    """Return the bits of sum and mean of a whole graph, rounded once, and the float64 mean."""
    total, mean, wide, broken = round_sums(high, low, third, broken, special, end - begin, MANTISSA)
    if tl.max(tl.where(columns < features, broken, 0), 0) != 0:
        total, mean, wide = patched(
            x, order, begin, end, columns, features, centre, broken, total, mean, wide,
            MANTISSA, FEATURES, ORDERED, SQUARES,
        )  # fmt: skip
    return total, mean, wide


@triton.jit
def extreme_bits(key, MANTISSA: tl.constexpr):
    """Return the bits of the number with this key; keys beyond those of the infinities are NaN."""
    INFINITY: tl.constexpr = INFINITY_64 if MANTISSA == 52 else INFINITY_32
    QUIET: tl.constexpr = INFINITY | (1 << (51 if MANTISSA == 52 else 22))
    word = key ^ ((key >> 63) & (MAGNITUDE_64 if MANTISSA == 52 else MAGNITUDE_32))
    return unwidened(tl.where((key > INFINITY) | (key < ~INFINITY), QUIET, word), MANTISSA)


@triton.jit
def store_block(
    out, graph, columns, features, bits, CODE: tl.constexpr, CODES: tl.constexpr, BLOCKS: tl.constexpr, inside
):
    """Write the bits of a reduction to each of its blocks in the output, in the columns `inside`."""
    for block in tl.static_range(BLOCKS):
        if (CODES >> (3 * block)) & 7 == CODE:
            place = out + (graph * BLOCKS + block) * features + columns
            tl.store(place, bits.to(out.dtype.element_ty), inside)


@triton.jit
def store_extremes(
    out, graph, columns, features, top, bottom, occupied,
    CODES: tl.constexpr, BLOCKS: tl.constexpr, MANTISSA: tl.constexpr,
    MAXIMA: tl.constexpr, MINIMA: tl.constexpr,
):  # fmt: skip
    """Write max and min, whose keys these are, if they are requested; 0 for an empty graph."""
    if MAXIMA:
        bits = tl.where(occupied, extreme_bits(top, MANTISSA), 0)
        store_block(out, graph, columns, features, bits, MAX, CODES, BLOCKS, columns < features)
    if MINIMA:
        bits = tl.where(occupied, extreme_bits(bottom, MANTISSA), 0)
        store_block(out, graph, columns, features, bits, MIN, CODES, BLOCKS, columns < features)


@triton.jit
def store_ties(kept, graph, columns, features, tops, bottoms, KEPT: tl.constexpr):
    """Keep how many numbers equal max and min, 32 bits each, as the last block of a graph."""
    both = tops.to(tl.int64) | (bottoms.to(tl.int64) << 32)
    tl.store(kept + (graph * KEPT + KEPT - 1) * features + columns, both, columns < features)


@triton.jit
def store_moment(kept, graph, columns, features, moment, BLOCK: tl.constexpr, KEPT: tl.constexpr, inside):
    """Keep the float64 mean, as block 0 of a graph, or standard deviation, as block 1."""
    tl.store(kept + (graph * KEPT + BLOCK) * features + columns, bits_of(moment), inside)


@triton.jit
def store_direct(
    out, flag, graph, columns, features, high, low, broken, count,
    CODES: tl.constexpr, BLOCKS: tl.constexpr, MANTISSA: tl.constexpr,
):  # fmt: skip
    """Write sum and mean of numbers of at most 32 bits; set a flag unless the sum is one float64 number."""
    finite = is_finite(high)
    doubtful = (low != 0.0) | (broken != 0)
    tl.store(flag, tl.max((doubtful & (columns < features)).to(tl.int32), 0))
    nodes = tl.maximum(count, 1).to(tl.float64)
    quotient = high / nodes
    product, error = two_product(quotient, nodes)
    mean = tl.where(finite, to_odd(quotient, (high - product) - error), high)
    store_block(out, graph, columns, features, narrow(high, MANTISSA), SUM, CODES, BLOCKS, columns < features)
    store_block(
        out, graph, columns, features, narrow(mean, MANTISSA), MEAN, CODES, BLOCKS, columns < features
    )


@triton.jit
def squared(
    x, order, first, last, columns, features, centre,
    MANTISSA: tl.constexpr, LANES: tl.constexpr, FEATURES: tl.constexpr, ORDERED: tl.constexpr,
    WHOLE: tl.constexpr,
):  # fmt: skip
    """Return the bits of the variance of a whole graph, rounded once, and the float64 variance."""
    high, low, third, broken, _, _, _, _ = add_far(
        x, order, first, last, columns, features, centre, centre, centre,
        MANTISSA, LANES, FEATURES, ORDERED, WHOLE, True, False, False, NONE,
    )  # fmt: skip
    high, broken, special = special_of(
        x, order, first, last, columns, features, centre, high, broken,
        MANTISSA, LANES, FEATURES, ORDERED, WHOLE, True,
    )  # fmt: skip
    _, mean, wide = averaged(
        x, order, first, last, columns, features, centre, high, low, third, broken, special,
        MANTISSA, FEATURES, ORDERED, True,
    )  # fmt: skip
    return mean, wide


@triton.jit
def store_sums(
    x, order, out, kept, graph, first, last, columns, features, high, low, third, broken, special,
    CODES: tl.constexpr, BLOCKS: tl.constexpr, KEPT: tl.constexpr, MANTISSA: tl.constexpr,
    LANES: tl.constexpr, FEATURES: tl.constexpr, ORDERED: tl.constexpr, WHOLE: tl.constexpr,
    SQUARES: tl.constexpr,
):  # fmt: skip
    """Write sum and mean of a whole graph; with SQUARES read its rows once more, for var and std."""
    total, mean, wide = averaged(
        x, order, first, last, columns, features, high, high, low, third, broken, special,
        MANTISSA, FEATURES, ORDERED, False,
    )  # fmt: skip
    store_block(out, graph, columns, features, total, SUM, CODES, BLOCKS, columns < features)
    store_block(out, graph, columns, features, mean, MEAN, CODES, BLOCKS, columns < features)
    if SQUARES:
        var, square = squared(
            x, order, first, last, columns, features, wide, MANTISSA, LANES, FEATURES, ORDERED, WHOLE
        )  # fmt: skip
        std = tl.sqrt(square)
        store_block(out, graph, columns, features, var, VAR, CODES, BLOCKS, columns < features)
        store_block(
            out, graph, columns, features, narrow(std, MANTISSA), STD, CODES, BLOCKS, columns < features
        )
        if KEPT >= 2:
            store_moment(kept, graph, columns, features, wide, 0, KEPT, columns < features)
            store_moment(kept, graph, columns, features, std, 1, KEPT, columns < features)
