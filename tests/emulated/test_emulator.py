"""The emulator itself: what programs in PTX compute, and the faults that it has to find."""

import math
import shutil

import pytest
import torch
from emulated.program import FaultError, Program
from emulated.translate import UnknownPtxError

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

HEAD = """
.extern .shared .align 16 .b8 global_smem[];
.visible .entry kernel(.param .u64 .ptr .global kernel_param_0,
  .param .u64 .ptr .global kernel_param_1, .param .u32 kernel_param_2
)
.reqntid 64
{
  .reg .pred %p<9>;
  .reg .b16 %rs<9>;
  .reg .b32 %r<20>;
  .reg .b64 %rd<20>;
  ld.param.b64 %rd0, [kernel_param_0];
  ld.param.b64 %rd1, [kernel_param_1];
  ld.param.b32 %r2, [kernel_param_2];
  mov.u32 %r0, %tid.x;
  mov.u32 %r9, %ctaid.x;
  mul.wide.u32 %rd2, %r0, 4;
  add.s64 %rd3, %rd1, %rd2;
"""


def run(body, given, out, grid=(1, 1), size=0, shared=256, reverse=False, part=None):
    """Run statements on 64 threads: %rd0 is the address of `given`, %rd1 of `out`, %rd3 of its entry."""
    program = Program(f"{HEAD}{body}\n  ret;\n}}\n")
    ranges = [(t.data_ptr(), t.data_ptr() + t.numel() * t.element_size()) for t in (given, out)]
    program.run(grid, [given.data_ptr(), out.data_ptr(), size], shared, ranges, reverse, part)
    return program


@pytest.fixture
def given():
    return torch.arange(64, dtype=torch.int32) * 3 - 70


@pytest.fixture
def out():
    return torch.full((64,), -1, dtype=torch.int32)


LOADED = "add.s64 %rd4, %rd0, %rd2; ld.global.b32 %r1, [%rd4];"


def test_load_and_store_with_a_guard(given, out):
    run(f"{LOADED} setp.lt.s32 %p1, %r1, 0; @!%p1 st.global.b32 [%rd3+0], %r1;", given, out)
    assert out.equal(torch.where(given < 0, -1, given))


@pytest.mark.parametrize("reverse", [False, True])
def test_shared_memory_behind_a_barrier(given, out, reverse):
    body = f"""{LOADED} mov.u32 %r4, global_smem; shl.b32 %r3, %r0, 2; add.s32 %r4, %r4, %r3;
        st.shared.b32 [%r4], %r1; bar.sync 0; xor.b32 %r5, %r3, 252; ld.shared.b32 %r6, [%r5];
        st.global.b32 [%rd3], %r6;"""
    run(body, given, out, reverse=reverse)
    assert out.equal(given.flip(0))


def test_a_missing_barrier_shows_in_one_of_the_two_orders(given, out):
    body = f"""{LOADED} shl.b32 %r3, %r0, 2; st.shared.b32 [%r3], %r1;
        xor.b32 %r5, %r3, 252; ld.shared.b32 %r6, [%r5]; st.global.b32 [%rd3], %r6;"""
    run(body, given, out)
    first = out.clone()
    run(body, given, out, reverse=True)
    assert not first.equal(out)


