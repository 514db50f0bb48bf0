"""Lesson 07: what its prose may quote, from data/results."""

from __future__ import annotations

from collections import Counter
from math import log
from statistics import mean, median
from typing import Any

from peftlab.bench.results import Results
from peftlab.bench.three_tasks import SHOTS, splits
from peftlab.course.questions import lesson_07
from peftlab.show.work_figures import BATCHES, TASKS, ratio, seeds
from peftlab.tasks.datasets import data_folder
from tests.facts import percent

NAME = "07_lora_at_work"
# Section numbers, versions, weights, guesses offered to the reader.
NOT_MEASURED = {"4.1", "3.0", "0.5", "1.0", "1", "10", "50", "200", "0.95", "1.05", "0.75"}
BASE_NUMBERS, VOCABULARY = 134_515_008, 49_152  # SmolLM2
BLOCK = {"q": (576, 576), "k": (576, 192), "v": (576, 192), "o": (576, 576),
         "gate": (576, 1536), "up": (576, 1536), "down": (1536, 576)}  # fmt: skip  # SmolLM2: (d_in, d_out)
WORKS = ("read", "write")
DEVICES = {"cuda": "lora_latency_gpu", "cpu": "lora_latency"}


def facts() -> list[str]:
    return [*trained(), *timed(), *merged(), *combined()]


def trained() -> list[str]:
    """LoRA beside full fine-tuning, and the stored adapters' answers."""
    runs, cells = Results.load("three_tasks"), Results.load("adapters")["cells"]
    losses = {f"{kind}/{t}": _losses(runs, f"{kind}/{t}") for kind in ("lora", "full") for t in TASKS}
    loss = {cell: mean(found) for cell, found in losses.items()}
    spread = {cell: max(found) - min(found) for cell, found in losses.items()}
    joint_runs = seeds(runs, "joint/all")
    assert len(joint_runs) == 3
    joint = {task: mean(run[task]["loss"] for run in joint_runs) for task in TASKS}

    for kind in ("lora", "full"):
        _check_inside_the_grid(runs, kind)
    ahead = loss["lora/define"] - loss["full/define"]
    assert ahead > 3 * max(spread["lora/define"], spread["full/define"])  # "several times what three seeds differ by"
    for task in ("topic", "reverse"):  # "no larger than that"
        assert abs(loss[f"lora/{task}"] - loss[f"full/{task}"]) <= max(spread[f"lora/{task}"], spread[f"full/{task}"])
    assert all(abs(joint[task] - loss[f"lora/{task}"]) < 0.05 for task in TASKS)  # "comes close everywhere"
    run = runs["cells"]["lora/define/0"]
    share = run["trainable"] / (run["total"] - run["trainable"])
    sizes = {path.stat().st_size for path in (data_folder() / "adapters").glob("*/adapter_model.safetensors")}
    topics = splits("topic")
    shown, asked = set(topics["train"].completions[:SHOTS]), Counter(topics["test"].completions[:100])
    assert len(shown) == 8 and len(asked) == 12
    guessing = 1 / len(asked)
    assert abs(cells["examples_of_each/topic"]["right"] - guessing) < 0.02  # "about as often as by guessing"
    return [
        f"takes as much disk as {4 * BASE_NUMBERS // max(sizes)} such files",
        f"{log(VOCABULARY):.1f} nats is guessing among all {VOCABULARY:,} tokens",
        f"with {percent(share, 2)} as many new numbers as the model has",
        f"names the topic in {percent(cells['base/topic']['right'])} of cases, and with its adapter in "
        f"{percent(cells['topic/topic']['right'])}",
        f"Eight examples in the prompt give {percent(cells['examples/topic']['right'])}",
        f"{sum(count for topic, count in asked.items() if topic not in shown)} of the 100 questions",
        f"With twelve, one for each topic, it is {percent(cells['examples_of_each/topic']['right'])}",
        f"and no synonym, comes in {percent(cells['reverse/reverse']['right'])} of cases",
    ]


def _losses(runs: dict[str, Any], cell: str) -> list[float]:
    found = [run["loss"] for run in seeds(runs, cell)]
    assert len(found) == 3
    return found


