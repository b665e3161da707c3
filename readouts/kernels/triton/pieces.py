"""Graphs that are cut into pieces: their states, the merge, and limbs where three numbers are too few."""

# mypy: allow-untyped-defs
from __future__ import annotations

import triton
import triton.language as tl

from readouts.kernels.triton.limbs import patched_from, store_digits
from readouts.kernels.triton.numbers import LOWEST_64, MAGNITUDE_64, add_part, fold, is_finite, narrow
from readouts.kernels.triton.results import (
    MEAN,
    STD,
    SUM,
    VAR,
    round_sums,
    store_block,
    store_extremes,
    store_moment,
    store_ties,
)
from readouts.kernels.triton.rows import (
    columns_at,
    offsets_of,
    place_of,
    read_again,
    role_of,
    ties_of,
    words_of,
)


@triton.jit
def store_mark(marks, lost, slot, graph, has_work, nodes, features, shift):
    """Tell `merge` which graph has a piece in a slot, -1 if none, and that no sum is lost so far."""
    tl.store(marks + slot, tl.where(has_work, graph, -1))
    tl.store(lost + ((nodes >> shift).to(tl.int64) + 1) * features, 0)


@triton.jit
def store_state(
    states, keys, slot, columns, features, high, low, third, broken, top, bottom, tops, bottoms,
    SUMS: tl.constexpr, MAXIMA: tl.constexpr, MINIMA: tl.constexpr, TIES: tl.constexpr,
):  # fmt: skip
    """Store the partial state of a piece: a sum, and the keys of extremes with the numbers of their ties.

    NaN as third number marks a broken sum. A first number that is not finite is the sum of infinities
    and NaN.
    """
    inside = columns < features
    if SUMS:
        place = states + slot * 3 * features + columns
        tl.store(place, high, inside)
        tl.store(place + features, low, inside)
        tl.store(place + 2 * features, tl.where(broken != 0, float("nan"), third), inside)
    place = keys + slot * 4 * features + columns
    if MAXIMA:
        tl.store(place, top, inside)
    if MINIMA:
        tl.store(place + features, bottom, inside)
    if TIES:
        tl.store(place + 2 * features, tops.to(tl.int64), inside)
        tl.store(place + 3 * features, bottoms.to(tl.int64), inside)


@triton.jit(do_not_specialize=["nodes", "size", "shift"])
def survey(
    x, order, ptr, out, states, keys, marks, centres, lost, nodes, size, features, shift,
    BLOCKS: tl.constexpr, MAX_BLOCK: tl.constexpr, MIN_BLOCK: tl.constexpr, MANTISSA: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr, POWER: tl.constexpr, FEATURES: tl.constexpr,
    ORDERED: tl.constexpr, WHOLE: tl.constexpr, SUMS: tl.constexpr, SQUARES: tl.constexpr,
    MAXIMA: tl.constexpr, MINIMA: tl.constexpr,
):  # fmt: skip
    """Read one piece of a cut graph, and store its state: sums and given ties, or squared deviations."""
    slot, columns = place_of(features, FEATURES)
    graph, first, _, begin, end, has_work = role_of(ptr, slot + size, nodes, size, shift)
    store_mark(marks, lost, slot, graph, has_work, nodes, features, shift)
    if has_work:
        centre = tl.zeros([FEATURES], tl.float64)
        if SQUARES:
            centre = tl.load(centres + (first >> shift) * features + columns, columns < features, 0.0)
        winner = words_of(out, graph, columns, features, MAX_BLOCK, BLOCKS, MANTISSA)
        loser = words_of(out, graph, columns, features, MIN_BLOCK, BLOCKS, MANTISSA)
        high, low, third, broken, special, equal, equal_least = read_again(
            x, order, begin, end, columns, features, centre, winner, loser,
            MANTISSA, ROWS, LANES, POWER, FEATURES, ORDERED, WHOLE, SUMS, SQUARES, MAXIMA, MINIMA,
        )  # fmt: skip
        high = tl.where(special == 0.0, high, special)
        same = equal.to(tl.int64) * 0  # all pieces have the same extremes
        store_state(
            states, keys, slot, columns, features, high, low, third, broken, same, same, equal, equal_least,
            SUMS or SQUARES, MAXIMA, MINIMA, MAXIMA or MINIMA,
        )  # fmt: skip


