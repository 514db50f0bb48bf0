"""Lesson 01's ladder and its figures, on made-up rungs."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

from peftlab.bench.results import Results
from peftlab.course import ladder
from peftlab.errors import PeftLabError
from peftlab.show import wall_figures
from peftlab.show.wall_figures import METHOD_NAMES, peak_cells


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


def test_every_stored_peak_was_predicted_within_ten_percent():
    stored = Results.load("qlora_scale")
    for shape in ("1.1B", "6.7B"):
        for method in (*METHOD_NAMES, "qlora_ours"):
            for kind in ("plain", "checkpointing"):
                cells = peak_cells(stored, shape, method, kind)
                assert len(cells) == 3
                assert all(abs(cell["predicted"] / cell["measured"] - 1) < 0.1 for cell in cells)
