r"""A linear layer with its weight in 4 bits, and QLoRA's base model (Dettmers et al., 2023, arXiv:2305.14314, eq. 5).

$$y = x\, \hat W^\top + b, \qquad \hat W = \text{dequantised } W, \qquad
\frac{\partial L}{\partial x} = \frac{\partial L}{\partial y}\, \hat W$$

The weight is dequantised for each use and thrown away again. It gets no gradient; its input does, because adapters
in earlier layers need one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from peftlab import hosts, surgery
from peftlab.errors import PeftLabError
from peftlab.quant import state
from peftlab.quant.quantized import Quantized, quantize
from peftlab.targeting import ALL_LINEAR, resolve_targets


class MatMul4bit(torch.autograd.Function):
    """y = x Ŵᵀ + b, with Ŵ made anew in each direction: autograd would keep the dense Ŵ of every layer until then."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Quantized, b: Tensor | None) -> Tensor:
        ctx.W = W
        return F.linear(x, W.dequantize(x.dtype), b)  # (…, d_in) -> (…, d_out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        dx = dy @ ctx.W.dequantize().to(dy.dtype) if ctx.needs_input_grad[0] else None  # (…, d_out) -> (…, d_in)
        db = dy.flatten(0, -2).sum(dim=0) if ctx.needs_input_grad[2] else None
        return dx, None, db


class Linear4bit(nn.Linear):
    """nn.Linear with W in 4 bits: `weight` holds the packed codes, (⌈d_out d_in / 2⌉, 1) uint8.

    Its state dict is that of bitsandbytes' Linear4bit. `.to(dtype)` leaves codes and scales alone.
    compute_dtype: what x and Ŵ are multiplied in; that of x, unless given.
    """

    def __init__(self, W: Quantized, b: Tensor | None = None, compute_dtype: torch.dtype | None = None) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would make a dense weight
        if len(W.shape) != 2:
            raise PeftLabError(f"a linear layer's weight is a matrix (d_out, d_in), not of shape {tuple(W.shape)}")
        self.out_features, self.in_features = W.shape
        self.weight = nn.Parameter(W.packed, requires_grad=False)
        self.bias = None if b is None else nn.Parameter(b.detach().clone(), requires_grad=False)
        self.compute_dtype = compute_dtype
        self._scales = _without_codes(W)

    @property
    def quantized(self) -> Quantized:
        """W as one object, with `dequantize()` and `bits_per_parameter`. The codes are the layer's own."""
        return replace(self._scales, packed=self.weight.data)

    def forward(self, x: Tensor) -> Tensor:
        inside = self.compute_dtype or x.dtype
        b = None if self.bias is None else self.bias.to(inside)
        return MatMul4bit.apply(x.to(inside), self.quantized, b).to(x.dtype)

    @property
    def packed_away(self) -> int:
        """Weights that share a byte with another one: how many more there are than elements of `weight`."""
        return self.quantized.numel - self.weight.numel()

    def extra_repr(self) -> str:
        W = self.quantized
        bits = f"{W.kind}, {W.bits_per_parameter:.3f} bits"
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, {bits}"

    def _apply(self, fn: Any, recurse: bool = True) -> Linear4bit:
        super()._apply(fn, recurse)
        self._scales = self._scales.to(self.weight.device)
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination |= state.scales_to_tensors(self._scales, f"{prefix}weight.")

    def _load_from_state_dict(
        self, found: Mapping[str, Tensor], prefix: str, meta: Any, strict: bool, missing: Any, extra: Any, errors: Any
    ) -> None:
        own, rest = f"{prefix}weight.", dict(found)
        if any(name.startswith(own) for name in found):
            W = state.read_quantized(found, f"{prefix}weight").to(self.weight.device)
            if W.shape != (self.out_features, self.in_features):
                errors.append(f"{prefix}weight is {tuple(W.shape)}, this layer needs {tuple(self._scales.shape)}")
                return
            self._scales, rest[f"{prefix}weight"] = _without_codes(W), W.packed
        elif f"{prefix}weight" in found:
            errors.append(
                f"{prefix}weight comes without its scales ({own}absmax, …): it is not in 4 bits. Load it into a plain "
                "model, then call quantize_model"
            )
            return
        super()._load_from_state_dict(rest, prefix, meta, strict, missing, extra, errors)
        extra[:] = [name for name in extra if not name.startswith(own)]


def _without_codes(W: Quantized) -> Quantized:
    return replace(W, packed=W.packed.new_empty(0, 1))


# ---- what the rest of the library asks of a layer -----------------------------------------------------------------


