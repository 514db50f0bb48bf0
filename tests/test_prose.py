"""Prose that quotes a number is held to the number's source: each fact is written anew and must stand in the text.

Every percentage and every decimal in a lesson's prose must belong to a fact, or to the list of numbers that are
nobody's measurement (settings, sizes, guesses offered to the reader).
"""

from __future__ import annotations

import re
from pathlib import Path
from statistics import mean

import jupytext
import pytest

from peftlab.bench.results import Results
from peftlab.show.lora_figures import accuracies

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
NUMBER = re.compile(r"(?<![\w.@/:-])\d+(?:\.\d+)?(?= ?%)|(?<![\w.@/:-])\d+\.\d+(?![\w.]*\d*/)")


def percent(value: float, digits: int = 0) -> str:
    return f"{100 * value:.{digits}f} %"


def facts_06() -> list[str]:
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
        for r in (2, 4, 8, 16, 32, 64)
    }
    assert max(spread[r] for r in (8, 16, 32, 64)) < 0.03  # "by under 3"
    best = [max(values) for values in curve.values()]
    assert max(best) - min(best) < 0.01  # "the peaks are equally high"
    assert all(abs(a - b) < 0.015 for a, b in zip(curve["4/8"][:4], curve["64/8"][:4], strict=True))  # "on top"
    seconds = Results.load("step_time")["cells"]["seconds"]
    assert at("lora_all/32") < at("lora_all/8")
    standard_error = (at("full") * (1 - at("full")) / 1200) ** 0.5
    equal, shrunk = "control/random_of_equal_energy", "control/scaled_to_equal_energy"
    shares = [e for seed in range(5) for e in cells[f"spectrum/{seed}"]["energy"].values()]
    top_4, tail_32 = mean(e["4"] for e in shares), 1 - mean(e["32"] for e in shares)
    assert abs(tail_32 - top_4) < 0.02  # "as much energy as"
    gap = at("lora_all/1") - at("head_again/1")
    assert 0.005 < gap < 0.015  # "about one point"
    return [
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
        f"{percent(at('control/without_top/32'))}. "
        f"The whole ΔW, shrunk to that energy, gives {percent(at(f'{shrunk}/4'))}",
        f"a head trained again gives {percent(at('head_again/0'))}, where the old head gave {percent(at('cut/top/0'))}",
        f"spreads by {100 * spread[2]:.0f} points at r=2, by {100 * spread[4]:.0f} at r=4",
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


FACTS = {"06_lora": facts_06}
# The reader's choices in a prediction, section numbers, versions.
NOT_MEASURED = {"06_lora": {"10", "40", "95", "4.1", "3.0"}}


def prose(name: str) -> str:
    notebook = jupytext.read(NOTEBOOKS / f"{name}.py")
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    text = text.replace("$r = 2$", "r=2").replace("$r = 4$", "r=4")
    return re.sub(r"\]\([^)]*\)|\[arXiv:[^\]]*\]|\$[^$]*\$", " ", text)  # links and maths are no measurements


@pytest.mark.parametrize("name", FACTS)
def test_every_quoted_number_is_the_stored_one(name):
    text = prose(name)
    missing = [fact for fact in FACTS[name]() if fact not in text]
    assert not missing, f"the prose of {name} should say: {missing}"


@pytest.mark.parametrize("name", FACTS)
def test_no_number_stands_without_a_source(name):
    facts = " ".join(FACTS[name]())
    known = set(NUMBER.findall(facts)) | NOT_MEASURED[name]
    unknown = sorted(set(NUMBER.findall(prose(name))) - known)
    assert not unknown, f"numbers in {name} that no fact covers: {unknown}"


def test_the_net_catches_an_invented_number():
    assert NUMBER.findall("It gained 3.7 points, or 12 %, in lesson 06 (2021).") == ["3.7", "12"]


def test_every_lesson_with_stored_results_has_facts():
    using = {p.stem for p in NOTEBOOKS.glob("*.py") if "Results.load" in p.read_text(encoding="utf-8")}
    assert using <= set(FACTS)
