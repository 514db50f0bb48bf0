"""What the backward pass needs: the bytes that autograd keeps of one transformer block, tensor by tensor.

A layer y = f(x) keeps what its own backward formula reads, and only if somebody asks for that gradient:

| layer | keeps | when |
|---|---|---|
| linear, y = W x | x | W is trained (the gradient of x needs W alone) |
| LoRA on it | x as fp32, z = A x | always |
| RMSNorm | x as fp32; the normed x | always; if its weight is trained |
| LayerNorm | x, mean and deviation | always |
| attention, fused (sdpa, flash) | q, k, v, output, one number per row | always |
| attention, plain (eager) | q, k, v, every attention weight | always: this is the part that grows with S² |
| gate: act(g) * u | g, act(g), u | always |
| dropout | its mask | always |

So freezing the weights saves the inputs of the linear layers and little else. Read from what transformers 5 and
PyTorch 2 really keep (`torch.autograd.graph.saved_tensors_hooks`), and held to it by tests for each family.
T = batch x sequence tokens; d, f, h, S as in `configs.Architecture`; c bytes per number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from peftlab.costs.configs import Architecture

FP32 = 4
UPCASTS_SOFTMAX = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi3", "phi", "gpt_neox")  # eager code

# Their attention hands the heads' output over in another order than the next matrix reads: one more copy.
REARRANGES = ("gpt_neox", "phi", "phi3")


@dataclass(frozen=True)
class Setting:
    """One training step, as far as activations go."""

    batch: int
    sequence: int
    bytes: int  # c, of weights and activations
    trained: bool  # the pretrained weights themselves get gradients
    ranks: Mapping[str, int] = field(default_factory=dict)  # linear layer's name -> rank of its adapter
    adapter_dropout: float = 0.0
    attention: str = "sdpa"  # "sdpa", "flash" or "eager"
    device: str = "cpu"  # dropout masks are numbers on the CPU, one byte each on a GPU
    padding: bool = False  # some rows are padded, so a mask is passed

    @property
    def tokens(self) -> int:
        return self.batch * self.sequence

    @property
    def mask_bytes(self) -> int:
        return self.bytes if self.device == "cpu" else 1


def block(a: Architecture, s: Setting) -> dict[str, int]:
    """Bytes kept of one block, by kind."""
    T, d, f, c = s.tokens, a.width, a.inner, s.bytes
    kept = {
        "norms": norm(a, s, 1 if a.family == "gpt_neox" else a.norms),
        "inputs of linear layers": _linear_inputs(a, s),
        "attention": _attention(a, s),
        "feed-forward": _feed_forward(a) * T * f * c,
        "dropout masks": int(2 * T * d * s.mask_bytes) if a.dropout and a.family in ("gpt2", "bert") else 0,
        "adapters": sum(FP32 * T * rank for rank in s.ranks.values()),
    }
    if a.family == "gpt_neox":  # two norms read the same tensor
        kept["norms"] += 2 * c * T
    if a.head_norms:
        widths = a.q_width + a.kv_width
        kept["norms"] += FP32 * T * (widths + a.heads + a.kv_heads) + (c * T * widths if s.trained else 0)
    return kept


def norm(a: Architecture, s: Setting, count: int = 1) -> int:
    """Bytes kept of `count` norms of width d, each with an input of its own."""
    T, d, c = s.tokens, a.width, s.bytes
    if not a.rms:
        return count * (c * T * d + 2 * c * T)
    weight_needs = (FP32 if a.family.startswith("gemma") else c) * T * d if s.trained else 0
    return count * (FP32 * T * d + FP32 * T + weight_needs)


def is_fused(a: Architecture, s: Setting) -> bool:
    """True if no attention matrix is kept. PyTorch's fused kernels cannot cap scores (Gemma 2), a CPU's cannot drop."""
    if s.attention == "eager" or (s.attention == "sdpa" and a.config.get("attn_logit_softcapping")):
        return False
    return s.device != "cpu" or not a.attention_dropout


def _attention(a: Architecture, s: Setting) -> int:
    T, c, q, kv = s.tokens, s.bytes, a.q_width, a.kv_width
    if is_fused(a, s):
        rows = FP32 * s.batch * a.heads * s.sequence
        if s.padding:  # transformers then repeats k and v for every head, and each layer turns the mask into numbers
            return c * T * 4 * q + rows + c * s.batch * s.sequence**2
        return c * T * (q + kv + kv + q) + rows
    if s.attention == "sdpa" and a.attention_dropout:
        c = FP32  # a CPU's plain formula computes in fp32
    each = c
    if s.attention == "eager" and a.family in UPCASTS_SOFTMAX and c < FP32:
        each = FP32 + c  # the softmax in fp32, and its copy
    if a.config.get("attn_logit_softcapping"):
        each += c  # tanh
    if a.attention_dropout:
        each += (c if s.device == "cpu" else 1) + c  # the mask, and what is left after it
    return c * T * 3 * q + each * s.batch * a.heads * s.sequence**2  # k and v repeated for every head


def _linear_inputs(a: Architecture, s: Setting) -> int:
    """Each input is kept once, however many layers read it, unless their adapters cast it: then once for each."""
    T, c = s.tokens, s.bytes
    kept, total = set(), 0
    if is_fused(a, s) and a.family not in REARRANGES:
        kept.add("attention")  # the fused kernel's output is counted there
    for linear in a.linears:
        source = _source(a, linear.name)
        adapted = linear.name in s.ranks
        if adapted and s.adapter_dropout:  # every adapter drops from its own copy, and keeps the mask
            total += (FP32 + (FP32 if s.device == "cpu" else 1)) * T * linear.d_in
        elif adapted and c < FP32:
            total += FP32 * T * linear.d_in
        if s.trained or (adapted and c == FP32 and not s.adapter_dropout):
            total += 0 if source in kept else c * T * linear.d_in
            kept.add(source)
    return total


def _source(a: Architecture, name: str) -> str:
    """Which tensor a matrix reads; matrices with the same source share it."""
    if _is_out(name):
        return "attention"
    if _is_down(name):
        return "inner"
    if a.family == "phi":  # one norm feeds both halves of the block
        return "norm"
    return "first norm" if "attn" in name or "attention" in name else "second norm"


def _is_out(name: str) -> bool:
    """The matrix that reads the heads' output."""
    return name in ("attn.c_proj", "attention.dense", "attention.output.dense", "self_attn.o_proj", "self_attn.dense")


def _is_down(name: str) -> bool:
    """The matrix that reads the inner width."""
    return name in ("mlp.c_proj", "mlp.dense_4h_to_h", "output.dense", "mlp.fc2", "mlp.down_proj")


def _feed_forward(a: Architecture) -> int:
    """Tensors of width f that are kept, besides the input of the last matrix."""
    if a.gated:
        return 3  # g, act(g), u
    return 4 if a.activation == "gelu_new" else 1  # gelu_new is written in Python: x, tanh, 1 + tanh, x / 2
