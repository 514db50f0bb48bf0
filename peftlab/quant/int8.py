r"""LLM.int8(): 8-bit matrix multiplication that survives outliers (Dettmers et al., 2022, arXiv:2208.07339).

Vector-wise: each row of x and each row of W (one output) has its own scale, so a product of integers is scaled back by
the two scales that met in it:

$$x_{\text{int8}} = \operatorname{round}\!\left(127\, \frac{x}{c_x}\right), \qquad
y_{ij} \approx \frac{c_{x,i}\, c_{W,j}}{127^2} \sum_k x^{\text{int8}}_{ik} W^{\text{int8}}_{jk}$$

Outlier columns: a few input features of large language models are much larger than the rest, and would leave the rest
of their row a handful of integers. Columns O with a value of at least the threshold are multiplied in floats:

$$y = \underbrace{x_{:,O}\, W_{:,O}^\top}_{\text{floats}} + \underbrace{\text{int8 product over the other columns}}_{}$$
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from peftlab.errors import PeftLabError


@dataclass(frozen=True)
class Int8:
    """A matrix in 8 bits: codes (rows, columns) int8 from -127 to 127, absmax (rows,) float32."""

    codes: Tensor
    absmax: Tensor
    dtype: torch.dtype

    def dequantize(self) -> Tensor:
        """(rows, columns) in the dtype of the matrix that was quantised."""
        return (self.codes.float() * (self.absmax / 127)[:, None]).to(self.dtype)

    @property
    def bits_per_parameter(self) -> float:
        return 8 + 32 * self.absmax.numel() / self.codes.numel()


@torch.no_grad()
def quantize_int8(x: Tensor) -> Int8:
    """Row by row: absmax becomes 127. x is (rows, columns); raises PeftLabError for another shape or dtype."""
    if x.ndim != 2 or not x.is_floating_point():
        raise PeftLabError(f"quantize_int8 needs a matrix of floats, not {x.dtype} of shape {tuple(x.shape)}")
    c = x.abs().amax(dim=1).float()
    factor = torch.where(c > 0, 127 / c, 0)  # a row of zeros stays zero
    return Int8(torch.round(x * factor[:, None]).to(torch.int8), c, x.dtype)


def outlier_columns(x: Tensor, threshold: float = 6.0) -> Tensor:
    """Indices of the columns in which some |x| reaches the threshold. x is (rows, columns)."""
    return (x.abs() >= threshold).any(dim=0).nonzero().flatten()


@torch.no_grad()
def linear_int8(x: Tensor, W: Int8, b: Tensor | None = None, threshold: float = 6.0) -> Tensor:
    """y = x Ŵᵀ + b: outlier columns of x in floats, the rest in integers. x (…, d_in), W (d_out, d_in) -> (…, d_out).

    threshold: 6.0 in the paper; 0 means no column is an outlier. For inference: rounding has no useful gradient.
    """
    if x.shape[-1] != W.codes.shape[1]:
        raise PeftLabError(f"x has {x.shape[-1]} features, the weight reads {W.codes.shape[1]}")
    rows = x.reshape(-1, x.shape[-1])
    y = torch.zeros(len(rows), len(W.codes), device=x.device)
    regular = rows
    if threshold > 0:
        outliers = outlier_columns(rows, threshold)
        y = rows[:, outliers].float() @ W.dequantize()[:, outliers].float().T
        regular = rows.index_fill(1, outliers, 0)
    X = quantize_int8(regular)
    y = y + integer_product(X.codes, W.codes) * (X.absmax[:, None] * W.absmax[None, :] / 127**2)
    y = y if b is None else y + b
    return y.to(x.dtype).reshape(*x.shape[:-1], -1)


def integer_product(a: Tensor, b: Tensor) -> Tensor:
    """a bᵀ for int8 matrices (m, k) and (n, k), summed without rounding: (m, n) int32."""
    return (a.int() @ b.int().T) if a.device.type == "cpu" else (a.double() @ b.double().T).int()
