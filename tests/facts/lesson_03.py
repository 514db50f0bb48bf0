"""Lesson 03: what its prose may quote, from data/results."""

from __future__ import annotations

from statistics import mean, median
from typing import Any

from peftlab.bench.results import Results
from peftlab.course.questions import lesson_03
from peftlab.show.adapter_figures import VARIANTS, places_measured, ratio, ratios, runs
from peftlab.show.lora_figures import accuracies
from tests.facts import percent

NAME = "03_adapters"
# Versions, settings that are tried live, and guesses offered to the reader. Then others' numbers, with their source in
# the paragraph.
OFFERED = {"8", "60", "80", "85", "1", "10", "200"}
NOT_MEASURED = {"3.0", "0.02", "0.05"} | OFFERED | {"30", "3"}
D, M, BLOCKS = 384, 16, 6
SEEDS = 3
HEAD = 12 * D + 12


def facts() -> list[str]:
    return [*counted(), *trained(), *merged(), *timed()]


def counted() -> list[str]:
    """What is arithmetic."""
    blocks = BLOCKS * (4 * D * D + 2 * D * 4 * D)
    share = 2 * BLOCKS * 2 * D * M / blocks
    thin = 12 * (2 * (D + 12) + 12 + D) + 4**3  # Compacter: thin pieces and biases, and the shared factors once
    return [
        f"with m = 16 add {percent(share, 1)} to the multiplications of the blocks",
        f"They add {percent(share, 1)} to the multiplications in every case",
        f"width 12 take {thin:,} numbers; Houlsby's of that width take {12 * (2 * D * 12 + 12 + D):,}",
    ]


def _cells() -> dict[str, Any]:
    return Results.load("adapter_widths")["cells"]


def _runs(arm: str, m: int) -> list[dict[str, Any]]:
    found = runs(Results.load("adapter_widths"), arm, m)
    assert len(found) == SEEDS, f"{arm} at {m} has {len(found)} seeds"
    return found


def _accuracy(arm: str, m: int) -> float:
    return mean(run["accuracy"] for run in _runs(arm, m))


def _other(cell: str) -> float:
    found = accuracies(Results.load("scissors"), cell)
    assert len(found) == 5  # "five for the others"
    return mean(found)


def _seeds() -> list[list[float]]:
    """The accuracies of each row of adapters."""
    rows = (("houlsby", 1), ("houlsby", 16), ("houlsby", 64), ("pfeiffer", 16), ("parallel", 16), ("compacter", 12))
    return [[run["accuracy"] for run in _runs(arm, m)] for arm, m in rows]


def _inside_the_grid(arm: str) -> None:
    """The chosen learning rate was neither the largest nor the smallest that was tried."""
    tried = {float(key.split("/")[2]): found for key, found in _cells().items() if key.startswith(f"choose/{arm}/")}
    best = max(tried, key=tried.get)
    assert min(tried) < best < max(tried), f"{arm}: {tried}"


def trained() -> list[str]:
    """Adapters of several widths beside the head alone, LoRA and full fine-tuning."""
    _inside_the_grid("houlsby")
    reached = {m: _accuracy("houlsby", m) for m in (1, 16, 64)}
    assert max(reached.values()) - min(reached.values()) < 0.01  # "hardly matters"
    way = (reached[1] - _other("head")) / (_other("full") - _other("head"))
    assert 0.77 < way < 0.83  # "about four fifths of the way"
    others = {arm: _accuracy(arm, m) for arm, m in (("pfeiffer", 16), ("parallel", 16), ("compacter", 12))}
    for arm, value in others.items():  # "No difference between the places shows"
        _inside_the_grid(arm)
        assert abs(value - reached[16]) < 0.01
    size = {arm: _runs(arm, 12 if arm == "compacter" else M)[0]["trainable"] - HEAD for arm in (*others, "houlsby")}
    assert size["pfeiffer"] * 2 == size["houlsby"] and abs(size["parallel"] * 2 / size["houlsby"] - 1) < 0.01
    assert 0.09 < size["compacter"] / size["houlsby"] < 0.11  # "with a tenth"
    every = [*reached.values(), *others.values()]
    assert max(abs(_other("lora_qv/8") - value) for value in every) < 0.01  # "within a point of LoRA"
    ahead = [_other("lora_all/8") - value for value in every]
    seeds = [max(abs(a - b) for a in each for b in each) for each in _seeds()]
    assert 0.5 < (max(every) - min(every)) / mean(seeds) < 1.5  # "by about as much as the seeds do"
    assert max(every) - min(every) < 0.01  # "less than the error of 1,200 texts, about one point"
    thin = _runs("houlsby", 1)[0]["trainable"] - HEAD
    assert thin == 12 * (2 * D + 1 + D)
    return [
        f"they reach {percent(reached[1], 1)}, with 16 {percent(reached[16], 1)}, with 64 {percent(reached[64], 1)}",
        f"The head alone has {percent(_other('head'), 1)}, LoRA on query and value {percent(_other('lora_qv/8'), 1)}, "
        f"on all matrices with r=8 {percent(_other('lora_all/8'), 1)}, full fine-tuning {percent(_other('full'), 1)}",
        f"{thin:,} parameters",
        f"Pfeiffer's adapters reach {percent(others['pfeiffer'], 1)} and the parallel ones "
        f"{percent(others['parallel'], 1)}, both with",
        f"reaches {percent(others['compacter'], 1)} with a tenth",
        f"was ahead of them by {100 * min(ahead):.1f} to {100 * max(ahead):.1f} points",
        f"lies a little higher and ends at {_other('lora_all/8'):.2f}",
        f"form a flat line at about {mean(reached.values()):.2f}",
        f"A dotted line for the head alone lies at {_other('head'):.2f}, a solid one for full fine-tuning at "
        f"{_other('full'):.2f}",
    ]


