"""Arithmetic for `readouts.kernels.triton.loops`: bits, exact additions, integer limbs (`digits`).

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
FRACTION_64 = tl.constexpr(2**52 - 1)
DIGIT = tl.constexpr(2**32 - 1)

LARGEST_EXPONENT = tl.constexpr(1023 + 990)  # biased; beyond it constants of pre-rounding might overflow
LEVELS = tl.constexpr(4)  # grids of pre-rounding before the slow path
STEP = tl.constexpr(16)  # rows per step of the slow path
GUARDS = tl.constexpr(3)  # limbs of a quotient below those of the dividend


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
    """Invert `widened`; NaN becomes the default NaN of a CPU, which the conversion of a GPU does not return."""
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
def narrow(value, MANTISSA: tl.constexpr):
    """Return the bits, as int64, of a float64 rounded once to the dtype; a zero is +0, NaN the default NaN."""
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
def add_tile(high, low, third, broken, values, POWER: tl.constexpr):
    """Add the 2**POWER float64 rows of a tile by pre-rounding, grid by grid until nothing is left.

    With |x| < 2**e and k = POWER + 1, C = 1.5 * 2**(e + k) makes (x + C) - C the multiple of
    2**(e + k - 52) next to x: these add up exactly, and the rest is exact and below 2**(e + k - 52).
    """
    K: tl.constexpr = POWER + 1
    size = tl.max(bits_of(values) & MAGNITUDE_64, 0)
    far = (size >> 52) > LARGEST_EXPONENT
    broken = broken | far.to(tl.int32)
    values = tl.where(far[None, :], 0.0, values)
    exponent = tl.maximum(size >> 52, 1) + 1 + K
    left = tl.max(tl.where(far, 0, size), 0)
    level = 0
    while (left > 0) & (level < LEVELS):
        constant = float_of((exponent << 52) | (1 << 51))[None, :]
        multiples = (values + constant) - constant
        values = values - multiples
        high, low, third, broken = add_part(high, low, third, broken, tl.sum(multiples, 0))
        exponent = tl.maximum(exponent - (52 - K), 1)
        left = tl.max(tl.max(bits_of(values) & MAGNITUDE_64, 0), 0)
        level += 1
    if left > 0:
        broken = broken | tl.max((values != 0.0).to(tl.int32), 0)
    return high, low, third, broken


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


# -------------------------------------------------------------------------------------- the slow path


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
def slow_column(
    x, order, begin, end, column, features, centre,
    MANTISSA: tl.constexpr, ORDERED: tl.constexpr, SQUARES: tl.constexpr,
):  # fmt: skip
    """Return the bits of a column's sum and mean, and its float64 mean, computed with integer limbs.

    A column of squared deviations may contain infinities; then the results are their sum.
    """
    SMALL_RANGE: tl.constexpr = MANTISSA < 52 and not SQUARES
    LIMBS: tl.constexpr = 16 if SMALL_RANGE else 128
    BASE: tl.constexpr = 28 if SMALL_RANGE else 0  # 2**(32 * 28 - 1074) is below the least float32
    limbs = tl.arange(0, LIMBS)
    digits = tl.zeros([LIMBS], tl.int64)
    special = tl.sum(tl.zeros([STEP], tl.float64), 0)
    for start in range(begin, end, STEP):
        rows = start + tl.arange(0, STEP)
        inside = rows < end
        nodes = tl.load(order + rows, inside, 0) if ORDERED else rows
        values = number(widened(tl.load(x + nodes * features + column, inside, 0), MANTISSA), MANTISSA)
        if SQUARES:
            values = values - centre
            values = tl.where(inside, values * values, 0.0)
        finite = (bits_of(values) & MAGNITUDE_64) < INFINITY_64
        special += tl.sum(tl.where(finite, 0.0, values), 0)
        digits = add_digits(digits, limbs, tl.where(finite, values, 0.0), BASE)
    one = tl.sum(digits, 0) * 0 + 1
    lowest = tl.min(tl.where(digits != 0, limbs, LIMBS), 0)
    highest = tl.max(tl.where(digits != 0, limbs, 0), 0)
    unsigned, carry = carried(digits, limbs, lowest, highest)
    negative = carry < 0
    unsigned, carry = carried(tl.where(negative, -digits, digits), limbs, lowest, highest)
    total = rounded(unsigned, limbs, lowest, highest, negative, one, BASE, MANTISSA)
    nodes = one * (end - begin)
    mean = rounded(unsigned, limbs, lowest, highest, negative, nodes, BASE, MANTISSA)
    wide = mean
    if MANTISSA < 52:
        wide = rounded(unsigned, limbs, lowest, highest, negative, nodes, BASE, 52)
    if special != 0.0:
        total, mean, wide = narrow(special, MANTISSA), narrow(special, MANTISSA), bits_of(special)
    return total, mean, float_of(wide)


@triton.jit
def patched(
    x, order, begin, end, columns, features, centre, broken, total, mean, wide,
    MANTISSA: tl.constexpr, FEATURES: tl.constexpr, ORDERED: tl.constexpr, SQUARES: tl.constexpr,
):  # fmt: skip
    """Return sums and means; recompute broken columns, one at a time, with integer limbs."""
    places = tl.arange(0, FEATURES)
    for place in range(FEATURES):
        here = places == place
        if tl.sum(tl.where(here, broken, 0), 0) != 0:
            column = tl.sum(tl.where(here, columns, 0), 0)
            middle = tl.sum(tl.where(here, centre, 0.0), 0)
            slow_total, slow_mean, slow_wide = slow_column(
                x, order, begin, end, column, features, middle, MANTISSA, ORDERED, SQUARES
            )
            total = tl.where(here, slow_total, total)
            mean = tl.where(here, slow_mean, mean)
            wide = tl.where(here, slow_wide, wide)
    return total, mean, wide
