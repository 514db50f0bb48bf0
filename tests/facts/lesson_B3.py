"""Bridge B3: what it says about a weight matrix of MiniLM, from the matrix itself (a file that does not change)."""

from __future__ import annotations

import torch

from peftlab.show.bridge_figures import energy
from peftlab.tasks import models
from tests.facts import percent

NAME = "B3_outer_product_to_svd"
NOT_MEASURED = {"2", "60", "95"}  # what the reader may guess


def facts() -> list[str]:
    model, _ = models.load("minilm")
    W = model.encoder.layer[0].attention.self.query.weight
    held = energy(W)
    noise = energy(torch.randn(384, 384, generator=torch.Generator().manual_seed(0)))
    needed = int((held < 0.9).sum()) + 1
    assert round(needed * 768 / W.numel(), 2) == 0.75  # "three quarters of the numbers"
    assert needed > 100  # "more than a hundred directions"
    matrices = [p for name, p in model.encoder.named_parameters() if p.ndim == 2]
    assert len(matrices) == 36 and max(energy(p)[7].item() for p in matrices) < 0.25  # "less than a quarter"
    return [
        f"The top 8 of 384 directions hold {percent(held[7].item())} of the energy; "
        f"in noise it would be {percent(noise[7].item())}",
        f"For nine tenths you need {needed} directions",
        f"about {percent(held[7].item())}",
    ]
