"""Which graphs train, validate and test: stratified folds and size shifts, drawn once and kept as JSON."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, train_test_split

from datasets.graphs import GraphSet

Indices = npt.NDArray[np.int64]
STRATA = 10  # of a target that is a number


@dataclass(frozen=True)
class Split:
    """Indices of graphs, ascending, in no two parts; those in none of them are left aside."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


@dataclass(frozen=True)
class Splits:
    """Splits of one set: by what rule and seed they were drawn, and from exactly which graphs."""

    name: str
    fingerprint: str
    graphs: int
    rule: str
    seed: int
    splits: tuple[Split, ...]

    def write(self, path: Path) -> None:
        """Write JSON, in one step: a reader sees all of it or nothing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "w") as file:
                json.dump(asdict(self), file)
            os.replace(unfinished, path)
        except BaseException:
            os.unlink(unfinished)
            raise

    @classmethod
    def read(cls, path: Path, graph_set: GraphSet) -> Splits:
        """Read what `write` wrote; `ValueError` where it is not that, or was drawn from other graphs."""
        try:
            fields = json.loads(path.read_text())
            splits = tuple(
                Split(**{part: tuple(of) for part, of in split.items()}) for split in fields["splits"]
            )
            found = cls(**{**fields, "splits": splits})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} does not hold splits: {error}") from error
        found.check(graph_set)
        return found

    def check(self, graph_set: GraphSet) -> None:
        """Raise `ValueError` unless these splits were drawn from this set and no graph is in two parts."""
        if self.fingerprint != (actual := fingerprint(graph_set)):
            raise ValueError(
                f"these splits were drawn from {self.graphs} graphs of {self.name} "
                f"with fingerprint {self.fingerprint[:12]}, and do not fit "
                f"the {len(graph_set)} graphs of {graph_set.name} with fingerprint {actual[:12]}"
            )
        for position, split in enumerate(self.splits):
            used = [*split.train, *split.validation, *split.test]
            if len(set(used)) < len(used) or not set(used) <= set(range(len(graph_set))):
                raise ValueError(
                    f"split {position} of {self.name} names a graph twice, or one that is not there"
                )


def stratified_folds(
    graph_set: GraphSet,
    folds: int = 10,
    validation: float = 0.1,
    seed: int = 0,
    groups: Sequence[int] | npt.NDArray[np.int64] | None = None,
) -> Splits:
    """Cut a set into `folds` test parts with equal shares of every class, or of every tenth of the numbers.

    From the rest of each fold, a `validation` share is held out for choosing a model, stratified too (0: none
    is). With `groups`, one integer per graph as of `GraphSet.groups`, graphs of one group are in one part,
    and shares are as equal as that allows. Raises `ValueError` where a class has fewer graphs (or groups)
    than there are folds, or where a class is too small for the hold-out.
    """
    y = strata(graph_set, folds)
    of = None if groups is None else np.asarray(groups, np.int64)
    if of is not None and of.shape != y.shape:
        raise ValueError(f"groups: expected one for each of {len(y)} graphs, got {of.shape}")
    units = y if of is None else np.unique(np.stack([y, of]), axis=1)[0]
    rarest = int(np.bincount(units, minlength=graph_set.classes).min())
    if not 2 <= folds <= rarest:
        raise ValueError(
            f"cannot cut {graph_set.name} into {folds} stratified folds: expected at least 2 folds, and at "
            f"most {rarest}, the number of {'graphs' if of is None else 'groups'} in its smallest class"
        )
    kind = StratifiedKFold if of is None else StratifiedGroupKFold
    draw = kind(folds, shuffle=True, random_state=seed).split(y, y, of)
    splits = tuple(_held_out(graph_set.name, rest, test, y, validation, seed, of) for rest, test in draw)
    together = "" if of is None else ", groups kept together"
    rule = f"{folds} stratified folds, {validation:g} of the rest for validation{together}"
    return _named(graph_set, rule, seed, splits)


def size_split(
    graph_set: GraphSet, train: float = 0.5, test: float = 0.1, validation: float = 0.1, seed: int = 0
) -> Splits:
    """Train on the `train` share of smallest graphs, test on the `test` share of largest: one split.

    Graphs are ordered by their number of nodes, and those of equal size by a shuffle that `seed` determines,
    for many sets are sorted by class. From the small graphs, a `validation` share is held out, stratified
    (0: none is). Raises `ValueError` where the shares overlap or leave a part empty.
    """
    graphs = len(graph_set)
    small, large = _share(train, graphs), _share(test, graphs)
    if train + test > 1 or small < 1 or large < 1:
        raise ValueError(
            f"cannot train on the {train:g} smallest and test on the {test:g} largest of {graphs} graphs: "
            "expected two parts of one graph or more, and a sum of at most 1"
        )
    sizes = np.array([graph.num_nodes for graph in graph_set])
    order = np.lexsort((np.random.default_rng(seed).permutation(graphs), sizes))
    split = _held_out(
        graph_set.name, order[:small], order[graphs - large :], strata(graph_set), validation, seed
    )
    rule = f"{train:g} smallest to train, {validation:g} of these for validation, {test:g} largest to test"
    return _named(graph_set, rule, seed, (split,))


def balanced(graph_set: GraphSet, indices: Sequence[int], seed: int = 0) -> tuple[int, ...]:
    """The largest subset of `indices`, ascending, with equally many graphs of every class of the set.

    For the test part of a size split, where class shares shift with size. Empty where a class has no graph.
    """
    shuffled = np.random.default_rng(seed).permutation(np.array(indices, dtype=np.int64))
    y = _classes(graph_set)[shuffled]
    fewest = int(np.bincount(y, minlength=graph_set.classes).min())
    return _ascending(np.concatenate([shuffled[y == label][:fewest] for label in range(graph_set.classes)]))


def fingerprint(graph_set: GraphSet) -> str:
    """SHA-256 over `y`, node labels, node attributes and edges of every graph, in order, as a hex string."""
    digest = hashlib.sha256()
    for graph in graph_set:
        attributes = [graph.node_attr] if "node_attr" in graph else []
        for tensor in (graph.y, graph.node_label, graph.edge_index, *attributes):
            values = tensor.numpy().astype("<f8" if tensor.is_floating_point() else "<i8", order="C")
            digest.update(np.array(values.shape, "<i8").tobytes() + values.tobytes())
    return digest.hexdigest()


def _classes(graph_set: GraphSet) -> Indices:
    return np.array([int(graph.y) for graph in graph_set], dtype=np.int64)


def strata(graph_set: GraphSet, folds: int = 2) -> Indices:
    """Return classes, or as many bins of the ranked numbers as have two graphs for each fold; [G]."""
    if graph_set.task == "classification":
        return _classes(graph_set)
    targets = graph_set.targets.numpy()
    bins = max(1, min(STRATA, len(targets) // (2 * max(1, folds)))) if targets.ndim == 1 else 1
    ranks = np.argsort(np.argsort(targets if targets.ndim == 1 else targets[:, 0], kind="stable"))
    return (ranks * bins // max(1, len(targets))).astype(np.int64)


def _share(share: float, graphs: int) -> int:
    return int(share * graphs + 1e-9)


def _held_out(
    name: str,
    rest: Indices,
    test: Indices,
    y: Indices,
    share: float,
    seed: int,
    groups: Indices | None = None,
) -> Split:
    if share == 0:
        return Split(_ascending(rest), (), _ascending(test))
    try:
        if groups is None:
            train, validation = train_test_split(rest, test_size=share, stratify=y[rest], random_state=seed)
        else:
            parts = StratifiedGroupKFold(max(2, round(1 / share)), shuffle=True, random_state=seed)
            train, validation = (rest[part] for part in next(parts.split(rest, y[rest], groups[rest])))
    except ValueError as error:
        raise ValueError(
            f"cannot hold out {share:g} of {len(rest)} graphs of {name} for validation: {error}"
        ) from error
    return Split(_ascending(train), _ascending(validation), _ascending(test))


def _ascending(indices: Indices) -> tuple[int, ...]:
    return tuple(np.sort(indices).tolist())


def _named(graph_set: GraphSet, rule: str, seed: int, splits: tuple[Split, ...]) -> Splits:
    return Splits(graph_set.name, fingerprint(graph_set), len(graph_set), rule, seed, splits)
