"""Lesson 13: what its prose may quote, from data/results, the tiny model's own weights, and the memory calculator."""

from __future__ import annotations

import math
from functools import cache
from statistics import correlation, mean, median, stdev
from typing import Any

import pytest

from peftlab.bench.quant_race import SHUFFLES
from peftlab.bench.results import Results
from peftlab.costs.memory import GIB, training
from peftlab.course import sixteen_levels
from peftlab.course.questions.lesson_13 import activations_65b
from peftlab.methods import LoRA
from peftlab.quant import quantize
from peftlab.show.quant_figures import after, losses_of, orders
from peftlab.show.widgets.sixteen_levels import place_levels
from peftlab.tasks import models
from tests.facts import percent

NAME = "13_quantisation"
# The papers' own numbers (QLoRA's table 2 and its code's constant), bits worked out in the exercise, choices, sizes,
# settings and a version.
NOT_MEASURED = {"34.34", "31.07", "29.48", "27.41", "0.9677083", "6.7", "1.1", "4.5", "4.127", "0.373", "1", "10", "40",
                "65.2", "100", "95", "0.2", "0.50", "0.040"}  # fmt: skip
T_5 = 2.5706  # Student's t for a 95 % interval from six values


@cache
def tiny() -> dict[str, Any]:
    return sixteen_levels.block_matrices(models.load("tiny")[0])


def facts() -> list[str]:
    return [*placed(), *raced(), *trained(), *remembered(), *merged(), *riddle()]


def placed() -> list[str]:
    """What the widget and the cells beside it show of one matrix."""
    W = tiny()["model.layers.3.self_attn.q_proj"]
    errors = {other["name"]: other["error"] for other in place_levels(W, "").others}
    share = (quantize(W, "nf4").codes.flatten().bincount(minlength=16) / W.numel()).tolist()
    spoiled = W.clone()
    spoiled[0, 0] = 20 * W.abs().max()
    back = quantize(spoiled, "int4", W.numel(), double=False).dequantize()
    D = tiny()["model.layers.3.mlp.down_proj"]
    assert tuple(D.shape) == (256, 688)  # "like the 688 of down_proj"
    right = ((quantize(D).dequantize() - D).norm() / D.norm()).item()
    assert min(share) == share[-1] and max(share) == share[6]  # "at the upper end", "just below 0"
    assert ((back - W)[1:].norm() / W[1:].norm()).item() > 0.9995  # "error 100 %"
    return [
        f"Around {percent(right)} is right",
        f"Even levels have {percent(errors['16 even levels'], 1)}",
        f"for the sake of having 0 among them: {percent(errors['int4, symmetric'], 1)}",
        f"does worst, {percent(errors['FP4'], 1)}",
        f"**NF4** has {percent(errors['NF4'], 1)}",
        f"gains little more: {percent(errors['fitted'], 1)}",
        f"from {percent(min(share), 1)} at the upper end to {percent(max(share), 1)} just below 0",
    ]


