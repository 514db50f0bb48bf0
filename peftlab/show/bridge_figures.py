"""Figures of the bridges: two transformer blocks with the names of their matrices, and spectra of matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from peftlab.errors import PeftLabError
from peftlab.show import palette

# ---- a block and its names ----------------------------------------------------------------------------------------

MATRIX, NORM = "matrix", "norm"
FILLS = {MATRIX: "#D6EAF8", NORM: "#F6EBC8"}  # pale, so that black text reads well on them


@dataclass(frozen=True)
class Box:
    """One module of a block: what it is called, the shape of its weight, where it is drawn."""

    name: str
    shape: str
    x: float  # the middle, in the figure's units: 0 is the stream, the branches go to the right
    y: float
    kind: str = MATRIX
    width: float = 2.5


MINILM = (
    Box("query", "384 × 384", 1.7, 1.7, width=1.75),
    Box("key", "384 × 384", 3.55, 1.7, width=1.75),
    Box("value", "384 × 384", 5.4, 1.7, width=1.75),
    Box("attention.output.dense", "384 × 384", 3.55, 3.5, width=3.4),
    Box("attention.output.LayerNorm", "384", 0, 5.0, NORM, width=3.9),
    Box("intermediate.dense", "1536 × 384", 3.55, 6.5, width=3.4),
    Box("output.dense", "384 × 1536", 3.55, 8.2, width=3.4),
    Box("output.LayerNorm", "384", 0, 9.7, NORM, width=3.9),
)
SMOLLM2 = (
    Box("input_layernorm", "576", 3.55, 0.45, NORM, width=3.7),
    Box("q_proj", "576 × 576", 1.7, 1.9, width=1.75),
    Box("k_proj", "192 × 576", 3.55, 1.9, width=1.75),
    Box("v_proj", "192 × 576", 5.4, 1.9, width=1.75),
    Box("o_proj", "576 × 576", 3.55, 3.7, width=3.4),
    Box("post_attention_layernorm", "576", 3.55, 5.45, NORM, width=3.7),
    Box("gate_proj", "1536 × 576", 2.55, 6.9, width=2.1),
    Box("up_proj", "1536 × 576", 4.75, 6.9, width=2.1),
    Box("down_proj", "576 × 1536", 3.55, 8.7, width=3.4),
)


def two_blocks() -> None:
    """One block of MiniLM (BERT's kind) beside one of SmolLM2 (Llama's kind): names and (out × in) shapes."""
    _, (left, right) = plt.subplots(1, 2, figsize=(9.6, 7.2))
    one, two, three = (3.55,), (2.55, 4.75), (1.7, 3.55, 5.4)
    _stream(left, "MiniLM: encoder.layer.0", MINILM)
    _branch(left, start=0.3, entry=1.25, end=4.25, last=3.92, columns=three)
    _between(left, 2.12, 3.05, three, one, "12 heads of 32: softmax(q kᵀ / √32) v")
    _branch(left, start=5.7, entry=6.05, end=8.95, last=8.62, columns=one)
    _between(left, 6.92, 7.75, one, one, "GELU")

    _stream(right, "SmolLM2: model.layers.0", SMOLLM2)
    _branch(right, start=-0.4, entry=0.0, end=4.45, last=4.12, columns=one)
    _between(right, 0.87, 1.45, one, three, "")
    _between(right, 2.32, 3.25, three, one, "9 query heads of 64,\n3 heads of keys and values")
    _branch(right, start=4.8, entry=5.0, end=9.45, last=9.12, columns=one)
    _between(right, 5.87, 6.45, one, two, "")
    _between(right, 7.32, 8.25, two, one, "SiLU(gate) × up")


def _stream(ax: Axes, title: str, boxes: tuple[Box, ...]) -> None:
    """The residual stream, a thick line from the bottom to the top, and the block's modules."""
    thick = {"arrowstyle": "-|>", "linewidth": 3, "color": palette.BLUE}
    ax.annotate("", (0, 10.9), xytext=(0, -0.8), arrowprops=thick, zorder=1)
    for box in boxes:
        _box(ax, box)
    ax.text(-0.2, 2.4, "residual stream", rotation=90, ha="right", va="center", color=palette.BLUE)
    ax.set_title(title, fontfamily="monospace", fontsize=11)
    ax.set_xlim(-2.1, 6.4)
    ax.set_ylim(-0.9, 11.1)
    ax.axis("off")


