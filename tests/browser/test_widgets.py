"""The widgets as a learner meets them, by mouse and keyboard: in a real JupyterLab, and where no kernel runs."""

from __future__ import annotations

import nbformat
import pytest
import torch

from peftlab.bench import scissors_directions
from peftlab.bench.results import Results
from peftlab.course import question, scissors, wall
from peftlab.course.notebooks import METADATA, clean
from peftlab.course.question import Option, Question, predict, quiz
from peftlab.show.widgets import scissors as scissors_widget
from peftlab.show.widgets.method_map import method_map
from peftlab.show.widgets.quiz import QuizWidget
from peftlab.show.widgets.sixteen_levels import SixteenLevelsWidget, place_levels
from peftlab.show.widgets.wall import memory_wall
from tests.browser.jupyterlab import errors_shown, off_site, open_notebook, run_all

DARK = {
    "the website": "document.documentElement.dataset.theme = 'dark'",
    "JupyterLab": "document.body.dataset.jpThemeLight = 'false'",
    "no theme": "null",
}
# For every text in a widget, the contrast with the nearest background behind it. Returns those below 4.5.
TOO_FAINT = """() => {
  const luminance = ([r, g, b]) => [r, g, b]
    .map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const rgba = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const faint = [];
  let checked = 0;
  for (const widget of document.querySelectorAll('.peftlab-widget')) {
    const walker = document.createTreeWalker(widget, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement;
      if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest('button:disabled')) continue;
      const style = getComputedStyle(element);
      const front = rgba(element instanceof SVGElement ? style.fill : style.color);
      let behind = element;
      while (rgba(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
      const [a, b] = [front, rgba(getComputedStyle(behind).backgroundColor)].map(luminance).sort((x, y) => y - x);
      checked += 1;
      if ((a + 0.05) / (b + 0.05) < 4.5) faint.push(walker.currentNode.data.trim());
    }
  }
  return { checked, faint };
}"""


def scissors_demo() -> scissors_widget.ScissorsWidget:
    """Real accuracies; random numbers in place of the measured directions."""
    torch.manual_seed(0)
    dW = torch.randn(384, 384) * 0.002 + torch.outer(torch.randn(384), torch.randn(384)) * 0.01
    change = scissors.Change(torch.zeros(1), *torch.linalg.svd(dW))
    return scissors_widget.ScissorsWidget(
        measured=scissors_widget.measured_accuracies(Results.load("scissors")),
        matrix=scissors_widget.packed_matrix(scissors_directions.directions(change, "block.query.weight")),
    )


def levels_demo() -> SixteenLevelsWidget:
    return place_levels(torch.randn(128, 128, generator=torch.Generator().manual_seed(0)), "a random matrix")


def self_check() -> QuizWidget:
    options = [Option("it may", "No: it `</script>` does not."), Option("it does", "Yes: *indeed*.", right=True)]
    asked = [Question(name, f"Does {name}?", options, bridge=name.upper()) for name in ("b1", "b2")]
    return QuizWidget(heading="Self check", questions=[question._as_data(each) for each in asked])


@pytest.fixture
def open_page(page, tmp_path):
    """Opens the twins of some widgets as one file, as a page without a kernel; `page.problems` lists console errors."""
    page.problems = []
    page.on("console", lambda message: page.problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.problems.append(str(error)))

    def show(*widgets, theme="null"):
        file = tmp_path / "page.html"
        twins = "\n".join(widget.twin() for widget in widgets)
        head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Widgets</title>'
        file.write_text(f'<!doctype html><html lang="en">{head}<body>{twins}</body></html>', encoding="utf-8")
        page.goto(file.as_uri())
        page.wait_for_function(
            "count => document.querySelectorAll('.peftlab-widget fieldset').length >= count", arg=len(widgets)
        )
        page.evaluate(theme)
        return page

    yield show
    assert page.problems == []
    assert [url for url in page.requested if not url.startswith(("file:", "blob:"))] == []


def press_until(page, key: str, done: str, most: int = 60) -> None:
    """Press a key until the focused element's text or value contains `done`."""
    for _ in range(most):
        page.keyboard.press(key)
        if done in page.evaluate("document.activeElement.innerText || document.activeElement.value || ''"):
            return
    raise AssertionError(f"{key} never led to {done!r}")


