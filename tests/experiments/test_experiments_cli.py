"""The command line of the experiments: help everywhere, and bad input told in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.__main__ import BAD_INPUT, MODULES, Commands, app, load_all, main
from experiments.experiment import Experiment
from experiments.options import repeat_option

COMMANDS = [*MODULES, "demo", "all"]
OF_SETS = [name for name in COMMANDS if name != "scaling"]
ROOT = Path(__file__).parents[2]


def test_commands_are_the_experiments():
    assert [experiment.name for experiment in load_all()] == list(MODULES)
    assert Commands().list_commands(None) == [*COMMANDS, "report", "gpu"]


def test_report_has_help(capsys):
    """It takes no data and measures nothing."""
    assert main(["report", "--help"]) == 0
    assert "--readme" in capsys.readouterr().out


def test_gpu_has_help_and_wants_a_device(capsys, tmp_path, monkeypatch):
    assert main(["gpu", "--help"]) == 0
    assert "--budget" in capsys.readouterr().out
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["gpu", "--out", str(tmp_path / "out")]) == BAD_INPUT
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "gpu: expected a CUDA device, and PyTorch finds none.\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_help(command, capsys):
    from typer.main import get_command

    found = get_command(app).get_command(None, command)
    wanted = {"data", "mirror", "out", "device", "seed"} if command in OF_SETS else {"out", "seed", "quick"}
    assert wanted <= {option.name for option in found.params}
    assert all(option.help for option in found.params)
    assert found.help
    assert main([command, "--help"]) == 0
    assert "--out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--data A B", "--data A --data B"),
        ("--data A B --data C", "--data A --data B --data C"),
        ("--data=A B --seed 1", "--data=A --data B --seed 1"),
        ("--seed 1 --data A B C --out D", "--seed 1 --data A --data B --data C --out D"),
        ("--out D --seed 3", "--out D --seed 3"),
        ("--data", "--data"),
    ],
)
def test_data_takes_many_names(arguments, expected):
    assert repeat_option("--data", arguments.split()) == expected.split()


def test_several_sets_in_one_table(tmp_path, capsys):
    assert main(["collisions", "--data", "rings", "rings", "--data=rings", "--out", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert output.count("rings │     40") == 2  # one line for each kind of aggregation: the set is taken once


@pytest.mark.parametrize("command", OF_SETS)
@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--data", "NO_SUCH_SET", "--mirror", "{empty}"], "NO_SUCH_SET"),
        (["--data"], "--data"),
        (["--device", "abacus"], "abacus"),
        (["--device", "cuda"], "CUDA"),
        (["--seed", "-1"], "--seed"),
        (["--seed", "many"], "--seed"),
        (["--out", "{file}"], "{file}"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_bad_input_is_one_sentence(command, arguments, word, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    places = {"empty": str(tmp_path), "file": str(tmp_path / "file")}
    (tmp_path / "file").write_text("in the way")
    arguments = [argument.format(**places) for argument in arguments]
    if "--out" not in arguments:
        arguments += ["--out", str(tmp_path / "out")] if arguments != ["--data"] else []
    assert main([command, *arguments]) == BAD_INPUT
    sentence = capsys.readouterr().err
    assert word.format(**places) in sentence
    assert sentence.count("\n") == 1
    assert "Traceback" not in sentence


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["copies", "--k", "-3"], "--k"),
        (["copies", "--folds", "1"], "--folds"),
        (["copies", "--folds", "1000"], "--folds"),
        (["copies", "--epochs", "0"], "--epochs"),
        (["tower", "--seeds", "0"], "--seeds"),
        (["levitate"], "levitate"),
    ],
)
def test_bad_numbers_and_names(arguments, word, tmp_path, capsys):
    out = ["--out", str(tmp_path)] if len(arguments) > 1 else []
    assert main([*arguments, *out]) == BAD_INPUT
    sentence = capsys.readouterr().err
    assert word in sentence
    assert sentence.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ("accuracy --readout sum summ", "--readout: expected one of sum, mean, max,"),
        ("accuracy --network ginn", "--network: expected one of gin, sage, gcn, got ginn"),
        ("accuracy --scheduler nonsense", "--scheduler: no Dask scheduler answers at nonsense"),
        ("all --out /dev/null/results", "Cannot write /dev/null/results: Not a directory"),
        ("scaling --out /dev/null", "Cannot write /dev/null"),
        ("report --readme nowhere.md", "nowhere.md"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_measured(arguments, word, capsys):
    assert main(arguments.split()) == BAD_INPUT
    said = capsys.readouterr()
    assert said.out == ""
    assert word in said.err
    assert said.err.count("\n") == 1


def test_other_experiments_are_not_imported():
    program = (
        "import sys; from experiments.__main__ import main; main(['collisions', '--nonsense']); "
        "sys.exit(', '.join({'sklearn', 'rdkit', 'joblib'} & set(sys.modules)) or 0)"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def put(monkeypatch, measure):
    """Let `collisions` measure something else."""
    from experiments import collisions

    monkeypatch.setattr(collisions, "EXPERIMENT", replace(collisions.EXPERIMENT, measure=measure))
    monkeypatch.setattr(Experiment, "code", lambda self, device: "")


def test_an_experiment_computes_on_one_thread_and_gives_the_others_back(monkeypatch, tmp_path):
    import torch

    found = []
    measure = lambda sets, log: found.append(torch.get_num_threads()) or 1 / 0  # noqa: E731
    put(monkeypatch, measure)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(ZeroDivisionError):
            main(["collisions", "--out", str(tmp_path)])
        assert (found, torch.get_num_threads()) == ([1], 3)
    finally:
        torch.set_num_threads(before)


def test_bugs_keep_their_traceback(monkeypatch, tmp_path):
    put(monkeypatch, lambda sets, log: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["collisions", "--out", str(tmp_path)])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a file on a disk that is full")
def test_full_disk_behind_standard_output(tmp_path):
    with open("/dev/full", "w") as full:
        run = subprocess.run(
            [sys.executable, "-m", "experiments", "collisions", "--out", str(tmp_path)],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=200,
        )
    assert run.returncode == BAD_INPUT
    assert run.stderr == "Cannot write to standard output: No space left on device.\n"


def test_closed_standard_output(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["collisions", "--out", str(tmp_path)]) == 0
    sys.stdout.close()
    assert (tmp_path / "collisions.png").exists()


def test_a_reader_that_goes_away_leaves_no_traceback():
    program = "from experiments.console import say; [say('a line of a table') for _ in range(10_000)]"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        run.stdout.readline()
        run.stdout.close()
        assert run.stderr.read() == ""
        assert run.wait(timeout=200) != 0


def test_interruption_is_said_and_told_by_the_exit_code(tmp_path, monkeypatch, capsys):
    def interrupt(tasks, log):
        raise KeyboardInterrupt

    put(monkeypatch, interrupt)
    assert main(["collisions", "--out", str(tmp_path)]) == 130
    assert "Interrupted; rows so far are kept" in capsys.readouterr().err