def _box(ax: Axes, box: Box) -> None:
    height = 0.84
    ax.add_patch(
        FancyBboxPatch(
            (box.x - box.width / 2, box.y - height / 2),
            box.width,
            height,
            boxstyle="round,pad=0,rounding_size=0.12" if box.kind == MATRIX else "square,pad=0",
            facecolor=FILLS[box.kind],
            edgecolor=palette.BLACK,
            linestyle="-" if box.kind == MATRIX else "--",
            zorder=2,
        )
    )
    ax.text(box.x, box.y + 0.17, box.name, ha="center", va="center", fontsize=8.5, fontfamily="monospace", zorder=3)
    ax.text(box.x, box.y - 0.2, box.shape, ha="center", va="center", fontsize=8.5, zorder=3)


def _branch(ax: Axes, *, start: float, entry: float, end: float, last: float, columns: tuple[float, ...]) -> None:
    """Read the stream at `start`, enter the first boxes at `entry`; leave the last at `last`, add at `end`."""
    line = {"color": palette.GREY, "linewidth": 1.3, "linestyle": "-", "zorder": 1}
    ax.plot([0, columns[-1]], [start, start], **line)
    for column in columns:
        ax.annotate("", (column, entry), xytext=(column, start), arrowprops={"arrowstyle": "->", **line})
    ax.plot([3.55, 3.55], [last, end], **line)
    ax.annotate("", (0.16, end), xytext=(3.55, end), arrowprops={"arrowstyle": "->", **line})
    ax.text(
        0, end, "+", ha="center", va="center", fontsize=13, zorder=4,
        bbox={"boxstyle": "circle,pad=0.12", "facecolor": "white", "edgecolor": palette.BLUE, "linewidth": 1.5},
    )  # fmt: skip


def _between(ax: Axes, low: float, high: float, below: tuple[float, ...], above: tuple[float, ...], text: str) -> None:
    """Arrows from the boxes of one row to those of the next, with what happens in between."""
    for start in below:
        for end in above:
            ax.annotate(
                "",
                (end, high),
                xytext=(start, low),
                arrowprops={"arrowstyle": "->", "color": palette.GREY, "linewidth": 1.3},
                zorder=1,
            )
    white = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"}
    ax.text(3.55, (low + high) / 2, text, ha="center", va="center", fontsize=8.5, style="italic", zorder=3, bbox=white)


# ---- spectra ------------------------------------------------------------------------------------------------------


def energy(M: Tensor) -> Tensor:
    """Share of the sum of squares of M that its top 1, 2, … directions hold. M: (d_out, d_in)."""
    squares = torch.linalg.svdvals(M.detach()).square()
    return squares.cumsum(0) / squares.sum()


def energies(matrices: Mapping[str, Tensor], *, mark: int = 8) -> Axes:
    """The share of energy in the top r directions, one curve for each matrix, with r = `mark` marked."""
    if not matrices:
        raise PeftLabError("There is no matrix to draw.")
    width, height = mpl.rcParams["figure.figsize"]
    ax = plt.subplots(figsize=(width, height))[1]
    for index, (name, M) in enumerate(matrices.items()):
        held = [0.0, *energy(M).tolist()]
        ax.plot(
            range(len(held)),
            held,
            label=name,
            color=palette.LINES[index % len(palette.LINES)],
            linestyle=palette.DASHES[index % len(palette.DASHES)],
            marker=palette.MARKERS[index % len(palette.MARKERS)],
            markevery=64,
            markersize=5,
        )
    ax.axvline(mark, color=palette.GREY, linewidth=1)
    ax.annotate(f"r = {mark}", (mark, 0), xytext=(4, 4), textcoords="offset points", color=palette.GREY)
    ax.set_xlabel("directions kept, r")
    ax.set_ylabel("share of the energy")
    ax.set_ylim(0, 1.03)
    ax.legend(loc="lower right")
    return ax
