r"""OFT: Orthogonal Finetuning (Qiu et al., 2023, arXiv:2306.07280), with the Cayley form of its section 3.

$$h = W_0 R x, \qquad R = \mathrm{diag}(R_1, \dots, R_k), \qquad R_i = (I + Q_i)(I - Q_i)^{-1}, \quad Q_i = -Q_i^\top$$

It multiplies the weight instead of adding to it: inputs are rotated, angles between neurons are kept. peft's default
replaces the inverse by the first terms of its Neumann series (arXiv:2506.19847), which is only nearly orthogonal, and
there it takes -Q for Q: the same numbers turn the other way.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from peftlab.errors import ConfigError
from peftlab.methods.base import Adapter, Card, Method, Shared, method, require_positive, require_share
from peftlab.surgery import Site


class Rotation(nn.Module):
    """Block-diagonal R. Trains the entries above the diagonal of each skew-symmetric Q."""

    def __init__(self, blocks: int, size: int, terms: int | None) -> None:
        super().__init__()
        self.size, self.terms = size, terms
        self.weight = nn.Parameter(torch.zeros(blocks, size * (size - 1) // 2))

    def matrices(self) -> Tensor:
        """The blocks R_i, of shape (blocks, size, size)."""
        rows, columns = torch.triu_indices(self.size, self.size, 1)
        Q = self.weight.new_zeros(len(self.weight), self.size, self.size)
        Q[:, rows, columns] = self.weight
        Q = Q - Q.transpose(-2, -1)  # Q = -Qᵀ
        eye = torch.eye(self.size, dtype=Q.dtype, device=Q.device).expand_as(Q)
        if self.terms is None:
            return torch.linalg.solve(eye + Q, eye - Q, left=False)  # (I - Q)(I + Q)⁻¹, the transpose of the sum below
        R, power = eye, eye  # I + 2Q + 2Q² + … + 2Qᵐ⁻¹ + Qᵐ
        last = self.terms - 1 if self.terms != 3 else 3  # peft's sum with 3 terms has the 4 of the next one
        for i in range(1, last + 1):
            power = power @ Q
            R = R + (power if i == last > 1 else 2 * power)
        return R


class OFTLinear(Adapter):
    """Rotate the input block by block, then apply the pretrained layer."""

    def __init__(self, site: Site, blocks: int, size: int, terms: int | None) -> None:
        super().__init__(site)
        self.oft_R = Rotation(blocks, size, terms)

    def forward(self, inner: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        R = self.oft_R.matrices()  # (k, s, s)
        blocks = x.to(R.dtype).unflatten(-1, R.shape[:2])  # x, cut into k blocks of s     (…, k, s)
        rotated = torch.einsum("...ks,kst->...kt", blocks, R)  # R x                      (…, k, s)
        return inner(rotated.flatten(-2).to(x.dtype))  # W₀ R x + b                       (…, d_out)

    def merged(self, W: Tensor, b: Tensor | None) -> tuple[Tensor, Tensor | None]:
        R = torch.block_diag(*self.oft_R.matrices())  # (d_in, d_in)
        return (R @ W.T.to(R.dtype)).T.to(W.dtype), b


@method
class OFT(Method):
    """Orthogonal fine-tuning. `peft.OFTConfig`'s fields, defaults and semantics."""

    r: int = 0  # number of blocks; give this or oft_block_size, the other follows from d_in
    oft_block_size: int = 32
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    init_weights: bool = True
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    use_cayley_neumann: bool = True
    num_cayley_neumann_terms: int = 5
    module_dropout: float = 0.0

    peft_type = "OFT"
    NEUTRAL: ClassVar[dict[str, Any]] = {"eps": 6e-5}
    card = Card(
        title="Controlling Text-to-Image Diffusion by Orthogonal Finetuning",
        year=2023,
        arxiv="2306.07280",
        equation="section 3, Cayley parameterisation",
        family="reparameterisation",
        reference="peft.OFTConfig",
        formula="h = W₀ R x + b, R = diag((I + Q)(I - Q)⁻¹), Q = -Qᵀ",
        shapes="Q (blocks, s (s - 1) / 2) with blocks · s = d_in",
        parameters="d_in (s - 1) / 2 per layer",
        mergeable=True,
        inference_cost="none once merged; unmerged one block-diagonal product per layer",
        traps=(
            "The block size must divide d_in; peft changes it with a warning, and so do we.",
            "The Neumann form is only nearly orthogonal: large Q, or few terms, and norms drift.",
            "use_cayley_neumann cannot be switched after training: in peft the two forms turn opposite ways.",
        ),
        use_when="the pretrained geometry should be kept, as in subject-driven image generation",
        avoid_when="inputs are wide and blocks large: the parameters grow with s d_in",
        unknown="whether orthogonality itself, or only the small change, protects from forgetting",
    )

    def __post_init__(self) -> None:
        require_share(self, "module_dropout")
        if (self.r == 0) == (self.oft_block_size == 0):
            raise ConfigError(
                f"OFT(r={self.r}, oft_block_size={self.oft_block_size}): give one of the two and set the other to 0, "
                "because r times oft_block_size is the layer's d_in"
            )
        require_positive(self, "oft_block_size" if self.r == 0 else "r", "num_cayley_neumann_terms")
        if self.use_cayley_neumann and self.num_cayley_neumann_terms < 2:
            raise ConfigError("OFT(num_cayley_neumann_terms=1) is the identity for every Q: nothing could be learnt")
        if self.module_dropout:
            raise ConfigError("OFT here has no module_dropout; set it to 0.0")

    def block_shape(self, site: Site) -> tuple[int, int]:
        """(blocks, size) for a layer: the nearest divisor of d_in to what was asked for."""
        asked = self.oft_block_size or self.r
        d_in = site.in_features
        got = min((n for n in range(1, d_in + 1) if d_in % n == 0), key=lambda n: (abs(n - asked), n))
        if got != asked:
            warnings.warn(f"{asked} does not divide {site.name}'s {d_in} inputs; using {got}", stacklevel=3)
        return (d_in // got, got) if self.oft_block_size else (got, d_in // got)

    def build(self, site: Site, shared: Shared | None) -> Adapter:
        if site.kind != "linear" or type(site.module).__name__ == "Conv1D":
            raise ConfigError(f"OFT here adapts nn.Linear only; {site.name} is a {type(site.module).__name__}")
        blocks, size = self.block_shape(site)
        if size == 1:
            raise ConfigError(f"OFT: blocks of size 1 on {site.name} cannot rotate anything; ask for larger blocks")
        adapter = OFTLinear(site, blocks, size, self.terms)
        if not self.init_weights:
            nn.init.normal_(adapter.oft_R.weight, std=0.1)
        return adapter

    @property
    def terms(self) -> int | None:
        return self.num_cayley_neumann_terms if self.use_cayley_neumann else None

    def parameters_at(self, site: Site) -> int:
        blocks, size = self.block_shape(site)
        return blocks * size * (size - 1) // 2
