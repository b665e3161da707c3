"""Result rows survive kill -9, torn lines and full disks, and a rerun does only what is missing."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import rows
from experiments.console import UserError
from experiments.rows import RowLog, pick, read_rows

ROOT = Path(__file__).parents[2]
WORKS = 60
WORKER = """
import sys, time
from pathlib import Path
from experiments.rows import RowLog

with RowLog(Path(sys.argv[1]), "killed") as log:
    for number in range(int(sys.argv[2])):
        work = {"data": "rings", "readout": "sum", "seed": number, "fold": None}
        values = {"square": number**2, "cube": number**3}
        log.measure(work, ("square", "cube"), lambda: time.sleep(0.01) or values)
"""


def work(seed=0, **settings):
    return {"data": "rings", "readout": "sum", "seed": seed, "fold": None, **settings}


def content(path):
    """Rows without the time of measuring them."""
    return [{key: value for key, value in row.items() if key != "date"} for row in read_rows(path)]


def start(folder):
    return subprocess.Popen([sys.executable, "-c", WORKER, str(folder), str(WORKS)], cwd=ROOT)


def test_kill_9_and_rerun_give_the_rows_of_an_undisturbed_run(tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert start(undisturbed).wait(timeout=200) == 0
    path = killed / "killed.jsonl"
    for wanted_lines in (10, 50):
        victim = start(killed)
        deadline = time.monotonic() + 200
        while not path.exists() or path.read_bytes().count(b"\n") < wanted_lines:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        os.kill(victim.pid, signal.SIGKILL)
        assert victim.wait(timeout=200) == -signal.SIGKILL
        assert path.read_bytes().count(b"\n") < 2 * WORKS
    before = path.read_bytes()
    assert start(killed).wait(timeout=200) == 0
    assert path.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    assert content(path) == content(undisturbed / "killed.jsonl")
    assert len(content(path)) == 2 * WORKS


def test_three_processes_at_once_write_every_row_once(tmp_path):
    writers = [start(tmp_path) for _ in range(3)]
    assert [writer.wait(timeout=200) for writer in writers] == [0, 0, 0]
    rows = content(tmp_path / "killed.jsonl")
    assert len(rows) == len({(row["seed"], row["metric"]) for row in rows}) == 2 * WORKS
    assert all(row["value"] == row["seed"] ** (2 if row["metric"] == "square" else 3) for row in rows)


def test_what_another_process_has_measured_meanwhile_is_taken_over(tmp_path):
    with RowLog(tmp_path, "shared") as log, RowLog(tmp_path, "shared") as other:
        found = other.measure(work(), ("a", "b"), lambda: {"a": 1, "b": 2})
        assert log.measure(work(), ("b",), pytest.fail) == found[1:]
        log.measure(work(seed=1), ("a",), lambda: {"a": 3})
        assert other.measure(work(seed=1), ("a",), pytest.fail)[0]["value"] == 3
        assert [row["value"] for row in read_rows(log.path)] == [1, 2, 3]


def test_torn_last_line_is_cut_and_the_rest_stays(tmp_path):
    with RowLog(tmp_path, "torn") as log:
        log.measure(work(seed=1), ("a",), lambda: {"a": 1})
        log.measure(work(seed=2), ("a",), lambda: {"a": 2})
        path = log.path
    whole = path.read_bytes()
    for cut in (1, 10, 100):
        path.write_bytes(whole[:-cut])
        with RowLog(tmp_path, "torn") as log:
            assert log.measure(work(seed=1), ("a",), pytest.fail)[0]["value"] == 1
            log.measure(work(seed=2), ("a",), lambda: {"a": 2})
        assert [row["value"] for row in content(path)] == [1, 2]


def test_known_work_is_not_repeated(tmp_path):
    with RowLog(tmp_path, "known") as log:
        first = log.measure(work(k=3), ("a", "b"), lambda: {"a": 0.1, "b": 2})
        assert log.measure(work(k=3), ("a", "b"), pytest.fail) == first
    with RowLog(tmp_path, "known") as log:
        assert log.measure(work(k=3), ("b",), pytest.fail) == first[1:]
        assert [row["value"] for row in log.measure(work(k=3), ("a", "c"), lambda: {"a": 9, "c": 5})] == [
            0.1,
            5,
        ]


@pytest.mark.parametrize("other", [{"seed": 1}, {"k": 4}, {"data": "MUTAG"}, {"readout": "max"}, {"fold": 0}])
def test_other_work_is_measured(tmp_path, other):
    with RowLog(tmp_path, "other") as log:
        log.measure(work(k=3), ("a",), lambda: {"a": 1})
        assert log.measure({**work(k=3), **other}, ("a",), lambda: {"a": 2})[0]["value"] == 2


@pytest.mark.parametrize("stale", ["code_digest", "versions"])
def test_rows_of_other_code_or_versions_do_not_count(tmp_path, monkeypatch, stale):
    with RowLog(tmp_path, "stale") as log:
        log.measure(work(), ("a",), lambda: {"a": 1})
    monkeypatch.setattr(rows, stale, lambda *experiment: "changed")
    with RowLog(tmp_path, "stale") as log:
        assert log.measure(work(), ("a",), lambda: {"a": 2})[0]["value"] == 2
    assert [row["value"] for row in content(log.path)] == [1, 2]


def test_another_commit_of_the_same_code_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "commit", lambda: "older")
    with RowLog(tmp_path, "commits") as log:
        log.measure(work(), ("a",), lambda: {"a": 1})
    monkeypatch.setattr(rows, "commit", lambda: "newer")
    with RowLog(tmp_path, "commits") as log:
        assert log.measure(work(), ("a",), pytest.fail)[0]["commit"] == "older"


def test_a_row_says_where_it_comes_from(tmp_path):
    with RowLog(tmp_path, "stamped", "cpu") as log:
        (row,) = log.measure(work(), ("a",), lambda: {"a": 1.5})
    assert json.loads(log.path.read_text()) == row
    assert {"experiment", "data", "readout", "metric", "value", "seed", "fold", "commit", "date"} <= set(row)
    assert set(row["versions"]) == {"python", "torch", "pyg", "scikit-learn", "readouts"}
    assert (row["experiment"], row["device"], row["value"]) == ("stamped", "cpu", 1.5)


def test_code_digest_follows_the_sources(tmp_path, monkeypatch):
    source = tmp_path / "readouts" / "kernel.py"
    source.parent.mkdir()
    source.write_text("x = 1")
    monkeypatch.setattr(rows, "ROOT", tmp_path)
    before = rows.code_digest.__wrapped__("copies")
    (tmp_path / "README.md").write_text("documentation")
    assert rows.code_digest.__wrapped__("copies") == before
    source.write_text("x = 2")
    assert rows.code_digest.__wrapped__("copies") != before


def test_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(file, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    with RowLog(tmp_path, "full") as log:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(UserError, match=r"Cannot write .*full\.jsonl: No space left on device\."):
            log.measure(work(), ("a",), lambda: {"a": 1})
        monkeypatch.setattr(os, "write", lambda file, content: len(content) - 1)
        with pytest.raises(UserError, match="bytes fit"):
            log.measure(work(), ("a",), lambda: {"a": 1})


@pytest.mark.parametrize("damage", ["not json", "[1]", "{}", '{"value": 1}', "no value", "no number"])
def test_a_damaged_line_is_named(tmp_path, damage):
    path = tmp_path / "damaged.jsonl"
    with RowLog(tmp_path, "damaged") as log:
        log.measure(work(), ("a",), lambda: {"a": 1})
    row = json.loads(path.read_text())
    damaged = {
        "no value": {key: row[key] for key in row if key != "value"},
        "no number": row | {"value": "abc"},
    }
    with path.open("a") as file:
        file.write(json.dumps(damaged[damage]) if damage in damaged else damage)
        file.write("\n" + json.dumps(row) + "\n")
    with pytest.raises(UserError, match="line 2 is no result row"):
        RowLog(tmp_path, "damaged")


def test_pick_wants_exactly_one():
    found = [{"a": 1, "value": 3}, {"a": 2, "value": 4}]
    assert pick(found, a=2) == 4
    with pytest.raises(LookupError, match="0 rows"):
        pick(found, a=5)
    with pytest.raises(LookupError, match="2 rows"):
        pick(found)
