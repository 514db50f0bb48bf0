"""The figures and tables of lessons 05 and 05x: which parameters train, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from torch import Tensor

from peftlab.bench.selective import block, kind_of
from peftlab.show import palette
from peftlab.show.lora_figures import accuracies
from peftlab.show.side_by_side import HEAD

BLOCKS = ("embeddings", "0", "1", "2", "3", "4", "5")
KINDS = (
    "word", "position", "token_type", "query", "key", "value", "attention.output", "intermediate", "output", "bias",
    "LayerNorm",
)  # fmt: skip
SELECTORS = {"fisher": "highest Fisher", "magnitude": "largest magnitude", "random": "at random"}
BESIDE = {  # methods beside the curves: cell -> name
    "bitfit": "BitFit", "layer_norm": "LayerNorms", "last/1": "last block", "last/2": "last two blocks",
    "lora_qv/8": "LoRA on q, v, r = 8", "lora_all/8": "LoRA on all, r = 8",
    "random_blocks/0.005": "at random, no embeddings",
}  # fmt: skip


def counts(mask: Mapping[str, Tensor]) -> dict[str, int]:
    """Chosen entries by block and kind, from flat places or True/False masks by name of parameter."""
    found: dict[str, int] = {}
    for name, chosen in mask.items():
        number = int(chosen.sum()) if chosen.dtype.is_floating_point or chosen.dtype.itemsize == 1 else len(chosen)
        cell = f"{block(name)}/{kind_of(name)}"
        found[cell] = found.get(cell, 0) + number
    return found


def share_in(cells: Mapping[str, int], *parts: str) -> float:
    """The share of chosen entries whose block or kind is one of `parts`."""
    inside = sum(number for cell, number in cells.items() if set(cell.split("/")) & set(parts))
    return inside / sum(cells.values())


def where(masks: Mapping[str, Mapping[str, int]]) -> np.ndarray:
    """A map for each way to choose: what share of the chosen entries lies in which block and kind of parameter."""
    drawing, axes = plt.subplots(1, len(masks), figsize=(3.3 * len(masks) + 1.2, 4.4), sharey=True, squeeze=False)
    for ax, (title, cells) in zip(axes[0], masks.items(), strict=True):
        total = sum(cells.values())
        table = np.array([[cells.get(f"{b}/{kind}", 0) / total for b in BLOCKS] for kind in KINDS])
        ax.imshow(np.sqrt(table), cmap="Blues", vmin=0, vmax=0.8, aspect="auto")
        for (row, column), value in np.ndenumerate(table):
            if value >= 0.005:
                colour = "white" if value > 0.25 else "black"
                ax.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=8, color=colour)
        ax.set_title(title, fontsize=10)
        ax.set_xticks(range(len(BLOCKS)), ["emb.", *BLOCKS[1:]], fontsize=8)
        ax.set_xlabel("block")
        ax.grid(False)
    axes[0][0].set_yticks(range(len(KINDS)), [kind.replace("_", " ") for kind in KINDS], fontsize=8)
    return axes[0]


def budgets(results: Mapping[str, Any], *, beside: bool = False) -> Axes:
    """Test accuracy against the share of the encoder that trains, for three ways to choose; whiskers from lowest to
    highest seed. beside: known methods at their budgets too."""
    _, ax = plt.subplots(figsize=(7.2, 4.2))
    entries = encoder_size(results)
    for index, (kind, label) in enumerate(SELECTORS.items()):
        shares = [b for b in results["settings"]["budgets"] if accuracies(results, f"{kind}/{b}")]
        runs = [accuracies(results, f"{kind}/{b}") for b in shares]
        means = [mean(run) for run in runs]
        style = dict(color=palette.LINES[index], linestyle=palette.DASHES[index], marker=palette.MARKERS[index])
        whiskers = [[mean(r) - min(r) for r in runs], [max(r) - mean(r) for r in runs]]
        aside = [b * 1.09 ** (index - 1) for b in shares]  # so that whiskers stand side by side
        ax.errorbar(aside, means, yerr=whiskers, elinewidth=1, capsize=2.5, label=label, **style)
    marks = ("D", "v", "P", "X", "<", ">", "*")
    for marker, (cell, label) in zip(marks, BESIDE.items() if beside else (), strict=beside):
        found = accuracies(results, cell)
        if found:
            share = (results["cells"][f"{cell}/0"]["trainable"] - HEAD) / entries
            ax.plot([share], [mean(found)], marker=marker, linestyle="none", color=palette.BLACK, label=label)
    for cell, label in (("full", "full fine-tuning"), ("head", "head only")):
        seeds = accuracies(results, cell)
        height = mean(seeds)
        if cell == "full":
            ax.axhspan(min(seeds), max(seeds), color=palette.GREY, alpha=0.12, linewidth=0)
        ax.axhline(height, color=palette.GREY, linewidth=1.2, linestyle="-" if cell == "full" else ":")
        ax.annotate(label, (6e-5, height), xytext=(3, 3), textcoords="offset points", color=palette.GREY, fontsize=9)
    ax.set_xscale("log")
    ax.set_xlim(6e-5, 1)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    ax.set_xlabel("share of the encoder's parameters that train")
    ax.set_ylabel("test accuracy")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
    return ax


def encoder_size(results: Mapping[str, Any]) -> int:
    return results["cells"]["full/0"]["trainable"] - HEAD


def rate_curve(results: Mapping[str, Any], arm: str) -> dict[float, float]:
    """Validation accuracy by learning rate, seed 0. A run that blew up has none."""
    start = f"choose/{arm}/"
    found = {float(k.removeprefix(start)): v for k, v in results["cells"].items() if k.startswith(start)}
    return {lr: cell["accuracy"] for lr, cell in sorted(found.items()) if "accuracy" in cell}


def rates(results: Mapping[str, Any], arms: Mapping[str, str], lowest: float = 0.75) -> Axes:
    """Validation accuracy against the learning rate of what was chosen. arms: cell -> label.

    lowest: where the axis begins; what lies below is an arrow at the edge, with its value.
    """
    _, ax = plt.subplots()
    edge, below = lowest + 0.004, 0
    for index, (arm, label) in enumerate(arms.items()):
        curve = rate_curve(results, arm)
        style = dict(color=palette.LINES[index], linestyle=palette.DASHES[index], marker=palette.MARKERS[index])
        ax.plot(list(curve), [max(value, edge) for value in curve.values()], label=label, **style)
        for lr, value in curve.items():
            if value < edge:
                ax.annotate(f"↓ {value + 1e-9:.2f}", (lr, edge), xytext=(5, 4 + 12 * below), textcoords="offset points",
                            color=style["color"], fontsize=9)  # fmt: skip
                below += 1
    ax.set_xscale("log")
    ax.set_ylim(lowest, None)
    ax.set_xlabel("learning rate of the chosen entries")
    ax.set_ylabel("validation accuracy")
    ax.legend(fontsize=9)
    return ax


def rows(results: Mapping[str, Any], cells: Mapping[str, str], trained: int = 0) -> list[dict[str, Any]]:
    """Rows of a table: mean, lowest and highest test accuracy of five seeds, and the rate. cells: cell -> name.

    trained: how many numbers train, for cells that do not say it (diff pruning's last phase).
    """
    found = []
    for cell, name in cells.items():
        seeds = accuracies(results, cell)
        first = results["cells"][f"{cell}/0"]
        row = {
            "trained beside the head": name,
            "numbers": first.get("trainable", HEAD + trained) - HEAD,
            "accuracy": mean(seeds),
        }
        rate = "–" if cell == "head" else f"{first['lr']:g}"  # of what was chosen; the head has one of its own
        found.append(row | {"lowest": min(seeds), "highest": max(seeds), "rate": rate})
    return found


def gaps(results: Mapping[str, Any], one: str, other: str) -> list[float]:
    """Test accuracy of one cell minus another, seed by seed."""
    return [a - b for a, b in zip(accuracies(results, one), accuracies(results, other), strict=True)]


def two_by_two(results: Mapping[str, Any], budget: float = 5e-3) -> list[dict[str, Any]]:
    """Rows of a table: is it the tensors that Fisher picks, or the entries inside them? Beside it, the largest."""
    columns = ("at random", "by Fisher", "the largest")
    kinds = {
        "the same share": ("random", "fisher_each", "magnitude_each"),
        "as many as Fisher has there": ("random_as_fisher", "fisher", ""),
    }
    return [
        {"of each tensor": name}
        | {
            c: mean(accuracies(results, f"{kind}/{budget}")) if kind else "–"
            for c, kind in zip(columns, row, strict=True)
        }
        for name, row in kinds.items()
    ]


def gates(draw: Callable[[float], Tensor], alphas: Sequence[float]) -> np.ndarray:
    """Histograms of drawn gates, one for each α. draw: α -> many z."""
    _, axes = plt.subplots(1, len(alphas), figsize=(7.2, 2.6), sharey=True)
    for ax, alpha in zip(axes, alphas, strict=True):
        z = draw(alpha).numpy()
        ax.hist(z, bins=np.linspace(0, 1, 26), weights=np.full(len(z), 1 / len(z)), color=palette.BLUE)
        ax.set_title(f"α = {alpha:g}: {(z == 0).mean():.0%} at 0, {(z == 1).mean():.0%} at 1", fontsize=9)
        ax.set_xlabel("z")
    axes[0].set_ylabel("share of draws")
    return axes
