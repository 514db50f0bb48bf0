"""Small helpers on matplotlib, so that every lesson's figures look alike and stay small.

    plots.style()                          # once, at the top of a notebook
    plots.losses([head_run, full_run])
    plots.bars({"head": .77, "full": .83}, intervals={"head": (.74, .79), "full": (.81, .85)})
    plots.table(rows)                      # an HTML table in a notebook, plain text elsewhere

Each function draws on `ax`, or on a new figure, and returns the axes.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.axes import Axes

from peftlab.errors import PeftLabError
from peftlab.show import palette

if TYPE_CHECKING:
    from peftlab.tasks.training import Run


def style() -> None:
    """Set matplotlib's defaults for this session: sizes, colours, a white background always."""
    mpl.rcParams.update(
        {
            "figure.figsize": (6.4, 3.4),
            "figure.dpi": 100,
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "savefig.dpi": 100,
            "axes.facecolor": "white",
            "axes.prop_cycle": cycler(color=palette.LINES) + cycler(linestyle=palette.DASHES),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#DDDDDD",
            "grid.linewidth": 0.6,
            "font.size": 11,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
        }
    )


def losses(runs: Sequence[Run], *, window: int = 5, ax: Axes | None = None) -> Axes:
    """Training loss per step of several runs, each as the mean of the last `window` steps."""
    if not runs:
        raise PeftLabError("There is no run to draw.")
    ax = ax or _new_axes()
    for index, run in enumerate(runs):
        steps = range(1, len(run.losses) + 1)
        smooth = [sum(run.losses[max(0, i - window) : i]) / min(i, window) for i in steps]
        ax.plot(
            steps,
            smooth,
            label=run.name,
            color=_pick(palette.LINES, index),
            linestyle=_pick(palette.DASHES, index),
            marker=_pick(palette.MARKERS, index),
            markevery=max(1, len(smooth) // 8),
            markersize=5,
        )
    ax.set_xlabel("step")
    ax.set_ylabel(f"training loss (nats), mean of {window} steps" if window > 1 else "training loss")
    ax.set_ylim(bottom=0)
    ax.legend()
    return ax


def bars(
    values: Mapping[str, float],
    *,
    intervals: Mapping[str, tuple[float, float]] | None = None,
    chance: float | None = None,
    label: str = "test accuracy",
    number: str = "{:.3f}",
    ax: Axes | None = None,
) -> Axes:
    """Horizontal bars, the first on top, each with its number and, if given, its interval.

    intervals: (low, high) by name. chance: a dashed line for what guessing reaches.
    """
    unknown = set(intervals or ()) - set(values)
    if unknown:
        raise PeftLabError(f"There are intervals but no values for: {', '.join(sorted(unknown))}.")
    ax = ax or _new_axes(height=1.0 + 0.45 * len(values))
    for row, (name, value) in enumerate(values.items()):
        ax.barh(row, value, height=0.6, color=_pick(palette.LINES, row), alpha=0.75)
        end = value
        if intervals and name in intervals:
            low, end = intervals[name]
            ax.errorbar(value, row, xerr=[[value - low], [end - value]], color=palette.BLACK, capsize=3)
        ax.annotate(number.format(value), (end, row), xytext=(6, 0), textcoords="offset points", va="center")
    if chance is not None:
        ax.axvline(chance, color=palette.GREY, linestyle="--", linewidth=1.2)
        ax.annotate(
            "guessing",
            (chance, -0.5),
            xytext=(3, 3),
            textcoords="offset points",
            color=palette.GREY,
        )
    ax.set_yticks(range(len(values)), list(values))
    ax.set_ylim(len(values) - 0.4, -1.0)
    ax.margins(x=0.12)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(label)
    return ax


class Table:
    """Rows of equal keys: HTML in a notebook, aligned plain text elsewhere.

    Whole numbers get thousands separators, other numbers three decimals; anything else is shown as
    it is. Numbers are aligned to the right.
    """

    def __init__(self, rows: Sequence[Mapping[str, object]], caption: str = "") -> None:
        if not rows:
            raise PeftLabError("A table needs at least one row.")
        self.columns = list(rows[0])
        for row in rows:
            if list(row) != self.columns:
                raise PeftLabError(f"The rows differ: {self.columns} and {list(row)}.")
        self.rows = [dict(row) for row in rows]
        self.caption = caption

    def __repr__(self) -> str:
        lines = [self.columns, *([_text(value) for value in row.values()] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(
                cell.rjust(width) if number else cell.ljust(width)
                for cell, width, number in zip(line, widths, self._is_number(), strict=True)
            ).rstrip()
            for line in lines
        ]
        text.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([self.caption, *text] if self.caption else text)

    def _repr_html_(self) -> str:
        align = ["right" if number else "left" for number in self._is_number()]

        def line(tag: str, cells: Sequence[str]) -> str:
            written = (
                f'<{tag} style="text-align:{side}">{html.escape(cell)}</{tag}>'
                for side, cell in zip(align, cells, strict=True)
            )
            return f"<tr>{''.join(written)}</tr>"

        head = line("th", self.columns)
        body = "".join(line("td", [_text(value) for value in row.values()]) for row in self.rows)
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        return f"<table>{caption}<thead>{head}</thead><tbody>{body}</tbody></table>"

    def _is_number(self) -> list[bool]:
        return [all(_is_numeric(row[column]) for row in self.rows) for column in self.columns]


def table(rows: Sequence[Mapping[str, object]], caption: str = "") -> Table:
    """A `Table` of the given rows."""
    return Table(rows, caption)


def runs(runs: Sequence[Run], caption: str = "") -> Table:
    """Runs side by side: what was trained, and how well it did on the held-out data."""
    rows = [
        {
            "run": run.name,
            "trainable": run.trainable,
            "% of all": 100 * run.trainable / run.total if run.total else None,
            "steps": len(run.losses),
            "last loss": run.losses[-1] if run.losses else None,
            "held-out accuracy": run.accuracy,
        }
        for run in runs
    ]
    return Table(rows, caption)


def _text(value: object) -> str:
    if value is None:
        return "-"
    if not _is_numeric(value):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"


def _is_numeric(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _new_axes(height: float | None = None) -> Axes:
    width, usual = mpl.rcParams["figure.figsize"]
    return plt.subplots(figsize=(width, height or usual))[1]


def _pick(cycle: Sequence, index: int):
    return cycle[index % len(cycle)]
