"""A typed prompt as an adapter: what lesson 04 puts beside trained ones."""

from __future__ import annotations

from typing import Any

from torch import nn

import peftlab
from peftlab.errors import PeftLabError
from peftlab.methods import PrefixTuning
from peftlab.tasks.prompts import captured, front_ids, start_from


def attach_text(model: nn.Module, tokenizer: Any, text: str, name: str = "default", follows: str = "Word") -> nn.Module:
    """Put `text` before every input of the model, as the prefix that it leaves behind, and switch to it.

    Where the model is called with what comes after the text, it answers as if the text stood there. Another adapter
    of this name makes room. Raises PeftLabError for a text that is empty or longer than the model's context.
    """
    ids = front_ids(tokenizer, text, follows)
    longest = model.config.get_text_config().max_position_embeddings
    if len(ids) >= longest:
        raise PeftLabError(f"the text has {len(ids):,} tokens, and the model reads at most {longest:,}")
    attached = getattr(model, "peftlab", None)
    if attached is not None:
        with peftlab.disabled(model):
            table = captured(model, ids)
        if name in attached.methods:
            peftlab.detach(model, name)
    else:
        table = captured(model, ids)
    peftlab.attach(model, PrefixTuning(num_virtual_tokens=len(ids)), name=name)
    start_from(model, table, name)
    peftlab.use(model, name)
    return model
