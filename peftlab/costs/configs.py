"""What a model's config says about its size: layers, widths, parameters. And published configs by name.

    architecture("llama-2-7b")                         # an entry of configs.json
    architecture(AutoConfig.from_pretrained(folder))   # or transformers' own object
    architecture({"model_type": "llama", ...})         # or a config.json that was read

Parameters are counted by formula. A test builds every entry of configs.json on the meta device and compares.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from peftlab.errors import PeftLabError

GATED = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi3")
FAMILIES = (*GATED, "phi", "gpt2", "gpt_neox", "bert")
# What transformers' config classes assume where a config.json says nothing (read from their signatures).
DEFAULT_ACTIVATIONS = {"gemma": "gelu_pytorch_tanh", "gemma2": "gelu_pytorch_tanh", "phi": "gelu_new"}
DEFAULT_ACTIVATIONS |= {"gpt2": "gelu_new", "gpt_neox": "gelu", "bert": "gelu"}
DEFAULT_HEAD_SIZES = {"qwen3": 128, "gemma": 256, "gemma2": 256}
NAMES_KV_HEADS = ("mistral", "qwen2", "qwen3", "gemma", "gemma2")  # no safe default: the config must say
TIED = ("gemma", "gemma2", "gpt2", "bert")


@dataclass(frozen=True)
class Linear:
    """One matrix of a block: `name` as the model calls it, W is (d_out, d_in)."""

    name: str
    d_in: int
    d_out: int
    bias: bool = False

    @property
    def parameters(self) -> int:
        return self.d_in * self.d_out + (self.d_out if self.bias else 0)


@dataclass(frozen=True)
class Architecture:
    """The sizes of a transformer. Symbols as in the course: d width, L layers, h heads, f inner width, V vocabulary."""

    family: str
    vocabulary: int  # V
    width: int  # d
    layers: int  # L
    heads: int  # h
    kv_heads: int  # key and value heads; fewer than h with grouped-query attention
    head_size: int
    inner: int  # f, of the feed-forward part
    activation: str
    tied: bool  # the head reuses the embedding
    positions: int  # longest sequence; also the rows of a learned position table, where there is one
    linears: tuple[Linear, ...]  # of one block
    dropout: float = 0.0  # on the residual stream and the embeddings
    attention_dropout: float = 0.0
    config: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False, hash=False)
    name: str = ""

    @property
    def gated(self) -> bool:
        """Feed-forward with a gate: down(act(gate x) * up x)."""
        return self.family in GATED

    @property
    def rms(self) -> bool:
        """RMSNorm (a weight) and not LayerNorm (a weight and a bias)."""
        return self.family in GATED

    @property
    def is_decoder(self) -> bool:
        return self.family != "bert"

    @property
    def norms(self) -> int:
        """Norms of width d in one block."""
        return {"gemma2": 4, "phi": 1}.get(self.family, 2)

    @property
    def head_norms(self) -> bool:
        """Norms over each head of q and k."""
        return self.family == "qwen3"

    @property
    def q_width(self) -> int:
        return self.heads * self.head_size

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_size

    @property
    def norm_parameters(self) -> int:
        """Of all norms of one block."""
        return self.norms * self.width * (1 if self.rms else 2) + (2 * self.head_size if self.head_norms else 0)

    @property
    def linear_parameters(self) -> int:
        """Of all matrices (and their biases) of one block."""
        return sum(linear.parameters for linear in self.linears)

    @property
    def block_parameters(self) -> int:
        return self.linear_parameters + self.norm_parameters

    @property
    def embedding_parameters(self) -> int:
        """Token table, and where there are learned ones, positions, segments and their norm."""
        count = self.vocabulary * self.width
        if self.family in ("gpt2", "bert"):
            count += self.positions * self.width
        if self.family == "bert":
            count += self.config.get("type_vocab_size", 2) * self.width + 2 * self.width
        return count

    @property
    def head_parameters(self) -> int:
        """What follows the last block, without what is tied: final norm and head (BERT: the pooler)."""
        d = self.width
        if self.family == "bert":
            return d * d + d
        count = d if self.rms else 2 * d
        if not self.tied:
            count += self.vocabulary * d + (self.vocabulary if self.family == "phi" else 0)
        return count

    @property
    def parameters(self) -> int:
        """N: all parameters, each counted once."""
        return self.embedding_parameters + self.layers * self.block_parameters + self.head_parameters

    @property
    def matrix_parameters(self) -> int:
        """Entries of the matrices that every token is multiplied with: blocks and head, no table, bias or norm."""
        blocks = self.layers * sum(linear.d_in * linear.d_out for linear in self.linears)
        return blocks + (self.vocabulary * self.width if self.is_decoder else 0)


def architecture(source: str | Mapping[str, Any] | Architecture | Any) -> Architecture:
    """The sizes of a model, from a published name, a transformers config, a model, or a config.json as a dict.

    Raises PeftLabError for a name that is not in `published()`, for a family whose parts this file does not know, and
    for a config that lacks a size.
    """
    if isinstance(source, Architecture):
        return source
    if isinstance(source, str):
        return _named(source)
    if hasattr(source, "parameters") and hasattr(source, "config"):  # a model
        source = source.config
    config = dict(source.to_dict() if hasattr(source, "to_dict") else source)
    return _read(config, str(config.get("_name_or_path") or config.get("model_type", "")))


@cache
def published() -> dict[str, dict[str, Any]]:
    """Name -> {"config": …, "published": the parameter count as its source gives it, "source": …}."""
    return json.loads((Path(__file__).parent / "configs.json").read_text(encoding="utf-8"))


def published_parameters(name: str) -> tuple[float, float]:
    """The count that the source gives, and one unit of its last digit: '6.7B' -> (6.7e9, 1e8)."""
    text = published()[name]["published"].replace(",", "")
    scale = {"M": 1e6, "B": 1e9}.get(text[-1], 1.0)
    digits = text.rstrip("MB")
    return float(digits) * scale, scale * 10.0 ** -len(digits.partition(".")[2])


@cache
def _named(name: str) -> Architecture:
    entries = published()
    if name not in entries:
        import difflib

        close = difflib.get_close_matches(name.lower(), entries, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(close)}?" if close else "peftlab.costs.configs.published() lists them"
        raise PeftLabError(f"there is no published config called {name!r}; {hint} Or pass a transformers config.")
    return _read(entries[name]["config"], name)


def _read(config: Mapping[str, Any], name: str) -> Architecture:
    family = str(config.get("model_type", ""))
    if family not in FAMILIES:
        raise PeftLabError(
            f"cannot read a config with model_type={family!r}: known are {', '.join(FAMILIES)}. Mixtures of experts "
            "and encoder-decoders are not among them."
        )

    def size(*keys: str, default: int | None = None) -> int:
        value = next((config[key] for key in keys if config.get(key) is not None), default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise PeftLabError(f"the config of {name or family} needs {keys[0]}, a whole number above 0, not {value!r}")
        return value

    d = size("hidden_size", "n_embd")
    heads = size("num_attention_heads", "n_head")
    kv = size("num_key_value_heads", default=None if family in NAMES_KV_HEADS else heads)
    if heads % kv:
        raise PeftLabError(f"the config of {name or family}: {heads} heads cannot share {kv} key-value heads")
    if config.get("head_dim") is None and d % heads:
        raise PeftLabError(f"the config of {name or family}: width {d} does not split into {heads} heads")
    head = size("head_dim", default=DEFAULT_HEAD_SIZES.get(family, d // heads))
    inner = size("intermediate_size", "n_inner", default=4 * d)
    return Architecture(
        family=family,
        vocabulary=size("vocab_size"),
        width=d,
        layers=size("num_hidden_layers", "n_layer"),
        heads=heads,
        kv_heads=kv,
        head_size=head,
        inner=inner,
        activation=config.get("hidden_activation")
        or config.get("hidden_act")
        or config.get("activation_function")
        or DEFAULT_ACTIVATIONS.get(family, "silu"),
        tied=bool(config.get("tie_word_embeddings", family in TIED)),
        positions=size("max_position_embeddings", "n_positions", default=2048),
        linears=_linears(family, config, d, heads * head, kv * head, inner),
        dropout=float(_first(config, ("hidden_dropout_prob", "resid_pdrop", "hidden_dropout"), family)),
        attention_dropout=float(
            _first(config, ("attention_probs_dropout_prob", "attn_pdrop", "attention_dropout"), family)
        ),
        config=config,
        name=name,
    )


def _first(config: Mapping[str, Any], keys: tuple[str, ...], family: str) -> float:
    found = [config[key] for key in keys if config.get(key) is not None]
    return found[0] if found else (0.1 if family in ("bert", "gpt2") else 0.0)


def _linears(family: str, config: Mapping[str, Any], d: int, q: int, kv: int, f: int) -> tuple[Linear, ...]:
    """The matrices of one block, in the order in which a token meets them."""
    if family == "gpt2":
        return (
            Linear("attn.c_attn", d, 3 * d, True),
            Linear("attn.c_proj", d, d, True),
            Linear("mlp.c_fc", d, f, True),
            Linear("mlp.c_proj", f, d, True),
        )
    if family == "gpt_neox":
        bias = bool(config.get("attention_bias", True))
        return (
            Linear("attention.query_key_value", d, 3 * d, bias),
            Linear("attention.dense", d, d, bias),
            Linear("mlp.dense_h_to_4h", d, f, True),
            Linear("mlp.dense_4h_to_h", f, d, True),
        )
    if family == "bert":
        return (
            *(Linear(f"attention.self.{part}", d, d, True) for part in ("query", "key", "value")),
            Linear("attention.output.dense", d, d, True),
            Linear("intermediate.dense", d, f, True),
            Linear("output.dense", f, d, True),
        )
    if family == "phi3":
        return (
            Linear("self_attn.qkv_proj", d, q + 2 * kv),
            Linear("self_attn.o_proj", q, d),
            Linear("mlp.gate_up_proj", d, 2 * f),
            Linear("mlp.down_proj", f, d),
        )
    qkv_bias = family in ("qwen2", "phi") or bool(config.get("attention_bias", False))
    out_bias = family == "phi" or (family != "qwen2" and bool(config.get("attention_bias", False)))
    out = "dense" if family == "phi" else "o_proj"
    attention = (
        Linear("self_attn.q_proj", d, q, qkv_bias),
        Linear("self_attn.k_proj", d, kv, qkv_bias),
        Linear("self_attn.v_proj", d, kv, qkv_bias),
        Linear(f"self_attn.{out}", q, d, out_bias),
    )
    if family == "phi":
        return (*attention, Linear("mlp.fc1", d, f, True), Linear("mlp.fc2", f, d, True))
    bias = bool(config.get("mlp_bias", False))
    return (
        *attention,
        Linear("mlp.gate_proj", d, f, bias),
        Linear("mlp.up_proj", d, f, bias),
        Linear("mlp.down_proj", f, d, bias),
    )
