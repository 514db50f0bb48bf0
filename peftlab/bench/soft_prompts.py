"""Soft prompts on one task, word -> definition: starts, lengths, learning rates, steps (lesson 04).

SmolLM2 as its package ships it (4-bit weights, de-quantised), with the settings of `three_tasks`, where the untuned
model, LoRA and full fine-tuning stand. An arm is a kind (prompt, prefix), a start and a length. For each, learning
rates are tried on the validation split with seed 0 until the best one has a worse neighbour on either side. That run
and two more seeds are the finals, measured on the test split. Then the same arm with other numbers of steps. The test
loss of every run is kept beside its validation loss; nothing is chosen by it.

Starts of a prompt: `random` is peft's N(0, 1); `small` is random at the scale of the word embeddings; `vocabulary` is
embeddings of random tokens; `text` is embeddings of the first n tokens of worked examples. Starts of a prefix: `random`
is N(0, 1); `zero`; `real` is the keys and values of the first n tokens of worked examples; `projection` is peft's
`prefix_projection`. Length 0 stands for all tokens of the eight examples.

Some minutes on an H100, with PEFTLAB_WORKERS=12. With PEFTLAB_SECONDS the important cells come first; run it again to
go on. Cells read back from a printed log have the losses only: nothing here asks an earlier cell for more than its
validation loss. The two adapters that the course keeps are trained by `kept_prompts`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import peftlab
from peftlab.bench import parallel
from peftlab.bench.parallel import Job
from peftlab.bench.results import Results
from peftlab.errors import PeftLabError
from peftlab.methods import LoRA, PrefixTuning, PromptTuning
from peftlab.tasks import datasets, metrics, models
from peftlab.tasks.datasets import Completions, data_folder
from peftlab.tasks.prompts import captured, start_from
from peftlab.tasks.training import train

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0, 30.0)
SHOTS = (0, 1, 2, 4, 8, 16, 32)  # worked examples in the hand-written prompt
EXAMPLES = 8  # whose text the starts are taken from
NEAREST = 3  # tokens of the vocabulary that are kept for each trained vector


@dataclass(frozen=True)
class Scale:
    """How large the experiment is. The defaults are `three_tasks`'s."""

    model: str = "smollm2"
    steps: int = 180
    batch_size: int = 32
    warmup: int = 0
    max_length: int = 48
    rows: int | None = None  # of the validation and the test split
    seeds: tuple[int, ...] = (0, 1, 2)
    lengths: tuple[int, ...] = (1, 5, 20, 100)
    length: int = 20  # of the arms that are looked at most closely
    curve: tuple[int, ...] = (60, 540, 1620)  # other numbers of steps
    few: bool = False  # four arms only


@dataclass(frozen=True)
class Arm:
    kind: str  # prompt, prefix or lora
    start: str
    n: int
    first: float  # the learning rate in the middle of the first ones tried
    around: int = 1  # how many to either side

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.start}/{self.n}"


SMOLLM2 = Scale()
TINY = Scale(model="tiny", steps=400, warmup=10, max_length=64, curve=(), few=True)  # as `tiny_tasks`
TOY = Scale(  # seconds on a CPU: does the code run?
    "tiny", steps=2, batch_size=4, max_length=64, rows=4, seeds=(0, 1), lengths=(1, 3), length=3, curve=(1, 3)
)

FIRST = {  # where the search for the learning rate begins
    "prompt": {"random": 1.0, "small": 3e-2, "vocabulary": 3e-2, "text": 3e-2},
    "prefix": {"random": 3e-2, "zero": 3e-2, "real": 1e-2, "projection": 3e-3},
}


def run(results: Results, scales: tuple[Scale, ...] = (SMOLLM2, TINY)) -> bool:
    results.settings(**settings(scales))
    plans = [plan for scale in scales for plan in all_plans(scale)]
    return parallel.run(results, plans, prepare=prepare)


def settings(scales: tuple[Scale, ...]) -> dict[str, Any]:
    """What holds for all cells."""
    return {
        "scales": [asdict(scale) for scale in scales],
        "rates": RATES,
        "shots": SHOTS,
        "examples": EXAMPLES,
        "task": "define",
        "schedule": "linear",
        "matmul": "high",
    }


def prepare() -> None:
    """Of every process."""
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")  # on a GPU: TF32 products, as in three_tasks


# ---- the plans ----------------------------------------------------------------------------------------------------


def all_plans(scale: Scale) -> list[parallel.Plan]:
    """Every arm, the important ones first."""
    if scale.few:
        few = [("prompt", "random"), ("prompt", "text"), ("prefix", "random"), ("prefix", "real")]
        return [hand(scale), *(arm(scale, make(scale, *pair, scale.length), 3) for pair in few)]
    others = [n for n in scale.lengths if n != scale.length]
    close = [make(scale, kind, start, scale.length) for kind, starts in FIRST.items() for start in starts]
    longest = {"prompt/text": 3, "prefix/real": 3, "prompt/random": 2, "prefix/random": 2}
    plans = [hand(scale)]
    curves = [scale.curve[: longest.get(f"{each.kind}/{each.start}", 0)] for each in close]
    plans += [arm(scale, each, 0, curve) for each, curve in zip(close, curves, strict=True)]
    plans += [lora_curve(scale)]
    plans += [arm(scale, make(scale, "prompt", "text", n), 2) for n in others]
    plans += [arm(scale, make(scale, "prefix", start, n), 2) for start in ("real", "random") for n in others]
    plans += [arm(scale, make(scale, "prefix", "real", 0), 2)]
    plans += [arm(scale, make(scale, "prompt", start, n), 6) for start in ("random", "vocabulary") for n in others]
    return plans


