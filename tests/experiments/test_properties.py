"""Properties: targets against RDKit on SMILES, splits, many targets in one stack, and what is decided."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from rdkit import Chem
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from torch_geometric.data import Data

from datasets import GraphSet, load
from experiments.__main__ import main
from experiments.console import UserError
from experiments.learning.batches import reside
from experiments.properties import experiment, jobs
from experiments.properties.jobs import BASELINES, BY_SIZE, CONSTANT, COUNTS, LINEAR, NETWORKS, Several
from experiments.properties.targets import BONDS, TARGETS, describe
from experiments.records import RowLog, read_rows

NAMES = ("C", "H", "N", "O", "S", "Cl")
MOLECULES = (
    "O=[N+]([O-])c1ccccc1",
    "CC(=O)Nc1ccc(Cl)cc1",
    "C#CCN1CCOCC1",
    "Cc1ccsc1-c1ccccn1",
    "C[N+](C)(C)C",
    "c1ccc2c(c1)CCC2",
)


def graph_of(molecule, name):
    """A molecule in the labels of a set, with aromatic bonds where these have a label."""
    molecule = Chem.Mol(molecule)
    if Chem.BondType.AROMATIC not in BONDS[name]:
        Chem.Kekulize(molecule, clearAromaticFlags=True)
    edges = []
    for bond in molecule.GetBonds():
        ends, label = (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()), BONDS[name].index(bond.GetBondType())
        edges += [(*ends, label), (*ends[::-1], label)]
    *ends, label = torch.tensor(sorted(edges)).T
    atoms = torch.tensor([NAMES.index(atom.GetSymbol()) for atom in molecule.GetAtoms()])
    x = torch.eye(len(NAMES))[atoms]
    return Data(x=x, node_label=atoms, edge_index=torch.stack(ends), edge_label=label, y=torch.tensor([0]))


def set_of(molecules, name="MUTAG"):
    return GraphSet(name, tuple(graph_of(molecule, name) for molecule in molecules), 1, NAMES)


@pytest.mark.parametrize("name", ["MUTAG", "PTC_MR", "Mutagenicity"])
def test_targets_of_labels_are_those_of_smiles(name):
    molecules = [Chem.MolFromSmiles(smiles) for smiles in MOLECULES]
    expected = {place: [target.compute(one) for target in TARGETS] for place, one in enumerate(molecules)}
    given = map(Chem.AddHs, molecules) if name == "Mutagenicity" else molecules
    found = describe(set_of(given, name))
    assert found.failures == {}
    assert found.values.keys() == expected.keys()
    for place, values in expected.items():
        assert found.values[place] == pytest.approx(values, abs=1e-9)


def test_targets_of_known_molecules():
    rings = load("rings")
    names = [graph.name for graph in rings]
    described = describe(rings)
    cyclopropane = dict(zip(targets_named(), described.values[names.index("cyclopropane")], strict=True))
    assert cyclopropane["molecular weight"] == pytest.approx(3 * 12.011 + 6 * 1.008)
    assert cyclopropane["electronegativity"] == pytest.approx((3 * 2.55 + 6 * 2.20) / 9)
    assert (cyclopropane["heavy atoms"], cyclopropane["largest ring"], cyclopropane["halogen"]) == (3, 3, 0)
    crown = dict(zip(targets_named(), described.values[names.index("18-crown-6")], strict=True))
    assert (crown["largest ring"], crown["sp3 carbons"], crown["nitro group"]) == (18, 1, 0)
    assert described.failures == {}


def targets_named():
    return [target.name for target in TARGETS]


def test_own_molecules_are_read_from_their_smiles():
    graphs = [Data(smiles=smiles) for smiles in MOLECULES]
    found = describe(GraphSet("own.csv:y", tuple(graphs), 0, own=True))
    nitro = targets_named().index("nitro group")
    assert [values[nitro] for values in found.values.values()] == [1, 0, 0, 0, 0, 0]


def test_what_rdkit_cannot_read_is_counted_and_said():
    broken = graph_of(Chem.MolFromSmiles("C#CC#C"), "MUTAG")
    broken.edge_label = torch.full_like(broken.edge_label, BONDS["MUTAG"].index(Chem.BondType.TRIPLE))
    sound = set_of([Chem.MolFromSmiles("C" * (2 + place)) for place in range(12)])
    task = jobs.choose(replace(sound, graphs=(broken, *sound.graphs)), 0, 100)
    assert len(task.graphs) == len(task.values) == 12
    assert "13 molecules, of which RDKit cannot sanitise 1 (Explicit valence for atom # 1 C" in task.sentence
    assert "nitro group (100%), halogen (100%), largest ring (100%)" in task.sentence
    assert "sp3 carbons (100%)" in task.sentence
    assert {target.name for target in task.targets}.isdisjoint({"nitro group", "sp3 carbons"})


def test_labels_without_a_meaning_and_few_molecules_are_refused():
    unknown = replace(load("rings"), name="NCI1", node_names=None)
    with pytest.raises(UserError, match="NCI1: expected molecules whose atoms and bond orders are known"):
        describe(unknown)
    with pytest.raises(UserError, match="rings: expected ten molecules or more, got 4"):
        jobs.choose(load("rings")[:4], 0, 100)


@pytest.fixture(scope="module")
def task():
    return jobs.choose(load("rings"), 0, 100)


def test_folds_by_size_learn_from_small_molecules_and_ask_about_large_ones(task):
    sizes = task.graphs.targets.numpy()
    parts = list(jobs.splits_of(task, 5, 0))
    random = {fold: split for name, fold, split in parts if name != BY_SIZE}
    assert sorted(place for split in random.values() for place in split.test) == list(range(len(sizes)))
    asked = []
    for name, fold, split in parts:
        assert not set(split.train) & set(split.test)
        if name == BY_SIZE:
            assert sizes[list(split.train)].max() <= np.median(sizes) < sizes[list(split.test)].min()
            assert set(split.train) <= set(random[fold].train)
            asked += split.test
    assert len(asked) == len(set(asked)) == len(sizes) // 4


def test_a_set_too_small_for_its_folds_is_refused(task):
    with pytest.raises(UserError, match="rings: 12 molecules are too few for 6 folds by size"):
        list(jobs.splits_of(replace(task, graphs=task.graphs[:12]), 6, 0))


PAIR = (False, True)  # a number and a class


def test_every_copy_learns_its_own_target_only():
    y = torch.tensor([[1.0, 0.0], [3.0, 1.0], [8.0, 1.0]])
    goal = Several.of(PAIR, y)
    outputs = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    losses = goal.losses(outputs, y)
    scaled = (y[:, 0] - 4) / y[:, 0].std(correction=0)
    squared = (outputs[0, :, 0] - scaled).square().mean()
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(outputs[1, :, 1], y[:, 1])
    torch.testing.assert_close(losses, torch.stack([squared, entropy]))
    (slope,) = torch.autograd.grad(losses.sum(), outputs)
    assert slope[0, :, 1].eq(0).all()
    assert slope[1, :, 0].eq(0).all()
    predicted = goal.predict(torch.tensor([[0.0, -1.0], [0.0, 1.0], [0.0, -2.0]]))
    assert goal.errors(predicted, y).tolist() == pytest.approx([8 / 3, 1 / 3])
    assert goal.constant.tolist() == [4, 1]


def test_a_ceiling_is_the_share_of_the_error_that_is_not_within_groups():
    y = torch.tensor([[0.0], [4.0], [10.0], [10.0]])
    goal = Several.of(PAIR[:1], y)  # says 6: errors 6 + 2 + 4 + 4
    assert goal.ceiling(np.array([0, 0, 1, 1]), y) == pytest.approx(1 - 4 / 16)
    assert goal.ceiling(np.array([0, 1, 2, 2]), y) == 1


def test_the_scale_of_a_readout_does_not_matter():
    norm = jobs.Scaled(3, 2)
    x = torch.randn(10, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = norm.double()(1000 * x + 7)
    torch.testing.assert_close(found, norm(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.view(2, 5, 3).mean(dim=1), torch.zeros(2, 3, dtype=torch.float64))


def test_a_sum_learns_sizes_and_a_mean_cannot(task):
    task = replace(task, targets=task.targets[1:2], values=task.values[:, 1:2])
    assert task.targets[0].name == "heavy atoms"
    y = torch.from_numpy(task.values).float()
    resident = replace(reside(task.graphs, "gin", jobs.ROUNDS), classes=1, y=y)
    data = jobs.Properties(resident, (False,))
    split = next(split for _, _, split in jobs.splits_of(task, 5, 0))
    settings = jobs.settings_of(split, 100)
    error = {
        readout: jobs.train(data, split, readout, settings, 0)[0]["train error"]
        for readout in ("sum", "mean")
    }
    ceiling = jobs.ceilings(data)[1]["ceiling"]
    apart = float((y - y.mean()).abs().mean())
    assert ceiling < 0.6
    assert error["sum"] < 0.15 * apart < 0.3 * apart < error["mean"]


def rows_of(errors, kind="extensive", split="random", target="molecular weight", data="A"):
    """Rows with these errors of each method, one a fold."""
    of = {"data": data, "kind": kind, "split": split, "target": target, "metric": "error", "seed": 0}
    return [
        of | {"readout": name, "fold": fold, "value": value}
        for name, of_folds in errors.items()
        for fold, value in enumerate(of_folds)
    ]


def errors_of(**changes):
    flat = {name: [5.0, 6.0, 5.0, 6.0] for name in (*BASELINES, *NETWORKS)} | {
        CONSTANT: [10.0, 12.0, 8.0, 10.0]
    }
    return flat | changes


AHEAD = {"sum": [0.9, 1.0, 0.8, 1.1]}


def test_skill_is_the_share_of_the_error_of_the_constant():
    (cell,) = experiment.cells(rows_of(errors_of(**AHEAD)))
    assert cell.skill["sum"].tolist() == pytest.approx([0.91, 1.1, 0.72, 0.89])
    assert (cell.best, cell.decided, cell.score(CONSTANT)) == ("sum", True, 0)
    assert experiment.target_lines([cell], ("sum", "mean")).send(None)[3:] == ["90.5*", "45.0"]


def test_a_target_that_counts_alone_tell_is_not_decided():
    rows = rows_of(errors_of(**AHEAD, **{LINEAR: [0.1, 0.1, 0.1, 0.1]}))
    (finding,) = experiment.findings(rows)
    assert finding.holds is None
    assert "left out, as no network is ahead of all baselines: molecular weight" in finding.numbers
    first, _, last = experiment.tables(rows)
    assert first.lines[0][:3] == ["extensive", "random", "90.5"]
    assert first.lines[0][-2:] == ["99.0*", "0 of 1"]
    assert not any("*" in cell for cell in last.lines[0])


def test_claims_hold_or_are_refuted_and_p_is_corrected():
    extensive = rows_of(errors_of(**AHEAD))
    intensive = rows_of(errors_of(**AHEAD), "intensive", target="electronegativity")
    both = [*extensive, *intensive]
    first, second = experiment.findings(both)
    assert (first.holds, second.holds) == (True, False)
    assert "A, extensive targets, random, sum is the best of sum, mean and max: as claimed" in first.sentence
    assert "not as claimed" in second.sentence
    alone, together = (experiment.contrasts(experiment.cells(rows)) for rows in (extensive, both))
    assert together[0].found.p == pytest.approx(2 * alone[0].found.p)
    assert together[0].found.p > alone[0].found.p
    assert experiment.numbers(both).count("not decided") == 4


def test_a_small_difference_is_undecided():
    noisy = {"sum": [1.0, 3.0, 1.0, 3.0], "mean": [1.1, 2.0, 2.0, 3.0], "max": [5.0, 5.0, 5.0, 5.0]}
    (finding,) = experiment.findings(rows_of(errors_of(**noisy)))
    assert finding.holds is None
    assert "on molecular weight" in finding.numbers


@pytest.fixture
def few_trees(monkeypatch):
    """Forests of two trees, which take no time."""
    monkeypatch.setitem(jobs.OF_NUMBERS, COUNTS, lambda seed: RandomForestRegressor(2, random_state=seed))
    monkeypatch.setitem(jobs.OF_CLASSES, COUNTS, lambda seed: RandomForestClassifier(2, random_state=seed))


@pytest.mark.usefixtures("few_trees")
def test_the_command_runs_and_continues(tmp_path, capsys):
    arguments = ["properties", "--folds", "2", "--steps", "2", "--readout", "sum", "mean", "max"]
    assert main([*arguments, "--device", "cpu", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "Which readout for which kind of target?" in said
    assert "rings: 40 molecules, of which RDKit cannot sanitise 0" in said
    assert (tmp_path / "properties.png").stat().st_size > 1000
    rows = read_rows(tmp_path / "properties.jsonl.gz")
    assert {row["readout"] for row in rows} == {*BASELINES, "sum", "mean", "max"}
    assert main([*arguments, "--device", "cpu", "--out", str(tmp_path)]) == 0
    assert len(read_rows(tmp_path / "properties.jsonl.gz")) == len(rows)


@pytest.mark.usefixtures("few_trees")
def test_two_runs_give_the_same_numbers(task, tmp_path):
    found, task = [], replace(task, targets=task.targets[-2:], values=task.values[:, -2:])
    for folder in ("one", "two"):
        with RowLog(tmp_path / folder, "properties") as log:
            rows = experiment.measure([task], log, "cpu", 3, ("sum+mean+max",), 2, 2)
        found.append([row["value"] for row in rows])
    assert found[0] == found[1]
