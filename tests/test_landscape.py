"""Lesson 02's microscope, its map of methods and its figures."""

from __future__ import annotations

import dataclasses

import matplotlib.pyplot as plt
import peft
import pytest
import torch
from torch import nn

import peftlab
from peftlab.course import landscape
from peftlab.course.site.atlas import FAMILIES
from peftlab.methods import METHODS, LNTuning, LoRA, Pfeiffer
from peftlab.show import landscape_figures, plots
from tests import tiny
from tests.test_book_content import ENTRIES

ENTRIES_ON_THE_MAP = landscape.entries()
BY_NAME = {entry.name: entry for entry in ENTRIES_ON_THE_MAP}


# ---- a model before and after -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", [LoRA(r=2), Pfeiffer(reduction_factor=3), LNTuning()], ids=lambda m: type(m).__name__
)
def test_own_tensors_have_their_old_names_and_values_under_an_adapter(method):
    model = tiny.fresh("bert")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    peftlab.attach(model, method)
    own = landscape.own_tensors(model)
    assert own.keys() == before.keys()
    assert all(torch.equal(own[name], before[name]) for name in before)


def test_own_tensors_are_copies():
    model = nn.Linear(3, 2)
    own = landscape.own_tensors(model)
    with torch.no_grad():
        model.weight.add_(1)
    assert not torch.equal(own["weight"], model.weight)


def test_a_merged_adapter_shows_in_the_layers_it_was_on_and_nowhere_else():
    model = tiny.fresh("bert")
    before = landscape.own_tensors(model)
    peftlab.attach(model, LoRA(r=2, target_modules=["query"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    places = landscape.places_of_new(model)
    assert places and all(place.endswith("query") for place in places)
    peftlab.merge(model)
    after = landscape.own_tensors(model)
    moved = {name for name in before if name in after and not torch.equal(before[name], after[name])}
    assert {name for name in moved if "classifier" not in name} == {f"{place}.weight" for place in places}


def test_a_file_holds_what_was_trained():
    model = nn.Linear(300, 200)
    everything = landscape.file_bytes(model)
    model.weight.requires_grad_(False)
    assert 4 * 300 * 200 < everything - landscape.file_bytes(model) < 4 * 300 * 200 + 200
    assert 4 * 200 <= landscape.file_bytes(model) < 4 * 200 + 200


# ---- the map ------------------------------------------------------------------------------------------------------


def test_every_method_of_the_library_is_on_the_map_once():
    names = [entry.name for entry in ENTRIES_ON_THE_MAP]
    assert len(set(names)) == len(names)
    built = {entry.name for entry in ENTRIES_ON_THE_MAP if entry.built}
    assert {cls.__name__ for cls in METHODS} | {"DoRA", "QLoRA"} == built


@pytest.mark.parametrize("entry", ENTRIES_ON_THE_MAP, ids=lambda entry: entry.name)
def test_an_entry_is_complete_and_its_paper_is_in_the_bibliography(entry):
    assert entry.family in FAMILIES
    assert entry.arxiv in {each.get("eprint") for each in ENTRIES.values()}
    assert entry.year == 2000 + int(entry.arxiv[:2])
    assert all((entry.title, entry.formula, entry.parameters, entry.merging, entry.inference))
    assert entry.merging.startswith("yes" if entry.mergeable else "no: ")
    if entry.peft != landscape.NO_PEFT:
        assert hasattr(peft, entry.peft.removeprefix("peft.").partition("(")[0])


@pytest.mark.parametrize("entry", landscape.NAMED, ids=lambda entry: entry.name)
def test_a_named_paper_has_the_title_it_has_in_the_bibliography(entry):
    known = next(each for each in ENTRIES.values() if each.get("eprint") == entry.arxiv)
    assert known["title"].strip("{}") == entry.title


def test_a_method_that_gets_built_takes_the_place_of_its_name(monkeypatch):
    class UniPELT(LNTuning):
        card = dataclasses.replace(LNTuning.card, formula="from the card")

    monkeypatch.setattr(landscape, "METHODS", [*METHODS, UniPELT])
    found = [entry for entry in landscape.entries() if entry.name == "UniPELT"]
    assert [(entry.built, entry.formula) for entry in found] == [(True, "from the card")]


def test_counts_are_those_of_real_shapes():
    lora = landscape.count(BY_NAME["LoRA"], "Llama 2 7B")
    assert lora.parameters == 32 * 2 * 8 * (4096 + 4096) == 4_194_304
    assert lora.places == "q_proj, v_proj" and lora.settings == {"r": 8}
    assert landscape.count(BY_NAME["DoRA"], "MiniLM").parameters == 12 * (8 * 2 * 384 + 384)
    assert landscape.count(BY_NAME["PromptTuning"], "SmolLM2").parameters == 20 * 576
    assert landscape.count(BY_NAME["BitFit"], "SmolLM2").parameters == 0
    biases = 6 * (4 * 384 + 1536 + 384 + 2 * 384) + 384 + 384  # blocks, the embedding's norm, the pooler
    assert landscape.count(BY_NAME["BitFit"], "MiniLM").parameters == biases
    assert landscape.count(BY_NAME["Pfeiffer"], "Llama 2 7B").places == "whole blocks"


def test_what_does_not_go_on_a_model_is_not_counted():
    assert landscape.count(BY_NAME["LlamaAdapter"], "MiniLM").parameters is None
    assert landscape.count(BY_NAME["LlamaAdapter"], "SmolLM2").parameters > 0
    assert landscape.count(BY_NAME["UniPELT"], "MiniLM").parameters is None


# ---- figures ------------------------------------------------------------------------------------------------------


def test_the_figure_of_changes_tells_whole_partial_and_none():
    before = {
        "bert.emb": torch.zeros(4, 3),
        "bert.layer.0.query.weight": torch.zeros(2, 3),
        "classifier.bias": torch.zeros(2),
    }
    changed = {"one": {"bert.emb": 3, "classifier.bias": 2}}
    figure = landscape_figures.changes(before, changed, {"one": ["bert.layer.0.query"]})
    looks = [(bar.get_hatch() is not None, bar.get_facecolor()[:3] == plt.matplotlib.colors.to_rgb("#EEEEEE"))
             for bar in figure.axes[0].patches]  # fmt: skip
    assert looks == [(True, False), (False, True), (False, False)]
    assert [line.get_xdata()[0] for line in figure.axes[0].lines] == [1]


def test_a_date_is_read_from_the_arxiv_id():
    assert landscape_figures.published("1902.00751") == pytest.approx(2019 + 1 / 12)
    assert landscape_figures.published("2012.13255") == pytest.approx(2020 + 11 / 12)


def test_no_two_labels_of_the_timeline_meet():
    assert set(landscape_figures.SHOWN) <= set(BY_NAME)
    with plt.rc_context():
        plots.style()
        figure = landscape_figures.timeline()
        figure.canvas.draw()
        boxes = {text.get_text(): text.get_window_extent() for text in figure.axes[0].texts}
    assert len(boxes) == len(landscape_figures.SHOWN) + 4
    assert [(a, b) for a in boxes for b in boxes if a < b and boxes[a].overlaps(boxes[b])] == []