def _check_inside_the_grid(runs: dict[str, Any], kind: str) -> None:
    """No chosen learning rate is the largest or the smallest that was tried."""
    candidates = runs["settings"]["candidates"][kind]
    for task in TASKS:
        (chosen,) = {run["lr"] for run in seeds(runs, f"{kind}/{task}")}
        assert min(candidates) < chosen < max(candidates)


def timed() -> list[str]:
    """The cost of an unmerged adapter on two machines."""
    stored = {device: Results.load(name) for device, name in DEVICES.items()}

    def ratios(device: str, targets: str, variant: str = "unmerged") -> list[float]:
        return [ratio(stored[device], device, targets, work, batch, variant) for work in WORKS for batch in BATCHES]

    def span(device: str, targets: str, variant: str = "unmerged") -> str:
        found = ratios(device, targets, variant)
        return f"{min(found):.1f} to {max(found):.1f} times"

    def noise(device: str) -> str:
        return percent(max(abs(1 - found) for targets in ("qv", "all") for found in ratios(device, targets, "base")))

    def rows_32_over_1(device: str, targets: str = "qv") -> float:
        found = stored[device]["cells"]
        return found[f"{device}/{targets}/read/32"]["merged"] / found[f"{device}/{targets}/read/1"]["merged"]

    def more(targets: str) -> float:
        """Multiplications of LoRA, r = 8, over those of a block's seven matrices."""
        thin = sum(8 * (d_in + d_out) for name, (d_in, d_out) in BLOCK.items() if targets == "all" or name in "qv")
        return thin / sum(d_in * d_out for d_in, d_out in BLOCK.values())

    on_cpu = ratios("cpu", "qv")
    routed, single = (ratio(stored["cuda"], "cuda", "qv", "read", 1, v) for v in ("routed", "unmerged"))
    assert routed > 1.1 * single  # "Routing costs more, even for one row"
    assert more("qv") < 0.01  # the prediction: "less than one part in a hundred"
    return [
        *(
            f"| {what} | {span('cuda', targets, variant)} | {span('cpu', targets, variant)} |"
            for what, targets, variant in (
                ("one unmerged, on query and value", "qv", "unmerged"),
                ("one unmerged, on all seven matrices of a block", "all", "unmerged"),
                ("three routed, on query and value", "qv", "routed"),
            )
        ),
        f"| no adapter: off by, which is noise | up to {noise('cuda')} | up to {noise('cpu')} |",
        f"{sum(found > 1 for found in on_cpu)} of the {len(on_cpu)} lie above 1, the median "
        f"{percent(median(on_cpu) - 1)} above",
        f"{percent(more('qv'), 1)} more multiplications in the blocks on query and value, {percent(more('all'), 1)} on "
        "all seven matrices",
        f"about as long as reading one ({rows_32_over_1('cuda', 'all'):.1f} and {rows_32_over_1('cuda'):.1f} times, in",
        f"The CPU, all in 32 bits, takes {rows_32_over_1('cpu'):.0f} times as long",
        f"We measured {100 * ratio(stored['cuda'], 'cuda', 'qv', 'read', 1, 'unmerged') - 100:.0f} %, on one H100",
    ]


