"""Lesson 06: what its prose may quote, from data/results."""

from __future__ import annotations

from statistics import mean

from peftlab.bench.results import Results
from peftlab.show.lora_figures import accuracies
from tests.facts import percent

NAME = "06_lora"
# The reader's choices in a prediction, section numbers, versions.
NOT_MEASURED = {"10", "40", "95", "4.1", "3.0"}


def facts() -> list[str]:
    stored = Results.load("scissors")
    cells = stored["cells"]

    def at(cell: str) -> float:
        found = accuracies(stored, cell)
        assert len(found) in (3, 5)
        return mean(found)

    energy = [e["8"] for seed in range(5) for e in cells[f"spectrum/{seed}"]["energy"].values()]
    noise = cells["spectrum/0"]["gaussian_noise"]["384x384"]["8"]
    lora, full = cells["lora_qv/8/0"], cells["full/0"]
    rates = ("0.0003", "0.001", "0.003", "0.01", "0.03")
    curve = {name: [at(f"alpha/{name}/{rate}") for rate in rates] for name in ("4/8", "64/8", "64/128")}
    pairs = {c: [a - b for a, b in zip(accuracies(stored, "full"), accuracies(stored, c), strict=True)]
             for c in ("lora_qv/8", "lora_all/8")}  # fmt: skip
    assert sum(d > 0 for d in pairs["lora_qv/8"]) == 5  # "in all five"
    assert sum(d > 0 for d in pairs["lora_all/8"]) == 4  # "in four of five"
    assert curve["4/8"][4] < 0.1 and curve["64/8"][4] < 0.5  # "at 3e-2 both break"
    spread = {
        r: max(accuracies(stored, f"cut/top/{r}")) - min(accuracies(stored, f"cut/top/{r}"))
        for r in (8, 16, 32, 64)
    }
    assert max(spread.values()) < 0.03  # "spread by under 3 points"
    best = [max(values) for values in curve.values()]
    assert max(best) - min(best) < 0.01  # "the peaks are equally high"
    assert all(abs(a - b) < 0.015 for a, b in zip(curve["4/8"][:4], curve["64/8"][:4], strict=True))  # "on top"
    seconds = Results.load("step_time")["cells"]["seconds"]
    standard_error = (at("full") * (1 - at("full")) / 1200) ** 0.5
    equal, shrunk = "control/random_of_equal_energy", "control/scaled_to_equal_energy"
    shares = [e for seed in range(5) for e in cells[f"spectrum/{seed}"]["energy"].values()]
    top_4, tail_32 = mean(e["4"] for e in shares), 1 - mean(e["32"] for e in shares)
    assert abs(tail_32 - top_4) < 0.02  # "as much energy as"
    gap = at("lora_all/1") - at("head_again/1")
    assert 0.005 < gap < 0.015  # "about one point"

    def two(value: float) -> str:
        return f"{value:.2f}"

    top, wild = {r: at(f"cut/top/{r}") for r in (0, 1, 4, 8)}, {r: at(f"cut/random/{r}") for r in (0, 1, 4, 8)}
    assert max(wild.values()) < 0.25
    assert all(abs(at(f"lora_all/{r}") - 0.86) < 0.015 for r in (1, 2, 4, 8, 32))
    return [
        f"about {two(top[0])} at zero to {two(top[1])} at one, {two(top[4])} at four, {two(top[8])} at eight",
        "stays below 0.25 up to eight",
        f"Trained at rank r stays near 0.86 throughout, dipping slightly at 32. Full fine-tuning cut to rank r starts "
        f"at {two(top[1])} and catches up at rank 8. Cut with the head trained again starts at "
        f"{two(at('head_again/1'))} and lies just below the first line. A dotted line marks full fine-tuning at "
        f"{two(at('full'))}",
        f"rising from {two(curve['4/8'][0])} to {two(max(curve['64/8']))} at 3e-3 and 1e-2, and fall at 3e-2, to "
        f"{two(curve['4/8'][4])} and {two(curve['64/8'][4])}. The curve for r = 64 with alpha 128 starts at "
        f"{two(curve['64/128'][0])}, has the same height at 3e-3, and falls to {two(curve['64/128'][3])} at 1e-2",
        *questions(at, energy, noise),
        f"hold {percent(min(energy))} to {percent(max(energy))} of the energy of a matrix, "
        f"{percent(mean(energy))} on average",
        f"Noise would give {percent(noise)}",
        f"still names the topic in {percent(at('cut/top/8'))} of cases",
        f"The whole of ΔW gives {percent(at('cut/top/384'))}",
        f"Eight random directions of the same ΔW give {percent(at('cut/random/8'))}",
        f"The top 8 hold {percent(mean(energy))} of it, 8 random ones about {percent(8 / 384)}",
        f"With the energy of the top 8, random directions reach {percent(at(f'{equal}/8'))}",
        f"The shrunken whole reaches {percent(at(f'{shrunk}/8'))}",
        f"as much energy as the top 4 ({percent(tail_32)} and {percent(top_4)}), and give "
        f"{percent(at('control/without_top/32'))} (row 32, last column). "
        f"The whole ΔW, shrunk to that energy, gives {percent(at(f'{shrunk}/4'))} (row 4)",
        f"a head trained again gives {percent(at('head_again/0'))}, where the old head gave {percent(at('cut/top/0'))}",
        f"in all five, by {100 * mean(pairs['lora_qv/8']):.1f} points on average",
        f"in four of five, by {100 * mean(pairs['lora_all/8']):.1f} points",
        f"{percent(curve['64/128'][0])} against {percent(curve['4/8'][0])} at 3e-4",
        f"without its top 8 the model still has {percent(at('control/without_top/8'))}",
        f"the accuracy falls to {percent(at('cut/top/1'))}",
        f"train its head again: {percent(at('head_again/1'))}",
        f"and {percent(at('head_again/1'))} comes back",
        f"the standard error of one accuracy is about {100 * standard_error:.0f} percentage point",
        f"trains {percent(lora['trainable'] / lora['total'], 2)} of the parameters",
        f"reaches {percent(at('lora_qv/8'), 1)}",
        f"Full fine-tuning reaches {percent(at('full'), 1)}",
        f"the head alone {percent(at('head'), 1)}",
        f"LoRA gets to {percent(at('lora_all/8'), 1)}",
        f"Cutting a finished ΔW to rank 1 left {percent(at('cut/top/1'))}",
        f"Trained with one direction in each matrix: {percent(at('lora_all/1'), 1)}",
        f"a fine rate before, ends at {percent(curve['64/128'][3])}",
        f"all {full['total'] / 1e6:.1f} million parameters",
        f"The file is {full['total'] / lora['trainable']:.0f} times smaller than the model",
        f"a LoRA step takes {percent(seconds['lora_qv'] / seconds['full'])} of the time of a full one "
        f"on query and value, and {percent(seconds['lora_all'] / seconds['full'])} on all 36 matrices",
    ]


def questions(at, energy: list[float], noise: float) -> list[str]:  # noqa: ANN001
    """What the quiz and the predictions say; they compute most of it themselves from the same results."""
    return [
        f"We measured {percent(mean(energy))} on average, over 36 matrices and five seeds, and from "
        f"{percent(min(energy))} to {percent(max(energy))} in single ones. Random noise would give {percent(noise)}",
        f"The whole ΔW gives {percent(at('cut/top/384'))}, eight random directions of it "
        f"{percent(at('cut/random/8'))}",
        f"this run reaches {percent(at('alpha/64/8/0.01'))} and its neighbour with α = 128 ends at "
        f"{percent(at('alpha/64/128/0.01'))}",
        f"against {percent(at('cut/top/1'))} for the cut",
    ]
