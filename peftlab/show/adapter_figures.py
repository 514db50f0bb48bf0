"""The figures of lesson 03: where adapters stand, how wide they are, what a linear map keeps of them, what they cost.

Drawings are in book/assets. Stored results: `python -m peftlab.bench adapter_widths` and `adapter_latency`.
"""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from peftlab import hosts
from peftlab.show import palette
from peftlab.show.lora_figures import accuracies

ASSETS = Path(__file__).resolve().parents[2] / "book" / "assets"
PLACES = ("houlsby", "pfeiffer", "parallel")


class Drawings:
    """Drawings of book/assets side by side. Outside a notebook their descriptions, which the site shows as alt text."""

    def __init__(self, names: Sequence[str]) -> None:
        self.svgs = [(ASSETS / f"{name}.svg").read_text(encoding="utf-8") for name in names]
        self.described = [
            html.unescape(re.search(r"<title[^>]*>(.*?)</title>", svg).group(1))
            + ". "
            + html.unescape(re.search(r"<desc[^>]*>(.*?)</desc>", svg).group(1))
            for svg in self.svgs
        ]

    def __repr__(self) -> str:
        return "\n".join(self.described)

    def _repr_html_(self) -> str:
        pictures = [
            f'<img src="data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}" '
            f'alt="{html.escape(text)}" style="width:300px;max-width:100%">'
            for svg, text in zip(self.svgs, self.described, strict=True)
        ]
        return f'<div style="display:flex;flex-wrap:wrap;gap:12px">{"".join(pictures)}</div>'


def placements() -> Drawings:
    """Where Houlsby's, Pfeiffer's and the parallel adapter stand in a block of BERT's kind."""
    return Drawings([f"adapter_{place}" for place in PLACES])


# ---- accuracy -----------------------------------------------------------------------------------------------------


def runs(results: Mapping[str, Any], arm: str, m: int) -> list[dict[str, Any]]:
    """The stored runs of an adapter of width m, one for each seed. Houlsby's at 16 are those that were then merged."""
    cell = "merge/relu" if (arm, m) == ("houlsby", 16) else f"{arm}/{m}"
    found = [results["cells"].get(f"{cell}/{seed}") for seed in results["settings"]["seeds"]]
    return [run for run in found if run is not None]


ARMS = {"houlsby": "Houlsby", "pfeiffer": "Pfeiffer", "parallel": "parallel, s = 4", "compacter": "Compacter"}
WIDTHS = (1, 4, 12, 16, 64)
HEAD = 384 * 12 + 12


def measured(results: Mapping[str, Any]) -> list[tuple[str, int, list[dict[str, Any]]]]:
    """(arm, width, runs) of everything that was stored with all its seeds."""
    wanted = len(results["settings"]["seeds"])
    found = [(arm, m, runs(results, arm, m)) for arm in ARMS for m in WIDTHS]
    return [(arm, m, each) for arm, m, each in found if len(each) == wanted]


def widths(results: Mapping[str, Any], scissors: Mapping[str, Any]) -> Figure:
    """Test accuracy against the parameters of the adapters: each seed a small mark, their mean a large one."""
    figure, ax = plt.subplots(figsize=(7.2, 4.2))
    lora = [(f"lora_all/{r}", r) for r in (1, 2, 4, 8)]
    for index, arm in enumerate([*ARMS, "lora"]):
        if arm == "lora":
            points = [
                (scissors["cells"][f"{cell}/0"]["trainable"] - HEAD, accuracies(scissors, cell), f"r={r}")
                for cell, r in lora
            ]
            label = "LoRA, all matrices (5 seeds)"
        else:
            points = [
                (each[0]["trainable"] - HEAD, [run["accuracy"] for run in each], f"m={m}")
                for name, m, each in measured(results)
                if name == arm
            ]
            label = ARMS[arm] if len(points) != 1 else f"{ARMS[arm]}, {points[0][2]}"
        if not points:
            continue
        style = {"color": palette.LINES[index], "marker": palette.MARKERS[index]}
        ax.plot([x for x, _, _ in points], [mean(y) for _, y, _ in points], linestyle=palette.DASHES[index],
                label=label, markersize=8, **style)  # fmt: skip
        for x, y, name in points:
            ax.plot([x] * len(y), y, linestyle="none", markersize=4, alpha=0.5, **style)
            if arm == "houlsby":
                ax.annotate(name, (x, mean(y)), xytext=(7, -12), textcoords="offset points", fontsize=9)
    for cell, label, dash in (("full", "full fine-tuning", "-"), ("head", "head only", ":")):
        ax.axhline(mean(accuracies(scissors, cell)), color=palette.GREY, linestyle=dash, linewidth=1.4, label=label)
    ax.set_xscale("log")
    ax.set_xlim(1e4, 1e6)
    ax.set_xticks([1e4, 3e4, 1e5, 3e5, 1e6], ["10,000", "30,000", "100,000", "300,000", "1 million"])
    ax.minorticks_off()
    ax.set_xlabel("trained parameters, without the head")
    ax.set_ylabel("test accuracy")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return figure


