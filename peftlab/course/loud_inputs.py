"""How loud each input of a linear layer is, and how much of a mask hangs on the loudest ones (lesson 05).

The gradient of a weight is the error at its output times its input, so its square is large where the input is.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from peftlab.tasks import datasets
from peftlab.tasks.datasets import Split
from peftlab.tasks.metrics import device_of, keeping_modes


@torch.no_grad()
def inputs(model: nn.Module, tokenizer, split: Split, *, max_length: int = 32) -> dict[str, Tensor]:
    """What every linear layer inside the blocks reads, token by token: name of its weight -> (tokens, d_in).

    All texts in one batch; padding is left out.
    """
    batch = datasets.encode(split, range(len(split)), tokenizer, max_length=max_length)
    batch = {key: value.to(device_of(model)) for key, value in batch.items() if key != "labels"}
    real = batch["attention_mask"].bool()
    found: dict[str, Tensor] = {}

    def watch(name: str):  # noqa: ANN202
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            found[f"{name}.weight"] = args[0][real].cpu()

        return hook

    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and ".layer." in n}
    handles = [module.register_forward_pre_hook(watch(name)) for name, module in layers.items()]
    try:
        with keeping_modes(model):
            model.eval()(**batch)
    finally:
        for handle in handles:
            handle.remove()
    return found


def first_tokens(tokenizer, split: Split, *, max_length: int = 32) -> Tensor:
    """True where a row of what `inputs` found belongs to the first token of its text, [CLS]."""
    real = datasets.encode(split, range(len(split)), tokenizer, max_length=max_length)["attention_mask"].bool()
    first = torch.zeros_like(real)
    first[:, 0] = True
    return first[real]


def in_loudest(mask: Mapping[str, Tensor], read: Mapping[str, Tensor], n: int = 5) -> dict[str, float]:
    """For each matrix, the share of its chosen entries that stand in the columns of its n loudest inputs.

    mask: flat places, or True and False, by name of weight. read: what `inputs` found. Loud: large mean square.
    """
    shares = {}
    for name, x in read.items():
        if name not in mask:
            continue
        chosen = mask[name].flatten().nonzero()[:, 0] if mask[name].dtype == torch.bool else mask[name]
        if len(chosen):
            loudest = x.square().mean(0).topk(n).indices
            shares[name] = float(torch.isin(chosen.cpu() % x.shape[1], loudest).float().mean())
    return shares
