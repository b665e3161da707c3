"""The Triton kernels of `readouts.kernels.triton.elementary`; for the method see there.

Floats are passed as integers of the same bits, as in `readouts.kernels.triton.numbers`. CODES lists the
reductions of the output, three bits each: the position of the name in ELEMENTARY.
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
    add_tile,
    bits_of,
    divide,
    narrow,
    nearest_quotient,
    nearest_sum,
    normalized,
    number,
    patched,
    to_odd,
    unwidened,
    widened,
)
from readouts.reductions import ELEMENTARY

SUM, MEAN, MAX, MIN, VAR, STD = (
    tl.constexpr(ELEMENTARY.index(name)) for name in ("sum", "mean", "max", "min", "var", "std")
)
LARGE, SMALL = tl.constexpr(2.0**990), tl.constexpr(2.0**-900)  # sums whose division is exact in float64

# ------------------------------------------------------------------------------------------- rows of a graph


@triton.jit
def place_of(features, FEATURES: tl.constexpr):
    """Return the number of this program among those of the same features, and its features.

    The grid has one dimension, because a second one would have at most 65535 blocks.
    """
    program, blocks = tl.program_id(0).to(tl.int64), (features + FEATURES - 1) // FEATURES
    return program // blocks, program % blocks * FEATURES + tl.arange(0, FEATURES)


@triton.jit
def offsets_of(ptr, graph, nodes):
    """Return the offsets of a graph, or of no rows if `ptr` leads outside of the rows."""
    first, last = tl.load(ptr + graph), tl.load(ptr + graph + 1)
    sound = (first >= 0) & (first <= last) & (last <= nodes)
    return tl.where(sound, first, 0), tl.where(sound, last, 0)


@triton.jit
def find(ptr, size, piece, target, WEIGHT: tl.constexpr):
    """Return the last graph with ptr[graph] // piece + WEIGHT * graph <= target."""
    least, most = target * 0, target * 0 + size - 1
    while least < most:
        middle = (least + most + 1) // 2
        before = tl.load(ptr + middle) // piece + WEIGHT * middle <= target
        least = tl.where(before, middle, least)
        most = tl.where(before, most, middle - 1)
    return least


@triton.jit
def piece_of(ptr, program, nodes, size, piece, SPLIT: tl.constexpr):
    """Return the graph of this program, the number of its piece, and the offsets of the graph.

    Graph b starts in chunk ptr[b] // piece. Its pieces belong to the programs from that number + b on.
    """
    if SPLIT:
        graph = find(ptr, size, piece, program, 1)
        first, last = offsets_of(ptr, graph, nodes)
        part = program - graph - first // piece
    else:
        graph = program
        first, last = offsets_of(ptr, graph, nodes)
        part = program * 0
    return graph, part, first, last


@triton.jit
def tile_at(order, start, end, columns, features, POWER: tl.constexpr, ORDERED: tl.constexpr):
    """Return the positions of the elements of a tile of rows, and which of them exist."""
    rows = start + tl.arange(0, 1 << POWER)
    inside = rows < end
    nodes = tl.load(order + rows, inside, 0) if ORDERED else rows
    places = nodes[:, None] * features + columns[None, :]
    return places, inside[:, None] & (columns < features)[None, :]


@triton.jit
def extremes(word, both, greatest, least, MANTISSA: tl.constexpr):
    """Update the greatest and least keys with a tile; a key is an integer in the order of the numbers."""
    if MANTISSA == 52:
        key = word ^ ((word >> 63) & MAGNITUDE_64)
        above, below = tl.where(both, key, LOWEST_64), tl.where(both, key, MAGNITUDE_64)
    else:
        key = word ^ ((word >> 31) & MAGNITUDE_32)
        above, below = tl.where(both, key, LOWEST_32), tl.where(both, key, MAGNITUDE_32)
    greatest = tl.maximum(greatest, tl.max(above, 0).to(tl.int64))
    return greatest, tl.minimum(least, tl.min(below, 0).to(tl.int64))


