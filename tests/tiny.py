"""Tiny models, inputs and methods for the tests of the core, and a way to tell that a model is as it was before.

Every builder seeds itself, so a test sees the same weights whichever tests ran before it.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from peftlab.methods import (
    METHODS,
    BitFit,
    Compacter,
    DiffPruning,
    Houlsby,
    LoRA,
    Method,
    ParallelAdapter,
    Pfeiffer,
    PrefixTuning,
    PTuning,
)

VOCABULARY, WIDTH, INNER = 97, 48, 80
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

# ---- models ---------------------------------------------------------------------------------------------------------


class ConvNet(nn.Module):
    """Two convolutions (stride, padding, groups; 1×1 without bias), a norm with running statistics, a linear head."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.wide = nn.Conv2d(4, 6, (3, 5), stride=2, padding=(1, 2), groups=groups)
        self.narrow = nn.Conv2d(6, 10, 1, bias=False)
        self.norm = nn.BatchNorm2d(10)
        self.head = nn.Linear(10 * 4 * 4, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.narrow(torch.relu(self.wide(x))))).flatten(1))


def llama(**config: Any) -> nn.Module:
    """Grouped-query attention: 4 query heads, 2 key-value heads; no biases; head apart from the embedding."""
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    }
    return _built(transformers.LlamaForCausalLM, transformers.LlamaConfig(**{**sizes, **SPECIAL, **config}))


def gpt2(**config: Any) -> nn.Module:
    """Transposed Conv1D layers with biases, and a head that is tied to the embedding. Dropout is on in train mode."""
    sizes = {"vocab_size": VOCABULARY, "n_embd": WIDTH, "n_layer": 2, "n_head": 4, "n_positions": 64}
    return _built(transformers.GPT2LMHeadModel, transformers.GPT2Config(**sizes, **{**SPECIAL, **config}))


def bert(kind: str = "SequenceClassification", **config: Any) -> nn.Module:
    """An encoder with biases everywhere and a new head with 5 classes."""
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "num_labels": 5,
    }
    return _built(getattr(transformers, f"BertFor{kind}"), transformers.BertConfig(**{**sizes, **config}))


def conv(groups: int = 1) -> nn.Module:
    return _built(ConvNet, groups)


