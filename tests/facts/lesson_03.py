"""Lesson 03: what its prose may quote, from data/results."""

from __future__ import annotations

from statistics import mean
from typing import Any

from peftlab.bench.results import Results
from peftlab.course.questions import lesson_03
from peftlab.show.adapter_figures import ratio, runs
from peftlab.show.lora_figures import accuracies
from tests.facts import percent

NAME = "03_adapters"
# The licence's version, and guesses offered to the reader. Then others' numbers, with their source in the paragraph.
NOT_MEASURED = {"3.0", "8", "60", "80", "85", "1", "15", "200"} | {"30", "21", "3", "2", "4", "6"}
D, M, BLOCKS = 384, 16, 6
SEEDS = 3


def facts() -> list[str]:
    return [*counted(), *trained(), *merged(), *timed()]


def counted() -> list[str]:
    """What is arithmetic."""
    blocks = BLOCKS * (4 * D * D + 2 * D * 4 * D)
    share = 2 * BLOCKS * 2 * D * M / blocks
    return [f"with m = 16 add {percent(share, 1)} to the multiplications of the blocks"]


def _cells() -> dict[str, Any]:
    return Results.load("adapter_widths")["cells"]


def _runs(arm: str, m: int) -> list[dict[str, Any]]:
    found = runs(Results.load("adapter_widths"), arm, m)
    assert len(found) == SEEDS, f"{arm} at {m} has {len(found)} seeds"
    return found


def _accuracy(arm: str, m: int) -> float:
    return mean(run["accuracy"] for run in _runs(arm, m))


def _other(cell: str) -> float:
    found = accuracies(Results.load("scissors"), cell)
    assert len(found) == 5  # "five for the others"
    return mean(found)


def _inside_the_grid(arm: str) -> None:
    """The chosen learning rate was neither the largest nor the smallest that was tried."""
    tried = {float(key.split("/")[2]): found for key, found in _cells().items() if key.startswith(f"choose/{arm}/")}
    best = max(tried, key=tried.get)
    assert min(tried) < best < max(tried), f"{arm}: {tried}"


def trained() -> list[str]:
    """Adapters of several widths beside the head alone, LoRA and full fine-tuning."""
    return []


def merged() -> list[str]:
    return []


def timed() -> list[str]:
    return []
