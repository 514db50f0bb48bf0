"""`python -m peftlab.course.site build` writes the website to book/_build/html."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from peftlab.course.site.build import BUILD, build
from peftlab.errors import PeftLabError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m peftlab.course.site", description="Build the website.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("build", help="stage the pages and the built lessons, then run Jupyter Book")
    command.add_argument("--out", type=Path, default=BUILD, help="where (default: book/_build)")
    options = parser.parse_args(arguments)
    try:
        site = build(options.out)
    except PeftLabError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"The website is in {site}; open index.html there.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
