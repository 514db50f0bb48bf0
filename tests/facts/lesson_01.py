"""Lesson 01: predictions are computed anew from the configs, measurements come from data/results."""

from __future__ import annotations

from statistics import mean, median

from peftlab.bench.results import Results
from peftlab.costs import energy, flops, memory, scaling
from peftlab.costs.configs import architecture, published
from peftlab.course import ladder, wall
from peftlab.course.questions.lesson_01 import KNOWN, past_the_line, saved_by_lora_on_gpt2, speed
from peftlab.show.wall_figures import CHINCHILLA, METHOD_NAMES, peak_cells
from tests.facts import percent

NAME = "01_scaling_dilemma"
# Offered to the reader, the papers' own constants, versions of models, a GiB against a GB.
NOT_MEASURED = {"5", "95", "10", "0.34", "0.28", "0.3392", "0.2849", "1.8", "3.1", "1.5", "1.4", "7"}


def facts() -> list[str]:
    return [*walls(), *on_the_gpu(), *rungs(), *laws(), *costs()]


def walls() -> list[str]:
    def gib(model: str, method: str, again: bool = False) -> float:
        return wall.training(model, method, again, 2048).gib

    N = architecture("llama-2-7b").parameters
    lora = wall.training("llama-2-7b", "LoRA", False, 2048)
    assert lora.parts["activations"] > lora.total / 2  # "over half of that are activations"
    assert gib("llama-2-7b", "LoRA") > 23 > gib("llama-2-7b", "LoRA", True)
    assert gib("llama-2-7b", "full") == gib("llama-2-7b", "full", True)  # "it does nothing for full fine-tuning"
    gpt2 = {method: wall.training("gpt2", method, False, 2048) for method in ("full", "LoRA")}
    passing = gpt2["full"].parts["activations"] + gpt2["full"].parts["logits and loss"]
    assert 0.72 < passing / gpt2["full"].total < 0.78  # "three quarters of the 2.9"
    assert all(found.moment == "loss" for found in gpt2.values()) and not gpt2["full"].parts.get("gradients")
    in_bf16 = gpt2["LoRA"].total - fp32_copies("gpt2") - gpt2["LoRA"].parts["adapters"] / 2
    assert 2.5 < (1 - in_bf16 / gpt2["full"].total) / saved_by_lora_on_gpt2() < 3.5  # "about three times as much"
    full = wall.training("llama-2-7b", "full", False, 2048)
    assert full.moment == "end of backward" and "activations" not in full.parts
    assert memory.training("llama-2-7b", "full", batch=1, device="cpu").gib - full.gib < 0.6
    frozen = lora.parts["weights"] - wall.training("llama-2-7b", "QLoRA", False, 2048).parts["weights"]
    assert abs(2 - frozen / N - 0.574) < 0.001  # the 4-bit bytes a number in the cell after exercise 1
    assert gib("llama-3.1-70b", "QLoRA", True) < 47 < gib("llama-3.1-70b", "LoRA", True)
    assert gib("llama-3.1-70b", "QLoRA") > 47  # "only together"
    assert architecture("gpt2").vocabulary == 50_257
    assert 0.015 < wall.trained_numbers("gpt2") / architecture("gpt2").parameters < 0.025  # "2 % of them"
    assert 1 / 200 < wall.trained_numbers("llama-2-7b") / N < 1 / 100
    return [
        f"{N / 1e9:.2f} billion numbers",
        f"A GPU does that without working space: {full.gib:.1f} GiB",
        f"8 bytes a number, {8 * N / 2**30:.0f} GiB for Llama 2 7B",
        f"full fine-tuning needs {gib('gpt2', 'full'):.1f} GiB and LoRA {gib('gpt2', 'LoRA'):.1f}: a saving of "
        f"{percent(saved_by_lora_on_gpt2())}. Three quarters of the {gib('gpt2', 'full'):.1f} are",
        f"AdamW's averages are, {gpt2['full'].parts['optimiser states'] / 2**30:.2f} GiB",
        f"more* activations, {gpt2['LoRA'].parts['activations'] / 2**30:.2f} GiB against "
        f"{gpt2['full'].parts['activations'] / 2**30:.2f}",
        f"Over half are activations, and {fp32_copies('llama-2-7b') / 2**30:.1f} GiB of these the price of fp32 copies",
        f"With 2 × 512, LoRA needs {wall.training('llama-2-7b', 'LoRA', False, 1024).gib:.1f} GiB",
        f"LoRA needs {gib('llama-2-7b', 'LoRA'):.1f} GiB",
        f"and then {gib('llama-2-7b', 'LoRA', True):.1f} GiB are enough",
        f"onto 48 GiB, with {gib('llama-3.1-70b', 'QLoRA', True):.1f}; full fine-tuning would take "
        f"{gib('llama-3.1-70b', 'full'):.1f}",
        f"trains {percent(0.02)} as many",
        f"{memory.training('llama-2-7b', 'full', batch=1, device='cpu').gib:.1f} GiB, by the model's config",
        f"{100 * saved_by_lora_on_gpt2():.0f} %: from {gib('gpt2', 'full'):.1f} to {gib('gpt2', 'LoRA'):.1f} GiB",
    ]


