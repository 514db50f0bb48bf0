r"""BEFT: Bias-Efficient Fine-Tuning (Huang et al., 2025, arXiv:2509.15974): a trained vector added to a layer's output.

$$h = W_0 x + b + \beta, \qquad \beta \in \mathbb{R}^{d_{out}}$$

This is BitFit for layers without a bias. By default the values' projections alone get a vector, which the paper finds
to be the best of the three. $\beta$ starts at zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from peftlab.errors import ConfigError
from peftlab.methods.base import Adapter, Card, Method, Shared, method
from peftlab.surgery import Site, is_transposed_linear

VALUES: dict[str, tuple[str, ...]] = {
    "bart": ("v_proj",),
    "bert": ("value",),
    "deberta-v2": ("value_proj",),
    "gemma": ("v_proj",),
    "gemma2": ("v_proj",),
    "gemma3_text": ("v_proj",),
    "gpt_neo": ("v_proj",),
    "gptj": ("v_proj",),
    "llama": ("v_proj",),
    "llama4": ("v_proj",),
    "mistral": ("v_proj",),
    "mixtral": ("v_proj",),
    "mt5": ("v",),
    "opt": ("v_proj",),
    "phi": ("v_proj",),
    "qwen2": ("v_proj",),
    "qwen3": ("v_proj",),
    "roberta": ("value",),
    "t5": ("v",),
}


class AddedBias(Adapter):
    """β, added to what the layer gives. own: its name; shape: (d_out), or (1, d_out) as in peft's files."""

    def __init__(self, site: Site, own: str, shape: tuple[int, ...]) -> None:
        super().__init__(site)
        self.own = own
        self.register_parameter(own, nn.Parameter(torch.zeros(shape)))

    def forward(self, inner: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        h = inner(*args, **kwargs)  # W₀x + b                     (…, d_out)
        return (h + getattr(self, self.own).flatten()).to(h.dtype)  # + β   (…, d_out)

    def merged(self, W: Tensor, b: Tensor | None) -> tuple[Tensor, Tensor | None]:
        beta = getattr(self, self.own).flatten()
        return W, beta.to(W.dtype) if b is None else (b + beta).to(b.dtype)


@method
class BEFT(Method):
    """Added biases. `peft.BeftConfig`'s fields, defaults and semantics; it merges also where there was no bias."""

    target_modules: list[str] | str | None = None
    init_weights: bool = True

    peft_type = "BEFT"
    default_targets: ClassVar[Mapping[str, Any]] = VALUES
    card = Card(
        title="BEFT: Bias-Efficient Fine-Tuning of Language Models in Low-Data Regimes",
        year=2025,
        arxiv="2509.15974",
        equation="as peft's documentation states it",
        family="selective",
        reference="peft.BeftConfig",
        formula="h = W₀x + b + β",
        shapes="β (1, d_out) per layer",
        parameters="d_out per layer",
        mergeable=True,
        inference_cost="none once merged; unmerged one addition per output",
        traps=(
            "peft merges β only where the layer has a bias already; where it has none, peft refuses and this file "
            "merges into a new one.",
            "That new bias is not in the model's config: Llama saved after merging and opened again by transformers "
            "loses it, with no more than a warning. Set attention_bias=True, or keep the adapter.",
            "An added key bias does next to nothing: softmax ignores what is equal for all keys of a query.",
        ),
        use_when="few examples, a model without biases, and very many adapters to store",
        avoid_when="the task is far from what the model can already do: a constant shift cannot look at the input",
        unknown="whether the values are the best place beyond the models and tasks that the paper tried",
    )

    def __post_init__(self) -> None:
        if not self.init_weights:
            raise ConfigError("BEFT here always starts at zero; leave init_weights=True")

    def build(self, site: Site, shared: Shared | None) -> Adapter:
        if site.kind != "linear" or is_transposed_linear(site.module):
            raise ConfigError(
                f"BEFT adapts nn.Linear layers, as peft's does; {site.name} is a {type(site.module).__name__} "
                "(BitFit trains the biases that Conv1D and other layers have)"
            )
        return AddedBias(site, "beft_bias", (1, site.out_features))

    def parameters_at(self, site: Site) -> int:
        return site.out_features
