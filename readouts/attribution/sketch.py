"""`Sketch`: a graph laid out in the plane, ready to be painted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bond:
    """A line between two nodes: 1, 1.5 (aromatic), 2 or 3 strokes; in a ring the second is on its inside."""

    first: int
    second: int
    order: float = 1.0
    ring_centre: Points | None = None


@dataclass(frozen=True)
class Sketch:
    """Points [n, 2] in units of a bond, centred; the score and the label of every node; lines between them.

    In a skeletal formula lines run through the nodes, and atoms without a label are carbon.
    """

    points: Points
    scores: list[float]
    labels: list[str]
    bonds: list[Bond]
    skeletal: bool

    @property
    def extent(self) -> Points:
        """Width and height [2]."""
        return np.ptp(self.points, axis=0)


def centred(points: Points, unit: float) -> Points:
    """Move the middle to the origin and make the unit 1."""
    return (points - (points.min(axis=0) + points.max(axis=0)) / 2) / unit
