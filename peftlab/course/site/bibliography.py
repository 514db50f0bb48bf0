"""How the bibliography is set: titles in italics, as in the lessons, and one link for each paper. A Sphinx extension.

A paper's `url` in references.bib is that of its arXiv id or DOI, so showing both would say the same thing twice.
"""

from __future__ import annotations

from typing import Any

from pybtex.database import Entry
from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style as PlainStyle
from pybtex.style.template import Node, field, first_of, href, optional, sentence, tag

NAME = "course"


class CourseStyle(PlainStyle):
    """Pybtex's plain style with other titles and links."""

    def format_title(self, e: Entry, which_field: str, as_sentence: bool = True) -> Node:
        title = tag("em")[field(which_field)]
        return sentence[title] if as_sentence else title

    def format_url(self, e: Entry) -> Node:
        address = field("url", raw=True)
        return href(address)[address]

    def format_web_refs(self, e: Entry) -> Node:
        links = self.format_eprint(e), self.format_doi(e), self.format_url(e)
        return sentence[first_of[tuple(optional[link] for link in links)]]


def setup(app: Any) -> dict[str, bool]:
    """Sphinx calls this."""
    register_plugin("pybtex.style.formatting", NAME, CourseStyle)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
