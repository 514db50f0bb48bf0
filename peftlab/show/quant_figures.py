"""The figures of lesson 13. Each function draws stored or live results and returns the axes."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean, median
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from torch import Tensor

from peftlab.costs.memory import GIB, Memory
from peftlab.course.sixteen_levels import moments
from peftlab.quant import levels_of
from peftlab.show import palette

NAMES = {"int4": "int4, symmetric", "int4_asymmetric": "int4, asymmetric", "fp4": "FP4", "nf4": "NF4"}


def codebooks(weight: Tensor, yours: list[float] | None = None) -> Axes:
    """A histogram of w/c over blocks of 64, and below it the levels of each codebook."""
    found = moments([weight], bins=128)
    _, (ax, below) = plt.subplots(2, 1, sharex=True, height_ratios=(2, 1.3), figsize=(6.4, 4.2))
    ax.bar(found.centres, found.count, width=2 / 128, color=palette.GREY, alpha=0.6)
    ax.set_ylabel("weights")
    rows = {"yours (even,\nif not moved)": yours} if yours else {}
    rows |= {"int4, symmetric": levels_of("int4"), "FP4": levels_of("fp4"), "NF4": levels_of("nf4")}
    for row, levels in enumerate(rows.values()):
        below.plot(levels, [row] * len(levels), "|", markersize=14, markeredgewidth=2, color=palette.LINES[row])
    below.set_yticks(range(len(rows)), list(rows))
    below.set_ylim(len(rows) - 0.4, -0.6)
    below.set_xlabel("w / c: a weight, divided by the largest of its block")
    below.grid(axis="y", visible=False)
    return ax


def race(results: Mapping[str, Any]) -> Axes:
    """Loss on held-out text above that of fp32: against bits per weight, and against the squared error of the weights.

    A point is the mean over all orders of the columns, its bar goes from the lowest to the highest. A line for each
    format joins its block sizes. Formats are shifted sideways by a hair, so that bars at equal bits can be told apart.
    """
    cells = results["cells"]
    _, (ax, below) = plt.subplots(2, 1, figsize=(6.4, 6.4))
    for index, (kind, name) in enumerate(NAMES.items()):
        sizes = results["settings"]["blocksizes"]
        apart = 0.005 * (index - (len(NAMES) - 1) / 2)
        bits = [cells[f"error/tiny/{kind}/{b}"]["bits"] + apart for b in sizes]
        squares = [(100 * cells[f"error/tiny/{kind}/{b}"]["error"]) ** 2 for b in sizes]
        found = [orders(results, f"{kind}/{b}") for b in sizes]
        y = [mean(run) for run in found]
        bars = [[m - min(run) for m, run in zip(y, found, strict=True)],
                [max(run) - m for m, run in zip(y, found, strict=True)]]  # fmt: skip
        style = dict(color=palette.LINES[index], linestyle=palette.DASHES[index], marker=palette.MARKERS[index])
        ax.errorbar(bits, y, yerr=bars, label=name, capsize=3, linewidth=1.4, markersize=5, **style)
        below.plot(squares, y, **{**style, "linestyle": "none"})
    ax.set_xlabel("bits per weight, scales included (blocks of 256, 128, 64, 32);\nequal bits are drawn a hair apart")
    ax.set_ylabel("loss above fp32 (nats per token)")
    ax.set_ylim(bottom=0)
    below.set_xlim(left=0)
    below.set_ylim(bottom=0)
    below.set_ylabel("loss above fp32 (nats per token)")
    below.set_xlabel("squared error of the weights, in (%)²")
    ax.legend()
    return ax


def orders(results: Mapping[str, Any], form: str) -> list[float]:
    """Loss above fp32 with the columns as they are, and with each shuffle of them."""
    cells = results["cells"]
    found = [cells[f"text/tiny/{form}"]["loss"]]
    found += [cells[f"shuffled/tiny/{form}/{seed}"] for seed in results["settings"]["shuffles"]]
    return [loss - cells["text/tiny/fp32"]["loss"] for loss in found]


def memory(predictions: Mapping[str, Memory], line: float, label: str) -> Axes:
    """Bars of what a training step needs, part by part, and a line for what there is. In GiB."""
    parts = list(dict.fromkeys(part for found in predictions.values() for part in found.parts))
    parts = [part for part in parts if any(m.parts.get(part, 0) > 0.004 * m.total for m in predictions.values())]
    hatches = ("", "//", "..", "xx", "\\\\", "++", "oo")
    _, ax = plt.subplots(figsize=(6.4, 3.2))
    for row, found in enumerate(predictions.values()):
        left = 0.0
        for index, part in enumerate(parts):
            size = found.parts.get(part, 0) / GIB
            style = dict(color=palette.LINES[index % 7], hatch=hatches[index % 7], edgecolor="white", linewidth=0)
            ax.barh(row, size, left=left, height=0.6, label=part if row == 0 else None, alpha=0.8, **style)
            left += size
        ax.annotate(f"{found.gib:,.0f} GiB", (left, row), xytext=(4, 0), textcoords="offset points", va="center",
                    zorder=5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8})  # fmt: skip
    ax.axvline(line, color=palette.BLACK, linestyle="--", linewidth=1.3)
    ax.annotate(label, (line, -0.62), xytext=(4, 0), textcoords="offset points", va="center")
    ax.set_yticks(range(len(predictions)), list(predictions))
    ax.set_ylim(len(predictions) - 0.5, -0.85)
    ax.set_xlabel("memory of one training step, GiB")
    ax.margins(x=0.14)
    ax.set_axisbelow(True)
    ax.grid(axis="y", visible=False)
    ax.legend(loc="lower right", fontsize=9, bbox_to_anchor=(1.14, 0.1))
    return ax


def on_a_gpu(results: Mapping[str, Any], shape: str) -> list[dict[str, str]]:
    """Rows of a table: peak memory and speed of each method, the medians of the rounds; speeds with their range."""
    names = {
        "full": "full fine-tuning, bf16",
        "lora": "LoRA",
        "qlora": "QLoRA, bitsandbytes",
        "qlora_ours": "QLoRA, ours",
    }

    def found(method: str, how: str, what: str) -> list[float]:
        rounds = range(results["settings"]["rounds"])
        return [results["cells"][f"{shape}/{method}/{how}/{n}"][what] for n in rounds]

    def peak(method: str, how: str) -> str:
        return f"{median(found(method, how, 'measured')) / GIB:.1f} GiB"

    def speed(method: str, how: str) -> str:
        rounds = found(method, how, "tokens_a_second")
        return f"{median(rounds):,.0f} ({min(rounds):,.0f} to {max(rounds):,.0f})"

    return [
        {
            f"{shape} parameters, one H100": name,
            "peak, checkpointing": peak(method, "checkpointing"),
            "peak, plain": peak(method, "plain"),
            "tokens a second, checkpointing": speed(method, "checkpointing"),
            "tokens a second, plain": speed(method, "plain"),
        }
        for method, name in names.items()
    ]


def merging(results: Mapping[str, Any]) -> Axes:
    """Test loss of a QLoRA adapter against how long it was trained, merged in three ways. Lines: means of the seeds."""
    cells, settings = results["cells"], results["settings"]
    steps = [*settings["shorter"], settings["steps"]]
    ways = {
        "merged_then_nf4": "merged into the 4-bit base, then NF4 again",
        "fp32_base_merged_then_nf4": "merged into the original weights, then NF4",
        "merged": "merged into the 4-bit base, left dense",
    }
    _, ax = plt.subplots()
    for index, (way, label) in enumerate(ways.items()):
        found = [[run[way] for run in after(results, n)] for n in steps]
        style = dict(color=palette.LINES[index], linestyle=palette.DASHES[index], marker=palette.MARKERS[index])
        ax.plot(steps, [mean(runs) for runs in found], label=label, **style)
        ax.fill_between(steps, [min(r) for r in found], [max(r) for r in found], color=style["color"], alpha=0.15)
    ax.axhline(cells["start/qlora"], color=palette.GREY, linestyle=":", linewidth=1.2)
    ax.annotate("not trained", (steps[-1], cells["start/qlora"]), xytext=(0, 4), textcoords="offset points",
                ha="right", color=palette.GREY)  # fmt: skip
    ax.set_xscale("log")
    ax.set_xticks(steps, [f"{n}\nΔW {mean(run['change'] for run in after(results, n)):.1%}" for n in steps])
    ax.minorticks_off()
    ax.set_xlabel("steps of training, and how much they changed the weights")
    ax.set_ylabel("loss on held-out definitions (nats)")
    ax.set_ylim(bottom=3)
    ax.legend(loc="upper right", bbox_to_anchor=(1, 0.92))
    return ax


def after(results: Mapping[str, Any], steps: int) -> list[dict[str, Any]]:
    """QLoRA's cells after so many steps, one for each seed."""
    settings = results["settings"]
    name = "qlora" if steps == settings["steps"] else f"qlora after {steps}"
    return [results["cells"][f"{name}/{seed}"] for seed in settings["seeds"]]


def losses_of(results: Mapping[str, Any], cell: str) -> list[float]:
    """The test losses of a cell, one for each seed."""
    return [results["cells"][f"{cell}/{seed}"]["loss"] for seed in results["settings"]["seeds"]]
