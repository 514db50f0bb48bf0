"""Measure memory on a processor: the peak of the bytes that live tensors hold, and of resident memory beside it.

    with LiveBytes(model, optimizer) as live:
        model(**batch).loss.backward()
        optimizer.step()
    live.peak, live.now        # bytes

Python's memory, the interpreter's libraries and what an operator uses inside itself (a matrix product's buffers) do
not count: on a GPU the allocator's peak would see the last of these, here only resident memory does. Tensors on the
meta device count as if they were real, so a model that no machine here could hold can be asked too.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class LiveBytes(TorchDispatchMode):
    """Counts each storage once, from the operator that makes it until nothing refers to it any more.

    What autograd keeps for the backward pass refers to its storage too, so saved activations count until they are
    released. Tensors made before are counted if they belong to one of `owners` (modules, optimisers, tensors).
    """

    def __init__(self, *owners: nn.Module | torch.optim.Optimizer | Tensor) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}  # id of the storage's Python object -> bytes
        self._watchers: dict[int, weakref.ref] = {}
        for tensor in _tensors_of(owners):
            self._see(tensor)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in _tensors_in(result):
            self._see(tensor)
        return result

    def reset_peak(self) -> None:
        self.peak = self.now

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        known = self._sizes.get(key)
        if known == size:
            return
        if known is None:
            self._watchers[key] = weakref.ref(storage, lambda _, key=key: self._forget(key))
        self._sizes[key] = size  # an operator may have resized a storage that we know
        self.now += size - (known or 0)
        self.peak = max(self.peak, self.now)

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key)
        del self._watchers[key]


def _tensors_in(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, tuple | list):
        for part in result:
            yield from _tensors_in(part)


def _tensors_of(owners: Iterable[Any]) -> Iterator[Tensor]:
    for owner in owners:
        if isinstance(owner, Tensor):
            yield owner
        elif isinstance(owner, nn.Module):
            for tensor in (*owner.parameters(), *owner.buffers()):
                yield tensor
                if tensor.grad is not None:
                    yield tensor.grad
        elif isinstance(owner, torch.optim.Optimizer):
            for state in owner.state.values():
                yield from (value for value in state.values() if isinstance(value, Tensor))
        else:
            raise TypeError(f"LiveBytes counts modules, optimisers and tensors, not {type(owner).__name__}")


def resident_peak() -> int | None:
    """Peak resident memory of this process in bytes, or None on Windows. It never falls: ask a fresh process."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
