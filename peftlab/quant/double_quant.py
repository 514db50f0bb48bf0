r"""Double quantisation: quantise the scales too (Dettmers et al., 2023, arXiv:2305.14314, section 3).

One float32 scale for 64 weights costs 32/64 = 0.5 bits a weight. Scales are all positive, so take their mean away, and
store what is left in 8 bits, with one float32 for 256 scales:

$$c \approx \bar c + \operatorname{dequant}_8(c - \bar c), \qquad
\frac{8}{64} + \frac{32}{64 \cdot 256} = 0.127 \text{ bits a weight instead of } 0.5$$
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from peftlab.quant.eight_bit import EightBit, quantize_8bit


@dataclass(frozen=True)
class DoubleQuantized:
    """Scales in 8 bits: `inner` holds c minus the mean, `offset` is the mean, a float32 scalar."""

    inner: EightBit
    offset: Tensor

    def dequantize(self) -> Tensor:
        """The scales: (blocks,) float32."""
        return self.inner.dequantize() + self.offset

    def to(self, device: torch.device | str) -> DoubleQuantized:
        return DoubleQuantized(self.inner.to(device), self.offset.to(device))

    @property
    def bits(self) -> int:
        """Bits that it occupies: codes, their own scales, and the mean."""
        return self.inner.bits + 32


Statistic = Tensor | DoubleQuantized  # one number for each block: as it is, or quantised


def double_quantize(c: Tensor) -> DoubleQuantized:
    """(blocks,) float32 scales in 8 bits."""
    offset = c.mean()
    return DoubleQuantized(quantize_8bit(c - offset), offset)


def restored(statistic: Statistic) -> Tensor:
    """The numbers themselves: (blocks,) float32."""
    return statistic if isinstance(statistic, Tensor) else statistic.dequantize()


def bits(statistic: Statistic) -> int:
    return 32 * statistic.numel() if isinstance(statistic, Tensor) else statistic.bits
