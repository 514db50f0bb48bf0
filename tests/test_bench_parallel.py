"""The pool of the longer measurements: plans that wait for values, resumption, failures, a deadline."""

from __future__ import annotations

import statistics
import time

import pytest

from peftlab.bench import parallel, soft_prompts
from peftlab.bench.parallel import Job
from peftlab.bench.results import Results
from peftlab.errors import PeftLabError


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "some.json", {"name": "some", "environment": {}, "settings": {}, "cells": {}})


def mean(*data: float) -> Job:
    return Job(statistics.mean, {"data": data})


def test_a_plan_is_sent_its_values_and_may_ask_for_more(results):
    sent = []

    def plan():
        sent.append((yield {"a": mean(1, 3), "b": mean(5)}))
        sent.append((yield {"c": mean(sent[0]["a"], sent[0]["b"])}))

    assert parallel.run(results, [plan()], workers=2)
    assert sent == [{"a": 2, "b": 5}, {"c": 3.5}]
    assert results.content["cells"] == {"a": 2, "b": 5, "c": 3.5}


def test_what_is_known_is_not_measured_again(results):
    results.content["cells"]["a"] = 7

    def plan():
        known = yield {"a": mean(1)}
        yield {"b": mean(known["a"], 9)}

    assert parallel.run(results, [plan()])
    assert results.content["cells"] == {"a": 7, "b": 8}


def test_a_failed_job_stops_its_plan_and_no_other(results):
    def broken():
        yield {"bad": Job(statistics.mean, {"data": []}), "beside": mean(4)}
        yield {"never": mean(1)}

    def whole():
        yield {"good": mean(2)}
        yield {"better": mean(3)}

    with pytest.raises(PeftLabError, match="bad: StatisticsError"):
        parallel.run(results, [broken(), whole()])
    assert results.content["cells"] == {"beside": 4, "good": 2, "better": 3}


def test_a_deadline_ends_it_and_the_next_run_goes_on(results):
    def plan():
        yield {"long": Job(sleep, {"seconds": 60})}

    start = time.monotonic()
    assert not parallel.run(results, [plan()], seconds=0.5)
    assert time.monotonic() - start < 30  # it did not wait for the job
    assert results.content["cells"] == {}


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def test_low_ranks_come_first(results):
    def plan(key: str, rank: int):
        yield {key: Job(statistics.mean, {"data": [rank]}, rank)}

    parallel.run(results, [plan("third", 3), plan("first", 1), plan("second", 2)], workers=1)
    assert list(results.content["cells"]) == ["first", "second", "third"]


def test_the_search_goes_on_until_both_neighbours_are_worse():
    arm = soft_prompts.Arm("prompt", "text", 1, first=1e-2)
    plan = soft_prompts.arm(soft_prompts.Scale(curve=()), arm, rank=0)
    truth = {lr: abs(i - 8) + 1.0 for i, lr in enumerate(soft_prompts.RATES)}  # the ninth is best
    asked = next(plan)
    tried = []
    while all(key.startswith("choose/") for key in asked):
        rates = {key: job.arguments["lr"] for key, job in asked.items()}
        tried += rates.values()
        asked = plan.send({key: {"validation": truth[lr]} for key, lr in rates.items()})
    assert tried == [3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0]
    assert {key: job.arguments["lr"] for key, job in asked.items()} == {
        "final/prompt/text/1/1": 1.0,
        "final/prompt/text/1/2": 1.0,
    }


def test_a_run_that_blew_up_is_never_chosen():
    assert soft_prompts.validation({"validation": None}) > soft_prompts.validation({"validation": 99.0})


def test_the_stored_run_goes_on_where_its_log_ends(tmp_path):
    """Its cells have losses only. No plan stumbles over that, and none asks for what is there."""
    stored = Results.load("soft_prompts")
    results = Results(tmp_path / "soft_prompts.json", stored)
    scales = (soft_prompts.SMOLLM2, soft_prompts.TINY)
    results.settings(**soft_prompts.settings(scales))  # the same as the stored ones, or it is refused
    before = set(stored["cells"])
    desk = parallel._Desk(results, [plan for scale in scales for plan in soft_prompts.all_plans(scale)])
    asked = {task.key for task in desk.waiting}
    assert not asked & before
    assert {"final/prompt/text/20/1", "choose/prefix/real/20/0.3", "steps/lora/r8/0/60"} <= asked
    assert not any(key.startswith("hand/") for key in asked)
