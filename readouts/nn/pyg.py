"""From PyG's aggregations to the readouts of this package."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from torch.nn import LSTM, Module, Parameter
from torch_geometric.nn import MessagePassing, aggr
from torch_geometric.nn.aggr.fused import FusedAggregation

from readouts.nn.attention import AttentionReadout, Set2SetReadout
from readouts.nn.base import Readout
from readouts.nn.compose import LAYERED, DeepSetsReadout, MultiReadout
from readouts.nn.elementary import MaxReadout, MeanReadout, MinReadout, StdReadout, SumReadout, VarReadout
from readouts.nn.order import MedianReadout, QuantileReadout, SortReadout
from readouts.nn.weighted import PowerMeanReadout, SoftmaxReadout

Model = TypeVar("Model", bound=Module)


def from_pyg(module: Model) -> Model:
    """Return the equivalent (the twin) of a PyG aggregation, or a model whose aggregations are replaced.

    Example:
        >>> from torch_geometric.nn import GINConv, aggr
        >>> from_pyg(aggr.SoftmaxAggregation(t=0.5))
        SoftmaxReadout(t=0.5)
        >>> from_pyg(GINConv(torch.nn.Linear(8, 8))).aggr_module
        SumReadout()

    The twin has the same `Parameter` objects, so that an optimizer stays valid, and the same mode, training
    or evaluation. A model is changed in place, like by
    `torch.nn.SyncBatchNorm.convert_sync_batchnorm`. Convolutions on sparse adjacency matrices
    then compute messages edge by edge, because the fused products would not use the readout. Functions
    such as `global_add_pool` that a model calls are not modules: import those of `readouts` instead.

    Args:
        module: one of PyG's aggregations, or a module that contains some. Readouts are left as they are.

    Returns:
        The twin, or the same model. Aggregations without a twin stay in a model, and one warning names them.

    Raises:
        TypeError: `module` is not a module.
        ValueError: `module` is an aggregation that has no twin with these options; the message says why.
    """
    if not isinstance(module, Module):
        raise TypeError(f"module: expected an aggregation or a model, got {type(module).__name__}")
    if isinstance(module, aggr.Aggregation) and not _contains_aggregations(module):
        return _twin(module)
    left: dict[str, str] = {}
    found = _replaced(module, "", left, {})
    if left:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left.items())
        warnings.warn(f"from_pyg: these aggregations stay as they are: {reasons}", stacklevel=2)
    return found


def _replaced(module: Any, name: str, left: dict[str, str], done: dict[Module, Module]) -> Any:
    """Return the twin of a module, or the module with twins inside; note in `left` what has none."""
    if module in done:
        return done[module]
    if isinstance(module, Readout) and not isinstance(module, MultiReadout):
        return done.setdefault(module, module)
    if isinstance(module, aggr.Aggregation) and type(module) in TWINS:
        try:
            twin = done.setdefault(module, _twin(module))
            for place, member in enumerate(getattr(twin, "readouts", ())):
                if not isinstance(member, Readout):
                    left[f"{name}.aggrs.{place}"] = _reason(member)
            return twin
        except ValueError as problem:
            left[name] = str(problem).removeprefix("module: ")
            return done.setdefault(module, module)
    done[module] = module
    if isinstance(module, aggr.Aggregation) and not _contains_aggregations(module):
        left[name] = _reason(module)
    for key, child in list(module._modules.items()):
        if child is None:
            continue
        twin = _replaced(child, f"{name}.{key}" if name else key, left, done)
        if twin is not child:
            setattr(module, key, twin)
    if isinstance(module, MessagePassing) and isinstance(module.aggr_module, Readout):
        module.fuse = False
    return module


def _contains_aggregations(module: Module) -> bool:
    """Return whether a module without a twin is made of other aggregations, as PNA's scalers are."""
    inside = (part for part in module.modules() if part is not module)
    return type(module) not in TWINS and any(isinstance(part, aggr.Aggregation) for part in inside)


def _twin(module: aggr.Aggregation) -> Readout:
    if isinstance(module, Readout):
        return module
    if type(module) not in TWINS:
        raise ValueError(f"module: expected an aggregation that has a twin, got {_reason(module)}")
    return TWINS[type(module)](module).train(module.training)


def _reason(module: aggr.Aggregation) -> str:
    name = type(module).__name__
    why = WITHOUT.get(name, "a class that is not known here; a subclass may compute something else")
    return f"{name}, {why}"


