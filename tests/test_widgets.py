"""The widgets without a browser: their twins, their stored data, and the knobs' callbacks."""

from __future__ import annotations

import base64
import html.parser
import json
import re

import pytest
import torch
import traitlets

from peftlab.bench import scissors_directions
from peftlab.bench.results import Results
from peftlab.course import landscape, scissors, sixteen_levels
from peftlab.course.question import predict, quiz
from peftlab.errors import PeftLabError
from peftlab.quant import levels_of, quantize
from peftlab.show import knobs
from peftlab.show.widgets import scissors as scissors_widget
from peftlab.show.widgets.method_map import START, MethodMapWidget, method_map
from peftlab.show.widgets.quiz import QuizWidget
from peftlab.show.widgets.sixteen_levels import EVEN, place_levels
from peftlab.show.widgets.static_widget import StaticWidget, module
from peftlab.show.widgets.wall import memory_wall
from peftlab.tasks.datasets import Split
from tests import tiny

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class Demo(StaticWidget):
    _esm = "export default { render({ el }) { el.textContent = '</script><!-- <script>'; } };\n"
    shown = traitlets.Unicode().tag(sync=True, static=True)
    kept_here = traitlets.Unicode("not for the page").tag(sync=True)

    def fallback_text(self) -> str:
        return f"Demo: {self.shown}"

    def fallback_html(self) -> str:
        return "<p>A demo.</p>"


class Elements(html.parser.HTMLParser):
    """The elements of a page as a browser splits them: what is inside a script is one text."""

    def __init__(self, page: str):
        super().__init__()
        self.opened, self.texts = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.opened.append(tag)

    def handle_data(self, data):
        self.texts.append((self.opened[-1], data))


@pytest.fixture(scope="module")
def stored_directions():
    """Random weights in place of the measured ones: a stand-in of the same form."""
    torch.manual_seed(0)
    dW = torch.randn(60, 50) * 0.01 + torch.outer(torch.randn(60), torch.randn(50)) * 0.05
    return scissors_directions.directions(change_of(dW), "block.query.weight"), dW


def change_of(dW):
    return scissors.Change(torch.zeros_like(dW), *torch.linalg.svd(dW, full_matrices=False))


@pytest.fixture(scope="module")
def scissors_demo(stored_directions):
    return scissors_widget.ScissorsWidget(
        measured=scissors_widget.measured_accuracies(Results.load("scissors")),
        matrix=scissors_widget.packed_matrix(stored_directions[0]),
    )


@pytest.fixture(scope="module")
def some_weights():
    return torch.randn(96, 130, generator=torch.Generator().manual_seed(0)) * 0.04


@pytest.fixture(scope="module")
def levels_demo(some_weights):
    return place_levels(some_weights, "a random matrix")


def state_of(widget) -> dict:
    found = re.search(r'atob\("([^"]+)"\)', widget.twin())
    return json.loads(base64.b64decode(found[1]))


# ---- twins ----------------------------------------------------------------------------------------------------------


def test_equal_widgets_have_equal_twins_and_others_do_not():
    assert Demo(shown="a").twin() == Demo(shown="a").twin()
    marks = {re.search(r'data-peftlab-widget="([^"]+)"', Demo(shown=s).twin())[1] for s in ("a", "a", "b")}
    assert len(marks) == 2


def test_only_the_traits_that_are_tagged_travel():
    assert state_of(Demo(shown="ΔW")) == {"shown": "ΔW"}
    assert "not for the page" not in Demo().twin()


@pytest.mark.parametrize("text", ["</script><p>out", "<!-- <script>", "</style>", '"quoted" \\ and \u2028', "`${x}`"])
def test_nothing_in_the_state_or_the_module_can_leave_the_script(text):
    page = Demo(shown=text).twin()
    assert Elements(page).opened == ["div", "p", "style", "script"]
    assert state_of(Demo(shown=text))["shown"] == text


def test_an_output_has_a_live_view_a_twin_and_words():
    data, _ = Demo(shown="words")._repr_mimebundle_()
    assert data["text/plain"] == repr(Demo(shown="words")) == "Demo: words"
    assert data["text/html"].startswith('<div class="peftlab-widget"')
    assert "model_id" in data[WIDGET_VIEW]


