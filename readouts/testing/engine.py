"""Run a model on pairs of inputs whose results must agree, judge the pairs, and report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from readouts.testing import locate
from readouts.testing.inputs import Graphs, Match, same
from readouts.testing.isolation import Model, modes, roots, run, untouched
from readouts.testing.outputs import Two, aligned, every_match, same_bits, tensors
from readouts.testing.report import Culprit, Report, name_of
from readouts.testing.verdict import Judgement, Pair, Verdict, judge, narrow

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Trial:
    """Two inputs, the positions of the first in the second, and a few words on how they differ."""

    label: str
    first: Graphs
    second: Graphs
    match: Match


@dataclass(frozen=True)
class Question:
    """What to measure, and how the rows of two measurements correspond.

    Attributes:
        check: name of the property.
        measure: returns named tensors of a model on an input, in a dtype, with a seed.
        rows: returns what the rows of two tensors of this name move with; see `outputs.moving`.
        trace: returns the events of a run.
        locate: names the place where such events stop agreeing.
    """

    check: str
    measure: Callable[[Model, Graphs, torch.dtype | None, int], dict[str, Tensor]]
    rows: Callable[[str, Tensor, Tensor, Match], str]
    trace: Callable[[Model, Graphs, torch.dtype | None, int], list[locate.Event]] = locate.trace
    locate: Callable[[list[list[locate.Event]], Model, locate.Agree], Culprit] = locate.first_disagreement


def outputs(model: Model, graphs: Graphs, dtype: torch.dtype | None, seed: int) -> dict[str, Tensor]:
    """Return every tensor of the output of a copy of the model, by name."""
    output, _ = run(model, graphs, dtype, seed)
    found = {name: value.detach() for name, value in tensors(output)}
    if not found:
        raise TypeError(f"model: expected tensors in the output, got {type(output).__name__}")
    return found


@dataclass
class Examination:
    """Runs of a model for one question; every input is measured once.

    Attributes:
        model: the model.
        question: the question.
        own: the narrowest float dtype of the model, its input and its output.
    """

    model: Model
    question: Question
    own: torch.dtype
    _kept: dict[tuple[int, torch.dtype | None], tuple[Graphs, dict[str, Tensor]]] = field(
        default_factory=dict, repr=False
    )

    @property
    def other(self) -> torch.dtype:
        """The dtype to compare with."""
        return torch.float32 if self.own == torch.float64 else torch.float64

    def judge(self, trials: Sequence[Trial]) -> Judgement:
        """Judge trials that share their first input."""
        pairs = []
        for place, trial in enumerate(trials):
            first = self._measured(trial.first)
            try:
                second = self._measured(trial.second)
            except Exception as error:
                reason = f"raises {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                return Judgement(Verdict.BROKEN, "output", place, float("inf"), reason=reason)
            if first.keys() != second.keys():
                reason = f"the outputs are {sorted(first)} once and {sorted(second)} then"
                return Judgement(Verdict.BROKEN, "output", place, float("inf"), reason=reason)
            pairs += [Pair(name, place, self._two(trial, name)) for name in first]
        if all(same_bits(*pair.own) for pair in pairs):
            return Judgement(Verdict.IDENTICAL, reason="every bit is the same")
        return judge([self._with_other(pair, trials[pair.trial]) for pair in pairs], self.own)

    def _measured(self, graphs: Graphs, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        key = (id(graphs), dtype)
        if key not in self._kept:
            self._kept[key] = (graphs, self.question.measure(self.model, graphs, dtype, 0))
        return self._kept[key][1]

    def _two(self, trial: Trial, name: str, dtype: torch.dtype | None = None) -> Two:
        """Return a tensor of both inputs, with the rows of the second in the order of the first."""
        first, second = (self._measured(graphs, dtype)[name] for graphs in (trial.first, trial.second))
        return aligned(first, second, self.question.rows(name, first, second, trial.match), trial.match)

    def _with_other(self, pair: Pair, trial: Trial) -> Pair:
        """Add the results in the other dtype to a pair whose bits differ."""
        if not same_bits(*pair.own):
            with suppress(Exception):  # the model knows one dtype only
                two = self._two(trial, pair.name, self.other)
                if two[0].shape == two[1].shape == pair.own[0].shape:
                    return replace(pair, other=two)
        return pair

    def shows(self, verdict: Verdict, name: str) -> Callable[[Trial], bool]:
        """Return a test of whether a trial by itself gives this verdict on this output."""

        def asked(trial: Trial) -> bool:
            judgement = self.judge([trial])
            return (judgement.verdict, judgement.name) == (verdict, name)

        return asked

    def describe(self, trial: Trial, name: str) -> tuple[str, bool]:
        """Return what the rows of an output move with, and whether `assert_close` accepts the difference."""
        try:
            first, second = (self._measured(graphs)[name] for graphs in (trial.first, trial.second))
        except Exception:  # the model raises, or returns something else
            return "", False
        rows = self.question.rows(name, first, second, trial.match)
        try:
            torch.testing.assert_close(*aligned(first, second, rows, trial.match))
        except AssertionError:
            return rows, False
        return rows, True

    def locate(self, trial: Trial, verdict: Verdict, seeds: tuple[int, int] = (0, 0)) -> Culprit | None:
        """Name the first module where this trial shows this verdict; None where nothing can be traced."""
        broken = verdict is Verdict.BROKEN

        def trace(dtype: torch.dtype | None) -> list[list[locate.Event]]:
            both = zip((trial.first, trial.second), seeds, strict=True)
            return [self.question.trace(self.model, graphs, dtype, seed) for graphs, seed in both]

        try:
            runs = trace(None)
        except Exception:
            return locate.raising(self.model, trial.second)
        if broken:
            with suppress(Exception):  # the model knows one dtype only
                runs += trace(self.other)

        def agree(twos: list[Two]) -> bool:
            if trial.first.counts == trial.match.others and twos[0][0].shape != twos[0][1].shape:
                return False
            if not twos[0][0].is_floating_point():  # indices of nodes, which change with their order
                return True
            ways = [list(every_match(*two, trial.match, trial.first, trial.second)) for two in twos]
            return not ways[0] or any(self._agree(way, broken) for way in zip(*ways, strict=False))

        return self.question.locate(runs, self.model, agree)

    def _agree(self, way: tuple[Two, ...], broken: bool) -> bool:
        if same_bits(*way[0]):
            return True
        return broken and judge([Pair("", 0, *way)], self.own).verdict is not Verdict.BROKEN


def examine(
    model: Model,
    question: Question,
    groups: Sequence[Sequence[Trial]],
    show: Callable[[Examination, Trial, Verdict, str], str],
) -> Report:
    """Run all trials of a question on a model, and report the worst.

    Args:
        model: any callable.
        question: the question.
        groups: trials; those of a group share their first input.
        show: writes the counterexample of a trial.
    """
    with untouched():
        start = groups[0][0].first
        changing = _changing(model, start)
        examination = Examination(model, question, narrowest(model, start))
        about: dict[str, Any] = dict(check=question.check, model=name_of(model), mode=modes(model))
        about |= dict(dtype=str(examination.own), trials=sum(len(group) for group in groups))
        early = changing or _random(examination, start)
        if early is not None:
            return Report(**{**about, **early})
        judged = [(examination.judge(group), group) for group in groups]
        order = list(Verdict)
        worst, group = max(judged, key=lambda item: (order.index(item[0].verdict), item[0].difference))
        if worst.verdict is Verdict.IDENTICAL:
            return Report(**about, verdict=worst.verdict, reason=worst.reason)
        trial = group[worst.trial]
        return Report(
            **about,
            verdict=worst.verdict,
            reason=worst.reason,
            output=worst.name,
            shown_by=trial.label,
            difference=worst.difference,
            wide_difference=worst.wide_difference,
            error=worst.error,
            units=worst.difference / (torch.finfo(narrow(examination.own)).eps / 2),
            culprit=examination.locate(trial, worst.verdict),
            counterexample=show(examination, trial, worst.verdict, worst.name),
        )


def narrowest(model: Model, graphs: Graphs) -> torch.dtype:
    """Return the coarsest float dtype among weights, input and results."""
    values = [*graphs.nodes.values(), *graphs.edges.values()]
    for _, root in roots(model):
        values += [*root.parameters(), *root.buffers()]
    values += outputs(model, graphs, None, 0).values()
    found = {value.dtype for value in values if value.dtype in FLOATS}
    return max(found, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float32)


def _random(examination: Examination, graphs: Graphs) -> dict[str, Any] | None:
    """Run the same input with two seeds, and return what to report if the results differ."""
    question, model = examination.question, examination.model
    first, second = (question.measure(model, graphs, None, seed) for seed in (0, 1))
    differing = [name for name in first if name not in second or not same_bits(first[name], second[name])]
    if not differing:
        return None
    mode = modes(model)
    hint = "; try model.eval()" if "training" in mode else ""
    trial = Trial("the same input twice", graphs, graphs, same(graphs))
    return dict(
        verdict=Verdict.RANDOM,
        reason=f"the same input gives different results {mode}{hint}".replace("  ", " "),
        output=differing[0],
        shown_by=trial.label,
        culprit=examination.locate(trial, Verdict.RANDOM, seeds=(0, 1)),
    )


def _changing(model: Model, graphs: Graphs) -> dict[str, Any] | None:
    """Run the model, and return what to report if it changes its input."""
    before = dict(tensors(graphs.call(), "input"))
    _, arguments = run(model, graphs)
    after = dict(tensors(arguments, "input"))
    changed = [name for name in before if name not in after or not same_bits(before[name], after[name])]
    if not changed:
        return None
    return dict(
        verdict=Verdict.BROKEN,
        reason=f"the model changes its input: {', '.join(changed)}",
        output=changed[0],
        shown_by="the input before and after the call",
        culprit=locate.first_change(model, graphs),
    )
