"""Bridge B5: what it says about the stored runs of the scissors, and about intervals that anyone can work out."""

from __future__ import annotations

from statistics import mean, stdev

from peftlab.bench.results import Results
from peftlab.course.luck import upsets
from peftlab.show.lora_figures import accuracies
from peftlab.tasks.metrics import wilson_interval
from tests.facts import percent

NAME = "B5_validation_seeds_intervals"
# Confidence levels, worked examples, and heights in the alt text of a live figure, which its cell holds to a range.
NOT_MEASURED = {"95", "87", "0.9", "0.1", "0.03", "0.76", "0.82"}


def facts() -> list[str]:
    stored = Results.load("scissors")
    cells = stored["cells"]
    full, lora, head, lora_qv, lora_1 = (
        accuracies(stored, cell) for cell in ("full", "lora_all/8", "head", "lora_qv/8", "lora_all/1")
    )
    assert all(len(runs) == 5 for runs in (full, lora, head, lora_qv, lora_1))
    assert 0.0095 < lora[2] - full[2] < 0.0105 and full[3] - lora[3] > 0.01  # "by a point", "by more than a point"
    assert upsets(full, head) == 0 and round(100 * (mean(full) - mean(head))) == 7  # "seven points survives"
    assert upsets(full, lora) == 5 and 0.004 < mean(full) - mean(lora) < 0.006  # "half a point turns round in 5"
    assert upsets(lora_1, lora_qv) == 9 and round(100 * (mean(lora_1) - mean(lora_qv)), 2) == 0.25
    assert sum(b > a for a, b in zip(full, lora, strict=True)) == 1  # "at the same seed LoRA wins once in five"
    assert upsets([full[2]], lora) == upsets(full, lora)  # "all five come from one weak run"
    assert cells["lora_all/1/0"]["lr"] == cells["lora_all/8/0"]["lr"]
    differences = [a - b for a, b in zip(full, lora, strict=True)]
    error = stdev(differences) / 5**0.5
    half = 2.776 * error  # Student's t with 4 degrees of freedom, 97.5 %
    assert 2.5 < half / error < 3  # "nearly three standard errors"

    bars = [wilson_interval(round(mean(runs) * 1200), 1200) for runs in (head, lora_qv, lora, full)]
    assert all(0.035 < high - low < 0.045 for low, high in bars)  # "about four points wide"
    assert bars[0][1] < min(low for low, _ in bars[1:])  # "far left of the others"
    assert bars[2][1] > bars[3][0] and bars[1][1] > bars[3][0]  # "which overlap"
    assert max(max(runs) - min(runs) for runs in (lora, lora_qv)) < 0.01  # "close together"
    assert 0.4 < (max(full) - min(full)) / (bars[3][1] - bars[3][0]) < 0.7  # "over half a bar"

    low, high = wilson_interval(87, 100)
    kinds = {"full": "full", "head": "head", "lora_all": "lora_all/8", "lora_qv": "lora_qv/8"}
    falls = []
    for kind, cell in kinds.items():
        tried = {key: value for key, value in cells.items() if key.startswith(f"choose/{kind}/")}
        assert len(tried) == 3  # "three learning rates"
        best = max(tried, key=tried.get)
        assert float(best.rpartition("/")[2]) == cells[f"{cell}/0"]["lr"]
        falls.append(tried[best] - cells[f"{cell}/0"]["accuracy"])
    assert sum(fall > 0 for fall in falls) == 3 and max(falls) < 0.01  # "three scored lower, all by less than a point"
    noise = (0.87 * 0.13 / 720 + 0.87 * 0.13 / 1200) ** 0.5
    assert max(falls) < noise  # "within the noise"
    return [
        f"ahead by {100 * mean(differences):.2f} points on average, with a standard error of {100 * error:.2f}",
        f"about {100 * (mean(differences) - half):.1f} to {100 * (mean(differences) + half):.1f} points. It holds zero",
        f"With 100 rows, 87 % may stand for anything from {percent(low)} to {percent(high)}",
        f"in {upsets(full, lora)} of the 25 pairs LoRA is ahead",
    ]
