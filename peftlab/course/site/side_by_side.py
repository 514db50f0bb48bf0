"""The page that puts every method that was trained on one task beside the others, made from stored results."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from peftlab.course.site.atlas import anchor
from peftlab.course.site.pages import table
from peftlab.methods.base import METHODS
from peftlab.show.side_by_side import Row, figure, rows

FIGURE = "assets/side_by_side.svg"


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown of the whole page. results: name of a stored result -> its content."""
    shown = rows(results)
    by_name = {row.name: row for row in shown}
    full, head = by_name["full fine-tuning"], by_name["head only"]
    body = [[link(row), *reached(row), f"{row.trained:,}", f"{row.rate:g}", row.family] for row in shown]
    head_row = ["method", "accuracy", "seeds from–to", "seeds", "trained, without the head", "learning rate", "family"]
    return "\n\n".join(
        [
            "# Methods side by side",
            "One task, one model, one protocol, every method of the library that we have trained on it so far. The "
            "task is to name the topic of a dictionary definition, one of twelve; the model is MiniLM with a fresh "
            "head. Every row had 90 steps of 32 definitions, a learning rate chosen on validation data (once for each "
            "kind, at one size, with one seed; for a mask, at each size), and the same 1,200 test definitions, which "
            "no choice has seen. In the selective rows the head has a rate of its own, 0.003; the rate shown is that "
            "of the rest.",
            f"```{{figure}} {FIGURE}\n:alt: {described(shown)}\n\nSmall marks are seeds, large ones their mean. The "
            "dotted lines are the head alone and full fine-tuning.\n```",
            table(head_row, body, right=[1, 2, 3, 4, 5]),
            "## How to read it",
            f"The head alone has {percent(head.mean)}, full fine-tuning {percent(full.mean)}. What lies between them "
            "is what there is to win on this task, and a row takes part of it.",
            "**Do not read it as a ranking.** Rows that differ by less than their seeds do, differ by luck; "
            "[bridge B5](notebooks/B5_validation_seeds_intervals.ipynb) says how much. Five seeds stand behind the "
            "baselines, the selective rows and LoRA, three behind the others. Shared data, shared test rows: whatever "
            "is odd about them is odd for all. It is one easy task and one small model. On another task the order can "
            "be another; lesson 14 will ask.",
            "Ninety steps are few. A method that needs more time, as soft prompts are said to, is judged here by how "
            "far it gets in them.",
            *below_the_head(shown, head),
            "Each accuracy is a stored cell: [scissors](results/scissors.md), "
            "[adapter_widths](results/adapter_widths.md), [additive](results/additive.md), "
            "[selective](results/selective.md). What each method is: "
            "[the atlas](atlas.md).",
        ]
    ) + "\n"


def below_the_head(shown: Sequence[Row], head: Row) -> list[str]:
    """A paragraph on the rows that end below the head alone, if there are any."""
    names = [row.name for row in shown if row.mean < head.mean]
    if not names:
        return []
    return [
        f"Below the head alone: {'; '.join(names)}. Why, we have not measured, nor whether more steps or another "
        "start would help on this model; [lesson 04](notebooks/04_soft_prompts.ipynb) asks it of a language model."
    ]


def drawn(results: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The page's figure, SVG."""
    from peftlab.show import plots

    plots.style()
    out = io.BytesIO()
    figure(rows(results)).savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def described(shown: Sequence[Row]) -> str:
    """Alt text: every row's mean, the best first."""
    return "Test accuracy by method, the best on top. " + ", ".join(f"{r.name} {percent(r.mean)}" for r in shown) + "."


def link(row: Row) -> str:
    method = next((each for each in METHODS if each.__name__ == row.method), None)
    return f"[{row.name}](#{anchor(method)})" if method else row.name


def reached(row: Row) -> list[str]:
    """Mean, lowest to highest seed in percent, number of seeds."""
    low, high = 100 * min(row.accuracies), 100 * max(row.accuracies)
    return [percent(row.mean), f"{low:.1f}–{high:.1f}", str(len(row.accuracies))]


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"
