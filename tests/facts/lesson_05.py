"""Lesson 05: what its prose may quote, from data/results."""

from __future__ import annotations

from statistics import mean
from typing import Any

from peftlab.bench.results import Results
from peftlab.course.questions import lesson_05
from peftlab.show.lora_figures import accuracies
from peftlab.show.selective_figures import encoder_size, gaps, rate_curve, share_in
from peftlab.show.side_by_side import HEAD
from tests.facts import percent

NAME = "05_selective"
# Budgets, settings, an axis' beginning, versions.
NOT_MEASURED = {"0.5", "0.01", "0.1", "2", "10", "50", "80", "0.80", "0.75", "3.0"}


def facts() -> list[str]:
    return [*bet(), *places(), *rates(), *halves(), *loud(), *norms(), *costs(), *asked()]


def stored() -> dict[str, Any]:
    return Results.load("selective")


def at(cell: str) -> float:
    found = accuracies(stored(), cell)
    assert len(found) == 5, cell  # "five seeds"
    return mean(found)


def points(one: str, other: str, *, ahead: int = 5) -> list[float]:
    """Differences by seed in points, lowest first; `ahead` of them are above zero."""
    found = sorted(100 * gap for gap in gaps(stored(), one, other))
    assert sum(gap > 0 for gap in found) == ahead, (one, other, found)
    return found


def bet() -> list[str]:
    at_half, at_two = points("random/0.005", "fisher/0.005"), points("random/0.02", "fisher/0.02")
    points("fisher/0.0001", "random/0.0001")  # "every seed agrees"
    points("random/0.005", "magnitude/0.005", ahead=4)  # "ahead with four"
    points("random_blocks/0.005", "random/0.005", ahead=3)  # "three of five"
    points("long/random/0.005", "random/0.005")
    kinds = ("fisher", "magnitude", "random")
    meet = [at(f"{kind}/0.001") for kind in kinds]
    assert max(meet) - min(meet) < 0.005  # "cannot be told apart"
    assert all(abs(at(f"{kind}/{b}") - at("full")) < 0.005 for kind in kinds for b in (0.1, 0.5))
    still = mean(stored()["cells"][f"random/0.005/{seed}"]["still"] for seed in range(5))
    assert abs(dead("random/0.0001") - 0.4) < 0.02  # "two in five"
    assert not dead("fisher/0.0001") + dead("fisher_each/0.001")  # "all work", "none of them is dead"
    error = 100 * (at("random/0.005") * (1 - at("random/0.005")) / 1200) ** 0.5
    trained = stored()["cells"]["fisher/0.0001/0"]["trainable"] - HEAD
    return [
        f"It has {percent(at('random/0.005'), 1)}, Fisher's choice {percent(at('fisher/0.005'), 1)}, and is ahead",
        f"every one of the five seeds, by {at_half[0]:.1f} to {at_half[-1]:.1f} points",
        f"The largest numbers have {percent(at('magnitude/0.005'), 1)}",
        f"With 180 steps random has {percent(at('long/random/0.005'), 1)}, everything {percent(at('long/full'), 1)}",
        f"Lesson 06  says {percent(mean(accuracies(Results.load('scissors'), 'full')), 1)}",  # without its link
        f"a random choice beat Fisher's by {mean(at_half):.1f} points, with every seed",
        f"with every seed again, by {mean(at_two) + 1e-9:.1f} points on average",
        f"{percent(still)} of the random numbers stood, after training, exactly where they started",
        f"0.5 % of the numbers reach {percent(at('random_blocks/0.005'), 1)} (ahead with three of five",
        f"Training everything, we reach {percent(at('full'), 1)} in 90 steps",
        f"With {trained:,} numbers it has {percent(at('fisher/0.0001'), 1)}, random {percent(at('random/0.0001'), 1)}, "
        "every seed agrees",
        f"bring Fisher nothing ({percent(at('fisher/0.001'), 1)})",
        f"a standard error of about {error:.0f} point",
        f"Here it stays {100 * (at('full') - at('fisher/0.005')):.1f} points below",
        f"here $N$ = {encoder_size(stored()):,}".replace("$N$", " "),
    ]


def dead(cell: str) -> float:
    """The share of a mask that no batch gave a gradient."""
    return mean(stored()["cells"][f"{cell}/{seed}"]["still"] for seed in range(5))


