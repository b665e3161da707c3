"""Write a case as a few lines that can be pasted into a test."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data

from readouts.testing.counterexample import Case, Shuffle
from readouts.testing.graphs import Graphs
from readouts.testing.outputs import same_bits


def lines(case: Case, output: str, rows: str, close: bool) -> str:
    """Write the case as code that fails.

    Args:
        case: the input and what is done to it.
        output: name of the tensor that differs.
        rows: ``"nodes"``, ``"edges"``, ``"graphs"`` or ``""``: what the rows of this tensor move with.
        close: the difference passes `torch.testing.assert_close`, so the code asks for equal bits.
    """
    part = output.removeprefix("output")
    if isinstance(case, Shuffle):
        written, moved_by = _shuffled(case, rows)
        left, right = f"after{part}", f"before{part}{moved_by}"
    else:
        trial = case.trial()
        place = getattr(trial.match, rows).tolist() if rows else ""
        written = [f"alone = model({_call(trial.first)})", f"together = model({_call(trial.second)})"]
        left, right = f"together{part}{place}", f"alone{part}"
    check = f"assert torch.equal({left}, {right})"
    return "\n".join([*written, check if close else f"torch.testing.assert_close({left}, {right})"])


def _shuffled(case: Shuffle, rows: str) -> tuple[list[str], str]:
    """Both calls of the model, and the index that moves the rows of the first result."""
    graphs = case.graphs
    orders = {"order": case.nodes, "edges": case.edges}
    moves = {name: order for name, order in orders.items() if not order.equal(torch.arange(len(order)))}
    written = [f"{name} = {literal(order)}" for name, order in moves.items()]
    mover = {"nodes": "order", "edges": "edges"}.get(rows, "")
    moved_by = f"[{mover}]" if mover in moves else ""
    if graphs.form == "batch" and graphs.size > 1:
        calls = [f"before = model({_batch(graphs)})", f"after = model({_batch(case.trial().second)})"]
        return [*(written if moved_by else []), *calls], moved_by
    if "order" in moves and graphs.links:
        written.append("place = order.argsort()")

    def moved(name: str, value: str) -> str:
        if name in graphs.nodes or name == "batch":
            return f"{value}[order]" if "order" in moves else value
        if name in graphs.links:
            value = f"place[{value}]" if "order" in moves else value
            return f"{value}[:, edges]" if name == "edge_index" and "edges" in moves else value
        return f"{value}[edges]" if name in graphs.edges and "edges" in moves else value

    if graphs.form == "tensors":
        before, names = _tensors(graphs)
        after = ", ".join(moved(name, name) for name in names)
        calls = [f"before = model({', '.join(names)})", f"after = model({after})"]
        return [*before, *written, *calls], moved_by
    fields = _fields(graphs.call()[0] if graphs.form == "data" else graphs.call()[0].get_example(0))
    data = ", ".join(f"{name}={value}" for name, value in fields.items())
    other = ", ".join(f"{name}={moved(name, f'data.{name}')}" for name in fields)
    wrapped = "{}" if graphs.form == "data" else "Batch.from_data_list([{}])"
    calls = [f"before = model({wrapped.format('data')})", f"after = model({wrapped.format('other')})"]
    return [f"data = Data({data})", *written, f"other = Data({other})", *calls], moved_by


def _call(graphs: Graphs) -> str:
    if graphs.form == "tensors":
        return ", ".join(map(_argument, graphs.call()))
    if graphs.form == "batch":
        return _batch(graphs)
    return f"Data({_keywords(graphs.call()[0])})"


def _tensors(graphs: Graphs) -> tuple[list[str], list[str]]:
    names = [name for name, _ in graphs.arguments]
    return [f"{name} = {_argument(value)}" for name, value in zip(names, graphs.call(), strict=True)], names


def _argument(value: object) -> str:
    return literal(value) if isinstance(value, Tensor) else repr(value)


def _batch(graphs: Graphs) -> str:
    parts = graphs.call()[0].to_data_list()
    return f"Batch.from_data_list([{', '.join(f'Data({_keywords(part)})' for part in parts)}])"


def _keywords(data: Data) -> str:
    return ", ".join(f"{name}={value}" for name, value in _fields(data).items())


def _fields(data: Data) -> dict[str, str]:
    return {name: _argument(value) for name, value in data.to_dict().items()}


def literal(value: Tensor) -> str:
    """Write a tensor as code that gives the same bits."""
    plain = value.dtype in (torch.float32, torch.int64, torch.bool)
    dtype = "" if plain else f", dtype={value.dtype}"
    if value.numel() == 0:
        return f"torch.zeros({', '.join(map(str, value.shape))}, dtype={value.dtype})"
    for few in (torch.zeros_like(value), torch.ones_like(value)):
        if value.numel() > 8 and same_bits(value, few):
            size = ", ".join(map(str, value.shape))
            return f"torch.{'ones' if few.any() else 'zeros'}({size}, dtype={value.dtype})"
    return f"torch.tensor({_nested(value)}{dtype})"


def _nested(value: Tensor) -> str:
    if value.dim():
        return "[" + ", ".join(_nested(row) for row in value) + "]"
    if not value.dtype.is_floating_point:
        return repr(value.item())
    number = value.item()
    if number != number:
        return "torch.nan"
    if abs(number) == float("inf"):
        return "torch.inf" if number > 0 else "-torch.inf"
    return str(value.numpy()) if value.dtype in (torch.float32, torch.float64) else repr(number)


def gradient_lines(case: Shuffle, leaf: str, owner: str, rows: str, close: bool) -> str:
    """Write a case whose gradient does not move along.

    Args:
        case: the input and what is done to it.
        leaf: name of the node or edge feature, or of the parameter.
        owner: the module that has the parameter, as code; "" for a feature.
        rows, close: as for `lines`, of the gradient.
    """
    tensors = case.graphs.form == "tensors"
    names = ", ".join(name for name, _ in case.graphs.arguments) if tensors else "data"
    wanted = f"{owner}.get_parameter({leaf!r})" if owner else leaf if tensors else f"data.{leaf}"
    function = [
        "from readouts.testing.gradients import loss",
        f"def gradient({names}):",
        *([] if owner else [f"    {wanted} = {wanted}.detach().requires_grad_()"]),
        f"    return torch.autograd.grad(loss(model({names})), {wanted})[0]",
    ]
    written = lines(case, "output", rows, close).replace("= model(", "= gradient(")
    return "\n".join([*function, written])