@triton.jit
def merged_sum(
    states, chunk, pieces, columns, features, PARTS: tl.constexpr, FEATURES: tl.constexpr
):  # fmt: skip
    """Merge the sums of all pieces of a graph, PARTS at a time; the last result is of infinities and NaN."""
    high = tl.zeros([PARTS, FEATURES], tl.float64)
    low, third = high, high
    special = tl.zeros([FEATURES], tl.float64)
    broken = tl.zeros([PARTS, FEATURES], tl.int32)
    for start in range(0, pieces, PARTS):
        slot, inside = slots_of(chunk, start, pieces, columns, features, PARTS)
        place = states + slot * 3 * features + columns[None, :]
        for layer in tl.static_range(3):
            values = tl.load(place + layer * features, inside, 0.0)
            finite = is_finite(values)
            if layer == 0:
                special += tl.sum(tl.where(finite, 0.0, values), 0)
            else:
                broken = broken | (finite == 0).to(tl.int32)
            high, low, third, broken = add_part(high, low, third, broken, tl.where(finite, values, 0.0))
    high, low, third, broken = fold(high, low, third, broken, PARTS, FEATURES)
    finite = is_finite(high)  # else the merged sum has overflowed
    return tl.where(finite, high, 0.0), low, third, broken | (finite == 0).to(tl.int32), special


@triton.jit
def merged_extreme(
    keys, chunk, pieces, columns, features,
    PARTS: tl.constexpr, FEATURES: tl.constexpr, MINIMA: tl.constexpr, TIES: tl.constexpr,
):  # fmt: skip
    """Return the greatest or the least key of all pieces of a graph, and with TIES the number of ties."""
    NOTHING: tl.constexpr = MAGNITUDE_64 if MINIMA else LOWEST_64
    key = tl.full([PARTS, FEATURES], NOTHING, tl.int64)
    ties = tl.zeros([PARTS, FEATURES], tl.int64)
    for start in range(0, pieces, PARTS):
        slot, inside = slots_of(chunk, start, pieces, columns, features, PARTS)
        place = keys + (slot * 4 + (1 if MINIMA else 0)) * features + columns[None, :]
        other = tl.load(place, inside, NOTHING)
        best = tl.minimum(key, other) if MINIMA else tl.maximum(key, other)
        if TIES:
            more = tl.load(place + 2 * features, inside, 0)
            ties = ties_of(ties, key, best) + ties_of(more, other, best)
        key = best
    best = tl.min(key, 0) if MINIMA else tl.max(key, 0)
    return best, tl.sum(ties_of(ties, key, best[None, :]), 0)


@triton.jit
def slots_of(chunk, start, pieces, columns, features, PARTS: tl.constexpr):
    """Return the slots [PARTS, 1] of the pieces from `start` on, and which elements of a state exist."""
    part = start + tl.arange(0, PARTS)
    slot = 2 * (chunk + part) + tl.minimum(part, 1)
    return slot[:, None], (part < pieces)[:, None] & (columns < features)[None, :]


