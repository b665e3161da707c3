"""Run a model on pairs of inputs whose results must agree, judge the pairs, and report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from readouts.reductions import FLOATS
from readouts.testing import locate
from readouts.testing.inputs import Graphs, Match, same
from readouts.testing.isolation import Model, modes, roots, run, untouched
from readouts.testing.outputs import Two, aligned, every_match, row_differences, row_sizes, same_bits, tensors
from readouts.testing.progress import TimeUpError, listener
from readouts.testing.report import Culprit, Report, name_of
from readouts.testing.verdict import (
    IDENTICAL,
    Judgement,
    Pair,
    Rows,
    Verdict,
    conclude,
    judge,
    measure,
    narrow,
)

Results = dict[str, Tensor]
SCALES = 8


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
        rows: returns along with what the rows of two tensors of this name are permuted; see `outputs.moving`.
        trace: returns the events of a run.
        locate: names the place where such events stop agreeing.
        may_jump: whether results may jump where values are equal up to rounding, as gradients do.
    """

    check: str
    measure: Callable[[Model, Graphs, torch.dtype | None, int], dict[str, Tensor]]
    rows: Callable[[str, Tensor, Tensor, Match], str]
    trace: Callable[[Model, Graphs, torch.dtype | None, int], list[locate.Event]] = locate.trace
    locate: Callable[[list[list[locate.Event]], Model, locate.Agree], Culprit] = locate.first_disagreement
    may_jump: bool = False


def outputs(model: Model, graphs: Graphs, dtype: torch.dtype | None, seed: int) -> dict[str, Tensor]:
    """Return every tensor of the output of a copy of the model, by name."""
    output, _ = run(model, graphs, dtype, seed)
    found = {name: value.detach() for name, value in tensors(output)}
    if not found:
        raise TypeError(f"model: expected tensors in the output, got {type(output).__name__}")
    return found


