"""The kernels of `readouts.kernels.triton.grouping`; for the method and the layout of `counts` see there."""

# mypy: allow-untyped-defs
from __future__ import annotations

import triton
import triton.language as tl

PIVOTS = tl.constexpr(8)  # nodes of a tile whose graphs are looked for
MANY = tl.constexpr(4)  # nodes of a graph that are added at once


@triton.jit(do_not_specialize=["nodes", "size"], do_not_specialize_on_alignment=["index"])
def count_nodes(index, counts, nodes, size, TILE: tl.constexpr):
    """Add the nodes of a tile to counts[graph + 1]; set counts[size + 2] if a graph is below the one before.

    In a sorted tile the nodes of a graph are a run: its first and its last node alone change the count.
    """
    start, lanes, rest = tile_of(nodes, TILE)
    inside, followed = lanes < rest, lanes + 1 < rest
    here = index + start
    graphs = tl.load(here + lanes, inside, 0)
    after = tl.load(here + lanes + 1, followed, 0)
    descends = tl.max((followed & (after < graphs)).to(tl.int32), 0)
    if descends > 0:
        tl.store(counts + size + 2, 1)
        add_to_counts(counts, here, graphs, inside, rest, size, 1, TILE)
    else:
        before = tl.load(here + lanes - 1, inside & (lanes > 0), 0)
        first = inside & ((lanes == 0) | (before != graphs))
        last = inside & ((lanes == tl.minimum(rest, TILE) - 1) | (after != graphs))
        run = tl.where(last, lanes + 1, 0) - tl.where(first, lanes, 0)
        tl.atomic_add(counts + known(graphs, size) + 1, run.to(tl.int64), first | last, sem="relaxed")


@triton.jit(do_not_specialize=["nodes", "size"], do_not_specialize_on_alignment=["index"])
def place_nodes(index, ptr, counts, order, nodes, size, TILE: tl.constexpr):
    """Write the nodes of a tile to the places of their graphs in `order`, which uses up the counts.

    Sorted nodes stay where they are. The first program sets counts[size + 3] if all graphs are below `size`.
    """
    start, lanes, rest = tile_of(nodes, TILE)
    inside = lanes < rest
    if start == 0:
        tl.store(counts + size + 3, (tl.load(ptr + size) == nodes).to(tl.int64))
    if tl.load(counts + size + 2) == 0:
        tl.store(order + start + lanes, start + lanes, inside)
    else:
        here = index + start
        graphs = tl.load(here + lanes, inside, 0)
        place = add_to_counts(counts, here, graphs, inside, rest, size, -1, TILE)
        place += tl.load(ptr + known(graphs, size), inside, 0)
        tl.store(order + place, start + lanes, inside)


@triton.jit
def tile_of(nodes, TILE: tl.constexpr):
    """Return the first node of this program, numbers from 0 on, and how many nodes are left, or TILE + 1."""
    start = tl.program_id(0).to(tl.int64) * TILE
    return start, tl.arange(0, TILE), tl.minimum(nodes - start, TILE + 1).to(tl.int32)


@triton.jit
def known(graphs, size):
    """Return graphs as int64, `size` for every one that is out of range."""
    graphs = graphs.to(tl.int64)
    return tl.where(graphs.to(tl.uint64) < size.to(tl.uint64), graphs, size)


@triton.jit
def add_to_counts(
    counts, here, graphs, left, rest, size, STEP: tl.constexpr, TILE: tl.constexpr
):  # fmt: skip
    """Add STEP for every node; return its count afterwards, as if nodes came one after the other.

    The graphs of a few nodes are looked for in the whole tile, and where one has many nodes, they are added
    at once: else additions to the count of a large graph would wait for each other.
    """
    place = tl.zeros([TILE], tl.int64)
    for pivot in range(PIVOTS):
        graph = tl.load(here + tl.minimum(pivot * (TILE // PIVOTS), rest - 1))
        same = left & (graphs == graph)
        number = tl.sum(same.to(tl.int32), 0)
        if number >= MANY:
            old = tl.atomic_add(counts + known(graph, size) + 1, (STEP * number).to(tl.int64), sem="relaxed")
            place = tl.where(same, old + STEP * tl.cumsum(same.to(tl.int32), 0), place)
            left = left & (graphs != graph)
    step = tl.full([TILE], STEP, tl.int64)
    old = tl.atomic_add(counts + known(graphs, size) + 1, step, left, sem="relaxed")
    return tl.where(left, old + STEP, place)
