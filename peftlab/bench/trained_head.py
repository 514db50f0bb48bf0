"""The head alone, trained to the end: multinomial logistic regression on the frozen sentence vectors (lesson 02).

A head on a frozen encoder needs each text's vector once, so nothing is saved by stopping early. Its penalty is chosen
on the validation split; the test split is read once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peftlab.bench.results import Results
from peftlab.tasks import datasets, models

PENALTIES = (0.0, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)  # on the squares of the weights, beside the mean loss
MAX_LENGTH = 32  # tokens, as in `scissors`


def run(results: Results) -> None:
    results.settings(data="wordnet_topics", model="minilm", penalties=list(PENALTIES), max_length=MAX_LENGTH)
    data = datasets.load("wordnet_topics")
    model, tokenizer = models.load("minilm", num_labels=len(data.classes))
    train, validation = (vectors(model, tokenizer, split) for split in (data.train, data.validation))
    for penalty in PENALTIES:
        results.cell(f"validation/{penalty:g}", lambda p=penalty: accuracy(fit(*train, p), *validation))
    best = max(PENALTIES, key=lambda penalty: results.content["cells"][f"validation/{penalty:g}"])
    results.cell("chosen", lambda: best)
    results.cell("test", lambda: accuracy(fit(*train, best), *vectors(model, tokenizer, data.test)))


@torch.no_grad()
def vectors(model: nn.Module, tokenizer, split: datasets.Split) -> tuple[Tensor, Tensor]:
    """What the head reads: (texts, d); and the labels, (texts,)."""
    read: list[Tensor] = []
    watching = model.classifier.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    model.eval()
    for start in range(0, len(split.texts), 64):
        model(**tokenizer(split.texts[start : start + 64], padding=True, truncation=True, max_length=MAX_LENGTH,
                          return_tensors="pt"))  # fmt: skip
    watching.remove()
    return torch.cat(read), torch.as_tensor(split.labels)


def fit(features: Tensor, labels: Tensor, penalty: float) -> nn.Linear:
    """The head of least mean cross-entropy + penalty/2 · |W|², started at zero: there is no luck in it."""
    head = nn.Linear(features.shape[1], int(labels.max()) + 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=2000, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(head(features), labels) + penalty / 2 * head.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return head


@torch.no_grad()
def accuracy(head: nn.Linear, features: Tensor, labels: Tensor) -> float:
    return (head(features).argmax(-1) == labels).double().mean().item()
