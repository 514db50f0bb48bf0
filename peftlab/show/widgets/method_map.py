"""Lesson 02's map: family → method → formula, numbers, merging, cost, lesson. All of it comes from the methods."""

from __future__ import annotations

import html
from typing import Any

import traitlets

from peftlab.costs.configs import architecture
from peftlab.course import landscape
from peftlab.course.lessons import all_lessons
from peftlab.course.site.atlas import FAMILIES, anchor
from peftlab.methods import METHODS
from peftlab.show.widgets.static_widget import StaticWidget, module

HOW_TO_CLICK = "To click, run this cell in JupyterLab, or open the lesson on the course's website."
START = {"family": "reparameterisation", "method": "LoRA", "model": "MiniLM"}


class MethodMapWidget(StaticWidget):
    """Choose a model, a family and a method; read what it is and what it costs.

    families: name, says, training, inference. models: name, parameters. methods: the facts of `landscape.Entry`, and
    counts by model's name, each with parameters (or None), places and settings.
    choice: names of the family, method and model that are shown. Syncs with a live page.
    """

    _esm = module("common.js", "method_map.js")
    _css = module("style.css", "method_map.css")
    families = traitlets.List(traitlets.Dict()).tag(sync=True, static=True)
    methods = traitlets.List(traitlets.Dict()).tag(sync=True, static=True)
    models = traitlets.List(traitlets.Dict()).tag(sync=True, static=True)
    choice = traitlets.Dict().tag(sync=True, static=True)

    def _rows(self) -> list[tuple[str, ...]]:
        model = self.models[0]["name"]
        head = ("method", "family", "formula", f"trains on {model}", "merges", "lesson")
        rows = [
            (
                each["name"] + ("" if each["built"] else " (not built yet)"),
                each["family"],
                each["formula"],
                _amount(each["counts"][model]["parameters"]),
                "yes" if each["mergeable"] else "no",
                each["lesson"]["number"] if each["lesson"] else "none of its own",
            )
            for each in self.methods
        ]
        return [head, *rows]

    def fallback_text(self) -> str:
        lines = [" · ".join(row) for row in self._rows()]
        return "\n".join(["The map of methods", *lines, "", HOW_TO_CLICK])

    def fallback_html(self) -> str:
        head, *rows = ([html.escape(cell, quote=False) for cell in row] for row in self._rows())
        shown = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
        return (
            '<div style="overflow-x: auto"><table><caption>The map of methods</caption><thead><tr>'
            + "".join(f"<th>{cell}</th>" for cell in head)
            + f"</tr></thead><tbody>{shown}</tbody></table></div><p><em>{HOW_TO_CLICK}</em></p>"
        )


def method_map() -> MethodMapWidget:
    """The map of every method that the library has, and of those that it names and has not built yet."""
    families = [
        {"name": name, "says": says, "training": landscape.COSTS[name][0], "inference": landscape.COSTS[name][1]}
        for name, says in FAMILIES.items()
    ]
    models = [{"name": name, "parameters": architecture(key).parameters} for name, key in landscape.MODELS.items()]
    return MethodMapWidget(
        families=families, models=models, methods=[_facts(each) for each in landscape.entries()], choice=START
    )


def _facts(entry: landscape.Entry) -> dict[str, Any]:
    counted = {model: landscape.count(entry, model) for model in landscape.MODELS}
    names = ("name", "title", "year", "family", "formula", "parameters", "mergeable", "merging", "inference", "peft")
    return {
        **{name: getattr(entry, name) for name in names},
        "built": entry.built,
        "paper": f"https://arxiv.org/abs/{entry.arxiv}",
        "lesson": _lesson(entry.lesson),
        "atlas": next((anchor(cls) for cls in METHODS if cls.__name__ == entry.name), ""),
        "counts": {
            model: {
                "parameters": found.parameters,
                "places": found.places,
                "settings": ", ".join(f"{name} = {value}" for name, value in found.settings.items()),
            }
            for model, found in counted.items()
        },
    }


def _lesson(number: str) -> dict[str, str]:
    """Number, name and file of a lesson; the last two are empty while it is planned. {} where there is none."""
    if not number:
        return {}
    written = {each.number: each for each in all_lessons()}
    if number not in written:
        return {"number": number, "name": "", "file": ""}
    return {"number": number, "name": written[number].name, "file": written[number].file}


def _amount(parameters: int | None) -> str:
    return "–" if parameters is None else f"{parameters:,}"