def fp32_copies(model: str) -> float:
    """How many bytes more LoRA keeps because each adapter casts its own input, in steps of 2048 tokens."""
    a = architecture(model)
    cast = sum(4 * linear.d_in for linear in a.linears)
    inner = max(linear.d_in for linear in a.linears)
    shared = 2 * (2 * a.width + inner)  # behind both norms, and inside; the attention's output is kept anyway
    return 2048 * a.layers * (cast - shared)


def on_the_gpu() -> list[str]:
    stored = Results.load("qlora_scale")
    every = [c for k, c in stored["cells"].items() if k.split("/")[1] in METHOD_NAMES]
    worst = max(abs(cell["predicted"] / cell["measured"] - 1) for cell in every)
    ours = min(c["predicted"] / c["measured"] - 1 for k, c in stored["cells"].items() if "/qlora_ours/" in k)
    rounds = sorted(c["tokens_a_second"] for c in peak_cells(stored, "6.7B", "qlora", "checkpointing"))
    per_token = flops.training("llama-2-7b", "lora", batch=4, sequence=512).per_parameter_and_token

    def peak(shape: str, method: str, kind: str) -> str:
        return f"{median(c['measured'] for c in peak_cells(stored, shape, method, kind)) / 2**30:.1f}"

    def both(shape: str, method: str) -> str:
        return f"{peak(shape, method, 'plain')} and {peak(shape, method, 'checkpointing')}"

    small, large = "1.1B", "6.7B"
    assert peak(large, "full", "plain") == peak(large, "full", "checkpointing")
    reserved = median(c["reserved"] for c in peak_cells(stored, large, "qlora", "checkpointing")) / 2**30
    use = {
        method: speed(method) * flops.training("llama-2-7b", method, batch=4, sequence=512).per_token / 989e12
        for method in ("full", "lora")
    }
    cpu = [cell["error"] for name, cell in Results.load("memory_cpu")["cells"].items() if name != "python"]
    return [
        f"three small models on a processor it is within {percent(max(map(abs, cpu)))}",
        f"the prediction was off by {percent(worst, 1)} at most",
        f"our own 4-bit layers it is up to {percent(-ours, 1)} too low",
        f"4 of 6 FLOPs ({per_token:.2f}, with",
        f"For the 1.1B shape, LoRA is {percent(1 - speed('lora', '1.1B') / speed('full', '1.1B'))} slower",
        f"was {percent(1 - rounds[0] / rounds[1])} slower than the others",
        f"{small}: full {peak(small, 'full', 'plain')}, with checkpointing {peak(small, 'full', 'checkpointing')}; "
        f"LoRA {both(small, 'lora')}; QLoRA {both(small, 'qlora')}. {large}: full {peak(large, 'full', 'plain')} with "
        f"and without checkpointing; LoRA {both(large, 'lora')}; QLoRA {both(large, 'qlora')}.",
        f"The last QLoRA bar is {peak(large, 'qlora', 'checkpointing')} GiB, but {reserved:.1f} were reserved",
        f"A third less work, and {percent(1 - speed('lora') / speed('full'))[:-2]} % *slower*",
        f"at a utilisation of {percent(use['full'])}",
        f"LoRA reaches {percent(use['lora'])}",
        f"{speed('lora'):,.0f} tokens a second, {speed('lora') / speed('full'):.0%} of full fine-tuning's "
        f"{speed('full'):,.0f}",
    ]


