"""The loops of `readouts.kernels.selection_cpu`, compiled by Numba; see there for the method.

Numba's cache watches this file and not `readouts.kernels.compiled`, whose functions for rows and blocks
are compiled into these: where one of them changes, this file has to change as well. The names are those
explained there; *keys* are numbers as integers in the same order, with -0 below +0.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np

from readouts.kernels.compiled import (
    AHEAD,
    blocks_of,
    column_of,
    compiled,
    fetch,
    graph_at,
    inlined,
    item,
    matrix,
    node_at,
    put,
    read,
    set_item,
    straightened,
    ties_of,
    write,
)
from readouts.kernels.vectors import (
    LANES,
    any_of,
    bits_of,
    fill,
    floats_of,
    load,
    prefetch,
    rows_from,
    signed_max,
    signed_min,
    store,
    where,
    widen,
)

SORTED = 512  # rows of a graph up to which its columns are sorted


@inlined
def block_at(rows, order, position, last, column):
    """Return the block of the node at a position, and ask for one further on."""
    prefetch(rows, node_at(order, min(position + AHEAD, last - 1)), column)
    return read(rows, node_at(order, position), column)


@inlined
def keys_of(values, layout):
    """Return numbers as integers in the same order."""
    bits = bits_of(values)
    return where(bits < 0, bits ^ layout[4], bits)


@inlined
def values_of(keys, unordered, layout):
    """Return the numbers that have these keys, NaN in unordered lanes."""
    values = floats_of(where(keys < 0, keys ^ layout[4], keys))
    return where(unordered, fill(values, np.nan), values)


@inlined
def is_beyond(least, largest, layout):
    """Tell in which lanes the least or the largest key is that of a NaN."""
    return (largest > layout[5]) | (least < -layout[5] - 1)


@compiled
def columns_of(ptr, features, begin, end):
    """Return the graphs with nodes and first columns of a task's blocks [C, 2].

    The blocks are put one after the other, graph by graph, each n numbers long; the task's are those
    whose first number lies from `begin` to `end`.
    """
    blocks = blocks_of(features)
    first, last = graph_at(ptr, begin // blocks), graph_at(ptr, (end - 1) // blocks)
    found, number = np.empty(((last + 1 - first) * blocks, 2), np.int64), 0
    for graph in range(first, last + 1):
        n = ptr[graph + 1] - ptr[graph]
        for block in range(blocks if n > 0 else 0):
            if begin <= ptr[graph] * blocks + block * n < end:
                found[number, 0], found[number, 1] = graph, column_of(block, features)
                number += 1
    return found[:number]


@compiled
def select(rows_, ptr, order_, ranks, layout, out_, means_, keys_, begin, end, task):
    """Write the order statistics of a task's columns: out [B K, F], ranks [B, K].

    The means of the first two of a graph go to means [B, F], unless that has no rows.
    """
    rows, order, out, means = matrix(rows_), matrix(order_), matrix(out_), matrix(means_)
    keys = rows_from(matrix(keys_), task * SORTED)
    for graph, column in columns_of(ptr, rows.columns, begin, end):
        nodes, first, last = straightened(order, ptr[graph], ptr[graph + 1])
        results, wanted = rows_from(out, graph * ranks.shape[1]), ranks[graph]
        if last - first <= SORTED:
            select_by_sorting(rows, nodes, first, last, column, wanted, layout, keys, results)
        else:
            select_by_counting(rows, nodes, first, last, column, wanted, layout, results)
        if len(means_) > 0:
            low, high = read(results, 0, column), read(results, 1, column)
            put(means, graph, column, mean_of_two(widen(low), widen(high)), layout, low)


@inlined
def mean_of_two(a, b):
    """Return (a + b) / 2 without overflow, rounded once."""
    total = a + b
    return where(total - total == 0.0, total * 0.5, a * 0.5 + b * 0.5)


@compiled
def select_by_sorting(rows, order, first, last, column, ranks, layout, keys, results):
    """Write the order statistics of a block of a graph that fits the scratch memory `keys`."""
    unordered = sorted_block(rows, order, first, last, column, layout, keys)
    for k in range(len(ranks)):
        chosen = load(keys, min(max(ranks[k], 0), last - first - 1), 0)
        write(results, k, column, values_of(chosen, unordered, layout))


@compiled
def sorted_block(rows, order, first, last, column, layout, keys):
    """Write the sorted keys of a block of a graph; return in which lanes there is a NaN."""
    n = last - first
    for position in range(first, last):
        values = read(rows, node_at(order, position), column)
        fetch(rows, order, first, last, position, column)
        store(keys, position - first, 0, keys_of(values, layout))
    sort(keys, n)
    return is_beyond(load(keys, 0, 0), load(keys, n - 1, 0), layout)


@inlined
def sort(keys, n):
    """Sort n rows, lane by lane, by merge exchange (Batcher's network; Knuth, TAOCP 3, 5.2.2, M)."""
    top = 1
    while 2 * top < n:
        top *= 2
    p = top
    while p > 0:
        q, r, d = top, 0, p
        while d > 0:
            for start in range(r, n - d, 2 * p):
                for i in range(start, min(start + p, n - d)):
                    a, b = load(keys, i, 0), load(keys, i + d, 0)
                    store(keys, i, 0, signed_min(a, b))
                    store(keys, i + d, 0, signed_max(a, b))
            d, q, r = q - p, q // 2, p
        p //= 2


@compiled
def select_by_counting(rows, order, first, last, column, ranks, layout, results):
    """Write the order statistics of a block of a graph of any size; a pass finds two bits of each."""
    n = last - first
    least, largest = ends(rows, order, first, last, column, layout)
    unordered = is_beyond(least, largest, layout)
    chosen, previous = least, 0
    for k in range(len(ranks)):
        rank = min(max(ranks[k], 0), n - 1)
        if rank == previous + 1:
            chosen = successor(rows, order, first, last, column, layout, chosen, rank)
        elif rank == n - 1:
            chosen = largest
        elif rank != previous:
            chosen = search(rows, order, first, last, column, layout, least, rank)
        previous = rank
        write(results, k, column, values_of(chosen, unordered, layout))


@compiled
def ends(rows, order, first, last, column, layout):
    """Return the least and the largest keys of a block."""
    least = keys_of(read(rows, node_at(order, first), column), layout)
    largest = least
    for position in range(first, last):
        keys = keys_of(block_at(rows, order, position, last, column), layout)
        least, largest = signed_min(least, keys), signed_max(largest, keys)
    return least, largest


@compiled
def search(rows, order, first, last, column, layout, like, rank):
    """Return the keys with `rank` smaller or equal ones before them, two bits after two, from the first.

    `base` is the largest multiple of the step with at most `rank` keys below it.
    """
    zeros, ones = fill(like, 0), fill(like, 1)
    ranks = fill(like, rank)
    base = fill(like, -layout[4] - 1)
    width = 64 if layout[0] == 53 else 32
    unused = 0 if layout[0] == 53 else 24 - layout[0]  # bits that the 16-bit dtypes do not have
    shift = width
    while shift > unused:
        shift -= 2
        step = fill(like, np.int64(1) << shift)
        one = base + step
        two = one + step
        three = two + step
        below_one, below_two, below_three = zeros, zeros, zeros
        for position in range(first, last):
            keys = keys_of(block_at(rows, order, position, last, column), layout)
            below_one = below_one + where(keys < one, ones, zeros)
            below_two = below_two + where(keys < two, ones, zeros)
            below_three = below_three + where(keys < three, ones, zeros)
        base = base + where(ranks >= below_one, step, zeros)
        base = base + where(ranks >= below_two, step, zeros)
        base = base + where(ranks >= below_three, step, zeros)
    return where(base < 0, base | ((np.int64(1) << shift) - 1), base)


@compiled
def successor(rows, order, first, last, column, layout, chosen, rank):
    """Return the keys of a rank, given those of the rank before."""
    zeros, ones, limit = fill(chosen, 0), fill(chosen, 1), fill(chosen, layout[4])
    reached, following = zeros, limit
    for position in range(first, last):
        keys = keys_of(block_at(rows, order, position, last, column), layout)
        greater = keys > chosen
        reached = reached + where(greater, zeros, ones)
        following = signed_min(following, where(greater, keys, limit))
    return where(reached > fill(reached, rank), chosen, following)


# --- trimmed means ---


@compiled
def keep(rows_, ptr, order_, bounds_, cut, borders, layout, kept_, keys_, begin, end, task):
    """Write the values that trimming keeps, in any order, to the rows of kept between the borders."""
    rows, order, bounds, kept = matrix(rows_), matrix(order_), matrix(bounds_), matrix(kept_)
    keys = rows_from(matrix(keys_), task * SORTED)
    for graph, column in columns_of(ptr, rows.columns, begin, end):
        nodes, first, last = straightened(order, ptr[graph], ptr[graph + 1])
        target, limits = rows_from(kept, borders[graph]), rows_from(bounds, 2 * graph)
        if last - first <= SORTED:
            keep_by_sorting(rows, nodes, first, last, column, cut[graph], layout, keys, target)
        else:
            keep_by_comparing(rows, nodes, first, last, column, cut[graph], limits, keys, target)


@compiled
def keep_by_sorting(rows, order, first, last, column, cut, layout, keys, target):
    """Write the values that are kept of a block of a graph that fits the scratch memory `keys`."""
    n = last - first
    unordered = sorted_block(rows, order, first, last, column, layout, keys)
    for rank in range(cut, n - cut):
        write(target, rank - cut, column, values_of(load(keys, rank, 0), unordered, layout))


@compiled
def keep_by_comparing(rows, order, first, last, column, cut, bounds, scratch, target):
    """Write the values that are kept of a block of a graph: those between the bounds, then these."""
    n, lanes = last - first, min(LANES, rows.columns)
    low, high = read(bounds, 0, column), read(bounds, 1, column)
    zeros = bits_of(low) & 0
    ones = fill(zeros, 1)
    reached = zeros  # how many numbers are not above the lower bound
    for position in range(first, last):
        reached = reached + where(block_at(rows, order, position, last, column) > low, zeros, ones)
    store(scratch, 0, 0, zeros)
    store(scratch, 1, 0, reached)
    for position in range(first, last):
        node = node_at(order, position)
        values = block_at(rows, order, position, last, column)
        inside = (values > low) & (values < high)
        if any_of(inside):
            store(scratch, 2, 0, where(inside, ones, zeros))
            for lane in range(lanes):
                if item(scratch, 2, lane) and item(scratch, 0, lane) < n - 2 * cut:
                    place = item(scratch, 0, lane)
                    set_item(target, place, column + lane, item(rows, node, column + lane))
                    set_item(scratch, 0, lane, place + 1)
    for lane in range(lanes):
        place = item(scratch, 0, lane)
        lower = place + item(scratch, 1, lane) - cut
        for rank in range(place, n - 2 * cut):
            bound = item(bounds, 0 if rank < lower else 1, column + lane)
            set_item(target, rank, column + lane, bound)


@compiled
def spread(rows_, ptr, order_, bounds_, cut, grad_, layout, target_, begin, end):
    """Write the gradients of the trimmed means of a task's columns."""
    rows, order, bounds = matrix(rows_), matrix(order_), matrix(bounds_)
    grad, target = matrix(grad_), matrix(target_)
    for graph, column in columns_of(ptr, rows.columns, begin, end):
        nodes, first, last = straightened(order, ptr[graph], ptr[graph + 1])
        limits, kept = rows_from(bounds, 2 * graph), float(last - first - 2 * cut[graph])
        slope = widen(read(grad, graph, column)) / kept
        spread_block(rows, nodes, first, last, column, float(cut[graph]), kept, limits, slope, layout, target)


@compiled
def spread_block(rows, order, first, last, column, cut, kept, bounds, slope, layout, target):
    """Write the gradients of a block of a graph, given that of a value that is kept."""
    low, high = read(bounds, 0, column), read(bounds, 1, column)
    zeros = fill(slope, 0.0)
    ones = fill(slope, 1.0)
    ties_low, ties_high, below, beyond = zeros, zeros, zeros, zeros
    for position in range(first, last):
        values = block_at(rows, order, position, last, column)
        ties_low = ties_low + where(ties_of(values, low), ones, zeros)
        ties_high = ties_high + where(ties_of(values, high), ones, zeros)
        below = below + where(values < low, ones, zeros)
        beyond = beyond + where(values > high, ones, zeros)
    one_value = ties_of(low, high)
    kept_low = where(one_value, fill(zeros, kept), below + ties_low - cut)
    kept_high = where(one_value, zeros, beyond + ties_high - cut)
    share_low = slope * kept_low / where(ties_low > 1.0, ties_low, ones)
    share_high = slope * kept_high / where(ties_high > 1.0, ties_high, ones)
    for position in range(first, last):
        node = node_at(order, position)
        values = read(rows, node, column)
        total = where((values > low) & (values < high), slope, zeros)
        total = where(ties_of(values, high), share_high, total)
        total = where(ties_of(values, low), share_low, total)
        put(target, node, column, total, layout, values)
