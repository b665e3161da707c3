"""Jobs in several processes: the same rows, sets sent once, and nothing left behind by what goes wrong."""

from __future__ import annotations

import inspect
import io
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from interrupts import heed_interrupts
from rich.console import Console

from experiments import collisions, console, run
from experiments.__main__ import load_all, main
from experiments.jobs import Job, Workers, _workers, carry_out, working
from experiments.options import PARALLEL
from experiments.records import RowLog, read_rows

ROOT = Path(__file__).parents[2]
arrivals = 0


class Heavy:
    """A large argument that counts its arrivals in a process."""

    def __init__(self):
        self.numbers = list(range(100_000))

    def __setstate__(self, state):
        global arrivals
        arrivals += 1
        self.__dict__.update(state)


def job(compute, *arguments, number=0):
    """A job that leaves what its function returns in rows of these names."""
    work = {"data": "TOY", "readout": None, "seed": None, "fold": number}
    metrics = ("answer", "arrivals", "process", "threads")
    return Job([(work, metrics), ({**work, "more": True}, ("answer",))], partial(compute, *arguments, number))


def look_around(heavy, number):
    """What a job finds around it."""
    drawn = float(torch.rand(1, generator=torch.Generator().manual_seed(number)))
    found = {"answer": heavy.numbers[number] + drawn, "arrivals": arrivals}
    found |= {"process": os.getpid(), "threads": torch.get_num_threads()}
    return [found, {"answer": -found["answer"]}]


def die(number):
    """Kill the process that this runs in, but for job 0."""
    if number:
        os.kill(os.getpid(), signal.SIGKILL)
    return [dict.fromkeys(("answer", "arrivals", "process", "threads"), 0.0)] * 2


def do(folder, jobs, processes):
    with RowLog(folder, "toy") as log, working(Workers(processes)):
        return carry_out(jobs, log, "playing")


def values(rows, metric):
    return [row["value"] for row in rows if row["metric"] == metric]


def test_processes_give_the_rows_of_this_one_and_get_a_set_once(tmp_path):
    heavy = Heavy()
    jobs = [job(look_around, heavy, number=number) for number in range(6)]
    here, there = do(tmp_path / "here", jobs, 1), do(tmp_path / "there", jobs, 2)
    assert values(here, "answer") == values(there, "answer")
    assert len(set(values(here, "answer"))) == 12
    assert set(values(here, "process")) == {os.getpid()}
    assert os.getpid() not in values(there, "process")
    assert set(values(there, "arrivals")) == {1}
    assert set(values(here, "threads") + values(there, "threads")) == {1}
    forbidden = [job(pytest.fail, number=number) for number in range(6)]
    assert do(tmp_path / "there", forbidden, 2) == there


def test_a_process_that_is_killed_is_one_sentence_and_rows_are_kept(tmp_path):
    with pytest.raises(console.UserError, match="--jobs: a process was killed, perhaps for lack of memory"):
        do(tmp_path, [job(die, number=number) for number in range(3)], 2)
    done = [job(die)]
    assert do(tmp_path, done, 1) == read_rows(tmp_path / "toy.jsonl.gz")[:5]


TOY = """
import sys, time
from functools import partial
from pathlib import Path
from experiments.jobs import Job, Workers, carry_out, working
from experiments.records import RowLog

def wait(number):
    time.sleep(0 if number < 2 else 1000)
    return [{"number": number}]

if __name__ == "__main__":
    import toy
    works = [{"data": "TOY", "readout": None, "seed": None, "fold": number} for number in range(5)]
    jobs = [Job([(work, ("number",))], partial(toy.wait, work["fold"])) for work in works]
    with RowLog(Path(sys.argv[1]), "toy") as log, working(Workers(2)):
        carry_out(jobs, log, "waiting")
"""


@pytest.mark.parametrize("how", ["Ctrl-C", "kill -9"])
def test_no_process_outlives_a_run_that_is_stopped(how, tmp_path):
    (tmp_path / "toy.py").write_text(TOY)
    rows = tmp_path / "toy.jsonl.gz"
    command = [sys.executable, tmp_path / "toy.py", tmp_path]
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    pipe = {"stderr": subprocess.PIPE, "text": True, "preexec_fn": heed_interrupts}
    with subprocess.Popen(command, env=os.environ | paths, start_new_session=True, **pipe) as process:
        deadline = time.monotonic() + 200
        while (not rows.exists() or len(read_rows(rows)) < 2) and time.monotonic() < deadline:
            time.sleep(0.02)
        if how == "Ctrl-C":
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.kill()
        try:
            _, said = process.communicate(timeout=100)
        finally:
            process.kill()
    while time.monotonic() < deadline and alive(process.pid):
        time.sleep(0.05)
    assert not alive(process.pid)
    assert sorted(row["value"] for row in read_rows(rows)) == [0, 1]
    assert said.count("KeyboardInterrupt\n") == said.count("Traceback") == (how == "Ctrl-C"), said


def alive(session):
    """Whether a process of this session is there."""
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return False
    return True


def test_options_of_parallel_experiments_reach_the_jobs(tmp_path, monkeypatch):
    seen = []
    measure = lambda sets, log: seen.append(_workers.get()) or 1 / 0  # noqa: E731
    toy = replace(collisions.EXPERIMENT, measure=measure, parallel=True)
    monkeypatch.setattr(collisions, "EXPERIMENT", toy)
    monkeypatch.setattr(type(toy), "code", lambda self, device: "")
    for command in ("collisions", "demo"):
        with pytest.raises(ZeroDivisionError):
            main([command, "--jobs", "3", "--scheduler", "tcp://host:1", "--out", str(tmp_path)])
    assert [(workers.jobs, workers.scheduler) for workers in seen] == [(3, "tcp://host:1")] * 2
    assert seen[0].sources[0] is measure
    assert _workers.get(None) is None


def test_options_are_there_where_they_are_heeded():
    for experiment in load_all():
        assert (PARALLEL.keys() <= experiment.parameters.keys()) == experiment.parallel
        has_jobs = "carry_out(" in Path(inspect.getfile(experiment.measure)).read_text()
        assert experiment.parallel == (has_jobs and experiment.name != "scaling")  # whose jobs are processes


def test_a_bar_shows_what_is_done_and_the_time_left():
    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True, width=90)
    assert list(console.walk(iter("abc"), "spelling", 3, terminal)) == list("abc")
    assert "spelling" in out.getvalue()
    assert "3/3" in out.getvalue()
    assert console.tracked("abc", "spelling") == "abc"  # no terminal, no bar


def test_all_says_what_is_done_and_the_time_left(monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 130.0)
    left = "3 done in 0:00:30, 0:01:30 left if the other 9 take as long on average"
    assert run.progress(3, 12, 100.0) == left
    assert run.progress(12, 12, 100.0) == "12 done in 0:00:30"
