"""Lesson 03's experiment on cases with a known outcome, and its figures."""

from __future__ import annotations

import copy

import pytest
import torch

import peftlab
from peftlab.bench.results import Results
from peftlab.course import linear_fit
from peftlab.course.questions import lesson_03
from peftlab.errors import PeftLabError
from peftlab.methods import Houlsby, LoRA
from peftlab.show import adapter_figures
from peftlab.tasks.datasets import Split
from tests import tiny

pytestmark = pytest.mark.usefixtures("no_window")


def tokenizer(texts, padding=True, **_):
    """Words are numbers already."""
    rows = [[int(word) for word in text.split()] for text in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def texts(rows: int, seed: int = 0) -> Split:
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 9, (rows,), generator=g).tolist()
    words = [torch.randint(3, tiny.VOCABULARY, (n,), generator=g).tolist() for n in lengths]
    return Split([" ".join(map(str, each)) for each in words], [0] * rows)


def trained(f: str) -> torch.nn.Module:
    """A tiny BERT with adapters that are no longer small, and biases that are not zero."""
    torch.manual_seed(0)
    model = peftlab.attach(tiny.bert(), Houlsby(reduction_factor=8, non_linearity=f, init_std=0.3))
    for adapter in linear_fit.adapters_behind(model).values():
        torch.nn.init.normal_(adapter.adapter_down.bias)
        torch.nn.init.normal_(adapter.adapter_up.bias)
    return model.eval()


def test_a_linear_adapter_is_fitted_exactly_and_its_merged_map_gives_the_same_outputs():
    model, rows = trained("linear"), texts(60)
    found = linear_fit.recorded(model, tokenizer, rows)
    assert all(len(h) == sum(len(text.split()) for text in rows.texts) for h, _ in found.values())  # no padding
    maps = {site: linear_fit.fit(*tokens) for site, tokens in found.items()}
    assert all(linear_fit.explained(maps[site], *found[site]) > 0.9999 for site in maps)
    batch = tokenizer(texts(5, seed=1).texts)
    with torch.no_grad():
        plain = linear_fit.merged(model, maps)
        assert torch.allclose(plain(**batch).logits, model(**batch).logits, atol=1e-3)
        assert not torch.allclose(linear_fit.without(model)(**batch).logits, model(**batch).logits, atol=1e-2)


def test_relu_is_not_explained_and_the_mean_explains_nothing():
    model, rows = trained("relu"), texts(60)
    for site, (h, _) in linear_fit.recorded(model, tokenizer, rows).items():
        down = linear_fit.adapters_behind(model)[site].adapter_down
        down.bias.data = -down.weight.data @ h.mean(0)  # every unit is on for some tokens and off for others
    found = linear_fit.recorded(model, tokenizer, rows)
    other = linear_fit.recorded(model, tokenizer, texts(40, seed=1))
    means = linear_fit.means(found)
    for site, tokens in found.items():
        fitted = linear_fit.fit(*tokens)
        assert linear_fit.explained(fitted, *other[site]) < 0.99
        assert linear_fit.explained(means[site], *tokens) == pytest.approx(0, abs=1e-5)
        assert linear_fit.explained(fitted, *tokens) >= linear_fit.explained(means[site], *tokens)


def test_nothing_is_left_behind_in_the_model():
    model = trained("relu").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = linear_fit.recorded(model, tokenizer, texts(20))
    linear_fit.merged(model, linear_fit.means(found))
    assert model.training and all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for a in
                   linear_fit.adapters_behind(model).values() for module in a.modules())  # fmt: skip


def test_without_is_the_base_with_the_trained_head():
    model = trained("relu")
    head = peftlab.surgery.adapted_modules(model)["classifier"].adapters["default"]
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(1.0)
    batch = tokenizer(texts(5).texts)
    plain = tiny.bert().eval()
    with torch.no_grad():
        for parameter in plain.classifier.parameters():
            parameter.add_(1.0)
        assert torch.allclose(linear_fit.without(model)(**batch).logits, plain(**batch).logits, atol=1e-5)