@dataclass
class Examination:
    """Runs of a model for one question; the results of the last first input are kept.

    Attributes:
        model: the model.
        question: the question.
        own: the narrowest float dtype of the model, its input and its output.
        trials: number of trials to judge, 0 if that is not known.
        shared: inputs of several groups, whose results are kept too.
        done: number of trials judged.
        time_up: whether the time was up before all trials were.
    """

    model: Model
    question: Question
    own: torch.dtype
    trials: int = 0
    shared: Sequence[Graphs] = ()
    done: int = 0
    time_up: bool = False
    _kept: dict[tuple[int, torch.dtype | None], Results] = field(default_factory=dict, repr=False)
    _first: tuple[Graphs, dict[torch.dtype | None, Results]] | None = field(default=None, repr=False)

    @property
    def other(self) -> torch.dtype:
        """The dtype to compare with."""
        return torch.float32 if self.own == torch.float64 else torch.float64

    def judge(self, trials: Sequence[Trial]) -> Judgement:
        """Judge trials that share their first input; when the time is up, those that were made."""
        rows: list[Rows] = []
        for place, trial in enumerate(trials):
            try:
                share = self.done / self.trials if self.trials else None
                listener().stage(f"{self.question.check}: {trial.label}", share)
                found = self._compare(place, trial)
            except TimeUpError:
                if not self.done:
                    raise
                self.time_up = True
                break
            if isinstance(found, Judgement):
                return found
            rows += found
            self.done += 1
        if not rows:
            return IDENTICAL
        largest = self._largest(trials[0].first)
        if not self.question.may_jump or self.time_up:
            return conclude(rows, self.own, largest)
        return conclude(rows, self.own, largest, partial(self._jumps, trials))

    def _compare(self, place: int, trial: Trial) -> list[Rows] | Judgement:
        """Return the rows that differ in a trial; a judgement where there are no rows to compare."""
        first = self.measured_first(trial.first)
        try:
            second = self._measured(trial.second)
        except Exception as error:
            reason = f"raises {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            return Judgement(Verdict.BROKEN, "output", place, math.inf, reason=reason)
        if first.keys() != second.keys():
            reason = f"the outputs are {sorted(first)} in one run and {sorted(second)} in another"
            return Judgement(Verdict.BROKEN, "output", place, math.inf, reason=reason)
        twos = {name: self._two(trial, name, first, second) for name in first}
        differing = {name: two for name, two in twos.items() if not same_bits(*two)}
        others = self._others(trial, differing) if differing else {}
        return [
            measure(Pair(name, place, two, others.get(name)), self.own) for name, two in differing.items()
        ]

    def _measured(self, graphs: Graphs, dtype: torch.dtype | None = None) -> Results:
        if not any(graphs is each for each in self.shared):
            return self.question.measure(self.model, graphs, dtype, 0)
        key = (id(graphs), dtype)
        if key not in self._kept:
            self._kept[key] = self.question.measure(self.model, graphs, dtype, 0)
        return self._kept[key]

    def measured_first(self, graphs: Graphs, dtype: torch.dtype | None = None) -> Results:
        """Return the results of the first input of trials, which are kept until another one comes."""
        if self._first is None or self._first[0] is not graphs:
            self._first = (graphs, {})
        kept = self._first[1]
        if dtype not in kept:
            kept[dtype] = self._measured(graphs, dtype)
        return kept[dtype]

    def _two(self, trial: Trial, name: str, first: Results, second: Results) -> Two:
        """Return a tensor of both inputs, with the rows of the second in the order of the first."""
        one, two = first[name], second[name]
        return aligned(one, two, self.question.rows(name, one, two, trial.match), trial.match)

    def _others(self, trial: Trial, differing: dict[str, Two]) -> dict[str, Two]:
        """Return the tensors of both inputs in the other dtype, as far as the model can be run in it."""
        found = {}
        with suppress(Exception):  # the model knows one dtype only
            first, second = (
                self.measured_first(trial.first, self.other),
                self._measured(trial.second, self.other),
            )
            for name, own in differing.items():
                two = self._two(trial, name, first, second)
                if two[0].shape == two[1].shape == own[0].shape:
                    found[name] = two
        return found

    def _largest(self, graphs: Graphs) -> float:
        """Return the largest finite magnitude among the floats of an input and its results."""
        values = [*graphs.nodes.values(), *graphs.edges.values(), *self.measured_first(graphs).values()]
        return max((float(row_sizes(value).max()) for value in values if value.numel()), default=0.0)

    def _jumps(self, trials: Sequence[Trial], name: str) -> Iterator[Tensor]:
        """Yield how far the rows of a result jump when features are scaled by 1 + k 2^-40, in float64.

        Scaling keeps values equal that are equal in exact arithmetic, and rounds them in other ways. Jumps of
        the first input come first, then those of the second inputs, since rounding can depend on the position
        of a row (the last rows of a matrix product).
        """
        first = trials[0].first
        as_it_is = Trial("", first, first, same(first))
        with suppress(Exception):  # the model knows one dtype only
            for trial in (as_it_is, *trials):
                wide = trial.second.to_dtype(torch.float64)
                base = self._measured(wide, torch.float64)[name]
                jumps = []
                for k in range(1, SCALES + 1):
                    scaled = wide.change_features(partial(torch.mul, other=1 + k * 2.0**-40))
                    jumps.append(row_differences(base, self._measured(scaled, torch.float64)[name]))
                furthest = {name: torch.stack(jumps).amax(dim=0)}
                yield self._two(trial, name, furthest, furthest)[1]

    def shows(self, worst: Judgement) -> Callable[[Trial], bool]:
        """Return a test of whether a trial by itself gives this verdict on this output."""
        wanted = worst.verdict, worst.name, math.isinf(worst.difference)

        def asked(trial: Trial) -> bool:
            judgement = self.judge([trial])
            return (judgement.verdict, judgement.name, math.isinf(judgement.difference)) == wanted

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
    show: Callable[[Examination, Trial, Judgement], str],
    notes: Sequence[str] = (),
    final: bool = True,
    shared: Sequence[Graphs] = (),
) -> Report:
    """Run all trials of a question on a model, and report the worst.

    Args:
        model: any callable.
        question: the question.
        groups: trials; those of a group share their first input.
        show: writes the counterexample of a trial.
        notes: remarks on the trials.
        final: whether nothing follows if the property holds, so that its verdict can be told.
        shared: inputs of several groups.
    """
    with untouched():
        start = groups[0][0].first
        listener().stage(f"{question.check}: the input as it is", 0.0)
        changing, results = _changing(model, start)
        trials = sum(len(group) for group in groups)
        examination = Examination(model, question, narrowest(model, start, results), trials, shared)
        about: dict[str, Any] = dict(check=question.check, model=name_of(model), mode=modes(model))
        about |= dict(dtype=str(examination.own), trials=trials)
        about |= dict(notes=tuple(notes))
        early = changing or _random(examination, start)
        if early is not None:
            report = Report(**{**about, **early})
            listener().verdict(report)
            return report
        judged = []
        for group in groups:
            judged.append((examination.judge(group), group))
            if examination.time_up:
                about["notes"] += (f"the time was up after {examination.done} of {about['trials']} trials",)
                about["trials"] = examination.done
                break
        order = list(Verdict)
        worst, group = max(judged, key=lambda item: (order.index(item[0].verdict), item[0].difference))
        trial = group[worst.trial]
        report = Report(
            **about,
            verdict=worst.verdict,
            reason=worst.reason,
            output=worst.name,
            shown_by=trial.label if worst.name else "",
            difference=worst.difference,
            wide_difference=worst.wide_difference,
            error=worst.error,
            units=worst.difference / (torch.finfo(narrow(examination.own)).eps / 2),
            cancels=worst.cancels,
        )
        if final or not report.invariant:
            listener().verdict(report)
        rounding = worst.verdict is Verdict.ROUNDING and not listener().explain_rounding
        if worst.verdict is Verdict.IDENTICAL or rounding:
            return report
        return _explained(examination, report, trial, worst, show)


