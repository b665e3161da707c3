"""Readouts as targets of the suite: locate one, make it, call it, and probe what it behaves like."""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch_geometric.nn.aggr import Aggregation

from readouts.testing.conformance import probe
from readouts.testing.conformance.snippets import described

WIDTHS = (*range(1, 17), 32, 64, 128, 256)
SIZES = ("dim_size", "size", "num_graphs", "num_segments")
DIMS = ("dim", "axis")


class TargetError(ValueError):
    """Raised for a target that cannot be examined; the text says why in one line."""


@dataclass(frozen=True)
class Subject:
    """A readout under test, as code.

    Attributes:
        name: its class or function.
        setup: the line that makes `readout`.
        module: whether it is a `torch.nn.Module`.
        learned: whether it has parameters.
        size: name of its parameter for the number of graphs; "" if it has none.
        sizeless: whether it can be called without one.
        ptr: name of its parameter for the offsets of sorted graphs, instead of a batch; "" if it has none.
        uses_ptr: whether a call with it succeeds.
        dim: name of its parameter for the dimension of the nodes; "" if it has none.
        first: whether the nodes of a two-dimensional x are along dimension 0 by default.
        optional: whether it can be called with None instead of the batch.
        features: width of the input.
        kinds: what every output column behaves like for one feature; ("other",) if that is not known.
        apart: whether features are processed separately: output column r F + f depends on feature f only.
        column: index of one block of the output, as code.
    """

    name: str
    setup: str
    module: bool = False
    learned: bool = False
    size: str = ""
    sizeless: bool = True
    ptr: str = ""
    uses_ptr: bool = False
    dim: str = ""
    first: bool = True
    optional: bool = True
    features: int = 1
    kinds: tuple[str, ...] = ("other",)
    apart: bool = False
    column: str = ""

    @classmethod
    def locate(cls, target: str, init: Any = None, like: str | None = None) -> Subject:
        """Import ``package.module:name`` and probe it.

        Args:
            target: a class, whose instance is examined, an instance, or a function (x, batch, ...).
            init: list or dict of arguments of the constructor, or dict of keyword arguments of a function.
            like: one of `probe.NAMES`, instead of probing what the readout behaves like.

        Raises:
            TargetError: the target cannot be found, made, or called.
        """
        module, colon, path = target.partition(":")
        if not (module and colon and path):
            raise TargetError(f"target: expected package.module:name, got {target!r}")
        if not isinstance(init, list | dict | None):
            raise TargetError(f"init: expected a list or an object of arguments, got {init!r}")
        found = _found(target, module, path)
        imports = f"from {module} import {path.partition('.')[0]}"
        if inspect.isclass(found):
            return cls.written(path, imports, f"{path}({_arguments(init)})", like)
        if init is not None and (isinstance(init, list) or isinstance(found, Module)):
            raise TargetError("init: expected an object of keyword arguments for a function, or a class")
        if isinstance(found, Module):
            return cls.written(path, f"import copy; {imports}", f"copy.deepcopy({path})", like)
        if init is None:
            return cls.written(path, imports, path, like)
        partial = f"partial({path}, {_arguments(init)})"
        return cls.written(path, f"from functools import partial; {imports}", partial, like)

    @classmethod
    def written(cls, name: str, imports: str, expression: str, like: str | None = None) -> Subject:
        """Probe a readout given as code: imports, and an expression that makes a new readout.

        Modules are examined in evaluation mode, with weights drawn from seed 0.
        """
        if like is not None and like not in probe.NAMES:
            raise TargetError(f"like: expected one of {', '.join(probe.NAMES)}, got {like!r}")
        setup = f"import torch; {imports}; readout = {expression}"
        readout = _made(setup)
        learned = isinstance(readout, Module) and any(True for _ in readout.parameters())
        if isinstance(readout, Module):
            seed = "torch.manual_seed(0); " if learned else ""
            setup = f"import torch; {imports}; {seed}readout = {expression}.eval()"
        if isinstance(readout, Aggregation):
            names: dict[str, Any] = dict(size="dim_size", ptr="ptr", dim="dim")
        else:
            names = _parameters(readout)
        subject = cls(name, setup, isinstance(readout, Module), learned, **names)
        return subject._probed(like)

    def call(
        self, x: str = "x", batch: str = "batch", *, ptr: str = "", size: Any = None, flat: bool = True
    ) -> str:
        """Write a call with the nodes along dimension 0 of x; `flat` means that x is [N, F]."""
        arguments = [x, f"{self.ptr}={ptr}"] if ptr else [x, batch]
        arguments += [f"{self.dim}=0"] if self.dim and not (flat and self.first) else []
        arguments += [f"{self.size}={size}"] if self.size and size is not None else []
        return f"readout({', '.join(arguments)}){self.column}"

    def double(self) -> str:
        """Write the statement that casts the parameters to float64, if there are any."""
        return "readout = readout.double(); " if self.learned else ""

    def blocks(self, *names: str) -> Iterator[tuple[str, Subject]]:
        """Yield the blocks of the output that behave like one of these kinds, for one feature."""
        for place, kind in enumerate(self.kinds):
            if kind in names:
                alone = len(self.kinds) == 1
                yield kind, self if alone else replace(self, column=f"[:, {place}:{place + 1}]")

    @property
    def known(self) -> bool:
        """Whether the contract defines the values."""
        return not {"other", "mul"}.intersection(self.kinds)

    def _probed(self, like: str | None) -> Subject:
        readout = _made(self.setup)
        first, second = map(len, probe.GRAPHS)
        batch, ptr = torch.tensor([0] * first + [1] * second), torch.tensor([0, first, first + second])
        options: dict[str, int] = {} if self.first else {self.dim: 0}
        options |= {} if self.sizeless else {self.size: 2}

        def call(x: Tensor) -> Tensor:
            return _quietly(lambda: readout(x, batch, **options))

        features, out = _width(call, len(batch))
        subject = replace(self, features=features)
        if features == 1:
            column = torch.tensor([entry for graph in probe.GRAPHS for entry in graph]).view(-1, 1)
            like_these, apart = probe.recognised(call(column)), _apart(call, len(batch))
            if not apart and "other" in like_these and _takes(lambda: call(column.expand(-1, 3))):
                features = 3  # one feature would hide how several act on one another
            subject = replace(subject, features=features, kinds=like_these, apart=apart)
        if self.ptr:
            x = torch.zeros(len(batch), features)
            by_ptr = {**options, self.ptr: ptr}
            subject = replace(subject, uses_ptr=_takes(lambda: _quietly(lambda: readout(x, **by_ptr))))
        if like is None:
            return subject
        if like != "other" and features > 1:
            raise TargetError(f"like: expected a readout of one feature, got one of {features}")
        return replace(subject, kinds=(like,) * out.shape[1])