@triton.jit
def add_certified(
    high, low, third, broken, word, greatest, least, MANTISSA: tl.constexpr, POWER: tl.constexpr
):
    """Add a tile of float32, float16 or bfloat16 numbers: directly if that is exact, else by `add_tile`.

    With |x| < 2**(m - 126) and nonzero |x| >= 2**(l - 127), m and l the biased exponents, sums of
    2**k rows need m - l + MANTISSA + k + 1 of 53 bits.
    """
    WIDEST: tl.constexpr = 52 - MANTISSA - POWER
    magnitude = word & MAGNITUDE_32
    smallest = tl.min(tl.where(magnitude == 0, MAGNITUDE_32, magnitude), 0)
    largest = tl.maximum(greatest, ~least)
    gap = (largest >> 23) - tl.maximum(smallest >> 23, 1)
    values = number(word, MANTISSA)
    if tl.max(gap, 0) <= WIDEST:
        high, low, third, broken = add_part(high, low, third, broken, tl.sum(values, 0))
    else:
        high, low, third, broken = add_tile(high, low, third, broken, values, POWER)
    return high, low, third, broken


@triton.jit
def scan(
    x, order, begin, end, columns, features, centre, winner, loser,
    MANTISSA: tl.constexpr, POWER: tl.constexpr, FEATURES: tl.constexpr, ORDERED: tl.constexpr,
    SUMS: tl.constexpr, SQUARES: tl.constexpr, EXTREMES: tl.constexpr, TIES: tl.constexpr,
):  # fmt: skip
    """Read rows once: return their sum as three numbers, whether it is broken, and extremes or ties.

    SUMS adds the numbers and requires EXTREMES; SQUARES adds their squared deviations from `centre`.
    EXTREMES returns keys of the greatest and the least number, TIES how many numbers equal `winner` and
    `loser` (the maximum and the minimum).
    """
    high = tl.zeros([FEATURES], tl.float64)
    low, third = high, high
    broken = tl.zeros([FEATURES], tl.int32)
    greatest = tl.zeros([FEATURES], tl.int64)
    least = greatest
    if EXTREMES:
        greatest, least = greatest + LOWEST_64, least + MAGNITUDE_64
    equal, equal_least = tl.zeros([FEATURES], tl.int64), tl.zeros([FEATURES], tl.int64)
    for start in range(begin, end, 1 << POWER):
        places, both = tile_at(order, start, end, columns, features, POWER, ORDERED)
        word = widened(tl.load(x + places, both, 0), MANTISSA)
        if EXTREMES:
            greatest, least = extremes(word, both, greatest, least, MANTISSA)
        if TIES:
            values = number(word, MANTISSA)
            equal += tl.sum((both & tied(values, winner[None, :])).to(tl.int32), 0)
            equal_least += tl.sum((both & tied(values, loser[None, :])).to(tl.int32), 0)
        if SQUARES:
            values = number(word, MANTISSA) - centre[None, :]
            values = tl.where(both, values * values, 0.0)
        elif SUMS:
            values = number(word, MANTISSA)
        if SUMS or SQUARES:
            if SQUARES or MANTISSA == 52:
                high, low, third, broken = add_tile(high, low, third, broken, values, POWER)
            else:
                high, low, third, broken = add_certified(
                    high, low, third, broken, word, greatest, least, MANTISSA, POWER
                )
    return high, low, third, broken, greatest, least, equal, equal_least


@triton.jit
def tied(values, winner):
    """Return which values equal the winner; NaN equals NaN."""
    return (values == winner) | ((values != values) & (winner != winner))


