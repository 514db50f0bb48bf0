"""The course's small markup in questions: `code` in backticks, *emphasis*, nothing else."""

from __future__ import annotations

import html
import re

CODE_OR_EMPHASIS = re.compile(r"`([^`]+)`|\*([^*\s][^*]*)\*")


def as_html(text: str) -> str:
    """The text for a page, escaped, its markup as elements."""
    escaped = html.escape(text, quote=False)
    return CODE_OR_EMPHASIS.sub(
        lambda found: f"<code>{found[1]}</code>" if found[1] else f"<em>{found[2]}</em>", escaped
    )
