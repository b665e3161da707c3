"""The loops of `readouts.kernels.cpu`, compiled by Numba; see there for the method.

All in one file, for Numba's cache watches the file of a function, and not those of what it calls
(`readouts.kernels.vectors` is the vocabulary, and has to stay as it is as long as this file does).

Names used throughout: `rows` [N, F] are the node features; a *block* is LANES columns, the last of
which overlaps its neighbour where F is no multiple; `column` is a block's first column and `slot` its
place in the scratch matrices, whose blocks do not overlap:

- `work.sums` [5, slots]: HIGH + LOW + THIRD is the sum of a graph, not rounded, unless BROKEN; PART is
  the sum of a tile.
- `work.extremes` [4, slots], as bits: largest as signed, least and largest as unsigned of a graph, and the
  least magnitude minus 1 of a tile, as unsigned, which makes zeros the largest.
- `work.answers` [3, slots]: sum, mean, and the mean rounded to float64. The first two are rounded to
  odd where they are to be narrowed.

`job` says what to do and where to put it: `entries` [2, R] are the reductions (their places in ELEMENTARY,
in ascending order) and their blocks in the results; `layout` is what `cpu.LAYOUTS` tells of the dtype;
`moments` [2 B, F] are means, and the largest squared deviations before the variances take their place;
`hard` [1, B] are the graphs that are beyond this kernel.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import intrinsic, overload

from readouts.kernels.vectors import (
    LANES,
    Matrix,
    above,
    any_of,
    bits_of,
    differs,
    extend,
    fill,
    floats_of,
    load,
    load_some,
    narrow,
    pointer_to,
    prefetch,
    rows_from,
    signed_max,
    signed_min,
    store,
    store_some,
    unsigned_max,
    unsigned_min,
    where,
    widen,
)

TILE = 128  # rows whose certificate is checked at once, 2**7
SMALL = 48  # rows of a graph that are read block by block
AHEAD = 32  # rows that are asked for before they are needed
SUM, MEAN, MAX, MIN, VAR, STD = range(6)
HIGH, LOW, THIRD, BROKEN, PART = range(5)
SIGNED, LEAST, LARGEST, MAGNITUDE = range(4)


class Job(NamedTuple):
    """What a call asks for."""

    exact: bool
    layout: Any
    entries: Matrix
    results: Matrix
    moments: Matrix
    hard: Matrix


class Work(NamedTuple):
    """The scratch memory of a graph."""

    sums: Matrix
    extremes: Matrix
    answers: Matrix


def compiled(function: Callable[..., Any]) -> Any:
    """Compile on first use; keep the result on disk where there is a place for it."""
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # no folder can be written to
        return njit(nogil=True, error_model="numpy")(function)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile into every caller, so that vectors stay in registers."""
    return njit(nogil=True, error_model="numpy", forceinline=True)(function)


def _bitcast(source: Any, target: Any) -> Any:
    """Make a function that reads the bits of one type as another."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(target))

    def cast(typing_context: Any, value: Any) -> Any:
        return target(source), codegen

    return intrinsic(cast)


pattern_of = _bitcast(types.float64, types.int64)
from_pattern = _bitcast(types.int64, types.float64)


def is_half(rows: Any) -> bool:
    """Tell the 16-bit dtypes from the wider ones while compiling."""
    raise NotImplementedError("only for compiled code")


@overload(is_half)
def _is_half(rows):
    half = rows.types[0].dtype.bitwidth == 16
    return lambda rows: half


# --- grouping ---


@compiled
def group(index, ptr, order):
    """Write the borders of the graphs and their nodes, graph by graph; return whether index is right."""
    nodes, size = len(index), len(ptr) - 1
    ptr[:] = 0
    in_order = True
    for node in range(nodes):
        graph = index[node]
        if graph < 0 or graph >= size:
            return False
        in_order &= node == 0 or index[node - 1] <= graph
        ptr[graph + 1] += 1
    for graph in range(size):
        ptr[graph + 1] += ptr[graph]
    if in_order:
        for node in range(nodes):
            order[node] = node
        return True
    place = ptr[:-1].copy()
    for node in range(nodes):
        graph = index[node]
        order[place[graph]] = node
        place[graph] += 1
    return True


@compiled
def matrix(array):
    """Return the memory of an array."""
    return Matrix(pointer_to(array), array.shape[-1])


@compiled
def item(numbers, row, column):
    """Return one number of a matrix."""
    return numbers.pointer[row * numbers.columns + column]


@compiled
def set_item(numbers, row, column, value):
    """Set one number of a matrix."""
    numbers.pointer[row * numbers.columns + column] = value


@compiled
def graph_at(ptr, position):
    """Return the graph with nodes that has a position in the order."""
    return np.searchsorted(ptr, position, side="right") - 1


@compiled
def node_at(order, position):
    """Return the node at a position in the order; an empty order is that of the rows."""
    return order.pointer[position] if order.columns else position


@compiled
def straightened(order, first, last):
    """Return an order and two positions that name the same nodes of a graph, without a list if possible.

    The nodes of a graph are in ascending order, so that the two ends tell whether they are neighbours.
    """
    begin, end = node_at(order, first), node_at(order, last - 1) + 1
    if end - begin == last - first:
        return Matrix(order.pointer, 0), begin, end
    return order, first, last


@compiled
def fetch(rows, order, begin, end, position, column):
    """Ask for what is needed next: rows further on, or the memory behind rows that lie in a piece.

    The blocks of such rows are taken one after the other, with large strides; what follows them is asked
    for without any.
    """
    if order.columns:
        prefetch(rows, node_at(order, min(position + AHEAD, order.columns - 1)), column)
    else:
        prefetch(rows, end, column * (end - begin) + (position - begin) * LANES)


# --- exact arithmetic ---


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

    Rounding that to a narrower dtype is then as rounding value + rest: an odd bit stands for "and a
    little".
    """
    pattern = pattern_of(value)
    step = 1 if (rest > 0.0) == (value > 0.0) else -1
    return from_pattern(pattern + (step if rest != 0.0 and pattern & 1 == 0 else 0))


