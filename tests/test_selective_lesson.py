"""The measurement behind lesson 05: masks hold what they should, and the search for a learning rate ends inside."""

from __future__ import annotations

import pytest
import torch

from peftlab.bench import selective as bench
from peftlab.course import loud_inputs
from peftlab.course.exercise import exercise, judge
from peftlab.methods.selective import sparse
from peftlab.show import selective_figures

N = 22_565_376


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tmp_path_factory.mktemp("scores"))


def chosen(kind: str, budget: float, folder: str) -> dict[str, torch.Tensor]:
    return bench.mask(bench.TOY, f"{kind}/{budget}", 0, folder)


@pytest.mark.parametrize("kind", ["fisher", "magnitude", "random", "random_blocks", "random_as_fisher", "smallest"])
def test_a_mask_has_as_many_places_as_its_budget_and_none_twice(kind, folder):
    mask = chosen(kind, 1e-4, folder)
    assert bench.size(mask) == round(1e-4 * N)
    assert all(len(flat.unique()) == len(flat) for flat in mask.values())
    assert not any("classifier" in name for name in mask)


def test_the_controls_keep_one_half_of_fishers_choice_each(folder):
    fisher = chosen("fisher", 1e-3, folder)
    numbers, entries = chosen("random_as_fisher", 1e-3, folder), chosen("fisher_each", 1e-3, folder)
    assert {name: len(flat) for name, flat in numbers.items()} == {name: len(flat) for name, flat in fisher.items()}
    assert bench.overlap(fisher, numbers) < 0.9  # other entries: tensors that are chosen whole must agree
    sizes = {name: parameter.numel() for name, parameter in bench.pool(bench.fresh(0)).items()}
    assert {name: len(flat) for name, flat in entries.items()} == {n: max(1, round(1e-3 * s)) for n, s in sizes.items()}


def test_random_entries_of_the_blocks_are_in_no_embedding(folder):
    assert "embeddings" not in {bench.block(name) for name in chosen("random_blocks", 1e-4, folder)}


def test_overlap_is_a_share():
    one, other = {"a": torch.tensor([0, 3, 5]), "b": torch.tensor([1])}, {"a": torch.tensor([5, 3, 9])}
    assert bench.overlap(one, one) == 1 and bench.overlap(one, other) == 0.5


@pytest.mark.parametrize(
    ("name", "block", "kind"),
    [
        ("bert.embeddings.word_embeddings.weight", "embeddings", "word"),
        ("bert.embeddings.LayerNorm.bias", "embeddings", "LayerNorm"),
        ("bert.encoder.layer.3.attention.self.key.bias", "3", "bias"),
        ("bert.encoder.layer.0.attention.output.dense.weight", "0", "attention.output"),
        ("bert.encoder.layer.5.output.dense.weight", "5", "output"),
    ],
)
def test_where_a_parameter_belongs(name, block, kind):
    assert (bench.block(name), bench.kind_of(name)) == (block, kind)


def test_masks_of_places_and_of_true_and_false_count_alike():
    name = "bert.encoder.layer.1.output.dense.weight"
    mask = torch.zeros(4, 3, dtype=torch.bool)
    mask[1, 2] = mask[3, 0] = True
    assert selective_figures.counts({name: mask}) == selective_figures.counts({name: mask.flatten().nonzero()[:, 0]})
    assert selective_figures.counts({name: mask}) == {"1/output": 2}
    assert selective_figures.share_in({"1/output": 2, "embeddings/word": 6}, "embeddings") == 0.75


def test_the_search_goes_on_until_the_best_rate_has_neighbours():
    """A curve whose peak lies outside the first three rates; the five seeds run at that peak."""
    peak = 1e-4
    plan = bench.arm(bench.Scale(seeds=(0, 1)), bench.Arm("random/0.5", 1e-2, 1), "nowhere")
    jobs, tried = next(plan), {}
    while all(key.startswith("choose/") for key in jobs):
        rates = {key: job.arguments["lr"] for key, job in jobs.items()}
        tried |= rates
        jobs = plan.send(
            {key: {"accuracy": -abs(bench.RATES.index(lr) - bench.RATES.index(peak))} for key, lr in rates.items()}
        )
    assert {3e-5, 1e-4, 3e-4} <= set(tried.values())
    assert sorted(jobs) == ["random/0.5/0", "random/0.5/1"]
    assert {job.arguments["lr"] for job in jobs.values()} == {peak} and {j.arguments["on"] for j in jobs.values()} == {
        "test"
    }


