"""The three adapters of data/adapters: trained, then measured alone, on each other's tasks, added together, merged.

Lesson 07. Small enough for two CPU cores: a few minutes for each adapter. The learning rate, 4e-3, was for every task
the best of those tried at the time. In the wider grid measured since (`three_tasks`, whose runs see 3.6 times as many
examples) it is the best for topic and reverse, and next to the best (8e-3) for define. An adapter that is in
data/adapters already is not trained again; delete its folder to do that.

For the two tasks with one right answer, an answer is right if the most likely token, at each step of the right answer,
is that answer's next token: greedy writing would begin with it. What comes after it does not count, because the
untuned model never learned where to stop.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import peftlab
from peftlab.bench.results import Results
from peftlab.bench.three_tasks import METHOD, SHOTS, TASKS, last, load, measured, splits, with_examples
from peftlab.surgery import adapted_modules
from peftlab.tasks.datasets import IGNORED, Completions, data_folder, encode
from peftlab.tasks.metrics import device_of
from peftlab.tasks.training import train

SETTINGS = {"steps": 200, "batch_size": 8, "schedule": "linear", "warmup": 0, "max_length": 48}
LR = 4e-3
ROWS = 100  # of each test split
COMBINED = (("define", "topic"), ("define", "reverse"), ("topic", "reverse"), TASKS)
WEIGHTS = (0.5, 1.0)
SWAPS = (1, 10, 100, 300, 1000, 3000)  # after how many the drift is noted
SERVED = 1000  # swaps before the answers are measured again
DRIFT = {"one": TASKS[:1], "in turn": TASKS}  # which adapters are merged and unmerged, one after the other


def run(results: Results) -> None:
    base, tokenizer = load()
    end = tokenizer.eos_token
    results.settings(**SETTINGS, lr=LR, seed=0, model="smollm2", rows=ROWS, weights=list(WEIGHTS), shots=SHOTS, end=end)
    for task in TASKS:
        if not (folder() / task / "adapter_config.json").exists():
            results.content["cells"].pop(f"trained/{task}", None)
        results.cell(f"trained/{task}", lambda: trained(base, tokenizer, task))  # noqa: B023
    model = served(copy.deepcopy(base))
    results.cell("way_back", lambda: way_back(model))
    results.cell("norms", lambda: norms(model))
    for dtype in (torch.bfloat16, torch.float32):
        for who, names in DRIFT.items():
            results.cell(f"drift/{dtype}/{who}", lambda: drifts(model, names, dtype))  # noqa: B023
    tests = {task: splits(task)["test"][:ROWS] for task in TASKS}
    for task in TASKS:
        results.cell(f"bf16/{task}", lambda: in_bf16(base, tokenizer, tests[task], task))  # noqa: B023
    for task in TASKS:
        alone(results, model, tokenizer, tests[task], task)
    for task in TASKS:
        added(results, model, tokenizer, tests[task], task)
    topic, define = tests["topic"], tests["define"]
    # The exact sum, made as large as 'linear' with weights of 1/2: does size explain the one place where that wins?
    results.cell(
        "combine/cat/topic+reverse/0.75/topic",
        lambda: combination(model, tokenizer, topic, ("topic", "reverse"), "cat", 0.75),
    )
    results.cell("paired/define+topic/define", lambda: against_base(model, tokenizer, define, ("define", "topic")))
    results.cell("after_swaps", lambda: after_swaps(copy.deepcopy(base), tokenizer, tests, SERVED))
    for task in ("topic", "reverse"):
        shown = with_examples(tests[task], splits(task)["train"][:SHOTS])
        with peftlab.disabled(model):
            results.cell(f"examples/{task}", lambda: answers(model, tokenizer, shown, 512))  # noqa: B023
    fair = with_examples(topic, one_of_each(splits("topic")["train"]))
    with peftlab.disabled(model):
        results.cell("examples_of_each/topic", lambda: answers(model, tokenizer, fair, 512))


def folder() -> Path:
    return data_folder() / "adapters"


def trained(base: nn.Module, tokenizer: Any, task: str) -> dict[str, Any]:
    """Train one adapter and keep it."""
    torch.manual_seed(0)  # A's start
    model = peftlab.attach(copy.deepcopy(base), METHOD)
    run = train(model, tokenizer, splits(task)["train"], lr=LR, seed=0, progress=False, **SETTINGS)
    peftlab.save(model, folder() / task)
    return {"trainable": run.trainable, "last_losses": last(run.losses)}


def served(model: nn.Module) -> nn.Module:
    """The base with the three stored adapters attached, by the names of their tasks."""
    for name in TASKS:
        peftlab.load(model, folder() / name, name=name)
    return model


def alone(results: Results, model: nn.Module, tokenizer: Any, test: Completions, task: str) -> None:
    """The base and each of the three adapters on one task."""
    with peftlab.disabled(model):
        results.cell(f"base/{task}", lambda: answers(model, tokenizer, test))
    for name in TASKS:
        peftlab.use(model, name)
        results.cell(f"{name}/{task}", lambda: answers(model, tokenizer, test))


def added(results: Results, model: nn.Module, tokenizer: Any, test: Completions, task: str) -> None:
    """Weighted sums of adapters, on one of the tasks that went in."""
    for names in COMBINED:
        for how in ("cat", "linear"):
            for weight in WEIGHTS if task in names else ():
                cell = f"combine/{how}/{'+'.join(names)}/{weight}/{task}"
                results.cell(cell, lambda: combination(model, tokenizer, test, names, how, weight))  # noqa: B023


def combination(
    model: nn.Module, tokenizer: Any, test: Completions, names: tuple[str, ...], how: str, weight: float
) -> dict[str, Any]:
    peftlab.add_weighted_adapter(model, list(names), [weight] * len(names), "combined", how)
    peftlab.use(model, "combined")
    found = answers(model, tokenizer, test)
    peftlab.use(model, names[0])
    peftlab.detach(model, "combined")
    return found


@torch.no_grad()
def against_base(model: nn.Module, tokenizer: Any, test: Completions, names: tuple[str, ...]) -> dict[str, Any]:
    """The loss of the exact sum, weights 1, minus the base's, and its 95 % interval over the rows (bootstrap)."""
    peftlab.add_weighted_adapter(model, list(names), [1.0] * len(names), "combined", "cat")
    peftlab.use(model, "combined")
    combined = torch.tensor([row[:2] for row in rows(model, tokenizer, test)])
    peftlab.use(model, names[0])
    peftlab.detach(model, "combined")
    with peftlab.disabled(model):
        without = torch.tensor([row[:2] for row in rows(model, tokenizer, test)])
    drawn = torch.randint(len(test), (10_000, len(test)), generator=torch.Generator().manual_seed(0))
    tokens = combined[:, 1]
    more = (combined[:, 0] - without[:, 0])[drawn].sum(dim=1) / tokens[drawn].sum(dim=1)
    lowest, highest = more.quantile(torch.tensor([0.025, 0.975])).tolist()
    found = float((combined[:, 0] - without[:, 0]).sum() / tokens.sum())
    return {"difference": round(found, 4), "lowest": round(lowest, 4), "highest": round(highest, 4)}


