"""Which parameters to train: chosen by Fisher information, by magnitude, or drawn at random (lesson 05).

MiniLM, WordNet topics, one epoch of 90 steps, as in `scissors`. An arm is a way to choose entries and a budget, a share
of the encoder's parameters, or a known method. The fresh head trains beside it in every arm, at a learning rate of its
own (that of the head alone), so that the rate which is searched is that of the chosen parameters only. The best rate
depends on the budget, so it is searched for each arm: on the validation split with seed 0, until the best one has a
worse neighbour on either side. Then five seeds, and the test split once for each.

Controls: random entries of the six blocks; random entries, as many in each tensor as Fisher has there; Fisher's best
inside each tensor, the same share of all; Fisher divided by how loud the inputs are; Fisher from few examples, from
shuffled labels, with the head of another seed, with a trained head. For the deep dive: the entries that full
fine-tuning moves most (LT-SFT), and diff pruning; its gates under higher prices; and, because both train twice, a
random mask and full fine-tuning with twice the steps.

Some minutes on an H100, with PEFTLAB_WORKERS=12. With PEFTLAB_SECONDS the important cells come first; run it again to
go on.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import peftlab
from peftlab import hosts
from peftlab.bench import parallel
from peftlab.bench.parallel import Job
from peftlab.bench.results import Results
from peftlab.bench.scissors import TARGETS
from peftlab.course import loud_inputs
from peftlab.errors import PeftLabError
from peftlab.methods import BitFit, DiffPruning, FishMask, LastLayers, LNTuning, LoRA, Method
from peftlab.methods.selective import sparse
from peftlab.methods.selective.fishmask import empirical_fisher
from peftlab.tasks import datasets, metrics, models
from peftlab.tasks.training import train

RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
HEAD_RATE = 3e-3  # of the head, in every arm
FULL_RATE = 3e-4  # of the full fine-tuning whose movement LT-SFT looks at
GATE_RATE = 0.3  # of diff pruning's gates: α has to come down from 5 in 90 steps whose rate falls to 0
FIRST = {1e-4: 3e-2, 1e-3: 1e-2, 5e-3: 1e-2, 2e-2: 3e-3, 1e-1: 1e-3, 5e-1: 3e-4}  # budget: where the search begins
METHODS: dict[str, tuple[Method | str, float]] = {  # and the first learning rate
    "head": ("head", HEAD_RATE),
    "full": ("full", 3e-4),
    "bitfit": (BitFit(), 1e-2),
    "layer_norm": (LNTuning(), 1e-2),
    "last/1": (LastLayers(num_layers=1), 1e-3),
    "last/2": (LastLayers(num_layers=2), 1e-3),
    "last/3": (LastLayers(num_layers=3), 3e-4),
    "lora_all/8": (LoRA(r=8, lora_alpha=16, target_modules=TARGETS["lora_all"]), 3e-3),
    "lora_qv/8": (LoRA(r=8, lora_alpha=16, target_modules=TARGETS["lora_qv"]), 3e-3),
}
PENALTIES = (1e-9, 1e-8, 1e-7, 1e-6)  # diff pruning's λ


@dataclass(frozen=True)
class Scale:
    """How large the experiment is."""

    steps: int = 90
    batch_size: int = 32
    examples: int = 1024  # for the Fisher information
    few: int = 32
    rows: int | None = None  # of the validation and the test split
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


TOY = Scale(steps=2, batch_size=4, examples=3, few=2, rows=8, seeds=(0, 1))  # does the code run?


def run(results: Results, scale: Scale = Scale()) -> bool:
    results.settings(
        **asdict(scale), rates=RATES, head_rate=HEAD_RATE, full_rate=FULL_RATE, gate_rate=GATE_RATE,
        penalties=PENALTIES, budgets=list(FIRST), data="wordnet_topics", model="minilm", schedule="linear",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        return parallel.run(results, all_plans(scale, folder), prepare=prepare)


def prepare() -> None:
    """Of every process."""
    torch.set_num_threads(1)


# ---- the plans ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arm:
    key: str
    first: float  # the learning rate in the middle of the first three
    rank: int
    under: str = ""  # before the key, in the results


def all_plans(scale: Scale, folder: str) -> list[parallel.Plan]:
    """Every arm, the important ones first."""

    def at(kind: str, *budgets: float, rank: int) -> list[Arm]:
        return [Arm(f"{kind}/{budget}", FIRST[budget], rank) for budget in budgets]

    plans: list[parallel.Plan] = [fisher_of(scale, folder, seed) for seed in scale.seeds]
    arms = [Arm(key, first, 1) for key, (_, first) in METHODS.items()]
    for budget, rank in ((5e-3, 1), (1e-3, 2), (2e-2, 2), (1e-4, 3), (1e-1, 4), (5e-1, 7)):
        for kind in ("random", "magnitude", "fisher"):
            arms += at(kind, budget, rank=rank)
    arms += at("random_as_fisher", 1e-3, 5e-3, 2e-2, rank=5) + at("fisher_each", 1e-3, 5e-3, 2e-2, rank=5)
    arms += at("random_blocks", 5e-3, rank=5)
    arms += at("moved", 5e-3, 2e-2, rank=6) + at("smallest", 5e-3, rank=6) + at("magnitude_each", 5e-3, 2e-2, rank=6)
    plans += [arm(scale, each, folder) for each in arms]
    plans += [looked_at(scale, folder, seed) for seed in scale.seeds]
    plans += [diff_pruning(scale, folder), gates(scale)]
    plans += [arm(scale, each, folder) for each in at("fisher_quiet", 1e-3, 5e-3, rank=9)]
    twice = dataclasses.replace(scale, steps=2 * scale.steps)  # as long as both phases of LT-SFT together
    plans += [
        arm(twice, Arm(key, first, 9, "long/"), folder) for key, first in (("random/0.005", 1e-2), ("full", 3e-4))
    ]
    return plans


def fisher_of(scale: Scale, folder: str, seed: int) -> parallel.Plan:
    """Computed before anything asks for it, and what it looks like."""
    yield {f"fisher_of/{seed}": Job(described, {"scale": scale, "folder": folder, "seed": seed}, 0)}


def arm(scale: Scale, each: Arm, folder: str) -> parallel.Plan:
    """Choose the learning rate, then five seeds; after Fisher at 0.5 %, the same with other Fisher informations."""
    tried: dict[float, dict[str, Any]] = {}
    wanted = {RATES[i] for i in beside(RATES.index(each.first))}
    given, name = {"scale": scale, "key": each.key, "folder": folder}, f"{each.under}{each.key}"
    while wanted:
        found = yield {
            f"choose/{name}/{lr}": Job(fit, {**given, "lr": lr, "seed": 0, "on": "validation"}, each.rank)
            for lr in sorted(wanted)
        }
        tried |= {lr: found[f"choose/{name}/{lr}"] for lr in wanted}
        wanted = {RATES[i] for i in beside(RATES.index(best(tried)))} - set(tried)
    given["lr"] = best(tried)
    yield {f"{name}/{seed}": Job(fit, {**given, "seed": seed, "on": "test"}, each.rank) for seed in scale.seeds}
    if each.key == "fisher/0.005":
        yield {
            f"{kind}/0.005/{seed}": Job(fit, {**given, "key": f"{kind}/0.005", "seed": seed, "on": "test"}, 6)
            for kind in ("fisher_few", "fisher_shuffled", "fisher_other_head", "fisher_trained_head")
            for seed in scale.seeds
        }


def beside(i: int) -> range:
    return range(max(i - 1, 0), min(i + 1, len(RATES) - 1) + 1)


def best(tried: Mapping[float, Mapping[str, Any]]) -> float:
    """The best validation accuracy; of equal ones the lowest loss. A run that failed is worse than any other."""
    return max(tried, key=lambda lr: (tried[lr].get("accuracy", 0), -tried[lr].get("loss", math.inf)))


def looked_at(scale: Scale, folder: str, seed: int) -> parallel.Plan:
    yield {f"masks/{seed}": Job(masks_of, {"scale": scale, "folder": folder, "seed": seed}, 6)}


def diff_pruning(scale: Scale, folder: str) -> parallel.Plan:
    """Choose λ and the rate of the third phase together, then five seeds."""
    pairs = [(penalty, lr) for penalty in PENALTIES for lr in (1e-3, 3e-3, 1e-2, 3e-2)]
    given = {"scale": scale, "budget": 5e-3}
    found = yield {
        f"choose/diff/{penalty}/{lr}": Job(
            diff_fit, {**given, "penalty": penalty, "lr": lr, "seed": 0, "on": "validation"}, 8
        )
        for penalty, lr in pairs
    }
    penalty, lr = best({pair: found[f"choose/diff/{pair[0]}/{pair[1]}"] for pair in pairs})
    yield {
        f"diff/0.005/{seed}": Job(diff_fit, {**given, "penalty": penalty, "lr": lr, "seed": seed, "on": "test"}, 8)
        for seed in scale.seeds
    }


def gates(scale: Scale) -> parallel.Plan:
    """Does a higher price close diff pruning's gates, or an Adam that sees smaller gradients? The first phase alone."""
    yield {
        f"gates/{penalty}/{eps}": Job(gates_after, {"scale": scale, "penalty": penalty, "eps": eps}, 9)
        for penalty in (1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
        for eps in (1e-8, 1e-12)
    }


# ---- in the processes of the pool ----------------------------------------------------------------------------------


@functools.cache
def loaded() -> tuple[nn.Module, Any, datasets.Dataset]:
    data = datasets.load("wordnet_topics")
    base, tokenizer = models.load("minilm", num_labels=len(data.classes))
    return base.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer, data


def fresh(seed: int) -> nn.Module:
    """A copy of the pretrained model. The head starts anew with each seed."""
    model = copy.deepcopy(loaded()[0])
    torch.manual_seed(seed)
    model.classifier.reset_parameters()
    return model


def optimizer(model: nn.Module, groups: Mapping[str, float], eps: float = 1e-8) -> torch.optim.AdamW:
    """AdamW. groups: a part of the name and the rate of what is called so; the first that fits counts."""
    parameters: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = next(rate for part, rate in groups.items() if part in name)
            parameters.setdefault(rate, []).append(parameter)
    params = [{"params": own, "lr": rate} for rate, own in parameters.items()]
    return torch.optim.AdamW(params, weight_decay=0.0, eps=eps)


def trained(scale: Scale, model: nn.Module, lr: float, seed: int, **groups: float) -> None:
    _, tokenizer, data = loaded()
    train(
        model, tokenizer, data.train, seed=seed, steps=scale.steps, batch_size=scale.batch_size, progress=False,
        optimizer=optimizer(model, {"classifier": HEAD_RATE, **groups, "": lr}),
    )  # fmt: skip


def fit(scale: Scale, key: str, lr: float, seed: int, on: str, folder: str) -> dict[str, Any]:
    """Train one arm, and what it does on held-out data. A run that blows up has no accuracy."""
    model = fresh(seed)
    if key in METHODS:
        method = METHODS[key][0]
        if isinstance(method, Method):
            model = peftlab.attach(model, method)
        else:
            model.requires_grad_(method == "full").classifier.requires_grad_(True)
    else:
        model = peftlab.attach(model, FishMask(mask=mask(scale, key, seed, folder)))
    record: dict[str, Any] = {"lr": lr, "trainable": peftlab.count_parameters(model).trainable}
    try:
        trained(scale, model, lr, seed)
    except PeftLabError as error:
        return record | {"failed": str(error).partition(".")[0]}
    record |= tested(scale, model, on)
    if key not in METHODS:
        values = torch.cat([p.detach() for name, p in model.named_parameters() if name.endswith("_values")])
        record["moved"] = float(f"{values.square().mean().sqrt():.4g}")
        record["still"] = round(float((values == 0).float().mean()), 4)  # never had a gradient
    return record


def tested(scale: Scale, model: nn.Module, on: str) -> dict[str, float]:
    _, tokenizer, data = loaded()
    found = metrics.evaluate(model, tokenizer, getattr(data, on)[: scale.rows])
    return {"accuracy": round(found.accuracy, 5), "loss": round(found.loss, 4)}


def first_phase(scale: Scale, budget: float, penalty: float, seed: int, eps: float = 1e-8) -> nn.Module:
    """Diff pruning's w and α, trained with the price of open gates."""
    model = peftlab.attach(fresh(seed), DiffPruning(keep_ratio=budget, sparsity_penalty=penalty))
    _, tokenizer, data = loaded()
    train(
        model, tokenizer, data.train, seed=seed, steps=scale.steps, batch_size=scale.batch_size, progress=False,
        optimizer=optimizer(model, {"classifier": HEAD_RATE, "_alpha": GATE_RATE, "": FULL_RATE}, eps),
        extra_loss=peftlab.penalty,
    )  # fmt: skip
    return model


def diff_fit(scale: Scale, budget: float, penalty: float, lr: float, seed: int, on: str) -> dict[str, Any]:
    """Diff pruning's three phases: w and α with the penalty; the k largest z w; these alone, as long again."""
    record: dict[str, Any] = {"lr": lr, "penalty": penalty}
    try:
        model = first_phase(scale, budget, penalty, seed)
        record["before_pruning"] = tested(scale, model, on)["accuracy"]
        found = {name: change for name, change in sparse.changes(model).items() if not name.startswith("classifier")}
        record["changed"] = round(sum(int((d != 0).sum()) for d in found.values()) / size(pool(fresh(seed))), 4)
        model = peftlab.attach(fresh(seed), DiffPruning(keep_ratio=budget, start=found))
        trained(scale, model, lr, seed)
    except PeftLabError as error:
        return record | {"failed": str(error).partition(".")[0]}
    return record | tested(scale, model, on)


def gates_after(scale: Scale, penalty: float, eps: float) -> dict[str, Any]:
    """The first phase with seed 0: the share of gates that are open at u = 1/2, and the model on validation data."""
    model = first_phase(scale, 5e-3, penalty, 0, eps)
    alphas = [p.detach() for name, p in model.named_parameters() if name.endswith("_alpha")]
    opened = sum(int((alpha > 0).sum()) for alpha in alphas)  # l = -r: open at u = 1/2 where α > 0
    lowest = min(float(alpha.min()) for alpha in alphas)
    record = {"open": round(opened / size(dict(enumerate(alphas))), 4), "lowest_alpha": round(lowest, 3)}
    return record | tested(scale, model, "validation")


# ---- choosing entries ---------------------------------------------------------------------------------------------


def pool(model: nn.Module) -> dict[str, nn.Parameter]:
    """The encoder: all but the head."""
    return sparse.candidates(model, left_out=("classifier",))


def size(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def mask(scale: Scale, key: str, seed: int, folder: str) -> dict[str, Tensor]:
    """Flat places of the chosen entries, by name of parameter. key: the way to choose, and the budget."""
    kind, _, budget = key.rpartition("/")
    entries = {name: parameter.detach() for name, parameter in pool(fresh(seed)).items()}
    k = max(1, round(float(budget) * size(entries)))
    draw = torch.Generator().manual_seed(seed)
    if kind == "random_blocks":
        return sparse.top_k(drawn({n: e for n, e in entries.items() if block(n) != "embeddings"}, draw), k)
    if kind == "random":
        return sparse.top_k(drawn(entries, draw), k)
    if kind in ("magnitude", "smallest"):
        sign = 1 if kind == "magnitude" else -1
        return sparse.top_k({name: sign * parameter.abs() for name, parameter in entries.items()}, k)
    if kind == "magnitude_each":
        return top_of_each({name: parameter.abs() for name, parameter in entries.items()}, float(budget))
    if kind == "moved":
        return sparse.top_k(kept(folder, f"moved-{seed}", lambda: movement(scale, seed)), k)
    scores = fisher(scale, kind, seed, folder)
    if kind == "fisher_quiet":
        scores = quiet(scores)
    if kind == "fisher_each":
        return top_of_each(scores, float(budget))
    chosen = sparse.top_k(scores, k)
    if kind != "random_as_fisher":
        return chosen
    return {
        name: torch.randperm(entries[name].numel(), generator=draw)[: len(places)].sort().values
        for name, places in chosen.items()
    }


def drawn(entries: Mapping[str, Tensor], draw: torch.Generator) -> dict[str, Tensor]:
    return {name: torch.rand(tensor.shape, generator=draw) for name, tensor in entries.items()}


def top_of_each(scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """The best inside each tensor, the same share of all."""
    return {
        name: tensor.flatten().topk(max(1, round(share * tensor.numel()))).indices.sort().values.cpu()
        for name, tensor in scores.items()
    }


def fisher(scale: Scale, kind: str, seed: int, folder: str) -> dict[str, Tensor]:
    """The empirical Fisher information of the encoder with the head of this seed, or of a control."""
    variant = kind if kind in ("fisher_few", "fisher_shuffled", "fisher_trained_head") else "fisher"
    of = (seed + 1) % len(scale.seeds) if kind == "fisher_other_head" else seed
    return kept(folder, f"{variant}-{of}", lambda: fisher_now(scale, variant, of))


def quiet(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The Fisher information of weights, divided by the mean square of the inputs that they multiply."""
    base, tokenizer, data = loaded()
    read = loud_inputs.inputs(base, tokenizer, data.train[:256])
    return {
        name: score / read[name].square().mean(0).to(score) if name in read else score for name, score in scores.items()
    }


def fisher_now(scale: Scale, variant: str, seed: int) -> dict[str, Tensor]:
    _, tokenizer, data = loaded()
    model = fresh(seed)
    if variant == "fisher_trained_head":
        model.requires_grad_(False).classifier.requires_grad_(True)
        trained(scale, model, HEAD_RATE, seed)
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(data.train), generator=draw)
    rows = rows[: scale.few if variant == "fisher_few" else scale.examples].tolist()
    labels = [data.train.labels[row] for row in rows]
    if variant == "fisher_shuffled":
        labels = [labels[i] for i in torch.randperm(len(labels), generator=draw).tolist()]
    device = metrics.device_of(model)

    def examples() -> Any:
        for row, label in zip(rows, labels, strict=True):
            one = datasets.encode(data.train, [row], tokenizer, max_length=32) | {"labels": torch.tensor([label])}
            yield {name: tensor.to(device) for name, tensor in one.items()}

    found = empirical_fisher(model, examples())
    return {name: found[name] for name in pool(model)}


def movement(scale: Scale, seed: int) -> dict[str, Tensor]:
    """How far a full fine-tuning moves each entry: LT-SFT's first phase."""
    before, after = fresh(seed), fresh(seed).requires_grad_(True)
    trained(scale, after, FULL_RATE, seed)
    ends = pool(after)
    return {name: (ends[name] - start).detach().abs() for name, start in pool(before).items()}


def kept(folder: str, name: str, compute: Any) -> dict[str, Tensor]:
    """Scores, computed once for all processes and then read from a file."""
    path = Path(folder) / f"{name}.safetensors"
    if not path.exists():
        partial = path.with_suffix(f".{os.getpid()}")
        save_file({key: tensor.cpu().contiguous() for key, tensor in compute().items()}, partial)
        partial.replace(path)
    return load_file(path)


# ---- looking at masks -----------------------------------------------------------------------------------------------


def described(scale: Scale, folder: str, seed: int) -> dict[str, Any]:
    """How unequal the Fisher information is: the share of its sum that the largest entries hold."""
    scores = fisher(scale, "fisher", seed, folder)
    joined = torch.cat([tensor.flatten() for tensor in scores.values()]).double()
    ordered = joined.sort(descending=True).values.cumsum(0)
    shares = {str(b): float(f"{ordered[round(b * len(joined)) - 1] / ordered[-1]:.4g}") for b in FIRST}
    return {"share_of_sum": shares, "zero": round(float((joined == 0).double().mean()), 4), "entries": len(joined)}


def masks_of(scale: Scale, folder: str, seed: int) -> dict[str, Any]:
    """Where masks lie, and how many entries they share with each other."""
    scores = fisher(scale, "fisher", seed, folder)
    where, shared = {}, {}
    kinds = ("fisher", "magnitude", "random", "moved", "smallest")
    for budget in FIRST if seed == 0 else (5e-3,):
        found = {kind: mask(scale, f"{kind}/{budget}", seed, folder) for kind in kinds}
        where |= {f"{kind}/{budget}": places(found[kind], scores) for kind in kinds}
        if budget in (5e-3, 2e-2):
            others = ("fisher_few", "fisher_shuffled", "fisher_other_head", "fisher_trained_head")
            found |= {kind: mask(scale, f"{kind}/{budget}", seed, folder) for kind in others}
            shared |= {f"{kind}/{budget}": overlap(found["fisher"], found[kind]) for kind in found if kind != "fisher"}
    return {"where": where, "shared_with_fisher": shared}


def places(mask: Mapping[str, Tensor], scores: Mapping[str, Tensor]) -> dict[str, Any]:
    """Number of chosen entries by block and kind of parameter, and the share whose Fisher information is 0."""
    counts: dict[str, int] = {}
    zero = 0
    for name, flat in mask.items():
        cell = f"{block(name)}/{kind_of(name)}"
        counts[cell] = counts.get(cell, 0) + len(flat)
        zero += int((scores[name].flatten()[flat] == 0).sum())
    return {"counts": counts, "zero": round(zero / size(mask), 4)}


def block(name: str) -> str:
    number = hosts.block_number(name)
    return "embeddings" if number is None else str(number)


def kind_of(name: str) -> str:
    """The part of a block that a parameter belongs to; biases and LayerNorms are kinds of their own."""
    if "LayerNorm" in name:
        return "LayerNorm"
    if name.endswith("bias"):
        return "bias"
    kinds = ("word", "position", "token_type", "query", "key", "value", "attention.output", "intermediate", "output")
    return next(kind for kind in kinds if kind in name)


def overlap(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """The share of one mask's entries that the other has too."""
    both = sum(int(torch.isin(flat, other[name]).sum()) for name, flat in one.items() if name in other)
    return round(both / size(one), 4)
