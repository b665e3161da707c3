"""Run a model on pairs of inputs whose results ought to agree, judge the pairs, and report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from readouts.testing import culprit
from readouts.testing.align import Two, aligned, everyhow
from readouts.testing.graphs import Graphs
from readouts.testing.moves import Match, same
from readouts.testing.outputs import same_bits, tensors
from readouts.testing.report import Culprit, Report, name_of
from readouts.testing.running import Model, modes, roots, run, untouched
from readouts.testing.verdict import Judgement, Pair, Verdict, judge

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Trial:
    """Two inputs, where the parts of the first stand in the second, and a few words on how they differ."""

    label: str
    first: Graphs
    second: Graphs
    match: Match


@dataclass(frozen=True)
class Question:
    """What is measured, and how the rows of two measurements correspond.

    Attributes:
        check: name of the property.
        measure: named tensors of a model on an input, in a dtype, with a seed.
        rows: what the rows of two tensors of this name move with; see `align.moving`.
        trace: the events of a run.
        locate: names the place where such events stop agreeing.
    """

    check: str
    measure: Callable[[Model, Graphs, torch.dtype | None, int], dict[str, Tensor]]
    rows: Callable[[str, Tensor, Tensor, Match], str]
    trace: Callable[[Model, Graphs, torch.dtype | None, int], list[culprit.Event]] = culprit.trace
    locate: Callable[[list[list[culprit.Event]], Model, culprit.Agree], Culprit] = culprit.first_disagreement


def outputs(model: Model, graphs: Graphs, dtype: torch.dtype | None, seed: int) -> dict[str, Tensor]:
    """Every tensor that the model returns."""
    output, _ = run(model, graphs, dtype, seed)
    found = {name: value.detach() for name, value in tensors(output)}
    if not found:
        raise TypeError(f"model: expected tensors in the output, got {type(output).__name__}")
    return found


@dataclass
class Examination:
    """A model under a question: runs, judges and locates; keeps the results of first inputs.

    Attributes:
        model: the model.
        question: what is asked.
        own: the narrowest float dtype of the model, its input and its output.
    """

    model: Model
    question: Question
    own: torch.dtype
    _kept: dict[tuple[int, torch.dtype | None], tuple[Graphs, dict[str, Tensor]]] = field(
        default_factory=dict, repr=False
    )

    @property
    def narrow(self) -> torch.dtype:
        """The dtype with the coarser rounding."""
        return torch.float32 if self.own == torch.float64 else self.own

    @property
    def other(self) -> torch.dtype:
        """The dtype to compare with."""
        return torch.float32 if self.own == torch.float64 else torch.float64

    def judge(self, trials: Sequence[Trial]) -> Judgement:
        """Judge trials that share their first input."""
        pairs = []
        for place, trial in enumerate(trials):
            first = self._first(trial.first, None)
            try:
                second = self.question.measure(self.model, trial.second, None, 0)
            except Exception as error:  # whatever the model raises is what it does
                reason = f"raises {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                return Judgement(Verdict.BROKEN, "output", place, float("inf"), reason=reason)
            if first.keys() != second.keys():
                reason = f"the outputs are {sorted(first)} once and {sorted(second)} then"
                return Judgement(Verdict.BROKEN, "output", place, float("inf"), reason=reason)
            pairs += [
                Pair(name, place, self._align(name, first[name], second[name], trial.match)) for name in first
            ]
        if all(same_bits(*pair.own) for pair in pairs):
            return Judgement(Verdict.IDENTICAL, reason="every bit is the same")
        return judge(self._with_other(pairs, trials), self.narrow, torch.float64, self.own)

    def _with_other(self, pairs: list[Pair], trials: Sequence[Trial]) -> list[Pair]:
        """Add what the other dtype gives where the bits differ."""
        added = []
        seconds: dict[int, dict[str, Tensor]] = {}
        for pair in pairs:
            if same_bits(*pair.own):
                added.append(pair)
                continue
            trial = trials[pair.trial]
            try:
                if pair.trial not in seconds:
                    seconds[pair.trial] = self.question.measure(self.model, trial.second, self.other, 0)
                first = self._first(trial.first, self.other)[pair.name]
                two = self._align(pair.name, first, seconds[pair.trial][pair.name], trial.match)
                fits = two[0].shape == two[1].shape == pair.own[0].shape
                added.append(Pair(pair.name, pair.trial, pair.own, two if fits else None))
            except Exception:  # the model knows one dtype only
                added.append(pair)
        return added

    def _align(self, name: str, first: Tensor, second: Tensor, match: Match) -> Two:
        return aligned(first, second, self.question.rows(name, first, second, match), match)

    def _first(self, graphs: Graphs, dtype: torch.dtype | None) -> dict[str, Tensor]:
        key = (id(graphs), dtype)
        if key not in self._kept:
            self._kept[key] = (graphs, self.question.measure(self.model, graphs, dtype, 0))
        return self._kept[key][1]

    def shows(self, verdict: Verdict, name: str) -> Callable[[Trial], bool]:
        """Return a function that tells whether a trial by itself gives this verdict on this output."""

        def asked(trial: Trial) -> bool:
            judgement = self.judge([trial])
            return (judgement.verdict, judgement.name) == (verdict, name)

        return asked

    def describe(self, trial: Trial, name: str) -> tuple[str, bool]:
        """Tell what the rows of an output move with, and whether `assert_close` would let it pass."""
        try:
            first = self._first(trial.first, None)[name]
            second = self.question.measure(self.model, trial.second, None, 0)[name]
        except Exception:  # the model raises, or returns something else
            return "", False
        rows = self.question.rows(name, first, second, trial.match)
        try:
            torch.testing.assert_close(*aligned(first, second, rows, trial.match))
        except AssertionError:
            return rows, False
        return rows, True

    def locate(self, trial: Trial, verdict: Verdict, seeds: tuple[int, int] = (0, 0)) -> Culprit | None:
        """Name the first module where this trial shows this verdict; None where the traces cannot be had."""
        broken = verdict is Verdict.BROKEN

        def trace(dtype: torch.dtype | None) -> list[list[culprit.Event]]:
            both = zip((trial.first, trial.second), seeds, strict=True)
            return [self.question.trace(self.model, graphs, dtype, seed) for graphs, seed in both]

        try:
            runs = trace(None)
        except Exception:
            return culprit.raising(self.model, trial.second)
        if broken:
            with suppress(Exception):  # the model knows one dtype only
                runs += trace(self.other)

        sizes = (trial.first.num_nodes, trial.first.num_edges, trial.first.size)

        def agree(twos: list[Two]) -> bool:
            if sizes == trial.match.others and twos[0][0].shape != twos[0][1].shape:
                return False
            if not twos[0][0].is_floating_point():  # numbers of nodes, or other names for them
                return True
            ways = [list(everyhow(*two, trial.match, trial.first, trial.second)) for two in twos]
            return not ways[0] or any(self._agree(way, broken) for way in zip(*ways, strict=False))

        return self.question.locate(runs, self.model, agree)

    def _agree(self, way: tuple[Two, ...], broken: bool) -> bool:
        own = way[0]
        if same_bits(*own):
            return True
        if not broken:
            return False
        pair = Pair("", 0, own, *way[1:])
        return judge([pair], self.narrow, torch.float64, self.own).verdict is not Verdict.BROKEN


def examine(
    model: Model,
    question: Question,
    groups: Sequence[Sequence[Trial]],
    show: Callable[[Examination, Trial, Verdict, str], str],
) -> Report:
    """Answer a question about a model.

    Args:
        model: any callable.
        question: what is asked.
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
            units=worst.difference / (torch.finfo(examination.narrow).eps / 2),
            culprit=examination.locate(trial, worst.verdict),
            counterexample=show(examination, trial, worst.verdict, worst.name),
        )


def narrowest(model: Model, graphs: Graphs) -> torch.dtype:
    """Coarsest float dtype among weights, input and results."""
    values = [*graphs.nodes.values(), *graphs.edges.values()]
    for _, root in roots(model):
        values += [*root.parameters(), *root.buffers()]
    values += outputs(model, graphs, None, 0).values()
    found = {value.dtype for value in values if value.dtype in FLOATS}
    return max(found, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float32)


def _random(examination: Examination, graphs: Graphs) -> dict[str, Any] | None:
    """Run the same input with two seeds."""
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
    """Look whether the model changes its input."""
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
        culprit=culprit.first_change(model, graphs),
    )
