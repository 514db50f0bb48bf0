"""Lesson 04: what it says about stored soft prompts, about the kept ones, and about the time they take."""

from __future__ import annotations

from statistics import mean

from peftlab.bench.results import Results
from peftlab.course.questions import lesson_04
from peftlab.show.prompt_figures import CEILING, STARTS, chosen, tried
from peftlab.show.work_figures import seeds
from peftlab.tasks.datasets import data_folder

NAME = "04_soft_prompts"
# Learning rates, losses and guesses offered to the reader, bounds in words, arithmetic about Adam's steps.
NOT_MEASURED = {
    "0.004",
    "0.3",
    "0.01",
    "0.08",
    "0.003",
    "0.03",
    "0.1",
    "60",
    "0.06",
    "0.0002",
    "4.9",
    "4.2",
    "3.9",
    "3.2",
    "3.0",
    "3.4",
    "7.4",  # a section of a paper
    "1.6",  # 52 / 32
    "4.3",  # offered
    "4.7",  # three losses that a cell measures and asserts
    "5.6",
    "2.8",  # offered
}


def facts() -> list[str]:
    return [*leaderboard(), *sweep(), *kept(), *latency()]


def leaderboard() -> list[str]:
    prompts, tasks = Results.load("soft_prompts"), Results.load("three_tasks")
    cells = prompts["cells"]
    none = tasks["cells"]["base/define"]["loss"]
    assert abs(none - cells["hand/0"]["test"]) < 1e-3  # the same weights in both measurements
    assert abs(cells["hand/8"]["test"] - tasks["cells"]["examples/define"]["loss"]) < 1e-3
    lora, full = ([run["loss"] for run in seeds(tasks, f"{kind}/define")] for kind in ("lora", "full"))
    assert len(lora) == len(full) == 3
    vector, twenty, prefix = (chosen(prompts, arm) for arm in ("prompt/text/1", "prompt/text/20", "prefix/real/20"))
    assert twenty.bracketed and not vector.bracketed and not prefix.bracketed
    for arm in ("prompt/text/1", "prefix/real/20"):
        assert chosen(prompts, arm).lr == max(tried(prompts, arm))  # "the best rate was the highest we tried"
    random, default = chosen(prompts, "prompt/random/20"), chosen(prompts, "prefix/random/20")
    assert cells["hand/32"]["tokens"] == 526 and prompts["settings"]["scales"][0]["steps"] == 180
    assert "one seed" in prompts["note"]
    return [
        f"the loss is {none:.2f} nats per token",
        f"526 tokens of context, bring it to {cells['hand/32']['test']:.2f}",
        f"One trained vector brings it to {vector.test:.2f}",
        f"Twenty vectors reach {twenty.test:.2f}",
        f"reaches {prefix.test:.2f}, and LoRA with twice as many numbers has {mean(lora):.2f} too",
        f"Full fine-tuning has {mean(full):.2f}",
        f"the gap from a random start was {random.test - mean(lora):.2f}",
        f"LoRA's three seeds differ by {max(lora) - min(lora):.2f}",
        f"No prompt {none:.2f}; one typed example {cells['hand/1']['test']:.2f}, eight {cells['hand/8']['test']:.2f}, "
        f"thirty-two {cells['hand/32']['test']:.2f}",
        f"a prompt of one vector {vector.test:.2f}, of twenty {random.test:.2f} from a random start and "
        f"{twenty.test:.2f} from a text; a prefix of twenty {default.test:.2f} from peft's random start and "
        f"{prefix.test:.2f} from a text's keys and values. LoRA {mean(lora):.2f} and full fine-tuning {mean(full):.2f}",
    ]


