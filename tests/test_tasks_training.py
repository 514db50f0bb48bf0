"""The training loop, the batches it is fed and the numbers it reports, on models of toy size."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from peftlab.errors import PeftLabError
from peftlab.tasks import datasets, metrics, training
from peftlab.tasks.datasets import IGNORED, Completions, Split
from peftlab.tasks.mean_pool import MeanPoolClassifier

WORDS = "red green blue apple pear plum dog cat cow one two three".split()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token per word. As in SmolLM2, the padding token is the end-of-text token."""
    vocabulary = {word: number for number, word in enumerate(["[UNK]", "<end>", *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="[UNK]", eos_token="<end>", pad_token="<end>"
    )


@pytest.fixture
def classifier() -> MeanPoolClassifier:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=16,
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=20,
        num_labels=4,
    )
    return MeanPoolClassifier(config).eval()


@pytest.fixture
def language_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=14,
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=20,
        pad_token_id=1,
        eos_token_id=1,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def colours() -> Split:
    """Which group of three words a text speaks of."""
    texts = [
        f"{a} {b}"
        for group in range(4)
        for a in WORDS[3 * group :][:3]
        for b in WORDS[3 * group :][:3]
    ]
    return Split(texts, [group for group in range(4) for _ in range(9)])


@pytest.fixture
def pairs() -> Completions:
    return Completions.of([(f"{a} {b}", f" {b} {a} {a}") for a in WORDS[:3] for b in WORDS[3:7]])


def quick(model, tokenizer, data, **settings):
    return training.train(
        model, tokenizer, data, **{"steps": 3, "lr": 1e-2, "progress": False} | settings
    )


# ------------------------------------------------------------------------------------------ batches


def test_one_pass_gives_every_row_once_and_the_seed_decides_the_order(tokenizer, colours):
    def order(seed):
        labels = [
            b["labels"] for b in datasets.batches(colours, tokenizer, batch_size=5, seed=seed)
        ]
        assert [len(part) for part in labels] == [5] * 7 + [1]
        return torch.cat(labels).tolist()

    assert order(None) == colours.labels
    assert sorted(order(1)) == colours.labels
    assert order(1) == order(1) != order(2)


def test_a_batch_is_padded_to_its_longest_text_and_no_further(tokenizer):
    split = Split(["red", "red green blue", "dog " * 50], [0, 0, 2])
    short, long = datasets.batches(split, tokenizer, batch_size=2, max_length=8)
    assert short["input_ids"].shape == (2, 3)
    assert short["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert long["input_ids"].shape == (1, 8)


def test_only_the_completion_and_its_end_are_labels(tokenizer):
    batch = datasets.encode(
        Completions.of([("red", " dog cat"), ("red green", " cow")]), [0, 1], tokenizer
    )
    red, green, dog, cat, cow, end = tokenizer.convert_tokens_to_ids(
        ["red", "green", "dog", "cat", "cow", "<end>"]
    )
    assert batch["input_ids"].tolist() == [[red, dog, cat, end], [red, green, cow, end]]
    # the end is learnt although it is the padding token, too
    assert batch["labels"].tolist() == [[IGNORED, dog, cat, end], [IGNORED, IGNORED, cow, end]]


def test_padding_of_completions_is_ignored(tokenizer):
    batch = datasets.encode(Completions.of([("red", " dog cat"), ("red", "")]), [0, 1], tokenizer)
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["labels"][1].tolist() == [IGNORED, 1, IGNORED, IGNORED]


def test_splits_are_cut_with_slices_and_refuse_unequal_lists(colours, pairs):
    assert colours[:2] == Split(colours.texts[:2], colours.labels[:2])
    assert len(pairs[3:5]) == 2
    with pytest.raises(TypeError, match="slice"):
        colours[0]
    with pytest.raises(PeftLabError, match="2 texts but 1 labels"):
        Split(["a", "b"], [0])
    with pytest.raises(PeftLabError, match="1 prompts but 2 completions"):
        Completions(["a"], ["b", "c"])


def test_the_course_data_set_is_found_beside_the_package(monkeypatch):
    monkeypatch.delenv("PEFTLAB_DATA", raising=False)
    data = datasets.load("wordnet_topics")
    assert [len(data.train), len(data.validation), len(data.test)] == [2880, 720, 1200]
    assert data.classes == tuple(sorted(data.classes)) and len(data.classes) == 12
    row = data.train.texts.index("a musical composition for three performers")
    assert data.classes[data.train.labels[row]] == "communication"


def test_a_missing_or_changed_data_file_is_named_with_its_mend(monkeypatch, tmp_path):
    monkeypatch.setenv("PEFTLAB_DATA", str(tmp_path))
    with pytest.raises(PeftLabError, match="wordnet_topics.csv is missing.*git checkout"):
        datasets.load("wordnet_topics")
    (tmp_path / "wordnet_topics.csv").write_text("topic,text\n")
    with pytest.raises(PeftLabError, match="has columns.*git checkout"):
        datasets.load("wordnet_topics")
    monkeypatch.setenv("PEFTLAB_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(PeftLabError, match="PEFTLAB_DATA"):
        datasets.load("wordnet_topics")
    with pytest.raises(PeftLabError, match="no data set 'imdb'"):
        datasets.load("imdb")


# ----------------------------------------------------------------------------------------- training


def test_the_loop_learns_a_simple_task(classifier, tokenizer, colours):
    before = metrics.accuracy(classifier, tokenizer, colours)
    run = quick(
        classifier, tokenizer, colours, evaluate_on=colours, steps=60, batch_size=9, lr=2e-2
    )
    assert run.accuracy == metrics.accuracy(classifier, tokenizer, colours) >= 0.95 > before
    assert run.losses[-1] < run.losses[0] / 2


def test_completions_are_learnt(language_model, tokenizer, pairs):
    before = metrics.perplexity(language_model, tokenizer, pairs)
    quick(language_model, tokenizer, pairs, steps=40, batch_size=6, lr=2e-2)
    assert metrics.perplexity(language_model, tokenizer, pairs) < before / 3


def test_it_is_the_loop_one_would_write_by_hand(classifier, tokenizer, colours):
    mine, losses = copy.deepcopy(classifier).train(), []
    optimizer = torch.optim.AdamW(mine.parameters(), lr=1e-2, weight_decay=0.1)
    torch.manual_seed(3)
    for batch, share in zip(
        datasets.batches(colours, tokenizer, batch_size=9, seed=3), [1, 2 / 3, 1 / 3], strict=False
    ):
        optimizer.param_groups[0]["lr"] = 1e-2 * share
        loss = mine(**batch).loss
        loss.backward()
        nn.utils.clip_grad_norm_(mine.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())

    run = quick(classifier, tokenizer, colours, batch_size=9, weight_decay=0.1, seed=3)
    assert run.losses == pytest.approx(losses, rel=1e-6)
    for ours, theirs in zip(classifier.parameters(), mine.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_seed_decides_the_run(classifier, tokenizer, colours):
    def losses(seed):
        return quick(copy.deepcopy(classifier), tokenizer, colours, seed=seed).losses

    assert losses(0) == losses(0) != losses(1)


def test_each_epoch_has_an_order_of_its_own(classifier, tokenizer, colours, monkeypatch):
    seen = []
    original = training._loss
    monkeypatch.setattr(
        training, "_loss", lambda m, b: seen.append(b["labels"].tolist()) or original(m, b)
    )
    quick(classifier, tokenizer, colours, steps=4, batch_size=18)
    first, second = sum(seen[:2], []), sum(seen[2:], [])
    assert sorted(first) == sorted(second) == sorted(colours.labels)
    assert first != second


def test_what_is_frozen_stays_bit_for_bit(classifier, tokenizer, colours):
    classifier.bert.requires_grad_(False)
    before = copy.deepcopy(classifier.state_dict())
    run = quick(classifier, tokenizer, colours)
    changed = {
        key for key, value in classifier.state_dict().items() if not torch.equal(value, before[key])
    }
    assert changed == {"classifier.weight", "classifier.bias"}
    assert run.trainable == 12 * 4 + 4
    assert run.total == sum(p.numel() for p in classifier.parameters())


def test_every_module_is_left_in_its_mode(classifier, tokenizer, colours):
    classifier.bert.embeddings.train()
    before = [module.training for module in classifier.modules()]
    quick(classifier, tokenizer, colours, evaluate_on=colours, eval_every=1)
    assert [module.training for module in classifier.modules()] == before


def test_evaluating_in_between_does_not_change_the_run(classifier, tokenizer, colours):
    plain = quick(copy.deepcopy(classifier), tokenizer, colours, steps=4)
    watched = quick(classifier, tokenizer, colours, steps=4, evaluate_on=colours, eval_every=2)
    assert plain.losses == watched.losses
    assert [step for step, _, _ in watched.evaluations] == [2, 4]


@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ({"steps": 4}, [1, 3 / 4, 2 / 4, 1 / 4]),
        ({"steps": 4, "warmup": 2}, [1 / 3, 2 / 3, 1, 1 / 2]),
        ({"steps": 3, "schedule": "constant"}, [1, 1, 1]),
        ({"steps": 3, "schedule": "constant", "warmup": 1}, [1 / 2, 1, 1]),
    ],
)
def test_the_learning_rate_follows_the_schedule(classifier, tokenizer, colours, settings, shares):
    run = quick(classifier, tokenizer, colours, lr=0.01, **settings)
    assert run.learning_rates == pytest.approx([0.01 * share for share in shares])


def test_an_optimizer_of_ones_own_has_all_its_learning_rates_scaled(classifier, tokenizer, colours):
    groups = [
        {"params": classifier.bert.parameters(), "lr": 1e-3},
        {"params": classifier.classifier.parameters(), "lr": 1e-1},
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    rates = []

    def note(*_):
        rates.append([group["lr"] for group in optimizer.param_groups])

    quick(classifier, tokenizer, colours, steps=2, lr=None, optimizer=optimizer, after_step=note)
    assert rates == [pytest.approx([1e-3, 1e-1]), pytest.approx([5e-4, 5e-2])]


def test_gradients_are_clipped(classifier, tokenizer, colours):
    before = nn.utils.parameters_to_vector(classifier.parameters()).detach().clone()
    optimizer = torch.optim.SGD(classifier.parameters(), lr=1.0)
    quick(classifier, tokenizer, colours, steps=1, lr=None, optimizer=optimizer, max_grad_norm=1e-3)
    moved = nn.utils.parameters_to_vector(classifier.parameters()).detach() - before
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_an_extra_loss_pulls_and_is_not_reported(classifier, tokenizer, colours):
    def heavy_head(model):
        return 1e6 * model.classifier.weight.square().sum()

    plain = quick(copy.deepcopy(classifier), tokenizer, colours, steps=1)
    pulled = quick(classifier, tokenizer, colours, steps=1, extra_loss=heavy_head)
    assert pulled.losses == plain.losses

    norm = classifier.classifier.weight.norm().item()
    quick(classifier, tokenizer, colours, steps=5, extra_loss=heavy_head)
    assert classifier.classifier.weight.norm().item() < norm


def test_after_step_counts_from_one_and_still_sees_the_gradients(classifier, tokenizer, colours):
    seen = []

    def note(model, step):
        seen.append((step, model.classifier.weight.grad is not None))

    quick(classifier, tokenizer, colours, after_step=note)
    assert seen == [(1, True), (2, True), (3, True)]


def test_a_run_survives_json(classifier, tokenizer, colours):
    run = quick(classifier, tokenizer, colours, evaluate_on=colours, name="tiny")
    again = training.Run.from_dict(json.loads(json.dumps(run.to_dict())))
    assert again == run
    assert "tiny" in repr(run) and "3 steps" in repr(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": None}, "Give either `lr`, or an `optimizer`"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"lr": math.nan}, "lr=nan"),
        ({"steps": 0}, "steps=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"warmup": 3}, "warmup=3.*less than steps=3"),
        ({"schedule": "cosine"}, "schedule='cosine'.*linear, constant"),
        ({"eval_every": 0}, "eval_every=0"),
        ({"data": Split([], [])}, "empty"),
        (
            {"data": Split(["red", "dog"], [0, 4])},
            "Labels run from 0 to 4.*4 classes.*num_labels=5",
        ),
        ({"data": Split(["red"], [-1])}, "Labels run from -1"),
        ({"evaluate_on": Split(["red"], [9])}, "Labels run from 9"),
    ],
)
def test_a_senseless_request_changes_nothing_and_names_its_cause(
    classifier, tokenizer, colours, change, message
):
    before = copy.deepcopy(classifier.state_dict())
    request = {"data": colours, "steps": 3, "lr": 1e-2, "progress": False} | change
    with pytest.raises(PeftLabError, match=message):
        training.train(classifier, tokenizer, **request)
    assert all(torch.equal(value, before[key]) for key, value in classifier.state_dict().items())


def test_nothing_to_train_is_an_error(classifier, tokenizer, colours):
    with pytest.raises(PeftLabError, match="nothing to train"):
        quick(classifier.requires_grad_(False), tokenizer, colours)


def test_class_labels_need_a_head(language_model, tokenizer, colours):
    encoder = BertModel(
        BertConfig(vocab_size=16, hidden_size=12, num_hidden_layers=1, num_attention_heads=2)
    )
    for headless in (language_model, encoder):
        with pytest.raises(PeftLabError, match="no classification head.*num_labels"):
            quick(headless, tokenizer, colours)


def test_a_prompt_without_room_for_its_completion_is_found_before_training(
    language_model, tokenizer, pairs
):
    late = Completions([*pairs.prompts, "red " * 40], [*pairs.completions, " dog"])
    with pytest.raises(PeftLabError, match="row 12 has 40 tokens.*max_length=32"):
        quick(language_model, tokenizer, pairs, evaluate_on=late)


def test_a_loss_that_is_not_finite_names_the_step_and_the_learning_rate(
    classifier, tokenizer, colours
):
    calls = []

    def explode(_):
        calls.append(1)
        return torch.tensor(math.nan if len(calls) == 2 else 0.0)

    with pytest.raises(PeftLabError, match="nan at step 2, with learning rate 6.7e-03"):
        quick(classifier, tokenizer, colours, extra_loss=explode)
    assert not classifier.training


# ------------------------------------------------------------------------------------------ metrics


def test_evaluate_counts_right(classifier, tokenizer, colours):
    with torch.no_grad():
        batch = next(datasets.batches(colours, tokenizer, batch_size=36))
        output = classifier(**batch)
    found = metrics.evaluate(classifier, tokenizer, colours, batch_size=7)
    assert found.n == 36
    assert found.loss == pytest.approx(output.loss.item(), rel=1e-5)
    assert found.accuracy == (output.logits.argmax(-1) == batch["labels"]).float().mean().item()


def test_perplexity_is_that_of_the_models_own_loss(language_model, tokenizer, pairs):
    with torch.no_grad():
        loss = language_model(**datasets.encode(pairs, range(len(pairs)), tokenizer)).loss.item()
    found = metrics.evaluate(language_model, tokenizer, pairs, batch_size=5)
    assert found.n == 12 * 4  # three words and the end
    assert found.perplexity == pytest.approx(math.exp(loss), rel=1e-5)


def test_evaluation_has_no_dropout_and_leaves_the_mode(classifier, tokenizer, colours):
    classifier.train()
    assert metrics.evaluate(classifier, tokenizer, colours) == metrics.evaluate(
        classifier, tokenizer, colours
    )
    assert classifier.training


def test_positions_that_a_soft_prompt_adds_are_not_scored(language_model, tokenizer, pairs):
    plain = metrics.evaluate(language_model, tokenizer, pairs)

    def add_two_positions(module, args, output):
        output.logits = torch.cat([torch.randn_like(output.logits[:, :2]), output.logits], dim=1)
        return output

    language_model.register_forward_hook(add_two_positions)
    assert metrics.evaluate(language_model, tokenizer, pairs) == plain


def test_majority_answers_with_the_class_most_frequent_in_training():
    train, test = Split(list("abcde"), [0, 1, 1, 1, 2]), Split(list("abcd"), [1, 2, 2, 2])
    assert metrics.majority_accuracy(train, test) == 0.25


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (500, 1000, 0.4691, 0.5309),
    ],
)
def test_wilsons_interval(correct, n, low, high):
    assert metrics.wilson_interval(correct, n) == pytest.approx((low, high), abs=1e-4)


def test_an_impossible_share_is_refused():
    with pytest.raises(PeftLabError, match="11 correct of 10"):
        metrics.wilson_interval(11, 10)
