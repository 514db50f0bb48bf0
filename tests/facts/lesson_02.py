"""Lesson 02: counts are worked out anew from shapes and cards, accuracies come from lesson 06's stored runs."""

from __future__ import annotations

from statistics import mean

from peftlab.bench.results import Results
from peftlab.costs.configs import architecture
from peftlab.course import landscape
from peftlab.show.landscape_figures import SHOWN
from peftlab.show.lora_figures import accuracies
from tests.facts import percent

NAME = "02_landscape"
NOT_MEASURED = {"3.0"}  # WordNet's version


def facts() -> list[str]:
    a = architecture("all-minilm-l6-v2")
    pretrained = a.parameters - a.head_parameters  # the course's MiniLM has no pooler
    d, blocks, classes, r = a.width, a.layers, 12, 8
    head = classes * d + classes
    lora = 2 * blocks * 2 * r * d
    assert a.vocabulary * d > pretrained / 2  # "more than half of MiniLM"
    assert 5 + 16 * blocks == 101 and 2 + blocks * (6 + 4) == 62  # tensors: all; biases and norms' weights
    bitfit = next(entry for entry in landscape.entries() if entry.name == "BitFit")
    assert landscape.count(bitfit, "MiniLM").parameters > 0 == landscape.count(bitfit, "Llama 2 7B").parameters
    smallest = {
        family: min(
            n
            for entry in landscape.entries()
            if entry.family == family and (n := landscape.count(entry, "MiniLM").parameters)
        )
        for family in ("additive", "selective", "reparameterisation")
    }
    assert max(smallest.values()) < 10_000  # "all three have a method of less than ten thousand numbers"
    dated = [entry for entry in landscape.entries() if entry.name in SHOWN]
    assert sum(entry.arxiv[:2] in ("21", "23") for entry in dated) > len(dated) / 2  # "most of it is from two years"
    late = [entry.family for entry in dated if entry.arxiv[:2] >= "23"]
    assert late.count("reparameterisation") > len(late) / 2  # "most newcomers are variations on LoRA"
    cells = Results.load("scissors")
    got = [mean(accuracies(cells, arm)) for arm in ("head", "lora_qv/8", "full")]
    return [
        f"{pretrained / 1e6:.1f} million",
        f"twelve matrices differ, {2 * blocks * d * d / 1e6:.2f} million numbers",
        f"{lora + head:,} trained ones, the head included",
        f"{percent(got[0], 1)} for the head alone, {percent(got[1], 1)} for LoRA and {percent(got[2], 1)} for full",
    ]
