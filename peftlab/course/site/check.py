"""What is wrong with a finished site: pictures without words, dead links, anything taken from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

PICTURE_NAME = re.compile(r"\.(png|svg|jpe?g|gif|webp)$", re.IGNORECASE)  # what Sphinx puts where there is no alt text
REDIRECTS = {"index.html", "genindex.html", "search.html"}  # pages that are no source's


@dataclass
class _Reader(HTMLParser):
    """Collects from one page what the checks need."""

    links: list[str] = field(default_factory=list)  # href of <a>
    loads: list[str] = field(default_factory=list)  # what the browser fetches by itself
    images: list[dict] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.anchors |= {value for key, value in attributes if key in ("id", "name") and value}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag == "img":
            self.images.append(given)
        loaded = given.get("src") if tag in ("script", "img", "iframe", "source", "video", "audio") else None
        if tag == "link" and set((given.get("rel") or "").split()) & {"stylesheet", "icon", "preload", "preconnect"}:
            loaded = given.get("href")
        if loaded:
            self.loads.append(loaded)


class Site:
    """The pages of a built site, read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def pages(self) -> dict[Path, _Reader]:
        found = {}
        for path in sorted(self.folder.rglob("*.html")):
            if "_static" not in path.relative_to(self.folder).parts:
                found[path] = _Reader()
                found[path].feed(path.read_text(encoding="utf-8"))
        return found

    def name(self, page: Path) -> str:
        return page.relative_to(self.folder).as_posix()

    def problems(self) -> list[str]:
        """Everything that is wrong, one line each."""
        return [*self.pictures_without_words(), *self.dead_links(), *self.from_elsewhere()]

    def pictures_without_words(self) -> Iterator[str]:
        for page, read in self.pages.items():
            for image in read.images:
                alt = (image.get("alt") or "").strip()
                if not alt or PICTURE_NAME.search(alt):
                    yield f"{self.name(page)}: a picture without alt text ({(image.get('src') or '?')[:80]})"

    def dead_links(self) -> Iterator[str]:
        for page, read in self.pages.items():
            for link in dict.fromkeys([*read.links, *read.loads]):
                parts = urlsplit(link)
                if parts.scheme or parts.netloc:
                    continue
                target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
                if not target.is_file():
                    yield f"{self.name(page)}: {link} leads nowhere"
                elif parts.fragment and target in self.pages and not self._has(target, unquote(parts.fragment)):
                    yield f"{self.name(page)}: {link} names a place that is not on that page"

    def _has(self, target: Path, anchor: str) -> bool:
        return anchor in self.pages[target].anchors

    def from_elsewhere(self) -> Iterator[str]:
        """Scripts, styles and pictures that are not the site's own. (Links that a reader follows may lead anywhere.)"""
        for page, read in self.pages.items():
            for load in read.loads:
                if urlsplit(load).netloc:
                    yield f"{self.name(page)}: loads {load}"
