"""Turn a report into a passed or failed assertion."""

from __future__ import annotations

from readouts.testing.report import Report
from readouts.testing.verdict import Verdict

ALLOWED = {
    "rounding": (Verdict.IDENTICAL, Verdict.ROUNDING),
    "identical": (Verdict.IDENTICAL,),
}


def insist(report: Report, allow: str) -> None:
    """Raise AssertionError with the text of the report unless its verdict is allowed.

    Raises:
        ValueError: `allow` is neither "rounding" nor "identical".
    """
    check_allow(allow)
    if report.verdict not in ALLOWED[allow]:
        raise AssertionError(str(report))


def check_allow(allow: str) -> None:
    """Raise unless it is a name of what may be allowed."""
    if allow not in ALLOWED:
        raise ValueError(f'allow: expected "rounding" or "identical", got {allow!r}')