# ---- merging ------------------------------------------------------------------------------------------------------


def places(sites: Sequence[str]) -> list[str]:
    """Short names for adapters: the block's number, and `a` after the attention or `f` after the feed-forward part."""
    kinds = {True: "a", False: "f"}
    return [f"{hosts.block_number(site)}{kinds['.attention.' in site]}" for site in sites]


STORED = "stored runs: 90 steps of 32, 3 seeds"


def same_answers(results: Mapping[str, Any]) -> dict[str, float]:
    """The share of test answers that the stored models keep with a map, a mean or nothing for adapters; three seeds."""
    found = runs(results, "houlsby", 16)
    return {name: mean(run["same_answer"][name] for run in found) for name in ("map", "mean", "nothing")}


def explained(topics: Mapping[str, float], verses: Mapping[str, float], results: Mapping[str, Any]) -> Figure:
    """R² of the linear map in place of every adapter, on held-out text of the kind it was fitted on, and on another.

    Coloured: the adapters at hand. Grey: those of the stored runs, at the same places.
    """
    figure, axes = plt.subplots(1, 2, figsize=(8.8, 3.8))
    texts = (("explained", topics, "other definitions"), ("explained_verses", verses, "Bible verses"))
    for ax, (key, found, title) in zip(axes, texts, strict=True):
        for seed, run in enumerate(runs(results, "houlsby", 16)):
            ax.plot(range(len(found)), [run[key][site] for site in found], linestyle="none", marker="D", markersize=5,
                    color=palette.GREY, alpha=0.6, label="_" if seed else STORED)  # fmt: skip
        ax.plot(range(len(found)), list(found.values()), linestyle="none", marker="^", markersize=8,
                color=palette.GREEN, label="your short run")  # fmt: skip
        for level in (0, 1):
            ax.axhline(level, color=palette.GREY, linewidth=1.2)
        ax.set_xticks(range(len(found)), places(list(found)), fontsize=9)
        ax.set_ylim(top=1.05)
        ax.set_title(title, fontsize=11)
    axes[0].set_ylim(bottom=-0.25)
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=9)
    axes[0].set_ylabel("variance explained, R²")
    figure.supxlabel("adapter: block, a(ttention) or f(eed-forward)", fontsize=10)
    return figure


