"""Bridge B4's measurements: what one training step keeps and computes, counted and not timed.

Nothing here looks at the machine: the bytes are those of the tensors that autograd and AdamW hold on to, the FLOPs
those of the matrix products. So the same model and batch give the same numbers wherever PyTorch takes the same steps.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from peftlab.errors import PeftLabError

WEIGHTS, GRADIENTS, ADAM, KEPT = "weights", "gradients", "Adam's m and v", "kept from the forward pass"
LINEAR, NORMS, ATTENTION, GATE = "linear layers", "norms", "softmax and its products", "SiLU and gate"


@dataclass(frozen=True)
class Step:
    """What one training step holds and computes."""

    memory: dict[str, int]  # bytes of each part, at its largest
    forward: int  # FLOPs of the matrix products
    backward: int


def step(model: nn.Module, batch: Mapping[str, Tensor]) -> Step:
    """One training step with AdamW, counted. The weights are as they were afterwards.

    Raises PeftLabError if nothing trains.
    """
    trained = _trained(model)
    optimiser = torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0)  # makes its memory, moves nothing
    forward, back = FlopCounterMode(display=False), FlopCounterMode(display=False)
    with forward:
        loss, kept = _forward(model, batch)
    with back:
        loss.backward()
    optimiser.step()
    memory = {
        WEIGHTS: sum(p.nbytes for p in model.parameters()),
        GRADIENTS: sum(p.grad.nbytes for p in trained if p.grad is not None),
        ADAM: sum(state[name].nbytes for state in optimiser.state.values() for name in ("exp_avg", "exp_avg_sq")),
        KEPT: sum(kept.values()),
    }
    model.zero_grad()
    return Step(memory, forward.get_total_flops(), back.get_total_flops())


@dataclass(frozen=True)
class Trained:
    """How a few steps went."""

    losses: list[float]
    with_gradient: int  # trained tensors that have a gradient after the last step
    trained: int
    warnings: list[str]

    def __str__(self) -> str:
        said = "".join(f"\n  PyTorch warns: {text}" for text in self.warnings)
        return (
            f"loss {self.losses[0]:.1f} → {self.losses[-1]:.1f}, "
            f"{self.with_gradient} of {self.trained} trained tensors have a gradient{said}"
        )


def train(model: nn.Module, batch: Mapping[str, Tensor], *, steps: int = 4, lr: float = 3e-3) -> Trained:
    """A few steps of AdamW on one batch, warnings caught. Changes the model. Raises PeftLabError if nothing trains."""
    trained = _trained(model)
    optimiser, losses = torch.optim.AdamW(trained, lr=lr), []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(steps):
            optimiser.zero_grad()
            loss = model(**batch).loss
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    said = list(dict.fromkeys(str(each.message) for each in caught))
    return Trained(losses, sum(p.grad is not None for p in trained), len(trained), said)


def kept_by_module(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, int]:
    """Bytes that autograd keeps from the forward pass until the backward, by the name of the module that ran.

    Weights are left out: they are there anyway. Memory that several layers keep counts once, where it is kept first.
    """
    return _forward(model, batch)[1]


def _forward(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, int]]:
    """The loss, and the bytes kept for its backward pass by module."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: set[int] = set()
    found: dict[str, int] = {}
    running = [""]

    def enter(name: str) -> Callable:
        return lambda module, args: running.append(name)

    def leave(module: nn.Module, args: object, output: object) -> None:
        running.pop()

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights | seen:
            seen.add(storage.data_ptr())
            found[running[-1]] = found.get(running[-1], 0) + storage.nbytes()
        return tensor.detach()

    named = [(name, module) for name, module in model.named_modules() if name]
    handles = [module.register_forward_pre_hook(enter(name)) for name, module in named]
    handles += [module.register_forward_hook(leave) for _, module in named]
    try:
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(**batch).loss
    finally:
        for handle in handles:
            handle.remove()
    return loss, found


def kept_by_part(model: nn.Module, batch: Mapping[str, Tensor], block: int) -> dict[str, int]:
    """Bytes that one block of a Llama keeps, by the kind of part. Raises PeftLabError if there is no such block."""
    if not any(re.search(rf"\blayers\.{block}$", name) for name, _ in model.named_modules()):
        raise PeftLabError(f"The model has no block layers.{block}.")
    found = dict.fromkeys((LINEAR, NORMS, ATTENTION, GATE), 0)
    for name, size in kept_by_module(model, batch).items():
        if inside := re.search(rf"\blayers\.{block}\.(.+)", name):
            found[_part(inside[1])] += size
    return found


def _part(name: str) -> str:
    """The kind of a module, by its name inside the block. Whatever is in a projection, LoRA too, is linear."""
    if name.endswith("layernorm"):
        return NORMS
    return {"self_attn": ATTENTION, "mlp": GATE, "mlp.act_fn": GATE}.get(name, LINEAR)


def _trained(model: nn.Module) -> list[nn.Parameter]:
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise PeftLabError("Nothing trains in this model: every parameter is frozen.")
    return trained
