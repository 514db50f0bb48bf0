"""`quantize(weight)`: a weight in 4 bits, as one object that knows how to come back and what it costs.

    q = quantize(weight, kind="nf4", blocksize=64, double=True)
    q.packed               two codes a byte
    q.absmax               one scale a block, or with double=True these in 8 bits
    q.dequantize()         the weight, as far as 4 bits remember it
    q.bits_per_parameter   scales included: 4.5, or 4.127 with double=True

With kind="nf4" and "fp4" the bytes are those of bitsandbytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from peftlab.errors import PeftLabError
from peftlab.quant import blockwise
from peftlab.quant.double_quant import Statistic, bits, double_quantize, restored
from peftlab.quant.fp4 import fp4_levels
from peftlab.quant.int4 import int4_asymmetric_levels, int4_levels
from peftlab.quant.nf4 import nf4_levels
from peftlab.quant.packing import pack, unpack

CODEBOOKS: dict[str, Callable[[], Tensor]] = {
    "nf4": nf4_levels,
    "fp4": fp4_levels,
    "int4": int4_levels,
    "int4_asymmetric": int4_asymmetric_levels,
}


@cache
def levels_of(kind: str, device: torch.device | None = None) -> Tensor:
    """The value that each code of a kind stands for, before it is scaled: (15 or 16,) float32."""
    return CODEBOOKS[kind]().to(device or "cpu")


@cache
def pairs_of(kind: str, device: torch.device | None = None) -> Tensor:
    """What the two codes in a byte stand for: (256, 2) float32. Half as many look-ups as code by code."""
    levels = torch.zeros(16)  # int4 has 15
    levels[: len(levels_of(kind))] = levels_of(kind)
    return torch.cartesian_prod(levels, levels).to(device or "cpu")


@dataclass(frozen=True)
class Quantized:
    """A tensor in 4 bits.

    packed: (⌈n/2⌉, 1) uint8. absmax: one scale a block, (⌈n/blocksize⌉,) float32 or doubly quantised.
    minimum: a block's smallest weight, for 'int4_asymmetric' alone; `absmax` is then its range, maximum - minimum.
    shape, dtype: of the weight that was quantised.
    """

    packed: Tensor
    absmax: Statistic
    kind: str
    blocksize: int
    shape: torch.Size
    dtype: torch.dtype
    minimum: Statistic | None = None

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def levels(self) -> Tensor:
        """The codebook: (15 or 16,) float32."""
        return levels_of(self.kind, self.packed.device)

    @property
    def codes(self) -> Tensor:
        """One code for each weight, in the weight's shape, uint8."""
        return unpack(self.packed, self.numel).reshape(self.shape)

    def dequantize(self, dtype: torch.dtype | None = None) -> Tensor:
        """ŵ = c · level, computed in float32, then cast to `dtype` (that of the weight, unless given)."""
        pairs = pairs_of(self.kind, self.packed.device)
        values = pairs.index_select(0, self.packed.reshape(-1).int()).reshape(-1)[: self.numel]
        w = blockwise.rescale(values, restored(self.absmax), self.blocksize)
        if self.minimum is not None:
            w = w + blockwise.per_value(restored(self.minimum), self.numel, self.blocksize)
        return w.to(dtype or self.dtype).reshape(self.shape)

    @property
    def bits_per_parameter(self) -> float:
        """Codes and scales. The codebook is not counted: every weight of every model shares it."""
        statistics = bits(self.absmax) + (0 if self.minimum is None else bits(self.minimum))
        return (8 * self.packed.numel() + statistics) / self.numel

    def to(self, device: torch.device | str) -> Quantized:
        """The same on another device. What moves is never cast."""
        minimum = None if self.minimum is None else self.minimum.to(device)
        return replace(self, packed=self.packed.to(device), absmax=self.absmax.to(device), minimum=minimum)


@torch.no_grad()
def quantize(weight: Tensor, kind: str = "nf4", blocksize: int = 64, double: bool = True) -> Quantized:
    """A weight of any shape in 4 bits, with one scale for every `blocksize` of its values.

    kind: 'nf4', 'fp4', 'int4' or 'int4_asymmetric'. double: store the scales in 8 bits.

    Raises PeftLabError for an unknown kind, a weight that is empty, not of floats or not finite, and a blocksize that
    is odd (a byte would hold codes of two blocks) or below 2.
    """
    _check(weight, kind, blocksize)
    levels, minimum = levels_of(kind, weight.device), None
    if kind == "int4_asymmetric":
        w = blockwise.blocks(weight, blocksize)
        minimum, scale = w.amin(dim=1), w.amax(dim=1) - w.amin(dim=1)
        unit = ((w - minimum[:, None]) / scale.clamp_min(blockwise.SMALLEST)[:, None]).reshape(-1)[: weight.numel()]
    else:
        scale = blockwise.absmax(weight, blocksize)
        unit = blockwise.scaled(weight, scale, blocksize)
    codes = blockwise.nearest(unit, levels)
    zero = int(blockwise.nearest(levels.new_zeros(1), levels))
    if double:
        scale = double_quantize(scale)
        minimum = None if minimum is None else double_quantize(minimum)
    return Quantized(pack(codes, zero), scale, kind, blocksize, weight.shape, weight.dtype, minimum)


def _check(weight: Tensor, kind: str, blocksize: int) -> None:
    if kind not in CODEBOOKS:
        raise PeftLabError(f"quantize(kind={kind!r}): choose one of {', '.join(CODEBOOKS)}")
    if not isinstance(blocksize, int) or isinstance(blocksize, bool) or blocksize < 2 or blocksize % 2:
        raise PeftLabError(f"quantize(blocksize={blocksize!r}): give an even number, at least 2; 64 is usual")
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        what = f"{weight.dtype} tensor" if isinstance(weight, Tensor) else type(weight).__name__
        raise PeftLabError(
            f"quantize needs a tensor of floats, not a {what}; if this weight is quantised already, dequantize() it"
        )
    if weight.numel() == 0:
        raise PeftLabError(f"quantize got an empty tensor of shape {tuple(weight.shape)}; it has nothing to quantise")
    if not torch.isfinite(weight).all():
        raise PeftLabError(
            "this weight holds values that are not finite, and one of them would spoil its whole block; "
            "look at how it was trained or read"
        )
