"""How many floating-point operations a training step takes, matrix by matrix.

    print(training("llama-2-7b", "lora", batch=4, sequence=512))
    rule("full")          # 6: the textbook's FLOPs per parameter and token

A product of (T, d_in) with (d_in, d_out) is 2 · T · d_in · d_out FLOPs: a multiplication and an addition. Every matrix
is met up to three times in a step:

| | forward, y = W x | gradient of x, Wᵀ g | gradient of W, g xᵀ | FLOPs a token |
|---|---|---|---|---|
| W trained | yes | yes | yes | 6 N |
| W frozen, something before it trains | yes | yes | no | 4 N |
| the same with gradient checkpointing | twice | yes | (trained: yes) | 6 N (8 N) |
| inference | yes | no | no | 2 N |

So a frozen base saves a third of the work, and no rank makes LoRA cheaper than that. N counts the entries of the
matrices, the head's among them, and not the embedding table, which is looked up (Kaplan et al., 2020, arXiv:2001.08361,
section 2.1, leave out both). Attention's own products grow with the sequence and come on top: 4 · S · (heads · head
size) a token and layer forward, twice that backward; as counted here over the whole S x S square, of which a causal
kernel need compute only half. Norms, activations, softmax and the optimiser are not matrix products and do not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peftlab.costs.configs import Architecture, architecture
from peftlab.costs.trained import what_trains
from peftlab.errors import PeftLabError


@dataclass(frozen=True)
class Flops:
    """FLOPs of one step. `parts` add up to `total`."""

    title: str
    parts: Mapping[str, int]
    tokens: int
    matrix_parameters: int  # N as counted here

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def per_token(self) -> float:
        return self.total / self.tokens

    @property
    def per_parameter_and_token(self) -> float:
        """To compare with the rule: 2, 4, 6 or 8, and a little more for attention and adapters."""
        return self.per_token / self.matrix_parameters

    def __str__(self) -> str:
        width = max(len(name) for name in (*self.parts, self.title))
        lines = [self.title, "-" * width]
        lines += [f"{name:{width}}  {n:10.3e}  {n / self.total:6.1%}" for name, n in self.parts.items()]
        lines.append(f"{'FLOPs of the step':{width}}  {self.total:10.3e}")
        lines.append(f"{'for each parameter and token':{width}}  {self.per_parameter_and_token:10.2f}")
        return "\n".join(lines)

    __repr__ = __str__


def rule(method: str = "full", *, checkpointing: bool = False) -> int:
    """The textbook's FLOPs for each parameter and token: 2 (inference), 4 (frozen base), 6 (full); 2 more with
    checkpointing."""
    rules = {"inference": 2, "lora": 4, "qlora": 4, "full": 6}
    if method not in rules:
        raise PeftLabError(f"method={method!r}: choose one of {', '.join(rules)}")
    return rules[method] + (2 if checkpointing and method != "inference" else 0)


def forward(model: Any, *, batch: int = 1, sequence: int = 512) -> Flops:
    """One forward pass with logits for every token."""
    a, T = architecture(model), _tokens(batch, sequence)
    parts = {"blocks": 2 * T * _block_matrices(a) * a.layers, "attention": _attention(a, batch, sequence) * a.layers}
    parts["head"] = 2 * T * _head(a)
    return Flops(f"{a.name or a.family}, forward, {batch} x {sequence} tokens", parts, T, a.matrix_parameters)


def training(
    model: Any, method: Any = "full", *, batch: int = 1, sequence: int = 512, checkpointing: bool = False
) -> Flops:
    """One training step: forward, backward, and with checkpointing the blocks' forward once more.

    method as in `memory.training`. With a frozen base nothing asks for the gradient of the first block's input, so its
    matrices that read it are spared one product (not with checkpointing: transformers then makes the embeddings ask
    for gradients). Checkpointing (PyTorch's, not reentrant) stops computing a block again as soon as everything that
    was kept is back: the block's last matrix is not multiplied again where nothing after it needs its output.
    """
    a, T = architecture(model), _tokens(batch, sequence)
    full = isinstance(method, str) and method == "full"
    blocks, attention = _block_matrices(a) * a.layers, _attention(a, batch, sequence) * a.layers
    reads_input = sum(linear.d_in * linear.d_out for linear in a.linears if _reads_the_input(a, linear.name))
    trained = what_trains(a, "lora" if isinstance(method, str) and method == "qlora" else method)
    adapters, spared = 0, 0
    for linear in a.linears:
        r = trained.ranks.get(linear.name, 0)
        adapters += r * (linear.d_in + linear.d_out)
        spared += r * linear.d_in if _reads_the_input(a, linear.name) else 0
    if full or checkpointing:
        reads_input = spared = 0
    parts = {
        "forward": 2 * T * (blocks + _head(a)) + attention,
        "gradients of activations": 2 * T * (blocks + _head(a) - reads_input) + 2 * attention,
        "gradients of weights": 2 * T * (blocks + _head(a)) if full else 0,
        "adapters": 0 if full else 2 * T * (3 * adapters * a.layers - spared),
    }
    if checkpointing:
        last = a.linears[-1]
        r = trained.ranks.get(last.name, 0)
        needless = 0 if _last_output_is_kept(a) else r * last.d_out if r else last.d_in * last.d_out
        parts["computed again"] = 2 * T * (blocks + (adapters - needless) * a.layers) + attention
    name = method if isinstance(method, str) else type(method).__name__
    title = f"{a.name or a.family}, {name}, {batch} x {sequence} tokens" + (", checkpointing" if checkpointing else "")
    return Flops(title, {k: v for k, v in parts.items() if v}, T, a.matrix_parameters)


def _tokens(batch: int, sequence: int) -> int:
    for name, value in (("batch", batch), ("sequence", sequence)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise PeftLabError(f"{name}={value!r}: give a whole number above 0")
    return batch * sequence


def _block_matrices(a: Architecture) -> int:
    return sum(linear.d_in * linear.d_out for linear in a.linears)


def _head(a: Architecture) -> int:
    return a.vocabulary * a.width if a.is_decoder else 0


def _attention(a: Architecture, batch: int, sequence: int) -> int:
    """q kᵀ and weights times v, of one layer."""
    return 2 * 2 * batch * sequence**2 * a.q_width


def _reads_the_input(a: Architecture, name: str) -> bool:
    """The matrices between the block's input and attention; in parallel blocks the feed-forward part's too."""
    query = ("q_proj", "k_proj", "v_proj", "qkv_proj", "c_attn", "query_key_value", "query", "key", "value")
    last = name.split(".")[-1]
    return last in query or (a.family in ("phi", "gpt_neox") and last in ("fc1", "dense_h_to_4h"))


def _last_output_is_kept(a: Architecture) -> bool:
    """True if dropout or a norm follows a block's last matrix."""
    return a.family in ("gemma2", "bert") or (a.family == "gpt2" and a.dropout > 0)
