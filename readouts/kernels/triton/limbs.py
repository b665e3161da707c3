"""The slow path: sums of any range of magnitudes in integer limbs of 32 bits (`digits`), rounded once."""

# mypy: allow-untyped-defs
from __future__ import annotations

import triton
import triton.language as tl

from readouts.kernels.triton.numbers import (
    DIGIT,
    LOWEST_32,
    LOWEST_64,
    MAGNITUDE_64,
    bits_of,
    float_of,
    is_finite,
    number,
    widened,
)

FRACTION_64 = tl.constexpr(2**52 - 1)
STEP = tl.constexpr(16)  # rows per step
GUARDS = tl.constexpr(3)  # limbs of a quotient below those of the dividend


@triton.constexpr_function
def limbs_of(mantissa, squares):
    """Return the number of limbs, a power of two."""
    return 16 if mantissa < 52 and not squares else 128


@triton.constexpr_function
def base_of(mantissa, squares):
    """Return the position of the lowest limb; 2**(32 * 28 - 1074) is below the least float32."""
    return 28 if mantissa < 52 and not squares else 0


@triton.jit
def add_digits(digits, limbs, values, BASE: tl.constexpr):
    """Add finite float64 values [STEP] to limbs of 32 bits [LIMBS], the lowest at 2**(32 * BASE - 1074)."""
    bits = bits_of(values)
    magnitude = bits & MAGNITUDE_64
    exponent = magnitude >> 52
    fraction = (magnitude & FRACTION_64) | (tl.minimum(exponent, 1) << 52)
    place = tl.maximum(exponent, 1) - 1
    offset = place & 31
    limb = (place >> 5) - BASE
    first = (fraction & DIGIT) << offset
    second = (fraction >> 32) << offset
    middle = (first >> 32) + (second & DIGIT)
    sign = tl.where(bits < 0, -1, 1).to(tl.int64)
    down = limbs[None, :] - limb[:, None]
    parts = tl.where(down == 0, (sign * (first & DIGIT))[:, None], 0)
    parts = tl.where(down == 1, (sign * (middle & DIGIT))[:, None], parts)
    parts = tl.where(down == 2, (sign * ((second >> 32) + (middle >> 32)))[:, None], parts)
    return digits + tl.sum(parts, 0)


@triton.jit
def carried(digits, limbs, lowest, highest):
    """Carry the limbs in this range into 0 to 2**32 - 1; the last carry has the sign."""
    carry = tl.sum(digits, 0) * 0
    for limb in range(lowest, highest + 3):  # n < 2**31 carries into one more limb
        total = tl.sum(tl.where(limbs == limb, digits, 0), 0) + carry
        digits = tl.where(limbs == limb, total & DIGIT, digits)
        carry = total >> 32
    return digits, carry


@triton.jit
def quotient_digits(digits, limbs, lowest, highest, divisor):
    """Return the three leading limbs of a quotient, the position of the first, and nonzero if bits follow."""
    zero = divisor * 0
    high, middle, low, top, below, remainder = zero, zero, zero, zero, zero, zero
    for down in range(highest + 3 + GUARDS - lowest):
        place = highest + 2 - down
        dividend = (remainder << 32) | tl.sum(tl.where(limbs == place, digits, 0), 0)
        digit = dividend // divisor
        remainder = dividend - digit * divisor
        below = tl.where((high != 0) & (place < top - 2), below | digit, below)
        low = tl.where((high != 0) & (place == top - 2), digit, low)
        middle = tl.where((high != 0) & (place == top - 1), digit, middle)
        top = tl.where(high == 0, zero + place, top)
        high = tl.where(high == 0, digit, high)
    return high, middle, low, top, below | remainder


