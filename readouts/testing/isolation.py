"""Run copies of a model, so that the model, the data and the random states of the user do not change."""

from __future__ import annotations

import copy
import random
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from readouts.testing.inputs import Graphs

NARROW = (torch.float32, torch.float16, torch.bfloat16)
Model = Callable[..., Any]
_CASTS = {"float", "half", "bfloat16"}
_REINTERPRET = {"view", "finfo"}


@dataclass
class _Master:
    """A copy of a model whose large parameters are shared by the copies that run.

    Attributes:
        model: the model that was copied, which stays alive while its id is in use.
        copied: the copy.
        shared: the parameters that are not copied again.
        marks: version counters, addresses and sums, by which a run that writes to them is noticed.
    """

    model: Model
    copied: Model
    shared: list[nn.Parameter]
    marks: list[tuple[int, int, float]]

    def fresh(self) -> bool:
        """Return whether no run has written to the shared parameters."""
        return self.marks == [_mark(parameter) for parameter in self.shared]


SMALL = 4096  # parameters of fewer entries are copied for every run
_MASTERS: ContextVar[dict[tuple[int, torch.dtype | None], _Master] | None] = ContextVar(
    "masters", default=None
)


def _mark(parameter: nn.Parameter) -> tuple[int, int, float]:
    return parameter._version, parameter.data_ptr(), float(parameter.detach().sum())


@contextmanager
def untouched() -> Iterator[None]:
    """Restore the states of all random generators and the default dtype at the end.

    Within the block copies of a model share its large parameters.
    """
    states = random.getstate(), np.random.get_state()
    dtype = torch.get_default_dtype()
    masters = _MASTERS.get()
    token = _MASTERS.set({} if masters is None else masters)
    with torch.random.fork_rng():
        try:
            yield
        finally:
            _MASTERS.reset(token)
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_default_dtype(dtype)


class _Widened(TorchFunctionMode):
    """Replaces narrower float dtypes by float64 in every call of torch: in casts, and in arguments."""

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
    return call(copy_in(model, dtype), arguments, dtype, seed, graphs.keywords), arguments


def copy_in(model: Model, dtype: torch.dtype | None) -> Model:
    """Copy a model to the CPU, with all floats of its modules in this dtype if there is one.

    Within `untouched` large parameters are copied once for each dtype, and again after a run that changed
    them.
    """
    masters = _MASTERS.get()
    if masters is None:
        return _moved(copy_of(model), dtype)
    key = (id(model), dtype)
    if key not in masters or not masters[key].fresh():
        copied = _moved(copy_of(model), dtype)
        every = {id(each): each for _, root in roots(copied) for each in root.parameters()}
        shared = [each for each in every.values() if not is_lazy(each) and each.numel() >= SMALL]
        masters[key] = _Master(model, copied, shared, [_mark(each) for each in shared])
    master = masters[key]
    for parameter in master.shared:
        parameter.grad = None
    return copy_of(master.copied, {id(parameter): parameter for parameter in master.shared})


def _moved(model: Model, dtype: torch.dtype | None) -> Model:
    for _, module in roots(model):
        module.to(device="cpu", dtype=dtype)
    return model


def arguments_in(graphs: Graphs, dtype: torch.dtype | None) -> tuple[Any, ...]:
    """Return fresh arguments, with all floats in this dtype if there is one."""
    return graphs.call() if dtype is None else graphs.to_dtype(dtype).call()


