"""Does a readout keep the value contract? Every failure comes with three lines that show it."""

from readouts.testing.conformance.subject import Subject, TargetError
from readouts.testing.conformance.suite import Conformance, Result, check_conformance

__all__ = ["Conformance", "Result", "Subject", "TargetError", "check_conformance"]
