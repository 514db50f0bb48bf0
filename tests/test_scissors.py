"""The cuts of lesson 06, on matrices small enough to check by hand, and the stored-results machinery around them."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from peftlab.bench import results, step_time
from peftlab.course import scissors
from peftlab.errors import PeftLabError


class Encoder(nn.Module):
    """Two blocks with the names that MiniLM has, and a head that is not to be cut."""

    def __init__(self):
        super().__init__()
        self.layer = nn.ModuleList(nn.ModuleDict({"query": nn.Linear(6, 9), "dense": nn.Linear(9, 6)}) for _ in "ab")
        self.encoder = nn.Module()
        self.encoder.layer = self.layer
        del self.layer
        self.classifier = nn.Linear(6, 3)


@pytest.fixture
def pair():
    torch.manual_seed(0)
    before = Encoder()
    after = copy.deepcopy(before)
    for parameter in after.parameters():
        parameter.data += torch.randn_like(parameter)
    return before, after


def test_only_the_matrices_of_the_blocks_are_cut(pair):
    names = scissors.encoder_matrices(pair[0])
    assert len(names) == 4
    assert all(".layer." in name and name.endswith(".weight") for name in names)


def test_top_r_is_the_best_approximation(pair):
    before, after = pair
    for name, change in scissors.weight_changes(before, after).items():
        dW = after.get_parameter(name) - before.get_parameter(name)
        kept = scissors.top(2)(change)
        assert torch.linalg.matrix_rank(kept) == 2
        assert (dW - kept).norm() <= (dW - scissors.drawn(2, seed=1)(change)).norm() + 1e-6
        torch.testing.assert_close(kept + scissors.without_top(2)(change), dW)


def test_energies_are_what_the_names_say(pair):
    for change in scissors.weight_changes(*pair).values():
        whole = change.S.square().sum()
        share = change.energy(2)
        assert scissors.top(2)(change).square().sum() / whole == pytest.approx(share, rel=1e-4)
        assert scissors.scaled_to_energy_of_top(2)(change).square().sum() / whole == pytest.approx(share, rel=1e-4)
        assert scissors.drawn_to_energy_of_top(2, seed=3)(change).square().sum() / whole <= share + 1e-4


def test_every_matrix_gets_a_draw_of_its_own(pair):
    change = next(iter(scissors.weight_changes(*pair).values()))
    keep = scissors.drawn(3, seed=0)
    assert not all(torch.equal(keep(change), keep(change)) for _ in range(3))


def test_the_trained_weights_come_back_even_after_an_error(pair):
    before, after = pair
    changes = scissors.weight_changes(before, after)
    trained = copy.deepcopy(after.state_dict())
    with pytest.raises(ZeroDivisionError), scissors.only(after, changes, scissors.top(0)):
        for name in changes:
            assert torch.equal(after.get_parameter(name), before.get_parameter(name))
        assert torch.equal(after.classifier.weight, trained["classifier.weight"])
        raise ZeroDivisionError
    assert all(torch.equal(after.state_dict()[name], tensor) for name, tensor in trained.items())


def test_two_different_models_are_refused(pair):
    with pytest.raises(PeftLabError, match="same encoder matrices"):
        scissors.weight_changes(pair[0], nn.Linear(2, 2))


@pytest.fixture
def stored(tmp_path, monkeypatch):
    monkeypatch.setattr(results.Results, "folder", classmethod(lambda cls: tmp_path))
    return tmp_path / "demo.json"


def test_a_measurement_goes_on_where_it_was_cut_short(stored, capsys):
    first = results.Results.open("demo")
    first.settings(steps=3)
    first.cell("a", lambda: 1)
    again = results.Results.open("demo")
    again.settings(steps=3)
    assert again.cell("a", lambda: pytest.fail("measured twice")) == 1
    assert again.cell("b", lambda: 2) == 2
    assert json.loads(stored.read_text())["cells"] == {"a": 1, "b": 2}
    assert results.Results.open("demo", fresh=True).content["cells"] == {}


def test_other_settings_do_not_mix(stored):
    results.Results.open("demo").settings(steps=3)
    with pytest.raises(PeftLabError, match="--fresh"):
        results.Results.open("demo").settings(steps=4)


def test_results_that_do_not_exist_say_what_to_run(stored):
    with pytest.raises(PeftLabError, match="peftlab.bench demo"):
        results.Results.load("demo")


def test_a_timed_step_changes_no_weight():
    class Tiny(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, x):
            return type("Output", (), {"loss": self.layer(x).square().mean()})

    model = Tiny()
    before = copy.deepcopy(model.state_dict())
    seconds = step_time.side_by_side({"a": step_time.step(model, {"x": torch.ones(2, 3)})}, repeats=3)
    assert seconds["a"] > 0
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
