r"""Diff pruning (Guo et al., 2020, arXiv:2012.07463): learn a change, and which of it is 0.

$$\theta' = \theta + z \odot w, \qquad z_j = \min(1, \max(0, \bar s_j)), \quad \bar s_j = s_j (r - l) + l$$

$$s_j = \sigma\!\left(\log \tfrac{u_j}{1 - u_j} + \alpha_j\right), \quad u_j \sim U(0, 1)$$

$$\min_{w, \alpha} \; \mathbb{E}_u\!\left[ L(\theta + z \odot w) \right]
+ \lambda \sum_j \sigma\!\left(\alpha_j - \log \tfrac{-l}{r}\right)$$

The gates z are hard-concrete: exactly 0 or 1 with some probability, and differentiable between. The sum is the expected
number of entries that change, the $L_0$ norm. Three phases: train w and α with the penalty (`penalty`), keep the k
largest |z ⊙ w|, train these with the mask fixed. The paper's structured variant, with shared gates, is not here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from peftlab import surgery
from peftlab.errors import ConfigError
from peftlab.methods.base import Adapter, Card, Delta, Method, Shared, method, require_number
from peftlab.methods.selective.sparse import SparseMethod
from peftlab.surgery import Site

L, R = -1.5, 1.5  # l and r: how far the gate is stretched beyond 0 and 1


class HardConcreteDelta(Delta):
    """z ⊙ w for every parameter of a layer: `own_w` and `own_alpha`, both shaped as the parameter."""

    def __init__(self, site: Site, names: tuple[str, ...], alpha: float, weight: float) -> None:
        super().__init__(site)
        self.names, self.weight_of_penalty = names, weight
        for own in names:
            shape = site.module._parameters[own].shape
            self.register_parameter(f"{own}_w", nn.Parameter(torch.zeros(shape)))  # no change at the start
            self.register_parameter(f"{own}_alpha", nn.Parameter(torch.full(shape, float(alpha))))

    def gate(self, own: str, *, drawn: bool) -> Tensor:
        """z, between 0 and 1: drawn while training; at u = 1/2 otherwise."""
        alpha = getattr(self, f"{own}_alpha")
        u = torch.rand_like(alpha).clamp(1e-6, 1 - 1e-6) if drawn else torch.full_like(alpha, 0.5)
        s = torch.sigmoid(torch.log(u / (1 - u)) + alpha)
        return (s * (R - L) + L).clamp(0, 1)

    def changed(self, own: str, tensor: Tensor) -> Tensor:
        z = self.gate(own, drawn=self.training)
        return tensor + (z * getattr(self, f"{own}_w")).to(tensor.dtype)  # θ + z ⊙ w

    def merge_into(self, module: nn.Module) -> nn.Module:
        mode, self.training = self.training, False  # nothing is drawn
        try:
            return super().merge_into(module)
        finally:
            self.training = mode

    def expected_entries(self) -> Tensor:
        """E[‖z‖₀]: how many gates of this layer are open, on average."""
        alphas = [getattr(self, f"{own}_alpha") for own in self.names]
        return sum(torch.sigmoid(alpha - math.log(-L / R)).sum() for alpha in alphas)

    def penalty(self) -> Tensor:
        return self.weight_of_penalty * self.expected_entries()


@method
class DiffPruning(SparseMethod):
    """Diff pruning. Without `start` or `scores`, the first phase; with them, the third.

    sparsity_penalty: λ. alpha_init: where the gates' α start; 5 is nearly always open.
    After the first phase: found = sparse.changes(model), detach, attach DiffPruning(start=found). By default the k
    largest |start| are kept.
    """

    sparsity_penalty: float = 1e-7
    alpha_init: float = 5.0

    peftlab_type = "DIFF_PRUNING"
    card = Card(
        title="Parameter-Efficient Transfer Learning with Diff Pruning",
        year=2020,
        arxiv="2012.07463",
        equation="the relaxed L0 penalty with hard-concrete gates, then magnitude pruning",
        family="selective",
        reference="the definition",
        formula="θ' = θ + z ⊙ w, the gates z learned too; then the k largest, fixed",
        shapes="w and α, each as θ, at first; then values (k_i) and flat places (k_i) for each parameter i",
        parameters="2 N while the mask is learned; k = keep_ratio · N after that",
        mergeable=True,
        inference_cost="none once merged; unmerged a copy of every changed parameter in every pass",
        traps=(
            "It is the dearest method to train: two numbers and their optimiser states for every entry of the model, "
            "more than full fine-tuning.",
            "Without peftlab.penalty(model) in the loss the gates never close.",
            "The gates are drawn anew in every training step, so train and eval give different outputs.",
            "Sparse is not fast: also with the mask fixed a step computes the gradient of whole matrices.",
            "A file saved before the pruning holds w and α whole: 8 bytes for every entry of the model.",
        ),
        use_when="the file of a task must be as small as can be, and training cost does not matter",
        avoid_when="memory is short while training: full fine-tuning needs less",
        unknown="whether learning the mask beats choosing it beforehand at equal training cost",
        levels={"P5": "peft has no diff pruning, so its files open here only"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number(self, "sparsity_penalty", "alpha_init")
        if self.sparsity_penalty < 0:
            raise ConfigError(
                f"DiffPruning(sparsity_penalty={self.sparsity_penalty}): a negative λ would open the gates"
            )

    @property
    def learns_the_mask(self) -> bool:
        """True in the first phase."""
        return self.mask is None and self.scores is None and self.start is None

    def for_file(self, tensors: Mapping[str, Tensor]) -> Method:
        return self if any(name.endswith("_alpha") for name in tensors) else super().for_file(tensors)

    def prepare(self, model: nn.Module) -> Method:
        if not self.learns_the_mask:
            scores = self.start if self.scores is None and self.mask is None else self.scores
            return super(DiffPruning, dataclasses.replace(self, scores=scores)).prepare(model)
        prepared = Method.prepare(self, model)
        prepared.pool(model)  # says so if there is nothing to choose from
        return prepared

    def ranked(self, model: nn.Module, pool: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        return {name: scores.abs() for name, scores in super().ranked(model, pool).items()}

    def build(self, site: Site, shared: Shared | None) -> Adapter:
        if not self.learns_the_mask:
            return super().build(site, shared)
        return HardConcreteDelta(site, self.names_at(site), self.alpha_init, self.sparsity_penalty)

    def names_at(self, site: Site) -> tuple[str, ...]:
        """The site's parameters that a mask may choose from."""
        own = {n: p for n, p in site.module._parameters.items() if p is not None and p.is_floating_point()}
        return tuple(own) if surgery.is_dense(site.module) else tuple(n for n in own if n != "weight")

    def parameters_at(self, site: Site) -> int:
        if not self.learns_the_mask:
            return super().parameters_at(site)
        return 2 * sum(site.module._parameters[own].numel() for own in self.names_at(site))

    def shared_parameters(self, model: nn.Module) -> int:
        return 0 if self.learns_the_mask else super().shared_parameters(model)
