"""Bottleneck adapters on MiniLM: accuracy against width, and what a merged linear map keeps of them (lesson 03).

WordNet topics, settings and starts of `scissors`, so that head only, LoRA and full fine-tuning stand there. Learning
rates are chosen on the validation split with seed 0, at one width for each method. The test split is used once per
cell.

The cells `merge/…` try to merge: for every adapter of a trained model, the best linear map from its inputs to its
outputs (least squares over the tokens of the validation rows), tested on the tokens of other rows and merged. The arm
`constant` is the control: adapters that can add a constant and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

import peftlab
from peftlab.bench.results import Results
from peftlab.bench.scissors import SETTINGS, Start
from peftlab.course import linear_fit
from peftlab.methods import Compacter, Houlsby, ParallelAdapter, Pfeiffer
from peftlab.methods.base import Method
from peftlab.tasks import datasets, metrics, models

SEEDS = (0, 1, 2)
D = 384
ARMS: dict[str, Any] = {  # with ReLU, but for Compacter, whose own default is GELU
    "houlsby": lambda m, f="relu": Houlsby(reduction_factor=D / m, non_linearity=f),
    "pfeiffer": lambda m: Pfeiffer(reduction_factor=D / m),
    "parallel": lambda m: ParallelAdapter(reduction_factor=D / m),
    "compacter": lambda m: Compacter(reduction_factor=D / m),
    # Both matrices start at zero and stay there (their gradients are zero): b_up alone learns, a constant.
    "constant": lambda m: Houlsby(reduction_factor=D / m, non_linearity="relu", init_std=0.0),
}
CHOSEN_AT = {"houlsby": 16, "pfeiffer": 16, "parallel": 16, "compacter": 12, "constant": 16}
CANDIDATES = {"houlsby": (1e-3, 3e-3, 1e-2, 3e-2)} | dict.fromkeys(("pfeiffer", "parallel", "compacter", "constant"),
                                                                   (3e-3, 1e-2, 3e-2))  # fmt: skip
WIDER = {3e-3: 1e-3, 3e-2: 1e-1}  # tried too where the best rate is at an edge


def run(results: Results) -> None:
    torch.set_num_threads(1)
    results.settings(
        **SETTINGS, seeds=list(SEEDS), candidates=CANDIDATES, chosen_at=CHOSEN_AT, data="wordnet_topics",
        model="minilm", non_linearity={arm: "gelu" if arm == "compacter" else "relu" for arm in ARMS}, threads=1,
    )  # fmt: skip
    data = datasets.load("wordnet_topics")
    base, tokenizer = models.load("minilm", num_labels=len(data.classes))
    bench = Bench(results, Start(base, tokenizer, data))
    # The most important first: a run that is cut short still has something to say.
    bench.merging(SEEDS)
    bench.finals("houlsby", (1, 64), SEEDS)
    bench.finals("constant", (16,), SEEDS)
    bench.finals("pfeiffer", (16,), SEEDS)
    bench.finals("parallel", (16,), SEEDS)
    bench.finals("compacter", (12,), SEEDS)


class Bench:
    def __init__(self, results: Results, start: Start) -> None:
        self.results, self.start = results, start

    def rate(self, arm: str) -> float:
        """The learning rate with the best validation accuracy, seed 0, and not at an edge of those tried."""
        method = ARMS[arm](CHOSEN_AT[arm])

        def tried(lr: float) -> float:
            return self.results.cell(
                f"choose/{arm}/{lr:g}",
                lambda: self.start.trained(attaching(method), lr, SEEDS[0], on="validation")[1]["accuracy"],
            )

        found = {lr: tried(lr) for lr in CANDIDATES[arm]}
        best = max(found, key=found.get)
        if best in WIDER and best in (CANDIDATES[arm][0], CANDIDATES[arm][-1]):
            found[WIDER[best]] = tried(WIDER[best])
        return max(found, key=found.get)

    def finals(self, arm: str, widths: Iterable[int], seeds: Iterable[int]) -> None:
        lr = self.rate(arm)
        for seed in seeds:
            for m in widths:
                prepare = attaching(ARMS[arm](m))
                self.results.cell(f"{arm}/{m}/{seed}", lambda: self.start.trained(prepare, lr, seed)[1])  # noqa: B023

    def merging(self, seeds: Iterable[int]) -> None:
        """Houlsby's adapter at m = 16, with ReLU and without a nonlinearity, each trained and then replaced."""
        lr = self.rate("houlsby")
        for seed in seeds:
            for f in ("relu", "linear"):
                method = ARMS["houlsby"](CHOSEN_AT["houlsby"], f)
                self.results.cell(f"merge/{f}/{seed}", lambda: merge_and_measure(self.start, method, lr, seed))  # noqa: B023


def attaching(method: Method) -> Callable[[nn.Module], nn.Module]:
    return partial(peftlab.attach, method=method)


def merge_and_measure(start: Start, method: Method, lr: float, seed: int) -> dict[str, Any]:
    """Train, then put the best linear map in the place of every adapter; or its mean alone, or nothing."""
    model, kept = start.trained(attaching(method), lr, seed)
    tokenizer, data = start.tokenizer, start.data

    if method.non_linearity == "linear":
        return {**kept, "merged_exactly": metrics.accuracy(peftlab.merge(model), tokenizer, data.test)}
    fitted_on = linear_fit.recorded(model, tokenizer, data.validation)
    other_rows = linear_fit.recorded(model, tokenizer, data.test[:400])
    verses = linear_fit.verses(200)
    other_text = linear_fit.recorded(model, tokenizer, verses)
    fits = {site: linear_fit.fit(*fitted_on[site]) for site in fitted_on}

    def explained(tokens: dict[str, linear_fit.Tokens]) -> dict[str, float]:
        return {site: round(linear_fit.explained(fits[site], *tokens[site]), 4) for site in fits}

    replaced = {
        "map": linear_fit.merged(model, fits),
        "mean": linear_fit.merged(model, linear_fit.means(fitted_on)),
        "nothing": linear_fit.without(model),
    }
    truth, before = torch.tensor(data.test.labels), linear_fit.answers(model, tokenizer, data.test)
    after = {name: linear_fit.answers(each, tokenizer, data.test) for name, each in replaced.items()}
    on_verses = {name: linear_fit.answers(each, tokenizer, verses) for name, each in replaced.items()}
    before_verses = linear_fit.answers(model, tokenizer, verses)
    constants = linear_fit.means(fitted_on)
    return {
        **kept,
        "tokens": len(next(iter(fitted_on.values()))[0]),
        "explained": explained(other_rows),
        "explained_verses": explained(other_text),
        "size": {site: round(linear_fit.relative_size(*other_rows[site]), 4) for site in fits},
        "units": linear_fit.units(model, other_rows),
        "at_rest": linear_fit.at_rest(model, other_rows),
        "left_over": {
            name: {site: round(linear_fit.left_over(of[site], *other_rows[site]), 4) for site in of}
            for name, of in (("map", fits), ("mean", constants))
        },
        "same_answer_verses": {n: float((found == before_verses).float().mean()) for n, found in on_verses.items()},
        "replaced_by": {name: float((found == truth).float().mean()) for name, found in after.items()},
        "same_answer": {name: float((found == before).float().mean()) for name, found in after.items()},
    }
