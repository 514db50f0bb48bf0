"""Lesson 01's ladder: the stored rungs, and straight lines through them. `peftlab.bench.ladder` trained them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np

from peftlab.errors import PeftLabError


@dataclass(frozen=True)
class Rung:
    """One size of model, trained on all tokens `passes` times; a test loss (nats per token) for each seed."""

    width: int
    layers: int
    N: int  # parameters without the embedding, which is the head too
    N_total: int  # with it
    tokens: int  # read in training, repeats counted
    losses: tuple[float, ...]

    @property
    def loss(self) -> float:
        return mean(self.losses)


def rungs(results: Mapping[str, Any], passes: int = 1) -> list[Rung]:
    """The rungs of data/results/ladder.json, smallest first. Raises PeftLabError if there are none."""
    finals = {key.split("/")[2]: [] for key in results["cells"] if key.startswith(f"final/{passes}/")}
    for key, cell in results["cells"].items():
        if key.startswith(f"final/{passes}/"):
            finals[key.split("/")[2]].append(cell)
    if not finals:
        raise PeftLabError(f"no rung was trained for passes={passes}; run `python -m peftlab.bench ladder`")
    found = [
        Rung(int(width), runs[0]["layers"], runs[0]["N"], runs[0]["N_total"], runs[0]["tokens"],
             tuple(run["loss"] for run in runs))
        for width, runs in finals.items()
    ]  # fmt: skip
    return sorted(found, key=lambda rung: rung.N)


def law(sizes: Sequence[float], losses: Sequence[float]) -> tuple[float, float]:
    """a and b of L = a / N^b: the straight line through all points in logarithms."""
    slope, intercept = np.polyfit(np.log(sizes), np.log(losses), 1)
    return float(np.exp(intercept)), float(-slope)


def slopes(found: Sequence[Rung], *, total: bool = False) -> list[float]:
    """b between each rung and the next: constant, were the ladder one power law."""
    pairs = zip(found, found[1:], strict=False)
    return [law([_size(x, total), _size(y, total)], [x.loss, y.loss])[1] for x, y in pairs]


def _size(rung: Rung, total: bool) -> int:
    return rung.N_total if total else rung.N


def validation(results: Mapping[str, Any]) -> dict[int, dict[float, float]]:
    """Width -> learning rate -> validation loss after one pass: the search that chose each rung's rate."""
    found: dict[int, dict[float, float]] = {}
    for key, cell in results["cells"].items():
        if key.startswith("choose/1/"):
            found.setdefault(int(key.split("/")[2]), {})[cell["lr"]] = cell["loss"]
    return dict(sorted(found.items()))
