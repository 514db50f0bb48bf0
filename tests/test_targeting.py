"""Targets are resolved as peft resolves them: one table of requests, two resolvers, same names."""

from __future__ import annotations

import ast
import copy
import functools
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from peft.tuners.ia3 import IA3Layer
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer, check_target_module_exists
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as PEFT_DEFAULTS
from peft.utils.other import get_pattern_key
from torch import nn

from peftlab import targeting
from peftlab.errors import PeftLabError
from peftlab.methods import IA3
from peftlab.targeting import (
    LORA_DEFAULTS,
    TargetError,
    TargetWarning,
    default_targets,
    pattern_value,
    resolve_targets,
)

REFUSED = "refused"

# ------------------------------------------------------------------------------- the models, tiny

SMALL = {"vocab_size": 20, "hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2}


class Block(nn.Module):
    """Names that are endings of each other, and experts with an index of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(3, 3)
        self.q_proj = nn.Linear(3, 3)
        self.xq_proj = nn.Linear(3, 3)
        self.fc1 = nn.Linear(3, 3)
        self.fc11 = nn.Linear(3, 3)
        self.experts = nn.ModuleList(nn.ModuleDict({"w1": nn.Linear(3, 3)}) for _ in range(2))


class Body(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(layers))
        self.h = nn.ModuleList(nn.ModuleDict({"fc1": nn.Linear(3, 3)}) for _ in range(2))
        self.emb = nn.Embedding(5, 3)


class Tricky(nn.Module):
    """12 layers, and at the root names that are also endings of inner names."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Body(layers=12)
        self.layers = nn.ModuleList(Block() for _ in range(2))  # no prefix: peft finds no layer index
        self.q_proj = nn.Linear(3, 3)
        self.proj = nn.Linear(3, 3)
        self.side = nn.ModuleDict({"proj": nn.Linear(3, 3), "q_proj2": nn.Linear(3, 3)})


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.stages = nn.Sequential(
            nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
            nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU()),
        )
        self.classifier = nn.Linear(6, 2)


class RootNameIsAnEnding(nn.Module):
    """A linear layer at the root lends its name to an embedding deeper in."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Linear(3, 3)
        self.inner = nn.ModuleDict({"table": nn.Embedding(4, 3), "other": nn.Embedding(4, 3)})


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def llama(cls: type = transformers.LlamaForCausalLM, tied: bool = False, layers: int = 12):
    config = transformers.LlamaConfig(
        **SMALL,
        num_hidden_layers=layers,
        num_key_value_heads=1,
        tie_word_embeddings=tied,
        pad_token_id=0,
    )
    return cls(config)


def gpt2(cls: type = transformers.GPT2LMHeadModel) -> nn.Module:
    config = transformers.GPT2Config(vocab_size=20, n_embd=8, n_head=2, n_layer=3, n_positions=16, pad_token_id=0)
    return cls(config)


def bert(cls: type = transformers.BertForSequenceClassification) -> nn.Module:
    return cls(transformers.BertConfig(**SMALL, num_hidden_layers=2))


def roberta() -> nn.Module:
    config = transformers.RobertaConfig(**SMALL, num_hidden_layers=2)
    return transformers.RobertaForSequenceClassification(config)


def distilbert() -> nn.Module:
    config = transformers.DistilBertConfig(vocab_size=20, dim=8, hidden_dim=12, n_heads=2, n_layers=2)
    return transformers.DistilBertForSequenceClassification(config)


def t5() -> nn.Module:
    config = transformers.T5Config(
        vocab_size=20,
        d_model=8,
        d_kv=4,
        d_ff=12,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
    )
    return transformers.T5ForConditionalGeneration(config)


def vit() -> nn.Module:
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
        image_size=8, patch_size=4, num_labels=3,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2))


MODELS = {
    "gpt2": gpt2,
    "gpt2_cls": lambda: gpt2(transformers.GPT2ForSequenceClassification),
    "llama": llama,
    "llama_tied": lambda: llama(tied=True, layers=2),
    "llama_bare": lambda: llama(transformers.LlamaModel, layers=3),
    "llama_cls": lambda: llama(transformers.LlamaForSequenceClassification, layers=2),
    "bert": bert,
    "bert_bare": lambda: bert(transformers.BertModel),
    "bert_mlm": lambda: bert(transformers.BertForMaskedLM),
    "roberta": roberta,
    "distilbert": distilbert,
    "t5": t5,
    "vit": vit,
    "mlp": mlp,
    "conv": ConvNet,
    "tricky": Tricky,
    "encoder": encoder,
    "root_name": RootNameIsAnEnding,
}


@functools.cache
def model_named(name: str) -> nn.Module:
    """Built once; the tests never change it (peft gets copies)."""
    torch.manual_seed(0)
    return MODELS[name]()


def shell(module: nn.Module, made: dict[int, nn.Module] | None = None) -> nn.Module:
    """A copy with modules of its own around the same tensors: cheap, and peft may rewire it."""
    made = {} if made is None else made
    if id(module) not in made:
        twin = made[id(module)] = copy.copy(module)
        children = module._modules.items()
        twin._modules = {name: child and shell(child, made) for name, child in children}
    return made[id(module)]


def names_in(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_modules() if name]


# ---------------------------------------------------------------------------------- two resolvers


def by_peft(model: nn.Module, **fields: Any) -> list[str] | str:
    """The modules that peft really replaces, or REFUSED."""
    model = shell(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            peft.inject_adapter_in_model(peft.LoraConfig(r=2, **fields), model)
        except ValueError:
            return REFUSED
    return [name for name, module in model.named_modules() if isinstance(module, LoraLayer)]


def by_peft_check(model: nn.Module, **fields: Any) -> list[str] | str:
    """What peft's matching function says of each name; an empty answer is a refusal."""
    try:
        config = peft.LoraConfig(**fields)
    except ValueError:
        return REFUSED
    return [name for name in names_in(model) if check_target_module_exists(config, name)] or REFUSED


