"""Deep dive 04x: what it measures it measures live; three losses before training are from the stored sweep."""

from __future__ import annotations

from peftlab.bench.results import Results
from peftlab.show.prompt_figures import tried

NAME = "04x_prefix_as_adapter"
NOT_MEASURED = {"3.1", "4.4", "4.5"} | {"5", "20"}  # sections of a paper; guesses offered


def facts() -> list[str]:
    prompts, tasks = Results.load("soft_prompts"), Results.load("three_tasks")
    none = tasks["cells"]["base/define"]["loss"]
    before = {
        start: {run["before"] for run in tried(prompts, f"prefix/{start}/20").values()} for start in ("zero", "random")
    }
    assert all(len(losses) == 1 for losses in before.values())  # the rate does not matter before the first step
    zero, random = (before[start].pop() for start in ("zero", "random"))
    return [
        f"the loss is {none:.2f} with no prefix, {zero:.2f} with a prefix of 20 zeros, and {random:.2f} with a random "
        "one"
    ]