@triton.jit
def special_sum(greatest, least, MANTISSA: tl.constexpr):
    """Return the IEEE 754 sum of the infinities and NaN of a column with these extreme keys; 0 if none."""
    INFINITY: tl.constexpr = INFINITY_64 if MANTISSA == 52 else INFINITY_32
    above, below = greatest >= INFINITY, least <= ~INFINITY
    infinite = tl.where(above, float("inf"), tl.where(below, float("-inf"), 0.0)).to(tl.float64)
    nan = (above & below) | (greatest > INFINITY) | (least < ~INFINITY)
    nan = nan & (greatest >= least)  # an empty graph has neither
    return tl.where(greatest < least, 0.0, tl.where(nan, float("nan"), infinite)).to(tl.float64)


@triton.jit
def averaged(
    x, order, begin, end, columns, features, centre, high, low, third, broken, special,
    MANTISSA: tl.constexpr, FEATURES: tl.constexpr, ORDERED: tl.constexpr,
    SQUARES: tl.constexpr,
):  # fmt: skip
    """Return the bits of sum and mean of a graph, rounded once, and the float64 mean."""
    nodes = tl.maximum(end - begin, 1).to(tl.float64)
    high, low, third, rest, broken = normalized(high, low, third, high * 0.0, broken)
    size = tl.abs(high)
    far = (size > LARGE) | ((size < SMALL) & (size != 0.0)) | (rest != 0.0)
    broken = broken | far.to(tl.int32)
    quotient, a, b, broken = divide(high, low, third, nodes, broken)
    wide = nearest_quotient(quotient, a, b, nodes)
    if MANTISSA == 52:
        total, mean = narrow(nearest_sum(high, low, third), MANTISSA), narrow(wide, MANTISSA)
    else:
        total = narrow(to_odd(high, low), MANTISSA)
        mean = narrow(to_odd(quotient, a), MANTISSA)
    plain = special == 0.0
    total = tl.where(plain, total, narrow(special, MANTISSA))
    mean = tl.where(plain, mean, narrow(special, MANTISSA))
    wide = tl.where(plain, wide, special)
    broken = tl.where(plain, broken, 0)
    if tl.max(broken, 0) != 0:
        total, mean, wide = patched(
            x, order, begin, end, columns, features, centre, broken, total, mean, wide,
            MANTISSA, FEATURES, ORDERED, SQUARES,
        )  # fmt: skip
    return total, mean, wide


@triton.jit
def special_square(centre):
    """Return NaN if the mean is not finite, because then the sum of squares is NaN; else 0."""
    return tl.where((bits_of(centre) & MAGNITUDE_64) < INFINITY_64, 0.0, float("nan")).to(tl.float64)


@triton.jit
def extreme_bits(key, occupied, MANTISSA: tl.constexpr):
    """Return the bits of the number with this key, or 0 for an empty graph."""
    word = key ^ ((key >> 63) & (MAGNITUDE_64 if MANTISSA == 52 else MAGNITUDE_32))
    return tl.where(occupied, unwidened(word, MANTISSA), 0)


@triton.jit
def either_nan(greatest, least, MANTISSA: tl.constexpr):
    """Return both keys; if either is that of a NaN, return the key of NaN for both."""
    INFINITY: tl.constexpr = INFINITY_64 if MANTISSA == 52 else INFINITY_32
    QUIET: tl.constexpr = INFINITY | (1 << (51 if MANTISSA == 52 else 22))
    nan = (greatest > INFINITY) | (least < ~INFINITY)
    return tl.where(nan, QUIET, greatest), tl.where(nan, QUIET, least)


@triton.jit
def store_block(
    out, graph, columns, features, bits, CODE: tl.constexpr, CODES: tl.constexpr, BLOCKS: tl.constexpr
):
    """Write the bits of a reduction to each of its blocks in the output."""
    for block in tl.static_range(BLOCKS):
        if (CODES >> (3 * block)) & 7 == CODE:
            place = out + (graph * BLOCKS + block) * features + columns
            tl.store(place, bits.to(out.dtype.element_ty), columns < features)