def make(scale: Scale, kind: str, start: str, n: int) -> Arm:
    return Arm(kind, start, n, FIRST[kind][start], around=2 if kind == "prompt" and n == scale.length else 1)


def hand(scale: Scale) -> parallel.Plan:
    """The untuned model with worked examples in front."""
    yield {name(scale, f"hand/{shots}"): Job(by_hand, {"scale": scale, "shots": shots}) for shots in SHOTS}


def arm(scale: Scale, each: Arm, rank: int, curve: tuple[int, ...] = ()) -> parallel.Plan:
    """Choose the learning rate, then more seeds, then other numbers of steps (`curve`)."""
    tried: dict[float, dict[str, Any]] = {}
    wanted = set(neighbourhood(RATES.index(each.first), each.around))
    while wanted:
        keys = {name(scale, f"choose/{each.key}/{RATES[i]}"): RATES[i] for i in sorted(wanted)}
        found = yield {key: fitted(scale, each, lr, rank=rank) for key, lr in keys.items()}
        tried |= {lr: found[key] for key, lr in keys.items()}
        best = RATES.index(min(tried, key=lambda lr: validation(tried[lr])))  # noqa: B023
        wanted = {i for i in neighbourhood(best, 1) if RATES[i] not in tried}
    best = min(tried, key=lambda lr: validation(tried[lr]))
    more = {
        name(scale, f"final/{each.key}/{seed}"): fitted(scale, each, best, seed=seed, rank=rank + 3)
        for seed in scale.seeds[1:]
    }
    more |= at_steps(scale, each, best, curve)
    yield more
    longer = [steps for steps in curve if steps > scale.steps]  # which may want a lower rate
    lower = RATES[RATES.index(best) - 1]
    yield {
        name(scale, f"lower/{each.key}/{steps}"): fitted(scale, each, lower, steps=steps, rank=7) for steps in longer
    }


def lora_curve(scale: Scale) -> parallel.Plan:
    """LoRA with other numbers of steps, at the rate that `three_tasks` chose for 180."""
    yield at_steps(scale, Arm("lora", "r8", 0, 0.0), 8e-3, scale.curve)


def at_steps(scale: Scale, each: Arm, lr: float, curve: tuple[int, ...]) -> dict[str, Job]:
    """The same run with other numbers of steps. Long ones begin early, or they would be waited for."""
    jobs = {steps: fitted(scale, each, lr, steps=steps, rank=1 if steps > 1000 else 3) for steps in curve}
    return {name(scale, f"steps/{each.key}/{steps}"): job for steps, job in jobs.items()}


def fitted(scale: Scale, each: Arm, lr: float, *, rank: int, seed: int = 0, steps: int = 0, folder: str = "") -> Job:
    given = {"scale": scale, "each": each, "lr": lr, "seed": seed, "steps": steps or scale.steps, "folder": folder}
    return Job(fit, given, rank)


def neighbourhood(i: int, around: int) -> range:
    return range(max(i - around, 0), min(i + around, len(RATES) - 1) + 1)


def name(scale: Scale, key: str) -> str:
    return key if scale.model == "smollm2" else f"{scale.model}/{key}"


def validation(found: Mapping[str, Any]) -> float:
    """A run that failed is worse than any other."""
    return math.inf if found["validation"] is None else found["validation"]


# ---- in the processes of the pool ----------------------------------------------------------------------------------


@functools.cache
def loaded(model: str) -> tuple[nn.Module, Any]:
    base, tokenizer = models.load(model)
    return base.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


@functools.cache
def splits() -> dict[str, Completions]:
    words = datasets.load("define_word")
    return {part: words.definitions(part) for part in datasets.SPLITS}


def by_hand(scale: Scale, shots: int) -> dict[str, Any]:
    """Test loss with so many worked examples in front of each question."""
    base, tokenizer = loaded(scale.model)
    test = splits()["test"][: scale.rows]
    head = "".join(f"{text}\n\n" for text in examples(shots))
    shown = Completions([head + prompt for prompt in test.prompts], test.completions)
    longest = base.config.max_position_embeddings
    if len(tokenizer(shown.prompts[0])["input_ids"]) > longest - 64:
        return {"test": None, "tokens": len(tokenizer(head)["input_ids"])}  # the context is too short
    found = metrics.evaluate(base, tokenizer, shown, max_length=longest, batch_size=20)
    return {"test": round(found.loss, 4), "tokens": len(tokenizer(head)["input_ids"])}


