"""What `readouts check` finds, as text and as JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from readouts.commands.feeding import Fed
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
from readouts.testing.report import name_of
from readouts.testing.running import modes


@dataclass
class Findings:
    """What the checks found.

    Attributes:
        fed: the model and its graphs.
        reports: one for each check that was made.
        card: what the model can see.
        not_checked: why not, by the name of the check.
    """

    fed: Fed
    reports: list[Report] = field(default_factory=list)
    card: ReportCard | None = None
    not_checked: dict[str, str] = field(default_factory=dict)

    @property
    def invariant(self) -> bool:
        """Whether every check found identical bits or rounding."""
        return all(report.invariant for report in self.reports)

    def add(self, name: str, check: Callable[[], Report | ReportCard]) -> None:
        """Make a check; one that the model does not allow, for it has no gradient, say, is noted."""
        try:
            found = check()
        except Exception as error:  # whatever the model raises there
            self.not_checked[name] = said(error)
        else:
            if isinstance(found, Report):
                self.reports.append(found)
            else:
                self.card = found

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON knows them."""
        return {
            "model": name_of(self.fed.model),
            "call": self.fed.call,
            "data": self.fed.data,
            "reports": [report.to_dict() for report in self.reports],
            "report_card": self.card and self.card.to_dict(),
            "not_checked": self.not_checked,
            "invariant": self.invariant,
        }

    def __str__(self) -> str:
        parts = [f"{self.fed.call} on {self.fed.data}", *map(str, self.reports)]
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
        hint = " (in training mode; try --mode eval)" if "training" in modes(self.fed.model) else ""
        return f"not invariant: {'; '.join(wrong)}{hint}"


def examine(fed: Fed, permutations: int, seed: int) -> Findings:
    """Make every check that has a meaning for a model.

    Raises:
        CannotRunError: the graphs have nothing to permute, or the model raises on tied features.
    """
    model, inputs, findings = fed.model, fed.inputs, Findings(fed)
    graphs = fed.graphs
    per_node = any(value.dim() and value.shape[0] == graphs.num_nodes for value in fed.results)
    settings = dict(permutations=permutations, seed=seed)
    try:
        check = check_permutation_equivariance if per_node else check_permutation_invariance
        findings.reports.append(check(model, *inputs, **settings))
    except Exception as error:  # of graphs with nothing to permute, or of the model on tied features
        raise CannotRunError(f"{fed.call} on {fed.data}: {said(error)}") from error
    if graphs.form == "batch" or "batch" in dict(graphs.arguments):
        findings.add("batch independence", lambda: check_batch_independence(model, *inputs))
    else:
        findings.not_checked["batch independence"] = "the model takes no batch"
    findings.add("gradient equivariance", lambda: check_gradient_equivariance(model, *inputs, **settings))
    if per_node:
        findings.not_checked["report card"] = "the output has a row per node"
    else:
        findings.add("report card", lambda: check_size_sensitivity(model, *inputs))
    return findings
