"""Export to ONNX: plain scatter operations, values up to rounding; torch.export keeps the exact operators."""

import pytest
import torch
from torch.nn import Linear, ReLU, Sequential
from torch_geometric.nn import GINConv, GraphNorm

from readouts import Segments, ops, readout
from readouts.kernels import onnx
from readouts.nn import AttentionReadout, MaxReadout, MedianReadout, MultiReadout, SoftmaxReadout, SumReadout

ANY = torch.export.Dim.DYNAMIC
NAMES = ["sum", "mean", "max", "min", "var", "std"]
pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch's own while it exports


class Gin(torch.nn.Module):
    def __init__(self, pool):
        super().__init__()
        self.conv = GINConv(Sequential(Linear(3, 8), ReLU(), Linear(8, 8)), aggr=SumReadout())
        self.pool = pool

    def forward(self, x, edge_index, batch):
        return self.pool(self.conv(x, edge_index), batch)


class Function(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x, graphs):
        return self.function(x, graphs)


def graphs(nodes, size, seed):
    generator = torch.Generator().manual_seed(seed)
    batch = torch.randint(size, (nodes,), generator=generator)
    batch[0] = size - 1
    return torch.randn(nodes, 3, generator=generator), batch


TRACED, LARGER, SMALLER = graphs(30, 4, 0), graphs(50, 9, 1), graphs(5, 2, 2)
HOLES = TRACED[0], 3 * TRACED[1]
WILD = TRACED[0].clone(), TRACED[1]
WILD[0][0], WILD[0][1, 0], WILD[0][2, 1] = torch.nan, torch.inf, -torch.inf


def assert_agree(model, *inputs, shapes=({0: ANY}, {0: ANY})):
    """Export with the first inputs, run with all of them."""
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package, reason="exports need the packages onnx and onnxscript")
    runtime = pytest.importorskip("onnxruntime", reason="ONNX models are run by the package onnxruntime")
    program = torch.onnx.export(model.eval(), inputs[0], dynamo=True, dynamic_shapes=shapes, verbose=False)
    session = runtime.InferenceSession(program.model_proto.SerializeToString())
    names = [argument.name for argument in session.get_inputs()]
    for given in inputs:
        arrays = dict(zip(names, (tensor.numpy() for tensor in given), strict=True))
        found = torch.from_numpy(session.run(None, arrays)[0])
        torch.testing.assert_close(found, model(*given), equal_nan=True)


def test_a_gin_with_readouts_in_its_layers_and_at_its_end():
    torch.manual_seed(0)
    edges = [torch.randint(5, (2, count)) for count in (40, 7)]
    (x, batch), (other, others) = TRACED, SMALLER
    model = Gin(MultiReadout(["mean", "max"]))
    shapes = {0: ANY}, {1: ANY}, {0: ANY}
    assert_agree(model, (x, edges[0], batch), (other, edges[1], others), shapes=shapes)


def test_other_sizes_empty_graphs_and_numbers_that_are_not_finite():
    pool = MultiReadout([*NAMES, MaxReadout(empty=-2.0), SoftmaxReadout(), AttentionReadout(Linear(3, 1))])
    assert_agree(pool, TRACED, LARGER, SMALLER, HOLES, WILD, (1e3 * TRACED[0], TRACED[1]))


def test_offsets():
    by_ptr = Function(lambda x, ptr: readout(x, ptr=ptr, reduce="mean"))
    assert_agree(by_ptr, (TRACED[0], torch.tensor([0, 4, 4, 30])), (SMALLER[0], torch.tensor([0, 5])))


def test_a_fixed_size_behind_a_layer_that_only_strict_tracing_captures():
    model = Function(lambda x, batch: readout(model.norm(x, batch), Segments.from_batch(batch, 9), "sum"))
    model.norm = GraphNorm(3)  # asks for int(batch.max())
    assert_agree(model, TRACED, LARGER)


@pytest.mark.parametrize("given", [TRACED, LARGER, HOLES, WILD], ids=["traced", "larger", "holes", "wild"])
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.uint8, torch.bool], ids=str
)
def test_plain_reductions_agree_with_exact_ones(given, dtype):
    x = given[0] if dtype.is_floating_point else (9 * given[0].nan_to_num(0, 0, 0)).abs()
    segments = Segments.from_batch(given[1])
    for names in (["sum"], ["max", "min"], ["mean", "var", "std"]):
        arguments = x.to(dtype), segments.index, segments.ptr, segments.order, names
        torch.testing.assert_close(onnx.reduce(*arguments), ops.reduce(*arguments), equal_nan=True)


def test_plain_groups_are_the_exact_ones():
    segments = Segments.from_batch(HOLES[1], 12)
    ptr, order = onnx.group(HOLES[1], 12)
    assert torch.equal(ptr, segments.ptr)
    assert torch.equal(order, segments.order)
    assert torch.equal(onnx.expand_ptr(ptr, 30), HOLES[1].sort()[0])


def test_what_onnx_lacks_is_said_in_one_sentence():
    pytest.importorskip("onnxscript", reason="exports need the package onnxscript")
    with pytest.raises(torch.onnx.OnnxExporterError) as caught:
        torch.onnx.export(MedianReadout(), TRACED, dynamo=True, verbose=False)
    assert "max, min, var, std, softmax or attention, got a median, which has no counterpart" in str(
        caught.value
    )


@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
def test_torch_export_keeps_the_exact_operators(strict):
    model = Function(MultiReadout(["sum", "median"]))
    program = torch.export.export(model, TRACED, dynamic_shapes=({0: ANY}, {0: ANY}), strict=strict)
    program = program.run_decompositions()
    kept = {str(node.target) for node in program.graph.nodes}
    assert kept >= {"readouts.reduce.default", "readouts.midpoint.default"}
    assert torch.equal(program.module()(*LARGER), model(*LARGER))
