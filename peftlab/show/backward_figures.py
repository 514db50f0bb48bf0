"""The figure of bridge B4: bytes of several kinds, stacked, one bar for each way to train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from peftlab.errors import PeftLabError
from peftlab.show import palette

COLOURS = (palette.GREY, palette.SKY, palette.ORANGE, palette.BLUE)
SHADES = (palette.PURPLE, palette.YELLOW, palette.GREEN, palette.VERMILION)  # for the parts of one of those parts
HATCHES = ("", "//", "..", "xx")


def stacked(bars: Mapping[str, Mapping[str, int]], colours: Sequence[str] = COLOURS) -> Axes:
    """Horizontal bars of bytes in MB (10^6), each split into the same parts, with its total at the end.

    bars: for each bar, bytes by part. Raises PeftLabError if there is no bar, or the parts
    differ or are more than four.
    """
    if not bars:
        raise PeftLabError("There is no bar to draw.")
    parts = list(next(iter(bars.values())))
    if len(parts) > len(HATCHES):
        raise PeftLabError(f"At most {len(HATCHES)} parts can be told apart, and there are {len(parts)}.")
    if any(list(bar) != parts for bar in bars.values()):
        raise PeftLabError("Every bar needs the same parts, in the same order.")
    _, ax = plt.subplots(figsize=(7.2, 1.3 + 0.5 * len(bars)))
    for row, bar in enumerate(bars.values()):
        left = 0.0
        for part, colour, hatch in zip(parts, colours, HATCHES, strict=False):
            width = bar[part] / 1e6
            edge = "black" if colour == palette.YELLOW else "white"  # white hatching would be lost on yellow
            ax.barh(
                row, width, left=left, height=0.62, label=None if row else part,
                facecolor=colour, edgecolor=edge, hatch=hatch, linewidth=0.5,
            )  # fmt: skip
            left += width
        ax.annotate(f"{left:.0f} MB", (left, row), xytext=(5, 0), textcoords="offset points", va="center")
    ax.set_yticks(range(len(bars)), list(bars))
    ax.set_ylim(len(bars) - 0.5, -0.6)
    ax.margins(x=0.1)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("MB")
    ax.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=min(len(parts), 4), columnspacing=1.2)
    return ax