def _without_semi_grad(kind: Callable[[], Readout]) -> Callable[[Any], Readout]:
    def make(module: Any) -> Readout:
        if getattr(module, "var_aggr", module).semi_grad:
            raise _refused(module, "semi_grad=True drops half of a gradient; here gradients are complete")
        return kind()

    return make


def _refused(module: aggr.Aggregation, why: str) -> ValueError:
    return ValueError(f"module: expected an aggregation that has a twin, got {type(module).__name__}: {why}")


def _softmax(module: Any) -> Readout:
    if module.semi_grad:
        raise _refused(module, "semi_grad=True drops a part of the gradient; here gradients are complete")
    twin = SoftmaxReadout(module._init_t, module.learn, module.channels)
    twin.t = module.t
    return twin


def _power_mean(module: Any) -> Readout:
    if not module.learn and module._init_p == 1:
        return MeanReadout()
    if not module.min_value:
        raise _refused(module, "power means need a positive clamp_min")
    bounds = {"clamp_min": module.min_value, "clamp_max": module.max_value}
    twin = PowerMeanReadout(module._init_p, module.learn, module.channels, **bounds)
    twin.p = module.p
    return twin


def _set2set(module: Any) -> Readout:
    lstm: LSTM = module.lstm
    if not lstm.bias or lstm.bidirectional or lstm.proj_size or lstm.dropout:
        raise _refused(module, "options of its LSTM other than num_layers are not supported")
    twin = Set2SetReadout(module.in_channels, module.processing_steps, lstm.num_layers)
    for layer, cell in enumerate(twin._cells):
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            parameter: Parameter = getattr(lstm, f"{kind}_l{layer}")
            setattr(cell, kind, parameter)
    return twin


def _multi(module: Any) -> Readout:
    members = []
    for member in module.aggrs:
        try:
            members.append(_twin(member))
        except ValueError:  # `MultiReadout` accepts PyG's aggregations
            members.append(member)
    twin = MultiReadout(members)
    twin.mode = module.mode if len(members) > 1 else "cat"
    for name in ("lin", "lin_heads", "multihead_attn") if twin.mode in LAYERED else ():
        if hasattr(module, name):
            setattr(twin, name, getattr(module, name))
    return twin


def _one(mlp: Module | None, network: Module | None) -> Any:
    """Return the network that PyG stores under one of two names."""
    return network if mlp is None else mlp


TWINS: dict[type, Callable[[Any], Readout]] = {
    aggr.SumAggregation: lambda module: SumReadout(),
    aggr.MeanAggregation: lambda module: MeanReadout(),
    aggr.MaxAggregation: lambda module: MaxReadout(),
    aggr.MinAggregation: lambda module: MinReadout(),
    aggr.VarAggregation: _without_semi_grad(VarReadout),
    aggr.StdAggregation: _without_semi_grad(StdReadout),
    aggr.SoftmaxAggregation: _softmax,
    aggr.PowerMeanAggregation: _power_mean,
    aggr.MedianAggregation: lambda module: MedianReadout("lower", empty=module.fill_value),
    aggr.QuantileAggregation: lambda module: QuantileReadout(
        module._q, module.interpolation, empty=module.fill_value
    ),
    aggr.SortAggregation: lambda module: SortReadout(module.k),
    aggr.AttentionalAggregation: lambda module: AttentionReadout(
        _one(module.gate_mlp, module.gate_nn), _one(module.mlp, module.nn)
    ),
    aggr.DeepSetsAggregation: lambda module: DeepSetsReadout(
        _one(module.local_mlp, module.local_nn), _one(module.global_mlp, module.global_nn)
    ),
    aggr.Set2Set: _set2set,
    aggr.MultiAggregation: _multi,
}
_DENSE = "whose layers work on a dense batch of nodes"
_ORDERED = "which depends on the order of the nodes"
WITHOUT = {
    "MulAggregation": "whose products are not exact; for positive numbers take exp of the sum of logarithms",
    "LSTMAggregation": _ORDERED,
    "GRUAggregation": _ORDERED,
    "MLPAggregation": _ORDERED,
    "PatchTransformerAggregation": _ORDERED,
    "LCMAggregation": "whose tree of pairs depends on the order of the nodes",
    "EquilibriumAggregation": "which minimises a potential by gradient descent",
    "GraphMultisetTransformer": _DENSE,
    "SetTransformerAggregation": _DENSE + "; MultiheadAttentionReadout is its pooling step",
    "VariancePreservingAggregation": "which is SumReadout over the square root of the number of nodes",
    FusedAggregation.__name__: "which belongs to MultiAggregation",
}
