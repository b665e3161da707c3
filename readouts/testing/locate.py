"""Locate the first module whose results differ between two runs, with forward hooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from readouts.testing.inputs import Graphs
from readouts.testing.isolation import Model, arguments_in, call, copy_in, roots
from readouts.testing.outputs import Two, same_bits, tensors
from readouts.testing.report import Culprit, name_of, named


@dataclass
class Event:
    """Entry into a module, or return from it.

    Attributes:
        name: name of the module.
        kind: its class.
        leaves: False on entry, True on return.
        inside: name and class of the module whose code made the call.
        values: tensors kept of the inputs or outputs.
    """

    name: str
    kind: str
    leaves: bool
    inside: str
    values: list[Tensor] = field(default_factory=list)

    def __str__(self) -> str:
        return named(self.name, self.kind)


Agree = Callable[[list[Two]], bool]


def watch(model: Model, look: Callable[[Any], list[Tensor]]) -> list[Event]:
    """Record entries into modules and returns from them, in the order of execution.

    Args:
        model: a copy of the model; hooks are added to it.
        look: returns what to keep of a module's inputs or outputs.

    Returns:
        A list that fills when the model runs.
    """
    events: list[Event] = []
    stack: list[str] = [name_of(model)]

    def note(name: str, module: nn.Module, value: Any, leaves: bool) -> None:
        kind = type(module).__name__
        if leaves:
            stack.pop()
        events.append(Event(name, kind, leaves, stack[-1], look(value)))
        if not leaves:
            stack.append(named(name, kind))

    for name, module in _modules(model):
        module.register_forward_pre_hook(
            lambda module, args, kwargs, name=name: note(name, module, (args, kwargs), False),
            with_kwargs=True,
        )
        module.register_forward_hook(lambda module, _, output, name=name: note(name, module, output, True))
    return events


def parts(value: Any) -> list[Tensor]:
    """Return the tensors within a value."""
    return [part for _, part in tensors(value)]


def _copies(value: Any) -> list[Tensor]:
    return [part.detach().clone() for part in parts(value)]


def trace(model: Model, graphs: Graphs, dtype: torch.dtype | None, seed: int) -> list[Event]:
    """Return the events of one run of a copy of the model."""
    copied = copy_in(model, dtype)
    events = watch(copied, _copies)
    call(copied, arguments_in(graphs, dtype), dtype, seed, graphs.keywords)
    return events


def _modules(model: Model) -> list[tuple[str, nn.Module]]:
    found: dict[int, tuple[str, nn.Module]] = {}
    for root, module in roots(model):
        for name, part in module.named_modules(prefix=root):
            found.setdefault(id(part), (name, part))
    return list(found.values())


def first_disagreement(runs: list[list[Event]], model: Model, agree: Agree) -> Culprit:
    """Name the place where the events of several runs stop agreeing.

    Args:
        runs: the events of the runs; runs 0 and 1 are compared, and 2 and 3 in the other dtype.
        model: the model.
        agree: whether corresponding tensors agree, one pair for each two runs.
    """
    whole = isinstance(model, nn.Module)
    for place, step in enumerate(zip(*runs, strict=False)):
        first = step[0]
        if any((event.name, event.leaves) != (first.name, first.leaves) for event in step):
            ending = [run for run in runs if run[place].leaves]  # others call more modules here
            return _blame((ending or runs)[0], place)
        if whole and place in (0, len(runs[0]) - 1):  # the arguments and the result of the model itself
            continue
        if not _agreed(step, agree):
            return _blame(runs[0], place)
    return _last(runs[0], model)


def last_disagreement(runs: list[list[Event]], model: Model, agree: Agree) -> Culprit:
    """Name the place where gradients first differ in the backward pass; see `first_disagreement`."""
    whole = isinstance(model, nn.Module)
    events = runs[0]
    if len({len(run) for run in runs}) > 1:
        return _last(events, model)
    for place in range(len(events) - 1, 0 if whole else -1, -1):
        if not _agreed(tuple(run[place] for run in runs), agree):
            event, behind = events[place], events[place + 1 : place + 2]
            if event.leaves:  # the code that used the result of this module
                user = behind[0] if behind and not behind[0].leaves else None
                name, kind = (user.name, user.kind) if user else ("", name_of(model))
                return Culprit(name, kind, after=str(event), inside=event.inside)
            return Culprit(event.name, event.kind)
    return Culprit("", type(model).__name__)


def raising(model: Model, graphs: Graphs) -> Culprit | None:
    """Name the innermost module that raises; None if the model does not raise, or outside all modules."""
    copied = copy_in(model, None)
    events = watch(copied, lambda value: [])
    try:
        call(copied, graphs.call(), None, 0, graphs.keywords)
    except Exception:
        open_calls: list[Event] = []
        for event in events:
            open_calls = open_calls[:-1] if event.leaves else [*open_calls, event]
        return Culprit(open_calls[-1].name, open_calls[-1].kind) if open_calls else None
    return None


def _agreed(step: tuple[Event, ...], agree: Agree) -> bool:
    counts = {len(event.values) for event in step}
    if len(counts) > 1:
        return False
    return all(
        agree([(step[run].values[part], step[run + 1].values[part]) for run in range(0, len(step), 2)])
        for part in range(counts.pop())
    )


def _blame(events: list[Event], place: int) -> Culprit:
    """Name the module that returns at `place`, or the code before the module that is entered there."""
    event = events[place]
    before = events[place - 1] if place and events[place - 1].leaves else None
    caller = str(event) if event.leaves else event.inside
    after = str(before) if before and before.inside == caller else ""
    return Culprit(event.name, event.kind, after, "" if event.leaves else event.inside)


def _last(events: list[Event], model: Model) -> Culprit:
    """Name the code of the model itself after its last module."""
    inner = events[1:-1] if isinstance(model, nn.Module) else events
    name = "" if isinstance(model, nn.Module) else name_of(model)
    kind = type(model).__name__
    return Culprit(name, kind, after=str(inner[-1]) if inner else "")


def first_change(model: Model, graphs: Graphs) -> Culprit | None:
    """Name the place where a model first changes its input; None if it does not."""
    arguments = graphs.call()
    names = [name for name, _ in tensors(arguments)]

    def state(value: Any = None) -> list[Tensor]:
        found = dict(tensors(arguments))
        return [found[name].detach().clone() for name in names if name in found]

    before = state()

    def changed(now: list[Tensor]) -> bool:
        return len(now) < len(before) or not all(map(same_bits, now, before))

    copied = copy_in(model, None)
    events = watch(copied, state)
    call(copied, arguments, None, 0, graphs.keywords)
    for place, event in enumerate(events):
        if changed(event.values):
            return _blame(events, place)
    return _last(events, model) if changed(state()) else None
