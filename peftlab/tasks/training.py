"""One plain training loop, for every method and every lesson. `train` is meant to be read."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from peftlab.errors import PeftLabError
from peftlab.tasks.datasets import Completions, Split, batches
from peftlab.tasks.metrics import check_fits, device_of, evaluate, keeping_modes

SCHEDULES = ("linear", "constant")


@dataclass(repr=False)
class Run:
    """What happened during training: numbers and strings only, so it can be kept as JSON."""

    name: str
    losses: list[float] = field(default_factory=list)  # training loss, one per step, in nats
    learning_rates: list[float] = field(default_factory=list)  # one per step
    # (steps done, accuracy, loss) on the held-out data
    evaluations: list[tuple[int, float, float]] = field(default_factory=list)
    seconds: float = 0.0  # wall time of the steps; tokenising and evaluating are not counted
    trainable: int = 0  # parameters that were trained
    total: int = 0  # all parameters of the model, the trained ones included
    seed: int = 0
    settings: dict[str, object] = field(default_factory=dict)

    @property
    def accuracy(self) -> float | None:
        """Of the last evaluation; None if there was none."""
        return self.evaluations[-1][1] if self.evaluations else None

    def __repr__(self) -> str:
        parts = [f"{len(self.losses)} steps, {self.trainable:,} of {self.total:,} parameters"]
        if self.losses:
            parts.append(f"loss {self.losses[0]:.2f} -> {self.losses[-1]:.2f}")
        if self.accuracy is not None:
            parts.append(f"held-out accuracy {self.accuracy:.3f}")
        return f"Run({self.name!r}: {', '.join(parts)})"

    def to_dict(self) -> dict[str, object]:
        """For json.dumps; `from_dict` is the way back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, record: dict) -> Run:
        return cls(**{**record, "evaluations": [tuple(row) for row in record["evaluations"]]})


def train(
    model: nn.Module,
    tokenizer,
    data: Split | Completions,
    evaluate_on: Split | Completions | None = None,
    *,
    steps: int,
    lr: float | None = None,
    batch_size: int = 16,
    weight_decay: float = 0.0,
    optimizer: torch.optim.Optimizer | None = None,
    warmup: int = 0,
    schedule: str = "linear",
    max_grad_norm: float = 1.0,
    max_length: int = 32,
    seed: int = 0,
    eval_every: int | None = None,
    extra_loss: Callable[[nn.Module], Tensor] | None = None,
    after_step: Callable[[nn.Module, int], None] | None = None,
    progress: bool = True,
    name: str = "run",
) -> Run:
    """Train the parameters that require a gradient; all others stay as they are.

    lr, weight_decay: of AdamW. Or give an `optimizer` of your own in place of `lr` (LoRA+ has two
        learning rates); the schedule scales all the learning rates it has.
    schedule: after `warmup` steps of linear rise, "linear" falls to 0 and "constant" stays.
    evaluate_on: held-out data; measured at the end, and every `eval_every` steps if that is given.
    extra_loss: a scalar tensor to add to the loss at every step, such as peftlab.penalty.
    after_step: called with the model and the number of steps done, such as peftlab.after_step.
    seed: of the order of the data and of dropout. Same seed, same machine: same run.

    Leaves every module in the mode (train or eval) that it was in.
    Raises PeftLabError before any work when nothing can be trained, when data is empty or does not
    fit the model, or when a setting makes no sense; later only at a step whose loss is not finite.
    """
    settings = {"steps": steps, "lr": lr, "batch_size": batch_size, "weight_decay": weight_decay}
    settings |= {"warmup": warmup, "schedule": schedule, "max_grad_norm": max_grad_norm}
    settings |= {"max_length": max_length, "optimizer": type(optimizer).__name__}
    _check_settings(steps, lr, optimizer, batch_size, warmup, schedule, eval_every)
    for split in (data, evaluate_on):
        if split is not None:
            check_fits(model, tokenizer, split, max_length)
    trainable = _trainable(model)
    if optimizer is None:
        optimizer = torch.optim.AdamW(trainable, lr=lr, weight_decay=weight_decay)
        settings["optimizer"] = "AdamW"
    share = functools.partial(scheduled, steps=steps, warmup=warmup, schedule=schedule)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, share)

    run = Run(name, seed=seed, settings=settings)
    run.trainable = sum(parameter.numel() for parameter in trainable)
    run.total = sum(parameter.numel() for parameter in model.parameters())
    stream = _endless(data, tokenizer, batch_size, max_length, seed)
    bar = tqdm(total=steps, desc=name, leave=False, disable=not progress)
    torch.manual_seed(seed)  # dropout
    with keeping_modes(model), bar:
        model.train()
        for step, batch in zip(range(1, steps + 1), stream, strict=False):
            start = time.perf_counter()
            rate = scheduler.get_last_lr()[0]
            loss = _loss(model, batch)
            objective = loss if extra_loss is None else loss + extra_loss(model)
            _check_finite(objective, step, rate)

            objective.backward()
            torch.nn.utils.clip_grad_norm_(trainable, max_grad_norm)
            optimizer.step()
            if after_step is not None:
                after_step(model, step)  # while the gradients are still there: AdaLoRA needs them
            optimizer.zero_grad()
            scheduler.step()

            run.seconds += time.perf_counter() - start
            run.losses.append(loss.item())
            run.learning_rates.append(rate)
            bar.update()
            due = step == steps or (eval_every is not None and step % eval_every == 0)
            if evaluate_on is not None and due:
                result = evaluate(model, tokenizer, evaluate_on, max_length=max_length)
                run.evaluations.append((step, result.accuracy, result.loss))
    return run