@triton.jit
def store_first(
    out, graph, columns, features, total, mean, greatest, least, occupied,
    CODES: tl.constexpr, BLOCKS: tl.constexpr, MANTISSA: tl.constexpr,
    SUMS: tl.constexpr, EXTREMES: tl.constexpr,
):  # fmt: skip
    """Write sum, mean, max and min if they are requested."""
    if SUMS:
        store_block(out, graph, columns, features, total, SUM, CODES, BLOCKS)
        store_block(out, graph, columns, features, mean, MEAN, CODES, BLOCKS)
    if EXTREMES:
        greatest, least = either_nan(greatest, least, MANTISSA)
        greatest, least = extreme_bits(greatest, occupied, MANTISSA), extreme_bits(least, occupied, MANTISSA)
        store_block(out, graph, columns, features, greatest, MAX, CODES, BLOCKS)
        store_block(out, graph, columns, features, least, MIN, CODES, BLOCKS)


# ------------------------------------------------------------------------------------------------- kernels


@triton.jit
def squared(
    x, order, first, last, columns, features, centre,
    MANTISSA: tl.constexpr, POWER: tl.constexpr, FEATURES: tl.constexpr, ORDERED: tl.constexpr,
):  # fmt: skip
    """Return the bits of the variance of a whole graph, rounded once, and the float64 variance."""
    high, low, third, broken, _, _, _, _ = scan(
        x, order, first, last, columns, features, centre, centre, centre,
        MANTISSA, POWER, FEATURES, ORDERED, False, True, False, False,
    )  # fmt: skip
    _, mean, wide = averaged(
        x, order, first, last, columns, features, centre, high, low, third, broken, special_square(centre),
        MANTISSA, FEATURES, ORDERED, True,
    )  # fmt: skip
    return mean, wide


@triton.jit
def store_state(
    states, keys, slot, columns, features, high, low, third, broken, greatest, least, equal, equal_least,
    SUMS: tl.constexpr, EXTREMES: tl.constexpr, TIES: tl.constexpr,
):  # fmt: skip
    """Store the partial state of a piece; NaN as third number marks a broken sum."""
    inside = columns < features
    if SUMS:
        place = states + slot * 3 * features + columns
        tl.store(place, high, inside)
        tl.store(place + features, low, inside)
        tl.store(place + 2 * features, tl.where(broken != 0, float("nan"), third), inside)
    place = keys + slot * 4 * features + columns
    if EXTREMES:
        tl.store(place, greatest, inside)
        tl.store(place + features, least, inside)
    if TIES:
        tl.store(place + 2 * features, equal, inside)
        tl.store(place + 3 * features, equal_least, inside)


@triton.jit
def finish(
    x, order, out, graph, first, last, columns, features, high, low, third, broken, greatest, least,
    CODES: tl.constexpr, BLOCKS: tl.constexpr, MANTISSA: tl.constexpr, POWER: tl.constexpr,
    FEATURES: tl.constexpr, ORDERED: tl.constexpr,
    SUMS: tl.constexpr, SQUARES: tl.constexpr, EXTREMES: tl.constexpr,
):  # fmt: skip
    """Write all reductions of a whole graph; squared deviations read its rows once more."""
    total, mean = greatest, least
    if SUMS:
        special = special_sum(greatest, least, MANTISSA)
        total, mean, wide = averaged(
            x, order, first, last, columns, features, special, high, low, third, broken, special,
            MANTISSA, FEATURES, ORDERED, False,
        )  # fmt: skip
        if SQUARES:
            var, wide = squared(
                x, order, first, last, columns, features, wide,
                MANTISSA, POWER, FEATURES, ORDERED,
            )  # fmt: skip
            std = narrow(tl.sqrt(wide), MANTISSA)
            store_block(out, graph, columns, features, var, VAR, CODES, BLOCKS)
            store_block(out, graph, columns, features, std, STD, CODES, BLOCKS)
    store_first(
        out, graph, columns, features, total, mean, greatest, least, first < last,
        CODES, BLOCKS, MANTISSA, SUMS, EXTREMES,
    )  # fmt: skip


