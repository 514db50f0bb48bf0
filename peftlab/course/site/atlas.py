"""The method atlas: a page made from what every method says about itself, its card."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

from peftlab.course.site.lessons import plain
from peftlab.course.site.pages import table
from peftlab.methods.base import METHODS, Card, Method
from peftlab.parity import CLAIMS, LEVELS

FAMILIES = {
    "additive": "They add something to the model: small layers, scales, vectors before the input or the keys.",
    "selective": "They train some of the model's own numbers and add none.",
    "reparameterisation": "They write the change of a weight matrix in fewer numbers than it has.",
    "hybrid": "They combine parts of the other families.",
}


def page(root: Path, methods: Sequence[type[Method]] = METHODS) -> str:
    """Markdown of the whole page. root: of the repository, for the names of the source files."""
    ordered = sorted(methods, key=lambda each: (list(FAMILIES).index(each.card.family), each.card.year, each.__name__))
    rows = [
        [f"[{each.__name__}](#{anchor(each)})", each.card.year, code(each.card.formula),
         "yes" if each.card.mergeable else "no"]
        for each in ordered
    ]  # fmt: skip
    levels = "; ".join(f"{level} {CLAIMS[level].format('the reference')}" for level in LEVELS)
    parts = [
        "# Method atlas",
        "Every method of the library: what it computes, what it costs, when to use it, and what is not known. All of "
        "it comes from the methods' own files, where the tests hold shapes, parameter counts and merging to it. "
        "*Use when* and *avoid when* are our judgement.",
        f"*Proven against* names the reference and the levels of comparison: {levels}.",
        table(["method", "year", "formula", "merges"], rows),
    ]
    for family, says in FAMILIES.items():
        members = [each for each in ordered if each.card.family == family]
        if members:
            parts += [f"## {family.capitalize()}", says, *(entry(each, root) for each in members)]
    return "\n\n".join(parts) + "\n"


def anchor(method: type[Method]) -> str:
    return f"atlas-{method.__name__.lower()}"


def entry(method: type[Method], root: Path) -> str:
    """One method: heading, formula, and a list of facts, which wraps on a phone where a table would not."""
    card = method.card
    source = Path(inspect.getfile(method)).resolve().relative_to(root).as_posix()
    facts = [
        ["paper", f"[{card.title}](https://arxiv.org/abs/{card.arxiv}), {card.year}; {card.equation}"],
        ["tensors", code(card.shapes)],
        ["trainable parameters", code(card.parameters)],
        ["merges", "yes" if card.mergeable else f"no: {card.levels.get('P4', 'see its traps')}"],
        ["at inference", card.inference_cost],
        ["use when", card.use_when],
        ["avoid when", card.avoid_when],
        ["unknown", card.unknown],
        ["traps", "\n\n  ".join(plain(trap) for trap in card.traps)],
        ["proven against", f"{code(card.reference)}: {proven(card)}"],
        ["source", f"`{source}`"],
    ]
    shown = [[name, value if name in VERBATIM else plain(value)] for name, value in facts]
    listed = "\n\n".join(f"{name}\n: {value}" for name, value in shown)
    return f"({anchor(method)})=\n### {method.__name__}\n\n{code(card.formula)}\n\n{{.facts}}\n{listed}"


VERBATIM = {"paper", "tensors", "trainable parameters", "traps", "proven against", "source"}


def proven(card: Card) -> str:
    """The levels of parity that apply, and why the others do not."""
    held = ", ".join(level for level in LEVELS if level not in card.levels)
    left_out = "; ".join(f"{level} does not apply: {why}" for level, why in card.levels.items())
    return plain(held + (f". {left_out}" if left_out else ""))


def code(text: str) -> str:
    """Unicode maths as it stands: in code it needs no escapes."""
    return f"`{text.replace('`', '')}`"
