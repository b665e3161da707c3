"""Suite of the value contract for any readout; every failure comes with three lines of code that show it."""

from readouts.testing.conformance.suite import Conformance, Result, assert_conformance, check_conformance
from readouts.testing.conformance.target import Subject, TargetError

__all__ = ["Conformance", "Result", "Subject", "TargetError", "assert_conformance", "check_conformance"]
