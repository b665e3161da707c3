"""Float64 averages that are in range although their sums, products or powers are not.

Values are multiplied by powers of two, which is exact, one power for every graph and feature. It is 1 where
nothing would overflow, so that the value of a graph does not depend on the other graphs of the batch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from readouts import ops
from readouts.functional.parts import derivatives
from readouts.numerics.expansions import halves, two_product
from readouts.numerics.rounding import power_of_two, scaled
from readouts.segments import Segments, flat, has_one_weight

LARGE, SHRINK = 2.0**960, 2.0**-64  # sums of 2^63 terms below LARGE do not overflow
NOTHING = -5000.0  # exponent of a zero
CELLS = 2**14  # products that are computed at once
HEADROOM = 900  # exponent of the greatest product while it is added
LEAST = 2.0**-900  # above it, products that underflow, or are flushed, are below the rounding of a sum


def sum_factor(x: Tensor, weight: Tensor, segments: Segments) -> Tensor:
    """Return what to multiply x [N, ...] by, so that sums with weights up to 1 do not overflow, [B, ...]."""
    size = torch.where(weight == 0, 0, x.detach()).abs()
    for d in range(1, x.dim()):
        size = size.amax(d, keepdim=True) if x.shape[d] == 1 != size.shape[d] else size
    top = segments.greatest(size)
    return torch.where((top > LARGE) & top.isfinite(), SHRINK, 1.0).to(x.dtype)


def weighted_mean(x: Tensor, weight: Tensor, segments: Segments) -> Tensor:
    """Return sum_i w_i x_i / sum_i w_i in float64.

    Every product is the sum of two numbers without an error (Dekker 1971). They are added exactly, so that
    the result is right even where products cancel.
    """
    alike = x.shape == weight.shape or has_one_weight(x, weight)
    if alike and x.shape[1:].numel() and ops.is_plain(x, weight):  # the same on every rank of a `Shard`
        return _WeightedMean.apply(x, weight, segments)
    return _careful_mean(x, weight, segments)


class _WeightedMean(torch.autograd.Function):
    """`weighted_mean`, computed quickly where that is harmless: in graphs where nothing leaves the range."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, segments: Segments) -> Tensor:
        with ops.DefaultWord():
            out, total, harmless = _quick_mean(
                flat(x).double().resolve_neg(), flat(weight).double(), segments
            )
            out = out.view(-1, *x.shape[1:])
            if not harmless.all():
                out = _where(harmless, out, _careful_mean(x, weight, segments))
        ctx.save_for_backward(x, weight, out, total, harmless)
        ctx.segments = segments
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, out, total, harmless = ctx.saved_tensors
        careful = functools.partial(_careful_mean, segments=ctx.segments)
        wanted = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled() or not ops.is_eager(grad):  # or several gradients at once
            return *derivatives(careful, (x, weight), wanted, grad), None
        with ops.DefaultWord():
            slope = flat(grad) / total
            if type(ctx.segments) is Segments:  # else ranks, whose slopes may differ, would not agree
                harmless = harmless & (_is_tame(slope) | (flat(grad) == 0)).all(1)
            found = _gradients(x, weight, flat(out), slope, ctx.segments.index, wanted)
            if not harmless.all():
                nodes = harmless.index_select(0, ctx.segments.index)
                others = derivatives(careful, (x, weight), wanted, grad)
                found = [
                    None if a is None or b is None else _where(nodes, a, b)
                    for a, b in zip(found, others, strict=True)
                ]
        return *found, None


def _gradients(
    x: Tensor, weight: Tensor, out: Tensor, slope: Tensor, index: Tensor, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """Return w_i g / t and (x_i - r) . g / t, given the means r and slopes g / t [B, F]."""
    kernel, shared = ops.kernel_for(x.device, torch.float64, "weighted"), has_one_weight(x, weight)
    of_x = None
    if wanted[0]:
        of_x = kernel.scale_rows(slope, flat(weight).double(), index).view(x.shape).to(x.dtype)
    if not wanted[1]:
        return [of_x, None]
    rows, mean = flat(x).double(), out
    if shared:  # a mean is subtracted before the products are added, which would cancel
        rows, mean = rows - out.index_select(0, index), out.new_zeros(len(out), 1)
    of_weight = kernel.weight_gradient(rows, None, slope, mean, index, shared=shared)
    return [of_x, of_weight.view(weight.shape).to(weight.dtype)]


def _where(rows: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return the rows of two tensors."""
    return torch.where(rows.view(-1, *[1] * (first.dim() - 1)), first, second)


def _quick_mean(x: Tensor, weight: Tensor, segments: Segments) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weighted means of rows, the sums of the weights, and the graphs [B] where both are right.

    There nothing has left the range, nor will it in the gradients if the slopes are in range, and the means
    are those of `_careful_mean`.
    """
    above, excess, total = segments.totals(*_products(weight, x), weight)
    total, above = segments.fill_empty(total, 1), above - excess
    out = above / total
    size = above.abs()
    harmless = (out.abs() < LARGE) & (size > LEAST) & _is_tame(total)
    if not harmless.all():
        nothing = segments.greatest((x != 0) & (weight != 0)) == 0
        harmless |= nothing & (size == 0) & _is_tame(total)
    return out, total, harmless.all(1)


def _products(weight: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rounded products and what they are too large by, as `two_product` does but in the cache."""
    product, excess = x.new_empty(2, *x.shape)
    rows = max(CELLS // x.shape[1], 1)
    for w, v, high, low in zip(*(tensor.split(rows) for tensor in (weight, x, product, excess)), strict=True):
        w_high, w_low = halves(w)
        v_high = (v.view(torch.int64) & -(2**27)).view(torch.float64)  # half of the digits
        v_low = v - v_high
        torch.addcmul(torch.mul(w, v, out=high), w_high, v_high, value=-1, out=low)
        for a, b in ((w_high, v_low), (w_low, v_high), (w_low, v_low)):
            low.addcmul_(a, b, value=-1)
    return product, excess


def _is_tame(values: Tensor) -> Tensor:
    """Return where values can be multiplied and divided without leaving the range."""
    size = values.abs()
    return (size > 2.0**-300) & (size < 2.0**300)


def _careful_mean(x: Tensor, weight: Tensor, segments: Segments) -> Tensor:
    """Return `weighted_mean` with products and sums that cannot leave the range.

    Derivatives of every order are those of r + sum_i w_i (x_i - r) / sum_i w_i with a constant r, whose terms
    are in range if the derivatives are.
    """
    x, weight = x.double(), weight.double()  # under the control word of the callers of this function
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
    unit = shift.clamp(max=0) + (shift - HEADROOM).clamp(min=0)  # smaller weights would lose digits
    (total,) = segments.totals(scaled(weight, -_to_nodes(unit, segments)))
    total = segments.fill_empty(total, 1)
    rest = _exponent(total)
    return scaled((above + below) / scaled(total, -rest), top - HEADROOM - unit - rest), shift


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
