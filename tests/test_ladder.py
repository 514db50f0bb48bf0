"""Lesson 01's ladder and its figures, on made-up rungs."""

from __future__ import annotations

import copy
import math

import matplotlib.pyplot as plt
import pytest
import torch

from peftlab.bench import ladder as bench
from peftlab.bench.results import Results
from peftlab.course import ladder
from peftlab.errors import PeftLabError
from peftlab.show import wall_figures


def results(bend: float = 0.0) -> dict:
    """Three seeds of one pass, one of four; widths out of order. L = 8 / N^0.1 + bend."""
    cells = {"choose/1/64/0.004": {"loss": 99.0}}
    for width, N in ((64, 10**5), (32, 10**4), (128, 10**6)):
        for passes, seeds in ((1, 3), (4, 1)):
            for seed in range(seeds):
                loss = 8 * N**-0.1 + bend + 0.01 * (seed - seeds // 2) - 0.2 * (passes == 4)
                cells[f"final/{passes}/{width}/{seed}"] = {
                    "layers": 2, "N": N, "N_total": N + 4096 * width, "loss": loss, "tokens": 100 * passes, "lr": 0.004,
                }  # fmt: skip
    return {"cells": cells}


def test_rungs_come_smallest_first_with_all_their_seeds():
    found = ladder.rungs(results())
    assert [rung.width for rung in found] == [32, 64, 128]
    assert [len(rung.losses) for rung in found] == [3, 3, 3]
    assert found[0].loss == pytest.approx(8 * 10**-0.4)
    assert [len(rung.losses) for rung in ladder.rungs(results(), passes=4)] == [1, 1, 1]
    with pytest.raises(PeftLabError, match="passes=2"):
        ladder.rungs(results(), passes=2)


def test_a_law_is_found_again_and_a_bend_shows_in_the_slopes():
    found = ladder.rungs(results())
    a, b = ladder.law([rung.N for rung in found], [rung.loss for rung in found])
    assert (a, b) == pytest.approx((8, 0.1))
    assert ladder.slopes(found) == pytest.approx([0.1, 0.1])
    bent = ladder.slopes(ladder.rungs(results(bend=1.0)))
    assert bent[0] > bent[1]
    assert ladder.slopes(found, total=True)[0] > 0.1  # the embedding makes small models look larger


def test_the_hidden_rungs_are_hidden_until_they_are_shown():
    found = ladder.rungs(results())
    for hidden, drawn in ((True, 2), (False, 3)):
        ax = wall_figures.ladder(found, 2, (8, 0.1), hidden=hidden)
        points = {x for line in ax.lines if line.get_marker() != "" for x in line.get_xdata()}
        assert len(points) == drawn
        plt.close(ax.figure)


def test_the_other_figures_can_be_drawn():
    for ax in (wall_figures.passes(ladder.rungs(results()), ladder.rungs(results(), 4)), wall_figures.advice()):
        assert ax.get_xscale() == ax.get_yscale() == "log"
        plt.close(ax.figure)
    figure = wall_figures.peaks(Results.load("qlora_scale"))
    assert [len(ax.patches) for ax in figure.axes] == [6, 6]


@pytest.mark.parametrize("peak", [2.5e-4, 4e-3, 1.1e-2, 4.5e-2])
def test_the_search_for_a_rate_ends_with_a_worse_one_on_either_side(peak):
    """A valley wherever it lies: inside the first three rates, far outside them, or between two of the grid."""
    plan = bench.plan(64, 4)
    jobs, tried = next(plan), {}
    while all(key.startswith("choose/") for key in jobs):
        losses = {key: abs(math.log2(job.arguments["lr"] / peak)) for key, job in jobs.items()}
        tried |= {job.arguments["lr"]: losses[key] for key, job in jobs.items()}
        assert {job.arguments["on"] for job in jobs.values()} == {"validation"}
        jobs = plan.send({key: {"loss": loss} for key, loss in losses.items()})
    best = min(tried, key=tried.get)
    assert min(tried) < best < max(tried) and tried[best] <= 0.25  # the grid's steps are half a doubling
    assert sorted(jobs) == [f"final/1/64/{seed}" for seed in bench.SEEDS]
    last = plan.send({key: {} for key in jobs})
    assert [job.arguments["passes"] for job in last.values()] == [bench.PASSES]
    assert {job.arguments["lr"] for job in (*jobs.values(), *last.values())} == {best}
    assert {job.arguments["on"] for job in (*jobs.values(), *last.values())} == {"test"}


def test_a_step_is_one_step_of_adamw_with_the_gradient_cut(monkeypatch):
    monkeypatch.setattr(bench, "CLIP", 1e-3)  # below any gradient of this small model
    torch.manual_seed(0)
    model = bench.new_model(32, 2, 50)
    by_hand = copy.deepcopy(model)
    step = bench.Step(model, 1.0, torch.device("cpu"))
    batches = torch.randint(0, 50, (3, *step.batch.shape))
    adamw = torch.optim.AdamW(by_hand.parameters(), lr=1.0, betas=bench.BETAS, weight_decay=bench.WEIGHT_DECAY)
    adamw.param_groups[0]["params"] = [p for p in by_hand.parameters() if p.dim() > 1]
    adamw.add_param_group({"params": [p for p in by_hand.parameters() if p.dim() == 1], "weight_decay": 0.0})
    for batch, lr in zip(batches, (1e-3, 4e-3, 2e-3), strict=True):
        logits = by_hand(input_ids=batch[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(by_hand.parameters(), bench.CLIP)
        for group in adamw.param_groups:
            group["lr"] = lr
        adamw.step()
        assert step(batch, lr).item() == pytest.approx(loss.item(), rel=1e-5)
    for (name, mine), wanted in zip(model.named_parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(mine, wanted, msg=name)
