"""Deep dive 05x: what its prose may quote, from data/results."""

from __future__ import annotations

from statistics import mean

from peftlab.course.questions import lesson_05x
from peftlab.show.selective_figures import encoder_size, share_in
from tests.facts import percent
from tests.facts.lesson_05 import at, dead, points, stored

NAME = "05x_learned_masks"
# Budgets, and settings of the toy: what live cells print, within their asserts.
NOT_MEASURED = {"0.5", "0.02", "-1.5", "1.5", "0.45", "0.9", "1"}


def facts() -> list[str]:
    cells = stored()["cells"]
    for arm in ("moved", "diff"):
        points(f"{arm}/0.005", "random/0.005")  # "behind both with every seed"
        assert abs(mean(points(f"{arm}/0.005", "long/random/0.005", ahead=2))) < 0.2  # "with two seeds of five"
    over = mean(points("long/full", "moved/0.005"))
    shared = mean(cells[f"masks/{seed}"]["shared_with_fisher"]["moved/0.005"] for seed in range(5))
    alive = 0.005 / (1 - mean(cells[f"fisher_of/{seed}"]["zero"] for seed in range(5)))
    where = {kind: cells["masks/0"]["where"][f"{kind}/0.005"]["counts"] for kind in ("fisher", "moved")}
    assert share_in(where["moved"], "embeddings") < 0.01  # "next to none"
    tried = {key: cell for key, cell in cells.items() if key.startswith("choose/diff/")}
    assert {float(key.split("/")[2]) for key in tried} == {1e-9, 1e-8, 1e-7, 1e-6}
    assert cells["diff/0.005/0"]["penalty"] == 1e-6  # "and took 1e-6"
    gate = {price: cells[f"gates/{price}/1e-08"] for price in ("1e-06", "1e-05", "0.0001")}
    assert gate["0.0001"]["open"] == 0
    n = encoder_size(stored())
    return [
        f"LT-SFT reaches {percent(at('moved/0.005'), 1)} and diff pruning {percent(at('diff/0.005'), 1)}",
        f"The random mask of lesson 05, {percent(at('random/0.005'), 1)}, is behind",
        f"With 180 steps a random mask has {percent(at('long/random/0.005'), 1)}",
        f"And {percent(dead('long/random/0.005'))} of the random mask is dead",
        f"with 180 steps has {percent(at('long/full'), 1)}, ahead of LT-SFT with every seed, by {over:.1f} points",
        f"Of LT-SFT's, {percent(shared, 1)} are in the Fisher mask too; of random places that have a gradient, "
        f"{percent(alive, 1)} would be",
        f"Fisher put {percent(share_in(where['fisher'], '5'))} of its choice into the last block, LT-SFT "
        f"{percent(share_in(where['moved'], '5'))}",
        f"There {percent(gate['1e-06']['open'], 2)} of all gates were still open",
        f"the same price leaves {percent(cells['gates/1e-06/1e-12']['open'])} open",
        f"leaves {percent(gate['1e-05']['open'], 2)} of the gates open",
        f"from {percent(gate['1e-06']['accuracy'], 1)} to {percent(gate['1e-05']['accuracy'], 1)}",
        f"no gate is open, and it has {percent(gate['0.0001']['accuracy'], 1)}",
        f"{8 * round(0.005 * n) / 1e6:.1f} MB instead of {4 * n / 1e6:.0f}",
        f"0.5 % of {n / 1e6:.1f} million numbers",
        *(each.says() for each in lesson_05x.PREDICTIONS if callable(each.says)),
    ]