@triton.jit
def store_merged(
    out, kept, centres, graph, chunk, columns, features, total, mean, wide, inside,
    CODES: tl.constexpr, BLOCKS: tl.constexpr, KEPT: tl.constexpr, MANTISSA: tl.constexpr,
    SQUARES: tl.constexpr,
):  # fmt: skip
    """Write sum and mean, or var and std, to `out`; keep the float64 mean or standard deviation."""
    if SQUARES:
        std = tl.sqrt(wide)
        store_block(out, graph, columns, features, mean, VAR, CODES, BLOCKS, inside)
        store_block(out, graph, columns, features, narrow(std, MANTISSA), STD, CODES, BLOCKS, inside)
        if KEPT >= 2:
            store_moment(kept, graph, columns, features, std, 1, KEPT, inside)
    else:
        tl.store(centres + chunk * features + columns, wide, inside)
        store_block(out, graph, columns, features, total, SUM, CODES, BLOCKS, inside)
        store_block(out, graph, columns, features, mean, MEAN, CODES, BLOCKS, inside)
        if KEPT >= 2:
            store_moment(kept, graph, columns, features, wide, 0, KEPT, inside)


@triton.jit
def merge_graph(
    ptr, out, kept, states, keys, centres, lost, graph, chunk, columns, nodes, features, shift,
    CODES: tl.constexpr, BLOCKS: tl.constexpr, KEPT: tl.constexpr, PARTS: tl.constexpr,
    MANTISSA: tl.constexpr, FEATURES: tl.constexpr,
    SUMS: tl.constexpr, SQUARES: tl.constexpr, MAXIMA: tl.constexpr, MINIMA: tl.constexpr,
):  # fmt: skip
    """Write the outputs of a cut graph that starts in `chunk`, and what is kept for the backward pass.

    Its mean, which the next launch may need, goes to `centres` [chunks, features], too. Broken sums are left
    to `limbs_of_pieces` and `round_limbs`: set their places in `lost` [chunks, features], and the place after
    the last, which `store_mark` has cleared.
    """
    first, last = offsets_of(ptr, graph, nodes)
    pieces = (last - first + (chunk * 0 + 1 << shift) - 1) >> shift
    inside = columns < features
    if SUMS or SQUARES:
        high, low, third, broken, special = merged_sum(
            states, chunk, pieces, columns, features, PARTS, FEATURES
        )
        total, mean, wide, broken = round_sums(high, low, third, broken, special, last - first, MANTISSA)
        store_merged(
            out, kept, centres, graph, chunk, columns, features, total, mean, wide, inside,
            CODES, BLOCKS, KEPT, MANTISSA, SQUARES,
        )  # fmt: skip
        tl.store(lost + chunk * features + columns, broken, inside)
        if tl.max(tl.where(inside, broken, 0), 0) != 0:
            tl.store(lost + ((nodes >> shift).to(tl.int64) + 1) * features, 1)
    if MAXIMA or MINIMA:
        TIES: tl.constexpr = KEPT % 2 == 1
        top = tl.zeros([FEATURES], tl.int64)
        bottom, tops, bottoms = top, top, top
        if MAXIMA:
            top, tops = merged_extreme(keys, chunk, pieces, columns, features, PARTS, FEATURES, False, TIES)
        if MINIMA:
            bottom, bottoms = merged_extreme(
                keys, chunk, pieces, columns, features, PARTS, FEATURES, True, TIES
            )
        if TIES:
            store_ties(kept, graph, columns, features, tops, bottoms, KEPT)
        store_extremes(
            out, graph, columns, features, top, bottom, first < last,
            CODES, BLOCKS, MANTISSA, MAXIMA, MINIMA,
        )  # fmt: skip


