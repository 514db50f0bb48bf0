"""The switch: which model answers, what is shown, and what stays on a page without a kernel."""

from __future__ import annotations

import pytest

import peftlab
from peftlab.errors import PeftLabError
from peftlab.methods import LoRA
from peftlab.show.word_switch import OFF, ON, switch
from tests import tiny

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture
def model():
    return peftlab.attach(tiny.llama(), LoRA(r=2, target_modules=["q_proj"]))


@pytest.fixture
def panel(model):
    """Its `define` says for which word it was called and whether the adapter was off; `panel.calls` counts."""
    calls = []

    def define(word: str) -> str:
        calls.append(word)
        if word == "bad":
            raise ValueError("no <such> thing")
        return f"{word} without" if model.peftlab.state.disabled else f"{word} with"

    made = switch(model, define, "zorgle")
    made.calls = calls
    return made


def test_it_opens_with_both_answers_for_the_first_word(panel):
    assert panel.written == {"zorgle": {OFF: "zorgle without", ON: "zorgle with"}}
    assert "zorgle without" in panel.answer.value and "zorgle with<" in panel.answer.value


def test_generate_uses_the_state_of_the_switch(panel):
    panel.adapter.value = OFF
    panel.word.value = " ice  cream "
    panel.generate.click()
    assert panel.written["ice cream"] == {OFF: "ice cream without"}
    assert "ice cream, adapter off: ice cream without" in panel.answer.value
    panel.adapter.value = ON
    assert panel.written["ice cream"] == {OFF: "ice cream without", ON: "ice cream with"}


def test_what_was_written_is_not_written_again(panel):
    before = len(panel.calls)
    for state in (OFF, ON, OFF, ON):
        panel.adapter.value = state
    panel.generate.click()
    assert len(panel.calls) == before


def test_the_adapter_is_on_again_afterwards(panel, model):
    panel.adapter.value = OFF
    panel.word.value = "bad"
    assert not model.peftlab.state.disabled


def test_an_error_is_shown_and_escaped(panel):
    panel.word.value = "bad"
    assert "It did not work: ValueError: no &lt;such&gt; thing" in panel.answer.value
    panel.word.value = "tired"  # and the panel still works
    assert "tired, adapter on: tired with" in panel.answer.value


@pytest.mark.parametrize(("typed", "said"), [("   ", "Type a word first"), ("x" * 500, "at most 40 characters")])
def test_no_word_and_too_much_of_one(panel, typed, said):
    before = len(panel.calls)
    panel.word.value = typed
    panel.generate.click()
    assert said in panel.answer.value and len(panel.calls) == before


def test_words_are_escaped(panel):
    panel.word.value = "<script>alert(1)</script>"
    assert "<script>" not in panel.answer.value and "&lt;script&gt;" in panel.answer.value


def test_a_page_without_a_kernel_shows_what_was_written(panel):
    bundle = panel._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "needs a running kernel" in bundle["text/plain"] and "zorgle, adapter off" in bundle["text/plain"]
    assert "<table>" in bundle["text/html"] and "zorgle with" in bundle["text/html"]


def test_a_model_without_an_adapter_is_refused():
    with pytest.raises(PeftLabError):
        switch(tiny.llama(), lambda word: word, "zorgle")
