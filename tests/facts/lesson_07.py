"""Lesson 07: what its prose may quote, from data/results."""

from __future__ import annotations

from statistics import mean, median
from typing import Any

from peftlab.bench.results import Results
from peftlab.course.questions import lesson_07
from peftlab.show.work_figures import BATCHES, TASKS, ratio, seeds
from tests.facts import percent

NAME = "07_lora_at_work"
# Section numbers, versions, weights, guesses offered to the reader.
NOT_MEASURED = {"4.1", "3.0", "0.5", "1.0", "1", "10", "50", "200"}
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

    best = {kind: _inside_the_grid(runs, kind) for kind in ("lora", "full")}
    times = [best["lora"][task] / best["full"][task] for task in TASKS]
    chosen = {kind: [f"{lr:.4f}".rstrip("0") for lr in sorted(set(best[kind].values()))] for kind in best}
    highest = max(runs["settings"]["candidates"]["lora"])
    tried = {lr: runs["cells"][f"choose/joint/all/{lr}"] for lr in runs["settings"]["candidates"]["lora"]}
    best_joint = min(tried, key=lambda lr: sum(found["loss"] for found in tried[lr].values()))
    assert highest / best_joint == 4  # "four times its best"
    assert tried[highest]["define"]["loss"] > runs["cells"]["base/define"]["loss"]

    ahead = loss["lora/define"] - loss["full/define"]
    assert ahead > 3 * max(spread["lora/define"], spread["full/define"])  # "several times what three seeds differ by"
    for task in ("topic", "reverse"):  # "no larger than that"
        assert abs(loss[f"lora/{task}"] - loss[f"full/{task}"]) <= max(spread[f"lora/{task}"], spread[f"full/{task}"])
    run = runs["cells"]["lora/define/0"]
    share = run["trainable"] / (run["total"] - run["trainable"])
    return [
        f"with {percent(share, 2)} as many new numbers as the model has",
        f"LoRA reaches {loss['lora/define']:.2f} in defining, full fine-tuning {loss['full/define']:.2f}",
        f"in naming topics it is {loss['lora/topic']:.2f} against {loss['full/topic']:.2f}",
        f"finding words {loss['lora/reverse']:.2f} against {loss['full/reverse']:.2f}",
        f"One adapter for all three jobs, with three times the steps, gets to {joint['define']:.2f}, "
        f"{joint['topic']:.2f} and {joint['reverse']:.2f}",
        f"The best were {' or '.join(chosen['lora'])} for LoRA and {' or '.join(chosen['full'])} for full fine-tuning, "
        f"so LoRA wants {min(times):.0f} to {max(times):.0f} times more",
        f"at {highest:.3f}, four times its best, the adapter for all three jobs has "
        f"{tried[highest]['define']['loss']:.2f} in defining (one run, validation data). The base with no training at "
        f"all has {runs['cells']['base/define']['loss']:.2f}",
        f"names the topic in {percent(cells['base/topic']['right'])} of cases, with eight examples in its prompt in "
        f"{percent(cells['examples/topic']['right'])}, and with its adapter in "
        f"{percent(cells['topic/topic']['right'])}",
        f"The right word comes in {percent(cells['reverse/reverse']['right'])} of cases",
    ]


def _losses(runs: dict[str, Any], cell: str) -> list[float]:
    found = [run["loss"] for run in seeds(runs, cell)]
    assert len(found) == 3
    return found


