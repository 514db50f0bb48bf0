"""Independent cells of a measurement, several at a time, each in a process of a pool. Only the parent writes results.

A plan is a generator. It yields the jobs that it wants next, by the key of their cells, and is sent their values when
all are there; so it can choose a learning rate from what came back, and ask for more. Many plans run side by side. A
cell that is in the results already is not measured again.

    def plan():
        losses = yield {f"choose/{lr}": Job(fit, {"lr": lr}) for lr in (1e-3, 1e-2)}
        best = min(losses, key=losses.get)
        ...

    run(results, [plan()], workers=4)

The environment variables PEFTLAB_WORKERS and PEFTLAB_SECONDS take the place of `workers` and `seconds`.
"""

from __future__ import annotations

import heapq
import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from peftlab.bench.results import Results
from peftlab.errors import PeftLabError


@dataclass(frozen=True)
class Job:
    """One cell to measure: a function of a module, called with these arguments in another process."""

    function: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    rank: int = 0  # lower first


Plan = Generator[Mapping[str, Job], Mapping[str, Any], None]


def run(
    results: Results,
    plans: Sequence[Plan],
    *,
    workers: int | None = None,
    seconds: float | None = None,
    prepare: Callable[[], None] | None = None,
) -> bool:
    """Follow all plans to their ends; True if none was cut short.

    workers: processes, started afresh (one, if nothing is said); each runs `prepare` first.
    seconds: stop after so long. What runs then is lost, and measured when the same is run again.
    Raises PeftLabError at the end if a job failed; its plan stops, the others go on.
    """
    workers = workers or int(os.environ.get("PEFTLAB_WORKERS", "1"))
    seconds = seconds or float(os.environ.get("PEFTLAB_SECONDS", "inf"))
    end = time.monotonic() + seconds
    desk = _Desk(results, plans)
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=prepare)
    running: dict[Future, _Task] = {}
    try:
        while desk.waiting or running:
            while desk.waiting and len(running) < workers:
                task = heapq.heappop(desk.waiting)
                running[pool.submit(_timed, task.job)] = task
            left = end - time.monotonic()
            done, _ = wait(running, None if left == float("inf") else max(left, 0), FIRST_COMPLETED)
            for future in done:
                desk.hand_in(running.pop(future), future)
            if time.monotonic() >= end:
                break
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
    if desk.failures:
        raise PeftLabError("jobs failed:\n" + "\n".join(desk.failures))
    return not (desk.waiting or running)


@dataclass(order=True)
class _Task:
    rank: int
    serial: int
    plan: int = field(compare=False)
    key: str = field(compare=False)
    job: Job = field(compare=False)


class _Desk:
    """Where plans leave their wishes and fetch their values."""

    def __init__(self, results: Results, plans: Sequence[Plan]) -> None:
        self.results, self.plans = results, list(plans)
        self.waiting: list[_Task] = []
        self.wanted: list[tuple[str, ...]] = [()] * len(self.plans)
        self.failures: list[str] = []
        self.serial = itertools.count()
        for number in range(len(self.plans)):
            self.advance(number, None)

    def advance(self, number: int, values: Mapping[str, Any] | None) -> None:
        """Send a plan its values, and queue what it asks for next; on until something has to be measured."""
        cells = self.results.content["cells"]
        while True:
            try:
                jobs = self.plans[number].send(values)
            except StopIteration:
                return
            self.wanted[number] = tuple(jobs)
            missing = {key: job for key, job in jobs.items() if key not in cells}
            for key, job in missing.items():
                heapq.heappush(self.waiting, _Task(job.rank, next(self.serial), number, key, job))
            if missing:
                return
            values = {key: cells[key] for key in jobs}

    def hand_in(self, task: _Task, future: Future) -> None:
        """Keep a value, and let its plan go on if that was the last one it waited for."""
        error = future.exception()
        if error is not None:
            self.failures.append(f"{task.key}: {type(error).__name__}: {error}")
            print(self.failures[-1], flush=True)
            return
        value, seconds = future.result()
        self.results.keep(task.key, value, seconds)
        cells = self.results.content["cells"]
        if all(key in cells for key in self.wanted[task.plan]):
            self.advance(task.plan, {key: cells[key] for key in self.wanted[task.plan]})


def _timed(job: Job) -> tuple[Any, float]:
    start = time.perf_counter()
    value = job.function(**job.arguments)
    return value, time.perf_counter() - start
