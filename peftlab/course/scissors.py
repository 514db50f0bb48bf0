"""Cut the weight change of a fine-tuned model to a few of its directions. Lesson 06 builds this from raw tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from peftlab.errors import PeftLabError


@dataclass(frozen=True)
class Change:
    """ΔW = U diag(S) Vᵀ of one matrix, thin: U (d_out, k), S (k), Vh (k, d_in), k = min(d_out, d_in)."""

    before: Tensor
    U: Tensor
    S: Tensor
    Vh: Tensor

    def kept(self, directions: Tensor) -> Tensor:
        """The part of ΔW that the numbered directions hold, of shape (d_out, d_in)."""
        return self.U[:, directions] * self.S[directions] @ self.Vh[directions]

    def energy(self, r: int) -> float:
        """Share of ‖ΔW‖² (squared Frobenius norm) in the top r directions."""
        squares = self.S.square()
        return float(squares[:r].sum() / squares.sum())


def encoder_matrices(model: nn.Module) -> list[str]:
    """Names of the weight matrices in the transformer blocks: query, key, value, output, both feed-forward layers."""
    return [
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and ".layer." in name
    ]


@torch.no_grad()
def weight_changes(before: nn.Module, after: nn.Module) -> dict[str, Change]:
    """The singular value decomposition of what training changed, matrix by matrix."""
    old, new = dict(before.named_parameters()), dict(after.named_parameters())
    names = encoder_matrices(before)
    if not names or any(name not in new or new[name].shape != old[name].shape for name in names):
        raise PeftLabError("the two models do not have the same encoder matrices; tune a copy of the first one")
    return {n: Change(old[n].clone(), *torch.linalg.svd(new[n] - old[n], full_matrices=False)) for n in names}


# ---- what to keep of a change -------------------------------------------------------------------------------------

Keep = Callable[[Change], Tensor]


def top(r: int) -> Keep:
    """The r strongest directions."""
    return lambda change: change.kept(torch.arange(r))


def without_top(r: int) -> Keep:
    """All but the r strongest directions."""
    return lambda change: change.kept(torch.arange(r, len(change.S)))


def drawn(r: int, seed: int) -> Keep:
    """r of the change's own directions, drawn at random, for every matrix anew."""
    order = _orders(seed)
    return lambda change: change.kept(order(change)[:r])


def drawn_to_energy_of_top(r: int, seed: int) -> Keep:
    """Directions drawn at random, as many as fit into the energy of the top r (never more than that)."""
    order = _orders(seed)

    def keep(change: Change) -> Tensor:
        drawn_order = order(change)
        energy = change.S.square()[drawn_order].cumsum(0) / change.S.square().sum()
        return change.kept(drawn_order[: int((energy <= change.energy(r)).sum())])

    return keep


def scaled_to_energy_of_top(r: int) -> Keep:
    """All directions, made smaller together until they have the energy of the top r."""
    return lambda change: change.kept(torch.arange(len(change.S))) * change.energy(r) ** 0.5


def _orders(seed: int) -> Callable[[Change], Tensor]:
    """Random orders of a change's directions. One generator for all matrices, or all would get the same order."""
    generator = torch.Generator().manual_seed(seed)
    return lambda change: torch.randperm(len(change.S), generator=generator)


@contextmanager
def only(model: nn.Module, changes: Mapping[str, Change], keep: Keep) -> Iterator[nn.Module]:
    """Inside, every encoder matrix of `model` has only a part of its change, for example `top(8)`.

    All else (embeddings, biases, LayerNorms, head) stays as trained. Afterwards the trained matrices are back.
    """
    parameters = dict(model.named_parameters())
    trained = {name: parameters[name].detach().clone() for name in changes}
    try:
        with torch.no_grad():
            for name, change in changes.items():
                parameters[name].copy_(change.before + keep(change))
        yield model
    finally:
        with torch.no_grad():
            for name, tensor in trained.items():
                parameters[name].copy_(tensor)
