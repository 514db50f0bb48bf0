r"""FP4: a sign, two exponent bits e, one mantissa bit m, as bitsandbytes reads them.

$$v = \pm \left(1 + \tfrac{m}{2}\right) 2^{4-e} \quad (e = 1, 2, 3), \qquad v = \pm\, m\, 2^{-4} \quad (e = 0)$$

divided by the largest, 12, so that the levels span [-1, 1]. Two things to know. The exponent counts downwards, so codes
do not come in the order of their values. And the smallest positive level is 0.0052, where a regular format with these
six larger levels (E2M1: ½, 1, 1½, 2, 3, 4, 6) has ½ / 6 = 0.083: as shipped, four of the 16 codes mean nearly zero
(+0, -0 and ±0.0052), and the next levels are ±0.167.
"""

from __future__ import annotations

import torch
from torch import Tensor


def fp4_levels() -> Tensor:
    """The value of each code 0 … 15, not ascending: (16,) float32. The code's bits are s e e m."""
    values = torch.tensor([_value(code) for code in range(16)])
    return values / values.max()


def _value(code: int) -> float:
    sign, e, m = code >> 3, (code >> 1) & 0b11, code & 1
    size = m * 2.0**-4 if e == 0 else (1 + m / 2) * 2.0 ** (4 - e)
    return -size if sign and size else size  # both codes of zero are +0
