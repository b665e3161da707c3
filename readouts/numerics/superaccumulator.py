"""Sums that are exact and can be added to one another: fixed-point integers as wide as a dtype.

A sum is `sum over l of limbs[l] * 2**(exponent + 32 * l)`, int64 limbs [L + 1, B, F], and the last limb
counts NaN and infinities. A number is its mantissa, shifted to its place and cut into pieces of 32 bits;
pieces are added as integers. So sums of chunks, processes or machines add up limb by limb, in any order,
to the same integers, which are rounded once, at the very end (Kulisch & Miranker, "Computer arithmetic in
theory and practice", 1981).

`carry` brings limbs back into 32 bits with a sign, -2**31 <= limb < 2**31, but for the highest, which holds
what is left. This form is unique, and small sums of either sign have few limbs other than zero. Before
the next `carry`, ROOM numbers can be added to every sum, or FLAG - 1 arrays of carried limbs to one
another. There is room for 2**62 numbers in all.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from readouts.numerics.limbs import LIMB, MASK
from readouts.numerics.limbs import rounded as rounded_limbs

ROOM = 2**27  # numbers, each adding less than 2**35 to a limb, that fit between two carries
FIELD = 20  # bits of a counter in the last limb
FLAG = 2**FIELD
CELLS = 2**14  # sums that are rounded at once on a CPU: in the cache, and on one thread
LEAST_TERM, GREATEST_TERM = -900, 900  # exponents of limbs that are float64 numbers, with room for products
NAN, PLUS, MINUS = 1, FLAG, FLAG**2  # one NaN, +inf or -inf in the last limb


class Format(NamedTuple):
    """What limbs mean: the exponent of the lowest bit, and the number of limbs but the last."""

    exponent: int
    limbs: int


def format_of(dtype: torch.dtype, power: int = 1) -> Format:
    """Return the format of sums of numbers of a dtype, or of their squares (power 2).

    Integers to be squared are taken as float64 numbers.
    """
    if not dtype.is_floating_point:
        return _spanning(0, 64 * power)
    _, least = _digits_and_least(dtype)
    return _spanning(power * least, power * math.frexp(torch.finfo(dtype).max)[1])


def _spanning(least: int, top: int) -> Format:
    """Return a format for numbers on the grid 2**least that are at most 2**top."""
    return Format(least, 1 - (least + 1 - top) // LIMB)


@functools.cache
def _digits_and_least(dtype: torch.dtype) -> tuple[int, int]:
    """Return the number of bits of a mantissa and the exponent of the least number."""
    limits = torch.finfo(dtype)
    stored = -round(math.log2(limits.eps))
    return stored + 1, round(math.log2(limits.smallest_normal)) - stored


def zeros(format: Format, size: int, features: int, device: torch.device | None = None) -> Tensor:
    """Return the limbs [L + 1, B, F] of sums of nothing."""
    return torch.zeros(format.limbs + 1, size, features, dtype=torch.int64, device=device)


class Layout(NamedTuple):
    """How to read a number, and the place of the lowest bit of the least number or its square."""

    stored: int  # bits of the mantissa, but the first
    top: int  # the biased exponent of infinity
    place: int
    power: int

    @classmethod
    def of(cls, dtype: torch.dtype, format: Format, power: int) -> Layout:
        """Return how numbers of a dtype, or their squares, lie in sums of a format."""
        digits, least = _digits_and_least(dtype)
        top = 2 ** (8 * dtype.itemsize - digits) - 1
        return cls(digits - 1, top, power * least - format.exponent, power)


def carry(limbs: Tensor) -> None:
    """Bring limbs back into 32 bits with a sign, and counters to 0 or 1, in place."""
    *places, top = range(len(limbs) - 1)
    carried = balanced(limbs[:top])
    for place in places:
        limbs[place] = next(carried)
    limbs[top] += next(carried)
    limbs[-1] = settled(limbs[-1])


def balanced(limbs: Tensor) -> Iterator[Tensor]:
    """Yield limbs in -2**31 <= limb < 2**31, lowest first, and what is left for the next limb."""
    rest = limbs.new_zeros(limbs.shape[1:])
    for limb in limbs:
        total = limb + rest
        rest = (total + MASK // 2 + 1) >> LIMB
        yield total - (rest << LIMB)
    yield rest


def settled(counts: Tensor) -> Tensor:
    """Return 1 for every counter that is not zero."""
    return sum(((counts >> at) & (FLAG - 1)).clamp(max=1) << at for at in (0, FIELD, 2 * FIELD))


def window(limbs: Tensor) -> tuple[int, int]:
    """Return the first limb that is not zero, and that after the last; (L, 0) where all are zero."""
    used = (limbs[:-1] != 0).flatten(1).any(1).nonzero().view(-1).tolist()
    return (used[0], used[-1] + 1) if used else (len(limbs) - 1, 0)


def cut(limbs: Tensor, low: int, high: int) -> Tensor:
    """Return the limbs from `low` to `high`, and the last, [high - low + 1, B, F]."""
    return torch.cat([limbs[low:high], limbs[-1:]])


def pasted(part: Tensor, low: int, format: Format) -> Tensor:
    """Return limbs [L + 1, B, F] from what `cut` returned."""
    limbs = part.new_zeros(format.limbs + 1, *part.shape[1:])
    limbs[low : low + len(part) - 1] = part[:-1]
    limbs[-1] = part[-1]
    return limbs


def rounded(limbs: Tensor, format: Format, dtype: torch.dtype, divisor: Tensor | None = None) -> Tensor:
    """Return the sums [B, F], over divisor [B] if given, rounded once to `dtype`, ties to even.

    A zero is +0, a sum of infinities follows IEEE 754, a divisor of 0 counts as 1, and int64 is modulo 2**64.
    """
    if not dtype.is_floating_point:
        return limbs[0] + (limbs[1] << LIMB)
    rows = max(1, CELLS // max(limbs.shape[2], 1))
    if limbs.device.type == "cpu" and limbs.shape[1] > rows:  # a few graphs at a time stay in the cache
        divisors = [None] * -(-limbs.shape[1] // rows) if divisor is None else divisor.split(rows)
        parts = zip(limbs.split(rows, dim=1), divisors, strict=True)
        return torch.cat([rounded(part, format, dtype, divisor) for part, divisor in parts])
    if divisor is not None:
        divisor = divisor.clamp(min=1)
    if divisor is not None and divisor.numel() and int(divisor.max()) >= 2**31:
        result = _divided(limbs, format, dtype, divisor)
    else:
        low, high = window(limbs) if limbs.device.type == "cpu" else (0, format.limbs)  # without waiting
        low = min(low, format.limbs - 1)
        exponent = format.exponent + LIMB * low
        result = rounded_limbs(limbs[low : max(high, low + 1)], exponent, dtype, divisor)
    return result.where(limbs[-1] == 0, special(limbs).to(dtype))


def _divided(limbs: Tensor, format: Format, dtype: torch.dtype, divisor: Tensor) -> Tensor:
    """Divide by 2**31 and more."""
    nodes = divisor.view(-1, 1).expand(limbs.shape[1:]).reshape(-1).tolist()
    totals, exponent = integers(limbs, format)
    values = [nearest(*ratio(*pair, exponent), dtype) for pair in zip(totals, nodes, strict=True)]
    return torch.tensor(values, dtype=torch.float64, device=limbs.device).to(dtype).view(limbs.shape[1:])


def special(limbs: Tensor) -> Tensor:
    """Return the sum [B, F] of NaN and infinities as float64, 0 where there are none."""
    plus, minus = limbs[-1] & (MINUS - PLUS) != 0, limbs[-1] >= MINUS
    nan = (limbs[-1] & (PLUS - NAN) != 0) | (plus & minus)
    value = torch.where(plus, torch.inf, torch.where(minus, -torch.inf, 0.0)).double()
    return value.masked_fill(nan, torch.nan)


def terms(limbs: Tensor, format: Format) -> tuple[list[Tensor], Tensor]:
    """Return float64 numbers whose exact sums are those of limbs, and where they are, [B, F] each."""
    low, high = window(limbs)
    numbers, fits = [], torch.ones_like(limbs[0], dtype=torch.bool)
    for place, limb in enumerate(balanced(limbs[low:high]), start=low):
        if not limb.any():
            continue
        exponent = format.exponent + LIMB * place
        if LEAST_TERM <= exponent <= GREATEST_TERM:
            fits &= limb.abs() < 2**52
            numbers.append(limb.double() * 2.0**exponent)
        else:
            fits &= limb == 0
    return numbers, fits


def integers(limbs: Tensor, format: Format) -> tuple[list[int], int]:
    """Return the sums, graph by graph, as Python integers times a power of two, and its exponent."""
    low, high = window(limbs)
    low = min(low, high)
    digits, rest = [], torch.zeros_like(limbs[0])
    for limb in limbs[low:high]:
        total = limb + rest
        digits.append(total & MASK)
        rest = total >> LIMB
    table = torch.stack([*digits, rest & MASK, rest >> LIMB], dim=-1)
    data, length = table.cpu().numpy().astype("<u4").tobytes(), 4 * table.shape[-1]
    parts = (data[at : at + length] for at in range(0, len(data), length))
    return [int.from_bytes(part, "little", signed=True) for part in parts], format.exponent + LIMB * low


def ratio(numerator: int, denominator: int, exponent: int) -> tuple[int, int]:
    """Return numerator * 2**exponent / denominator as a ratio."""
    if exponent < 0:
        return numerator, denominator << -exponent
    return numerator << exponent, denominator


def nearest(numerator: int, denominator: int, dtype: torch.dtype) -> float:
    """Return the number of a dtype nearest to a ratio, ties to even; 2**128 may stand for infinity."""
    if numerator == 0:
        return 0.0
    digits, least = _digits_and_least(dtype)
    size = abs(numerator).bit_length() - denominator.bit_length()
    small, large = ratio(denominator, abs(numerator), size)
    unit = max(size - digits + (small <= large), least)
    if unit > 0:
        denominator <<= unit
    else:
        numerator <<= -unit
    units, rest = divmod(numerator, denominator)
    units += 2 * rest > denominator or (2 * rest == denominator and units % 2 == 1)
    try:
        return math.ldexp(units, unit)
    except OverflowError:
        return math.inf if numerator > 0 else -math.inf
