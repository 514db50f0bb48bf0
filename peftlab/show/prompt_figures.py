"""The figures of lesson 04 and of its deep dive: stored results of `python -m peftlab.bench`, and live gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from peftlab.errors import PeftLabError
from peftlab.show import palette
from peftlab.show.work_figures import seeds


@dataclass(frozen=True)
class Chosen:
    """One arm of `soft_prompts` at the learning rate with the lowest validation loss."""

    lr: float
    validation: float
    test: float
    bracketed: bool  # a lower and a higher rate were tried, and both are worse


def tried(prompts: Mapping[str, Any], arm: str) -> dict[float, dict[str, Any]]:
    """The runs of an arm, such as "prompt/text/20", by learning rate, lowest first."""
    found = {r["lr"]: r for key, r in prompts["cells"].items() if key.startswith(f"choose/{arm}/")}
    if not found:
        raise PeftLabError(f"no stored runs of {arm!r}")
    return dict(sorted(found.items()))


def chosen(prompts: Mapping[str, Any], arm: str) -> Chosen:
    """The best rate of an arm, by validation loss."""
    runs = tried(prompts, arm)
    best = min(runs, key=lambda lr: runs[lr]["validation"])
    return Chosen(best, runs[best]["validation"], runs[best]["test"], min(runs) < best < max(runs))


ARMS = {
    "prompt/text/1": "prompt, 1 vector",
    "prompt/random/20": "prompt, 20 vectors, random start",
    "prompt/text/20": "prompt, 20 vectors, started from a text",
    "prefix/random/20": "prefix, 20, peft's random start",
    "prefix/real/20": "prefix, 20, started from a text's keys and values",
}


def leaderboard(prompts: Mapping[str, Any], tasks: Mapping[str, Any]) -> Axes:
    """Test loss of typed examples, of soft prompts (one seed) and of LoRA and full fine-tuning (three seeds)."""
    hand, cells = prompts["cells"], tasks["cells"]
    lines: list[tuple[str, list[float], str]] = [("no prompt", [cells["base/define"]["loss"]], "typed")]
    for shots in (1, 8, 32):
        found = hand[f"hand/{shots}"]
        name = f"{shots} typed example{'s' * (shots > 1)}, {found['tokens']} tokens"
        lines.append((name, [found["test"]], "typed"))
    lines += [(name, [chosen(prompts, arm).test], "soft") for arm, name in ARMS.items()]
    for kind, name in (("lora", "LoRA, r = 8, query and value"), ("full", "full fine-tuning")):
        lines.append((name, [run["loss"] for run in seeds(tasks, f"{kind}/define")], "weights"))
    looks = {"typed": (palette.GREY, "D", "nothing trained"), "soft": (palette.VERMILION, "o", "soft, one seed"),
             "weights": (palette.BLUE, "s", "weights changed, three seeds")}  # fmt: skip
    _, ax = plt.subplots(figsize=(8.0, 0.9 + 0.34 * len(lines)))
    named = set()
    for place, (_, losses, kind) in enumerate(lines):
        colour, marker, label = looks[kind]
        ax.hlines(place, 2.5, 5.3, color=palette.GREY, linewidth=0.8, linestyle=":", alpha=0.5, zorder=1)
        ax.plot(losses, [place] * len(losses), linestyle="none", color=colour, marker=marker, markersize=7,
                label=None if kind in named else label)  # fmt: skip
        ax.annotate(f"{mean(losses):.2f}", (max(losses), place), xytext=(9, 0), textcoords="offset points",
                    va="center", fontsize=9)  # fmt: skip
        named.add(kind)
    ax.set_yticks(range(len(lines)), [name for name, _, _ in lines], fontsize=9)
    ax.set_ylim(len(lines) - 0.4, -0.6)
    ax.set_xlim(2.5, 5.3)
    ax.set_xlabel("test loss per token (nats); lower is better")
    ax.grid(axis="y", visible=False)
    ax.legend(loc="lower right")
    return ax


STARTS = {
    "prompt": {"random": "N(0, 1), as peft", "small": "N(0, 1), at words' scale", "vocabulary": "random words",
               "text": "words of a text"},
    "prefix": {"random": "N(0, 1), as peft", "zero": "zeros", "projection": "through a network",
               "real": "a text's keys and values"},
}  # fmt: skip
CEILING = 4.0  # nats: what is worse is drawn here, as an open arrow


def rates(prompts: Mapping[str, Any], n: int = 20) -> Figure:
    """Validation loss against the learning rate, for each start; prompts on the left, prefixes on the right."""
    figure, axes = plt.subplots(1, 2, figsize=(9.0, 4.2), sharey=True)
    for ax, (kind, starts) in zip(axes, STARTS.items(), strict=True):
        for index, (start, label) in enumerate(starts.items()):
            runs = tried(prompts, f"{kind}/{start}/{n}")
            losses = [run["validation"] for run in runs.values()]
            line = {"color": palette.LINES[index], "markersize": 6}
            ax.plot(list(runs), [min(loss, CEILING) for loss in losses], label=label, linestyle=palette.DASHES[index],
                    marker=palette.MARKERS[index], **line)  # fmt: skip
            high = [lr for lr, loss in zip(runs, losses, strict=True) if loss > CEILING]
            if high:
                ax.plot(high, [CEILING] * len(high), linestyle="none", marker="^", markerfacecolor="white",
                        markersize=10, color=palette.LINES[index], clip_on=False, in_layout=False)  # fmt: skip
        ax.set_xscale("log")
        ax.set_xlim(4e-4, 20)
        ax.set_xlabel("learning rate")
        ax.set_title(f"{kind}, {n} virtual tokens", fontsize=11)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8.5, ncols=2, frameon=False)
    axes[0].set_ylim(2.8, CEILING)  # the open marks touch the upper edge
    axes[0].set_ylabel("validation loss (nats)")
    return figure


def gates(shares: Tensor, layers: tuple[int, ...]) -> Figure:
    """The prefix's share λ of the attention: heads by positions, one panel for each layer.

    shares: (len(layers), heads, positions), between 0 and 1.
    """
    if len(shares) != len(layers):
        raise PeftLabError(f"{len(shares)} panels and {len(layers)} layers: give one of each.")
    figure, axes = plt.subplots(1, len(layers), figsize=(3.0 * len(layers), 3.4), sharey=True)
    for ax, share, layer in zip(axes, shares, layers, strict=True):
        image = ax.imshow(share.cpu().numpy(), vmin=0, vmax=1, cmap="cividis", aspect="auto", interpolation="nearest")
        ax.set_title(f"layer {layer}", fontsize=11)
        ax.set_xlabel("position of the query")
        ax.set_xticks(range(0, share.shape[1], max(1, share.shape[1] // 6)))
        ax.grid(visible=False)
    axes[0].set_ylabel("head")
    figure.colorbar(image, ax=axes, label="λ, the prefix's share")
    return figure
