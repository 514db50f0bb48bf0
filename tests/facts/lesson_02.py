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
    assert max(smallest.values()) < 10_000  # "have one below ten thousand each"
    beft, pruning = (next(e for e in landscape.entries() if e.name == name) for name in ("BEFT", "DiffPruning"))
    assert landscape.count(beft, "MiniLM").parameters == min(smallest.values())
    assert landscape.count(pruning, "MiniLM").parameters == 2 * a.parameters
    dated = [entry for entry in landscape.entries() if entry.name in SHOWN]
    assert sum(entry.arxiv[:2] in ("21", "23") for entry in dated) > len(dated) / 2  # "most of it is from two years"
    late = [entry.family for entry in landscape.entries() if entry.arxiv[:2] >= "23"]
    newest = late.count("reparameterisation")
    assert newest == max(late.count(family) for family in late)  # "the largest group of newcomers"
    cells = Results.load("scissors")
    arms = [accuracies(cells, arm) for arm in ("head", "lora_qv/8", "full")]
    got, spread = [mean(arm) for arm in arms], max(max(arm) - min(arm) for arm in arms)
    head_cells = Results.load("trained_head")["cells"]
    best = max((key for key in head_cells if key.startswith("validation/")), key=head_cells.get)
    assert best == f"validation/{head_cells['chosen']:g}"
    return [
        f"{pretrained / 1e6:.1f} million",
        "twelve matrices differ, query and value in each of six blocks: "
        f"{2 * blocks * d * d / 1e6:.2f} million numbers",
        f"{lora + head:,} trained ones, the head included",
        f"{percent(got[0], 1)} for the head alone, {percent(got[1], 1)} for LoRA and {percent(got[2], 1)} for full "
        f"fine-tuning; seeds differ by up to {100 * spread:.1f} points",
        f"with a penalty chosen on validation data, it has {percent(head_cells['test'], 1)}",
        f"BEFT, with {smallest['selective']:,} numbers",
        f"trains {2 * a.parameters / 1e6:.0f} million, two for each of MiniLM's",
        f"{newest} of the {len(late)} on our map",
    ]
