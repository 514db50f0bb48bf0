r"""NF4, the 4-bit NormalFloat of QLoRA (Dettmers et al., 2023, arXiv:2305.14314: section 3, values in appendix E).

Pretrained weights look normally distributed. So take for the 16 levels quantiles of N(0, 1): each level then answers
for about equally many weights. Two wishes bend the plain quantiles: 0 must be a level (a zero weight stays zero), and
the largest weight of a block must be one (±1 are levels). Hence two halves that meet at 0, as in the authors' code
(the paper's equation 4, means of neighbouring quantiles, gives other numbers):

$$q = \frac{\Phi^{-1}(p)}{\Phi^{-1}(1-\delta)}, \qquad
p \in \{\underbrace{\delta, \dots, \tfrac12}_{8\text{ evenly spaced}}\} \cup
\{\underbrace{\tfrac12, \dots, 1-\delta}_{9\text{ evenly spaced}}\}, \qquad
\delta = \tfrac12\left(\tfrac1{30} + \tfrac1{32}\right)$$

The two halves share p = ½, the level 0: 7 levels below it, 8 above.

"Optimal" it is not in every sense: what is quantised is w / max|w| of a block, and how that is distributed depends on
the block's size (Yoshida, 2023, arXiv:2306.06965).
"""

from __future__ import annotations

import torch
from torch import Tensor

# 1 - δ, with the seven digits that the paper's authors wrote in their code. An eighth changes the levels' last bits.
LAST_PROBABILITY = 0.9677083


def nf4_levels() -> Tensor:
    """The 16 levels of NF4, ascending from -1 to 1: (16,) float32. Code i means level i; code 7 is zero.

    Probabilities and the division are float32, as in the authors' code: only so are the last bits theirs.
    """
    above = quantile(torch.linspace(LAST_PROBABILITY, 0.5, 9)[:-1])  # 8 levels, from the largest down
    below = -quantile(torch.linspace(LAST_PROBABILITY, 0.5, 8)[:-1])  # 7 levels, mirrored: Φ⁻¹(1-p) = -Φ⁻¹(p)
    levels = torch.cat([below, torch.zeros(1), above.flip(0)])
    return levels / levels.max()


def quantile(p: Tensor | float) -> Tensor:
    """Φ⁻¹(p): below which number lies the share p of a standard normal distribution."""
    return torch.special.ndtri(torch.as_tensor(p).double()).float()
