"""The figures and the table of lesson 07: every series is told apart without colour, no stored seed is left out."""

from __future__ import annotations

import copy
from statistics import mean

import pytest
import torch
from torch import nn

import peftlab
from peftlab.bench import adapters
from peftlab.bench.results import Results
from peftlab.methods import LoRA
from peftlab.show import work_figures
from peftlab.surgery import adapted_modules

pytestmark = pytest.mark.usefixtures("no_window")


def test_latency_shows_gpu_and_cpu_on_one_scale():
    gpu, cpu = Results.load("lora_latency_gpu"), Results.load("lora_latency")
    figure = work_figures.latency(gpu, cpu)
    titles = [ax.get_title() for ax in figure.axes]
    assert [title.partition(":")[0] for title in titles] == ["H100", "H100", "CPU, one thread", "CPU, one thread"]
    assert len({ax.get_ylim() for ax in figure.axes}) == 1
    found = cpu["cells"]["cpu/all/write/1"]
    drawn = figure.axes[3].get_lines()[1].get_ydata()[0]
    assert drawn == found["unmerged"] / found["merged"]


def test_every_series_has_a_line_and_a_marker_of_its_own():
    figure = work_figures.latency(Results.load("lora_latency_gpu"), Results.load("lora_latency"))
    lines = figure.axes[0].get_lines()[:4]
    assert len({line.get_marker() for line in lines}) == len({line.get_linestyle() for line in lines}) == 4
    sums = work_figures.combinations(Results.load("adapters")).axes[0].get_lines()
    assert len({line.get_marker() for line in sums[:4]}) == 4
    assert {line.get_linestyle() for line in sums[4:]} == {":", "-"}


def test_the_table_says_how_many_seeds_it_has():
    trained, answered = copy.deepcopy(Results.load("three_tasks")), Results.load("adapters")
    trained["cells"].pop("joint/all/2", None)
    last = next(line for line in str(work_figures.tasks(trained, answered)).splitlines() if "for all three" in line)
    left = mean(trained["cells"][f"joint/all/{seed}"]["define"]["loss"] for seed in (0, 1))
    assert last.startswith("LoRA, one adapter for all three")
    assert f"{left:.2f}" in last
    assert " 2 " in last


def test_the_stored_adapters_have_a_row_of_their_own():
    """Losses of one set of adapters beside the right answers of another would be a row about nothing."""
    answered = Results.load("adapters")
    lines = str(work_figures.tasks(Results.load("three_tasks"), answered)).splitlines()
    stored = next(line for line in lines if "stored adapters" in line)
    assert f"{answered['cells']['define/define']['loss']:.2f}" in stored and "85 %" in stored
    assert not any("%" in line for line in lines if line.startswith(("LoRA", "full")))


def test_the_stored_adapters_learning_rate_is_the_best_or_next_to_it():
    """data/README.md and `bench.adapters` say so."""
    runs = Results.load("three_tasks")
    rates = runs["settings"]["candidates"]["lora"]
    best = {
        task: min(rates, key=lambda lr: runs["cells"][f"choose/lora/{task}/{lr}"])  # noqa: B023
        for task in work_figures.TASKS
    }
    assert best == {"define": 2 * adapters.LR, "topic": adapters.LR, "reverse": adapters.LR}


@pytest.mark.parametrize("names", adapters.DRIFT.values(), ids=adapters.DRIFT)
def test_a_drift_that_is_not_followed_to_the_end_is_what_it_would_have_been(names):
    """`drifts` stops swapping once a matrix repeats itself; all the swaps, one by one, must give the same."""
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(24, 16))
    for name in names:
        peftlab.attach(model, LoRA(r=2, lora_alpha=4, target_modules=["0"]), name=name)
    (wrapper,) = adapted_modules(model).values()
    for name in names:
        nn.init.normal_(wrapper.adapters[name].lora_B.weight)
    found = adapters.drifts(model, names, torch.bfloat16)
    deltas = [wrapper.adapters[name].delta_weight().detach() for name in names]
    W0 = wrapper.base.weight.detach().bfloat16()
    for swaps in adapters.SWAPS:
        off = (adapters.swapped(W0, deltas, swaps).double() - W0.double()).norm() / deltas[0].double().norm()
        assert found["off"][str(swaps)] == pytest.approx(float(off), abs=2e-6)
    assert found["repeating"] == 1 and 0 < found["settled"] < adapters.SWAPS[-1]
    assert found["off"]["3000"] > 0