# ---- without a kernel -----------------------------------------------------------------------------------------------


def test_a_quiz_on_a_page_by_mouse(open_page):
    page = open_page(quiz("06"))
    page.get_by_role("button", name="8,000", exact=True).click()
    assert page.get_by_text("✗ Not yet: that is A alone").is_visible()
    page.get_by_role("button", name="12,000", exact=True).click()
    assert page.get_by_text("✓ Right: r (d_in + d_out)").is_visible()
    assert page.get_by_text("that is A alone").is_visible()  # one may compare
    assert page.get_by_text("1 of 5 answered.").is_visible()
    for group in page.get_by_role("group").all()[1:]:
        asked = group.locator("legend").inner_text().partition(". ")[2]
        right = next(o.text for q in question._module("06", "06").QUIZ if q.asks == asked for o in q.options if o.right)
        group.get_by_role("button", name=right, exact=True).click()
    assert page.get_by_text("4 of 5 right at the first try.").is_visible()
    page.get_by_role("button", name="Start again").click()
    assert page.get_by_text("✓ Right").count() == 0


def test_a_quiz_on_a_page_by_keyboard_alone(open_page):
    page = open_page(quiz("06"))
    press_until(page, "Tab", "12,000")
    page.keyboard.press("Enter")
    assert page.get_by_text("✓ Right: r (d_in + d_out)").is_visible()
    press_until(page, "Tab", "It never learns")
    page.keyboard.press("Space")
    assert page.get_by_text("✗ Not yet: that needs both to be zero").is_visible()


def test_the_self_check_names_the_bridges_that_are_worth_it(open_page):
    page = open_page(self_check())
    groups = page.get_by_role("group").all()
    groups[0].get_by_role("button", name="it does").click()
    groups[1].get_by_role("button", name="I am not sure").click()
    assert page.get_by_text("1 of 2 right at the first try.").is_visible()
    links = page.get_by_role("link").all()
    assert [link.get_attribute("href") for link in links] == ["B2_module_surgery.html"]
    assert "B2" in links[0].inner_text()


def test_two_equal_widgets_on_one_page_do_not_disturb_each_other(open_page):
    page = open_page(predict("06.energy"), predict("06.energy"), self_check(), self_check())
    first, second = page.locator(".peftlab-widget").all()[:2]
    first.get_by_label("about 40 %").check()
    second.get_by_label("about 95 %").check()
    second.get_by_role("button", name="Lock in").click()
    assert first.get_by_label("about 40 %").is_checked()
    assert first.get_by_role("button", name="Lock in").is_enabled()
    assert second.get_by_text("✗ Not what we found.").is_visible()
    assert page.locator(".peftlab-widget fieldset").count() == 6


def test_a_choice_is_locked_in_by_keyboard(open_page):
    page = open_page(predict("06.energy"))
    assert page.get_by_role("button", name="Lock in").is_disabled()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert page.get_by_label("about 40 %").is_checked()
    assert page.get_by_text("We measured").count() == 0  # choosing is not yet committing
    press_until(page, "Tab", "Lock in")
    page.keyboard.press("Enter")
    assert page.get_by_text("✓ Right.").is_visible() and page.get_by_text("We measured 43 %").is_visible()
    assert page.get_by_label("about 10 %").is_disabled()


def test_a_number_is_locked_in_by_keyboard(open_page):
    page = open_page(predict("06.cut_to_8"))
    slider, field = page.get_by_role("slider"), page.get_by_role("spinbutton")
    slider.press("ArrowRight")
    assert field.input_value() == "51"
    field.fill("101")
    assert page.get_by_role("button", name="Lock in").is_disabled()  # outside the range
    field.fill("60")
    assert slider.input_value() == "60"
    page.get_by_role("button", name="Lock in").press("Enter")
    assert "Your guess: 60\u202f%. The answer: 85.2\u202f%." in page.get_by_role("img").get_attribute("aria-label")
    assert page.get_by_text("✗ Too low by 25.2\u202fpoints").is_visible()


