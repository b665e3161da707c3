"""Results of `readouts check`, as text and as JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from readouts.commands.inputs import Call
from readouts.commands.target import CannotRunError, said
from readouts.testing import (
    Report,
    ReportCard,
    Verdict,
    check_batch_independence,
    check_gradient_equivariance,
    check_permutation_equivariance,
    check_permutation_invariance,
    check_size_sensitivity,
)
from readouts.testing.isolation import modes
from readouts.testing.report import name_of


@dataclass
class Results:
    """Results of the checks of one model.

    Attributes:
        call: the model and its inputs.
        reports: one for each check that was made.
        card: what the model can distinguish.
        not_checked: reasons of checks that were not made, by the name of the check.
    """

    call: Call
    reports: list[Report] = field(default_factory=list)
    card: ReportCard | None = None
    not_checked: dict[str, str] = field(default_factory=dict)

    @property
    def invariant(self) -> bool:
        """Whether every check found identical bits or rounding."""
        return all(report.invariant for report in self.reports)

    def add(self, name: str, check: Callable[[], Report | ReportCard]) -> None:
        """Make a check; if the model raises, as without a gradient, note why."""
        try:
            found = check()
        except Exception as error:  # of the code of the model
            self.not_checked[name] = said(error)
        else:
            if isinstance(found, Report):
                self.reports.append(found)
            else:
                self.card = found

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as values for JSON."""
        return {
            "model": name_of(self.call.model),
            "call": self.call.text,
            "data": self.call.data,
            "reports": [report.to_dict() for report in self.reports],
            "report_card": self.card and self.card.to_dict(),
            "not_checked": self.not_checked,
            "invariant": self.invariant,
        }

    def __str__(self) -> str:
        parts = [f"{self.call.text} on {self.call.data}", *map(str, self.reports)]
        parts += [str(self.card)] if self.card else []
        parts += [f"{check}: not checked: {reason}" for check, reason in self.not_checked.items()]
        return "\n\n".join([*parts, self._summary()])

    def _summary(self) -> str:
        if self.invariant:
            rounding = [report.check for report in self.reports if report.verdict is Verdict.ROUNDING]
            return (
                f"invariant: rounding in {', '.join(rounding)}" if rounding else "invariant: identical bits"
            )
        wrong = [
            f"{report.check} {report.verdict}" + (f", culprit {report.culprit}" if report.culprit else "")
            for report in self.reports
            if not report.invariant
        ]
        hint = " (in training mode; try --mode eval)" if "training" in modes(self.call.model) else ""
        return f"not invariant: {'; '.join(wrong)}{hint}"


def check_all(call: Call, permutations: int, seed: int) -> Results:
    """Make every check that applies to a model.

    Raises:
        CannotRunError: the graphs have nothing to permute, or the model raises on tied features.
    """
    model, inputs, results = call.model, call.inputs, Results(call)
    graphs = call.graphs
    per_node = any(value.dim() and value.shape[0] == graphs.num_nodes for value in call.results)
    settings = dict(permutations=permutations, seed=seed)
    try:
        check = check_permutation_equivariance if per_node else check_permutation_invariance
        results.reports.append(check(model, *inputs, **settings))
    except Exception as error:  # of graphs with nothing to permute, or of the model on tied features
        raise CannotRunError(f"{call.text} on {call.data}: {said(error)}") from error
    if graphs.form == "batch" or "batch" in graphs.arguments:
        results.add("batch independence", lambda: check_batch_independence(model, *inputs))
    else:
        results.not_checked["batch independence"] = "the model takes no batch"
    results.add("gradient equivariance", lambda: check_gradient_equivariance(model, *inputs, **settings))
    if per_node:
        results.not_checked["report card"] = "the output has a row per node"
    else:
        results.add("report card", lambda: check_size_sensitivity(model, *inputs))
    return results
