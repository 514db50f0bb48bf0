"""The figures of bridge B5: luck of the seed beside luck of the rows, and what choosing the best does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from torch import Tensor

from peftlab.errors import PeftLabError
from peftlab.show import palette
from peftlab.tasks.metrics import wilson_interval


def seeds_and_rows(methods: Mapping[str, Sequence[float]], rows: int) -> Axes:
    """For each method, the accuracy of every seed as a dot, and under it Wilson's interval for their mean.

    Equal accuracies stand on one another.

    methods: accuracies by name, one for each seed. rows: the number of test rows they were measured on.
    """
    if not methods or not all(methods.values()):
        raise PeftLabError("Every method needs the accuracy of at least one run.")
    _, ax = plt.subplots(figsize=(7.2, 1.2 + 0.6 * len(methods)))
    for line, (name, accuracies) in enumerate(methods.items()):
        middle = mean(accuracies)
        low, high = wilson_interval(round(middle * rows), rows)
        heights = [line - 0.12 - 0.08 * list(accuracies[:i]).count(each) for i, each in enumerate(accuracies)]
        dots = {"color": palette.BLUE, "marker": "o", "linestyle": "none", "markersize": 7, "alpha": 0.7}
        bar = {"color": palette.VERMILION, "linestyle": "-", "marker": "|", "markersize": 9, "linewidth": 2}
        ax.plot(accuracies, heights, label=None if line else "one dot for each seed", **dots)
        ax.plot([low, high], [line + 0.2] * 2, label=None if line else f"95 % interval from {rows:,} rows", **bar)
        ax.annotate(
            name, (0, line), xycoords=("axes fraction", "data"), xytext=(-6, 0), textcoords="offset points",
            ha="right", va="center",
        )  # fmt: skip
    ax.set_yticks([])
    ax.set_ylim(len(methods) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("test accuracy")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return ax


def best_of(seen: Tensor, fresh: Tensor, rows: int) -> Axes:
    """Accuracy of the best of k candidates: on the rows it was chosen on, and on rows it has never seen."""
    if len(seen) != len(fresh) or not len(seen):
        raise PeftLabError(f"There are {len(seen)} and {len(fresh)} values: as many of both are needed.")
    _, ax = plt.subplots()
    k = range(1, len(seen) + 1)
    shown = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if tick <= len(seen)]
    curves = ((seen, f"on the {rows} rows it was chosen on"), (fresh, "on rows it has never seen"))
    for index, (values, label) in enumerate(curves):
        ax.plot(
            k, values, label=label, color=palette.LINES[index], linestyle=palette.DASHES[index],
            marker=palette.MARKERS[index], markevery=[tick - 1 for tick in shown], markersize=5,
        )  # fmt: skip
    ax.fill_between(k, fresh, seen, color=palette.YELLOW, alpha=0.25, linewidth=0)
    ax.set_xscale("log")
    ax.set_xticks(shown, [str(tick) for tick in shown])
    ax.minorticks_off()
    ax.set_xlabel("candidates tried, the best one kept")
    ax.set_ylabel("accuracy of the best")
    ax.legend(loc="upper left")
    return ax
