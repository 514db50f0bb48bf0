"""Deep dive 04x: everything in it is measured live; only a section of a paper has a number."""

from __future__ import annotations

NAME = "04x_prefix_as_adapter"
NOT_MEASURED = {"3.1"}


def facts() -> list[str]:
    return []
