"""Which rows a program has, and one read over them: exact sums, extremes or numbers of ties.

A tile of ROWS rows and FEATURES columns is spread over the threads so that a thread keeps its columns: rows
of the same remainder modulo LANES meet in one thread, and the loop over tiles needs no barrier.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import triton
import triton.language as tl

from readouts.kernels.triton.numbers import (
    INFINITY_32,
    INFINITY_64,
    LOWEST_32,
    LOWEST_64,
    MAGNITUDE_32,
    MAGNITUDE_64,
    add_part,
    bits_of,
    float_of,
    fold,
    is_finite,
    number,
    two_sum,
    widened,
)

DEPTH = tl.constexpr(4)  # rows of a thread in a tile of `add_far`
NONE, FOUND, GIVEN = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)  # ties that `compare` counts

# ------------------------------------------------------------------------------------- programs and pieces


@triton.jit
def place_of(features, FEATURES: tl.constexpr):
    """Return the number of this program among those of the same features, and its features.

    The grid has one dimension, because a second one would have at most 65535 blocks.
    """
    program, blocks = tl.program_id(0).to(tl.int64), (features + FEATURES - 1) // FEATURES
    return program // blocks, columns_at(program % blocks, FEATURES)


@triton.jit
def columns_at(block, FEATURES: tl.constexpr):
    """Return the features of a block; a thread shall have four neighbours, of 16-bit numbers, too."""
    columns = block * FEATURES + tl.arange(0, FEATURES)
    return tl.max_contiguous(columns, 4) if FEATURES >= 4 else columns


@triton.jit
def offsets_of(ptr, graph, nodes):
    """Return the offsets of a graph, or of no rows if `ptr` leads outside of the rows."""
    first, last = tl.load(ptr + graph), tl.load(ptr + graph + 1)
    sound = (first >= 0) & (first <= last) & (last <= nodes)
    return tl.where(sound, first, 0), tl.where(sound, last, 0)


@triton.jit
def piece_of(ptr, size, shift, slot):
    """Return the graph of a piece and the number of the piece in it, -1 if there is no such piece.

    Slot 2 c is that of the graph which starts in chunk c of 2**shift rows, slot 2 c + 1 that of the graph
    which continues there.
    """
    chunk, later = slot // 2, slot % 2
    graph, most = chunk * 0, chunk * 0 + size - 1
    while graph < most:  # find the last graph that starts up to chunk - later
        middle = (graph + most + 1) // 2
        before = tl.load(ptr + middle) >> shift <= chunk - later
        graph = tl.where(before, middle, graph)
        most = tl.where(before, most, middle - 1)
    part = chunk - (tl.load(ptr + graph) >> shift)
    return graph, tl.where((part == 0) == (later == 0), part, -1)


@triton.jit
def role_of(ptr, program, nodes, size, shift):
    """Return the graph of a program, its offsets, the rows of the program, and whether it has work.

    The first `size` programs have graphs of at most 2**shift rows, the others pieces of larger graphs.
    """
    graph, part = program, program * 0
    if program >= size:
        graph, part = piece_of(ptr, size, shift, program - size)
    first, last = offsets_of(ptr, graph, nodes)
    begin = first + (part << shift)
    end = tl.minimum(last, begin + (part * 0 + 1 << shift))
    is_cut = last - first > (part * 0 + 1 << shift)
    has_work = tl.where(program < size, is_cut == 0, is_cut & (part >= 0) & (begin < last))
    return graph, first, last, begin, end, has_work


# ------------------------------------------------------------------------------------------------- tiles


@triton.jit
def tile_at(
    order, start, end, columns, features, ROWS: tl.constexpr, ORDERED: tl.constexpr, FULL: tl.constexpr
):
    """Return the positions of the elements of a tile, and which of its rows exist; FULL: all of them."""
    rows = start + tl.arange(0, ROWS)
    inside = rows < end
    nodes = rows
    if ORDERED:
        nodes = tl.load(order + rows) if FULL else tl.load(order + rows, inside, 0)
    return nodes[:, None] * features + columns[None, :], inside[:, None]


@triton.jit
def load_words(
    x, places, inside, columns, features, MANTISSA: tl.constexpr, FULL: tl.constexpr, WHOLE: tl.constexpr
):
    """Load a tile as bits of float32 or float64, 0 where there is no element; WHOLE: all columns exist."""
    if FULL and WHOLE:
        words = tl.load(x + places)
    elif FULL:
        words = tl.load(x + places, (columns < features)[None, :], 0)
    elif WHOLE:
        words = tl.load(x + places, inside, 0)
    else:
        words = tl.load(x + places, inside & (columns < features)[None, :], 0)
    return widened(words, MANTISSA)


@triton.jit
def value_of(words):
    """Return the float32 or float64 with these bits."""
    return words.to(tl.float64 if words.dtype == tl.int64 else tl.float32, bitcast=True)


@triton.jit
def tied(values, winner):
    """Return which values equal the winner; NaN equals NaN."""
    return (values == winner) | ((values != values) & (winner != winner))


@triton.jit
def flipped(bits, BITS: tl.constexpr):
    """Return the key of a number of BITS bits, an integer in the order of the numbers; inverts itself."""
    SIGN: tl.constexpr = 63 if BITS == 64 else 31
    return bits ^ ((bits >> SIGN) & (2 ** (BITS - 1) - 1))


@triton.jit
def ties_of(count, key, best):
    """Return `count`, which belongs to the number of key `key`, if that of key `best` is equal; else 0."""
    return tl.where(tl.where(key == -1, 0, key) == tl.where(best == -1, 0, best), count, 0)  # -0 equals 0


@triton.jit
def count_ties(values, count, key, best):
    """Return how many numbers equal that of key `best`: `count` with that of key `key`, and of `values`."""
    winner = value_of(flipped(best, best.dtype.primitive_bitwidth))
    return ties_of(count, key, best) + tl.sum((values == winner).to(tl.int32), 0)


@triton.jit
def compare(
    words, inside, top, bottom, tops, bottoms, winner, loser,
    LANES: tl.constexpr, FULL: tl.constexpr, MAXIMA: tl.constexpr, MINIMA: tl.constexpr, TIES: tl.constexpr,
):  # fmt: skip
    """Update the greatest and the least keys [LANES, FEATURES] with a tile, and the numbers of ties.

    TIES is NONE; FOUND, which counts the numbers equal to the greatest and the least one, if these are not
    NaN; or GIVEN, which counts those equal to `winner` and `loser`.
    """
    SHAPE: tl.constexpr = [words.shape[0] // LANES, LANES, words.shape[1]]
    if TIES == GIVEN:
        values = value_of(words)
        if MAXIMA:
            tops += tl.sum(tl.reshape((tied(values, winner[None, :]) & inside).to(tl.int32), SHAPE), 0)
        if MINIMA:
            bottoms += tl.sum(tl.reshape((tied(values, loser[None, :]) & inside).to(tl.int32), SHAPE), 0)
    elif MAXIMA or MINIMA:
        GREATEST: tl.constexpr = MAGNITUDE_64 if words.dtype == tl.int64 else MAGNITUDE_32
        LOWEST: tl.constexpr = LOWEST_64 if words.dtype == tl.int64 else LOWEST_32
        keys = flipped(words, words.dtype.primitive_bitwidth)
        values = value_of(tl.reshape(words if FULL else tl.where(inside, words, -1), SHAPE))  # -1: NaN
        if MAXIMA:
            above = keys if FULL else tl.where(inside, keys, LOWEST)
            best = tl.maximum(top, tl.max(tl.reshape(above, SHAPE), 0))
            tops = count_ties(values, tops, top, best) if TIES == FOUND else tops
            top = best
        if MINIMA:
            below = keys if FULL else tl.where(inside, keys, GREATEST)
            best = tl.minimum(bottom, tl.min(tl.reshape(below, SHAPE), 0))
            bottoms = count_ties(values, bottoms, bottom, best) if TIES == FOUND else bottoms
            bottom = best
    return top, bottom, tops, bottoms


@triton.jit
def no_keys(LANES: tl.constexpr, FEATURES: tl.constexpr, MANTISSA: tl.constexpr):
    """Return `top` and `bottom` of no rows at all, and that none is tied."""
    if MANTISSA == 52:
        top, bottom = (
            tl.full([LANES, FEATURES], LOWEST_64, tl.int64),
            tl.full([LANES, FEATURES], MAGNITUDE_64, tl.int64),
        )
    else:
        top, bottom = (
            tl.full([LANES, FEATURES], LOWEST_32, tl.int32),
            tl.full([LANES, FEATURES], MAGNITUDE_32, tl.int32),
        )
    return top, bottom, tl.zeros([LANES, FEATURES], tl.int32), tl.zeros([LANES, FEATURES], tl.int32)


@triton.jit
def joined(
    x, order, begin, end, columns, features, top, bottom, tops, bottoms, nan,
    MANTISSA: tl.constexpr, LANES: tl.constexpr, FEATURES: tl.constexpr, ORDERED: tl.constexpr,
    WHOLE: tl.constexpr, TIES: tl.constexpr,
):  # fmt: skip
    """Join keys and numbers of ties of all lanes; a NaN takes both keys beyond those of the infinities."""
    INFINITY: tl.constexpr = INFINITY_64 if MANTISSA == 52 else INFINITY_32
    greatest, least = tl.max(top, 0), tl.min(bottom, 0)
    nan = nan | (greatest > INFINITY) | (least < ~INFINITY)
    if TIES == FOUND:
        tops = ties_of(tops, top, greatest[None, :])
        bottoms = ties_of(bottoms, bottom, least[None, :])
    tops, bottoms = tl.sum(tops, 0), tl.sum(bottoms, 0)
    if TIES == FOUND:  # noqa: SIM102  # known when the kernel is compiled
        if tl.max((nan & (columns < features)).to(tl.int32), 0) != 0:
            count = count_nan(
                x, order, begin, end, columns, features, MANTISSA, LANES, FEATURES, ORDERED, WHOLE
            )
            tops, bottoms = tl.where(nan, count, tops), tl.where(nan, count, bottoms)
    greatest, least = tl.where(nan, INFINITY + 1, greatest), tl.where(nan, ~INFINITY - 1, least)
    return greatest.to(tl.int64), least.to(tl.int64), tops, bottoms


@triton.jit
def count_nan(
    x, order, begin, end, columns, features,
    MANTISSA: tl.constexpr, LANES: tl.constexpr, FEATURES: tl.constexpr, ORDERED: tl.constexpr,
    WHOLE: tl.constexpr,
):  # fmt: skip
    """Return how many numbers of every column are NaN."""
    ROWS: tl.constexpr = DEPTH * LANES
    count = tl.zeros([FEATURES], tl.int32)
    for start in range(begin, end, ROWS):
        places, inside = tile_at(order, start, end, columns, features, ROWS, ORDERED, False)
        values = value_of(load_words(x, places, inside, columns, features, MANTISSA, False, WHOLE))
        count += tl.sum((values != values).to(tl.int32), 0)  # absent numbers are 0
    return count


# ------------------------------------------------------------------------------------------- exact sums


@triton.jit
def add_far(
    x, order, begin, end, columns, features, centre, winner, loser,
    MANTISSA: tl.constexpr, LANES: tl.constexpr, FEATURES: tl.constexpr,
    ORDERED: tl.constexpr, WHOLE: tl.constexpr, SQUARES: tl.constexpr,
    MAXIMA: tl.constexpr, MINIMA: tl.constexpr, TIES: tl.constexpr,
):  # fmt: skip
    """Read rows of any magnitudes once: return their exact sum, and extremes or ties as `add_near` does.

    SQUARES adds the squared deviations from `centre`. Every thread adds row after row to three float64
    numbers, with the errors of all additions; the sum is broken if there is an error beyond the third.
    """
    ROWS: tl.constexpr = DEPTH * LANES
    BOTH: tl.constexpr = (MAXIMA or MINIMA) and TIES != GIVEN
    high = tl.zeros([LANES, FEATURES], tl.float64)
    low, third = high, high
    broken = tl.zeros([LANES, FEATURES], tl.int32)
    top, bottom, tops, bottoms = no_keys(LANES, FEATURES, MANTISSA)
    for start in range(begin, end, ROWS):
        places, inside = tile_at(order, start, end, columns, features, ROWS, ORDERED, False)
        words = load_words(x, places, inside, columns, features, MANTISSA, False, WHOLE)
        top, bottom, tops, bottoms = compare(
            words, inside, top, bottom, tops, bottoms, winner, loser,
            LANES, False, MAXIMA or BOTH, MINIMA or BOTH, TIES,
        )  # fmt: skip
        values = number(words, MANTISSA)
        if SQUARES:
            values = values - centre[None, :]
            values = tl.where(inside, values * values, 0.0)
        layers = tl.reshape(bits_of(values), [DEPTH, LANES, FEATURES])
        for layer in tl.static_range(DEPTH):
            here = tl.arange(0, DEPTH)[:, None, None] == layer
            part = float_of(tl.sum(tl.where(here, layers, 0), 0))
            high, low, third, broken = add_part(high, low, third, broken, part)
    high, low, third, broken = fold(high, low, third, broken, LANES, FEATURES)
    top, bottom, tops, bottoms = joined(
        x, order, begin, end, columns, features, top, bottom, tops, bottoms, columns < 0,
        MANTISSA, LANES, FEATURES, ORDERED, WHOLE, TIES,
    )  # fmt: skip
    return high, low, third, broken, top, bottom, tops, bottoms


@triton.jit
def add_segment(
    x, order, begin, end, columns, features, winner, loser, top, bottom, tops, bottoms,
    MANTISSA: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, FEATURES: tl.constexpr,
    ORDERED: tl.constexpr, WHOLE: tl.constexpr, SUMS: tl.constexpr,
    MAXIMA: tl.constexpr, MINIMA: tl.constexpr, TIES: tl.constexpr,
):  # fmt: skip
    """Return the sum of rows in float64, the largest and the smallest magnitudes, and `compare` of the rows.

    A magnitude of 0 is not the smallest: the smallest is returned less one, as an unsigned integer.
    """
    total = tl.zeros([LANES, FEATURES], tl.float64)
    largest = tl.zeros([LANES, FEATURES], tl.int32)
    smallest = tl.full([LANES, FEATURES], 2**32 - 1, tl.uint32)
    SHAPE: tl.constexpr = [ROWS // LANES, LANES, FEATURES]
    middle = begin + (end - begin) // ROWS * ROWS
    for rest in tl.static_range(2):  # full tiles, then the rest
        for start in range(begin if rest == 0 else middle, middle if rest == 0 else end, ROWS):
            places, inside = tile_at(order, start, end, columns, features, ROWS, ORDERED, rest == 0)
            words = load_words(x, places, inside, columns, features, MANTISSA, rest == 0, WHOLE)
            top, bottom, tops, bottoms = compare(
                words, inside, top, bottom, tops, bottoms, winner, loser,
                LANES, rest == 0, MAXIMA, MINIMA, TIES,
            )  # fmt: skip
            if SUMS:
                magnitudes = tl.reshape(words & MAGNITUDE_32, SHAPE)
                total += tl.sum(tl.reshape(number(words, MANTISSA), SHAPE), 0)
                largest = tl.maximum(largest, tl.max(magnitudes, 0))
                smallest = tl.minimum(smallest, tl.min((magnitudes - 1).to(tl.uint32, bitcast=True), 0))
    return tl.sum(total, 0), tl.max(largest, 0), tl.min(smallest, 0), top, bottom, tops, bottoms


@triton.jit
def add_near(
    x, order, begin, end, columns, features, winner, loser,
    MANTISSA: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, POWER: tl.constexpr,
    FEATURES: tl.constexpr, ORDERED: tl.constexpr, WHOLE: tl.constexpr, SUMS: tl.constexpr,
    MAXIMA: tl.constexpr, MINIMA: tl.constexpr, TIES: tl.constexpr,
):  # fmt: skip
    """Read rows once: return their sum as two numbers, whether it is broken, and extremes or ties.

    float32, float16 and bfloat16 numbers are added in float64, 2**POWER rows at a time: with
    |x| < 2**(m - 126) and nonzero |x| >= 2**(l - 127), m and l biased exponents, this is exact if
    m - l + MANTISSA + POWER + 1 is at most 53; else the sum is broken. A sum that is not finite is that of
    IEEE 754, in the first number.

    MAXIMA and MINIMA return keys of the greatest and the least number, both beyond those of the infinities
    if there is a NaN; and the numbers of ties that TIES asks for, see `compare`.
    """
    BOTH: tl.constexpr = (MAXIMA or MINIMA) and TIES != GIVEN and not SUMS  # sums know of NaN
    high = tl.zeros([FEATURES], tl.float64)
    low = high
    most = tl.zeros([FEATURES], tl.int32)
    broken, widest = most, most
    top, bottom, tops, bottoms = no_keys(LANES, FEATURES, MANTISSA)
    for start in range(begin, end, 1 << POWER):
        total, largest, smallest, top, bottom, tops, bottoms = add_segment(
            x, order, start, tl.minimum(start + (1 << POWER), end), columns, features, winner, loser, top,
            bottom, tops, bottoms, MANTISSA, ROWS, LANES, FEATURES, ORDERED, WHOLE, SUMS,
            MAXIMA or BOTH, MINIMA or BOTH, TIES,
        )  # fmt: skip
        if SUMS:
            gap = (largest >> 23) - tl.maximum(((smallest + 1) >> 23).to(tl.int32), 1)
            widest = tl.maximum(widest, tl.where(smallest == 2**32 - 1, 0, gap))
            most = tl.maximum(most, largest)
            if start == begin:
                high = total
            else:
                high, error = two_sum(high, total)
                low, error = two_sum(low, error)
                broken = broken | (error != 0.0).to(tl.int32)
    finite = is_finite(high)
    broken = tl.where(finite, broken | (widest > 52 - MANTISSA - POWER).to(tl.int32), 0)
    top, bottom, tops, bottoms = joined(
        x, order, begin, end, columns, features, top, bottom, tops, bottoms, most > INFINITY_32,
        MANTISSA, LANES, FEATURES, ORDERED, WHOLE, TIES,
    )  # fmt: skip
    return high, tl.where(finite, low, 0.0), broken, top, bottom, tops, bottoms


@triton.jit
def special_sum(
    x, order, begin, end, columns, features, centre,
    MANTISSA: tl.constexpr, LANES: tl.constexpr, FEATURES: tl.constexpr,
    ORDERED: tl.constexpr, WHOLE: tl.constexpr, SQUARES: tl.constexpr,
):  # fmt: skip
    """Return the IEEE 754 sum of the infinities and NaN of rows, or of squared deviations; 0 if none."""
    ROWS: tl.constexpr = DEPTH * LANES
    total = tl.zeros([FEATURES], tl.float64)
    for start in range(begin, end, ROWS):
        places, inside = tile_at(order, start, end, columns, features, ROWS, ORDERED, False)
        values = number(load_words(x, places, inside, columns, features, MANTISSA, False, WHOLE), MANTISSA)
        if SQUARES:
            values = values - centre[None, :]
            values = tl.where(inside, values * values, 0.0)
        total += tl.sum(tl.where(is_finite(values), 0.0, values), 0)
    return total


@triton.jit
def special_of(
    x, order, begin, end, columns, features, centre, high, broken,
    MANTISSA: tl.constexpr, LANES: tl.constexpr, FEATURES: tl.constexpr,
    ORDERED: tl.constexpr, WHOLE: tl.constexpr, SQUARES: tl.constexpr,
):  # fmt: skip
    """Split off the infinities and NaN of a sum: return `high`, whether the sum is broken, and their sum.

    A sum of float64 numbers that is not finite may also have overflowed; then it is broken.
    """
    finite = is_finite(high)
    special = tl.where(finite, 0.0, high)
    if MANTISSA == 52 or SQUARES:
        if tl.min(finite.to(tl.int32), 0) == 0:
            special = special_sum(
                x, order, begin, end, columns, features, centre,
                MANTISSA, LANES, FEATURES, ORDERED, WHOLE, SQUARES,
            )  # fmt: skip
        broken = tl.where(special == 0.0, broken | (finite == 0).to(tl.int32), 0)
    return tl.where(finite, high, 0.0), broken, special


@triton.jit
def words_of(
    out, graph, columns, features, BLOCK: tl.constexpr, BLOCKS: tl.constexpr, MANTISSA: tl.constexpr
):
    """Load one block of an output or its gradient as float32 or float64; 0 if there is no such block."""
    if BLOCK >= 0:
        place = out + (graph * BLOCKS + BLOCK) * features + columns
        words = widened(tl.load(place, columns < features, 0), MANTISSA)
    else:
        words = tl.zeros(columns.shape, tl.int64 if MANTISSA == 52 else tl.int32)
    return value_of(words)


@triton.jit
def read_again(
    x, order, begin, end, columns, features, centre, winner, loser,
    MANTISSA: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, POWER: tl.constexpr,
    FEATURES: tl.constexpr, ORDERED: tl.constexpr, WHOLE: tl.constexpr,
    SUMS: tl.constexpr, SQUARES: tl.constexpr, MAXIMA: tl.constexpr, MINIMA: tl.constexpr,
):  # fmt: skip
    """Return the sum of rows or squared deviations, that of infinities and NaN, and numbers of ties."""
    high = tl.zeros([FEATURES], tl.float64)
    low, third, special = high, high, high
    broken = tl.zeros([FEATURES], tl.int32)
    if SUMS or SQUARES:
        high, low, third, broken, _, _, equal, equal_least = add_far(
            x, order, begin, end, columns, features, centre, winner, loser,
            MANTISSA, LANES, FEATURES, ORDERED, WHOLE, SQUARES, MAXIMA, MINIMA, GIVEN,
        )  # fmt: skip
        high, broken, special = special_of(
            x, order, begin, end, columns, features, centre, high, broken,
            MANTISSA, LANES, FEATURES, ORDERED, WHOLE, SQUARES,
        )  # fmt: skip
    else:
        _, _, _, _, _, equal, equal_least = add_near(
            x, order, begin, end, columns, features, winner, loser,
            MANTISSA, ROWS, LANES, POWER, FEATURES, ORDERED, WHOLE, False, MAXIMA, MINIMA, GIVEN,
        )  # fmt: skip
    return high, low, third, broken, special, equal, equal_least
