"""Results are data: JSON with the settings, the versions and the machine. A run that was cut short goes on."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peftlab.errors import PeftLabError
from peftlab.files import write_whole

PACKAGES = ("torch", "transformers", "peft", "numpy")


class Results:
    """Cells of a measurement, each run once and kept. The file is rewritten whole after every cell."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path, self.content = path, content

    @classmethod
    def folder(cls) -> Path:
        from peftlab.tasks.datasets import data_folder

        return data_folder() / "results"

    @classmethod
    def open(cls, name: str, *, fresh: bool = False) -> Results:
        path = cls.folder() / f"{name}.json"
        if path.exists() and not fresh:
            return cls(path, json.loads(path.read_text(encoding="utf-8")))
        return cls(path, {"name": name, "environment": environment(), "settings": {}, "cells": {}})

    @classmethod
    def load(cls, name: str) -> dict[str, Any]:
        """Stored results, for reading. Raises PeftLabError if the measurement was never run."""
        path = cls.folder() / f"{name}.json"
        if not path.exists():
            raise PeftLabError(f"no stored results called {name}; run `python -m peftlab.bench {name}`")
        return json.loads(path.read_text(encoding="utf-8"))

    def settings(self, **settings: Any) -> None:
        """Say what holds for all cells. Going on with other settings is refused."""
        before = self.content["settings"]
        if before and before != json.loads(json.dumps(settings)):
            raise PeftLabError(f"{self.path.name} was measured with other settings; pass --fresh to start again")
        self.content["settings"] = settings
        self.write()

    def cell(self, key: str, measure: Callable[[], Any]) -> Any:
        """The kept value of this cell, measured now if there is none."""
        if key not in self.content["cells"]:
            start = time.perf_counter()
            value = measure()
            self.keep(key, value, time.perf_counter() - start)
        return self.content["cells"][key]

    def keep(self, key: str, value: Any, seconds: float) -> None:
        """Store the value of a cell that took so long to measure."""
        self.content["cells"][key] = value
        print(f"{key}: {_short(value)}  ({seconds:.0f} s)", flush=True)
        self.write()

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, (json.dumps(self.content, indent=1, sort_keys=True) + "\n").encode())


def environment() -> dict[str, str]:
    """Versions and the kind of machine, without names or paths."""
    import torch

    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    if torch.cuda.is_available():
        versions["device"] = torch.cuda.get_device_name()
    return {**versions, "python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 100 else text[:100] + " …"
