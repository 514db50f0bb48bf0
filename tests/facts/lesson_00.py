"""Lesson 00: what its prose may quote, from data/results/invent_a_word.json."""

from __future__ import annotations

from math import exp
from statistics import mean

from peftlab.bench.results import Results
from peftlab.course.questions.lesson_00 import perplexities, right_word
from peftlab.tasks import datasets
from tests.facts import percent

NAME = "00_start_here"
NOT_MEASURED = {"3.0", "134.5"}  # WordNet's version; the base model's parameters in millions


def facts() -> list[str]:
    cells = Results.load("invent_a_word")["cells"]
    tuned = [cells[f"seed/{seed}"] for seed in range(3)]
    before, after = perplexities()
    shown = [entry.word for entry in datasets.load("define_word").test[:8]]
    assert set(shown) <= set(cells["base"]["writes"]), "the test words have changed: measure again"
    assert cells["base"]["entries"] == 300
    assert max(after) - min(after) < 1  # "differ by less than one"

    writes = cells["base"]["writes"]
    assert writes["extravaganza"].startswith("A person who is a person who is a person who is a person")
    shares = right_word()[1]
    with_examples = cells["shots"]["own_word_likelier"]
    error = (with_examples * (1 - with_examples) / 300) ** 0.5
    losses = [cell["loss_without_end"] for cell in tuned]
    assert min(shares) - 2 < 100 * with_examples < max(shares) + 2  # "cannot be told apart"
    assert max(losses) < cells["shots"]["loss_without_end"]  # "training wins"
    trained, total = tuned[0]["trainable"], tuned[0]["total"]
    eventuate, sensory = (tuned[0]["writes"][word] for word in ("eventuate", "sensory"))
    return [
        f"you train a few new parameters, {percent(trained / total, 2)} of all",
        f"*filter* is `{writes['filter']}`",
        f'it writes for *sensory*: "{writes["sensory"]}"',
        f"the perplexity falls from {before:.0f} to {mean(after):.0f}",
        f"Without it, {exp(cells['base']['loss_without_end']):.0f} become {mean(map(exp, losses)):.0f}",
        f'*eventuate* came out as "{eventuate}"',
        f'*sensory* as "{sensory}"',
        f"The share rises from {right_word()[0]:.0f} % to between {min(shares):.0f} % and {max(shares):.0f} %",
        f"finds the right word in {percent(with_examples)} of cases, too",
        f"the standard error of such a share is about {100 * error:.0f} percentage point",
        f"with a loss of {min(losses):.2f} to {max(losses):.2f} against {cells['shots']['loss_without_end']:.2f}",
        f"A small file (here {4 * trained / 1e6:.1f} MB, beside {2 * (total - trained) / 1e6:.0f} MB)",
        f"what an adapter of {4 * trained / 1e6:.1f} MB is made of",
    ]
