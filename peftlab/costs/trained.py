"""What a method trains on a model: how many numbers, and where its adapters sit. Asked of the method itself.

what_trains("llama-2-7b", LoRA(r=8, target_modules=["q_proj", "v_proj"])).parameters     # 4,194,304
what_trains("llama-2-7b", "full").parameters                                             # 6,738,415,616
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peftlab.costs.configs import Architecture, architecture

DEFAULT_RANK = 16


@dataclass(frozen=True)
class Trained:
    """What a method trains: how many numbers, how large the largest tensor is, and where its adapters sit."""

    parameters: int
    largest: int
    ranks: Mapping[str, int]  # linear layer's name in a block -> rank
    exact: bool = True  # False: the parameters are exact, the activations of this method are a guess
    prompt: int = 0  # virtual tokens that lengthen every row
    dropout: float = 0.0


def what_trains(model: Any, method: Any) -> Trained:
    """Trainable parameters of a method on a model, from its own formula (`Method.parameters_at`)."""
    a = architecture(model)
    if isinstance(method, str):
        if method == "full":
            largest = max(a.vocabulary * a.width, *(linear.d_in * linear.d_out for linear in a.linears))
            return Trained(a.parameters, largest, {})
        from peftlab.methods import LoRA

        method = LoRA(r=DEFAULT_RANK, lora_alpha=2 * DEFAULT_RANK, target_modules="all-linear")
    return _plain_lora(a, method) or _ask_on_meta(a, method)


def _plain_lora(a: Architecture, method: Any) -> Trained | None:
    """LoRA with one rank on matrices of every block: no model needs to be built for that."""
    targets = getattr(method, "target_modules", None)
    plain = type(method).__name__ == "LoRA" and (targets == "all-linear" or isinstance(targets, list))
    special = ("use_dora", "layers_to_transform", "rank_pattern", "exclude_modules", "modules_to_save")
    if not plain or method.bias != "none" or any(getattr(method, name) for name in special):
        return None
    last = {linear.name.split(".")[-1] for linear in a.linears}
    wanted = last if targets == "all-linear" else set(targets)
    if not wanted <= last or (a.family == "bert" and "dense" in wanted):  # the pooler has a matrix of that name too
        return None
    r = method.r
    hit = [linear for linear in a.linears if linear.name.split(".")[-1] in wanted]
    count = a.layers * sum(r * (linear.d_in + linear.d_out) for linear in hit)
    largest = max(r * max(linear.d_in, linear.d_out) for linear in hit)
    return Trained(count, largest, {linear.name: r for linear in hit}, dropout=method.lora_dropout)


def _ask_on_meta(a: Architecture, method: Any) -> Trained:
    """Build the model without memory and ask the method where it goes."""
    from peftlab import surgery

    meta = on_meta(a)
    method = method.prepare(meta)
    modules = surgery.base_modules(meta)
    sites = method.sites(meta)
    counts = {site.name: method.parameters_at(site) for site in sites}
    kept = [p.numel() for site in method.kept_sites(modules) for p in site.module.parameters()]
    biases = [p.numel() for own in method.trainable_biases(modules, counts).values() for p in own.values()]
    total = sum(counts.values()) + method.shared_parameters(meta) + sum(kept) + sum(biases)
    is_lora = type(method).__name__ == "LoRA"
    ranks: dict[str, int] = {}
    for site in sites:
        for linear in a.linears:
            if re.search(rf"\.\d+\.{re.escape(linear.name)}$", site.name):
                ranks[linear.name] = max(ranks.get(linear.name, 0), method.rank_at(site) if is_lora else 0)
    tensors = [method.rank_at(s) * max(s.in_features, s.out_features) for s in sites] if is_lora else counts.values()
    plain = is_lora and not method.use_dora and method.layers_to_transform is None and not method.rank_pattern
    prompt = getattr(method, "num_virtual_tokens", 0) if not sites else 0
    return Trained(
        parameters=total,
        largest=max([*tensors, *kept, *biases], default=total),
        ranks=ranks,
        exact=plain and not kept and not biases,
        prompt=prompt,
        dropout=getattr(method, "lora_dropout", 0.0),
    )


def on_meta(model: Any) -> Any:
    """The model that transformers builds from the config, on the meta device: shapes, no numbers, no memory."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    a = architecture(model)
    config = AutoConfig.for_model(**dict(a.config))
    kind = AutoModelForCausalLM if a.is_decoder else AutoModel
    with torch.device("meta"):
        return kind.from_config(config)
