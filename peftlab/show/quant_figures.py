"""The figures of lesson 13. Each function draws stored or live results and returns the axes."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
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
    figure, (ax, below) = plt.subplots(2, 1, sharex=True, height_ratios=(2, 1.3), figsize=(6.4, 4.2))
    ax.bar(found.centres, found.count, width=2 / 128, color=palette.GREY, alpha=0.6)
    ax.set_ylabel("weights")
    rows = {"yours": yours} if yours else {}
    rows |= {"int4, symmetric": levels_of("int4"), "FP4": levels_of("fp4"), "NF4": levels_of("nf4")}
    for row, (name, levels) in enumerate(rows.items()):
        below.plot(levels, [row] * len(levels), "|", markersize=14, markeredgewidth=2, color=palette.LINES[row])
    below.set_yticks(range(len(rows)), list(rows))
    below.set_ylim(len(rows) - 0.4, -0.6)
    below.set_xlabel("w / c: a weight, divided by the largest of its block")
    below.grid(axis="y", visible=False)
    return ax


def race(results: Mapping[str, Any]) -> Axes:
    """Loss on held-out text above that of fp32, against bits per weight: a line for each format, over block sizes."""
    cells = results["cells"]
    _, ax = plt.subplots(figsize=(6.4, 4.0))
    for index, (kind, name) in enumerate(NAMES.items()):
        sizes = [b for b in results["settings"]["blocksizes"] if f"text/tiny/{kind}/{b}" in cells]
        x = [cells[f"error/tiny/{kind}/{b}"]["bits"] for b in sizes]
        y = [cells[f"text/tiny/{kind}/{b}"]["over_fp32"] for b in sizes]
        style = dict(color=palette.LINES[index], linestyle=palette.DASHES[index], marker=palette.MARKERS[index])
        low_high = [[v[0] - v[1] for v in y], [v[2] - v[0] for v in y]]
        ax.errorbar(x, [v[0] for v in y], yerr=low_high, label=name, capsize=2, linewidth=1.4, markersize=5, **style)
        for b in sizes:
            again = shifts(results, f"{kind}/{b}")
            bits = cells[f"error/tiny/{kind}/{b}"]["bits"]
            ax.plot([bits] * len(again), again, "_", color=style["color"], markersize=12, markeredgewidth=1.2)
    ax.set_xlabel("bits per weight, scales included")
    ax.set_ylabel("loss above fp32 (nats per token)")
    ax.set_ylim(bottom=0)
    ax.legend()
    return ax


def shifts(results: Mapping[str, Any], form: str) -> list[float]:
    """Loss above fp32 with the blocks shifted, for each shift; empty if that was not measured."""
    cells, base = results["cells"], results["cells"]["text/tiny/fp32"]["loss"]
    by = results["settings"]["shifts"]
    return [cells[f"shift/tiny/{form}/{k}"] - base for k in by if f"shift/tiny/{form}/{k}" in cells]


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
        ax.annotate(f"{found.gib:,.0f} GiB", (left, row), xytext=(4, 0), textcoords="offset points", va="center")
    ax.axvline(line, color=palette.BLACK, linestyle="--", linewidth=1.3)
    ax.annotate(label, (line, -0.62), xytext=(4, 0), textcoords="offset points", va="center")
    ax.set_yticks(range(len(predictions)), list(predictions))
    ax.set_ylim(len(predictions) - 0.5, -0.85)
    ax.set_xlabel("memory of one training step, GiB")
    ax.margins(x=0.14)
    ax.grid(axis="y", visible=False)
    ax.legend(loc="upper right" if line < 100 else "lower right", fontsize=9)
    return ax


def merging(results: Mapping[str, Any]) -> Axes:
    """Test loss of a QLoRA adapter after different ways to put it into weights. Mean of the seeds, dots for each."""
    cells, seeds = results["cells"], results["settings"]["seeds"]
    runs = [cells[f"qlora/{seed}"] for seed in seeds]
    ways = {
        "beside the 4-bit base": [run["loss"] for run in runs],
        "merged (dense weights)": [run["merged"] for run in runs],
        "merged, then NF4 again": [run["merged_then_nf4"] for run in runs],
        "on the fp32 base": [run["on_fp32_base"] for run in runs],
        "on the fp32 base, then NF4": [run["fp32_base_merged_then_nf4"] for run in runs],
        "no adapter, NF4": [cells["start/qlora"]] * len(runs),
    }
    _, ax = plt.subplots(figsize=(6.4, 3.0))
    for row, (_name, losses) in enumerate(ways.items()):
        last = row == len(ways) - 1
        ax.barh(row, mean(losses), height=0.6, color=palette.GREY if last else palette.LINES[row], alpha=0.75)
        if not last:
            ax.plot(losses, [row] * len(losses), "o", color=palette.BLACK, markersize=3)
        ax.annotate(f"{mean(losses):.2f}", (max(losses), row), xytext=(6, 0), textcoords="offset points", va="center")
    ax.set_yticks(range(len(ways)), list(ways))
    ax.set_ylim(len(ways) - 0.4, -0.6)
    ax.set_xlabel("loss on held-out definitions (nats per token)")
    ax.margins(x=0.12)
    ax.grid(axis="y", visible=False)
    return ax


def losses_of(results: Mapping[str, Any], cell: str) -> list[float]:
    """The test losses of a cell, one for each seed."""
    return [results["cells"][f"{cell}/{seed}"]["loss"] for seed in results["settings"]["seeds"]]
