"""Bridge B2, module surgery: the exercises, their solutions, and the wrong answers that people give."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from peftlab.course.exercise import Exercise, Mutant

# ---- 1: borrow a place by its dotted name -------------------------------------------------------------------------


def output_with(model: nn.Module, name: str, new: nn.Module, x: torch.Tensor) -> torch.Tensor:
    parent_name, _, last = name.rpartition(".")
    parent = model.get_submodule(parent_name)  # "" is the model itself
    old = getattr(parent, last)
    setattr(parent, last, new)
    y = model(x)
    setattr(parent, last, old)
    return y


class _Toy(nn.Sequential):
    """Equal to another one with the same modules and values in the same places.

    So the checker, which compares what it gave with what it gets back, sees whether everything stands where it stood.
    """

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Toy):
            return False
        mine, theirs = dict(self.named_parameters()), dict(other.named_parameters())
        return (
            [(name, type(m)) for name, m in self.named_modules()]
            == [(name, type(m)) for name, m in other.named_modules()]
            and mine.keys() == theirs.keys()
            and all(torch.equal(mine[name], theirs[name]) for name in mine)
        )

    __hash__ = nn.Module.__hash__


class _Layer(nn.Linear):
    """A linear layer with seeded values; equal to another one with the same values."""

    def __init__(self, seed: int) -> None:
        super().__init__(4, 4)
        g = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=g)
            parameter.requires_grad_(False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Layer) and torch.equal(self.weight, other.weight)

    __hash__ = nn.Module.__hash__


def _toy() -> _Toy:
    """Three levels deep, and 4 wide everywhere, so that a module in the wrong place still runs."""
    inner = nn.Sequential(_Layer(1), nn.Tanh(), _Layer(2))
    return _Toy(_Layer(0), nn.Sequential(nn.Tanh(), inner), _Layer(3))


def _borrow_cases() -> list[tuple]:
    """A place three levels down, one at the top, and one where the new layer equals the old one."""
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(7))
    return [(_toy(), "1.1.0", _Layer(11), x), (_toy(), "2", _Layer(12), x), (_toy(), "1.1.2", _Layer(2), x)]


def _borrow_not_put_back(model: nn.Module, name: str, new: nn.Module, x: Tensor) -> Tensor:
    parent_name, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent_name), last, new)
    return model(x)


def _borrow_dotted_setattr(model: nn.Module, name: str, new: nn.Module, x: Tensor) -> Tensor:
    old = model.get_submodule(name)
    setattr(model, name, new)
    y = model(x)
    setattr(model, name, old)
    return y


def _borrow_variable(model: nn.Module, name: str, new: nn.Module, x: Tensor) -> Tensor:
    module = model.get_submodule(name)
    module = new  # noqa: F841
    return model(x)


def _borrow_last_part_only(model: nn.Module, name: str, new: nn.Module, x: Tensor) -> Tensor:
    return output_with(model, name.rpartition(".")[2], new, x)


def _borrow_new_alone(model: nn.Module, name: str, new: nn.Module, x: Tensor) -> Tensor:
    return new(x)


# ---- 2: why does nothing train? -----------------------------------------------------------------------------------

CAUSES = {"A": 2, "B": 1, "C": 4}

EXERCISES = [
    Exercise(
        key="B2.output_with",
        title="output_with",
        minutes=4,
        solution=output_with,
        cases=_borrow_cases,
        tolerance=1e-5,
        hints=(
            'Split the name at its last dot: "1.1.0".rpartition(".") gives ("1.1", ".", "0"). What stands before the '
            "dot is the parent's name; after it, the child's.",
            "model.get_submodule(parent_name) finds the parent, also for an empty name. Then "
            "getattr(parent, last) is what stands there, and setattr(parent, last, new) puts something else there.",
            "Keep the old module, set the new one, run the model, set the old one again, return the output.",
        ),
        mutants=(
            Mutant(
                _borrow_not_put_back,
                "The output is right, but `new` still stands there. Put the old module back before you return.",
            ),
            Mutant(
                _borrow_variable,
                "That is the output without `new`: the model still holds the old module. A variable of yours is only "
                "another name for it; use setattr on the parent.",
            ),
            Mutant(
                _borrow_dotted_setattr,
                "setattr takes a dotted name as one word: the model got a new child, and the old module stayed in "
                "its place. Find the parent first, and set the last part there.",
            ),
            Mutant(
                _borrow_last_part_only,
                "You set the last part of the name on the whole model, and hit another module. Set it on the parent.",
            ),
            Mutant(_borrow_new_alone, "That runs `new` alone. The whole model is to run, with `new` in its place."),
        ),
    ),
    Exercise(
        key="B2.why",
        title="three patients",
        minutes=5,
        solution=CAUSES,
        hints=(
            "Read the order of the lines. When is each parameter made, when is it frozen, when is it handed to the "
            "optimiser?",
            "An optimiser knows the parameters that it was given when it was made. requires_grad_(False) freezes "
            "what is inside the model at that moment. And which object do you train?",
        ),
        mutants=(
            Mutant(
                {"A": 1, "B": 2, "C": 4},
                "C is right. A and B are the other way round: in A the freezing comes last, in B the optimiser "
                "comes too early.",
            ),
            Mutant(
                {"A": 2, "B": 1, "C": 3},
                "A and B are right. In C the path is a proper child of the layer; but of which model?",
            ),
            Mutant(
                {"A": 2, "B": 4, "C": 1},
                "A is right. In B there is one model only. Which parameters had the optimiser seen?",
            ),
            Mutant(
                {"A": 3, "B": 1, "C": 4},
                "B and C are right. No lists in A: the mended Plus registers its path. Look at the order of the lines.",
            ),
            Mutant(
                {"A": 4, "B": 2, "C": 1},
                "None of the three yet. Read each patient from the top and note what exists at every line.",
            ),
            Mutant(
                {"A": 1, "B": 1, "C": 4},
                "B and C are right. In A the optimiser is made last, so it knows the path. What happened to the path "
                "before that?",
            ),
            Mutant(
                {"A": 2, "B": 2, "C": 4},
                "A and C are right. In B nothing is frozen after the path is in. What comes before it?",
            ),
            Mutant(
                {"A": 2, "B": 1, "C": 1},
                "A and B are right. In C the optimiser is made last, and it is given the path too. Which of the two "
                "models runs and trains?",
            ),
            Mutant({"A": "2", "B": "1", "C": "4"}, "Right, but without the quotes: the numbers 1 to 4."),
        ),
        shown="""
        {"A": 2, "B": 1, "C": 4}
        # A: requires_grad_(False) comes after the path is there, and freezes it too.
        # B: the optimiser was made before the path, so it does not know it.
        # C: the path sits in a deep copy; the model that trains has none.
        """,
    ),
]
