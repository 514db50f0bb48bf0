"""Several adapters into one: what `add_weighted_adapter` means by 'cat' and by 'linear', for LoRA and for IA³."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from peftlab.errors import ConfigError
from peftlab.methods.additive.ia3 import IA3, ScaledInput
from peftlab.methods.base import Adapter, Chain, Copy, Method
from peftlab.methods.reparam.lora import LAYERS, LoRA, LoRALinear
from peftlab.surgery import Site


def combined(
    methods: Sequence[Method],
    adapters: Sequence[Mapping[str, Adapter]],
    weights: Sequence[float],
    combination_type: str,
) -> tuple[Method, dict[str, Adapter]]:
    """The combined method, and its adapters by site. The sources stay as they are.

    Raises ConfigError if the sources are not all plain LoRA or all IA³, the weights do not match, or 'linear' meets
    unequal ranks.
    """
    if combination_type not in ("cat", "linear"):
        raise ConfigError(f"combination_type={combination_type!r}: choose 'cat' or 'linear'")
    if len(weights) != len(methods) or not methods:
        raise ConfigError(f"{len(methods)} adapters and {len(weights)} weights; give one weight for each adapter")
    if any(type(adapter) is Copy for sites in adapters for adapter in sites.values()):
        raise ConfigError("adapters with modules_to_save cannot be combined: which copy should win?")
    if all(isinstance(method, IA3) for method in methods):
        return _summed(methods[0], adapters, weights, combination_type)
    for method, sites in zip(methods, adapters, strict=True):
        if not isinstance(method, LoRA) or any(type(a) not in LAYERS.values() for a in sites.values()):
            raise ConfigError(
                "only plain LoRA adapters can be combined (no DoRA, PiSSA, OLoRA or trained biases), or IA3 with IA3"
            )
    built: dict[str, Adapter] = {}
    for site in dict.fromkeys(site for sites in adapters for site in sites):
        here = [(sites[site], w) for sites, w in zip(adapters, weights, strict=True) if site in sites]
        built[site] = _combine([a for a, _ in here], [w for _, w in here], combination_type)
    return described(methods[0], built), built


def _summed(
    method: IA3, adapters: Sequence[Mapping[str, Adapter]], weights: Sequence[float], how: str
) -> tuple[IA3, dict[str, Adapter]]:
    """l = Σ wᵢ lᵢ. As in peft, an adapter without a vector at a site counts as zero there, not as one."""
    if how != "linear":
        raise ConfigError(f"combination_type={how!r}: IA3's vectors can only be added; choose 'linear'")
    built: dict[str, Adapter] = {}
    for site in dict.fromkeys(site for sites in adapters for site in sites):
        here = [(sites[site], weight) for sites, weight in zip(adapters, weights, strict=True) if site in sites]
        first = here[0][0]
        if any(type(adapter) is not type(first) for adapter, _ in here):
            raise ConfigError(f"one IA3 adapter scales {site}'s input, another its output; they cannot be added")
        built[site] = type(first)(first.site)
        built[site].ia3_l.data = sum(weight * adapter.ia3_l.detach() for adapter, weight in here)
    inputs = [re.escape(site) for site, adapter in built.items() if isinstance(adapter, ScaledInput)]
    return dataclasses.replace(
        method,
        target_modules=list(built),
        exclude_modules=None,
        feedforward_modules="|".join(inputs) if inputs else [],
        init_ia3_weights=True,
    ), built


def described(method: LoRA, built: Mapping[str, Adapter]) -> LoRA:
    """`method` with the fields that describe these adapters, whose scaling is 1."""
    loras = {site: adapter.last if isinstance(adapter, Chain) else adapter for site, adapter in built.items()}
    ranks = {site: adapter.r for site, adapter in loras.items() if isinstance(adapter, LoRALinear)}
    r = max(ranks.values())
    pattern = {f"^{re.escape(site)}": rank for site, rank in ranks.items() if rank != r}  # ^: no other name's end
    return dataclasses.replace(
        method,
        r=r,
        lora_alpha=r,
        rank_pattern=pattern,
        alpha_pattern=dict(pattern),
        use_rslora=False,
        target_modules=list(ranks),
        lora_dropout=0.0,
        init_lora_weights=True,
        exclude_modules=None,
        layers_to_transform=None,
        layers_pattern=None,
    )


def _combine(sources: Sequence[LoRALinear], weights: Sequence[float], how: str) -> LoRALinear:
    first, factors = sources[0], [_factors(source) for source in sources]
    scales = [weight * source.scaling for weight, source in zip(weights, sources, strict=True)]
    if how == "cat":
        return stacked(type(first), first.site, [(A, B, s) for (A, B), s in zip(factors, scales, strict=True)])
    if len({source.r for source in sources}) > 1:
        raise ConfigError("'linear' needs adapters of equal rank; use 'cat'")
    roots = [math.copysign(math.sqrt(abs(s)), s) for s in scales]
    A = sum(root * A for root, (A, _) in zip(roots, factors, strict=True))
    B = sum(abs(root) * B for root, (_, B) in zip(roots, factors, strict=True))
    return _holding(type(first), first.site, A, B)


def stacked(
    layer: type[LoRALinear], site: Site, terms: Sequence[tuple[Tensor, Tensor, float]]
) -> LoRALinear:
    """Σ sᵢ Bᵢ Aᵢ as one LoRA of scaling 1: A = [s₁A₁; s₂A₂; …], B = [B₁ B₂ …]. The ranks add up."""
    A = torch.cat([A * s for A, _, s in terms])
    B = torch.cat([B for _, B, _ in terms], dim=1)
    return _holding(layer, site, A, B)


def _holding(layer: type[LoRALinear], site: Site, A: Tensor, B: Tensor) -> LoRALinear:
    result = layer(site, A.shape[0], scaling=1.0, dropout=0.0)
    for target, value in zip(_factors(result), (A, B), strict=True):
        target.data = value.detach().clone()
    return result


def _factors(adapter: LoRALinear) -> tuple[Tensor, Tensor]:
    if hasattr(adapter, "lora_embedding_A"):
        return adapter.lora_embedding_A, adapter.lora_embedding_B
    return adapter.lora_A.weight, adapter.lora_B.weight