def units(shares: Mapping[str, Sequence[float]], results: Mapping[str, Any]) -> Figure:
    """How often each ReLU lets its number by: one dot for every unit of every adapter. Grey: those of stored runs."""
    figure, ax = plt.subplots(figsize=(7.2, 3.6))
    for row, (site, found) in enumerate(shares.items()):
        before = sorted(share for run in runs(results, "houlsby", 16) for share in run["units"][site])
        for each, step, style in (
            (before, 0.017, {"marker": "D", "markersize": 3, "color": palette.GREY, "alpha": 0.5, "label": STORED}),
            (sorted(found), 0.05, {"marker": "o", "markersize": 4, "color": palette.BLUE, "label": "your short run"}),
        ):
            style["label"] = "_" if row else style["label"]
            ax.plot([row + step * (i - len(each) / 2) for i in range(len(each))], each, linestyle="none", **style)
    for level, label in ((0, "always off"), (1, "always on")):
        ax.axhline(level, color=palette.GREY, linewidth=1.2)
        ax.annotate(label, (len(shares) - 0.5, level), xytext=(0, 4 if level else -12), textcoords="offset points",
                    ha="right", fontsize=9, color=palette.GREY)  # fmt: skip
    ax.set_xticks(range(len(shares)), places(list(shares)))
    ax.set_ylim(-0.12, 1.12)
    ax.set_xlabel("adapter: block, a(ttention) or f(eed-forward)")
    ax.set_ylabel("share of tokens it is on for")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=9)
    return figure


# ---- latency ------------------------------------------------------------------------------------------------------

VARIANTS = {
    "again": "no adapter, once more (noise)",
    "merged": "LoRA merged (noise)",
    "lora_qv": "LoRA unmerged, query and value",
    "lora_all": "LoRA unmerged, all matrices",
    "pfeiffer": "Pfeiffer",
    "parallel": "parallel",
    "houlsby": "Houlsby",
    "compacter": "Compacter",
}
NOISE = ("again", "merged")


def _size(tokens: int) -> float:
    return 4 + math.log2(tokens / 32)


def ratios(results: Mapping[str, Any], place: str, variant: str) -> list[float]:
    """Median time of a variant over that of the model without an adapter, taken in turns; one for each session."""
    sessions = [results["cells"].get(f"{place}{session}") for session in ("", "/second")]
    return [found[variant] / found["base"] for found in sessions if found]


def ratio(results: Mapping[str, Any], place: str, variant: str) -> float:
    """The mean of both sessions."""
    return mean(ratios(results, place, variant))


def places_measured(results: Mapping[str, Any], model: str) -> dict[str, int]:
    """The sizes at which a model was measured, and how many tokens each one has in all: "minilm/2x32" has 64."""
    cells = [cell for cell in results["cells"] if cell.startswith(f"{model}/") and cell.count("/") == 1]
    tokens = {cell: math.prod(int(n) for n in cell.split("/")[1].split("x")) for cell in cells}
    return dict(sorted(tokens.items(), key=lambda item: item[1]))


def latency(results: Mapping[str, Any]) -> Figure:
    """Time of a forward pass with each kind of adapter over the time without; the larger a mark, the more tokens.

    The upper marks of a row are the first session's, the lower ones the second's.
    """
    figure, axes = plt.subplots(1, 2, figsize=(8.8, 4.8), sharex=True, width_ratios=(5, 4), sharey=True)
    for ax, (name, title) in zip(axes, {"minilm": "MiniLM", "smollm2": "SmolLM2"}.items(), strict=True):
        tokens = places_measured(results, name)
        for row, variant in enumerate(VARIANTS):
            color = palette.GREY if variant in NOISE else palette.LINES[row - len(NOISE)]
            style = {"color": color, "marker": palette.MARKERS[row % len(palette.MARKERS)]}
            for cell, n in tokens.items():
                for session, found in enumerate(ratios(results, cell, variant)):
                    height = row + 0.16 * (2 * session - 1)
                    ax.plot(found, height, markersize=_size(n), alpha=0.6, **style)
        ax.axvline(1, color=palette.GREY, linewidth=1.2)
        ax.set_title(f"{title}, {min(tokens.values())} to {max(tokens.values()):,} tokens", fontsize=11)
        ax.set_xlabel("time, no adapter = 1")
    axes[0].set_yticks(range(len(VARIANTS)), list(VARIANTS.values()))
    axes[0].invert_yaxis()
    mark = {"linestyle": "none", "marker": "o", "color": palette.GREY}
    sizes = [Line2D([], [], markersize=_size(n), label=f"{n:,} tokens", **mark) for n in (32, 512, 4096)]
    figure.legend(handles=sizes, loc="outside lower center", ncols=3, fontsize=9)
    return figure
