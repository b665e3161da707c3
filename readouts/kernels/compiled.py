"""The loops of `readouts.kernels.cpu`, compiled by Numba; see there for the method.

All in one file, for Numba's cache watches the file of a function, and not those of what it calls.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic, overload

TILE = 128  # rows whose certificate is checked at once, 2**7
NARROW, WIDE = 22, 68  # ranges of exponents that one and two float64 sums of a tile can hold


def compiled(function: Callable[..., Any]) -> Any:
    """Compile on first use; keep the result on disk where there is a place for it."""
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # no folder can be written to
        return njit(nogil=True, error_model="numpy")(function)


def _bitcast(source: Any, target: Any) -> Any:
    """Make a function that reads the bits of one type as another."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(target))

    def cast(typing_context: Any, value: Any) -> Any:
        return target(source), codegen

    return intrinsic(cast)


bits_of = _bitcast(types.float64, types.int64)
from_bits = _bitcast(types.int64, types.float64)


def is_wide(rows: Any) -> bool:
    """Tell float64 from float32 while compiling."""
    raise NotImplementedError("only for compiled code")


@overload(is_wide)
def _is_wide(rows):
    wide = rows.dtype == types.float64
    return lambda rows: wide


@compiled
def group(index, ptr):
    """Return the nodes graph by graph (or nothing, if they are so already), and whether ptr is theirs."""
    nodes, size = len(index), len(ptr) - 1
    nothing = np.empty(0, np.int64)
    in_order = True
    for node in range(nodes):
        if index[node] < 0 or index[node] >= size:
            return nothing, False
        in_order &= node == 0 or index[node - 1] <= index[node]
    sound = ptr[size] == nodes
    if in_order or not sound:
        for node in range(nodes):
            sound &= ptr[index[node]] <= node < ptr[index[node] + 1]
        return nothing, sound
    order, place = np.empty(nodes, np.int64), ptr[:-1].copy()
    for node in range(nodes):
        graph = index[node]
        if place[graph] >= ptr[graph + 1]:
            return nothing, False
        order[place[graph]] = node
        place[graph] += 1
    return order, True


