"""The recipes of CONTRIBUTING.md, followed in a copy of the package: a reduction, a readout module."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "readouts"

# file: pairs of a line and what is written before it
RANGE = {  # max - min
    "reductions.py": [(")\nROWS = {", '    Reduction("range", "own", needs_x=True),\n')],
    "kernels/reference.py": [
        (
            "REDUCTIONS: dict",
            """def _range(column: Column, dtype: torch.dtype) -> float:
    return _rounded(Fraction(_max(column, dtype)) - Fraction(_min(column, dtype)), dtype)


def _range_sensitivity(grad: float, column: Column, position: int) -> float:
    greatest, least = _max(column, torch.float64), _min(column, torch.float64)
    return _share(grad, column, position, greatest) - _share(grad, column, position, least)


""",
        ),
        ("}\n\nSENSITIVITIES", '    "range": _range,\n'),
        ('    "std": _std_sensitivity,', '    "range": _range_sensitivity,\n'),
    ],
    "kernels/portable/elementary.py": [
        (
            '        case "var":\n            return sums.var(dtype)',
            """        case "range":
            greatest, least = (_extreme(name, x, sums.index, sums.count) for name in ("max", "min"))
            return greatest - least
""",
        ),
        (
            '        case "var":\n            return (2 * grad)',
            """        case "range":
            ends = (_extreme(name, sums.x, index, sums.count) for name in ("max", "min"))
            greatest, least = (_sensitivity("max", grad, end, sums) for end in ends)
            return greatest - least
""",
        ),
    ],
    "ops/elementary.py": [
        (
            '            case "var":\n                return 2 * self._over_graphs',
            """            case "range":
                return self._range(wide).to(v.dtype)
""",
        ),
        (
            '                case "var":\n                    total = total',
            """                case "range":
                    pass  # the gradient does not change
""",
        ),
        (
            "    @functools.cached_property\n    def _deviations",
            """    def _range(self, wide: Tensor) -> Tensor:
        assert self.x is not None
        ends = reduce(self.x, *self.groups, ("max", "min")).split(1, dim=1)
        greatest, least = (share_among_ties(torch.ones_like(e), self.x, e, *self.groups) for e in ends)
        return self._over_graphs(wide * (greatest - least), "sum")

""",
        ),
    ],
    "nn/elementary.py": [
        (
            "ELEMENTARY = (",
            '''class RangeReadout(_ElementaryReadout):
    """max_i x_i - min_i x_i. Tied nodes share the gradient. Empty graph: `empty`."""

    reduce = "range"


''',
        ),
        ("SumReadout, MeanReadout, MaxReadout, MinReadout, VarReadout, StdReadout)", "RangeReadout, "),
    ],
    "nn/__init__.py": [
        ("from readouts.nn.elementary import", "from readouts.nn.elementary import RangeReadout\n")
    ],
}
MIDRANGE = {  # (max + min) / 2
    "nn/order.py": [
        (
            "class SortReadout(",
            '''class MidrangeReadout(Readout):
    """(max_i x_i + min_i x_i) / 2: [N, F] -> [B, F]. Empty graph: `empty`."""

    def _read(self, x: Tensor, segments: Segments) -> Tensor:
        greatest, least = readout(x, segments, ("max", "min"), empty=self.empty).chunk(2, dim=-1)
        return (greatest + least) / 2


''',
        )
    ],
    "nn/__init__.py": [("from readouts.nn.order import", "from readouts.nn.order import MidrangeReadout\n")],
    "nn/compose.py": [
        ("from readouts.nn.order import", "from readouts.nn.order import MidrangeReadout\n"),
        ("    MomentReadout,\n    MultiheadAttentionReadout,\n    PowerMean", "    MidrangeReadout,\n"),
    ],
}
CHECK = """
import sys  # without the finder of an editable installation, which comes before every path
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in type(f).__module__]
import readouts, torch
from readouts import ops, readout
from readouts.kernels import reference
from readouts.nn import MultiReadout, {name}, readout_resolver

assert readouts.__file__.startswith({root!r}), readouts.__file__
x, batch = torch.randn(30, 3, dtype=torch.float64).round(decimals=1), torch.arange(30) % 4
order = torch.randperm(30)
top, low = readout(x, batch, ("max", "min")).chunk(2, dim=-1)
expected = {expected}
for module in ({name}(), readout_resolver({name!r}), MultiReadout(["{query}"])):
    assert module(x, batch).equal(expected)
    assert module(x[order], batch[order]).equal(expected)
leaf = torch.randn(12, 2, dtype=torch.float64, requires_grad=True)
graphs = torch.arange(12) % 3
assert torch.autograd.gradcheck(lambda x: {name}()(x, graphs), leaf)
assert torch.autograd.gradgradcheck(lambda x: {name}()(x, graphs), leaf)
"""
OF_REDUCTION = """
index, count = batch, torch.bincount(batch)
names, grad = ("sum", "range", "std"), torch.randn(4, 3, 3, dtype=torch.float64)
groups = index, *ops.group(index, 4)
out = ops.reduce(x, *groups, names)
assert out.equal(reference.reduce(x, index, count, names))
back = ops.reduce_backward(grad, x, out, *groups, names)
assert back.equal(reference.reduce_backward(grad, x, index, count, names))
"""


def follow(recipe, folder):
    """Write what a recipe says into a copy of the package; return how many files it touches."""
    copy = folder / "readouts"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for name, steps in recipe.items():
        text = (copy / name).read_text()
        for line, written in steps:
            assert text.count(line) == 1, f"{name} has {line!r} {text.count(line)} times"
            text = text.replace(line, written + line)
        (copy / name).write_text(text)
    return len(recipe)


def check(folder, **words):
    extra = OF_REDUCTION if words["query"] == "range" else ""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    code = CHECK.format(root=str(folder), **words) + extra
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_a_reduction_touches_at_most_nine_files(tmp_path):
    assert follow(RANGE, tmp_path) <= 9
    check(tmp_path, name="RangeReadout", query="range", expected="top - low")


def test_a_module_touches_at_most_five_files(tmp_path):
    assert follow(MIDRANGE, tmp_path) <= 5
    check(tmp_path, name="MidrangeReadout", query="midrange", expected="(top + low) / 2")
