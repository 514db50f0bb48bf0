"""LoRA with scissors: cut a real ΔW to r directions, against training at rank r (lesson 06).

MiniLM, WordNet topics, one epoch of 90 steps. Learning rates are chosen on the validation split with seed 0; the
test split is used once per cell.
"""

from __future__ import annotations

import copy
import sys
from functools import partial
from typing import Any

import torch
from torch import nn

import peftlab
from peftlab.bench.results import Results
from peftlab.course import scissors
from peftlab.methods import LoRA
from peftlab.tasks import datasets, metrics, models
from peftlab.tasks.training import train

SEEDS = (0, 1, 2, 3, 4)
CUTS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 384)
RANKS = (1, 2, 4, 8, 32)
SETTINGS = {"steps": 90, "batch_size": 32, "schedule": "linear", "warmup": 0, "max_length": 32}
CANDIDATES = {
    "full": (1e-4, 3e-4, 1e-3),
    "lora_all": (1e-3, 3e-3, 1e-2),
    "lora_qv": (1e-3, 3e-3, 1e-2),
    "head": (1e-3, 3e-3, 1e-2),
}
# A regular expression for the 36 matrices of the blocks, and the two that the LoRA paper adapts.
TARGETS = {"lora_all": r".*\.layer\.\d+\..*\.(query|key|value|dense)", "lora_qv": ["query", "value"]}


def run(results: Results) -> None:
    results.settings(**SETTINGS, seeds=list(SEEDS), candidates=CANDIDATES, data="wordnet_topics", model="minilm")
    data = datasets.load("wordnet_topics")
    base, tokenizer = models.load("minilm", num_labels=len(data.classes))
    base = base.to("cuda" if torch.cuda.is_available() else "cpu")
    start = Start(base, tokenizer, data)
    rate = {kind: choose(results, start, kind, rates) for kind, rates in CANDIDATES.items()}
    results.cell("majority", lambda: metrics.majority_accuracy(data.train, data.test))
    for seed in SEEDS:
        cut(results, start, rate["full"], seed)
        results.cell(f"head/{seed}", lambda: start.trained(head_only, rate["head"], seed)[1])  # noqa: B023
        measure = partial(lora, results, start, rate, seed)
        for r in RANKS:
            measure(f"lora_all/{r}", "lora_all", r, 2 * r)
        measure("lora_qv/8", "lora_qv", 8, 16)
    for seed in SEEDS[:3]:
        alpha_and_rate(results, start, seed)


class Start:
    """The pretrained model and the data, from which every cell starts again."""

    def __init__(self, base: nn.Module, tokenizer: Any, data: datasets.Dataset) -> None:
        self.base, self.tokenizer, self.data = base, tokenizer, data

    def trained(self, prepare: Any, lr: float, seed: int, *, on: str = "test") -> tuple[nn.Module, dict[str, Any]]:
        """A copy, prepared and trained, and what it does on held-out data. The head starts anew with each seed."""
        model = copy.deepcopy(self.base)
        torch.manual_seed(seed)
        model.classifier.reset_parameters()
        model = prepare(model)
        run = train(model, self.tokenizer, self.data.train, lr=lr, seed=seed, progress=sys.stderr.isatty(), **SETTINGS)
        found = metrics.evaluate(model, self.tokenizer, getattr(self.data, on))
        kept = {"accuracy": found.accuracy, "loss": found.loss, "trainable": run.trainable, "total": run.total}
        return model, kept | {"lr": lr, "seed": seed, "train_losses": [round(x, 4) for x in run.losses]}


def full(model: nn.Module) -> nn.Module:
    return model.requires_grad_(True)


def head_only(model: nn.Module) -> nn.Module:
    model.requires_grad_(False)
    model.classifier.requires_grad_(True)
    return model


def choose(results: Results, start: Start, kind: str, rates: tuple[float, ...]) -> float:
    """The learning rate with the best validation accuracy, seed 0."""
    prepare = {
        "full": full,
        "head": head_only,
        **{kind: partial(adapted, kind=kind, r=8, alpha=16) for kind in TARGETS},
    }[kind]
    found = {
        lr: results.cell(
            f"choose/{kind}/{lr}",
            lambda lr=lr: start.trained(prepare, lr, SEEDS[0], on="validation")[1]["accuracy"],
        )
        for lr in rates
    }
    return max(found, key=found.get)