def test_the_scissors_by_keyboard(open_page):
    page = open_page(scissors_demo())
    cut = page.get_by_role("slider", name="directions kept")
    assert cut.count() == 0  # first the guess
    page.get_by_role("slider", name="r = 8").press("End")
    assert "100\u202f% at r = 8" in page.get_by_role("img").first.get_attribute("aria-label")
    page.get_by_role("button", name="Show").press("Enter")
    assert page.get_by_role("row", name="8 100\u202f% 85\u202f% 23\u202f%").is_visible()
    for _ in range(5):  # from 384 to 8; the slider has the focus
        page.keyboard.press("ArrowLeft")
    assert cut.get_attribute("aria-valuetext") == "8 of 384 directions"
    said = page.locator(".peftlab-said").inner_text()
    assert "8 of 384 directions kept" in said and "accuracy is 85\u202f%" in said
    maps = page.locator("canvas").all()
    assert len({each.evaluate("canvas => canvas.toDataURL()") for each in maps}) == 2
    cut.press("End")
    assert len({each.evaluate("canvas => canvas.toDataURL()") for each in maps}) == 1  # nothing is cut
    cut.press("Home")
    assert "0 of 384 directions kept, 0\u202f% of this matrix's energy" in page.locator(".peftlab-said").inner_text()


def test_the_map_by_keyboard(open_page):
    page = open_page(method_map())
    facts = page.locator(".peftlab-facts")
    assert "73,728, 0.32\u202f% of the model; 295\u202fkB" in facts.inner_text()
    page.keyboard.press("Tab")  # the models are one stop
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.get_by_role("radio", name="Llama 2 7B").is_checked()
    assert "4,194,304, 0.062\u202f% of the model; 16.8\u202fMB" in facts.inner_text()
    press_until(page, "Tab", "selective")
    page.keyboard.press("Enter")
    pressed = page.locator("button[aria-pressed=true]").all_inner_texts()
    assert [" ".join(words.split()) for words in pressed] == ["selective", "LastLayers"]
    press_until(page, "Tab", "BitFit")
    page.keyboard.press("Space")
    assert "0: this model has none of them" in facts.inner_text() and "built in this course" in facts.inner_text()
    assert "BitFit" in page.evaluate("document.activeElement.innerText")  # the focus stays where it is
    page.get_by_role("radio", name="MiniLM").check()
    assert "26,112" in facts.inner_text()
    assert "BitFit: 26,112." in page.get_by_role("img").get_attribute("aria-label")


def test_every_method_of_the_map_can_be_opened(open_page):
    widget = method_map()
    page = open_page(widget)
    seen = []
    for family in widget.families:
        page.get_by_role("button", name=family["name"], exact=True).click()
        for chip in page.get_by_role("group", name="Methods of this family").get_by_role("button").all():
            chip.click()
            seen.append(page.locator(".peftlab-name strong").inner_text())
    assert seen == [method["name"] for method in widget.methods]
    page.get_by_role("button", name="additive", exact=True).click()
    page.get_by_role("button", name="PromptTuning", exact=True).click()
    links = [link.get_attribute("href") for link in page.locator(".peftlab-facts a").all()]
    assert links == ["04_soft_prompts.html", "https://arxiv.org/abs/2104.08691", "../atlas.html#atlas-prompttuning"]


def test_a_mark_on_the_map_opens_its_method(open_page):
    widget = method_map()
    page = open_page(widget)
    page.locator("path.dot.selective").first.click()
    selective = {method["name"] for method in widget.methods if method["family"] == "selective"}
    assert page.locator(".peftlab-name strong").inner_text() in selective
    assert page.locator("path.dot.chosen").count() == 1


def test_the_wall_by_keyboard(open_page):
    page = open_page(memory_wall())
    verdict = page.locator(".peftlab-verdict")
    assert "Does not fit: the step needs 50.2\u202fGiB, 27.2\u202fGiB too much" in verdict.inner_text()
    press_until(page, "Tab", "Llama 2 7B")  # the list of models
    page.keyboard.press("Tab")  # the ways of training are one stop
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    assert page.get_by_role("radio", name="QLoRA").is_checked()
    assert "Fits: the step needs 21.6\u202fGiB" in verdict.inner_text() and "160\u202fMB" in verdict.inner_text()
    page.get_by_role("checkbox", name="gradient checkpointing").press("Space")
    page.get_by_role("radio", name="24\u202fGiB").press("ArrowUp")
    page.get_by_role("radio", name="16\u202fGiB").press("ArrowUp")
    assert "Fits: the step needs 5.36\u202fGiB, 1.64\u202fGiB to spare" in verdict.inner_text()
    page.get_by_role("slider", name="tokens in a text").press("End")
    assert page.get_by_role("slider", name="tokens in a text").get_attribute("aria-valuetext") == "4,096"
    assert "Does not fit" in verdict.inner_text()
    page.get_by_label("model").select_option("gpt2")
    assert "GPT-2 is made for texts of up to 1,024 tokens" in verdict.inner_text()


