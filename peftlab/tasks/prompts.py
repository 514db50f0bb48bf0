"""Prompts as numbers: what a text leaves behind in a causal model, in the shape that soft prompts have."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from peftlab.errors import PeftLabError
from peftlab.tasks.metrics import device_of, keeping_modes


@torch.no_grad()
def captured(model: nn.Module, ids: Tensor) -> Tensor:
    """The keys and values that every layer computes for these tokens: the table of a prefix.

    ids: (n,). Returns (n, layers · 2 · kv_heads · d_h), laid out as peft's `prompt_embeddings`: for each token, layer
    by layer, first the keys of all heads, then the values. In models with rotary positions the keys have been turned
    already, to positions 0 to n-1: the prefix stands at the front, and what follows counts on from n.
    """
    with keeping_modes(model):
        model.eval()
        cache = model(input_ids=ids[None].to(device_of(model)), use_cache=True).past_key_values
    pairs = torch.stack([torch.stack([layer.keys[0], layer.values[0]]) for layer in cache.layers])
    return pairs.permute(3, 0, 1, 2, 4).flatten(1).float()  # (layers, 2, kv_heads, n, d_h) -> (n, …)


def front_ids(tokenizer: Any, text: str, follows: str = "Word") -> Tensor:
    """The tokens (n,) of `text` as they are when `follows` comes after it.

    Alone, "\\n\\n" at the end of a text can become one token, and two where a word comes after it: then what was
    captured would not be what the whole text begins with.

    Raises PeftLabError if `text` is empty, or its end and the beginning of `follows` share a token.
    """
    if not text:
        raise PeftLabError("there is no text to put in front: write one")
    whole, after = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (text + follows, follows))
    if whole[-len(after) :] != after:
        raise PeftLabError(f"the text's end and {follows!r} share a token: end the text with a line break")
    return torch.tensor(whole[: -len(after)])


@torch.no_grad()
def start_from(model: nn.Module, table: Tensor, name: str = "default") -> nn.Module:
    """Write `table` into the attached prompt or prefix called `name`, as the place to train on from.

    Raises PeftLabError if it has no table of its own (prefix_projection computes it), or one of another shape.
    """
    shared = model.peftlab.shared[name]
    own = getattr(shared, "prompt_embeddings", None)
    if own is None:
        raise PeftLabError("this adapter's table comes out of a network, so it cannot start from another one")
    if own.shape != table.shape:
        raise PeftLabError(f"the adapter's table is {tuple(own.shape)}, the one to start from {tuple(table.shape)}")
    own.copy_(table)
    return model


def at_the_size_of(table: Tensor, real: Tensor, layers: int) -> Tensor:
    """`table` with the standard deviation that `real` has, for the keys and the values of each layer apart.

    Both (n, layers · 2 · kv_heads · d_h), laid out as in `captured`. Raises PeftLabError if their shapes differ or do
    not divide by 2 · layers.
    """
    if table.shape != real.shape or table.shape[1] % (2 * layers):
        raise PeftLabError(
            f"two tables of one shape (n, {2 * layers} · width) are needed, not {tuple(table.shape)} and "
            f"{tuple(real.shape)}"
        )
    parts, ours = real.unflatten(1, (2 * layers, -1)), table.unflatten(1, (2 * layers, -1))  # (n, 2 · layers, width)
    return (ours * parts.std(dim=(0, 2), keepdim=True) / ours.std(dim=(0, 2), keepdim=True)).flatten(1)