def adapted(model: nn.Module, kind: str, r: int, alpha: int) -> nn.Module:
    return peftlab.attach(model, LoRA(r=r, lora_alpha=alpha, target_modules=TARGETS[kind]))


def lora(
    results: Results, start: Start, rates: dict[str, float], seed: int, name: str, kind: str, r: int, alpha: int
) -> None:
    prepare = partial(adapted, kind=kind, r=r, alpha=alpha)
    results.cell(f"{name}/{seed}", lambda: start.trained(prepare, rates[kind], seed)[1])


def alpha_and_rate(results: Results, start: Start, seed: int) -> None:
    """Does α have to grow with r? Four settings of the scale, each at five learning rates, on the validation split."""
    for r, alpha, stable in ((4, 8, False), (64, 8, False), (64, 128, False), (64, 8, True)):
        method = LoRA(r=r, lora_alpha=alpha, use_rslora=stable, target_modules=TARGETS["lora_qv"])
        for lr in (3e-4, 1e-3, 3e-3, 1e-2, 3e-2):
            results.cell(
                f"alpha/{r}/{alpha}{'/rslora' if stable else ''}/{lr}/{seed}",
                lambda: start.trained(lambda m: peftlab.attach(m, method), lr, seed, on="validation")[1],  # noqa: B023
            )


def cut(results: Results, start: Start, lr: float, seed: int) -> None:
    """Full fine-tuning, then the scissors: top r directions, and r of its own directions drawn at random."""
    draw = 1000 + seed
    keeps = {f"cut/top/{r}": scissors.top(r) for r in CUTS}
    keeps |= {f"cut/random/{r}": scissors.drawn(r, draw) for r in CUTS}
    for r in (1, 4, 8, 32):  # controls: is it the directions, or only how much of the change is left?
        keeps[f"control/without_top/{r}"] = scissors.without_top(r)
        keeps[f"control/random_of_equal_energy/{r}"] = scissors.drawn_to_energy_of_top(r, draw)
        keeps[f"control/scaled_to_equal_energy/{r}"] = scissors.scaled_to_energy_of_top(r)
    wanted = [f"{cell}/{seed}" for cell in keeps] + [f"head_again/{r}/{seed}" for r in (0, 1, 4, 8)]
    if all(key in results.content["cells"] for key in [*wanted, f"full/{seed}", f"spectrum/{seed}"]):
        return
    model, kept = start.trained(full, lr, seed)
    results.cell(f"full/{seed}", lambda: kept)
    changes = scissors.weight_changes(start.base, model)
    results.cell(f"spectrum/{seed}", lambda: spectrum(changes))
    for cell, keep in keeps.items():

        def measure(keep: scissors.Keep = keep) -> float:
            with scissors.only(model, changes, keep):
                return metrics.accuracy(model, start.tokenizer, start.data.test)

        results.cell(f"{cell}/{seed}", measure)
    for r in (0, 1, 4, 8):
        results.cell(f"head_again/{r}/{seed}", lambda r=r: head_again(start, model, changes, r, seed))


def head_again(start: Start, model: nn.Module, changes: dict[str, scissors.Change], r: int, seed: int) -> float:
    """Cut to the top r, then train the head alone on what is left, as long as everything was trained before."""
    model = copy.deepcopy(model)
    with scissors.only(model, changes, scissors.top(r)):
        head_only(model)
        train(model, start.tokenizer, start.data.train, lr=3e-3, seed=seed, progress=False, **SETTINGS)
        return metrics.accuracy(model, start.tokenizer, start.data.test)


def spectrum(changes: dict[str, scissors.Change]) -> dict[str, Any]:
    """Energy shares of all matrices, and the singular values of a few, against Gaussian noise of the same shape."""
    torch.manual_seed(0)
    energy = {name: {str(r): round(c.energy(r), 4) for r in (1, 4, 8, 32, 64, 128)} for name, c in changes.items()}
    shown = {n: [float(f"{s:.4g}") for s in c.S] for n, c in changes.items() if ".layer.0." in n}
    noise = {}
    for shape in sorted({tuple(c.before.shape) for c in changes.values()}):
        S = torch.linalg.svdvals(torch.randn(shape))
        noise["x".join(map(str, shape))] = {
            str(r): round(float(S[:r].square().sum() / S.square().sum()), 4) for r in (1, 4, 8, 32, 64, 128)
        }
    return {"energy": energy, "first_layer": shown, "gaussian_noise": noise}