def one_of_each(train_on: Completions) -> Completions:
    """The first training row of every answer: a fair set of examples, in the order in which they come."""
    first = sorted({answer: train_on.completions.index(answer) for answer in set(train_on.completions)}.values())
    return Completions([train_on.prompts[i] for i in first], [train_on.completions[i] for i in first])


@torch.no_grad()
def way_back(model: nn.Module) -> dict[str, dict[str, float]]:
    """Add every ΔW to its matrix and subtract it again: which share of the entries is back, which never moved?"""
    found = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        entries = back = unmoved = 0
        for wrapper in adapted_modules(model).values():
            W0 = wrapper.base.weight.to(dtype)
            for name in TASKS:
                delta = wrapper.adapters[name].delta_weight()
                with_delta = merged(W0, delta)
                entries += W0.numel()
                back += int((unmerged(with_delta, delta) == W0).sum())
                unmoved += int((with_delta == W0).sum())
        found[str(dtype)] = {"back": round(back / entries, 4), "unmoved": round(unmoved / entries, 4)}
    return found


def merged(W: Tensor, delta: Tensor) -> Tensor:
    """As peft merges: ΔW is added in its own float32, then the sum is rounded to the weight's type."""
    return (W + delta).to(W.dtype)


def unmerged(W: Tensor, delta: Tensor) -> Tensor:
    """As peft unmerges: ΔW is rounded to the weight's type, then subtracted."""
    return W - delta.to(W.dtype)


def swapped(W0: Tensor, deltas: list[Tensor], swaps: int) -> Tensor:
    """W0 after so many merges and unmerges, the adapters taking turns."""
    W = W0
    for swap in range(swaps):
        delta = deltas[swap % len(deltas)]
        W = unmerged(merged(W, delta), delta)
    return W


