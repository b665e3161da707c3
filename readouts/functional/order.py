"""Order statistics as functions: median, quantiles and trimmed mean of every graph.

An order statistic depends on the values only, not on the order of the nodes; therefore the bits of outputs
and gradients are the same for every order.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from readouts import ops
from readouts.functional.checks import graphs_of
from readouts.functional.elementary import finish
from readouts.functional.parts import in_parts
from readouts.keywords import explain_keywords
from readouts.ops import wide_dtype
from readouts.reductions import result_dtype
from readouts.segments import Segments, flat

MIDDLES = ("midpoint", "lower", "higher")
DISCRETE = ("lower", "higher", "midpoint", "nearest")
# the value of rank r (from 1) is the quantile q = (r - alpha) / (n + 1 - alpha - beta); linear between ranks
CONTINUOUS = {
    "linear": (1.0, 1.0),
    "hazen": (0.5, 0.5),
    "weibull": (0.0, 0.0),
    "median_unbiased": (1 / 3, 1 / 3),
    "normal_unbiased": (3 / 8, 3 / 8),
}
INTERPOLATIONS = (*CONTINUOUS, *DISCRETE)


@explain_keywords
def median(
    x: Tensor,
    batch: Tensor | Segments | None = None,
    *,
    ptr: Tensor | None = None,
    size: int | None = None,
    interpolation: str = "midpoint",
    empty: float = 0,
) -> Tensor:
    """Take the median over the nodes of every graph.

    Example:
        >>> x = torch.tensor([[1.0], [2.0], [7.0], [4.0]])
        >>> median(x, torch.tensor([0, 0, 0, 1]))
        tensor([[2.],
                [4.]])

    With x_(0) <= ... <= x_(n - 1) the sorted values: ``"lower"`` is x_((n - 1) // 2), ``"higher"`` is
    x_(n // 2), and ``"midpoint"`` is the mean of both, rounded once and never -0. -0 lies below +0. A NaN
    makes its graph and feature NaN; the midpoint of -inf and inf is NaN. Nodes tied at the value share the
    gradient equally; for the midpoint, each of the two values gets half of the gradient.

    Args:
        x: node features [N, *features], any real dtype.
        batch, ptr, size: as for `readouts.readout`.
        interpolation: ``"midpoint"``, ``"lower"`` or ``"higher"``.
        empty: value of a graph without nodes.

    Returns:
        [B, *features] in the dtype of x; midpoints of integers have the default float dtype.

    Raises:
        TypeError, ValueError, IndexError: an argument is invalid; see `readouts.readout`.

    Source: Galton, "Statistics by intercomparison" (1875); PyG's median is ``"lower"``.
    """
    check_choice("interpolation", interpolation, MIDDLES)
    segments = graphs_of(x, batch, ptr, size, empty)
    rows, n = flat(segments.nodes(x)), segments.count
    if interpolation == "midpoint":
        out = segments.midpoint(rows).unsqueeze(1)
    else:
        rank = (n - 1) // 2 if interpolation == "lower" else n // 2
        out = segments.select(rows, rank.unsqueeze(1))
    return finish(out, x, segments, True, empty)


@explain_keywords
def quantile(
    x: Tensor,
    batch: Tensor | Segments | None,
    q: float | Sequence[float] | Tensor,
    *,
    ptr: Tensor | None = None,
    size: int | None = None,
    interpolation: str = "linear",
    empty: float = 0,
) -> Tensor:
    """Take quantiles over the nodes of every graph, as `numpy.quantile` defines them.

    Example:
        >>> quantile(torch.tensor([0.0, 1.0, 4.0, 9.0]), None, [0.5, 1.0])
        tensor([[2.5000, 9.0000]])

    With x_(0) <= ... <= x_(n - 1) the sorted values and p = q (n - 1): ``"lower"`` is x_(floor p),
    ``"higher"`` is x_(ceil p), ``"midpoint"`` is the mean of both, ``"nearest"`` is the one with the rank
    nearer to p (the even rank if both are equally near), and ``"linear"`` is
    (1 - w) x_(floor p) + w x_(floor p + 1) with w = p - floor p, computed in float64 and rounded.
    ``"hazen"``, ``"weibull"``, ``"median_unbiased"`` and ``"normal_unbiased"`` interpolate linearly at other
    positions p. NaN, zeros and ties are as for `median`.

    Args:
        x: node features [N, *features], any real dtype.
        batch, ptr, size: as for `readouts.readout`.
        q: a number from 0 to 1, or several. The values of a tensor [] or [Q] are not checked. A tensor gets a
            gradient where the interpolation is linear: dp/dq times x_(floor p + 1) - x_(floor p).
        interpolation: one of the names above.
        empty: value of a graph without nodes.

    Returns:
        [B, *features]; for several quantiles [B, *features[:-1], Q * features[-1]] (and [B, Q] for
        one-dimensional x), blocks in the order of q. The dtype is that of x; averages of integers have the
        default float dtype.

    Raises:
        TypeError, ValueError, IndexError: an argument is invalid; see `readouts.readout`.

    Source: Hyndman and Fan, "Sample quantiles in statistical packages" (The American Statistician, 1996).
    """
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    levels = all_levels_of(q)
    segments = graphs_of(x, batch, ptr, size, empty)
    positions = torch.stack([position_of(segments.count, q, interpolation) for q in levels], dim=1)
    positions = (positions if interpolation in CONTINUOUS else positions.detach()).unsqueeze(2)
    function = functools.partial(_quantiles, interpolation)
    out = in_parts(function, segments, (flat(segments.nodes(x)),), (positions,), temporaries=16)
    single = q.dim() == 0 if isinstance(q, Tensor) else isinstance(q, int | float)
    return finish(out, x, segments, single, empty)


@explain_keywords
def trimmed_mean(
    x: Tensor,
    batch: Tensor | Segments | None,
    proportion: float,
    *,
    ptr: Tensor | None = None,
    size: int | None = None,
    empty: float = 0,
) -> Tensor:
    """Average the nodes of every graph without the k least and the k greatest values of every feature.

    Example:
        >>> trimmed_mean(torch.tensor([0.0, 1.0, 2.0, 3.0, 100.0]), None, 0.2)
        tensor([2.])

    The value is the sum of x_(k) ... x_(n - 1 - k) divided by n - 2 k, with k = floor(proportion n): exact,
    then rounded once. A NaN makes its graph and feature NaN; infinities that are kept follow IEEE 754. Every
    kept value has the gradient 1 / (n - 2 k). Nodes tied at the least or the greatest kept value share its
    gradient equally, including those that were cut.

    Args:
        x: node features [N, *features], any real dtype.
        batch, ptr, size: as for `readouts.readout`.
        proportion: share of the nodes to leave out at either end, from 0 to less than 1/2.
        empty: value of a graph without nodes.

    Returns:
        [B, *features] in the dtype of x; for integers in the default float dtype.

    Raises:
        TypeError, ValueError, IndexError: an argument is invalid; see `readouts.readout`.

    Source: Tukey and McLaughlin, "Less vulnerable confidence and significance procedures" (Sankhya A, 1963).
    """
    check_proportion(proportion)
    segments = graphs_of(x, batch, ptr, size, empty)
    n = segments.count
    cut = torch.minimum((n.to(wide_dtype(n)) * proportion).long(), ((n - 1) // 2).clamp(min=0))
    rows = flat(segments.nodes(x))
    if segments.order is None:  # then there are no temporaries to speak of
        out = _trimmed(segments, rows, cut)
    else:
        out = in_parts(_trimmed, segments, (rows,), (cut,), temporaries=24)
    return finish(out.unsqueeze(1), x, segments, True, empty)


def _trimmed(segments: Segments, rows: Tensor, cut: Tensor) -> Tensor:
    return segments.trimmed_mean(rows, cut)


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise unless a value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")


def levels_of(q: float | Sequence[float]) -> Sequence[float]:
    """Return one or several numbers as a list; raise unless there is one and all lie from 0 to 1."""
    if not isinstance(q, int | float | list | tuple):
        raise TypeError(f"q: expected a number or several, got {type(q).__name__}")
    levels = [q] if isinstance(q, int | float) else list(q)
    if not levels:
        raise ValueError("q: expected at least one number, got none")
    for level in levels:
        if not isinstance(level, int | float):
            raise TypeError(f"q: expected numbers, got {type(level).__name__}")
        if not 0 <= level <= 1:
            raise ValueError(f"q: expected numbers from 0 to 1, got {level}")
    return levels


def all_levels_of(q: float | Sequence[float] | Tensor) -> Sequence[float | Tensor]:
    """Return numbers as `levels_of` does, the entries of a tensor as `level_tensors` does."""
    return level_tensors(q) if isinstance(q, Tensor) else levels_of(q)


def check_proportion(proportion: float) -> None:
    """Raise unless the share left out at either end is a number from 0 to less than 1/2."""
    if not isinstance(proportion, int | float):
        raise TypeError(f"proportion: expected a number, got {type(proportion).__name__}")
    if not 0 <= proportion < 0.5:
        raise ValueError(f"proportion: expected a number from 0 to less than 0.5, got {proportion}")


def level_tensors(q: Tensor) -> Sequence[Tensor]:
    """Return the levels of a tensor [] or [Q] one by one; raise unless they are floats."""
    if not q.is_floating_point():
        raise TypeError(f"q: expected floating-point numbers, got {q.dtype}")
    if q.dim() > 1 or q.numel() == 0:
        raise ValueError(f"q: expected a scalar or one dimension of numbers, got shape {tuple(q.shape)}")
    return q.reshape(-1).unbind()


def _quantiles(interpolation: str, segments: Segments, rows: Tensor, positions: Tensor) -> Tensor:
    """Return quantiles [B, Q, F] at positions [B, Q, 1] in the sorted values."""
    places = positions.detach().squeeze(2)
    if interpolation in ("lower", "higher", "nearest"):
        chosen = {"lower": torch.floor, "higher": torch.ceil, "nearest": torch.round}[interpolation]
        return segments.select(rows, chosen(places).long())
    below = places.floor()
    above = places.ceil() if interpolation == "midpoint" else below + 1
    values = segments.select(rows, torch.cat([below, above], dim=1).long())
    low, high = values.chunk(2, dim=1)
    if interpolation == "midpoint":
        return ops.mean_of_two(low, high)
    return between(low, high, positions - below.unsqueeze(2))


def position_of(n: Tensor, q: float | Tensor, interpolation: str) -> Tensor:
    """Return the position of a quantile in the sorted values, from 0 to n - 1; not an integer in general."""
    n, q = n.to(wide_dtype(n)), q.to(wide_dtype(q)) if isinstance(q, Tensor) else q
    alpha, beta = CONTINUOUS.get(interpolation, (1.0, 1.0))
    position = (n - 1) * q if alpha == beta == 1 else n * q + (alpha + q * (1 - alpha - beta)) - 1
    return torch.minimum(position, n - 1).clamp(min=0)


def between(low: Tensor, high: Tensor, weight: Tensor) -> Tensor:
    """Interpolate linearly from low to high; where high - low is not finite, (1 - w) low + w high."""
    dtype = result_dtype("mean", low.dtype)
    low, high, fixed = low.to(weight.dtype), high.to(weight.dtype), weight.detach()
    rise = high - low
    finite = rise.abs() < math.inf
    inner = torch.addcmul(torch.where(finite, low, 0), weight, torch.where(finite, rise, 0))
    outer = torch.where(fixed == 0, low, torch.addcmul((1 - fixed) * low, fixed, high))
    return torch.where(finite, inner, outer).to(dtype)
