"""The verbs: attach, use, disabled, folded, save, load, merge, detach, and what goes with them.

Every verb checks everything first and changes the model only when it is sure to succeed.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from peftlab import checkpoint, hosts, surgery
from peftlab.errors import CheckpointError, ConfigError, NotMergeable, PeftLabError
from peftlab.methods.base import METHODS, Adapter, Chain, Copy, Delta, Method, Overlay, Shared
from peftlab.runtime import BASE, Adapted, Runtime
from peftlab.surgery import Site


@dataclass
class Plan:
    """An adapter built for a model but not yet part of it."""

    method: Method
    adapters: dict[str, Adapter]  # by site
    shared: Shared | None

    def tensors(self) -> dict[str, Tensor]:
        """Everything that the file holds, by its name there."""
        found = {} if self.shared is None else self.shared.tensors()
        for site, adapter in self.adapters.items():
            own = adapter.state_dict()
            prefix = f"{self.method.file_prefix}{site}."
            found |= {prefix + in_file: own[name] for name, in_file in adapter.file_names().items()}
        return found


@dataclass(frozen=True)
class ParameterCount:
    """How many parameters train, of how many."""

    trainable: int
    total: int

    @property
    def share(self) -> float:
        return self.trainable / self.total if self.total else 0.0

    def __str__(self) -> str:
        return f"{self.trainable:,} of {self.total:,} parameters train ({self.share:.2%})"


# ---- attach and detach --------------------------------------------------------------------------------------------


def attach(model: nn.Module, method: Method, name: str = "default") -> nn.Module:
    """Put a method's adapters into `model`, in place, and freeze the rest. Returns the same model.

    The first adapter becomes active. Further ones wait until `use` switches to them, as in peft.

    Raises PeftLabError (with the model untouched) if the name is taken, nothing matches, or a layer does not fit.
    """
    _check_model(model)
    _check_name(model, name)
    if not isinstance(method, Method):
        given = getattr(method, "__name__", type(method).__name__)
        raise PeftLabError(f"attach needs a method such as LoRA(r=8), not {given}")
    method = copy.deepcopy(method).prepare(model)  # a copy, because its lists could be changed later
    _commit(model, name, _plan(model, method, method), trainable=True)
    return model


def _plan(model: nn.Module, method: Method, build: Method) -> Plan:
    modules = surgery.base_modules(model)
    sites = build.sites(model)
    shared = build.shared(model, sites)
    adapters = {site.name: build.build(site, shared) for site in sites}
    kept = method.kept_sites(modules)
    _lay_over_biases(adapters, modules, method, kept)
    if not adapters and shared is None:
        raise PeftLabError(method.no_place(model))
    for site in kept:
        inside = [name for name in adapters if name == site.name or name.startswith(f"{site.name}.")]
        if inside:
            raise ConfigError(f"{inside[0]} is both a target and in modules_to_save ({site.name}); choose one")
        adapters[site.name] = Copy(site)
    for name, adapter in adapters.items():
        surgery.check_is_called(model, name)
        site = Site(name, modules[name])
        for part in adapter.modules():
            if isinstance(part, Adapter) and not isinstance(part, Overlay | Copy | Chain):
                part.to(device=site.device, dtype=site.adapter_dtype)
    if shared is not None:
        if shared.on_attention is not None:
            hosts.check_attention(model)
        first = next(model.parameters())
        shared.to(device=first.device, dtype=torch.float64 if first.dtype == torch.float64 else torch.float32)
    return Plan(method, adapters, shared)


def _lay_over_biases(
    adapters: dict[str, Adapter], modules: Mapping[str, nn.Module], method: Method, kept: Sequence[Site]
) -> None:
    """Add overlays for the biases that the method's `bias` field trains."""
    copies: dict[int, nn.Parameter] = {}  # by the id of the pretrained one: what was tied stays tied
    for name, biases in method.trainable_biases(modules, adapters).items():
        if any(name == site.name or name.startswith(f"{site.name}.") for site in kept):
            continue  # a module that is kept whole has its biases already
        if not name:
            raise ConfigError(
                f"bias={method.bias!r} would train {', '.join(biases)} of the {type(modules[name]).__name__} itself, "
                "but only parameters of modules inside it can be; put them into a module of their own"
            )
        inside = name in adapters
        overlay = Overlay(Site(name, modules[name]), biases, prefix="base_layer." if inside else "")
        for own, parameter in biases.items():
            setattr(overlay, own, copies.setdefault(id(parameter), getattr(overlay, own)))
        adapters[name] = Chain(overlay, adapters[name]) if inside else overlay


