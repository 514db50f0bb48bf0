"""`python -m peftlab.bench` lists the measurements, `python -m peftlab.bench NAME [--fresh]` runs one."""

from __future__ import annotations

import argparse
import importlib
import pkgutil

import peftlab.bench
from peftlab.bench.results import Results

HELPERS = {"__main__", "parallel", "results"}


def names() -> list[str]:
    """The measurements: every module of this folder that is not a helper."""
    return sorted({module.name for module in pkgutil.iter_modules(peftlab.bench.__path__)} - HELPERS)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m peftlab.bench", description="Run a stored measurement again.")
    parser.add_argument("name", nargs="?", choices=names(), help="which measurement; without it, they are listed")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results instead of going on from them")
    arguments = parser.parse_args()
    if arguments.name is None:
        for name in names():
            print(f"{name:12} {(importlib.import_module(f'peftlab.bench.{name}').__doc__ or '').splitlines()[0]}")
        return
    module = importlib.import_module(f"peftlab.bench.{arguments.name}")
    stored_as = getattr(module, "STORED_AS", arguments.name)
    module.run(Results.open(stored_as, fresh=arguments.fresh))


if __name__ == "__main__":
    main()
