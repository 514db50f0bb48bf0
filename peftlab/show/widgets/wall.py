"""Lesson 01's calculator: which model, trained how, fits into which memory. `peftlab.course.wall` has its numbers."""

from __future__ import annotations

import html
from typing import Any

import traitlets

from peftlab.costs.configs import architecture
from peftlab.costs.memory import GIB
from peftlab.course import wall
from peftlab.show.widgets.static_widget import StaticWidget, module

HOW_TO_MOVE = "To move the wall, run this cell in JupyterLab, or open the lesson on the course's website."
TITLES = {"gpt2": "GPT-2", "smollm2-360m": "SmolLM2 360M", "qwen2.5-0.5b": "Qwen2.5 0.5B", "phi-3-mini": "Phi-3 mini"}
TITLES |= {"tinyllama-1.1b": "TinyLlama", "llama-3.2-3b": "Llama 3.2 3B", "llama-2-7b": "Llama 2 7B"}
TITLES |= {"llama-3.1-8b": "Llama 3.1 8B", "llama-2-13b": "Llama 2 13B", "qwen3-14b": "Qwen3 14B"}
TITLES |= {"qwen3-32b": "Qwen3 32B", "llama-3.1-70b": "Llama 3.1 70B"}
SAYS = {
    "full": "every weight trains; weights, gradients and AdamW's two averages in bf16",
    "full, fp32 states": "every weight trains; AdamW keeps its averages and a copy of the weights in fp32",
    "LoRA": "r = 16 beside every matrix of every block, in fp32; the weights are frozen, in bf16",
    "QLoRA": "the same adapters; the frozen matrices of the blocks stored in 4 bits (NF4)",
}
MEMORIES = (8, 16, 24, 48, 80)  # GiB
BATCHES = (1, 2, 4, 8, 16, 32)
SEQUENCES = (128, 256, 512, 1024, 2048, 4096)
RESERVE = 1  # GiB: driver, context, fragments
PARTS = ("weights", "adapters", "gradients", "optimiser states", "activations", "logits and loss", "working space")
PARTS += ("library workspace",)
START = {"model": "llama-2-7b", "method": "full", "memory": 24, "checkpointing": False, "batch": 4, "sequence": 512}


class WallWidget(StaticWidget):
    """Choose a model, a method, a memory, checkpointing, batch and sequence; see what a step needs and where it stops.

    models: name, title, parameters, positions, kept (bytes to store for one task, by method). methods: name, says.
    lines: model -> method -> [without, with checkpointing] -> [moment, [fixed bytes of each of PARTS], [bytes for each
        token]], from `wall.lines`.
    choice: what is chosen, see START. Syncs with a live page.
    """

    _esm = module("common.js", "wall.js")
    _css = module("style.css", "wall.css")
    models = traitlets.List(traitlets.Dict()).tag(sync=True, static=True)
    methods = traitlets.List(traitlets.Dict()).tag(sync=True, static=True)
    lines = traitlets.Dict().tag(sync=True, static=True)
    parts = traitlets.List(traitlets.Unicode()).tag(sync=True, static=True)
    stops = traitlets.Dict().tag(sync=True, static=True)
    reserve = traitlets.Int(RESERVE).tag(sync=True, static=True)
    choice = traitlets.Dict().tag(sync=True, static=True)

    def _rows(self) -> list[tuple[str, ...]]:
        """Peaks in GiB for the batch and sequence of START, each without and with checkpointing."""
        tokens = START["batch"] * START["sequence"]
        rows = [("model", *(method["name"] for method in self.methods))]
        for model in self.models:
            cells = []
            for method in self.methods:
                both = (wall.peak(_lines(each), tokens)[1] for each in self.lines[model["name"]][method["name"]])
                cells.append(" / ".join(f"{sum(parts.values()) / GIB:.1f}" for parts in both))
            rows.append((model["title"], *cells))
        return rows

    def _caption(self) -> str:
        return (
            f"The memory wall: GiB at the peak of a step of {START['batch']} × {START['sequence']} tokens, "
            "without / with checkpointing"
        )

    def fallback_text(self) -> str:
        lines = [" · ".join(row) for row in self._rows()]
        return "\n".join([self._caption(), *lines, "", HOW_TO_MOVE])

    def fallback_html(self) -> str:
        head, *rows = ([html.escape(cell, quote=False) for cell in row] for row in self._rows())
        shown = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
        return (
            f'<div style="overflow-x: auto"><table><caption>{self._caption()}</caption><thead><tr>'
            + "".join(f"<th>{cell}</th>" for cell in head)
            + f"</tr></thead><tbody>{shown}</tbody></table></div><p><em>{HOW_TO_MOVE}</em></p>"
        )


def memory_wall(**choice: Any) -> WallWidget:
    """The calculator. choice: what of START to change, as in memory_wall(memory=16, method="QLoRA")."""
    models = [
        {
            "name": name,
            "title": TITLES[name],
            "parameters": architecture(name).parameters,
            "positions": architecture(name).positions,
            "kept": {method: wall.kept_bytes(name, method) for method in wall.METHODS},
        }
        for name in wall.MODELS
    ]
    lines = {
        name: {
            method: [[_packed(line) for line in wall.lines(name, method, again)] for again in (False, True)]
            for method in wall.METHODS
        }
        for name in wall.MODELS
    }
    return WallWidget(
        models=models,
        methods=[{"name": name, "says": SAYS[name]} for name in wall.METHODS],
        lines=lines,
        parts=list(PARTS),
        stops={"memory": list(MEMORIES), "batch": list(BATCHES), "sequence": list(SEQUENCES)},
        choice={**START, **choice},
    )


def _packed(line: wall.Line) -> list[Any]:
    numbers = [line.parts.get(name, (0, 0)) for name in PARTS]
    return [line.moment, [fixed for fixed, _ in numbers], [each for _, each in numbers]]


def _lines(packed: list[list[Any]]) -> list[wall.Line]:
    return [
        wall.Line(moment, dict(zip(PARTS, zip(fixed, each, strict=True), strict=True)))
        for moment, fixed, each in packed
    ]