def merged() -> list[str]:
    """What is left with something else in the adapters' place."""
    found = _runs("houlsby", M)
    assert all(len(run["explained"]) == 12 for run in found)
    of_all = {name: [v for run in found for v in run[name].values()] for name in ("explained", "explained_verses")}
    middle = {name: median(values) for name, values in of_all.items()}
    below = sum(value < 0 for run in found for value in run["explained_verses"].values())
    assert 0.4 < middle["explained"] < 0.6  # "about half of what differs"
    resting = [share for run in found for share in run["at_rest"].values()]
    made_up = {name: 1 - mean(mean(run["left_over"][name].values()) for run in found) for name in ("map", "mean")}
    verses = {name: mean(run["same_answer_verses"][name] for run in found) for name in ("map", "mean", "nothing")}
    shares = sorted(share for run in found for each in run["units"].values() for share in each)
    assert len(shares) == 576 and max(shares) < 1
    right = {name: mean(run["replaced_by"][name] for run in found) for name in ("map", "mean", "nothing")}
    same = {name: mean(run["same_answer"][name] for run in found) for name in ("map", "mean", "nothing")}
    reached, constant = _accuracy("houlsby", M), _accuracy("constant", M)
    _inside_the_grid("constant")
    assert abs(constant - reached) < 0.01  # "as much as the whole adapters"
    assert right["nothing"] < _other("head")
    linear = [_cells()[f"merge/linear/{seed}"] for seed in range(SEEDS)]
    assert all(run["accuracy"] == run["merged_exactly"] for run in linear)
    assert abs(lesson_03.points_without_f()) < 1
    return [
        f"of 576 in three runs {sum(s == 0 for s in shares)} are always off, and the median unit is on for "
        f"{percent(shares[288])} of the tokens",
        f"For {percent(min(resting))} to {percent(max(resting))} of the tokens, by adapter, *no* unit is on",
        f"the median of the 36 adapters is {middle['explained']:.2f} on other definitions and "
        f"{middle['explained_verses']:.2f} on Bible verses, where {below} lie below zero",
        f"their mean alone makes up {percent(made_up['mean'])}, the map {percent(made_up['map'])}",
        f"the maps keep {percent(verses['map'])} of the answers, the means {percent(verses['mean'])}, "
        f"nothing {percent(verses['nothing'])}",
        f"with the adapters {percent(reached, 1)} are right, with the maps {percent(right['map'], 1)}, and "
        f"{percent(same['map'])} of the answers are the same",
        f"the means give {percent(right['mean'], 1)} and {percent(same['mean'])} of the answers",
        f"Without any, {percent(right['nothing'], 1)} are left",
        f"the {percent(_other('head'), 1)} of a head that was trained alone",
        f"{12 * D:,} numbers in all. They reach {percent(constant, 1)}",
        f"{percent(mean(run['accuracy'] for run in linear), 1)} without the bend, {percent(reached, 1)} with it",
    ]


def timed() -> list[str]:
    """What each kind of adapter costs in a forward pass, in two sessions."""
    stored = Results.load("adapter_latency")
    sizes = {model: list(places_measured(stored, model)) for model in ("minilm", "smollm2")}
    every = [cell for cells in sizes.values() for cell in cells]
    assert all(len(ratios(stored, cell, "base")) == 2 for cell in every)
    assert len(sizes["minilm"]) == 8 and len(sizes["smollm2"]) == 3

    def extra(variant: str, cell: str = "minilm/1x32") -> str:
        return percent(ratio(stored, cell, variant) - 1)

    def seen(*variants: str, cells: list[str] = sizes["minilm"]) -> list[float]:
        return [found for cell in cells for variant in variants for found in ratios(stored, cell, variant)]

    noise = max(abs(found - 1) for found in seen("again", "merged", cells=every))
    assert noise < 0.05  # "stay within 5 % of 1"
    pairs = [ratios(stored, cell, variant) for cell in every for variant in VARIANTS]
    moved = max(abs(one - two) for one, two in pairs)
    for cell in every:
        assert ratio(stored, cell, "lora_all") > ratio(stored, cell, "houlsby")  # "at every size"
        slower = [ratio(stored, cell, variant) for variant in ("houlsby", "pfeiffer", "parallel")]
        assert ratio(stored, cell, "compacter") > max(slower)  # "the slowest adapter"
    everywhere = [ratio(stored, cell, "lora_all") - 1 for cell in sizes["minilm"]]
    thin, whole, compact = seen("pfeiffer", "parallel", "houlsby", "lora_qv"), seen("lora_all"), seen("compacter")
    smaller = [ratio(stored, "smollm2/1x32", v) < ratio(stored, "minilm/1x32", v) for v in ("houlsby", "lora_all")]
    assert all(smaller)  # "the distances are smaller"
    return [
        "the grey rows stay within 5 % of 1",
        f"single ratios moved by up to {100 * moved:.0f} points",
        f"one text of 32 tokens {extra('houlsby')} slower, 8 of them {extra('houlsby', 'minilm/8x32')}, "
        f"32 of them {extra('houlsby', 'minilm/32x32')}",
        f"Compacter is the slowest adapter, {extra('compacter')}",
        f"costs {extra('lora_qv')} for the one text",
        f"it costs {percent(min(everywhere))} to {percent(max(everywhere))} in MiniLM",
        f"lie between {min(thin):.2f} and {max(thin):.2f} in MiniLM",
        f"LoRA on all matrices lies between {min(whole):.2f} and {max(whole):.2f}, Compacter between "
        f"{min(compact):.2f} and {max(compact):.2f}",
    ]
