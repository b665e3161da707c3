"""Rows of the contract: a sentence, the readouts to which it applies, and the snippets that test it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from readouts.testing.conformance.snippets import Case, Expected, close
from readouts.testing.conformance.target import Subject
from readouts.testing.counterexample import literal

SAME = close(0.0, 1e-5)
LEVELS = ("must", "bits", "validation")


@dataclass(frozen=True)
class Row:
    """A row of the contract.

    Attributes:
        name: a few words.
        contract: one sentence.
        without: returns why the row does not apply to a readout; "" where it does.
        cases: returns the cases that test it.
        level: "must" for values, gradients and shapes; "bits" for equality to the bit; "validation" for
            arguments that must be refused.
    """

    name: str
    contract: str
    without: Callable[[Subject], str]
    cases: Callable[[Subject], Iterable[Case]]
    level: str = "must"


def row(
    name: str,
    contract: str,
    without: Callable[[Subject], str] = lambda subject: "",
    level: str = "must",
) -> Callable[[Callable[[Subject], Iterable[Case]]], Row]:
    """Turn a function that returns cases into a row; `suite` collects the rows of all modules."""
    return partial(Row, name, contract, without, level=level)


def behaves_like(*kinds: str) -> Callable[[Subject], str]:
    """Restrict a row to readouts of these kinds."""
    return lambda subject: "" if set(kinds) & set(subject.kinds) else f"applies to {', '.join(kinds)}"


def treats_features_apart(subject: Subject) -> str:
    """Restrict a row to readouts that process every feature separately."""
    return "" if subject.apart else "applies where features are treated separately"


def column(values: list[float], dtype: torch.dtype = torch.float32) -> str:
    """Write one feature [N, 1]."""
    return literal(torch.tensor(values, dtype=dtype).view(-1, 1))


def one_graph(nodes: int) -> str:
    """Write the batch of one graph."""
    return f"torch.tensor({[0] * nodes})"


def random(nodes: int, features: int, dtype: str = "") -> str:
    """Write random features [N, F], and set the seed."""
    wide = f", dtype={dtype}" if dtype else ""
    return f"torch.manual_seed(0); x = torch.randn({nodes}, {features}{wide})"


def agree(given: str, first: str, second: str, expected: Expected = SAME) -> Case:
    """Return a case in which two outputs must agree, by default up to rounding."""
    return Case(given, f"({first} - {second}).abs().max().item()", expected)


def gradient(output: str) -> str:
    """Write the gradient of the sum of an output with respect to x."""
    return f"torch.autograd.grad({output}.sum(), x)[0]"


def numbers(tensor: Tensor) -> list[float]:
    """Return the entries of a tensor."""
    return tensor.flatten().tolist()