def rungs() -> list[str]:
    stored = Results.load("ladder")
    once, four = ladder.rungs(stored), ladder.rungs(stored, passes=4)
    a, b = ladder.law([r.N for r in once[:KNOWN]], [r.loss for r in once[:KNOWN]])
    beside = [rung.loss - a * rung.N**-b for rung in once]
    signs = [x > 0 for x in beside]
    assert signs == [True, False, False, False, True, True, True, True, True]  # "the outer ones lie above the line"
    assert beside[5:] == sorted(beside[5:])
    spread = max(max(r.losses) - min(r.losses) for r in once)
    assert beside[-1] > 5 * spread  # "no luck"
    flat = once[5].loss - once[6].loss
    assert once[5].N // 10**6 == 3 and once[6].N // 10**6 == 6 and flat < min(spread_of(once[5]), spread_of(once[6]))
    tokens = once[0].tokens
    largest = {p: [c for k, c in stored["cells"].items() if k.startswith(f"final/{p}/512/")] for p in (1, 4)}
    read = {passes: mean(c["loss"] - c["train_loss"] for c in cells) for passes, cells in largest.items()}
    rate = {key: cell["lr"] for key, cell in stored["cells"].items() if key.startswith("final/")}
    assert all(lr == rate[key.replace("/4/", "/1/")] for key, lr in rate.items())  # "kept the learning rate"
    assert 5.5 < once[-1].N / once[6].N < 6.5 and abs(beside[3]) < spread_of(once[3])
    tried = ladder.validation(stored)
    at = [found[0.008] for found in tried.values()]
    assert min(tried[32], key=tried[32].get) == 0.008
    assert at.index(min(at)) == list(tried).index(96) and max(at) == at[-1]  # "above width 96, larger is worse"
    assert at[3:] == sorted(at[3:])
    best = [min(found, key=found.get) for found in tried.values()]
    assert best[1:] == sorted(best[1:], reverse=True) and 0.02 < best[1] < 0.025 and best[-1] == 0.001
    assert once[0].N // 1000 == 23 and round(once[0].N / 1000) == 24
    assert sum(all(rate in found for found in tried.values()) for rate in tried[32]) == 3  # "only these three"
    return [
        f"{tokens // 10**5 / 10:.1f} million tokens",
        "11.5 million tokens four times",
        f"from 24 thousand to {once[KNOWN - 1].N / 1e6:.1f} million parameters",
        f"by {beside[KNOWN]:.2f} nats at first and by {beside[-1]:.2f} at the end",
        f"the last by {beside[-1]:.2f} nats",
        f"It lies {past_the_line():.2f} nats above the line",
        f"twice the size brings {flat:.2f} nats",
        f"falls from about {best[1]:.2f} to {best[-1]:g}",
        f"six times the size, {once[6].loss - once[-1].loss:.2f} nats",
        f"is now {read[4]:.2f} nats better than on test texts. With one pass it was {read[1]:.2f},",
        f"from {once[0].loss:.2f} at 24 thousand parameters, flattening to {once[-1].loss:.2f} at 38 million. Four "
        f"passes, five models: from {four[0].loss:.2f} to {four[-1].loss:.2f}",
        f"The smallest gains {once[0].loss - four[0].loss:.2f} nats and the largest "
        f"{once[-1].loss - four[-1].loss:.2f}",
        f"The last rung falls again, by {once[-2].loss - once[-1].loss:.2f} nats",
        f"said {a * once[-1].N ** -b:.2f} for the largest, and {once[-1].loss:.2f} came",
    ]


def spread_of(rung: ladder.Rung) -> float:
    return max(rung.losses) - min(rung.losses)


def laws() -> list[str]:
    kaplan, printed, unrounded, refit = (law.optimum(CHINCHILLA) for law in scaling.LAWS)
    assert architecture("llama-2-7b").parameters < min(
        law.optimum(6 * 6.74e9 * 2e12).N for law in (scaling.KAPLAN, scaling.HOFFMANN_UNROUNDED, scaling.BESIROGLU)
    )
    order = (scaling.KAPLAN, scaling.BESIROGLU, scaling.HOFFMANN_UNROUNDED)
    small, large = ([law.optimum(C).N for law in order] for C in (1e19, 1e20))
    assert small == sorted(small) and large == sorted(large, reverse=True)  # "they cross between"
    return [
        f"a model of {float(f'{kaplan.N / 1e9:.2g}'):.0f} billion parameters on {kaplan.D / 1e12:.2f} trillion tokens, "
        f"one of {unrounded.N / 1e9:.0f} billion on {unrounded.D / 1e12:.1f} trillion, or one of {refit.N / 1e9:.0f} "
        f"billion on {refit.D / 1e12:.1f} trillion",
        f"advise {printed.tokens_per_parameter:.0f} tokens a parameter, the unrounded ones "
        f"{unrounded.tokens_per_parameter:.0f}, the refit {refit.tokens_per_parameter:.0f}",
    ]


def costs() -> list[str]:
    N = architecture("llama-2-7b").parameters
    utilisation = 6 * N * 2e12 / 312e12 / 3600 / 184_320
    copy, adapter = wall.kept_bytes("llama-2-7b", "full"), wall.kept_bytes("llama-2-7b", "LoRA")
    assert 75 < copy / adapter < 85  # "a factor of about 80"
    assert energy.of_flops(6 * N * 10e6, "h100").hours[1] < 1  # "a matter of minutes"
    assert len(published()) > 50
    return [
        f"these cards ran at {percent(utilisation)} of their peak",
        f"A tuned copy of Llama 2 7B is {copy / 1e9:.1f} GB, a LoRA file {adapter / 1e6:.0f} MB",
    ]
