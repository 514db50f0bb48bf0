"""The figures of lesson 02: which tensors training changed, and when each method was published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from peftlab.course.landscape import OF_FAMILY, Entry, entries
from peftlab.show import palette

FAMILY_STYLE = {
    "additive": (palette.BLUE, "o"),
    "selective": (palette.GREEN, "s"),
    "reparameterisation": (palette.VERMILION, "^"),
    "hybrid": (palette.PURPLE, "D"),
}


# ---- which tensors changed ----------------------------------------------------------------------------------------


def changes(
    before: Mapping[str, Tensor], changed: Mapping[str, Mapping[str, int]], new: Mapping[str, Sequence[str]]
) -> Figure:
    """A row for each method, a cell for each tensor of the model in its order.

    before: the model's tensors. changed: by method, how many entries of each changed tensor differ. new: by method,
    the layers that something was put around; a triangle stands below the last tensor of each.
    """
    names = list(before)
    figure, ax = plt.subplots(figsize=(7.2, 0.5 * len(changed) + 1.5))
    for row, (method, counts) in enumerate(changed.items()):
        for column, name in enumerate(names):
            share = counts.get(name, 0) / before[name].numel()
            look = {"color": "#EEEEEE"} if share == 0 else {"color": palette.BLUE}
            if 0 < share < 0.9:
                look = {"facecolor": palette.YELLOW, "edgecolor": palette.BLACK, "hatch": "/////", "linewidth": 0}
            ax.bar(column, 0.5, width=0.86, bottom=row - 0.3, **look)
        for layer in new.get(method, ()):
            last = max(place for place, name in enumerate(names) if name.startswith(f"{layer}."))
            ax.plot(last, row + 0.29, marker="^", color=palette.VERMILION, markersize=5, clip_on=False)
    ax.set_yticks([row - 0.05 for row in range(len(changed))], changed)
    ax.set_ylim(len(changed) - 0.4, -0.5)
    parts = _parts(names)
    ax.set_xticks([start - 0.5 for start in parts.values()], [])
    ax.vlines([start - 0.5 for start in parts.values()], -0.5, len(changed) - 0.4, color=palette.GREY, linewidth=0.6)
    for part, start in parts.items():
        size = sum(_part(name) == part for name in names)
        ax.annotate(part, (start - 0.5 + size / 2, 0), (0, -8), xycoords=ax.get_xaxis_transform(),
                    textcoords="offset points", ha="center", va="top", fontsize=8.5)  # fmt: skip
    ax.set_xlim(-1, len(names))
    ax.grid(False)
    handles = [
        Patch(color="#EEEEEE", label="bit-identical"),
        Patch(facecolor=palette.YELLOW, hatch="/////", edgecolor=palette.BLACK, linewidth=0, label="partly changed"),
        Patch(color=palette.BLUE, label="changed"),
        plt.Line2D([], [], marker="^", color=palette.VERMILION, linestyle="", label="something new here"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=4, fontsize=8.5, handlelength=1.4)
    plt.close(figure)
    return figure


def _part(name: str) -> str:
    pieces = name.split(".")
    if "layer" in pieces:
        return f"block {pieces[pieces.index('layer') + 1]}"
    return "head" if pieces[0] == "classifier" else "emb."


def _parts(names: Sequence[str]) -> dict[str, int]:
    """Where each part of the model begins."""
    found: dict[str, int] = {}
    for place, name in enumerate(names):
        found.setdefault(_part(name), place)
    return found


# ---- a timeline ---------------------------------------------------------------------------------------------------

# The course's methods that a newcomer should be able to place; the map has all of them.
SHOWN = ("Houlsby", "Pfeiffer", "PrefixTuning", "PromptTuning", "Compacter", "ParallelAdapter", "IA3", "LlamaAdapter")
SHOWN += ("DiffPruning", "BitFit", "FishMask", "LNTuning")
SHOWN += ("IntrinsicDimension", "LoRA", "LoHa", "AdaLoRA", "QLoRA", "OFT", "VeRA", "DoRA")
SHOWN += ("MAM", "UniPELT")
WORDS = {"ParallelAdapter": "parallel adapter", "PrefixTuning": "prefix tuning", "PromptTuning": "prompt tuning"}
WORDS |= {"IntrinsicDimension": "intrinsic dim.", "DiffPruning": "diff pruning", "LNTuning": "LayerNorm tuning"}
WORDS |= {"LlamaAdapter": "LLaMA-Adapter", "IA3": "IA³"}
LETTER = 0.055  # years that a letter takes in the figure


def published(arxiv: str) -> float:
    """When a paper came out, in years: an arXiv id begins with year and month. "1902.00751" is 2019.08."""
    when = date(2000 + int(arxiv[:2]), int(arxiv[2:4]), 1)
    return when.year + (when.month - 1) / 12


def timeline() -> Figure:
    """The methods by their first appearance on arXiv, a lane for each family."""
    known = {entry.name: entry for entry in entries()}
    figure, ax = plt.subplots(figsize=(7.2, 5.2))
    top, lanes = 0.0, {}
    for family in OF_FAMILY:
        placed = stacked([known[name] for name in SHOWN if known[name].family == family])
        colour, marker = FAMILY_STYLE[family]
        for entry, level in placed:
            x, y = published(entry.arxiv), top + 1.1 + level
            ax.plot(x, y, marker=marker, color=colour, markersize=7, markerfacecolor=colour if entry.built else "white")
            words = WORDS.get(entry.name, entry.name)
            ax.annotate(words, (x, y), (7, 0), textcoords="offset points", va="center", fontsize=9)
        height = 1.7 + max(level for _, level in placed)
        lanes[family] = top
        ax.axhline(top, color=palette.GREY, linewidth=0.8)
        top += height
    for family, start in lanes.items():
        ax.text(2018.62, start + 0.15, family, fontsize=9.5, fontweight="bold", va="top", color="#222222")
    ax.set_xlim(2018.6, 2025.3)
    ax.set_ylim(top, 0)
    ax.set_xticks(range(2019, 2025))
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.grid(axis="y", visible=False)
    handles = [
        plt.Line2D([], [], marker="o", color="#222222", linestyle="", label="in our library"),
        plt.Line2D([], [], marker="o", color="#222222", markerfacecolor="white", linestyle="", label="not built yet"),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2, fontsize=9)
    plt.close(figure)
    return figure


def stacked(papers: Sequence[Entry]) -> list[tuple[Entry, int]]:
    """Each paper with the first level on which its label meets no earlier one."""
    free: list[float] = []  # by level, where the last label ends
    placed = []
    for entry in sorted(papers, key=lambda each: (published(each.arxiv), each.name)):
        start = published(entry.arxiv)
        level = next((level for level, end in enumerate(free) if end <= start), len(free))
        end = start + 0.25 + LETTER * len(WORDS.get(entry.name, entry.name)) * 1.6
        free[level : level + 1] = [end]
        placed.append((entry, level))
    return placed
