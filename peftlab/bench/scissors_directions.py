"""The directions of one real ΔW, for lesson 06's widget: all singular values, and a corner of their vectors.

The run is the scissors' own full fine-tuning with seed 0, at the learning rate that won there.
"""

from __future__ import annotations

import base64
from typing import Any

import torch
from torch import Tensor

from peftlab.bench import scissors as bench
from peftlab.bench.results import Results
from peftlab.course import scissors
from peftlab.errors import PeftLabError
from peftlab.tasks import datasets, models

MATRIX = "bert.encoder.layer.0.attention.self.query.weight"
SIDE = 40  # the widget shows this many rows and columns
SEED = 0


def run(results: Results) -> None:
    rate = chosen_rate(Results.load("scissors"))
    results.settings(**bench.SETTINGS, seed=SEED, lr=rate, data="wordnet_topics", model="minilm", side=SIDE)
    if {"accuracy", "directions"} <= results.content["cells"].keys():
        return
    data = datasets.load("wordnet_topics")
    base, tokenizer = models.load("minilm", num_labels=len(data.classes))
    base = base.to("cuda" if torch.cuda.is_available() else "cpu")
    tuned, kept = bench.Start(base, tokenizer, data).trained(bench.full, rate, SEED)
    results.cell("accuracy", lambda: kept["accuracy"])
    change = scissors.weight_changes(base, tuned)[MATRIX]
    results.cell("directions", lambda: directions(change, MATRIX))


def chosen_rate(results: dict[str, Any]) -> float:
    """The learning rate of full fine-tuning that had the best validation accuracy in the scissors."""
    prefix = "choose/full/"
    found = {float(k.removeprefix(prefix)): v for k, v in results["cells"].items() if k.startswith(prefix)}
    if not found:
        raise PeftLabError("scissors.json has no choice of a learning rate; run `python -m peftlab.bench scissors`")
    return max(found, key=found.get)


def directions(change: scissors.Change, name: str, side: int = SIDE) -> dict[str, Any]:
    """What the widget needs to draw the corner ΔW[:side, :side] for any number r of directions kept.

    values: the k singular values, largest first. left, right: base64 of k × side signed bytes, the first `side`
    entries of every u and v; times left_scale, right_scale (k each) they are the entries again, nearly.
    largest_error: of an entry of the corner, over every r from 1 to k, beside largest_entry of the whole corner.
    """
    U, S, Vh = (part.detach().float().cpu() for part in (change.U, change.S, change.Vh))
    if min(U.shape[0], Vh.shape[1]) < side:
        raise PeftLabError(f"{name} is {U.shape[0]} × {Vh.shape[1]}: smaller than the corner of {side} × {side}")
    left, left_scale = quantised(U[:side].T)
    right, right_scale = quantised(Vh[:, :side])
    values, left_scale, right_scale = (rounded(part) for part in (S, left_scale, right_scale))
    exact = outer_products(S, U[:side].T, Vh[:, :side])
    nearly = outer_products(values, left * left_scale[:, None], right * right_scale[:, None])
    return {
        "name": name.removesuffix(".weight"),
        "size": U.shape[0],
        "side": side,
        "values": values.tolist(),
        "left": as_base64(left),
        "left_scale": left_scale.tolist(),
        "right": as_base64(right),
        "right_scale": right_scale.tolist(),
        "largest_error": float(f"{(exact.cumsum(0) - nearly.cumsum(0)).abs().max():.3g}"),
        "largest_entry": float(f"{exact.sum(0).abs().max():.3g}"),
    }


def quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers from -127 to 127 and one scale for each row: rows ≈ numbers · scale[:, None]."""
    scale = rows.abs().amax(dim=1).clamp_min(1e-12) / 127
    return (rows / scale[:, None]).round(), scale


def outer_products(values: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """s_i u_i v_iᵀ for every direction i, of shape (k, side, side)."""
    return values.double()[:, None, None] * left.double()[:, :, None] * right.double()[:, None, :]


def as_base64(numbers: Tensor) -> str:
    return base64.b64encode(numbers.to(torch.int8).contiguous().numpy().tobytes()).decode()


def rounded(numbers: Tensor) -> Tensor:
    """To five significant digits, so that the file stays small; in double precision, so that they stay five."""
    return torch.tensor([float(f"{number:.5g}") for number in numbers.tolist()], dtype=torch.float64)