@triton.jit
def rounded(digits, limbs, lowest, highest, negative, divisor, BASE: tl.constexpr, MANTISSA: tl.constexpr):
    """Return the bits of limbs / divisor, rounded once to the dtype, ties to even; a zero is +0."""
    LEAST: tl.constexpr = -1022 if MANTISSA == 52 else -14 if MANTISSA == 10 else -126
    GRID: tl.constexpr = LEAST - MANTISSA  # exponent of the least subnormal number
    INFINITY: tl.constexpr = (31 if MANTISSA == 10 else 2047 if MANTISSA == 52 else 255) << MANTISSA
    high, middle, low, top, below = quotient_digits(digits, limbs, lowest, highest, divisor)
    length = (bits_of(high.to(tl.float64)) >> 52) - 1022  # bits of high, which is below 2**32
    length = tl.where(high == 0, 1, length)
    # (high, middle, low) has 64 + length bits; the last length + 2 are dropped
    left, right = tl.maximum(30 - length, 0), tl.maximum(length - 30, 0)
    leading = (high << (62 - length)) | ((middle << left) >> right) | (low >> (length + 2))
    one = divisor * 0 + 1
    lost = (low & ((one << (length + 2)) - 1)) | (middle & ((one << right) - 1))
    sticky = (below | lost) != 0
    exponent = 32 * (top + BASE) - 1074 + length - 62
    drop = tl.minimum(tl.maximum(GRID - exponent, 61 - MANTISSA), 63)
    kept, half = leading >> drop, one << (drop - 1)
    rest = leading - (kept << drop)
    up = (rest > half) | ((rest == half) & (sticky | ((kept & 1) == 1)))
    kept += up.to(tl.int64)
    scale = tl.minimum(tl.maximum(exponent + drop - GRID, 0), INFINITY >> MANTISSA)
    scale = tl.where(kept == 0, 0, scale)
    bits = tl.where(scale == INFINITY >> MANTISSA, INFINITY, (scale << MANTISSA) + kept)
    bits = tl.minimum(bits, INFINITY)
    if MANTISSA == 52:
        signed = bits | LOWEST_64
    elif MANTISSA == 23:
        signed = bits | LOWEST_32
    else:
        signed = bits | 0x8000
    return tl.where(negative & (bits != 0), signed, bits)


@triton.jit
def column_digits(
    x, order, begin, end, column, features, centre,
    MANTISSA: tl.constexpr, ORDERED: tl.constexpr, SQUARES: tl.constexpr,
):  # fmt: skip
    """Return the limbs of the exact sum of a column, or of its squared deviations from `centre`.

    Infinities and NaN do not count.
    """
    LIMBS: tl.constexpr = limbs_of(MANTISSA, SQUARES)
    BASE: tl.constexpr = base_of(MANTISSA, SQUARES)
    limbs = tl.arange(0, LIMBS)
    digits = tl.zeros([LIMBS], tl.int64)
    for start in range(begin, end, STEP):
        rows = start + tl.arange(0, STEP)
        inside = rows < end
        nodes = tl.load(order + rows, inside, 0) if ORDERED else rows
        values = number(widened(tl.load(x + nodes * features + column, inside, 0), MANTISSA), MANTISSA)
        if SQUARES:
            values = values - centre
            values = tl.where(inside, values * values, 0.0)
        digits = add_digits(digits, limbs, tl.where(is_finite(values), values, 0.0), BASE)
    return digits


@triton.jit
def round_digits(digits, nodes, MANTISSA: tl.constexpr, SQUARES: tl.constexpr):
    """Return the bits of a sum and of its mean, rounded once, and the float64 mean."""
    LIMBS: tl.constexpr = limbs_of(MANTISSA, SQUARES)
    BASE: tl.constexpr = base_of(MANTISSA, SQUARES)
    limbs = tl.arange(0, LIMBS)
    one = tl.sum(digits, 0) * 0 + 1
    lowest = tl.min(tl.where(digits != 0, limbs, LIMBS), 0)
    highest = tl.max(tl.where(digits != 0, limbs, 0), 0)
    unsigned, carry = carried(digits, limbs, lowest, highest)
    negative = carry < 0
    unsigned, carry = carried(tl.where(negative, -digits, digits), limbs, lowest, highest)
    total = rounded(unsigned, limbs, lowest, highest, negative, one, BASE, MANTISSA)
    mean = rounded(unsigned, limbs, lowest, highest, negative, one * nodes, BASE, MANTISSA)
    wide = mean
    if MANTISSA < 52:
        wide = rounded(unsigned, limbs, lowest, highest, negative, one * nodes, BASE, 52)
    return total, mean, float_of(wide)


