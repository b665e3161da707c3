"""Samples of sets that are too large for an experiment, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch_geometric.data import Data

from datasets import GraphSet
from datasets.splits import Split, stratified_folds
from experiments.console import UserError


def drawn(graphs: GraphSet, most: int, seed: int) -> list[Data]:
    """Return at most so many graphs, drawn at random, in the order of the set."""
    order = torch.randperm(len(graphs), generator=torch.Generator().manual_seed(seed))[:most].sort().values
    return [graphs[position] for position in order.tolist()]


def sampled(kept: int, available: int) -> str:
    """Return what a sentence on a number of graphs adds where these are a sample."""
    return f" (a seeded sample of {available})" if kept < available else ""


def untrained(classes: int) -> str:
    """Return what a sentence adds where there is nothing to train networks on."""
    return "" if classes > 1 else "; all of one class, so no network was trained"


def cut(experiment: str, graphs: GraphSet, folds: int, seed: int) -> tuple[Split, ...]:
    """Stratified folds without a hold-out; raises `UserError` where a class is too small."""
    try:
        return stratified_folds(graphs, folds, 0.0, seed).splits
    except ValueError as problem:
        raise UserError(f"{experiment}: {problem}.") from problem


def label_of(graph: Data) -> str:
    """Return the family of a graph, or its class where it has none."""
    return str(graph.family) if "family" in graph else str(int(graph.y))


def labelled(graphs: Sequence[Data]) -> tuple[tuple[Data, ...], int]:
    """Return graphs whose y is the number of their label, and the number of labels."""
    labels = [label_of(graph) for graph in graphs]
    distinct = sorted(set(labels))
    kept = tuple(
        Data(x=graph.x, edge_index=graph.edge_index, y=torch.tensor([distinct.index(label)]))
        for graph, label in zip(graphs, labels, strict=True)
    )
    return kept, len(distinct)
