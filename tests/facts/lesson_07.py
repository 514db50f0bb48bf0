"""Lesson 07: what its prose may quote, from data/results."""

from __future__ import annotations

from statistics import mean

from peftlab.bench.results import Results
from peftlab.course.questions import lesson_07
from peftlab.show.work_figures import BATCHES, TASKS, ratio, seeds
from tests.facts import percent

NAME = "07_lora_at_work"
# Section numbers, versions, weights, guesses offered to the reader.
NOT_MEASURED = {"4.1", "3.0", "0.5", "1.0", "1", "10", "50", "200"}


def facts() -> list[str]:
    trained, answered = Results.load("three_tasks"), Results.load("adapters")
    cells = answered["cells"]
    gpu = Results.load("lora_latency_gpu")

    def loss(cell: str) -> float:
        found = seeds(trained, cell)
        assert len(found) == 3
        return mean(run["loss"] for run in found)

    def times(targets: str, variant: str = "unmerged") -> list[float]:
        works = ("read", "write")
        return [ratio(gpu, "cuda", targets, work, batch, variant) for work in works for batch in BATCHES]

    joint = {task: mean(run[task]["loss"] for run in seeds(trained, "joint/all")) for task in TASKS}
    for kind, candidates in trained["settings"]["candidates"].items():
        chosen = {run["lr"] for task in TASKS for run in seeds(trained, f"{kind}/{task}")}
        assert chosen == {max(candidates)}  # "the largest that was tried"
    way_back = cells["way_back"]
    bf16 = {task: cells[f"bf16/{task}"] for task in TASKS}
    worst = max(abs(found["merged"]["loss"] - found["unmerged"]["loss"]) for found in bf16.values())
    half = {task: cells[f"combine/cat/define+topic/0.5/{task}"] for task in ("define", "topic")}
    whole = {task: cells[f"combine/cat/define+topic/1.0/{task}"] for task in ("define", "topic")}
    three = {how: cells[f"combine/{how}/define+topic+reverse/1.0/topic"]["right"] for how in ("cat", "linear")}
    exact = [key for key in cells if key.startswith("combine/cat/")]
    better = [cells[key]["loss"] < cells[key.replace("/cat/", "/linear/")]["loss"] for key in exact]
    assert 0.6 < mean(better) < 1  # "in most places, though not in all"
    assert whole["define"]["loss"] > cells["base/define"]["loss"]  # "worse than with no adapter at all"
    run = trained["cells"]["lora/define/0"]
    share = run["trainable"] / (run["total"] - run["trainable"])
    return [
        f"with {percent(share, 2)} as many new numbers as the model has",
        f"LoRA reaches {loss('lora/define'):.2f} in defining, full fine-tuning {loss('full/define'):.2f}",
        f"in naming topics it is {loss('lora/topic'):.2f} against {loss('full/topic'):.2f}",
        f"finding words {loss('lora/reverse'):.2f} against {loss('full/reverse'):.2f}",
        f"One adapter for all three jobs, with three times the steps, gets to {joint['define']:.2f}, "
        f"{joint['topic']:.2f} and {joint['reverse']:.2f}",
        f"names the topic in {percent(cells['base/topic']['right'])} of cases, with eight examples in its prompt in "
        f"{percent(cells['examples/topic']['right'])}, and with its adapter in "
        f"{percent(cells['topic/topic']['right'])}",
        f"The right word comes in {percent(cells['reverse/reverse']['right'])} of cases",
        f"On an H100, an unmerged LoRA on query and value makes a forward pass {min(times('qv')):.1f} to "
        f"{max(times('qv')):.1f} times as long, on all seven matrices of a block {min(times('all')):.1f} to "
        f"{max(times('all')):.1f} times",
        f"We measured {100 * ratio(gpu, 'cuda', 'qv', 'read', 1, 'unmerged') - 100:.0f} %, on one H100",
        f"no adapter at all takes between {min(times('qv', 'base')):.2f} and {max(times('qv', 'base')):.2f}",
        f"{min(times('qv', 'routed')):.1f} to {max(times('qv', 'routed')):.1f} times",
        f"{percent(way_back['torch.bfloat16']['back'])} of the weights are back in bfloat16, "
        f"{percent(way_back['torch.float32']['back'])} in 32 bits",
        f"{percent(way_back['torch.bfloat16']['unmoved'])} of the bfloat16 weights never moved",
        f"differ by at most {worst:.3f} nats",
        f"half of each keeps {lesson_07.kept('define'):.0f} % of what the adapter gained in defining words, and "
        f"{lesson_07.kept('topic'):.0f} % in naming topics",
        f"names the topic in {percent(half['topic']['right'])} of cases, the adapter alone in "
        f"{percent(cells['topic/topic']['right'])}",
        f"With weights of 1 the loss in defining is {whole['define']['loss']:.2f}, and the base without any adapter "
        f"has {cells['base/define']['loss']:.2f}",
        f"the exact sum of all three, weights 1, names the topic in {percent(three['cat'])} of cases, 'linear' in "
        f"{percent(three['linear'])}",
    ]