@compiled
def divide(high, low, n):
    """Return a float64 next to (high + low) / n, and the difference times n as a sum of two numbers."""
    first = high / n
    product, error = two_product(first, n)
    quotient = first + (((high - product) - error) + low) / n
    product, error = two_product(quotient, n)
    return quotient, (high - product) - error, low


@compiled
def nearest(quotient, rest, low, third, n):
    """Return the float64 nearest to quotient + (rest + low + third) / n, ties to even."""
    total = (rest + low) + third
    if total == 0.0:
        return quotient
    pattern = pattern_of(quotient)
    side = 1.0 if total > 0.0 else -1.0
    neighbour = from_pattern(pattern + (1 if (total > 0.0) == (quotient > 0.0) else -1))
    over = ((2.0 * side * rest - abs(neighbour - quotient) * n) + 2.0 * side * low) + 2.0 * side * third
    return neighbour if over > 0.0 or (over == 0.0 and pattern & 1 != 0) else quotient


@compiled
def grid_of(values, layout):
    """Return the biased exponents of the units in the last place that values have in the dtype."""
    digits, least = layout[0], layout[1]
    exponents = (bits_of(values) >> 52) & 2047
    return signed_max(exponents - (digits - 1), fill(exponents, least + 1023))


@compiled
def power(exponents):
    """Return 2 to the power of biased exponents."""
    return floats_of(exponents << 52)


@compiled
def one_and_half(exponents):
    """Return 1.5 times 2 to the power of biased exponents."""
    return floats_of((exponents << 52) | 2**51)


@compiled
def on_grid(values, layout):
    """Round float64 to the precision of a narrower dtype, ties to even."""
    constant = one_and_half(grid_of(values, layout) + 52)
    finite = ((bits_of(values) >> 52) & 2047) < 2047
    return where(finite, (values + constant) - constant, values)


@compiled
def is_tie(values, layout):
    """Tell which values lie in the middle of two numbers of a narrower dtype."""
    distance = on_grid(values, layout) - values
    half = power(grid_of(values, layout) - 1)
    return (distance == half) | (distance + half == 0.0)


# --- rows and blocks ---


@compiled
def column_of(block, features):
    """Return the first column of a block."""
    return max(min(block * LANES, features - LANES), 0)


@compiled
def blocks_of(features):
    """Return the number of blocks."""
    return (features + LANES - 1) // LANES


@compiled
def read(rows, node, column):
    """Return a block of a row, float32 or float64."""
    if rows.columns >= LANES:
        return load(rows, node, column)
    return load_some(rows, node, column, rows.columns)


@compiled
def write(rows, node, column, values):
    """Write a block of a row; numbers for 16-bit floats must be representable."""
    if rows.columns >= LANES:
        store(rows, node, column, values)
    else:
        store_some(rows, node, column, values, rows.columns)


@compiled
def put(rows, node, column, values, layout, like):
    """Round float64 once to the dtype of rows and write it; a zero is +0."""
    rounded = on_grid(values, layout) if is_half(rows) else values  # the others round on the way
    write(rows, node, column, narrow(rounded, like) + 0.0)