def places() -> list[str]:
    where = {kind: stored()["cells"]["masks/0"]["where"][f"{kind}/0.005"] for kind in ("fisher", "magnitude", "random")}
    fisher, largest, drawn = (where[kind]["counts"] for kind in where)
    return [
        f"{percent(share_in(fisher, '5'))} of its choice lies in the last block, and "
        f"{percent(share_in(fisher, 'attention.output'))} in the output matrices",
        f"Queries and keys get {percent(share_in(fisher, 'query', 'key'))} together",
        f"Of the **largest** numbers, {percent(share_in(largest, 'query', 'key'))} are queries and keys",
        f"{percent(share_in(drawn, 'embeddings'))} is embeddings",
        f"{percent(where['random']['zero'])} of the random numbers have a Fisher information of exactly zero",
    ]


def rates() -> list[str]:
    curves = {kind: rate_curve(stored(), f"{kind}/0.005") for kind in ("fisher", "magnitude", "random")}
    best = {kind: max(curve, key=curve.get) for kind, curve in curves.items()}
    assert best == {"fisher": 1e-3, "magnitude": 1e-2, "random": 3e-2}
    flat = [curves["random"][lr] for lr in (3e-3, 1e-2, 3e-2)]
    assert max(flat) - min(flat) < 0.003  # "content with any"
    full = rate_curve(stored(), "full")
    assert max(full, key=full.get) == 3e-4
    fisher, drawn = curves["fisher"][1e-2], curves["random"][1e-2]
    assert fisher < 1 / 12 and max(curves["fisher"][lr] for lr in (1e-2, 3e-2)) < 0.085  # "lies at 0.08"
    assert fisher < drawn < curves["magnitude"][1e-2]
    assert max(curve[3e-2] for curve in curves.values()) == curves["random"][3e-2]
    for budget in ("0.001", "0.02"):  # "a single validation text decided"
        first, second = sorted(rate_curve(stored(), f"fisher/{budget}").values())[-2:][::-1]
        assert 0 < first - second < 1.01 / 720
    cells = stored()["cells"]
    assert cells["random/0.0001/0"]["lr"] == 1e-1 and cells["random/0.5/0"]["lr"] == 3e-4
    return [
        "lies at 0.08 from 1e-2 on",
        f"random still has {curves['random'][1e-1]:.2f} at 1e-1",
        f"at 1e-2 the largest ({percent(curves['magnitude'][1e-2], 1)}, random {percent(drawn, 1)}, Fisher "
        f"{percent(fisher, 1)}, less than guessing)",
        f"at 3e-2 random ({percent(curves['random'][3e-2], 1)}, largest {percent(curves['magnitude'][3e-2], 1)}, "
        f"Fisher {percent(curves['fisher'][3e-2], 1)})",
    ]


def halves() -> list[str]:
    for budget in ("0.005", "0.02"):  # "either half costs about as much as the whole"
        halved = [at(f"{kind}/{budget}") for kind in ("random_as_fisher", "fisher_each", "fisher")]
        assert max(halved) - min(halved) < 0.005 and min(at(f"random/{budget}") - each for each in halved) > 0.008
    points("fisher_each/0.001", "random/0.001")
    for budget, ahead in (("0.005", 4), ("0.02", 3)):  # "level with random"
        assert mean(points(f"random/{budget}", f"magnitude_each/{budget}", ahead=ahead)) < 0.5
    same = {
        kind: mean(stored()["cells"][f"masks/{s}"]["shared_with_fisher"][f"fisher_{kind}/0.005"] for s in range(5))
        for kind in ("shuffled", "trained_head")
    }
    return [
        f"with every seed, {percent(at('fisher_each/0.001'), 1)} against {percent(at('random/0.001'), 1)}",
        f"{percent(same['shuffled'])} of the entries were the same, and they gave "
        f"{percent(at('fisher_shuffled/0.005'), 1)} instead of {percent(at('fisher/0.005'), 1)}",
        f"{percent(same['trained_head'])} were the same, and gave {percent(at('fisher_trained_head/0.005'), 1)} again",
    ]


