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


def tasks(trained: Mapping[str, Any], answered: Mapping[str, Any]) -> Table:
    """Every task: the base, the base with examples, LoRA, full fine-tuning, one adapter for all, the stored adapters.

    trained: results of `three_tasks`, for the losses. answered: results of `adapters`, for the right answers and the
    stored adapters' losses.
    """
    cells, right = trained["cells"], answered["cells"]
    shots = answered["settings"]["shots"]
    joint = seeds(trained, "joint/all")
    # name, the runs of each task (one for each seed), the cell that says how many answers are right
    rows: tuple[tuple[str, dict[str, list[dict[str, Any]]], str], ...] = (
        ("the base", {t: [cells[f"base/{t}"]] for t in TASKS}, "base/{}"),
        (f"the base, {shots} examples in the prompt", {t: [cells[f"examples/{t}"]] for t in TASKS}, "examples/{}"),
        ("LoRA, one adapter a task", {t: seeds(trained, f"lora/{t}") for t in TASKS}, ""),
        ("full fine-tuning, one model a task", {t: seeds(trained, f"full/{t}") for t in TASKS}, ""),
        ("LoRA, one adapter for all three", {t: [run[t] for run in joint] for t in TASKS}, ""),
        ("your three stored adapters", {t: [right[f"{t}/{t}"]] for t in TASKS}, "{0}/{0}"),
    )
    table = []
    for name, runs, answers in rows:
        line: dict[str, Any] = {"": name}
        for task in TASKS:
            line[f"{task}: loss"] = _over_seeds([run["loss"] for run in runs[task]])
        line["seeds"] = len(runs["define"]) if len(runs["define"]) > 1 else "-"
        for task in ("topic", "reverse"):
            line[f"{task}: right"] = percent(right[answers.format(task)]["right"]) if answers else "-"
        table.append(line)
    return Table(
        table,
        caption="Test data. Losses: mean (lowest to highest) over the seeds. The last row's losses and all right "
        "answers: 100 questions",
    )


def _over_seeds(losses: list[float]) -> str:
    """The mean, and beside it the lowest and the highest where there is more than one."""
    span = f" ({min(losses):.2f} to {max(losses):.2f})" if len(losses) > 1 else ""
    return f"{mean(losses):.2f}{span}"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def latency(gpu: Mapping[str, Any], cpu: Mapping[str, Any]) -> Figure:
    """Time of the base, of an unmerged and of a routed forward pass over the merged one's, by batch size.

    gpu, cpu: results of `lora_latency` on each. One row of axes for each, on one scale.
    """
    figure, axes = plt.subplots(2, 2, figsize=(8.4, 6.0), sharex=True, sharey=True)
    series = (
        ("qv", "routed", "three adapters routed, on query and value"),
        ("all", "unmerged", "one unmerged, on all 7 matrices of a block"),
        ("qv", "unmerged", "one unmerged, on query and value"),
        ("qv", "base", "no adapter (its distance from 1 is noise)"),
    )
    machines = (("H100", gpu, "cuda"), ("CPU, one thread", cpu, "cpu"))
    for row, (machine, results, device) in zip(axes, machines, strict=True):
        for ax, (work, title) in zip(row, (("read", "reading 32 tokens"), ("write", "writing one token")), strict=True):
            for index, (targets, variant, label) in enumerate(series):
                ax.plot(
                    range(len(BATCHES)),
                    [ratio(results, device, targets, work, batch, variant) for batch in BATCHES],
                    label=label,
                    color=palette.LINES[index],
                    linestyle=palette.DASHES[index],
                    marker=palette.MARKERS[index],
                    markersize=5,
                )
            ax.axhline(1, color=palette.GREY, linewidth=1.2)
            ax.annotate("merged", (len(BATCHES) - 1, 1), xytext=(0, -16), textcoords="offset points", ha="right",
                        color=palette.GREY, fontsize=9)  # fmt: skip
            ax.set_xticks(range(len(BATCHES)), [str(batch) for batch in BATCHES])
            ax.set_title(f"{machine}: {title}", fontsize=11)
        row[0].set_ylabel("time, merged model = 1")
    for ax in axes[-1]:
        ax.set_xlabel("rows in the batch")
    axes[0, 0].set_ylim(bottom=0)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    return figure


def ratio(results: Mapping[str, Any], device: str, targets: str, work: str, batch: int, variant: str) -> float:
    """Median time of a variant over the merged model's."""
    found = results["cells"][f"{device}/{targets}/{work}/{batch}"]
    return found[variant] / found["merged"]


COMBINED = ("define+topic", "define+reverse", "topic+reverse", "define+topic+reverse")


def combinations(answered: Mapping[str, Any]) -> Figure:
    """Loss of weighted sums on each of their tasks, between the base and the task's own adapter."""
    cells = answered["cells"]
    figure, axes = plt.subplots(1, 3, figsize=(8.8, 3.9))
    for ax, task in zip(axes, TASKS, strict=True):
        places = [names for names in COMBINED if task in names.split("+")]
        for index, (how, weight) in enumerate((("cat", 0.5), ("cat", 1.0), ("linear", 0.5), ("linear", 1.0))):
            ax.plot(
                [place + 0.12 * (index - 1.5) for place in range(len(places))],  # side by side: some are equal
                [cells[f"combine/{how}/{names}/{weight}/{task}"]["loss"] for names in places],
                label=f"{'exact sum (cat)' if how == 'cat' else 'linear'}, weights {weight:g}",
                color=palette.LINES[index],
                marker=palette.MARKERS[index],
                linestyle="none",
                markersize=8,
            )
        for cell, label, dash in ((f"base/{task}", "the base", ":"), (f"{task}/{task}", "the task's own adapter", "-")):
            ax.axhline(cells[cell]["loss"], color=palette.GREY, linestyle=dash, linewidth=1.5, label=label, zorder=1)
        ax.set_xticks(range(len(places)), [names.replace("+", "\n+ ") for names in places], fontsize=9)
        ax.set_xlim(-0.5, len(places) - 0.5)
        ax.set_ylim(bottom=0)
        ax.set_title(f"tested on {task}", fontsize=11)
    axes[0].set_ylabel("test loss per token (nats)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return figure
