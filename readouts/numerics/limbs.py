"""Exact sums in plain PyTorch: integer limbs hold every bit, and the sum is rounded once.

A sum is kept as `sum over l of limbs[l] * 2**(exponent + 32 * l)` with int64 limbs [L, B, F], so
that partial sums of nodes, blocks or devices are exact and add up in any order. Floats reach the
limbs by pre-rounding to a fixed grid: with C = 1.5 * 2**(52 + e), (x + C) - C is x rounded to a
multiple of 2**e, and multiples of 2**e below 2**53 * 2**e add up exactly in float64; the rest
x - ((x + C) - C) is exact as well and goes to the grid 32 bits below (Demmel & Nguyen, "Parallel
reproducible summation", IEEE Transactions on Computers 2015).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from readouts.numerics.rounding import scaled

LIMB = 32
MASK = 2**LIMB - 1
BLOCK = 2**20  # nodes whose multiples of the grid, each at most 2**32, add up exactly in float64
GUARDS = 3  # limbs below the least bit of a dividend: room for a 53-bit quotient by n < 2**31


def exact_sums(x: Tensor, index: Tensor, size: int) -> tuple[Tensor, int]:
    """Return limbs [L, B, F] and exponent of the sums of the finite rows x [N, F] with the same index."""
    if not x.is_floating_point():
        wide = x.long()
        return torch.stack([segment_sum(part, index, size) for part in (wide & MASK, wide >> LIMB)]), 0
    least, top = _grid(x)
    limbs = torch.zeros(1 + (top - least) // LIMB, size, x.shape[1], dtype=torch.int64, device=x.device)
    rows = min(BLOCK, max(4 * size, 2**16 // max(x.shape[1], 1), 1))
    blocks = zip(x.split(rows), index.split(rows), strict=True)
    lowest = min(_add_block(limbs, rest.double(), block, least) for rest, block in blocks)
    return limbs[lowest:], least + LIMB * lowest


def segment_sum(x: Tensor, index: Tensor, size: int) -> Tensor:
    """Return the sums [B, F] of the rows of x [N, F] with the same index, added as they come."""
    return x.new_zeros(size, x.shape[1]).scatter_add_(0, index.unsqueeze(1).expand(x.shape), x)


def _grid(x: Tensor) -> tuple[int, int]:
    """Return the exponents of the lowest and the highest grid.

    The highest covers every |x| < 2**(31 + top); multiples of the lowest are all that the dtype
    can express. On the CPU, where looking at data costs no synchronisation, the highest follows
    from the data, and so does where `_add_block` stops.
    """
    limits = torch.finfo(x.dtype)
    least = round(math.log2(limits.smallest_normal) + math.log2(limits.eps))
    largest = limits.max
    if x.device.type == "cpu":
        largest = float(x.abs().amax()) if x.numel() else 0.0
    _, exponent = math.frexp(largest)
    return least, least + LIMB * max(0, -((31 + least - exponent) // LIMB))


def _add_block(limbs: Tensor, rest: Tensor, index: Tensor, least: int) -> int:
    """Add float64 rows to the limbs, grid by grid from the highest, until nothing is left.

    Returns the lowest limb used.
    """
    on_cpu = rest.device.type == "cpu"
    for limb in reversed(range(len(limbs))):
        grid = least + LIMB * limb
        shift = 64 if grid + 53 > 1023 else 0  # keeps C finite
        scaled = rest * 2.0**-shift
        constant = 1.5 * 2.0 ** (grid - shift + 52)
        multiples = (scaled + constant) - constant
        sums = segment_sum(multiples, index, limbs.shape[1])
        units = shift - grid
        limbs[limb] += (sums * 2.0 ** (units // 2) * 2.0 ** (units - units // 2)).long()
        rest = (
            rest - multiples
            if shift == 0
            else torch.where(multiples == 0, rest, (scaled - multiples) * 2.0**shift)
        )
        if on_cpu and not rest.any():
            return limb
    return 0


def rounded(limbs: Tensor, exponent: int, dtype: torch.dtype, divisor: Tensor | None = None) -> Tensor:
    """Return limbs * 2**exponent [B, F], over divisor [B] if given, rounded once to `dtype`, ties to even.

    A zero is +0. The divisor lies between 1 and 2**31.
    """
    digits, negative = _sign_and_digits(limbs)
    sticky = torch.zeros_like(negative)
    if divisor is not None:
        digits, remainder = _divide(digits, divisor.view(-1, 1))
        exponent -= LIMB * GUARDS
        sticky = remainder != 0
    leading, exponents, dropped = _leading_bits(digits)
    magnitude = _round_bits(leading, exponents + exponent, sticky | dropped, dtype)
    return torch.where(negative, -magnitude, magnitude).to(dtype) + 0.0


def _sign_and_digits(limbs: Tensor) -> tuple[Tensor, Tensor]:
    """Return |sum| as digits [L + 1, B, F] in 0 .. 2**32 - 1, lowest first, and where the sum is negative."""
    padded = torch.nn.functional.pad(limbs, (0, 0, 0, 0, 0, 1))
    negative = _carry(padded)[-1] < 0
    digits = _carry(torch.where(negative, -padded, padded))
    return digits, negative


def _carry(limbs: Tensor) -> Tensor:
    """Move what exceeds 32 bits to the limb above; the sign stays in the last limb."""
    digits, carry = [], torch.zeros_like(limbs[0])
    for limb in limbs:
        total = limb + carry
        carry = total >> LIMB
        digits.append(total & MASK)
    digits[-1] = total
    return torch.stack(digits)


def _divide(digits: Tensor, divisor: Tensor) -> tuple[Tensor, Tensor]:
    """Divide by long division; the quotient has GUARDS more digits below."""
    quotient, remainder = [], torch.zeros_like(digits[0])
    for digit in (*digits.flip(0), *digits.new_zeros(GUARDS, *digits.shape[1:])):
        dividend = (remainder << LIMB) | digit
        quotient.append(dividend // divisor)
        remainder = dividend - quotient[-1] * divisor
    return torch.stack(quotient[::-1]), remainder


def _leading_bits(digits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the 62 leading bits, the exponent of the last of them, and whether any bit below is set."""
    digits = torch.nn.functional.pad(digits, (0, 0, 0, 0, 2, 0))
    places = torch.arange(len(digits), device=digits.device).view(-1, 1, 1)
    top = torch.where(digits != 0, places, 2).amax(0)
    high, middle, low = (digits.gather(0, (top - down).unsqueeze(0))[0] for down in range(3))
    below = ((places < top - 2) & (digits != 0)).any(0)
    length = _bit_length(high)
    # (high, middle, low) has 64 + length bits; the last length + 2 of them go.
    left, right = (30 - length).clamp(min=0), (length - 30).clamp(min=0)
    leading = (high << (62 - length)) | ((middle << left) >> right) | (low >> (length + 2))
    lost = (low & ((1 << (length + 2)) - 1)) | (middle & ((1 << right) - 1))
    return leading, LIMB * (top - 2) + length - 62, below | (lost != 0)


def _bit_length(digit: Tensor) -> Tensor:
    """Return the number of bits of integers below 2**32."""
    return torch.frexp(digit.double()).exponent.long()


def _round_bits(leading: Tensor, exponent: Tensor, sticky: Tensor, dtype: torch.dtype) -> Tensor:
    """Round leading * 2**exponent to a float64 on the grid of `dtype`; `sticky`: a bit below is set."""
    limits = torch.finfo(dtype)
    precision = 1 - round(math.log2(limits.eps))
    subnormal = round(math.log2(limits.smallest_normal)) - precision + 1
    drop = (subnormal - exponent).clamp(min=62 - precision, max=63)
    kept, half = leading >> drop, 1 << (drop - 1)
    rest = leading - (kept << drop)
    kept = kept + ((rest > half) | ((rest == half) & (sticky | (kept % 2 == 1))))
    return scaled(kept.double(), exponent + drop)