@pytest.mark.parametrize("name", ["quiz", "predict", "scissors", "map", "levels", "wall"])
def test_no_module_and_no_style_reaches_out(name, scissors_demo, levels_demo):
    widget = {"quiz": lambda: quiz("06"), "predict": lambda: predict("06.energy"), "scissors": lambda: scissors_demo}
    widget |= {"map": method_map, "levels": lambda: levels_demo, "wall": memory_wall}
    page = widget[name]().twin().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|\bimport\s|@import|url\((?!#)", page.replace("await import(address)", ""))
    assert "window." not in page and "globalThis" not in page


def test_modules_are_one_text_with_the_shared_part_in_front():
    text = module("common.js", "quiz.js")
    assert text.index("function make(") < text.index("function render(")
    assert text.count("export default") == 1


# ---- quiz and prediction --------------------------------------------------------------------------------------------


def test_the_answers_are_not_to_be_read_in_the_output():
    data, _ = quiz("06")._repr_mimebundle_()
    for kind in ("text/plain", "text/html"):
        assert "12,000" in data[kind]  # the option is
        assert "1500" not in data[kind]  # its explanation is not
    right = [o["text"] for q in state_of(quiz("06"))["questions"] for o in q["options"] if o["right"]]
    assert "12,000" in right


def test_the_fallbacks_read_well():
    text = repr(quiz("06"))
    assert "1. You attach LoRA" in text and "( ) 12,000" in text and "JupyterLab" in text
    asked = repr(predict("06.cut_to_8"))
    assert "a number from 0 to 100 %" in asked and "85" not in asked
    assert "<em>train</em>" in predict("06.trained_at_1").fallback_html()


def test_markup_in_a_fallback_is_escaped():
    asks = "is `a<b` *really* 2 * 3 * 4 < 5?"
    option = {"text": "<i>x</i>", "says": "", "right": True, "unsure": False}
    page = QuizWidget(questions=[{"name": "q", "asks": asks, "options": [option], "bridge": None}]).fallback_html()
    assert "<code>a&lt;b</code> <em>really</em> 2 * 3 * 4 &lt; 5?" in page
    assert "&lt;i&gt;x&lt;/i&gt;" in page


def test_a_prediction_has_no_guess_until_one_is_made():
    assert predict("06.energy").guess is None


# ---- scissors -------------------------------------------------------------------------------------------------------


def test_the_stored_corner_is_the_change_nearly(stored_directions):
    found, dW = stored_directions
    left, right = (
        torch.frombuffer(bytearray(base64.b64decode(found[side])), dtype=torch.int8).view(-1, found["side"]).double()
        * torch.tensor(found[f"{side}_scale"], dtype=torch.float64)[:, None]
        for side in ("left", "right")
    )
    values = torch.tensor(found["values"], dtype=torch.float64)
    corner = dW[: found["side"], : found["side"]].double()
    for r in (1, 8, 50):
        U, S, Vh = torch.linalg.svd(dW.double(), full_matrices=False)
        exact = (U[:, :r] * S[:r] @ Vh[:r])[: found["side"], : found["side"]]
        nearly = (left[:r].T * values[:r]) @ right[:r]
        assert (nearly - exact).abs().max() <= found["largest_error"] * 1.01
    assert 0 < found["largest_error"] < 0.02 * found["largest_entry"]
    assert found["largest_entry"] == pytest.approx(float(corner.abs().max()), rel=1e-2)


def test_a_matrix_smaller_than_the_corner_is_refused():
    with pytest.raises(PeftLabError, match="smaller than the corner"):
        scissors_directions.directions(change_of(torch.randn(60, 30)), "narrow.weight")


def test_the_learning_rate_is_the_one_that_won():
    assert scissors_directions.chosen_rate({"cells": {"choose/full/0.1": 0.5, "choose/full/0.01": 0.7}}) == 0.01
    with pytest.raises(PeftLabError, match="peftlab.bench scissors"):
        scissors_directions.chosen_rate({"cells": {}})


def test_a_full_size_twin_stays_small():
    torch.manual_seed(0)
    directions = scissors_directions.directions(change_of(torch.randn(384, 384)), "x.weight")
    widget = scissors_widget.ScissorsWidget(
        measured=scissors_widget.measured_accuracies(Results.load("scissors")),
        matrix=scissors_widget.packed_matrix(directions),
    )
    assert len(widget.twin().encode()) < 120_000
    assert len(json.dumps(directions)) < 80_000


def test_the_scissors_show_the_stored_accuracies(scissors_demo):
    measured = scissors_demo.measured
    assert measured["stops"][4] == 8 and measured["runs"] == 5
    assert measured["top"]["low"][4] <= measured["top"]["mean"][4] <= measured["top"]["high"][4]
    assert measured["top"]["mean"][-1] == measured["random"]["mean"][-1]  # r = 384: nothing is cut
    assert re.search(r"\n\s+8\s+85 %\s+23 %", repr(scissors_demo))


def test_without_the_measurement_the_widget_says_what_to_run(monkeypatch, tmp_path):
    monkeypatch.setattr(Results, "folder", classmethod(lambda cls: tmp_path))
    with pytest.raises(PeftLabError, match="peftlab.bench scissors_directions"):
        scissors_widget.scissors_explorer()


# ---- the map of methods ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def the_map():
    return method_map()


def test_the_map_starts_at_something_that_is_on_it(the_map):
    assert the_map.choice == START
    method = next(each for each in the_map.methods if each["name"] == START["method"])
    assert method["family"] == START["family"] and START["model"] in method["counts"]


def test_every_family_has_a_method_and_says_what_it_costs(the_map):
    for family in the_map.families:
        assert any(method["family"] == family["name"] for method in the_map.methods)
        assert family["says"] and family["training"] and family["inference"]


def test_the_map_shows_what_the_cards_and_the_counts_say(the_map):
    shown = {each["name"]: each for each in the_map.methods}
    for entry in landscape.entries():
        assert shown[entry.name]["formula"] == entry.formula and shown[entry.name]["built"] == entry.built
        counted = landscape.count(entry, "Llama 2 7B")
        assert shown[entry.name]["counts"]["Llama 2 7B"]["parameters"] == counted.parameters


def test_a_lesson_has_a_file_exactly_when_it_is_written(the_map):
    lessons = {each["name"]: each["lesson"] for each in the_map.methods}
    assert lessons["LoRA"] == {"number": "06", "name": "06 · LoRA, with scissors", "file": "06_lora"}
    assert lessons["UniPELT"] == {"number": "16", "name": "", "file": ""} and lessons["IA3"] == {}


def test_the_map_can_be_read_without_scripts(the_map):
    for text in (the_map.fallback_html(), the_map.fallback_text()):
        assert "UniPELT (not built yet)" in text and "73,728" in text and "JupyterLab" in text
    assert len(the_map.twin().encode()) < 120_000


def test_a_formula_in_the_fallback_is_text_and_not_markup(the_map):
    odd = {**the_map.methods[0], "formula": "<b>x</b> & y"}
    page = MethodMapWidget(families=[], methods=[odd], models=the_map.models).fallback_html()
    assert "&lt;b&gt;x&lt;/b&gt; &amp; y" in page


# ---- sixteen levels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["int4", "fp4", "nf4"])
def test_the_error_from_sums_is_the_error_of_the_weights(some_weights, kind):
    exact = (quantize(some_weights, kind, double=False).dequantize() - some_weights).norm() / some_weights.norm()
    found = sixteen_levels.error(sixteen_levels.moments([some_weights]), levels_of(kind))
    assert found == pytest.approx(exact.item(), rel=2e-3)


def test_the_sums_forget_no_weight(some_weights):
    found = sixteen_levels.moments([some_weights, some_weights[:3]])
    assert found.count.sum() == 99 * 130
    assert found.second.sum().item() == pytest.approx(
        (some_weights.square().sum() + some_weights[:3].square().sum()).item(), rel=1e-5
    )
    assert found.count[0] + found.count[-1] >= 99 * 130 // 64  # the largest of each block


def test_a_step_never_raises_the_error(some_weights):
    found, levels = sixteen_levels.moments([some_weights]), torch.tensor(EVEN, dtype=torch.float64)
    errors = []
    for _ in range(8):
        errors.append(sixteen_levels.error(found, levels))
        levels = sixteen_levels.improved(found, levels)
    assert all(b <= a + 1e-6 for a, b in zip(errors, errors[1:], strict=False)) and errors[-1] < 0.95 * errors[0]
    fitted = sixteen_levels.fitted(found, levels_of("nf4"))
    assert sixteen_levels.error(found, fitted) < sixteen_levels.error(found, levels_of("nf4"))
    assert (fitted.diff() >= 0).all() and len(fitted) == 16


def test_a_trip_with_nf4s_levels_is_nf4(some_weights):
    back = sixteen_levels.round_trip(some_weights, levels_of("nf4"))
    assert torch.equal(back, quantize(some_weights, "nf4", 64, double=True).dequantize())


def test_levels_that_answer_for_nothing_stay(some_weights):
    found = sixteen_levels.moments([some_weights])
    levels = torch.tensor([-0.5, 0.5, 7.0])
    assert sixteen_levels.improved(found, levels)[-1] == 7.0


def test_the_levels_widget_starts_even_and_says_the_errors(levels_demo):
    assert levels_demo.levels == EVEN and not levels_demo.shown
    errors = {other["name"]: other["error"] for other in levels_demo.others}
    assert errors["fitted"] < errors["NF4"] < errors["int4, symmetric"] < errors["FP4"]
    assert f"NF4  {100 * errors['NF4']:.1f} %" in repr(levels_demo)
    assert levels_demo.matrix["weights"] == sum(levels_demo.matrix["count"]) == 96 * 130
    assert sum(levels_demo.matrix["second"]) == pytest.approx(1, abs=1e-4)
    assert len(levels_demo.twin().encode()) < 80_000
    assert "JupyterLab" in levels_demo.fallback_html() and "JupyterLab" in repr(levels_demo)


def test_a_model_without_blocks_is_refused():
    with pytest.raises(PeftLabError, match="no linear layers"):
        sixteen_levels.block_matrices(torch.nn.Linear(2, 2))


# ---- knobs ----------------------------------------------------------------------------------------------------------


def letters(texts, **_):
    """A tokenizer, as far as the training loop asks for one: a token for each letter."""
    rows = [torch.tensor([3 + ord(letter) % 20 for letter in text]) for text in texts]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


@pytest.fixture
def panel(quiet):
    split = Split(texts=["abc", "de", "fgh", "ij"], labels=[0, 1, 2, 3])
    return knobs.retrain(tiny.fresh("bert"), letters, split, split, steps=3, batch_size=2)


def test_train_adds_a_run_a_figure_and_a_row(panel, capsys):
    before = tiny.snapshot(panel.start)
    panel.train_button.click()
    panel.rank.value, panel.alpha.value, panel.rate.value = 2, 64, 1e-2
    panel.train_button.click()
    assert [(run.settings["r"], run.settings["lora_alpha"]) for run in panel.runs] == [(8, 16), (2, 64)]
    assert [len(run.losses) for run in panel.runs] == [3, 3]
    assert bytes(panel.figure.value).startswith(b"\x89PNG") and panel.figure.layout.display == ""
    assert panel.table.value.count("<tr>") == 3 and "0.01" in panel.table.value
    assert tiny.differences(before, tiny.snapshot(panel.start)) == []
    assert capsys.readouterr() == ("", "")


def test_equal_knobs_give_equal_runs(panel):
    panel.train()
    panel.train()
    assert panel.runs[0].losses == panel.runs[1].losses


def test_clear_forgets_the_runs(panel):
    panel.train()
    assert len(panel.runs) == 1
    panel.clear_button.click()
    assert panel.runs == [] and panel.figure.layout.display == "none"
    assert "No run yet" in panel.table.value


def test_an_error_is_shown_in_the_panel_and_the_next_run_works(panel):
    panel.target_modules = ["no_such_layer"]
    panel.train()
    assert "This run failed" in panel.says.value and "no_such_layer" in panel.says.value
    assert panel.runs == [] and not panel.train_button.disabled
    panel.target_modules = ["query"]
    panel.train()
    assert len(panel.runs) == 1 and panel.says.value == ""


def test_bad_settings_are_refused_before_a_panel_is_shown(panel):
    with pytest.raises(PeftLabError, match="steps=0"):
        knobs.retrain(panel.start, panel.tokenizer, panel.data, panel.data, steps=0)
    with pytest.raises(PeftLabError, match="classes"):
        knobs.retrain(panel.start, panel.tokenizer, Split(texts=["a"], labels=[99]), panel.data)


def test_on_a_page_the_panel_says_that_it_needs_a_kernel(panel):
    data = panel._repr_mimebundle_()
    assert "needs a running kernel" in data["text/plain"] and "needs a running kernel" in data["text/html"]
    assert WIDGET_VIEW in data
