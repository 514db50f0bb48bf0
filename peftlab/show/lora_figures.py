"""The figures of lesson 06. Each function draws stored or live results and returns the axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from peftlab.course.scissors import Change
from peftlab.show import palette

RANKS_SHOWN = (0, 1, 2, 4, 8, 16, 32, 64, 128, 384)


def accuracies(results: Mapping[str, Any], cell: str) -> list[float]:
    """The stored accuracies of a cell, one for each seed."""
    cells = results["cells"]
    found = [v for k, v in cells.items() if k.rpartition("/")[0] == cell and k.rpartition("/")[2].isdigit()]
    return [v["accuracy"] if isinstance(v, Mapping) else v for v in found]


def spectrum(changes: Mapping[str, Change]) -> Axes:
    """How much of each matrix's change the top r directions hold, against noise of the same shape."""
    _, ax = plt.subplots()
    for index, change in enumerate(changes.values()):
        squares = change.S.square().cpu().numpy()
        label = "ΔW of one matrix (36 lines)" if index == 0 else None
        ax.plot(
            range(1, len(squares) + 1),
            np.cumsum(squares) / squares.sum(),
            color=palette.BLUE,
            alpha=0.25,
            linewidth=1,
            linestyle="-",
            label=label,
        )
    rng = np.random.default_rng(0)
    noise = np.linalg.svd(rng.standard_normal((384, 384)), compute_uv=False) ** 2
    ax.plot(
        range(1, 385),
        np.cumsum(noise) / noise.sum(),
        color=palette.VERMILION,
        linestyle="--",
        label="random noise, 384 × 384",
    )
    ax.axvline(8, color=palette.GREY, linestyle=":", linewidth=1.2)
    ax.annotate("r = 8", (8, 1.0), xytext=(4, -2), textcoords="offset points", color=palette.GREY)
    ax.set_xscale("log", base=2)
    ax.set_xticks([1, 2, 4, 8, 16, 32, 64, 128, 384], ["1", "2", "4", "8", "16", "32", "64", "128", "384"])
    ax.set_xlabel("directions kept (r)")
    ax.set_ylabel("share of ΔW's energy")
    ax.set_ylim(0, 1.05)
    ax.legend(loc="lower right")
    return ax


def scissors(
    results: Mapping[str, Any], guess: Mapping[int, float | None] = (), live: Mapping[int, float] = ()
) -> Axes:
    """Test accuracy when only r directions of every change are kept: the top ones, or random ones. Five seeds."""
    _, ax = plt.subplots()
    for index, (how, label) in enumerate((("top", "top r directions"), ("random", "r random directions"))):
        runs = [accuracies(results, f"cut/{how}/{r}") for r in RANKS_SHOWN]
        style = dict(color=palette.LINES[index], linestyle=palette.DASHES[index], marker=palette.MARKERS[index])
        places = range(len(RANKS_SHOWN))
        ax.plot(places, [mean(run) for run in runs], label=f"{label} (5 seeds)", **style)
        ax.fill_between(places, [min(r) for r in runs], [max(r) for r in runs], color=style["color"], alpha=0.15)
    for values, label, colour, marker in (
        (guess, "your guess", palette.BLACK, "X"),
        (live, "live, on this machine", palette.ORANGE, "D"),
    ):
        points = [(RANKS_SHOWN.index(r), v) for r, v in dict(values).items() if v is not None and r in RANKS_SHOWN]
        if points:
            ax.scatter(*zip(*points, strict=True), label=label, color=colour, marker=marker, s=70, zorder=4)
    ax.axhline(1 / 12, color=palette.GREY, linestyle=":", linewidth=1.2)
    ax.annotate(
        "guessing", (len(RANKS_SHOWN) - 2, 1 / 12), xytext=(0, 4), textcoords="offset points", color=palette.GREY
    )
    ax.set_xticks(range(len(RANKS_SHOWN)), [str(r) for r in RANKS_SHOWN])
    ax.set_xlabel("directions kept in every matrix (r)")
    ax.set_ylabel("test accuracy")
    ax.set_ylim(0, 1.15)
    ax.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    ax.legend(loc="upper left", ncols=2)
    return ax