def raced() -> list[str]:
    stored = Results.load("quant_race")
    cells = stored["cells"]
    error = {key.removeprefix("error/"): cell for key, cell in cells.items() if key.startswith("error/")}

    def wins(a: str, b: str, model: str) -> int:
        pairs = zip(error[f"{model}/{a}"]["matrices"], error[f"{model}/{b}"]["matrices"], strict=True)
        return sum(x < y for x, y in pairs)

    for model, count in (("tiny", 56), ("minilm", 36)):
        assert len(error[f"{model}/nf4/64"]["matrices"]) == count
        assert wins("nf4/32", "int4_asymmetric/64", model) == count  # "the smaller error on all 92"
        assert wins("nf4/64", "int4_asymmetric/128", model) == count
        assert wins("nf4/64", "int4/64", model) == count  # the prediction: "on every one of the 92 matrices"
        for a, b in (("nf4/32", "int4_asymmetric/64"), ("nf4/64", "int4_asymmetric/128")):
            assert abs(error[f"{model}/{a}"]["bits"] - error[f"{model}/{b}"]["bits"]) < 0.001  # "costs as much"

    fp32, nf4, int4 = (cells[f"text/tiny/{form}"] for form in ("fp32", "nf4/64", "int4/64"))
    draws = {f"{kind}/{b}": orders(stored, f"{kind}/{b}") for kind in stored["settings"]["kinds"]
             for b in stored["settings"]["blocksizes"]}  # fmt: skip
    up = {form: mean(found) for form, found in draws.items()}
    assert all(len(found) == 6 for found in draws.values())  # "six such draws"
    spread = max(max(found) - min(found) for found in draws.values())
    better, alike = cells["text/tiny/nf4/128"]["over_nf4"], int4["over_nf4"]
    assert better[2] < 0 and alike[1] < 0 < alike[2]  # "An interval over texts even found …", "a tie"
    assert error["tiny/nf4/128"]["error"] > error["tiny/nf4/64"]["error"]  # "though its weights are less exact"
    assert stored["settings"]["documents"] == 300 and len(fp32["by_text"]) == 4  # 1,200 documents of four kinds
    assert all(up[f"fp4/{b}"] == max(up[f"{k}/{b}"] for k in stored["settings"]["kinds"]) for b in (64, 128, 256))
    assert all(a < b for a, b in zip(draws["nf4/64"], draws["int4/64"], strict=True))  # "in all six orders"
    ahead = [b - a for a, b in zip(draws["nf4/64"], draws["int4/64"], strict=True)]
    assert sum(gap < 0.0025 for gap in ahead) == 2  # "twice by a hair"
    half = T_5 * stdev(ahead) / 6**0.5
    wide = [b - a for a, b in zip(draws["nf4/256"], draws["int4/256"], strict=True)]
    assert min(wide) > 0.02  # "beyond doubt"
    for other in ("int4/32", "int4_asymmetric/64"):  # "nobody can tell"
        assert 2 <= sum(a < b for a, b in zip(draws["nf4/32"], draws[other], strict=True)) <= 4
        assert abs(error[f"tiny/{other}"]["bits"] - error["tiny/nf4/32"]["bits"]) < 0.01
    perplexity = math.exp(fp32["loss"] + up["nf4/64"])
    powers = [
        correlation([error[f"tiny/{form}"]["error"] ** power for form in up], list(up.values())) for power in (1, 2, 3)
    ]
    shown = {model: error[f"{model}/fitted/64"]["error"] for model in ("tiny", "minilm")}
    return [
        f"asymmetric int4 beats NF4 on {wins('int4_asymmetric/64', 'nf4/64', 'tiny')} of the tiny model's 56 matrices",
        f"But it pays {error['tiny/int4_asymmetric/64']['bits']:.2f} bits for that",
        f"At {error['tiny/nf4/64']['bits']:.2f} bits the same: {percent(error['tiny/nf4/64']['error'], 1)} against "
        f"{percent(error['tiny/int4_asymmetric/128']['error'], 1)} and, for symmetric int4, "
        f"{percent(error['tiny/int4/64']['error'], 1)}",
        f"Their loss is {fp32['loss']:.3f} nats per token with full weights, a perplexity of {fp32['perplexity']:.1f}",
        f"NF4 and int4 cost {nf4['over_fp32'][0]:.3f} and {int4['over_fp32'][0]:.3f} nats per token more",
        f"the loss moves by up to {spread:.3f}",
        f"at the same {error['tiny/nf4/64']['bits']:.2f} bits: {up['nf4/64']:.3f} against {up['int4/64']:.3f} nats. "
        "It is ahead in all six draws, twice by a hair (95 % interval of the difference, over draws: "
        f"{mean(ahead) - half:.3f} to {mean(ahead) + half:.3f}). With fewer scales it is beyond doubt: "
        f"{up['nf4/256']:.3f} against {up['int4/256']:.3f} in blocks of 256",
        f"**At {error['tiny/nf4/32']['bits']:.2f} bits nobody can tell**: NF4 {up['nf4/32']:.3f}, asymmetric int4 "
        f"{up['int4_asymmetric/64']:.3f}, symmetric int4 {up['int4/32']:.3f}. At "
        f"{error['tiny/int4_asymmetric/128']['bits']:.2f}, asymmetric int4 has {up['int4_asymmetric/128']:.3f}",
        f"from {error['tiny/nf4/256']['bits']:.2f} to {error['tiny/int4_asymmetric/32']['bits']:.2f}, a line",
        f"from {up['nf4/256']:.3f} at {error['tiny/nf4/256']['bits']:.2f} bits to {up['nf4/32']:.3f} at "
        f"{error['tiny/nf4/32']['bits']:.2f}; symmetric int4 falls from {up['int4/256']:.3f} to {up['int4/32']:.3f}, "
        f"FP4 from {up['fp4/256']:.3f} to {up['fp4/32']:.3f}, asymmetric int4 from {up['int4_asymmetric/256']:.3f} at "
        f"{error['tiny/int4_asymmetric/256']['bits']:.2f} bits to {up['int4_asymmetric/32']:.3f} at "
        f"{error['tiny/int4_asymmetric/32']['bits']:.2f}",
        f"**FP4 is worst**: {up['fp4/64']:.3f}",
        f"The correlation is {powers[1]:.2f}, which does not settle the power: with the error itself it is "
        f"{powers[0]:.2f}, with its cube {powers[2]:.2f}",
        f"a perplexity of {fp32['perplexity']:.1f} becomes {perplexity:.1f}, a rise of "
        f"{percent(perplexity / fp32['perplexity'] - 1)}",
        f"a slightly smaller one ({percent(shown['tiny'], 1)} and {percent(shown['minilm'], 1)} instead of "
        f"{percent(error['tiny/nf4/64']['error'], 1)} and {percent(error['minilm/nf4/64']['error'], 1)})",
        f"NF4 costs {up['nf4/64']:.3f} nats per token and symmetric int4 {up['int4/64']:.3f}",
    ]