def _commit(model: nn.Module, name: str, plan: Plan, *, trainable: bool) -> None:
    runtime = getattr(model, "peftlab", None)
    if runtime is None:
        every_name = model.named_parameters(remove_duplicate=False)  # tied ones too: merging can part them
        runtime = Runtime({n: p.requires_grad for n, p in every_name})
        hosts.install(model, runtime)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
    for site, adapter in plan.adapters.items():
        surgery.put(model, site, name, adapter, runtime.state)
    if plan.shared is not None:
        runtime.shared[name] = plan.shared.train(model.training)
        if plan.shared.on_attention is not None:
            hosts.seat_attention(model, runtime)
    runtime.methods[name], runtime.trainable[name] = plan.method, trainable
    use(model, runtime.state.active or name)


def detach(model: nn.Module, name: str | None = None) -> nn.Module:
    """Take one adapter out, or all of them. With the last one gone, the model is what it was, bit for bit."""
    runtime = _runtime(model, "detach")
    _check_not_folded(model, "detach")
    for each in [_known(runtime, name)] if name is not None else list(runtime.methods):
        for site, wrapper in surgery.adapted_modules(model).items():
            if each in wrapper.adapters:
                surgery.take_out(model, site, each)
        if each in runtime.shared:
            del runtime.shared[each]
        del runtime.methods[each], runtime.trainable[each]
    if runtime.methods:
        if not any(part.on_attention is not None for part in runtime.shared.values()):
            _unseat(model)
        left = tuple(n for n in runtime.state.active if n in runtime.methods)
        use(model, left or next(iter(runtime.methods)))
    else:
        _clean_up(model, runtime)
    return model


def _unseat(model: nn.Module) -> None:
    if any("peftlab_seat" in module.__dict__ for module in model.modules()):
        hosts.unseat_attention(model)


def _clean_up(model: nn.Module, runtime: Runtime) -> None:
    _unseat(model)
    hosts.uninstall(model)
    for name, parameter in model.named_parameters():
        if name in runtime.was_trainable:
            parameter.requires_grad_(runtime.was_trainable[name])


# ---- which adapters are on ----------------------------------------------------------------------------------------


def use(model: nn.Module, names: str | Sequence[str]) -> nn.Module:
    """Make these adapters the active ones (several are applied one around the other, the first one innermost).

    Raises PeftLabError if a name is not attached or comes twice, if two of them replace the same parameters, or if one
    that changes a layer's own parameters (SHiRA, say) does not come before those around the layer.
    """
    runtime = _runtime(model, "use")
    _check_not_folded(model, "use")
    wanted = tuple(_known(runtime, n) for n in ([names] if isinstance(names, str) else names))
    if not wanted or len(set(wanted)) < len(wanted):
        raise PeftLabError(
            "use needs at least one adapter, and each only once; for the base model there is peftlab.disabled"
        )
    for site, wrapper in surgery.adapted_modules(model).items():
        here = [wrapper.adapters[n] for n in wanted if n in wrapper.adapters]
        if len(here) > 1 and any(isinstance(a, Copy | Overlay) or _overlays(a) for a in here):
            raise PeftLabError(
                f"{' and '.join(wanted)} each replace parameters of {site}, so only one of them can be active"
            )
        _check_changes(wrapper, site, [n for n in wanted if n in wrapper.adapters])
    runtime.state.active = wanted
    for wrapper in surgery.adapted_modules(model).values():
        for n, adapter in wrapper.adapters.items():
            adapter.requires_grad_(n in wanted and runtime.trainable[n])
    for n, shared in runtime.shared.items():
        shared.requires_grad_(n in wanted and runtime.trainable[n])
    return model


def _check_changes(wrapper: Adapted, site: str, names: Sequence[str]) -> None:
    """Changes of a layer's own parameters add up with each other, and come before all that stands around the layer."""
    changes = [isinstance(wrapper.adapters[n], Delta) for n in names]
    if any(later and not earlier for earlier, later in itertools.pairwise(changes)):
        first = next(n for n, is_change in zip(names, changes, strict=True) if is_change)
        raise PeftLabError(
            f"{first!r} changes the parameters of {site} itself, and other adapters stand around it, so it comes "
            "first: name the adapters that change parameters before all others"
        )
    inside = [wrapper.adapters[n] for n, is_change in zip(names, changes, strict=True) if is_change]
    for delta, other in itertools.permutations(inside, 2):
        delta.check_beside(other)