@surgery.dense.register
def _(module: Linear4bit) -> tuple[Tensor, Tensor | None]:
    return module.quantized.dequantize(), module.bias


@surgery.with_dense.register
def _(module: Linear4bit, W: Tensor, b: Tensor | None) -> nn.Module:
    """A plain nn.Linear: what was merged is not quantised again unless someone asks for it."""
    plain = nn.Linear(module.in_features, module.out_features, bias=b is not None, device="meta")
    plain.weight = nn.Parameter(W.detach().clone(), requires_grad=False)
    if b is not None:
        plain.bias = nn.Parameter(b.detach().clone(), requires_grad=False)
    return plain.train(module.training)


# ---- a whole model ------------------------------------------------------------------------------------------------


@torch.no_grad()
def quantize_model(
    model: nn.Module,
    kind: str = "nf4",
    blocksize: int = 64,
    double: bool = True,
    *,
    target_modules: str | list[str] = ALL_LINEAR,
    exclude_modules: str | list[str] | None = None,
    compute_dtype: torch.dtype | None = None,
) -> nn.Module:
    """Put a `Linear4bit` in the place of each linear layer (Conv1D too). Returns the same model.

    target_modules, exclude_modules: as for adapters. "all-linear" leaves out the output head, as transformers does, and
    classification heads. Layers in 4 bits stay as they are, so after `peftlab.merge` this quantises the merged ones.

    The dense weights are gone afterwards: keep a copy of the model to compare with.

    Raises PeftLabError (with the model untouched) if adapters are attached, no layer is left, or a layer does not fit.
    """
    if getattr(model, "peftlab", None) is not None:
        raise PeftLabError(
            "adapters are attached to this model; quantise first and attach then, or merge or detach them before"
        )
    names = resolve_targets(model, target_modules, exclude_modules=exclude_modules)
    if target_modules == ALL_LINEAR:
        names = [name for name in names if name.rpartition(".")[2] not in hosts.HEAD_NAMES]
    sites = [surgery.Site(name, model.get_submodule(name)) for name in names]
    sites = [site for site in sites if not isinstance(site.module, Linear4bit)]
    if not sites:
        raise PeftLabError(f"no layer of this {type(model).__name__} is left to quantise: all are in 4 bits already")
    layers = {site.name: quantized_layer(site, kind, blocksize, double, compute_dtype) for site in sites}
    for name, layer in layers.items():
        surgery.replace(model, name, layer)
    return model


def quantized_layer(
    site: surgery.Site, kind: str, blocksize: int, double: bool, compute_dtype: torch.dtype | None = None
) -> Linear4bit:
    """The layer at a site in 4 bits. Raises PeftLabError if it is not a linear layer, or its weight does not fit."""
    if site.kind != "linear":
        raise PeftLabError(f"{site.name} is a {type(site.module).__name__}; only linear layers can be quantised here")
    W, b = surgery.dense(site.module)
    layer = Linear4bit(quantize(W.detach(), kind, blocksize, double), b, compute_dtype)
    return layer.train(site.module.training)


def adopt(model: nn.Module) -> nn.Module:
    """Put our `Linear4bit` in the place of each of bitsandbytes', with the same bytes. Returns the same model.

    For models that `from_pretrained(…, quantization_config=BitsAndBytesConfig(load_in_4bit=True))` made: adapters could
    run on bitsandbytes' layers, but not be merged into them.
    """
    theirs = {name: module for name, module in surgery.base_modules(model).items() if is_bitsandbytes(module)}
    if not theirs:
        raise PeftLabError(f"this {type(model).__name__} has no 4-bit layers of bitsandbytes; see quantize_model")
    if getattr(model, "peftlab", None) is not None:
        raise PeftLabError("adapters are attached to this model; adopt first and attach then")
    layers = {}
    for name, module in theirs.items():
        tensors = module.state_dict()
        if "weight.absmax" not in tensors:
            raise PeftLabError(f"{name} is not quantised yet; move the model to its device first, which quantises it")
        layer = Linear4bit(state.read_quantized(tensors, "weight"), tensors.get("bias"), module.compute_dtype)
        layers[name] = layer.train(module.training)
    for name, layer in layers.items():
        surgery.replace(model, name, layer)
    return model


def is_bitsandbytes(module: nn.Module) -> bool:
    """True for a 4-bit layer of bitsandbytes, which need not be installed for the question."""
    return any(c.__name__ == "Linear4bit" and c.__module__.startswith("bitsandbytes.") for c in type(module).__mro__)
