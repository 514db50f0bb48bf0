"""Lesson 02: what training changed in a model, tensor by tensor; and every method of the course on one map.

Facts about a method that is built come from its own card. Methods that the course names but has not built yet stand
in `NAMED`, with the little that the map says of them; once a class of that name exists, its card takes over.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from peftlab import surgery
from peftlab.costs.configs import architecture
from peftlab.costs.trained import on_meta, what_trains
from peftlab.errors import PeftLabError
from peftlab.methods import METHODS, LoRA, Method
from peftlab.methods.base import Card
from peftlab.methods.reparam import dora

# ---- a model before and after -------------------------------------------------------------------------------------


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every parameter that the model had before any adapter was attached, under its old name."""
    return {
        f"{name}.{own}" if name else own: parameter.detach().clone()
        for name, module in surgery.base_modules(model).items()
        for own, parameter in module.named_parameters(recurse=False)
    }


def places_of_new(model: nn.Module) -> list[str]:
    """The old names of the layers that adapters were put around. (The head's trainable copy is not counted.)"""
    return [name for name in surgery.adapted_modules(model) if name != "classifier"]


def file_bytes(model: nn.Module) -> int:
    """Size of a safetensors file with all that was trained: what has to be kept beside the base."""
    trained = {name: p.detach().contiguous() for name, p in model.named_parameters() if p.requires_grad}
    return len(safetensors.torch.save(trained))


# ---- the map ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One method on the map. `method` builds it for counting; None where nothing of it is built."""

    name: str
    title: str
    year: int
    arxiv: str
    family: str
    formula: str
    parameters: str
    mergeable: bool
    merging: str  # "yes", or why not
    inference: str
    peft: str  # its config class in peft, or what there is instead
    lesson: str  # number; "" where none is about it
    built: bool
    method: Callable[[], Method] | None = None


def _named(name: str, title: str, year: int, arxiv: str, family: str, **rest: Any) -> Entry:
    rest = {"mergeable": True, "merging": "yes", "peft": NO_PEFT, "built": False, **rest}
    return Entry(name=name, title=title, year=year, arxiv=arxiv, family=family, **rest)


NO_PEFT = "none"
NOTHING = "none: the model has its old shape"
ONCE_MERGED = "none once merged"


NAMED = (
    _named(
        "IntrinsicDimension", "Intrinsic Dimensionality Explains the Effectiveness of Language Model Fine-Tuning",
        2020, "2012.13255", "reparameterisation", formula="θ' = θ + P φ, P random and fixed", lesson="11",
        parameters="k", inference=ONCE_MERGED,
    ),
    _named(
        "AdaLoRA", "AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning", 2023, "2303.10512",
        "reparameterisation", formula="W' = W₀ + (α/r) B diag(λ) A, the least useful λ set to zero in training",
        lesson="11", parameters="r (d_in + d_out + 1) per layer at the start, fewer at the end", inference=ONCE_MERGED,
        peft="peft.AdaLoraConfig",
    ),
    _named(
        "LoHa", "FedPara: Low-Rank Hadamard Product for Communication-Efficient Federated Learning", 2021, "2108.06098",
        "reparameterisation", formula="W' = W₀ + (α/r) (B₁A₁) ⊙ (B₂A₂)", lesson="11",
        parameters="2 r (d_in + d_out) per layer", inference=ONCE_MERGED, peft="peft.LoHaConfig",
    ),
    _named(
        "LoKr", "Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to Model Evaluation", 2023,
        "2309.14859", "reparameterisation", formula="W' = W₀ + (α/r) C ⊗ (B A)", lesson="11",
        parameters="the entries of C, B and A", inference=ONCE_MERGED, peft="peft.LoKrConfig",
    ),
    _named(
        "BOFT", "Parameter-Efficient Orthogonal Finetuning via Butterfly Factorization", 2023, "2311.06243",
        "reparameterisation", formula="W' = R₁R₂…R_m W₀, each R_i a sparse rotation", lesson="11",
        parameters="the entries of the R_i", inference=ONCE_MERGED, peft="peft.BOFTConfig",
    ),
    _named(
        "QLoRA", "QLoRA: Efficient Finetuning of Quantized LLMs", 2023, "2305.14314", "reparameterisation",
        formula="h = dequantised(W₀) x + (α/r) B A x, W₀ stored in 4 bits", lesson="13",
        parameters="r (d_in + d_out) per layer, as LoRA", merging="yes, but into dequantised weights",
        inference="unpacking the weights in every pass; LoRA's two products while unmerged",
        peft="peft.LoraConfig", built=True, method=LoRA,  # peftlab.quant under the same adapter
    ),
    _named(
        "MAM", "Towards a Unified View of Parameter-Efficient Transfer Learning", 2021, "2110.04366", "hybrid",
        formula="prefix in the attention, scaled parallel adapter beside the feed-forward network", lesson="16",
        parameters="the sum of its two parts", mergeable=False, merging="no: neither part is a change of the weights",
        inference="that of both parts",
    ),
    _named(
        "UniPELT", "UniPELT: A Unified Framework for Parameter-Efficient Language Model Tuning", 2021, "2110.07577",
        "hybrid", formula="adapter, prefix and LoRA, each behind a learned gate", lesson="16",
        parameters="the sum of its three parts and their gates", mergeable=False,
        merging="no: the gates depend on the input", inference="that of all parts and the gates",
    ),
)  # fmt: skip

