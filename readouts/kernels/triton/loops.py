"""The Triton kernels of `readouts.kernels.triton.elementary`; for the method see there.

Floats are passed as integers of the same bits, as in `readouts.kernels.triton.numbers`. CODES lists the
reductions of the output, three bits each: the position of the name in ELEMENTARY.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import triton
import triton.language as tl

from readouts.kernels.triton.numbers import DIGIT, float_of, narrow, number
from readouts.kernels.triton.pieces import store_mark, store_state
from readouts.kernels.triton.results import (
    MAX,
    MEAN,
    MIN,
    STD,
    SUM,
    VAR,
    averaged,
    squared,
    store_direct,
    store_extremes,
    store_moment,
    store_sums,
    store_ties,
)
from readouts.kernels.triton.rows import (
    FOUND,
    NONE,
    add_far,
    add_near,
    columns_at,
    load_words,
    place_of,
    read_again,
    role_of,
    special_of,
    tied,
    tile_at,
    value_of,
    words_of,
)

GROUP = tl.constexpr(32)  # number of flags that a program of `repair` looks at


@triton.jit(do_not_specialize=["nodes", "size", "shift"])
def forward(
    x, order, ptr, out, kept, states, keys, marks, lost, flags, nodes, size, features, shift,
    CODES: tl.constexpr, BLOCKS: tl.constexpr, KEPT: tl.constexpr, MANTISSA: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr, POWER: tl.constexpr, FEATURES: tl.constexpr,
    ORDERED: tl.constexpr, WHOLE: tl.constexpr,
    SUMS: tl.constexpr, MAXIMA: tl.constexpr, MINIMA: tl.constexpr,
):  # fmt: skip
    """Reduce one graph, or store the state of one piece of a graph of more than 2**shift nodes.

    Sums are those of `add_near`, and are rounded only if they are one float64 number. For other sums the
    program sets its flag, and leaves them to `repair`.
    """
    program, columns = place_of(features, FEATURES)
    graph, first, last, begin, end, has_work = role_of(ptr, program, nodes, size, shift)
    if program >= size:
        store_mark(marks, lost, program - size, graph, has_work, nodes, features, shift)
    flag = flags + tl.program_id(0)
    if SUMS:
        tl.store(flag, 0)
    if has_work:
        nothing = value_of(tl.zeros([FEATURES], tl.int64 if MANTISSA == 52 else tl.int32))
        TIES: tl.constexpr = FOUND if KEPT % 2 == 1 else NONE
        high, low, broken, top, bottom, tops, bottoms = add_near(
            x, order, begin, end, columns, features, nothing, nothing,
            MANTISSA, ROWS, LANES, POWER, FEATURES, ORDERED, WHOLE, SUMS, MAXIMA, MINIMA, TIES,
        )  # fmt: skip
        if program >= size:
            if SUMS:
                tl.store(flag, tl.max(broken, 0))
            store_state(
                states, keys, program - size, columns, features, high, low, low * 0.0, broken,
                top, bottom, tops, bottoms, SUMS, MAXIMA, MINIMA, TIES == FOUND,
            )  # fmt: skip
        else:
            if SUMS:
                store_direct(
                    out, flag, graph, columns, features, high, low, broken, last - first,
                    CODES, BLOCKS, MANTISSA,
                )  # fmt: skip
            store_extremes(
                out, graph, columns, features, top, bottom, first < last,
                CODES, BLOCKS, MANTISSA, MAXIMA, MINIMA,
            )  # fmt: skip
            if TIES == FOUND:
                store_ties(kept, graph, columns, features, tops, bottoms, KEPT)


@triton.jit
def far_sum(
    x, order, ptr, out, kept, states, keys, program, columns, nodes, size, features, shift,
    CODES: tl.constexpr, BLOCKS: tl.constexpr, KEPT: tl.constexpr, MANTISSA: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr, POWER: tl.constexpr, FEATURES: tl.constexpr,
    ORDERED: tl.constexpr, WHOLE: tl.constexpr, NEAR: tl.constexpr,
    SQUARES: tl.constexpr, MAXIMA: tl.constexpr, MINIMA: tl.constexpr,
):  # fmt: skip
    """Do the work of one program of `forward`, for sums of any magnitudes; NEAR: try `add_near` before."""
    graph, first, last, begin, end, has_work = role_of(ptr, program, nodes, size, shift)
    if has_work:
        nothing = tl.zeros([FEATURES], tl.float64)
        TIES: tl.constexpr = FOUND if KEPT % 2 == 1 else NONE
        if NEAR:
            none = value_of(tl.zeros([FEATURES], tl.int32))
            high, low, broken, top, bottom, tops, bottoms = add_near(
                x, order, begin, end, columns, features, none, none,
                MANTISSA, ROWS, LANES, POWER, FEATURES, ORDERED, WHOLE, True, MAXIMA, MINIMA, TIES,
            )  # fmt: skip
            third = nothing
            if tl.max(tl.where(columns < features, broken, 0), 0) != 0:
                high, low, third, broken, _, _, _, _ = add_far(
                    x, order, begin, end, columns, features, nothing, nothing, nothing,
                    MANTISSA, LANES, FEATURES, ORDERED, WHOLE, False, False, False, NONE,
                )  # fmt: skip
        else:
            high, low, third, broken, top, bottom, tops, bottoms = add_far(
                x, order, begin, end, columns, features, nothing, nothing, nothing,
                MANTISSA, LANES, FEATURES, ORDERED, WHOLE, False, MAXIMA, MINIMA, TIES,
            )  # fmt: skip
        high, broken, special = special_of(
            x, order, begin, end, columns, features, high, high, broken,
            MANTISSA, LANES, FEATURES, ORDERED, WHOLE, False,
        )  # fmt: skip
        if program >= size:
            high = tl.where(special == 0.0, high, special)
            store_state(
                states, keys, program - size, columns, features, high, low, third, broken,
                top, bottom, tops, bottoms, True, MAXIMA, MINIMA, TIES == FOUND,
            )  # fmt: skip
        else:
            store_sums(
                x, order, out, kept, graph, first, last, columns, features, high, low, third, broken, special,
                CODES, BLOCKS, KEPT, MANTISSA, LANES, FEATURES, ORDERED, WHOLE, SQUARES,
            )  # fmt: skip
            store_extremes(
                out, graph, columns, features, top, bottom, first < last,
                CODES, BLOCKS, MANTISSA, MAXIMA, MINIMA,
            )  # fmt: skip
            if TIES == FOUND:
                store_ties(kept, graph, columns, features, tops, bottoms, KEPT)


@triton.jit(do_not_specialize=["nodes", "size", "shift"])
def forward_far(
    x, order, ptr, out, kept, states, keys, marks, lost, nodes, size, features, shift,
    CODES: tl.constexpr, BLOCKS: tl.constexpr, KEPT: tl.constexpr, MANTISSA: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr, POWER: tl.constexpr, FEATURES: tl.constexpr,
    ORDERED: tl.constexpr, WHOLE: tl.constexpr,
    SQUARES: tl.constexpr, MAXIMA: tl.constexpr, MINIMA: tl.constexpr,
):  # fmt: skip
    """Reduce one graph, or store the state of one piece, as `forward` does, where most sums are not near."""
    program, columns = place_of(features, FEATURES)
    if program >= size:
        graph, _, _, _, _, has_work = role_of(ptr, program, nodes, size, shift)
        store_mark(marks, lost, program - size, graph, has_work, nodes, features, shift)
    far_sum(
        x, order, ptr, out, kept, states, keys, program, columns, nodes, size, features, shift,
        CODES, BLOCKS, KEPT, MANTISSA, ROWS, LANES, POWER, FEATURES, ORDERED, WHOLE, MANTISSA < 52,
        SQUARES, MAXIMA, MINIMA,
    )  # fmt: skip


@triton.jit(do_not_specialize=["nodes", "size", "shift", "count", "group"])
def repair(
    x, order, ptr, out, states, keys, flags, nodes, size, features, shift, count, group,
    CODES: tl.constexpr, BLOCKS: tl.constexpr, MANTISSA: tl.constexpr, LANES: tl.constexpr,
    FEATURES: tl.constexpr, ORDERED: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """Do the work of `group` programs of `forward` whose flags are set; return at once if none is."""
    start = tl.program_id(0).to(tl.int64) * group
    stop = tl.minimum(start + group, count)
    numbers = start + tl.arange(0, GROUP)
    if tl.max(tl.load(flags + numbers, numbers < stop, 0), 0) != 0:
        for place in range(start, stop):
            if tl.load(flags + place) != 0:
                blocks = (features + FEATURES - 1) // FEATURES
                columns = columns_at(place % blocks, FEATURES)
                far_sum(
                    x, order, ptr, out, keys, states, keys, place // blocks, columns, nodes, size, features,
                    shift, CODES, BLOCKS, 0, MANTISSA, 0, LANES, 0, FEATURES, ORDERED, WHOLE,
                    False, False, False, False,
                )  # fmt: skip


@triton.jit(do_not_specialize=["nodes", "size", "shift"])
def keep(
    x, order, ptr, out, kept, nodes, size, features, shift,
    BLOCKS: tl.constexpr, KEPT: tl.constexpr, MAX_BLOCK: tl.constexpr, MIN_BLOCK: tl.constexpr,
    MANTISSA: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, POWER: tl.constexpr,
    FEATURES: tl.constexpr, ORDERED: tl.constexpr, WHOLE: tl.constexpr,
    SUMS: tl.constexpr, SQUARES: tl.constexpr, MAXIMA: tl.constexpr, MINIMA: tl.constexpr,
):  # fmt: skip
    """Compute what `forward` would have kept of a whole graph, for any values in the place of max and min."""
    graph, columns = place_of(features, FEATURES)
    graph, first, last, _begin, _end, has_work = role_of(ptr, graph, nodes, size, shift)
    if has_work:
        mean = tl.zeros([FEATURES], tl.float64)
        winner = words_of(out, graph, columns, features, MAX_BLOCK, BLOCKS, MANTISSA)
        loser = words_of(out, graph, columns, features, MIN_BLOCK, BLOCKS, MANTISSA)
        high, low, third, broken, special, tops, bottoms = read_again(
            x, order, first, last, columns, features, mean, winner, loser,
            MANTISSA, ROWS, LANES, POWER, FEATURES, ORDERED, WHOLE, SUMS, False, MAXIMA, MINIMA,
        )  # fmt: skip
        if SUMS:
            _, _, mean = averaged(
                x, order, first, last, columns, features, mean, high, low, third, broken, special,
                MANTISSA, FEATURES, ORDERED, False,
            )  # fmt: skip
            store_moment(kept, graph, columns, features, mean, 0, KEPT, columns < features)
        if SQUARES:
            _, square = squared(
                x, order, first, last, columns, features, mean, MANTISSA, LANES, FEATURES, ORDERED, WHOLE
            )  # fmt: skip
            store_moment(kept, graph, columns, features, tl.sqrt(square), 1, KEPT, columns < features)
        if MAXIMA or MINIMA:
            store_ties(kept, graph, columns, features, tops, bottoms, KEPT)


@triton.jit
def kept_of(
    kept, graph, columns, features,
    KEPT: tl.constexpr, SUMS: tl.constexpr, SQUARES: tl.constexpr, TIES: tl.constexpr,
):  # fmt: skip
    """Return mean, standard deviation and numbers of ties of a graph, as kept by `forward`."""
    place, inside = kept + graph * KEPT * features + columns, columns < features
    nothing = (columns * 0).to(tl.int64)
    mean = float_of(tl.load(place, inside, 0) if SUMS else nothing)
    std = float_of(tl.load(place + features, inside, 0) if SQUARES else nothing)
    ties = tl.load(place + (KEPT - 1) * features, inside, 0) if TIES else nothing
    return mean, std, (ties & DIGIT).to(tl.float64), (ties >> 32).to(tl.float64)


@triton.jit
def contributions(
    grad, graph, columns, features, total, values, count, mean, std, wins, loses, equal, equal_least,
    CODES: tl.constexpr, BLOCKS: tl.constexpr, MANTISSA: tl.constexpr, NAME: tl.constexpr,
):  # fmt: skip
    """Add the blocks of one reduction to gradients [FEATURES] or [ROWS, FEATURES]."""
    for block in tl.static_range(BLOCKS):
        if (CODES >> (3 * block)) & 7 == NAME:
            slope = words_of(grad, graph, columns, features, block, BLOCKS, MANTISSA).to(tl.float64)
            if NAME == SUM:
                total = total + slope
            elif NAME == MEAN:
                total = total + slope / count
            elif NAME == MAX:
                total = tl.where(wins, total + slope / tl.maximum(equal, 1.0), total)
            elif NAME == MIN:
                total = tl.where(loses, total + slope / tl.maximum(equal_least, 1.0), total)
            elif NAME == VAR:
                total = total + 2.0 * slope * ((values - mean) / count)
            elif NAME == STD:
                scaled = slope * ((values - mean) / (count * std))
                total = total + tl.where(std == 0.0, 0.0, scaled)
    return total


@triton.jit
def narrow_to(value, result, MANTISSA: tl.constexpr):
    """Return the bits of a float64 rounded once to the dtype, in the dtype of `result`."""
    return narrow(value, MANTISSA).to(result.dtype.element_ty)


@triton.jit(do_not_specialize=["nodes", "size", "shift"])
def backward(
    grad, x, out, kept, order, ptr, result, nodes, size, features, shift,
    CODES: tl.constexpr, BLOCKS: tl.constexpr, KEPT: tl.constexpr, MAX_BLOCK: tl.constexpr,
    MIN_BLOCK: tl.constexpr, MANTISSA: tl.constexpr, ROWS: tl.constexpr, FEATURES: tl.constexpr,
    ORDERED: tl.constexpr, WHOLE: tl.constexpr,
    SUMS: tl.constexpr, SQUARES: tl.constexpr, MAXIMA: tl.constexpr, MINIMA: tl.constexpr,
):  # fmt: skip
    """Write the gradients of the nodes of one graph, or of one piece of a cut graph.

    Without var and std, a column has at most four different gradients: nodes tie with the maximum, with the
    minimum, with both, or with neither.
    """
    program, columns = place_of(features, FEATURES)
    graph, first, last, begin, end, has_work = role_of(ptr, program, nodes, size, shift)
    if has_work:
        winner = words_of(out, graph, columns, features, MAX_BLOCK, BLOCKS, MANTISSA)
        loser = words_of(out, graph, columns, features, MIN_BLOCK, BLOCKS, MANTISSA)
        mean, std, equal, equal_least = kept_of(
            kept, graph, columns, features, KEPT, SUMS, SQUARES, MAXIMA or MINIMA
        )
        count = (last - first).to(tl.float64)
        every = columns >= 0
        alike = tl.zeros([FEATURES], tl.float64)
        for name in tl.static_range(2):
            alike = contributions(
                grad, graph, columns, features, alike, mean, count, mean, std, every, every, equal,
                equal_least, CODES, BLOCKS, MANTISSA, name,
            )  # fmt: skip
        won = contributions(
            grad, graph, columns, features, alike, mean, count, mean, std, every, every, equal,
            equal_least, CODES, BLOCKS, MANTISSA, MAX,
        )  # fmt: skip
        lost = contributions(
            grad, graph, columns, features, alike, mean, count, mean, std, every, every, equal,
            equal_least, CODES, BLOCKS, MANTISSA, MIN,
        )  # fmt: skip
        both = contributions(
            grad, graph, columns, features, won, mean, count, mean, std, every, every, equal,
            equal_least, CODES, BLOCKS, MANTISSA, MIN,
        )  # fmt: skip
        bits, bits_won = narrow_to(alike, result, MANTISSA), narrow_to(won, result, MANTISSA)
        bits_lost, bits_both = narrow_to(lost, result, MANTISSA), narrow_to(both, result, MANTISSA)
        for start in range(begin, end, ROWS):
            places, inside = tile_at(order, start, end, columns, features, ROWS, ORDERED, False)
            wins = inside & every[None, :]
            loses = wins
            if SUMS or MAXIMA or MINIMA:
                words = load_words(x, places, inside, columns, features, MANTISSA, False, WHOLE)
                values = value_of(words)
                wins, loses = tied(values, winner[None, :]), tied(values, loser[None, :])
            if SUMS:
                total = alike[None, :] + tl.zeros([ROWS, FEATURES], tl.float64)
                for name in tl.static_range(2, 6):
                    total = contributions(
                        grad, graph, columns, features, total, number(words, MANTISSA), count, mean, std,
                        wins, loses, equal, equal_least, CODES, BLOCKS, MANTISSA, name,
                    )  # fmt: skip
                found = narrow_to(total, result, MANTISSA)
            else:
                found = bits[None, :] + tl.zeros([ROWS, FEATURES], result.dtype.element_ty)
                if MAXIMA:
                    found = tl.where(wins, bits_won[None, :], found)
                if MINIMA:
                    found = tl.where(loses, tl.where(wins, bits_both[None, :], bits_lost[None, :]), found)
            tl.store(result + places, found, inside & (columns < features)[None, :])