def test_the_wall_computes_what_the_library_does(open_page):
    """Every model, method and kind of checkpointing, by the page's own arithmetic, to the byte."""
    widget = memory_wall()
    page = open_page(widget)
    asked = [(m, k, again, n) for m in wall.MODELS for k in wall.METHODS for again in (0, 1) for n in (1, 512, 3000)]
    found = page.evaluate(
        """async ([module, lines, asked]) => {
          const address = URL.createObjectURL(new Blob([module], { type: 'text/javascript' }));
          const { peak } = (await import(address)).default;
          return asked.map(([m, k, again, tokens]) => peak(lines[m][k][again], tokens).total);
        }""",
        [str(widget._esm), widget.lines, asked],
    )
    assert found == [wall.training(m, k, bool(again), n).total for m, k, again, n in asked]


def test_the_wall_shows_every_model_and_method_it_has(open_page):
    page = open_page(memory_wall(memory=80))
    for model in wall.MODELS:
        page.get_by_label("model").select_option(model)
        for method in wall.METHODS:
            page.get_by_role("radio", name=method, exact=True).check()
            wanted = wall.training(model, method, False, 2048).gib
            shown = page.locator("tr.sum .amount").inner_text().split("\u202f")[0].replace(",", "")
            assert float(shown) == pytest.approx(wanted, rel=0.006), (model, method)


def test_a_guess_can_be_dragged(open_page):
    page = open_page(scissors_demo())
    handle = page.locator(".draggable").first
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y - 60, steps=4)
    page.mouse.up()
    assert int(page.get_by_role("slider", name="r = 1", exact=True).input_value()) > 60


def error_shown(page) -> float:
    return float(page.locator(".peftlab-error").inner_text().split()[1].split("\u202f")[0])


def test_levels_are_placed_by_keyboard(open_page):
    page = open_page(levels_demo())
    which, where = page.get_by_role("slider", name="which level"), page.get_by_role("slider", name="its place")
    before = error_shown(page)
    which.press("Home")
    assert which.get_attribute("aria-valuetext") == "level 1 of 16, at −1.00"
    which.press("ArrowRight")
    for _ in range(9):
        where.press("ArrowRight")
    assert which.get_attribute("aria-valuetext") == "level 2 of 16, at −0.82"
    assert error_shown(page) != before
    where.press("End")  # a level never passes its neighbour
    assert which.get_attribute("aria-valuetext") == "level 2 of 16, at −0.73"
    assert page.get_by_role("button", name="NF4").count() == 0  # first one's own
    press_until(page, "Tab", "Show the others")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="NF4").press("Enter")
    nf4 = next(other for other in levels_demo().others if other["name"] == "NF4")
    assert error_shown(page) == pytest.approx(100 * nf4["error"], abs=0.011)
    page.get_by_role("button", name="Move every level").press("Space")
    assert error_shown(page) < 100 * nf4["error"] - 0.1
    assert "Levels at −1.00" not in page.get_by_role("img").get_attribute("aria-label")


def test_a_level_can_be_dragged(open_page):
    page = open_page(levels_demo())
    before, box = error_shown(page), page.locator("svg.peftlab-levels").bounding_box()

    def at(value):
        return box["x"] + box["width"] * (16 + (value + 1) / 2 * 328) / 360

    y = box["y"] + box["height"] / 2
    page.mouse.move(at(-0.995), y)
    page.mouse.down()
    page.mouse.move(at(-0.9), y, steps=4)
    page.mouse.up()
    which = page.get_by_role("slider", name="which level")
    assert which.get_attribute("aria-valuetext").startswith("level 1 of 16, at −0.9")
    assert error_shown(page) != before
    page.mouse.move(at(0.5), y, steps=4)  # the button is up: nothing moves
    assert which.get_attribute("aria-valuetext").startswith("level 1 of 16, at −0.9")


