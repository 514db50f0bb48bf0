"""All methods that were trained on one task with one protocol: rows for a table, and a figure.

Stored results: `python -m peftlab.bench scissors`, `adapter_widths`, `additive`, `selective` (MiniLM, WordNet topics).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from peftlab.show import palette
from peftlab.show.lora_figures import accuracies

HEAD = 384 * 12 + 12  # numbers of the new head, which trains in every row

# family -> (stored result, cell, what it is called, entry in the atlas or None)
ROWS = {
    "baseline": (
        ("scissors", "head", "head only", None),
        ("scissors", "full", "full fine-tuning", None),
    ),
    "additive": (
        ("adapter_widths", "houlsby/1", "Houlsby, m = 1", "Houlsby"),
        ("adapter_widths", "merge/relu", "Houlsby, m = 16", "Houlsby"),
        ("adapter_widths", "houlsby/64", "Houlsby, m = 64", "Houlsby"),
        ("adapter_widths", "pfeiffer/16", "Pfeiffer, m = 16", "Pfeiffer"),
        ("adapter_widths", "parallel/16", "parallel adapter, m = 16", "ParallelAdapter"),
        ("adapter_widths", "compacter/12", "Compacter, m = 12", "Compacter"),
        ("additive", "ia3", "IA³", "IA3"),
        ("additive", "prefix", "prefix tuning, n = 20", "PrefixTuning"),
        ("additive", "p_tuning", "P-tuning, n = 20", "PTuning"),
        ("additive", "prompt", "prompt tuning, n = 20, start from words", "PromptTuning"),
        ("additive", "prompt_random", "prompt tuning, n = 20, random start", "PromptTuning"),
    ),
    "selective": (
        ("selective", "layer_norm", "LayerNorms", "LNTuning"),
        ("selective", "bitfit", "BitFit", "BitFit"),
        ("selective", "last/1", "the last block", "LastLayers"),
        ("selective", "last/2", "the last two blocks", "LastLayers"),
        ("selective", "fisher/0.005", "FISH Mask, 0.5 %", "FishMask"),
        ("selective", "magnitude/0.005", "mask of the largest, 0.5 %", "FishMask"),
        ("selective", "random/0.005", "random mask, 0.5 %", "FishMask"),
    ),
    "reparameterisation": (
        ("scissors", "lora_qv/8", "LoRA on query and value, r = 8", "LoRA"),
        ("scissors", "lora_all/1", "LoRA on all matrices, r = 1", "LoRA"),
        ("scissors", "lora_all/8", "LoRA on all matrices, r = 8", "LoRA"),
    ),
}


@dataclass(frozen=True)
class Row:
    family: str
    name: str
    method: str | None  # its class
    trained: int  # without the head
    accuracies: tuple[float, ...]  # one for each seed
    rate: float  # the learning rate that was chosen

    @property
    def mean(self) -> float:
        return mean(self.accuracies)


def rows(results: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """The best on top. results: name of a stored result -> its content; what is not stored is left out."""
    found = []
    for family, members in ROWS.items():
        for stored, cell, name, method in members:
            seeds = accuracies(results.get(stored, {"cells": {}}), cell)
            if seeds:
                first = results[stored]["cells"][f"{cell}/0"]
                found.append(Row(family, name, method, first["trainable"] - HEAD, tuple(seeds), first["lr"]))
    return sorted(found, key=lambda row: -row.mean)


def figure(shown: Sequence[Row]) -> Figure:
    """One line for each row: every seed a small mark, the mean a large one."""
    drawing, ax = plt.subplots(figsize=(7.2, 0.36 * len(shown) + 1.1))
    families = list(ROWS)
    for height, row in enumerate(reversed(shown)):
        index = families.index(row.family)
        color = palette.BLACK if row.family == "baseline" else palette.LINES[index - 1]
        style = {"color": color, "marker": palette.MARKERS[index], "linestyle": "none"}
        ax.plot(row.accuracies, [height] * len(row.accuracies), markersize=4, alpha=0.45, **style)
        label = row.family if row.family not in ax.get_legend_handles_labels()[1] else None
        ax.plot([row.mean], [height], markersize=8, label=label, **style)
        if row.family == "baseline":
            ax.axvline(row.mean, color=palette.GREY, linewidth=1, linestyle=":", zorder=0)
    ax.set_yticks(range(len(shown)), [row.name for row in reversed(shown)], fontsize=9)
    ax.set_xlabel("test accuracy, 1,200 definitions")
    drawing.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return drawing
