"""Write docs/conformance.md: the readouts of this library, PyG and torch-scatter against the contract."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType

import torch_geometric.nn.aggr

import readouts.nn
from readouts.testing.conformance.row import Row
from readouts.testing.conformance.suite import FAILED, PASSED, ROWS, Conformance, check_each
from readouts.testing.conformance.target import Subject, TargetError

MARKS = {PASSED: "✓", FAILED: "✗"}
LINEAR = "torch.nn.Linear"

# How to make the classes that need arguments.
ARGUMENTS = {
    "AttentionReadout": f"{LINEAR}(4, 1)",
    "DeepSetsReadout": f"{LINEAR}(4, 4), {LINEAR}(4, 4)",
    "MultiReadout": '["sum", "mean", "max"]',
    "MultiheadAttentionReadout": "4, heads=2",
    "PartialReadout": '"mean", share=0.5',
    "PowerMeanReadout": "2.0",
    "QuantileReadout": "0.25",
    "Set2SetReadout": "4, 2",
    "SortReadout": "2",
    "SqueezeExcitation": "4",
    "TrimmedMeanReadout": "0.25",
    "WeightedMeanReadout": f"{LINEAR}(4, 1)",
    "AttentionalAggregation": f"{LINEAR}(4, 1)",
    "DeepSetsAggregation": f"{LINEAR}(4, 4), {LINEAR}(4, 4)",
    "DegreeScalerAggregation": '["mean"], ["identity", "amplification"], deg=torch.tensor([0, 2, 3, 1])',
    "EquilibriumAggregation": "4, 4, [8]",
    "GRUAggregation": "4, 4",
    "GraphMultisetTransformer": "4, 2",
    "LCMAggregation": "4, 4",
    "LSTMAggregation": "4, 4",
    "MLPAggregation": "4, 4, 32, num_layers=1",
    "MultiAggregation": '["sum", "mean", "max"]',
    "PatchTransformerAggregation": "4, 4, 2, 8",
    "QuantileAggregation": "0.25",
    "Set2Set": "4, 2",
    "SetTransformerAggregation": "4",
    "SortAggregation": "2",
}
SCATTER = ("sum", "mean", "max", "min", "mul")
# Where torch-scatter is installed, PyG uses it for some reductions; this page shows PyG's own.
PYG_ALONE = "import torch_geometric; torch_geometric.typing.WITH_TORCH_SCATTER = False; "
HEAD = """# Conformance

The value contract of [the readouts](readouts.md), tested on this library, PyG and torch-scatter.
Versions: {versions}.
PyG is tested as if torch-scatter were not installed. This page is written by

```sh
readouts conformance --document > docs/conformance.md
readouts conformance package.module:Class  # tests any other readout or aggregation
```

✓ passed, ✗ failed; a cell is empty where the row does not apply to the readout. What a readout behaves like
is found by probing. A row fails if one of its snippets fails. Below the tables is an example of every kind of
failure, in three lines of code. Where a readout multiplies matrices, PyTorch's product may round a row
differently at another position in the batch, and rows "to the bit" fail.
"""


@dataclass(frozen=True)
class Section:
    """Readouts of one package, by short name, and the names that were left out."""

    title: str
    subjects: dict[str, Subject]
    left_out: tuple[str, ...] = ()


def document() -> str:
    """Examine the readouts of this library, the aggregations of PyG, and torch-scatter if it is installed."""
    sections = [
        _section("readouts", readouts.nn, "Readout", ""),
        _section("torch-geometric", torch_geometric.nn.aggr, "Aggregation", PYG_ALONE),
    ]
    if importlib.util.find_spec("torch_scatter"):
        sections.append(Section("torch-scatter", dict(map(_scatter, SCATTER))))
    return page(sections)


def page(sections: Sequence[Section], rows: Sequence[Row] = ROWS) -> str:
    """Examine the readouts of all sections and write the page; progress goes to the standard error."""
    subjects = [subject for section in sections for subject in section.subjects.values()]
    conformances = check_each(subjects, rows)
    others = ["torch", *(section.title for section in sections if section.title != "readouts")]
    named = [f"readouts {readouts.__version__}"]  # of the clone, whatever is installed
    versions = ", ".join([*named, *(f"{name} {importlib.metadata.version(name)}" for name in others)])
    parts = [HEAD.format(versions=versions)]
    everything: list[Conformance] = []
    for section in sections:
        found = {}
        for label in section.subjects:
            print(f"{section.title}: {label}", file=sys.stderr)
            found[label] = next(conformances)
        everything += found.values()
        parts += [f"## {section.title}\n", *_tables(found, rows)]
        if section.left_out:
            parts.append(f"Left out: {'; '.join(section.left_out)}.\n")
    contract = "\n".join(f"| {row.name} | {row.contract} |" for row in rows)
    parts += ["## The contract\n", f"| row | says |\n|---|---|\n{contract}\n"]
    return "\n".join([*parts, "## Examples of failures\n", *_examples(everything, rows)]).rstrip()


def _section(title: str, module: ModuleType, ending: str, before: str) -> Section:
    """Collect the classes of a module that can be made and return one row per graph."""
    subjects, left_out = {}, []
    for name in filter(lambda name: inspect.isclass(getattr(module, name)), module.__all__):
        imports, made = f"{before}from {module.__name__} import {name}", f"{name}({ARGUMENTS.get(name, '')})"
        try:
            subjects[name.removesuffix(ending) or name] = Subject.written(name, imports, made)
        except TargetError as problem:
            left_out.append(f"{name} ({str(problem).removeprefix('target: ')})")
    return Section(title, subjects, tuple(left_out))


def _scatter(reduce: str) -> tuple[str, Subject]:
    imports = "from functools import partial; from torch_scatter import scatter"
    made = f'partial(scatter, reduce="{reduce}")'
    return f"scatter {reduce}", Subject.written(f'scatter(reduce="{reduce}")', imports, made)


def _tables(found: dict[str, Conformance], rows: Sequence[Row]) -> Iterator[str]:
    """Write one table for readouts whose values the contract defines, and one for all others."""
    for other in (False, True):
        some = {label: one for label, one in found.items() if ("other" in one.kinds) is other}
        if some:
            yield _table(some, rows) + "\n"


def _table(found: dict[str, Conformance], rows: Sequence[Row]) -> str:
    kinds = ["" if "other" in one.kinds else ", ".join(one.kinds) for one in found.values()]
    lines = [["", *found], ["---", *[":-:"] * len(found)]]
    lines += [["behaves like", *kinds]] if any(kinds) else []
    for place, row in enumerate(rows):
        marks = [MARKS.get(one.results[place].result, "") for one in found.values()]
        lines += [[row.name, *marks]] if any(marks) else []
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _examples(found: Sequence[Conformance], rows: Sequence[Row]) -> Iterator[str]:
    """Write the shortest example of a failure of every row."""
    for place, row in enumerate(rows):
        failed = [one for one in found if one.results[place].result == FAILED]
        if failed:
            shortest = min(failed, key=lambda one: len(one.results[place].example))
            result = shortest.results[place]
            yield f"**{row.name}**, {shortest.target}: expected {result.expected}, got {result.got}\n"
            yield f"```python\n{result.example.replace(PYG_ALONE, '')}\n```\n"


if __name__ == "__main__":
    print(document())
