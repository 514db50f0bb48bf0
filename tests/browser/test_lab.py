"""Lessons in a real JupyterLab, operated as a learner would."""

from __future__ import annotations

import re

import nbformat
import pytest

from peftlab.course.notebooks import METADATA
from peftlab.course.workspace import ROOT, hand_out
from tests.browser.jupyterlab import (
    errors_shown,
    figures_shown,
    off_site,
    open_notebook,
    run_all,
)

LESSON = "06_lora.ipynb"

SLIDER_NOTEBOOK = """
import ipywidgets
import matplotlib.pyplot as plt
slider = ipywidgets.IntSlider(value=8, min=1, max=64, description="rank")
text = ipywidgets.HTML("rank 8")
slider.observe(lambda change: setattr(text, "value", f"rank {change['new']}"), "value")
ipywidgets.HBox([slider, text])
"""


def save_notebook(path, *cells: str) -> None:
    notebook = nbformat.v4.new_notebook(metadata=METADATA)  # without a kernel, Lab would ask
    notebook.cells = [nbformat.v4.new_code_cell(source.strip()) for source in cells]
    nbformat.write(notebook, path)


def move_slider(page, presses: int = 1, key: str = "ArrowRight") -> None:
    """Move the first slider of the page by keyboard."""
    handle = page.locator(".widget-slider").first.get_by_role("slider")
    handle.scroll_into_view_if_needed()
    handle.focus()
    for _ in range(presses):
        handle.press(key)


def beside_slider(page):
    """What is shown together with the first slider: the box or the output that holds it."""
    slider = page.locator(".widget-slider").first
    box = slider.locator("xpath=ancestor::*[contains(@class, 'widget-box')][1]")
    return box if box.count() else slider.locator("xpath=ancestor::*[@class][1]")


def test_the_tools_work_on_a_small_notebook(lab, page):
    """Kernel, figure, widget and callback; so a failure further below is the lesson's."""
    name = "small.ipynb"
    save_notebook(
        lab.folder / name, SLIDER_NOTEBOOK, "_ = plt.plot([0, 1, 4])", "# the end", "print(6 * 7)"
    )
    open_notebook(page, lab, name)
    run_all(page, lab, name, seconds=120)
    assert figures_shown(page) == 1
    assert page.get_by_text("42", exact=True).is_visible()
    move_slider(page, presses=3)
    page.wait_for_function("document.body.innerText.includes('rank 11')")
    assert "rank 11" in beside_slider(page).inner_text()
    assert off_site(lab, page.requested) == []


def test_the_tools_notice_an_error(lab, page):
    save_notebook(lab.folder / "bad.ipynb", "print('fine')", "1 / 0", "print('never')")
    open_notebook(page, lab, "bad.ipynb")
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run_all(page, lab, "bad.ipynb", seconds=60)


def test_the_lora_lesson_runs_from_top_to_bottom(lab, page):
    lessons = ROOT / "notebooks"
    if not (lessons / LESSON).exists():
        pytest.skip(f"{LESSON} is not built yet")
    hand_out(lessons, lab.folder)
    open_notebook(page, lab, LESSON)
    run_all(page, lab, LESSON, seconds=420)
    assert errors_shown(page) == []
    assert figures_shown(page) > 0

    # The slider cuts the model that was trained a minute ago, and says how good it still is.
    assert re.search(r"384 of 384 directions kept: accuracy 0\.\d\d", beside_slider(page).inner_text())
    move_slider(page, presses=1, key="ArrowLeft")
    page.wait_for_function("document.body.innerText.includes('32 of 384 directions kept')", timeout=60_000)
    assert off_site(lab, page.requested) == []


def test_the_first_lesson_on_costs_runs_from_top_to_bottom(lab, page):
    name = "01_scaling_dilemma.ipynb"
    hand_out(ROOT / "notebooks", lab.folder)
    open_notebook(page, lab, name)
    run_all(page, lab, name, seconds=240)
    assert errors_shown(page) == []
    assert figures_shown(page) == 4
    assert off_site(lab, page.requested) == []
