"""Rows of results survive kill -9, torn members and full disks, and a rerun does only what is missing."""

from __future__ import annotations

import errno
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import records
from experiments.console import UserError
from experiments.records import RowLog, pick, ranges, read, read_rows

ROOT = Path(__file__).parents[2]
WORKS = 60
WORKER = """
import sys, time
from pathlib import Path
from experiments.records import RowLog

with RowLog(Path(sys.argv[1]), "killed") as log:
    for number in range(int(sys.argv[2])):
        work = {"data": "rings", "readout": "sum", "seed": number, "fold": None}
        values = {"square": number**2, "cube": number**3}
        log.measure(work, ("square", "cube"), lambda: time.sleep(0.01) or values)
"""


def work(seed=0, **settings):
    return {"data": "rings", "readout": "sum", "seed": seed, "fold": None, **settings}


def content(path):
    """Rows without the run that measured them."""
    return [{key: value for key, value in row.items() if key != "run"} for row in read_rows(path)]


def start(folder):
    return subprocess.Popen([sys.executable, "-c", WORKER, str(folder), str(WORKS)], cwd=ROOT)


def test_kill_9_and_rerun_give_the_rows_of_an_undisturbed_run(tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert start(undisturbed).wait(timeout=200) == 0
    path = killed / "killed.jsonl.gz"
    for wanted in (10, 50):
        victim = start(killed)
        deadline = time.monotonic() + 200
        while not path.exists() or len(read_rows(path)) < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        os.kill(victim.pid, signal.SIGKILL)
        assert victim.wait(timeout=200) == -signal.SIGKILL
        assert len(read_rows(path)) < 2 * WORKS
    before = path.read_bytes()
    whole = records.Records(path).take(before)
    assert start(killed).wait(timeout=200) == 0
    assert path.read_bytes().startswith(before[:whole])
    assert content(path) == content(undisturbed / "killed.jsonl.gz")
    assert len(content(path)) == 2 * WORKS


def test_three_processes_at_once_write_every_row_once(tmp_path):
    writers = [start(tmp_path) for _ in range(3)]
    assert [writer.wait(timeout=200) for writer in writers] == [0, 0, 0]
    rows = content(tmp_path / "killed.jsonl.gz")
    assert len(read(tmp_path / "killed.jsonl.gz").stamps) == 1
    assert len(rows) == len({(row["seed"], row["metric"]) for row in rows}) == 2 * WORKS
    assert all(row["value"] == row["seed"] ** (2 if row["metric"] == "square" else 3) for row in rows)


def test_what_another_process_has_measured_meanwhile_is_taken_over(tmp_path):
    with RowLog(tmp_path, "shared") as log, RowLog(tmp_path, "shared") as other:
        found = other.measure(work(), ("a", "b"), lambda: {"a": 1, "b": 2})
        assert log.measure(work(), ("b",), pytest.fail) == found[1:]
        log.measure(work(seed=1), ("a",), lambda: {"a": 3})
        assert other.measure(work(seed=1), ("a",), pytest.fail)[0]["value"] == 3
        assert [row["value"] for row in read_rows(log.path)] == [1, 2, 3]


def test_a_torn_last_member_is_cut_off_and_the_rest_stays(tmp_path):
    with RowLog(tmp_path, "torn") as log:
        log.measure(work(seed=1), ("a",), lambda: {"a": 1})
        log.measure(work(seed=2), ("a",), lambda: {"a": 2})
        path = log.path
    whole = path.read_bytes()
    one = records.Records(path).take(whole[:-1])
    assert 0 < one < len(whole)
    for cut in range(1, len(whole) - one):
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


@pytest.mark.parametrize("stale", ["code", "versions", "device"])
def test_rows_of_other_code_versions_or_device_do_not_count(tmp_path, monkeypatch, stale):
    with RowLog(tmp_path, "stale", code="a") as log:
        log.measure(work(), ("a",), lambda: {"a": 1})
    if stale == "versions":
        monkeypatch.setattr(records, "versions", lambda: {"torch": "another"})
    other = {"code": "a", "device": "cpu"} | ({stale: "another"} if stale != "versions" else {})
    with RowLog(tmp_path, "stale", **other) as log:
        assert log.measure(work(), ("a",), lambda: {"a": 2})[0]["value"] == 2
    assert [row["value"] for row in content(log.path)] == [1, 2]


def test_another_commit_of_the_same_code_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "commit", lambda: "older")
    with RowLog(tmp_path, "commits") as log:
        log.measure(work(), ("a",), lambda: {"a": 1})
    monkeypatch.setattr(records, "commit", lambda: "newer")
    with RowLog(tmp_path, "commits") as log:
        assert log.measure(work(), ("a",), pytest.fail)[0]["run"]["commit"] == "older"


