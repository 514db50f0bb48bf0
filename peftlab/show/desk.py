"""A service desk for lesson 07: three requests, three adapters, one batch, on the live kernel."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

import ipywidgets

from peftlab.errors import PeftLabError
from peftlab.show.plots import Table


class Desk(ipywidgets.VBox):
    """Rows of a text and an adapter's name; the button answers all rows at once.

    answer(texts, names) -> one answer for each row; it is called with the whole batch.
    """

    def __init__(
        self,
        requests: Sequence[tuple[str, str]],
        names: Sequence[str],
        answer: Callable[[list[str], list[str]], list[str]],
    ) -> None:
        self.answer = answer
        self.texts = [
            ipywidgets.Text(value=text, description=f"row {number}", layout=ipywidgets.Layout(width="60%"))
            for number, (text, _) in enumerate(requests, start=1)
        ]
        self.names = [
            ipywidgets.Dropdown(options=list(names), value=name, layout=ipywidgets.Layout(width="9em"))
            for _, name in requests
        ]
        self.button = ipywidgets.Button(description="Answer all, in one batch", layout=ipywidgets.Layout(width="16em"))
        self.found = ipywidgets.HTML()
        self.button.on_click(self.serve)
        rows = [ipywidgets.HBox(list(row)) for row in zip(self.texts, self.names, strict=True)]
        super().__init__([*rows, self.button, self.found])

    def serve(self, _: object = None) -> None:
        """Answer the rows as they stand; an error is shown in their place."""
        texts, names = [box.value for box in self.texts], [box.value for box in self.names]
        self.button.disabled = True
        self.found.value = "<i>writing …</i>"
        try:
            answers = self.answer(texts, names)
            rows = [{"adapter": n, "answer": a} for n, a in zip(names, answers, strict=True)]
            self.found.value = Table(rows)._repr_html_()
        except PeftLabError as error:
            self.found.value = f"<b>{html.escape(str(error))}</b>"
        finally:
            self.button.disabled = False
