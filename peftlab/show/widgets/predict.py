"""One prediction as a widget: first a guess, then the truth beside it. `peftlab.course.question.predict` makes it."""

from __future__ import annotations

import traitlets

from peftlab.show.widgets.static_widget import StaticWidget, module
from peftlab.show.widgets.text import as_html

HOW_TO_GUESS = "To lock in a guess and see the answer, run this cell in JupyterLab, or open the course's website."


class PredictWidget(StaticWidget):
    """A choice among `choices`, or a number from `lowest` to `highest` in steps of `step`.

    truth: the place of the right choice (from 0), or the number.
    guess: None until it is locked in; then a place or a number, like `truth`. Syncs with a live page.
    """

    _esm = module("common.js", "predict.js")
    asks = traitlets.Unicode().tag(sync=True, static=True)
    choices = traitlets.List(traitlets.Unicode()).tag(sync=True, static=True)
    lowest = traitlets.Float(0.0).tag(sync=True, static=True)
    highest = traitlets.Float(1.0).tag(sync=True, static=True)
    step = traitlets.Float(1.0).tag(sync=True, static=True)
    unit = traitlets.Unicode().tag(sync=True, static=True)
    truth = traitlets.Float().tag(sync=True, static=True)
    says = traitlets.Unicode().tag(sync=True, static=True)
    guess = traitlets.Float(None, allow_none=True).tag(sync=True, static=True)

    def fallback_text(self) -> str:
        if self.choices:
            answers = [f"   ( ) {choice}" for choice in self.choices]
        else:
            answers = [f"   a number from {self._range()}"]
        return "\n".join([f"Predict: {self.asks}", *answers, "", HOW_TO_GUESS])

    def fallback_html(self) -> str:
        if self.choices:
            answers = "<ul>" + "".join(f"<li>{as_html(choice)}</li>" for choice in self.choices) + "</ul>"
        else:
            answers = f"<p>A number from {as_html(self._range())}.</p>"
        return f"<p><strong>Predict:</strong> {as_html(self.asks)}</p>{answers}<p><em>{HOW_TO_GUESS}</em></p>"

    def _range(self) -> str:
        return f"{self.lowest:g} to {self.highest:g} {self.unit}".strip()