def _inside_the_grid(runs: dict[str, Any], kind: str) -> dict[str, float]:
    """The chosen learning rate of each task. None of them is the largest or the smallest that was tried."""
    candidates = runs["settings"]["candidates"][kind]
    chosen = {task: {run["lr"] for run in seeds(runs, f"{kind}/{task}")} for task in TASKS}
    assert all(len(rates) == 1 for rates in chosen.values())
    best = {task: min(rates) for task, rates in chosen.items()}
    assert all(min(candidates) < lr < max(candidates) for lr in best.values())
    return best


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

    def rows_32_over_1(device: str) -> float:
        found = stored[device]["cells"]
        return found[f"{device}/qv/read/32"]["merged"] / found[f"{device}/qv/read/1"]["merged"]

    def more(targets: str) -> float:
        """Multiplications of LoRA, r = 8, over those of a block's seven matrices."""
        thin = sum(8 * (d_in + d_out) for name, (d_in, d_out) in BLOCK.items() if targets == "all" or name in "qv")
        return thin / sum(d_in * d_out for d_in, d_out in BLOCK.values())

    on_cpu = ratios("cpu", "qv")
    assert min(ratios("cpu", "all")) > 1 + more("all")  # "on seven matrices it pays more"
    assert more("qv") < 0.01  # the prediction: "less than one part in a hundred"
    return [
        f"On an H100, an unmerged LoRA on query and value makes a forward pass {span('cuda', 'qv')} as long, "
        f"on all seven matrices of a block {span('cuda', 'all')}",
        f"On one thread of a CPU it is {span('cpu', 'qv')} and {span('cpu', 'all')}",
        f"up to {noise('cuda')} on the H100, up to {noise('cpu')} on the CPU, where each point is the median of five",
        f"{sum(found > 1 for found in on_cpu)} of the {len(on_cpu)} lie above 1, the middle one "
        f"{percent(median(on_cpu) - 1)} above",
        f"{percent(more('qv'), 1)} more multiplications in the blocks on query and value, {percent(more('all'), 1)} on "
        "all seven matrices",
        f"it pays more than {percent(more('all'), 1)}",
        f"Reading 32 rows takes the H100 only {rows_32_over_1('cuda'):.1f} times as long as reading one",
        f"The CPU takes {rows_32_over_1('cpu'):.0f} times as long",
        f"costs {span('cuda', 'qv', 'routed')} the merged time on the H100 and {span('cpu', 'qv', 'routed')} on the "
        "CPU",
        f"We measured {100 * ratio(stored['cuda'], 'cuda', 'qv', 'read', 1, 'unmerged') - 100:.0f} %, on one H100",
    ]


def merged() -> list[str]:
    """What rounding does to the way back, and to the answers."""
    cells = Results.load("adapters")["cells"]
    way_back = cells["way_back"]
    bf16 = [cells[f"bf16/{task}"] for task in TASKS]
    worst = max(abs(found["merged"]["loss"] - found["unmerged"]["loss"]) for found in bf16)
    return [
        f"{percent(way_back['torch.bfloat16']['back'])} of the weights are back in bfloat16, "
        f"{percent(way_back['torch.float32']['back'])} in 32 bits",
        f"{percent(way_back['torch.bfloat16']['unmoved'])} of the bfloat16 weights never moved",
        f"differ by at most {worst:.3f} nats",
    ]


def combined() -> list[str]:
    """Weighted sums of the stored adapters."""
    cells = Results.load("adapters")["cells"]
    half = cells["combine/cat/define+topic/0.5/topic"]
    whole = cells["combine/cat/define+topic/1.0/define"]
    three = {how: cells[f"combine/{how}/define+topic+reverse/1.0/topic"]["right"] for how in ("cat", "linear")}
    exact = [key for key in cells if key.startswith("combine/cat/")]
    better = [cells[key]["loss"] < cells[key.replace("/cat/", "/linear/")]["loss"] for key in exact]
    assert 0.6 < mean(better) < 1  # "in most places, though not in all"
    assert whole["loss"] > cells["base/define"]["loss"]  # "worse than with no adapter at all"
    return [
        f"Half of each keeps {lesson_07.kept('define'):.0f} % of what the adapter gained in defining words, and "
        f"{lesson_07.kept('topic'):.0f} % in naming topics",
        f"names the topic in {percent(half['right'])} of cases, the adapter alone in "
        f"{percent(cells['topic/topic']['right'])}",
        f"With weights of 1 the loss in defining is {whole['loss']:.2f}, and the base without any adapter "
        f"has {cells['base/define']['loss']:.2f}",
        f"the exact sum of all three, weights 1, names the topic in {percent(three['cat'])} of cases, 'linear' in "
        f"{percent(three['linear'])}",
    ]
