"""The Triton kernels without a GPU: interpreted on the CPU, and compiled ahead of time for real devices."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from readouts.reductions import ELEMENTARY

triton = pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
FUSED = ("sum", "mean", "max")
POINTERS = {torch.float64: "*fp64", torch.int16: "*i16", torch.int32: "*i32", torch.int64: "*i64"}
OPTIONS = ("num_warps", "enable_fp_fusion", "maxnreg")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("dtypes", ["not f16", pytest.param("f16", marks=pytest.mark.thorough)])
def test_interpreted_kernels_return_the_bits_of_the_reference(dtypes):
    """`f16` also chooses bf16."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", dtypes]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    folder = Path(__file__).parent
    run = subprocess.run(
        [*command, "interpreted"], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr


@pytest.fixture
def launches(monkeypatch, tmp_path):
    """Return what the launcher would start: triples of a kernel, its tensors and sizes, and its options."""
    if INTERPRETED:
        pytest.skip("nothing is compiled under TRITON_INTERPRET=1")
    from readouts.kernels.triton import elementary as gpu

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(gpu, "LONG", 32)
    monkeypatch.setattr(gpu, "PIECES", (4, 5))
    started = []

    def start(batch, kernel, programs, *arguments, **options):
        if programs:
            started.append((kernel, arguments, batch.common | options))

    monkeypatch.setattr(gpu._Batch, "_start", start)

    def launches(dtype, names, nodes, keep=True):
        started.clear()
        x, index = torch.ones(nodes, 64, dtype=dtype), torch.arange(nodes) // 20
        ptr = torch.arange(0, nodes + 1, 20)
        batch = index, ptr, index, names
        out, kept = gpu.reduce_keeping(x, *batch) if keep else (gpu.reduce(x, *batch), None)
        gpu.reduce_backward(out, x, out, *batch, kept)
        return list(started)

    return launches


@pytest.fixture
def order_launches(monkeypatch, tmp_path):
    """Return what the launcher of order statistics would start, as `launches` does."""
    if INTERPRETED:
        pytest.skip("nothing is compiled under TRITON_INTERPRET=1")
    from readouts.kernels.triton import order as gpu

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    started = []

    def start(device, kernel, programs, *arguments, **options):
        started.append((kernel, arguments, options))

    def launches(dtype, sort):
        x, index, ptr = torch.ones(40, 64, dtype=dtype), torch.arange(40) // 20, torch.arange(0, 41, 20)
        monkeypatch.setattr(gpu, "launch", start)
        gpu.midpoint(x, index, ptr, index if sort else None, torch.full((2, 2), 10))
        return started

    return launches


def compiled(kernel, arguments, options, architecture):
    """Compile one launch for an NVIDIA GPU; return the assembly in text and in binary."""
    types = iter([POINTERS[a.dtype] if isinstance(a, torch.Tensor) else "i32" for a in arguments])
    constants = {name: option for name, option in options.items() if name not in OPTIONS}
    signature = {name: "constexpr" if name in constants else next(types) for name in kernel.arg_names}
    source = triton.compiler.ASTSource(kernel, signature, constants)
    target = triton.backends.compiler.GPUTarget("cuda", architecture, 32)
    chosen = {name: option for name, option in options.items() if name in OPTIONS}
    return triton.compile(source, target=target, options=chosen).asm


def assert_rounds_as_written(assembly):
    """Nothing is fused, flushed to zero, or approximate."""
    for forbidden in ("fma.rn.f64", "fma.rn.f32", ".ftz", ".approx", "div.full", "red.global", "atom.global"):
        assert forbidden not in assembly["ptx"]
    assert len(assembly["cubin"]) > 0


SUM = ["forward", "repair"]
MERGE = ["merge", "limbs_of_pieces", "round_limbs"]


def test_launches_whatever_is_asked_for(launches):
    """Few launches in each direction for ordinary batches; more only where graphs are cut."""

    def names_of(*arguments, **options):
        return [kernel.__name__ for kernel, *_ in launches(*arguments, **options)]

    for name in ("sum", "mean"):
        assert names_of(torch.float32, (name,), 20) == [*SUM, "backward"]
    for name in ("max", "min"):
        assert names_of(torch.float32, (name,), 20) == ["forward", "backward"]
        assert names_of(torch.float32, (name,), 20, keep=False) == ["forward", "keep", "backward"]
    for name in ("var", "std"):
        assert names_of(torch.float32, (name,), 20) == ["forward_far", "backward"]
    assert names_of(torch.float64, FUSED, 20) == ["forward_far", "backward"]
    assert names_of(torch.float32, FUSED, 40) == [*SUM, *MERGE, "backward"]
    squares = ["survey", *MERGE]
    assert names_of(torch.float32, ELEMENTARY, 40) == ["forward_far", *MERGE, *squares, "backward"]
    again = ["keep", *squares * 2]
    assert names_of(torch.float32, ELEMENTARY, 40, keep=False) == [
        "forward_far", *MERGE, *squares, *again, "backward",
    ]  # fmt: skip


@pytest.mark.thorough
def test_all_kernels_compile_for_hopper(launches, dtype):
    nodes = 40 if dtype.itemsize > 2 else 20  # cut graphs or whole ones
    for keep in (True, False):
        for launch in launches(dtype, ELEMENTARY, nodes, keep):
            assert_rounds_as_written(compiled(*launch, 90))


def test_the_fused_kernels_compile_for_ampere(launches, dtype):
    for launch in launches(dtype, FUSED, 20):
        assert_rounds_as_written(compiled(*launch, 80))


@pytest.mark.parametrize(
    ("kind", "sort"),
    [
        (torch.float32, False),
        pytest.param(torch.float16, True, marks=pytest.mark.thorough),
        pytest.param(torch.float64, True, marks=pytest.mark.thorough),
    ],
    ids=str,
)
def test_threads_of_order_statistics_share_nothing(kind, sort, order_launches):
    """Each keeps its columns in registers: no barriers, no shared memory."""
    (launch,) = order_launches(kind, sort)
    assembly = compiled(*launch, 90)
    assert_rounds_as_written(assembly)
    for forbidden in ("bar.sync", "st.shared", "ld.shared"):
        assert forbidden not in assembly["ptx"]
