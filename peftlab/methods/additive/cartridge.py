r"""Cartridges (Eyuboglu et al., 2025, arXiv:2506.06266): a trained key-value cache.

$$\mathrm{head} = \mathrm{softmax}\!\left(\frac{q\,[P_K; K]^\top}{\sqrt{d_h}}\right) [P_V; V],
\qquad \text{the first } f \text{ of } P_K, P_V \text{ frozen}$$

Prefix tuning's formula. What is new is where $P_K$ and $P_V$ start (the cache that the model itself makes of a text),
that the first $f$ positions stay as they are, and in the paper how they are trained: on conversations about the text
that the model itself writes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from peftlab import hosts
from peftlab.errors import ConfigError, PeftLabError
from peftlab.methods.additive.prefix_tuning import Prefix, PrefixMethod, PrefixNetwork
from peftlab.methods.base import Card, Shared, method, require_positive
from peftlab.runtime import Uncopied
from peftlab.surgery import Site


class FrozenStartPrefix(Prefix):
    """A prefix whose first f positions do not train."""

    def __init__(self, table: Tensor, f: int, shape: tuple[int, int, int]) -> None:
        Shared.__init__(self)  # no table of its own: it is made of two parts
        self.layers, self.heads, self.d_h = shape
        self.now = Uncopied()
        self.frozen_embedding = nn.Parameter(table[:f].clone(), requires_grad=False) if f else None
        self.trainable_embedding = nn.Parameter(table[f:].clone())

    def table(self) -> Tensor:
        if self.frozen_embedding is None:
            return self.trainable_embedding
        return torch.cat([self.frozen_embedding, self.trainable_embedding])

    def requires_grad_(self, requires_grad: bool = True) -> FrozenStartPrefix:
        self.trainable_embedding.requires_grad_(requires_grad)
        return self

    def file_names(self) -> dict[str, str]:
        return {name: name for name in self.state_dict()}

    @torch.no_grad()
    def take(self, tensors: dict[str, Tensor]) -> None:
        f = 0 if self.frozen_embedding is None else len(self.frozen_embedding)
        self.trainable_embedding.copy_(tensors["prompt_embeddings"][f:])
        if f:
            self.frozen_embedding.copy_(tensors["prompt_embeddings"][:f])


@method
class Cartridge(PrefixMethod):
    """A cartridge. `peft.CartridgeConfig`'s fields, defaults and semantics. See `start_from_text`."""

    num_virtual_tokens: int
    num_frozen_tokens: int = 1

    peft_type = "CARTRIDGE"
    card = Card(
        title="Cartridges: Lightweight and general-purpose long context representations via self-study",
        year=2025,
        arxiv="2506.06266",
        equation="the cartridge's parameterisation",
        family="additive",
        reference="peft.CartridgeConfig",
        formula="head = softmax(q [P_K; K]ᵀ / √d_h) [P_V; V], the first f positions frozen",
        shapes="P_K, P_V (n, kv_heads · d_h) per layer",
        parameters="2 (n - f) layers kv_heads d_h",
        mergeable=False,
        inference_cost="n more keys and values in every layer's attention, in place of the whole text",
        traps=(
            "The start is random until start_from_text is called, and a random start disturbs the model at once.",
            "Keys carry the positions 0 to n - 1 of the text that they come from; the input goes on at position n.",
            "The paper's gain comes from its training data (self-study), which no config field brings along.",
        ),
        use_when="many questions are asked about one long text, and its cache is too large to keep",
        avoid_when="the text changes often, or a few questions are all: put it into the context",
        unknown="how far a text can be squeezed before details are lost, and which details those are",
        levels={"P4": "keys and values are not weights: there is nothing to merge into"},
    )

    def __post_init__(self) -> None:
        require_positive(self, "num_virtual_tokens")
        f, n = self.num_frozen_tokens, self.num_virtual_tokens
        if not isinstance(f, int) or isinstance(f, bool) or not 0 <= f < n:
            raise ConfigError(
                f"Cartridge(num_frozen_tokens={f!r}): choose a whole number from 0 to {n - 1}, so that of the {n} "
                "virtual tokens at least one trains"
            )

    def shared(self, model: nn.Module, sites: list[Site]) -> FrozenStartPrefix:
        layers, heads, d_h = shape = hosts.key_value_shape(model)
        return FrozenStartPrefix(
            torch.randn(self.num_virtual_tokens, 2 * layers * heads * d_h), self.num_frozen_tokens, shape
        )

    def shared_parameters(self, model: nn.Module) -> int:
        layers, heads, d_h = hosts.key_value_shape(model)
        return 2 * (self.num_virtual_tokens - self.num_frozen_tokens) * layers * heads * d_h


def start_from_text(
    model: nn.Module,
    tokenizer: Any,
    text: str,
    *,
    name: str = "default",
    use_chat_template: bool = True,
    max_length: int | None = None,
) -> Tensor:
    """Set the cartridge (or prefix) `name` to the keys and values that the base model makes of a text's first n tokens.

    As `peft.initialize_kv_prefix_from_text`: with a chat template, the text is a system message. Returns the n token
    ids that were read. Raises PeftLabError (with the adapter untouched) if the text is too short, or `name` is neither.
    """
    runtime = getattr(model, "peftlab", None)
    prefix = None if runtime is None or name not in runtime.shared else runtime.shared[name]
    if not isinstance(prefix, Prefix) or isinstance(getattr(prefix, "network", None), PrefixNetwork):
        raise PeftLabError(f"{name!r} is no cartridge, and no prefix without prefix_projection, of this model")
    if use_chat_template and getattr(tokenizer, "chat_template", None):
        found = tokenizer.apply_chat_template([{"role": "system", "content": text}], tokenize=True, return_dict=False)
    else:
        found = tokenizer(text)["input_ids"]
    n, found = len(prefix.table()), list(found)[:max_length]
    if len(found) < n:
        raise PeftLabError(
            f"the text has {len(found)} tokens, but {name!r} has {n} positions to fill; give a longer text"
        )
    device = next(model.parameters()).device
    before, runtime.state.disabled = runtime.state.disabled, True
    try:
        cache = hosts.cached_keys_and_values(model, torch.tensor([found], device=device))
    finally:
        runtime.state.disabled = before
    prefix.take({"prompt_embeddings": cache[:n].flatten(1)})
    return torch.tensor(found[:n])
