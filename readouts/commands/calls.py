"""How a model is called: which of the tensors of a batch its signature asks for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from readouts.commands.target import CannotRunError
from readouts.testing.report import name_of
from readouts.testing.running import Model

ALIASES = {"input": "x", "index": "batch"}  # of torch's modules, and of PyG's aggregations
FED = ("x", "edge_index", "batch")  # also where they have a default


def _count(batch: Tensor) -> int:
    return int(batch.max()) + 1


def _ptr(batch: Tensor) -> Tensor:
    count = torch.bincount(batch)
    return torch.cat([count.new_zeros(1), count.cumsum(0)])


DERIVED: dict[str, Callable[[Tensor], Any]] = {
    "ptr": _ptr,
    "num_nodes": len,
    **dict.fromkeys(("size", "num_graphs", "batch_size", "dim_size"), _count),
}


def parameters(model: Model) -> list[inspect.Parameter]:
    """Positional parameters without aliases; of `*args` alone, as of PyG's `Sequential`, those of `FED`.

    Raises:
        CannotRunError: it has no signature, or keywords without which it cannot be called.
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
        return [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in FED]
    if not positional:
        raise CannotRunError(f"{name_of(model)}: expected a parameter for the graphs, got none")
    return [each.replace(name=ALIASES.get(each.name, each.name)) for each in positional]


def takes_data(model: Model, data: Data) -> bool:
    """Whether the model takes the whole batch: its one parameter is no tensor of it, or `batch`."""
    positional = parameters(model)
    needed = [each.name for each in positional if each.default is each.empty] or [positional[0].name]
    return needed == ["batch"] or (len(needed) == 1 and needed[0] not in {*FED, *DERIVED, *data.keys()})


def call_on(model: Model, data: Data) -> tuple[Model, tuple[Any, ...], str]:
    """Return what to call, on which arguments, and the call as text.

    Where a parameter is derived from the batch vector, what to call is a function that derives it anew.

    Raises:
        CannotRunError: the batch has nothing for a parameter.
    """
    if takes_data(model, data):
        return model, (data,), f"{name_of(model)}({parameters(model)[0].name})"
    fed = _fed(model)
    text = f"{name_of(model)}({', '.join(map(_shown, fed))})"
    values: list[Any] = []
    derived: dict[int, Callable[[Tensor], Any]] = {}
    for place, each in enumerate(fed):
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
    names = [each.name for place, each in enumerate(fed) if place not in derived]
    if "batch" not in names:
        names, values = [*names, "batch"], [*values, _batch(data)]
    return _deriving(model, derived, len(fed), names.index("batch")), tuple(values), text


def _deriving(
    model: Model, derived: dict[int, Callable[[Tensor], Any]], count: int, batch_at: int
) -> Callable[..., Any]:
    def deriving(*given: Any) -> Any:
        rest = iter(given)
        return model(
            *(derived[place](given[batch_at]) if place in derived else next(rest) for place in range(count))
        )

    deriving.__name__ = name_of(model)
    return deriving


def _fed(model: Model) -> list[inspect.Parameter]:
    """All parameters up to the last that does not keep its default."""
    positional = parameters(model)
    while len(positional) > 1 and _keeps_default(positional[-1]):
        positional.pop()
    return positional


def _shown(parameter: inspect.Parameter) -> str:
    return f"{parameter.name}={parameter.default!r}" if _keeps_default(parameter) else parameter.name


def _keeps_default(parameter: inspect.Parameter) -> bool:
    return parameter.default is not parameter.empty and parameter.name not in FED


def _batch(data: Data) -> Tensor:
    return data.batch if "batch" in data else torch.zeros(data.num_nodes or 0, dtype=torch.int64)