def test_units_say_how_often_they_are_on():
    model = trained("relu")
    adapters = linear_fit.adapters_behind(model)
    for adapter in adapters.values():
        with torch.no_grad():
            adapter.adapter_down.bias[:2] = torch.tensor([1e3, -1e3])
    for shares in linear_fit.units(model, linear_fit.recorded(model, tokenizer, texts(20))).values():
        assert shares[0] == 0 and shares[-1] == 1 and shares == sorted(shares)


def test_answers_come_in_the_order_of_the_rows():
    model, rows = trained("relu"), texts(37)
    found = linear_fit.answers(model, tokenizer, rows)
    alone = [model(**tokenizer([text])).logits.argmax().item() for text in rows.texts]
    assert found.tolist() == alone


def test_a_model_without_such_adapters_is_refused():
    model = peftlab.attach(tiny.bert(), LoRA(target_modules=["query"]))
    with pytest.raises(PeftLabError, match="no adapter behind a linear layer"):
        linear_fit.recorded(model, tokenizer, texts(3))


# ---- figures ------------------------------------------------------------------------------------------------------


def test_drawings_say_what_they_show():
    shown = adapter_figures.placements()
    assert shown._repr_html_().count('alt="') == 3 and len(repr(shown).splitlines()) == 3
    assert "Houlsby" in repr(shown) and "Pfeiffer" in repr(shown) and "parallel" in repr(shown)


def test_the_figure_of_widths_leaves_out_what_lacks_a_seed():
    stored, scissors = copy.deepcopy(Results.load("adapter_widths")), Results.load("scissors")
    labels = {line.get_label() for line in adapter_figures.widths(stored, scissors).axes[0].get_lines()}
    assert {"Houlsby", "head only", "full fine-tuning"} <= labels
    stored["cells"].pop("merge/relu/2")
    kept = [(arm, m) for arm, m, _ in adapter_figures.measured(stored)]
    assert ("houlsby", 16) not in kept and ("houlsby", 1) in kept


def test_latency_draws_every_stored_ratio():
    stored = Results.load("adapter_latency")
    left, right = adapter_figures.latency(stored).axes
    drawn = sorted(float(line.get_xdata()[0]) for line in left.get_lines()[:-1])
    cells = adapter_figures.places_measured(stored, "minilm")
    wanted = sorted(r for cell in cells for v in adapter_figures.VARIANTS
                    for r in adapter_figures.ratios(stored, cell, v))  # fmt: skip
    assert len(wanted) == 8 * 8 * 2 and drawn == pytest.approx(wanted) and len(right.get_lines()) == 1 + 8 * 3 * 2


def test_short_names_tell_the_places_apart():
    sites = ["bert.encoder.layer.3.attention.output.dense", "bert.encoder.layer.3.output.dense"]
    assert adapter_figures.places(sites) == ["3a", "3f"]


def test_predictions_hold_for_what_is_stored():
    truths = {each.name: each.found() for each in lesson_03.PREDICTIONS}
    assert abs(lesson_03.points_without_f()) < 1.5 or truths["without_f"] != 2


def test_the_stored_runs_stand_behind_the_live_ones():
    stored = Results.load("adapter_widths")
    runs = adapter_figures.runs(stored, "houlsby", 16)
    live = dict.fromkeys(runs[0]["explained"], 0.9)
    left, right = adapter_figures.explained(live, live, stored).axes
    for ax, key in ((left, "explained"), (right, "explained_verses")):
        drawn = [list(line.get_ydata()) for line in ax.get_lines()[: len(runs)]]
        assert drawn == [list(run[key].values()) for run in runs]
        low, high = ax.get_ylim()
        assert all(low < value < high for each in drawn for value in each)  # nothing falls out of the picture
    (ax,) = adapter_figures.units({site: [0.1] * 16 for site in live}, stored).axes
    assert sum(len(line.get_ydata()) for line in ax.get_lines()[:-2]) == 576 + 12 * 16
    kept = adapter_figures.same_answers(stored)
    assert 1 > kept["map"] > kept["mean"] > kept["nothing"]
