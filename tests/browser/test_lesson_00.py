"""Lesson 00 in a real JupyterLab: from the first cell to the switch, as a learner goes through it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from peftlab.course.workspace import ROOT, hand_out
from tests.browser.jupyterlab import errors_shown, figures_shown, off_site, open_notebook, run_all

LESSON = "00_start_here.ipynb"


def screenshot(page, name: str) -> None:
    """A picture for people, where PEFTLAB_SCREENSHOTS names a folder."""
    if folder := os.environ.get("PEFTLAB_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def wait_for_text(page, text: str, seconds: float = 90) -> None:
    page.wait_for_function("text => document.body.innerText.includes(text)", arg=text, timeout=seconds * 1000)


def test_the_first_lesson_and_its_switch(lab, page):
    if not (ROOT / "notebooks" / LESSON).exists():
        pytest.skip(f"{LESSON} is not built yet")
    hand_out(ROOT / "notebooks", lab.folder)
    open_notebook(page, lab, LESSON)
    run_all(page, lab, LESSON, seconds=540)
    assert errors_shown(page) == []
    assert figures_shown(page) == 1
    assert page.get_by_text("not attempted yet").count() >= 1
    assert page.get_by_text("bit for bit: True").count() == 1

    panel = page.locator(".jp-OutputArea-output", has=page.get_by_role("button", name="Generate"))
    panel.scroll_into_view_if_needed()
    assert "quibberish" in panel.inner_text()
    box = panel.get_by_role("textbox")
    box.fill("snorvel")
    box.press("Enter")
    wait_for_text(page, "snorvel, adapter on:")
    panel.get_by_role("button", name="off: the base model").click()
    wait_for_text(page, "snorvel, adapter off:")
    box.fill("blorp")
    panel.get_by_role("button", name="Generate").click()
    wait_for_text(page, "blorp, adapter off:")
    screenshot(page, "switch")

    assert off_site(lab, page.requested) == []


def test_the_self_check_leads_to_bridges(lab, page):
    """Its quiz, run alone: no model is needed for it."""
    from tests.browser.test_lab import save_notebook

    save_notebook(lab.folder / "check.ipynb", 'from peftlab.course.question import quiz\nquiz("00")')
    open_notebook(page, lab, "check.ipynb")
    run_all(page, lab, "check.ipynb", seconds=90)
    groups = page.locator(".peftlab-widget fieldset")
    groups.first.wait_for()
    assert groups.count() == 5
    for place in range(3):
        groups.nth(place).get_by_text("I am not sure").click()
    for place, right in ((3, "It goes through to the adapter"), (4, "The test set chose the learning rate")):
        groups.nth(place).get_by_text(right).click()
    wait_for_text(page, "B1 · A transformer block and its names")
    screenshot(page, "self_check")
    shown = page.locator(".peftlab-widget").inner_text()
    assert "B2 · Module surgery" in shown and "B3 · From outer product to SVD" in shown
