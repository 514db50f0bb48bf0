"""How much memory a training step needs, and which models fit where. From a config alone; nothing is loaded.

    print(training("llama-2-7b", "full", batch=4, sequence=512, dtype="bf16"))      # a table
    training("llama-2-7b", "qlora", checkpointing=True).fits(8)
    training(AutoConfig.from_pretrained("a/hub-id"), LoRA(r=8, target_modules=["q_proj", "v_proj"]))
    what_fits(24, "lora")

The bytes of one parameter, before any activation:

| | weight | gradient | AdamW's two moments | sum |
|---|---|---|---|---|
| full, fp32 | 4 | 4 | 8 | 16 |
| full, bf16, moments in bf16 too (torch.optim.AdamW on a bf16 model) | 2 | 2 | 4 | 8 |
| full, bf16 with fp32 master weights and moments | 2 | 2 | 12 | 16 |
| full, bf16, 8-bit moments | 2 | 2 | 2.03 | 6 |
| frozen, bf16 | 2 | – | – | 2 |
| frozen, NF4 (scales fp32 / doubly quantised) | 0.56 / 0.52 | – | – | 0.5 |

A step has several moments at which memory could be highest. We add up each, and the peak is the highest of them:
*loss* (all activations are there, and the loss works on copies of the logits), *last block* and *first block* (the
backward pass has reached it), *end of backward* (all gradients are there), *step* (the optimiser works).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from peftlab.costs import activations
from peftlab.costs.activations import FP32, Setting
from peftlab.costs.configs import Architecture, architecture, published
from peftlab.costs.trained import Trained, what_trains
from peftlab.errors import PeftLabError

GIB = 2**30
BYTES = {"fp32": 4, "float32": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2}
BLOCK = 64  # NF4: weights that share one scale (Dettmers et al., 2023, arXiv:2305.14314)
SCALES = 256  # double quantisation: scales that share one second-level scale
BLOCK_8BIT = 256  # values that share one scale in an 8-bit moment (bitsandbytes)
CUBLAS = {"cpu": 0, "cuda": 32 * 2**20}  # the workspace that PyTorch gives cuBLAS on an H100
OPTIMIZERS = ("adamw", "adamw_fp32", "adamw8bit", "paged_adamw", "paged_adamw8bit", "sgd", "momentum")
KERNELS = ("loop", "foreach", "fused")


@dataclass(frozen=True)
class Memory:
    """A prediction. `parts` add up to `total`, the peak in bytes; `moments` are the candidates for the peak.

    parts_at: the same parts at each of the moments.
    """

    title: str
    parts: Mapping[str, int]
    moments: Mapping[str, int]
    assumptions: tuple[str, ...]
    parts_at: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def gib(self) -> float:
        return self.total / GIB

    @property
    def moment(self) -> str:
        """When the peak is reached."""
        return max(self.moments, key=lambda name: self.moments[name])

    def fits(self, gigabytes: float, *, reserve: float = 1.0) -> bool:
        """True if the peak and `reserve` stay below `gigabytes`.

        Both are GiB, which is what a card sold as "24 GB" has. The reserve is a convention, not a measurement: driver
        and context, and the allocator's fragments.
        """
        _number("gigabytes", gigabytes)
        return self.total <= (gigabytes - reserve) * GIB

    def __str__(self) -> str:
        width = max(len(name) for name in (*self.parts, self.title))
        lines = [self.title, "-" * width]
        unit, name = (GIB, "GiB") if self.total >= GIB / 10 else (2**20, "MiB")
        for part, size in self.parts.items():
            lines.append(f"{part:{width}}  {size / unit:9.2f} {name}  {size / self.total:6.1%}")
        lines.append(f"{'peak, at: ' + self.moment:{width}}  {self.total / unit:9.2f} {name}")
        lines += [f"({note})" for note in self.assumptions]
        return "\n".join(lines)

    __repr__ = __str__


def training(
    model: Any,
    method: Any = "full",
    *,
    batch: int = 4,
    sequence: int = 512,
    dtype: str = "bf16",
    optimizer: str = "adamw",
    kernel: str | None = None,
    checkpointing: bool = False,
    attention: str = "sdpa",
    padding: bool = False,
    quantize: str | None = None,
    double_quant: bool = True,
    device: str = "cuda",
    keeps_logits: bool = False,
) -> Memory:
    """Peak memory of one training step after the first (the optimiser's states exist).

    model: a published name, a config, a model, or a dict: see `configs.architecture`.
    method: "full"; "lora" (r=16 on every matrix of every block); "qlora" (the same on NF4); or a `Method` of
        `peftlab.methods`, whose own parameter formula is asked.
    dtype: of the pretrained weights and the activations: "fp32", "bf16", "fp16". Adapters are fp32, as in peft.
    optimizer: "adamw" (moments in the parameter's dtype, as torch.optim.AdamW), "adamw_fp32" (fp32 moments and, for
        half-precision parameters, an fp32 master copy), "adamw8bit", "paged_adamw", "paged_adamw8bit" (paged: the
        states may leave the GPU, so 0 is counted there and an assumption says how much the host must hold: a lower
        bound, for while the optimiser works they come back as far as there is room),
        "sgd", "momentum".
    kernel: how the optimiser is computed. "loop": PyTorch's default on a CPU; two temporary copies of the largest
        tensor (and for a moment the one before it, which is left out here). "foreach": the default on a GPU; one
        temporary copy of all. "fused": none. None: the default.
    checkpointing: keep only each block's input and compute the block again.
    attention: "sdpa" or "flash" keep no attention matrix, "eager" does. sdpa falls back to the plain formula for
        Gemma 2, and on a CPU where attention has dropout.
    padding: some rows are padded. Then k and v are repeated for every head, and each layer keeps a mask.
    quantize: None or "nf4", for the matrices of the blocks. double_quant: also quantise the scales.
    keeps_logits: the caller holds the model's output during the backward pass (`out = model(...)`).

    Raises PeftLabError for settings that do not exist or do not fit together.
    """
    a = architecture(model)
    if method == "qlora":
        method, quantize = "lora", quantize or "nf4"
    _check(a, dtype, optimizer, kernel, attention, quantize, device, method, batch, sequence)
    trained = what_trains(a, method)
    full = isinstance(method, str) and method == "full"
    c = BYTES[dtype]
    s = Setting(
        batch=batch,
        sequence=sequence + trained.prompt,
        bytes=c,
        trained=full,
        ranks=trained.ranks,
        adapter_dropout=trained.dropout,
        attention=attention,
        device=device,
        padding=padding,
    )
    kernel = kernel or ("loop" if device == "cpu" else "foreach")
    trained_bytes = c if full else FP32
    states = _states(trained.parameters, trained_bytes, optimizer)
    on_device = 0 if optimizer.startswith("paged") else states
    base = {
        "weights": weights(a, dtype, quantize, double_quant),
        "adapters": 0 if full else trained.parameters * FP32,
        "optimiser states": on_device,
        "library workspace": CUBLAS[device],
    }
    moments = _moments(a, s, full, trained, trained_bytes, checkpointing, quantize, keeps_logits)
    moments["step"] = {
        "gradients": trained.parameters * trained_bytes,
        "working space": _step_space(trained, trained_bytes, optimizer, kernel),
    }
    sums = {name: sum(base.values()) + sum(parts.values()) for name, parts in moments.items()}
    order = ("gradients", "activations", "logits and loss", "working space")
    parts_at = {
        moment: _above_zero({**base, **{name: parts.get(name, 0) for name in order}})
        for moment, parts in moments.items()
    }
    parts = parts_at[max(sums, key=lambda name: sums[name])]
    name = method if isinstance(method, str) else type(method).__name__
    name = "qlora" if quantize and name == "lora" else name
    title = f"{a.name or a.family}, {name}, {batch} x {sequence} tokens, {dtype}"
    title += ", checkpointing" if checkpointing else ""
    notes = [f"{optimizer}, {kernel} kernel; {attention} attention; gradients freed after each step"]
    if on_device != states:
        notes.append(f"the host holds {states / GIB:.2f} GiB of paged optimiser states")
    if quantize:
        rest = weights(a, "fp32", quantize, double_quant) - weights(a, dtype, quantize, double_quant)
        notes.append(f"tables, norms and head stay {dtype}; peft.prepare_model_for_kbit_training would make them fp32")
        notes[-1] += f" and add {rest / GIB:.2f} GiB"
    if not trained.exact:
        notes.append(
            f"of {name}'s activations only the inputs of its sites are counted: parameters exact, the rest a guess"
        )
    return Memory(title, parts, sums, tuple(notes), parts_at)


def inference(
    model: Any,
    *,
    batch: int = 1,
    sequence: int = 2048,
    dtype: str = "bf16",
    quantize: str | None = None,
    double_quant: bool = True,
) -> Memory:
    """Memory to generate with a cache of `sequence` tokens in each of `batch` rows."""
    a = architecture(model)
    _check(a, dtype, "adamw", None, "sdpa", quantize, "cuda", "lora", batch, sequence)
    parts = {
        "weights": weights(a, dtype, quantize, double_quant),
        "key-value cache": cache_bytes(a, batch, sequence, dtype) if a.is_decoder else 0,
        "logits": batch * a.vocabulary * FP32 if a.is_decoder else 0,
    }
    title = f"{a.name or a.family}, inference, {batch} x {sequence} tokens, {dtype}"
    total = sum(parts.values())
    return Memory(title, _above_zero(parts), {"last token": total}, ("one token at a time",))


def cache_bytes(model: Any, batch: int, sequence: int, dtype: str = "bf16") -> int:
    """Keys and values of every layer: 2 · L · (key-value width) · tokens · bytes."""
    a = architecture(model)
    return 2 * a.layers * a.kv_width * batch * sequence * BYTES[dtype]


def weights(model: Any, dtype: str = "bf16", quantize: str | None = None, double_quant: bool = True) -> int:
    """Bytes of the pretrained weights. Quantised are the matrices of the blocks, not tables, norms, biases or head.

    NF4 (arXiv:2305.14314): half a byte each, and a scale for every 64: fp32, or with double quantisation one byte and
    a second-level fp32 scale for every 256 scales.
    """
    a = architecture(model)
    c = BYTES[dtype]
    if quantize is None:
        return a.parameters * c
    matrices = [linear.d_in * linear.d_out for linear in a.linears]
    packed = sum(_nf4(n, double_quant) for n in matrices) * a.layers
    return packed + (a.parameters - a.layers * sum(matrices)) * c


def bits_per_weight(double_quant: bool = True) -> float:
    """4.5 with fp32 scales, 4.127 with double quantisation: section 3 of the QLoRA paper."""
    n = BLOCK * SCALES * 1000
    return 8 * _nf4(n, double_quant) / n


def what_fits(gigabytes: float, method: Any = "lora", *, reserve: float = 1.0, **settings: Any) -> dict[str, Memory]:
    """The published models that can be trained in `gigabytes` (GiB), largest first. `settings` as in `training`."""
    _number("gigabytes", gigabytes)
    found = {name: training(name, method, **settings) for name in published() if _reads(name, settings)}
    fitting = {name: memory for name, memory in found.items() if memory.fits(gigabytes, reserve=reserve)}
    return dict(sorted(fitting.items(), key=lambda item: -architecture(item[0]).parameters))


def _above_zero(parts: Mapping[str, int]) -> dict[str, int]:
    return {name: size for name, size in parts.items() if size}


def _reads(name: str, settings: Mapping[str, Any]) -> bool:
    """False if the sequence is longer than the model's table of positions."""
    a = architecture(name)
    return a.family not in ("gpt2", "bert") or settings.get("sequence", 512) <= a.positions


# --- the moments of a step --------------------------------------------------------------------------------------------


def _moments(
    a: Architecture,
    s: Setting,
    full: bool,
    trained: Trained,
    trained_bytes: int,
    checkpointing: bool,
    quantize: str | None,
    keeps_logits: bool,
) -> dict[str, dict[str, int]]:
    T, d, V, c = s.tokens, a.width, a.vocabulary, s.bytes
    one = sum(activations.block(a, s).values())
    first = one if full else one - _before_the_first_adapter(a, s)
    blocks = a.layers * T * d * c if checkpointing else first + (a.layers - 1) * one
    around = _around_the_blocks(a, s)
    space = _block_space(a, s, quantize)
    logits = FP32 * T * V if a.is_decoder else 0  # log-softmax, kept for the backward pass
    if a.config.get("final_logit_softcapping"):
        logits += c * T * V
    held = c * T * V if keeps_logits and a.is_decoder and c < FP32 else 0
    if keeps_logits and a.is_decoder and c == FP32:
        held = FP32 * T * V
    work = 2 * FP32 * T * V if a.is_decoder else 0  # gradients of the log-probabilities and of the logits
    gradient = trained.parameters * trained_bytes
    head = a.head_parameters * c if full and not a.tied else V * d * c if full and a.is_decoder else 0
    per_block = a.block_parameters * c if full else gradient // a.layers
    down = a.inner * d * c if full else 0  # the first matrix of a block whose gradient is there
    tied = 2 * V * d * c if full and a.tied and a.is_decoder else 0  # the head's gradient, the table's, and their sum
    recomputed = one if checkpointing else 0
    last_kept = blocks + recomputed
    first_kept = T * d * c + one if checkpointing else first
    return {
        "loss": {"activations": blocks + around, "logits and loss": logits + held + work},
        "last block": {
            "gradients": head + down,
            "activations": last_kept,
            "working space": space + held,
        },
        "first block": {
            "gradients": head + (a.layers - 1) * per_block + down,
            "activations": first_kept,
            "working space": space + held,
        },
        "end of backward": {"gradients": gradient, "working space": tied},
    }


def _around_the_blocks(a: Architecture, s: Setting) -> int:
    """Kept outside the blocks: the norm after the last one, the head's input, the embedding's norm and dropout."""
    T, d, c = s.tokens, a.width, s.bytes
    if a.family == "bert":
        return activations.norm(a, s) + int(bool(a.dropout)) * s.mask_bytes * T * d if s.trained else 0
    kept = activations.norm(a, s) + (c * T * d if s.trained else 0)
    if a.family == "gpt2" and a.dropout and s.trained:
        kept += s.mask_bytes * T * d
    return kept


def _before_the_first_adapter(a: Architecture, s: Setting) -> int:
    """In the first block nothing asks for the gradient of the block's input, so its first norm keeps nothing."""
    return 0 if a.family == "bert" else activations.norm(a, s)


def _block_space(a: Architecture, s: Setting, quantize: str | None) -> int:
    """Gradients on their way through the feed-forward part, where a block is widest, and one dequantised matrix.

    Two tensors of width f (one where the activation function keeps only its input), three where adapters cast; and a
    few of width d. Counted on small blocks with `live.LiveBytes`; a small share of the total.
    """
    T, c = s.tokens, s.bytes
    casts = bool(s.ranks) and c < FP32
    one_is_enough = s.trained and not a.gated and a.activation != "gelu_new"
    wide = 3 if casts else 1 if one_is_enough else 2
    narrow = 6 if casts else 1
    space = wide * T * a.inner
    if quantize:  # dequantised when two of the wide tensors are there
        space = max(space, 2 * T * a.inner + max(linear.d_in * linear.d_out for linear in a.linears))
    return c * (space + narrow * T * a.width)


def _states(parameters: int, bytes_each: int, optimizer: str) -> int:
    if optimizer == "sgd":
        return 0
    if optimizer == "momentum":
        return parameters * bytes_each
    if optimizer.endswith("8bit"):
        return int(parameters * 2 * (1 + FP32 / BLOCK_8BIT))
    if optimizer == "adamw_fp32":
        return parameters * (2 * FP32 + (FP32 if bytes_each < FP32 else 0))
    return 2 * parameters * bytes_each  # adamw, paged_adamw


def _step_space(trained: Trained, bytes_each: int, optimizer: str, kernel: str) -> int:
    one_kernel = optimizer.endswith("8bit") or optimizer.startswith("paged")  # bitsandbytes: tensor by tensor, in place
    if optimizer in ("sgd", "momentum") or one_kernel or kernel == "fused":
        return 0
    each = FP32 if optimizer == "adamw_fp32" else bytes_each
    return 2 * trained.largest * each if kernel == "loop" else trained.parameters * each


def _nf4(numbers: int, double_quant: bool) -> int:
    scales = -(-numbers // BLOCK)
    packed = -(-numbers // 2)
    if not double_quant:
        return packed + scales * FP32
    return packed + scales + -(-scales // SCALES) * FP32


# --- bad input --------------------------------------------------------------------------------------------------------


def _check(
    a: Architecture,
    dtype: str,
    optimizer: str,
    kernel: str | None,
    attention: str,
    quantize: str | None,
    device: str,
    method: Any,
    batch: int,
    sequence: int,
) -> None:
    choices = {
        "dtype": (dtype, tuple(BYTES)),
        "optimizer": (optimizer, OPTIMIZERS),
        "kernel": (kernel, (None, *KERNELS)),
        "attention": (attention, ("sdpa", "flash", "eager")),
        "quantize": (quantize, (None, "nf4")),
        "device": (device, tuple(CUBLAS)),
    }
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise PeftLabError(f"{name}={value!r}: choose one of {', '.join(map(repr, allowed))}")
    for name, number in (("batch", batch), ("sequence", sequence)):
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise PeftLabError(f"{name}={number!r}: give a whole number above 0")
    if sequence > a.positions and a.family in ("gpt2", "bert"):
        raise PeftLabError(f"{a.name or a.family} has positions for {a.positions} tokens, not {sequence}")
    if isinstance(method, str) and method not in ("full", "lora"):
        raise PeftLabError(f"method={method!r}: choose 'full', 'lora', 'qlora', or pass a method such as LoRA(r=8)")
    if not isinstance(method, str) and not hasattr(method, "parameters_at"):
        raise PeftLabError(f"method={method!r} is not a method of peftlab.methods, nor 'full', 'lora' or 'qlora'")
    if quantize and isinstance(method, str) and method == "full":
        raise PeftLabError("quantised weights are not trained: choose a method other than 'full'")


def _number(name: str, value: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise PeftLabError(f"{name}={value!r}: give a number above 0")
