"""The course's three models side by side: size on disk, time of a training step and memory, on one CPU thread.

Each cell is a process of its own, so that its peak memory is its own. Time is the processor's, not the clock's: a busy
machine changes it little.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from statistics import median
from typing import Any

import torch

import peftlab
from peftlab.bench.results import Results
from peftlab.bench.step_time import step
from peftlab.methods import LoRA
from peftlab.tasks import datasets, models

ROWS, TOKENS = 8, 32
STEPS = 9  # the first two warm up
TARGETS = {"tiny": ["q_proj", "v_proj"], "minilm": ["query", "value"], "smollm2": ["q_proj", "v_proj"]}


def run(results: Results) -> None:
    results.settings(rows=ROWS, tokens=TOKENS, steps=STEPS, threads=1, r=8, target_modules=TARGETS)
    results.cell("python", partial(_apart, resident_megabytes))  # Python with PyTorch and transformers, no model
    sizes = {row["name"]: row for row in models.describe()}
    for name in TARGETS:
        for kind in ("lora", "full"):
            results.cell(f"{kind}/{name}", partial(_apart, measured, name, kind))
        results.cell(f"disk/{name}", lambda name=name: sizes[name]["MB on disk"])


def measured(name: str, kind: str) -> dict[str, Any]:
    """Median processor seconds of a training step of ROWS x TOKENS tokens, and the peak of resident memory."""
    torch.set_num_threads(1)
    data = datasets.load("wordnet_topics")
    classes = {"num_labels": len(data.classes)} if name == "minilm" else {}
    model, tokenizer = models.load(name, **classes)
    texts = [" ".join(data.train.texts[row : row + 8]) for row in range(ROWS)]
    batch = dict(tokenizer(texts, truncation=True, max_length=TOKENS, return_tensors="pt"))
    assert batch["input_ids"].shape == (ROWS, TOKENS)  # long enough: no padding
    batch["labels"] = torch.tensor(data.train.labels[:ROWS]) if classes else batch["input_ids"]
    if kind == "lora":
        model = peftlab.attach(model, LoRA(r=8, lora_alpha=16, target_modules=TARGETS[name]))
    else:
        model.requires_grad_(True)
    once = step(model, batch)
    seconds = []
    for _ in range(STEPS):
        start = time.process_time()
        once()
        seconds.append(time.process_time() - start)
    return {"seconds": round(median(seconds[2:]), 4), "peak_mb": resident_megabytes()}


def resident_megabytes() -> int:
    """Peak resident memory of this process. Linux counts in kB, macOS in bytes."""
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3))


def _apart(work: Any, *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()
