"""The kernels of `readouts.kernels.triton.grouping`; for the method and the layout of `counts` see there."""

# mypy: allow-untyped-defs
from __future__ import annotations

import triton
import triton.language as tl

PIVOTS = tl.constexpr(8)  # graphs of a tile that are looked for


@triton.jit(do_not_specialize=["nodes", "size"], do_not_specialize_on_alignment=["index"])
def count_nodes(index, counts, nodes, size, TILE: tl.constexpr):
    """Add the nodes of a tile to counts[graph + 1]; set counts[size + 2] if a graph is below the one before.

    In a sorted tile the nodes of a graph are a run: its first and its last node alone change the count.
    """
    start, rows, inside = tile_of(nodes, TILE)
    graphs = graphs_of(index, rows, inside, size)
    after = graphs_of(index, rows + 1, rows + 1 < nodes, size)
    descends = tl.max((inside & (rows + 1 < nodes) & (after < graphs)).to(tl.int32), 0)
    if descends > 0:
        tl.store(counts + size + 2, 1)
        add_to_counts(index, counts, start, graphs, inside, nodes, size, 1, TILE)
    else:
        before = graphs_of(index, rows - 1, inside & (rows > start), size)
        first = inside & ((rows == start) | (before != graphs))
        last = inside & ((rows == tl.minimum(start + TILE, nodes) - 1) | (after != graphs))
        run = tl.where(last, rows + 1, 0) - tl.where(first, rows, 0)
        tl.atomic_add(counts + graphs + 1, run, first | last, sem="relaxed")


@triton.jit(do_not_specialize=["nodes", "size"], do_not_specialize_on_alignment=["index"])
def place_nodes(index, ptr, counts, order, nodes, size, TILE: tl.constexpr):
    """Write the nodes of a tile to the places of their graphs in `order`, which uses up the counts.

    Sorted nodes stay where they are. The first program sets counts[size + 3] if all graphs are below `size`.
    """
    start, rows, inside = tile_of(nodes, TILE)
    if start == 0:
        tl.store(counts + size + 3, (tl.load(ptr + size) == nodes).to(tl.int64))
    if tl.load(counts + size + 2) == 0:
        tl.store(order + rows, rows, inside)
    else:
        graphs = graphs_of(index, rows, inside, size)
        place = add_to_counts(index, counts, start, graphs, inside, nodes, size, -1, TILE)
        tl.store(order + tl.load(ptr + graphs, inside, 0) + place, rows, inside)


@triton.jit
def tile_of(nodes, TILE: tl.constexpr):
    """Return the first node of this program, all its nodes, and which of them exist."""
    start = tl.program_id(0).to(tl.int64) * TILE
    rows = start + tl.arange(0, TILE)
    return start, rows, rows < nodes


@triton.jit
def graphs_of(index, rows, inside, size):
    """Load the graphs of nodes; `size` stands for every one that is out of range."""
    graphs = tl.load(index + rows, inside, 0).to(tl.int64)
    return tl.where((graphs >= 0) & (graphs < size), graphs, size)


@triton.jit
def add_to_counts(
    index, counts, start, graphs, left, nodes, size, STEP: tl.constexpr, TILE: tl.constexpr
):  # fmt: skip
    """Add STEP for every node; return its count afterwards, as if nodes came one after the other.

    The graphs of a few nodes are looked for in the whole tile, and the nodes of each are added at once: else
    the additions to a graph that many nodes share would wait for each other.
    """
    place = tl.zeros([TILE], tl.int64)
    for pivot in range(PIVOTS):
        row = tl.minimum(start + pivot * (TILE // PIVOTS), nodes - 1)
        graph = graphs_of(index, row, row >= 0, size)
        same = left & (graphs == graph)
        number = tl.sum(same.to(tl.int32), 0).to(tl.int64)
        old = tl.atomic_add(counts + graph + 1, STEP * number, number > 0, sem="relaxed")
        place = tl.where(same, old + STEP * tl.cumsum(same.to(tl.int32), 0), place)
        left = left & (graphs != graph)
    old = tl.atomic_add(counts + graphs + 1, graphs * 0 + STEP, left, sem="relaxed")
    return tl.where(left, old + STEP, place)
