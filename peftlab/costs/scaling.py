r"""Scaling laws: how the loss of a language model falls with parameters, data and compute.

    print(BESIROGLU.optimum(1e21))          # the best N and D for a budget of 1e21 FLOPs
    HOFFMANN.loss(N=7e9, D=140e9)
    KAPLAN.optimum(1e21)

| law | form | N counts | source |
|---|---|---|---|
| KAPLAN | power laws in N, D, C | not the embeddings | Kaplan et al., 2020, arXiv:2001.08361, eq. 1.1–1.5, table 6 |
| HOFFMANN | E + A/N^α + B/D^β | all | Hoffmann et al. (Chinchilla), 2022, arXiv:2203.15556, eq. 10 (approach 3) |
| HOFFMANN_UNROUNDED | the same | all | the same fit with more digits, as quoted by Besiroglu et al. |
| BESIROGLU | the same | all | Besiroglu et al., 2024, arXiv:2404.10102, table 1: a refit to data read off a figure |

Losses are nats per token on each paper's own data and tokenizer (the last three laws share theirs), so Kaplan's must
not be compared with the others', and none predicts the loss of *your* model. What can be compared is the advice: how
to spend a budget C = 6 N D. Kaplan puts most of it into size, Chinchilla into size and data alike. The rounded
constants of the Chinchilla paper give other advice than its own other two approaches; the refit agrees with them.
That is why the digits matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from peftlab.errors import PeftLabError

PF_DAY = 1e15 * 24 * 3600  # Kaplan's unit of compute, in FLOPs
FLOPS = 6  # for each parameter and token of a training step


@dataclass(frozen=True)
class Optimum:
    """The best size and data for a budget. loss is None where a law does not say."""

    law: str
    C: float  # FLOPs
    N: float  # parameters
    D: float  # tokens
    loss: float | None

    @property
    def tokens_per_parameter(self) -> float:
        return self.D / self.N

    def __str__(self) -> str:
        loss = "" if self.loss is None else f", loss {self.loss:.2f}"
        ratio = f"{self.tokens_per_parameter:.2g} tokens a parameter"
        return f"{self.law}: C = {self.C:.2g} FLOPs -> N = {self.N:.2g}, D = {self.D:.2g} ({ratio}){loss}"


@dataclass(frozen=True)
class Parametric:
    """L(N, D) = E + A / N^α + B / D^β. `errors`: standard errors, where the source gives them."""

    name: str
    E: float  # what no size and no data removes
    A: float
    B: float
    alpha: float
    beta: float
    source: str
    errors: Mapping[str, float] = field(default_factory=dict)

    def loss(self, N: float, D: float) -> float:
        """Nats per token of a model of N parameters after D tokens, each seen once."""
        _positive(N=N, D=D)
        return self.E + self.A / N**self.alpha + self.B / D**self.beta

    @property
    def exponents(self) -> tuple[float, float]:
        """a and b: the best N grows with C^a, the best D with C^b; a + b = 1."""
        total = self.alpha + self.beta
        return self.beta / total, self.alpha / total

    def optimum(self, C: float) -> Optimum:
        """Where the loss is lowest on the line 6 N D = C: N = G (C/6)^a, D = (C/6)^b / G (Hoffmann et al., eq. 4)."""
        _positive(C=C)
        a, b = self.exponents
        G = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        N, D = G * (C / FLOPS) ** a, (C / FLOPS) ** b / G
        return Optimum(self.name, C, N, D, self.loss(N, D))

    def tokens_for(self, N: float, loss: float) -> float:
        """How many tokens a model of N parameters needs for this loss. Raises PeftLabError if no number is enough."""
        _positive(N=N, loss=loss)
        left = loss - self.E - self.A / N**self.alpha
        if left <= 0:
            raise PeftLabError(f"by {self.name}, {N:.3g} parameters never reach a loss of {loss}: take a larger model")
        return (self.B / left) ** (1 / self.beta)


@dataclass(frozen=True)
class Kaplan:
    """The power laws of 2020. N leaves out the embeddings; C is counted in FLOPs here, in PF-days in the paper.

    The paper's laws hold for C_min, the compute at a batch far below the critical one. At the critical batch, which
    the data of table 6 is for, the same run costs C = 2 C_min (section 6.3), and that is what `optimum` is given.
    """

    name: str = "Kaplan et al. 2020"
    N_c: float = 8.8e13
    alpha_N: float = 0.076
    D_c: float = 5.4e13
    alpha_D: float = 0.095
    C_c: float = 3.1e8  # PF-days of C_min
    alpha_C: float = 0.050
    N_e: float = 1.3e9  # table 6
    p_N: float = 0.73
    D_e: float = 2e10
    p_D: float = 0.27
    source: str = "arXiv:2001.08361"

    def loss_of_size(self, N: float) -> float:
        """Enough data and compute; only the size limits (eq. 1.1)."""
        _positive(N=N)
        return (self.N_c / N) ** self.alpha_N

    def loss_of_data(self, D: float) -> float:
        """A large model, stopped early; only the data limit (eq. 1.2)."""
        _positive(D=D)
        return (self.D_c / D) ** self.alpha_D

    def loss_of_compute(self, C: float) -> float:
        """The best size for C FLOPs at the critical batch, and data enough (eq. 1.3, in C_min)."""
        _positive(C=C)
        return (self.C_c * PF_DAY / (C / 2)) ** self.alpha_C

    def loss(self, N: float, D: float) -> float:
        """Both limit (eq. 1.5), with the constants of eq. 1.1 and 1.2; the paper's joint fit has others."""
        _positive(N=N, D=D)
        return ((self.N_c / N) ** (self.alpha_N / self.alpha_D) + self.D_c / D) ** self.alpha_D

    def optimum(self, C: float) -> Optimum:
        """Table 6: N = 1.3e9 C_min^0.73, D = 2e10 C_min^0.27, in PF-days; C = 2 C_min.

        So 6 N D is about C: 0.9 C, since the two constants are rounded.
        """
        _positive(C=C)
        days = C / 2 / PF_DAY
        N, D = self.N_e * days**self.p_N, self.D_e * days**self.p_D
        return Optimum(self.name, C, N, D, self.loss_of_compute(C))


KAPLAN = Kaplan()
HOFFMANN = Parametric(
    "Hoffmann et al. 2022", E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28, source="arXiv:2203.15556, eq. 10"
)
HOFFMANN_UNROUNDED = Parametric(
    "Hoffmann et al. 2022, unrounded",
    E=1.6934,
    A=406.4,
    B=410.7,
    alpha=0.3392,
    beta=0.2849,
    source="arXiv:2203.15556, the TeX source, as quoted in arXiv:2404.10102",
)
BESIROGLU = Parametric(
    "Besiroglu et al. 2024",
    E=1.8172,
    A=482.01,
    B=2085.43,
    alpha=0.3478,
    beta=0.3658,
    source="arXiv:2404.10102, table 1",
    errors={"E": 0.03, "A": 124.58, "B": 1293.23, "alpha": 0.02, "beta": 0.02},
)
LAWS = (KAPLAN, HOFFMANN, HOFFMANN_UNROUNDED, BESIROGLU)


def advice(C: float) -> str:
    """What each law would do with C FLOPs, one line each."""
    return "\n".join(str(law.optimum(C)) for law in LAWS)


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            raise PeftLabError(f"{name}={value!r}: give a number above 0")
