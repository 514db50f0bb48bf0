"""How good a model is on held-out data, and how sure that number is."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from peftlab.errors import PeftLabError
from peftlab.tasks.datasets import IGNORED, Completions, Split, check_prompts, encode


@dataclass(frozen=True)
class Evaluation:
    """What a model does on a split.

    loss: mean negative log-likelihood in nats, per text or, for Completions, per predicted token.
    accuracy: share of texts, or of predicted tokens, that the most likely answer gets right.
    n: how many texts or tokens that is.
    """

    loss: float
    accuracy: float
    n: int

    @property
    def perplexity(self) -> float:
        """exp(loss): among how many equally likely answers the model seems to choose."""
        return math.exp(self.loss)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Wilson's interval for the accuracy. For tokens it is too narrow: they come in texts."""
        return wilson_interval(round(self.accuracy * self.n), self.n, confidence)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    tokenizer,
    split: Split | Completions,
    *,
    batch_size: int = 32,
    max_length: int = 32,
    progress: bool = False,
) -> Evaluation:
    """Loss and accuracy on the whole split. Leaves the model in the mode it was in.

    Raises PeftLabError for an empty split, and for labels the model has no class for.
    """
    check_fits(model, tokenizer, split, max_length)
    texts = split.texts if isinstance(split, Split) else split.completions
    # Texts of one length together: less padding, and the mean does not depend on the order.
    order = sorted(range(len(split)), key=lambda row: len(texts[row]))
    groups = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    loss = correct = n = 0
    with keeping_modes(model):
        model.eval()  # no dropout
        for rows in tqdm(groups, desc="evaluating", leave=False, disable=not progress):
            batch = encode(split, rows, tokenizer, max_length=max_length)
            batch = {key: value.to(device_of(model)) for key, value in batch.items()}
            labels = batch.pop("labels")
            logits = model(**batch).logits
            if isinstance(split, Completions):
                logits, labels = _predictions(logits, labels)
            logits = logits.float()
            loss += F.cross_entropy(logits, labels, reduction="sum").item()
            correct += (logits.argmax(dim=-1) == labels).sum().item()
            n += len(labels)
    return Evaluation(loss=loss / n, accuracy=correct / n, n=n)


def _predictions(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(batch, tokens, vocabulary) and (batch, tokens) -> the n predicted tokens, flat."""
    logits = logits[:, -labels.shape[1] :]  # a soft prompt puts positions of its own before these
    labels = labels[:, 1:]  # position t predicts token t + 1
    keep = labels != IGNORED
    return logits[:, :-1][keep], labels[keep]


def accuracy(model: nn.Module, tokenizer, split: Split, **settings) -> float:
    """Share of texts classified correctly; settings as for `evaluate`."""
    return evaluate(model, tokenizer, split, **settings).accuracy


def perplexity(model: nn.Module, tokenizer, split: Completions, **settings) -> float:
    """exp of the mean loss per completion token; settings as for `evaluate`."""
    return evaluate(model, tokenizer, split, **settings).perplexity


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """How alike two lists of texts are in their characters, 0 to 100: chrF2 of the whole list, as sacrebleu counts it.

    The mean F-score (beta 2) of the character n-grams up to 6 that each hypothesis shares with its reference
    (Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation").
    Raises PeftLabError if there are none, or not as many of the one as of the other.
    """
    from sacrebleu.metrics import CHRF

    if not hypotheses or len(hypotheses) != len(references):
        raise PeftLabError(f"{len(hypotheses)} hypotheses cannot be compared with {len(references)} references.")
    return CHRF().corpus_score(list(hypotheses), [list(references)]).score


def majority_accuracy(train: Split, test: Split) -> float:
    """Accuracy of always answering the most frequent class of `train`: the bar to clear."""
    answer = Counter(train.labels).most_common(1)[0][0]
    return test.labels.count(answer) / len(test)


def wilson_interval(correct: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval for a share, from Wilson's score test; sensible near 0 and 1, unlike +-2 s.e.

    Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    It covers the draw of the n test items only: not the seed of the training run.
    """
    if not 0 <= correct <= n or n == 0:
        raise PeftLabError(f"{correct} correct of {n} is not a share.")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = correct / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def check_fits(model: nn.Module, tokenizer, split: Split | Completions, max_length: int) -> None:
    """Raise PeftLabError for what would fail, or mislead, once the work has begun."""
    if len(split) == 0:
        raise PeftLabError("The split is empty: there is nothing to learn from or to measure.")
    if isinstance(split, Completions):
        check_prompts(split, tokenizer, max_length)
        return
    classes = _number_of_classes(model)
    if classes is None:
        raise PeftLabError(
            f"{type(model).__name__} has no classification head, and the split has class labels. "
            "Load the model with num_labels=..., or use Completions."
        )
    low, high = min(split.labels), max(split.labels)
    if low < 0 or high >= classes:
        raise PeftLabError(
            f"Labels run from {low} to {high}, but the model has {classes} classes, 0 to "
            f"{classes - 1}. Load it with num_labels={high + 1}, or correct the labels."
        )


def _number_of_classes(model: nn.Module) -> int | None:
    # Every config has num_labels, a language model's too: only the presence of a head tells.
    heads = {"classifier", "score", "classification_head"}
    has_head = any(name.split(".")[-1] in heads for name, _ in model.named_modules())
    return model.config.num_labels if has_head else None


@contextlib.contextmanager
def keeping_modes(model: nn.Module) -> Iterator[None]:
    """Whatever happens inside, every module is back in its mode (train or eval) afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