@compiled
def two_sum(a, b):
    """Return fl(a + b) and its error (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@compiled
def two_product(a, b):
    """Return fl(a * b) and its error (Dekker)."""
    product = a * b
    scaled = 134217729.0 * a
    a_high = scaled - (scaled - a)
    a_low = a - a_high
    scaled = 134217729.0 * b
    b_high = scaled - (scaled - b)
    b_low = b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


@compiled
def to_odd(value, rest):
    """Return value + rest, where |rest| is below a unit, rounded to an odd last bit unless it is exact.

    Rounding that to float32 is then as rounding value + rest: an odd bit stands for "and a little".
    """
    bits = bits_of(value)
    step = 1 if (rest > 0.0) == (value > 0.0) else -1
    return from_bits(bits + (step if rest != 0.0 and bits & 1 == 0 else 0))


@compiled
def divide(high, low, n):
    """Return a float64 next to (high + low) / n, and the difference times n as a sum of two numbers."""
    first = high / n
    product, error = two_product(first, n)
    quotient = first + (((high - product) - error) + low) / n
    product, error = two_product(quotient, n)
    return quotient, (high - product) - error, low


@compiled
def nearest(quotient, rest, low, n):
    """Return the float64 nearest to quotient + (rest + low) / n, ties to even."""
    total = rest + low
    if total == 0.0:
        return quotient
    bits = bits_of(quotient)
    neighbour = from_bits(bits + (1 if (total > 0.0) == (quotient > 0.0) else -1))
    side = 1.0 if total > 0.0 else -1.0
    over = (2.0 * side * rest - abs(neighbour - quotient) * n) + 2.0 * side * low
    return neighbour if over > 0.0 or (over == 0.0 and bits & 1 != 0) else quotient


@compiled
def add_part(high, low, broken, part):
    """Add a part [F] to high + low without an error, or leave a trace in `broken`."""
    for f in range(len(high)):
        high[f], error = two_sum(high[f], part[f])
        low[f], error = two_sum(low[f], error)
        broken[f] += abs(error)


@compiled
def largest_of(smax, umax, magnitude):
    """Return the bits of the largest magnitude, given the largest bits as signed and as unsigned."""
    above, below = np.int64(smax.max()), umax.max()
    return max(above, np.int64(below & magnitude)) if below > magnitude else above


@compiled
def gap_of(size, least):
    """Return how far the exponents of a largest and a least magnitude lie apart; 0 is no magnitude."""
    return (size >> 23) - max((np.int64(least) + 1) >> 23, 1)


@compiled
def finish(graph, n, state, smax, umin, umax, results, result_bits, columns, hard, limits):
    """Write the results of one graph of n nodes, or that it is a hard one."""
    high, low, broken = state[0], state[1], state[2]
    to_sum, to_mean, to_max, to_min = columns
    magnitude, infinity = limits[0], limits[1]
    features = len(high)
    size, trace = largest_of(smax, umax, magnitude), np.int64(0)
    bad = size > infinity
    if to_sum >= 0 or to_mean >= 0:
        for f in range(features):
            high[f], low[f] = two_sum(high[f], low[f])
            trace |= bits_of(broken[f])
            if is_wide(results):
                trace |= abs(high[f]) > 2.0**990 or (high[f] != 0.0 and abs(high[f]) < 2.0**-900)
        bad |= size == infinity or trace != 0
    hard[graph] = bad
    if bad:
        return
    if to_sum >= 0:
        out = results[graph, to_sum]
        for f in range(features):
            out[f] = high[f] if is_wide(results) else to_odd(high[f], low[f])
    if to_mean >= 0:
        out = results[graph, to_mean]
        for f in range(features):
            quotient, rest, left = divide(high[f], low[f], n)
            if is_wide(results):
                out[f] = nearest(quotient, rest, left, n)
            else:
                out[f] = np.float32(to_odd(quotient, rest + left)) + np.float32(0.0)
    if to_max >= 0:
        bits = result_bits[graph, to_max]
        for f in range(features):
            bits[f] = umin[f]
            if smax[f] >= 0:
                bits[f] = smax[f]
    if to_min >= 0:
        bits = result_bits[graph, to_min]
        for f in range(features):
            bits[f] = umax[f] if umax[f] & magnitude != umax[f] else umin[f]


@compiled
def certify(rows, order, start, stop, state, part, smax, umax, least, magnitude):
    """Add a tile's sums to high + low, after a second look at its rows where the first was not exact.

    With |x| < 2**(m - 126) and nonzero |x| >= 2**(l - 127), m and l the biased exponents, the sums of
    2**7 rows need m - l + 31 bits of the 53; split at a multiple of 2**(m - 171), m - l - 15.
    """
    high, low, broken = state[0], state[1], state[2]
    rest, constant = state[3], state[4]
    if gap_of(largest_of(smax, umax, magnitude), least.min()) > NARROW:
        for f in range(len(high)):
            size = largest_of(smax[f : f + 1], umax[f : f + 1], magnitude)
            broken[f] += gap_of(size, least[f]) > WIDE
            constant[f] = 1.5 * from_bits(((size >> 23) - 119 + 1023) << 52)
        part[:] = 0.0
        rest[:] = 0.0
        for position in range(start, stop):
            node = order[position] if len(order) else position
            for f in range(len(high)):
                value = np.float64(rows[node, f])
                multiple = (value + constant[f]) - constant[f]
                part[f] += multiple
                rest[f] += value - multiple
        add_part(high, low, broken, rest)
    add_part(high, low, broken, part)


@compiled
def forward(
    rows, row_signed, row_unsigned, ptr, order, exact, results, result_bits, columns, hard, limits,
    begin, end, task, cut_graphs, cut_sums, cut_smax, cut_unsigned,
):  # fmt: skip
    """Reduce the rows from `begin` to `end`; graphs that go beyond are left half done in the cut_ arrays."""
    features = rows.shape[1]
    magnitude = limits[0]
    sums = columns[0] >= 0 or columns[1] >= 0
    certified = sums and exact and not is_wide(rows)
    state = np.empty((5, features))
    high, low, broken, part = state[0], state[1], state[2], np.empty(features)
    smax = np.empty(features, row_signed.dtype)
    umin, umax = np.empty(features, row_unsigned.dtype), np.empty(features, row_unsigned.dtype)
    least = np.empty(features, row_unsigned.dtype)
    graph = np.searchsorted(ptr, begin, side="right") - 1
    first = begin
    while first < end:
        while ptr[graph + 1] <= first:
            graph += 1
        last = min(ptr[graph + 1], end)
        state[:3] = 0.0
        clear(smax, umin, umax, limits)
        for start in range(first, last, TILE):
            stop = min(start + TILE, last)
            part[:] = 0.0
            least[:] = magnitude
            for position in range(start, stop):
                node = order[position] if len(order) else position
                for f in range(features):
                    smax[f] = max(smax[f], row_signed[node, f])
                for f in range(features):
                    bits = row_unsigned[node, f]
                    umin[f] = min(umin[f], bits)
                    umax[f] = max(umax[f], bits)
                if certified:
                    for f in range(features):
                        part[f] += rows[node, f]
                    for f in range(features):
                        bits = row_unsigned[node, f] & magnitude
                        least[f] = min(least[f], least.dtype.type(bits - 1))  # 0 becomes the largest
                elif sums and exact:
                    add_part(high, low, broken, rows[node])
                elif sums:
                    for f in range(features):
                        high[f] += rows[node, f]
            if certified:
                certify(rows, order, start, stop, state, part, smax, umax, least, magnitude)
        if last - first == ptr[graph + 1] - ptr[graph]:
            n = float(last - first)
            finish(graph, n, state, smax, umin, umax, results, result_bits, columns, hard, limits)
        else:
            side = 0 if first == begin else 1
            cut_graphs[task, side] = graph
            cut_sums[task, side] = state[:3]
            cut_smax[task, side] = smax
            cut_unsigned[task, side, 0], cut_unsigned[task, side, 1] = umin, umax
        first = last


@compiled
def merge(
    ptr, results, result_bits, columns, hard, limits, cut_graphs, cut_sums, cut_smax, cut_unsigned
):  # fmt: skip
    """Put together the graphs that the borders of tasks have cut."""
    features = results.shape[2]
    state = np.zeros((3, features))
    smax = np.empty(features, cut_smax.dtype)
    umin, umax = np.empty(features, cut_unsigned.dtype), np.empty(features, cut_unsigned.dtype)
    previous = -1
    for place in range(cut_graphs.size + 1):
        graph = cut_graphs[place // 2, place % 2] if place < cut_graphs.size else -1
        if graph < 0 and place < cut_graphs.size:
            continue
        if graph != previous:
            if previous >= 0:
                n = float(ptr[previous + 1] - ptr[previous])
                finish(previous, n, state, smax, umin, umax, results, result_bits, columns, hard, limits)
            state[:] = 0.0
            clear(smax, umin, umax, limits)
        if graph < 0:
            break
        previous = graph
        piece = cut_sums[place // 2, place % 2]
        add_part(state[0], state[1], state[2], piece[0])
        add_part(state[0], state[1], state[2], piece[1])
        for f in range(features):
            state[2, f] += piece[2, f]
            smax[f] = max(smax[f], cut_smax[place // 2, place % 2, f])
            umin[f] = min(umin[f], cut_unsigned[place // 2, place % 2, 0, f])
            umax[f] = max(umax[f], cut_unsigned[place // 2, place % 2, 1, f])


@compiled
def clear(smax, umin, umax, limits):
    """Start the greatest and least bits of a graph."""
    smax[:] = limits[3]
    umin[:] = limits[2]
    umax[:] = 0


@compiled
def add_ties(rows, results, order, column, graph, first, last, ties):
    """Count the nodes whose value is that of the graph's result, feature by feature."""
    for position in range(first, last):
        node = order[position] if len(order) else position
        for f in range(len(ties)):
            ties[f] += is_tied(rows[node, f], results[graph, column, f])


