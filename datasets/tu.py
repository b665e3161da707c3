"""TU data sets as graphs: simple, undirected, labelled, and with an account of what that took."""

from __future__ import annotations

from pathlib import Path

from datasets.graphs import GraphSet
from datasets.tables import graphs_of
from datasets.tu_text import read
from readouts.commands.tu import checksums, names
from readouts.commands.tu.errors import DataError
from readouts.commands.tu.fetch import raw_folder


def load(name: str, *, mirror: str | Path | None = None, cache: str | Path | None = None) -> GraphSet:
    """Load a TU set from `mirror`, from the cache, or from the TU site.

    `mirror` (or READOUTS_TU_MIRROR) is a folder with `NAME.zip` or `NAME/`, or a URL with `NAME.zip`; `cache`
    (or READOUTS_CACHE, or `readouts/tu` in the user's cache folder) is where fetched sets are kept. Files of
    sets with known SHA-256 digests are verified on every load.

    Edges become undirected, simple and free of loops; labels 0..L-1 stay as they are, others are renumbered
    in sorted order, and so are classes; several columns of labels become one label per distinct row; nodes
    without labels get their degree. Whatever of this happened stands in `GraphSet.notes`. Edge attributes,
    where a set has them, are `edge_attr` (float32 [E, A]). No graph and no node is left out. A set without
    integer graph labels is one of regression: `classes` is 0, and `y` are its graph labels or attributes.

    Raises `DataError`, one sentence for the user, where the set cannot be had or is not a sound TU set.
    """
    try:
        folder = raw_folder(name, mirror, cache)
        verified = checksums.verify(name, folder, source=folder)
        tables = read(name, folder)
    except OSError as error:
        raise DataError(f"cannot read {name}: {error}") from error
    notes = [] if verified else [f"not verified: no digests of {name} are known"]
    classes, graphs = graphs_of(tables, notes)
    return GraphSet(
        name,
        graphs,
        classes,
        node_names=names.NODE_LABELS.get(name) if verified else None,
        notes=tuple(notes),
        degrees=tables.node_labels is None,
    )
