"""Result of a check: as fields, as text for a terminal, as a dictionary for JSON, and as an assertion."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from readouts.scatter import exact_scatter
from readouts.testing.verdict import Verdict

ALLOWED = {"rounding": (Verdict.IDENTICAL, Verdict.ROUNDING), "identical": (Verdict.IDENTICAL,)}


@dataclass(frozen=True)
class Culprit:
    """Place in the model where the results begin to differ.

    Example:
        >>> from readouts.testing import check_permutation_invariance
        >>> def first(x):
        ...     return x[:1]
        >>> report = check_permutation_invariance(first, torch.tensor([[1.0], [2.0], [4.0]]))
        >>> print(report.culprit)
        first (function)

    Attributes:
        name: name of the module, "" for the model itself.
        kind: its class.
        after: the last module before it whose output still agreed, as "name (class)"; "" for none.
        inside: the module whose own code runs between `after` and `name`, as "name (class)"; "" where the
            module `name` itself is at fault.
    """

    name: str
    kind: str
    after: str = ""
    inside: str = ""

    @property
    def short(self) -> str:
        """The place whose code is at fault, in few words."""
        return self.inside or named(self.name, self.kind)

    def __str__(self) -> str:
        here = named(self.name, self.kind)
        if not self.inside:
            return f"{here}, in its own code after {self.after}" if self.after else here
        before = self.after or f"the input of {self.inside}"
        return f"between {before} and {here}, in the code of {self.inside}"


def named(name: str, kind: str) -> str:
    """Write a module as "name (class)"; the model itself has no name but its class."""
    return f"{name} ({kind})" if name else kind


def name_of(model: Any) -> str:
    """Name a model by its function or class."""
    return getattr(model, "__name__", None) or type(model).__name__


def check_allow(allow: str) -> None:
    """Raise ValueError unless `allow` is "rounding" or "identical"."""
    if allow not in ALLOWED:
        raise ValueError(f'allow: expected "rounding" or "identical", got {allow!r}')


@dataclass(frozen=True)
class Report:
    """Measurements and verdict of a check.

    Example:
        >>> from readouts.testing import check_permutation_invariance
        >>> def first(x):
        ...     return x[:1]
        >>> report = check_permutation_invariance(first, torch.tensor([[1.0], [2.0], [4.0]]))
        >>> print(report.verdict, report.counterexample, sep=chr(10))
        broken
        x = torch.tensor([[2.0], [4.0]])
        order = torch.tensor([1, 0])
        before = model(x)
        after = model(x[order])
        torch.testing.assert_close(after, before)

    Attributes:
        check: name of the property.
        model: class or name of the model.
        verdict: identical bits, rounding, broken or random.
        reason: one sentence on why.
        trials: number of comparisons made.
        mode: training or evaluation mode; "" for a function without modules.
        dtype: the float dtype in which the model ran.
        output: name of the tensor with the largest difference.
        shown_by: the trial with the largest difference.
        difference: largest difference in float32 (or narrower), relative to the largest entry of its row, or
            to the largest number of inputs and results where the row cancels.
        wide_difference: the same in float64; None where it was not needed or the model cannot be run in it.
        error: error of the narrow result, measured against float64, relative in the same way.
        units: `difference` in units of rounding.
        culprit: where the results begin to differ.
        counterexample: lines of code that show the difference.
        notes: further remarks.
        cancels: whether the row cancels to zero, so that no digit of it is right.
    """

    check: str
    model: str
    verdict: Verdict
    reason: str
    trials: int
    mode: str = ""
    dtype: str = ""
    output: str = ""
    shown_by: str = ""
    difference: float = 0.0
    wide_difference: float | None = None
    error: float | None = None
    units: float = 0.0
    culprit: Culprit | None = None
    counterexample: str = ""
    notes: tuple[str, ...] = ()
    cancels: bool = False

    @property
    def invariant(self) -> bool:
        """Whether the property holds, up to rounding."""
        return self.verdict in ALLOWED["rounding"]

    def raise_unless(self, allow: str) -> None:
        """Raise AssertionError with the text of the report unless its verdict is allowed.

        Args:
            allow: ``"rounding"``, or ``"identical"`` for identical bits alone.

        Raises:
            ValueError: `allow` is neither.
        """
        __tracebackhide__ = True
        check_allow(allow)
        if self.verdict not in ALLOWED[allow]:
            raise AssertionError(str(self))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as values for JSON; infinities become None."""
        fields = dataclasses.asdict(self)
        fields["verdict"] = str(self.verdict)
        fields["notes"] = list(self.notes)
        fields["culprit"] = None if self.culprit is None else {**fields["culprit"], "text": str(self.culprit)}
        return {key: _finite(value) for key, value in fields.items()}

    def __str__(self) -> str:
        mode = f", {self.mode}" if self.mode else ""
        return "\n".join(
            [f"{str(self.verdict).upper()}: {self.check} of {self.model}{mode}", *self.details()]
        )

    def details(self) -> list[str]:
        """Return the lines below the verdict: why, where, how to reproduce it, and what to do."""
        trials = f"{self.trials} trial{'s' * (self.trials != 1)}"
        if self.verdict is Verdict.IDENTICAL:
            return [
                f"  why         {self.reason}, in {trials}",
                *(f"  note        {note}" for note in self.notes),
            ]
        lines = [f"  why         {self.reason}"]
        lines += [f"              {self._numbers()}"] if self.difference else []
        seen = f"seen in {self.output}, {self.shown_by}" if self.shown_by else "seen"
        lines += [f"  where       {self.culprit}"] if self.culprit else []
        lines.append(f"{'              ' if self.culprit else '  where       '}{seen} (of {trials})")
        lines += [f"  note        {note}" for note in self.notes]
        if self.counterexample:
            lines += ["  reproduce", *(f"    {line}" for line in self.counterexample.splitlines())]
        return lines + ([f"  what to do  {self.advice}"] if self.advice else [])

    @property
    def advice(self) -> str:
        """What to do about the verdict; "" where nothing needs to be done."""
        if self.verdict is Verdict.IDENTICAL:
            return ""
        if self.verdict is Verdict.ROUNDING:
            return f"nothing: rounding is harmless; {about_rounding()}"
        here = self.culprit.short if self.culprit else self.model
        if self.verdict is Verdict.RANDOM:
            return f"switch randomness off: model.eval(), or a fixed seed within {here}"
        if self.reason.startswith("the model changes its input"):
            return f"let {here} work on a copy, such as x.clone()"
        if self.check == "batch independence":
            if "training" in self.mode:
                return "check in evaluation mode; in training mode layers such as batch norm read all graphs"
            return f"let {here} read the nodes of one graph only: pass it the batch vector, and mask padding"
        if "gradient" in self.check:
            text = f"let {here} share the gradient among tied nodes, as amax and MaxReadout do"
            return f"{text}; if outputs change too, fix that first"
        if "rotation" in self.check:
            return f"let {here} read distances and angles instead of coordinates"
        return (
            f"give {here} an operation without order (sum, mean, max); break ties by value, not by position"
        )

    def _numbers(self) -> str:
        if math.isinf(self.difference):
            return "another shape or an exception"
        units = f"{self.units:.0f}" if self.units < 1e6 else f"{self.units:.1e}"
        entry = (
            "of the largest number of inputs and results" if self.cancels else "of the row's largest entry"
        )
        text = f"difference {self.difference:.1e} {entry} ({units} units of rounding)"
        if self.wide_difference is None:
            return text
        return f"{text}; in float64 {self.wide_difference:.1e}"


def about_rounding() -> str:
    """Return how to avoid rounding, or its source if scatter operators are exact already."""
    if exact_scatter.is_enabled():
        return "it comes from a matrix product or a sum over all rows, which exact_scatter does not change"
    return "`with readouts.exact_scatter():` makes sums over nodes and edges exact"


def shown(verdict: Verdict) -> str:
    """Write a verdict, faults in capitals."""
    return str(verdict) if verdict in ALLOWED["rounding"] else str(verdict).upper()


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
