r"""VeRA: Vector-based Random Matrix Adaptation (Kopiczko et al., 2023, arXiv:2310.11454), equation 2.

$$h = W_0 x + \Lambda_b B \Lambda_d A x$$

$A$ and $B$ are random, frozen and shared by every layer. Only the two vectors on the diagonals
$\Lambda_d \in \mathbb{R}^{r}$ and $\Lambda_b \in \mathbb{R}^{d_{out}}$ are trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftlab.errors import CheckpointError, ConfigError
from peftlab.methods.base import Adapter, Card, Method, Shared, method, require_number, require_positive, require_share
from peftlab.surgery import Site
from peftlab.targeting import LORA_DEFAULTS


class VeRABases(Shared):
    """A and B, as large as the largest layer needs; smaller layers use their first rows and columns."""

    def __init__(self, r: int, d_in: int, d_out: int, seed: int, saved: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("vera_A", kaiming_uniform(r, d_in, generator), persistent=saved)
        self.register_buffer("vera_B", kaiming_uniform(d_out, r, generator), persistent=saved)


def kaiming_uniform(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Uniform in ±√(6 / columns) (He et al., 2015), from a generator of its own, on the CPU as in peft."""
    bound = math.sqrt(3.0) * (math.sqrt(2.0) / math.sqrt(columns))
    return torch.empty(rows, columns).uniform_(-bound, bound, generator=generator)


class VeRALinear(Adapter):
    """Two trained vectors around the shared random matrices."""

    def __init__(self, site: Site, bases: VeRABases, d_initial: float, dropout: float) -> None:
        super().__init__(site)
        r, d_out = bases.vera_A.shape[0], site.out_features
        self.__dict__["bases"] = bases  # shared with all other layers, so not a part of this one
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.vera_lambda_d = nn.Parameter(torch.full((r,), float(d_initial)))  # diagonal of Λ_d
        self.vera_lambda_b = nn.Parameter(torch.zeros(d_out))  # diagonal of Λ_b, zero: ΔW starts at zero

    def matrices(self) -> tuple[Tensor, Tensor]:
        """This layer's part of A, (r, d_in), and of B, (d_out, r)."""
        A = self.bases.vera_A[:, : self.site.in_features]
        B = self.bases.vera_B[: self.site.out_features]
        return A.to(self.vera_lambda_d), B.to(self.vera_lambda_d)

    def forward(self, inner: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        h = inner(x)  # W₀x + b                                     (…, d_out)
        A, B = self.matrices()
        z = self.vera_lambda_d * F.linear(self.dropout(x.to(A.dtype)), A)  # Λ_d A x       (…, r)
        return (h + self.vera_lambda_b * F.linear(z, B)).to(h.dtype)  # + Λ_b B Λ_d A x     (…, d_out)

    def delta_weight(self) -> Tensor:
        A, B = self.matrices()
        return (self.vera_lambda_b[:, None] * B) @ (self.vera_lambda_d[:, None] * A)


@method
class VeRA(Method):
    """Vector-based random matrix adaptation. `peft.VeraConfig`'s fields, defaults and semantics."""

    r: int = 256
    target_modules: list[str] | str | None = None
    projection_prng_key: int = 0
    save_projection: bool = True
    vera_dropout: float = 0.0
    d_initial: float = 0.1
    init_weights: bool = True
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None

    peft_type = "VERA"
    default_targets: ClassVar[Mapping[str, Any]] = {**LORA_DEFAULTS, "phi": ("q_proj", "v_proj")}
    card = Card(
        title="VeRA: Vector-based Random Matrix Adaptation",
        year=2023,
        arxiv="2310.11454",
        equation="equation 2, section 3.1",
        family="reparameterisation",
        reference="peft.VeraConfig",
        formula="h = W₀x + b + Λ_b B Λ_d A x",
        shapes="A (r, max d_in), B (max d_out, r) shared and frozen; λ_d (r), λ_b (d_out) per layer",
        parameters="r + d_out per layer",
        mergeable=True,
        inference_cost="none once merged; unmerged two products with r, which is large here",
        traps=(
            "Few trained numbers, yet the file holds A and B unless save_projection=False.",
            "Its learning rate must be far above LoRA's: the vectors start small.",
        ),
        use_when="very many adapters are stored for one base model",
        avoid_when="quality per adapter matters more than its size",
        unknown="how far the shared random directions limit what can be learnt",
    )

    def __post_init__(self) -> None:
        require_positive(self, "r")
        require_share(self, "vera_dropout")
        require_number(self, "d_initial", "projection_prng_key")
        if not self.init_weights:
            raise ConfigError("VeRA here always uses its default start; leave init_weights=True")

    def shared(self, model: nn.Module, sites: list[Site]) -> VeRABases:
        for site in sites:
            if site.kind != "linear":
                raise ConfigError(f"VeRA adapts linear layers; {site.name} is a {type(site.module).__name__}")
        d_in, d_out = (max(getattr(s, d) for s in sites) for d in ("in_features", "out_features"))
        return VeRABases(self.r, d_in, d_out, self.projection_prng_key, self.save_projection)

    def build(self, site: Site, shared: Shared | None) -> Adapter:
        if not isinstance(shared, VeRABases):
            raise CheckpointError("VeRA needs its shared bases")
        return VeRALinear(site, shared, self.d_initial, self.vera_dropout)

    def parameters_at(self, site: Site) -> int:
        return self.r + site.out_features
