"""Deep dive 05x: what its prose may quote, from data/results."""

from __future__ import annotations

from statistics import mean

from peftlab.course.questions import lesson_05x
from peftlab.show.selective_figures import encoder_size, share_in
from tests.facts import percent
from tests.facts.lesson_05 import at, points, stored

NAME = "05x_learned_masks"
# Budgets, and settings of the toy: what live cells print, within their asserts.
NOT_MEASURED = {"0.5", "0.10", "0.7", "0.02", "-1.5", "1.5", "0.45", "0.9", "1"}


def facts() -> list[str]:
    cells = stored()["cells"]
    lead = {arm: mean(points(f"{arm}/0.005", "random/0.005")) for arm in ("moved", "diff")}  # "with every seed"
    over = {arm: mean(points(f"{arm}/0.005", "full", ahead=4)) for arm in ("moved", "diff")}  # "with four"
    shared = mean(cells[f"masks/{seed}"]["shared_with_fisher"]["moved/0.005"] for seed in range(5))
    drawn = mean(cells[f"masks/{seed}"]["shared_with_fisher"]["random/0.005"] for seed in range(5))
    where = {kind: cells["masks/0"]["where"][f"{kind}/0.005"]["counts"] for kind in ("fisher", "moved")}
    assert share_in(where["moved"], "embeddings") < 0.01  # "next to none"
    tried = {key: cell for key, cell in cells.items() if key.startswith("choose/diff/")}
    changed = [cell["changed"] for cell in tried.values()]
    moving = 1 - cells["random/0.5/0"]["still"]  # numbers that had a gradient in one epoch
    assert max(changed) - min(changed) < 0.002 and abs(mean(changed) - moving) < 0.002  # "nearly no gate had closed"
    assert {float(key.split("/")[2]) for key in tried} == {1e-9, 1e-8, 1e-7, 1e-6}
    n = encoder_size(stored())
    return [
        f"LT-SFT reaches {percent(at('moved/0.005'), 1)} and diff pruning {percent(at('diff/0.005'), 1)}",
        f"by {lead['moved']:.1f} and {lead['diff']:.1f} points on average",
        f"Full fine-tuning has {percent(at('full'), 1)}",
        f"the gaps, {over['moved'] - 1e-9:.1f} and {over['diff']:.1f} points",
        f"Of LT-SFT's, {percent(shared, 1)} are in the Fisher mask too. Two random masks would share "
        f"{percent(drawn, 1)}",
        f"Fisher put {percent(share_in(where['fisher'], '5'))} of its choice into the last block, LT-SFT "
        f"{percent(share_in(where['moved'], '5'))}",
        f"{percent(mean(changed))} of all numbers were still changed",
        f"{8 * round(0.005 * n) / 1e6:.1f} MB instead of {4 * n / 1e6:.0f}",
        f"0.5 % of {n / 1e6:.1f} million numbers",
        *(each.says() for each in lesson_05x.PREDICTIONS if callable(each.says)),
    ]
