"""Figures and tables of the lessons: small, legible without colour, safe to put on a page."""

from __future__ import annotations

import io

import pytest
from matplotlib.colors import to_rgb

from peftlab.errors import PeftLabError
from peftlab.show import palette, plots
from peftlab.tasks.training import Run

pytestmark = pytest.mark.usefixtures("no_window")


def run(name: str, **facts) -> Run:
    losses = [3 / (step + 1) + (0.1 if step % 2 else 0) for step in range(90)]
    return Run(name, **{"losses": losses, "trainable": 4620, "total": 22_569_996} | facts)


def png(ax) -> bytes:
    file = io.BytesIO()
    ax.figure.savefig(file, format="png")
    return file.getvalue()


def test_every_run_has_a_line_of_its_own_kind_not_only_its_own_colour():
    ax = plots.losses([run(name) for name in "abcdefg"])
    kinds = [(line.get_linestyle(), line.get_marker(), line.get_color()) for line in ax.lines]
    assert len({marker for _, marker, _ in kinds}) == len({colour for *_, colour in kinds}) == 7
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list("abcdefg")


def test_a_loss_curve_is_the_mean_of_the_last_steps():
    ax = plots.losses([run("short", losses=[4.0, 2.0, 0.0, 1.0])], window=2)
    assert ax.lines[0].get_ydata().tolist() == [4.0, 3.0, 1.0, 0.5]


def test_bars_carry_their_numbers_intervals_and_the_guess():
    values = {"head": 0.763, "full": 0.83}
    ax = plots.bars(values, intervals={"full": (0.80, 0.85)}, chance=1 / 12)
    assert [bar.get_width() for bar in ax.patches] == [0.763, 0.83]
    assert {"0.763", "0.830", "guessing"} <= {text.get_text() for text in ax.texts}
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first on top
    with pytest.raises(PeftLabError, match="no values for: lora"):
        plots.bars(values, intervals={"lora": (0, 1)})


def test_figures_are_small_and_white():
    for ax in (plots.losses([run("a"), run("b")]), plots.bars({"a": 0.5}, chance=0.1)):
        assert len(png(ax)) < 60_000
        assert to_rgb(ax.figure.get_facecolor()) == (1, 1, 1)


def test_neighbouring_lines_differ_in_brightness_too():
    def brightness(colour: str) -> float:
        red, green, blue = to_rgb(colour)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    lines = [brightness(colour) for colour in palette.LINES]
    assert max(lines) < 0.75  # visible on white
    assert len(palette.LINES) == len(palette.MARKERS) == len(palette.DASHES) == len(set(lines))


def test_a_table_is_text_and_html():
    table = plots.table([{"model": "a<b", "n": 1234}, {"model": "c", "n": None}], "Two & more")
    assert repr(table).splitlines() == [
        "Two & more",
        "model      n",
        "-----  -----",
        "a<b    1,234",
        "c          -",
    ]
    page = table._repr_html_()
    assert "a&lt;b" in page and "Two &amp; more" in page and "a<b" not in page
    assert page.count("<tr>") == 3


def test_a_table_of_runs_tells_shares_and_results():
    text = repr(plots.runs([run("head", evaluations=[(90, 0.7633, 0.8)]), run("other")]))
    assert "4,620" in text and "0.020" in text and "0.763" in text


def test_uneven_rows_and_empty_input_are_refused():
    with pytest.raises(PeftLabError, match="rows differ"):
        plots.table([{"a": 1}, {"b": 1}])
    with pytest.raises(PeftLabError, match="at least one row"):
        plots.table([])
    with pytest.raises(PeftLabError, match="no run"):
        plots.losses([])
