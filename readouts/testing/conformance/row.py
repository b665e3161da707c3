"""A row of the contract: a sentence, the readouts for which it has meaning, and the programs that test it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from readouts.testing.conformance.programs import Case
from readouts.testing.conformance.subject import Subject
from readouts.testing.snippet import literal


@dataclass(frozen=True)
class Row:
    """A row of the contract.

    Attributes:
        name: a few words.
        contract: one sentence.
        cases: the programs that test it.
        without: why the row has no meaning for a readout; "" where it has.
    """

    name: str
    contract: str
    cases: Callable[[Subject], Iterable[Case]]
    without: Callable[[Subject], str] = lambda subject: ""


def behaves_like(*kinds: str) -> Callable[[Subject], str]:
    """Restrict a row to readouts of these kinds."""
    return lambda subject: "" if set(kinds) & set(subject.kinds) else f"has meaning for {', '.join(kinds)}"


def treats_features_apart(subject: Subject) -> str:
    """Restrict a row to readouts that treat every feature alone."""
    return "" if subject.apart else "has meaning where every feature is treated alone"


def column(values: list[float], dtype: torch.dtype = torch.float32) -> str:
    """Write one feature [N, 1]."""
    return literal(torch.tensor(values, dtype=dtype).view(-1, 1))


def one_graph(nodes: int) -> str:
    """Write the batch of one graph."""
    return f"torch.tensor({[0] * nodes})"


def random(nodes: int, features: int, seed: int = 0, dtype: str = "") -> str:
    """Write random features [N, F]; the seed is set in the same line."""
    wide = f", dtype={dtype}" if dtype else ""
    return f"torch.manual_seed({seed}); x = torch.randn({nodes}, {features}{wide})"


def biggest(difference: str) -> str:
    """Write the largest magnitude of a difference as a number."""
    return f"({difference}).abs().max().item()"


def gradient(output: str) -> str:
    """Write the gradient of the sum of an output with respect to x."""
    return f"torch.autograd.grad({output}.sum(), x)[0]"


def numbers(tensor: Tensor) -> list[float]:
    """Return the entries of a tensor."""
    return tensor.flatten().tolist()