def _explained(
    examination: Examination,
    report: Report,
    trial: Trial,
    worst: Judgement,
    show: Callable[[Examination, Trial, Judgement], str],
) -> Report:
    """Add the culprit and the counterexample, as far as there is time."""
    try:
        listener().stage(f"{report.check}: looking for the layer", None)
        report = replace(report, culprit=examination.locate(trial, worst.verdict))
        listener().stage(f"{report.check}: writing a counterexample", None)
        return replace(report, counterexample=show(examination, trial, worst))
    except TimeUpError:
        return replace(report, notes=(*report.notes, "the time was up before all of this was found"))


def narrowest(model: Model, graphs: Graphs, results: Iterable[Tensor]) -> torch.dtype:
    """Return the coarsest float dtype among weights, input and results."""
    values = [*graphs.nodes.values(), *graphs.edges.values(), *results]
    for _, root in roots(model):
        values += [*root.parameters(), *root.buffers()]
    found = {value.dtype for value in values if value.dtype in FLOATS}
    return max(found, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float32)


def _random(examination: Examination, graphs: Graphs) -> dict[str, Any] | None:
    """Run the same input with two seeds, and return what to report if the results differ."""
    question, model = examination.question, examination.model
    first, second = examination.measured_first(graphs), question.measure(model, graphs, None, 1)
    differing = [name for name in first if name not in second or not same_bits(first[name], second[name])]
    if not differing:
        return None
    mode = modes(model)
    hint = "; try model.eval()" if "training" in mode else ""
    trial = Trial("the same input twice", graphs, graphs, same(graphs))
    return dict(
        verdict=Verdict.RANDOM,
        reason=f"the same input gives different results {mode}{hint}".replace("  ", " ").replace(" ;", ";"),
        output=differing[0],
        shown_by=trial.label,
        culprit=examination.locate(trial, Verdict.RANDOM, seeds=(0, 1)),
    )


def _changing(model: Model, graphs: Graphs) -> tuple[dict[str, Any] | None, list[Tensor]]:
    """Run the model; return what to report if it changes its input, and the tensors of its output."""
    before = dict(tensors(graphs.call(), "input"))
    output, arguments = run(model, graphs)
    results = [value for _, value in tensors(output)]
    after = dict(tensors(arguments, "input"))
    changed = [name for name in before if name not in after or not same_bits(before[name], after[name])]
    if not changed:
        return None, results
    report = dict(
        verdict=Verdict.BROKEN,
        reason=f"the model changes its input: {', '.join(changed)}",
        output=changed[0],
        shown_by="the input before and after the call",
        culprit=locate.first_change(model, graphs),
    )
    return report, results
