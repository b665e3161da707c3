"""Sums that are exact and can be added to one another: fixed-point integers as wide as a dtype.

A sum is `sum over l of words[l] * 2**(exponent + 32 * l)`, int64 words [L + 1, B, F], and the last word
counts NaN and infinities. A number is its mantissa, shifted to its place and cut into pieces of 32 bits;
pieces are added as integers. So sums of chunks, processes or machines add up word by word, in any order,
to the same integers, which are rounded once, at the very end (Kulisch & Miranker, "Computer arithmetic in
theory and practice", 1981).

`carry` brings words back into 32 bits with a sign, -2**31 <= word < 2**31, but for the highest, which holds
what is left. This form is unique, and small sums of either sign have few words other than zero. Before
the next `carry`, ROOM numbers can be added to every sum, or FLAG - 1 arrays of carried words to one
another. There is room for 2**62 numbers in all.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from readouts.kernels.native.grouping import check
from readouts.kernels.native.library import core, is_available
from readouts.kernels.native.memory import threads_for
from readouts.kernels.portable.limbs import LIMB, MASK, exact_sums
from readouts.kernels.portable.limbs import rounded as rounded_limbs

ROOM = 2**27  # numbers, each adding less than 2**35 to a word, that fit between two carries
FIELD = 20  # bits of a counter in the last word
FLAG = 2**FIELD
NAN, PLUS, MINUS = 1, FLAG, FLAG**2  # one NaN, +inf or -inf in the last word
HALF = 27  # bits of the lower half of a float64 mantissa that is to be squared
ELEMENTS = 2**20  # numbers that are added at once in plain torch
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Format(NamedTuple):
    """What words mean: the exponent of the lowest bit, and the number of words but the last."""

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
    """Return the words [L + 1, B, F] of sums of nothing."""
    return torch.zeros(format.limbs + 1, size, features, dtype=torch.int64, device=device)


def sums(x: Tensor, index: Tensor, size: int, power: int = 1) -> Tensor:
    """Return the carried words [L + 1, B, F] of the sums of the rows of x [N, F] with the same index.

    x has any real dtype, and words the format `format_of(x.dtype, power)`; index is int64 [N], in any order.
    """
    format = format_of(x.dtype, power)
    words = zeros(format, size, x.shape[1], x.device)
    add(words, x, index, format, power)
    carry(words)
    return words


def add(words: Tensor, x: Tensor, index: Tensor, format: Format, power: int = 1) -> None:
    """Add the rows of x [N, F], or their squares, to the sums with their index [N], in place.

    The format must hold all numbers: that of the dtype does, and that of integers holds integers in float64.
    """
    if not x.is_floating_point():
        if power == 1:
            limbs, _ = exact_sums(x, index, words.shape[1])
            words[: len(limbs)] += limbs
            return
        x = x.double()
    x = x.detach().contiguous()
    layout = _Layout.of(x.dtype, format, power)
    for start in range(0, len(x), ROOM):
        if start:
            carry(words)
        rows, graphs = x[start : start + ROOM], index[start : start + ROOM]
        if x.device.type == "cpu" and is_available():
            _add_natively(words, rows, graphs, layout)
        else:
            add_plain(words, rows, graphs, layout)


class _Layout(NamedTuple):
    """How to read a number, and the place of the lowest bit of the least number or its square."""

    stored: int  # bits of the mantissa, but the first
    top: int  # the biased exponent of infinity
    place: int
    power: int

    @classmethod
    def of(cls, dtype: torch.dtype, format: Format, power: int) -> _Layout:
        digits, least = _digits_and_least(dtype)
        top = 2 ** (8 * dtype.itemsize - digits) - 1
        return cls(digits - 1, top, power * least - format.exponent, power)


def _add_natively(words: Tensor, rows: Tensor, index: Tensor, layout: _Layout) -> None:
    """Add in the native core, the features shared out to threads."""
    (nodes, features), index = rows.shape, index.contiguous()
    check(
        core.add_limbs(
            rows.data_ptr(), rows.element_size(), index.data_ptr(), nodes, features, words.data_ptr(),
            len(words) - 1, words.shape[1], *layout, threads_for(rows.numel()),
        )
    )  # fmt: skip


def add_plain(words: Tensor, rows: Tensor, index: Tensor, layout: _Layout) -> None:
    """Add in plain torch, for any device with int64."""
    features = rows.shape[1]
    columns = torch.arange(features, device=rows.device)
    for bits, graphs in _blocks(rows.view(_BITS[rows.element_size()]), index):
        cells = (graphs.unsqueeze(1) * features + columns).view(-1)
        bits = bits.reshape(-1).long()
        exponent = (bits >> layout.stored) & layout.top
        mantissa = (bits & (2**layout.stored - 1)) + ((exponent > 0).long() << layout.stored)
        _count_special(words[-1].view(-1), cells, bits, exponent == layout.top, mantissa, layout)
        mantissa = mantissa.masked_fill(exponent == layout.top, 0)
        place = layout.place + layout.power * (exponent - 1).clamp(0, layout.top - 2)
        if layout.power == 1:
            _deposit(words, cells, mantissa, place, torch.where(bits < 0, -1, 1))
            continue
        if layout.stored < HALF:
            _deposit(words, cells, mantissa * mantissa, place, 1)
            continue
        high, low = mantissa >> HALF, mantissa & (2**HALF - 1)
        for step, product in enumerate((low * low, 2 * low * high, high * high)):
            _deposit(words, cells, product, place + step * HALF, 1)


def _blocks(rows: Tensor, index: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut rows into blocks, so small that memory stays small and counters do not overflow."""
    length = max(1, ELEMENTS // 2 // max(rows.shape[1], 1))
    return zip(rows.split(length), index.split(length), strict=True)


def _count_special(
    counts: Tensor, cells: Tensor, bits: Tensor, special: Tensor, mantissa: Tensor, layout: _Layout
) -> None:
    """Note where NaN and infinities are."""
    kind = torch.where(bits < 0, MINUS, PLUS)
    kind = torch.where(mantissa != 2**layout.stored, NAN, kind).masked_fill(~special, 0)
    counts.copy_(_settled(counts.scatter_add_(0, cells, kind)))


def _deposit(words: Tensor, cells: Tensor, mantissa: Tensor, place: Tensor, sign: Tensor | int) -> None:
    """Add sign * mantissa * 2**place, mantissa below 2**55; bits below place 0 are zeros."""
    mantissa, place = mantissa >> (-place).clamp(0, 63), place.clamp(min=0)
    shift = place % LIMB
    low, high = (mantissa & MASK) << shift, (mantissa >> LIMB) << shift
    where = place // LIMB * words[0].numel() + cells
    for piece in (low & MASK, (low >> LIMB) + (high & MASK), high >> LIMB):
        words.view(-1).scatter_add_(0, where, sign * piece)
        where = where + words[0].numel()


def carry(words: Tensor) -> None:
    """Bring words back into 32 bits with a sign, and counters to 0 or 1, in place."""
    rest = torch.zeros_like(words[0])
    for word in words[:-2]:
        word += rest
        rest = (word + MASK // 2 + 1) >> LIMB
        word -= rest << LIMB
    words[-2] += rest
    words[-1] = _settled(words[-1])


def _settled(counts: Tensor) -> Tensor:
    """Return 1 for every counter that is not zero."""
    return sum(((counts >> at) & (FLAG - 1)).clamp(max=1) << at for at in (0, FIELD, 2 * FIELD))


def window(words: Tensor) -> tuple[int, int]:
    """Return the first word that is not zero, and that after the last; (L, 0) where all are zero."""
    used = (words[:-1] != 0).flatten(1).any(1).nonzero().view(-1).tolist()
    return (used[0], used[-1] + 1) if used else (len(words) - 1, 0)


def cut(words: Tensor, low: int, high: int) -> Tensor:
    """Return the words from `low` to `high`, and the last, [high - low + 1, B, F]."""
    return torch.cat([words[low:high], words[-1:]])


def pasted(part: Tensor, low: int, format: Format) -> Tensor:
    """Return words [L + 1, B, F] from what `cut` returned."""
    words = part.new_zeros(format.limbs + 1, *part.shape[1:])
    words[low : low + len(part) - 1] = part[:-1]
    words[-1] = part[-1]
    return words


def rounded(words: Tensor, format: Format, dtype: torch.dtype, divisor: Tensor | None = None) -> Tensor:
    """Return the sums [B, F], over divisor [B] if given, rounded once to `dtype`, ties to even.

    A zero is +0, a sum of infinities follows IEEE 754, a divisor of 0 counts as 1, and int64 is modulo 2**64.
    """
    if not dtype.is_floating_point:
        return words[0] + (words[1] << LIMB)
    if divisor is not None:
        divisor = divisor.clamp(min=1)
    if divisor is not None and divisor.numel() and int(divisor.max()) >= 2**31:
        result = _divided(words, format, dtype, divisor)
    else:
        low, high = window(words) if words.device.type == "cpu" else (0, format.limbs)  # without waiting
        low = min(low, format.limbs - 1)
        exponent = format.exponent + LIMB * low
        result = rounded_limbs(words[low : max(high, low + 1)], exponent, dtype, divisor)
    return result.where(words[-1] == 0, special(words).to(dtype))


def _divided(words: Tensor, format: Format, dtype: torch.dtype, divisor: Tensor) -> Tensor:
    """Divide by 2**31 and more."""
    nodes = divisor.view(-1, 1).expand(words.shape[1:]).reshape(-1).tolist()
    totals, exponent = integers(words, format)
    values = [nearest(*ratio(*pair, exponent), dtype) for pair in zip(totals, nodes, strict=True)]
    return torch.tensor(values, dtype=torch.float64, device=words.device).to(dtype).view(words.shape[1:])


def special(words: Tensor) -> Tensor:
    """Return the sum [B, F] of NaN and infinities as float64, 0 where there are none."""
    plus, minus = words[-1] & (MINUS - PLUS) != 0, words[-1] >= MINUS
    nan = (words[-1] & (PLUS - NAN) != 0) | (plus & minus)
    value = torch.where(plus, torch.inf, torch.where(minus, -torch.inf, 0.0)).double()
    return value.masked_fill(nan, torch.nan)


def integers(words: Tensor, format: Format) -> tuple[list[int], int]:
    """Return the sums, graph by graph, as Python integers times a power of two, and its exponent."""
    low, high = window(words)
    low = min(low, high)
    digits, rest = [], torch.zeros_like(words[0])
    for word in words[low:high]:
        total = word + rest
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
