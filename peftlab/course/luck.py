"""Three kinds of luck in a measurement, for bridge B5: the seed, the test rows, and choosing the best.

Its classifiers cost nothing to train, so that hundreds can be compared live: each topic is the mean of the sentence
vectors of its examples, and a text gets the topic whose mean points most nearly the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peftlab.errors import PeftLabError
from peftlab.tasks.datasets import Split, encode
from peftlab.tasks.mean_pool import sentence_vector


@torch.no_grad()
def sentence_vectors(model: nn.Module, tokenizer: Any, split: Split, *, max_length: int = 32) -> Tensor:
    """MiniLM's vector of each text, of shape (texts, d). `model` is a BERT encoder, in evaluation mode."""
    by_length = sorted(range(len(split)), key=lambda row: len(split.texts[row]))  # less padding
    vectors = torch.empty(len(split), model.config.hidden_size)
    for start in range(0, len(split), 64):
        rows = by_length[start : start + 64]
        batch = encode(split, rows, tokenizer, max_length=max_length)
        del batch["labels"]
        vectors[rows] = sentence_vector(model(**batch).last_hidden_state, batch["attention_mask"])
    return vectors


def topic_means(vectors: Tensor, labels: Tensor) -> Tensor:
    """The mean vector of each class, of length one: (classes, d), from vectors (texts, d) and labels (texts,)."""
    means = [vectors[labels == topic].mean(0) for topic in range(int(labels.max()) + 1)]
    return F.normalize(torch.stack(means), dim=-1)


def examples(labels: Tensor, each: int, seed: int | None = None) -> Tensor:
    """Rows with `each` examples of every class: the first ones, or drawn without replacement if a seed is given.

    Raises PeftLabError if a class has fewer.
    """
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    chosen = []
    for topic in range(int(labels.max()) + 1):
        rows = (labels == topic).nonzero().flatten()
        if len(rows) < each:
            raise PeftLabError(f"class {topic} has {len(rows)} examples, not {each}")
        order = torch.arange(len(rows)) if generator is None else torch.randperm(len(rows), generator=generator)
        chosen.append(rows[order[:each]])
    return torch.cat(chosen)


def upsets(better: Sequence[float], worse: Sequence[float]) -> int:
    """Pairs of runs, one of each method, in which the one from `worse` comes out ahead."""
    return sum(b > a for a in better for b in worse)


def best_of(correct: Tensor, rows: int, *, rounds: int = 300, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The best of the first 1, 2, … candidates on `rows` random rows: how it looks there, and on all the others.

    correct: (candidates, N), 1 where a candidate is right. Returns two tensors (candidates,) of accuracies, means over
    `rounds` draws of the rows and of the candidates' order.
    Raises PeftLabError unless some rows are left over.
    """
    candidates, N = correct.shape
    if not 0 < rows < N:
        raise PeftLabError(f"of {N} rows, choose on 1 to {N - 1}, not on {rows}: the others are for the second look")
    generator = torch.Generator().manual_seed(seed)
    seen, fresh = torch.zeros(candidates), torch.zeros(candidates)
    for _ in range(rounds):
        order = torch.randperm(candidates, generator=generator)
        drawn = torch.randperm(N, generator=generator)
        shuffled = correct[order][:, drawn].float()
        here, elsewhere = shuffled[:, :rows].mean(1), shuffled[:, rows:].mean(1)
        best = here.cummax(0)  # of equally good ones, the last
        seen += best.values / rounds
        fresh += elsewhere[best.indices] / rounds
    return seen, fresh
