"""Build the inputs of a model: graphs that it takes, and the arguments of the call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor
from torch.nn.parameter import is_lazy
from torch_geometric.data import Batch, Data

from readouts.commands.data import from_file, is_file, molecules, tu_set
from readouts.commands.signature import call_on, takes_data
from readouts.commands.target import CannotRunError, said
from readouts.testing.engine import outputs
from readouts.testing.inputs import Graphs, read
from readouts.testing.isolation import Model, copy_of, roots, untouched
from readouts.testing.report import name_of

FEATURES, EDGE_FEATURES = 8, 4  # where no layer determines them
WIDTHS = ("in_channels", "in_features", "num_features", "input_size", "embed_dim")
Given: TypeAlias = Data | tuple[Tensor, ...]


@dataclass(frozen=True)
class Call:
    """A model and its inputs.

    Attributes:
        model: the model, or a function that derives some of its arguments.
        inputs: the arguments by position.
        named: the arguments by keyword.
        graphs: the graphs read from them.
        results: the tensors that the model returns.
        text: the call as text.
        data: the graphs as text.
    """

    model: Model
    inputs: tuple[Any, ...]
    named: dict[str, Any]
    graphs: Graphs
    results: tuple[Tensor, ...]
    text: str
    data: str


def prepare(model: Model, data: str | None, features: int | None, seed: int) -> Call:
    """Choose the arguments of a model by its signature, and graphs on which it runs.

    Args:
        model: any callable.
        data: a file, the name of a TU set, or None for synthetic graphs.
        features: number of features of the synthetic graphs; None to try those that the layers take.
        seed: seed of the synthetic graphs.

    Raises:
        CannotRunError: there are no such graphs, or the model cannot be run on them.
    """
    failures = []
    offers = list(_offers(model, data, features, seed))
    for given, about in [*offers, *_sorted_by_target(offers)]:
        if isinstance(given, tuple):
            called, inputs, text = model, given, name_of(model)
            named: dict[str, Any] = {}
        else:
            called, inputs, named, text = call_on(model, given)
        try:
            with untouched():
                graphs, called = read(inputs, named, called), _initialised(called, inputs, named)
                results = tuple(outputs(called, graphs, None, 0).values())
            return Call(called, inputs, named, graphs, results, text, about)
        except (Exception, SystemExit) as error:  # of the code of the model
            failures.append(f"{text} on {about} raises {said(error)}")
    way_out = "" if data else "; --features F sets the width of x, --data FILE.pt your own graphs"
    raise CannotRunError(failures[0] + way_out)


def set_mode(model: Model, training: bool) -> None:
    """Put the modules that a model reaches into training or evaluation mode."""
    for _, root in roots(model):
        root.train(training)


def _offers(model: Model, data: str | None, features: int | None, seed: int) -> Iterator[tuple[Given, str]]:
    """Yield the graphs of `data`, or synthetic graphs for every width of a layer, each with a text."""
    if data is not None:
        if is_file(data):
            given = from_file(data)
            yield given, f"{data}: {_sizes(given)}"
        else:
            first = _in_dtype_of(model, tu_set(data))
            yield first, f"{data}: the first {_sizes(first)}"
        return
    widths = [features] if features else [*_numbers(model, *WIDTHS), FEATURES]
    edge_features = next(_numbers(model, "edge_dim"), EDGE_FEATURES)
    for width in dict.fromkeys(widths):
        full, plain = (
            _in_dtype_of(model, molecules(width, edge_features, seed, full)) for full in (True, False)
        )
        if takes_data(model, full):  # counterexamples are shorter without unused attributes
            yield plain, f"synthetic data: {_sizes(plain)}"
        yield full, f"synthetic data: {_sizes(full)}"


def _sorted_by_target(offers: list[tuple[Given, str]]) -> Iterator[tuple[Given, str]]:
    """Yield graphs with their edges sorted by target, as loaders do; some aggregations take no others."""
    for given, about in offers:
        if isinstance(given, Data) and "edge_index" in given and not given.is_sorted(sort_by_row=False):
            yield given.sort(sort_by_row=False), f"{about}, edges sorted by target"


def _numbers(model: Model, *attributes: str) -> Iterator[int]:
    """Yield the numbers of features that layers take, in the order of the layers."""
    for module in (module for _, root in roots(model) for module in root.modules()):
        for name in attributes:
            value = getattr(module, name, None)
            value = value[0] if isinstance(value, tuple) else value
            if isinstance(value, int) and value > 0:
                yield value


def _in_dtype_of(model: Model, data: Data) -> Data:
    """Cast the floats of the graphs to the float dtype of the weights."""
    weights = (weight for _, root in roots(model) for weight in root.parameters())
    dtype = next((weight.dtype for weight in weights if weight.is_floating_point()), None)
    return data.apply(lambda value: value.to(dtype) if dtype and value.is_floating_point() else value)


def _initialised(model: Model, inputs: tuple[Any, ...], named: dict[str, Any]) -> Model:
    """Return a copy of the model with lazy layers initialised, if it has any."""
    if not any(is_lazy(weight) for _, root in roots(model) for weight in root.parameters()):
        return model
    copied = copy_of(model)
    copied(*inputs, **named)
    return copied


def _sizes(given: Given) -> str:
    if isinstance(given, tuple):
        return ", ".join(str(list(value.shape)) for value in given)
    count = given.num_graphs if isinstance(given, Batch) else 1
    x = f", x {list(given.x.shape)}" if "x" in given else ""
    return f"{count} graph{'s' * (count > 1)}, {given.num_nodes} nodes{x}"
