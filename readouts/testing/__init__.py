"""Checks of permutation invariance, batch independence and more, which name the layer at fault."""

from readouts.testing.discrimination import ReportCard, check_size_sensitivity
from readouts.testing.edges import assert_edge_order_invariant, check_edge_order_invariance
from readouts.testing.gradients import assert_gradient_equivariant, check_gradient_equivariance
from readouts.testing.independence import assert_batch_independent, check_batch_independence
from readouts.testing.permutations import (
    assert_permutation_equivariant,
    assert_permutation_invariant,
    check_permutation_equivariance,
    check_permutation_invariance,
)
from readouts.testing.positions import assert_motion_invariant, check_motion_invariance
from readouts.testing.report import Culprit, Report
from readouts.testing.strategies import graph_batches, graphs, permutations_of
from readouts.testing.verdict import Verdict

__all__ = [
    "Culprit",
    "Report",
    "ReportCard",
    "Verdict",
    "assert_batch_independent",
    "assert_edge_order_invariant",
    "assert_gradient_equivariant",
    "assert_motion_invariant",
    "assert_permutation_equivariant",
    "assert_permutation_invariant",
    "check_batch_independence",
    "check_edge_order_invariance",
    "check_gradient_equivariance",
    "check_motion_invariance",
    "check_permutation_equivariance",
    "check_permutation_invariance",
    "check_size_sensitivity",
    "graph_batches",
    "graphs",
    "permutations_of",
]
