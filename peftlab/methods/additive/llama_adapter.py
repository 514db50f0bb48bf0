r"""LLaMA-Adapter (Zhang et al., 2023, arXiv:2303.16199): zero-initialised attention.

$$\mathrm{head} \leftarrow \mathrm{head} + g \,\mathrm{softmax}\!\left(\frac{q\,(P W_K)^\top}{\sqrt{d_h}}\right) P W_V$$

In the top layers, $n$ trained vectors $P$ pass through the layer's own $W_K$ and $W_V$, and every query looks at them
in a softmax of its own. The gate $g$ starts at zero, so the model starts as it was.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import nn

from peftlab import hosts, surgery
from peftlab.errors import ConfigError, NotMergeable
from peftlab.methods.base import Adapter, Card, Method, Shared, method, require_positive
from peftlab.surgery import Site


class AdaptionPrompt(Adapter):
    """P of shape (1, n, d) and the gate g of one attention layer."""

    mergeable = False

    def __init__(self, site: Site, n: int, d: int) -> None:
        super().__init__(site)
        self.adaption_prompt = nn.Parameter(torch.randn(1, n, d))
        self.adaption_gate = nn.Parameter(torch.zeros(1))

    def forward(self, inner: Any, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        output, *rest = inner(*args, **kwargs)
        layer, P, g = self.site.module, self.adaption_prompt.to(output.dtype), self.adaption_gate
        q = hosts.queries(layer, *args, **kwargs)  # (batch, heads, T, d_h), computed a second time
        K, V = hosts.keys_and_values(layer, P)  # each (1, heads, n, d_h)
        scores = q @ K.transpose(2, 3) / math.sqrt(q.shape[-1])
        S = g * torch.softmax(scores, dim=-1, dtype=torch.float32)  # in float32 for every model, as in peft
        return output + hosts.joined_heads(layer, S.to(output.dtype) @ V), *rest

    def merge_into(self, module: nn.Module) -> nn.Module:
        raise NotMergeable(f"{LlamaAdapter.__name__} cannot be merged: {LlamaAdapter.card.levels['P4']}")


@method
class LlamaAdapter(Method):
    """LLaMA-Adapter. `peft.AdaptionPromptConfig`'s fields, defaults and semantics."""

    adapter_len: int  # n
    adapter_layers: int  # how many layers, counted from the top
    target_modules: str | None = None  # the end of the attention modules' names; None: by the kind of model

    peft_type = "ADAPTION_PROMPT"
    mixable = False
    card = Card(
        title="LLaMA-Adapter: Efficient Fine-tuning of Large Language Models with Zero-initialized Attention",
        year=2023,
        arxiv="2303.16199",
        equation="zero-initialised attention",
        family="additive",
        reference="peft.AdaptionPromptConfig",
        formula="head + g softmax(q (P W_K)ᵀ / √d_h) P W_V",
        shapes="P (1, n, d) and g (1) per adapted layer",
        parameters="layers (n d + 1)",
        mergeable=False,
        inference_cost="in each adapted layer the queries once more, and attention to n more keys",
        traps=(
            "With g = 0 no gradient reaches P: the first step moves the gates only.",
            "The softmax over P is apart from the one over the text, so P takes no attention away from the text.",
            "On GPT-2, peft adds the heads without the output projection W_O, and so does this method.",
            "peft leaves a classifier's new head untrained here; this method trains it and saves it along.",
            "Queries carry positions and the prompt's keys do not: what a query sees in P turns with its position.",
        ),
        use_when="the model must start exactly as it was, and a prefix should reach the top layers only",
        avoid_when="the model is not Llama, Mistral or GPT-2, or the result must merge",
        unknown="how many layers to adapt; the top is a habit from the paper",
        levels={"P4": "what the prompt adds depends on the query through a softmax: no weight does that"},
    )

    def __post_init__(self) -> None:
        require_positive(self, "adapter_len", "adapter_layers")
        if self.target_modules is not None and not (isinstance(self.target_modules, str) and self.target_modules):
            raise ConfigError(
                f"LlamaAdapter(target_modules={self.target_modules!r}): give one name, such as 'self_attn'"
            )

    def to_config(self) -> dict[str, Any]:
        """peft's config for this method has no modules_to_save, so an empty one is left out."""
        config = super().to_config()
        return {k: v for k, v in config.items() if k != "modules_to_save" or v is not None}

    def prepare(self, model: nn.Module) -> Method:
        target = hosts.adaption_target(model)
        return Method.prepare(dataclasses.replace(self, target_modules=self.target_modules or target), model)

    def sites(self, model: nn.Module) -> list[Site]:
        target = self.target_modules or hosts.adaption_target(model)
        found = [Site(name, m) for name, m in surgery.base_modules(model).items() if name.endswith(f".{target}")]
        if not found or len(found) < self.adapter_layers:
            raise ConfigError(
                f"adapter_layers={self.adapter_layers}, but this model has {len(found)} modules called {target}"
            )
        return found[-self.adapter_layers :]

    def build(self, site: Site, shared: Shared | None) -> Adapter:
        if not hasattr(site.module, "head_dim"):
            raise ConfigError(
                f"{site.name} is a {type(site.module).__name__}, not an attention layer; leave target_modules out"
            )
        return AdaptionPrompt(site, self.adapter_len, site.module.config.hidden_size)

    def parameters_at(self, site: Site) -> int:
        return self.adapter_len * site.module.config.hidden_size + 1
