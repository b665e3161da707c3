"""Bind the tensors of a batch to the signature of a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import cumsum

from readouts.commands.target import CannotRunError
from readouts.testing.isolation import Model
from readouts.testing.report import name_of

ALIASES = {"input": "x", "index": "batch"}  # in modules of torch, and in aggregations of PyG
ALWAYS = ("x", "edge_index", "batch")  # given even where the parameter has a default


DERIVED: dict[str, Callable[[Tensor], Any]] = {  # computed from the batch vector
    "ptr": lambda batch: cumsum(torch.bincount(batch)),
    "num_nodes": len,
    **dict.fromkeys(("size", "num_graphs", "batch_size", "dim_size"), lambda batch: int(batch.max()) + 1),
}


def parameters(model: Model) -> list[inspect.Parameter]:
    """Return the positional parameters without aliases; those of `ALWAYS` for a signature of `*args` alone.

    Raises:
        CannotRunError: the model has no signature, or required keyword parameters.
    """
    try:
        signature = inspect.signature(model.forward if isinstance(model, nn.Module) else model)
    except (TypeError, ValueError) as error:
        raise CannotRunError(f"{name_of(model)}: expected a callable with a signature, got none") from error
    every = list(signature.parameters.values())
    keywords = [each.name for each in every if each.kind is each.KEYWORD_ONLY and each.default is each.empty]
    if keywords:
        raise CannotRunError(f"{name_of(model)}: expected positional parameters, got keyword {keywords[0]!r}")
    positional = [each for each in every if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    if not positional and any(each.kind is each.VAR_POSITIONAL for each in every):
        return [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in ALWAYS]
    if not positional:
        raise CannotRunError(f"{name_of(model)}: expected a parameter for the graphs, got none")
    return [each.replace(name=ALIASES.get(each.name, each.name)) for each in positional]


def takes_data(model: Model, data: Data) -> bool:
    """Return whether the model takes the whole batch: its one parameter is `batch` or none of its tensors."""
    positional = parameters(model)
    needed = [each.name for each in positional if each.default is each.empty] or [positional[0].name]
    return needed == ["batch"] or (len(needed) == 1 and needed[0] not in {*ALWAYS, *DERIVED, *data.keys()})


def call_on(model: Model, data: Data) -> tuple[Model, tuple[Any, ...], str]:
    """Return what to call, its arguments, and the call as text.

    If parameters are derived from the batch vector, what to call is a function that recomputes them.

    Raises:
        CannotRunError: the batch has no value for a parameter.
    """
    if takes_data(model, data):
        return model, (data,), f"{name_of(model)}({parameters(model)[0].name})"
    given = _given(model)
    text = f"{name_of(model)}({', '.join(map(_shown, given))})"
    values: list[Any] = []
    derived: dict[int, Callable[[Tensor], Any]] = {}
    for place, each in enumerate(given):
        if _keeps_default(each):
            values.append(each.default)
        elif each.name in DERIVED:
            derived[place] = DERIVED[each.name]
        elif each.name == "batch":
            values.append(_batch(data))
        elif each.name in data:
            values.append(data[each.name])
        else:
            known = ", ".join(sorted({*data.keys(), *DERIVED}))
            raise CannotRunError(f"{text}: expected parameters named as tensors ({known}), got {each.name!r}")
    if not derived:
        return model, tuple(values), text
    names = [each.name for place, each in enumerate(given) if place not in derived]
    if "batch" not in names:
        names, values = [*names, "batch"], [*values, _batch(data)]
    at = names.index("batch")

    def called(*passed: Any) -> Any:
        rest = iter(passed)
        places = range(len(given))
        return model(*(derived[place](passed[at]) if place in derived else next(rest) for place in places))

    called.__name__ = name_of(model)
    return called, tuple(values), text


def _given(model: Model) -> list[inspect.Parameter]:
    """Return the parameters up to the last that does not keep its default."""
    positional = parameters(model)
    while len(positional) > 1 and _keeps_default(positional[-1]):
        positional.pop()
    return positional


def _shown(parameter: inspect.Parameter) -> str:
    return f"{parameter.name}={parameter.default!r}" if _keeps_default(parameter) else parameter.name


def _keeps_default(parameter: inspect.Parameter) -> bool:
    return parameter.default is not parameter.empty and parameter.name not in ALWAYS


def _batch(data: Data) -> Tensor:
    return data.batch if "batch" in data else torch.zeros(data.num_nodes or 0, dtype=torch.int64)
