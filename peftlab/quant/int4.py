r"""Uniform 4-bit integers: evenly spaced levels, the plain alternative to FP4 and NF4.

Symmetric: one scale for each block of weights w, as for FP4 and NF4.

$$q = \operatorname{round}\!\left(7\, \frac{w}{\max|w|}\right) \in \{-7, \dots, 7\}, \qquad
\hat w = \frac{q}{7} \max|w|$$

One of the 16 codes stays unused: the price of having 0 in the middle.

Asymmetric: a block's smallest and largest weight are the ends, so all 16 codes are used, but a block needs two numbers.

$$q = \operatorname{round}\!\left(15\, \frac{w - \min w}{\max w - \min w}\right) \in \{0, \dots, 15\}, \qquad
\hat w = \min w + \frac{q}{15} (\max w - \min w)$$
"""

from __future__ import annotations

import torch
from torch import Tensor


def int4_levels() -> Tensor:
    """q/7 for q = -7 … 7: (15,) float32, ascending. Code i means q = i - 7."""
    return torch.arange(-7, 8) / 7


def int4_asymmetric_levels() -> Tensor:
    """q/15 for q = 0 … 15: (16,) float32, ascending, between a block's smallest and largest weight."""
    return torch.arange(16) / 15
