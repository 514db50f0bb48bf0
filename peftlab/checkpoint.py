"""Read and write peft's format: a folder with adapter_config.json and adapter_model.safetensors.

The config names the method: `peft_type`, or `peftlab_type` for methods that peft lacks, whose folders open here only.
Files are written whole or not at all. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as format_safetensors
from torch import Tensor, nn

from peftlab.errors import CheckpointError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def write(folder: str | Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Write both files of an adapter; returns the folder. Old files stay until both new ones are on the disk."""
    folder = Path(folder)
    plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}  # tied ones parted
    text = json.dumps(dict(config), indent=2, sort_keys=True, default=_plain) + "\n"
    contents = {folder / WEIGHTS: format_safetensors(plain, metadata={"format": "pt"}), folder / CONFIG: text.encode()}
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; give the name of a folder to save into")
    folder.mkdir(parents=True, exist_ok=True)
    partial = {path: path.with_name(f".{path.name}.{os.getpid()}.partial") for path in contents}
    try:
        for path, content in contents.items():
            partial[path].write_bytes(content)
        for path in contents:
            os.replace(partial[path], path)
    finally:
        for leftover in partial.values():
            leftover.unlink(missing_ok=True)
    return folder


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset | tuple):
        return sorted(value)
    raise TypeError(f"{value!r} cannot be written to {CONFIG}")


def read(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config and the tensors of an adapter's folder. Raises CheckpointError if either cannot be read."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; give the folder that holds {CONFIG} and {WEIGHTS}")
    return _read_config(folder / CONFIG), read_tensors(folder / WEIGHTS)


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path.parent} holds no {CONFIG}, so it is not a saved adapter")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); copy or save the adapter again") from None
    kind = config.get("peftlab_type") or config.get("peft_type") if isinstance(config, dict) else None
    if not isinstance(kind, str):
        raise CheckpointError(
            f"{path} does not say which peft_type (or peftlab_type) it is, so it is not an adapter's config"
        )
    return config


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of one .safetensors file. Raises CheckpointError if it cannot be read."""
    path = Path(path)
    if not path.is_file():
        pickled = path.with_name("adapter_model.bin")
        if pickled.is_file():
            raise CheckpointError(
                f"{path.parent} holds only {pickled.name}, a pickle, which can run code when opened; load it with peft "
                f"where you trust it and save it again with safe_serialization=True"
            )
        raise CheckpointError(f"{path.parent} holds no {path.name}; save the adapter again")
    try:
        return parse_safetensors(path.read_bytes())
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({error}); it was cut short or is of another format: copy it again"
        ) from None


def fill(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], base: Mapping[str, nn.Module]) -> None:
    """Copy the file's tensors into the adapter's, after checking all names and shapes.

    `base` holds the pretrained modules by name: peft writes some of their weights into the file too (embeddings that
    are targeted), and those must equal what the model has.
    """
    extra = [name for name in found if name not in expected and not _is_known_copy(name, found[name], base)]
    missing = [name for name in expected if name not in found]
    wrong = [
        f"{name} is {tuple(found[name].shape)}, the model needs {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    problems = []
    if missing:
        problems.append(f"missing in the file: {_some(missing)}")
    if extra:
        problems.append(f"in the file but not in the model: {_some(extra)}")
    if wrong:
        problems.append(f"of another shape: {_some(wrong)}")
    if problems:
        raise CheckpointError(
            f"this adapter does not fit this model; {'; '.join(problems)}. Load it into the model it was trained on"
        )
    broken = [name for name in expected if not torch.isfinite(found[name].float()).all()]
    if broken:
        raise CheckpointError(f"the file holds values that are not finite, in {_some(broken)}: its training diverged")
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(found[name])


def _is_known_copy(name: str, tensor: Tensor, base: Mapping[str, nn.Module]) -> bool:
    path = name.removeprefix("base_model.model.")
    if "bias" in path and (".original_module." in path or ".modules_to_save." in path):
        return True  # with bias="all" peft writes the biases of kept modules a second time
    module, _, parameter = path.replace(".base_layer.", ".").rpartition(".")
    if module not in base or parameter not in base[module]._parameters:
        return False
    own = base[module]._parameters[parameter]
    same = own is not None and own.shape == tensor.shape and torch.equal(own.detach().cpu(), tensor.to(own.dtype))
    if not same:
        raise CheckpointError(
            f"the adapter was trained on a base with another {path.replace('.base_layer', '')} (a resized or trained "
            "embedding, say); load that base first"
        )
    return True


def _some(names: list[str], most: int = 4) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
