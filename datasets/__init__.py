"""Data for the experiments: TU sets, rings, own data, covers, copies, collisions, splits."""

from pathlib import Path

from datasets import own, rings, tu
from datasets.graphs import GraphSet

__all__ = ["GraphSet", "load"]


def load(
    source: str | Path,
    mirror: str | None = None,
    *,
    target: str | None = None,
    task: str | None = None,
    trust: bool = False,
) -> GraphSet:
    """Load the embedded `"rings"`, any TU set by name, or graphs of your own.

        load("MUTAG")
        load("molecules.csv", target="activity")            # a column of SMILES and one to predict
        load("molecules.smi", target="2")                   # the second field; the first is SMILES
        load("graphs.pt")                                   # torch.save of a list of Data or a PyG data set
        load("package.module:make", task="regression")      # a list of Data, or a function that returns one

    Args:
        source: `"rings"`, a TU name, FILE.csv, .tsv, .smi or .pt, or `package.module:name`.
        mirror: folder or URL with `NAME.zip` files, for TU sets only; see `datasets.tu.load`.
        target: a column of the table; an attribute of `Data`, or a column of its `y`; a column of the graph
            attributes of a TU set. By default the only column, `y`, or the classes of the TU set.
        task: `"classification"` or `"regression"`; by default as the values suggest, see
            `datasets.targets.read_targets`. `GraphSet.notes` says what was decided.
        trust: unpickle any class from a FILE.pt, which lets the file run code.

    Raises:
        DataError: the data cannot be had or is unfit; the message is one sentence for the user.
    """
    if own.is_own(source):
        return own.load(source, target, task, trust)
    name = str(source)
    graph_set = rings.load() if name == "rings" else tu.load(name, mirror=mirror)
    return own.with_target(graph_set, target, task)
