"""Lesson 03: what its prose may quote, from data/results."""

from __future__ import annotations

from statistics import mean, median
from typing import Any

from peftlab.bench.results import Results
from peftlab.course.questions import lesson_03
from peftlab.show.adapter_figures import VARIANTS, ratio, runs
from peftlab.show.lora_figures import accuracies
from tests.facts import percent

NAME = "03_adapters"
# Versions of a licence, scores of a grid, guesses offered to the reader; others' numbers, with their source beside them.
NOT_MEASURED = {"3.0", "2.0", "30", "21", "3", "2", "8", "60", "80", "85", "1", "15", "200"}
STATED = {"1.4"}  # worked out below
D, M, BLOCKS = 384, 16, 6


def facts() -> list[str]:
    return [*counted(), *trained(), *merged(), *timed()]


def counted() -> list[str]:
    """What is arithmetic."""
    blocks = BLOCKS * (4 * D * D + 2 * D * 4 * D)
    share = 2 * BLOCKS * 2 * D * M / blocks
    return [f"with m = 16 add {percent(share, 1)} to the multiplications of the blocks"]


def _stored() -> dict[str, Any]:
    return Results.load("adapter_widths")


def _accuracy(arm: str, m: int) -> list[float]:
    found = [run["accuracy"] for run in runs(_stored(), arm, m)]
    assert len(found) == 3, f"{arm} at {m} has {len(found)} seeds"
    return found
