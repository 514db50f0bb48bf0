r"""What the sparse methods share: a few entries of a model's parameters change, all others stay.

$$\theta' = \theta + m \odot \delta, \qquad m \in \{0, 1\}^{N}$$

Only the chosen entries of $\delta$ are kept: their values, which train, and their places, which do not. The change lies
beside the frozen parameter and is added in every forward pass, so taking it out leaves the model exactly as it was.

Scattered entries make a small file, and they save optimiser states. They make no step cheaper: autograd works out the
gradient of the whole matrix first and then picks the few entries out of it.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from peftlab import surgery
from peftlab.errors import CheckpointError, ConfigError, PeftLabError
from peftlab.methods.base import Adapter, Delta, Method, Shared, not_in_file
from peftlab.surgery import Site
from peftlab.targeting import resolve_targets


class SparseDelta(Delta):
    """m ⊙ δ for one or several parameters of a layer: for each `own`, `own_values` (k) and flat `own_indices` (k)."""

    def __init__(self, site: Site, places: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> None:
        super().__init__(site)
        self.names = tuple(places)
        for own, flat in places.items():
            values = start[own].flatten()[flat.to(start[own].device).long()]
            self.register_parameter(f"{own}_values", nn.Parameter(values.detach().clone()))
            self.register_buffer(f"{own}_indices", flat.to(index_type(site.module._parameters[own])))

    def changed(self, own: str, tensor: Tensor) -> Tensor:
        values, places = getattr(self, f"{own}_values"), getattr(self, f"{own}_indices")
        return added_at(tensor, places.long(), values)

    def after_loading(self) -> None:
        for own in self.names:
            check_places(self.site, getattr(self, f"{own}_indices"), self.site.module._parameters[own].numel())


def added_at(tensor: Tensor, flat: Tensor, values: Tensor) -> Tensor:
    """θ + m ⊙ δ: `values` (k) added at the flat places (k) of `tensor`."""
    return tensor.reshape(-1).scatter_add(0, flat, values.to(tensor.dtype)).view(tensor.shape)


def index_type(parameter: Tensor) -> torch.dtype:
    """int32 while a tensor has less than 2³¹ entries: half the bytes of int64."""
    return torch.int32 if parameter.numel() < 2**31 else torch.int64


def check_places(site: Site, flat: Tensor, size: int) -> None:
    """Raise CheckpointError unless the flat places lie in a tensor of `size` entries, each at most once."""
    if flat.numel() and (int(flat.min()) < 0 or int(flat.max()) >= size):
        raise CheckpointError(
            f"the file's indices for {site.name} reach outside its {size:,} entries; it belongs to another model"
        )
    if flat.unique().numel() < flat.numel():
        raise CheckpointError(f"the file names some entries of {site.name} twice; it is damaged: copy it again")


# ---- choosing entries ---------------------------------------------------------------------------------------------


def candidates(model: nn.Module, left_out: tuple[str, ...] = ()) -> dict[str, nn.Parameter]:
    """The parameters, by full name, that a mask may choose from.

    Not those of the model's own root, not quantised ones, and none that two modules share (tied embeddings): a change
    of one side only would part them. left_out: modules that are left out, with all inside them.
    """
    modules = surgery.base_modules(model)
    holders: dict[int, int] = {}
    for module in modules.values():
        for parameter in module._parameters.values():
            holders[id(parameter)] = holders.get(id(parameter), 0) + 1
    return {
        f"{name}.{own}": parameter
        for name, module in modules.items()
        if name and not any(name == out or name.startswith(f"{out}.") for out in left_out)
        for own, parameter in module._parameters.items()
        if parameter is not None and parameter.is_floating_point() and holders[id(parameter)] == 1
    }


def top_k(scores: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    """Flat places of the k largest scores among all tensors together, by the tensors' names, in ascending order.

    Raises ConfigError unless 0 < k <= the number of scores and all of them are finite.
    """
    total = sum(tensor.numel() for tensor in scores.values())
    if not 0 < k <= total:
        raise ConfigError(f"{k:,} of {total:,} entries cannot be chosen; choose a share above 0 and at most 1")
    joined = torch.cat([tensor.detach().flatten().float().cpu() for tensor in scores.values()])
    if not torch.isfinite(joined).all():
        raise ConfigError("some scores are not finite: was the loss, on the examples that they come from?")
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[torch.topk(joined, k).indices] = True
    parts = chosen.split([tensor.numel() for tensor in scores.values()])
    return {name: part.nonzero().flatten() for name, part in zip(scores, parts, strict=True) if part.any()}


@dataclass(frozen=True, kw_only=True)
class SparseMethod(Method):
    """Methods that train a fixed share of all entries, wherever in the model these lie.

    keep_ratio: the share. target_modules: choose inside these modules only; None: anywhere (see `candidates`).
    scores: what the entries are ranked by, a tensor for each parameter, by its full name; or, to compare with,
    "magnitude" (|θ|) or "random". start: values of δ to start from, by name; None: zero.
    mask: the places themselves, flat, by name, instead of scores. None of these three is in the config: what counts of
    them, places and values, is in the file of tensors.
    """

    keep_ratio: float = 0.005
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    random_seed: int = 0
    scores: Mapping[str, Tensor] | str | None = not_in_file(default=None)
    start: Mapping[str, Tensor] | None = not_in_file(default=None)
    mask: Mapping[str, Tensor] | None = not_in_file(default=None)

    default_targets: ClassVar[Mapping[str, object]] = {}
    wanted: ClassVar[str] = "scores"  # what to give, in the words of the error if it is missing

    def __post_init__(self) -> None:
        name, ratio = type(self).__name__, self.keep_ratio
        if not isinstance(ratio, int | float) or isinstance(ratio, bool) or not 0 < ratio <= 1:
            raise ConfigError(f"{name}(keep_ratio={ratio!r}): keep_ratio is a share, above 0 and at most 1 (0.005)")
        if isinstance(self.scores, str) and self.scores not in ("random", "magnitude"):
            raise ConfigError(
                f"{name}(scores={self.scores!r}): give scores by name of parameter, 'random' or 'magnitude'"
            )
        if not isinstance(self.random_seed, int) or isinstance(self.random_seed, bool):
            raise ConfigError(f"{name}(random_seed={self.random_seed!r}): give a whole number")
        for label, given in (("scores", self.scores), ("start", self.start), ("mask", self.mask)):
            tensors = isinstance(given, Mapping) and all(isinstance(t, Tensor) for t in given.values())
            if given is not None and not tensors and not (label == "scores" and isinstance(given, str)):
                raise ConfigError(f"{name}({label}=…): give a dict of tensors by name of parameter")

    def for_file(self, tensors: Mapping[str, Tensor]) -> Method:
        """The file's indices are the mask."""
        found = {}
        for key, tensor in tensors.items():
            path, _, tail = key.removeprefix(self.file_prefix).rpartition(".")
            if tail.endswith("_indices"):
                found[f"{path}.{tail.removesuffix('_indices')}"] = tensor.flatten()
        if not found:
            raise CheckpointError(f"the file holds no indices, so it is no {type(self).__name__} with a chosen mask")
        return dataclasses.replace(self, mask=found, scores=None, start=None)

    def prepare(self, model: nn.Module) -> Method:
        """Choose the mask, unless there is one."""
        prepared = super().prepare(model)
        if self.mask is not None:
            self._check_mask(model)
            return prepared
        pool = prepared.pool(model)
        if any(parameter.is_meta for parameter in pool.values()):
            return prepared  # shapes only: nothing to rank, but k is known
        mask = top_k(prepared.ranked(model, pool), prepared.number(pool))
        return dataclasses.replace(prepared, mask=mask, scores=None)

    def _check_mask(self, model: nn.Module) -> None:
        allowed = candidates(model)
        for name, flat in self.mask.items():
            size = self._parameter(model, name).numel()
            if name not in allowed:
                raise ConfigError(
                    f"mask[{name!r}]: this parameter is quantised, tied to another or outside of any module"
                )
            inside = flat.numel() and int(flat.min()) >= 0 and int(flat.max()) < size
            if not inside or flat.unique().numel() < flat.numel():
                raise ConfigError(
                    f"the places in {name} must lie from 0 to {size - 1}, each once; sparse.top_k makes such a mask, "
                    "and a file with other places is damaged, or of another model"
                )

    def pool(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The parameters that are chosen from: candidates inside the targets, without kept modules."""
        kept = tuple(site.name for site in self.kept_sites(surgery.base_modules(model)))
        found = candidates(model, kept)
        if self.target_modules is not None:
            wanted = resolve_targets(
                model, self.target_modules, exclude_modules=self.exclude_modules, modules_to_save=self.modules_to_save,
                modules=surgery.base_modules(model),
            )  # fmt: skip
            found = {
                name: p for name, p in found.items() if any(f"{name}.".startswith(f"{target}.") for target in wanted)
            }
        elif self.exclude_modules is not None:
            raise ConfigError(f"{type(self).__name__}: exclude_modules needs target_modules; '.*' is every module")
        if not found:
            raise ConfigError(
                f"{type(self).__name__} found no parameter of {type(model).__name__} to choose entries from: they are "
                "quantised, tied to each other (embeddings and heads) or in modules_to_save"
            )
        return found

    def number(self, pool: Mapping[str, Tensor]) -> int:
        """k: how many entries train."""
        return max(1, round(self.keep_ratio * sum(parameter.numel() for parameter in pool.values())))

    def ranked(self, model: nn.Module, pool: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The scores of the pool's parameters."""
        if self.scores is None:
            raise ConfigError(
                f"{type(self).__name__} needs to know which entries: {type(self).__name__}({self.wanted}); "
                "scores='magnitude' or 'random' are there to compare with"
            )
        if self.scores == "magnitude":
            return {name: parameter.detach().abs() for name, parameter in pool.items()}
        if self.scores == "random":
            draw = torch.Generator().manual_seed(self.random_seed)
            return {name: torch.rand(parameter.shape, generator=draw) for name, parameter in pool.items()}
        for name, scores in self.scores.items():
            parameter = self._parameter(model, name)
            if scores.shape != parameter.shape:
                raise ConfigError(
                    f"scores[{name!r}] has shape {tuple(scores.shape)}, the parameter {tuple(parameter.shape)}"
                )
        found = {name: self.scores[name] for name in pool if name in self.scores}
        if not found:
            raise ConfigError(
                "none of the scores belongs to a parameter that may be chosen from; see sparse.candidates"
            )
        return found

    def _parameter(self, model: nn.Module, name: str) -> nn.Parameter:
        known = {
            f"{module_name}.{own}": parameter
            for module_name, module in surgery.base_modules(model).items()
            for own, parameter in module._parameters.items()
            if parameter is not None
        }
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise ConfigError(
                f"the model has no parameter {name!r}" + (f"; did you mean {close[0]!r}?" if close else "")
            )
        return known[name]

    def sites(self, model: nn.Module) -> list[Site]:
        modules = surgery.base_modules(model)
        names = self.pool(model) if self.mask is None else self.mask
        return [Site(name, modules[name]) for name in dict.fromkeys(n.rpartition(".")[0] for n in names)]

    def build(self, site: Site, shared: Shared | None) -> Adapter:
        places, start = self.places_at(site), {}
        for own in places:
            name, shape = f"{site.name}.{own}", site.module._parameters[own].shape
            start[own] = torch.zeros(shape) if self.start is None or name not in self.start else self.start[name]
            if start[own].shape != shape:
                raise ConfigError(f"start[{name!r}] has shape {tuple(start[own].shape)}, the parameter {tuple(shape)}")
        return SparseDelta(site, places, start)

    def places_at(self, site: Site) -> dict[str, Tensor]:
        """The mask's part in one module, by the module's own names."""
        return {
            own: self.mask[f"{site.name}.{own}"] for own in site.module._parameters if f"{site.name}.{own}" in self.mask
        }

    def parameters_at(self, site: Site) -> int:
        return 0 if self.mask is None else sum(flat.numel() for flat in self.places_at(site).values())

    def shared_parameters(self, model: nn.Module) -> int:
        return self.number(self.pool(model)) if self.mask is None else 0


# ---- looking at what was trained ----------------------------------------------------------------------------------


@torch.no_grad()
def changes(model: nn.Module, name: str = "default") -> dict[str, Tensor]:
    """How far the adapter `name` has moved each of the model's own parameters, by full name (kept heads included).

    For every method that merges. The model itself is left alone. Added biases are in it; frozen parameters are not.
    Raises PeftLabError if another adapter of that name, or none, is attached.
    """
    found = {}
    modules = surgery.base_modules(model)
    for site, adapter in _adapters(model, name):
        base = modules[site]
        merged = adapter.merge_into(base)
        before = dict(base.named_parameters())
        for own, after in merged.named_parameters():
            if own not in before:  # an added bias
                found[f"{site}.{own}"] = after.detach().clone()
            elif after is not before[own] and before[own].is_floating_point():
                found[f"{site}.{own}"] = after - before[own]
            elif after is not before[own]:  # codes: the numbers that they stand for
                found[f"{site}.{own}"] = surgery.dense(merged)[0] - surgery.dense(base)[0]
    if not found:
        raise PeftLabError(f"the adapter {name!r} changes no parameter of the model")
    return found


def _adapters(model: nn.Module, name: str) -> Iterator[tuple[str, Adapter]]:
    for site, wrapper in surgery.adapted_modules(model).items():
        if name in wrapper.adapters:
            yield site, wrapper.adapters[name]


@dataclass(frozen=True)
class FileSize:
    """What an adapter's tensors take in a file, in bytes: numbers, and the places where they belong."""

    values: int
    indices: int
    dense: int  # the same parameters whole, in float32

    @property
    def total(self) -> int:
        return self.values + self.indices

    def __str__(self) -> str:
        return (
            f"{self.total:,} bytes: {self.values:,} for values, {self.indices:,} for indices; "
            f"the whole tensors take {self.dense:,}"
        )


def file_size(model: nn.Module, name: str = "default") -> FileSize:
    """The real size of the adapter `name` in a file: a kept head is in it, a header of names comes on top.

    Indices cost too. With float32 values an index of int32 doubles an entry's price, and SHiRA's two treble it, so a
    sparse file is larger than the whole tensors from a half, or a third, of the entries on. One bit for every entry,
    set or not, would be cheaper than int32 indices once more than 1 entry in 32 is chosen; neither peft nor this file
    writes that.
    """
    values = indices = dense = 0
    for _, adapter in _adapters(model, name):
        for tensor in adapter.state_dict().values():
            size = tensor.numel() * tensor.element_size()
            values, indices = (values + size, indices) if tensor.is_floating_point() else (values, indices + size)
        if isinstance(adapter, Delta):
            dense += 4 * sum(adapter.site.module._parameters[own].numel() for own in adapter.names)
        else:  # a head that is kept whole
            dense += sum(tensor.numel() * tensor.element_size() for tensor in adapter.state_dict().values())
    if not values:
        raise PeftLabError(f"no adapter called {name!r} holds tensors at a layer of this model")
    return FileSize(values, indices, dense)
