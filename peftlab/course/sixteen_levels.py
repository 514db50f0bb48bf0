r"""Lesson 13: sixteen levels of anyone's choice, what they cost on real weights, and levels fitted to given weights.

A weight w in a block with scale c is u = w/c, between -1 and 1, and comes back as c·ℓ. The squared error of a set of
levels is a sum over all weights,

$$\sum_i c_i^2 (u_i - \ell)^2 = \sum_i c_i^2 u_i^2 - 2 \ell \sum_i c_i^2 u_i + \ell^2 \sum_i c_i^2 ,$$

so three sums for each narrow bin of u are enough to score any levels: a widget can do it in a page, without weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from peftlab.errors import PeftLabError
from peftlab.quant import blockwise
from peftlab.quant.double_quant import double_quantize

BINS = 512
BLOCKSIZE = 64


@dataclass(frozen=True)
class Moments:
    """How many weights are in each bin of u, and their Σc², Σc²u, Σc²u². (bins,) float64; even bins from -1 to 1."""

    count: Tensor
    zeroth: Tensor
    first: Tensor
    second: Tensor

    @property
    def centres(self) -> Tensor:
        n = len(self.count)
        return (torch.arange(n, dtype=torch.float64) + 0.5) * (2 / n) - 1


def block_matrices(model: nn.Module) -> dict[str, Tensor]:
    """The weights that quantisation of a whole model stores in 4 bits, by name: the matrices of its blocks."""
    kept = {n: m.weight.detach() for n, m in model.named_modules() if isinstance(m, nn.Linear) and ".layer" in f".{n}"}
    if not kept:
        raise PeftLabError(f"this {type(model).__name__} has no linear layers inside blocks called layer or layers")
    return kept


def moments(weights: Iterable[Tensor], blocksize: int = BLOCKSIZE, bins: int = BINS) -> Moments:
    """The sums of all given weights, each cut into blocks with a scale of its own."""
    sums = torch.zeros(4, bins, dtype=torch.float64)
    for w in weights:
        c = blockwise.absmax(w, blocksize)
        u = blockwise.scaled(w, c, blocksize).double()
        c2 = blockwise.per_value(c.double().square(), w.numel(), blocksize)
        at = ((u + 1) / 2 * bins).long().clamp_(0, bins - 1)
        for row, value in enumerate((torch.ones_like(u), c2, c2 * u, c2 * u * u)):
            sums[row].index_add_(0, at, value)
    return Moments(*sums)


def error(found: Moments, levels: Sequence[float] | Tensor) -> float:
    """‖Ŵ - W‖ / ‖W‖ for these levels. A bin goes to the level nearest to its centre, hence exact but for a few bins."""
    values = torch.as_tensor(levels, dtype=torch.float64)
    nearest = values[(found.centres[:, None] - values).abs().argmin(dim=1)]
    squares = found.second - 2 * nearest * found.first + nearest.square() * found.zeroth
    return float((squares.sum() / found.second.sum()).sqrt())


def improved(found: Moments, levels: Sequence[float] | Tensor) -> Tensor:
    """Each level moves to the weighted mean of what it answers for: one step of Lloyd's algorithm. (n,) ascending."""
    values = torch.as_tensor(levels, dtype=torch.float64).sort().values
    nearest = (found.centres[:, None] - values).abs().argmin(dim=1)
    weight = torch.zeros_like(values).index_add_(0, nearest, found.zeroth)
    total = torch.zeros_like(values).index_add_(0, nearest, found.first)
    return torch.where(weight > 0, total / weight.clamp_min(1e-300), values).sort().values


def fitted(found: Moments, start: Sequence[float] | Tensor, steps: int = 500) -> Tensor:
    """Lloyd's algorithm from a start: levels that no single move improves. Not always the best of all."""
    values = torch.as_tensor(start, dtype=torch.float64)
    for _ in range(steps):
        values, before = improved(found, values), values
        if torch.equal(values, before):
            break
    return values


def round_trip(weight: Tensor, levels: Sequence[float] | Tensor, blocksize: int = BLOCKSIZE) -> Tensor:
    """A weight quantised with any levels and read again; scales doubly quantised. Shape and dtype of the weight."""
    values = torch.as_tensor(levels, dtype=torch.float32)
    c = blockwise.absmax(weight, blocksize)
    codes = blockwise.nearest(blockwise.scaled(weight, c, blocksize), values)
    back = blockwise.rescale(values[codes], double_quantize(c).dequantize(), blocksize)
    return back.reshape(weight.shape).to(weight.dtype)
