r"""LoftQ: LoRA-Fine-Tuning-aware Quantization (Li et al., 2023, arXiv:2310.08659), algorithm 1.

QLoRA starts from the quantised $Q$ with $BA = 0$, so it starts with the whole quantisation error. LoftQ lets the
adapter take over what it can of that error, and quantises what is left, again and again:

$$Q_t = \operatorname{quant}(W - s B_{t-1} A_{t-1}), \qquad
s B_t A_t = \operatorname{SVD}_r(W - Q_t), \qquad \min \lVert W - Q - s B A \rVert_F$$

The scaling $s = \alpha/r$ is the adapter's own. peft leaves it out (its issue 1982), so there
the start is right for $\alpha = r$ only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import peftlab
from peftlab import surgery
from peftlab.errors import ConfigError, PeftLabError
from peftlab.methods import LoRA
from peftlab.methods.reparam.lora import LoRALinear
from peftlab.quant.linear import Linear4bit
from peftlab.quant.quantized import Quantized, quantize


@dataclass(frozen=True)
class LoftQ:
    """W ≈ Q + s B A. `errors[t]` is ‖W - Q - sBA‖_F after t iterations; `errors[0]` that of quantising alone."""

    Q: Quantized
    A: Tensor  # (r, d_in)
    B: Tensor  # (d_out, r)
    errors: tuple[float, ...]


@torch.no_grad()
def loftq(
    W: Tensor,
    r: int,
    *,
    iterations: int = 5,
    scaling: float = 1.0,
    kind: str = "nf4",
    blocksize: int = 64,
    double: bool = False,
) -> LoftQ:
    """Q, A and B for a dense W (d_out, d_in), on whatever device it is.

    Raises PeftLabError for a W that is no matrix, and a rank or a number of iterations that does not fit.
    """
    if W.ndim != 2 or not 0 < r <= min(W.shape):
        raise PeftLabError(f"loftq(r={r}): W, {tuple(W.shape)}, must be a matrix, and r from 1 to {min(W.shape)}")
    if iterations < 1 or scaling == 0:
        raise PeftLabError(f"loftq(iterations={iterations}, scaling={scaling}): at least one iteration, scaling not 0")
    dense = W.float()
    BA, errors = torch.zeros_like(dense), []
    for _ in range(iterations):
        Q = quantize((dense - BA).to(W.dtype), kind, blocksize, double)
        rest = dense - Q.dequantize().float()  # what the adapter has to make up for   (d_out, d_in)
        errors.append(float(torch.linalg.norm(rest - BA)))
        A, B = _closest_of_rank(rest, r)
        BA = B @ A
    errors.append(float(torch.linalg.norm(rest - BA)))
    root = abs(scaling) ** 0.5
    return LoftQ(Q, A / root, B / (scaling / root), tuple(errors))


def _closest_of_rank(M: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """A (r, d_in) and B (d_out, r) whose product is nearest to M of all matrices of rank r."""
    U, S, Vh = torch.linalg.svd(M, full_matrices=False)
    root = S[:r].sqrt()
    return root[:, None] * Vh[:r], U[:, :r] * root


def attach_loftq(
    model: nn.Module,
    method: LoRA,
    *,
    iterations: int = 5,
    kind: str = "nf4",
    blocksize: int = 64,
    double: bool = False,
    name: str = "default",
) -> Mapping[str, tuple[float, ...]]:
    """Quantise the layers that `method` targets and attach it with LoftQ's start. Returns the errors, by layer.

    The model changes in place. Its other layers stay dense: call `quantize_model` first, with these layers in
    exclude_modules, if they too are to be in 4 bits. `peftlab.detach` leaves Q, which alone is a worse model than
    plain quantisation would be: Q and the adapter belong together.

    Raises PeftLabError (with the model untouched) if the method is not a LoRA, a target is not a dense linear layer,
    or adapters are attached already.
    """
    if not isinstance(method, LoRA) or method.use_dora or method.start_function() is not None:
        raise ConfigError(
            "attach_loftq starts a LoRA(...) without use_dora and without init_lora_weights='pissa' or such"
        )
    if getattr(model, "peftlab", None) is not None:
        raise PeftLabError("LoftQ changes the base, and adapters are attached to it; merge or detach them first")
    prepared = method.prepare(model)
    sites = prepared.sites(model)
    for site in sites:
        if site.kind != "linear" or not surgery.is_dense(site.module):
            raise ConfigError(
                f"{site.name} is a {type(site.module).__name__}; LoftQ needs dense linear layers, because it quantises "
                "them itself"
            )
    starts = {
        site.name: loftq(
            surgery.dense(site.module)[0],
            prepared.rank_at(site),
            iterations=iterations,
            scaling=prepared.scaling_at(site),
            kind=kind,
            blocksize=blocksize,
            double=double,
        )
        for site in sites
    }
    for site in sites:
        layer = Linear4bit(starts[site.name].Q, surgery.dense(site.module)[1])
        surgery.replace(model, site.name, layer.train(site.module.training))
    try:
        peftlab.attach(model, method, name=name)
    except Exception:
        for site in sites:
            surgery.replace(model, site.name, site.module)
        raise
    adapters = {site: wrapper.adapters[name] for site, wrapper in surgery.adapted_modules(model).items()}
    with torch.no_grad():
        for site, start in starts.items():
            lora = next(part for part in adapters[site].modules() if isinstance(part, LoRALinear))
            lora.lora_A.weight.copy_(start.A)
            lora.lora_B.weight.copy_(start.B)
    return {site: start.errors for site, start in starts.items()}