def test_the_stamp_of_a_run_is_stored_once_and_every_row_has_it(tmp_path):
    with RowLog(tmp_path, "stamped", "cpu", "digest") as log:
        rows = [row for seed in range(3) for row in log.measure(work(seed), ("a",), lambda: {"a": 1.5})]
    found = read(log.path)
    assert found.rows == rows
    assert [row["run"] for row in rows] == 3 * found.stamps
    (stamp,) = found.stamps
    assert set(stamp) == {"code", "versions", "device", "commit", "dirty", "date"}
    assert set(stamp["versions"]) == {"python", "torch", "pyg", "scikit-learn", "readouts"}
    assert (stamp["code"], stamp["device"], rows[0]["value"]) == ("digest", "cpu", 1.5)


def test_a_command_that_ended_names_its_rows_and_a_rerun_adds_nothing(tmp_path):
    with RowLog(tmp_path, "ended") as log:
        first, _, third = (log.measure(work(seed), ("a",), lambda: {"a": 1})[0] for seed in range(3))
        log.finish([first, third], {"command": "x"})
    before = log.path.read_bytes()
    with RowLog(tmp_path, "ended") as log:
        log.finish([first, third], {"command": "x"})
    assert log.path.read_bytes() == before
    assert read(log.path).view == {"command": "x", "rows": [first, third]}
    with RowLog(tmp_path, "ended") as log:
        log.finish([], {"command": "y"})
    assert read(log.path).view == {"command": "y", "rows": []}
    assert ranges([3, 4, 5, 1, 2, 9]) == [[3, 5], [1, 2], [9, 9]]


def test_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(file, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    with RowLog(tmp_path, "full") as log:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(UserError, match=r"Cannot write .*full\.jsonl\.gz: No space left on device\."):
            log.measure(work(), ("a",), lambda: {"a": 1})
        monkeypatch.setattr(os, "write", lambda file, content: len(content) - 1)
        with pytest.raises(UserError, match="bytes fit"):
            log.measure(work(), ("a",), lambda: {"a": 1})


@pytest.mark.parametrize(
    "damage", ["not json", "[1]", "{}", '{"value": 1}', "no value", "no number", "no run"]
)
def test_a_damaged_line_is_named(tmp_path, damage):
    with RowLog(tmp_path, "damaged") as log:
        log.measure(work(), ("a",), lambda: {"a": 1})
    row = work() | {"metric": "a", "run": 0}
    damaged = {"no value": row, "no number": row | {"value": "abc"}, "no run": row | {"value": 1, "run": 7}}
    line = json.dumps(damaged[damage]) if damage in damaged else damage
    with log.path.open("ab") as file:
        file.write(gzip.compress(f"{line}\n".encode()))
    with pytest.raises(UserError, match="line 3 is no result: move the file away"):
        RowLog(tmp_path, "damaged")


def test_a_file_of_something_else_is_named_and_kept(tmp_path):
    path = tmp_path / "other.jsonl.gz"
    path.write_text('{"value": 1}\n')
    with pytest.raises(UserError, match="no file of results: move it away"):
        RowLog(tmp_path, "other")
    assert path.read_text() == '{"value": 1}\n'


def test_pick_wants_exactly_one():
    found = [{"a": 1, "value": 3}, {"a": 2, "value": 4}]
    assert pick(found, a=2) == 4
    with pytest.raises(LookupError, match="0 rows"):
        pick(found, a=5)
    with pytest.raises(LookupError, match="2 rows"):
        pick(found)