def _overlays(adapter: Adapter) -> bool:
    return isinstance(adapter, Chain) and any(isinstance(part, Overlay) for part in adapter.parts)


@contextmanager
def disabled(model: nn.Module) -> Iterator[nn.Module]:
    """Inside, the model computes exactly what the base model computes."""
    state = _runtime(model, "disabled").state
    before, state.disabled = state.disabled, True
    try:
        yield model
    finally:
        state.disabled = before


# ---- merging ------------------------------------------------------------------------------------------------------


@contextmanager
def folded(model: nn.Module) -> Iterator[nn.Module]:
    """Inside, the active adapters are merged into plain layers. Afterwards the originals answer again, bit for bit."""
    plain = _merged_layers(model, "fold")
    wrappers = surgery.adapted_modules(model)
    before = {site: wrappers[site].folded for site in plain}
    try:
        for site, layer in plain.items():
            wrappers[site].fold(layer)
        yield model
    finally:
        for site, layer in before.items():
            wrappers[site].fold(layer)


def merge(model: nn.Module, *, untie: bool = False) -> nn.Module:
    """Merge the active adapters for good and forget all adapters: plain layers again, no extra latency.

    Raises NotMergeable (with the model untouched) for prompts and prefixes, and for a weight that is tied to another
    layer unless `untie=True`, which gives the other layer a weight of its own.
    """
    _check_not_folded(model, "merge")
    plain = _merged_layers(model, "merge")
    modules = surgery.base_modules(model)
    parted = False
    for site, layer in plain.items():
        if layer._parameters.get("weight") is modules[site]._parameters.get("weight"):
            continue  # only a bias was trained here
        tied = surgery.tied_names(model, modules[site])
        if tied and all(_same_weight(layer, plain.get(name)) for name in tied):
            for name in tied:  # all were changed alike, so they stay one
                plain[name]._parameters["weight"] = layer._parameters["weight"]
            continue
        if tied and not untie:
            raise NotMergeable(
                f"{site} shares its weight with {', '.join(tied)}; merging would change both. "
                "Pass untie=True to give each a weight of its own (the model grows by one matrix)"
            )
        parted = parted or bool(tied)
    if parted:
        hosts.untie(model)
    runtime = model.peftlab
    for site, wrapper in surgery.adapted_modules(model).items():
        # A layer inside a merged copy of a whole module (modules_to_save) went with the module that it replaces.
        if surgery.module_at(model, site) is wrapper:
            surgery.replace(model, site, plain.get(site, wrapper.base))
    _clean_up(model, runtime)
    return model


def _same_weight(layer: nn.Module, other: nn.Module | None) -> bool:
    return other is not None and torch.equal(layer.weight, other.weight)


def _merged_layers(model: nn.Module, verb: str) -> dict[str, nn.Module]:
    runtime = _runtime(model, verb)
    for name in runtime.state.active:
        if name in runtime.shared and runtime.shared[name].has_seat:
            raise NotMergeable(
                f"{name!r} is {type(runtime.methods[name]).__name__}, which cannot be merged: "
                f"{runtime.methods[name].card.levels.get('P4', 'there is no weight to merge it into')}"
            )
    plain = {}
    for site, wrapper in surgery.adapted_modules(model).items():
        layer = wrapper.base
        for name in runtime.state.active:
            if wrapper.takes_part(name):
                layer = wrapper.adapters[name].merge_into(layer)
        if layer is not wrapper.base:
            if not all(torch.isfinite(p).all() for p in layer.parameters()):
                raise NotMergeable(f"merging at {site} gives values that are not finite; nothing was changed")
            plain[site] = layer
    return plain


# ---- files --------------------------------------------------------------------------------------------------------


