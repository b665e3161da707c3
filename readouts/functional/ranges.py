"""Float64 averages that are in range although their sums, products or powers are not.

Values are multiplied by powers of two, which is exact, one power for every graph and feature. It is 1 where
nothing would overflow, so that the value of a graph does not depend on the other graphs of the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from readouts import ops
from readouts.numerics.expansions import two_product
from readouts.numerics.rounding import power_of_two, scaled
from readouts.segments import Segments

LARGE, SHRINK = 2.0**960, 2.0**-64  # sums of 2^63 terms below LARGE do not overflow
NOTHING = -5000.0  # exponent of a zero
HEADROOM = 900  # exponent of the greatest product while it is added


def sum_factor(x: Tensor, weight: Tensor, segments: Segments) -> Tensor:
    """Return what to multiply x [N, ...] by, so that sums with weights up to 1 do not overflow, [B, ...]."""
    size = torch.where(weight == 0, 0, x.detach()).abs()
    for d in range(1, x.dim()):
        size = size.amax(d, keepdim=True) if x.shape[d] == 1 != size.shape[d] else size
    top = segments.greatest(size)
    return torch.where((top > LARGE) & top.isfinite(), SHRINK, 1.0).to(x.dtype)


def weighted_mean(x: Tensor, weight: Tensor, segments: Segments) -> Tensor:
    """Return sum_i w_i x_i / sum_i w_i in float64, with products and sums that cannot leave the range.

    Every product is the sum of two numbers without an error (Dekker 1971). They are added exactly, so that
    the result r is right even where products cancel. Derivatives of every order are those of
    r + sum_i w_i (x_i - r) / sum_i w_i with a constant r, whose terms are in range if the derivatives are.
    """
    x = torch.where((weight != 0) | x.isfinite(), x, 0)
    learning = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    with torch.no_grad():
        out, shift = _quotient(x.detach(), weight.detach(), segments)
        if ops.is_eager(x, weight) and not learning:
            return out
        finite = out.isfinite()
        factor = sum_factor(x, weight, segments)
        centre = torch.where(finite, out * factor, 0)
    small = scaled(weight, -_to_nodes(shift, segments))
    terms = small * (x * segments.expand(factor) - segments.expand(centre))
    above, total = segments.totals(terms, small)
    above = torch.where(finite, above - above.detach(), above)  # 0 but for rounding where r is finite
    change = above / segments.fill_empty(total, 1) / factor
    return torch.where(finite, out + change, change)


def _quotient(x: Tensor, weight: Tensor, segments: Segments) -> tuple[Tensor, Tensor]:
    """Return the weighted means, and the exponent of the greatest weight of every graph."""
    x_exponent, weight_exponent = _exponent(x), _exponent(weight)
    high, low = two_product(scaled(weight, -weight_exponent), scaled(x, -x_exponent))
    exponent = torch.where(high == 0, NOTHING, (x_exponent + weight_exponent).double())
    top = segments.greatest(exponent).long()
    shift = _exponent(segments.greatest(torch.where(weight.isfinite(), weight.abs(), 0)))
    place = exponent.long() + _to_nodes(HEADROOM - top, segments)
    power = torch.where(place < -1022, 0, power_of_two(place.clamp(-1022, 1023)))
    power = torch.where(high.isfinite(), power, 1)
    low = torch.where(low.isfinite(), low, 0)
    above, below = segments.totals(high * power, low * power)
    (total,) = segments.totals(scaled(weight, -_to_nodes(shift, segments)))
    total = segments.fill_empty(total, 1)
    rest = _exponent(total)
    return scaled((above + below) / scaled(total, -rest), top - HEADROOM - shift - rest), shift


def power_unit(values: Tensor, p: Tensor, segments: Segments) -> tuple[Tensor, Tensor, Tensor]:
    """Return what to divide by before a power mean, and the least and greatest value of every graph.

    It is the value that dominates, the greatest, or the least if p < 0: then its logarithm, and the error of
    it, is 0. It is not below 2^-900, so that gradients times this number stay in the range.
    """
    most, least = segments.greatest(values), -segments.greatest(-values)
    unit = torch.where(p < 0, least, most)
    return torch.where(unit.isfinite(), unit.clamp(min=2.0**-900), 1), least, most


def bounded(out: Tensor, least: Tensor, most: Tensor) -> Tensor:
    """Return `out`, moved to the nearer bound where rounding has left the bounds; its gradient remains."""
    nearest = torch.minimum(torch.maximum(out.detach(), least), most)
    return torch.where(out == nearest, out, nearest + (out - out.detach()))


def _exponent(values: Tensor) -> Tensor:
    """Return e with |v| = m 2^e and m from 1/2 to 1, int64; 0 where v is 0 or not finite.

    `torch.frexp` would do, but torch.compile makes C++ of it that does not compile.
    """
    values = values.detach()
    small = values.abs() < 2.0**-900
    bits = torch.where(small, values * 2.0**200, values).view(torch.int64)
    exponents = ((bits >> 52) & 2047) - 1022 - torch.where(small, 200, 0)
    return torch.where(values.isfinite() & (values != 0), exponents, 0)


def _to_nodes(exponents: Tensor, segments: Segments) -> Tensor:
    return exponents.index_select(0, segments.index)
