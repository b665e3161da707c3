"""Superaccumulators in PyTorch, for every device with int64."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from readouts.numerics.keys import BITS
from readouts.numerics.limbs import LIMB, MASK
from readouts.numerics.superaccumulator import MINUS, NAN, PLUS, Layout, settled

HALF = 27  # bits in the lower half of a float64 mantissa, for squaring
ELEMENTS = 2**20  # numbers per block


def supports(dtype: torch.dtype) -> bool:
    """Return True: every dtype of a readout is supported."""
    return True


def add(limbs: Tensor, rows: Tensor, index: Tensor, layout: Layout) -> None:
    """Add rows of numbers, or their squares, to the limbs of their graphs, in place."""
    features = rows.shape[1]
    columns = torch.arange(features, device=rows.device)
    for bits, graphs in _blocks(rows.resolve_neg().view(BITS[rows.element_size()]), index):
        cells = (graphs.unsqueeze(1) * features + columns).view(-1)
        bits = bits.reshape(-1).long()
        exponent = (bits >> layout.stored) & layout.top
        mantissa = (bits & (2**layout.stored - 1)) + ((exponent > 0).long() << layout.stored)
        _count_special(limbs[-1].view(-1), cells, bits, exponent == layout.top, mantissa, layout)
        mantissa = mantissa.masked_fill(exponent == layout.top, 0)
        place = layout.place + layout.power * (exponent - 1).clamp(0, layout.top - 2)
        if layout.power == 1:
            _deposit(limbs, cells, mantissa, place, torch.where(bits < 0, -1, 1))
            continue
        if layout.stored < HALF:
            _deposit(limbs, cells, mantissa * mantissa, place, 1)
            continue
        high, low = mantissa >> HALF, mantissa & (2**HALF - 1)
        for step, product in enumerate((low * low, 2 * low * high, high * high)):
            _deposit(limbs, cells, product, place + step * HALF, 1)


def _blocks(rows: Tensor, index: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Split rows into blocks that need little memory and cannot overflow the counters."""
    length = max(1, ELEMENTS // 2 // max(rows.shape[1], 1))
    return zip(rows.split(length), index.split(length), strict=True)


def _count_special(
    counts: Tensor, cells: Tensor, bits: Tensor, special: Tensor, mantissa: Tensor, layout: Layout
) -> None:
    """Record in which cells NaN and infinities occur."""
    kind = torch.where(bits < 0, MINUS, PLUS)
    kind = torch.where(mantissa != 2**layout.stored, NAN, kind).masked_fill(~special, 0)
    counts.copy_(settled(counts.scatter_add_(0, cells, kind)))


def _deposit(limbs: Tensor, cells: Tensor, mantissa: Tensor, place: Tensor, sign: Tensor | int) -> None:
    """Add sign * mantissa * 2**place, with mantissa < 2**55; bits below place 0 must be zero."""
    mantissa, place = mantissa >> (-place).clamp(0, 63), place.clamp(min=0)
    shift = place % LIMB
    low, high = (mantissa & MASK) << shift, (mantissa >> LIMB) << shift
    where = place // LIMB * limbs[0].numel() + cells
    for piece in (low & MASK, (low >> LIMB) + (high & MASK), high >> LIMB):
        limbs.view(-1).scatter_add_(0, where, sign * piece)
        where = where + limbs[0].numel()
