"""Fixtures for tests in a browser. Without a Chromium every test here is skipped, saying why."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.jupyterlab import (
    CHROMIUM_FLAGS,
    HOW_TO_GET_CHROMIUM,
    Lab,
    find_chromium,
    running_lab,
)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """A headless Chromium, through Playwright."""
    playwright = pytest.importorskip("playwright.sync_api")
    executable = find_chromium()
    if executable is None:
        pytest.skip(HOW_TO_GET_CHROMIUM)
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory) -> Iterator[Lab]:
    """A JupyterLab that shows an empty folder, `lab.folder`. (Needs `browser` to be there first.)"""
    with running_lab(tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("jupyter")) as running:
        yield running


@pytest.fixture
def page(browser) -> Iterator:
    """A fresh browser window; `page.requested` lists every address that it asked for."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    window = context.new_page()
    window.set_default_timeout(30_000)
    window.requested = []
    window.on("request", lambda request: window.requested.append(request.url))
    yield window
    context.close()