@triton.jit(do_not_specialize=["nodes", "size", "piece"])
def forward(
    x, order, ptr, out, states, keys, nodes, size, features, piece,
    CODES: tl.constexpr, BLOCKS: tl.constexpr, MANTISSA: tl.constexpr, POWER: tl.constexpr,
    FEATURES: tl.constexpr, ORDERED: tl.constexpr, SPLIT: tl.constexpr,
    SUMS: tl.constexpr, SQUARES: tl.constexpr, EXTREMES: tl.constexpr,
):  # fmt: skip
    """Reduce one graph; or one piece of a graph with more than `piece` nodes, and store its state."""
    program, columns = place_of(features, FEATURES)
    graph, part, first, last = piece_of(ptr, program, nodes, size, piece, SPLIT)
    begin, end = first, last
    if SPLIT:
        begin = first + part * piece
        end = tl.minimum(last, begin + piece)
    if (part >= 0) & ((part == 0) | (begin < last)):
        nothing = tl.zeros([FEATURES], tl.float64)
        high, low, third, broken, greatest, least, equal, equal_least = scan(
            x, order, begin, end, columns, features, nothing, nothing, nothing,
            MANTISSA, POWER, FEATURES, ORDERED, SUMS, False, EXTREMES, False,
        )  # fmt: skip
        # Triton 3.6 fails to compile a branch that is never taken, hence the repetition
        if SPLIT:
            if last - first > piece:
                slot = 2 * (first // piece + part) + tl.minimum(part, 1)
                store_state(
                    states, keys, slot, columns, features, high, low, third, broken, greatest, least, equal,
                    equal_least, SUMS, EXTREMES, False,
                )  # fmt: skip
            else:
                finish(
                    x, order, out, graph, first, last, columns, features, high, low, third, broken, greatest,
                    least, CODES, BLOCKS, MANTISSA, POWER, FEATURES, ORDERED, SUMS, SQUARES, EXTREMES,
                )  # fmt: skip
        else:
            finish(
                x, order, out, graph, first, last, columns, features, high, low, third, broken, greatest,
                least, CODES, BLOCKS, MANTISSA, POWER, FEATURES, ORDERED, SUMS, SQUARES, EXTREMES,
            )  # fmt: skip


@triton.jit
def block_of(
    out, graph, columns, features, BLOCK: tl.constexpr, BLOCKS: tl.constexpr, MANTISSA: tl.constexpr
):
    """Load one block of an output or its gradient as float64; 0 if there is no such block."""
    if BLOCK >= 0:
        place = out + (graph * BLOCKS + BLOCK) * features + columns
        value = number(widened(tl.load(place, columns < features, 0), MANTISSA), MANTISSA)
    else:
        value = (columns * 0).to(tl.float64)
    return value


@triton.jit(do_not_specialize=["nodes", "size", "piece"])
def survey(
    x, order, ptr, out, states, keys, stats, nodes, size, features, piece,
    BLOCKS: tl.constexpr, MAX_BLOCK: tl.constexpr, MIN_BLOCK: tl.constexpr,
    MANTISSA: tl.constexpr, POWER: tl.constexpr, FEATURES: tl.constexpr, ORDERED: tl.constexpr,
    SUMS: tl.constexpr, SQUARES: tl.constexpr, EXTREMES: tl.constexpr, TIES: tl.constexpr,
):  # fmt: skip
    """Read one piece of a split graph, and store its state: sums and ties, or squared deviations."""
    program, columns = place_of(features, FEATURES)
    graph, part, first, last = piece_of(ptr, program, nodes, size, piece, True)
    begin = first + part * piece
    if (last - first > piece) & (part >= 0) & (begin < last):
        centre = tl.zeros([FEATURES], tl.float64)
        winner, loser = centre, centre
        if SQUARES:
            centre = tl.load(stats + first // piece * 4 * features + columns, columns < features, 0.0)
        if TIES:
            winner = block_of(out, graph, columns, features, MAX_BLOCK, BLOCKS, MANTISSA)
            loser = block_of(out, graph, columns, features, MIN_BLOCK, BLOCKS, MANTISSA)
        high, low, third, broken, greatest, least, equal, equal_least = scan(
            x, order, begin, tl.minimum(last, begin + piece), columns, features, centre, winner, loser,
            MANTISSA, POWER, FEATURES, ORDERED, SUMS, SQUARES, EXTREMES, TIES,
        )  # fmt: skip
        slot = 2 * (first // piece + part) + tl.minimum(part, 1)
        store_state(
            states, keys, slot, columns, features, high, low, third, broken, greatest, least, equal,
            equal_least, SUMS or SQUARES, EXTREMES, TIES,
        )  # fmt: skip


@triton.jit
def merged(
    states, keys, chunk, pieces, columns, features,
    PARTS: tl.constexpr, FEATURES: tl.constexpr,
    SUMS: tl.constexpr, EXTREMES: tl.constexpr, TIES: tl.constexpr,
):  # fmt: skip
    """Merge the states of all pieces of a graph, 2**PARTS at a time.

    The NaN of a broken piece is out of the range of `add_tile`, so the column stays broken.
    """
    high = tl.zeros([FEATURES], tl.float64)
    low, third = high, high
    broken = tl.zeros([FEATURES], tl.int32)
    equal, equal_least = tl.zeros([FEATURES], tl.int64), tl.zeros([FEATURES], tl.int64)
    greatest, least = equal + LOWEST_64, equal + MAGNITUDE_64
    for start in range(0, pieces, 1 << PARTS):
        part = start + tl.arange(0, 1 << PARTS)
        slot = 2 * (chunk + part) + tl.minimum(part, 1)
        inside = (part < pieces)[:, None] & (columns < features)[None, :]
        place = states + slot[:, None] * 3 * features + columns[None, :]
        if SUMS:
            for number_of_three in tl.static_range(3):
                values = tl.load(place + number_of_three * features, inside, 0.0)
                high, low, third, broken = add_tile(high, low, third, broken, values, PARTS)
        place = keys + slot[:, None] * 4 * features + columns[None, :]
        if EXTREMES:
            greatest = tl.maximum(greatest, tl.max(tl.load(place, inside, LOWEST_64), 0))
            least = tl.minimum(least, tl.min(tl.load(place + features, inside, MAGNITUDE_64), 0))
        if TIES:
            equal += tl.sum(tl.load(place + 2 * features, inside, 0), 0)
            equal_least += tl.sum(tl.load(place + 3 * features, inside, 0), 0)
    return high, low, third, broken, greatest, least, equal, equal_least


@triton.jit(do_not_specialize=["nodes", "size", "piece"])
def merge(
    x, order, ptr, out, states, keys, stats, nodes, size, features, piece,
    CODES: tl.constexpr, BLOCKS: tl.constexpr, PARTS: tl.constexpr,
    MANTISSA: tl.constexpr, FEATURES: tl.constexpr, ORDERED: tl.constexpr,
    SUMS: tl.constexpr, SQUARES: tl.constexpr, EXTREMES: tl.constexpr, TIES: tl.constexpr,
):  # fmt: skip
    """Finish the graph of more than `piece` nodes that starts in this program's chunk, if there is one.

    Write its outputs to `out`, and its mean, standard deviation and numbers of ties, which the next launches
    need, to `stats` [chunks, 4, features].
    """
    chunk, columns = place_of(features, FEATURES)
    graph = find(ptr, size, piece, chunk, 0)
    first, last = offsets_of(ptr, graph, nodes)
    if (first // piece == chunk) & (last - first > piece):
        place, inside = stats + chunk * 4 * features + columns, columns < features
        high, low, third, broken, greatest, least, equal, equal_least = merged(
            states, keys, chunk, (last - first + piece - 1) // piece, columns, features,
            PARTS, FEATURES, SUMS or SQUARES, EXTREMES, TIES,
        )  # fmt: skip
        total, mean = greatest, least
        if SQUARES:
            centre = tl.load(place, inside, 0.0)
            _, var, wide = averaged(
                x, order, first, last, columns, features, centre, high, low, third, broken,
                special_square(centre), MANTISSA, FEATURES, ORDERED, True,
            )  # fmt: skip
            wide = tl.sqrt(wide)
            tl.store(place + features, wide, inside)
            store_block(out, graph, columns, features, var, VAR, CODES, BLOCKS)
            store_block(out, graph, columns, features, narrow(wide, MANTISSA), STD, CODES, BLOCKS)
        elif SUMS:
            special = special_sum(greatest, least, MANTISSA)
            total, mean, wide = averaged(
                x, order, first, last, columns, features, special, high, low, third, broken, special,
                MANTISSA, FEATURES, ORDERED, False,
            )  # fmt: skip
            tl.store(place, wide, inside)
        if TIES:
            tl.store(place + 2 * features, equal.to(tl.float64), inside)
            tl.store(place + 3 * features, equal_least.to(tl.float64), inside)
        store_first(
            out, graph, columns, features, total, mean, greatest, least, first < last,
            CODES, BLOCKS, MANTISSA, SUMS, EXTREMES,
        )  # fmt: skip


@triton.jit
def learned(
    x, order, first, last, columns, features, winner, loser,
    MANTISSA: tl.constexpr, POWER: tl.constexpr, FEATURES: tl.constexpr, ORDERED: tl.constexpr,
    SUMS: tl.constexpr, SQUARES: tl.constexpr, EXTREMES: tl.constexpr, TIES: tl.constexpr,
):  # fmt: skip
    """Return mean, standard deviation and numbers of ties of a graph, computed from its rows."""
    mean = tl.zeros([FEATURES], tl.float64)
    std = mean
    high, low, third, broken, greatest, least, equal, equal_least = scan(
        x, order, first, last, columns, features, mean, winner, loser,
        MANTISSA, POWER, FEATURES, ORDERED, SUMS, False, EXTREMES, TIES,
    )  # fmt: skip
    if SUMS:
        special = special_sum(greatest, least, MANTISSA)
        _, _, mean = averaged(
            x, order, first, last, columns, features, special, high, low, third, broken, special,
            MANTISSA, FEATURES, ORDERED, False,
        )  # fmt: skip
    if SQUARES:
        _, wide = squared(
            x, order, first, last, columns, features, mean,
            MANTISSA, POWER, FEATURES, ORDERED,
        )  # fmt: skip
        std = tl.sqrt(wide)
    return mean, std, equal.to(tl.float64), equal_least.to(tl.float64)


@triton.jit
def remembered(
    stats, chunk, columns, features, SUMS: tl.constexpr, SQUARES: tl.constexpr, TIES: tl.constexpr
):
    """Return mean, standard deviation and numbers of ties of a split graph, as stored by `merge`."""
    place, inside = stats + chunk * 4 * features + columns, columns < features
    mean = (columns * 0).to(tl.float64)
    std, equal, equal_least = mean, mean, mean
    if SUMS:
        mean = tl.load(place, inside, 0.0)
    if SQUARES:
        std = tl.load(place + features, inside, 0.0)
    if TIES:
        equal = tl.load(place + 2 * features, inside, 0.0)
        equal_least = tl.load(place + 3 * features, inside, 0.0)
    return mean, std, equal, equal_least


@triton.jit
def contributions(
    grad, graph, columns, features, total, values, nodes, mean, std, winner, loser, equal, equal_least,
    CODES: tl.constexpr, BLOCKS: tl.constexpr, MANTISSA: tl.constexpr, NAME: tl.constexpr,
):  # fmt: skip
    """Add the blocks of one reduction to the gradients of a tile, or to those that all nodes share."""
    for block in tl.static_range(BLOCKS):
        if (CODES >> (3 * block)) & 7 == NAME:
            slope = block_of(grad, graph, columns, features, block, BLOCKS, MANTISSA)
            if NAME == SUM:
                total = total + slope
            elif NAME == MEAN:
                total = total + slope / nodes
            elif NAME == MAX:
                share = (slope / tl.maximum(equal, 1.0))[None, :]
                total = tl.where(tied(values, winner[None, :]), total + share, total)
            elif NAME == MIN:
                share = (slope / tl.maximum(equal_least, 1.0))[None, :]
                total = tl.where(tied(values, loser[None, :]), total + share, total)
            elif NAME == VAR:
                total = total + (2.0 * slope)[None, :] * ((values - mean[None, :]) / nodes)
            elif NAME == STD:
                scaled = slope[None, :] * ((values - mean[None, :]) / (nodes * std)[None, :])
                total = total + tl.where((std == 0.0)[None, :], 0.0, scaled)
    return total


@triton.jit(do_not_specialize=["nodes", "size", "piece"])
def backward(
    grad, x, out, order, ptr, result, stats, nodes, size, features, piece,
    CODES: tl.constexpr, BLOCKS: tl.constexpr, MAX_BLOCK: tl.constexpr, MIN_BLOCK: tl.constexpr,
    MANTISSA: tl.constexpr, POWER: tl.constexpr, FEATURES: tl.constexpr, ORDERED: tl.constexpr,
    SPLIT: tl.constexpr,
    SUMS: tl.constexpr, SQUARES: tl.constexpr, EXTREMES: tl.constexpr, TIES: tl.constexpr,
):  # fmt: skip
    """Write the gradients of the nodes of one graph, or of one piece of a split graph."""
    program, columns = place_of(features, FEATURES)
    graph, part, first, last = piece_of(ptr, program, nodes, size, piece, SPLIT)
    begin, end = first, last
    if SPLIT:
        begin = first + part * piece
        end = tl.minimum(last, begin + piece)
    if (part >= 0) & (begin < end):
        winner = block_of(out, graph, columns, features, MAX_BLOCK, BLOCKS, MANTISSA)
        loser = block_of(out, graph, columns, features, MIN_BLOCK, BLOCKS, MANTISSA)
        mean = tl.zeros([FEATURES], tl.float64)
        std, equal, equal_least = mean, mean, mean
        if (SUMS or TIES) and SPLIT:
            if last - first > piece:
                mean, std, equal, equal_least = remembered(
                    stats, first // piece, columns, features, SUMS, SQUARES, TIES
                )
            else:
                mean, std, equal, equal_least = learned(
                    x, order, first, last, columns, features, winner, loser,
                    MANTISSA, POWER, FEATURES, ORDERED, SUMS, SQUARES, EXTREMES, TIES,
                )  # fmt: skip
        elif SUMS or TIES:
            mean, std, equal, equal_least = learned(
                x, order, first, last, columns, features, winner, loser,
                MANTISSA, POWER, FEATURES, ORDERED, SUMS, SQUARES, EXTREMES, TIES,
            )  # fmt: skip
        count = (last - first).to(tl.float64)
        alike = tl.zeros([FEATURES], tl.float64)
        for name in tl.static_range(2):
            alike = contributions(
                grad, graph, columns, features, alike, alike, count, mean, std, winner, loser, equal,
                equal_least, CODES, BLOCKS, MANTISSA, name,
            )  # fmt: skip
        for start in range(begin, end, 1 << POWER):
            places, both = tile_at(order, start, end, columns, features, POWER, ORDERED)
            total = tl.zeros([1 << POWER, FEATURES], tl.float64) + alike[None, :]
            if SUMS or TIES:
                values = number(widened(tl.load(x + places, both, 0), MANTISSA), MANTISSA)
                for name in tl.static_range(2, 6):
                    total = contributions(
                        grad, graph, columns, features, total, values, count, mean, std, winner, loser, equal,
                        equal_least, CODES, BLOCKS, MANTISSA, name,
                    )  # fmt: skip
            tl.store(result + places, narrow(total, MANTISSA).to(result.dtype.element_ty), both)
