r"""LoRA: Low-Rank Adaptation of Large Language Models (Hu et al., 2021, arXiv:2106.09685), equation 3.

$$h = W_0 x + \Delta W x = W_0 x + \frac{\alpha}{r} B A x, \qquad A \in \mathbb{R}^{r \times d_{in}},\;
B \in \mathbb{R}^{d_{out} \times r}$$

The pretrained $W_0$ is frozen. $A$ starts random and $B$ at zero, so training starts from the pretrained model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftlab import surgery
from peftlab.errors import ConfigError, NotMergeable
from peftlab.methods.base import (
    Adapter,
    Card,
    Chain,
    Method,
    Overlay,
    Shared,
    method,
    require_number,
    require_positive,
    require_share,
)
from peftlab.surgery import Site
from peftlab.targeting import pattern_value


class LoRALinear(Adapter):
    """LoRA for a layer that multiplies: nn.Linear, and transformers' transposed Conv1D."""

    def __init__(self, site: Site, r: int, scaling: float, dropout: float) -> None:
        super().__init__(site)
        self.r, self.scaling = r, scaling
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.make_factors(site.in_features, site.out_features, r)

    def make_factors(self, d_in: int, d_out: int, r: int) -> None:
        self.lora_A = nn.Linear(d_in, r, bias=False)  # A ∈ ℝ^(r × d_in)
        self.lora_B = nn.Linear(r, d_out, bias=False)  # B ∈ ℝ^(d_out × r)

    def start(self, how: bool | str) -> None:
        """A random, B zero: the product starts at zero, yet B's gradient does not."""
        if str(how).lower() == "gaussian":
            nn.init.normal_(self.lora_A.weight, std=1 / self.r)
        else:  # nn.Linear's own default: uniform between -1/sqrt(d_in) and 1/sqrt(d_in)
            nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)

    def started(self) -> None:
        """Called once A and B hold their first values."""

    def forward(self, inner: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        h = inner(x)  # W₀x + b                        (…, d_out)
        x = self.dropout(x.to(self.lora_A.weight.dtype))
        z = self.lora_A(x)  # A x                      (…, r)
        delta = self.lora_B(z) * self.scaling  # (α/r) B A x   (…, d_out)
        return (h + delta).to(h.dtype)

    def delta_weight(self) -> Tensor:
        return self.lora_B.weight @ self.lora_A.weight * self.scaling  # ΔW = (α/r) B A   (d_out, d_in)


class LoRAEmbedding(LoRALinear):
    """LoRA for nn.Embedding: a table look-up is a product with a one-hot x, so A's columns are looked up."""

    def make_factors(self, d_in: int, d_out: int, r: int) -> None:
        self.lora_embedding_A = nn.Parameter(torch.randn(r, d_in))  # A ∈ ℝ^(r × vocabulary)
        self.lora_embedding_B = nn.Parameter(torch.randn(d_out, r))  # B ∈ ℝ^(d × r)

    def start(self, how: bool | str) -> None:
        """Here A is zero and B random, the other way round, as in Microsoft's code and in peft."""
        nn.init.zeros_(self.lora_embedding_A)
        nn.init.normal_(self.lora_embedding_B)

    def forward(self, inner: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        h = inner(x)  # W₀ x                            (…, d)
        base = self.site.module
        z = F.embedding(  # A x                         (…, r)
            x, self.lora_embedding_A.T, base.padding_idx, base.max_norm, base.norm_type
        )
        delta = (z @ self.lora_embedding_B.T) * self.scaling  # (α/r) B A x   (…, d)
        factor = getattr(base, "embed_scale", None)  # some models (Gemma 3) scale their embeddings
        if factor is not None:
            delta = delta * factor
        return (h + delta).to(h.dtype)

    def delta_weight(self) -> Tensor:
        return (self.lora_embedding_B @ self.lora_embedding_A).T * self.scaling  # (vocabulary, d)


class LoRAConv2d(LoRALinear):
    """LoRA for nn.Conv2d: A is a convolution to r channels with the layer's own kernel, B a 1×1 convolution."""

    def make_factors(self, d_in: int, d_out: int, r: int) -> None:
        base = self.site.module
        if r % base.groups:
            raise ConfigError(
                f"LoRA(r={r}) on {self.site.name}: the rank must be divisible by the layer's groups ({base.groups})"
            )
        if base.dilation != (1, 1) or base.padding_mode != "zeros":
            raise ConfigError(
                f"LoRA on {self.site.name}: dilation and padding modes other than zeros are not supported "
                "(peft ignores both, and then merged and unmerged outputs differ); exclude this module"
            )
        self.lora_A = nn.Conv2d(d_in, r, base.kernel_size, base.stride, base.padding, bias=False)
        self.lora_B = nn.Conv2d(r, d_out, (1, 1), (1, 1), groups=base.groups, bias=False)

    def delta_weight(self) -> Tensor:
        B = self.lora_B.weight.flatten(1)  # (d_out, r / groups)
        A = self.lora_A.weight.flatten(1)  # (r, d_in k k)
        if self.site.module.groups > 1:
            raise NotMergeable(
                f"LoRA on {self.site.name}, a convolution in {self.site.module.groups} groups, cannot be merged: "
                "A reads all input channels, a grouped weight only its own; keep it unmerged"
            )
        return (B @ A).view_as(self.site.module.weight) * self.scaling


LAYERS: dict[str, type[LoRALinear]] = {"linear": LoRALinear, "embedding": LoRAEmbedding, "conv2d": LoRAConv2d}
# Filled by other files: dora.py (config field -> layer kind -> class), and methods/init/ (what init_lora_weights says,
# as a regular expression -> function).
VARIANTS: dict[str, dict[str, type[LoRALinear]]] = {}
STARTS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {}


@method
class LoRA(Method):
    """Low-rank adaptation. `peft.LoraConfig`'s fields, defaults and semantics."""

    r: int = 8
    lora_alpha: int | float = 8
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    lora_dropout: float = 0.0
    bias: str = "none"  # 'none', 'all' or 'lora_only'
    use_rslora: bool = False
    use_dora: bool = False
    init_lora_weights: bool | str = True  # True, False, 'gaussian', 'pissa', 'pissa_niter_[n]', 'olora'
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, int | float] = field(default_factory=dict)

    peft_type = "LORA"
    NEUTRAL: ClassVar[dict[str, Any]] = {"qalora_group_size": 16}
    card = Card(
        title="LoRA: Low-Rank Adaptation of Large Language Models",
        year=2021,
        arxiv="2106.09685",
        equation="equation 3, section 4.1",
        family="reparameterisation",
        reference="peft.LoraConfig",
        formula="h = W₀x + b + (α/r) B A x",
        shapes="A (r, d_in), B (d_out, r)",
        parameters="r (d_in + d_out) per layer",
        mergeable=True,
        inference_cost="none once merged; unmerged two thin matrix products per layer",
        traps=(
            "α and the learning rate depend on each other: search the rate again when you change α.",
            "A and B must not both start at zero: then neither gets a gradient.",
            "A new head is trained only if it is in modules_to_save.",
        ),
        use_when="a first choice: strong results at under 1 % of the parameters, and no cost once merged",
        avoid_when="the task needs much new knowledge from much data; full fine-tuning can then win",
        unknown="which rank a task needs cannot be read off beforehand",
    )

    def __post_init__(self) -> None:
        require_positive(self, "r", "rank_pattern")
        require_number(self, "lora_alpha", "alpha_pattern")
        require_share(self, "lora_dropout")
        if self.bias not in ("none", "all", "lora_only"):
            raise ConfigError(f"LoRA(bias={self.bias!r}): choose 'none', 'all' or 'lora_only'")
        how = self.init_lora_weights
        known = isinstance(how, bool) or str(how).lower() == "gaussian" or self.start_function() is not None
        if not known:
            raise ConfigError(
                f"LoRA(init_lora_weights={how!r}): choose True, False, 'gaussian' or one of {', '.join(STARTS)}"
            )
        if self.use_dora and self.start_is_random():
            raise ConfigError(
                f"LoRA(use_dora=True, init_lora_weights={how!r}): no file could hold this adapter, because its base is "
                "changed at random; use init_lora_weights='pissa'"
            )

    def start_function(self) -> Callable[..., tuple[Tensor, Tensor]] | None:
        """The function from methods/init/ that this start means, or None for the built-in ones."""
        how = str(self.init_lora_weights)
        return next((start for pattern, start in STARTS.items() if re.fullmatch(pattern, how)), None)

    def start_is_random(self) -> bool:
        return isinstance(self.init_lora_weights, str) and "_niter_" in self.init_lora_weights

    def rank_at(self, site: Site) -> int:
        return pattern_value(self.rank_pattern, site.name, self.r)

    def scaling_at(self, site: Site) -> float:
        """α/r, or with rank-stabilised LoRA (Kalajdzievski, 2023, arXiv:2312.03732) α/√r."""
        r = self.rank_at(site)
        alpha = pattern_value(self.alpha_pattern, site.name, self.lora_alpha)
        return alpha / math.sqrt(r) if self.use_rslora else alpha / r

    def build(self, site: Site, shared: Shared | None) -> Adapter:
        variant = next((layers for name, layers in VARIANTS.items() if getattr(self, name)), None)
        layers = LAYERS if variant is None else variant
        if site.kind not in layers:
            raise ConfigError(
                f"LoRA cannot adapt {site.name}, a {type(site.module).__name__}: with these fields it adapts "
                f"{', '.join(layers)} layers; name other target_modules or exclude this one"
            )
        adapter = layers[site.kind](site, self.rank_at(site), self.scaling_at(site), self.lora_dropout)
        start = self.start_function()
        if start is not None:
            return self.started_from_weights(adapter, start)
        if self.init_lora_weights is not False:
            adapter.start(self.init_lora_weights)
        adapter.started()
        return adapter

    def started_from_weights(self, adapter: LoRALinear, start: Callable[..., tuple[Tensor, Tensor]]) -> Adapter:
        """A and B taken out of W₀ itself; what is left of W₀ lies over the original, which is kept for `detach`."""
        site = adapter.site
        if site.kind != "linear":
            raise ConfigError(f"init_lora_weights={self.init_lora_weights!r} needs linear layers, not {site.name}")
        if not surgery.is_dense(site.module):
            raise ConfigError(
                f"init_lora_weights={self.init_lora_weights!r} takes its start out of a dense weight and changes it, "
                f"but that of {site.name} is quantised; peftlab.quant.attach_loftq starts from dense ones"
            )
        W, b = surgery.dense(site.module)
        W = W.detach().to(torch.float32)
        A, B = start(W, adapter.r, adapter.scaling, self.init_lora_weights)
        residual = surgery.with_dense(site.module, W - adapter.scaling * B @ A, b)
        with torch.no_grad():
            adapter.lora_A.weight.copy_(A)
            adapter.lora_B.weight.copy_(B)
        adapter.register_buffer("start_A", A.clone(), persistent=False)  # to save as a plain LoRA later
        adapter.register_buffer("start_B", B.clone(), persistent=False)
        chain = Chain(Overlay(site, {"weight": residual.weight}, trainable=False), adapter)
        adapter.started()
        return chain

    def plain(self, adapters: Mapping[str, Adapter]) -> tuple[Method, dict[str, Adapter]]:
        """The same change of the weights without a changed base: ΔW = s (BA - B₀A₀), as a LoRA of rank 2r."""
        from peftlab.methods.reparam.combine import described, stacked

        if self.use_dora:
            raise ConfigError("a DoRA cannot be written as a plain LoRA: it does not only add to the weight")
        built = dict(adapters)
        for site, adapter in adapters.items():
            lora = adapter.last if isinstance(adapter, Chain) else adapter
            if hasattr(lora, "start_A"):
                terms = [(lora.lora_A.weight, lora.lora_B.weight, lora.scaling)]
                terms += [(lora.start_A, lora.start_B, -lora.scaling)]
                built[site] = stacked(LoRALinear, lora.site, terms)
                for overlay in lora.overlays:
                    if overlay.trainable:
                        built[site] = Chain(overlay, built[site])
        return described(self, built), built

    def parameters_at(self, site: Site) -> int:
        r = self.rank_at(site)
        if site.kind == "conv2d":
            base = site.module
            kernel = base.kernel_size[0] * base.kernel_size[1]
            return r * (base.in_channels * kernel + base.out_channels // base.groups)
        return r * (site.in_features + site.out_features) + (site.out_features if self.use_dora else 0)
