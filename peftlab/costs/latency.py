"""How long one token, or one training step, must take at least: bytes, FLOPs and calls against a machine's limits.

    print(generate("llama-3.1-8b", "h100", batch=1, context=1000))
    print(generate("llama-3.1-8b", "h100", batch=1, context=1000, adapter=LoRA(r=8, target_modules="all-linear")))

The roofline (Williams, Waterman and Patterson, 2009, doi:10.1145/1498765.1498785): work that moves `bytes` and computes
`flops` takes at least max(bytes / bandwidth, flops / peak). Its arithmetic intensity, FLOPs per byte, says
which. To this we add what a Python program pays: every call of a kernel costs some microseconds, however small it is.

| | bytes read | FLOPs | calls |
|---|---|---|---|
| one token, batch B | all weights once, the cache of B rows | 2 N B, attention over the cache | 36 a Llama block |
| LoRA, not merged | r (d_in + d_out) a matrix more | 2 r (d_in + d_out) B more | 4 a matrix more |
| LoRA, merged | none | none | none |

A lower bound is not a prediction: no kernel reaches both limits, and a call costs more than starting its kernel. On an
H100 one token of SmolLM2 took about five times this bound (data/results/lora_latency_gpu.json), and it was calls, not
bytes, that set the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peftlab.costs import flops as flop_counts
from peftlab.costs import memory
from peftlab.costs.configs import Architecture, architecture
from peftlab.costs.trained import what_trains
from peftlab.errors import PeftLabError

CALLS_PER_LORA = 4  # A, B, times α/r, plus: one each
# Operations of one block that are not views, besides its matrices, as transformers writes them: for Llama the norms are
# 10, the rotation 10, the cache 2, residuals and products 5, attention and activation 2. A test counts them.
CALLS_PER_BLOCK = {"gpt2": 15, "gpt_neox": 20, "qwen3": 41, "phi3": 31}
CALLS_OF_A_LLAMA_BLOCK = 29
CALLS_OUTSIDE = 17


@dataclass(frozen=True)
class Device:
    """What a maker says that a machine can do: dense bf16 FLOP/s, bytes/s, and watts at most."""

    name: str
    flops: float
    bandwidth: float
    watts: float
    gib: float
    source: str
    seconds_per_call: float = 5e-6  # an assumption: what PyTorch without graphs pays to start one kernel

    @property
    def ridge(self) -> float:
        """FLOPs per byte above which the machine computes longer than it reads."""
        return self.flops / self.bandwidth


DEVICES = {
    "h100": Device("NVIDIA H100 SXM 80 GB", 989e12, 3.35e12, 700, 80, "NVIDIA data sheet; dense, not sparse"),
    "h200": Device("NVIDIA H200 SXM", 989e12, 4.8e12, 700, 141, "NVIDIA data sheet; dense, not sparse"),
    "a100": Device("NVIDIA A100 SXM 80 GB", 312e12, 2.039e12, 400, 80, "NVIDIA data sheet"),
    "l40s": Device("NVIDIA L40S", 362e12, 864e9, 350, 48, "NVIDIA data sheet; dense, not sparse"),
    "rtx4090": Device("NVIDIA GeForce RTX 4090", 165e12, 1.008e12, 450, 24, "NVIDIA Ada whitepaper; fp32 accumulation"),
}


@dataclass(frozen=True)
class Latency:
    """A lower bound. `bounds`: seconds that each limit alone would take."""

    title: str
    bytes: int
    flops: int
    calls: int
    bounds: Mapping[str, float]

    @property
    def intensity(self) -> float:
        """FLOPs per byte."""
        return self.flops / self.bytes

    @property
    def roofline(self) -> float:
        """Seconds by bytes and FLOPs alone."""
        return max(self.bounds["memory"], self.bounds["compute"])

    @property
    def seconds(self) -> float:
        """Seconds at least: kernels are started while others run, so the longest of the three counts."""
        return max(self.bounds.values())

    @property
    def limit(self) -> str:
        return max(self.bounds, key=lambda name: self.bounds[name])

    def __str__(self) -> str:
        work = {
            "memory": f"{self.bytes:.3g} bytes",
            "compute": f"{self.flops:.3g} FLOPs",
            "calls": f"{self.calls} calls",
        }
        lines = [self.title, "-" * len(self.title)]
        for name, seconds in self.bounds.items():
            mark = "  <- the limit" if name == self.limit else ""
            lines.append(f"{name:8} {work[name]:>18} {seconds * 1e3:10.3g} ms{mark}")
        return "\n".join(lines)

    __repr__ = __str__


def operation(flops: float, bytes: float, device: str | Device) -> float:
    """Seconds at least for one piece of work: the roofline."""
    machine = find(device)
    return max(flops / machine.flops, bytes / machine.bandwidth)


def generate(
    model: Any,
    device: str | Device = "h100",
    *,
    batch: int = 1,
    context: int = 512,
    dtype: str = "bf16",
    quantize: str | None = None,
    adapter: Any = None,
) -> Latency:
    """One more token for each of `batch` rows that have `context` tokens already.

    adapter: a method that is not merged (LoRA), "lora" for r=16 on every matrix, or None. The embedding table is
    looked up, not read; a tied table is read once, as the head.
    """
    a, machine = architecture(model), find(device)
    c = memory.BYTES[dtype]
    table = 0 if a.tied else a.vocabulary * a.width * c
    read = memory.weights(a, dtype, quantize) - table + memory.cache_bytes(a, batch, context + 1, dtype)
    done = 2 * batch * (a.matrix_parameters + 2 * a.layers * (context + 1) * a.q_width)
    calls = a.layers * _calls(a) + CALLS_OUTSIDE
    if adapter is not None:
        trained = what_trains(a, adapter)
        read += trained.parameters * memory.FP32
        done += 2 * batch * trained.parameters
        calls += CALLS_PER_LORA * len(trained.ranks) * a.layers
    title = f"{a.name or a.family}, one token x {batch}, context {context}, {machine.name}"
    return _bounded(title, read, done, calls, machine)


def training(
    model: Any,
    method: Any = "full",
    device: str | Device = "h100",
    *,
    batch: int = 4,
    sequence: int = 512,
    dtype: str = "bf16",
    checkpointing: bool = False,
    quantize: str | None = None,
) -> Latency:
    """One training step. Bytes: the weights once forward and once backward (and once more when computed again), each
    trained number six times (read, gradient, two moments read and written). Activations are left out, so `memory` is
    a low bound and `compute` is what matters at common sizes."""
    a, machine = architecture(model), find(device)
    if method == "qlora":
        method, quantize = "lora", quantize or "nf4"
    passes = 3 if checkpointing else 2
    trained = what_trains(a, method)
    each = memory.BYTES[dtype] if method == "full" else memory.FP32
    read = passes * memory.weights(a, dtype, quantize) + 6 * trained.parameters * each
    done = flop_counts.training(a, method, batch=batch, sequence=sequence, checkpointing=checkpointing).total
    calls = (passes + 1) * a.layers * (_calls(a) + CALLS_PER_LORA * len(trained.ranks))
    title = f"{a.name or a.family}, {method}, one step of {batch} x {sequence} tokens, {machine.name}"
    return _bounded(title, read, done, calls, machine)


def find(device: str | Device) -> Device:
    """A machine by name, or a Device of your own. Raises PeftLabError for an unknown name."""
    if isinstance(device, Device):
        return device
    if device not in DEVICES:
        raise PeftLabError(f"device={device!r}: known are {', '.join(DEVICES)}; or pass a Device(...) of your own")
    return DEVICES[device]


def _calls(a: Architecture) -> int:
    return CALLS_PER_BLOCK.get(a.family, CALLS_OF_A_LLAMA_BLOCK) + len(a.linears)


def _bounded(title: str, read: int, done: int, calls: int, machine: Device) -> Latency:
    bounds = {
        "memory": read / machine.bandwidth,
        "compute": done / machine.flops,
        "calls": calls * machine.seconds_per_call,
    }
    return Latency(title, read, done, calls, bounds)
