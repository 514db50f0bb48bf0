r"""Prefix tuning (Li & Liang, 2021, arXiv:2101.00190), section 4.2.

$$\mathrm{head} = \mathrm{softmax}\!\left(\frac{q\,[P_K; K]^\top}{\sqrt{d_h}}\right) [P_V; V]$$

In every layer, $n$ trained keys $P_K$ and values $P_V$ stand before the keys and values of the input. With
`prefix_projection` they come out of a small network while training, and only its result is saved.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftlab import hosts
from peftlab.errors import ConfigError, PeftLabError
from peftlab.methods.base import Adapter, Card, Method, Shared, method, require_positive
from peftlab.runtime import Uncopied
from peftlab.surgery import Site


class Prefix(Shared):
    """P_K and P_V of all layers: a table of shape (n, layers · 2 · kv_heads · d_h), as in peft's file."""

    has_seat = True

    def __init__(self, table: nn.Parameter | PrefixNetwork, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.layers, self.heads, self.d_h = shape
        self.now = Uncopied()  # layer -> its part of the table, in this call and in checkpointing's backward pass
        if isinstance(table, nn.Parameter):
            self.prompt_embeddings = table
        else:
            self.network = table

    def table(self) -> Tensor:
        return self.network() if hasattr(self, "network") else self.prompt_embeddings

    def on_inputs(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Positions count from n: the prefix takes the first n."""
        _, tokens = hosts.batch_and_length(kwargs)
        if hasattr(self, "network") and torch.is_grad_enabled():
            # Run again for every layer, because checkpointing in its reentrant form frees the graph layer by layer.
            n, self.now.value = self.network.embedding.num_embeddings, self.network.of_layer
        else:
            table = self.table()
            n, self.now.value = len(table), table.view(len(table), self.layers, -1).unbind(1).__getitem__
        given = kwargs.get("position_ids")
        if given is None:
            device = next(v.device for v in kwargs.values() if isinstance(v, Tensor))
            given = torch.arange(tokens, device=device)[None] + hosts.past_length(kwargs)
        return {**kwargs, "position_ids": given + n}

    def of_layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """P_K and P_V of one layer in this call, each (kv_heads, n, d_h)."""
        if self.now.value is None:
            raise PeftLabError("a prefix enters when the whole model is called: call the model that it is attached to")
        P_K, P_V = self.now.value(layer).view(-1, 2, self.heads, self.d_h).permute(1, 2, 0, 3)
        return P_K, P_V

    def on_attention(
        self, layer: int, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """q (batch, heads, T, d_h), k and v (batch, kv_heads, T_all, d_h)."""
        P_K, P_V = (part.to(k.dtype).expand(len(k), -1, -1, -1) for part in self.of_layer(layer))
        n, keys = P_K.shape[2], k.shape[2]
        k = torch.cat([P_K, k], dim=2)  # [P_K; K]
        v = torch.cat([P_V, v], dim=2)  # [P_V; V]
        return q, k, v, hosts.widen_mask(module, mask, q, keys, n)

    def file_names(self) -> dict[str, str]:
        return {"prompt_embeddings": "prompt_embeddings"}

    def tensors(self) -> dict[str, Tensor]:
        return {"prompt_embeddings": self.table().detach()}


class PrefixNetwork(nn.Module):
    """The reparameterisation of section 4.3: an embedding and a two-layer network that make the table."""

    def __init__(self, n: int, d: int, hidden: int, width: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n, d)
        self.transform = nn.Sequential(nn.Linear(d, hidden), nn.Tanh(), nn.Linear(hidden, width))
        self.layers = layers

    def forward(self) -> Tensor:
        return self.transform(self.embedding.weight)

    def of_layer(self, layer: int) -> Tensor:
        """One layer's part of the table, (n, width / layers), without the rest."""
        last = self.transform[-1]
        W, b = last.weight.chunk(self.layers)[layer], last.bias.chunk(self.layers)[layer]
        return F.linear(self.transform[:-1](self.embedding.weight), W, b)


class PrefixMethod(Method):
    """What all methods share whose keys and values stand before those of the input."""

    file_prefix = "base_model."
    BOOKKEEPING: ClassVar[frozenset[str]] = Method.BOOKKEEPING | frozenset(
        ("token_dim", "num_layers", "num_attention_heads", "num_transformer_submodules")
    )

    def prepare(self, model: nn.Module) -> Method:
        method = super().prepare(model)
        layers, heads, d_h = hosts.key_value_shape(model)
        shape = {"token_dim": heads * d_h, "num_layers": layers, "num_attention_heads": heads}
        bookkeeping = {**method.bookkeeping, **shape, "num_transformer_submodules": 1}
        task = method.task_type or ("CAUSAL_LM" if hasattr(type(model), "generate") else "FEATURE_EXTRACTION")
        return dataclasses.replace(method, task_type=task, bookkeeping=bookkeeping)

    def sites(self, model: nn.Module) -> list[Site]:
        return []

    def build(self, site: Site, shared: Shared | None) -> Adapter:
        raise ConfigError("a prefix acts through the attention; it has no adapters inside the model")


@method
class PrefixTuning(PrefixMethod):
    """Prefix tuning. `peft.PrefixTuningConfig`'s fields, defaults and semantics."""

    num_virtual_tokens: int
    prefix_projection: bool = False
    encoder_hidden_size: int | None = None
    init_weights: str | None = None  # None, or 'zero'

    peft_type = "PREFIX_TUNING"
    card = Card(
        title="Prefix-Tuning: Optimizing Continuous Prompts for Generation",
        year=2021,
        arxiv="2101.00190",
        equation="section 4.2",
        family="additive",
        reference="peft.PrefixTuningConfig",
        formula="head = softmax(q [P_K; K]ᵀ / √d_h) [P_V; V]",
        shapes="P_K, P_V (n, kv_heads · d_h) per layer",
        parameters="2 n layers kv_heads d_h",
        mergeable=False,
        inference_cost="n more keys and values in every layer's attention",
        traps=(
            "The default random start disturbs the model at once: measure before the first step.",
            "With prefix_projection the file holds the table only, not the network that made it.",
        ),
        use_when="generation tasks with little data, one frozen model for many tasks",
        avoid_when="the result must merge, or sequences are short and latency counts",
        unknown="how long a prefix a task needs",
        levels={"P4": "keys and values are not weights: there is nothing to merge into"},
    )

    def __post_init__(self) -> None:
        require_positive(self, "num_virtual_tokens")
        if self.encoder_hidden_size is not None:
            require_positive(self, "encoder_hidden_size")
        if self.init_weights not in (None, "zero"):
            raise ConfigError(f"PrefixTuning(init_weights={self.init_weights!r}): choose None or 'zero'")

    def for_loading(self) -> Method:
        """A file holds the table, so the table itself is what can be trained on."""
        return dataclasses.replace(self, prefix_projection=False)

    def prepare(self, model: nn.Module) -> Method:
        method = super().prepare(model)
        return dataclasses.replace(
            method, encoder_hidden_size=method.encoder_hidden_size or method.bookkeeping["token_dim"]
        )

    def shared(self, model: nn.Module, sites: list[Site]) -> Prefix:
        shape = hosts.key_value_shape(model)
        n, d, width = self.num_virtual_tokens, shape[1] * shape[2], 2 * shape[0] * shape[1] * shape[2]
        if self.prefix_projection:
            network = PrefixNetwork(n, d, self.encoder_hidden_size or d, width, shape[0])
            if self.init_weights == "zero":
                nn.init.zeros_(network.transform[-1].weight)
                nn.init.zeros_(network.transform[-1].bias)
            return Prefix(network, shape)
        start = torch.zeros(n, width) if self.init_weights == "zero" else torch.randn(n, width)
        return Prefix(nn.Parameter(start), shape)

    def shared_parameters(self, model: nn.Module) -> int:
        layers, heads, d_h = hosts.key_value_shape(model)
        n, d, width = self.num_virtual_tokens, heads * d_h, 2 * layers * heads * d_h
        if not self.prefix_projection:
            return n * width
        hidden = self.encoder_hidden_size or d
        return n * d + hidden * (d + 1) + width * (hidden + 1)