def save(
    model: nn.Module, folder: str | Path, name: str | None = None, *, as_plain_lora: bool | None = None
) -> Path:
    """Write one adapter (the active one, unless named) so that peft.PeftModel.from_pretrained opens it.

    A method that peft lacks is written in the same two files, with a `peftlab_type`: `load` opens them, peft does not.

    as_plain_lora: for LoRAs that start from the weight (PiSSA, OLoRA), write the same change as a LoRA of rank 2r that
    needs no changed base. Default: only where the start is random (pissa_niter), and could not be made again.

    Raises PeftLabError if a tensor that was trained belongs to no adapter: it would be lost.
    """
    runtime = _runtime(model, "save")
    if name is None:
        if len(runtime.state.active) != 1:
            raise PeftLabError(f"say which adapter to save: name= one of {', '.join(runtime.methods)}")
        name = runtime.state.active[0]
    _known(runtime, name)
    owned = {id(p) for w in surgery.adapted_modules(model).values() for p in w.adapters.parameters()}
    owned |= {id(p) for p in runtime.shared.parameters()}
    lost = [n for n, p in model.named_parameters() if p.requires_grad and id(p) not in owned]
    if lost:
        raise PeftLabError(
            f"{', '.join(lost[:3])}{' and others' if len(lost) > 3 else ''} would be trained but not saved: no adapter "
            "owns it. Name its module in modules_to_save when you attach, or freeze it"
        )
    adapters = {s: w.adapters[name] for s, w in surgery.adapted_modules(model).items() if name in w.adapters}
    shared = runtime.shared[name] if name in runtime.shared else None
    plan = Plan(runtime.methods[name], adapters, shared)
    if as_plain_lora or (as_plain_lora is None and plan.method.start_is_random()):
        plan.method, plan.adapters = plan.method.plain(plan.adapters)
    config = plan.method.to_config()
    modules = surgery.base_modules(model)
    if "fan_in_fan_out" in _peft_fields(plan.method):
        config["fan_in_fan_out"] = any(surgery.is_transposed_linear(modules[site]) for site in adapters)
    config.setdefault("base_model_name_or_path", None)
    source = getattr(getattr(model, "config", None), "_name_or_path", None)
    config["base_model_name_or_path"] = source or config["base_model_name_or_path"]
    return checkpoint.write(folder, config, plan.tensors())


def _peft_fields(method: Method) -> tuple[str, ...]:
    return ("fan_in_fan_out",) if method.peft_type in ("LORA", "VERA", "OFT", "IA3") else ()


def load(model: nn.Module, folder: str | Path, name: str = "default", trainable: bool = False) -> nn.Module:
    """Attach an adapter from a folder that `save` or peft's save_pretrained wrote. Returns the same model.

    Raises CheckpointError or ConfigError (with the model untouched) if the files cannot be read, or do not fit.
    """
    _check_model(model)
    _check_name(model, name)
    config, tensors = checkpoint.read(folder)
    method = method_for(config)
    if method.start_is_random():
        raise CheckpointError(
            f"{folder} was started from a random approximation of the weights, and the file does not hold it, so no "
            "library can open it exactly; save it again as a plain LoRA (peftlab.save does, peft needs "
            "path_initial_model_for_weight_conversion)"
        )
    plan = _plan(model, method, _with_shapes(model, method.for_file(tensors)))
    expected = plan.tensors()
    checkpoint.fill(expected, tensors, surgery.base_modules(model))
    if plan.shared is not None:
        plan.shared.take(expected)  # where the file's tensors are made of several own ones
    for adapter in plan.adapters.values():
        adapter.after_loading()
    _commit(model, name, plan, trainable=trainable)
    return model


def _with_shapes(model: nn.Module, method: Method) -> Method:
    """`prepare` without its guesses about heads: a file says itself which modules it kept."""
    return dataclasses.replace(method.prepare(model), modules_to_save=method.modules_to_save)


def method_for(config: Mapping[str, object]) -> Method:
    """The method that an adapter_config.json describes."""
    import peftlab.methods  # noqa: F401  (registers all of them)

    kind = "peftlab_type" if config.get("peftlab_type") else "peft_type"
    for cls in METHODS:
        if getattr(cls, kind) == config[kind]:
            return cls.from_config(config)
    known = ", ".join(sorted({getattr(cls, kind) for cls in METHODS} - {None}))
    raise CheckpointError(f"{kind} {config[kind]!r} is not one that peftlab has yet; it has {known}")


# ---- counting, combining, training hooks --------------------------------------------------------------------------


def count_parameters(model: nn.Module) -> ParameterCount:
    """Trainable and total parameters, counted as peft's `get_nb_trainable_parameters` does."""
    parameters = list(model.parameters())
    # A trained bias lies over the frozen one; peft trains it in place, so it counts once.
    twice = {id(p): p.numel() for part in model.modules() if isinstance(part, Overlay) for p in part.parameters()}
    packed_away = sum(m.packed_away for m in model.modules() if hasattr(type(m), "packed_away"))  # 4-bit: two a byte
    return ParameterCount(
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        total=sum(p.numel() for p in parameters) - sum(twice.values()) + packed_away,
    )


