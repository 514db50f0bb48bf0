"""The website in a real browser: every page on a phone, and what a reader presses on a desktop."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.built_site import built_site

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1300, "height": 900}

# What is wrong with the page that is open, as a list of texts.
PROBLEMS = """async () => {
    const found = [];
    if (window.MathJax?.startup) await MathJax.startup.promise;
    for (const formula of document.querySelectorAll('.bd-article .math')) {
        const start = formula.textContent.slice(0, 60);
        if (!formula.querySelector('mjx-container svg')) found.push('not rendered: ' + start);
        if (formula.querySelector('[data-mml-node="merror"]')) found.push('not valid: ' + start);
    }
    const article = document.querySelector('.bd-article') ?? document.body;
    const texts = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const text = texts.currentNode;
        if (text.parentElement.closest('pre, code, script, style, mjx-container')) continue;
        if (/\\$[^$\\n]+\\$/.test(text.data)) found.push('raw formula: ' + text.data.trim().slice(0, 60));
    }
    for (const image of document.images) {
        if (!image.alt.trim()) found.push('no alt text: ' + image.src);
        if (!image.complete || !image.naturalWidth) found.push('not shown: ' + image.src);
    }
    for (const widget of document.querySelectorAll('.peftlab-widget')) {
        if (!('peftlabAlive' in widget.dataset)) found.push('not alive: ' + widget.dataset.peftlabWidget);
        if (!(widget.shadowRoot ?? widget).querySelector('button, input, select'))
            found.push('nothing to press: ' + widget.dataset.peftlabWidget);
    }
    const wide = document.documentElement.scrollWidth - window.innerWidth;
    if (wide > 0) found.push(`scrolls sideways by ${wide} px`);
    return found;
}"""


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Path:
    return built_site()


@pytest.fixture(scope="module")
def address(browser, site) -> Iterator[str]:
    """The site over http, from this machine. (Needs `browser` first: without one nothing is built here.)"""
    handler = functools.partial(QuietHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def all_pages(site: Path) -> list[str]:
    paths = (path.relative_to(site) for path in sorted(site.rglob("*.html")))
    return [path.as_posix() for path in paths if path.parts[0] != "_static" and path.name != "index.html"]


def open_page(window, url: str) -> list[str]:
    """Open it; what went wrong: errors in the console, requests off the site, and PROBLEMS."""
    found: list[str] = []
    ours = (url.split("/", 3)[2], "") if url.startswith("http") else ("",)

    def at_request(request) -> None:
        if request.url.startswith(("data:", "blob:")):
            return
        if request.url.split("/", 3)[2] not in ours:
            found.append(f"asked for {request.url}")

    listeners = {
        "console": lambda message: message.type == "error" and found.append(f"console: {message.text}"),
        "pageerror": lambda error: found.append(f"script: {error}"),
        "request": at_request,
    }
    for event, listener in listeners.items():
        window.on(event, listener)
    window.goto(url)
    if window.locator(".peftlab-widget").count():
        window.wait_for_function("document.querySelectorAll('.peftlab-widget:not([data-peftlab-alive])').length === 0")
    found += window.evaluate(PROBLEMS)
    for event, listener in listeners.items():
        window.remove_listener(event, listener)
    return found


@pytest.fixture
def phone(browser) -> Iterator:
    context = browser.new_context(viewport=PHONE)
    window = context.new_page()
    window.set_default_timeout(30_000)
    yield window
    context.close()


def test_every_page_is_whole_on_a_phone(site, address, phone):
    problems = {page: open_page(phone, f"{address}/{page}") for page in all_pages(site)}
    assert {page: found for page, found in problems.items() if found} == {}


def test_lessons_are_whole_when_opened_as_files(site, browser, page):
    names = ["intro.html", *(name for name in all_pages(site) if name.startswith("notebooks/"))][:4]
    problems = {name: open_page(page, (site / name).as_uri()) for name in names}
    assert {name: found for name, found in problems.items() if found} == {}


def test_the_crawl_notices(tmp_path, browser, page):
    """The same eyes on a page with everything wrong."""
    (tmp_path / "bad.html").write_text(
        '<div class="bd-article"><p>costs $r$ here</p><span class="math">x</span><img src="gone.png">'
        '<div class="peftlab-widget" data-peftlab-alive="yes"></div><div style="width:3000px">wide</div></div>'
        "<script>console.error('broken')</script><script src='http://127.0.0.1:9/x.js'></script>"
    )
    found = "\n".join(open_page(page, (tmp_path / "bad.html").as_uri()))
    for sign in ("raw formula", "not rendered", "no alt text", "not shown", "nothing to press", "sideways", "broken"):
        assert sign in found
    assert "asked for http://127.0.0.1:9/x.js" in found


def test_the_front_door_leads_in(address, page):
    page.goto(address)
    page.wait_for_url("**/intro.html")
    assert page.locator(".bd-article h1").inner_text().startswith("PEFT Lab")


def test_search_finds_lora(address, page):
    page.goto(f"{address}/search.html?q=LoRA")  # results come in one after the other
    page.locator('#search-results li a[href*="06_lora"]').first.wait_for()


def test_a_result_quotes_text_and_a_definition(address, page):
    page.goto(f"{address}/search.html?q=QLoRA")
    quoted = page.locator("#search-results p.context")
    quoted.first.wait_for()
    page.wait_for_load_state("networkidle")
    assert quoted.first.inner_text().startswith("QLoRA: ")
    assert not any(".pdf" in text or "import " in text for text in quoted.all_inner_texts())


def test_the_search_field_leads_to_the_results(address, page):
    page.set_viewport_size(DESKTOP)
    page.goto(f"{address}/intro.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("LoRA")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=LoRA*")
    page.locator("#search-results li a").first.wait_for()


def test_the_theme_switch_switches_and_is_remembered(address, page):
    page.emulate_media(color_scheme="light")
    page.goto(f"{address}/intro.html")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    for _ in range(3):  # auto, light, dark, in some order
        page.locator(".theme-switch-button:visible").first.click()
        if page.evaluate("document.documentElement.dataset.theme") == "dark":
            break
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.wait_for_function(f"{background} !== '{light}'")
    page.goto(f"{address}/lessons.html")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_in_the_dark_figures_keep_white_and_tables_do_not(address, page):
    page.emulate_media(color_scheme="dark")
    page.goto(f"{address}/notebooks/06_lora.html")
    panel = "element => getComputedStyle(element).backgroundColor"
    assert page.locator(".cell_output img").first.evaluate(panel) == "rgb(255, 255, 255)"
    assert page.locator(".cell_output .text_html").first.evaluate(panel) == "rgba(0, 0, 0, 0)"


def test_a_solution_opens_and_hints_are_apart(address, page):
    page.goto(f"{address}/notebooks/06_lora.html")
    solution = page.locator("details.solution").first
    code = solution.locator("pre")
    assert not code.is_visible()
    solution.locator("summary").focus()
    page.keyboard.press("Enter")
    assert code.is_visible() and "def best_cut" in code.inner_text()
    assert not page.locator("details.hints li").first.is_visible()


def test_the_download_is_the_lesson_not_yet_run(address, page):
    page.goto(f"{address}/notebooks/06_lora.html")
    with page.expect_download() as started:
        page.get_by_role("link", name="Download the notebook").click()
    text = Path(started.value.path()).read_text(encoding="utf-8")
    assert started.value.suggested_filename == "06_lora.ipynb"
    assert "best_cut" in text and '"output_type"' not in text


def test_the_keyboard_shows_where_it_is(address, page):
    page.goto(f"{address}/notebooks/06_lora.html")
    link = page.get_by_role("link", name="Open in Colab")
    page.get_by_role("link", name="Download the notebook").focus()
    page.keyboard.press("Tab")
    assert link.evaluate("element => element === document.activeElement")
    assert link.evaluate("element => parseFloat(getComputedStyle(element).outlineWidth)") >= 2


def test_text_keeps_to_a_readable_measure(address, page):
    page.set_viewport_size({"width": 1900, "height": 1000})
    page.goto(f"{address}/notebooks/06_lora.html")
    widest = page.evaluate(
        """() => { const probe = document.createElement('span'); probe.textContent = '0'.repeat(100);
            probe.style.whiteSpace = 'nowrap'; document.querySelector('.bd-article p').append(probe);
            const ch = probe.getBoundingClientRect().width / 100;
            probe.remove();
            return Math.max(...[...document.querySelectorAll('.bd-article p')].map(p => p.clientWidth / ch)); }"""
    )
    assert 40 < widest < 75


def test_a_line_of_a_hundred_characters_is_read_whole(address, page):
    page.set_viewport_size(DESKTOP)
    page.goto(f"{address}/notebooks/06_lora.html")
    cell = page.locator(".cell_input pre").first
    cell.evaluate("(element, text) => { element.textContent = text; }", "x" * 100)
    assert cell.evaluate("element => element.scrollWidth <= element.clientWidth")
    cell.evaluate("(element, text) => { element.textContent = text; }", "x" * 140)
    assert cell.evaluate("element => element.scrollWidth > element.clientWidth")


def test_a_widget_ends_below_its_last_button(address, page):
    page.goto(f"{address}/notebooks/06_lora.html")
    page.wait_for_function("document.querySelectorAll('.peftlab-widget:not([data-peftlab-alive])').length === 0")
    empty = page.evaluate(
        """() => [...document.querySelectorAll('.peftlab-widget')].map(widget => {
            const ends = [...widget.querySelectorAll('button, input')].map(e => e.getBoundingClientRect().bottom);
            return widget.getBoundingClientRect().bottom - Math.max(...ends); })"""
    )
    assert len(empty) > 5 and max(empty) < 24, empty


def test_a_link_in_a_caption_stands_in_its_line(address, page):
    page.goto(f"{address}/overview.html")
    links = page.locator("figcaption a.reference")
    assert links.count() > 0
    assert {link.evaluate("element => getComputedStyle(element).display") for link in links.all()} == {"inline"}


def test_no_line_begins_with_the_full_stop_of_a_formula(address, phone):
    phone.goto(f"{address}/notebooks/06_lora.html")
    phone.evaluate("async () => { await MathJax.startup.promise; }")
    torn = """() => [...document.querySelectorAll('.bd-article span.math')].flatMap(formula => {
        const after = formula.nextSibling;
        if (after?.nodeType !== Node.TEXT_NODE || !/^[.,;:!?)]/.test(after.data)) return [];
        const mark = document.createRange();
        mark.setStart(after, 0);
        mark.setEnd(after, 1);
        const [drawn, stop] = [formula.getBoundingClientRect(), mark.getBoundingClientRect()];
        return [{ where: after.parentElement.textContent.slice(0, 40), torn: stop.top >= drawn.bottom }]; })"""
    found = phone.evaluate(torn)
    assert len(found) > 10 and [each["where"] for each in found if each["torn"]] == []
