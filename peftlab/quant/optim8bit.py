r"""AdamW with both moments in 8 bits, block-wise (Dettmers et al., 2021, arXiv:2110.02861).

$$m \leftarrow \beta_1 m + (1-\beta_1) g, \qquad v \leftarrow \beta_2 v + (1-\beta_2) g^2, \qquad
w \leftarrow w - \eta \lambda w - \eta\, \frac{m / (1-\beta_1^t)}{\sqrt{v / (1-\beta_2^t)} + \epsilon}$$

computed in float32. Between steps m (signed) and v (never negative, so unsigned) are kept as 8-bit codes with one scale
for each 256 values, as in bitsandbytes today (the paper has 2,048): 2.03 bytes a parameter instead of 8. Tensors below
4096 values keep float32 moments: they cost nothing, and LoRA's small tensors are often among them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from peftlab.errors import PeftLabError
from peftlab.quant.eight_bit import EightBit, quantize_8bit

SMALL = 4096  # tensors with fewer values keep their moments in float32


class AdamW8bit(torch.optim.Optimizer):
    """torch.optim.AdamW's arguments and meaning; bit for bit bitsandbytes' AdamW8bit on a CPU.

    small: below this many values a tensor keeps float32 moments.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        small: int = SMALL,
    ) -> None:
        if lr < 0 or eps < 0 or weight_decay < 0 or not all(0 <= beta < 1 for beta in betas):
            raise PeftLabError(
                f"AdamW8bit(lr={lr}, betas={betas}, eps={eps}, weight_decay={weight_decay}): none may be negative, and "
                "betas must be below 1"
            )
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "small": small})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is not None:
                    self._update(w, group)
        return loss

    def _update(self, w: Tensor, group: dict[str, Any]) -> None:
        state = self.state[w]
        t = state["step"] = state.get("step", 0) + 1
        beta1, beta2 = group["betas"]
        g = w.grad.float()
        m = _restored(state.get("m"), w).mul_(beta1).add_(g, alpha=1 - beta1)
        v = _restored(state.get("v"), w).mul_(beta2).addcmul_(g, g, value=1 - beta2)
        new = w.float()
        if group["weight_decay"] > 0:
            new = new * (1 - group["lr"] * group["weight_decay"])
        small = w.numel() < group["small"]
        w.copy_((_step_small if small else _step)(new, m, v, t, group))
        state["m"] = m if small else quantize_8bit(m)
        state["v"] = v if small else quantize_8bit(v, signed=False)

    def state_bytes(self) -> int:
        """What the moments occupy now."""
        moments = [state[name] for state in self.state.values() for name in ("m", "v") if name in state]
        return sum(x.bits // 8 if isinstance(x, EightBit) else 4 * x.numel() for x in moments)


def _restored(moment: EightBit | Tensor | None, w: Tensor) -> Tensor:
    """A moment as a new float32 tensor of w's shape; zero before the first step."""
    if moment is None:
        return torch.zeros_like(w, dtype=torch.float32)
    return moment.dequantize() if isinstance(moment, EightBit) else moment.float().clone()


def _step(w: Tensor, m: Tensor, v: Tensor, t: int, group: dict[str, Any]) -> Tensor:
    """The formula above."""
    beta1, beta2 = group["betas"]
    root = v.sqrt() / math.sqrt(1 - beta2**t) + group["eps"]
    return w.addcdiv(m, root, value=-group["lr"] / (1 - beta1**t))


def _step_small(w: Tensor, m: Tensor, v: Tensor, t: int, group: dict[str, Any]) -> Tensor:
    """The same with both sides of the fraction times √(1-β₂ᵗ), as bitsandbytes orders it for float32 moments."""
    beta1, beta2 = group["betas"]
    correction = math.sqrt(1 - beta2**t)
    return w.add(m / (v.sqrt() + group["eps"] * correction), alpha=-group["lr"] * correction / (1 - beta1**t))
