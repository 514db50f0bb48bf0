"""Module surgery: read and rebuild a layer's dense weight, put an adapter around a layer, take it out again."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor, nn

from peftlab.errors import PeftLabError
from peftlab.runtime import Adapted, Runtime, State


@dataclass(frozen=True)
class Site:
    """A place in a model where an adapter can go: the dotted name of a module, and the module as pretrained."""

    name: str
    module: nn.Module

    @property
    def kind(self) -> str:
        """'linear' (also transformers' transposed Conv1D), 'embedding', 'conv2d' or the class's own name."""
        if isinstance(self.module, nn.Linear) or is_transposed_linear(self.module):
            return "linear"
        if isinstance(self.module, nn.Embedding):
            return "embedding"
        if isinstance(self.module, nn.Conv2d):
            return "conv2d"
        return type(self.module).__name__

    @property
    def in_features(self) -> int:
        return features(self.module)[0]

    @property
    def out_features(self) -> int:
        return features(self.module)[1]

    @property
    def adapter_dtype(self) -> torch.dtype:
        """Adapters are float32 on half-precision and quantised layers, and follow float64 layers."""
        parameter = next(self.module.parameters(), None)
        return torch.float64 if parameter is not None and parameter.dtype == torch.float64 else torch.float32

    @property
    def device(self) -> torch.device:
        parameter = next(self.module.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device


def is_transposed_linear(module: nn.Module) -> bool:
    """transformers' Conv1D (GPT-2): a linear layer that stores its weight as (d_in, d_out)."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


@singledispatch
def features(module: nn.Module) -> tuple[int, int]:
    """(d_in, d_out) of a layer; for an embedding (vocabulary, d)."""
    if is_transposed_linear(module):
        return module.weight.shape[0], module.weight.shape[1]
    raise PeftLabError(
        f"a {type(module).__name__} is not a layer that this method can adapt; "
        "target nn.Linear, transformers' Conv1D, nn.Embedding or nn.Conv2d modules"
    )


@features.register
def _(module: nn.Linear) -> tuple[int, int]:
    return module.in_features, module.out_features


@features.register
def _(module: nn.Embedding) -> tuple[int, int]:
    return module.num_embeddings, module.embedding_dim


@features.register
def _(module: nn.Conv2d) -> tuple[int, int]:
    return module.in_channels, module.out_channels


@singledispatch
def dense(module: nn.Module) -> tuple[Tensor, Tensor | None]:
    """The weight and bias of a layer, whatever its storage.

    Linear and Conv1D: W of shape (d_out, d_in). Embedding: (vocabulary, d). Conv2d: (d_out, d_in, k, k).
    """
    if is_transposed_linear(module):
        return module.weight.T, module.bias
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        raise PeftLabError(f"a {type(module).__name__} has no weight that could be merged into")
    if not weight.is_floating_point():
        raise PeftLabError(
            f"this {type(module).__name__} holds its weight as {weight.dtype} codes that are not known here; for 4-bit "
            "layers of bitsandbytes call peftlab.quant.adopt(model) before you attach"
        )
    return weight, getattr(module, "bias", None)


def is_dense(module: nn.Module) -> bool:
    """False for a layer whose weight is stored as codes (4-bit, 8-bit)."""
    weight = module._parameters.get("weight")
    return weight is None or weight.is_floating_point()


@singledispatch
def with_dense(module: nn.Module, W: Tensor, b: Tensor | None) -> nn.Module:
    """A layer like `module` that holds W (in `dense`'s orientation) and b instead; `module` is left alone."""
    if is_transposed_linear(module):
        W = W.T
    return with_tensors(module, {"weight": W.contiguous(), "bias": b})


def with_tensors(module: nn.Module, tensors: Mapping[str, Tensor | None]) -> nn.Module:
    """A shallow copy of `module` with some of its own parameters replaced. Nothing else is copied."""
    twin = module.__class__.__new__(module.__class__)
    twin.__dict__ = module.__dict__.copy()
    twin._parameters = module._parameters.copy()
    twin._modules = module._modules.copy()
    for name, tensor in tensors.items():
        old = module._parameters.get(name)
        if tensor is None:
            twin._parameters[name] = None
            continue
        like = old if old is not None else next(module.parameters())
        value = tensor.detach().to(dtype=like.dtype, device=like.device)
        if old is not None and value.data_ptr() == old.data_ptr():
            continue
        twin._parameters[name] = nn.Parameter(value.clone(), requires_grad=False)
    return twin


def plain_copy(module: nn.Module) -> nn.Module:
    """A deep copy of a module as pretrained, without the adapters that may sit inside it."""
    twin = copy.deepcopy(module)
    for name, wrapper in adapted_modules(twin).items():
        replace(twin, name, wrapper.base)
    return twin


def base_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The model's modules by name as they were before any adapter was attached."""
    return {name: m.base if isinstance(m, Adapted) else m for name, m in _walk(model, "", set())}


def modules_in_place(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that answer, by the names they had before any adapter was attached: wrappers where adapted."""
    return dict(_walk(model, "", set()))


def adapted_modules(model: nn.Module) -> dict[str, Adapted]:
    """The wrappers that `attach` has put into the model, by the name of the module each one wraps."""
    return {name: module for name, module in _walk(model, "", set()) if isinstance(module, Adapted)}


def _walk(module: nn.Module, name: str, seen: set[int]) -> Iterator[tuple[str, nn.Module]]:
    inside = module.base if isinstance(module, Adapted) else module
    if id(inside) in seen:  # one module under two names counts under the first
        return
    seen.add(id(inside))
    yield name, module
    for child_name, child in inside.named_children():
        if isinstance(child, Runtime):
            continue
        yield from _walk(child, f"{name}.{child_name}" if name else child_name, seen)


def _parent(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds `name`, seen through wrappers, and the last part of the name."""
    *path, last = name.split(".")
    parent = model
    for part in path:
        parent = parent._modules[part]
        if isinstance(parent, Adapted):
            parent = parent.base
    return parent, last


def check_is_called(model: nn.Module, site: str) -> None:
    """Raise PeftLabError if the module around `site` reads its weight and never calls it: an adapter would sleep."""
    parent, last = _parent(model, site)
    if isinstance(parent, nn.MultiheadAttention):
        raise PeftLabError(
            f"nn.MultiheadAttention uses the weight of {site} without calling it, so an adapter there would do "
            f"nothing; exclude it (exclude_modules=[{last!r}])"
        )
    if isinstance(parent, nn.TransformerEncoderLayer) and torch.backends.mha.get_fastpath_enabled():
        raise PeftLabError(
            f"in eval mode nn.TransformerEncoderLayer uses the weight of {site} without calling it, so an adapter "
            "there would do nothing; call torch.backends.mha.set_fastpath_enabled(False) before attach"
        )


def put(model: nn.Module, site: str, name: str, adapter: nn.Module, state: State) -> None:
    """Wrap the module called `site`, if it is not wrapped yet, and add an adapter to it under `name`."""
    parent, last = _parent(model, site)
    module = parent._modules[last]
    if not isinstance(module, Adapted):
        module = Adapted(module, state)
        parent._modules[last] = module
    adapter.train(module.training)
    module.adapters[name] = adapter


def take_out(model: nn.Module, site: str, name: str) -> None:
    """Remove an adapter; once a wrapper holds none, the pretrained module itself goes back to its place."""
    parent, last = _parent(model, site)
    module = parent._modules[last]
    if name in module.adapters:
        del module.adapters[name]
    if not module.adapters:
        parent._modules[last] = module.base


def module_at(model: nn.Module, site: str) -> nn.Module:
    """Whatever stands at `site` now: a wrapper or a plain module."""
    parent, last = _parent(model, site)
    return parent._modules[last]


def replace(model: nn.Module, site: str, module: nn.Module) -> None:
    """Put a plain module in the place of whatever stands at `site`."""
    parent, last = _parent(model, site)
    parent._modules[last] = module


def tied_names(model: nn.Module, module: nn.Module) -> list[str]:
    """Names of other modules that hold the very same weight (a language model's head, say)."""
    weight = getattr(module, "weight", None)
    if weight is None:
        return []
    return [
        name
        for name, other in base_modules(model).items()
        if other is not module and other._parameters.get("weight") is weight
    ]
