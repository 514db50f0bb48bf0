r"""Bottleneck adapters: Houlsby et al. (2019, arXiv:1902.00751), Pfeiffer et al. (2020), He et al. (2021).

$$\Delta h(x) = s \, \bigl( W_{up} \, f(W_{down} \, x + b_{down}) + b_{up} \bigr), \qquad
W_{down} \in \mathbb{R}^{m \times d}, \; W_{up} \in \mathbb{R}^{d \times m}$$

A small network: down to m numbers, a nonlinearity f, up again. What differs is where it stands. Write h for what the
attention or the feed-forward network puts out, x for the residual that is added to it, LN for the normalisation.

    Houlsby    h + Δh(h), before x is added; twice in a block, after the attention and after the feed-forward network
    Pfeiffer   once in a block, after the feed-forward network; it reads the sum, normalised where the model does that:
                 BERT (norm after the sum)      LN(x + h + Δh(LN(x + h)))     LN runs twice, with the same weights
                 GPT-2, Llama (norm before)     y + Δh(y) with y = x + h      nothing normalises what it reads
    Parallel   h + Δh(x), with x the input of the feed-forward network; once in a block, beside that network
                 BERT                           LN(x + h + Δh(x))
                 GPT-2, Llama                   r + h + Δh(x), where x = LN(r) and r is the residual stream

Where the sources differ, exactly:
- Houlsby et al. train the LayerNorms too; `adapters` and this file do not (add them: LNTuning under a second name).
- Pfeiffer's placement is that of MAD-X (arXiv:2005.00052) and AdapterFusion (arXiv:2005.00247), on post-norm models:
  residual h, input LN(x + h). On models that norm first, `adapters` leaves LN out, and so do we.
- Beside the feed-forward network of a pre-norm model, `adapters` reads r, not LN(r). We read what the network reads,
  as He et al. define x. With ln_before=True and the block's own norm in it, `adapters` does the same.
- In train mode the model's own dropout comes after Houlsby's adapter here, and before it in `adapters`. In eval
  mode both agree.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftlab import hosts
from peftlab.errors import ConfigError, NotMergeable, PeftLabError
from peftlab.methods.base import Adapter, Card, Method, Shared, method, require_number, require_share
from peftlab.surgery import Site

NON_LINEARITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "swish": F.silu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "leakyrelu": F.leaky_relu,
    "linear": lambda x: x,
}


class Bottleneck(Adapter):
    """Δh(x) = s (W_up f(W_down x + b_down) + b_up). Subclasses say where it stands."""

    def __init__(self, site: Site, method: BottleneckMethod, down: nn.Module, up: nn.Module) -> None:
        super().__init__(site)
        self.adapter_down = down  # W_down (m, d_in) and b_down (m)
        self.adapter_up = up  # W_up (d_out, m) and b_up (d_out)
        self.f = NON_LINEARITIES[method.non_linearity]
        self.scaling: float | nn.Parameter = method.first_scaling(method.ends(site.module)[1])  # s
        self.dropout = nn.Dropout(method.dropout) if method.dropout else nn.Identity()
        self.made_by = method

    def delta(self, x: Tensor) -> Tensor:
        z = self.f(self.adapter_down(x.to(self.adapter_up.bias.dtype)))  # f(W_down x + b_down)     (…, m)
        return self.dropout(self.adapter_up(z) * self.scaling)  # s (W_up z + b_up)                 (…, d_out)

    def linear_map(self) -> tuple[Tensor, Tensor]:
        """M = s W_up W_down and c = s (W_up b_down + b_up), so that Δh(x) = M x + c. Only without a nonlinearity."""
        up = self.adapter_up.weight
        s = torch.as_tensor(self.scaling, dtype=up.dtype, device=up.device).reshape(-1)
        return s[:, None] * (up @ self.adapter_down.weight), s * (up @ self.adapter_down.bias + self.adapter_up.bias)

    def merge_into(self, module: nn.Module) -> nn.Module:
        name, f = type(self.made_by).__name__, self.made_by.non_linearity
        no_place = self.site.kind != "linear" or not isinstance(self, Behind | Beside)
        here = f"around the {type(module).__name__} at {self.site.name}"
        if f != "linear":
            raise NotMergeable(
                f"{name} cannot be merged: {f} stands between its two matrices, so what it adds is not a linear map of "
                "its input, and no weight can hold it. "
                + (f"Nor could it be without {f}, {here}" if no_place else "With non_linearity='linear' it can")
            )
        if no_place:
            raise NotMergeable(
                f"{name} cannot be merged {here}: without a nonlinearity what it adds is one matrix times its input, "
                "but there is no linear layer that reads or writes these vectors, whose weight could take that up"
            )
        return super().merge_into(module)


class Behind(Bottleneck):
    """h + Δh(h): the adapter reads what the module puts out."""

    acts_on_output = True

    def forward(self, inner: Any, *args: Any, **kwargs: Any) -> Tensor:
        return self.after(inner(*args, **kwargs))

    def after(self, h: Tensor) -> Tensor:
        return (h + self.delta(h)).to(h.dtype)

    def merged(self, W: Tensor, b: Tensor | None) -> tuple[Tensor, Tensor | None]:
        M, c = self.linear_map()  # W' = (I + M) W and b' = (I + M) b + c
        V = W.to(M.dtype)
        return (V + M @ V).to(W.dtype), (c if b is None else b + M @ b.to(M.dtype) + c).to(W.dtype)


class BehindNorm(Bottleneck):
    """LN(v + Δh(LN(v))) with v = x + h: the adapter reads the norm's output and adds to its input."""

    def forward(self, inner: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
        return inner((v + self.delta(inner(v))).to(v.dtype))


class Beside(Bottleneck):
    """h + Δh(x): the adapter reads what the module reads. At a linear layer and without f, this is LoRA."""

    def forward(self, inner: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        h = inner(x, *args, **kwargs)
        return (h + self.delta(x)).to(h.dtype)

    def merged(self, W: Tensor, b: Tensor | None) -> tuple[Tensor, Tensor | None]:
        M, c = self.linear_map()  # W' = W + M and b' = b + c
        return (W + M).to(W.dtype), (c if b is None else b + c).to(W.dtype)


class BesideNorm(Bottleneck):
    """LN(x + Δh(x) + h): where the module itself adds x and normalises, Δh(x) goes in with x."""

    def forward(self, inner: Any, h: Tensor, x: Tensor) -> Tensor:
        return inner(h, (x + self.delta(x)).to(x.dtype))


@dataclass(frozen=True, kw_only=True)
class BottleneckMethod(Method):
    """What all bottleneck adapters share. Field names and meaning are those of `adapters.BnConfig`.

    reduction_factor: d / m, rounded so that m is a whole number of at least 1.
    scaling: s, a number; or "learned", one trained number; or "channel", one for each output.
    leave_out: numbers of blocks that get no adapter.
    target_modules: where to go instead of the places above: a list of names or a regular expression, as peft reads it.
    """

    reduction_factor: float = 16
    non_linearity: str = "relu"
    scaling: float | str = 1.0
    dropout: float = 0.0
    leave_out: list[int] = field(default_factory=list)
    target_modules: list[str] | str | None = None

    places: ClassVar[tuple[str, ...]]  # keys of hosts.ADAPTER_PLACES
    parallel: ClassVar[bool] = False

    def __post_init__(self) -> None:
        name = type(self).__name__
        require_number(self, "reduction_factor")
        require_share(self, "dropout")
        if self.reduction_factor <= 0:
            raise ConfigError(f"{name}(reduction_factor={self.reduction_factor!r}): reduction_factor must be above 0")
        if self.non_linearity not in NON_LINEARITIES:
            raise ConfigError(
                f"{name}(non_linearity={self.non_linearity!r}): choose one of {', '.join(NON_LINEARITIES)}"
            )
        if self.scaling not in ("learned", "channel"):
            if isinstance(self.scaling, str):
                raise ConfigError(f"{name}(scaling={self.scaling!r}): give a number, 'learned' or 'channel'")
            require_number(self, "scaling")
        numbers = isinstance(self.leave_out, Collection) and not isinstance(self.leave_out, str)
        if not numbers or not all(type(n) is int and n >= 0 for n in self.leave_out):
            raise ConfigError(f"{name}(leave_out={self.leave_out!r}): give a list of block numbers, counted from 0")

    def prepare(self, model: nn.Module) -> Method:
        if self.target_modules is None:
            targets = hosts.adapter_places(model, self.wanted_places())
            self = dataclasses.replace(self, target_modules=targets)
        return dataclasses.replace(super().prepare(model), leave_out=sorted(self.leave_out))

    def wanted_places(self) -> tuple[str, ...]:
        return self.places

    def sites(self, model: nn.Module) -> list[Site]:
        sites = super().sites(model)
        blocks = {hosts.block_number(site.name) for site in sites} - {None}
        if unknown := sorted(set(self.leave_out) - blocks):
            raise ConfigError(f"leave_out names block {unknown[0]}, but the targets are in {sorted(blocks) or 'none'}")
        kept = [site for site in sites if hosts.block_number(site.name) not in self.leave_out]
        if not kept:
            raise ConfigError(f"leave_out={self.leave_out!r} leaves no block with an adapter")
        return kept

    def ends(self, module: nn.Module) -> tuple[int, int]:
        """d_in and d_out of the adapter at this module: behind it, both are the module's output."""
        d_in, d_out = hosts.widths(module)
        return (d_in, d_out) if self.parallel else (d_out, d_out)

    def middle(self, d_in: int) -> int:
        """m, computed as `adapters` does it."""
        return max(1, int(d_in // self.reduction_factor))

    def first_scaling(self, d_out: int) -> float | nn.Parameter:
        if isinstance(self.scaling, str):
            return nn.Parameter(torch.ones(1 if self.scaling == "learned" else d_out))
        return self.scaling

    def build(self, site: Site, shared: Shared | None) -> Adapter:
        try:
            d_in, d_out = self.ends(site.module)
        except PeftLabError as why:
            raise ConfigError(f"{type(self).__name__} cannot stand at {site.name}: {why}") from None
        if self.parallel:
            kind = BesideNorm if hosts.adds_residual(site.module) else Beside
        else:
            kind = BehindNorm if hosts.is_norm(site.module) else Behind
        m = self.middle(d_in)
        return kind(site, self, self.layer(site, d_in, m, shared), self.layer(site, m, d_out, shared, up=True))

    def layer(self, site: Site, d_in: int, d_out: int, shared: Shared | None, up: bool = False) -> nn.Module:
        """One of the two matrices, with its bias."""
        raise NotImplementedError

    def parameters_at(self, site: Site) -> int:
        d_in, d_out = self.ends(site.module)
        m, scale = self.middle(d_in), {"learned": 1, "channel": d_out}.get(self.scaling, 0)
        return self.layer_parameters(d_in, m) + self.layer_parameters(m, d_out) + scale

    def layer_parameters(self, d_in: int, d_out: int) -> int:
        return d_in * d_out + d_out


STARTS = {"bert": 0.02, "houlsby": 0.01, "mam_adapter": None}


@dataclass(frozen=True, kw_only=True)
class DenseBottleneck(BottleneckMethod):
    """Bottlenecks of two plain matrices, and how they start. Biases start at zero.

    init_weights: "bert", normal with standard deviation 0.02; "houlsby", normal with 0.01, cut off at two standard
        deviations; "mam_adapter", W_down uniform as in nn.Linear and W_up zero, so that Δh is exactly zero at first.
    init_std: another standard deviation for the first two. Not in `adapters`.
    """

    init_weights: str = "bert"
    init_std: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        if self.init_weights not in STARTS:
            raise ConfigError(f"{name}(init_weights={self.init_weights!r}): choose one of {', '.join(STARTS)}")
        if self.init_std is not None:
            require_number(self, "init_std")
            if self.init_std < 0:
                raise ConfigError(f"{name}(init_std={self.init_std!r}): a standard deviation is not below 0")
            if self.init_weights == "mam_adapter":
                raise ConfigError(f"{name}: init_weights='mam_adapter' has no init_std; choose 'bert' or 'houlsby'")

    def layer(self, site: Site, d_in: int, d_out: int, shared: Shared | None, up: bool = False) -> nn.Module:
        layer = nn.Linear(d_in, d_out)
        std = STARTS[self.init_weights] if self.init_std is None else self.init_std
        if std == 0 or (self.init_weights == "mam_adapter" and up):
            nn.init.zeros_(layer.weight)
        elif self.init_weights == "mam_adapter":
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
        elif self.init_weights == "houlsby":
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
        else:
            nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)
        return layer


PARAMETERS = "2 m d + m + d per adapter, with m = d / reduction_factor"
LEVELS = {
    "P4": "f stands between the two matrices, so no weight can hold them; with non_linearity='linear' it merges",
    "P5": "neither peft nor adapters opens this file; it goes there and back within peftlab",
}
LEVELS_NEVER = LEVELS | {"P4": "no linear layer reads or writes the same vectors, not even without the nonlinearity"}


@method
class Houlsby(DenseBottleneck):
    """Two adapters in every block. `adapters.DoubleSeqBnConfig`'s defaults."""

    non_linearity: str = "swish"

    peftlab_type = "HOULSBY"
    places = ("attention", "feed_forward")
    card = Card(
        title="Parameter-Efficient Transfer Learning for NLP",
        year=2019,
        arxiv="1902.00751",
        equation="section 2.1",
        family="additive",
        reference="adapters.DoubleSeqBnConfig (1.3.0), through golden tensors",
        formula="h + s (W_up f(W_down h + b_down) + b_up)",
        shapes="W_down (m, d), W_up (d, m), b_down (m), b_up (d); twice in every block",
        parameters=PARAMETERS + "; two adapters per block",
        mergeable=False,
        inference_cost="four small products per block, one after the other, which cannot be merged away",
        traps=(
            "A start that is too large wrecks the model before the first step: see init_std.",
            "The paper trains the LayerNorms as well; this method alone does not.",
        ),
        use_when="a small add-on must be able to bend, not only to turn: many tasks on one frozen encoder",
        avoid_when="latency at batch size 1 matters: the products wait for one another",
        unknown="how much of the result the nonlinearity earns, at equal numbers of parameters",
        levels=LEVELS,
    )


@method
class Pfeiffer(DenseBottleneck):
    """One adapter in every block. `adapters.SeqBnConfig`'s defaults.

    original_ln_before: True reads the normalised sum (see the top of this file); False reads h, which is Houlsby's
    second adapter alone.
    """

    original_ln_before: bool = True

    peftlab_type = "PFEIFFER"
    card = Card(
        title="MAD-X: An Adapter-Based Framework for Multi-Task Cross-Lingual Transfer",
        year=2020,
        arxiv="2005.00052",
        equation="language adapters: residual from the feed-forward output, input from the norm after it",
        family="additive",
        reference="adapters.SeqBnConfig (1.3.0), through golden tensors",
        formula="LN(v + Δh(LN(v))), v = x + h; where no norm follows: v + Δh(v)",
        shapes="W_down (m, d), W_up (d, m), b_down (m), b_up (d); once in every block",
        parameters=PARAMETERS + "; one adapter per block",
        mergeable=False,
        inference_cost="two small products and one more normalisation per block, which cannot be merged away",
        traps=(
            "The norm runs twice, with the same weights: an adapter behind the block's output is another model.",
            "On pre-norm models it reads the residual stream as it is, whatever its size there.",
            "On pre-norm models it stands behind the whole block: output_hidden_states shows the block without it.",
        ),
        use_when="Houlsby's adapters are to cost half, with little lost; adapters that will be stacked or combined",
        avoid_when="latency at batch size 1 matters",
        unknown="whether the placement that was best on BERT-like models is best on others",
        levels=LEVELS_NEVER,
    )

    def wanted_places(self) -> tuple[str, ...]:
        return ("block_output",) if self.original_ln_before else ("feed_forward",)


@method
class ParallelAdapter(DenseBottleneck):
    """One adapter beside every feed-forward network. `adapters.ParBnConfig`'s defaults, with its scaling of 4.

    scaling=1.0 is the plain parallel adapter, another number (or "learned") the scaled one.
    With target_modules naming linear layers it stands beside those; without its nonlinearity it is then a LoRA.
    """

    reduction_factor: float = 2
    scaling: float | str = 4.0
    init_weights: str = "mam_adapter"

    peftlab_type = "PARALLEL_ADAPTER"
    places = ("beside",)
    parallel = True
    card = Card(
        title="Towards a Unified View of Parameter-Efficient Transfer Learning",
        year=2021,
        arxiv="2110.04366",
        equation="table 1, parallel and scaled parallel adapter",
        family="additive",
        reference="adapters.ParBnConfig (1.3.0), through golden tensors",
        formula="h + s (W_up f(W_down x + b_down) + b_up)",
        shapes="W_down (m, d), W_up (d, m), b_down (m), b_up (d); once in every block",
        parameters=PARAMETERS + "; one adapter per block",
        mergeable=False,
        inference_cost="two small products per block, which can run beside the feed-forward network's own",
        traps=(
            "On pre-norm models the adapters package lets it read the residual stream before the norm; this does not.",
            "scaling multiplies the change and its gradient: change it, and the learning rate is another one too.",
        ),
        use_when="a larger budget goes into the feed-forward network, where He et al. found it to be spent best",
        avoid_when="the change must be merged into the weights",
        unknown="how much of its advantage is the place, and how much the scale",
        levels=LEVELS
        | {"P4": "f stands between the two matrices; without f, and at a linear layer, it is a LoRA and merges"},
    )