def by_us(model: nn.Module, target_modules: Any = None, **fields: Any) -> list[str] | str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TargetWarning)
        try:
            return resolve_targets(model, target_modules, **fields)
        except TargetError:
            return REFUSED


# -------------------------------------------------------------------------- the table of requests

Q, V = "q_proj", "v_proj"
LLAMA_QV = [f"model.layers.{i}.self_attn.{p}" for i in range(12) for p in (Q, V)]

REQUESTS: dict[str, list[dict[str, Any]]] = {
    "gpt2": [
        {},
        {"target_modules": ["c_attn"]},
        {"target_modules": ["c_proj"]},
        {"target_modules": ["attn.c_proj"]},
        {"target_modules": ["mlp.c_proj", "c_attn"]},
        {"target_modules": ["proj"]},
        {"target_modules": ["wte"]},
        {"target_modules": ["lm_head"]},
        {"target_modules": ["transformer.h.1.attn.c_attn"]},
        {"target_modules": ["1.attn.c_attn", "c_fc"]},
        {"target_modules": "c_attn"},
        {"target_modules": r".*c_attn"},
        {"target_modules": r"transformer\.h\.[02]\.(attn|mlp)\.c_proj"},
        {"target_modules": r".*\.h\.1\..*c_.*"},
        {"target_modules": r"(?i).*C_ATTN"},
        {"target_modules": "all-linear"},
        {"target_modules": "All-Linear"},
        {"target_modules": ["all-linear"]},
        {"target_modules": "all-linear", "exclude_modules": ["c_attn"]},
        {"target_modules": "all-linear", "exclude_modules": r".*\.h\.0\..*"},
        {"target_modules": ["c_attn", "c_fc"], "layers_to_transform": 1},
        {"target_modules": ["c_attn", "c_fc"], "layers_to_transform": [0, 2]},
        {"target_modules": ["c_attn"], "layers_to_transform": [0, 7]},
        {"target_modules": ["c_attn"], "layers_to_transform": [7]},
        {"target_modules": ["c_attn"], "layers_to_transform": -1},
        {"target_modules": ["c_attn"], "layers_to_transform": [1], "layers_pattern": "h"},
        {"target_modules": ["c_attn"], "layers_to_transform": [1], "layers_pattern": "layers"},
        {"layers_to_transform": [1]},
    ],
    "gpt2_cls": [
        {"target_modules": "all-linear"},
        {"target_modules": "all-linear", "task_type": "SEQ_CLS"},
        {"target_modules": "all-linear", "task_type": "CAUSAL_LM"},
        {"target_modules": ["score", "c_attn"]},
        {"target_modules": ["score", "c_attn"], "modules_to_save": ["score"]},
    ],
    "llama": [
        {},
        {"target_modules": [Q, V]},
        {"target_modules": {Q, V}},
        {"target_modules": (Q, V)},
        {"target_modules": [Q, "k_proj", V, "o_proj", "gate_proj", "up_proj", "down_proj"]},
        {"target_modules": ["layers.1.self_attn.q_proj"]},
        {"target_modules": ["1.self_attn.q_proj"]},
        {"target_modules": ["self_attn.q_proj", "nothing_like_it"]},
        {"target_modules": ["nothing_like_it"]},
        {"target_modules": []},
        {"target_modules": ""},
        {"target_modules": [""]},
        {"target_modules": ["", Q]},
        {"target_modules": r".*\.1\..*q_proj"},
        {"target_modules": r".*\.layers\.(1|10)\.self_attn\..*"},
        {"target_modules": r"model.layers.1.self_attn.q_proj"},
        {"target_modules": r".*self_attn.*(?<!o_proj)_proj"},
        {"target_modules": "all-linear"},
        {"target_modules": "all-linear", "exclude_modules": ["lm_head"]},
        {"target_modules": "all-linear", "exclude_modules": ["gate_proj", "up_proj", "down_proj"]},
        {"target_modules": "all-linear", "exclude_modules": r".*mlp.*"},
        {"target_modules": "all-linear", "exclude_modules": ["mlp"]},
        {"target_modules": "all-linear", "layers_to_transform": [1]},
        {"target_modules": "all-linear", "layers_to_transform": []},
        {"target_modules": "all-linear", "modules_to_save": ["mlp"]},
        {"target_modules": "all-linear", "modules_to_save": ["layers.1"]},
        {"target_modules": "all-linear", "modules_to_save": ["lm_head", "gate_pr"]},
        {"target_modules": [Q, V], "modules_to_save": [Q]},
        {"target_modules": [Q], "modules_to_save": [Q]},
        {"target_modules": [Q, V], "modules_to_save": []},
        {"target_modules": [Q, V], "exclude_modules": [Q, V]},
        {"target_modules": [Q, V], "exclude_modules": []},
        {"target_modules": [Q, V], "exclude_modules": ""},
        {"target_modules": [Q, V], "exclude_modules": ["layers.1"]},
        {"target_modules": [Q, V], "exclude_modules": ["layers.1.self_attn.q_proj"]},
        {"target_modules": [Q, V], "exclude_modules": r".*\.1\..*"},
        {"target_modules": [Q, V], "exclude_modules": "q_proj"},
        {"target_modules": [Q, V], "exclude_modules": "model"},
        {"target_modules": r".*_proj", "exclude_modules": ("down_proj", "self_attn.o_proj")},
        {"target_modules": [Q, V], "layers_to_transform": 1},
        {"target_modules": [Q, V], "layers_to_transform": 0},
        {"target_modules": [Q, V], "layers_to_transform": [1, 10]},
        {"target_modules": [Q, V], "layers_to_transform": [-1]},
        {"target_modules": [Q, V], "layers_to_transform": [12]},
        {"target_modules": [Q, V], "layers_to_transform": []},
        {"target_modules": [Q, V], "layers_to_transform": ()},
        {"target_modules": [Q, V], "layers_to_transform": range(3, 5)},
        {"target_modules": [Q, V, "lm_head"], "layers_to_transform": [2]},
        {"target_modules": ["lm_head"], "layers_to_transform": [2]},
        {"target_modules": [Q], "layers_to_transform": [11], "layers_pattern": "layers"},
        {"target_modules": [Q], "layers_to_transform": [11], "layers_pattern": ["h", "layers"]},
        {"target_modules": [Q], "layers_to_transform": [11], "layers_pattern": "model.layers"},
        {"target_modules": [Q], "layers_to_transform": [11], "layers_pattern": "h"},
        {"target_modules": [Q], "layers_to_transform": [11], "layers_pattern": "h|layers"},
        {"target_modules": [Q], "layers_to_transform": [11], "layers_pattern": "(h|layers)"},
        {"target_modules": [Q], "layers_to_transform": [11], "layers_pattern": "yers"},
        {"target_modules": [Q], "layers_to_transform": [11], "layers_pattern": ""},
        {"target_modules": [Q], "layers_to_transform": [11], "layers_pattern": []},
        {"target_modules": [Q], "layers_pattern": "layers"},
        {"target_modules": [Q], "layers_pattern": []},
        {"target_modules": r".*q_proj", "layers_to_transform": [1]},
        {"target_modules": r".*q_proj", "layers_pattern": "layers"},
        {"target_modules": [Q, V], "layers_to_transform": [1, 2], "exclude_modules": [Q]},
        {"target_modules": [Q, V], "layers_to_transform": [1], "exclude_modules": r".*\.1\..*"},
        # A name in full is not asked for its layer ...
        {"target_modules": ["model.layers.3.self_attn.q_proj", V], "layers_to_transform": [1]},
        {"target_modules": LLAMA_QV[:19], "layers_to_transform": [0]},
        # ... but from 20 entries on peft shortens the list, and full names may become endings.
        {"target_modules": LLAMA_QV, "layers_to_transform": [0]},
        {"target_modules": LLAMA_QV[:20], "layers_to_transform": [0]},
        {"target_modules": [*LLAMA_QV[::2], *LLAMA_QV[1:16:2]], "layers_to_transform": [0]},
        {"target_modules": [*LLAMA_QV[:19], "nowhere"], "layers_to_transform": [0]},
        {"target_modules": LLAMA_QV},
        {"target_modules": LLAMA_QV, "exclude_modules": [V], "layers_to_transform": [0, 5]},
        {"target_modules": [*LLAMA_QV[2:], "mlp.up_proj"], "layers_to_transform": [3]},
    ],
    "llama_tied": [
        {"target_modules": "all-linear"},
        {"target_modules": "all-linear", "task_type": "SEQ_CLS"},
        {"target_modules": [Q, "embed_tokens"]},
        {"target_modules": [Q, "lm_head"]},
        {"target_modules": r".*(embed_tokens|q_proj)"},
    ],
    "llama_bare": [
        {},
        {"target_modules": "all-linear"},
        {"target_modules": [Q], "layers_to_transform": [1]},
        {"target_modules": [Q], "layers_to_transform": [1], "layers_pattern": "layers"},
        {"target_modules": [Q], "layers_to_transform": [1], "layers_pattern": ["blocks", "layers"]},
        {"target_modules": r"layers\.2\..*_proj"},
    ],
    "llama_cls": [
        {"target_modules": "all-linear"},
        {"target_modules": "all-linear", "task_type": "SEQ_CLS"},
    ],
    "bert": [
        {},
        {"target_modules": ["query", "value"]},
        {"target_modules": ["dense"]},
        {"target_modules": ["output.dense"]},
        {"target_modules": ["attention.output.dense"]},
        {"target_modules": ["intermediate.dense"], "layers_to_transform": 1},
        {"target_modules": ["query"], "layers_to_transform": [1], "layers_pattern": "layer"},
        {"target_modules": ["query"], "layers_to_transform": [1], "layers_pattern": "er.layer"},
        {"target_modules": ["query"], "layers_to_transform": [1], "layers_pattern": "layers"},
        {"target_modules": ["classifier"]},
        {"target_modules": ["dense"], "exclude_modules": ["pooler.dense"]},
        {"target_modules": ["dense"], "exclude_modules": ["pooler"]},
        {"target_modules": "all-linear"},
        {"target_modules": "all-linear", "task_type": "SEQ_CLS"},
        {"target_modules": "all-linear", "task_type": "TOKEN_CLS"},
        {"target_modules": "all-linear", "modules_to_save": ["classifier", "score"]},
        {"target_modules": "all-linear", "task_type": "SEQ_CLS", "modules_to_save": ["pooler"]},
        {"target_modules": r".*(query|key)"},
        {"target_modules": r"bert\.encoder\.layer\.1\.attention\.self\.\w+e\w+"},
    ],
    "bert_bare": [
        {"target_modules": "all-linear"},
        {"target_modules": "all-linear", "task_type": "SEQ_CLS"},
        {"target_modules": ["query"], "layers_to_transform": [0]},
    ],
    "bert_mlm": [{"target_modules": "all-linear"}, {"target_modules": ["decoder", "dense"]}],
    "roberta": [
        {},
        {"target_modules": "all-linear"},
        {"target_modules": "all-linear", "task_type": "SEQ_CLS"},
        {"target_modules": "all-linear", "modules_to_save": ["classifier"]},
    ],
    "distilbert": [
        {},
        {"target_modules": ["q_lin", "v_lin"]},
        {"target_modules": "all-linear", "task_type": "SEQ_CLS"},
        {"target_modules": ["q_lin"], "layers_to_transform": [1], "layers_pattern": "layer"},
    ],
    "t5": [
        {},
        {"target_modules": ["q", "v"]},
        {"target_modules": ["wo", "wi"]},
        {"target_modules": ["SelfAttention.q"]},
        {"target_modules": ["EncDecAttention.k", "SelfAttention.k"]},
        {"target_modules": r"decoder\..*\.(q|v)"},
        {"target_modules": ["q"], "layers_to_transform": [1]},
        {"target_modules": ["q"], "layers_to_transform": [1], "layers_pattern": "layer"},
        {"target_modules": ["q"], "layers_to_transform": [1], "layers_pattern": "block"},
        {"target_modules": ["q"], "layers_to_transform": 0, "layers_pattern": ["layer", "block"]},
        {"target_modules": "all-linear"},
        {"target_modules": "all-linear", "exclude_modules": r"encoder\..*"},
    ],
    "vit": [
        {},
        {"target_modules": ["query", "value"]},
        {"target_modules": [Q, V]},
        {"target_modules": ["projection"]},
        {"target_modules": "all-linear"},
        {"target_modules": "all-linear", "task_type": "SEQ_CLS"},
        {"target_modules": "all-linear", "exclude_modules": ["classifier"]},
        {"target_modules": ["fc1"], "layers_to_transform": [1], "layers_pattern": "layers"},
    ],
    "mlp": [
        {},
        {"target_modules": ["0"]},
        {"target_modules": ["0", "2"]},
        {"target_modules": ["0", "3"], "exclude_modules": ["3"]},
        {"target_modules": "0|4"},
        {"target_modules": r"[02]", "exclude_modules": r"0"},
        {"target_modules": "all-linear"},
        {"target_modules": "all-linear", "exclude_modules": ["4"]},
        {"target_modules": ["0"], "layers_to_transform": [0]},
        {"target_modules": ["2"], "layers_to_transform": [0]},
    ],
    "conv": [
        {"target_modules": ["stem"]},
        {"target_modules": ["0.0", "stem"]},
        {"target_modules": ["stages.0.0"]},
        {"target_modules": r"stages\.\d\.0"},
        {"target_modules": "all-linear"},
        {"target_modules": "all-linear", "task_type": "SEQ_CLS"},  # not a transformers model
        {"target_modules": ["0"], "exclude_modules": ["0", "stages.0"]},
    ],
    "tricky": [
        {"target_modules": [Q]},
        {"target_modules": ["q"]},
        {"target_modules": ["proj"]},
        {"target_modules": ["q_proj2"]},
        {"target_modules": ["fc1"]},
        {"target_modules": ["fc11"]},
        {"target_modules": ["layers.1.q"]},
        {"target_modules": ["1.q"]},
        {"target_modules": ["layers.10.q_proj"]},
        {"target_modules": ["model.layers.1.q"]},
        {"target_modules": ["w1"]},
        {"target_modules": ["1.w1"]},
        {"target_modules": ["experts.1.w1"]},
        {"target_modules": ["emb"]},
        {"target_modules": "q_proj"},
        {"target_modules": r"model\.layers\.1.\.q"},
        {"target_modules": r"(model\.)?layers\.1\.fc1+"},
        {"target_modules": [Q, "proj"], "exclude_modules": ["q_proj"]},
        {"target_modules": [Q], "exclude_modules": ["1.q_proj"]},
        {"target_modules": [Q], "exclude_modules": ["layers.1", "model"]},
        {"target_modules": [Q], "layers_to_transform": [1]},  # takes the root's q_proj along
        {"target_modules": ["xq_proj"], "layers_to_transform": [1]},
        {"target_modules": ["xq_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
        {"target_modules": ["fc11"], "layers_to_transform": [1], "layers_pattern": "model.layers"},
        {"target_modules": ["xq_proj"], "layers_to_transform": [10], "layers_pattern": "h|layers"},
        {"target_modules": ["xq_proj"], "layers_to_transform": [1], "layers_pattern": "h|layers"},
        {"target_modules": ["fc1"], "layers_to_transform": [1], "layers_pattern": "h"},
        {"target_modules": ["fc1"], "layers_to_transform": [1], "layers_pattern": ["h", "layers"]},
        {"target_modules": ["w1"], "layers_to_transform": [1]},
        {"target_modules": ["w1"], "layers_to_transform": [1], "layers_pattern": "experts"},
        {"target_modules": ["w1"], "layers_to_transform": [1], "layers_pattern": r"\w+"},
        {"target_modules": ["w1"], "layers_to_transform": 1, "layers_pattern": ["m|x", "layers"]},
        {"target_modules": ["w1"], "layers_to_transform": 1, "layers_pattern": ["experts", "layers"]},
        {"target_modules": ["w1"], "layers_to_transform": 1, "layers_pattern": r"layers\.\d+\.experts"},
        {"target_modules": ["w1"], "layers_to_transform": 1, "layers_pattern": r"(l\w+)\.\d+\.(e\w+)"},
        {"target_modules": "all-linear"},
        {"target_modules": "all-linear", "exclude_modules": r"(model\.)?layers\..*"},
        {"target_modules": "all-linear", "modules_to_save": ["layers.1"]},
    ],
    "encoder": [
        {"target_modules": ["linear1"]},
        {"target_modules": "all-linear"},
        {"target_modules": ["linear1"], "layers_to_transform": [1], "layers_pattern": "layers"},
    ],
    "root_name": [
        {"target_modules": "all-linear"},
        {"target_modules": ["table"]},
        {"target_modules": "table"},
        {"target_modules": ["other"]},
    ],
}  # fmt: skip

# Requests for whole blocks: they match, but peft's LoRA has no layer for such a module.
BLOCK_REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("gpt2", {"target_modules": ["attn"]}),
    ("gpt2", {"target_modules": ["attn", "c_fc"], "layers_to_transform": [1]}),
    ("llama", {"target_modules": ["model"]}),
    ("llama", {"target_modules": ["layers.1"]}),
    ("llama", {"target_modules": ["layers.1"], "layers_to_transform": 1}),
    ("llama", {"target_modules": ["mlp", "norm"], "exclude_modules": r".*\.1\d\..*"}),
    ("bert", {"target_modules": r".*(?i:layernorm)"}),
    ("mlp", {"target_modules": r"\d"}),
    ("conv", {"target_modules": ["0"]}),
    ("conv", {"target_modules": ["1"], "exclude_modules": ["stages.1"]}),
    ("tricky", {"target_modules": ["layers.1"]}),
    ("tricky", {"target_modules": ["1"], "layers_to_transform": [1]}),
    ("tricky", {"target_modules": r"model\.layers\.1\.\w+"}),
    ("encoder", {"target_modules": ["self_attn"]}),
    ("root_name", {"target_modules": r".*"}),
]

TABLE = [(name, fields) for name, requests in REQUESTS.items() for fields in requests]


def label(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    return " ".join(f"{field}={str(asked)[:40]}" for field, asked in value.items()) or "default"


@pytest.mark.parametrize(("name", "fields"), TABLE, ids=label)
def test_same_modules_as_peft_injects(name: str, fields: dict[str, Any]) -> None:
    model = model_named(name)
    assert by_us(model, **fields) == by_peft(model, **fields)


@pytest.mark.parametrize(("name", "fields"), BLOCK_REQUESTS, ids=label)
def test_same_names_where_peft_has_no_layer_for_the_module(name: str, fields: dict) -> None:
    model = model_named(name)
    assert by_us(model, **fields) == by_peft_check(model, **fields)


def test_the_table_holds_many_requests_of_both_outcomes() -> None:
    outcomes = [by_us(model_named(name), **fields) for name, fields in TABLE]
    assert len(TABLE) >= 200
    assert 20 < outcomes.count(REFUSED) < len(TABLE) / 3


def random_request(draw: random.Random, names: list[str]) -> dict[str, Any]:
    """Endings of real names, some of them bent, with exclusions and layers of every form."""

    def endings(count: int) -> list[str]:
        found = []
        for _ in range(count):
            parts = draw.choice(names).split(".")
            ending = ".".join(parts[draw.randrange(len(parts)) :])
            bend = draw.random()
            found.append(ending[1:] if bend < 0.1 else ending + "x" if bend < 0.15 else ending)
        return found

    fields: dict[str, Any] = {"target_modules": endings(draw.randint(1, 4))}
    if draw.random() < 0.2:
        fields["target_modules"] = draw.choice([r".*\.{}", r"(.*\.)?{}", r"{}", r".*{}.*", r"[^.]*\.{}"]).format(
            draw.choice(endings(1)).replace(".", r"\.")
        )
    if draw.random() < 0.4:
        excluded = endings(draw.randint(1, 3))
        fields["exclude_modules"] = draw.choice([excluded, rf".*{excluded[0]}.*", rf"{excluded[0]}.*"])
    if draw.random() < 0.5:
        fields["layers_to_transform"] = draw.choice([0, 1, [1], [0, 10], [], [1, 99], 2])
    if draw.random() < 0.4:
        fields["layers_pattern"] = draw.choice(["layers", "h", ["h", "layer"], "block", [], "experts"])
    if draw.random() < 0.2:
        fields["modules_to_save"] = endings(1)
    return fields


@pytest.mark.parametrize("name", ["tricky", "llama", "bert", "t5", "gpt2", "vit", "mlp"])
def test_same_modules_for_random_requests(name: str) -> None:
    draw = random.Random(f"targets of {name}")
    model = model_named(name)
    names = names_in(model)
    matched = 0
    for _ in range(150):
        fields = random_request(draw, names)
        theirs = by_peft_check(model, **fields)
        assert by_us(model, **fields) == theirs, fields
        matched += theirs != REFUSED
    assert matched > 30  # the requests are not all nonsense


@pytest.mark.parametrize("seed", range(6))
def test_same_modules_for_long_lists_of_full_names(seed: int) -> None:
    """From 20 entries on peft shortens the list, which shows only beside layers_to_transform."""
    draw = random.Random(seed)
    model = model_named("llama" if seed % 2 else "tricky")
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    fields = {
        "target_modules": draw.sample(linear, draw.choice([18, 19, 20, 21, 30, len(linear)])),
        "layers_to_transform": draw.choice([1, [0, 2], [10]]),
    }
    assert by_us(model, **fields) == by_peft(model, **fields)


# --------------------------------------------------------------------------------------- defaults


def test_our_default_table_repeats_pefts() -> None:
    ours = {key: v if isinstance(v, str) else list(v) for key, v in LORA_DEFAULTS.items()}
    assert ours == {key: PEFT_DEFAULTS[key] for key in ours}


@pytest.mark.parametrize("model_type", ["distilbert", "phi3", "vit"])
def test_types_without_a_default_have_none_in_peft_either(model_type: str) -> None:
    assert model_type not in PEFT_DEFAULTS
    assert model_type not in LORA_DEFAULTS


DECODER = {**SMALL, "num_hidden_layers": 1, "pad_token_id": 0}
GROUPED = {**DECODER, "num_key_value_heads": 1, "head_dim": 4}
CONFIGS: dict[str, dict[str, Any]] = {
    "mistral": GROUPED,
    "qwen2": GROUPED,
    "qwen3": GROUPED,
    "gemma2": GROUPED,
    "gemma3_text": GROUPED,
    "phi": DECODER,
    "opt": {**DECODER, "ffn_dim": 12, "word_embed_proj_dim": 8, "max_position_embeddings": 16},
    "gpt_neox": DECODER,
    "bloom": {"vocab_size": 20, "hidden_size": 8, "n_head": 2, "n_layer": 1},
    "falcon": DECODER,
}


@pytest.mark.parametrize("model_type", CONFIGS)
def test_defaults_fit_the_models_of_today(model_type: str) -> None:
    config = transformers.AutoConfig.for_model(model_type, **CONFIGS[model_type])
    model = transformers.AutoModelForCausalLM.from_config(config)
    ours = by_us(model)
    assert ours == by_peft(model)
    assert ours != REFUSED


@pytest.mark.parametrize("model_type", [*CONFIGS, "t5", "gpt2", "bert", "llama", "roberta"])
def test_ia3_scales_the_inputs_and_outputs_that_peft_scales(model_type: str) -> None:
    if model_type in CONFIGS:
        config = transformers.AutoConfig.for_model(model_type, **CONFIGS[model_type])
        model = transformers.AutoModelForCausalLM.from_config(config)
    else:
        model = model_named(model_type)
    method = IA3().prepare(model)
    ours = {site.name: method.scales_input(site) for site in method.sites(model)}
    theirs = shell(model)
    peft.inject_adapter_in_model(peft.IA3Config(), theirs)
    found = {name: module for name, module in theirs.named_modules() if isinstance(module, IA3Layer)}
    assert ours == {name: module.is_feedforward for name, module in found.items()}
    assert set(ours.values()) == {True, False}


def test_another_table_can_be_given() -> None:
    model = model_named("gpt2")
    assert resolve_targets(model, None, default={"gpt2": ["mlp.c_proj"]}) == [
        f"transformer.h.{i}.mlp.c_proj" for i in range(3)
    ]
    assert default_targets(model, {"gpt2": ("wte",)}) == ["wte"]
    assert default_targets(model, {"gpt2": r".*wte"}) == r".*wte"


def test_the_type_may_stand_in_a_config_that_is_a_dictionary() -> None:
    model = mlp()
    model.config = {"model_type": "own"}
    assert resolve_targets(model, None, default={"own": ["0", "2"]}) == ["0", "2"]


@pytest.mark.parametrize("name", ["vit", "mlp"])
def test_a_missing_default_asks_for_target_modules(name: str) -> None:
    with pytest.raises(TargetError, match="name target_modules") as caught:
        resolve_targets(model_named(name), None)
    assert ("'vit'" if name == "vit" else "a Sequential") in str(caught.value)
    assert "Linear layers here:" in str(caught.value)


def test_a_default_that_is_a_string_ignores_layers_as_in_peft() -> None:
    model = llama(layers=2)
    model.config.model_type = "gemma4"
    table = {"gemma4": r".*\.q_proj"}
    with pytest.warns(TargetWarning, match="layers_to_transform is ignored"):
        ours = resolve_targets(model, None, default=table, layers_to_transform=[1])
    config = peft.LoraConfig(layers_to_transform=[1])
    config.target_modules = table["gemma4"]  # as peft fills it in after its own check
    assert ours == [name for name in names_in(model) if check_target_module_exists(config, name)]
    assert len(ours) == 2


def test_mixtral_keeps_its_default_where_peft_loses_it() -> None:
    """The known difference: peft rewrites requests for models with stacked experts."""
    config = transformers.MixtralConfig(**GROUPED, num_local_experts=2)
    model = transformers.MixtralForCausalLM(config)
    assert by_us(model) == [f"model.layers.0.self_attn.{p}" for p in (Q, V)]
    assert by_peft(model) == REFUSED
    assert by_us(model, [Q]) == by_peft(model, target_modules=[Q])


# ---------------------------------------------------------------------------------- all kinds of


def test_sequence_classification_through_the_whole_peft_model() -> None:
    """peft adds `classifier` and `score` to modules_to_save; nothing inside them is adapted."""
    model = model_named("roberta")
    fields = {"target_modules": "all-linear", "task_type": "SEQ_CLS"}
    wrapped = peft.get_peft_model(shell(model), peft.LoraConfig(**fields))
    theirs = wrapped.base_model.targeted_module_names
    assert by_us(model, **fields, modules_to_save=["classifier", "score"]) == theirs
    assert by_us(model, **fields) != theirs  # without it, RoBERTa's head has two layers to adapt


def test_conv1d_must_be_transformers_own() -> None:
    class Conv1D(nn.Module):
        pass

    model = nn.ModuleDict({"fake": Conv1D(), "real": transformers.pytorch_utils.Conv1D(2, 3)})
    assert resolve_targets(model, "all-linear") == ["real"]
    assert by_peft(model, target_modules="all-linear") == ["real"]


def test_quantised_linear_layers_count_as_linear() -> None:
    class Linear4bit(nn.Linear):
        pass

    model = nn.Sequential(Linear4bit(2, 2), nn.ReLU(), nn.Linear(2, 2))
    assert resolve_targets(model, "all-linear") == ["0", "2"]


def test_shared_modules_are_named_once() -> None:
    shared = nn.Linear(3, 3)
    model = nn.ModuleDict({"first": shared, "second": shared, "third": nn.Linear(3, 3)})
    for asked in (["first", "second"], "all-linear", ["second", "third"]):
        assert by_us(model, asked) == by_peft(model, target_modules=asked)


@pytest.mark.parametrize("asked", [["c_attn", "c_fc"], "all-linear", r".*attn\.c_.*", ["default"]])
@pytest.mark.parametrize("by", ["skip", "modules"])
def test_the_inside_of_attached_adapters_is_no_candidate(asked: Any, by: str) -> None:
    """peft adds a second adapter to a model that carries one; we resolve on the same model."""
    first = shell(model_named("gpt2"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = peft.LoraConfig(target_modules=["c_attn", "lm_head"])
        peft.inject_adapter_in_model(config, first, "first")
    wrappers = [n for n, m in first.named_modules() if isinstance(m, BaseTunerLayer)]

    def inside(name: str, module: nn.Module) -> bool:
        return any(name.startswith(f"{wrapper}.") for wrapper in wrappers)

    if by == "skip":
        only = {"skip": inside}
    else:
        only = {"modules": {n: m for n, m in first.named_modules() if not inside(n, m)}}
    ours = by_us(first, asked, **only)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            config = peft.LoraConfig(target_modules=asked)
            peft.inject_adapter_in_model(config, first, "second")
            modules = first.named_modules()
            theirs = [n for n, m in modules if isinstance(m, LoraLayer) and "second" in m.r]
        except ValueError:
            theirs = REFUSED
    assert ours == theirs
    assert (ours == REFUSED) == (asked == ["default"])  # "default" would be an adapter's own layer


def test_what_lies_inside_a_skipped_module_is_skipped_with_it() -> None:
    model = model_named("tricky")
    ours = resolve_targets(model, [Q], skip=lambda name, module: isinstance(module, nn.ModuleList))
    assert ours == ["q_proj"]
    ours = resolve_targets(model, ["1.q", "11.q"], skip=lambda name, _: name == "model.layers.1")
    assert ours == ["model.layers.11.q", "layers.1.q"]  # layer 11 is not inside layer 1


def test_modules_may_be_the_plain_modules_behind_wrappers() -> None:
    """A wrapped head keeps its name, and is still left out of all-linear."""

    class Wrapper(nn.Module):
        def __init__(self, base: nn.Module) -> None:
            super().__init__()
            self.base = base

    model = shell(model_named("llama_tied"))
    plain = dict(model.named_modules())
    expected = resolve_targets(model, "all-linear")
    model.lm_head = Wrapper(model.lm_head)
    attention = model.model.layers[0].self_attn
    attention.q_proj = Wrapper(attention.q_proj)
    assert resolve_targets(model, "all-linear", modules=plain) == expected
    assert "model.layers.0.self_attn.q_proj" in expected and "lm_head" not in expected


# ------------------------------------------------------------------- rank_pattern, alpha_pattern

PATTERNS: list[tuple[str, dict[str, int]]] = [
    ("llama", {"q_proj": 3}),
    ("llama", {"layers.1.self_attn.q_proj": 3}),
    ("llama", {"model.layers.1.self_attn.q_proj": 3, "q_proj": 4}),
    ("llama", {"q_proj": 4, "model.layers.1.self_attn.q_proj": 3}),  # the first match decides
    ("llama", {r"layers\.1\..*": 3, r"layers\.\d+\.self_attn\.v_proj": 5}),
    ("llama", {r"layers.1.self_attn.(q|v)_proj": 3}),
    ("llama", {r"1\d.self_attn.q_proj": 3}),
    ("llama", {"proj": 3}),
    ("llama", {r".*_proj": 3}),
    ("llama", {r"^model\.layers\.0\..*": 3}),
    ("llama", {r"^layers\.0\..*": 3}),
    ("llama", {"q_proj|v_proj": 3}),
    ("llama", {r"self_attn\.[qk]_proj": 3, "v_proj$": 7}),
    ("llama", {"nowhere": 3}),
    ("llama", {}),
    ("tricky", {"q_proj": 3, "proj": 4}),
    ("tricky", {"proj": 4, "q_proj": 3}),
    ("tricky", {"1.q_proj": 3}),
    ("tricky", {r"1.*q_proj": 3}),
    ("tricky", {"side.proj": 3, "model": 5}),
    ("tricky", {r"(layers)\.1\.q_proj": 3}),
    ("gpt2", {"attn.c_proj": 3, "c_proj": 5}),
    ("gpt2", {"c_proj": 5, "attn.c_proj": 3}),
    ("gpt2", {r"h\.[12]\.mlp.*": 3}),
]
PATTERN_TARGETS = {"llama": [Q, "k_proj", V], "tricky": [Q, "proj"], "gpt2": ["c_attn", "c_proj"]}


@pytest.mark.parametrize("index", range(len(PATTERNS)))
def test_rank_and_alpha_of_every_layer_are_pefts(index: int) -> None:
    name, ranks = PATTERNS[index]
    # Another pattern for alpha, of the same model if there is one.
    alphas = {key: 10 * rank for key, rank in PATTERNS[index - 1][1].items()}
    model = shell(model_named(name))
    config = peft.LoraConfig(
        r=2, lora_alpha=9, rank_pattern=ranks, alpha_pattern=alphas,
        target_modules=PATTERN_TARGETS[name],
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft.inject_adapter_in_model(config, model)
    theirs = {
        where: (module.r["default"], module.lora_alpha["default"])
        for where, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }
    ours = {where: (pattern_value(ranks, where, 2), pattern_value(alphas, where, 9)) for where in theirs}
    assert ours == theirs


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("a+b", "a+b"),  # a name that, as a regular expression, does not match itself
        ("a+b", "x.a+b"),
        ("a+b", "aab"),
        (r"(a|b)\.x\.\3", "m.a.x.a"),  # back-references count peft's own two groups
        (r"(a|b)\.x\.\1", "m.a.x.m."),
        ("", "x"),
        ("x", ""),
        ("q$", "m.q"),
        ("m.", "m.q"),
        (".q", "m.q"),
        (r"\.q", "m.q"),
    ],
)
def test_odd_pattern_keys(key: str, name: str) -> None:
    theirs = {key: 3}.get(get_pattern_key([key], name), 1)
    assert pattern_value({key: 3}, name, 1) == theirs


def test_pattern_values_of_random_keys() -> None:
    draw = random.Random(5)
    names = names_in(model_named("tricky")) + names_in(model_named("t5"))
    hits = 0
    for _ in range(400):
        keys = []
        for _ in range(draw.randint(1, 4)):
            parts = draw.choice(names).split(".")
            key = ".".join(parts[draw.randrange(len(parts)) :])
            form = draw.choice(["{}", ".*{}", "^{}", "{}$", "{}.*", "({}|fc1)", "{}|q"])
            keys.append(form.format(key))
        patterns = {key: number for number, key in enumerate(keys)}
        name = draw.choice(names)
        theirs = patterns.get(get_pattern_key(list(patterns), name), "default")
        assert pattern_value(patterns, name, "default") == theirs, (patterns, name)
        hits += theirs != "default"
    assert hits > 40


def test_an_invalid_pattern_key_is_named() -> None:
    with pytest.raises(TargetError, match=r"rank_pattern.*'layers\[0'.*position 6"):
        pattern_value({"layers[0": 4}, "layers.0", 1)


# ------------------------------------------------------------------------------- clear refusals


def refusal(name: str, *args: Any, **fields: Any) -> str:
    with pytest.raises(TargetError) as caught:
        resolve_targets(model_named(name), *args, **fields)
    return str(caught.value)


def test_target_error_is_one_of_ours_and_a_value_error() -> None:
    assert issubclass(TargetError, PeftLabError)
    assert issubclass(TargetError, ValueError)


def test_no_match_shows_the_pattern_the_closest_names_and_what_is_there() -> None:
    message = refusal("llama", ["q_prj", "attn.v_proj"])
    assert "['q_prj', 'attn.v_proj'] matches no module" in message
    assert "For 'q_prj', did you mean 'q_proj'" in message
    assert "'self_attn.v_proj'" in message  # as many parts as the entry has
    assert "q_proj (12)" in message and "lm_head (1)" in message
    assert len(message) < 600


def test_no_match_stays_short_for_long_requests() -> None:
    assert len(refusal("tricky", [f"zzz{i}" for i in range(500)])) < 600


def test_no_match_without_linear_layers_lists_what_has_weights() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
    with pytest.raises(TargetError, match=r"No linear layers here; layers with weights: 0 \(1\)"):
        resolve_targets(model, "all-linear")


def test_a_name_given_as_a_string_is_explained() -> None:
    message = refusal("llama", "q_proj")
    assert "regular expression for the whole name" in message
    assert "the list ['q_proj'] matches 12 modules" in message


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("all-linear", "'all-linear' is understood as a string"),
        (r".*q_proj", "is a pattern"),
        ("*.q_proj", "is a pattern"),
    ],
)
def test_a_string_form_inside_a_list_is_explained(entry: str, told: str) -> None:
    assert told in refusal("llama", [entry])


def test_an_invalid_regular_expression_says_where() -> None:
    message = refusal("llama", r".*layers.(q_proj")
    assert "target_modules" in message and "position 9 ('(q_proj')" in message
    assert "position 0 ('*.q_proj')" in refusal("llama", "*.q_proj")
    assert "exclude_modules" in refusal("llama", [Q], exclude_modules="[")
    assert "position 0 ('[')" in refusal("llama", [Q], layers_to_transform=1, layers_pattern="[")
    assert "position 1 (')')" in refusal("llama", [Q], modules_to_save=["a)"])


def test_everything_excluded_says_so() -> None:
    message = refusal("llama", [Q], exclude_modules=["q_proj"])
    assert "All 12 modules" in message and "excluded" in message and "['q_proj']" in message
    assert "modules_to_save=['self_attn']" in refusal("llama", [Q], modules_to_save=["self_attn"])


def test_layers_beside_a_string_are_refused_as_in_peft() -> None:
    assert "target_modules is a string" in refusal("llama", ".*q_proj", layers_to_transform=[0])
    assert "target_modules is a string" in refusal("llama", ".*q_proj", layers_pattern="layers")
    assert "also give layers_to_transform" in refusal("llama", [Q], layers_pattern="layers")


def test_a_layer_that_is_not_there_names_those_that_are() -> None:
    message = refusal("llama", [Q], layers_to_transform=[12, 40])
    assert "[12, 40]" in message and "layers 0-11" in message


def test_a_layer_index_that_peft_cannot_read_is_explained() -> None:
    assert "give layers_pattern" in refusal("llama_bare", [Q], layers_to_transform=[1])
    message = refusal("llama", [Q], layers_to_transform=[1], layers_pattern="blocks")
    assert "'blocks'" in message and "'model.layers.0.self_attn.q_proj'" in message


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": 5},
        {"target_modules": [Q, 5]},
        {"target_modules": [Q], "exclude_modules": 5},
        {"target_modules": [Q], "layers_to_transform": "1"},
        {"target_modules": [Q], "layers_to_transform": [1.5]},
        {"target_modules": [Q], "layers_to_transform": 1, "layers_pattern": 3},
        {"target_modules": [Q], "modules_to_save": "lm_head"},
    ],
    ids=label,
)
def test_wrong_types_name_the_field(fields: dict[str, Any]) -> None:
    message = refusal("llama", **fields)
    assert list(fields)[-1] in message and "must be" in message


