"""A ladder of small language models, every rung trained on the same tokens: how does the loss fall with size?

Llama models from 24 thousand to 38 million parameters beside the embedding, trained from nothing on the corpus of the
tiny model: one pass over its 11.5 million tokens, so no token is seen twice, and for comparison four passes. The
learning rate of each rung is chosen on the validation split: three at first, on while the best is at the edge, and
then the two between the best and its neighbours. The test split is read once, at the end of each final run. Three
seeds for one pass; one seed, five rungs and the same learning rate for four.

    PEFTLAB_CORPUS=FOLDER python -m peftlab.bench ladder

FOLDER is what data/build/tiny_corpus.py wrote. Needs a GPU.
"""

from __future__ import annotations

import importlib.util
import math
import os
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from peftlab.bench import parallel
from peftlab.bench.parallel import Job
from peftlab.bench.results import Results
from peftlab.errors import PeftLabError
from peftlab.tasks.data_files import data_folder

RUNGS = ((32, 2), (48, 3), (64, 4), (96, 5), (128, 6), (192, 7), (256, 8), (384, 10), (512, 12))  # width, layers
BATCH = 32  # windows of 256 tokens
RATES = (2e-3, 4e-3, 8e-3)
SEEDS = (0, 1, 2)
PASSES = 4  # for comparison
PASSED = (32, 64, 128, 256, 512)  # the rungs that are compared
WEIGHT_DECAY, BETAS, CLIP = 0.1, (0.9, 0.95), 1.0
POINTS = 8  # of the validation curve
DIVERGED = 99.0  # stands for a loss that is no number: JSON has none, and the search must find it worse than any other


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
        passes={"all": 1, **{str(width): PASSES for width in PASSED}},
        optimizer="AdamW, warm-up 3 %, cosine to 2 %",
        weight_decay=WEIGHT_DECAY,
        clip=CLIP,
        precision="bf16 autocast, fp32 weights",
    )
    parallel.run(results, [plan(width, layers) for width, layers in RUNGS])


def plan(width: int, layers: int) -> parallel.Plan:
    """Choose a learning rate for a rung with one pass, then train it with each seed; then four passes at that rate."""

    def job(lr: float, seed: int, on: str, passes: int = 1) -> Job:
        arguments = {"width": width, "layers": layers, "passes": passes, "lr": lr, "seed": seed, "on": on}
        return Job(train, arguments, rank=passes if on == "test" else 0)

    tried: dict[float, float] = {}
    wanted = set(RATES)
    while wanted:
        found = yield {f"choose/1/{width}/{lr:.4g}": job(lr, SEEDS[0], "validation") for lr in sorted(wanted)}
        tried |= {lr: found[f"choose/1/{width}/{lr:.4g}"]["loss"] for lr in wanted}
        best = min(tried, key=lambda lr: tried[lr])
        wanted = set()
        if best in (min(tried), max(tried)):
            wanted = {best / 2 if best == min(tried) else 2 * best}
        elif len(tried) == len({lr for lr in tried if _is_on_the_first_grid(lr)}):
            wanted = {best / math.sqrt(2), best * math.sqrt(2)}
    yield {f"final/1/{width}/{seed}": job(best, seed, "test") for seed in SEEDS}
    if width in PASSED:
        yield {f"final/{PASSES}/{width}/{SEEDS[0]}": job(best, SEEDS[0], "test", PASSES)}


def _is_on_the_first_grid(lr: float) -> bool:
    """A first rate, doubled or halved a few times; the refinement is halfway between two of these."""
    return abs(math.log2(lr / RATES[0]) % 1 - 0.5) > 0.25


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
    steps = round(passes * len(data.tokens) / (BATCH * recipe.CONTEXT))
    batches: Iterator[Tensor] = recipe.epochs(data, device, BATCH, seed)
    step = Step(model, lr, device)
    curve, last = [], []
    start = time.perf_counter()
    for number in range(1, steps + 1):
        loss = step(next(batches), recipe.learning_rate(number - 1, steps, lr))
        if number > 0.95 * steps:
            last.append(loss.clone())
        if number % max(1, steps // POINTS) == 0:
            found = recipe.evaluate(model, windows, held.names)["all"]["loss"]
            curve.append([number * BATCH * recipe.CONTEXT, found if math.isfinite(found) else None])
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
        "loss": loss if math.isfinite(loss) else DIVERGED,
        "train_loss": round(torch.stack(last).mean().item(), 4),
        "validation": curve,
        "seconds": round(seconds, 1),
    }


class Step:
    """One step of training. On a GPU the first few run as usual, then one is recorded and replayed as a CUDA graph.

    A small model keeps a GPU busy for less time than Python needs to ask for the work; a graph asks once.
    """

    USUAL = 3

    def __init__(self, model: torch.nn.Module, lr: float, device: torch.device) -> None:
        self.model, self.cuda, self.done = model, device.type == "cuda", 0
        self.lr = torch.tensor(lr, device=device)
        self.batch = torch.zeros(BATCH, _recipe().CONTEXT + 1, dtype=torch.long, device=device)
        groups = [
            {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=self.lr, betas=BETAS, fused=self.cuda, capturable=self.cuda)
        self.stream = torch.cuda.Stream() if self.cuda else None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.loss = torch.zeros(())

    def __call__(self, batch: Tensor, lr: float) -> Tensor:
        """The loss of this batch (batch, context + 1), before the step. The tensor is used again by the next call."""
        self.batch.copy_(batch)
        self.lr.fill_(lr)
        if not self.cuda:
            self._once()
        elif self.done < self.USUAL:  # on a stream of its own, as a recording needs it
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self._once()
            torch.cuda.current_stream().wait_stream(self.stream)
        else:
            if self.graph is None:
                self.graph = torch.cuda.CUDAGraph()
                self.optimizer.zero_grad(set_to_none=True)
                with torch.cuda.graph(self.graph):
                    self._once()
            self.graph.replay()
        self.done += 1
        return self.loss

    def _once(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss = _recipe().losses(self.model, self.batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        self.loss = loss.detach()


def corpus() -> Path:
    folder = os.environ.get("PEFTLAB_CORPUS", "")
    if not folder or not (Path(folder) / "corpus.json").is_file():
        raise PeftLabError("PEFTLAB_CORPUS must name the folder that data/build/tiny_corpus.py wrote")
    return Path(folder)


@cache
def _recipe() -> ModuleType:
    """data/build/tiny_model.py: the ladder is trained as the tiny model was."""
    path = data_folder() / "build" / "tiny_model.py"
    spec = importlib.util.spec_from_file_location("tiny_model", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_model"] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module
