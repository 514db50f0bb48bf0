"""What lesson 04 and its deep dive lean on: typed prompts as adapters, gates, stored arms, the prompt bench."""

from __future__ import annotations

import dataclasses

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

import peftlab
from peftlab.bench.results import Results
from peftlab.course.exercise import RIGHT, WRONG, exercise, judge
from peftlab.course.exercises import lesson_04
from peftlab.course.exercises.lesson_04x import share
from peftlab.course.gates import heads, sizes
from peftlab.course.typed_prompt import attach_text
from peftlab.errors import PeftLabError
from peftlab.methods import LoRA, PromptTuning
from peftlab.show import prompt_figures
from peftlab.show.prompt_bench import PromptBench
from peftlab.tasks import datasets, metrics, models
from peftlab.tasks.prompts import front_ids

HEAD = "Word: moon\nDefinition: a body that goes round a planet\n\n"
QUESTION = "Word: river\nDefinition:"


@pytest.fixture(scope="module")
def loaded():
    return models.load("tiny")


@pytest.fixture
def model(loaded):
    yield loaded[0]
    if hasattr(loaded[0], "peftlab"):
        peftlab.detach(loaded[0])


def logits(model, tokenizer, text):
    with torch.no_grad():
        return model(**tokenizer(text, return_tensors="pt")).logits[0]


def test_a_typed_prompt_answers_as_if_it_stood_there(loaded, model):
    tokenizer = loaded[1]
    whole = logits(model, tokenizer, HEAD + QUESTION)
    attach_text(model, tokenizer, HEAD, "typed")
    alone = logits(model, tokenizer, QUESTION)
    assert torch.allclose(alone, whole[-len(alone) :], atol=1e-3)


def test_a_second_text_takes_the_place_of_the_first_and_leaves_others_alone(loaded, model):
    tokenizer = loaded[1]
    peftlab.attach(model, LoRA(r=2, target_modules=["q_proj"]), name="lora")
    attach_text(model, tokenizer, "Some other text.\n\n", "typed")
    attach_text(model, tokenizer, HEAD, "typed")
    again = logits(model, tokenizer, QUESTION)
    assert set(model.peftlab.methods) == {"lora", "typed"}
    with peftlab.disabled(model):
        whole = logits(model, tokenizer, HEAD + QUESTION)
    assert torch.allclose(again, whole[-len(again) :], atol=1e-3)


def test_a_text_that_cannot_stand_in_front_is_refused(loaded, model):
    tokenizer = loaded[1]
    with pytest.raises(PeftLabError, match="write one"):
        front_ids(tokenizer, "")
    with pytest.raises(PeftLabError, match="share a token"):
        front_ids(tokenizer, "A sentence that ends in a half w", follows="ord")
    with pytest.raises(PeftLabError, match="reads at most 256"):
        attach_text(model, tokenizer, "word " * 400 + "\n\n")
    assert not hasattr(model, "peftlab")


@pytest.mark.parametrize("layer", [0, 5])
def test_the_split_attention_is_the_models(loaded, model, layer):
    tokenizer = loaded[1]
    attach_text(model, tokenizer, HEAD, "typed")
    found = heads(model, tokenizer(QUESTION, return_tensors="pt")["input_ids"][0], layer, "typed")
    S_P, S = found.scores()
    gate = share(S_P, S)[..., None]
    split = (1 - gate) * (S.softmax(-1) @ found.V) + gate * (S_P.softmax(-1) @ found.P_V)
    assert torch.allclose(split, found.out, atol=1e-5)
    assert not torch.allclose(S.softmax(-1) @ found.V, found.out, atol=1e-3)


def test_gates_need_a_prefix(loaded, model):
    ids = torch.tensor([1, 2, 3])
    with pytest.raises(PeftLabError, match="no prefix"):
        heads(model, ids, 0)
    peftlab.attach(model, PromptTuning(num_virtual_tokens=2))
    with pytest.raises(PeftLabError, match="no prefix"):
        heads(model, ids, 0)