@compiled
def chunk_of(features, elements):
    """Return the number of rows that are read block by block, about so many elements of them."""
    return min(max(elements // features, 4), TILE)


# --- sums and extremes of a graph ---


@compiled
def blank(values, layout):
    """Return the state of a block before its first row: PART and the four extremes."""
    bits = bits_of(values)
    total = fill(widen(values), 0.0)
    return total, fill(bits, ~layout[4]), fill(bits, -1), fill(bits, 0), fill(bits, -1)


@compiled
def load_state(work, slot):
    """Return the state of a block from the scratch matrices."""
    signed, least = load(work.extremes, SIGNED, slot), load(work.extremes, LEAST, slot)
    largest, magnitude = load(work.extremes, LARGEST, slot), load(work.extremes, MAGNITUDE, slot)
    return load(work.sums, PART, slot), signed, least, largest, magnitude


@compiled
def store_state(state, work, slot):
    """Keep the state of a block in the scratch matrices."""
    total, signed, least, largest, magnitude = state
    store(work.sums, PART, slot, total)
    store(work.extremes, SIGNED, slot, signed)
    store(work.extremes, LEAST, slot, least)
    store(work.extremes, LARGEST, slot, largest)
    store(work.extremes, MAGNITUDE, slot, magnitude)


@inlined
def scan(rows, order, begin, end, column, job, state):
    """Return the state of a block after the rows from `begin` to `end`."""
    total, signed, least, largest, magnitude = state
    if job.exact:
        for position in range(begin, end):
            fetch(rows, order, begin, end, position, column)
            values = read(rows, node_at(order, position), column)
            bits = bits_of(values)
            total = total + widen(values)
            signed, largest = signed_max(signed, bits), unsigned_max(largest, bits)
            least = unsigned_min(least, bits)
            magnitude = unsigned_min(magnitude, (bits & job.layout[4]) - 1)
    else:
        quick = narrow(fill(total, 0.0), read(rows, node_at(order, begin), column))
        for position in range(begin, end):
            fetch(rows, order, begin, end, position, column)
            values = read(rows, node_at(order, position), column)
            bits = bits_of(values)
            quick = quick + values
            signed, largest = signed_max(signed, bits), unsigned_max(largest, bits)
            least = unsigned_min(least, bits)
        total = total + widen(quick)
    return total, signed, least, largest, magnitude


@compiled
def sizes_of(signed, largest, layout):
    """Return the bits of the largest magnitudes."""
    return signed_max(signed_max(signed, fill(signed, 0)), largest & layout[4])


@compiled
def is_certified(state, layout):
    """Tell whether the PART of a tile is the exact sum.

    With |x| < 2**(m - 126) and nonzero |x| >= 2**(l - 127), m and l the biased exponents of float32,
    the sums of 2**7 rows need m - l + 31 bits of the 53; other dtypes have other limits.
    """
    gap, mantissa = layout[2], layout[3]
    if gap < 0:
        return False
    _, signed, _, largest, magnitude = state
    least = (magnitude + 1) >> mantissa
    exponents = sizes_of(signed, largest, layout) >> mantissa
    return not any_of(exponents - signed_max(least, fill(least, 1)) > gap)


@compiled
def settle(rows, order, begin, end, column, slot, fresh, job, work):
    """Add the PART of a tile to a block's sum, after a second look where it may have been rounded."""
    state = load_state(work, slot)
    part, sums, layout = state[0], work.sums, job.layout
    zeros = fill(part, 0.0)
    if job.exact and not is_certified(state, layout):
        exponents = extend(sizes_of(state[1], state[3], layout) >> layout[3]) + layout[6]
        look_again(rows, order, begin, end, column, slot, fresh, exponents, zeros, False, sums)
    elif fresh:
        store(sums, HIGH, slot, part)
        store(sums, LOW, slot, zeros)
        store(sums, THIRD, slot, zeros)
        store(sums, BROKEN, slot, zeros)
    elif job.exact:
        absorb(sums, slot, part)
    else:
        store(sums, HIGH, slot, load(sums, HIGH, slot) + part)


@compiled
def absorb(sums, slot, part):
    """Add float64 numbers to a block's sum without an error, or leave a trace in BROKEN."""
    high, error = two_sum(load(sums, HIGH, slot), part)
    low, error = two_sum(load(sums, LOW, slot), error)
    third, error = two_sum(load(sums, THIRD, slot), error)
    store(sums, HIGH, slot, high)
    store(sums, LOW, slot, low)
    store(sums, THIRD, slot, third)
    flag_where(differs(error, fill(error, 0.0)), sums, slot)


@compiled
def flag_where(mask, sums, slot):
    """Mark lanes as BROKEN."""
    broken = load(sums, BROKEN, slot)
    store(sums, BROKEN, slot, where(mask, fill(broken, 1.0), broken))


@compiled
def look_again(rows, order, begin, end, column, slot, fresh, exponents, centre, squared, sums):
    """Add a tile's values, or the squares of their deviations from `centre`, split by pre-rounding.

    Magnitudes are below 2**-7 times 2 to the biased exponents. Three numbers are split off every
    value, on grids 46 bits apart, so that 2**7 of each add up exactly; nothing may be left.
    """
    if fresh:
        for row in range(PART):
            store(sums, row, slot, fill(centre, 0.0))
    first = one_and_half(clipped(exponents))
    second, third = one_and_half(clipped(exponents - 46)), one_and_half(clipped(exponents - 92))
    upper, middle, lower = fill(centre, 0.0), fill(centre, 0.0), fill(centre, 0.0)
    left = bits_of(centre) & 0
    for position in range(begin, end):
        value = widen(read(rows, node_at(order, position), column))
        if squared:
            value = (value - centre) * (value - centre)
        part = (value + first) - first
        upper, value = upper + part, value - part
        part = (value + second) - second
        middle, value = middle + part, value - part
        part = (value + third) - third
        lower, value = lower + part, value - part
        left = left | bits_of(value)
    flag_where(differs(left + left, fill(left, 0)) | (exponents > 2045), sums, slot)
    absorb(sums, slot, upper)
    absorb(sums, slot, middle)
    absorb(sums, slot, lower)


@compiled
def clipped(exponents):
    """Return biased exponents that a float64 and 1.5 times it can have."""
    return signed_max(signed_min(exponents, fill(exponents, 2045)), fill(exponents, 1))


@compiled
def gather(rows, order, first, last, job, work):
    """Take in the rows of a graph from `first` to `last`."""
    features, chunk = rows.columns, chunk_of(rows.columns, 2**10)
    for start in range(first, last, TILE):
        stop = min(start + TILE, last)
        for begin in range(start, stop, chunk):
            end = min(begin + chunk, stop)
            for block in range(blocks_of(features)):
                column, slot = column_of(block, features), block * LANES
                empty = blank(read(rows, node_at(order, begin), column), job.layout)
                state = empty
                if begin > first:
                    state = load_state(work, slot)
                if begin == start:
                    state = empty[0], state[1], state[2], state[3], empty[4]
                state = scan(rows, order, begin, end, column, job, state)
                store_state(state, work, slot)
        for block in range(blocks_of(features)):
            column, slot = column_of(block, features), block * LANES
            settle(rows, order, start, stop, column, slot, start == first, job, work)


@compiled
def gather_squares(rows, order, first, last, exact, moments, sums):
    """Take in the squares of the deviations from the mean, moments[0]; moments[1] is the largest of them."""
    for start in range(first, last, TILE):
        stop = min(start + TILE, last)
        for block in range(blocks_of(rows.columns)):
            column, slot = column_of(block, rows.columns), block * LANES
            centre = load(moments, 0, column)
            if exact:
                exponents = (bits_of(load(moments, 1, column)) >> 52) + 8
                look_again(
                    rows, order, start, stop, column, slot, start == first, exponents, centre, True, sums
                )
                continue
            total = fill(centre, 0.0)
            for position in range(start, stop):
                value = widen(read(rows, node_at(order, position), column)) - centre
                total = total + value * value
            store(sums, HIGH, slot, total if start == first else load(sums, HIGH, slot) + total)


# --- results of a graph ---


@compiled
def special_value(largest_signed, largest, layout):
    """Return what NaN or infinities among the numbers make of their sum, 0 without them."""
    magnitude, infinity = layout[4], layout[5]
    below = largest & magnitude if largest < 0 else 0
    if largest_signed > infinity or below > infinity:
        return np.nan
    if largest_signed == infinity:
        return np.nan if below == infinity else np.inf
    return -np.inf if below == infinity else 0.0


@compiled
def is_plain(total, mean, n, signed, largest, layout):
    """Tell whether exact sums need no more than one rounding: no special values, no ties of the mean."""
    sizes = sizes_of(signed, largest, layout)
    if any_of(sizes >= layout[5]):
        return False
    if layout[0] == 53:
        return True
    inexact = differs(mean * n, total)  # in a tie the mean has few digits, so that the product is exact
    return n < 2.0**28 and not any_of(is_tie(mean, layout) & inexact)


@compiled
def conclude(n, slot, squared, job, work):
    """Write the answers of a block; return whether they are beyond this kernel."""
    sums, answers = work.sums, work.answers
    high = load(sums, HIGH, slot)
    mean = high / n
    store(answers, 0, slot, high)
    store(answers, 1, slot, mean)
    store(answers, 2, slot, mean)
    if not job.exact:
        return False
    zeros = fill(high, 0.0)
    rest = differs(load(sums, LOW, slot), zeros) | differs(load(sums, THIRD, slot), zeros)
    rest = rest | differs(load(sums, BROKEN, slot), zeros)
    _, signed, _, largest, _ = load_state(work, slot)
    if not any_of(rest) and is_plain(high, mean, n, signed, largest, job.layout):
        return False
    hard = False
    for lane in range(slot, slot + LANES):
        hard |= conclude_lane(n, lane, squared, job.layout, work)
    return hard


@compiled
def conclude_lane(n, lane, squared, layout, work):
    """Write the answers of one feature with all care; return whether they are beyond this kernel."""
    sums, extremes, answers = work.sums, work.extremes, work.answers
    special = special_value(item(extremes, SIGNED, lane), item(extremes, LARGEST, lane), layout)
    if special != 0.0:
        for row in range(3):
            set_item(answers, row, lane, np.nan if squared else special)
        return False
    high, low = two_sum(item(sums, HIGH, lane), item(sums, LOW, lane))
    low, third = two_sum(low, item(sums, THIRD, lane))
    high, low = two_sum(high, low)
    low, third = two_sum(low, third)
    size = abs(high)
    if item(sums, BROKEN, lane) != 0.0 or not size < 2.0**990 or (high != 0.0 and size < 2.0**-900):
        return True
    quotient, rest, left = divide(high, low, n)
    mean = nearest(quotient, rest, left, third, n)
    wide = layout[0] == 53
    set_item(answers, 0, lane, nearest(high, 0.0, low, third, 1.0) if wide else to_odd(high, low))
    set_item(answers, 1, lane, mean if wide else to_odd(quotient, (rest + left) + third))
    set_item(answers, 2, lane, mean)
    return False


@compiled
def greatest_of(signed, least):
    """Return the greatest values of a block."""
    return floats_of(where(signed >= 0, signed, least))


@compiled
def least_of(largest, least):
    """Return the least values of a block."""
    return floats_of(where(largest < 0, largest, least))


@inlined
def write_results(graph, column, total, mean, state, job):
    """Write the sum, mean, max and min of a block of a graph."""
    _, signed, least, largest, _ = state
    layout, entries = job.layout, job.entries
    out = rows_from(job.results, graph * entries.columns)
    infinity = fill(signed, layout[5])
    unordered = (signed > infinity) | above(largest, infinity | ~layout[4])
    greatest, lowest = greatest_of(signed, least), least_of(largest, least)
    nan = fill(lowest, np.nan)
    for entry in range(entries.columns):
        kind, place = item(entries, 0, entry), item(entries, 1, entry)
        if kind == SUM:
            put(out, place, column, total, layout, lowest)
        elif kind == MEAN:
            put(out, place, column, mean, layout, lowest)
        elif kind == MAX:
            write(out, place, column, where(unordered, nan, greatest))
        elif kind == MIN:
            write(out, place, column, where(unordered, nan, lowest))


@compiled
def finish_block(graph, n, column, slot, job, work):
    """Write the sum, mean, max and min of a block of a graph of n nodes."""
    if conclude(n, slot, False, job, work):
        set_item(job.hard, 0, graph, np.uint8(1))
    total, mean = load(work.answers, 0, slot), load(work.answers, 1, slot)
    write_results(graph, column, total, mean, load_state(work, slot), job)


@compiled
def finish(graph, n, job, work):
    """Write the sum, mean, max and min of a graph of n nodes, and what its variance needs."""
    for block in range(blocks_of(job.results.columns)):
        column, slot = column_of(block, job.results.columns), block * LANES
        finish_block(graph, n, column, slot, job, work)
        if needs_squares(job.entries):
            _, signed, least, largest, _ = load_state(work, slot)
            mean = load(work.answers, 2, slot)
            up, down = widen(greatest_of(signed, least)) - mean, widen(least_of(largest, least)) - mean
            up, down = up * up, down * down
            store(job.moments, 2 * graph, column, mean)
            store(job.moments, 2 * graph + 1, column, where(up > down, up, down))


@compiled
def reduce_small(graph, rows, order, first, last, job, work):
    """Write the sum, mean, max and min of a graph of few rows: all in registers if all is easy."""
    n = float(last - first)
    for block in range(blocks_of(rows.columns)):
        column, slot = column_of(block, rows.columns), block * LANES
        state = blank(read(rows, node_at(order, first), column), job.layout)
        state = scan(rows, order, first, last, column, job, state)
        total, signed, _, largest, _ = state
        mean = total / n
        if job.exact and not (
            is_certified(state, job.layout) and is_plain(total, mean, n, signed, largest, job.layout)
        ):
            store_state(state, work, slot)
            settle(rows, order, first, last, column, slot, True, job, work)
            finish_block(graph, n, column, slot, job, work)
        else:
            write_results(graph, column, total, mean, state, job)


@compiled
def finish_squares(graph, n, job, work):
    """Write the variance and standard deviation of a graph of n nodes."""
    entries, answers = job.entries, work.answers
    out = rows_from(job.results, graph * entries.columns)
    for block in range(blocks_of(job.results.columns)):
        column, slot = column_of(block, job.results.columns), block * LANES
        if conclude(n, slot, True, job, work):
            set_item(job.hard, 0, graph, np.uint8(1))
        store(job.moments, 2 * graph + 1, column, load(answers, 2, slot))
        for lane in range(slot, slot + LANES):
            set_item(answers, 2, lane, np.sqrt(item(answers, 2, lane)))
        like = floats_of(load(work.extremes, SIGNED, slot))
        for entry in range(entries.columns):
            kind, place = item(entries, 0, entry), item(entries, 1, entry)
            if kind == VAR:
                put(out, place, column, load(answers, 1, slot), job.layout, like)
            elif kind == STD:
                put(out, place, column, load(answers, 2, slot), job.layout, like)


@compiled
def needs_squares(entries):
    """Tell whether variances or standard deviations are asked for."""
    return item(entries, 0, entries.columns - 1) >= VAR


@compiled
def clear_empty(ptr, results, hard):
    """Set the results of graphs without nodes to 0; return whether any graph is a hard one."""
    some = False
    for graph in range(len(hard)):
        if ptr[graph] == ptr[graph + 1]:
            results[graph] = 0
        some |= hard[graph] != 0
    return some


@compiled
def job_of(exact, layout, entries, results, moments, hard):
    """Return the memory of what a call asks for."""
    return Job(exact, layout, matrix(entries), matrix(results), matrix(moments), matrix(hard))


@compiled
def part_of(work, task, part):
    """Return one of the three parts of a task's scratch memory."""
    place = 3 * task + part
    sums, extremes = rows_from(work.sums, 5 * place), rows_from(work.extremes, 4 * place)
    return Work(sums, extremes, rows_from(work.answers, 3 * task))


@compiled
def forward(
    rows_, ptr, order_, exact, layout, entries, results, moments, hard,
    begin, end, task, cut_graphs, sums, extremes, answers,
):  # fmt: skip
    """Reduce the rows from `begin` to `end`.

    Graphs that go beyond are named in cut_graphs [tasks, 2], -1 for none, and left half done in the
    second and third part of a task's scratch memory.
    """
    rows, order, job = matrix(rows_), matrix(order_), job_of(exact, layout, entries, results, moments, hard)
    scratch = Work(matrix(sums), matrix(extremes), matrix(answers))
    cut_graphs[task, 0], cut_graphs[task, 1] = -1, -1
    graph, first = graph_at(ptr, begin), begin
    while first < end:
        while ptr[graph + 1] <= first:
            graph += 1
        last = min(ptr[graph + 1], end)
        nodes, start, stop = straightened(order, first, last)
        if last - first < ptr[graph + 1] - ptr[graph]:
            side = 0 if first == begin else 1
            cut_graphs[task, side] = graph
            gather(rows, nodes, start, stop, job, part_of(scratch, task, 1 + side))
        else:
            reduce_graph(graph, rows, nodes, start, stop, job, part_of(scratch, task, 0))
        first = last


@compiled
def reduce_graph(graph, rows, order, first, last, job, work):
    """Write the results of a graph whose nodes lie from `first` to `last`."""
    squared = needs_squares(job.entries)
    if last - first <= SMALL and not squared:
        reduce_small(graph, rows, order, first, last, job, work)
        return
    n = float(last - first)
    gather(rows, order, first, last, job, work)
    finish(graph, n, job, work)
    if squared:
        gather_squares(rows, order, first, last, job.exact, rows_from(job.moments, 2 * graph), work.sums)
        finish_squares(graph, n, job, work)


@compiled
def forward_squares(rows_, ptr, order_, exact, moments_, begin, end, task, cut_graphs, sums_):
    """Take in the squares of the graphs that the borders of a task cut."""
    rows, order, moments = matrix(rows_), matrix(order_), matrix(moments_)
    for side in range(2):
        graph = cut_graphs[task, side]
        if graph >= 0:
            first, last = max(ptr[graph], begin), min(ptr[graph + 1], end)
            sums = rows_from(matrix(sums_), 5 * (3 * task + 1 + side))
            gather_squares(rows, order, first, last, exact, rows_from(moments, 2 * graph), sums)


@compiled
def merge(
    ptr, squared, exact, layout, entries, results, moments, hard, cut_graphs, sums, extremes, answers
):  # fmt: skip
    """Put together the graphs that the borders of tasks have cut."""
    job = job_of(exact, layout, entries, results, moments, hard)
    work = Work(matrix(sums), matrix(extremes), matrix(answers))
    previous = -1
    for cut in range(cut_graphs.size + 1):
        graph = cut_graphs[cut // 2, cut % 2] if cut < cut_graphs.size else -1
        if graph < 0 and cut < cut_graphs.size:
            continue
        if graph == previous:
            add_piece(part_of(work, cut // 2, 1 + cut % 2), exact, work)
            continue
        if previous >= 0:
            n = float(ptr[previous + 1] - ptr[previous])
            if squared:
                finish_squares(previous, n, job, work)
            else:
                finish(previous, n, job, work)
        previous = graph
        if graph >= 0:
            sums[0, 0], extremes[0, 0] = sums[cut // 2, 1 + cut % 2], extremes[cut // 2, 1 + cut % 2]


@compiled
def add_piece(piece, exact, work):
    """Add what is known of another piece of a graph."""
    sums, extremes = work.sums, work.extremes
    for slot in range(0, sums.columns, LANES):
        if exact:
            flag_where(load(piece.sums, BROKEN, slot) > 0.0, sums, slot)
            for row in range(BROKEN):
                absorb(sums, slot, load(piece.sums, row, slot))
        else:
            store(sums, HIGH, slot, load(sums, HIGH, slot) + load(piece.sums, HIGH, slot))
        _, signed, least, largest, _ = load_state(piece, slot)
        store(extremes, SIGNED, slot, signed_max(load(extremes, SIGNED, slot), signed))
        store(extremes, LARGEST, slot, unsigned_max(load(extremes, LARGEST, slot), largest))
        store(extremes, LEAST, slot, unsigned_min(load(extremes, LEAST, slot), least))


# --- gradients ---


@compiled
def ties_of(values, winners):
    """Tell where two vectors are equal or both NaN."""
    return (values == winners) | (differs(values, values) & differs(winners, winners))


@compiled
def count_ties(rows, order, first, last, entries, winners, ties):
    """Count, for every max and min, the nodes that have its value: ties [R, slots]."""
    chunk = max(chunk_of(rows.columns, 2**13), SMALL)
    for begin in range(first, last, chunk):
        end = min(begin + chunk, last)
        for block in range(blocks_of(rows.columns)):
            column, slot = column_of(block, rows.columns), block * LANES
            for entry in range(entries.columns):
                if item(entries, 0, entry) != MAX and item(entries, 0, entry) != MIN:
                    continue
                winner, total = read(winners, item(entries, 1, entry), column), load(ties, entry, slot)
                zeros, ones = fill(total, 0.0), fill(total, 1.0)
                for position in range(begin, end):
                    fetch(rows, order, begin, end, position, column)
                    values = read(rows, node_at(order, position), column)
                    total = total + where(ties_of(values, winner), ones, zeros)
                store(ties, entry, slot, total)


@compiled
def cut_ties(rows_, ptr, order_, entries_, results_, begin, end, task, cut_graphs, ties_):
    """Count the ties in the graphs that the borders of a task cut."""
    rows, order, entries, results = matrix(rows_), matrix(order_), matrix(entries_), matrix(results_)
    for side, border in enumerate((begin, end)):
        graph = graph_at(ptr, border)
        uncut = border == 0 or border == len(rows_) or ptr[graph] == border
        if uncut or (side == 1 and ptr[graph] < begin):  # the first border has cut this graph, too
            continue
        cut_graphs[task, side] = graph
        first, last = max(ptr[graph], begin), min(ptr[graph + 1], end)
        ties = rows_from(matrix(ties_), entries.columns * (2 * task + side))
        count_ties(rows, order, first, last, entries, rows_from(results, graph * entries.columns), ties)


@compiled
def prepare(n, entries, grad, column, slot, shares):
    """Turn the ties in `shares` [R + 1, slots] into what one node gets; the last row is for all alike."""
    flat = fill(load(shares, 0, slot), 0.0)
    ones = fill(flat, 1.0)
    for entry in range(entries.columns):
        kind = item(entries, 0, entry)
        value = widen(read(grad, item(entries, 1, entry), column))
        if kind == SUM:
            flat = flat + value
        elif kind == MEAN:
            flat = flat + value / n
        elif kind == VAR:
            store(shares, entry, slot, value + value)
        elif kind == STD:
            store(shares, entry, slot, value)
        else:
            ties = load(shares, entry, slot)
            store(shares, entry, slot, value / where(ties > 1.0, ties, ones))
    store(shares, entries.columns, slot, flat)


@compiled
def is_simple(entries):
    """Tell whether there is at most one max and at most one min, and no variance."""
    for entry in range(1, entries.columns):
        kind = item(entries, 0, entry)
        if kind >= VAR or (kind >= MAX and kind == item(entries, 0, entry - 1)):
            return False
    return item(entries, 0, 0) < VAR


@inlined
def spread_simple(rows, order, begin, end, column, slot, entries, winners, shares, layout, target):
    """Write the gradients of a block of rows, where all that differs is who wins."""
    flat = load(shares, entries.columns, slot)
    zeros = fill(flat, 0.0)
    above_all, below_all = zeros, zeros
    greatest = read(rows, node_at(order, begin), column)
    lowest = greatest
    has_min = False
    for entry in range(entries.columns):
        kind, place = item(entries, 0, entry), item(entries, 1, entry)
        if kind == MAX:
            above_all, greatest = load(shares, entry, slot), read(winners, place, column)
        elif kind == MIN:
            below_all, lowest, has_min = load(shares, entry, slot), read(winners, place, column), True
    for position in range(begin, end):
        node = node_at(order, position)
        values = read(rows, node, column)
        total = flat + where(ties_of(values, greatest), above_all, zeros)
        if has_min:
            total = total + where(ties_of(values, lowest), below_all, zeros)
        put(target, node, column, total, layout, values)


@compiled
def spread_any(rows, order, begin, end, column, slot, n, entries, winners, moments, shares, layout, target):
    """Write the gradients of a block of rows."""
    flat = load(shares, entries.columns, slot)
    zeros = fill(flat, 0.0)
    mean, deviation = zeros, zeros
    if needs_squares(entries):
        mean, deviation = load(moments, 0, column), load(moments, 1, column)
    for position in range(begin, end):
        node = node_at(order, position)
        values = read(rows, node, column)
        total = flat
        for entry in range(entries.columns):
            kind, place = item(entries, 0, entry), item(entries, 1, entry)
            share = load(shares, entry, slot)
            if kind in (MAX, MIN):
                total = total + where(ties_of(values, read(winners, place, column)), share, zeros)
            elif kind == VAR:
                total = total + share * ((widen(values) - mean) / n)
            elif kind == STD:
                slope = share * ((widen(values) - mean) / (deviation * n))
                total = total + where(deviation == 0.0, zeros, slope)
        put(target, node, column, total, layout, values)


@compiled
def spread(rows, order, first, last, n, entries, winners, moments, shares, layout, target):
    """Write the gradients of the rows of a graph from `first` to `last`."""
    chunk, simple = max(chunk_of(rows.columns, 2**13), SMALL), is_simple(entries)
    for begin in range(first, last, chunk):
        end = min(begin + chunk, last)
        for block in range(blocks_of(rows.columns)):
            column, slot = column_of(block, rows.columns), block * LANES
            if simple:
                spread_simple(
                    rows, order, begin, end, column, slot, entries, winners, shares, layout, target
                )  # fmt: skip
            else:
                spread_any(
                    rows, order, begin, end, column, slot, n, entries, winners, moments, shares, layout,
                    target,
                )  # fmt: skip


@compiled
def backward(
    rows_, ptr, order_, entries_, layout, results_, moments_, grad_, target_, begin, end, task,
    cut_graphs, ties_, shares_,
):  # fmt: skip
    """Write the gradients of the rows from `begin` to `end`; moments are means and standard deviations."""
    rows, order, entries, results = matrix(rows_), matrix(order_), matrix(entries_), matrix(results_)
    moments, grad, target = matrix(moments_), matrix(grad_), matrix(target_)
    shares = rows_from(matrix(shares_), (entries.columns + 1) * task)
    graph, first = graph_at(ptr, begin), begin
    while first < end:
        while ptr[graph + 1] <= first:
            graph += 1
        last = min(ptr[graph + 1], end)
        nodes, start, stop = straightened(order, first, last)
        n = ptr[graph + 1] - ptr[graph]
        winners = rows_from(results, graph * entries.columns)
        clear(shares, entries.columns)
        if last - first == n:
            count_ties(rows, nodes, start, stop, entries, winners, shares)
        else:
            for cut in range(cut_graphs.size):
                if cut_graphs[cut // 2, cut % 2] == graph:
                    add_rows(rows_from(matrix(ties_), entries.columns * cut), shares, entries.columns)
        for block in range(blocks_of(rows.columns)):
            slopes = rows_from(grad, graph * entries.columns)
            prepare(float(n), entries, slopes, column_of(block, rows.columns), block * LANES, shares)
        spread(
            rows, nodes, start, stop, float(n), entries, winners, rows_from(moments, 2 * graph), shares,
            layout, target,
        )  # fmt: skip
        first = last


@compiled
def clear(numbers, rows):
    """Set rows of a scratch matrix to 0."""
    for row in range(rows):
        for slot in range(0, numbers.columns, LANES):
            store(numbers, row, slot, fill(load(numbers, row, slot), 0.0))


@compiled
def add_rows(numbers, total, rows):
    """Add rows of a scratch matrix to another."""
    for row in range(rows):
        for slot in range(0, total.columns, LANES):
            store(total, row, slot, load(total, row, slot) + load(numbers, row, slot))


@compiled
def flat_gradients(ptr, entries_, layout, grad_, table_, shares_):
    """Write what each node of a graph gets where all get the same: table [B, F]."""
    entries, grad, table, shares = matrix(entries_), matrix(grad_), matrix(table_), matrix(shares_)
    for graph in range(len(table_)):
        n = float(max(ptr[graph + 1] - ptr[graph], 1))
        slopes = rows_from(grad, graph * entries.columns)
        for block in range(blocks_of(table.columns)):
            column = column_of(block, table.columns)
            prepare(n, entries, slopes, column, 0, shares)
            put(
                table, graph, column, load(shares, entries.columns, 0), layout, read(slopes, 0, column)
            )  # fmt: skip


@compiled
def copy_rows(table_, index, target_, begin, end):
    """Give the nodes from `begin` to `end` the rows of their graphs; return whether all are there."""
    table, target = matrix(table_), matrix(target_)
    for node in range(begin, end):
        graph = index[node]
        if graph < 0 or graph >= len(table_):
            return False
        for block in range(blocks_of(table.columns)):
            column = column_of(block, table.columns)
            prefetch(table, index[min(node + AHEAD, end - 1)], column)
            write(target, node, column, read(table, graph, column))
    return True