def test_a_run_that_failed_is_never_the_best_and_a_tie_goes_to_the_lower_loss():
    runs = {
        1e-3: {"accuracy": 0.5, "loss": 2.0},
        1e-2: {"accuracy": 0.5, "loss": 1.0},
        1e-1: {"failed": "The loss is nan"},
    }
    assert bench.best(runs) == 1e-2


def test_a_bench_mask_is_one_that_the_library_takes(folder):
    mask = chosen("fisher", 1e-4, folder)
    model = bench.peftlab.attach(bench.fresh(0), bench.FishMask(mask=mask))
    assert bench.peftlab.count_parameters(model).trainable == bench.size(mask) + selective_figures.HEAD
    assert sparse.file_size(model).indices == 4 * bench.size(mask)


def test_what_a_layer_reads_and_which_columns_are_loud():
    base, tokenizer, data = bench.loaded()
    read = loud_inputs.inputs(base, tokenizer, data.train[:6])
    name = "bert.encoder.layer.2.output.dense.weight"
    words = sum(len(ids) for ids in tokenizer(data.train.texts[:6], truncation=True, max_length=32)["input_ids"])
    assert len(read) == 36 and read[name].shape == (words, 1536)  # without padding
    x = torch.tensor([[1.0, -9.0, 2.0], [1.0, 9.0, -2.0]])  # loud by size, not by mean
    flat = torch.tensor([1, 4, 5, 6])  # columns 1, 1, 2, 0 of three
    mask = torch.zeros(3, 3, dtype=torch.bool).index_put((flat // 3, flat % 3), torch.tensor(True))
    for chosen in (flat, mask):
        assert loud_inputs.in_loudest({"W": chosen}, {"W": x, "other": x}, n=1) == {"W": 0.5}


def test_quiet_scores_are_divided_by_the_size_of_the_inputs():
    name = "bert.encoder.layer.0.attention.self.value.weight"
    found = bench.quiet({name: torch.ones(384, 384), "bert.embeddings.LayerNorm.bias": torch.ones(384)})
    assert found["bert.embeddings.LayerNorm.bias"].eq(1).all()
    column = found[name].argmin(1)[0]  # the loudest input has the lowest score
    base, tokenizer, data = bench.loaded()
    assert column == loud_inputs.inputs(base, tokenizer, data.train[:256])[name].square().mean(0).argmax()


def test_first_tokens_are_the_rows_of_cls():
    base, tokenizer, data = bench.loaded()
    first = loud_inputs.first_tokens(tokenizer, data.train[:6])
    read = loud_inputs.inputs(base, tokenizer, data.train[:6])
    assert first.sum() == 6 and first[0] and len(first) == len(next(iter(read.values())))
    lengths = [len(ids) for ids in tokenizer(data.train.texts[:6], truncation=True, max_length=32)["input_ids"]]
    assert first.nonzero()[:, 0].tolist() == [sum(lengths[:i]) for i in range(6)]


def right(key):
    return exercise(key).solution


@pytest.mark.parametrize(
    ("key", "answer", "says"),
    [
        ("05.top_k_masks", lambda s, k: {n: m.float() for n, m in right("05.top_k_masks")(s, k).items()}, "as numbers"),
        ("05.top_k_masks", lambda s, k: list(right("05.top_k_masks")(s, k).values()), "a list of"),
        (
            "05.top_k_masks",
            lambda s, k: {n: m.flatten().nonzero()[:, 0] for n, m in right("05.top_k_masks")(s, k).items()},
            "These are places",
        ),
        ("05x.gate", lambda alpha, u, L, R: right("05x.gate")(alpha.detach(), u, L, R), "no gradient"),
        ("05x.gate", lambda alpha, u, L, R: right("05x.gate")(alpha, torch.rand_like(u), L, R), "do not draw"),
        ("05x.chance_open", lambda alpha, L, R: right("05x.chance_open")(alpha.detach(), L, R), "no gradient"),
        (
            "05x.chance_open",
            lambda alpha, L, R: (
                right("05x.gate")(alpha.expand(999, *alpha.shape), torch.rand(999, *alpha.shape), L, R) > 0
            ).float().mean(0),
            "Wanted is the formula",
        ),
    ],
)  # fmt: skip
def test_right_values_in_a_form_that_would_stop_the_lesson_are_refused(key, answer, says):
    """The cells that follow need masks of True and False, and gates through which α learns."""
    verdict = judge(exercise(key), answer)
    assert not verdict.ok and says in verdict.says
