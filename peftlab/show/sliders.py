"""A slider whose every stop runs something on the live kernel and says what came out."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

import ipywidgets


def drag(
    label: str,
    stops: Sequence[int],
    measure: Callable[[int], float],
    describe: Callable[[int, float], str],
    *,
    start: int,
) -> ipywidgets.VBox:
    """A slider over `stops`; on each, `measure` runs once (then it is remembered) and `describe` puts it in words."""
    remembered: dict[int, float] = {}
    slider = ipywidgets.SelectionSlider(
        options=list(stops),
        value=start,
        description=label,
        continuous_update=False,
        layout=ipywidgets.Layout(width="420px"),
    )
    answer = ipywidgets.HTML()

    def show(stop: int) -> None:
        if stop not in remembered:
            answer.value = "<i>measuring …</i>"
            remembered[stop] = measure(stop)
        answer.value = f"<b>{html.escape(describe(stop, remembered[stop]))}</b>"

    slider.observe(lambda change: show(change["new"]), names="value")
    show(start)
    return ipywidgets.VBox([slider, answer])
