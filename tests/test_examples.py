"""The examples: the same results under Dask and Ray, for any number of processes and parts."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bits import assert_same_bits

from readouts import readout

EXAMPLES = Path(__file__).parents[1] / "examples"
NODES = 20_000


@pytest.fixture(scope="module")
def stream():
    spec = importlib.util.spec_from_file_location("stream", EXAMPLES / "stream.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def digest(name, *options):
    command = [sys.executable, EXAMPLES / name, "--nodes", str(NODES), *options]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert f"nodes {NODES:,}, graphs 1,000" in run.stdout
    megabytes = int(run.stdout.partition("peak memory")[2].split()[0])
    assert 50 < megabytes < 1000
    return run.stdout.partition("sha256")[2].split()[0]


def test_the_stream_does_not_depend_on_where_it_is_cut(stream):
    x, batch = stream.nodes(0, 1000)
    parts = [stream.nodes(begin, end) for begin, end in stream.cut(1000, 7)]
    assert_same_bits(torch.cat([part for part, _ in parts]), x)
    assert torch.cat([part for _, part in parts]).equal(batch)
    assert x.isfinite().all()
    assert x.abs().max() / x.abs().min() > 1e5


def test_a_part_of_the_stream_is_read_as_readout_reads_it(stream, monkeypatch, capsys):
    monkeypatch.setattr(stream, "CHUNK", 300)
    x, batch = stream.nodes(100, 1100)
    part = stream.read(100, 1100)
    exact = [0, 1, 3, 4]
    expected = readout(x, batch, [stream.REDUCE[block] for block in exact], size=stream.GRAPHS)
    blocks = part.result().view(stream.GRAPHS, len(stream.REDUCE), stream.FEATURES)
    assert_same_bits(blocks[:, exact].flatten(1), expected)
    stream.report(part, 0.0, [(10**6, 2 * 10**6), (3 * 10**6, 10**6)])
    assert "peak memory  6 MB in 2 processes" in capsys.readouterr().out


def test_dask_gives_the_bits_of_one_process(stream, capsys):
    pytest.importorskip("distributed", reason="needs Dask (the extra dask)")
    stream.report(stream.read(0, NODES), 0.0, [(0, 0)])
    alone = capsys.readouterr().out.partition("sha256")[2].split()[0]
    assert digest("stream_dask.py", "--workers", "2", "--parts", "7") == alone


def test_ray_gives_the_bits_of_one_process(stream, capsys):
    pytest.importorskip("ray", reason="needs Ray (the extra ray)")
    stream.report(stream.read(0, NODES), 0.0, [(0, 0)])
    alone = capsys.readouterr().out.partition("sha256")[2].split()[0]
    assert digest("stream_ray.py", "--workers", "2", "--parts", "7") == alone


def test_training_is_reproducible_when_it_is_exact():
    command = [sys.executable, EXAMPLES / "reproducible.py", "--epochs", "5"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=EXAMPLES.parent)
    assert run.returncode == 0, run.stderr
    plain, exact = run.stdout.split("exact_scatter")
    assert "differ by" in plain
    assert "differ by" not in exact
    assert exact.count("same bits") == 3
