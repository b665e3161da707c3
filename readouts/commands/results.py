"""Results of `readouts check`: verdicts as they come, then the details, as text and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.nn.modules.batchnorm import _NormBase

from readouts.commands.inputs import Call
from readouts.commands.names import CHECKS
from readouts.commands.target import CannotRunError, said
from readouts.testing import (
    Report,
    ReportCard,
    Verdict,
    check_batch_independence,
    check_edge_order_invariance,
    check_gradient_equivariance,
    check_motion_invariance,
    check_permutation_equivariance,
    check_permutation_invariance,
    check_size_sensitivity,
)
from readouts.testing.isolation import modes, roots, untouched
from readouts.testing.progress import Listener, TimeUpError, listening
from readouts.testing.report import about_rounding, name_of, shown

SCHEMA = 1
DEFAULT = ("permutations", "batch", "gradients", "size")


@dataclass
class Results:
    """Results of the checks of one model.

    Attributes:
        call: the model and its inputs.
        reports: one for each check that was made.
        card: what the model can distinguish.
        not_checked: reasons of checks that were not made, by the name of the check.
        time_up: whether checks are missing because the time was up.
    """

    call: Call
    reports: list[Report] = field(default_factory=list)
    card: ReportCard | None = None
    not_checked: dict[str, str] = field(default_factory=dict)
    time_up: bool = False

    @property
    def invariant(self) -> bool:
        """Whether every check found identical bits or rounding."""
        return all(report.invariant for report in self.reports)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as values for JSON."""
        return {
            "schema": SCHEMA,
            "error": None,
            "model": name_of(self.call.model),
            "call": self.call.text,
            "data": self.call.data,
            "reports": [report.to_dict() for report in self.reports],
            "report_card": self.card and self.card.to_dict(),
            "not_checked": self.not_checked,
            "time_up": self.time_up,
            "invariant": self.invariant,
        }

    def details(self, verbose: bool) -> str:
        """Return the text below the verdicts: details of faults, or of all checks, and the summary."""
        parts = [str(report) for report in self.reports if verbose or not report.invariant]
        parts += [str(self.card)] if self.card and verbose else []
        return "".join([*(f"\n{part}\n" for part in parts), "\n" if parts else "", self._summary()])

    def _summary(self) -> str:
        card = [self.card.sentence] if self.card else []
        rounding = any(report.verdict is Verdict.ROUNDING for report in self.reports)
        if not self.invariant:
            wrong = [
                f"{report.check} {report.verdict}"
                + (f", culprit {report.culprit.short}" if report.culprit else "")
                for report in self.reports
                if not report.invariant
            ]
            hint = ["in training mode; try --mode eval"] if "training" in modes(self.call.model) else []
            return "; ".join([f"not invariant: {'; '.join(wrong)}", *card, *hint])
        first = f"rounding, which is harmless ({about_rounding()})" if rounding else "identical bits"
        if not self.reports:
            return "; ".join(card)
        so_far = " as far as there was time" if self.time_up else ""
        return "; ".join([f"invariant{so_far}: {first}", *card, *self._hint()])

    def _hint(self) -> list[str]:
        """Say that batch norm was seen in evaluation mode only."""
        modules = (module for _, root in roots(self.call.model) for module in root.modules())
        norms = [module for module in modules if isinstance(module, _NormBase) and not module.training]
        return ["batch norm reads the other graphs in training: --mode train"] if norms else []


def check_all(
    call: Call,
    permutations: int,
    seed: int,
    only: Sequence[str] = DEFAULT,
    listener: Listener | None = None,
    not_checked: Callable[[str, str], None] = lambda check, reason: None,
) -> Results:
    """Make the checks that apply to a model.

    Args:
        call: the model and its inputs.
        permutations, seed: as on the command line.
        only: names of the checks, of `CHECKS`.
        listener: its callbacks get the progress and the verdicts.
        not_checked: is called with every check that is not made, and why.

    Raises:
        CannotRunError: the graphs have nothing to permute, or the model raises on tied features.
    """
    results, checks = Results(call), _checks(call, permutations, seed)
    with untouched(), listening(listener or Listener()):
        for key in (key for key in CHECKS if key in only):
            name, check = checks[key]
            try:
                if results.time_up:
                    raise TimeUpError
                if isinstance(check, str):
                    raise _DoesNotApplyError(check)
                found = check()
            except TimeUpError:
                results.time_up = True
                results.not_checked[name] = "the time was up"
            except _DoesNotApplyError as error:
                results.not_checked[name] = str(error)
            except Exception as error:  # of the code of the model
                if key == "permutations":
                    raise CannotRunError(f"{call.text} on {call.data}: {said(error)}") from error
                results.not_checked[name] = said(error)
            else:
                if isinstance(found, Report):
                    results.reports.append(found)
                    results.time_up = any("the time was up" in note for note in found.notes)
                else:
                    results.card = found
            if name in results.not_checked:
                not_checked(name, results.not_checked[name])
    if not results.reports and not results.card:
        raise CannotRunError(
            f"{call.text} on {call.data}: nothing was checked: {next(iter(results.not_checked.values()))}"
        )
    return results


class _DoesNotApplyError(Exception):
    """Raised for a check that has no meaning for a model."""


Check = Callable[[], Report | ReportCard] | str


def _checks(call: Call, permutations: int, seed: int) -> dict[str, tuple[str, Check]]:
    """Return every check by its key, with its name; a reason instead of those that do not apply."""
    graphs = call.graphs
    per_node = any(value.dim() and value.shape[0] == graphs.num_nodes for value in call.results)
    batched = graphs.form == "batch" or "batch" in graphs.arguments
    settings = dict(permutations=permutations, seed=seed)

    def made(check: Callable[..., Any], **options: Any) -> Check:
        return lambda: check(call.model, *call.inputs, **options, **call.named)

    if per_node:
        first = "permutation equivariance", made(check_permutation_equivariance, **settings)
    else:
        first = CHECKS["permutations"], made(check_permutation_invariance, **settings)
    apply = {
        "permutations": first[1],
        "edges": made(check_edge_order_invariance, **settings) if graphs.num_edges else "there are no edges",
        "batch": made(check_batch_independence) if batched else "the model takes no batch",
        "gradients": made(check_gradient_equivariance, **settings),
        "positions": made(check_motion_invariance, motions=permutations, seed=seed),
        "size": "the output has a row per node" if per_node else made(check_size_sensitivity),
    }
    return {key: (first[0] if key == "permutations" else CHECKS[key], check) for key, check in apply.items()}


def verdict_line(report: Report) -> str:
    """Write the verdict of a check in one line, with its notes if it found no fault."""
    notes = f" ({'; '.join(report.notes)})" if report.notes and report.invariant else ""
    return f"{shown(report.verdict):<16}{report.check}{notes}"
