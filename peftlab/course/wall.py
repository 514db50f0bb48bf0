"""Lesson 01: the wall. What a step of training needs on a model of your choice, as straight lines over its tokens.

For one model, method and choice of checkpointing, each part of `costs.memory.training` at each moment of a step grows
in proportion to the tokens: bytes = fixed + each · tokens. (One part has a kink: QLoRA's working space is the larger
of two such lines.) So a page without Python can compute the peak for any batch and sequence from a short list of
numbers, the same to the byte. `tests/test_wall.py` holds it to that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from peftlab.costs import memory
from peftlab.costs.configs import architecture
from peftlab.costs.trained import what_trains

# Published models from 0.1 to 70 billion parameters.
MODELS = (
    "gpt2", "smollm2-360m", "qwen2.5-0.5b", "tinyllama-1.1b", "llama-3.2-3b", "phi-3-mini", "llama-2-7b",
    "llama-3.1-8b", "llama-2-13b", "qwen3-14b", "qwen3-32b", "llama-3.1-70b",
)  # fmt: skip
# What the learner chooses -> the method and the optimiser of `costs.memory.training`.
METHODS = {
    "full": ("full", "adamw"),
    "full, fp32 states": ("full", "adamw_fp32"),
    "LoRA": ("lora", "adamw"),
    "QLoRA": ("qlora", "adamw"),
}
MANY = 2**22  # tokens, far beyond every kink


@dataclass(frozen=True)
class Line:
    """One moment of a step: part -> (fixed bytes, bytes for each token)."""

    moment: str
    parts: Mapping[str, tuple[int, int]]

    @property
    def total(self) -> tuple[int, int]:
        """Fixed bytes and bytes for each token, of all parts together."""
        fixed, each = (sum(numbers) for numbers in zip(*self.parts.values(), strict=True))
        return fixed, each

    def at(self, tokens: int) -> dict[str, int]:
        return {name: fixed + each * tokens for name, (fixed, each) in self.parts.items()}


def training(model: str, method: str, checkpointing: bool, tokens: int) -> memory.Memory:
    """One step on a GPU in bf16 with a fused optimiser, by `costs.memory`. With fused attention only the number of
    tokens counts, not how batch and sequence share it."""
    name, optimizer = METHODS[method]
    return memory.training(
        model,
        name,
        batch=tokens,
        sequence=1,
        dtype="bf16",
        optimizer=optimizer,
        kernel="fused",
        checkpointing=checkpointing,
    )


def lines(model: str, method: str, checkpointing: bool) -> list[Line]:
    """All that decides the peak: the moments of a step (two lines for one with a kink), without those that lie below
    another one for every number of tokens."""
    few = _lines_through(model, method, checkpointing, 1)
    many = _lines_through(model, method, checkpointing, MANY)
    every = [*few, *(line for line in many if line not in few)]
    return [line for line in every if not any(_lies_below(line, other) for other in every)]


def peak(candidates: Sequence[Line], tokens: int) -> tuple[str, dict[str, int]]:
    """The moment of the peak, and its parts in bytes."""
    found = [(line.moment, line.at(tokens)) for line in candidates]
    moment, parts = max(found, key=lambda each: sum(each[1].values()))
    return moment, {name: size for name, size in parts.items() if size}


def most_tokens(candidates: Sequence[Line], limit: int) -> int:
    """The largest number of tokens a step may have within `limit` bytes; 0 if not even one fits."""
    most = MANY
    for line in candidates:
        fixed, each = line.total
        if fixed > limit:
            return 0
        if each:
            most = min(most, (limit - fixed) // each)
    return most


def this_machine() -> float:
    """Memory of the machine that runs this, in GiB."""
    import psutil  # ipykernel brings it

    return psutil.virtual_memory().total / memory.GIB


def kept_bytes(model: str, method: str) -> int:
    """What has to be stored for one task: a bf16 copy of the model, or an fp32 adapter."""
    name = METHODS[method][0]
    if name == "full":
        return 2 * architecture(model).parameters
    return memory.FP32 * trained_numbers(model)


def trained_numbers(model: str) -> int:
    """k: what LoRA with r = 16 on every matrix of every block trains."""
    return what_trains(model, "lora").parameters


def _lines_through(model: str, method: str, checkpointing: bool, tokens: int) -> list[Line]:
    """The lines through the numbers of tokens `tokens` and `tokens` + 1."""
    here, next_ = (training(model, method, checkpointing, n).parts_at for n in (tokens, tokens + 1))
    found = []
    for moment in here:
        parts = {}
        for name in {**here[moment], **next_[moment]}:
            at, after = here[moment].get(name, 0), next_[moment].get(name, 0)
            parts[name] = (at - (after - at) * tokens, after - at)
        found.append(Line(moment, parts))
    return found


def _lies_below(line: Line, other: Line) -> bool:
    return line.total != other.total and all(a <= b for a, b in zip(line.total, other.total, strict=True))