def examples(shots: int) -> list[str]:
    train = splits()["train"][:shots]
    return [prompt + completion for prompt, completion in zip(train.prompts, train.completions, strict=True)]


def example_ids(tokenizer: Any, n: int) -> Tensor:
    """The first n tokens of worked examples; all tokens of eight of them if n is 0."""
    head = "\n\n".join(examples(EXAMPLES if n == 0 else max(EXAMPLES, n)))
    whole = tokenizer(f"{head}\n\nWord", return_tensors="pt")["input_ids"][0][:-1]
    return whole[:n] if n else whole


def fit(scale: Scale, each: Arm, lr: float, seed: int, steps: int, folder: str) -> dict[str, Any]:
    """Train one arm; losses before and after, and what became of the prompt. A run that blows up has no losses."""
    base, tokenizer = loaded(scale.model)
    data = splits()
    held_out = {part: data[part][: scale.rows] for part in ("validation", "test")}
    torch.manual_seed(seed)
    model = attached(base, tokenizer, each)
    try:
        start = table_of(model)
        before = loss(model, tokenizer, held_out["test"], scale)
        record: dict[str, Any] = {"lr": lr, "before": before, "steps": steps, "validation": None, "test": None}
        settings = {"batch_size": scale.batch_size, "warmup": scale.warmup, "max_length": scale.max_length}
        try:
            done = train(model, tokenizer, data["train"], lr=lr, seed=seed, steps=steps, progress=False, **settings)
        except PeftLabError as error:
            return record | {"failed": str(error).partition(".")[0]}
        record |= {part: loss(model, tokenizer, rows, scale) for part, rows in held_out.items()}
        record |= {"trainable": done.trainable, "training": thinned(done.losses)}
        if each.kind != "lora":
            end = table_of(model)  # mean length of a row: at the start, at the end, of the difference
            record["norms"] = [round(float(table.norm(dim=1).mean()), 3) for table in (start, end, end - start)]
        if each.kind == "prompt" and steps == scale.steps:
            record["nearest"] = nearest(model, tokenizer)
        if folder:
            peftlab.save(model, data_folder() / "adapters" / folder)
        return record
    finally:
        peftlab.detach(base)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # the next job of another process may need it


def attached(base: nn.Module, tokenizer: Any, each: Arm) -> nn.Module:
    """`base` with this arm's adapter on it, at its start."""
    if each.kind == "lora":
        return peftlab.attach(base, LoRA(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]))
    ids = example_ids(tokenizer, each.n)
    n = len(ids)
    if each.kind == "prefix":
        table = captured(base, ids) if each.start == "real" else None
        zero = "zero" if each.start == "zero" else None
        prefix = PrefixTuning(num_virtual_tokens=n, init_weights=zero, prefix_projection=each.start == "projection")
        model = peftlab.attach(base, prefix)
        return model if table is None else start_from(model, table)
    vocabulary = "SAMPLE_VOCAB" if each.start == "vocabulary" else "RANDOM"
    model = peftlab.attach(base, PromptTuning(num_virtual_tokens=n, prompt_tuning_init=vocabulary))
    E = base.get_input_embeddings().weight.detach()
    if each.start == "small":
        return start_from(model, table_of(model) * E.std())
    return start_from(model, E[ids.to(E.device)]) if each.start == "text" else model  # what peft's TEXT gives


@torch.no_grad()
def table_of(model: nn.Module) -> Tensor:
    """A copy of the prompt or prefix as a table with one row for each virtual token; empty for LoRA."""
    if "default" not in model.peftlab.shared:
        return torch.zeros(1, 1)
    shared = model.peftlab.shared["default"]
    return (shared.table() if hasattr(shared, "table") else shared.prompt_embeddings).detach().clone()


def loss(model: nn.Module, tokenizer: Any, rows: Completions, scale: Scale) -> float:
    return round(metrics.evaluate(model, tokenizer, rows, max_length=scale.max_length, batch_size=50).loss, 4)


@torch.no_grad()
def nearest(model: nn.Module, tokenizer: Any, rows: int = 20) -> list[list[list[Any]]]:
    """For each of the first vectors of a prompt, the nearest tokens of the vocabulary by cosine, and the cosine."""
    E = model.get_input_embeddings().weight.detach()
    cosines = F.normalize(table_of(model)[:rows].to(E), dim=1) @ F.normalize(E, dim=1).T
    values, ids = cosines.topk(NEAREST, dim=1)
    return [
        [[tokenizer.decode([i]), round(c, 3)] for i, c in zip(row, found, strict=True)]
        for row, found in zip(ids.tolist(), values.tolist(), strict=True)
    ]


def thinned(losses: list[float], points: int = 20) -> list[float]:
    """Means of the training loss over equal stretches."""
    size = max(1, len(losses) // points)
    return [round(sum(part) / len(part), 3) for part in _stretches(losses, size)]


def _stretches(losses: list[float], size: int) -> Iterator[list[float]]:
    for start in range(0, len(losses), size):
        yield losses[start : start + size]
