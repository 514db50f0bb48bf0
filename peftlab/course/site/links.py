"""Links between files of the repository become links between pages of the site.

A lesson links to another lesson or to a page of the book as the files lie in the repository, so that the link works in
JupyterLab too. On the site the files lie elsewhere, and some are not on it at all.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PLACEHOLDER = "OWNER"  # in the repository's address, until the course has one
LINK = re.compile(r"(?<!!)\[(?P<text>[^\[\]]*)\]\((?P<target>[^()\s]+)\)")
CARD_LINK = re.compile(r"^:link: (?P<target>\S+)\n(?P<kind>:link-type: doc\n)?", re.MULTILINE)
NUMBER_AND_UNIT = re.compile(r"(?<=\d) (?=(?:%|min|kB|MB|GB|GiB)(?!\w))")
FENCE = re.compile(r"\s*(?P<marks>`{3,}|~{3,}|:{3,})(?P<info>.*)")


@dataclass(frozen=True)
class Map:
    """Where the files of the repository are on the site. All paths are POSIX and relative."""

    root: Path  # of the repository
    repository: str  # its address, without a slash at the end
    pages: Mapping[str, str]  # path in the repository -> path in the staged source
    unbuilt: frozenset[str] = field(default_factory=frozenset)  # lessons that are planned and have no page yet

    @property
    def published(self) -> bool:
        """Whether the repository has an address yet."""
        return PLACEHOLDER not in self.repository

    def file_url(self, path: str) -> str:
        return f"{self.repository}/blob/main/{path}"


def rewrite(text: str, page: str, places: Map) -> str:
    """The Markdown of the file `page` (path in the repository) with its relative links as the site needs them.

    To a page of the site: relative to this page's place there. To a planned lesson: the words without a link. To
    another file of the repository: its address there, or its path in words while there is no address. Anything else
    stays as it is, and Sphinx warns of it. On the way, "85 %" and "4 GB" get spaces that do not break.
    """

    def resolved(target: str) -> str:
        return posixpath.normpath(posixpath.join(posixpath.dirname(page), target))

    def on_site(path: str) -> str:
        return posixpath.relpath(places.pages[path], posixpath.dirname(places.pages[page]))

    def link(match: re.Match) -> str:
        words, (target, mark, anchor) = match["text"], match["target"].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        path = resolved(target)
        if path in places.pages:
            return f"[{words}]({on_site(path)}{mark}{anchor})"
        if path in places.unbuilt:
            return words
        if (places.root / path).exists():
            return f"[{words}]({places.file_url(path)})" if places.published else f"{words} (`{path}`)"
        return match[0]

    def card(match: re.Match) -> str:
        """The link of a whole card, `:link: ../notebooks/00_start_here`: Sphinx wants it without an ending."""
        for ending in ("", ".md", ".ipynb"):
            path = resolved(match["target"]) + ending
            if path in places.pages:
                return f":link: {on_site(path).removesuffix('.md').removesuffix('.ipynb')}\n{match['kind'] or ''}"
            if path in places.unbuilt:
                return ""
        return match[0]

    return outside_code(text, lambda part: NUMBER_AND_UNIT.sub("\u00a0", CARD_LINK.sub(card, LINK.sub(link, part))))


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Apply `change` to what is not code. A figure or an admonition in a fence is text, with links in it."""
    pieces: list[str] = []
    piece: list[str] = []  # lines of the part that is being read
    open_fences: list[str] = []  # their marks, outermost first
    in_code = False

    def finish() -> None:
        part = "".join(piece)
        pieces.append(part if in_code else change(part))
        piece.clear()

    for line in text.splitlines(keepends=True):
        fence = FENCE.fullmatch(line.rstrip())
        if fence and open_fences and not fence["info"] and fence["marks"].startswith(open_fences[-1]):
            open_fences.pop()
            piece.append(line)
            if in_code:
                finish()
                in_code = False
            continue
        if fence and not in_code:
            open_fences.append(fence["marks"])
            if _is_code(fence):
                finish()
                in_code = True
        piece.append(line)
    finish()
    return "".join(pieces)


def _is_code(fence: re.Match) -> bool:
    """Plain fences and those of {code}, {code-block} and {code-cell}; not those of other directives."""
    info = fence["info"].strip()
    if info.startswith("{"):
        return info.startswith("{code")
    return not fence["marks"].startswith(":")