def scheduled(step: int, steps: int, warmup: int, schedule: str) -> float:
    """The share of the full learning rate for a step, counted from 0. Above 0 for every step."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    return max(0, steps - step) / (steps - warmup)


def _endless(data, tokenizer, batch_size: int, max_length: int, seed: int) -> Iterator[dict]:
    """Epoch after epoch, each in an order of its own."""
    for epoch in itertools.count():
        order = seed + 1_000_003 * epoch  # so far apart that two small seeds never share an order
        yield from batches(
            data, tokenizer, batch_size=batch_size, max_length=max_length, seed=order
        )


def _loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    device = device_of(model)
    return model(**{key: value.to(device) for key, value in batch.items()}).loss


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise PeftLabError(
            "No parameter of the model requires a gradient: there is nothing to train. Attach an "
            "adapter, or unfreeze something with requires_grad_(True)."
        )
    return trainable


def _check_settings(
    steps: int,
    lr: float | None,
    optimizer: torch.optim.Optimizer | None,
    batch_size: int,
    warmup: int,
    schedule: str,
    eval_every: int | None,
) -> None:
    if (lr is None) == (optimizer is None):
        raise PeftLabError("Give either `lr`, or an `optimizer` that brings its own learning rate.")
    if lr is not None and not lr > 0:
        raise PeftLabError(f"lr={lr}: the learning rate must be positive.")
    if steps < 1 or batch_size < 1:
        raise PeftLabError(f"steps={steps}, batch_size={batch_size}: both must be at least 1.")
    if not 0 <= warmup < steps:
        raise PeftLabError(f"warmup={warmup}: it must be at least 0 and less than steps={steps}.")
    if schedule not in SCHEDULES:
        raise PeftLabError(f"schedule={schedule!r}: choose one of {', '.join(SCHEDULES)}.")
    if eval_every is not None and eval_every < 1:
        raise PeftLabError(f"eval_every={eval_every}: it must be at least 1, or None.")


def _check_finite(objective: Tensor, step: int, rate: float) -> None:
    if not math.isfinite(objective.item()):
        raise PeftLabError(
            f"The loss is {objective.item()} at step {step}, with learning rate {rate:.1e}. The "
            "model is spoiled: load it again, and try a learning rate ten times smaller."
        )
