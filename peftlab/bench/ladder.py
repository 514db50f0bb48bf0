"""A ladder of small language models, every rung trained on the same tokens: how does the loss fall with size?

Llama models from 25 thousand to 38 million parameters beside the embedding, trained from nothing on the corpus of the
tiny model: one pass over its 11.5 million tokens, so no token is seen twice, and for comparison four passes. The
learning rate of each rung is chosen on the validation split (three at first, and on while the best is at the edge);
the test split is read once at the end of each final run. Three seeds for one pass, one for four.

    PEFTLAB_CORPUS=FOLDER PEFTLAB_WORKERS=12 python -m peftlab.bench ladder

FOLDER is what data/build/tiny_corpus.py wrote. Needs a GPU.
"""

from __future__ import annotations

import importlib.util
import math
import os
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from peftlab.bench import parallel
from peftlab.bench.parallel import Job
from peftlab.bench.results import Results
from peftlab.errors import PeftLabError
from peftlab.tasks.data_files import data_folder

RUNGS = ((32, 2), (48, 3), (64, 4), (96, 5), (128, 6), (192, 7), (256, 8), (384, 10), (512, 12))  # width, layers
BATCH = 32  # windows of 256 tokens
RATES = (2e-3, 4e-3, 8e-3)
SEEDS = (0, 1, 2)
PASSES = (1, 4)
WEIGHT_DECAY, BETAS, CLIP = 0.1, (0.9, 0.95), 1.0
POINTS = 8  # of the validation curve


def run(results: Results) -> None:
    if not torch.cuda.is_available():
        raise PeftLabError("the ladder is trained on a GPU; on a CPU it would take days")
    corpus()
    results.settings(
        rungs=[list(rung) for rung in RUNGS],
        batch=BATCH,
        context=_recipe().CONTEXT,
        first_rates=list(RATES),
        seeds=list(SEEDS),
        passes=list(PASSES),
        optimizer="AdamW, warm-up 3 %, cosine to 2 %",
        weight_decay=WEIGHT_DECAY,
        clip=CLIP,
        precision="bf16 autocast, fp32 weights",
    )
    plans = [plan(width, layers, passes) for passes in PASSES for width, layers in reversed(RUNGS)]
    parallel.run(results, plans)


def plan(width: int, layers: int, passes: int) -> parallel.Plan:
    """Choose a learning rate for a rung, then train it with each seed. Few passes and wide rungs first."""
    rung = f"{passes}/{width}"

    def job(lr: float, seed: int, on: str) -> Job:
        arguments = {"width": width, "layers": layers, "passes": passes, "lr": lr, "seed": seed, "on": on}
        return Job(train, arguments, rank=passes * 1000 - width)

    tried: Mapping[str, Any] = {}
    rates = set(RATES)
    while True:
        keys = {f"choose/{rung}/{lr:g}": lr for lr in sorted(rates)}
        tried = yield {key: job(lr, SEEDS[0], "validation") for key, lr in keys.items()}
        best = keys[min(keys, key=lambda key: tried[key]["loss"])]
        further = {max(rates): 2 * best, min(rates): best / 2}.get(best)
        if further is None:
            break
        rates.add(further)
    seeds = SEEDS if passes == 1 else SEEDS[:1]
    yield {f"final/{rung}/{seed}": job(best, seed, "test") for seed in seeds}


def new_model(width: int, layers: int, vocabulary: int) -> torch.nn.Module:
    """A Llama of this width, float32. Embedding and head are one matrix."""
    from transformers import LlamaConfig, LlamaForCausalLM

    heads = max(2, width // 64)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=round(width * 8 / 3 / 16) * 16,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=_recipe().CONTEXT,
            tie_word_embeddings=True,
        )
    )


def train(*, width: int, layers: int, passes: int, lr: float, seed: int, on: str) -> dict[str, Any]:
    """One run, and its loss on a held-out split (nats per token). N leaves the embedding out, N_total does not."""
    recipe = _recipe()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = recipe.Corpus.read(corpus(), "train")
    held = recipe.Corpus.read(corpus(), "validation")
    windows = recipe.held_out(held, device)
    torch.manual_seed(seed)
    model = new_model(width, layers, recipe._vocabulary(corpus())).to(device)
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=BETAS, fused=device.type == "cuda")
    steps = round(passes * len(data.tokens) / (BATCH * recipe.CONTEXT))
    batches: Iterator[torch.Tensor] = recipe.epochs(data, device, BATCH, seed)
    curve, last = [], []
    start = time.perf_counter()
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate(step - 1, steps, lr)
        loss = recipe.losses(model, next(batches))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step > 0.95 * steps:
            last.append(loss.detach())
        if step % max(1, steps // POINTS) == 0:
            found = recipe.evaluate(model, windows, held.names)["all"]["loss"]
            curve.append([step * BATCH * recipe.CONTEXT, found if math.isfinite(found) else None])
    seconds = time.perf_counter() - start
    if on == "test":
        held = recipe.Corpus.read(corpus(), "test")
        windows = recipe.held_out(held, device)
    loss = recipe.evaluate(model, windows, held.names)["all"]["loss"]
    N_total = sum(p.numel() for p in model.parameters())
    return {
        "layers": layers,
        "N": N_total - model.get_input_embeddings().weight.numel(),
        "N_total": N_total,
        "lr": lr,
        "steps": steps,
        "tokens": steps * BATCH * recipe.CONTEXT,
        "loss": loss if math.isfinite(loss) else 99.0,
        "train_loss": round(torch.stack(last).mean().item(), 4),
        "validation": curve,
        "seconds": round(seconds, 1),
    }


def corpus() -> Path:
    folder = os.environ.get("PEFTLAB_CORPUS", "")
    if not folder or not (Path(folder) / "corpus.json").is_file():
        raise PeftLabError("PEFTLAB_CORPUS must name the folder that data/build/tiny_corpus.py wrote")
    return Path(folder)


@cache
def _recipe() -> ModuleType:
    """data/build/tiny_model.py: the ladder is trained as the tiny model was."""
    import sys

    path = data_folder() / "build" / "tiny_model.py"
    spec = importlib.util.spec_from_file_location("tiny_model", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_model"] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module
