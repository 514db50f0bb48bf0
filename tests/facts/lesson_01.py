"""Lesson 01: predictions are computed anew from the configs, measurements come from data/results."""

from __future__ import annotations

from statistics import median

from peftlab.bench.results import Results
from peftlab.costs import energy, flops, memory, scaling
from peftlab.costs.configs import architecture, published
from peftlab.course import ladder, wall
from peftlab.course.questions.lesson_01 import KNOWN, past_the_line, saved_by_lora_on_gpt2, speed
from peftlab.show.wall_figures import CHINCHILLA, METHOD_NAMES, peak_cells
from tests.facts import percent

NAME = "01_scaling_dilemma"
# Offered to the reader, the papers' own constants, versions of models, and the promise that an assert holds.
NOT_MEASURED = {"5", "95", "10", "0.34", "0.28", "0.3392", "0.2849", "1.8", "3.1", "1.5", "1.4"}


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
    gpt2 = wall.training("gpt2", "LoRA", False, 2048)
    assert gpt2.parts["activations"] + gpt2.parts["logits and loss"] > 0.85 * gpt2.total  # "all activations and logits"
    assert gib("llama-3.1-70b", "QLoRA", True) < 47 < gib("llama-3.1-70b", "LoRA", True)
    assert gib("llama-3.1-70b", "QLoRA") > 47  # "only together"
    assert architecture("gpt2").vocabulary == 50_257
    assert 0.015 < wall.trained_numbers("gpt2") / architecture("gpt2").parameters < 0.025  # "2 % of them"
    assert 1 / 200 < wall.trained_numbers("llama-2-7b") / N < 1 / 100
    return [
        f"{N / 1e9:.2f} billion numbers",
        f"8 bytes a number, {8 * N / 2**30:.0f} GiB for Llama 2 7B",
        f"full fine-tuning needs {gib('gpt2', 'full'):.1f} GiB and LoRA {gib('gpt2', 'LoRA'):.1f}",
        f"Freezing saves {percent(saved_by_lora_on_gpt2())}",
        f"LoRA needs {gib('llama-2-7b', 'LoRA'):.1f} GiB",
        f"and then {gib('llama-2-7b', 'LoRA', True):.1f} GiB are enough",
        f"onto 48 GiB, with {gib('llama-3.1-70b', 'QLoRA', True):.1f}; full fine-tuning would take "
        f"{gib('llama-3.1-70b', 'full'):.1f}",
        f"trains {percent(0.02)} of them",
        f"{memory.training('llama-2-7b', 'full', batch=1, device='cpu').gib:.1f} GiB, by the model's config",
        f"{100 * saved_by_lora_on_gpt2():.0f} %: from {gib('gpt2', 'full'):.1f} to {gib('gpt2', 'LoRA'):.1f} GiB",
    ]


def on_the_gpu() -> list[str]:
    stored = Results.load("qlora_scale")
    every = [c for k, c in stored["cells"].items() if k.split("/")[1] in METHOD_NAMES]
    worst = max(abs(cell["predicted"] / cell["measured"] - 1) for cell in every)

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
    A, B = ladder.law([r.N_total for r in once[:KNOWN]], [r.loss for r in once[:KNOWN]])
    tokens = once[0].tokens
    assert 0.55e6 < tokens / (1.4e12 / 70e9) < 0.65e6 and round(1.4e12 / 70e9) == 20
    read = [cell["train_loss"] for key, cell in stored["cells"].items() if key.startswith("final/4/512/")]
    tried = ladder.validation(stored)
    at = [found[0.008] for found in tried.values()]
    assert min(tried[32], key=tried[32].get) == 0.008
    assert at.index(min(at)) == list(tried).index(96) and max(at) == at[-1]  # "above width 96, larger is worse"
    assert at[3:] == sorted(at[3:])
    best = [min(found, key=found.get) for found in tried.values()]
    assert max(best) > 20 * best[-1] and once[0].N // 1000 == 23 and round(once[0].N / 1000) == 24
    return [
        f"{tokens // 10**5 / 10:.1f} million tokens",
        "11.5 million tokens four times",
        f"from 24 thousand to {once[KNOWN - 1].N / 1e6:.1f} million parameters",
        f"by {beside[KNOWN]:.2f} nats at first and by {beside[-1]:.2f} at the end",
        f"the last by {beside[-1]:.2f} nats",
        f"It lies {past_the_line():.2f} nats above the line",
        f"twice the size brings {flat:.2f} nats",
        "right for 0.6 million",
        f"from {once[0].loss:.2f} at 24 thousand parameters, flattening to {once[-1].loss:.2f} at 38 million. Four "
        f"passes, five models: from {four[0].loss:.2f} to {four[-1].loss:.2f}",
        f"The smallest gains {once[0].loss - four[0].loss:.2f} nats and the largest "
        f"{once[-1].loss - four[-1].loss:.2f}",
        f"the largest is at {read[0]:.2f}, against {four[-1].loss:.2f} on test texts",
        f"The last rung falls again, by {once[-2].loss - once[-1].loss:.2f} nats",
        f"with the embedding, {percent(1 - once[0].N / once[0].N_total)} of the smallest model",
        f"= {B:.3f} against {b:.3f}) and miss the last rung by {once[-1].loss - A * once[-1].N_total ** -B:.2f}",
        f"said {a * once[-1].N ** -b:.2f} for the largest, and {once[-1].loss:.2f} came",
    ]


def spread_of(rung: ladder.Rung) -> float:
    return max(rung.losses) - min(rung.losses)


def laws() -> list[str]:
    kaplan, printed, unrounded, refit = (law.optimum(CHINCHILLA) for law in scaling.LAWS)
    assert architecture("llama-2-7b").parameters < min(
        law.optimum(6 * 6.74e9 * 2e12).N for law in (scaling.KAPLAN, scaling.HOFFMANN, scaling.BESIROGLU)
    )
    assert scaling.KAPLAN.optimum(1e18).N < scaling.HOFFMANN.optimum(1e18).N
    assert scaling.KAPLAN.optimum(1e19).N > scaling.BESIROGLU.optimum(1e19).N  # "cross between"
    return [
        f"a model of {float(f'{kaplan.N / 1e9:.2g}'):.0f} billion parameters on {kaplan.D / 1e12:.2f} trillion tokens, "
        f"one of {printed.N / 1e9:.0f} billion on {printed.D / 1e12:.0f} trillion, or one of {refit.N / 1e9:.0f} "
        f"billion on {refit.D / 1e12:.1f} trillion",
        f"advise {printed.tokens_per_parameter:.0f} tokens a parameter, the unrounded ones "
        f"{unrounded.tokens_per_parameter:.0f}, the refit {refit.tokens_per_parameter:.0f}",
    ]


def costs() -> list[str]:
    N = architecture("llama-2-7b").parameters
    utilisation = 6 * N * 2e12 / 312e12 / 3600 / 184_320
    copy, adapter = wall.kept_bytes("llama-2-7b", "full"), wall.kept_bytes("llama-2-7b", "LoRA")
    assert 75 < copy / adapter < 100  # "a factor near a hundred"
    assert energy.of_flops(6 * N * 10e6, "h100").hours[1] < 1  # "a matter of minutes"
    assert len(published()) > 50
    return [
        f"with a utilisation of {percent(utilisation)}",
        f"A tuned copy of Llama 2 7B is {copy / 1e9:.1f} GB, a LoRA file {adapter / 1e6:.0f} MB",
    ]
