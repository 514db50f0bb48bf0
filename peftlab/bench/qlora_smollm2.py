"""A few steps of LoRA and of QLoRA on SmolLM2: does it run on a laptop, and in how much memory? One run of each.

SmolLM2 as the course has it was rounded to 4 bits before (GGUF Q4_1), and NF4 rounds it again, onto other levels. So
this measures memory and that training runs, not what quantisation costs. The second part is the error of one matrix
under several formats, which says how it was rounded.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

import peftlab
from peftlab.bench.memory import _apart
from peftlab.bench.results import Results
from peftlab.costs.live import LiveBytes
from peftlab.methods import LoRA
from peftlab.quant import Linear4bit, quantize, quantize_model
from peftlab.quant.double_quant import DoubleQuantized
from peftlab.tasks import datasets, models

METHOD = LoRA(r=8, lora_alpha=16, target_modules="all-linear")
STEPS, BATCH, RATE = 8, 4, 1e-3
MATRIX = "model.layers.15.self_attn.q_proj.weight"
FORMS = (("nf4", 64), ("nf4", 32), ("int4", 32), ("int4_asymmetric", 16), ("int4_asymmetric", 32),
         ("int4_asymmetric", 64))  # fmt: skip


def run(results: Results) -> None:
    results.settings(
        steps=STEPS, batch_size=BATCH, lr=RATE, r=METHOD.r, target_modules=METHOD.target_modules, threads=1,
        kind="nf4", blocksize=64, double=True, dtype="fp32", matrix=MATRIX,
    )  # fmt: skip
    for way in ("lora", "qlora"):
        results.cell(way, partial(_apart, few_steps, way))
    results.cell("errors", partial(_apart, errors))


def few_steps(way: str) -> dict[str, Any]:
    """Losses of the steps, and bytes of live tensors: before a step, and at the peak of the last one."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, tokenizer = models.load("smollm2")
    if way == "qlora":
        quantize_model(model)
    peftlab.attach(model, METHOD).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE)
    rows = datasets.load("define_word").definitions("train")
    stream = datasets.batches(rows, tokenizer, batch_size=BATCH, max_length=64, seed=0)
    losses = []
    with LiveBytes(model, optimizer, *scales(model)) as live:
        for _, batch in zip(range(STEPS), stream, strict=False):
            live.reset_peak()
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(round(loss.item(), 4))
            del loss
    return {"losses": losses, "at_rest": live.now, "peak": live.peak}


def scales(model: torch.nn.Module) -> list[torch.Tensor]:
    """What Linear4bit keeps beside its codes, which are a parameter."""
    found = []
    for module in model.modules():
        if isinstance(module, Linear4bit):
            c = module.quantized.absmax
            found += [c.inner.codes, c.inner.absmax, c.offset] if isinstance(c, DoubleQuantized) else [c]
    return found


def errors() -> dict[str, float]:
    """‖Ŵ - W‖ / ‖W‖ of one matrix."""
    model, _ = models.load("smollm2")
    W = model.get_parameter(MATRIX).detach()
    return {
        f"{kind}/{b}": round(((quantize(W, kind, b, double=False).dequantize() - W).norm() / W.norm()).item(), 5)
        for kind, b in FORMS
    }
