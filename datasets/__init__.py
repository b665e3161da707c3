"""Data for the experiments: TU sets, rings, covers, copies, collisions, splits."""

from datasets import rings, tu
from datasets.graphs import GraphSet

__all__ = ["GraphSet", "load"]


def load(name: str, mirror: str | None = None) -> GraphSet:
    """Load the embedded `"rings"` or any TU set by name.

    `mirror` is a folder or URL with `NAME.zip` files, for TU sets only; see `datasets.tu.load`.
    """
    return rings.load() if name == "rings" else tu.load(name, mirror=mirror)
