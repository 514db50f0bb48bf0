"""Lesson 13: memory of one training step of a small model, predicted from its config and counted from its tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from peftlab.bench.qlora_smollm2 import scales
from peftlab.costs.live import LiveBytes
from peftlab.costs.memory import training
from peftlab.methods import Method

MIB = 2**20


def compared(model: nn.Module, method: Method | str, *, quantize: str | None = None, rows: int = 8, tokens: int = 64
             ) -> dict[str, Any]:  # fmt: skip
    """Peak MiB of a second step, predicted and measured, and what is held between two steps. On a processor, fp32.

    The model is ready to train: attached, quantised. Its rate is 0 here, so training changes nothing.
    """
    predicted = training(
        model.config.to_dict(), method, batch=rows, sequence=tokens, dtype="fp32", device="cpu", quantize=quantize
    )
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0, weight_decay=0.0)
    ids = torch.randint(0, model.config.vocab_size, (rows, tokens), generator=torch.Generator().manual_seed(0))
    training_before = model.training
    model.train()
    with LiveBytes(model, optimizer, ids, *scales(model)) as live:
        for _ in range(2):
            live.reset_peak()
            loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            del loss
    model.train(training_before)
    return {
        "predicted peak, MiB": predicted.total / MIB,
        "measured peak, MiB": live.peak / MIB,
        "held between steps, MiB": live.now / MIB,
    }
