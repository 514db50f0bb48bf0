"""The figures and tables of lesson 07. Each draws stored results; see `python -m peftlab.bench`."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from peftlab.show import palette
from peftlab.show.plots import Table

TASKS = ("define", "topic", "reverse")
BATCHES = (1, 2, 4, 8, 16, 32)


def seeds(results: Mapping[str, Any], cell: str) -> list[dict[str, Any]]:
    """The stored runs of a cell, one for each seed."""
    found = results["cells"]
    return [found[key] for key in found if key.rpartition("/")[0] == cell and key.rpartition("/")[2].isdigit()]


def tasks(results: Mapping[str, Any]) -> Table:
    """Every task: the base, the base with examples, LoRA, full fine-tuning, one adapter for all."""
    rows = {
        "the base": lambda task: [results["cells"][f"base/{task}"]],
        "the base, 8 examples in the prompt": lambda task: [results["cells"][f"examples/{task}"]],
        "LoRA, one adapter a task": lambda task: seeds(results, f"lora/{task}"),
        "full fine-tuning, one model a task": lambda task: seeds(results, f"full/{task}"),
        "LoRA, one adapter for all three": lambda task: [run[task] for run in seeds(results, "joint/all")],
    }
    return Table(
        [
            {
                "": name,
                "define: perplexity": round(mean(run["perplexity"] for run in found("define")), 1),
                "topic: exact": percent(mean(run["exact"] for run in found("topic"))),
                "reverse: exact": percent(mean(run["exact"] for run in found("reverse"))),
            }
            for name, found in rows.items()
        ],
        "Test data; trained rows are means of three seeds",
    )


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def latency(results: Mapping[str, Any]) -> Figure:
    """Time of an unmerged and of a routed forward pass over the merged one's, by batch size, on two machines."""
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.4), sharey=True)
    for ax, (work, title) in zip(axes, (("read", "reading 32 tokens"), ("write", "writing one token")), strict=True):
        for index, (device, targets, variant, label) in enumerate(
            (
                ("cuda", "all", "unmerged", "GPU, all 7 matrices a block"),
                ("cuda", "qv", "unmerged", "GPU, query and value"),
                ("cpu", "all", "unmerged", "CPU, all 7"),
                ("cpu", "qv", "unmerged", "CPU, query and value"),
                ("cpu", "qv", "routed", "CPU, q and v, three adapters routed"),
            )
        ):
            ax.plot(
                range(len(BATCHES)),
                [ratio(results, device, targets, work, batch, variant) for batch in BATCHES],
                label=label,
                color=palette.LINES[index],
                linestyle=palette.DASHES[index],
                marker=palette.MARKERS[index],
            )
        ax.axhline(1, color=palette.GREY, linewidth=1.2)
        ax.set_xticks(range(len(BATCHES)), [str(batch) for batch in BATCHES])
        ax.set_xlabel("rows in the batch")
        ax.set_title(title, fontsize=11)
    axes[0].set_ylabel("time, merged model = 1")
    axes[0].set_ylim(bottom=0)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    return figure


def ratio(results: Mapping[str, Any], device: str, targets: str, work: str, batch: int, variant: str) -> float:
    """Median time of a variant over the merged model's."""
    found = results["cells"][f"{device}/{targets}/{work}/{batch}"]
    return found[variant] / found["merged"]


def kept(results: Mapping[str, Any], task: str, run: Mapping[str, Any]) -> float:
    """How much of the way from the base (0) to the task's own adapter (1) a run has gone, in loss per token."""
    base, own = results["cells"][f"base/{task}"]["loss"], results["cells"][f"lora/{task}/0"]["loss"]
    return (base - run["loss"]) / (base - own)