def sweep() -> list[str]:
    prompts, tasks = Results.load("soft_prompts"), Results.load("three_tasks")
    best = {start: chosen(prompts, f"prompt/{start}/20") for start in STARTS["prompt"]}
    assert all(each.bracketed for each in best.values())
    inside = [
        run["validation"]
        for start in best
        for lr, run in tried(prompts, f"prompt/{start}/20").items()
        if 0.01 <= lr <= 0.3
    ]
    assert max(inside) - min(inside) < 0.08 and len(inside) == 14  # "all runs lie within 0.08"
    lora = {run["lr"] for run in seeds(tasks, "lora/define")}
    default, real, network, zero = (
        chosen(prompts, f"prefix/{start}/20") for start in ("random", "real", "projection", "zero")
    )
    assert zero.bracketed and network.bracketed and default.bracketed
    default_runs = {lr: run["validation"] for lr, run in tried(prompts, "prefix/random/20").items()}
    assert list(default_runs) == [0.01, 0.03, 0.1] and default_runs[0.1] > CEILING
    upto_3 = [r["validation"] for s in best for lr, r in tried(prompts, f"prompt/{s}/20").items() if lr <= 3]
    assert 2.95 < min(upto_3) and max(upto_3) < 3.15
    before = {s: tried(prompts, f"prefix/{s}/20")[0.01]["before"] for s in ("random", "real")}
    none = tasks["cells"]["base/define"]["loss"]
    assert 3 < before["random"] / none < 3.3  # "three times that of no prompt"
    ends = sorted(run["test"] for run in tried(prompts, "prefix/random/20").values())
    assert len(ends) == 3 and ends[0] == default.test and ends[1] < none < ends[2]  # "worse than no prompt"
    broken = tried(prompts, "prefix/projection/20")
    assert network.lr == 0.003 and broken[0.01]["validation"] > none  # "at the next higher rate it breaks"
    return [
        f"a test loss between {min(b.test for b in best.values()):.2f} and {max(b.test for b in best.values()):.2f}",
        f"The random start wanted {best['random'].lr:g}, LoRA in the same setting {min(lora):g}",
        f"the loss *before* training is {before['random']:.2f}",
        f"one ends at a test loss of {default.test:.2f}, one at {ends[1]:.2f}, and one at {ends[2]:.2f}",
        f"it begins at {before['real']:.2f} and ends at {real.test:.2f}",
        f"here that gives {network.test:.2f}, and at the next higher rate it breaks",
        f"through a network {broken[0.001]['validation']:.2f} at 0.001, {broken[0.003]['validation']:.2f} at 0.003",
        f"falling to {real.validation:.2f} at 0.1; zeros at about {zero.validation:.2f}",
        "four starts, all between 2.95 and 3.15 from 0.003 to 3",
        f"peft's random start {default_runs[0.01]:.1f}, {default_runs[0.03]:.1f} and off the scale",
    ]


def kept() -> list[str]:
    cells, lora = Results.load("kept_prompts")["cells"], Results.load("adapters")["cells"]
    prompt, prefix = cells["prompt/text/20/0.03"], cells["prefix/real/20/0.03"]
    random, fast = cells["prompt/random/20/0.004"], cells["prompt/random/20/0.3"]
    assert random["before"] == fast["before"]  # "from one random start"
    nearest = [row[0] for row in fast["nearest"]]
    assert [word for word, _ in nearest[:3]] == [" ideal", " <", "buff"]
    assert 1.9 < fast["norms"][2] / fast["norms"][0] < 2.1  # "by twice their length"
    long, _, went = random["norms"]
    assert prompt["before"] == prefix["before"]  # "before training both had"
    sizes = {
        name: (data_folder() / "adapters" / name / "adapter_model.safetensors").stat().st_size
        for name in ("define_prompt", "define_prefix", "define")
    }
    length, _, moved = prompt["norms"]
    assert moved > length  # "further than it was long"
    return [
        f"the three have {prompt['test']:.2f} (prompt), {prefix['test']:.2f} (prefix) and "
        f"{lora['define/define']['loss']:.2f} (LoRA), and with nothing in front the loss is "
        f"{lora['base/define']['loss']:.2f}",
        f"{sizes['define_prompt'] / 1e3:.0f} kB, {sizes['define_prefix'] / 1e6:.1f} MB and "
        f"{sizes['define'] / 1e6:.1f} MB",
        f"a vector started with a length of {length:.1f} and has moved by {moved:.1f}",
        f"LoRA's rate ends at {random['test']:.2f}, a rate of 0.3 at {fast['test']:.2f}",
        f"A start from a text with its best rate: {prompt['test']:.2f}",
        f"its vectors, {long:.1f} long, moved by only {went:.1f}, and that brought the loss from "
        f"{random['before']:.2f} to {random['test']:.2f}",
        f"with cosines of {min(c for _, c in nearest):.2f} to {max(c for _, c in nearest):.2f}",
        f"{20 * 30 * 2 * 192 * 4 / 1e6:.1f} MB in 32 bits",
    ]


def latency() -> list[str]:
    works, batches, lengths = ("read", "write"), (1, 4, 16, 32), (20, 100)
    found = [lesson_04.extra(batch, n, work) for work in works for batch in batches for n in lengths]
    assert abs(lesson_04.extra(1, 20)) < 5  # the prediction: "not measurably longer"
    signs = {batch: {lesson_04.extra(batch, n, w) > 0 for w in works for n in lengths} for batch in batches}
    assert signs[4] == {True, False} and signs[16] == signs[32] == {True}
    return [
        f"change the time by {min(found):.0f} % to +{max(found):.0f} %",
        f"We measured {lesson_04.extra(1, 20):+.1f} %",
    ]
