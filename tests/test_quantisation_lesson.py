"""Lesson 13's helpers: the text it measures on, its draws of the rounding, and its count of memory."""

from __future__ import annotations

import copy

import pytest
import torch

import peftlab
from peftlab.bench import qlora_tiny, quant_race
from peftlab.bench.results import Results
from peftlab.course.step_memory import compared
from peftlab.methods import LoRA
from peftlab.quant import quantize, quantize_model
from peftlab.show import quant_figures
from peftlab.tasks import datasets, models


@pytest.fixture(scope="module")
def tiny():
    return models.load("tiny")


def test_the_texts_are_held_out_and_disjoint():
    texts = quant_race.held_out()
    assert {kind: len(documents) for kind, documents in texts.items()} == dict.fromkeys(texts, quant_race.DOCUMENTS)
    every = [document for documents in texts.values() for document in documents]
    assert len(set(every)) > len(every) - 5  # the two translations agree on a few short verses
    definitions = {text.partition(": ")[2] for kind in ("nouns", "words") for text in texts[kind]}
    seen = {f"{entry.definition}." for entry in datasets.load("define_word").train}
    seen |= {f"{text}." for text in datasets.load("wordnet_topics").train.texts}
    assert not definitions & seen and len(definitions) == 2 * quant_race.DOCUMENTS
    train = datasets.load("verse_pairs").train
    assert not {pair.modern for pair in train} & set(texts["modern verses"])
    assert not {pair.archaic for pair in train} & set(texts["King James verses"])


def test_a_shuffle_changes_the_rounding_and_nothing_else():
    W = torch.randn(6, 128, generator=torch.Generator().manual_seed(0))
    assert torch.equal(quant_race.shuffled(lambda w: w, W, 1), W)
    rounded = quant_race.rounding("nf4/64", {})
    once, again, other = (quant_race.shuffled(rounded, W, seed) for seed in (1, 1, 2))
    assert torch.equal(once, again) and not torch.equal(once, other) and not torch.equal(once, rounded(W))
    assert (once - W).norm() == pytest.approx((rounded(W) - W).norm().item(), rel=0.1)


def test_a_rise_is_a_mean_per_token_with_its_interval():
    g = torch.Generator().manual_seed(0)
    nats, tokens = {"a": torch.rand(40, generator=g) * 50}, {"a": torch.randint(5, 30, (40,), generator=g)}
    assert quant_race.rise(nats, nats, tokens) == [0, 0, 0]
    higher = {"a": nats["a"] + 0.3 * tokens["a"]}
    assert quant_race.rise(higher, nats, tokens) == pytest.approx([0.3] * 3, abs=1e-4)
    mean, low, high = quant_race.rise({"a": nats["a"] + 5 * torch.rand(40, generator=g)}, nats, tokens)
    assert low < mean < high


def test_the_loss_of_documents_is_the_models_own(tiny):
    model, tokenizer = tiny
    texts = {"few": ["river: a stream of water.", "In the beginning"]}
    nats, tokens = quant_race.document_nats(model, tokenizer, texts, None)
    for place, text in enumerate(texts["few"]):
        ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]])
        alone = model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        assert nats["few"][place].item() == pytest.approx(alone, rel=1e-4) and tokens["few"][place] == ids.shape[1] - 1
    rounded, _ = quant_race.document_nats(model, tokenizer, texts, quant_race.rounding("fp4/256", {}))
    assert not torch.equal(rounded["few"], nats["few"])


@pytest.mark.parametrize("way", ["full", "lora", "qlora"])
def test_memory_is_predicted_to_a_few_per_cent(tiny, way):
    model, method = copy.deepcopy(tiny[0]), LoRA(r=4, target_modules="all-linear")
    if way == "full":
        found = compared(model.requires_grad_(True), "full", rows=2, tokens=48)
    else:
        model = peftlab.attach(quantize_model(model) if way == "qlora" else model, method)
        found = compared(model, method, quantize="nf4" if way == "qlora" else None, rows=2, tokens=48)
    assert found["predicted peak, MiB"] == pytest.approx(found["measured peak, MiB"], rel=0.05)
    assert found["held between steps, MiB"] < found["measured peak, MiB"]
    assert not model.training


def test_ways_start_alike(tiny):
    """The same A by seed for LoRA and QLoRA, B = 0; LoftQ starts from something else."""
    lora, qlora, loftq = (qlora_tiny.prepared(tiny[0], way, seed=1) for way in qlora_tiny.WAYS)
    name = "model.layers.0.self_attn.q_proj.adapters.default.lora_{}.weight"
    assert torch.equal(lora.get_parameter(name.format("A")), qlora.get_parameter(name.format("A")))
    assert not qlora.get_parameter(name.format("B")).any() and loftq.get_parameter(name.format("B")).any()


def test_merged_and_quantised_again_small_changes_are_gone():
    W = torch.randn(64, 128, generator=torch.Generator().manual_seed(0)) * 0.05
    base = quantize(W)
    small = base.dequantize() * (1 + 1e-3 * torch.randn(W.shape, generator=torch.Generator().manual_seed(1)))
    assert (quantize(small).codes != base.codes).float().mean() < 0.001
    assert (quantize(W + (small - base.dequantize())).codes != base.codes).float().mean() > 1e-4


def test_figures_draw_what_is_stored():
    race, trained = Results.load("quant_race"), Results.load("qlora_tiny")
    assert len(quant_figures.orders(race, "nf4/64")) == 6
    assert len(quant_figures.race(race).containers) == 4
    lines = quant_figures.merging(trained).get_lines()
    assert [len(line.get_xdata()) for line in lines[:3]] == [4, 4, 4]
