"""The 4-bit state dict that transformers saves for bitsandbytes, read and written.

For a layer's `weight` (packed codes) it holds

    weight.absmax                          scales: float32, or with double quantisation uint8 codes
    weight.quant_map                       the codebook, (16,) float32
    weight.nested_absmax                   \\  with double quantisation only: the scales' own scales
    weight.nested_quant_map                /  and the 256 levels of their codes
    weight.quant_state.bitsandbytes__nf4   JSON as bytes: kind, blocksize, dtype, shape, and the scales' mean

bitsandbytes knows nf4 and fp4. The other kinds of this course are written the same way under `peftlab__…`, which
only opens here; their second statistic is called `minimum`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from peftlab.errors import CheckpointError
from peftlab.quant.double_quant import DoubleQuantized, Statistic
from peftlab.quant.eight_bit import EightBit, dynamic_levels
from peftlab.quant.quantized import CODEBOOKS, Quantized, levels_of

FORMATS = {kind: f"{'bitsandbytes' if kind in ('nf4', 'fp4') else 'peftlab'}__{kind}" for kind in CODEBOOKS}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


# ---- writing ------------------------------------------------------------------------------------------------------


def scales_to_tensors(W: Quantized, prefix: str) -> dict[str, Tensor]:
    """All that stands beside the packed codes, by full name; `prefix` is 'weight.' or 'layer.weight.'."""
    tensors, about = _statistic(W.absmax, "")
    facts = {
        "quant_type": W.kind,
        "blocksize": W.blocksize,
        "dtype": dtype_name(W.dtype),
        "shape": list(W.shape),
    } | about
    tensors["quant_map"] = W.levels.clone()
    if W.minimum is not None:
        more, about = _statistic(W.minimum, "minimum_")
        tensors, facts = tensors | more, facts | about
    tensors[f"quant_state.{FORMATS[W.kind]}"] = torch.tensor(list(json.dumps(facts).encode()), dtype=torch.uint8)
    return {prefix + name: tensor for name, tensor in tensors.items()}


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _statistic(statistic: Statistic, which: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of the scales (which = '') or of the minima (which = 'minimum_')."""
    if isinstance(statistic, Tensor):
        return {f"{which}absmax": statistic}, {}
    inner = statistic.inner
    tensors = {
        f"{which}absmax": inner.codes,
        f"{which}nested_absmax": inner.absmax,
        f"{which}nested_quant_map": dynamic_levels().to(inner.codes.device, copy=True),
    }
    facts = {"nested_blocksize": inner.blocksize, "nested_dtype": "float32", "nested_offset": statistic.offset.item()}
    return tensors, {which + name: value for name, value in facts.items()}


# ---- reading ------------------------------------------------------------------------------------------------------


def read_quantized(tensors: Mapping[str, Tensor], name: str) -> Quantized:
    """The weight called `name` ('weight', 'layer.weight') from a state dict.

    Raises CheckpointError if a part is missing or damaged, or the file's codebook is not the one of its kind.
    """
    own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
    label = [key for key in own if key.startswith("quant_state.")]
    if name not in tensors or len(label) != 1:
        raise CheckpointError(f"{name} is not in 4 bits in this file: it has {', '.join(sorted(own)) or 'no scales'}")
    facts = _facts(own.pop(label[0]), name)
    kind = facts["quant_type"]
    if FORMATS.get(kind) != label[0].removeprefix("quant_state."):
        raise CheckpointError(f"{name} is of the kind {kind!r}; this course reads {', '.join(FORMATS)}")
    try:
        minimum = _read_statistic(own, facts, "minimum_", name) if "minimum_absmax" in own else None
        W = Quantized(
            packed=tensors[name].view(torch.uint8).reshape(-1, 1),  # some files keep the bytes in wider numbers
            absmax=_read_statistic(own, facts, "", name),
            kind=kind,
            blocksize=int(facts["blocksize"]),
            shape=torch.Size(facts["shape"]),
            dtype=DTYPES[facts["dtype"]],
            minimum=minimum,
        )
        levels = own["quant_map"].cpu()
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{name}: a part is missing or damaged ({error}); copy or save the file again") from None
    _check(W, levels, name)
    return W


def _facts(blob: Tensor, name: str) -> dict[str, Any]:
    try:
        facts = json.loads(bytes(blob.tolist()))
        return {**facts, "quant_type": facts["quant_type"]}
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{name}: its quant_state is not readable ({error}); copy the file again") from None


def _read_statistic(own: Mapping[str, Tensor], facts: Mapping[str, Any], which: str, name: str) -> Statistic:
    if f"{which}nested_absmax" not in own:
        return own[f"{which}absmax"].float()
    if not torch.equal(own[f"{which}nested_quant_map"].cpu(), dynamic_levels()):
        raise CheckpointError(f"{name}: its scales are coded with other levels than the dynamic ones read here")
    blocksize = int(facts[f"{which}nested_blocksize"])
    inner = EightBit(own[f"{which}absmax"], own[f"{which}nested_absmax"], blocksize=blocksize)
    return DoubleQuantized(inner, torch.tensor(float(facts[f"{which}nested_offset"]), device=inner.codes.device))


def _check(W: Quantized, levels: Tensor, name: str) -> None:
    if not torch.equal(levels, levels_of(W.kind)):
        raise CheckpointError(f"{name}: the file's codebook is not that of {W.kind}; another quantiser wrote it")
    blocks = -(-W.numel // W.blocksize)
    found = W.absmax.numel() if isinstance(W.absmax, Tensor) else W.absmax.inner.codes.numel()
    if W.packed.numel() != -(-W.numel // 2) or found != blocks:
        raise CheckpointError(
            f"{name}: shape {tuple(W.shape)} in blocks of {W.blocksize} needs {-(-W.numel // 2)} bytes and {blocks} "
            f"scales, the file holds {W.packed.numel()} and {found}; copy or save it again"
        )