def loud() -> list[str]:
    cells = Results.load("loud_inputs")["cells"]
    fisher, drawn = cells["fisher/0.005"], cells["random/0.005"]

    def whole(mask: dict[str, Any], *, last: bool | None = None) -> float:
        """Share in loud columns: of all blocks, of the last, or of the others."""
        mask = {name: c for name, c in mask.items() if last is None or last == (".layer.5." in name)}
        return sum(c["chosen"] * c["in_loudest"] for c in mask.values()) / sum(c["chosen"] for c in mask.values())

    def least(part: str, blocks: tuple[int, ...]) -> float:
        return min(fisher[f"bert.encoder.layer.{block}.{part}.weight"]["in_loudest"] for block in blocks)

    chosen = {last: sum(c["chosen"] for n, c in fisher.items() if last == (".layer.5." in n)) for last in (True, False)}
    assert 0.65 < chosen[True] / sum(chosen.values()) < 0.7  # "two thirds"
    assert {row[0] for row in cells["features"]["bert.encoder.layer.3.intermediate.dense.weight"][:2]} == {223, 99}
    assert at("fisher_quiet/0.005") < at("fisher/0.005")  # "no better"
    return [
        f"in the values of blocks 0 to 3 at least {100 * least('attention.self.value', (0, 1, 2, 3)) // 1:.0f} %",
        f"hold {percent(whole(fisher))} of Fisher's choice in the matrices of the blocks, and {percent(whole(drawn))}",
        f"Below the last block it is {percent(whole(fisher, last=False))}",
        f"where two thirds of the choice lie, {percent(whole(fisher, last=True))}",
        f"train: {percent(at('fisher_quiet/0.005'), 1)} at 0.5 %, no better than Fisher's "
        f"{percent(at('fisher/0.005'), 1)}",
    ]


def norms() -> list[str]:
    points("layer_norm", "random/0.001")  # "with every seed"
    drawn = stored()["cells"]["random/0.001/0"]["trainable"] - HEAD
    full, head = at("full"), at("head")
    trained = {cell: stored()["cells"][f"{cell}/0"]["trainable"] - HEAD for cell in ("layer_norm", "last/1", "bitfit")}
    assert at("last/1") < at("layer_norm") and trained["bitfit"] == 25_728
    return [
        f"BitFit goes {percent((at('bitfit') - head) / (full - head))} of the way from the head alone "
        f"({percent(head, 1)}) to full fine-tuning ({percent(full, 1)}): it has {percent(at('bitfit'), 1)}",
        f"are {trained['layer_norm']:,} numbers and reach {percent(at('layer_norm'), 1)}",
        f"more than a random mask of {drawn:,} (of which {percent(dead('random/0.001'))} are dead)",
        f"here it stays {100 * (full - at('bitfit')):.1f} points below",
        f"A whole block, {trained['last/1'] / 1e6:.1f} million numbers, does no better",
        f"LayerNorms bring {percent((at('layer_norm') - head) / (full - head))} of what training all "
        f"{encoder_size(stored()) / 1e6:.1f} million adds",
    ]


def costs() -> list[str]:
    cells = Results.load("selective_steps")["cells"]
    passes, step = cells["forward_backward"], cells["step"]
    peak = {arm: cells[f"bytes/{arm}"]["peak"] / 1e6 for arm in passes}
    states = {arm: cells[f"bytes/{arm}"]["states"] / 1e6 for arm in passes}
    n, few = encoder_size(stored()), round(0.005 * encoder_size(stored()))
    lora = stored()["cells"]["lora_qv/8/0"]["trainable"] - HEAD
    assert abs(8 * few / (4 * n) - 0.01) < 1e-6  # "make 1 % of the model's bytes"
    assert 0.9 < passes["random/0.005"] / passes["full"] < 1.1  # "about as long"
    return [
        f"The whole step took about {percent(step['random/0.005'] / step['full'])}",
        f"BitFit's passes took {percent(passes['bitfit'] / passes['full'])}",
        f"The last block's took {percent(passes['last/1'] / passes['full'])}",
        f"shrinks from {states['full']:.0f} MB to {states['random/0.005']:.1f} MB",
        f"The peak falls from {peak['full']:.0f} MB to {peak['random/0.005']:.0f} MB, less far than with LoRA on query "
        f"and value ({peak['lora_qv/8']:.0f} MB)",
        "0.5 % of the numbers make 1 % of the model's bytes",
        f"trains {lora:,} numbers and needs no places: {4 * lora / 1e6:.1f} MB "
        f"(a mask of as many: {8 * lora / 1e6:.1f} MB)",
    ]


def asked() -> list[str]:
    """What the predictions compute themselves from the same results."""
    said = [each.says() if callable(each.says) else each.says for each in lesson_05.PREDICTIONS]
    truths = [each.truth() if callable(each.truth) else each.truth for each in lesson_05.PREDICTIONS]
    assert truths == [2, 2, 2, 2]
    return said
