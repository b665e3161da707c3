"""Errors for keywords of PyG, and for `size` of functions and `dim_size` of modules where mixed up."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

SYNONYMS = (
    ("size", "dim_size", "batch_size", "num_graphs"),
    ("batch", "index"),
    ("reduce", "aggr", "aggrs", "readout"),
    ("empty", "fill_value"),
    ("seeds", "num_seed_points"),
    ("gate_nn", "gate"),
)
NOT_NEEDED = {
    "semi_grad": "gradients are complete",
    "max_num_elements": "no dense batch is made",
    "aggrs_kwargs": "options belong to modules, as in reduce=['sum', SoftmaxReadout(t=2.0)]",
    "aggr_kwargs": "options belong to modules, as in SoftmaxReadout(t=2.0)",
}
Function = TypeVar("Function", bound=Callable[..., Any])


def hints_for(function: Callable[..., Any]) -> dict[str, str]:
    """Return an error message for every keyword that this function lacks and calls by another name."""
    own = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in own.values()):
        return {}
    hints = {word: f"{word}: expected no such keyword ({why})" for word, why in NOT_NEEDED.items()}
    for words in SYNONYMS:
        known = [word for word in words if word in own]
        if known:
            hints |= {word: f"{word}: expected the keyword {known[0]!r}, got {word!r}" for word in words}
    return {word: hint for word, hint in hints.items() if word not in own}


def check_words(hints: Mapping[str, str], options: Mapping[str, Any]) -> None:
    """Raise a TypeError for the first keyword that has a hint."""
    for word in options:
        if word in hints:
            raise TypeError(hints[word])


def explain_keywords(function: Function) -> Function:
    """Make a function raise a TypeError with the right keyword when it is called with a synonym."""
    hints = hints_for(function)

    @functools.wraps(function)
    def checked(*arguments: Any, **options: Any) -> Any:
        if options:
            check_words(hints, options)
        return function(*arguments, **options)

    return cast("Function", checked)
