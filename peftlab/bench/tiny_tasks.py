"""The tiny model put to three tasks: define a word, turn modern English into King James English, write about a topic.

Frozen, full fine-tuning and LoRA on all linear layers, three seeds; learning rates are chosen on the validation split
with seed 0. Minutes on a GPU, hours on one CPU thread. The test rows were held out of the tiny model's
pretraining too.

What a loss does not say is measured beside it. Verses: chrF of what the model writes, and of the input copied as it
is, the baseline to beat. Topics: of the twelve topics, under which is a test definition most likely? That needs no
sampling, and chance is 1 in 12.
"""

from __future__ import annotations

import copy
import hashlib
import sys
from functools import partial
from typing import Any

import torch
from torch import nn

import peftlab
from peftlab.bench.results import Results
from peftlab.methods import LoRA
from peftlab.tasks import datasets, metrics, models
from peftlab.tasks.data_files import data_folder
from peftlab.tasks.datasets import Completions, about_prompt
from peftlab.tasks.generation import complete
from peftlab.tasks.training import train

SEEDS = (0, 1, 2)
METHOD = LoRA(r=8, lora_alpha=16, target_modules="all-linear")
SETTINGS = {"steps": 400, "batch_size": 32, "schedule": "linear", "warmup": 10}
MAX_LENGTH = {"define": 64, "topic": 64, "verse": 160}  # tokens of the tiny model
CANDIDATES = {
    "lora": (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2),
    "full": (2.5e-5, 5e-5, 1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3),
}
WRITTEN = 100  # test verses that are written out, and compared by chrF
CLASSIFIED = 240  # test definitions that are tried under all twelve topics: 20 of each
SHOWN = 6  # what a model writes is kept for so many prompts


def run(results: Results) -> None:
    torch.set_num_threads(1)
    base, tokenizer = models.load("tiny")
    base = base.to("cuda" if torch.cuda.is_available() else "cpu")
    results.settings(
        **SETTINGS, model="tiny", r=METHOD.r, lora_alpha=METHOD.lora_alpha, target_modules=METHOD.target_modules,
        seeds=list(SEEDS), candidates=CANDIDATES, max_length=MAX_LENGTH, written=WRITTEN, classified=CLASSIFIED,
        verse_pairs_sha256=hashlib.sha256((data_folder() / "verse_pairs.csv").read_bytes()).hexdigest(),
    )  # fmt: skip
    for task in MAX_LENGTH:
        one_task(results, base, tokenizer, task)


def splits(task: str) -> dict[str, Completions]:
    """Train, validation and test of a task, as prompts and completions."""
    rows = {
        "define": lambda: datasets.load("define_word").definitions,
        "topic": lambda: datasets.load("wordnet_topics").definitions,
        "verse": lambda: datasets.load("verse_pairs").archaic,
    }[task]()
    return {part: rows(part) for part in ("train", "validation", "test")}


def one_task(results: Results, base: nn.Module, tokenizer: Any, task: str) -> None:
    data = splits(task)
    results.cell(f"frozen/{task}", lambda: measured(base, tokenizer, data["test"], task))
    if task == "verse":
        results.cell("copy/verse", lambda: {"chrf": round(_chrf(_modern(data["test"]), data["test"].completions), 2)})
    for kind, rates in CANDIDATES.items():
        losses = {
            lr: results.cell(f"choose/{kind}/{task}/{lr}", partial(choose, base, tokenizer, data, task, kind, lr))
            for lr in rates
        }
        best = min(losses, key=losses.get)
        for seed in SEEDS:
            results.cell(f"{kind}/{task}/{seed}", partial(final, base, tokenizer, data, task, kind, best, seed))


def trained(base: nn.Module, tokenizer: Any, rows: Completions, task: str, kind: str, lr: float, seed: int):
    torch.manual_seed(seed)  # A's start
    model = copy.deepcopy(base)
    model = peftlab.attach(model, METHOD) if kind == "lora" else model.requires_grad_(True)
    settings = {**SETTINGS, "max_length": MAX_LENGTH[task], "progress": sys.stderr.isatty()}
    return model, train(model, tokenizer, rows, lr=lr, seed=seed, **settings)


def choose(base: nn.Module, tokenizer: Any, data: dict, task: str, kind: str, lr: float) -> float:
    """Validation loss."""
    model, _ = trained(base, tokenizer, data["train"], task, kind, lr, SEEDS[0])
    return loss(model, tokenizer, data["validation"], task).loss


def final(base: nn.Module, tokenizer: Any, data: dict, task: str, kind: str, lr: float, seed: int) -> dict[str, Any]:
    model, run = trained(base, tokenizer, data["train"], task, kind, lr, seed)
    found = measured(model, tokenizer, data["test"], task)
    return found | {"lr": lr, "trainable": run.trainable, "total": run.total}


# ---- measuring ------------------------------------------------------------------------------------------------------


def loss(model: nn.Module, tokenizer: Any, rows: Completions, task: str) -> metrics.Evaluation:
    return metrics.evaluate(model, tokenizer, rows, max_length=MAX_LENGTH[task], batch_size=50)


def measured(model: nn.Module, tokenizer: Any, test: Completions, task: str) -> dict[str, Any]:
    """Loss per token, what the model writes for the first prompts, and the task's own measure."""
    found = loss(model, tokenizer, test, task)
    prompts = list(dict.fromkeys(test.prompts))[:SHOWN]
    answers = written(model, tokenizer, prompts)
    record = {"loss": round(found.loss, 4), "perplexity": round(found.perplexity, 3), "tokens": found.n}
    record["writes"] = [list(pair) for pair in zip(prompts, answers, strict=True)]
    if task == "verse":
        some = test[:WRITTEN]
        record["chrf"] = round(_chrf(written(model, tokenizer, some.prompts), some.completions), 2)
    if task == "topic":
        record["right"] = topics_right(model, tokenizer)
    return record


def written(model: nn.Module, tokenizer: Any, prompts: list[str]) -> list[str]:
    """The most likely continuation of each prompt, up to its end."""
    return complete(model, tokenizer, prompts, max_new_tokens=64)


@torch.no_grad()
def topics_right(model: nn.Module, tokenizer: Any) -> float:
    """Share of test definitions that are more likely under their own topic than under the eleven others."""
    data = datasets.load("wordnet_topics")
    test = data.test[:CLASSIFIED]
    right = 0
    for text, label in zip(test.texts, test.labels, strict=True):
        rows = Completions([about_prompt(topic) for topic in data.classes], [f" {text}"] * len(data.classes))
        batch = datasets.encode(rows, range(len(rows)), tokenizer, max_length=MAX_LENGTH["topic"])
        batch = {key: value.to(metrics.device_of(model)) for key, value in batch.items()}
        labels = batch.pop("labels")[:, 1:]
        logits = model(**batch).logits[:, :-1].transpose(1, 2)
        nats = nn.functional.cross_entropy(logits, labels, ignore_index=datasets.IGNORED, reduction="none").sum(1)
        right += int(nats.argmin()) == label
    return right / len(test)


def _modern(test: Completions) -> list[str]:
    """The modern verse of each prompt."""
    return [prompt.partition(": ")[2].rpartition("\n")[0] for prompt in test.prompts[:WRITTEN]]


def _chrf(hypotheses: list[str], references: list[str]) -> float:
    return metrics.chrf(hypotheses, [text.strip() for text in references[: len(hypotheses)]])
