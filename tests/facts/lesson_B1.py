"""Bridge B1: it quotes no measurement, only counts and shapes, which its own cells assert."""

from __future__ import annotations

NAME = "B1_transformer_block"
NOT_MEASURED: set[str] = set()


def facts() -> list[str]:
    return []