def _built(kind: Callable[..., nn.Module], *config: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(*config).eval()
        for parameter in model.parameters():  # no bias is zero, no norm is one: a layer that is left out shows
            parameter.data += 0.02 * torch.randn_like(parameter)
    return model


@functools.cache
def _once(name: str) -> nn.Module:
    return {"llama": llama, "gpt2": gpt2, "bert": bert, "conv": conv}[name]()


def fresh(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A new copy of one of the four models, in eval mode."""
    return copy.deepcopy(_once(name)).to(dtype)


# ---- inputs ---------------------------------------------------------------------------------------------------------


def tokens(rows: int = 3, length: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(3, VOCABULARY, (rows, length), generator=generator)


def batch(name: str, rows: int = 3) -> dict[str, Tensor] | Tensor:
    """The arguments of one call, with labels where the model takes them. Odd sizes on purpose."""
    if name == "conv":
        return torch.randn(rows, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    ids = tokens(rows)
    if name == "bert":
        return {"input_ids": ids, "attention_mask": padding("right", rows), "labels": torch.arange(rows) % 5}
    return {"input_ids": ids, "labels": ids}


def padding(side: str, rows: int = 3, length: int = 7) -> Tensor:
    """An attention mask with 2, 0 and 3 padded places, again and again."""
    mask = torch.ones(rows, length, dtype=torch.long)
    for row in range(rows):
        n = (2, 0, 3)[row % 3]
        mask[row, :n] = 0
    return mask.flip(1) if side == "right" else mask


def outputs(model: nn.Module, inputs: dict[str, Tensor] | Tensor, **more: Any) -> Tensor:
    """Logits, without gradients."""
    with torch.no_grad():
        result = model(inputs, **more) if isinstance(inputs, Tensor) else model(**inputs, **more)
    return result if isinstance(result, Tensor) else result.logits


def loss(model: nn.Module, inputs: dict[str, Tensor] | Tensor) -> Tensor:
    result = model(inputs) if isinstance(inputs, Tensor) else model(**inputs)
    return result.square().mean() if isinstance(result, Tensor) else result.loss


# ---- methods --------------------------------------------------------------------------------------------------------

# Small values for any method that has these fields, so that a new method is tested without a word here.
SMALL = {"r": 3, "num_virtual_tokens": 3, "rank": 3, "adapter_len": 3, "adapter_layers": 2}
PHM = {"reduction_factor": 6, "phm_dim": 4}
INSTEAD = {  # methods whose fields contradict the ones above, or say more
    "OFT": {"oft_block_size": 4},
    "Compacter": PHM,
    "CompacterPlusPlus": PHM,
    "BitFit": {"add_missing": True},  # Llama has no biases
    "FishMask": {"keep_ratio": 0.2, "scores": "random"},
    "LTSFT": {"keep_ratio": 0.2, "scores": "random"},
    "DiffPruning": {"alpha_init": 0.5},  # gates half open, so that all of them have gradients
    "PartialTuning": {"target_modules": ["k_proj", "post_attention_layernorm"]},
    "Supertuning": {"sparsity": 0.8},
    "TrainableTokens": {"token_indices": [14, 50, 85]},
    "CPT": {"cpt_token_ids": [5, 9, 7], "cpt_tokens_type_mask": [1, 2, 4], "opt_projection_epsilon": 2.0},
}
TARGETS = {"conv": ["wide", "narrow", "head"]}
NORMS = {"bert": ["LayerNorm"], "conv": ["norm"]}
PARTS = {"gpt2": ["attn.c_attn", "ln_2"], "bert": ["attention.output"], "conv": ["narrow", "norm"]}


def small(cls: type[Method], **fields: Any) -> Method:
    """A method of this class with few parameters."""
    known = {field.name for field in dataclasses.fields(cls)}
    start = INSTEAD.get(cls.__name__, {name: value for name, value in SMALL.items() if name in known})
    return cls(**{**start, **fields})


def every_method() -> dict[str, Method]:
    """One of each method that scanning found, and the variants that take other paths through the code."""
    found = {cls.__name__: small(cls) for cls in METHODS}
    return found | {
        "DoRA": LoRA(r=3, lora_alpha=5, use_dora=True),
        "PiSSA": LoRA(r=3, lora_alpha=5, init_lora_weights="pissa"),
        "LoRA-biases": LoRA(r=3, lora_alpha=5, bias="all", target_modules="all-linear"),
        "LoRA-kept": LoRA(r=3, lora_alpha=5, modules_to_save=["lm_head"]),
        "LoRA-embedding": LoRA(r=3, lora_alpha=5, target_modules=["embed_tokens", "q_proj"]),
        "PTuning-LSTM": PTuning(
            num_virtual_tokens=3, encoder_reparameterization_type="LSTM", encoder_hidden_size=5, encoder_num_layers=1
        ),
        "Houlsby-linear": Houlsby(reduction_factor=7, non_linearity="linear", scaling="channel"),
        "Pfeiffer-before-norm": Pfeiffer(original_ln_before=False, leave_out=[0], dropout=0.2),
        "ParallelAdapter-linear": ParallelAdapter(non_linearity="linear", target_modules=["q_proj", "down_proj"]),
        "Compacter-own-rules": Compacter(reduction_factor=4, phm_dim=3, phm_rank=2, shared_phm_rule=False),
        "DiffPruning-pruned": DiffPruning(keep_ratio=0.2, scores="random"),
        "BitFit-values": BitFit(target_modules=["v_proj", "down_proj"], add_missing=True),
        "PrefixTuning-network": PrefixTuning(num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=11),
    }


def tasks(method: Method, rows: int = 3) -> dict[str, Tensor]:
    """The task_ids of a call, for methods that ask which task a row belongs to."""
    return {"task_ids": torch.arange(rows) % method.num_tasks} if hasattr(method, "num_tasks") else {}


def merges(method: Method) -> bool:
    """True if this method, with these fields, can be merged into plain layers."""
    linear_only = isinstance(method, Houlsby | ParallelAdapter) and method.non_linearity == "linear"
    return method.card.mergeable or linear_only


def starts_near(method: Method) -> float:
    """How far from the base a fresh adapter may begin: bottlenecks with small random numbers are only near it."""
    if getattr(method, "init_weights", None) in ("bert", "houlsby"):
        return 0.05
    return 1e-3 if getattr(method, "shared_phm_rule", True) is False else 2e-5  # its own A_i start larger


def randomise(model: nn.Module, size: float = 0.1, seed: int = 2) -> nn.Module:
    """Move every trainable tensor away from its start, so that B ≠ 0."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data += (size * noise).to(parameter.dtype)
    return model


# ---- is the model as it was? ----------------------------------------------------------------------------------------


def snapshot(model: nn.Module) -> dict[str, Any]:
    """All that `detach`, and every refused step, must leave as it was: values, names, flags, hooks, class, config."""
    hooks = [name for name in vars(nn.Module()) if name.endswith("_hooks") or name.endswith("_with_kwargs")]
    config = getattr(model, "config", None)
    return {
        "parameters": {n: p.detach().clone() for n, p in model.named_parameters(remove_duplicate=False)},
        "same parameter objects": {n: id(p) for n, p in model.named_parameters(remove_duplicate=False)},
        "requires_grad": {n: p.requires_grad for n, p in model.named_parameters(remove_duplicate=False)},
        "buffers": {n: b.detach().clone() for n, b in model.named_buffers()},
        "same modules": {n: (id(m), type(m), m.training) for n, m in model.named_modules(remove_duplicate=False)},
        "hooks": {n: {h: list(getattr(m, h)) for h in hooks} for n, m in model.named_modules()},
        "attributes": {n: sorted(vars(m)) for n, m in model.named_modules()},
        "configs": {n: id(m.config) for n, m in model.named_modules() if hasattr(m, "config")},
        "config": None if config is None else {**config.to_dict(), "attention": config._attn_implementation},
        "state_dict keys": list(model.state_dict()),
        "class": type(model),
        "generate": getattr(getattr(model, "generate", None), "__func__", vars(model).get("generate")),
        "routing": _routing(model),
    }


def _routing(model: nn.Module) -> tuple[Any, ...]:
    runtime = getattr(model, "peftlab", None)
    if not isinstance(runtime, nn.Module) or not hasattr(runtime, "state"):
        return ()
    folded = [module.folded is not None for module in model.modules() if hasattr(module, "fold")]
    state = dataclasses.replace(runtime.state)
    return state, dict(runtime.methods), dict(runtime.trainable), runtime.pinned, folded


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What changed, in words; empty if nothing did."""
    changed = []
    for key, old in before.items():
        new = after[key]
        if key in ("parameters", "buffers"):
            same = list(old) == list(new) and all(torch.equal(old[n], new[n]) for n in old)
        else:
            same = old == new
        if not same:
            changed.append(key)
    return changed