def test_every_codebook_can_be_taken_in_hand(open_page):
    widget = levels_demo()
    page = open_page(widget)
    page.get_by_role("button", name="Show the others").click()
    for other in widget.others:
        page.get_by_role("button", name=other["name"], exact=True).click()
        assert error_shown(page) == pytest.approx(100 * other["error"], abs=0.011), other["name"]


@pytest.mark.parametrize("theme", DARK)
@pytest.mark.parametrize("width", [360, 1300])
def test_all_text_has_contrast_and_nothing_is_too_wide(open_page, page, theme, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(reduced_motion="reduce")  # and no colour on its way to another is measured
    shown = (quiz("06"), predict("06.energy"), predict("06.cut_to_8"), scissors_demo(), method_map(), levels_demo())
    shown += (memory_wall(),)
    open_page(*shown, theme=DARK[theme])
    before = page.evaluate(TOO_FAINT)
    for option in page.locator(".peftlab-option").all():
        option.click()
    page.get_by_label("about 10 %").check()
    page.get_by_role("spinbutton").fill("20")
    for _ in range(2):  # a locked one has no button left
        page.get_by_role("button", name="Lock in").first.click()
    page.get_by_role("button", name="Show", exact=True).click()
    page.get_by_role("button", name="Show the others").click()
    after = page.evaluate(TOO_FAINT)
    assert before["checked"] > 40 and after["checked"] > before["checked"]
    assert before["faint"] == after["faint"] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    small = page.evaluate(
        "() => [...document.querySelectorAll('.peftlab-widget :is(button, label.peftlab-choice, input[type=range])')]"
        ".filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 40).length"
    )
    assert small == 0


def test_without_scripts_the_questions_can_be_read(browser, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(f"<!doctype html><meta charset=utf-8>{quiz('06').twin()}", encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert "12,000" in page.inner_text("body") and "1500" not in page.inner_text("body")
    context.close()


# ---- in JupyterLab --------------------------------------------------------------------------------------------------

LIVE = [
    "from peftlab.course.question import predict, quiz",
    "guessed = predict('06.energy')\nguessed",
    "asked = quiz('06')\nasked",
    "1",
]


def save_notebook(path, *cells) -> None:
    notebook = nbformat.v4.new_notebook(metadata=METADATA)  # without a kernel, Lab would ask
    notebook.cells = [cell if isinstance(cell, dict) else nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(notebook, path)


def run_last_cell(page, source: str) -> None:
    """Put `source` into the last cell and run it; its output is then the last one."""
    page.locator(".jp-Cell .cm-content").last.click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(source)
    page.keyboard.press("Shift+Enter")


def test_answers_and_guesses_reach_the_kernel(lab, page):
    save_notebook(lab.folder / "questions.ipynb", *LIVE)
    open_notebook(page, lab, "questions.ipynb")
    run_all(page, lab, "questions.ipynb", seconds=120)
    prediction, asked = page.locator(".jp-OutputArea-output .peftlab-widget").all()

    prediction.get_by_label("about 10 %").focus()
    page.keyboard.press("ArrowDown")  # would move to another cell, were it Lab's
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    prediction.get_by_text("✓ Right.").wait_for()

    asked.get_by_role("button", name="64", exact=True).click()
    asked.get_by_text("✗ Not yet: r × r would be").wait_for()
    asked.get_by_role("button", name="12,000", exact=True).focus()
    page.keyboard.press("Enter")
    asked.get_by_text("✓ Right: r (d_in + d_out)").wait_for()

    run_last_cell(page, "print('guess', guessed.guess, 'answers', asked.answers)")
    page.get_by_text("guess 1.0 answers {'parameters': [2, 3]}").wait_for()
    assert errors_shown(page) == []
    assert off_site(lab, page.requested) == []


def stored_output(widget) -> nbformat.NotebookNode:
    """A cell as a build stores it: run, with the live view taken out."""
    data, metadata = widget._repr_mimebundle_()
    notebook = nbformat.v4.new_notebook()
    output = nbformat.v4.new_output("execute_result", data, metadata=metadata, execution_count=1)
    notebook.cells = [nbformat.v4.new_code_cell("widget", execution_count=1, outputs=[output])]
    clean(notebook)
    assert set(notebook.cells[0].outputs[0].data) == {"text/html", "text/plain"}
    return notebook.cells[0]


def test_a_trusted_notebook_is_alive_before_it_is_run(lab, page):
    save_notebook(lab.folder / "stored.ipynb", stored_output(predict("06.energy")), stored_output(self_check()))
    open_notebook(page, lab, "stored.ipynb")
    page.get_by_role("tabpanel").get_by_text("Predict", exact=False).first.wait_for()
    assert page.locator(".peftlab-widget input[type=radio]").count() == 0  # not trusted: words only
    page.keyboard.press("Control+Shift+c")
    page.locator(".lm-CommandPalette-input").fill("trust notebook")
    page.keyboard.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Trust").click()
    page.get_by_label("about 40 %").check()
    page.get_by_role("button", name="Lock in").click()
    page.get_by_text("✓ Right.").wait_for()
    for group in page.get_by_role("group", name="Does b").all():
        group.get_by_role("button", name="it may").click()
    assert page.get_by_text("open B1_transformer_block.ipynb").is_visible()  # no page of the website to link to
    assert off_site(lab, page.requested) == []


def test_the_map_in_lab_names_notebooks_and_keeps_its_keys(lab, page):
    source = "from peftlab.show.widgets.method_map import method_map\nseen = method_map()\nseen"
    save_notebook(lab.folder / "map.ipynb", source, "1")
    open_notebook(page, lab, "map.ipynb")
    run_all(page, lab, "map.ipynb", seconds=120)
    shown = page.locator(".jp-OutputArea-output .peftlab-widget").first
    shown.get_by_role("radio", name="MiniLM").focus()
    page.keyboard.press("ArrowDown")  # would move to another cell, were it Lab's
    shown.get_by_role("button", name="additive", exact=True).focus()
    page.keyboard.press("Enter")
    shown.get_by_text("03 · Adapters: open 03_adapters.ipynb").wait_for()
    run_last_cell(page, "print(sorted(seen.choice.values()))")
    page.get_by_text("['Houlsby', 'SmolLM2', 'additive']").wait_for()
    assert errors_shown(page) == []


    shown = (quiz("06"), predict("06.energy"), predict("06.cut_to_8"), scissors_demo(), method_map(), levels_demo())
    shown += (memory_wall(),)
    assert errors_shown(page) == []


KNOBS = """
from transformers import BertConfig
import torch
from peftlab.show.knobs import retrain
from peftlab.tasks.datasets import Split
from peftlab.tasks.mean_pool import MeanPoolClassifier

def letters(texts, **_):
    rows = [torch.tensor([3 + ord(letter) % 20 for letter in text]) for text in texts]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}

config = BertConfig(vocab_size=30, hidden_size=12, num_hidden_layers=1, num_attention_heads=2,
                    intermediate_size=20, num_labels=2)
few = Split(["abc", "de", "fgh", "ij"], [0, 1, 0, 1])
panel = retrain(MeanPoolClassifier(config), letters, few, few, steps=12, batch_size=2)
panel
"""


def test_the_knobs_train(lab, page):
    save_notebook(lab.folder / "knobs.ipynb", KNOBS, "1")
    open_notebook(page, lab, "knobs.ipynb")
    run_all(page, lab, "knobs.ipynb", seconds=120)
    panel = page.locator(".jp-OutputArea-output .widget-vbox").first
    panel.get_by_role("button", name="Train").click()
    panel.locator("tbody tr").first.wait_for()
    slider = panel.get_by_role("slider").first
    slider.focus()
    slider.press("ArrowRight")
    panel.get_by_role("button", name="Train").click()
    panel.locator("tbody tr").nth(1).wait_for()
    assert [row.inner_text().split()[0] for row in panel.locator("tbody tr").all()] == ["8", "16"]
    assert panel.locator("img").evaluate("image => image.naturalWidth") > 300
    assert errors_shown(page) == []
    panel.get_by_role("button", name="Clear").click()
    panel.get_by_text("No run yet").wait_for()
