r"""Super-Tuning (2026, arXiv:2607.09287), as peft has it: train the entries of largest magnitude.

$$h = (W_0 + S) x + b, \qquad S_{ij} \neq 0 \text{ only where } |W_{0,ij}| \text{ is among the } k \text{ largest}$$

$k = \lfloor (1 - s)\, d_{in} d_{out} \rfloor$ in every matrix, for the sparsity s. No data is needed to choose.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from peftlab.errors import ConfigError
from peftlab.methods.base import Adapter, Card, Delta, Method, Shared, method, require_share
from peftlab.methods.selective.sparse import added_at, check_places
from peftlab.surgery import Site, dense, is_transposed_linear


class SuperLinear(Delta):
    """S as its values (k) and their flat places (k)."""

    def __init__(self, site: Site, places: Tensor, *, saved: bool) -> None:
        super().__init__(site)
        self.supertuning_values = nn.Parameter(torch.zeros(places.numel()))  # S starts at zero
        self.register_buffer("supertuning_indices", places.to(torch.int32), persistent=saved)

    def changed(self, own: str, tensor: Tensor) -> Tensor:
        return added_at(tensor, self.supertuning_indices.long(), self.supertuning_values)  # W₀ + S   (d_out, d_in)

    def after_loading(self) -> None:
        check_places(self.site, self.supertuning_indices, self.site.in_features * self.site.out_features)


@method
class Supertuning(Method):
    """Super-Tuning. `peft.SupertuningConfig`'s fields, defaults and semantics, without its hybrid with LoRA (r).

    sparsity: the share of each matrix that stays. select_top: the largest entries; False: the smallest.
    save_precomputed_indices: False leaves the places out of the file; they are found again from the base.
    """

    sparsity: float = 0.99
    select_top: bool = True
    save_precomputed_indices: bool = True
    target_modules: list[str] | str | None = None
    init_weights: bool = True

    peft_type = "SUPERTUNING"
    card = Card(
        title="Super-Tuning: From Activation-Aware Pruning to Sparse Fine-Tuning",
        year=2026,
        arxiv="2607.09287",
        equation="as peft's documentation states it",
        family="selective",
        reference="peft.SupertuningConfig",
        formula="h = (W₀ + S) x + b, S at the k largest |W₀|",
        shapes="values (k) and places (k) per layer, k = ⌊(1 - s) d_in d_out⌋",
        parameters="⌊(1 - s) d_in d_out⌋ per layer",
        mergeable=True,
        inference_cost="none once merged; unmerged a copy of every adapted matrix in every pass",
        traps=(
            "Sparse is not fast: a step computes the gradient of the whole matrix and picks k entries out of it.",
            "Where save_precomputed_indices=False, the file means nothing on a base that differs in a single entry.",
            "⌊…⌋ is of a float: at sparsity 0.9 a matrix of 100 entries trains 9, because 1 - 0.9 is below 0.1.",
        ),
        use_when="a mask is wanted that needs no data and is the same for every task",
        avoid_when="training time or activation memory is what is short",
        unknown="whether large entries are good places, or only as good as any: the paper is new",
    )

    def __post_init__(self) -> None:
        require_share(self, "sparsity")
        for name in ("select_top", "save_precomputed_indices"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"Supertuning({name}={getattr(self, name)!r}): give True or False")
        if not self.init_weights:
            raise ConfigError("Supertuning here always starts at zero; leave init_weights=True")

    def build(self, site: Site, shared: Shared | None) -> Adapter:
        if site.kind != "linear" or is_transposed_linear(site.module):
            raise ConfigError(
                f"Supertuning adapts nn.Linear layers, as peft's does; {site.name} is a {type(site.module).__name__} "
                "(FishMask(scores='magnitude') trains entries of Conv1D and other layers)"
            )
        k = self.parameters_at(site)
        if k < 1:
            raise ConfigError(f"Supertuning(sparsity={self.sparsity}) leaves no entry of {site.name}; choose it lower")
        W, _ = dense(site.module)
        places = torch.topk(W.detach().abs().flatten(), k, largest=self.select_top).indices
        return SuperLinear(site, places, saved=self.save_precomputed_indices)

    def parameters_at(self, site: Site) -> int:
        return int(site.in_features * site.out_features * (1 - self.sparsity))
