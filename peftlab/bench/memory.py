"""Memory of one training step: predicted from the config, and measured as the peak bytes of live tensors.

Each cell is a process of its own, so that its resident memory is its own. Resident memory is larger: it holds Python,
the libraries and what the kernels use inside.
"""

from __future__ import annotations

import gc
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import torch

import peftlab
from peftlab.bench.results import Results
from peftlab.costs import memory
from peftlab.costs.live import LiveBytes, resident_peak
from peftlab.methods import LoRA
from peftlab.tasks import models

STORED_AS = "memory_cpu"  # data/results/memory_cpu.json
MODELS = ("tiny", "minilm", "smollm2")
SHAPES = ((4, 32), (8, 128))
CLASSES = 12
RANK = 8


def run(results: Results) -> None:
    results.settings(shapes=SHAPES, r=RANK, target_modules="all-linear", dtype="fp32", threads=1, classes=CLASSES)
    results.cell("python", partial(_apart, resident_peak))
    for name in MODELS:
        for method in ("full", "lora"):
            for checkpointing in (False, True):
                for batch, sequence in SHAPES:
                    cell = f"{name}/{method}/{'checkpointing' if checkpointing else 'plain'}/{batch}x{sequence}"
                    work = partial(_apart, compared, name, method, checkpointing, batch, sequence)
                    results.cell(cell, work)


def compared(name: str, method: str, checkpointing: bool, batch: int, sequence: int) -> dict[str, Any]:
    """Predicted and measured bytes of the second training step, and where the peak was predicted to be."""
    torch.set_num_threads(1)
    before = resident_peak()
    model, _ = models.load(name, **({"num_labels": CLASSES} if name == "minilm" else {}))
    predicted = predict(model.config.to_dict(), method, checkpointing, batch, sequence)
    measured = measure(model, method, checkpointing, batch, sequence)
    return {
        "predicted": predicted.total,
        **measured,
        "error": round(predicted.total / measured["measured"] - 1, 4),
        "moment": predicted.moment,
        "resident": resident_peak(),
        "resident_before": before,
    }


def predict(config: dict[str, Any], method: str, checkpointing: bool, batch: int, sequence: int) -> memory.Memory:
    return memory.training(
        config,
        "full" if method == "full" else LoRA(r=RANK, target_modules="all-linear"),
        batch=batch,
        sequence=sequence,
        dtype="fp32",
        checkpointing=checkpointing,
        device="cpu",
    )


def measure(model: torch.nn.Module, method: str, checkpointing: bool, batch: int, sequence: int) -> dict[str, int]:
    """Peak bytes of live tensors in the second step: forward, backward, AdamW. The rate is 0, so nothing drifts."""
    encoder = hasattr(model, "classifier")
    if method == "full":
        model.requires_grad_(True)
    else:
        peftlab.attach(model, LoRA(r=RANK, target_modules="all-linear"))
    if checkpointing:
        model.config.use_cache = False
        model.gradient_checkpointing_enable()
    model.train()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 1000, (batch, sequence), generator=generator)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    inputs["labels"] = torch.arange(batch) % CLASSES if encoder else ids
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0)

    def once() -> dict[str, int]:
        peaks = {}
        live.reset_peak()
        loss = model(**inputs).loss
        peaks["forward"] = live.peak
        live.reset_peak()
        loss.backward()
        peaks["backward"] = live.peak
        live.reset_peak()
        optimizer.step()
        peaks["step"] = live.peak
        optimizer.zero_grad()
        return peaks

    with LiveBytes(model, *inputs.values()) as live:
        once()
        gc.collect()  # the first step's graph
        start = live.now
        peaks = once()
    return {"measured": max(peaks.values()), "before": start, **peaks}


def _apart(work: Any, *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()
