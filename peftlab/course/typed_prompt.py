"""A typed prompt as an adapter: what lesson 04 puts beside trained ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

import peftlab
from peftlab.errors import PeftLabError
from peftlab.methods import PrefixTuning
from peftlab.methods.base import Method
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
        _make_room(model, name)
    else:
        table = captured(model, ids)
    peftlab.attach(model, PrefixTuning(num_virtual_tokens=len(ids)), name=name)
    start_from(model, table, name)
    peftlab.use(model, name)
    return model


def anew(model: nn.Module, method: Method, name: str) -> nn.Module:
    """Attach `method` under this name and switch to it; an adapter that has the name makes room.

    For cells that a learner runs again: a second `attach` under one name is an error elsewhere, and should be.
    """
    _make_room(model, name)
    peftlab.attach(model, method, name=name)
    return peftlab.use(model, name)


def loaded_anew(model: nn.Module, folder: Path, name: str) -> nn.Module:
    """Load an adapter under this name and switch to it; an adapter that has the name makes room."""
    _make_room(model, name)
    peftlab.load(model, folder, name=name)
    return peftlab.use(model, name)


def _make_room(model: nn.Module, name: str) -> None:
    if name in getattr(getattr(model, "peftlab", None), "methods", {}):
        peftlab.detach(model, name)
