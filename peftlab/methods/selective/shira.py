r"""SHiRA: Sparse High Rank Adapters (Bhardwaj et al., 2024, arXiv:2406.13175).

$$h = (W_0 + S) x + b, \qquad S_{ij} \neq 0 \text{ only where } m_{ij} = 1$$

$S \in \mathbb{R}^{d_{out} \times d_{in}}$ has as many trained entries as a LoRA of rank r has numbers,
$r (d_{in} + d_{out})$, at fixed places. Its rank is not bounded by r.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from peftlab.errors import ConfigError
from peftlab.methods.base import Adapter, Card, Delta, Method, Shared, method, not_in_file, require_positive
from peftlab.methods.selective.sparse import added_at, check_places
from peftlab.surgery import Site, is_transposed_linear
from peftlab.targeting import LORA_DEFAULTS

Mask = Callable[[nn.Module, int], Tensor]


class SHiRALinear(Delta):
    """S as two tensors: its values (k) and, for each, its row and column (2, k)."""

    def __init__(self, site: Site, mask: Tensor) -> None:
        super().__init__(site)
        rows_and_columns = torch.stack(torch.where(mask == 1))  # row after row
        self.register_buffer("shira_indices", rows_and_columns.to(torch.int32))
        self.shira_weight = nn.Parameter(torch.zeros(rows_and_columns.shape[1]))  # S starts at zero

    def flat(self) -> Tensor:
        i, j = self.shira_indices.long()
        return i * self.site.in_features + j

    def changed(self, own: str, tensor: Tensor) -> Tensor:
        return added_at(tensor, self.flat(), self.shira_weight)  # W₀ + S   (d_out, d_in)

    def after_loading(self) -> None:
        for place, size in zip(self.shira_indices, (self.site.out_features, self.site.in_features), strict=True):
            check_places(self.site, place.unique(), size)
        check_places(self.site, self.flat(), self.site.out_features * self.site.in_features)


def random_mask(site: Site, r: int, seed: int | None) -> Tensor:
    """r (d_in + d_out) places drawn at random, as peft draws them."""
    generator = torch.Generator() if seed is None else torch.Generator().manual_seed(seed)
    d_out, d_in = site.out_features, site.in_features
    mask = torch.zeros(d_out * d_in, dtype=torch.bool)
    mask[torch.randperm(d_out * d_in, generator=generator)[: r * (d_in + d_out)]] = True
    return mask.view(d_out, d_in)


@method
class SHiRA(Method):
    """Sparse high-rank adapters. `peft.ShiraConfig`'s fields, defaults and semantics; linear layers only, as there.

    mask_fn: a function of (layer, r) that gives a mask like the layer's weight, with r (d_in + d_out) ones; mask_type
    is then a name of your own for it. It is no part of the file, and need not be: the file holds the places.
    """

    r: int = 32
    mask_type: str = "random"
    random_seed: int | None = None
    target_modules: list[str] | str | None = None
    init_weights: bool = True
    mask_fn: Mask | None = not_in_file(default=None)

    peft_type = "SHIRA"
    default_targets: ClassVar[Mapping[str, Any]] = {**LORA_DEFAULTS, "phi": ("q_proj", "v_proj")}
    card = Card(
        title="Sparse High Rank Adapters",
        year=2024,
        arxiv="2406.13175",
        equation="W_new = W + α S, with α = 1 while training",
        family="selective",
        reference="peft.ShiraConfig",
        formula="h = (W₀ + S) x + b, S sparse at fixed places",
        shapes="values (k), rows and columns (2, k) per layer, k = r (d_in + d_out)",
        parameters="r (d_in + d_out) per layer",
        mergeable=True,
        inference_cost="none once merged; unmerged a copy of every adapted matrix in every pass",
        traps=(
            "Sparse is not fast: a step computes the gradient of the whole matrix and picks k entries out of it.",
            "A file is three times the trained numbers: each comes with a row and a column, in int32.",
            "random_seed=None is a seed too: peft and this file then draw the same mask every time, and layers of one "
            "shape get the same places.",
            "In a bf16 model a change of less than 0.4 % of an entry rounds away, merged or not.",
        ),
        use_when="adapters are swapped or added up often, and the change may need a high rank",
        avoid_when="training time or activation memory is what is short",
        unknown="how much the choice of the places matters at equal budget",
    )

    def __post_init__(self) -> None:
        require_positive(self, "r")
        seed = self.random_seed
        if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
            raise ConfigError(f"SHiRA(random_seed={seed!r}): give a whole number or None")
        if self.mask_fn is not None and (not callable(self.mask_fn) or self.mask_type == "random"):
            raise ConfigError(
                "SHiRA(mask_fn=…): give a function of (layer, r), and mask_type=… a name of your own for it"
            )
        if not self.init_weights:
            raise ConfigError("SHiRA here always starts at zero; leave init_weights=True")

    def for_loading(self) -> Method:
        """Any mask will do: the file's places take its place."""
        return dataclasses.replace(self, mask_type="random", mask_fn=None)

    def build(self, site: Site, shared: Shared | None) -> Adapter:
        if site.kind != "linear" or is_transposed_linear(site.module):
            raise ConfigError(
                f"SHiRA adapts nn.Linear layers, as peft's does; {site.name} is a {type(site.module).__name__} "
                "(FishMask trains chosen entries of Conv1D and other layers)"
            )
        k, size = self.parameters_at(site), site.in_features * site.out_features
        if k > size:
            raise ConfigError(
                f"SHiRA(r={self.r}) asks for {k:,} entries of {site.name}, which has {size:,}; choose r lower"
            )
        return SHiRALinear(site, self.mask_at(site, k))

    def mask_at(self, site: Site, k: int) -> Tensor:
        """The mask of one layer, (d_out, d_in). Raises ConfigError if the user's function gives none that fits."""
        if self.mask_type == "random":
            return random_mask(site, self.r, self.random_seed)
        if self.mask_fn is None:
            raise ConfigError(
                f"SHiRA(mask_type={self.mask_type!r}) needs mask_fn, a function of (layer, r) that gives the mask"
            )
        mask = self.mask_fn(site.module, self.r)
        shape = (site.out_features, site.in_features)
        fits = isinstance(mask, Tensor) and mask.shape == shape
        if not fits or int((mask == 1).sum()) != k or int((mask != 0).sum()) != k:
            raise ConfigError(
                f"mask_fn must give a tensor of shape {shape} with {k:,} ones and else zeros, for {site.name}"
            )
        return mask

    def parameters_at(self, site: Site) -> int:
        return self.r * (site.in_features + site.out_features)
