"""Molecules of one's own from tables and lists of SMILES, and every way in which such a file is unfit."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from datasets import GraphSet, load, planted
from readouts.commands.tu.errors import DataError

ETHERS = ["CCO", "COC", "CCOCC", "CC(=O)C", "c1ccccc1O", "C1CO1", "CN(C)C", "CC[NH3+]", "CCCl.O", "C#N"]
ACTIVE = ["yes", "no"] * 5


def table(path: Path, *columns: list[str], header: str, separator: str = ",") -> Path:
    lines = [header, *(separator.join(fields) for fields in zip(*columns, strict=True))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def ethers(tmp_path: Path, activity: list[str] = ACTIVE, smiles: list[str] = ETHERS) -> Path:
    return table(tmp_path / "ethers.csv", smiles, activity, header="smiles,activity")


def complaint(path: Path | str, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        load(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_atoms_are_nodes_and_bonds_are_edges(tmp_path: Path) -> None:
    found = load(ethers(tmp_path), target="activity")
    acetone, ethanol = found[3], found[0]
    assert (found.name, len(found), found.classes) == ("ethers.csv:activity", 10, 2)
    assert found.node_names == ("C", "N", "O", "Cl")
    assert found.edge_names == ("single", "double", "triple", "aromatic")
    assert ethanol.node_label.tolist() == [0, 0, 2]
    assert ethanol.x.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]]
    assert ethanol.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert acetone.edge_label.tolist() == [0, 0, 1, 0, 1, 0]
    assert (ethanol.smiles, found[4].smiles, ethanol.line, found[9].line) == ("CCO", "Oc1ccccc1", 2, 11)
    assert (found.task, found.class_names, found.targets.tolist()) == (
        "classification",
        ("no", "yes"),
        [1, 0] * 5,
    )
    assert (found.features, found.edge_features) == (
        "categorical",
        "edge labels (single, double, triple, aromatic)",
    )
    assert found.unread == ()
    assert found.notes == (
        "2 classes",
        "node labels are chemical elements; implicit hydrogens, charges and stereochemistry are left aside",
        "molecules of several fragments: 1",
    )


def test_numbers_are_a_task_of_regression(tmp_path: Path) -> None:
    found = load(ethers(tmp_path, [f"{number / 4}" for number in range(10)]))
    assert (found.task, found.classes, found.class_names) == ("regression", 0, None)
    assert found.targets.tolist() == [number / 4 for number in range(10)]
    assert str(found.targets.dtype) == "torch.float32"
    assert found[3].y.tolist() == [0.75]


def test_the_task_can_be_chosen(tmp_path: Path) -> None:
    counts = ethers(tmp_path, ["0", "1"] * 5)
    assert load(counts).task == "classification"
    assert load(counts).class_names == ("0", "1")
    assert "2 whole numbers, taken as classes" in load(counts).notes
    assert load(counts, task="regression").targets.tolist() == [0.0, 1.0] * 5
    halves = ethers(tmp_path, ["0.5", "1.5"] * 5)
    assert load(halves).task == "regression"
    assert load(halves, task="classification").class_names == ("0.5", "1.5")


def test_rows_that_cannot_be_read_are_listed(tmp_path: Path) -> None:
    smiles = [*ETHERS, "not a molecule", "CC(C)(C)(C)C", "c1cccc1", "", "CCC", "C,C"]
    path = ethers(tmp_path, [*ACTIVE, "yes", "yes", "yes", "yes", "", "no"], smiles)
    found = load(path)
    assert len(found) == 10
    assert [(line, text) for line, text, _ in found.unread] == [
        (12, "not a molecule"),
        (13, "CC(C)(C)(C)C"),
        (14, "c1cccc1"),
        (15, ""),
        (16, "CCC"),
        (17, "C C no"),
    ]
    reasons = [reason for *_, reason in found.unread]
    assert reasons[0] == "not SMILES"
    assert reasons[1].startswith("Explicit valence for atom # 1 C, 5")
    assert reasons[2].startswith("Can't kekulize")
    assert reasons[3:] == ["no atoms", "no target", "3 fields of 2"]
    assert found.notes[0] == (
        "rows that cannot be read: 6, the first in line 12, 'not a molecule': not SMILES"
    )


@pytest.mark.parametrize(
    ("header", "separator"),
    [
        ("id;activity;SMILES", ";"),
        ("id\tactivity\tcanonical_smiles", "\t"),
        ("\ufeffid,activity,Smiles", ","),
        ("id,activity,molecule", ","),
    ],
)
def test_the_column_of_smiles_is_found(tmp_path: Path, header: str, separator: str) -> None:
    numbers = [str(number) for number in range(10)]
    path = table(tmp_path / "t.csv", numbers, ACTIVE, ETHERS, header=header, separator=separator)
    found = load(path, target="Activity")
    assert [graph.smiles for graph in found][:2] == ["CCO", "COC"]
    assert found.name == "t.csv:activity"


def test_a_list_of_smiles(tmp_path: Path) -> None:
    bare = tmp_path / "bare.smi"
    bare.write_text("".join(f"{text}\t{answer} x\n" for text, answer in zip(ETHERS, ACTIVE, strict=True)))
    assert load(bare, target="2").targets.tolist() == [1, 0] * 5
    named = tmp_path / "named.smi"
    named.write_text(
        "SMILES activity\n" + "".join(f"{text} {place}.5\n" for place, text in enumerate(ETHERS))
    )
    assert load(named, target="activity").task == "regression"
    assert [graph.line for graph in load(bare, target="2")][:2] == [1, 2]


def test_lists_have_names_of_several_words_and_lines_without(tmp_path: Path) -> None:
    ragged = tmp_path / "RAGGED.SMI"
    rows = [f"{text} {answer} a name" for text, answer in zip(ETHERS, ACTIVE, strict=True)]
    ragged.write_text("\n".join(["C yes methane", "", "CC", *rows]))
    found = load(ragged, target="2")
    assert (len(found), found.unread) == (11, ((3, "CC", "no target"),))
    assert [graph.line for graph in found][:2] == [1, 4]


def test_blank_lines_count(tmp_path: Path) -> None:
    path = tmp_path / "BLANK.CSV"
    rows = [f"{text},{place}.5" for place, text in enumerate(ETHERS)]
    path.write_text("\n\r\n" + "smiles,size\r\n\r\n" + "\r\n".join(rows))
    assert [graph.line for graph in load(path)][:2] == [5, 6]


def test_quoted_fields_may_hold_commas_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "quoted.csv"
    rows = [f'"a,\n{place}",{text},{place}.5' for place, text in enumerate(ETHERS)]
    path.write_text("\n".join(["note,smiles,size", *rows]))
    found = load(path, target="size")
    assert [graph.line for graph in found][:2] == [3, 5]
    assert found.targets.tolist() == [place + 0.5 for place in range(10)]


def test_molecules_that_occur_again_are_counted(tmp_path: Path) -> None:
    found = load(ethers(tmp_path, [*ACTIVE, "no", "yes"], [*ETHERS, "OCC", "C(C)O"]))
    assert found.groups().tolist() == [*range(10), 0, 0]
    assert found.notes[-2:] == (
        "graphs that repeat an earlier one: 2",
        "graphs that occur with different targets: 1",
    )


BAD_COLUMNS = [
    ({"target": "activty"}, "(id, activity), got 'activty'; did you mean activity?"),
    ({"target": "zzz"}, "target: expected a column of"),
    ({"target": "smiles"}, "besides SMILES (id, activity), got 'smiles'"),
    ({}, "whose columns are id, activity, got none"),
    ({"target": "activity", "task": "ranking"}, "task: expected classification or regression, got 'ranking'"),
]


@pytest.mark.parametrize(("options", "expected"), BAD_COLUMNS)
def test_columns_that_are_not_there(tmp_path: Path, options: dict[str, str], expected: str) -> None:
    numbers = [f"m{number}" for number in range(10)]
    path = table(tmp_path / "t.csv", numbers, ETHERS, ACTIVE, header="id,smiles,activity")
    assert expected in complaint(path, **options)


BAD_TARGETS = [
    (["yes"] * 10, None, "expected two different values or more, got 'yes' for every graph"),
    (["0.5"] * 10, None, "expected two different values or more, got '0.5' for every graph"),
    (["1", "2", "n/a"] * 3 + ["1"], None, "got 3 texts and 7 numbers; line 4 has 'n/a'"),
    (["1", "2", "n/a"] * 3 + ["1"], "regression", "expected numbers, got 3 texts; line 4 has 'n/a'"),
    (["1.5", "nan"] * 5, None, "expected finite numbers (in float32), got 'nan' in line 3"),
    (["1.5", "-inf"] * 5, "classification", "got '-inf' in line 3"),
    (["1.5", "1e39"] * 5, None, "got '1e39' in line 3"),
    ([f"name{place}" for place in range(10)], None, "got 10 different values of 10 graphs, such as 'name0'"),
    ([f"{place}.5" for place in range(10)], "classification", "got 10 different values of 10 graphs"),
]


@pytest.mark.parametrize(("values", "task", "expected"), BAD_TARGETS)
def test_targets_that_cannot_be_learned(
    tmp_path: Path, values: list[str], task: str | None, expected: str
) -> None:
    said = complaint(ethers(tmp_path, values), task=task)
    assert said.startswith("ethers.csv:activity: expected")
    assert expected in said


BAD_FILES = [
    ("empty.csv", "", "expected rows with SMILES, got an empty file"),
    ("blank.smi", "\n \n", "expected rows with SMILES, got an empty file"),
    ("header.csv", "smiles,y\n", "expected 10 graphs or more, got 0"),
    ("few.csv", "smiles,y\nC,0.5\nCC,1.5\nCCC,2.5\n", "expected 10 graphs or more, got 3"),
    (
        "bad.csv",
        "smiles,y\n" + "C,1\n" * 3 + "(,1\n" * 9,
        "got 3; rows that cannot be read: 9, the first in line 5, '('",
    ),
    ("none.csv", "a,b\nx,y\n", "expected a column smiles, or one that RDKit reads, got columns a, b"),
    ("two.csv", "a,b,c\nC,CC,1\n", "expected one column of SMILES, got a, b"),
    ("twice.csv", "smiles,y,y\nC,1,1\n", "target: expected one column y in"),
    ("open.csv", 'smiles,y\n"C,1\n', "expected a table of text, got unexpected end of data"),
]


@pytest.mark.parametrize(("name", "text", "expected"), BAD_FILES, ids=[name for name, *_ in BAD_FILES])
def test_files_that_are_unfit(tmp_path: Path, name: str, text: str, expected: str) -> None:
    (tmp_path / name).write_text(text)
    said = complaint(tmp_path / name, target="y")
    assert expected in said
    assert name in said


def test_files_that_are_no_text_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("smiles,größe\nC,1\n".encode("latin-1"))
    assert "latin.csv: expected text in UTF-8" in complaint(tmp_path / "latin.csv")
    assert complaint(tmp_path / "no.csv") == f"cannot read {tmp_path / 'no.csv'}: No such file or directory"
    assert "cannot read" in complaint(_folder(tmp_path / "folder.csv"))
    assert "source: expected a TU name, rings, FILE.csv" in complaint(tmp_path / "t.xlsx")


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_without_rdkit_a_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert complaint(ethers(tmp_path)).endswith("needs RDKit, which reads SMILES: pip install rdkit")


def test_unfit_rows_leave_no_message_of_rdkit(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(ethers(tmp_path, [*ACTIVE, "no"], [*ETHERS, "CC(C)(C)(C)C"]))
    assert capfd.readouterr().err == ""


@pytest.fixture(scope="module")
def planted_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planted") / "planted.csv"
    planted.write_csv(path, molecules=60, seed=3)
    return path


def share(found: GraphSet, element: str) -> list[tuple[int, int]]:
    assert found.node_names is not None
    label = found.node_names.index(element)
    return [(int((graph.node_label == label).sum()), int((graph.node_label == 0).sum())) for graph in found]


def test_planted_targets_are_those_of_the_molecules(planted_table: Path) -> None:
    fluorines = share(load(planted_table, target="fluorines"), "F")
    assert load(planted_table, target="fluorines").targets.tolist() == [count for count, _ in fluorines]
    assert load(planted_table, target="share").targets.tolist() == pytest.approx(
        [count / carbons for count, carbons in fluorines], abs=1e-4
    )
    masses = {"F": 19.0, "Cl": 35.5, "Br": 79.9, "I": 126.9}
    found = load(planted_table, target="heaviest", task="regression")
    assert found.node_names is not None
    by_label = torch.tensor([masses.get(name, 0.0) for name in found.node_names])
    assert found.targets.tolist() == [float(by_label[graph.node_label].max()) for graph in found]
    answers = {
        "extensive": [count >= 6 for count, _ in fluorines],
        "intensive": [2 * count >= carbons for count, carbons in fluorines],
        "presence": [count > 0 for count, _ in share(load(planted_table, target="presence"), "Cl")],
    }
    for target, expected in answers.items():
        found = load(planted_table, target=target)
        assert (found.class_names, found.unread) == (("no", "yes"), ())
        assert found.targets.bool().tolist() == expected
        assert 15 <= sum(expected) <= 45


def test_planted_tables_repeat(planted_table: Path, tmp_path: Path) -> None:
    planted.write_csv(tmp_path / "again.csv", molecules=60, seed=3)
    assert (tmp_path / "again.csv").read_bytes() == planted_table.read_bytes()
    planted.write_csv(tmp_path / "other.csv", molecules=60, seed=4)
    assert (tmp_path / "other.csv").read_bytes() != planted_table.read_bytes()
