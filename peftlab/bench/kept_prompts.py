"""A soft prompt and a prefix that the course keeps, and where small learning rates lead (lesson 04).

SmolLM2, word -> definition, trained as the three LoRAs of `adapters`: 200 steps of 8 on a CPU, tested on the first 100
test rows. The prompt starts from 20 tokens of worked examples, the prefix from what the model computes for them; their
learning rate is the best of `soft_prompts` for the prompt, and one of its two best for the prefix. Both are saved in
data/adapters. Then a prompt with peft's random start, at LoRA's learning rate and at a larger one, and LoRA itself. The
stored file ends after three of the five runs; the same command goes on. Some five minutes a run on one quiet thread.
"""

from __future__ import annotations

import torch

from peftlab.bench.adapters import LR, ROWS, SETTINGS
from peftlab.bench.results import Results
from peftlab.bench.soft_prompts import Arm, Scale, fit
from peftlab.tasks.datasets import data_folder

LAPTOP = Scale(steps=SETTINGS["steps"], batch_size=SETTINGS["batch_size"], rows=ROWS, seeds=(0,))
KEPT = {"prompt": "define_prompt", "prefix": "define_prefix"}  # kind -> folder in data/adapters
RUNS = (  # kind, start, virtual tokens, learning rate; the first two are kept
    ("prompt", "text", 20, 3e-2),
    ("prefix", "real", 20, 3e-2),
    ("prompt", "random", 20, LR),
    ("prompt", "random", 20, 3e-1),
    ("lora", "r8", 0, LR),
)


def run(results: Results) -> None:
    torch.set_num_threads(1)
    results.settings(**SETTINGS, seed=0, model="smollm2", rows=ROWS, runs=RUNS, kept=KEPT, device="cpu")
    for i, (kind, start, n, lr) in enumerate(RUNS):
        key, folder = f"{kind}/{start}/{n}/{lr}", KEPT[kind] if i < len(KEPT) else ""
        if folder and not (data_folder() / "adapters" / folder / "adapter_config.json").exists():
            results.content["cells"].pop(key, None)
        arm = Arm(kind, start, n, lr)
        results.cell(key, lambda: fit(LAPTOP, arm, lr, seed=0, steps=LAPTOP.steps, folder=folder))  # noqa: B023