@triton.jit(do_not_specialize=["nodes", "size", "shift", "group"])
def merge(
    ptr, out, kept, states, keys, marks, centres, lost, nodes, size, features, shift, group,
    CODES: tl.constexpr, BLOCKS: tl.constexpr, KEPT: tl.constexpr, PARTS: tl.constexpr,
    GROUP: tl.constexpr, MANTISSA: tl.constexpr, FEATURES: tl.constexpr, SUMS: tl.constexpr,
    SQUARES: tl.constexpr, MAXIMA: tl.constexpr, MINIMA: tl.constexpr,
):  # fmt: skip
    """Finish the cut graphs that start in `group` <= GROUP chunks; return at once if there are none."""
    chunks = (nodes >> shift).to(tl.int64) + 1
    start = tl.program_id(0).to(tl.int64) * group
    stop = tl.minimum(start + group, chunks * ((features + FEATURES - 1) // FEATURES))
    places = start + tl.arange(0, GROUP)
    if tl.max(tl.load(marks + 2 * (places % chunks), places < stop, -1), 0) >= 0:
        for place in range(start, stop):
            chunk = place % chunks
            graph = tl.load(marks + 2 * chunk)
            if graph >= 0:
                merge_graph(
                    ptr, out, kept, states, keys, centres, lost, graph, chunk,
                    columns_at(place // chunks, FEATURES), nodes, features, shift,
                    CODES, BLOCKS, KEPT, PARTS, MANTISSA, FEATURES, SUMS, SQUARES, MAXIMA, MINIMA,
                )  # fmt: skip


@triton.jit
def place_of_lost(features, lost, nodes, shift, FEATURES: tl.constexpr):
    """Return `place_of`, and whether any sum is lost."""
    program, columns = place_of(features, FEATURES)
    return program, columns, tl.load(lost + ((nodes >> shift).to(tl.int64) + 1) * features) != 0


@triton.jit(do_not_specialize=["nodes", "size", "shift"])
def limbs_of_pieces(
    x, order, ptr, centres, lost, digits, nodes, size, features, shift,
    MANTISSA: tl.constexpr, FEATURES: tl.constexpr, ORDERED: tl.constexpr, SQUARES: tl.constexpr,
    SHIFT: tl.constexpr,
):  # fmt: skip
    """Add a piece of 2**SHIFT rows of a large graph in limbs, where sums are lost."""
    slot, columns, any_lost = place_of_lost(features, lost, nodes, shift, FEATURES)
    if any_lost:
        _, first, _, begin, end, has_work = role_of(ptr, slot + size, nodes, size, SHIFT)
        if has_work:
            place = (first >> shift) * features + columns
            broken = tl.load(lost + place, columns < features, 0)
            centre = tl.zeros([FEATURES], tl.float64)
            if SQUARES:
                centre = tl.load(centres + (first >> shift) * features + columns, columns < features, 0.0)
            store_digits(
                x, order, digits, slot, begin, end, columns, features, centre, broken,
                MANTISSA, FEATURES, ORDERED, SQUARES,
            )  # fmt: skip


@triton.jit(do_not_specialize=["nodes", "size", "shift"])
def round_limbs(
    x, order, ptr, out, kept, marks, centres, lost, digits, nodes, size, features, shift,
    CODES: tl.constexpr, BLOCKS: tl.constexpr, KEPT: tl.constexpr, MANTISSA: tl.constexpr,
    FEATURES: tl.constexpr, ORDERED: tl.constexpr, SQUARES: tl.constexpr, SHIFT: tl.constexpr,
):  # fmt: skip
    """Write the sums of cut graphs that are lost, from the limbs of their pieces."""
    chunk, columns, any_lost = place_of_lost(features, lost, nodes, shift, FEATURES)
    if any_lost:
        graph = tl.load(marks + 2 * chunk)
        if graph >= 0:
            inside = columns < features
            broken = tl.load(lost + chunk * features + columns, inside, 0)
            first, last = offsets_of(ptr, graph, nodes)
            total, centre = tl.zeros([FEATURES], tl.int64), tl.zeros([FEATURES], tl.float64)
            if SQUARES:
                centre = tl.load(centres + chunk * features + columns, inside, 0.0)
            total, mean, wide = patched_from(
                x, order, digits, first, last, columns, features, centre, broken, total, total, centre,
                MANTISSA, FEATURES, ORDERED, SQUARES, SHIFT,
            )  # fmt: skip
            store_merged(
                out, kept, centres, graph, chunk, columns, features, total, mean, wide,
                inside & (broken != 0), CODES, BLOCKS, KEPT, MANTISSA, SQUARES,
            )  # fmt: skip
