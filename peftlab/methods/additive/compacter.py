r"""Compacter and Compacter++ (Karimi Mahabadi et al., 2021, arXiv:2106.04647).

$$\Delta h(x) = s \, \bigl( W_{up} \, f(W_{down} \, x + b_{down}) + b_{up} \bigr), \qquad
W_{down}^\top = \sum_{i=1}^{n} A_i \otimes s_i t_i, \quad W_{up}^\top = \sum_{i=1}^{n} A_i \otimes s'_i t'_i$$

A bottleneck adapter whose matrices are sums of Kronecker products (a PHM layer). The n small matrices
$A_i \in \mathbb{R}^{n \times n}$ are shared by all adapters of the model. Each matrix has its own
$s_i \in \mathbb{R}^{d_{in}/n \times r}$ and $t_i \in \mathbb{R}^{r \times d_{out}/n}$, of rank r = 1.

Compacter stands where Houlsby's adapters stand. Compacter++ leaves the one after the attention out. In the paper what
is left stays at Houlsby's place; in `adapters` it moves to Pfeiffer's, and that is the default here too.
original_ln_before=False gives the paper's. The paper trains the LayerNorms as well; `adapters` and this file do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftlab.errors import ConfigError
from peftlab.methods.additive.bottleneck import LEVELS, LEVELS_NEVER, BottleneckMethod
from peftlab.methods.base import Card, Shared, method, require_number, require_positive
from peftlab.surgery import Site


class PHMRule(Shared):
    """The n matrices A_i, of shape (n, n, n), that all adapters of the model share."""

    def __init__(self, n: int, std: float) -> None:
        super().__init__()
        self.phm_rule = nn.Parameter(std * torch.randn(n, n, n))


class PHMLayer(nn.Module):
    """x H + b with H = Σ A_i ⊗ (s_i t_i): a linear layer with few parameters."""

    def __init__(self, d_in: int, d_out: int, n: int, r: int, rule: PHMRule | None) -> None:
        super().__init__()
        self.W_left = nn.Parameter(torch.empty(n, d_in // n, r))  # s_i
        self.W_right = nn.Parameter(torch.empty(n, r, d_out // n))  # t_i
        self.b = nn.Parameter(torch.zeros(d_out))
        self.__dict__["rule"] = rule  # shared with all other layers, so not a part of this one
        if rule is None:
            self.phm_rule = nn.Parameter(0.01 * torch.randn(n, n, n))  # or A_i of its own
        for factor in (*self.W_left.data, *self.W_right.data):
            nn.init.xavier_normal_(factor)

    @property
    def weight(self) -> Tensor:
        """H transposed, (d_out, d_in): the matrix of the linear layer that this is."""
        A = self.phm_rule if self.rule is None else self.rule.phm_rule  # (n, n, n)
        B = self.W_left @ self.W_right  # s_i t_i                         (n, d_in / n, d_out / n)
        return sum(torch.kron(A_i.to(B), B_i) for A_i, B_i in zip(A, B, strict=True)).T

    @property
    def bias(self) -> Tensor:
        return self.b

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.b)


@dataclass(frozen=True, kw_only=True)
class PHMBottleneck(BottleneckMethod):
    """Bottlenecks of two PHM layers. Field names, defaults and start are those of `adapters`.

    phm_dim: n. phm_rank: r. shared_phm_rule: False gives every PHM layer its own A_i.
    phm_init_range: standard deviation of the shared A_i at the start. It is small, so that Δh begins near zero.
    """

    reduction_factor: float = 32
    non_linearity: str = "gelu"
    phm_dim: int = 4
    phm_rank: int = 1
    shared_phm_rule: bool = True
    phm_init_range: float = 0.0001

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "phm_dim", "phm_rank")
        require_number(self, "phm_init_range")
        if not isinstance(self.shared_phm_rule, bool):
            raise ConfigError(f"{type(self).__name__}(shared_phm_rule={self.shared_phm_rule!r}): give True or False")

    def shared(self, model: nn.Module, sites: list[Site]) -> PHMRule | None:
        return PHMRule(self.phm_dim, self.phm_init_range) if self.shared_phm_rule else None

    def layer(self, site: Site, d_in: int, d_out: int, shared: Shared | None, up: bool = False) -> nn.Module:
        n = self.phm_dim
        if d_in % n or d_out % n:
            raise ConfigError(
                f"{type(self).__name__}: phm_dim={n} must divide both ends of a matrix, and at {site.name} one goes "
                f"from {d_in} to {d_out}; choose another phm_dim or reduction_factor"
            )
        return PHMLayer(d_in, d_out, n, self.phm_rank, shared if isinstance(shared, PHMRule) else None)

    def layer_parameters(self, d_in: int, d_out: int) -> int:
        own_rule = 0 if self.shared_phm_rule else self.phm_dim**3
        return self.phm_rank * (d_in + d_out) + d_out + own_rule

    def shared_parameters(self, model: nn.Module) -> int:
        return self.phm_dim**3 if self.shared_phm_rule else 0


FACTS: dict[str, Any] = {
    "title": "Compacter: Efficient Low-Rank Hypercomplex Adapter Layers",
    "year": 2021,
    "arxiv": "2106.04647",
    "family": "additive",
    "formula": "h + s (W_up f(W_down h + b_down) + b_up), W_downᵀ = Σ A_i ⊗ s_i t_i, W_upᵀ likewise",
    "shapes": "A_i (n, n), n of them, shared; s_i (d_in/n, r), t_i (r, d_out/n) for each matrix; b_down (m), b_up (d)",
    "mergeable": False,
    "use_when": "very many adapters are stored for one encoder, and each must be tiny",
    "avoid_when": "training time matters: every step multiplies the matrices out again",
    "unknown": "how much the sharing of A_i costs, against rank alone",
}
TRAPS = (
    "Its numbers are few, not its work: its matrices are multiplied out, so it runs no faster than a dense adapter.",
    "adapters 1.3.0 does not save the shared A_i: its reloaded adapter is another one. The file here holds them.",
)
PARAMETERS = "2 r (d + m) + m + d per adapter, and n³ once"


@method
class Compacter(PHMBottleneck):
    """PHM adapters at Houlsby's two places. `adapters.CompacterConfig`'s defaults."""

    peftlab_type = "COMPACTER"
    places = ("attention", "feed_forward")
    card = Card(
        **FACTS,
        equation="section 4, the PHM layer with low-rank B_i",
        reference="adapters.CompacterConfig (1.3.0), through golden tensors",
        parameters=PARAMETERS + "; two adapters per block",
        inference_cost="that of Houlsby's adapters, and four matrices per block multiplied out, once if they are kept",
        traps=TRAPS,
        levels=LEVELS,
    )


@method
class CompacterPlusPlus(PHMBottleneck):
    """PHM adapters after the feed-forward networks only. `adapters.CompacterPlusPlusConfig`'s defaults."""

    original_ln_before: bool = True

    peftlab_type = "COMPACTER_PLUS_PLUS"
    card = Card(
        **FACTS,
        equation="section 4, the PHM layer with low-rank B_i, after the feed-forward network only",
        reference="adapters.CompacterPlusPlusConfig (1.3.0), through golden tensors",
        parameters=PARAMETERS + "; one adapter per block",
        inference_cost="that of Pfeiffer's adapters, and two matrices per block multiplied out, once if they are kept",
        traps=(*TRAPS, "The paper's place is original_ln_before=False, not the default that adapters has."),
        levels=LEVELS_NEVER,
    )

    def wanted_places(self) -> tuple[str, ...]:
        return ("block_output",) if self.original_ln_before else ("feed_forward",)
