"""The figures of lesson 01: the ladder of models, the advice of three laws, measured peaks beside predicted ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from peftlab.costs.memory import GIB
from peftlab.costs.scaling import BESIROGLU, HOFFMANN_UNROUNDED, KAPLAN
from peftlab.course.ladder import Rung
from peftlab.show import palette

METHOD_NAMES = {"full": "full", "lora": "LoRA", "qlora": "QLoRA"}
# Published models: name -> parameters, training tokens (the sources are in the lesson).
CHINCHILLA = 6 * 70e9 * 1.4e12  # FLOPs
TRAINED = {"Chinchilla": (70e9, 1.4e12), "Llama 2 7B": (6.74e9, 2e12), "Llama 2 70B": (69e9, 2e12)}


def ladder(found: Sequence[Rung], known: int, law: tuple[float, float], *, hidden: bool = True) -> Axes:
    """Test loss against size, both axes logarithmic, with the line L = a / N^b. The rungs after `known` are left out,
    or drawn with their distance from the line."""
    a, b = law
    _, ax = plt.subplots()
    N = np.array([rung.N for rung in found])
    ax.plot(N, a * N**-b, color=palette.VERMILION, linestyle="--", marker="", label="your line")
    seen, rest = found[:known], found[known:]
    ax.plot([r.N for r in seen], [r.loss for r in seen], color=palette.BLUE, marker="o", linestyle="", label="known")
    ax.axvspan(seen[-1].N * 1.3, N[-1] * 1.4, color="#EEEEEE", zorder=0)
    if not hidden:
        ax.plot([r.N for r in rest], [r.loss for r in rest], color=palette.BLACK, marker="s", linestyle="",
                label="trained, and hidden until now")  # fmt: skip
        for rung in rest:
            ax.plot([rung.N] * 2, [a * rung.N**-b, rung.loss], color=palette.GREY, linestyle=":", marker="")
    _logarithmic(ax, [rung.loss for rung in found] + [a * N[-1] ** -b])
    ax.set_xlabel("parameters without the embedding, N")
    ax.set_ylabel("test loss L, nats per token")
    ax.legend()
    return ax


def passes(once: Sequence[Rung], four: Sequence[Rung]) -> Axes:
    """The same ladder after one pass over the text and after four."""
    _, ax = plt.subplots()
    for index, (found, label) in enumerate(((once, "one pass, 3 seeds"), (four, "four passes, 1 seed"))):
        N = [rung.N for rung in found]
        style = {"color": palette.LINES[index], "linestyle": palette.DASHES[index], "marker": palette.MARKERS[index]}
        ax.plot(N, [rung.loss for rung in found], label=label, **style)
        ax.fill_between(N, [min(r.losses) for r in found], [max(r.losses) for r in found],
                        color=style["color"], alpha=0.2)  # fmt: skip
    _logarithmic(ax, [rung.loss for rung in (*once, *four)])
    ax.set_xlabel("parameters without the embedding, N")
    ax.set_ylabel("test loss L, nats per token")
    ax.legend()
    return ax


def advice() -> Axes:
    """The best size for a budget by three laws, and what was really trained."""
    _, ax = plt.subplots()
    C = np.logspace(18, 25, 60)
    for index, law in enumerate((KAPLAN, HOFFMANN_UNROUNDED, BESIROGLU)):
        ax.plot(C, [law.optimum(float(c)).N for c in C], label=law.name, color=palette.LINES[index],
                linestyle=palette.DASHES[index])  # fmt: skip
    for index, (name, (N, D)) in enumerate(TRAINED.items()):
        ax.plot(6 * N * D, N, color=palette.BLACK, marker=palette.MARKERS[index], linestyle="", label=name)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("budget C, FLOPs")
    ax.set_ylabel("best size N, parameters")
    ax.legend(fontsize=9)
    return ax


def peaks(results: Mapping[str, Any], shapes: Sequence[str] = ("1.1B", "6.7B")) -> Figure:
    """Measured peaks (bars, median of the rounds) and predicted ones (marks), with and without checkpointing."""
    figure, axes = plt.subplots(1, len(shapes), figsize=(7.4, 3.4))
    for ax, shape in zip(axes, shapes, strict=True):
        for place, method in enumerate(METHOD_NAMES):
            for again, (kind, colour, hatch) in enumerate(
                (("plain", palette.SKY, ""), ("checkpointing", palette.ORANGE, "//"))
            ):
                cells = peak_cells(results, shape, method, kind)
                x, high = place + 0.4 * again - 0.2, median(cell["measured"] for cell in cells) / GIB
                ax.bar(x, high, width=0.38, color=colour, hatch=hatch, edgecolor="#222222", linewidth=0.6,
                       label=f"measured, {kind}" if place == 0 else None)  # fmt: skip
                ax.plot(x, cells[0]["predicted"] / GIB, marker="D", color=palette.BLACK, markersize=5, linestyle="",
                        label="predicted" if place == again == 0 else None)  # fmt: skip
                ax.annotate(f"{high:.1f}", (x, high), (0, 6), textcoords="offset points", ha="center", fontsize=8.5)
        ax.set_xticks(range(len(METHOD_NAMES)), METHOD_NAMES.values())
        ax.set_title(shape, fontsize=11)
        ax.margins(y=0.14)
        ax.grid(axis="x", visible=False)
    axes[0].set_ylabel("GiB at the peak of a step")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=9)
    plt.close(figure)
    return figure


def peak_cells(results: Mapping[str, Any], shape: str, method: str, kind: str) -> list[dict[str, Any]]:
    """All rounds of one cell of data/results/qlora_scale.json."""
    start = f"{shape}/{method}/{kind}/"
    return [cell for key, cell in results["cells"].items() if key.startswith(start)]


def _logarithmic(ax: Axes, losses: Sequence[float]) -> None:
    ax.set_xscale("log")
    ax.set_yscale("log")
    ticks = [value for value in np.arange(2.0, 8.1, 0.5) if min(losses) * 0.97 < value < max(losses) * 1.03]
    ax.set_yticks(ticks, [f"{value:g}" for value in ticks])
    ax.minorticks_off()
