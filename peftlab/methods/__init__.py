"""Every method of the course, one file each. Files are found by scanning: a new method needs no central list."""

from __future__ import annotations

import importlib
import pkgutil

from peftlab.methods.base import METHODS, Adapter, Method, Overlay

for _module in pkgutil.walk_packages(__path__, prefix=f"{__name__}."):
    importlib.import_module(_module.name)

globals().update({cls.__name__: cls for cls in METHODS})
__all__ = ["METHODS", "Adapter", "Method", "Overlay", *(cls.__name__ for cls in METHODS)]