def add_weighted_adapter(
    model: nn.Module,
    adapters: Sequence[str],
    weights: Sequence[float],
    adapter_name: str,
    combination_type: str = "cat",
) -> nn.Module:
    """A new LoRA or IA³ adapter out of existing ones, as peft's method of this name makes it. It is added inactive.

    'cat' stacks the factors: ΔW is exactly Σ wᵢ ΔWᵢ, and the ranks add up. 'linear' sums A's and B's apart: cheaper,
    of equal rank, but (Σ aᵢAᵢ, Σ aᵢBᵢ) multiplies out to cross terms BᵢAⱼ that nobody asked for.
    IA³ knows 'linear' only: l = Σ wᵢ lᵢ. Its vectors start at one, so let the weights sum to one.
    """
    from peftlab.methods.reparam.combine import combined

    runtime = _runtime(model, "combine")
    _check_model(model)
    _check_name(model, adapter_name)
    names = [_known(runtime, name) for name in adapters]
    wrappers = surgery.adapted_modules(model)
    parts = {n: {s: w.adapters[n] for s, w in wrappers.items() if n in w.adapters} for n in names}
    methods = [runtime.methods[n] for n in names]
    method, built = combined(methods, [parts[n] for n in names], list(weights), combination_type)
    _commit(model, adapter_name, Plan(method, built, None), trainable=True)
    return model


def penalty(model: nn.Module) -> Tensor | float:
    """What the active adapters add to the loss while training (zero for most methods)."""
    return sum((part.penalty() for part in _active_parts(model) if hasattr(part, "penalty")), start=0.0)


def after_step(model: nn.Module, step: int) -> None:
    """Tell the active adapters that optimiser step number `step` is done."""
    for part in _active_parts(model):
        if hasattr(part, "on_step"):
            part.on_step(step)


def _active_parts(model: nn.Module) -> list[nn.Module]:
    runtime = getattr(model, "peftlab", None)
    if runtime is None:
        return []
    active = runtime.state.active
    parts = [w.adapters[n] for w in surgery.adapted_modules(model).values() for n in active if n in w.adapters]
    return parts + [runtime.shared[n] for n in active if n in runtime.shared]


# ---- checks -------------------------------------------------------------------------------------------------------


def _runtime(model: nn.Module, verb: str) -> Runtime:
    runtime = getattr(model, "peftlab", None)
    if not isinstance(runtime, Runtime):
        raise PeftLabError(f"nothing is attached to this model, nothing to {verb}; call peftlab.attach first")
    return runtime


def _known(runtime: Runtime, name: str) -> str:
    if name not in runtime.methods:
        raise PeftLabError(f"no adapter is called {name!r}; attached are: {', '.join(runtime.methods)}")
    return name


def _check_not_folded(model: nn.Module, verb: str) -> None:
    if any(wrapper.folded is not None for wrapper in surgery.adapted_modules(model).values()):
        raise PeftLabError(f"the adapters are folded into the layers at the moment; leave peftlab.folded, then {verb}")


def _check_model(model: nn.Module) -> None:
    """Raise PeftLabError if nothing can be attached to this object."""
    if not isinstance(model, nn.Module):
        raise PeftLabError(f"adapters go into a torch.nn.Module, not into a {type(model).__name__}")
    if hasattr(model, "peft_config"):
        raise PeftLabError("this model carries adapters of peft; give peftlab the base model (model.unload() in peft)")
    runtime = getattr(model, "peftlab", None)
    if runtime is not None and not isinstance(runtime, Runtime):
        raise PeftLabError("this model has an attribute called peftlab, which is where adapters go; rename it")
    state = None if runtime is None else runtime.state
    if any(wrapper.state is not state for wrapper in surgery.adapted_modules(model).values()):
        raise PeftLabError(
            "a part of this model carries adapters that were attached to another model object (the whole model, or a "
            "part of it); attach there, or detach those first"
        )
    _check_not_folded(model, "attach")


def _check_name(model: nn.Module, name: str) -> None:
    taken = nn.ModuleDict()  # torch refuses names of its attributes
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]+", name) or name == BASE or hasattr(taken, name):
        raise PeftLabError(f"{name!r} cannot name an adapter; use letters, digits, _ and -, and no word of torch's own")
    runtime = getattr(model, "peftlab", None)
    if runtime is not None and name in runtime.methods:
        raise PeftLabError(f"an adapter called {name!r} is attached already; choose another name or detach it first")
