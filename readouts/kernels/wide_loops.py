"""The loop of `readouts.kernels.wide`, compiled by Numba; see there for the method."""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np

from readouts.kernels.compiled import compiled, inlined

LINE = 8  # features from which a thread of its own does not write to the same cache lines as others
MASK = 2**32 - 1
HALF = 27
NAN, PLUS, MINUS = 1, 2**20, 2**40


@inlined
def deposit(words, graph, feature, mantissa, place, sign):
    """Add sign * mantissa * 2**place, mantissa below 2**55; bits below place 0 are zeros."""
    if place < 0:
        mantissa >>= min(-place, 63)
        place = 0
    limb, shift = place >> 5, place & 31
    low, high = (mantissa & MASK) << shift, (mantissa >> 32) << shift
    words[limb, graph, feature] += sign * (low & MASK)
    middle, top = (low >> 32) + (high & MASK), high >> 32
    if middle:
        words[limb + 1, graph, feature] += sign * middle
    if top:
        words[limb + 2, graph, feature] += sign * top


@compiled
def add(rows, index, words, stored, top, first, power, begin, end):
    """Add the bit patterns rows [N, F], of the features from `begin` to `end`, to the words [L + 1, B, F]."""
    last, implicit = len(words) - 1, 1 << stored
    for node in range(len(index)):
        graph = index[node]
        for feature in range(begin, end):
            bits = np.int64(rows[node, feature])
            exponent = (bits >> stored) & top
            mantissa = bits & (implicit - 1)
            if exponent == top:
                infinity = PLUS if bits >= 0 else MINUS
                words[last, graph, feature] |= infinity if mantissa == 0 else NAN
                continue
            place = first
            if exponent > 0:
                mantissa |= implicit
                place += power * (exponent - 1)
            if power == 1:
                deposit(words, graph, feature, mantissa, place, (bits >> 63) | 1)
            elif stored < HALF:
                deposit(words, graph, feature, mantissa * mantissa, place, 1)
            else:
                high, low = mantissa >> HALF, mantissa & (2**HALF - 1)
                deposit(words, graph, feature, low * low, place, 1)
                deposit(words, graph, feature, 2 * low * high, place + HALF, 1)
                deposit(words, graph, feature, high * high, place + 2 * HALF, 1)
