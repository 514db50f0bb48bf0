"""Bridge B4: bytes are counted anew from the formula, 68 % is lesson 06's stored time; its cells assert the rest."""

from __future__ import annotations

from peftlab.bench.results import Results
from tests.facts import percent

NAME = "B4_backward_and_adam"
NOT_MEASURED = {"99", "90", "10", "1", "95", "0.9", "0.999"}  # what the reader may guess, 1 in 100; Adam's settings


def facts() -> list[str]:
    seconds = Results.load("step_time")["cells"]["seconds"]
    matrices = 6 * 6  # MiniLM: six kinds in each of six blocks
    frozen, trained = 7e9, 40e6
    lora = frozen * 2 + trained * 16
    assert trained * 16 == 0.64e9 and round((frozen + trained) * 16 / 1e9) == 113
    rows = {"2 | 2 | 4 | 4 | 4": 16, "4 | 4 | – | 4 | 4": 16, "2 | – | – | – | –": 2}
    for cells, total in rows.items():
        assert sum(int(cell) for cell in cells.split(" | ") if cell != "–") == total
    return [
        *(f"| {cells} | **{total}** |" for cells, total in rows.items()),
        f"about {lora / 1e9:.1f} GB",
        f"{frozen * 2 / 1e9:.0f} GB for the frozen weights, {trained * 16 / 1e9:.2f} GB for all that is trained",
        f"about {trained * 16 / 1e9:.1f} GB",
        f"took {percent(seconds['lora_qv'] / seconds['full'])} of the time of a full one",
        f"on all {matrices} it took {percent(seconds['lora_all'] / seconds['full'])}",
    ]
