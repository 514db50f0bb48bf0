"""The training curve of the tiny language model: `python -m peftlab.show.tiny_figures book/assets/tiny_curve.png`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from peftlab.show import palette
from peftlab.tasks.data_files import data_folder


def training_record() -> dict[str, Any]:
    """What data/build/tiny_model.py wrote down: runs, corpus, test losses."""
    return json.loads((data_folder() / "models" / "tiny" / "training.json").read_text(encoding="utf-8"))


def curve(record: Mapping[str, Any]) -> Axes:
    """Training and validation loss of the kept run over the tokens read; a dot where its weights were kept."""
    points = record["chosen"]["curve"]
    best = min(points, key=lambda point: point["held"])
    _, ax = plt.subplots()
    for index, (key, label) in enumerate({"train": "training", "held": "validation, held-out documents"}.items()):
        ax.plot(
            [point["tokens"] / 1e6 for point in points],
            [point[key] for point in points],
            label=label,
            color=palette.LINES[index],
            linestyle=palette.DASHES[index],
        )
    ax.plot(best["tokens"] / 1e6, best["held"], "o", color=palette.LINES[1], label="kept")
    ax.set_xlabel("million tokens read")
    ax.set_ylabel("loss (nats per token)")
    ax.set_ylim(2, 6)
    ax.legend()
    return ax


def main(path: str) -> None:
    from peftlab.show import plots

    plots.style()
    curve(training_record()).figure.savefig(path, dpi=140, metadata={"Software": None})


if __name__ == "__main__":
    import sys

    main(sys.argv[1])
