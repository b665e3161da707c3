"""Sets without labels, without edges, of pairs of nodes, of one class: commands run, or say why not."""

from __future__ import annotations

import random

import pytest
from tu_files import write_set

from experiments.__main__ import BAD_INPUT, load_all, main
from experiments.records import read_rows

GRAPHS = 24
FEW = "--folds 2 --epochs 2"
OPTIONS = {
    "collisions": "",
    "ceiling": f"{FEW} --repeats 1 --steps 25 --rounds 1",
    "tower": "--seeds 1",
    "copies": FEW,
    "counting": FEW,
    "propositions": "",
    "robustness": FEW,
    "accuracy": f"{FEW} --readout sum median attention",
    "activation-maps": "--folds 2 --epochs 1 --pattern 1",
    "properties": "--folds 2 --steps 2",
    "extrapolation": "--seeds 2 --epochs 2",
    "gradients": FEW,
    "heads": f"{FEW} --seeds 2",
    "excitation": FEW,
}


def texts(nodes, edges, labelled=True, attributed=False, classes=2):
    """The files of a set: `nodes(graph)` nodes in each graph; with `edges`, paths and some chords."""
    draw = random.Random(0)
    sizes = [nodes(graph) for graph in range(GRAPHS)]
    starts = [sum(sizes[:graph]) for graph in range(GRAPHS)]
    pairs = [
        (start + first, start + second)
        for start, size in zip(starts, sizes, strict=True)
        for first in range(1, size + 1)
        for second in range(first + 1, size + 1)
        if edges and (second == first + 1 or draw.random() < 0.3)
    ]
    lines = {
        "A": [f"{source}, {target}" for pair in pairs for source, target in (pair, pair[::-1])],
        "graph_indicator": [str(graph + 1) for graph, size in enumerate(sizes) for _ in range(size)],
        "graph_labels": [str(graph % classes) for graph in range(GRAPHS)],
        "node_labels": [str(draw.randrange(3)) for _ in range(sum(sizes))],
        "node_attributes": [f"{draw.gauss(0, 1):.3f}, {draw.random():.3f}" for _ in range(sum(sizes))],
    }
    kept = {part: "".join(f"{line}\n" for line in of) for part, of in lines.items()}
    absent = {"node_labels": not labelled, "node_attributes": not attributed}
    return {"edge_labels": None} | {part: None if absent.get(part) else text for part, text in kept.items()}


SETS = {
    "no labels": texts(lambda graph: 3 + graph % 6, edges=True, labelled=False),
    "attributes": texts(lambda graph: 3 + graph % 6, edges=True, attributed=True),
    "two nodes": texts(lambda graph: 2, edges=True),
    "no edges": texts(lambda graph: 1 + graph % 6, edges=False),
    "some without nodes": texts(lambda graph: graph % 6, edges=True),
    "one class": texts(lambda graph: 3 + graph % 6, edges=True, classes=1),
}


ONE_CLASS = "all 24 graphs are of one class; {} needs two."
REFUSED = {
    ("activation-maps", "one class"): "--label: expected one of 1 classes of ODD",
}
REFUSED |= {("properties", kind): "ODD: expected molecules whose atoms and bond orders" for kind in SETS}
REFUSED |= {
    (name, "one class"): ONE_CLASS.format(name)
    for name in ("accuracy", "ceiling", "extrapolation", "excitation")
}


def test_every_command_that_takes_a_set_is_here():
    assert {found.name for found in load_all() if found.in_all} == set(OPTIONS)


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("command", OPTIONS)
def test_a_command_runs_or_says_why_not(command, kind, tmp_path, capsys):
    write_set(tmp_path / "mirror", "ODD", **SETS[kind])
    arguments = f"--data ODD --mirror {tmp_path / 'mirror'} --device cpu --out {tmp_path / 'out'}"
    code = main([command, *arguments.split(), *OPTIONS[command].split()])
    said = capsys.readouterr().err
    if (command, kind) in REFUSED:
        assert code == BAD_INPUT
        assert REFUSED[command, kind] in said
        assert said.count("\n") == 1
    else:
        assert (code, said) == (0, "")
        rows = read_rows(tmp_path / "out" / f"{command.replace('-', '_')}.jsonl.gz")
        assert {row["data"] for row in rows} == {"ODD"}


def test_a_set_without_nodes_is_refused(tmp_path, capsys):
    write_set(tmp_path / "mirror", "ODD", **texts(lambda graph: 0, edges=False))
    assert main(["copies", "--data", "ODD", "--mirror", str(tmp_path / "mirror")]) == BAD_INPUT
    assert "ODD: expected graphs with nodes, got none." in capsys.readouterr().err


def test_a_set_with_regression_targets_is_refused(tmp_path, capsys):
    targets = texts(lambda graph: 3, edges=True) | {"graph_labels": "0.5\n" * GRAPHS}
    write_set(tmp_path / "mirror", "ODD", **targets)
    assert main(["copies", "--data", "ODD", "--mirror", str(tmp_path / "mirror")]) == BAD_INPUT
    assert "ODD: expected classes, got numbers, which only accuracy predicts" in capsys.readouterr().err


@pytest.mark.parametrize("labelled", [False, True])
def test_accuracy_takes_attributes_when_asked(labelled, tmp_path):
    graphs = texts(lambda graph: 3 + graph % 6, edges=True, labelled=labelled, attributed=True)
    write_set(tmp_path / "mirror", "ODD", **graphs)
    arguments = f"accuracy --attributes --data ODD --mirror {tmp_path / 'mirror'} --out {tmp_path / 'out'}"
    assert main([*arguments.split(), "--device", "cpu", *OPTIONS["accuracy"].split()]) == 0
    rows = list(read_rows(tmp_path / "out" / "accuracy.jsonl.gz"))
    assert all(row["attributes"] for row in rows)
    assert {row["value"] for row in rows if row["metric"] == "ceiling"} == {1.0}
