"""Lesson 13's experiment without a kernel: place 16 levels over the histogram of a real matrix, and see their error."""

from __future__ import annotations

from typing import Any

import traitlets
from torch import Tensor

from peftlab.course import sixteen_levels as levels_of_anyone
from peftlab.course.sixteen_levels import BLOCKSIZE, Moments
from peftlab.quant import levels_of
from peftlab.show.widgets.static_widget import StaticWidget, module

EVEN = [round(-1 + 2 * i / 15, 4) for i in range(16)]
HOW_TO_PLACE = "To place levels, run this cell in JupyterLab, or open the lesson on the course's website."


class SixteenLevelsWidget(StaticWidget):
    """A histogram with 16 levels to drag, and then the levels of int4, FP4 and NF4 beside them.

    matrix: name, weights (how many), blocksize; for each bin of u = w/c between -1 and 1 count, zeroth, first, second
        (the last three divided by the sum of all second ones, so that a square root of a sum is the relative error).
    others: name, levels, error, says, of each codebook to compare with.
    levels: the learner's 16, ascending. shown: whether the others are. Both sync with a live page.
    """

    _esm = module("common.js", "sixteen_levels.js")
    _css = module("style.css", "sixteen_levels.css")
    matrix = traitlets.Dict().tag(sync=True, static=True)
    others = traitlets.List().tag(sync=True, static=True)
    levels = traitlets.List(default_value=EVEN).tag(sync=True, static=True)
    shown = traitlets.Bool(False).tag(sync=True, static=True)

    def _rows(self) -> list[tuple[str, str]]:
        return [(other["name"], f"{100 * other['error']:.1f} %") for other in self.others]

    def _title(self) -> str:
        return f"Place 16 levels: relative error on {self.matrix['name']}, blocks of {self.matrix['blocksize']}"

    def fallback_text(self) -> str:
        lines = [f"{name:>34}  {error}" for name, error in self._rows()]
        return "\n".join([self._title(), *lines, "", HOW_TO_PLACE])

    def fallback_html(self) -> str:
        rows = "".join(f"<tr><td>{name}</td><td>{error}</td></tr>" for name, error in self._rows())
        return (
            f"<table><caption>{self._title()}</caption><thead><tr><th>levels</th><th>error</th></tr></thead>"
            f"<tbody>{rows}</tbody></table><p><em>{HOW_TO_PLACE}</em></p>"
        )


def place_levels(weight: Tensor, name: str) -> SixteenLevelsWidget:
    """The widget for one matrix. Never give it a matrix that has been rounded to 4 bits before."""
    found = levels_of_anyone.moments([weight])
    books = {
        "16 even levels": (EVEN, "where you began"),
        "int4, symmetric": (levels_of("int4").tolist(), "15, with 0 among them"),
        "FP4": (sorted(levels_of("fp4").tolist()), "powers of two"),
        "NF4": (levels_of("nf4").tolist(), "quantiles"),
        "fitted": (levels_of_anyone.fitted(found, levels_of("nf4")).tolist(), "to this matrix, by a computer"),
    }
    others = [
        {"name": book, "levels": [round(x, 5) for x in values], "says": says,
         "error": float(f"{levels_of_anyone.error(found, values):.5f}")}
        for book, (values, says) in books.items()
    ]  # fmt: skip
    return SixteenLevelsWidget(matrix={"name": name, "weights": weight.numel(), **packed(found)}, others=others)


def packed(found: Moments) -> dict[str, Any]:
    """The moments as a page needs them: short numbers, which another machine rounds alike."""
    whole = found.second.sum()
    sums = {name: getattr(found, name) / whole for name in ("zeroth", "first", "second")}
    return {
        "blocksize": BLOCKSIZE,
        "count": [int(n) for n in found.count],
        **{name: [float(f"{x:.6g}") for x in values.tolist()] for name, values in sums.items()},
    }
