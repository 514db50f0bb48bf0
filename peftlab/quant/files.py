"""A whole 4-bit model on disk, in the form that transformers writes for bitsandbytes and opens again.

    save_quantized(model, folder)       # AutoModelForCausalLM.from_pretrained(folder) opens it, with bitsandbytes
    model = load_quantized(folder)      # opens what save_pretrained wrote of a bitsandbytes model

bitsandbytes itself is needed for neither.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from torch import Tensor, nn

from peftlab import surgery
from peftlab.errors import CheckpointError, PeftLabError
from peftlab.quant import state
from peftlab.quant.double_quant import DoubleQuantized
from peftlab.quant.linear import Linear4bit

LABEL = ".weight.quant_state."  # in the name of a tensor: this layer is in 4 bits


def save_quantized(model: nn.Module, folder: str | Path) -> Path:
    """Write a model of transformers whose layers are `Linear4bit`. Returns the folder.

    Raises PeftLabError for adapters (peftlab.save keeps those), for no layer in 4 bits, and for layers of several kinds
    or of a kind that bitsandbytes does not have.
    """
    if getattr(model, "peftlab", None) is not None:
        raise PeftLabError("this model carries adapters: write them with peftlab.save, and the base without them")
    layers = {name: m for name, m in model.named_modules() if isinstance(m, Linear4bit)}
    if not layers or not hasattr(model, "save_pretrained"):
        raise PeftLabError(f"this {type(model).__name__} is no transformers model with layers in 4 bits")
    forms = {(m.quantized.kind, isinstance(m.quantized.absmax, DoubleQuantized)) for m in layers.values()}
    kind, double = next(iter(forms))
    if len(forms) > 1 or kind not in ("nf4", "fp4"):
        raise PeftLabError(
            f"transformers opens models whose layers are all nf4 or all fp4, with scales of one form; here are {forms}"
        )
    dense = [n for n, m in model.named_modules() if n not in layers and surgery.Site(n, m).kind == "linear"]
    about = {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "load_in_8bit": False,
        "bnb_4bit_quant_type": kind,
        "bnb_4bit_use_double_quant": double,
        "bnb_4bit_quant_storage": "uint8",
        "bnb_4bit_compute_dtype": state.dtype_name(next(iter(layers.values())).compute_dtype or torch.float32),
        "llm_int8_skip_modules": dense,
    }
    model.save_pretrained(folder)
    path = Path(folder) / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"quantization_config": about}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return Path(folder)


def load_quantized(folder: str | Path) -> nn.Module:
    """The model in a folder, in evaluation mode, with `Linear4bit` where the file has 4-bit weights.

    Raises CheckpointError if the folder holds no such model, or its tensors do not fit.
    """
    import transformers

    folder = Path(folder)
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise CheckpointError(f"{folder} holds no config.json with a .safetensors file: no saved model is there")
    config = transformers.AutoConfig.from_pretrained(folder)
    cls = getattr(transformers, (config.architectures or [""])[0], None)
    if cls is None:
        raise CheckpointError(f"{folder}/config.json names no architecture that transformers has")
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # we put the layers in ourselves
    model = cls._from_config(config)
    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            tensors |= parse_safetensors(path.read_bytes())
        except SafetensorError as error:
            raise CheckpointError(f"{path} is not a whole safetensors file ({error}); copy it again") from None
    return fill_quantized(model, tensors).eval()


def fill_quantized(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Put a whole model's tensors into `model`; layers that are in 4 bits in the file become `Linear4bit`.

    Raises CheckpointError, with the layers as they were, if names or shapes do not fit.
    """
    names = [name.partition(LABEL)[0] for name in tensors if LABEL in name]
    if not names:
        raise CheckpointError(
            "no tensor of this file is in 4 bits; open it with transformers, then quantize_model(model)"
        )
    modules = dict(model.named_modules())
    layers = {}
    for name in names:
        W = state.read_quantized(tensors, f"{name}.weight")
        if name not in modules or surgery.Site(name, modules[name]).kind != "linear":
            raise CheckpointError(f"{name} is in 4 bits, but this {type(model).__name__} has no linear layer there")
        d_in, d_out = surgery.features(modules[name])
        if tuple(W.shape) != (d_out, d_in):
            raise CheckpointError(f"{name} is {tuple(W.shape)}, the model needs {(d_out, d_in)}")
        layers[name] = Linear4bit(W, modules[name].bias).train(modules[name].training)
    for name, layer in layers.items():
        surgery.replace(model, name, layer)
    try:
        missing, extra = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"the file does not fit this model: {error}") from None
    if hasattr(model, "tie_weights"):
        model.tie_weights()
    tied = {name for name in missing if _is_tied(model, name)}
    lost = sorted(set(missing) - tied)
    if lost or extra:
        what = f"missing {lost[:3]}, not known {extra[:3]}"
        raise CheckpointError(f"the file does not fit this {type(model).__name__}: {what}")
    return model


def _is_tied(model: nn.Module, name: str) -> bool:
    """True if the parameter called `name` is also another one, which the file may hold in its place."""
    own = dict(model.named_parameters(remove_duplicate=False))
    return sum(other is own.get(name) for other in own.values()) > 1