# ---------------------------------------------------------------------------------- fair warnings


def remarks(name: str, *args: Any, **fields: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        resolve_targets(model_named(name), *args, **fields)
    assert all(issubclass(remark.category, TargetWarning) for remark in caught)
    assert all(remark.filename == __file__ for remark in caught)  # it points at the caller
    return [str(remark.message) for remark in caught]


def test_entries_without_a_match_are_named_in_one_warning() -> None:
    (remark,) = remarks("llama", [Q, "v_prjo", "zzz"])
    assert "['v_prjo', 'zzz']" in remark and "did you mean 'v_proj'" in remark


def test_an_entry_whose_modules_are_excluded_is_not_called_unmatched() -> None:
    assert remarks("llama", [Q, V], exclude_modules=[V]) == []
    assert remarks("llama", [Q, "lm_head"], layers_to_transform=list(range(12))) == []


def test_an_exclusion_without_effect_is_named() -> None:
    (remark,) = remarks("llama", [Q], exclude_modules=["layers.0"])
    assert "['layers.0'] removes no targeted module" in remark


def test_layers_without_a_match_are_named() -> None:
    (remark,) = remarks("llama", [Q], layers_to_transform=[0, 12, 13])
    assert "layer 12-13" in remark and "0-11" in remark


@pytest.mark.parametrize(("name", "fields"), TABLE[:60:7], ids=label)
def test_an_ordinary_request_is_quiet_and_changes_nothing(name: str, fields: dict) -> None:
    model = copy.deepcopy(model_named(name))
    before = [(n, m, m.training) for n, m in model.named_modules()]
    grads = [(n, p, p.requires_grad) for n, p in model.named_parameters()]
    asked = copy.deepcopy(fields)
    by_us(model, **fields)
    assert before == [(n, m, m.training) for n, m in model.named_modules()]
    after = [(n, p, p.requires_grad) for n, p in model.named_parameters()]
    assert all(a[0] == b[0] and a[1] is b[1] and a[2] == b[2] for a, b in zip(grads, after, strict=True))
    assert asked == fields
    assert remarks("llama", [Q, V]) == remarks("bert", "all-linear") == []


def imported_by(path: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


def test_neither_peft_nor_transformers_is_imported() -> None:
    assert {"peft", "transformers"}.isdisjoint(imported_by(targeting.__file__))
