"""Run copies of a model, so that the user's own model, data and random numbers stay as they are."""

from __future__ import annotations

import copy
import random
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from readouts.testing.graphs import Graphs

NARROW = (torch.float32, torch.float16, torch.bfloat16)
Model = Callable[..., Any]
_CASTS = {"float", "half", "bfloat16"}
_REINTERPRET = {"view", "finfo"}


@contextmanager
def untouched() -> Iterator[None]:
    """Put the states of all random generators and the default dtype back at the end."""
    states = random.getstate(), np.random.get_state()
    dtype = torch.get_default_dtype()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_default_dtype(dtype)


class _Widened(TorchFunctionMode):
    """Turns every request for a narrower float than float64 into one for float64."""

    def __torch_function__(
        self, func: Any, kinds: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in _CASTS and args and isinstance(args[0], Tensor):
            return args[0].double()
        if name not in _REINTERPRET:
            args = tuple(_widened(value) for value in args)
            kwargs = {key: _widened(value) for key, value in (kwargs or {}).items()}
        return func(*args, **(kwargs or {}))


def _widened(value: Any) -> Any:
    return torch.float64 if isinstance(value, torch.dtype) and value in NARROW else value


def run(model: Model, graphs: Graphs, dtype: torch.dtype | None = None, seed: int = 0) -> tuple[Any, Any]:
    """Call a copy of the model, in its own dtype or with all floats in another.

    Returns:
        The output, and the arguments as the model left them.
    """
    arguments = arguments_in(graphs, dtype)
    return call(copy_in(model, dtype), arguments, dtype, seed), arguments


def copy_in(model: Model, dtype: torch.dtype | None) -> Model:
    """Copy a model to the CPU, with all floats of its modules in this dtype if there is one."""
    copied = copy_of(model)
    for _, module in roots(copied):
        module.to(device="cpu", dtype=dtype)
    return copied


def arguments_in(graphs: Graphs, dtype: torch.dtype | None) -> tuple[Any, ...]:
    """Return fresh arguments, with all floats in this dtype if there is one."""
    if dtype is None:
        return graphs.call()
    return graphs.change(lambda value: value.to(dtype) if value.is_floating_point() else value).call()


def call(model: Model, arguments: tuple[Any, ...], dtype: torch.dtype | None, seed: int) -> Any:
    """Call this very model with a seed, and with `dtype` as the float dtype of all that it makes."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would prepare a GPU each time
    if dtype is None:
        return model(*arguments)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        if dtype == torch.float64:
            with _Widened():
                return model(*arguments)
        return model(*arguments)
    finally:
        torch.set_default_dtype(before)


def copy_of(model: Model) -> Model:
    """Copy a module, or a function together with the modules that it reaches."""
    if isinstance(model, types.FunctionType):
        return _copy_of_function(model, {})
    if isinstance(model, partial):
        arguments, keywords = copy.deepcopy((model.args, model.keywords))
        return partial(copy_of(model.func), *arguments, **keywords)
    return copy.deepcopy(model)


def _copy_of_function(function: types.FunctionType, copies: dict[int, Any]) -> types.FunctionType:
    if id(function) in copies:
        return copies[id(function)]
    scope = dict(function.__globals__)
    copied = types.FunctionType(
        function.__code__,
        scope,
        function.__name__,
        copy.deepcopy(function.__defaults__),
        tuple(types.CellType() for _ in function.__closure__ or ()) or None,
    )
    copied.__kwdefaults__ = copy.deepcopy(function.__kwdefaults__)
    copied.__module__ = function.__module__
    copies[id(function)] = copied
    for old, new in zip(function.__closure__ or (), copied.__closure__ or (), strict=True):
        new.cell_contents = _copy_of_value(old.cell_contents, copies)
    for name in function.__code__.co_names:
        if name in scope:
            scope[name] = _copy_of_value(scope[name], copies)
    return copied


def _copy_of_value(value: Any, copies: dict[int, Any]) -> Any:
    """Copy what can hold weights: modules, tensors, containers of them, and functions around them."""
    if isinstance(value, types.FunctionType):
        return _copy_of_function(value, copies) if any(True for _ in roots(value)) else value
    if isinstance(value, nn.Module | Tensor | list | tuple | dict):
        return copies.setdefault(id(value), copy.deepcopy(value))
    return value


def roots(model: Any, name: str = "", seen: frozenset[int] = frozenset()) -> Iterator[tuple[str, nn.Module]]:
    """Modules that a callable reaches: itself, or those in its closure, globals, arguments or attributes."""
    if id(model) in seen:
        return
    seen = seen | {id(model)}
    held: dict[str, Any] = {}
    if isinstance(model, nn.Module):
        yield name, model
    elif isinstance(model, types.FunctionType):
        code = model.__code__
        held = {key: model.__globals__[key] for key in code.co_names if key in model.__globals__}
        held |= dict(zip(code.co_freevars, _contents(model), strict=True))
    elif isinstance(model, types.MethodType):
        held = {name: model.__self__}
    elif isinstance(model, partial):
        held = {name: model.func, **model.keywords}
        held |= {str(place): value for place, value in enumerate(model.args)}
    elif isinstance(model, list | tuple):
        held = {f"{name}[{place}]": value for place, value in enumerate(model)}
    elif (
        not isinstance(model, type | types.ModuleType | Tensor)
        and callable(model)
        and hasattr(model, "__dict__")
    ):
        held = vars(model)
    for key, value in held.items():
        yield from roots(value, key, seen)


def _contents(function: types.FunctionType) -> list[Any]:
    contents = []
    for cell in function.__closure__ or ():
        try:
            contents.append(cell.cell_contents)
        except ValueError:  # a name that has no value yet
            contents.append(None)
    return contents


def modes(model: Model) -> str:
    """Whether the modules are in training mode, in evaluation mode, or some in each; "" without modules."""
    flags = {module.training for _, root in roots(model) for module in root.modules()}
    if len(flags) == 2:
        return "partly in training mode"
    return {True: "in training mode", False: "in evaluation mode"}[flags.pop()] if flags else ""
