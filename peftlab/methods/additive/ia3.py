r"""IA³: Infused Adapter by Inhibiting and Amplifying Inner Activations (Liu et al., 2022, arXiv:2205.05638), 3.3.

$$\mathrm{softmax}\!\left(\frac{Q \, (l_k \odot K^\top)}{\sqrt{d_k}}\right) (l_v \odot V)
\qquad\text{and}\qquad \left(l_{ff} \odot \gamma(W_1 x)\right) W_2$$

Three trained vectors for each block stretch or shrink its keys, its values and the inside of its feed-forward part. At
a layer this is $h = l \odot (W_0 x + b)$ for keys and values, and $h = W_0 (l \odot x) + b$ for the second feed-forward
matrix. All $l$ start at one, so training starts from the pretrained model.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from peftlab.errors import ConfigError
from peftlab.methods.base import Adapter, Card, Method, Shared, method
from peftlab.surgery import Site
from peftlab.targeting import TargetError, default_targets

# By model type: whose outputs are scaled, and whose inputs. As in peft, also where the paper says otherwise: a fused
# c_attn takes the queries along, some types have q_proj in k_proj's place, and BERT's output.dense is in two places.
PLACES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "bart": (("q_proj", "v_proj"), ("fc2",)),
    "bert": (("key", "value"), ("output.dense",)),
    "bloom": (("query_key_value",), ("mlp.dense_4h_to_h",)),
    "deberta": (("in_proj",), ("output.dense",)),
    "deberta-v2": (("key_proj", "value_proj"), ("output.dense",)),
    "falcon": (("query_key_value",), ("dense_4h_to_h",)),
    "gemma": (("q_proj", "v_proj"), ("down_proj",)),
    "gemma2": (("q_proj", "v_proj"), ("down_proj",)),
    "gemma3_text": (("q_proj", "v_proj"), ("down_proj",)),
    "gpt2": (("c_attn",), ("mlp.c_proj",)),
    "gpt_bigcode": (("c_attn",), ("mlp.c_proj",)),
    "gpt_neo": (("q_proj", "v_proj"), ("c_proj",)),
    "gpt_neox": (("query_key_value",), ("dense_4h_to_h",)),
    "gptj": (("q_proj", "v_proj"), ("fc_out",)),
    "llama": (("k_proj", "v_proj"), ("down_proj",)),
    "mistral": (("k_proj", "v_proj"), ("down_proj",)),
    "mixtral": (("k_proj", "v_proj"), ("w2",)),
    "mt5": (("k", "v", "wi_1"), ()),
    "opt": (("q_proj", "k_proj"), ("fc2",)),
    "phi": (("q_proj", "v_proj"), ("fc2",)),
    "qwen2": (("q_proj", "v_proj"), ("down_proj",)),
    "qwen3": (("q_proj", "v_proj"), ("down_proj",)),
    "roberta": (("key", "value"), ("output.dense",)),
    "t5": (("k", "v"), ("wo",)),
}
FEEDFORWARD = {kind: inputs for kind, (_, inputs) in PLACES.items()}


class ScaledOutput(Adapter):
    """l, of shape (d_out, 1), or (1, d_out, 1, 1) at a convolution: scales what the layer gives, its bias too."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        d = site.out_features
        self.ia3_l = nn.Parameter(torch.ones((1, d, 1, 1) if site.kind == "conv2d" else (d, 1)))

    def forward(self, inner: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        h = inner(x)  # W₀x + b                        (…, d_out)
        return (along_channels(self.ia3_l, self.site) * h).to(h.dtype)  # l ⊙ (W₀x + b)   (…, d_out)

    def merged(self, W: Tensor, b: Tensor | None) -> tuple[Tensor, Tensor | None]:
        scale = self.ia3_l.flatten()
        rows = scale.view(-1, *(1,) * (W.ndim - 1))
        return (rows * W).to(W.dtype), None if b is None else (scale * b).to(b.dtype)  # diag(l) W₀, l ⊙ b


class ScaledInput(Adapter):
    """l, of shape (1, d_in), or (1, d_in, 1, 1) at a convolution: scales what the layer is given."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        d = site.in_features
        self.ia3_l = nn.Parameter(torch.ones((1, d, 1, 1) if site.kind == "conv2d" else (1, d)))

    def forward(self, inner: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        scaled = along_channels(self.ia3_l, self.site) * x  # l ⊙ x   (…, d_in)
        return inner(scaled.to(x.dtype))  # W₀(l ⊙ x) + b             (…, d_out)

    def merged(self, W: Tensor, b: Tensor | None) -> tuple[Tensor, Tensor | None]:
        scale = self.ia3_l.flatten()
        if W.ndim == 2:
            return (W * scale).to(W.dtype), b  # W₀ diag(l)
        groups = self.site.module.groups  # each group of output channels reads its own input channels
        parts = W.unflatten(0, (groups, -1)) * scale.view(groups, 1, -1, 1, 1)  # (groups, d_out / groups, …)
        return parts.flatten(0, 1).to(W.dtype), b


def along_channels(ia3_l: Tensor, site: Site) -> Tensor:
    """l as it multiplies activations: (d), or (d, 1, 1) for images."""
    return ia3_l[0] if site.kind == "conv2d" else ia3_l.flatten()


@method
class IA3(Method):
    """IA³. `peft.IA3Config`'s fields, defaults and semantics.

    feedforward_modules: which of the targets are scaled at their input; the others are at their output. A list of ends
    of names (compared letter by letter, as peft does), a regular expression for the whole name, or None for the
    default of the model's type.
    """

    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    feedforward_modules: list[str] | str | None = None
    init_ia3_weights: bool = True

    peft_type = "IA3"
    default_targets: ClassVar[Mapping[str, Any]] = {
        kind: (*outputs, *inputs) for kind, (outputs, inputs) in PLACES.items()
    }
    card = Card(
        title="Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning",
        year=2022,
        arxiv="2205.05638",
        equation="section 3.3",
        family="additive",
        reference="peft.IA3Config",
        formula="h = l ⊙ (W₀x + b) for keys and values; h = W₀(l ⊙ x) + b for feed-forward layers",
        shapes="l (d_out) where the output is scaled, (d_in) where the input is",
        parameters="d_out per output-scaled layer, d_in per feed-forward layer",
        mergeable=True,
        inference_cost="none once merged; unmerged one multiplication for each number of an activation",
        traps=(
            "Where the output is scaled, the bias is scaled with it; merging only the weight would be wrong.",
            "peft unmerges by dividing by l + 1e-8: the old bits do not come back, and where l = 0 the weight is lost.",
            "In a bf16 model a scale within 0.2 % of 1 does nothing, merged or not: the product rounds back.",
            "feedforward_modules decides which side is scaled; a regular expression that matches nothing is silent.",
            "peft's defaults are not always the paper's: queries come along in GPT-2, and BERT's output.dense is also "
            "the attention's output.",
            "With only target_modules set, peft writes files that it then refuses to open: its default "
            "feedforward_modules need not be among them.",
        ),
        use_when="few examples, many tasks for one base model: an adapter is some thousand numbers, and batches mix",
        avoid_when="the task needs features that the model does not have yet: a scale can only turn up or down",
        unknown="how much of the paper's few-shot result is due to its extra losses and its pretraining of l",
    )

    def __post_init__(self) -> None:
        inputs, targets = self.feedforward_modules, names_in(self.target_modules)
        if not isinstance(self.init_ia3_weights, bool):
            raise ConfigError(f"IA3(init_ia3_weights={self.init_ia3_weights!r}): choose True (ones) or False (random)")
        if isinstance(inputs, str):
            try:
                re.compile(inputs)
            except re.error as error:
                raise ConfigError(
                    f"IA3(feedforward_modules={inputs!r}) is not a valid regular expression: {error}; "
                    "for names give a list of them"
                ) from None
        elif inputs is not None and names_in(inputs) is None:
            raise ConfigError(f"IA3(feedforward_modules={inputs!r}): give a list of names or a regular expression")
        elif inputs is not None and targets is not None and (extra := names_in(inputs) - targets):
            raise ConfigError(
                f"IA3(feedforward_modules=…) names {', '.join(sorted(extra))}, which target_modules does not "
                f"({', '.join(sorted(targets))}); write each name in both, in the same way"
            )

    def prepare(self, model: nn.Module) -> Method:
        prepared = super().prepare(model)
        if self.feedforward_modules is not None:
            return prepared
        try:
            inputs = default_targets(model, FEEDFORWARD)
        except TargetError:
            raise ConfigError(
                f"IA3 has no default feedforward_modules for a {type(model).__name__}: name the targets whose input "
                "is to be scaled, or give [] to scale all at their output"
            ) from None
        return dataclasses.replace(prepared, feedforward_modules=fitting(inputs, prepared.target_modules))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Method:
        inputs = fitting(config.get("feedforward_modules"), config.get("target_modules"))
        return super().from_config({**config, "feedforward_modules": inputs})

    def scales_input(self, site: Site) -> bool:
        """Is the site a feed-forward layer, in the sense of `feedforward_modules`?"""
        inputs = self.feedforward_modules or ()
        if isinstance(inputs, str):
            return re.fullmatch(inputs, site.name) is not None
        return any(site.name.endswith(end) for end in inputs)

    def build(self, site: Site, shared: Shared | None) -> Adapter:
        if site.kind not in ("linear", "conv2d"):
            raise ConfigError(
                f"IA3 cannot adapt {site.name}, a {type(site.module).__name__}: it scales linear and conv2d layers; "
                "name other target_modules or exclude this one"
            )
        adapter = ScaledInput(site) if self.scales_input(site) else ScaledOutput(site)
        if not self.init_ia3_weights:
            nn.init.normal_(adapter.ia3_l)
        return adapter

    def parameters_at(self, site: Site) -> int:
        return site.in_features if self.scales_input(site) else site.out_features


def names_in(value: object) -> set[str] | None:
    """A list of names as a set; None if it is anything else."""
    if isinstance(value, str) or not isinstance(value, Collection) or not all(isinstance(n, str) for n in value):
        return None
    return set(value)


def fitting(inputs: Any, targets: Any) -> Any:
    """`inputs`, written as a regular expression if a list of targets does not hold all of it.

    peft fills in its default feedforward_modules beside any target_modules, yet opens no file in which the one list is
    not a part of the other. A regular expression says the same and opens.
    """
    ends, wanted = names_in(inputs), names_in(targets)
    if ends is None or wanted is None or ends <= wanted:
        return inputs
    return f".*({'|'.join(map(re.escape, sorted(ends)))})"
