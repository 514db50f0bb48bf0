"""Invent a word (lesson 00): 60 LoRA steps on dictionary entries, before and after, on one CPU thread.

SmolLM2 as its package ships it (4-bit weights, de-quantised). The learning rate is chosen on the validation split with
seed 0; then three seeds on the test split. Beside the loss, a test that style cannot help with: the same definition
after the word it belongs to and after another word. Which of the two does the model find more likely?
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import peftlab
from peftlab.bench.results import Results
from peftlab.methods import LoRA
from peftlab.tasks import datasets, metrics, models
from peftlab.tasks.datasets import IGNORED, Completions, Entry, define_prompt, encode
from peftlab.tasks.generation import complete
from peftlab.tasks.training import Run, train

METHOD = LoRA(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
SETTINGS = {"steps": 60, "batch_size": 4, "max_length": 48}
RATES = (1e-3, 2e-3, 5e-3)
SEEDS = (0, 1, 2)
INVENTED = ("quibberish", "splonk", "flumbric", "zorgle", "wibblesnatch")
SHOWN = 8  # the first test words, whatever they are
SHOTS = 8  # the first training entries, as examples in the prompt


def run(results: Results) -> None:
    torch.set_num_threads(1)
    words = datasets.load("define_word")
    base, tokenizer = models.load("smollm2")
    results.settings(
        **SETTINGS, model="smollm2", r=METHOD.r, lora_alpha=METHOD.lora_alpha, target_modules=["q_proj", "v_proj"],
        rates=list(RATES), seeds=list(SEEDS), shots=SHOTS, threads=1, device="cpu",
    )  # fmt: skip

    def tuned(seed: int, rate: float) -> tuple[nn.Module, Run]:
        model = peftlab.attach(copy.deepcopy(base), METHOD)
        data = words.definitions("train")
        return model, train(model, tokenizer, data, lr=rate, seed=seed, progress=False, **SETTINGS)

    def validation_loss(rate: float) -> float:
        model, _ = tuned(0, rate)
        held_out = words.definitions("validation")[:100]
        return metrics.evaluate(model, tokenizer, held_out, max_length=SETTINGS["max_length"]).loss

    def one_seed(seed: int, rate: float) -> dict[str, Any]:
        model, training = tuned(seed, rate)
        return measure(model, tokenizer, words.test) | {
            "first_loss": training.losses[0],
            "last_losses": training.losses[-10:],
            "trainable": training.trainable,
            "total": training.total,
        }

    results.cell("base", lambda: measure(base, tokenizer, words.test))
    results.cell("shots", lambda: with_examples(base, tokenizer, words.train[:SHOTS], words.test))
    reached = {rate: results.cell(f"rate/{rate}", lambda rate=rate: validation_loss(rate)) for rate in RATES}
    best = min(reached, key=reached.get)
    for seed in SEEDS:
        results.cell(f"seed/{seed}", lambda seed=seed: one_seed(seed, best))


def measure(model: nn.Module, tokenizer, entries: Sequence[Entry]) -> dict[str, Any]:
    """Loss in nats per token, the test that style cannot help with, and what the model writes."""
    own, tokens = definition_losses(model, tokenizer, pairs(entries))
    other, _ = definition_losses(model, tokenizer, swapped(entries))
    found = metrics.evaluate(model, tokenizer, pairs(entries), max_length=SETTINGS["max_length"])
    asked = [*INVENTED, *(entry.word for entry in entries[:SHOWN])]
    return {
        "loss": found.loss,
        "loss_without_end": sum(own) / tokens,
        "own_word_likelier": share_below(own, other),
        "entries": len(own),
        "writes": dict(zip(asked, complete(model, tokenizer, [define_prompt(word) for word in asked]), strict=True)),
    }


def pairs(entries: Sequence[Entry]) -> Completions:
    return Completions.of([(define_prompt(entry.word), f" {entry.definition}") for entry in entries])


def swapped(entries: Sequence[Entry]) -> Completions:
    """Each definition after the next word of the same part of speech: the text to be scored stays the same."""
    rows = []
    for place, entry in enumerate(entries):
        following = [*entries[place + 1 :], *entries[:place]]
        word = next(each.word for each in following if each.part_of_speech == entry.part_of_speech)
        rows.append((define_prompt(word), f" {entry.definition}"))
    return Completions.of(rows)


@torch.no_grad()
def definition_losses(
    model: nn.Module, tokenizer, data: Completions, *, batch_size: int = 30, max_length: int = SETTINGS["max_length"]
) -> tuple[list[float], int]:
    """Summed loss in nats of each completion without its end-of-text token, and the number of tokens in all."""
    model.eval()
    losses, tokens = [], 0
    for start in range(0, len(data), batch_size):
        rows = range(start, min(start + batch_size, len(data)))
        batch = encode(data, rows, tokenizer, max_length=max_length)
        labels = batch.pop("labels")[:, 1:]
        last = (labels != IGNORED).cumsum(dim=1).argmax(dim=1)  # the end of text, in every row
        labels[torch.arange(len(labels)), last] = IGNORED
        logits = model(**batch).logits[:, :-1].float()
        each = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
        losses += each.sum(dim=1).tolist()
        tokens += int((labels != IGNORED).sum())
    return losses, tokens


def with_examples(base: nn.Module, tokenizer, examples: Sequence[Entry], entries: Sequence[Entry]) -> dict[str, float]:
    """The untuned model with some entries of the dictionary in front of every question.

    Without the end of text: after examples in a row, the model rightly expects the next one.
    """
    before = "".join(f"{define_prompt(entry.word)} {entry.definition}\n\n" for entry in examples)

    def losses(data: Completions) -> tuple[list[float], int]:
        longer = Completions([before + prompt for prompt in data.prompts], data.completions)
        return definition_losses(base, tokenizer, longer, batch_size=10, max_length=320)

    own, tokens = losses(pairs(entries))
    other, _ = losses(swapped(entries))
    return {"loss_without_end": sum(own) / tokens, "own_word_likelier": share_below(own, other)}


def share_below(these: Sequence[float], those: Sequence[float]) -> float:
    return sum(a < b for a, b in zip(these, those, strict=True)) / len(these)
