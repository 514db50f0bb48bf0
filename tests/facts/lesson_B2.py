"""Bridge B2: it quotes no measurement."""

from __future__ import annotations

NAME = "B2_module_surgery"
NOT_MEASURED: set[str] = set()


def facts() -> list[str]:
    return []