def call(
    model: Model,
    arguments: tuple[Any, ...],
    dtype: torch.dtype | None,
    seed: int,
    keywords: tuple[str, ...] = (),
) -> Any:
    """Call the model itself with a seed, and with `dtype` as the float dtype of all tensors that it makes.

    Args:
        model: the model.
        arguments: the arguments; the last belong to `keywords`.
        dtype, seed: see above.
        keywords: names of the arguments that are passed by keyword.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would prepare a GPU each time
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype or before)
    positional = len(arguments) - len(keywords)
    named = dict(zip(keywords, arguments[positional:], strict=True))
    try:
        with _Widened() if dtype == torch.float64 else nullcontext():
            return model(*arguments[:positional], **named)
    finally:
        torch.set_default_dtype(before)


def copy_of(model: Model, memo: dict[int, Any] | None = None) -> Model:
    """Copy a module, or a callable together with the modules that it reaches, except what `memo` holds."""
    memo = {} if memo is None else memo
    if isinstance(model, types.FunctionType):
        _copy_function(model, memo)
    return _copied(model, memo)


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """Return a deep copy in which functions refer to copies of the modules that they reach."""
    for _, part in _reached(value):
        if isinstance(part, types.FunctionType) and any(True for _ in roots(part)):
            _copy_function(part, memo)
    return copy.deepcopy(value, memo)


def _copy_function(function: types.FunctionType, memo: dict[int, Any]) -> None:
    """Add a copy of a function to `memo`, unless it has one, with copies of what can hold weights."""
    if id(function) in memo:
        return
    scope = dict(function.__globals__)
    cells = tuple(types.CellType() for _ in function.__closure__ or ())
    copied = types.FunctionType(function.__code__, scope, function.__name__, None, cells or None)
    copied.__module__ = function.__module__
    memo[id(function)] = copied
    copied.__defaults__, copied.__kwdefaults__ = copy.deepcopy(
        (function.__defaults__, function.__kwdefaults__), memo
    )
    for name in _names(function.__code__) & scope.keys():
        scope[name] = _copied_if_it_holds(scope[name], memo)
    for old, new in zip(function.__closure__ or (), cells, strict=True):
        with suppress(ValueError):  # a name that has no value yet
            new.cell_contents = _copied_if_it_holds(old.cell_contents, memo)


def _copied_if_it_holds(value: Any, memo: dict[int, Any]) -> Any:
    """Copy what can hold weights: modules, tensors, containers of them, and callables around them."""
    holds = isinstance(value, nn.Module | Tensor | list | tuple | dict) or any(True for _ in roots(value))
    return _copied(value, memo) if holds else value


def _names(code: types.CodeType) -> set[str]:
    """Return the names of globals and attributes in the code of a function and of those within it."""
    inner = (part for part in code.co_consts if isinstance(part, types.CodeType))
    return {*code.co_names}.union(*map(_names, inner))


def roots(model: Any) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that a callable reaches: itself, or by closure, globals, arguments or attributes."""
    return ((name, part) for name, part in _reached(model) if isinstance(part, nn.Module))


def _reached(model: Any, name: str = "", seen: frozenset[int] = frozenset()) -> Iterator[tuple[str, Any]]:
    """Yield the modules and functions that a callable reaches, without those within modules."""
    if id(model) in seen:
        return
    if isinstance(model, nn.Module | types.FunctionType):
        yield name, model
    for key, value in _held(model, name).items():
        yield from _reached(value, key, seen | {id(model)})


def _held(model: Any, name: str) -> dict[str, Any]:
    """Return what a callable or a container refers to, by name."""
    if isinstance(model, nn.Module | type | types.ModuleType | Tensor):
        return {}
    if isinstance(model, types.FunctionType):
        known = _names(model.__code__) & model.__globals__.keys()
        held = {key: model.__globals__[key] for key in sorted(known)}
        for key, cell in zip(model.__code__.co_freevars, model.__closure__ or (), strict=True):
            with suppress(ValueError):  # a name that has no value yet
                held[key] = cell.cell_contents
        return held
    if isinstance(model, types.MethodType):
        owner = model.__self__
        inside = not callable(owner) and hasattr(owner, "__dict__")
        return dict(vars(owner)) if inside else {name: owner}
    if isinstance(model, partial):
        return {name: model.func, **model.keywords} | {str(i): value for i, value in enumerate(model.args)}
    if isinstance(model, list | tuple):
        return {f"{name}[{place}]": value for place, value in enumerate(model)}
    return vars(model) if callable(model) and hasattr(model, "__dict__") else {}


def modes(model: Model) -> str:
    """Say whether modules are in training mode, in evaluation mode, or some in each; "" without modules."""
    flags = {module.training for _, root in roots(model) for module in root.modules()}
    if len(flags) == 2:
        return "partly in training mode"
    return {True: "in training mode", False: "in evaluation mode"}[flags.pop()] if flags else ""
