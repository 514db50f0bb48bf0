"""The only file that knows transformers' insides: heads, embeddings, attention modules, generation.

transformers is imported late, and only for models that come from it, so that plain torch models need none of it.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from peftlab.errors import PeftLabError
from peftlab.runtime import Runtime

# The heads that peft takes along for a task, where the model has them.
HEADS = {"SEQ_CLS": ("classifier", "score"), "TOKEN_CLS": ("classifier", "score"), "QUESTION_ANS": ("qa_outputs",)}
HEAD_NAMES = tuple(dict.fromkeys(name for names in HEADS.values() for name in names))


def is_sequence_classifier(model: nn.Module) -> bool:
    """True for transformers' ...ForSequenceClassification models and for models that say so themselves."""
    name = type(model).__name__
    return name.endswith("ForSequenceClassification") or getattr(model, "is_sequence_classifier", False)


def head_task(model: nn.Module) -> str | None:
    """The task_type of a model with a new head, which must be trained and saved along; else None."""
    if is_sequence_classifier(model):
        return "SEQ_CLS"
    name = type(model).__name__
    if name.endswith("ForTokenClassification"):
        return "TOKEN_CLS"
    return "QUESTION_ANS" if name.endswith("ForQuestionAnswering") else None


def by_name(model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call of `model`, positional ones too, by the names its forward gives them."""
    names = [p for p in inspect.signature(type(model).forward).parameters if p != "self"]
    return {**dict(zip(names, args, strict=False)), **kwargs}


def word_embeddings(model: nn.Module) -> nn.Module:
    """The layer that turns token ids into vectors."""
    if not hasattr(model, "get_input_embeddings") or not hasattr(model, "config"):
        raise PeftLabError(
            f"prompts need a transformers model with word embeddings; {type(model).__name__} has no config, or no "
            "get_input_embeddings()"
        )
    return model.get_input_embeddings()


def past_length(kwargs: dict[str, Any]) -> int:
    """How many positions the key-value cache of this call already holds."""
    cache = kwargs.get("past_key_values")
    return 0 if cache is None else int(cache.get_seq_length())


def check_cache_grows(kwargs: dict[str, Any]) -> None:
    """Raise PeftLabError if this call's key-value cache has a fixed size, which a prompt's positions would overflow."""
    cache = kwargs.get("past_key_values")
    if getattr(cache, "is_compileable", False):
        raise PeftLabError(
            "a prompt needs more positions than a static cache was planned for; leave cache_implementation='static' "
            "out (the default cache grows), or use a prefix, which is not in the cache"
        )


def batch_size(model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> int | None:
    """Rows in the batch of a call: of its tokens, or else of its first tensor."""
    named = by_name(model, args, kwargs)
    tokens = [named.get("input_ids"), named.get("inputs_embeds")]
    tensors = [v for v in (*tokens, *args, *kwargs.values()) if isinstance(v, Tensor) and v.ndim]
    return tensors[0].shape[0] if tensors else None


def batch_and_length(kwargs: dict[str, Any]) -> tuple[int, int]:
    """(batch, tokens) of a call."""
    for name in ("input_ids", "inputs_embeds"):
        if kwargs.get(name) is not None:
            return kwargs[name].shape[0], kwargs[name].shape[1]
    raise PeftLabError("this method needs the model to be called with input_ids or inputs_embeds")


def attention_modules(model: nn.Module) -> list[nn.Module]:
    """The self-attention modules, first layer first: those that call transformers' attention interface."""
    from peftlab.surgery import base_modules

    found = [
        module
        for module in base_modules(model).values()
        if getattr(module, "layer_idx", None) is not None
        and type(module).__name__.endswith("Attention")
        and hasattr(module, "config")
        and not getattr(module, "is_cross_attention", False)
    ]
    config = getattr(model, "config", None)
    if not found or getattr(config, "is_encoder_decoder", False):
        raise PeftLabError(
            f"prefix tuning needs a transformers model whose self-attention can be found; in {type(model).__name__} "
            "it was not (encoder-decoder models are not supported)"
        )
    return sorted(found, key=lambda module: module.layer_idx)


def key_value_shape(model: nn.Module) -> tuple[int, int, int]:
    """(layers, key-value heads, head dimension); with grouped-query attention the key-value heads are the fewer."""
    layers = len(attention_modules(model))
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return layers, kv_heads, head_dim


def untie(model: nn.Module) -> None:
    """Tell the model's configs that input and output embeddings are two matrices now."""
    for config in {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}.values():
        if getattr(config, "tie_word_embeddings", False):
            config.tie_word_embeddings = False


# ---- where bottleneck adapters go ---------------------------------------------------------------------------------

# Regular expressions for four places in every block, by `config.model_type`:
#   attention     the linear layer that ends the attention
#   feed_forward  the linear layer that ends the feed-forward network
#   block_output  after the block's last residual sum: the norm that follows it, or, where none does, the block itself
#   beside        the module that a branch runs parallel to the feed-forward network from
_POST_NORM = {
    "attention": r"(.*\.)?layer\.\d+\.attention\.output\.dense",
    "feed_forward": r"(.*\.)?layer\.\d+\.output\.dense",
    "block_output": r"(.*\.)?layer\.\d+\.output\.LayerNorm",
    "beside": r"(.*\.)?layer\.\d+\.output",
}
_PRE_NORM = {
    "attention": r"(.*\.)?layers\.\d+\.self_attn\.o_proj",
    "feed_forward": r"(.*\.)?layers\.\d+\.mlp\.down_proj",
    "block_output": r"(.*\.)?layers\.\d+",
    "beside": r"(.*\.)?layers\.\d+\.mlp",
}
_GPT2 = {
    "attention": r"(.*\.)?h\.\d+\.attn\.c_proj",
    "feed_forward": r"(.*\.)?h\.\d+\.mlp\.c_proj",
    "block_output": r"(.*\.)?h\.\d+",
    "beside": r"(.*\.)?h\.\d+\.mlp",
}
ADAPTER_PLACES = {
    "bert": _POST_NORM,
    "electra": _POST_NORM,
    "gpt2": _GPT2,
    "llama": _PRE_NORM,
    "mistral": _PRE_NORM,
    "qwen2": _PRE_NORM,
    "qwen3": _PRE_NORM,
    "roberta": _POST_NORM,
    "xlm-roberta": _POST_NORM,
}


def adapter_places(model: nn.Module, places: Sequence[str]) -> str:
    """A regular expression for the modules of `model` at these places (the keys of `ADAPTER_PLACES`' entries).

    Raises PeftLabError for a model whose places are not known.
    """
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if kind not in ADAPTER_PLACES:
        raise PeftLabError(
            f"where the attention and the feed-forward network of a {type(model).__name__} end is not known here "
            f"(it is for {', '.join(ADAPTER_PLACES)}); name the layers in target_modules"
        )
    return "|".join(ADAPTER_PLACES[kind][place] for place in places)


def block_number(name: str) -> int | None:
    """Which transformer block a module belongs to: the first number in its name; None outside the blocks."""
    return next((int(part) for part in name.split(".") if part.isdecimal()), None)


def adds_residual(module: nn.Module) -> bool:
    """True for modules that take (h, x), and add x and normalise themselves, as BERT's `output` does."""
    return "input_tensor" in inspect.signature(type(module).forward).parameters


def is_norm(module: nn.Module) -> bool:
    """True for LayerNorm and its relatives."""
    weight = module._parameters.get("weight")
    return type(module).__name__.endswith("Norm") and weight is not None and weight.ndim == 1


def widths(module: nn.Module) -> tuple[int, int]:
    """(d_in, d_out): the vectors that a linear layer, a norm, a feed-forward network or a block reads and writes.

    Raises PeftLabError for other modules.
    """
    from peftlab.surgery import base_modules, features, is_transposed_linear

    def is_linear(m: nn.Module) -> bool:
        return isinstance(m, nn.Linear) or is_transposed_linear(m)

    if is_linear(module):
        return features(module)
    inside = base_modules(module)
    norms = [m for name, m in inside.items() if "." not in name and is_norm(m)]  # its own, not those further in
    linear = [m for name, m in inside.items() if name and is_linear(m)]
    if norms and (linear or is_norm(module)):
        d = norms[0].weight.shape[0]
    elif linear:
        d = features(linear[0])[0]
    else:
        raise PeftLabError(f"a {type(module).__name__} neither is a linear layer nor holds one")
    return d, d


# ---- the attention seat: prefixes enter here, not through the cache ----------------------------------------------

PREFIX_SUFFIX = "_with_peftlab"


def check_attention(model: nn.Module) -> None:
    """Raise PeftLabError unless prefixes can enter the attention of this model."""
    for module in attention_modules(model):
        plain = module.config._attn_implementation
        if "peftlab_seat" not in module.__dict__ and plain not in ("eager", "sdpa"):
            raise PeftLabError(
                f"prefix tuning works with the attention implementations eager and sdpa, not {plain!r}; "
                "load the model with attn_implementation='sdpa'"
            )


def seat_attention(model: nn.Module, runtime: Runtime) -> None:
    """Route every self-attention module through `runtime`'s active prefixes.

    Each module gets its own copy of the config with another attention implementation in it; the model's config, which
    other models may share, stays as it is.
    """
    for layer, module in enumerate(attention_modules(model)):
        if "peftlab_seat" in module.__dict__:
            continue
        plain = module.config._attn_implementation
        _register(plain)
        module.__dict__["peftlab_seat"] = _Seat(runtime, layer, module.config)
        module.config = copy.copy(module.config)
        module.config._attn_implementation_internal = plain + PREFIX_SUFFIX


def unseat_attention(model: nn.Module) -> None:
    """Undo `seat_attention`: the very same config objects go back."""
    for module in attention_modules(model):
        seat = module.__dict__.pop("peftlab_seat", None)
        if seat is not None:
            module.config = seat.config


class _Seat:
    """Where an attention module finds the runtime, its layer number, and its own config."""

    def __init__(self, runtime: Runtime, layer: int, config: Any) -> None:
        self.runtime, self.layer, self.config = runtime, layer, config


def _register(plain: str) -> None:
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(plain + PREFIX_SUFFIX, _with_prefix(plain))


def _plain_attention(plain: str, module: nn.Module) -> Callable[..., Any]:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if plain == "eager":  # eager attention is a function of each model's own file
        return sys.modules[type(module).__module__].eager_attention_forward
    return ALL_ATTENTION_FUNCTIONS[plain]


def _with_prefix(plain: str) -> Callable[..., Any]:
    def attention(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, **kwargs: Any) -> Any:
        seat = module.__dict__["peftlab_seat"]
        state = seat.runtime.state
        if not state.disabled:
            parts = seat.runtime.active_shared(state.rows)
            for part in [part for part in parts if part.on_attention is not None]:
                q, k, v, mask = part.on_attention(seat.layer, module, q, k, v, mask)
        return _plain_attention(plain, module)(module, q, k, v, mask, **kwargs)

    return attention


def widen_mask(module: nn.Module, mask: Tensor | None, q: Tensor, keys: int, n: int) -> Tensor | None:
    """A mask over `keys` keys, widened so that n prefix positions before them are visible to every query.

    None means "everything" to eager attention, and "causal where the module is" to sdpa, which counts its triangle from
    the first key on (later keys are the empty places of a static cache). With a prefix in front, it must be spelt out.
    Shapes: mask (batch or 1, heads or 1, queries, keys) -> (…, n + keys).
    """
    queries = q.shape[2]
    if mask is None:
        eager = module.config._attn_implementation.startswith("eager")
        if queries == 1 or eager or not getattr(module, "is_causal", True):
            return None
        positions = torch.arange(keys, device=q.device)
        mask = (positions[None, :] <= positions[:queries, None])[None, None]
    visible = torch.ones if mask.dtype == torch.bool else torch.zeros
    front = visible(*mask.shape[:-1], n, dtype=mask.dtype, device=mask.device)
    return torch.cat([front, mask], dim=-1)


@torch.no_grad()
def cached_keys_and_values(model: nn.Module, ids: Tensor) -> Tensor:
    """What the model's cache holds after reading `ids`, (1, T), in eval mode: (T, layers, 2, kv_heads, d_h)."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        cache = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True).past_key_values
    finally:
        for module, mode in modes.items():
            module.training = mode
    layers = [torch.stack([layer.keys[0], layer.values[0]]) for layer in cache.layers]  # each (2, kv_heads, T, d_h)
    return torch.stack(layers).permute(3, 0, 1, 2, 4)


# ---- adaption prompts: what an attention module makes of vectors that are given to it ------------------------------

ADAPTION_TARGETS = {"llama": "self_attn", "mistral": "self_attn", "gpt2": "attn"}  # by model_type, as in peft


def adaption_target(model: nn.Module) -> str:
    """The last part of the name of the attention modules. Raises PeftLabError for models that peft does not know."""
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if kind not in ADAPTION_TARGETS:
        raise PeftLabError(
            f"LLaMA-Adapter needs attention that it can compute again: it knows {', '.join(ADAPTION_TARGETS)} models, "
            f"as peft does; {type(model).__name__} is {'none of them' if kind is None else kind}, so choose "
            "another method"
        )
    return ADAPTION_TARGETS[kind]


def queries(module: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    """The queries, with their positions, that the attention `module` makes in this call: (batch, heads, T, d_h)."""
    hidden = args[0] if args else kwargs["hidden_states"]
    q = module.q_proj(hidden) if hasattr(module, "q_proj") else module.c_attn(hidden).chunk(3, dim=-1)[0]
    q = q.view(*hidden.shape[:-1], -1, module.head_dim).transpose(1, 2)
    positions = kwargs.get("position_embeddings")
    return q if positions is None else sys.modules[type(module).__module__].apply_rotary_pos_emb(q, q, *positions)[0]


def keys_and_values(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of x (1, n, d), without positions, one for each query head: (1, heads, n, d_h)."""
    if hasattr(module, "k_proj"):
        k, v = module.k_proj(x), module.v_proj(x)
    else:
        k, v = module.c_attn(x).chunk(3, dim=-1)[1:]
    k, v = (part.view(1, x.shape[1], -1, module.head_dim).transpose(1, 2) for part in (k, v))
    groups = getattr(module, "num_key_value_groups", 1)
    return k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)


