r"""OLoRA: start from an orthonormal basis of the weight (Büyükakyüz, 2024, arXiv:2406.01775).

$$W_0 = Q R, \qquad B = Q_{:, :r}, \quad A = R_{:r, :}$$

The frozen part becomes $W_0 - s B A$ with $s = \alpha / r$; the original is kept beside it for `detach`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from peftlab.methods.reparam.lora import STARTS


def olora(W: Tensor, r: int, scaling: float, how: str) -> tuple[Tensor, Tensor]:
    """A (r, d_in) and B (d_out, r) from W (d_out, d_in)."""
    Q, R = torch.linalg.qr(W)
    return R[:r], Q[:, :r]


STARTS["(?i:olora)"] = olora
