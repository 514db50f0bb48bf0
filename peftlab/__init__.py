"""PEFT Lab: parameter-efficient fine-tuning written from scratch and proven equal to Hugging Face peft.

`import peftlab` is cheap: the verbs below are loaded on first use, and torch with them.
"""

from __future__ import annotations

import importlib
import logging

__version__ = "0.1.0"

_VERBS = (
    "attach",
    "detach",
    "use",
    "disabled",
    "folded",
    "merge",
    "save",
    "load",
    "count_parameters",
    "add_weighted_adapter",
    "penalty",
    "after_step",
)
__all__ = [*_VERBS, "PeftLabError"]

# On some processors bitsandbytes logs a missing optional kernel on import, and `import peft` imports it.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def __getattr__(name: str):
    if name in _VERBS:
        return getattr(importlib.import_module("peftlab.api"), name)
    if name == "PeftLabError":
        return importlib.import_module("peftlab.errors").PeftLabError
    raise AttributeError(f"module 'peftlab' has no attribute {name!r}; its verbs are {', '.join(_VERBS)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
