"""What one attention layer of a Llama computes with a prefix in front: the parts that deep dive 04x splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from peftlab.errors import PeftLabError
from peftlab.tasks.metrics import device_of, keeping_modes


@dataclass(frozen=True)
class Heads:
    """One layer, one text of T tokens, H query heads of width d_h, n virtual tokens.

    Where heads share keys and values (grouped queries), the shared ones stand here once for each head.
    """

    x: Tensor  # (T, d), what the layer's projections read
    q: Tensor  # (H, T, d_h), turned to its positions
    K: Tensor  # (H, T, d_h), likewise
    V: Tensor  # (H, T, d_h)
    P_K: Tensor  # (H, n, d_h)
    P_V: Tensor  # (H, n, d_h)
    out: Tensor  # (H, T, d_h), what the model's attention gave, before the output projection
    cos: Tensor  # (T, d_h), of the positions n to n + T - 1
    sin: Tensor  # (T, d_h)

    def scores(self) -> tuple[Tensor, Tensor]:
        """Scaled scores with the prefix (H, T, n), and with the text's own keys (H, T, T), -inf where hidden."""
        scale = self.q.shape[-1] ** -0.5
        own = scale * self.q @ self.K.mT
        hidden = torch.ones_like(own, dtype=torch.bool).triu(1)
        return scale * self.q @ self.P_K.mT, own.masked_fill(hidden, float("-inf"))


@torch.no_grad()
def heads(model: nn.Module, ids: Tensor, layer: int, name: str = "default") -> Heads:
    """Run the model with the prefix `name`, which must be on, and keep what its layer number `layer` computed.

    ids: (T,). Raises PeftLabError if `name` is not an attached prefix.
    """
    shared = getattr(model, "peftlab", None) and model.peftlab.shared
    if not shared or name not in shared or not hasattr(shared[name], "heads"):
        raise PeftLabError(f"there is no prefix called {name!r} in the model: attach a PrefixTuning first")
    prefix = shared[name]
    block = model.model.layers[layer].self_attn
    seen: dict[str, Tensor] = {}

    def before(module: nn.Module, args: tuple, kwargs: dict) -> None:
        seen["x"] = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        seen["cos"], seen["sin"] = kwargs["position_embeddings"]

    def at_the_end(module: nn.Module, args: tuple) -> None:
        seen["out"] = args[0]

    hooks = [
        block.register_forward_pre_hook(before, with_kwargs=True),
        block.o_proj.register_forward_pre_hook(at_the_end),
    ]
    try:
        with keeping_modes(model):
            model.eval()
            model(input_ids=ids[None].to(device_of(model)))
    finally:
        for hook in hooks:
            hook.remove()

    def by_head(flat: Tensor) -> Tensor:  # (1, T, heads · d_h) -> (1, heads, T, d_h)
        return flat.unflatten(-1, (-1, block.head_dim)).transpose(1, 2)

    q, k, v = (by_head(project(seen["x"])) for project in (block.q_proj, block.k_proj, block.v_proj))
    q, k = apply_rotary_pos_emb(q, k, seen["cos"], seen["sin"])
    table = prefix.table().to(q.dtype)
    P_K, P_V = table.view(len(table), prefix.layers, 2, prefix.heads, -1)[:, layer].permute(1, 2, 0, 3)
    groups = q.shape[1] // k.shape[1]
    K, V, P_K, P_V = (each.repeat_interleave(groups, dim=0) for each in (k[0], v[0], P_K, P_V))
    return Heads(seen["x"][0], q[0], K, V, P_K, P_V, by_head(seen["out"])[0], seen["cos"][0], seen["sin"][0])


def sizes(layers: Sequence[Heads]) -> dict[str, float]:
    """How much attention the first virtual token gets, and how long the two parts of a head's output are.

    A head's output is the prefix's values plus the text's, each weighted by attention. Lengths are Euclidean norms of
    the two sums. Means over all layers, heads and tokens.
    """
    found: dict[str, list[float]] = {"to the first one alone": [], "prefix's part": [], "text's part": []}
    for layer in layers:
        weights = torch.cat(layer.scores(), dim=-1).softmax(-1)  # (H, T, n + T)
        n = layer.P_K.shape[1]
        lengths = [part.norm(dim=-1) for part in (weights[..., :n] @ layer.P_V, weights[..., n:] @ layer.V)]
        for values, each in zip(found.values(), (weights[..., 0], *lengths), strict=True):
            values.append(each.mean().item())
    return {name: mean(values) for name, values in found.items()}
