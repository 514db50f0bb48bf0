"""A switch for an adapter: one model, any word, with and without what it has learned. Needs a live kernel.

    switch(model, define, "quibberish")      # define(word) -> text, with the model that was switched
"""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import ipywidgets
from torch import nn

import peftlab

OFF, ON = "off", "on"
LONGEST_WORD = 40  # characters; far from the model's limit, and a slip of the clipboard stays harmless
ASLEEP = "The switch needs a running kernel. This is what stood in it when the page was made:"


class WordSwitch(ipywidgets.VBox):
    """A box for a word, a switch for the adapter, and a table of what came out so far."""

    def __init__(self, model: nn.Module, define: Callable[[str], str], word: str) -> None:
        self.model, self.define = model, define
        self.written: dict[str, dict[str, str]] = {}  # word -> {OFF: text, ON: text}
        wide = {"description_width": "initial"}
        self.word = ipywidgets.Text(
            value=word, description="Word", continuous_update=False, style=wide, layout={"width": "300px"}
        )
        self.generate = ipywidgets.Button(description="Generate", button_style="primary")
        self.adapter = ipywidgets.ToggleButtons(
            options=[("off: the base model", OFF), ("on: with your adapter", ON)],
            value=ON,
            description="Adapter",
            style={**wide, "button_width": "180px"},
        )
        self.answer = ipywidgets.HTML()
        super().__init__([ipywidgets.HBox([self.word, self.generate]), self.adapter, self.answer])
        for state in (OFF, ON):
            self.written.setdefault(word, {})[state] = self.ask(word, state)
        self.show()
        self.generate.on_click(lambda _: self.run())
        self.word.observe(lambda _: self.run(), names="value")  # Enter, or leaving the box
        self.adapter.observe(lambda _: self.run(), names="value")

    def ask(self, word: str, state: str) -> str:
        """What the model writes for a word with the adapter switched on or off."""
        if state == ON:
            return self.define(word)
        with peftlab.disabled(self.model):
            return self.define(word)

    def run(self) -> None:
        """Write for the word in the box, if that was not done before, and show it."""
        word, state = " ".join(self.word.value.split()), self.adapter.value
        if not word or len(word) > LONGEST_WORD:
            self.show("Type a word first." if not word else f"Take a word of at most {LONGEST_WORD} characters.")
            return
        if state not in self.written.get(word, {}):
            self.show(f"writing about {word} …")
            try:
                text = self.ask(word, state)
            except Exception as error:  # noqa: BLE001  a callback's error would be seen nowhere
                self.show(f"It did not work: {type(error).__name__}: {error}")
                return
            self.written.setdefault(word, {})[state] = text
        self.written[word] = self.written.pop(word)  # the latest stands last
        self.show(f"{word}, adapter {state}: {self.written[word][state]}")

    def show(self, message: str = "") -> None:
        said = f'<p role="status"><b>{html.escape(message)}</b></p>' if message else ""
        self.answer.value = f"{said}{self.table()}"

    def table(self) -> str:
        """All words so far, the latest first, as HTML."""
        cell = '<td style="text-align:left;padding:2px 10px 2px 0;vertical-align:top">'
        rows = [
            f"<tr>{cell}<b>{html.escape(word)}</b></td>"
            + "".join(f"{cell}{html.escape(texts.get(state, '–'))}</td>" for state in (OFF, ON))
            + "</tr>"
            for word, texts in reversed(self.written.items())
        ]
        names = ("word", "adapter off", "adapter on")
        head = "".join(f"<th scope='col' style='text-align:left'>{name}</th>" for name in names)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The live view, and for a page without a kernel what was written so far."""
        bundle = super()._repr_mimebundle_(**kwargs)
        lines = [
            f"{word}, adapter {state}: {texts[state]}"
            for word, texts in self.written.items()
            for state in (OFF, ON)
            if state in texts
        ]
        still = {"text/plain": "\n".join([ASLEEP, *lines]), "text/html": f"<p>{ASLEEP}</p>{self.table()}"}
        return {**bundle, **still}


def switch(model: nn.Module, define: Callable[[str], str], word: str) -> WordSwitch:
    """A panel in which `define(word)` runs on `model` with its adapter on or off.

    It writes twice at once, for `word` with and without. Raises PeftLabError if the model has no adapter.
    """
    return WordSwitch(model, define, word)