@torch.no_grad()
def drifts(model: nn.Module, names: tuple[str, ...], dtype: torch.dtype) -> dict[str, Any]:
    """How far all matrices are from where they were, over the size of the first adapter's ΔW, after so many swaps.

    A matrix that is where it was one turn earlier (a turn: every adapter once) repeats that turn for ever. `repeating`
    is the share of matrices that do so in the end, `settled` the swap after which the last of these began to.
    """
    squares, length, settled = dict.fromkeys(SWAPS, 0.0), 0.0, []
    wrappers = adapted_modules(model).values()
    for wrapper in wrappers:
        deltas = [wrapper.adapters[name].delta_weight() for name in names]
        W = W0 = wrapper.base.weight.to(dtype)
        length += float(deltas[0].square().sum())
        turn = [W0] * len(deltas)  # the matrix after each adapter's last swap
        repeats = False
        for swap in range(1, SWAPS[-1] + 1):
            place = (swap - 1) % len(deltas)
            if not repeats:
                W = unmerged(merged(W, deltas[place]), deltas[place])
                if repeats := torch.equal(W, turn[place]):
                    settled.append(max(swap - len(deltas), 0))
                turn[place] = W
            if swap in SWAPS:
                squares[swap] += float((turn[place].double() - W0.double()).square().sum())
    off = {str(swaps): round((found / length) ** 0.5, 6) for swaps, found in squares.items()}
    return {"off": off, "repeating": round(len(settled) / len(wrappers), 4), "settled": max(settled, default=None)}


@torch.no_grad()
def after_swaps(
    base: nn.Module, tokenizer: Any, tests: dict[str, Completions], swaps: int
) -> dict[str, dict[str, float]]:
    """The adapters' losses on a base rounded to bf16, before and after so many swaps in turn. Computes in float32."""
    model = served(base)
    for wrapper in adapted_modules(model).values():
        wrapper.base.weight.copy_(wrapper.base.weight.bfloat16())
    found = {"before": own_losses(model, tokenizer, tests)}
    for wrapper in adapted_modules(model).values():
        deltas = [wrapper.adapters[name].delta_weight() for name in TASKS]
        wrapper.base.weight.copy_(swapped(wrapper.base.weight.bfloat16(), deltas, swaps))
    return found | {"after": own_losses(model, tokenizer, tests)}


def own_losses(model: nn.Module, tokenizer: Any, tests: dict[str, Completions]) -> dict[str, float]:
    found = {}
    for task in TASKS:
        peftlab.use(model, task)
        found[task] = answers(model, tokenizer, tests[task])["loss"]
    return found


@torch.no_grad()
def norms(model: nn.Module) -> dict[str, float]:
    """Size of each ΔW over all matrices (Frobenius), and how much larger 'linear' of equal weights is than the sum."""
    wrappers = list(adapted_modules(model).values())
    found = {name: size([w.adapters[name].delta_weight() for w in wrappers]) for name in TASKS}
    for names in COMBINED:
        exact = [sum(w.adapters[name].delta_weight() for name in names) for w in wrappers]
        linear = [crossed([w.adapters[name] for name in names]) for w in wrappers]
        found[f"linear/exact {'+'.join(names)}"] = size(linear) / size(exact)
    return {name: round(value, 4) for name, value in found.items()}


def size(matrices: list[Tensor]) -> float:
    return float(sum(matrix.square().sum() for matrix in matrices)) ** 0.5


def crossed(adapters: list[nn.Module]) -> Tensor:
    """(α/r) ΣB ΣA: 'linear' with weights of 1, cross terms included. All adapters here have the same α/r."""
    A, B = (sum(getattr(each, factor).weight for each in adapters) for factor in ("lora_A", "lora_B"))
    return METHOD.lora_alpha / METHOD.r * B @ A


def in_bf16(base: nn.Module, tokenizer: Any, test: Completions, task: str) -> dict[str, dict[str, Any]]:
    """A stored adapter on a bfloat16 base, unmerged (the adapter stays in float32) and merged."""
    model = copy.deepcopy(base).to(torch.bfloat16)
    peftlab.load(model, folder() / task)
    apart = measured(model, tokenizer, test)
    return {"unmerged": apart, "merged": measured(peftlab.merge(model), tokenizer, test)}


def answers(model: nn.Module, tokenizer: Any, test: Completions, max_length: int = 48) -> dict[str, float]:
    """Loss per token of the answers (their end included), and the share of answers that would be written rightly."""
    found = rows(model, tokenizer, test, max_length)
    loss, tokens, right = (sum(column) for column in zip(*found, strict=True))
    return {"loss": round(loss / tokens, 4), "right": round(right / len(test), 4), "tokens": tokens}


@torch.no_grad()
def rows(model: nn.Module, tokenizer: Any, test: Completions, max_length: int = 48) -> list[tuple[float, int, bool]]:
    """Of every row: the answer's loss summed over its tokens, how many these are, whether it would come out right."""
    model.eval()
    found = []
    for start in range(0, len(test), 25):
        batch = encode(test, range(start, min(start + 25, len(test))), tokenizer, max_length=max_length)
        labels = batch.pop("labels")[:, 1:]
        logits = model(**{name: value.to(device_of(model)) for name, value in batch.items()}).logits[:, :-1].cpu()
        losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").sum(dim=1)
        end = (labels == IGNORED) | (labels == tokenizer.eos_token_id)
        right = ((logits.argmax(-1) == labels) | end).all(dim=1)
        found += zip(losses.tolist(), (labels != IGNORED).sum(dim=1).tolist(), right.tolist(), strict=True)
    return found
