"""Texts and numbers to predict: which are classes, which are numbers, and which are neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from readouts.commands.tu.errors import DataError

Task = Literal["classification", "regression"]
LARGEST = float(np.finfo(np.float32).max)
Value = str | bool | int | float
MOST_WHOLE_CLASSES = 10  # different whole numbers that are classes unless `task` says otherwise


@dataclass(frozen=True)
class Targets:
    """Classes 0, 1, ... (int64 [G]) with their names, or numbers (float64 [G]); and what was decided."""

    values: npt.NDArray[np.int64] | npt.NDArray[np.float64]
    names: tuple[str, ...] | None
    note: str


def read_targets(values: Sequence[Value], places: Sequence[str], what: str, task: str | None) -> Targets:
    """Read one value per graph; `places` says for errors where each stands, `what` is the name of the target.

    Texts, True and False are classes; numbers are classes if they are whole and at most ten different ones.
    `task` overrides this: with `"classification"` every distinct value is a class, with `"regression"`
    whole numbers stay numbers. Classes are sorted by name, or by number.

    Raises `DataError` for texts among numbers, numbers that are not finite, a single class or number, and
    texts or numbers that are too many for classes.
    """
    if task not in (None, *get_args(Task)):
        raise DataError(f"task: expected classification or regression, got {task!r}")
    numbers = [_number(value) for value in values]
    _check_numbers(numbers, values, places, what, task)
    distinct = len(set(zip(numbers, values, strict=True) if None in numbers else numbers))
    if distinct == 1:
        raise DataError(f"{what}: expected two different values or more, got {values[0]!r} for every graph")
    whole = all(number is not None and number.is_integer() for number in numbers)
    few = whole and distinct <= MOST_WHOLE_CLASSES
    if task == "regression" or (task is None and None not in numbers and not few):
        return Targets(np.array(numbers, np.float64), None, "numbers (regression)")
    labels = [str(value) for value in values] if None in numbers else numbers
    names, classes = np.unique(np.array(labels), return_inverse=True)
    if len(names) > len(values) // 2:
        raise DataError(
            f"{what}: expected classes with two graphs or more each, got {len(names)} different "
            f"values of {len(values)} graphs, such as {values[0]!r}"
        )
    kind = "whole numbers, taken as classes" if few and task is None else "classes"
    return Targets(classes.astype(np.int64), tuple(map(_name, names.tolist())), f"{len(names)} {kind}")


def _check_numbers(
    numbers: Sequence[float | None],
    values: Sequence[Value],
    places: Sequence[str],
    what: str,
    task: str | None,
) -> None:
    """Raise a DataError for texts that are no classes and numbers that are not finite."""
    texts = [place for place, number in enumerate(numbers) if number is None]
    if texts and (task == "regression" or (task is None and len(texts) < len(numbers))):
        expected = "numbers" if task else "either numbers or texts"
        others = "" if task else f" and {len(numbers) - len(texts)} numbers"
        raise DataError(
            f"{what}: expected {expected}, got {len(texts)} texts{others}; "
            f"{places[texts[0]]} has {values[texts[0]]!r}"
        )
    for place, number in enumerate(numbers):
        if number is not None and not texts and not abs(number) <= LARGEST:
            raise DataError(
                f"{what}: expected finite numbers (in float32), got {values[place]!r} in {places[place]}"
            )


def _number(value: Value) -> float | None:
    """Return the number that a value is or spells; None for other texts, True and False."""
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _name(label: str | float) -> str:
    return label if isinstance(label, str) else f"{label:.15g}"
