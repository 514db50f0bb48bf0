r"""Prompt tuning (Lester et al., 2021, arXiv:2104.08691), section 2.

$$[P; X] \in \mathbb{R}^{(n + T) \times d}$$

$n$ trained vectors $P$ are put before the embedded input $X$. The model itself stays frozen.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from peftlab import hosts
from peftlab.errors import ConfigError
from peftlab.methods.base import Adapter, Card, Method, Shared, method, require_positive
from peftlab.surgery import Site


class Prompt(Shared):
    """P, of shape (n, d), put before every input."""

    has_seat = True

    def __init__(self, P: Tensor, model: nn.Module) -> None:
        super().__init__()
        self.n = len(P)
        self.prompt_embeddings = nn.Parameter(P)
        self.__dict__["model"] = model  # asked for its word embeddings, which may get adapters of their own

    def file_names(self) -> dict[str, str]:
        return {"prompt_embeddings": "prompt_embeddings"}

    def vectors(self, batch: int) -> Tensor:
        """P for every row of the batch: (batch, n, d)."""
        return self.prompt_embeddings.expand(batch, -1, -1)

    def on_inputs(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        hosts.check_cache_grows(kwargs)
        batch, T = hosts.batch_and_length(kwargs)
        n = self.n
        kwargs = dict(kwargs)
        first = hosts.past_length(kwargs) == 0  # while generating, later steps find P in the cache
        if first:
            X = kwargs.pop("inputs_embeds", None)
            ids = kwargs.pop("input_ids", None)
            X = hosts.word_embeddings(self.model)(ids) if X is None else X
            kwargs["inputs_embeds"] = torch.cat([self.vectors(batch).to(X.dtype), X], dim=1)  # [P; X]
        widen(kwargs, "attention_mask", batch, n, 1)
        if first:
            labels = kwargs.get("labels")
            if labels is not None and labels.shape[1:] == (T,) and not labels.is_floating_point():  # one for each token
                widen(kwargs, "labels", batch, n, -100)
            widen(kwargs, "token_type_ids", batch, n, 0)
        if kwargs.get("position_ids") is not None:
            positions = kwargs["position_ids"]
            front = torch.arange(n, device=positions.device).expand(len(positions), n)
            kwargs["position_ids"] = torch.cat([front, positions + n], dim=1) if first else positions + n
        return kwargs


def widen(kwargs: dict[str, Any], name: str, batch: int, n: int, value: int) -> None:
    """Put n columns of `value` before an argument that has one entry for each token."""
    given = kwargs.get(name)
    if given is None:
        return
    if given.ndim != 2:
        raise ConfigError(f"prompt tuning needs {name} of shape (batch, tokens); it has {given.ndim} dimensions")
    kwargs[name] = torch.cat([given.new_full((batch, n), value), given], dim=1)


class PromptMethod(Method):
    """What all methods share whose vectors stand before the input."""

    file_prefix = "base_model."
    BOOKKEEPING: ClassVar[frozenset[str]] = Method.BOOKKEEPING | frozenset(
        ("token_dim", "num_layers", "num_attention_heads", "num_transformer_submodules")
    )

    def prepare(self, model: nn.Module) -> Method:
        method = super().prepare(model)
        d = hosts.word_embeddings(model).embedding_dim
        config = model.config.get_text_config()
        shape = {
            "token_dim": d,
            "num_layers": config.num_hidden_layers,
            "num_attention_heads": config.num_attention_heads,
            "num_transformer_submodules": 1,
        }
        task = method.task_type or ("CAUSAL_LM" if hasattr(type(model), "generate") else "FEATURE_EXTRACTION")
        return dataclasses.replace(method, task_type=task, bookkeeping={**method.bookkeeping, **shape})

    def sites(self, model: nn.Module) -> list[Site]:
        return []

    def build(self, site: Site, shared: Shared | None) -> Adapter:
        raise ConfigError("a prompt acts on the inputs; it has no adapters inside the model")


@method
class PromptTuning(PromptMethod):
    """Prompt tuning. `peft.PromptTuningConfig`'s fields, defaults and semantics."""

    num_virtual_tokens: int
    prompt_tuning_init: str = "RANDOM"  # 'RANDOM', 'SAMPLE_VOCAB' or 'TEXT'
    prompt_tuning_init_text: str | None = None
    tokenizer_name_or_path: str | None = None
    tokenizer_kwargs: dict[str, Any] | None = None

    peft_type = "PROMPT_TUNING"
    STARTS: ClassVar[tuple[str, ...]] = ("RANDOM", "SAMPLE_VOCAB", "TEXT")
    card = Card(
        title="The Power of Scale for Parameter-Efficient Prompt Tuning",
        year=2021,
        arxiv="2104.08691",
        equation="section 2",
        family="additive",
        reference="peft.PromptTuningConfig",
        formula="[P; X]",
        shapes="P (n, d)",
        parameters="n d",
        mergeable=False,
        inference_cost="n more positions in every layer, and n fewer of the context left",
        traps=(
            "Learns slowly on small models; its learning rate is far above LoRA's.",
            "Logits come back for the n prompt positions too.",
        ),
        use_when="the model is large and one frozen copy serves many tasks in one batch",
        avoid_when="the model is small, or the context is tight",
        unknown="what the learnt vectors mean: they are rarely near any word",
        levels={"P4": "a prompt is an input, there is no weight to merge it into"},
    )

    def __post_init__(self) -> None:
        require_positive(self, "num_virtual_tokens")
        if self.prompt_tuning_init not in self.STARTS:
            raise ConfigError(f"prompt_tuning_init={self.prompt_tuning_init!r}: choose {', '.join(self.STARTS)}")
        if self.prompt_tuning_init == "TEXT" and not (self.prompt_tuning_init_text and self.tokenizer_name_or_path):
            raise ConfigError("prompt_tuning_init='TEXT' needs prompt_tuning_init_text and tokenizer_name_or_path")

    def for_loading(self) -> Method:
        """The start does not matter, and its tokenizer may be gone."""
        return dataclasses.replace(self, prompt_tuning_init="RANDOM")

    def shared(self, model: nn.Module, sites: list[Site]) -> Prompt:
        return Prompt(self.first_prompt(hosts.word_embeddings(model)), model)

    def first_prompt(self, embed: nn.Module) -> Tensor:
        """P before training: random, rows of the vocabulary, or the embedding of a text; (n, d)."""
        n = self.num_virtual_tokens
        P = torch.randn(n, embed.embedding_dim)
        if self.prompt_tuning_init == "SAMPLE_VOCAB":
            ids = torch.randint(0, embed.num_embeddings, (n,))
        elif self.prompt_tuning_init != "TEXT":
            return P
        else:
            from transformers import AutoTokenizer

            options = {k: v for k, v in (self.tokenizer_kwargs or {}).items() if k != "trust_remote_code"}
            tokenizer = AutoTokenizer.from_pretrained(self.tokenizer_name_or_path, **options)
            text = tokenizer(self.prompt_tuning_init_text)["input_ids"]
            if not text:
                raise ConfigError("prompt_tuning_init_text has no tokens")
            ids = torch.tensor((text * (n // len(text) + 1))[:n])
        return embed(ids.to(embed.weight.device)).detach().clone().float()

    def shared_parameters(self, model: nn.Module) -> int:
        return self.num_virtual_tokens * hosts.word_embeddings(model).embedding_dim