def trained() -> list[str]:
    stored = Results.load("qlora_tiny")
    cells = stored["cells"]
    lora, qlora, loftq = (losses_of(stored, way) for way in ("lora", "qlora", "loftq"))
    gaps = [b - a for a, b in zip(lora, qlora, strict=True)]
    assert min(gaps) > 0 and len(gaps) == 3  # "in all three seeds"
    gained = cells["start/lora"] - mean(lora)
    errors = cells["loftq/errors"]["errors"]
    assert len(errors) == 6  # "Five rounds"
    starts = {way: [cells[f"start/{way}"], *(cells[f"start/{way}/order {n}"] for n in SHUFFLES)] for way in
              ("qlora", "loftq")}  # fmt: skip
    again = [qlora[0], *(cells[f"qlora/0/order {n}"] for n in SHUFFLES)]
    over = [loss - lora[0] for loss in again]
    assert len(over) == 6 and min(over) > 0  # "in six draws"
    return [
        f"QLoRA ends {mean(gaps):.3f} nats higher than LoRA, in all three seeds. That is "
        f"{percent(mean(gaps) / gained)} of what training gains",
        f"bring the error of the weights from {percent(errors[0], 1)} to {percent(errors[-1], 1)}",
        f"It ends at {mean(loftq):.3f}, no better than QLoRA's {mean(qlora):.3f}",
        f"Even before training, over six draws, it has {mean(starts['loftq']):.2f} on average and QLoRA "
        f"{mean(starts['qlora']):.2f}:",
        f"in six draws (seed 0) it ends {min(over):.3f} to {max(over):.3f} higher",
    ]


def remembered() -> list[str]:
    big = {"batch": 1, "sequence": 512}
    method = LoRA(r=64, target_modules="all-linear")

    def gib(**how: Any) -> float:
        return training("llama-65b", method, **big, **how).total / GIB

    qlora = training("llama-65b", method, **big, checkpointing=True, quantize="nf4", optimizer="paged_adamw")
    dense, held = gib(checkpointing=True), gib(checkpointing=True, quantize="nf4")
    eight = gib(checkpointing=True, quantize="nf4", optimizer="adamw8bit")
    plain = training("llama-65b", method, **big, quantize="nf4")
    assert plain.parts["activations"] / plain.parts["weights"] == pytest.approx(2 / 3, abs=0.03)  # the prediction's
    assert plain.moment in ("loss", "last block") and "gradients" not in plain.parts  # "before there are gradients"
    large = Results.load("qlora_scale")["cells"]

    def rounds(cell: str, what: str, shape: str = "6.7B") -> list[float]:
        return [large[f"{shape}/{cell}/{n}"][what] for n in range(3)]

    def middle(cell: str, what: str, shape: str = "6.7B") -> float:
        return median(rounds(cell, what, shape))

    def speed(method: str, how: str = "plain", shape: str = "6.7B") -> float:
        return middle(f"{method}/{how}", "tokens_a_second", shape)

    def slower(how: str, shape: str = "6.7B") -> str:
        return percent(1 - speed("qlora", how, shape) / speed("lora", how, shape))

    def peak(cell: str) -> str:
        return f"{middle(cell, 'measured') / GIB:.1f}"

    assert speed("lora") < speed("full") and speed("lora", "checkpointing") < speed("full", "checkpointing")
    assert {large[f"6.7B/full/{how}/0"]["moment"] for how in ("plain", "checkpointing")} == {"end of backward"}
    assert peak("full/plain") == peak("full/checkpointing")  # "the same without"
    pairs = zip(*(rounds(f"{method}/plain", "tokens_a_second") for method in ("qlora", "lora")), strict=True)
    worst = max(1 - a / b for a, b in pairs)
    config = models.load("tiny")[0].config.to_dict()
    small_step = {"batch": 8, "sequence": 64, "dtype": "fp32", "device": "cpu"}
    all_linear = LoRA(r=8, lora_alpha=16, target_modules="all-linear")
    low, high = (training(config, all_linear, **small_step, quantize=q).total for q in ("nf4", None))
    return [
        f"Its peak is only {percent(1 - low / high)} lower",
        f"LoRA on 16-bit weights takes {dense:.0f}, nearly all weights. QLoRA takes {held:.0f}; with 8-bit AdamW "
        f"{eight:.0f}, with the optimiser's states paged out {qlora.gib:.0f}. QLoRA without checkpointing takes "
        f"{plain.gib:.0f}, of which {plain.parts['activations'] / GIB:.0f} are activations",
        f"With checkpointing, QLoRA takes {peak('qlora/checkpointing')} GiB where LoRA takes "
        f"{peak('lora/checkpointing')} and full fine-tuning {peak('full/checkpointing')} (the same as plain",
        f"most of QLoRA's {peak('qlora/plain')} are activations",
        f"Plain, QLoRA trains {slower('plain')} fewer tokens a second than LoRA ({percent(worst)} in one round of the "
        f"three); with checkpointing {slower('checkpointing')}; with 1.1 billion parameters, "
        f"{slower('plain', '1.1B')}. Ours, with our LoRA too, reaches "
        f"{percent(speed('qlora_ours') / speed('qlora'))} of the speed of bitsandbytes ("
        f"{percent(speed('qlora_ours', shape='1.1B') / speed('qlora', shape='1.1B'))} at 1.1 billion)",
        f"We predict {plain.parts['activations'] / GIB:.0f} GiB",
        f"With checkpointing {activations_65b(True):.1f} GiB are left",
    ]


