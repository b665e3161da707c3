"""Arithmetic for the Triton kernels: bits, exact additions, one rounding.

Floats are passed as integers of the same bits. MANTISSA identifies the dtype by its number of stored
fraction bits: 52 float64, 23 float32, 10 float16, 7 bfloat16. An exact sum is high + low + third, three
float64 numbers; `broken` is nonzero if an addition had an error.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import triton
import triton.language as tl

MAGNITUDE_32 = tl.constexpr(2**31 - 1)
MAGNITUDE_64 = tl.constexpr(2**63 - 1)
LOWEST_32 = tl.constexpr(-(2**31))
LOWEST_64 = tl.constexpr(-(2**63))
INFINITY_32 = tl.constexpr(0x7F800000)
INFINITY_64 = tl.constexpr(0x7FF << 52)
DIGIT = tl.constexpr(2**32 - 1)


# ---------------------------------------------------------------------------------------- bits and floats


@triton.jit
def widened(bits, MANTISSA: tl.constexpr):
    """Return the bits of a float as bits of a float32; a float64 is returned unchanged."""
    if MANTISSA == 10:
        word = bits.to(tl.float16, bitcast=True).to(tl.float32).to(tl.int32, bitcast=True)
    elif MANTISSA == 7:
        word = bits.to(tl.int32) << 16
    else:
        word = bits
    return word


@triton.jit
def unwidened(word, MANTISSA: tl.constexpr):
    """Invert `widened`; NaN becomes that of a CPU, which the conversion of a GPU does not return."""
    if MANTISSA == 10:
        word = word.to(tl.int32)
        bits = word.to(tl.float32, bitcast=True).to(tl.float16).to(tl.int16, bitcast=True)
        bits = tl.where((word & MAGNITUDE_32) > INFINITY_32, 0x7E00, bits)
    elif MANTISSA == 7:
        bits = word >> 16
    else:
        bits = word
    return bits.to(tl.int64)


@triton.jit
def number(word, MANTISSA: tl.constexpr):
    """Return the float64 value of `widened` bits."""
    if MANTISSA == 52:
        value = word.to(tl.float64, bitcast=True)
    else:
        value = word.to(tl.float32, bitcast=True).to(tl.float64)
    return value


@triton.jit
def bits_of(value):
    """Return the bits of a float64."""
    return value.to(tl.int64, bitcast=True)


@triton.jit
def float_of(bits):
    """Return the float64 with these bits."""
    return bits.to(tl.float64, bitcast=True)


@triton.jit
def is_finite(value):
    """Return which float64 numbers are neither infinite nor NaN."""
    return (bits_of(value) & MAGNITUDE_64) < INFINITY_64


@triton.jit
def narrow(value, MANTISSA: tl.constexpr):
    """Return the bits, as int64, of a float64 rounded once to the dtype; a zero is +0, NaN the default."""
    if MANTISSA == 52:
        bits = tl.where(value == 0.0, 0, bits_of(value))
        bits = tl.where(value != value, 0x7FF8 << 48, bits)
    elif MANTISSA == 23:
        bits = (value.to(tl.float32).to(tl.int32, bitcast=True)).to(tl.int64)
        bits = tl.where((bits & MAGNITUDE_32) == 0, 0, bits)
        bits = tl.where(value != value, 0x7FC00000, bits)
    else:
        bits = narrow_16(value, MANTISSA)
    return bits


@triton.jit
def narrow_16(value, MANTISSA: tl.constexpr):
    """Return the bits of a float64 rounded once to a 16-bit dtype, by integers.

    The upper half of the float64, with the last bit set if the lower half is not zero, rounds like the whole
    number. A carry out of the fraction increments the exponent, as it must.
    """
    LEAST: tl.constexpr = 1023 - 14 if MANTISSA == 10 else 1023 - 126  # biased exponent of least normal
    INFINITY: tl.constexpr = 0x7C00 if MANTISSA == 10 else 0x7F80
    whole = bits_of(value)
    lower = whole & DIGIT
    upper = (whole >> 32).to(tl.int32) | (lower != 0).to(tl.int32)
    magnitude = upper & MAGNITUDE_32
    exponent = magnitude >> 20
    fraction = (magnitude & 0xFFFFF) | 0x100000
    drop = tl.minimum(20 - MANTISSA + tl.maximum(LEAST - exponent, 0), 31)
    kept = fraction >> drop
    rest = fraction - (kept << drop)
    half = 1 << (drop - 1)
    kept += ((rest > half) | ((rest == half) & ((kept & 1) == 1))).to(tl.int32)
    bits = ((tl.maximum(exponent, LEAST) - LEAST) << MANTISSA) + kept
    bits = tl.minimum(bits, INFINITY)
    bits = tl.where((upper < 0) & (bits != 0), bits | 0x8000, bits)
    return tl.where(value != value, INFINITY | 1 << (MANTISSA - 1), bits).to(tl.int64)


# ------------------------------------------------------------------------------- arithmetic without errors


@triton.jit
def two_sum(a, b):
    """Return fl(a + b) and its error (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@triton.jit
def halves(a):
    """Split a float64 into its upper 26 bits and the rest."""
    upper = float_of(bits_of(a) & -(1 << 27))
    return upper, a - upper


@triton.jit
def two_product(a, n):
    """Return fl(a * n) and its error (Dekker), for an integer n < 2**31; every partial product is exact."""
    product = a * n
    a_upper, a_lower = halves(a)
    n_upper, n_lower = halves(n)
    error = (a_upper * n_upper - product) + a_upper * n_lower
    return product, (error + a_lower * n_upper) + a_lower * n_lower


@triton.jit
def add_part(high, low, third, broken, part):
    """Add a number to high + low + third; set `broken` if the third addition has an error."""
    high, error = two_sum(high, part)
    low, error = two_sum(low, error)
    third, error = two_sum(third, error)
    return high, low, third, broken | (error != 0.0).to(tl.int32)


@triton.jit
def add_sum(high, low, third, broken, more, less, least, also_broken):
    """Add two exact sums; if the result is not finite, it is that of IEEE 754, in `high`."""
    high, low, third, broken = add_part(high, low, third, broken | also_broken, more)
    high, low, third, broken = add_part(high, low, third, broken, less)
    high, low, third, broken = add_part(high, low, third, broken, least)
    finite = is_finite(high)
    return high, tl.where(finite, low, 0.0), tl.where(finite, third, 0.0), broken


@triton.jit
def half_of(values, which, LANES: tl.constexpr, FEATURES: tl.constexpr):
    """Return the first or the second half of the rows of integers [LANES, FEATURES]."""
    pairs = tl.reshape(values, [2, LANES // 2, FEATURES])
    return tl.sum(tl.where(tl.arange(0, 2)[:, None, None] == which, pairs, 0), 0)


@triton.jit
def fold_once(high, low, third, broken, LANES: tl.constexpr, FEATURES: tl.constexpr):
    """Add the second half of the rows of exact sums, given as bits, to the first."""
    high, low, third, broken = add_sum(
        float_of(half_of(high, 0, LANES, FEATURES)), float_of(half_of(low, 0, LANES, FEATURES)),
        float_of(half_of(third, 0, LANES, FEATURES)), half_of(broken, 0, LANES, FEATURES),
        float_of(half_of(high, 1, LANES, FEATURES)), float_of(half_of(low, 1, LANES, FEATURES)),
        float_of(half_of(third, 1, LANES, FEATURES)), half_of(broken, 1, LANES, FEATURES),
    )  # fmt: skip
    return bits_of(high), bits_of(low), bits_of(third), broken


@triton.jit
def fold(high, low, third, broken, LANES: tl.constexpr, FEATURES: tl.constexpr):
    """Add exact sums [LANES, FEATURES] to [FEATURES]."""
    finite = is_finite(high)
    low, third = tl.where(finite, low, 0.0), tl.where(finite, third, 0.0)
    high, low, third = bits_of(high), bits_of(low), bits_of(third)
    for level in tl.static_range(8):
        if LANES >> level > 1:
            high, low, third, broken = fold_once(high, low, third, broken, LANES >> level, FEATURES)
    high, low, third = tl.sum(high, 0), tl.sum(low, 0), tl.sum(third, 0)
    return float_of(high), float_of(low), float_of(third), tl.sum(broken, 0)


@triton.jit
def normalized(a, b, c, d, broken):
    """Return four numbers with the same sum, each at most half a unit of the one before, or set `broken`."""
    c, d = two_sum(c, d)
    b, c = two_sum(b, c)
    a, b = two_sum(a, b)
    c, d = two_sum(c, d)
    b, c = two_sum(b, c)
    a, b = two_sum(a, b)
    c, d = two_sum(c, d)
    b, c = two_sum(b, c)
    a, b = two_sum(a, b)
    b, c = two_sum(b, c)
    c, d = two_sum(c, d)
    sound = (a + b == a) & (b + c == b) & (c + d == c)
    return a, b, c, d, broken | (sound == 0).to(tl.int32)


@triton.jit
def neighbour(value, side):
    """Return the float64 next to a nonzero value, upward if side > 0."""
    return float_of(bits_of(value) + tl.where((side > 0.0) == (value > 0.0), 1, -1))


@triton.jit
def to_odd(value, rest):
    """Round value + rest, with |rest| below a unit, to odd: unless exact, the last bit is 1."""
    even = (bits_of(value) & 1) == 0
    return tl.where((rest != 0.0) & even, neighbour(value, rest), value)


@triton.jit
def nearest_sum(high, low, third):
    """Return the float64 nearest to a normalized sum: high, unless `third` breaks a tie the other way."""
    beyond = neighbour(high, low)
    same_side = ((low > 0.0) & (third > 0.0)) | ((low < 0.0) & (third < 0.0))
    return tl.where(same_side & (low == (beyond - high) * 0.5), beyond, high)


@triton.jit
def divide(high, low, third, nodes, broken):
    """Return a float64 close to (high + low + third) / nodes, and the remainder (times nodes) as a + b."""
    quotient = high / nodes
    product, error = two_product(quotient, nodes)
    quotient = quotient + (((high - product) - error) + low) / nodes
    product, error = two_product(quotient, nodes)
    a, b, _, _, broken = normalized(high - product, -error, low, third, broken)
    return quotient, a, b, broken


@triton.jit
def nearest_quotient(quotient, a, b, nodes):
    """Return the float64 nearest to quotient + (a + b) / nodes, ties to even."""
    beyond = neighbour(quotient, a)
    side = tl.where(a > 0.0, 2.0, -2.0)
    over = (side * a - tl.abs(beyond - quotient) * nodes) + side * b
    odd = (bits_of(quotient) & 1) == 1
    return tl.where((a != 0.0) & ((over > 0.0) | ((over == 0.0) & odd)), beyond, quotient)
