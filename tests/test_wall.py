"""Lesson 01's wall: its straight lines are the predictor, to the byte; and its widget says what they say."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess

import pytest

from peftlab.costs import memory
from peftlab.costs.configs import architecture
from peftlab.course import wall
from peftlab.show.widgets.wall import BATCHES, MEMORIES, RESERVE, SEQUENCES, START, TITLES, _packed, memory_wall

EVERY = [(model, method, again) for model in wall.MODELS for method in wall.METHODS for again in (False, True)]
# A step of one token, each stop of the sliders, odd sizes, and both sides of QLoRA's kink at `width` tokens.
STEPS = [(1, 1), (3, 77), (7, 1000), *itertools.product((1, 4, 32), SEQUENCES)]


def predicted(model: str, method: str, again: bool, batch: int, sequence: int) -> memory.Memory:
    name, optimizer = wall.METHODS[method]
    settings = {"batch": batch, "sequence": sequence, "optimizer": optimizer, "checkpointing": again}
    return memory.training(model, name, kernel="fused", **settings)


@pytest.fixture(scope="module")
def widget():
    return memory_wall()


@pytest.mark.parametrize(("model", "method", "again"), EVERY)
def test_the_lines_are_the_predictor_to_the_byte(model, method, again):
    a, candidates = architecture(model), wall.lines(model, method, again)
    for batch, sequence in [*STEPS, (1, a.width - 1), (1, a.width), (1, a.width + 1)]:
        if sequence <= a.positions:
            wanted = predicted(model, method, again, batch, sequence)
            moment, parts = wall.peak(candidates, batch * sequence)
            assert (moment, parts) == (wanted.moment, dict(wanted.parts)), (batch, sequence)


def test_a_kink_is_seen():
    found = [line.moment for line in wall.lines("llama-2-7b", "QLoRA", True)]
    assert len(found) > len(set(found))


@pytest.mark.parametrize("method", wall.METHODS)
def test_one_token_more_than_the_most_does_not_fit(method):
    limit, candidates = 60 * memory.GIB, wall.lines("llama-2-7b", method, False)
    most = wall.most_tokens(candidates, limit)
    if method == "full, fp32 states":
        assert most == 0
        return
    assert sum(wall.peak(candidates, most)[1].values()) <= limit < sum(wall.peak(candidates, most + 1)[1].values())


def test_what_is_kept_for_a_task():
    assert wall.kept_bytes("llama-2-7b", "full") == 2 * 6_738_415_616
    adapters = memory.training("llama-2-7b", "lora").parts["adapters"]
    assert wall.kept_bytes("llama-2-7b", "LoRA") == wall.kept_bytes("llama-2-7b", "QLoRA") == adapters


# ---- the widget -----------------------------------------------------------------------------------------------------


def test_the_widget_holds_every_model_and_starts_at_one_of_them(widget):
    assert [each["name"] for each in widget.models] == list(wall.MODELS) == list(widget.lines)
    assert set(TITLES) == set(wall.MODELS) and START["model"] in TITLES and START["method"] in wall.METHODS
    assert START["memory"] in MEMORIES and START["batch"] in BATCHES and START["sequence"] in SEQUENCES
    sizes = [each["parameters"] for each in widget.models]
    assert sizes[0] < 2e8 and sizes[-1] > 6e10
    assert memory_wall(memory=8).choice == {**START, "memory": 8}


def test_the_page_keeps_one_gib_back_as_the_library_does():
    found = predicted("llama-2-7b", "LoRA", False, 4, 512)
    edge = found.total / memory.GIB + RESERVE
    assert found.fits(edge + 1e-6) and not found.fits(edge - 1e-6)


def test_the_wall_can_be_read_without_scripts(widget):
    for text in (widget.fallback_html(), widget.fallback_text()):
        assert "Llama 2 7B" in text and "JupyterLab" in text
        for method in wall.METHODS:
            both = [predicted("llama-2-7b", method, again, 4, 512).gib for again in (False, True)]
            assert " / ".join(f"{gib:.1f}" for gib in both) in text
    assert len(widget.twin().encode()) < 100_000


def test_a_module_in_node_finds_the_same_peaks(widget, tmp_path):
    """tests/browser does the same in a browser; this needs node alone."""
    if shutil.which("node") is None:
        pytest.skip("needs node")
    asked = [(m, k, int(c), t) for m, k, c in EVERY for t in (1, 2048, 5000)]
    (tmp_path / "wall.mjs").write_text(str(widget._esm), encoding="utf-8")
    (tmp_path / "asked.json").write_text(json.dumps({"lines": widget.lines, "asked": asked}), encoding="utf-8")
    (tmp_path / "run.mjs").write_text(
        "import fs from 'fs'; import wall from './wall.mjs';"
        "const { lines, asked } = JSON.parse(fs.readFileSync('asked.json'));"
        "console.log(JSON.stringify(asked.map(([m, k, c, t]) => wall.peak(lines[m][k][c], t).total)));",
        encoding="utf-8",
    )
    done = subprocess.run(["node", "run.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [sum(wall.peak(wall.lines(m, k, bool(c)), t)[1].values()) for m, k, c, t in asked]


def test_packing_loses_nothing():
    line = wall.lines("gpt2", "LoRA", False)[0]
    _, fixed, each = _packed(line)
    assert (sum(fixed), sum(each)) == line.total
