r"""Block-wise quantisation: one scale for every `blocksize` values, then the nearest level of a codebook.

$$c = \max_{i \in \text{block}} |w_i|, \qquad
q_i = \arg\min_k \left| \tfrac{w_i}{c} - \ell_k \right|, \qquad \hat w_i = c\, \ell_{q_i}$$

Blocks make an outlier cheap: it spoils the scale of its own block only (Dettmers et al., 2021, arXiv:2110.02861,
"block-wise quantization"). They run over the flattened tensor, row after row; the last one may be short.

The order of the roundings is that of bitsandbytes, so that the results are its results, bit for bit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 1e-38  # stands for c in a block of zeros, which would divide by zero


def blocks(x: Tensor, blocksize: int) -> Tensor:
    """x flattened and cut: (blocks, blocksize) float32. A short last block is filled up with its last value."""
    flat = x.reshape(-1).float()
    short = -flat.numel() % blocksize
    if short:
        flat = torch.cat([flat, flat[-1:].expand(short)])
    return flat.reshape(-1, blocksize)


def absmax(x: Tensor, blocksize: int) -> Tensor:
    """c, the largest absolute value of each block: (blocks,) float32."""
    c = blocks(x, blocksize).abs().amax(dim=1)
    if x.numel() % blocksize:
        c[-1] = c[-1].clamp_min(SMALLEST)
    return c


def scaled(x: Tensor, c: Tensor, blocksize: int) -> Tensor:
    """w / c, between -1 and 1: (n,) float32.

    Whole blocks are multiplied by 1/c, a short last one is divided by c: the last bits differ, and with them, rarely,
    the level of a value halfway between two.
    """
    w = blocks(x, blocksize)
    unit = w * (1 / c.clamp_min(SMALLEST))[:, None]
    if x.numel() % blocksize:
        unit[-1] = w[-1] / c[-1]
    return unit.clamp(-1, 1).reshape(-1)[: x.numel()]


def nearest(unit: Tensor, levels: Tensor) -> Tensor:
    """The code of the level nearest to each value: same shape, int64. Halfway between two levels, the lower one."""
    order = torch.argsort(levels, stable=True)  # FP4's codes do not ascend
    ascending = levels[order]
    halfway = (ascending[:-1] + ascending[1:]) / 2
    return order[torch.bucketize(unit, halfway)]


def rescale(values: Tensor, c: Tensor, blocksize: int) -> Tensor:
    """Each value times its block's scale: (n,) and (blocks,) -> (n,) float32."""
    n = values.numel()
    if n % blocksize:
        values = F.pad(values, (0, -n % blocksize))
    return (values.reshape(-1, blocksize) * c[:, None]).reshape(-1)[:n]


def per_value(statistic: Tensor, n: int, blocksize: int) -> Tensor:
    """A block's number, repeated for each of its values: (blocks,) -> (n,)."""
    return statistic.repeat_interleave(blocksize)[:n]