@triton.jit
def value_at(values, place, WIDTH: tl.constexpr):
    """Return one element of integers [WIDTH]."""
    return tl.sum(tl.where(tl.arange(0, WIDTH) == place, values, 0), 0)


@triton.jit
def patched(
    x, order, begin, end, columns, features, centre, broken, total, mean, wide,
    MANTISSA: tl.constexpr, FEATURES: tl.constexpr, ORDERED: tl.constexpr, SQUARES: tl.constexpr,
):  # fmt: skip
    """Return sums and means; recompute broken columns, one at a time."""
    for place in range(FEATURES):
        if value_at(broken, place, FEATURES) != 0:
            digits = column_digits(
                x, order, begin, end, value_at(columns, place, FEATURES), features,
                float_of(value_at(bits_of(centre), place, FEATURES)), MANTISSA, ORDERED, SQUARES,
            )  # fmt: skip
            slow_total, slow_mean, slow_wide = round_digits(digits, end - begin, MANTISSA, SQUARES)
            here = tl.arange(0, FEATURES) == place
            total = tl.where(here, slow_total, total)
            mean = tl.where(here, slow_mean, mean)
            wide = tl.where(here, slow_wide, wide)
    return total, mean, wide


@triton.jit
def store_digits(
    x, order, digits, slot, begin, end, columns, features, centre, broken,
    MANTISSA: tl.constexpr, FEATURES: tl.constexpr, ORDERED: tl.constexpr, SQUARES: tl.constexpr,
):  # fmt: skip
    """Write the limbs of a piece to `digits` [slots, features, LIMBS], for columns that are broken."""
    LIMBS: tl.constexpr = limbs_of(MANTISSA, SQUARES)
    for place in range(FEATURES):
        if value_at(broken, place, FEATURES) != 0:
            column, middle = value_at(columns, place, FEATURES), value_at(bits_of(centre), place, FEATURES)
            sums = column_digits(
                x, order, begin, end, column, features, float_of(middle), MANTISSA, ORDERED, SQUARES
            )
            tl.store(digits + (slot * features + column) * LIMBS + tl.arange(0, LIMBS), sums)


@triton.jit
def merged_digits(digits, first, last, column, features, LIMBS: tl.constexpr, SHIFT: tl.constexpr):
    """Add the limbs of all pieces of a column, which lie in the slots of `rows.piece_of`."""
    limbs = tl.arange(0, LIMBS)
    chunk, total = first >> SHIFT, tl.zeros([LIMBS], tl.int64)
    for part in range((last - first + (1 << SHIFT) - 1) >> SHIFT):
        slot = 2 * (chunk + part) + tl.minimum(part, 1)
        total += tl.load(digits + (slot * features + column) * LIMBS + limbs)
    return total


@triton.jit
def patched_from(
    x, order, digits, first, last, columns, features, centre, broken, total, mean, wide,
    MANTISSA: tl.constexpr, FEATURES: tl.constexpr, ORDERED: tl.constexpr, SQUARES: tl.constexpr,
    SHIFT: tl.constexpr,
):  # fmt: skip
    """Return sums and means; those of broken columns from the limbs of pieces, if there is more than one."""
    LIMBS: tl.constexpr = limbs_of(MANTISSA, SQUARES)
    for place in range(FEATURES):
        if value_at(broken, place, FEATURES) != 0:
            column, middle = value_at(columns, place, FEATURES), value_at(bits_of(centre), place, FEATURES)
            if last - first > 1 << SHIFT:
                sums = merged_digits(digits, first, last, column, features, LIMBS, SHIFT)
            else:
                sums = column_digits(
                    x, order, first, last, column, features, float_of(middle), MANTISSA, ORDERED, SQUARES
                )
            slow_total, slow_mean, slow_wide = round_digits(sums, last - first, MANTISSA, SQUARES)
            here = tl.arange(0, FEATURES) == place
            total = tl.where(here, slow_total, total)
            mean = tl.where(here, slow_mean, mean)
            wide = tl.where(here, slow_wide, wide)
    return total, mean, wide
