r"""DoRA: Weight-Decomposed Low-Rank Adaptation (Liu et al., 2024, arXiv:2402.09353), equation 5.

$$W' = m \, \frac{W_0 + \Delta W}{\lVert W_0 + \Delta W \rVert_c}, \qquad \Delta W = \frac{\alpha}{r} B A$$

A magnitude $m \in \mathbb{R}^{d_{out}}$ is trained apart from the direction. The norm runs over the inputs of each
output. Section 4.3 takes it as a constant in the backward pass, and so do we.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftlab.methods.base import Card
from peftlab.methods.reparam.lora import VARIANTS, LoRA, LoRALinear


class DoRALinear(LoRALinear):
    """LoRA inside a weight normalisation."""

    def make_factors(self, d_in: int, d_out: int, r: int) -> None:
        super().make_factors(d_in, d_out, r)
        self.lora_magnitude_vector = nn.Parameter(torch.empty(d_out))  # m ∈ ℝ^d_out

    @torch.no_grad()
    def started(self) -> None:
        """m starts as the norm of each row, so that W' starts as W₀ + ΔW."""
        self.lora_magnitude_vector.copy_(self.norm())

    def norm(self) -> Tensor:
        """‖W₀ + ΔW‖, one number for each output; no gradient flows through it."""
        W, _ = self.frozen()
        return torch.linalg.norm(W.to(self.lora_A.weight.dtype) + self.delta_weight(), dim=1).detach()

    def forward(self, inner: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        W, b = self.frozen()
        dtype = self.lora_A.weight.dtype
        h = inner(x)  # W₀x + b                                        (…, d_out)
        x = self.dropout(x.to(dtype))
        if self.training and isinstance(self.dropout, nn.Dropout):
            w0x = F.linear(x, W.to(dtype))  # all that is added to h is made of the dropped x, as in peft
        else:
            w0x = h if b is None else h - b  # W₀ x                    (…, d_out)
        scale = self.lora_magnitude_vector / self.norm()  # m / ‖W₀ + ΔW‖   (d_out)
        delta = self.lora_B(self.lora_A(x)) * self.scaling  # (α/r) B A x           (…, d_out)
        return (h + (scale - 1) * w0x + scale * delta).to(h.dtype)

    def merged(self, W: Tensor, b: Tensor | None) -> tuple[Tensor, Tensor | None]:
        scale = self.lora_magnitude_vector / self.norm()  # the norm of W₀ + ΔW, also where W holds more already
        frozen_b = self.frozen()[1]
        if b is not None and frozen_b is not None:  # an adapter further in may change b: `forward` scales that
            b = (b + (scale - 1) * (b - frozen_b)).to(b.dtype)
        return (scale[:, None] * (W + self.delta_weight())).to(W.dtype), b


VARIANTS["use_dora"] = {"linear": DoRALinear}


def DoRA(**fields: Any) -> LoRA:
    """`LoRA(use_dora=True, …)`: in peft's files DoRA is a field of LoRA."""
    return LoRA(**{**fields, "use_dora": True})


CARD = Card(
    title="DoRA: Weight-Decomposed Low-Rank Adaptation",
    year=2024,
    arxiv="2402.09353",
    equation="equation 5, section 4",
    family="reparameterisation",
    reference="peft.LoraConfig(use_dora=True)",
    formula="W' = m (W₀ + (α/r) B A) / ‖W₀ + (α/r) B A‖",
    shapes="A (r, d_in), B (d_out, r), m (d_out)",
    parameters="r (d_in + d_out) + d_out per layer",
    mergeable=True,
    inference_cost="none once merged; unmerged it forms B A and a norm in every pass, several times LoRA's cost",
    traps=("Slow in training: the norm needs the dense W₀ + ΔW in every step.",),
    use_when="LoRA at a small rank falls short and training time is not the limit",
    avoid_when="the adapter must run unmerged, or steps must be cheap",
    unknown="how much of its reported gain over LoRA remains when both get a tuned learning rate",
)
