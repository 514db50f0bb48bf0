r"""PiSSA: start from the principal singular directions of the weight (Meng et al., 2024, arXiv:2404.02948).

$$W_0 = U S V^\top, \qquad B = U_r \sqrt{S_r / s}, \quad A = \sqrt{S_r / s}\, V_r^\top, \qquad s = \alpha / r$$

The frozen part becomes the residual $W_0 - s B A$. Cost here: one more copy of each adapted weight, so that `detach`
can give back the original bit for bit (peft overwrites it).
"""

from __future__ import annotations

import torch
from torch import Tensor

from peftlab.methods.reparam.lora import STARTS


def pissa(W: Tensor, r: int, scaling: float, how: str) -> tuple[Tensor, Tensor]:
    """A (r, d_in) and B (d_out, r) from W (d_out, d_in). 'pissa_niter_[n]' takes n steps of a fast SVD."""
    if "_niter_" in how:
        U, S, V = torch.svd_lowrank(W, r, niter=int(how.split("_niter_")[1]))
        Vh = V.T
    else:
        U, S, Vh = torch.linalg.svd(W, full_matrices=False)
        U, S, Vh = U[:, :r], S[:r], Vh[:r]
    root = torch.diag(torch.sqrt(S / scaling))
    return root @ Vh, U @ root


STARTS[r"pissa(_niter_\d+)?"] = pissa