def test_an_arm_is_chosen_by_validation_loss_and_says_whether_it_is_bracketed():
    runs = {1e-3: (3.0, 1.0), 1e-2: (2.0, 2.5), 1e-1: (2.5, 2.0)}
    cells = {f"choose/prompt/text/1/{lr}": {"lr": lr, "validation": v, "test": t} for lr, (v, t) in runs.items()}
    assert prompt_figures.chosen({"cells": cells}, "prompt/text/1") == prompt_figures.Chosen(1e-2, 2.0, 2.5, True)
    del cells["choose/prompt/text/1/0.1"]
    assert not prompt_figures.chosen({"cells": cells}, "prompt/text/1").bracketed
    with pytest.raises(PeftLabError, match="no stored runs"):
        prompt_figures.chosen({"cells": cells}, "prompt/text/7")


def test_the_leaderboard_shows_every_entry_with_its_loss():
    stored, tasks = Results.load("soft_prompts"), Results.load("three_tasks")
    ax = prompt_figures.leaderboard(stored, tasks)
    written = {text.get_text() for text in ax.texts}
    assert {f"{prompt_figures.chosen(stored, arm).test:.2f}" for arm in prompt_figures.ARMS} <= written
    assert len(ax.texts) == len(ax.get_yticklabels()) == 11
    matplotlib.pyplot.close("all")


def test_a_loss_above_the_ceiling_is_marked():
    figure = prompt_figures.rates(Results.load("soft_prompts"))
    arrows = [
        line
        for ax in figure.axes
        for line in ax.lines
        if line.get_markerfacecolor() == "white" and len(line.get_xdata())
    ]
    assert len(arrows) == 2  # peft's start at 0.1, the network at 0.01
    matplotlib.pyplot.close("all")


def test_the_bench_sorts_and_survives_a_refused_text():
    losses = {"good": 1.0, "bad": 5.0}

    def measure(text):
        if text not in losses:
            raise PeftLabError("the text <is> empty")
        return len(text), losses[text]

    bench = PromptBench(measure, "bad", beside={"trained": 3.0})
    bench.text.value = "good"
    bench.run()
    assert [row["loss"] for row in bench.rows()] == [1.0, 3.0, 5.0]
    bench.text.value = ""
    bench.run()
    assert "&lt;is&gt;" in bench.says.value and len(bench.rows()) == 3 and not bench.button.disabled
    bench.text.value = "x" * 10_000
    bench.run()
    assert "at most" in bench.says.value


@pytest.mark.parametrize(("name", "numbers"), [("define_prompt", 20 * 576), ("define_prefix", 20 * 30 * 2 * 192)])
def test_a_kept_adapter_opens_and_helps(name, numbers):
    model, tokenizer = models.load("smollm2")
    rows = datasets.load("define_word").definitions("test")[:6]
    alone = metrics.evaluate(model, tokenizer, rows, max_length=48).loss
    peftlab.load(model, datasets.data_folder() / "adapters" / name, name=name)
    assert sum(p.numel() for p in model.peftlab.shared[name].parameters()) == numbers
    assert metrics.evaluate(model, tokenizer, rows, max_length=48).loss < alone - 1


def test_labels_that_became_floating_point_numbers_are_refused():
    def floats(P, X, mask, labels):
        inputs, mask, _ = lesson_04.prepend(P, X, mask, labels)
        return inputs, mask, torch.cat([-100 * torch.ones(len(X), len(P)), labels], dim=1)

    verdict = judge(exercise("04.prepend"), floats)
    assert verdict.state == WRONG and "floating-point" in verdict.says
    assert judge(exercise("04.prepend"), lesson_04.prepend).state == RIGHT


def test_sizes_of_the_two_parts_follow_the_values(loaded, model):
    tokenizer = loaded[1]
    attach_text(model, tokenizer, HEAD, "typed")
    ids = tokenizer(QUESTION, return_tensors="pt")["input_ids"][0]
    layers = [heads(model, ids, layer, "typed") for layer in range(2)]
    found = sizes(layers)
    assert set(found) == {"to the first one alone", "prefix's part", "text's part"}
    by_hand = [torch.cat(layer.scores(), dim=-1).softmax(-1)[..., 0].mean().item() for layer in layers]
    assert found["to the first one alone"] == pytest.approx(sum(by_hand) / 2)
    with_values_doubled = [dataclasses.replace(layer, P_V=2 * layer.P_V) for layer in layers]
    doubled = sizes(with_values_doubled)
    assert doubled["prefix's part"] == pytest.approx(2 * found["prefix's part"], rel=1e-5)
    assert doubled["text's part"] == pytest.approx(found["text's part"])
