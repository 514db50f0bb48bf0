"""Let a causal language model write: one greedy completion for each prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from tqdm.auto import tqdm

from peftlab.errors import PeftLabError
from peftlab.tasks.metrics import device_of, keeping_modes


@torch.no_grad()
def complete(
    model: nn.Module,
    tokenizer,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 24,
    adapter_names: Sequence[str] | None = None,
    batch_size: int = 32,
    progress: bool = False,
) -> list[str]:
    """What the model writes after each prompt, up to its end-of-text token or the end of the line, without spaces.

    Greedy: the most likely token each time, so the answer is the same every time (on one machine).
    adapter_names: one name for each prompt, to serve several adapters in one batch; "__base__" is the base model.

    Raises PeftLabError if there is no prompt, or not one adapter name for each.
    """
    if not prompts:
        raise PeftLabError("There is no prompt to complete.")
    if adapter_names is not None and len(adapter_names) != len(prompts):
        raise PeftLabError(f"{len(adapter_names)} adapter names for {len(prompts)} prompts: give one for each.")
    answers = []
    before, tokenizer.padding_side = tokenizer.padding_side, "left"  # so that all prompts end at the same place
    starts = range(0, len(prompts), batch_size)
    try:
        with keeping_modes(model):
            model.eval()
            for start in tqdm(starts, desc="writing", leave=False, disable=not progress):
                rows = slice(start, start + batch_size)
                batch = tokenizer(list(prompts[rows]), return_tensors="pt", padding=True).to(device_of(model))
                routed = {} if adapter_names is None else {"adapter_names": list(adapter_names[rows])}
                written = model.generate(
                    **batch,
                    **routed,
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    temperature=None,
                    top_p=None,
                    top_k=None,
                    pad_token_id=tokenizer.pad_token_id,
                    eos_token_id=tokenizer.eos_token_id,  # what training appended; the model's own may differ
                )
                new = written[:, batch["input_ids"].shape[1] :]
                answers += [first_line(text) for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
    finally:
        tokenizer.padding_side = before
    return answers


def first_line(text: str) -> str:
    """The first line that is not empty, without spaces around it; "" if there is none."""
    return text.strip().partition("\n")[0].strip()
