"""What happens in a forward pass: the onion of adapters around a layer, the active set, mixed batches.

A wrapped layer computes its active adapters as an onion. Each adapter receives the next layer in as `inner`, so its
`forward` reads like the formula in its paper. The innermost layer is the pretrained one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from peftlab.errors import PeftLabError

BASE = "__base__"  # in `adapter_names`: this row gets the base model, as in peft


class Uncopied:
    """Holds a value that belongs to one model alone: a deep copy of the model starts without it."""

    def __init__(self) -> None:
        self.value: Any = None

    def __deepcopy__(self, memo: dict) -> Uncopied:
        return Uncopied()


@dataclass
class State:
    """Shared by a model's wrappers: which adapters are on, and which row of the batch goes to which adapter."""

    active: tuple[str, ...] = ()
    rows: tuple[str, ...] | None = None
    disabled: bool = False


class Adapted(nn.Module):
    """A pretrained layer (`base`) and the adapters around it, by name."""

    def __init__(self, base: nn.Module, state: State) -> None:
        super().__init__()
        self.base = base
        self.adapters = nn.ModuleDict()
        self.state = state
        self.training = base.training
        self.plain = Uncopied()  # not a submodule: it must not show up among the parameters

    @property
    def folded(self) -> nn.Module | None:
        """The plain layer, with the active adapters merged in, that answers at the moment; or None."""
        return self.plain.value

    def fold(self, plain: nn.Module | None) -> None:
        """Answer with `plain`, which has the active adapters merged in, until called with None."""
        self.plain.value = plain

    def onion(self, names: Sequence[str]) -> Callable[..., Any]:
        """The layer with the named adapters around it; the first name is the innermost adapter."""
        layer: Callable[..., Any] = self.base
        for name in names:
            if self.takes_part(name):
                layer = partial(self.adapters[name], layer)
        return layer

    def takes_part(self, name: str) -> bool:
        """True if this layer has an adapter of that name, and it is not dropped."""
        return name in self.adapters and not self.adapters[name].dropped

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.state.disabled:
            return self.base(*args, **kwargs)
        if self.state.rows is not None and any(name in self.adapters for name in self.state.rows):
            return self.mixed(self.state.rows, *args, **kwargs)
        if self.state.rows is not None:
            return self.base(*args, **kwargs)
        if self.folded is not None:
            return self.folded(*args, **kwargs)
        return self.onion(self.state.active)(*args, **kwargs)

    def mixed(self, rows: Sequence[str], *args: Any, **kwargs: Any) -> Tensor:
        """Send each row of the batch through its own adapter, and put the outputs back in order."""

        def take(value: Any, index: Tensor) -> Any:
            is_batch = isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == len(rows)
            return value[index] if is_batch else value

        first = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        if first.shape[0] != len(rows):
            raise wrong_number_of_names(len(rows), f"a layer sees a batch of {first.shape[0]}")
        here = [name for name in dict.fromkeys(rows) if self.takes_part(name)]
        if all(self.adapters[name].acts_on_output for name in here):
            return self.mixed_after(self.base(*args, **kwargs), rows, here)
        outputs, order = [], []
        for name in dict.fromkeys(rows):
            index = torch.tensor([i for i, row in enumerate(rows) if row == name], device=first.device)
            layer = self.onion(() if name == BASE else (name,))
            inputs = [take(value, index) for value in args]
            outputs.append(layer(*inputs, **{key: take(value, index) for key, value in kwargs.items()}))
            order.append(index)
        back = torch.argsort(torch.cat(order))
        return torch.cat(outputs)[back]

    def mixed_after(self, output: Tensor, rows: Sequence[str], names: Sequence[str]) -> Tensor:
        """Give each row of the layer's output to its own adapter. A whole block with a key-value cache needs this."""
        for name in names:
            index = torch.tensor([i for i, row in enumerate(rows) if row == name], device=output.device)
            output = output.index_copy(0, index, self.adapters[name].after(output[index]))
        return output

    def __getattr__(self, name: str) -> Any:
        """Other code may read `layer.weight` or `layer.in_features`: it gets the pretrained layer's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)


def wrong_number_of_names(names: int, what_is_there: str) -> PeftLabError:
    return PeftLabError(
        f"adapter_names has {names} entries but {what_is_there}; give one name for each row of the batch"
    )


class Runtime(nn.Module):
    """Lives at `model.peftlab`: the attached methods, their shared tensors, the state of the forward pass."""

    def __init__(self, was_trainable: dict[str, bool]) -> None:
        super().__init__()
        self.methods: dict[str, Any] = {}
        self.trainable: dict[str, bool] = {}
        self.shared = nn.ModuleDict()
        self.state = State()
        self.was_trainable = was_trainable
        self.pinned: tuple[str, ...] | None = None
        self.pinned_tasks: Tensor | None = None

    def forward(self, x: Any) -> Any:
        """The identity: an nn.Sequential runs all its children, and this is now one of them."""
        return x

    def before_forward(self, model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Pre-hook of the whole model: take `adapter_names` and `task_ids` off, let prompts act on the inputs.

        Under gradients the routing stays until the next call, because checkpointing runs layers again in the backward.
        """
        from peftlab import hosts

        names = kwargs.pop("adapter_names", None)
        tasks = kwargs.pop("task_ids", self.pinned_tasks) if self.takes_task_ids else None
        rows = self.pinned if names is None else self.check_rows(names)
        if rows is not None:
            batch = hosts.batch_size(model, args, kwargs)
            if batch is not None and batch != len(rows):
                raise wrong_number_of_names(len(rows), f"the batch has {batch} rows")
        shared = self.active_shared(rows)
        if shared and not self.state.disabled and rows is not None:
            raise PeftLabError(
                "prompts and prefixes belong to the whole batch: a batch cannot be mixed while "
                f"{', '.join(self.state.active)} is active"
            )
        self.state.rows = rows
        if shared and not self.state.disabled:
            kwargs = hosts.by_name(model, args, kwargs)
            # Prompts before prefixes, whatever their order: the prefix has the first positions, then come the prompts.
            for part in sorted(shared, key=lambda part: part.on_attention is not None):
                kwargs = part.on_inputs({**kwargs, "task_ids": tasks} if part.takes_task_ids else kwargs)
            return (), kwargs
        return args, kwargs

    def after_forward(self, model: nn.Module, args: tuple, output: Any) -> None:
        """Forget the routing, unless a backward pass may run layers again: a part of the model can be called alone."""
        if not torch.is_grad_enabled():
            self.state.rows = None

    @property
    def takes_task_ids(self) -> bool:
        """True if a method is attached that chooses by task."""
        return any(part.takes_task_ids for part in self.shared.values())

    def active_shared(self, rows: Sequence[str] | None) -> list[nn.Module]:
        """The active adapters' shared parts that act on the model's inputs or attention."""
        if rows is not None and set(rows) == {BASE}:
            return []
        parts = [self.shared[name] for name in self.state.active if name in self.shared]
        return [part for part in parts if part.has_seat]

    def check_rows(self, names: Sequence[str]) -> tuple[str, ...]:
        if isinstance(names, str):
            raise PeftLabError(f"adapter_names={names!r} is one string; give a list with one name for each row")
        unknown = sorted({str(name) for name in names if name != BASE and name not in self.methods})
        if unknown:
            raise PeftLabError(
                f"adapter_names asks for {', '.join(unknown)}, but attached are: {', '.join(self.methods)} "
                f"({BASE!r} means the base model)"
            )
        seated = [name for name in set(names) if name in self.shared and self.shared[name].has_seat]
        if seated:
            raise PeftLabError(
                f"{seated[0]!r} changes the inputs or the attention of the whole model, so it cannot be one of "
                "several adapters in a batch; peft does not allow this either"
            )
        unmixable = [name for name in set(names) if name in self.methods and not self.methods[name].mixable]
        if unmixable and set(names) != {BASE}:
            raise PeftLabError(
                f"{unmixable[0]!r} is {type(self.methods[unmixable[0]]).__name__}, which goes around whole attention "
                "layers with one cache for all rows, so a batch cannot be mixed with it; nor can it in peft"
            )
        return tuple(names)

    @contextmanager
    def pin(self, names: Sequence[str] | None, tasks: Tensor | None = None) -> Iterator[None]:
        """Keep one routing, and one choice of tasks, for every forward pass inside (generation makes many)."""
        self.pinned = None if names is None else self.check_rows(names)
        self.pinned_tasks = tasks
        try:
            yield
        finally:
            self.pinned = self.pinned_tasks = None
