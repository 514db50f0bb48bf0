"""The bridges' figures: what they write into the boxes is what the models have; spectra of matrices that are known."""

from __future__ import annotations

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

from peftlab.errors import PeftLabError
from peftlab.show import bridge_figures
from peftlab.tasks import models


def drawn(box: bridge_figures.Box) -> tuple[int, ...]:
    return tuple(int(number) for number in box.shape.split(" × "))


@pytest.mark.parametrize(("name", "boxes"), [("minilm", bridge_figures.MINILM), ("smollm2", bridge_figures.SMOLLM2)])
def test_the_drawn_blocks_are_the_models(name, boxes):
    """Every weight of the first block is drawn, under the end of its name, with its shape; and nothing else is."""
    model, _ = models.load(name, dtype=torch.bfloat16)
    block = model.encoder.layer[0] if name == "minilm" else model.model.layers[0]
    shapes = {n.removesuffix(".weight"): tuple(p.shape) for n, p in block.named_parameters() if n.endswith("weight")}
    found = {}
    for box in boxes:
        ends = [n for n in shapes if n == box.name] or [n for n in shapes if n.endswith(f".{box.name}")]
        assert len(ends) == 1, box.name
        found[ends[0]] = drawn(box)
    assert found == shapes


def test_both_blocks_are_drawn_in_one_figure():
    bridge_figures.two_blocks()
    figure = matplotlib.pyplot.gcf()
    written = {text.get_text() for ax in figure.axes for text in ax.texts}
    assert {box.name for box in (*bridge_figures.MINILM, *bridge_figures.SMOLLM2)} <= written
    matplotlib.pyplot.close(figure)


def test_energy_of_known_matrices():
    assert torch.allclose(bridge_figures.energy(torch.diag(torch.tensor([1.0, 2.0]))), torch.tensor([0.8, 1.0]))
    low = torch.outer(torch.arange(1.0, 5), torch.arange(1.0, 8))  # rank one: all of it at once
    assert torch.allclose(bridge_figures.energy(low), torch.ones(4))


def test_curves_begin_at_zero_and_end_at_all():
    ax = bridge_figures.energies({"noise": torch.randn(6, 9, generator=torch.Generator().manual_seed(0))})
    (curve, _) = ax.lines
    x, y = curve.get_data()
    assert list(x) == list(range(7)) and y[0] == 0 and y[-1] == pytest.approx(1)
    assert list(y) == sorted(y)
    matplotlib.pyplot.close(ax.figure)


def test_nothing_to_draw_is_said():
    with pytest.raises(PeftLabError, match="no matrix"):
        bridge_figures.energies({})