def _quietly(call: Callable[[], Any]) -> Any:
    """Call without warnings; the random state does not change."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        return call()


def _takes(call: Callable[[], Any]) -> bool:
    try:
        call()
    except Exception:
        return False
    return True


def _found(target: str, module: str, path: str) -> Any:
    try:
        found = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except (Exception, SystemExit) as error:  # of the code of the module
        raise TargetError(f"target: cannot import {target}: {described(error)}") from error
    if not callable(found):
        raise TargetError(f"target: expected a class, a module or a function, got {type(found).__name__}")
    return found


def _arguments(init: Any) -> str:
    if isinstance(init, dict):
        return ", ".join(f"{name}={value!r}" for name, value in init.items())
    return ", ".join(map(repr, init or []))


def _made(setup: str) -> Any:
    scope: dict[str, Any] = {}
    try:
        _quietly(lambda: exec(setup, scope))
    except Exception as error:
        expression = setup.rpartition("readout = ")[2]
        raise TargetError(
            f"target: {expression} cannot be made (init: arguments): {described(error)}"
        ) from error
    return scope["readout"]


def _parameters(readout: Any) -> dict[str, Any]:
    """Return the fields of `Subject` that follow from the signature of a function or of `forward`."""
    function = readout.forward if isinstance(readout, Module) else readout
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError) as error:
        raise TargetError(f"target: expected a function (x, batch, ...), got {readout!r}") from error
    given = list(parameters.values())
    if len(given) < 2 or any(p.default is p.empty and p.kind is not p.VAR_KEYWORD for p in given[3:]):
        raise TargetError(
            f"target: expected a function (x, batch, ...), got one of ({', '.join(parameters)})"
        )
    annotation = str(given[1].annotation)
    size = next((name for name in SIZES if name in parameters), "")
    dim = next((name for name in DIMS if name in parameters), "")
    return dict(
        size=size,
        sizeless=not size or parameters[size].default is not inspect.Parameter.empty,
        ptr="ptr" if "ptr" in parameters and given[1].default is not given[1].empty else "",
        dim=dim,
        first=not dim or parameters[dim].default in (0, -2),
        optional=given[1].default is None or "None" in annotation or "Optional" in annotation,
    )


def _width(call: Callable[[Tensor], Any], nodes: int) -> tuple[int, Tensor]:
    """Find how many features the readout takes, and return its output for as many."""
    first = None
    for features in WIDTHS:
        try:
            out = call(torch.randn(nodes, features, generator=torch.Generator().manual_seed(0)))
        except Exception as error:
            first = first or error
            continue
        if not isinstance(out, Tensor) or out.dim() != 2 or len(out) != len(probe.GRAPHS):
            shape = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise TargetError(f"target: expected one row for each of 2 graphs, got {shape}")
        return features, out
    assert first is not None
    raise TargetError(f"target: cannot be called: {described(first)}") from first


def _apart(call: Callable[[Tensor], Tensor], nodes: int) -> bool:
    x = torch.randn(nodes, 2, generator=torch.Generator().manual_seed(0))
    try:
        both, first, second = call(x), call(x[:, :1]), call(x[:, 1:])
    except Exception:
        return False
    if both.shape[1] != 2 * first.shape[1] or first.shape != second.shape:
        return False
    return both[:, ::2].allclose(first, atol=1e-5) and both[:, 1::2].allclose(second, atol=1e-5)
