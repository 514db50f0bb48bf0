"""Full fine-tuning, LoRA and QLoRA of models of 1.1 and 6.7 billion parameters on one GPU: peak memory and speed.

Two Llama shapes with random weights (neither memory nor speed depends on their values), with and without gradient
checkpointing, in three rounds, all cells of a round after one another. Beside every peak stands what
`costs.memory.training` predicted from the config alone.

    full        torch.optim.AdamW on bf16 weights
    lora        peft, r=16 on every matrix of a block, adapters in fp32
    qlora       the same adapters on bitsandbytes' NF4 with doubly quantised scales
    qlora_ours  peftlab's LoRA on peftlab's 4-bit layers, with the same bytes in them
"""

from __future__ import annotations

import gc
import statistics
import time
from functools import partial
from typing import Any

import torch
from torch import nn

import peftlab
from peftlab.bench.results import Results
from peftlab.costs import memory
from peftlab.costs.live import LiveBytes
from peftlab.errors import PeftLabError
from peftlab.methods import LoRA
from peftlab.quant.linear import adopt

ROUNDS = 3
BATCH, SEQUENCE = 4, 512
RANK = 16
WARM_UP, TIMED = 2, 5  # steps
TARGETS = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
_LLAMA = {"model_type": "llama", "vocab_size": 32000, "tie_word_embeddings": False, "max_position_embeddings": 2048}
SHAPES: dict[str, dict[str, Any]] = {
    "1.1B": {
        **_LLAMA,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
    },
    "6.7B": {
        **_LLAMA,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    },
}
METHODS = ("full", "lora", "qlora", "qlora_ours")


def run(results: Results) -> None:
    if not torch.cuda.is_available():
        raise PeftLabError("this measurement needs a GPU with 60 GiB; `python -m peftlab.bench memory` needs none")
    results.settings(
        shapes=SHAPES,
        batch=BATCH,
        sequence=SEQUENCE,
        r=RANK,
        rounds=ROUNDS,
        steps={"warm_up": WARM_UP, "timed": TIMED},
        dtype="bf16",
        optimizer="torch.optim.AdamW(fused=True)",
        attention="sdpa",
        bitsandbytes=_version("bitsandbytes"),
    )
    for round_ in range(ROUNDS):
        for shape, config in SHAPES.items():
            for method in METHODS:
                for checkpointing in (False, True):
                    cell = f"{shape}/{method}/{'checkpointing' if checkpointing else 'plain'}/{round_}"
                    results.cell(cell, partial(compared, config, method, checkpointing))


def predict(
    config: dict[str, Any], method: str, checkpointing: bool, batch: int = BATCH, sequence: int = SEQUENCE
) -> memory.Memory:
    """Peak memory of a step, from the config alone. Both kinds of 4-bit layers hold the same bytes."""
    return memory.training(
        config,
        method.removesuffix("_ours"),
        batch=batch,
        sequence=sequence,
        dtype="bf16",
        kernel="fused",
        checkpointing=checkpointing,
    )


def compared(config: dict[str, Any], method: str, checkpointing: bool) -> dict[str, Any]:
    predicted = predict(config, method, checkpointing)
    measured = measure(config, method, checkpointing, BATCH, SEQUENCE, "cuda")
    gc.collect()  # the model, so that the next cell starts from nothing
    torch.cuda.empty_cache()
    error = round(predicted.total / measured["measured"] - 1, 4)
    return {"predicted": predicted.total, **measured, "error": error, "moment": predicted.moment}


def measure(
    config: dict[str, Any], method: str, checkpointing: bool, batch: int, sequence: int, device: str
) -> dict[str, Any]:
    """Bytes of the model alone and at the peak of a step, and on a GPU tokens per second (median of TIMED steps).

    On a GPU the peak is the allocator's, on a CPU that of live tensors.
    """
    before = torch.cuda.memory_allocated() if device == "cuda" else 0
    model = build(config, method, checkpointing, device)
    weights = torch.cuda.memory_allocated() - before if device == "cuda" else 0
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, fused=True)
    ids = torch.randint(0, config["vocab_size"], (batch, sequence), device=device)

    def once() -> None:
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    once()
    if device != "cuda":
        with LiveBytes(model, optimizer, ids) as live:
            once()
        return {"weights": weights, "measured": live.peak, "before": before}
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(WARM_UP - 1):
        once()
    seconds = []
    for _ in range(TIMED):
        torch.cuda.synchronize()
        start = time.perf_counter()
        once()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {
        "weights": weights,
        "measured": torch.cuda.max_memory_allocated() - before,
        "reserved": torch.cuda.max_memory_reserved(),
        "before": before,
        "seconds_a_step": [round(s, 5) for s in seconds],
        "tokens_a_second": round(batch * sequence / statistics.median(seconds)),
    }


def build(config: dict[str, Any], method: str, checkpointing: bool, device: str) -> nn.Module:
    """A model of this shape with random weights in bf16, ready to train."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device(device):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.bfloat16)
    if method.startswith("qlora"):
        model.requires_grad_(False)
        for layer in model.model.layers:
            quantise(layer, device)
    if checkpointing:
        model.config.use_cache = False
        model.gradient_checkpointing_enable()
    if method == "qlora_ours":
        model = peftlab.attach(adopt(model), LoRA(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS))
    elif method != "full":
        model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS))
    return model.train()


def quantise(module: nn.Module, device: str) -> None:
    """Every linear layer inside becomes bitsandbytes' NF4 with doubly quantised scales, one at a time."""
    import bitsandbytes as bnb

    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            new = bnb.nn.Linear4bit(
                child.in_features,
                child.out_features,
                bias=child.bias is not None,
                compute_dtype=torch.bfloat16,
                compress_statistics=True,
                quant_type="nf4",
                device="meta",
            )
            new.weight = bnb.nn.Params4bit(
                child.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4"
            )
            new.bias = child.bias
            setattr(module, name, new.to(device))
        else:
            quantise(child, device)


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError as missing:
        raise PeftLabError(f"this measurement needs {package}: pip install {package}") from missing
