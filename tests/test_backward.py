"""Bridge B4's counting on models so small that the bytes and FLOPs can be worked out by hand, and its figure."""

from __future__ import annotations

from types import SimpleNamespace

import matplotlib
import pytest
import torch
from torch import Tensor, nn

matplotlib.use("Agg")

from peftlab.course import backward
from peftlab.course.exercise import exercise, judge
from peftlab.errors import PeftLabError
from peftlab.show import backward_figures

ROWS, FLOAT = 7, 4


class Net(nn.Module):
    """3 → 5 → SiLU → 2 with a loss, as transformers has it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.bend, self.last = nn.Linear(3, 5), nn.SiLU(), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> SimpleNamespace:
        return SimpleNamespace(loss=self.last(self.bend(self.first(x))).sum())


def batch() -> dict[str, Tensor]:
    return {"x": torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(0))}


def test_kept_is_what_each_layer_needs():
    net = Net()
    kept = backward.kept_by_module(net, batch())
    assert kept == {"first": ROWS * 3 * FLOAT, "bend": ROWS * 5 * FLOAT, "last": ROWS * 5 * FLOAT}
    net.last.requires_grad_(False)  # hands its gradient down without its input; what bends keeps its own
    assert backward.kept_by_module(net, batch()) == {"first": ROWS * 3 * FLOAT, "bend": ROWS * 5 * FLOAT}
    net.requires_grad_(False).last.requires_grad_(True)  # below the lowest trained layer nothing is kept
    assert backward.kept_by_module(net, batch()) == {"last": ROWS * 5 * FLOAT}


def test_a_step_counts_bytes_and_flops_and_moves_nothing():
    net = Net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = backward.step(net, batch())
    numbers = 3 * 5 + 5 + 5 * 2 + 2
    assert found.memory == {
        backward.WEIGHTS: numbers * FLOAT,
        backward.GRADIENTS: numbers * FLOAT,
        backward.ADAM: 2 * numbers * FLOAT,
        backward.KEPT: ROWS * (3 + 5 + 5) * FLOAT,
    }
    first, last = 2 * ROWS * 3 * 5, 2 * ROWS * 5 * 2
    assert found.forward == first + last
    assert found.backward == first + 2 * last  # nobody asks for the gradient of the input
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_training_says_which_tensors_have_no_gradient():
    net = Net()
    net.bend.unused = nn.Parameter(torch.zeros(1))
    went = backward.train(net, batch(), steps=3, lr=0.01)
    assert went.losses[-1] < went.losses[0] and (went.with_gradient, went.trained) == (4, 5)
    assert "4 of 5 trained tensors" in str(went) and not went.warnings


def test_nothing_to_train_and_no_such_block_are_said():
    frozen = Net().requires_grad_(False)
    for call in (backward.step, backward.train):
        with pytest.raises(PeftLabError, match="Nothing trains"):
            call(frozen, batch())
    with pytest.raises(PeftLabError, match="no block layers.3"):
        backward.kept_by_part(Net(), batch(), 3)


def test_the_figure_has_every_part_and_total():
    bars = {"all": {"a": 2_000_000, "b": 1_000_000}, "few": {"a": 500_000, "b": 0}}
    ax = backward_figures.stacked(bars)
    assert [patch.get_width() for patch in ax.patches] == [2.0, 1.0, 0.5, 0.0]
    assert [text.get_text() for text in ax.texts] == ["3 MB", "0 MB"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    matplotlib.pyplot.close(ax.figure)


@pytest.mark.parametrize(
    ("bars", "says"),
    [
        ({}, "no bar"),
        ({"all": {"a": 1}, "few": {"b": 1}}, "same parts"),
        ({"all": dict.fromkeys("abcde", 1)}, "At most 4 parts"),
    ],
)
def test_what_cannot_be_drawn_is_said(bars, says):
    with pytest.raises(PeftLabError, match=says):
        backward_figures.stacked(bars)


def test_other_right_ways_pass():
    """The backward pass by einsum; AdamW in PyTorch's own order, the decay first."""

    def by_einsum(x, W, g):
        dx = torch.einsum("...o,oi->...i", g, W)
        return dx, torch.einsum("...o,...i->oi", g, x), torch.einsum("...o->o", g)

    def decay_first(w, g, m, v, t, lr, decay):
        w = w * (1 - lr * decay)
        m, v = torch.lerp(m, g, 0.1), 0.999 * v + 0.001 * g * g
        denominator = v.sqrt() / (1 - 0.999**t) ** 0.5 + 1e-8
        return [w - lr / (1 - 0.9**t) * m / denominator, m, v]

    assert judge(exercise("B4.linear_backward"), by_einsum).ok
    assert judge(exercise("B4.adamw_step"), decay_first).ok
