"""The lessons that there are today, and a short way through them."""

from __future__ import annotations

from peftlab.course.lessons import all_lessons
from peftlab.show.plots import Table

FAST_PATH = ("00", "06", "07")  # what to read if there is one evening only; lessons that are not built yet are left out


def lessons() -> Table:
    """Every lesson that is built, in the order of reading, and which of them make the fast path."""
    rows = [
        {
            "lesson": found.name,
            "at its heart": found.heart,
            "minutes": found.minutes,
            "fast path": "✓" if found.number in FAST_PATH else "",
        }
        for found in all_lessons()
        if found.notebook.exists()
    ]
    return Table(rows, caption="The lessons so far")