LANES = torch.arange(64, dtype=torch.int32)
OPERATIONS = [
    ("shfl.sync.bfly.b32 %r6, %r1, 1, 31, -1;", lambda x: x.view(-1, 2).flip(1).flatten()),
    ("shfl.sync.idx.b32 %r6, %r1, 5, 31, -1;", lambda x: x.view(2, 32)[:, 5:6].expand(2, 32).flatten()),
    ("shfl.sync.down.b32 %r6, %r1, 1, 31, -1;", lambda x: x[(LANES + 1) - LANES % 32 // 31]),
    ("shfl.sync.up.b32 %r6, %r1, 1, 0, -1;", lambda x: x[(LANES - 1) + (LANES % 32 == 0)]),
    (
        "redux.sync.min.s32 %r6, %r1, -1;",
        lambda x: x.view(2, 32).amin(1, keepdim=True).expand(2, 32).flatten(),
    ),
    (
        "redux.sync.max.s32 %r6, %r1, -1;",
        lambda x: x.view(2, 32).amax(1, keepdim=True).expand(2, 32).flatten(),
    ),
    (
        "redux.sync.add.s32 %r6, %r1, -1;",
        lambda x: x.view(2, 32).sum(1, keepdim=True).int().expand(2, 32).flatten(),
    ),
    ("redux.sync.max.u32 %r6, %r1, -1;", lambda x: torch.tensor([[-1], [119]]).int().expand(2, 32).flatten()),
    ("shr.s32 %r6, %r1, 40;", lambda x: x >> 31),
    ("shl.b32 %r6, %r1, 40;", lambda x: x * 0),
    ("shl.b32 %r6, %r1, 4;", lambda x: x * 16),
    ("bfe.s32 %r6, %r1, 2, 3;", lambda x: ((x >> 2) & 7) - 8 * ((x >> 4) & 1)),
    ("bfe.u32 %r6, %r1, 2, 3;", lambda x: (x >> 2) & 7),
    ("lop3.b32 %r6, %r1, %r0, 12, 0x96;", lambda x: x ^ LANES ^ 12),
    ("prmt.b32 %r6, %r1, %r0, 0x5410;", lambda x: (x & 0xFFFF) | (LANES << 16)),
    ("abs.s32 %r6, %r1;", lambda x: x.abs()),
    ("min.u32 %r6, %r1, 9;", lambda x: torch.where((x < 0) | (x > 9), 9, x)),
    ("div.s32 %r6, %r1, 7;", lambda x: torch.div(x, 7, rounding_mode="trunc")),
    ("popc.b32 %r6, %r0;", lambda x: torch.tensor([k.bit_count() for k in range(64)]).int()),
    ("clz.b32 %r6, %r0;", lambda x: torch.tensor([32 - k.bit_length() for k in range(64)]).int()),
    ("mul.hi.s32 %r6, %r1, 0x40000000;", lambda x: x >> 2),
    ("selp.b32 %r6, 1, 2, %p1;", lambda x: torch.where(x < 0, 1, 2).int()),
]


def test_operations(given):
    """All in one program, which stores a row of results for each."""
    out = torch.full((len(OPERATIONS), 64), -1, dtype=torch.int32)
    steps = [f"{step} st.global.b32 [%rd3+{256 * row}], %r6;" for row, (step, _) in enumerate(OPERATIONS)]
    run(f"{LOADED} setp.lt.s32 %p1, %r1, 0; {' '.join(steps)}", given, out)
    for (step, expected), found in zip(OPERATIONS, out, strict=True):
        assert found.equal(expected(given).int()), step


def test_floats_are_rounded_once_and_nan_is_that_of_a_gpu(out):
    numbers = [0.1, -0.0, 3.0, 1e-45, math.inf, math.nan, 65519.0, 65520.0] * 8
    given = torch.tensor(numbers).view(torch.int32)
    run(f"{LOADED} add.rn.f32 %r6, %r1, 0f3DCCCCCD; st.global.b32 [%rd3], %r6;", given, out)
    found, expected = out.view(torch.float32), given.view(torch.float32) + 0.1
    assert found.isnan().equal(expected.isnan())
    assert found.nan_to_num().equal(expected.nan_to_num())
    assert out[5] == 0x7FFFFFFF
    half = f"{LOADED} cvt.rn.f16.f32 %rs1, %r1; cvt.f32.f16 %r6, %rs1; st.global.b32 [%rd3], %r6;"
    run(half, given, out)
    assert out.view(torch.float32).nan_to_num().equal(torch.tensor(numbers).half().float().nan_to_num())


def test_loops_and_atomics_of_all_programs(given, out):
    body = """mov.u32 %r3, 0;
$L__BB0_1:
  atom.global.gpu.relaxed.add.u32 %r4, [%rd1], 2;
  add.s32 %r3, %r3, 1;
  setp.lt.u32 %p1, %r3, %r2;
  @%p1 bra $L__BB0_1;
"""
    out[0] = 0
    program = run(body, given, out, grid=(3, 2), size=5)
    assert out[0] == 2 * 5 * 64 * 6
    assert program.counts["atom.global.gpu.relaxed.add.u32"] == 5 * 2 * 6
    out[0] = 0
    run(body, given, out, grid=(3, 2), size=5, part=range(1, 2))
    assert out[0] == 2 * 5 * 64 * 2


@pytest.mark.parametrize("reverse", [False, True])
def test_atomics_return_what_was_there(given, out, reverse):
    """Each thread takes the next place, where its guard allows, in the order in which threads run."""
    given[0] = 0
    body = """setp.lt.u32 %p1, %r0, 48;
        @%p1 atom.global.gpu.relaxed.add.u32 %r4, [%rd0], 1; @%p1 st.global.b32 [%rd3], %r4;"""
    run(body, given, out, reverse=reverse)
    places = torch.arange(48, dtype=torch.int32)
    assert out[:48].equal(places.flip(0) if reverse else places)
    assert (out[48:] == -1).all()
    assert given[0] == 48


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("st.global.b32 [%rd3+4], %r0;", "outside of all tensors"),
        ("st.global.b32 [%rd1+-4], %r0;", "outside of all tensors"),
        ("ld.global.b32 %r1, [%rd1+256];", "outside of all tensors"),
        ("ld.global.v2.b32 {%r1, %r3}, [%rd1+252];", "no multiple of its size"),
        ("atom.global.add.u32 %r1, [%rd1+256], 1;", "outside of all tensors"),
        ("atom.global.add.u64 %rd5, [%rd1+-8], 1;", "outside of all tensors"),
        ("atom.global.add.u64 %rd5, [%rd1+4], 1;", "no multiple of its size"),
        ("red.global.add.u32 [%rd1+256], 1;", "outside of all tensors"),
        ("ld.shared.b32 %r1, [%r2+256];", "outside of shared memory"),
        ("setp.eq.s32 %p1, %r0, 3; @%p1 trap;", "a failed assertion"),
        ("setp.eq.s32 %p1, %r0, 3; @%p1 bra $L__BB0_1; bar.sync 0;\n$L__BB0_1:", "done or elsewhere"),
        (
            "setp.lt.s32 %p1, %r0, 32; @%p1 bra $L__BB0_1; bar.sync 0;\n$L__BB0_1:\nbar.sync 0;",
            "different barriers",
        ),
    ],
)
def test_faults(body, problem, given, out):
    with pytest.raises(FaultError, match=problem):
        run(body, given, out)


@pytest.mark.parametrize(
    "body", ["wgmma.fence.sync;", "add.rn.ftz.f32 %r1, %r0, %r0;", "atom.global.add.f32 %r1, [%rd1], %r0;"]
)
def test_unknown_forms_are_named(body, given, out):
    with pytest.raises(UnknownPtxError, match=body.split()[0].rstrip(";").replace(".", r"\.")):
        run(body, given, out)
