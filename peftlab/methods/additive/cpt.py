r"""Context-aware prompt tuning, CPT (Blau et al., 2024, arXiv:2410.17222).

$$[E + \delta; X], \qquad \lVert \delta_i \rVert_2 \le \epsilon_i \sqrt{d / 2048}$$

$E$ are the embeddings of a context that a person wrote, examples with their answers. Only a small change $\delta$ of
them is trained: after every step each row is scaled back into a ball (projected gradient descent). The answers in the
context keep their embeddings, and count in the loss.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from peftlab import hosts
from peftlab.errors import ConfigError, PeftLabError
from peftlab.methods.additive.prompt_tuning import Prompt, PromptMethod
from peftlab.methods.base import Card, Method, method, require_number
from peftlab.surgery import Site

# Types of tokens: 1 template, 2 input, 3 template, 4 label; the second example has 5 to 8, and so on. The kind is the
# type modulo 4. Type 0 belongs to none of them: it is neither trained nor counted.
INPUT, LABEL = 2, 0
NEARLY_ZERO = 1e-10  # peft's ball for tokens that do not train


class ContextPrompt(Prompt):
    """E (n, d), frozen, and δ (n, d), trained where the token is no label. The loss counts the context's labels too."""

    def __init__(
        self, E: Tensor, types: list[int], ids: list[int], epsilon: tuple[float, float], model: nn.Module
    ) -> None:
        super().__init__(E, model)
        self.prompt_embeddings.requires_grad_(False)
        self.delta_embedding = nn.Embedding.from_pretrained(torch.zeros_like(E), freeze=False)
        kinds = torch.tensor(types)
        of_input, of_template = (e * torch.tensor([E.shape[1] / 2048]).sqrt() for e in epsilon)
        radius = torch.where(kinds % 4 == INPUT, of_input, of_template).where(kinds % 4 != LABEL, NEARLY_ZERO)
        for name, tensor in (("radius", radius), ("types", kinds), ("ids", torch.tensor(ids))):
            self.register_buffer(name, tensor, persistent=False)

    @torch.no_grad()
    def project(self) -> Tensor:
        """δ with every row scaled back into its ball; the parameter itself is changed, as in projected descent."""
        delta, radius = self.delta_embedding.weight, self.radius
        norm = delta.norm(dim=1)
        outside = norm > radius * (1 + 16 * torch.finfo(delta.dtype).eps)  # more than by rounding: twice is once
        delta.mul_(torch.where(outside, radius / norm.clamp(min=radius), 1.0)[:, None])
        return delta

    def vectors(self, batch: int) -> Tensor:
        self.project()
        delta = self.delta_embedding.weight
        delta = torch.where((self.types % 4 != LABEL)[:, None], delta, delta.detach())
        return (self.prompt_embeddings + delta).expand(batch, -1, -1)  # E + δ

    def on_inputs(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """`input_type_mask` (batch, T) gives the types of the input's tokens; without it, they all are labels."""
        kwargs = {"input_type_mask": None, "labels": None, **kwargs}
        kinds, labels = kwargs.pop("input_type_mask"), kwargs.pop("labels")
        if labels is not None:
            labels = self.counted(labels, torch.full_like(labels, 4) if kinds is None else kinds.to(labels.device))
        return {**super().on_inputs(kwargs), "labels": labels}

    def counted(self, labels: Tensor, kinds: Tensor) -> Tensor:
        """The labels of context and input, (batch, n + T), with -100 wherever the type is not that of a label."""
        if kinds.shape != labels.shape:
            raise PeftLabError(
                f"input_type_mask has the shape {tuple(kinds.shape)}, the labels {tuple(labels.shape)}: they must agree"
            )
        kinds = kinds.where(kinds <= 0, kinds + self.types.max())  # the input is the example after the context's last
        kinds = torch.cat([self.types.expand(len(labels), -1), kinds], dim=1)
        labels = torch.cat([self.ids.expand(len(labels), -1), labels], dim=1)
        counted = (kinds > 0) & (kinds % 4 == LABEL)
        if not counted[:, 1:].any():
            raise PeftLabError(
                "no label counts in this loss: the input's types go on from the largest of cpt_tokens_type_mask, so "
                "that must be a multiple of 4 (the context must end its last example with a label)"
            )
        return labels.where(counted, -100)

    def file_names(self) -> dict[str, str]:
        return {"prompt_embeddings": "prompt_embeddings", "delta_embedding.weight": "delta_embedding.weight"}

    def requires_grad_(self, requires_grad: bool = True) -> ContextPrompt:
        self.delta_embedding.requires_grad_(requires_grad)
        return self

    def tensors(self) -> dict[str, Tensor]:
        return {"prompt_embeddings": self.prompt_embeddings.detach() + self.project().detach()}

    @torch.no_grad()
    def take(self, tensors: dict[str, Tensor]) -> None:
        self.prompt_embeddings.copy_(tensors["prompt_embeddings"])
        self.delta_embedding.weight.zero_()


@method
class CPT(PromptMethod):
    """CPT. `peft.CPTConfig`'s fields, defaults and semantics, but for the weighted loss."""

    cpt_token_ids: list[int] = dataclasses.field(default_factory=lambda: [0])  # the context, token by token
    cpt_mask: list[int] | None = None  # peft keeps it and never reads it
    cpt_tokens_type_mask: list[int] | None = None  # None: all 1
    opt_projection_epsilon: float = 0.1  # of the context's inputs
    opt_projection_format_epsilon: float = 0.1  # of its template
    tokenizer_name_or_path: str | None = None  # kept for the reader; the ids are what counts

    peft_type = "CPT"
    NEUTRAL: ClassVar[dict[str, Any]] = {"opt_weighted_loss_type": "none", "opt_loss_decay_factor": 1.0}
    BOOKKEEPING: ClassVar[frozenset[str]] = PromptMethod.BOOKKEEPING | {"num_virtual_tokens"}
    card = Card(
        title="Context-aware Prompt Tuning: Advancing In-Context Learning with Adversarial Methods",
        year=2024,
        arxiv="2410.17222",
        equation="the projection onto a ball of radius ε",
        family="additive",
        reference="peft.CPTConfig",
        formula="[E + δ; X],  ‖δ_i‖ ≤ ε_i √(d / 2048)",
        shapes="E, δ (n, d)",
        parameters="n d",
        mergeable=False,
        inference_cost="n more positions in every layer, and n fewer of the context left, as for the written context",
        traps=(
            "With peft's default types (all 1) no label counts and peft's loss is not a number; here that is an error.",
            "The file holds E + δ: training that goes on from it has its ball around that sum, not around the words.",
            "peft writes into the caller's input_type_mask, so a second call with the same tensor counts other labels.",
            "The loss that weighs older examples less (opt_weighted_loss_type='decay') is refused: use peft for it.",
        ),
        use_when="a written few-shot context works already and there are labels to make it better",
        avoid_when="there is no good context to start from, or its tokens cost too much",
        unknown="how far δ may go before the context stops meaning what was written",
        levels={"P4": "a prompt is an input, there is no weight to merge it into"},
    )

    def __post_init__(self) -> None:
        require_number(self, "opt_projection_epsilon", "opt_projection_format_epsilon")
        n = len(self.cpt_token_ids)
        for name in ("cpt_token_ids", "cpt_mask", "cpt_tokens_type_mask"):
            value = getattr(self, name)
            value = [1] * n if value is None else value
            whole = all(isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in value)
            if not value or not whole or len(value) != n:
                raise ConfigError(
                    f"CPT({name}={value!r}): give {n or 'some'} whole numbers, one for each token of the context"
                )
            if name != "cpt_token_ids":
                object.__setattr__(self, name, list(value))
        if min(self.opt_projection_epsilon, self.opt_projection_format_epsilon) < 0:
            raise ConfigError(
                "opt_projection_epsilon and opt_projection_format_epsilon are radii: they cannot be negative"
            )
        if self.task_type not in (None, "CAUSAL_LM"):
            raise ConfigError(
                f"CPT(task_type={self.task_type!r}): it trains language models only, as in peft: CAUSAL_LM"
            )

    def prepare(self, model: nn.Module) -> Method:
        if hosts.head_task(model) or not hasattr(type(model), "generate"):
            raise ConfigError(f"CPT needs a language model with embeddings and a head; {type(model).__name__} is none")
        method = super().prepare(model)
        shape = dict.fromkeys(("num_layers", "token_dim", "num_attention_heads"))  # peft asks the model for them again
        return dataclasses.replace(
            method, bookkeeping={**method.bookkeeping, **shape, "num_virtual_tokens": len(self.cpt_token_ids)}
        )

    def shared(self, model: nn.Module, sites: list[Site]) -> ContextPrompt:
        embed = hosts.word_embeddings(model)
        if max(self.cpt_token_ids) >= embed.num_embeddings:
            raise ConfigError(
                f"cpt_token_ids has {max(self.cpt_token_ids)}; the model knows 0 to {embed.num_embeddings - 1}"
            )
        E = embed(torch.tensor(self.cpt_token_ids, device=embed.weight.device)).detach().clone().float()
        epsilon = (self.opt_projection_epsilon, self.opt_projection_format_epsilon)
        return ContextPrompt(E, self.cpt_tokens_type_mask, self.cpt_token_ids, epsilon, model)

    def shared_parameters(self, model: nn.Module) -> int:
        return len(self.cpt_token_ids) * hosts.word_embeddings(model).embedding_dim