def controls(results: Mapping[str, Any], ranks: Sequence[int] = (1, 4, 8, 32)) -> list[dict[str, Any]]:
    """Rows of a table: mean test accuracies when equal energy is kept in three ways, and how much energy that is."""
    names = {
        "top r": "cut/top",
        "random, same energy": "control/random_of_equal_energy",
        "all, shrunk to same energy": "control/scaled_to_equal_energy",
        "all but the top r": "control/without_top",
    }

    def energy(r: int) -> float:
        """Share of the top r: mean over all matrices and seeds."""
        spectra = [cell["energy"] for key, cell in results["cells"].items() if key.startswith("spectrum/")]
        return mean(shares[str(r)] for spectrum in spectra for shares in spectrum.values())

    return [
        {"r": r, "energy of the top r": f"{100 * energy(r):.0f} %"}
        | {name: mean(accuracies(results, f"{cell}/{r}")) for name, cell in names.items()}
        for r in ranks
    ]


def trained_against_cut(results: Mapping[str, Any], ranks: Sequence[int] = (1, 2, 4, 8, 32)) -> Axes:
    """LoRA trained at rank r against full fine-tuning cut to rank r, as it is and with its head trained again."""
    _, ax = plt.subplots()
    for index, (cell, label) in enumerate(
        (
            ("lora_all", "trained at rank r (LoRA)"),
            ("cut/top", "full fine-tuning, cut to r"),
            ("head_again", "cut to r, then the head trained again"),
        )
    ):
        places = [place for place, r in enumerate(ranks) if accuracies(results, f"{cell}/{r}")]
        runs = [accuracies(results, f"{cell}/{ranks[place]}") for place in places]
        colour, marker = palette.LINES[index], palette.MARKERS[index]
        ax.plot(
            places,
            [mean(run) for run in runs],
            label=label,
            color=colour,
            linestyle=palette.DASHES[index],
            marker=marker,
        )
        for place, run in zip(places, runs, strict=True):
            ax.scatter([place] * len(run), run, color=colour, marker=marker, s=12, alpha=0.5)
    full = mean(accuracies(results, "full"))
    ax.axhline(full, color=palette.GREY, linestyle=":", linewidth=1.4)
    ax.annotate("full fine-tuning", (0, full), xytext=(0, 5), textcoords="offset points", color=palette.GREY)
    ax.set_xticks(range(len(ranks)), [str(r) for r in ranks])
    ax.set_xlabel("rank r")
    ax.set_ylabel("test accuracy")
    ax.set_ylim(0.3, 0.95)
    ax.legend(loc="lower right")
    return ax


def alpha_and_rate(results: Mapping[str, Any]) -> Axes:
    """Validation accuracy over the learning rate for four choices of r and alpha. Three seeds each."""
    rates = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    configurations = {
        "alpha/4/8": "r = 4, α = 8   (α/r = 2)",
        "alpha/64/8": "r = 64, α = 8   (α/r = 1/8)",
        "alpha/64/128": "r = 64, α = 128   (α/r = 2)",
    }
    _, ax = plt.subplots()
    for index, (cell, label) in enumerate(configurations.items()):
        runs = [accuracies(results, f"{cell}/{rate}") for rate in rates]
        colour = palette.LINES[index]
        ax.plot(
            rates,
            [mean(run) for run in runs],
            label=label,
            color=colour,
            linestyle=palette.DASHES[index],
            marker=palette.MARKERS[index],
        )
        ax.fill_between(rates, [min(r) for r in runs], [max(r) for r in runs], color=colour, alpha=0.15)
    ax.set_xscale("log")
    ax.set_xticks(rates, ["3e-4", "1e-3", "3e-3", "1e-2", "3e-2"])
    ax.minorticks_off()
    ax.set_xlabel("learning rate")
    ax.set_ylabel("validation accuracy")
    ax.set_ylim(0, 1)
    ax.legend(loc="lower left")
    return ax


def main(path: str) -> None:
    """Write the README's figure: `python -m peftlab.show.lora_figures book/assets/scissors.png`."""
    from peftlab.bench.results import Results
    from peftlab.show import plots

    plots.style()
    scissors(Results.load("scissors")).figure.savefig(path, dpi=140, metadata={"Software": None})


if __name__ == "__main__":
    import sys

    main(sys.argv[1])
