"""Your own prompt on the leaderboard of lesson 04: type a text, and see what it is worth on the live kernel."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping

import ipywidgets

from peftlab.errors import PeftLabError
from peftlab.show.plots import Table

LONGEST = 6_000  # characters: far below the model's context, and a slip of the clipboard stays harmless


class PromptBench(ipywidgets.VBox):
    """A box for a prompt, a button, and a table of every prompt tried so far beside the entries given.

    measure(text) -> (tokens, loss) of the text in front of each question. beside: other entries, name -> loss.
    """

    def __init__(
        self, measure: Callable[[str], tuple[int, float]], text: str, beside: Mapping[str, float] | None = None
    ) -> None:
        self.measure, self.beside = measure, dict(beside or {})
        self.tried: list[tuple[str, int, float]] = []
        self.text = ipywidgets.Textarea(value=text, rows=6, layout=ipywidgets.Layout(width="95%"))
        self.text.add_class("peftlab-prompt")
        self.button = ipywidgets.Button(description="Measure", button_style="primary")
        self.says = ipywidgets.HTML()
        self.board = ipywidgets.HTML()
        self.button.on_click(self.run)
        super().__init__([self.text, self.button, self.says, self.board])
        self.run()

    def run(self, _: object = None) -> None:
        """Measure the text in the box; what goes wrong is said in the panel."""
        text = self.text.value
        if len(text) > LONGEST:
            self.says.value = f'<b role="alert">Take at most {LONGEST:,} characters.</b>'
            return
        self.button.disabled = True
        self.says.value = "<i>measuring …</i>"
        try:
            tokens, loss = self.measure(text)
            self.tried.append((f"your prompt {len(self.tried) + 1}: {_start(text)}", tokens, loss))
            self.says.value = ""
        except PeftLabError as error:
            self.says.value = f'<b role="alert">{html.escape(str(error))}</b>'
        finally:
            self.button.disabled = False
        self.board.value = Table(self.rows())._repr_html_()

    def rows(self) -> list[dict[str, object]]:
        """The leaderboard, best first."""
        mine = [{"what stands in front": name, "tokens": n, "loss": loss} for name, n, loss in self.tried]
        others = [{"what stands in front": name, "tokens": None, "loss": loss} for name, loss in self.beside.items()]
        return sorted([*mine, *others], key=lambda row: row["loss"])


def _start(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 40 else line[:39] + "…"
