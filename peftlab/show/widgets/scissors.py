"""Lesson 06's experiment without a kernel: guess, then cut a real ΔW with a slider. All numbers are stored ones."""

from __future__ import annotations

from statistics import mean
from typing import Any

import traitlets

from peftlab.bench.results import Results
from peftlab.show.lora_figures import RANKS_SHOWN, accuracies
from peftlab.show.widgets.static_widget import StaticWidget, module

GUESS_AT = (1, 4, 8, 32)
HOW_TO_CUT = "To guess and to cut, run this cell in JupyterLab, or open the lesson on the course's website."


class ScissorsWidget(StaticWidget):
    """First a guess of four accuracies, then the cut.

    measured: stops (the values of r), guess_at, runs, chance, and for "top" and "random" the mean, low and high
        accuracy at each stop.
    matrix: name, size, side, values (all singular values), strength, left and right (see `packed_matrix`).
    guess: accuracies from 0 to 1 by r, as text; empty until it is locked in. Syncs with a live page.
    """

    _esm = module("common.js", "scissors.js")
    _css = module("style.css", "scissors.css")
    measured = traitlets.Dict().tag(sync=True, static=True)
    matrix = traitlets.Dict().tag(sync=True, static=True)
    guess = traitlets.Dict().tag(sync=True, static=True)

    def _rows(self) -> list[tuple[str, str, str]]:
        top, random = self.measured["top"]["mean"], self.measured["random"]["mean"]
        return [
            (str(r), f"{100 * a:.0f} %", f"{100 * b:.0f} %")
            for r, a, b in zip(self.measured["stops"], top, random, strict=True)
        ]

    def fallback_text(self) -> str:
        rows = [("r", "top r", "r at random"), *self._rows()]
        lines = ["  ".join(cell.rjust(11) for cell in row) for row in rows]
        return "\n".join(["LoRA with scissors: test accuracy when r directions of ΔW are kept", *lines, "", HOW_TO_CUT])

    def fallback_html(self) -> str:
        rows = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in self._rows())
        return (
            "<table><caption>LoRA with scissors: test accuracy when r directions of ΔW are kept</caption>"
            "<thead><tr><th>r</th><th>top r</th><th>r at random</th></tr></thead>"
            f"<tbody>{rows}</tbody></table><p><em>{HOW_TO_CUT}</em></p>"
        )


def scissors_explorer() -> ScissorsWidget:
    """The widget on the stored runs. Raises PeftLabError if one of the two measurements was never made."""
    directions = Results.load("scissors_directions")["cells"]["directions"]
    return ScissorsWidget(measured=measured_accuracies(Results.load("scissors")), matrix=packed_matrix(directions))


def measured_accuracies(results: dict[str, Any]) -> dict[str, Any]:
    """Accuracies at every stop for top and random directions, from data/results/scissors.json."""
    found: dict[str, Any] = {"stops": list(RANKS_SHOWN), "guess_at": list(GUESS_AT), "chance": round(1 / 12, 4)}
    for how in ("top", "random"):
        runs = [accuracies(results, f"cut/{how}/{r}") for r in RANKS_SHOWN]
        found[how] = {
            name: [round(of(run), 4) for run in runs] for name, of in (("mean", mean), ("low", min), ("high", max))
        }
        found["runs"] = len(runs[0])
    return found


def packed_matrix(directions: dict[str, Any]) -> dict[str, Any]:
    """The stored directions, with a direction's three factors (value and both scales) made one."""
    factors = zip(directions["values"], directions["left_scale"], directions["right_scale"], strict=True)
    kept = {name: directions[name] for name in ("name", "size", "side", "values", "left", "right")}
    return {**kept, "strength": [float(f"{s * a * b:.5g}") for s, a, b in factors]}
