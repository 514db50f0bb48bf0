"""Put a linear map in the place of a trained bottleneck adapter, and see what is left. For lesson 03.

An adapter behind a linear layer reads h and adds Δh(h). If Δh(h) = M h + c held, (I + M) W and (I + M) b + c would do
its work, and the adapter could go. `fit` finds the M and c that come nearest.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from peftlab import surgery
from peftlab.errors import PeftLabError
from peftlab.methods.additive.bottleneck import Behind
from peftlab.tasks.datasets import Split, encode
from peftlab.tasks.metrics import keeping_modes
from peftlab.tasks.verses import verse_pairs

Map = tuple[Tensor, Tensor]  # M (d, d) and c (d)
Tokens = tuple[Tensor, Tensor]  # what an adapter read, h (tokens, d), and what it added, Δh (tokens, d)


def adapters_behind(model: nn.Module, name: str = "default") -> dict[str, Behind]:
    """The adapters that stand behind a linear layer, by the layer's name. Raises PeftLabError if there are none."""
    wrappers = surgery.adapted_modules(model).items()
    found = {site: w.adapters[name] for site, w in wrappers if isinstance(w.adapters[name], Behind)}
    if not found:
        raise PeftLabError("this model has no adapter behind a linear layer; attach Houlsby's first")
    return found


@torch.no_grad()
def recorded(model: nn.Module, tokenizer: Any, split: Split, *, max_length: int = 32) -> dict[str, Tokens]:
    """What every adapter reads and adds while the model reads the split; one row per token, padding left out."""
    kept: dict[str, tuple[list[Tensor], list[Tensor]]] = {site: ([], []) for site in adapters_behind(model)}
    seen: dict[str, Tensor] = {}
    handles = []
    for site, adapter in adapters_behind(model).items():
        read, added = kept[site]
        keep_h = lambda _, args, to=read: to.append(args[0][seen["mask"]])  # noqa: E731
        keep_d = lambda _, __, out, to=added: to.append(out[seen["mask"]])  # noqa: E731
        handles.append(adapter.adapter_down.register_forward_pre_hook(keep_h))
        handles.append(adapter.dropout.register_forward_hook(keep_d))
    by_length = sorted(range(len(split)), key=lambda row: len(split.texts[row]))  # less padding
    try:
        with keeping_modes(model):
            model.eval()
            for start in range(0, len(split), 32):
                batch = encode(split, by_length[start : start + 32], tokenizer, max_length=max_length)
                del batch["labels"]
                seen["mask"] = batch["attention_mask"].bool()
                model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    return {site: (torch.cat(read), torch.cat(added)) for site, (read, added) in kept.items()}


def fit(h: Tensor, added: Tensor) -> Map:
    """M and c with the smallest sum of squares of added - (M h + c), over the tokens."""
    ones = torch.ones(len(h), 1, dtype=torch.float64)
    solution = torch.linalg.lstsq(torch.cat([h.double(), ones], 1), added.double(), driver="gels").solution
    return solution[:-1].T.to(h.dtype), solution[-1].to(h.dtype)


def means(tokens: Mapping[str, Tokens]) -> dict[str, Map]:
    """The best constant: what each adapter adds on average, whatever it reads."""
    return {site: (torch.zeros(h.shape[1], h.shape[1]), added.mean(0)) for site, (h, added) in tokens.items()}


def explained(found: Map, h: Tensor, added: Tensor) -> float:
    """R²: the share of the variance of what the adapter adds that M h + c accounts for. 1 is all of it."""
    M, c = found
    left = (added - (h @ M.T + c)).double().square().sum()
    return float(1 - left / (added - added.mean(0)).double().square().sum())


def left_over(found: Map, h: Tensor, added: Tensor) -> float:
    """The share of Σ‖Δh‖² that M h + c leaves. Unlike R² it counts the mean as something to be explained."""
    M, c = found
    return float((added - (h @ M.T + c)).double().square().sum() / added.double().square().sum())


def relative_size(h: Tensor, added: Tensor) -> float:
    """‖Δh‖ / ‖h‖ over all tokens."""
    return float(added.norm() / h.norm())


def merged(model: nn.Module, maps: Mapping[str, Map]) -> nn.Module:
    """A copy with plain linear layers for adapters: (I + M) W and (I + M) b + c; W and b where there is no map."""
    twin = copy.deepcopy(model)
    for site in adapters_behind(model):
        base = surgery.adapted_modules(twin)[site].base
        W, b = surgery.dense(base)
        if site in maps:
            M, c = maps[site]
            b = torch.zeros(len(W)) if b is None else b
            base = surgery.with_dense(base, W + M @ W, b + M @ b + c)
        surgery.replace(twin, site, base)
    return twin


def units(model: nn.Module, tokens: Mapping[str, Tokens]) -> dict[str, list[float]]:
    """For every unit of every adapter, the share of tokens whose W_down h + b_down is above zero, where ReLU is on."""
    shares = {}
    for site, adapter in adapters_behind(model).items():
        with torch.no_grad():
            on = adapter.adapter_down(tokens[site][0]) > 0
        shares[site] = sorted(round(float(share), 4) for share in on.float().mean(0))
    return shares


def at_rest(model: nn.Module, tokens: Mapping[str, Tokens]) -> dict[str, float]:
    """For every adapter, the share of tokens at which none of its ReLUs is on: there it adds b_up and nothing else."""
    shares = {}
    for site, adapter in adapters_behind(model).items():
        with torch.no_grad():
            on = (adapter.adapter_down(tokens[site][0]) > 0).any(dim=1)
        shares[site] = round(1 - float(on.float().mean()), 4)
    return shares


@torch.no_grad()
def answers(model: nn.Module, tokenizer: Any, split: Split, *, max_length: int = 32) -> Tensor:
    """The class that the model gives to each text of the split, in the split's order."""
    found = torch.empty(len(split), dtype=torch.long)
    by_length = sorted(range(len(split)), key=lambda row: len(split.texts[row]))
    with keeping_modes(model):
        model.eval()
        for start in range(0, len(split), 32):
            rows = by_length[start : start + 32]
            batch = encode(split, rows, tokenizer, max_length=max_length)
            del batch["labels"]
            found[rows] = model(**batch).logits.argmax(-1)
    return found


def verses(rows: int) -> Split:
    """Text that no adapter of this lesson was trained on: Bible verses, without topics (all labels are 0)."""
    texts = [pair.modern for pair in verse_pairs().train[:rows]]
    return Split(texts, [0] * len(texts))


def without(model: nn.Module) -> nn.Module:
    """A copy without the bottleneck adapters, with the head that was trained beside them."""
    return merged(model, {})