# What a family costs, in words. Nearly every method saves the gradients and optimiser states of the frozen weights.
COSTS = {
    "additive": (
        "New parts are computed forwards and backwards. Prompts and prefixes lengthen every text besides.",
        "The parts stay: more calls, or more tokens, in every pass. (IA³ is the exception: it merges.)",
    ),
    "selective": (
        "Whole biases or norms add no work of their own. Scattered entries are dearer: PyTorch computes the gradient "
        "of the whole matrix first. Choosing them costs time too.",
        "None: the model has its old shape.",
    ),
    "reparameterisation": (
        "The change is computed anew from its few numbers in every step: two thin products for LoRA, more for others.",
        "None once merged. Unmerged, the extra products in every pass, and in return many tasks from one base.",
    ),
    "hybrid": (
        "The sum of the parts, and more settings to search.",
        "That of the parts. One part that does not merge is enough to keep the cost.",
    ),
}

# The lesson that is, or will be, about a method; lessons that follow from the family are not listed.
LESSONS = {"PromptTuning": "04", "PrefixTuning": "04", "PTuning": "04", "Cartridge": "04", "CPT": "04"}
LESSONS |= {"LlamaAdapter": "04", "MultitaskPromptTuning": "04", "LoRA": "06", "IA3": ""}
OF_FAMILY = {"additive": "03", "selective": "05", "reparameterisation": "11", "hybrid": "16"}
# Fields that a method cannot do without, for counting; all others keep their defaults.
VIRTUAL_TOKENS = 20
NEEDED: dict[str, dict[str, Any]] = {
    "PromptTuning": {"num_virtual_tokens": VIRTUAL_TOKENS},
    "PrefixTuning": {"num_virtual_tokens": VIRTUAL_TOKENS},
    "Cartridge": {"num_virtual_tokens": VIRTUAL_TOKENS},
    "PTuning": {"num_virtual_tokens": VIRTUAL_TOKENS, "encoder_hidden_size": 128},
    "MultitaskPromptTuning": {"num_virtual_tokens": VIRTUAL_TOKENS, "num_tasks": 8},
    "CPT": {key: [1] * VIRTUAL_TOKENS for key in ("cpt_token_ids", "cpt_mask", "cpt_tokens_type_mask")},
    "LlamaAdapter": {"adapter_len": 10, "adapter_layers": 2},
    "FishMask": {"scores": "random"},  # how many train does not depend on which
    "LTSFT": {"scores": "random"},
    "PartialTuning": {"target_modules": r".*(attention\.output\.dense|o_proj)"},  # the attention's last matrix
    "TrainableTokens": {"token_indices": list(range(VIRTUAL_TOKENS))},
}
# The fields that decide how many numbers train, shown beside the count.
SIZES = ("r", "oft_block_size", "reduction_factor", "num_virtual_tokens", "num_frozen_tokens", "num_tasks", "phm_dim")
SIZES += ("encoder_hidden_size", "adapter_len", "adapter_layers", "keep_ratio", "sparsity", "num_layers")
MODELS = {"MiniLM": "all-minilm-l6-v2", "SmolLM2": "smollm2-135m", "Llama 2 7B": "llama-2-7b"}


def entries() -> list[Entry]:
    """All methods, family by family, oldest first: those of the library, and those that are only named so far."""
    built = [_from_card(cls.__name__, cls.card, _maker(cls)) for cls in METHODS]
    built.append(_from_card("DoRA", dora.CARD, dora.DoRA))
    have = {entry.name for entry in built}
    every = [*built, *(entry for entry in NAMED if entry.name not in have)]
    return sorted(every, key=lambda entry: (list(OF_FAMILY).index(entry.family), entry.arxiv, entry.name))


def _maker(cls: type[Method]) -> Callable[[], Method]:
    return lambda: cls(**NEEDED.get(cls.__name__, {}))


def _from_card(name: str, card: Card, make: Callable[[], Method]) -> Entry:
    why = "yes" if card.mergeable else f"no: {card.levels.get('P4', 'see its traps')}"
    return Entry(
        name=name, title=card.title, year=card.year, arxiv=card.arxiv, family=card.family, formula=card.formula,
        parameters=card.parameters, mergeable=card.mergeable, merging=why, inference=card.inference_cost,
        peft=card.reference if card.reference.startswith("peft.") else NO_PEFT,
        lesson=LESSONS.get(name, OF_FAMILY[card.family]), built=True, method=make,
    )  # fmt: skip


@dataclass(frozen=True)
class Count:
    """What a method trains on a model."""

    parameters: int | None  # None: it does not go on this model, or is not built
    places: str = ""  # the layers it goes to, by the last part of their names
    settings: Mapping[str, Any] = field(default_factory=dict)


def count(entry: Entry, model: str) -> Count:
    """How many numbers a method trains on a model of `MODELS`, with its default settings."""
    a = architecture(MODELS[model])
    if entry.method is None:
        return Count(None)
    method = entry.method()
    try:
        trained = what_trains(a, method).parameters
    except PeftLabError:  # the method says that it does not go on this kind of model
        return Count(None)
    prepared = method.prepare(on_meta(a))
    sites = prepared.sites(on_meta(a))
    places = sorted({site.name.rpartition(".")[2] for site in sites})
    if places and all(place.isdigit() for place in places):  # a block's name is its number
        places = ["whole blocks"]
    fields = set(inspect.signature(type(method)).parameters)
    settings = {name: getattr(method, name) for name in SIZES if name in fields and getattr(method, name)}
    return Count(trained, ", ".join(places), settings)
