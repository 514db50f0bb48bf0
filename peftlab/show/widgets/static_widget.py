"""A widget that also lives where no kernel runs: on the course's website, in a saved page, in a notebook not yet run.

In a live notebook this is an anywidget: its ES module draws it, and its traits sync with Python. Beside the live view
each output carries a twin in `text/html`: a readable fallback, the same ES module and the widget's state. The twin
needs no network, no file beside it and no other script, so it works from `file://` too.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import anywidget

HERE = Path(__file__).parent
HOST = (HERE / "static_host.js").read_text(encoding="utf-8")


def module(*names: str) -> str:
    """The text of one ES module, put together from files of this folder, the shared ones first."""
    return "\n".join((HERE / name).read_text(encoding="utf-8").strip() for name in names) + "\n"


class StaticWidget(anywidget.AnyWidget):
    """Base class. A subclass sets `_esm` and the traits, and says in words what it holds.

    Traits tagged `static=True` travel into the twin, as base64 of JSON: the answers of a quiz are then not to be read
    at a glance in a page's or a notebook's source. It is no secret.
    """

    _css = HERE / "style.css"

    def fallback_text(self) -> str:
        """What a terminal shows, and a notebook that is read as plain text."""
        raise NotImplementedError

    def fallback_html(self) -> str:
        """What a page shows that may not run scripts. Plain elements only: sanitisers take the rest."""
        raise NotImplementedError

    def static_state(self) -> dict[str, Any]:
        """The values of the traits that travel into the twin."""
        return {name: getattr(self, name) for name in sorted(self.traits(static=True))}

    def twin(self) -> str:
        """HTML that is this widget without a kernel. Equal widgets give equal bytes."""
        state = json.dumps(self.static_state(), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        name = type(self).__name__
        mark = f"{name}-{hashlib.sha256(f'{name} {state}'.encode()).hexdigest()[:12]}"
        script = (
            HOST.replace("__MARK__", _as_script_string(mark))
            .replace("__STATE__", _as_script_string(base64.b64encode(state.encode()).decode()))
            .replace("__MODULE__", _as_script_string(str(self._esm)))
        )
        return (
            f'<div class="peftlab-widget" data-peftlab-widget="{mark}">\n{self.fallback_html()}\n</div>\n'
            f"<style>\n{self._css}\n</style>\n"
            f'<script type="module">\n{script}</script>'
        )

    def __repr__(self) -> str:
        return self.fallback_text()

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        live = super()._repr_mimebundle_(**kwargs)
        if live is None:
            return None
        data, metadata = live
        return {**data, "text/plain": self.fallback_text(), "text/html": self.twin()}, metadata


def _as_script_string(text: str) -> str:
    """A JavaScript string. No `<` is left in it, so nothing inside can end or open a script element."""
    return json.dumps(text, ensure_ascii=False).replace("<", "\\u003c")