@compiled
def is_tied(value, winner):
    """Tell whether two values are equal or both NaN."""
    return (value == winner) | ((value != value) & (winner != winner))


@compiled
def cut_ties(rows, ptr, order, results, columns, begin, end, task, cut_graphs, ties):
    """Count the ties in the graphs that the borders of a task cut."""
    for side, border in enumerate((begin, end)):
        graph = np.searchsorted(ptr, border, side="right") - 1
        uncut = border == 0 or border == len(rows) or ptr[graph] == border
        if uncut or (side == 1 and ptr[graph] < begin):  # the first border has cut this graph, too
            continue
        cut_graphs[task, side] = graph
        for extreme in range(2):
            if columns[2 + extreme] >= 0:
                first, last = max(ptr[graph], begin), min(ptr[graph + 1], end)
                add_ties(
                    rows, results, order, columns[2 + extreme], graph, first, last, ties[task, side, extreme]
                )


@compiled
def backward(rows, ptr, order, results, columns, grad, out, begin, end, cut_graphs, known_ties):
    """Write the gradients of the rows from `begin` to `end`."""
    features = out.shape[1]
    to_sum, to_mean, to_max, to_min = columns
    flat, row = np.empty(features), np.empty(features, out.dtype)
    shares = np.empty((2, features))
    graph = np.searchsorted(ptr, begin, side="right") - 1
    first = begin
    while first < end:
        while ptr[graph + 1] <= first:
            graph += 1
        last = min(ptr[graph + 1], end)
        n = ptr[graph + 1] - ptr[graph]
        flat[:] = 0.0
        for f in range(features):
            if to_sum >= 0:
                flat[f] += grad[graph, to_sum, f]
            if to_mean >= 0:
                flat[f] += grad[graph, to_mean, f] / float(n)
            row[f] = flat[f]
            row[f] += 0.0
        for extreme in range(2):
            if columns[2 + extreme] < 0:
                continue
            ties = shares[extreme]
            ties[:] = 0.0
            if last - first == n:
                add_ties(rows, results, order, columns[2 + extreme], graph, first, last, ties)
            else:
                for place in range(cut_graphs.size):
                    if cut_graphs[place // 2, place % 2] == graph:
                        ties += known_ties[place // 2, place % 2, extreme]
            for f in range(features):
                ties[f] = grad[graph, columns[2 + extreme], f] / max(ties[f], 1.0)
        for position in range(first, last):
            node = order[position] if len(order) else position
            if to_max < 0 and to_min < 0:
                for f in range(features):
                    out[node, f] = row[f]
                continue
            for f in range(features):
                total = flat[f]
                if to_max >= 0:
                    total += shares[0, f] if is_tied(rows[node, f], results[graph, to_max, f]) else 0.0
                if to_min >= 0:
                    total += shares[1, f] if is_tied(rows[node, f], results[graph, to_min, f]) else 0.0
                out[node, f] = total
                out[node, f] += 0.0
        first = last
