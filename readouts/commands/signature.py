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


POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def parameters(model: Model) -> list[inspect.Parameter]:
    """Return the parameters without aliases, those by keyword only last and as far as they are needed.

    For a signature of `*args` alone these are those of `ALWAYS`.

    Raises:
        CannotRunError: the model has no signature, or no parameter.
    """
    try:
        signature = inspect.signature(model.forward if isinstance(model, nn.Module) else model)
    except (TypeError, ValueError) as error:
        raise CannotRunError(f"{name_of(model)}: expected a callable with a signature, got none") from error
    every = list(signature.parameters.values())
    found = [each for each in every if each.kind in POSITIONAL]
    if not found and any(each.kind is each.VAR_POSITIONAL for each in every):
        found = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in ALWAYS]
    by_keyword = [each for each in every if each.kind is each.KEYWORD_ONLY and not _keeps_default(each)]
    if not found and not by_keyword:
        raise CannotRunError(f"{name_of(model)}: expected a parameter for the graphs, got none")
    return [*found, *by_keyword]


def _tensor(parameter: inspect.Parameter) -> str:
    """Return the name of the tensor that a parameter gets."""
    return ALIASES.get(parameter.name, parameter.name)


def takes_data(model: Model, data: Data) -> bool:
    """Return whether the model takes the whole batch: its one parameter is `batch` or none of its tensors."""
    every = parameters(model)
    needed = [_tensor(each) for each in every if each.default is each.empty] or [_tensor(every[0])]
    return needed == ["batch"] or (len(needed) == 1 and needed[0] not in {*ALWAYS, *DERIVED, *data.keys()})


def call_on(model: Model, data: Data) -> tuple[Model, tuple[Any, ...], dict[str, Any], str]:
    """Return what to call, its arguments by position and by keyword, and the call as text.

    If parameters are derived from the batch vector, what to call is a function that recomputes them.

    Raises:
        CannotRunError: the batch has no value for a parameter.
    """
    if takes_data(model, data):
        first = next(each for each in (*_needed(parameters(model)), parameters(model)[0]))
        text = f"{name_of(model)}({_tensor(first)})"
        return (model, (), {first.name: data}, text) if _by_keyword(first) else (model, (data,), {}, text)
    given = _given(model)
    text = f"{name_of(model)}({', '.join(map(_shown, given))})"
    values: dict[str, Any] = {}
    derived: dict[str, Callable[[Tensor], Any]] = {}
    for each in given:
        name = _tensor(each)
        if _keeps_default(each):
            values[each.name] = each.default
        elif name in DERIVED:
            derived[each.name] = DERIVED[name]
        elif name == "batch":
            values[each.name] = _batch(data)
        elif name in data:
            values[each.name] = data[name]
        else:
            known = ", ".join(sorted({*data.keys(), *DERIVED}))
            raise CannotRunError(
                f"{text}: expected parameters named as tensors ({known}), got {name!r}; "
                "--data FILE.pt with Data that has it, or a tuple of arguments, is the way out"
            )
    keywords = [each.name for each in given if _by_keyword(each)]
    if not derived:
        positional = tuple(value for name, value in values.items() if name not in keywords)
        return model, positional, {name: values[name] for name in keywords}, text
    if not any(_tensor(each) == "batch" for each in given):
        values["batch"] = _batch(data)
    names = list(values)
    at = next(place for place, name in enumerate(names) if ALIASES.get(name, name) == "batch")

    def called(*passed: Any) -> Any:
        got = dict(zip(names, passed, strict=True))
        every = {
            each.name: derived[each.name](passed[at]) if each.name in derived else got[each.name]
            for each in given
        }
        positional = [value for name, value in every.items() if name not in keywords]
        return model(*positional, **{name: every[name] for name in keywords})

    called.__name__ = name_of(model)
    called.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    )
    return called, tuple(values.values()), {}, text


def _needed(given: list[inspect.Parameter]) -> list[inspect.Parameter]:
    return [each for each in given if each.default is each.empty]


def _by_keyword(parameter: inspect.Parameter) -> bool:
    return parameter.kind is parameter.KEYWORD_ONLY


def _given(model: Model) -> list[inspect.Parameter]:
    """Return the parameters without the last of those by position that keep their defaults."""
    every = parameters(model)
    positional = [each for each in every if not _by_keyword(each)]
    while len(positional) > 1 and _keeps_default(positional[-1]):
        positional.pop()
    return [*positional, *(each for each in every if _by_keyword(each))]


def _shown(parameter: inspect.Parameter) -> str:
    name = f"{parameter.name}=" if _by_keyword(parameter) else ""
    return (
        f"{parameter.name}={parameter.default!r}" if _keeps_default(parameter) else name + _tensor(parameter)
    )


def _keeps_default(parameter: inspect.Parameter) -> bool:
    return parameter.default is not parameter.empty and _tensor(parameter) not in ALWAYS


def _batch(data: Data) -> Tensor:
    return data.batch if "batch" in data else torch.zeros(data.num_nodes or 0, dtype=torch.int64)
