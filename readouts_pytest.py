"""The pytest plugin of `readouts`: invariance checks as fixtures, seeded shuffles, a summary of verdicts.

It lives outside the package, and imports torch only when a test asks for a check or a permutation, so
that starting pytest costs nothing.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import Tensor

    Assertion = Callable[..., None]

PROPERTY = "readouts verdict"
VERDICTS = ("broken", "random", "rounding", "identical bits")  # the worst first
SETTINGS = ("permutations", "seed", "allow")


def _positive(text: str) -> int:
    """Parse a number of permutations, at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text!r}")
    return int(text)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options --readouts-permutations and --readouts-seed."""
    group = parser.getgroup("readouts", "permutation invariance of graph models")
    group.addoption(
        "--readouts-permutations",
        type=_positive,
        default=10,
        metavar="N",
        help="number of permutations of every check and of node_permutations (default: 10)",
    )
    group.addoption(
        "--readouts-seed", type=int, default=0, metavar="SEED", help="seed of the permutations (default: 0)"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        'readouts(permutations=N, seed=SEED, allow="identical"): for the fixtures of readouts in this test; '
        'allow is "rounding" (the default) or "identical", which requires identical bits',
    )


def _settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the settings of a test: those of its marker, else those of the command line."""
    marker = request.node.get_closest_marker("readouts")
    given = dict(marker.kwargs) if marker else {}
    unknown = [str(value) for value in marker.args] if marker else []
    unknown += [name for name in given if name not in SETTINGS]
    if unknown:
        raise pytest.UsageError(f"readouts marker: expected {', '.join(SETTINGS)}=..., got {unknown[0]}")
    options = {name: request.config.getoption(f"--readouts-{name}") for name in SETTINGS[:2]}
    settings = {"allow": "rounding", **options, **given}
    if not isinstance(settings["permutations"], int) or settings["permutations"] < 1:
        raise pytest.UsageError(f"permutations: expected at least 1, got {settings['permutations']!r}")
    from readouts.testing.report import check_allow

    try:
        check_allow(settings["allow"])
    except ValueError as problem:
        raise pytest.UsageError(str(problem)) from None
    return settings


@pytest.fixture
def node_permutations(request: pytest.FixtureRequest) -> Callable[[int], Iterator[Tensor]]:
    """Seeded random orders of n nodes: ``for order in node_permutations(n): ...`` with int64 [n]."""
    settings = _settings(request)

    def permutations(num_nodes: int) -> Iterator[Tensor]:
        import torch

        generator = torch.Generator().manual_seed(settings["seed"])
        for _ in range(settings["permutations"]):
            yield torch.randperm(num_nodes, generator=generator)

    return permutations


@pytest.fixture
def assert_permutation_invariant(request: pytest.FixtureRequest) -> Assertion:
    """``assert_permutation_invariant(model, *inputs)``: the outputs do not change with the order of nodes."""
    return _assertion(request, "permutation_invariance")


@pytest.fixture
def assert_permutation_equivariant(request: pytest.FixtureRequest) -> Assertion:
    """``assert_permutation_equivariant(model, *inputs)``: the outputs are permuted like the nodes."""
    return _assertion(request, "permutation_equivariance")


@pytest.fixture
def assert_edge_order_invariant(request: pytest.FixtureRequest) -> Assertion:
    """``assert_edge_order_invariant(model, *inputs)``: nothing depends on the order of the edges."""
    return _assertion(request, "edge_order_invariance")


@pytest.fixture
def assert_gradient_equivariant(request: pytest.FixtureRequest) -> Assertion:
    """``assert_gradient_equivariant(model, *inputs)``: the gradients are permuted like the nodes."""
    return _assertion(request, "gradient_equivariance")


@pytest.fixture
def assert_batch_independent(request: pytest.FixtureRequest) -> Assertion:
    """``assert_batch_independent(model, *inputs)``: a graph gets the same result in every batch."""
    return _assertion(request, "batch_independence", names=("allow",))


@pytest.fixture
def assert_motion_invariant(request: pytest.FixtureRequest) -> Assertion:
    """``assert_motion_invariant(model, z, pos=pos)``: rotating and shifting positions changes no output."""
    return _assertion(request, "motion_invariance", names=("seed", "allow"))


@pytest.fixture
def assert_conformance() -> Assertion:
    """``assert_conformance(readout, rows=..., skip=..., levels=...)``: a readout keeps the value contract."""

    def assertion(target: Any, *arguments: Any, **given: Any) -> None:
        __tracebackhide__ = True
        from readouts.testing import conformance

        conformance.assert_conformance(target, *arguments, **given)

    return assertion


def _assertion(request: pytest.FixtureRequest, check: str, names: Sequence[str] = SETTINGS) -> Assertion:
    """Return `readouts.testing.assert_...` with the settings of the test; it records its verdict."""
    defaults = _settings(request)

    def assertion(model: Callable[..., Any], *inputs: Any, **given: Any) -> None:
        __tracebackhide__ = True
        from readouts import testing

        settings = {name: defaults[name] for name in names} | given
        allow = settings.pop("allow")
        report = getattr(testing, f"check_{check}")(model, *inputs, **settings)
        request.node.user_properties.append((PROPERTY, (str(report.verdict), report.check, report.model)))
        report.raise_unless(allow)

    return assertion


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the verdicts of all checks, the worst first; with -q below their counts, with -qq these alone."""
    found = [
        (*verdict, report.nodeid)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "teardown"  # the report that has all checks of its test
        for name, verdict in report.user_properties
        if name == PROPERTY
    ]
    if not found:
        return
    if terminalreporter.verbosity < 0:
        count = Counter(verdict for verdict, *_ in found)
        counts = ", ".join(f"{count[verdict]} {verdict}" for verdict in VERDICTS if count[verdict])
        terminalreporter.write_line(f"readouts verdicts: {counts}")
    else:
        terminalreporter.section("readouts verdicts")
    if terminalreporter.verbosity < -1:
        return
    for verdict, check, model, test in sorted(found, key=lambda each: (VERDICTS.index(each[0]), each[3])):
        shown = verdict if verdict in VERDICTS[2:] else verdict.upper()
        terminalreporter.write_line(f"{shown:<16}{check:<26}{model:<20}{test}")
