"""Bridge B5's experiments on cases with a known outcome, its figures, and what its exercises must let through."""

from __future__ import annotations

import pytest
import torch

from peftlab.course import luck
from peftlab.course.exercise import exercise, judge
from peftlab.errors import PeftLabError
from peftlab.show import luck_figures
from peftlab.tasks import datasets, models
from peftlab.tasks.metrics import wilson_interval

pytestmark = pytest.mark.usefixtures("no_window")


LABELS = torch.tensor([2, 0, 1, 0, 2, 1, 2, 0])


def test_examples_are_as_many_of_each_class_and_a_seed_draws_others():
    assert luck.examples(LABELS, 2).tolist() == [1, 3, 2, 5, 0, 4]
    drawn = luck.examples(LABELS, 2, seed=1)
    assert torch.equal(drawn, luck.examples(LABELS, 2, seed=1))
    assert LABELS[drawn].bincount().tolist() == [2, 2, 2] and len(set(drawn.tolist())) == 6
    with pytest.raises(PeftLabError, match="class 1 has 2 examples, not 3"):
        luck.examples(LABELS, 3)


def test_topic_means_are_the_classes_directions():
    vectors = torch.tensor([[3.0, 0, 0], [0, 2, 0], [1, 0, 0], [0, 0, 5]])
    assert torch.allclose(luck.topic_means(vectors, torch.tensor([0, 1, 0, 2])), torch.eye(3))


def test_sentence_vectors_do_not_depend_on_their_neighbours():
    texts = datasets.load("wordnet_topics").test[:5]
    model, tokenizer = models.load("minilm")
    together = luck.sentence_vectors(model, tokenizer, texts)
    alone = torch.cat([luck.sentence_vectors(model, tokenizer, texts[row : row + 1]) for row in range(5)])
    assert together.shape == (5, 384)
    assert torch.allclose(together, alone, atol=1e-4)


def test_upsets_count_pairs_and_not_ties():
    assert luck.upsets([0.9, 0.8], [0.7, 0.6]) == 0
    assert luck.upsets([0.9, 0.7], [0.8, 0.7]) == 1


def test_the_best_of_equals_gains_only_where_it_was_chosen():
    correct = torch.rand(50, 2000, generator=torch.Generator().manual_seed(0)) < 0.8
    seen, fresh = luck.best_of(correct, 100, rounds=200)
    assert len(seen) == len(fresh) == 50
    assert (seen.diff() >= -1e-6).all() and seen[-1] > 0.87  # of 50, the best is about 2.2 standard errors above
    assert abs(fresh[-1] - 0.8) < 0.01
    few, _ = luck.best_of(correct, 1500, rounds=50)
    assert few[-1] < seen[-1] - 0.03


def test_one_that_is_truly_better_keeps_its_lead():
    correct = torch.rand(20, 2000, generator=torch.Generator().manual_seed(0)) < 0.5
    correct[7] = True
    seen, fresh = luck.best_of(correct, 200, rounds=20)
    assert seen[-1] == pytest.approx(1) and fresh[-1] == pytest.approx(1)


@pytest.mark.parametrize("rows", [0, 30])
def test_some_rows_must_be_left_for_the_second_look(rows):
    with pytest.raises(PeftLabError, match="choose on 1 to 29"):
        luck.best_of(torch.ones(3, 30), rows)


def test_the_figure_shows_every_seed_and_wilsons_interval():
    ax = luck_figures.seeds_and_rows({"a": [0.8, 0.9], "b": [0.5, 0.5]}, rows=200)
    dots, bar, *_ = ax.lines
    assert list(dots.get_xdata()) == [0.8, 0.9]
    assert list(bar.get_xdata()) == pytest.approx(wilson_interval(170, 200))
    assert dots.get_marker() != bar.get_marker()
    assert list(dots.get_ydata()) == [-0.12, -0.12]
    equal = ax.lines[2].get_ydata()
    assert equal[1] == pytest.approx(equal[0] - 0.08), "two equal ones would look like one"
    with pytest.raises(PeftLabError, match="at least one run"):
        luck_figures.seeds_and_rows({"a": []}, rows=200)


def test_the_two_curves_are_told_apart_without_colour():
    ax = luck_figures.best_of(torch.linspace(0.7, 0.8, 30), torch.full((30,), 0.7), rows=100)
    first, second = ax.lines
    assert first.get_marker() != second.get_marker() and first.get_linestyle() != second.get_linestyle()
    with pytest.raises(PeftLabError, match="as many of both"):
        luck_figures.best_of(torch.ones(3), torch.ones(2), rows=100)


def test_other_right_answers_pass():
    """N - 1 in the place of N; tensors; a paired interval by the normal distribution, or with draws of one's own."""

    def with_n_minus_one(right, N):
        return torch.cat([torch.ones(right), torch.zeros(N - right)]).std() / N**0.5

    def normal(correct, draws):
        differences = correct[0] - correct[1]
        half = 1.96 * differences.std() / correct.shape[1] ** 0.5
        return torch.stack([differences.mean() - half, differences.mean() + half])

    def one_draw_after_the_other(correct, draws):
        N = correct.shape[1]
        generator = torch.Generator().manual_seed(123)
        kept = []
        for _ in range(draws):
            drawn = correct[:, torch.randint(N, (N,), generator=generator)].mean(1)
            kept.append((drawn[0] - drawn[1]).item())
        kept.sort()
        return kept[int(0.025 * draws)], kept[int(0.975 * draws)]

    assert judge(exercise("B5.standard_error"), with_n_minus_one).ok
    for answer in (normal, one_draw_after_the_other):
        assert judge(exercise("B5.paired_interval"), answer).ok
