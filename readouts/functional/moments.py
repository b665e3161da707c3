"""Moments of every graph: mean, standard deviation, skewness and kurtosis."""

from __future__ import annotations

import torch
from torch import Tensor

from readouts.functional.checks import averaged_graphs_of, cast_back, to_compute_dtype
from readouts.functional.elementary import reduced
from readouts.functional.parts import in_parts
from readouts.keywords import explain_keywords
from readouts.segments import Segments


@explain_keywords
def moments(
    x: Tensor,
    batch: Tensor | Segments | None = None,
    *,
    ptr: Tensor | None = None,
    size: int | None = None,
    empty: float = 0,
) -> Tensor:
    """Return mean mu, standard deviation s, skewness and kurtosis of every graph, concatenated: [B, 4 F].

    Example:
        >>> moments(torch.tensor([[0.0], [2.0]]))
        tensor([[1., 1., 0., 1.]])

    With z_i = (x_i - mu) / s, skewness is sum_i z_i^3 / n and kurtosis is sum_i z_i^4 / n (3 for a normal
    distribution). Where s is 0, skewness, kurtosis and all gradients except that of mu are 0.
    Deviations and their powers are computed in float64; x [N] counts as [N, 1]. For the arguments see
    `softmax_mean`.

    Source: Corso et al., arXiv 2004.05718 (moments as aggregators).
    """
    segments = averaged_graphs_of(x, batch, ptr, size, empty)
    x = x.unsqueeze(1) if x.dim() == 1 else x
    out = in_parts(_moments, segments, (segments.nodes(x),), temporaries=96).flatten(-2)
    return segments.fill_empty(out, empty)


def _moments(segments: Segments, x: Tensor) -> Tensor:
    """Return the moments [B, ..., 4, F] of x [N, ..., F]."""
    wide = to_compute_dtype(x, torch.float64)
    mean, std = reduced(wide, segments, ("mean", "std")).chunk(2, dim=-1)
    flat = std == 0
    inverse = torch.where(flat, 0, 1 / torch.where(flat, 1, std))
    scores = (wide - segments.expand(mean)) * segments.expand(inverse)
    cubes = scores * scores * scores
    shape = reduced(torch.cat([cubes, cubes * scores], dim=-1), segments, "mean")
    return cast_back(torch.stack([mean, std, *shape.chunk(2, dim=-1)], dim=-2), x)