def joined_heads(module: nn.Module, heads: Tensor) -> Tensor:
    """(batch, heads, T, d_h) -> (batch, T, d), through W_O; on GPT-2 without it, as in peft."""
    joined = heads.transpose(1, 2).flatten(2)
    return module.o_proj(joined) if hasattr(module, "o_proj") else joined


# ---- generation ---------------------------------------------------------------------------------------------------


class RoutedGenerate:
    """`model.generate` that also takes `adapter_names` or `task_ids`, one for each row of the input, as peft's does."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.before = model.__dict__.get("generate")  # a function that someone had put on this very model

    def __call__(self, *args: Any, adapter_names: list[str] | None = None, **kwargs: Any) -> Any:
        model = self.model
        tasks = kwargs.pop("task_ids", None) if model.peftlab.takes_task_ids else None
        if adapter_names is not None or tasks is not None:
            given = kwargs.get("generation_config") or (args[1] if len(args) > 1 else None)
            config = given or model.generation_config
            copies = max(
                kwargs.get("num_beams") or config.num_beams or 1,
                kwargs.get("num_return_sequences") or config.num_return_sequences or 1,
            )
            if adapter_names is not None:
                adapter_names = model.peftlab.check_rows(adapter_names)
                adapter_names = [name for name in adapter_names for _ in range(copies)]
            if tasks is not None and copies > 1:
                tasks = torch.as_tensor(tasks).repeat_interleave(copies)
        with model.peftlab.pin(adapter_names, tasks):
            generate = self.before or partial(type(model).generate, model)
            return generate(*args, **kwargs)


def install(model: nn.Module, runtime: Runtime) -> None:
    """Register the runtime at `model.peftlab`, its hook, and generation's routing."""
    model.peftlab = runtime
    model.register_forward_pre_hook(runtime.before_forward, with_kwargs=True)
    model.register_forward_hook(runtime.after_forward, always_call=True)
    if hasattr(type(model), "generate"):
        model.__dict__["generate"] = RoutedGenerate(model)


def uninstall(model: nn.Module) -> None:
    """Take everything that `install` put there out again."""
    runtime = model.peftlab
    for key, hook in list(model._forward_pre_hooks.items()):
        if getattr(hook, "__self__", None) is runtime:
            del model._forward_pre_hooks[key]
            model._forward_pre_hooks_with_kwargs.pop(key, None)
    for key, hook in list(model._forward_hooks.items()):
        if getattr(hook, "__self__", None) is runtime:
            del model._forward_hooks[key]
            model._forward_hooks_always_called.pop(key, None)
    routed = model.__dict__.pop("generate", None)
    if isinstance(routed, RoutedGenerate) and routed.before is not None:
        model.__dict__["generate"] = routed.before
    del model.peftlab