def merged() -> list[str]:
    stored = Results.load("qlora_tiny")
    start = stored["cells"]["start/qlora"]
    steps = [*stored["settings"]["shorter"], stored["settings"]["steps"]]
    found = {n: {way: mean(run[way] for run in after(stored, n)) for way in
                 ("merged", "merged_then_nf4", "fp32_base_merged_then_nf4", "change", "codes_moved")}
             for n in steps}  # fmt: skip
    lost = {n: (f["merged_then_nf4"] - f["merged"]) / (start - f["merged"]) for n, f in found.items()}
    assert list(lost.values()) == sorted(lost.values(), reverse=True)  # "The longer the training, the less is lost"
    assert all(abs(run["merged"] - run["loss"]) < 1e-3 for n in steps for run in after(stored, n))  # dense is exact
    mended = max(f["fp32_base_merged_then_nf4"] - f["merged"] for f in found.values())
    worst = max(run["fp32_base_merged_then_nf4"] - run["merged"] for n in steps for run in after(stored, n))
    parts = stored["cells"]["change of 15 steps/0"]
    assert parts["shares"]["1.0"] == after(stored, 15)[0]["merged"]  # the same run
    assert parts["both"] == after(stored, 15)[0]["merged_then_nf4"]
    tenth = (start - parts["shares"]["0.1"]) / (start - parts["shares"]["1.0"])
    elsewhere = {kind: moved for kind, moved in parts["codes_moved"].items() if kind not in ("v_proj", "o_proj")}
    assert max(elsewhere.values()) < 0.002
    short, long = found[15], found[120]
    return [
        f"After 15 steps, when training has changed the weights by {percent(short['change'], 1)} of their size, "
        f"{percent(short['codes_moved'], 1)} of the codes move, and {percent(lost[15])} of the gain is gone",
        f"After 120 steps and a change of {percent(long['change'], 1)}, {percent(long['codes_moved'], 1)} of the codes "
        f"move, and {percent(lost[120])} is lost",
        f"After the 30 of your guess it is {percent(found[30]['codes_moved'], 1)} and {percent(lost[30])}",
        f"costs {mended:.3f} nats at most, on average over seeds ({worst:.3f} in the worst run)",
        f"the new scales alone bring the loss from {start:.2f} to {parts['scales']:.2f}, the new codes alone to "
        f"{parts['codes']:.2f}",
        f"a tenth of it, left dense, brings {percent(tenth)} of the gain",
        f"{percent(parts['codes_moved']['v_proj'], 1)} move in the value matrices and "
        f"{percent(parts['codes_moved']['o_proj'], 1)} in the output matrices, under 0.2 % elsewhere",
        f"starts at {short['merged_then_nf4']:.2f} after 15 steps and falls to {long['merged_then_nf4']:.2f} after 120",
        f"from {short['merged']:.2f} to {long['merged']:.2f}",
        f"After 30 steps, mean of three seeds: {percent(found[30]['codes_moved'], 1)}, though training had changed the "
        f"weights by {percent(found[30]['change'], 1)} of their size. The loss goes from {found[30]['merged']:.2f} to "
        f"{found[30]['merged_then_nf4']:.2f}",
    ]


def riddle() -> list[str]:
    errors = Results.load("qlora_smollm2")["cells"]["errors"]
    assert all(errors[form] > 0.05 for form in ("nf4/64", "int4/32", "int4_asymmetric/64"))
    return [f"Three ordinary errors, and one of {percent(errors['int4_asymmetric/32'], 2)}"]