def merged() -> list[str]:
    """What rounding does to the way back, and to the answers."""
    cells = Results.load("adapters")["cells"]
    way_back = cells["way_back"]
    bf16 = [cells[f"bf16/{task}"] for task in TASKS]
    worst = max(abs(found["merged"]["loss"] - found["unmerged"]["loss"]) for found in bf16)
    drift = {f"{dtype}/{who}": cells[f"drift/torch.{dtype}/{who}"]
             for dtype in ("bfloat16", "float32") for who in ("one", "in turn")}  # fmt: skip
    one, turns = drift["bfloat16/one"], drift["bfloat16/in turn"]
    assert one["repeating"] == turns["repeating"] == 1  # "a state that repeats"
    assert max(off for who in ("one", "in turn") for off in drift[f"float32/{who}"]["off"].values()) < 0.0002
    swapped = cells["after_swaps"]
    assert all(abs(swapped["after"][task] - swapped["before"][task]) < 0.01 for task in TASKS)  # "Hardly"

    def losses(when: str) -> str:
        first, second, third = (f"{swapped[when][task]:.2f}" for task in TASKS)
        return f"{first}, {second} and {third}"

    return [
        f"{percent(way_back['torch.bfloat16']['back'])} of the weights are back in bfloat16, "
        f"{percent(way_back['torch.float32']['back'])} in 32 bits",
        f"In 32 bits it is {percent(way_back['torch.float32']['back'])}",
        f"that takes {one['settled']} swaps with one adapter and {turns['settled']} with three in turn, and the base "
        f"is off by {percent(one['off']['3000'], 1)} and {percent(turns['off']['3000'], 1)} of one",
        f"losses of {losses('after')}; before, {losses('before')}",
        f"{percent(way_back['torch.bfloat16']['unmoved'], 1)} of the bfloat16 weights never moved",
        f"the table's {cells['topic/topic']['loss']:.2f} is of a hundred",
        f"differ by at most {worst:.3f} nats",
    ]


def combined() -> list[str]:
    """Weighted sums of the stored adapters."""
    cells = Results.load("adapters")["cells"]
    half, pair = cells["combine/cat/define+topic/0.5/topic"], cells["combine/cat/define+reverse/0.5/reverse"]
    whole, paired = cells["combine/cat/define+topic/1.0/define"], cells["paired/define+topic/define"]
    three = {how: cells[f"combine/{how}/define+topic+reverse/1.0/topic"]["right"] for how in ("cat", "linear")}
    exact = [key for key in cells if key.startswith("combine/cat/") and "/0.75/" not in key]
    lower = {key: cells[key]["loss"] < cells[key.replace("/cat/", "/linear/")]["loss"] for key in exact}
    exception, better = "combine/cat/topic+reverse/0.5/topic", sum(lower.values())
    assert [key for key, found in lower.items() if not found] == [exception]
    assert paired["lowest"] < 0 < paired["highest"]  # "cannot tell these apart"
    norms = cells["norms"]
    assert norms["topic"] > norms["reverse"] > norms["define"]
    larger = norms["linear/exact topic+reverse"]
    assert abs(0.5 * larger - 0.75) < 0.01  # "An exact sum of that size (weights 0.75)"
    linear, sized = cells[exception.replace("/cat/", "/linear/")], cells[exception.replace("/0.5/", "/0.75/")]

    def keeps(pair: str) -> str:
        first, second = (lesson_07.kept(task, pair) for task in pair.split("+"))
        return f"keeps {first:.0f} % and {second:.0f} %"

    return [
        f"{keeps('define+reverse')} of what the adapters gained. The right word comes in {percent(pair['right'])} of "
        f"cases (alone {percent(cells['reverse/reverse']['right'])})",
        f"{keeps('define+topic')}. The second number flatters: the right topic comes in {percent(half['right'])} of "
        f"cases (alone {percent(cells['topic/topic']['right'])})",
        f"has a loss of {whole['loss']:.2f} in defining",
        f"no adapter at all ({cells['base/define']['loss']:.2f}, and",
        f"the difference is {paired['difference']:.2f}, its 95 % interval −{-paired['lowest']:.2f} to "
        f"{paired['highest']:.2f}",
        f"is {norms['topic']:.1f}, that of `reverse` {norms['reverse']:.1f} and of `define` {norms['define']:.1f}",
        f"in {better} of {len(exact)} places",
        f"All three adapters, weights 1, name the topic in {percent(three['cat'])} of cases as an exact sum, in "
        f"{percent(three['linear'])} as 'linear'",
        f"on `topic`: {linear['loss']:.2f} against {cells[exception]['loss']:.2f}",
        f"cross terms make the change {larger:.1f} times as large, and an exact sum of that size (weights 0.75) has "
        f"{sized['loss']:.2f}",
        f"the sum goes {lesson_07.kept('define'):.0f} % in defining and {lesson_07.kept('topic'):.0f} % in naming",
    ]
