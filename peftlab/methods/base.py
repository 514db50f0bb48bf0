"""What a method must say about itself, and the two kinds of adapter that every family shares.

A `Method` is a frozen set of hyperparameters with peft's field names. It says where it goes (`sites`), what the whole
adapter shares (`shared`), and builds an `Adapter` for each site. An adapter's `forward` is the method's formula.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import functools
import math
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from peftlab import surgery
from peftlab.errors import ConfigError, NotMergeable
from peftlab.surgery import Site
from peftlab.targeting import LORA_DEFAULTS, default_targets, resolve_targets

METHODS: list[type[Method]] = []
TASK_TYPES = ("SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION")


@dataclass(frozen=True, kw_only=True)
class Card:
    """The facts about a method that a reader looks up first."""

    title: str
    year: int
    arxiv: str
    equation: str
    family: str
    reference: str  # what it is proven against
    formula: str  # one line of maths
    shapes: str
    parameters: str  # trainable parameters as a formula
    mergeable: bool
    inference_cost: str
    traps: tuple[str, ...]
    use_when: str
    avoid_when: str
    unknown: str
    levels: Mapping[str, str] = field(default_factory=dict)  # parity levels that do not apply, and why


class Adapter(nn.Module):
    """One adapter at one site. Subclasses write the formula in `forward`."""

    mergeable: ClassVar[bool] = True
    acts_on_output: ClassVar[bool] = False  # True: forward is `after(inner(...))`; a mixed batch then calls inner once
    dropped: bool = False  # True: passed by, as if this layer had no adapter (AdapterDrop)

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site  # a plain object: the pretrained layer does not become a part of the adapter
        self.overlays: tuple[Overlay, ...] = ()  # of this method, at this site, between the layer and this adapter

    def forward(self, inner: Any, *args: Any, **kwargs: Any) -> Any:
        """The adapted layer's output. `inner` is the next layer in; call it for the output without this adapter."""
        raise NotImplementedError

    def frozen(self) -> tuple[Tensor, Tensor | None]:
        """W and b of the pretrained layer, seen through this method's own overlays (a trained bias, a residual)."""
        W, b = surgery.dense(self.site.module)
        for overlay in self.overlays:
            own = overlay.own()
            if "weight" in own:
                W = own["weight"].T if surgery.is_transposed_linear(self.site.module) else own["weight"]
            b = own.get("bias", b)
        return W, b

    def delta_weight(self) -> Tensor:
        """The change of the weight, in `surgery.dense`'s orientation."""
        raise NotMergeable(f"{type(self).__name__} cannot be written as a change of the weight")

    def merged(self, W: Tensor, b: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the plain layer that equals W, b with this adapter around it."""
        return W + self.delta_weight().to(W.dtype), b

    def merge_into(self, module: nn.Module) -> nn.Module:
        """A plain layer that equals `module` with this adapter around it. `module` stays as it is."""
        W, b = surgery.dense(module)
        with torch.no_grad():
            return surgery.with_dense(module, *self.merged(W, b))

    def file_names(self) -> dict[str, str]:
        """Own tensor name -> its name in the file, after the method's `file_prefix` and the site."""
        return {name: name for name in self.state_dict()}

    def after_loading(self) -> None:
        """Raise CheckpointError if what a file has put into the own tensors makes no sense here (indices, say)."""


class Overlay(Adapter):
    """The same layer, with tensors of its own in the place of some of its parameters. The base is never touched."""

    def __init__(
        self, site: Site, tensors: Mapping[str, Tensor], *, trainable: bool = True, prefix: str = ""
    ) -> None:
        super().__init__(site)
        self.names, self.prefix, self.trainable = tuple(tensors), prefix, trainable
        for name, tensor in tensors.items():
            value = tensor.detach().clone()
            if trainable:
                self.register_parameter(name, nn.Parameter(value))
            else:  # can be computed again from the base, so it is not saved
                self.register_buffer(name, value, persistent=False)

    def own(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self.names}

    def forward(self, inner: Any, *args: Any, **kwargs: Any) -> Any:
        tensors = {name: tensor for overlay in (*self.overlays, self) for name, tensor in overlay.own().items()}
        return functional_call(self.site.module, tensors, args, kwargs)

    def merge_into(self, module: nn.Module) -> nn.Module:
        return surgery.with_tensors(module, self.own())

    def file_names(self) -> dict[str, str]:
        return {name: f"{self.prefix}{name}" for name in self.state_dict()}


class Copy(Adapter):
    """A trainable copy of a whole module, answering in its place (`modules_to_save`, LayerNorm tuning)."""

    def __init__(self, site: Site, *, prefix: str = "") -> None:
        super().__init__(site)
        if not all(surgery.is_dense(part) for part in site.module.modules()):
            raise ConfigError(
                f"modules_to_save would train a copy of {site.name}, but its weight is quantised and cannot be "
                "trained; leave it out when you quantise (exclude_modules)"
            )
        self.copy = surgery.plain_copy(site.module).requires_grad_(True)
        self.prefix = prefix

    def forward(self, inner: Any, *args: Any, **kwargs: Any) -> Any:
        return self.copy(*args, **kwargs)

    def merge_into(self, module: nn.Module) -> nn.Module:
        return copy.deepcopy(self.copy)

    def file_names(self) -> dict[str, str]:
        return {name: f"{self.prefix}{name.removeprefix('copy.')}" for name in self.state_dict()}


class Delta(Adapter):
    """The same layer with a change of its own parameters. Several add up, innermost first. The base is never touched.

    Subclasses set `names`, the parameters that change, and say in `changed` what becomes of one of them.
    """

    names: tuple[str, ...] = ("weight",)

    def changed(self, own: str, tensor: Tensor) -> Tensor:
        """What the layer has in the place of `tensor`, its parameter `own` (with the changes further in, if any)."""
        raise NotImplementedError

    def check_beside(self, other: Delta) -> None:
        """Raise PeftLabError if both cannot be active at once."""

    def forward(self, inner: Any, *args: Any, **kwargs: Any) -> Any:
        changes = [self]
        while isinstance(inner, functools.partial):  # `use` has seen to it that these are changes too
            changes.append(inner.func)
            inner = inner.args[0]
        module, tensors = self.site.module, {}
        if not surgery.is_dense(module):  # codes cannot change; the numbers that they stand for can
            W, b = surgery.dense(module)
            for delta in reversed(changes):
                W = delta.changed("weight", W)
            return F.linear(args[0], W, b)
        for delta in reversed(changes):
            for own in delta.names:
                tensors[own] = delta.changed(own, tensors[own] if own in tensors else module._parameters[own])
        return functional_call(module, tensors, args, kwargs)

    def merge_into(self, module: nn.Module) -> nn.Module:
        with torch.no_grad():
            if not surgery.is_dense(module):
                W, b = surgery.dense(module)
                return surgery.with_dense(module, self.changed("weight", W), b)
            return surgery.with_tensors(
                module, {own: self.changed(own, module._parameters[own]) for own in self.names}
            )


class Chain(Adapter):
    """Overlays of one method inside its adapter at one site (a trained bias inside LoRA, say), innermost first."""

    def __init__(self, overlay: Overlay, adapter: Adapter) -> None:
        super().__init__(overlay.site)
        inside = list(adapter.parts) if isinstance(adapter, Chain) else [adapter]
        self.parts = nn.ModuleList([overlay, *inside])
        for i, part in enumerate(self.parts):
            part.overlays = tuple(self.parts[:i])

    @property
    def last(self) -> Adapter:
        """The adapter that the overlays lie under."""
        return self.parts[-1]

    def forward(self, inner: Any, *args: Any, **kwargs: Any) -> Any:
        for part in self.parts:
            inner = functools.partial(part, inner)
        return inner(*args, **kwargs)

    def merge_into(self, module: nn.Module) -> nn.Module:
        for part in self.parts:
            module = part.merge_into(module)
        return module

    def file_names(self) -> dict[str, str]:
        return {
            f"parts.{i}.{own}": in_file
            for i, part in enumerate(self.parts)
            for own, in_file in part.file_names().items()
        }


class Shared(nn.Module):
    """Tensors that belong to the whole adapter: VeRA's bases, prompts, prefixes. May act on inputs and attention."""

    has_seat: ClassVar[bool] = False  # True: acts on the model's inputs or attention, so it cannot be merged
    takes_task_ids: ClassVar[bool] = False  # True: on_inputs finds the call's task_ids among the arguments, if given
    on_attention: Any = None  # def on_attention(self, layer, module, q, k, v, mask) -> (q, k, v, mask)

    def on_inputs(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Change the named arguments of a call of the whole model."""
        return kwargs

    def file_names(self) -> dict[str, str]:
        """Own tensor name -> its full name in the file."""
        return {name: f"base_model.{name}" for name in self.state_dict()}

    def tensors(self) -> dict[str, Tensor]:
        """What the file holds, by full name."""
        own = self.state_dict()
        return {in_file: own[name] for name, in_file in self.file_names().items()}

    @torch.no_grad()
    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the own tensors to what `tensors` (as above) holds; names and shapes have been checked."""
        own = self.state_dict()
        for name, in_file in self.file_names().items():
            own[name].copy_(tensors[in_file])


@dataclass(frozen=True, kw_only=True)
class Method:
    """Hyperparameters of a method. Field names, defaults and meaning are peft's own.

    A method that peft lacks has a `peftlab_type` in the place of a `peft_type`; its file opens here only.
    """

    task_type: str | None = None
    modules_to_save: list[str] | None = None
    bookkeeping: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    peft_type: ClassVar[str | None] = None
    peftlab_type: ClassVar[str | None] = None
    file_prefix: ClassVar[str] = "base_model.model."  # before every site in the file; prompts have a shorter one
    card: ClassVar[Card]
    default_targets: ClassVar[Mapping[str, Any]] = LORA_DEFAULTS
    mixable: ClassVar[bool] = True  # False: rows of one batch cannot each have their own adapter of this kind
    # Fields of peft's config that are kept as found, but mean nothing here.
    BOOKKEEPING: ClassVar[frozenset[str]] = frozenset(
        "auto_mapping base_model_name_or_path fan_in_fan_out inference_mode megatron_config megatron_core "
        "peft_type peft_version peftlab_type revision".split()
    )
    # Fields that peft has and this course refuses, with the values that change nothing.
    NEUTRAL: ClassVar[Mapping[str, Any]] = {"bias": "none"}

    def for_loading(self) -> Method:
        """The method to build when every tensor will come from a file."""
        return self

    def for_file(self, tensors: Mapping[str, Tensor]) -> Method:
        """The same, where the file itself says how large they are (sparse ones). tensors: all that the file holds."""
        return self.for_loading()

    def prepare(self, model: nn.Module) -> Method:
        """This method with everything that depends on the model written out. Called once, by `attach`."""
        from peftlab import hosts

        self = dataclasses.replace(self, task_type=self.task_type or hosts.head_task(model))
        names = [name for name in surgery.base_modules(model) if name]
        heads = [h for h in hosts.HEADS.get(self.task_type, ()) if any(name.endswith(h) for name in names)]
        if heads:
            kept = list(self.modules_to_save or [])
            self = dataclasses.replace(self, modules_to_save=kept + [head for head in heads if head not in kept])
        if getattr(self, "target_modules", "") is None and self.default_targets:
            self = dataclasses.replace(self, target_modules=default_targets(model, self.default_targets))
        return self

    def sites(self, model: nn.Module) -> list[Site]:
        """Where the method goes. Default: what `target_modules` means, as peft resolves it."""
        modules = surgery.base_modules(model)
        names = resolve_targets(
            model,
            getattr(self, "target_modules", None),
            exclude_modules=getattr(self, "exclude_modules", None),
            layers_to_transform=getattr(self, "layers_to_transform", None),
            layers_pattern=getattr(self, "layers_pattern", None),
            modules_to_save=self.modules_to_save,
            task_type=self.task_type,
            default=self.default_targets,
            modules=modules,
        )
        return [Site(name, modules[name]) for name in names]

    def shared(self, model: nn.Module, sites: list[Site]) -> Shared | None:
        """Tensors of the whole adapter, or None."""
        return None

    def build(self, site: Site, shared: Shared | None) -> Adapter:
        """The adapter for one site. Raises before anything is changed if the site does not fit."""
        raise NotImplementedError

    def no_place(self, model: nn.Module) -> str:
        """What to say where nothing of the model can be adapted."""
        return f"{type(self).__name__} found no place in {type(model).__name__}"

    def parameters_at(self, site: Site) -> int:
        """Trainable parameters at one site, from the card's formula."""
        raise NotImplementedError

    def shared_parameters(self, model: nn.Module) -> int:
        """Trainable parameters that belong to the whole adapter."""
        return 0

    def start_is_random(self) -> bool:
        """True if a changed base belongs to the adapter and cannot be computed again from the hyperparameters."""
        return False

    def plain(self, adapters: Mapping[str, Adapter]) -> tuple[Method, dict[str, Adapter]]:
        """The same adapters without a changed base."""
        raise ConfigError(f"{type(self).__name__} cannot be written as a plain LoRA")

    def to_config(self) -> dict[str, Any]:
        """The fields of an adapter_config.json, which peft opens if it has the method."""
        own = {name: getattr(self, name) for name in self.fields_in_file()}
        own = {name: sorted(v) if isinstance(v, set) else v for name, v in own.items()}
        kind = {"peft_type": self.peft_type} if self.peft_type else {"peftlab_type": self.peftlab_type}
        return {**self.bookkeeping, **own, **kind, "inference_mode": True}

    @classmethod
    def fields_in_file(cls) -> dict[str, dataclasses.Field]:
        """The fields that adapter_config.json holds: all but those whose content the tensors' file holds (a mask)."""
        fields = [f for f in dataclasses.fields(cls) if f.name != "bookkeeping" and f.metadata.get("in_file", True)]
        return {f.name: f for f in fields}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Method:
        """Read the fields of an adapter_config.json; refuse what would change the result and is not supported."""
        supported = cls.fields_in_file()
        neutral = {**Method.NEUTRAL, **cls.NEUTRAL}
        kwargs, kept = {}, {}
        for name, value in config.items():
            if name in supported:
                if value is not None or supported[name].default_factory is dataclasses.MISSING:
                    kwargs[name] = value
            elif name in cls.BOOKKEEPING:
                kept[name] = value
            elif value and value != neutral.get(name):
                elsewhere = "peft.PeftModel.from_pretrained" if cls.peft_type else "the peftlab that wrote it"
                raise ConfigError(
                    f"{cls.__name__} here does not support {name}={value!r}, which this adapter was made with; "
                    f"open it with {elsewhere} instead"
                )
        return cls(**kwargs, bookkeeping=kept)

    def kept_sites(self, modules: Mapping[str, nn.Module]) -> list[Site]:
        """The modules that `modules_to_save` means: in peft, every module whose name ends so, even within a word.

        Raises ConfigError for a name that the model does not have (but not for the heads that tasks bring along).
        """
        from peftlab import hosts

        kept: dict[str, Site] = {}
        for wanted in self.modules_to_save or []:
            found = [name for name in modules if name and name.endswith(wanted)]
            if not found and wanted not in hosts.HEAD_NAMES:
                close = difflib.get_close_matches(wanted, {name.split(".")[-1] for name in modules}, n=1)
                raise ConfigError(
                    f"modules_to_save names {wanted!r}, which the model does not have"
                    + (f"; did you mean {close[0]!r}?" if close else "")
                )
            cut = [name for name in found if name != wanted and not name.endswith(f".{wanted}")]
            if cut and wanted not in hosts.HEAD_NAMES:
                warnings.warn(
                    f"modules_to_save={wanted!r} also takes {', '.join(cut[:3])}{' and more' if len(cut) > 3 else ''}, "
                    "because peft compares the ends of names letter by letter; write the whole name to keep one module",
                    stacklevel=2,
                )
            kept |= {name: Site(name, modules[name]) for name in found}
        return [s for s in kept.values() if not any(s.name.startswith(f"{outer}.") for outer in kept)]

    def trainable_biases(
        self, modules: Mapping[str, nn.Module], targets: Collection[str]
    ) -> dict[str, dict[str, nn.Parameter]]:
        """Parameters, by module and own name, that are trained under peft's `bias` field.

        'none'; 'all', every parameter with "bias" in its full name; or '<method>_only', the biases of the targets.
        """
        how = getattr(self, "bias", "none")
        found: dict[str, dict[str, nn.Parameter]] = {}
        for name, module in modules.items():
            for own, parameter in module._parameters.items():
                inside = f"{name}.{own}"
                wanted = "bias" in inside if how == "all" else how != "none" and name in targets and own == "bias"
                if wanted and parameter is not None:
                    found.setdefault(name, {})[own] = parameter
        return found


def method(cls: type[Method]) -> type[Method]:
    """Register a method: a frozen dataclass whose constructor says what is wrong with its fields."""
    cls = dataclass(frozen=True, kw_only=True)(cls)
    generated = cls.__init__
    fields = [f for f in dataclasses.fields(cls) if f.name != "bookkeeping"]
    known = [f.name for f in fields]
    empty = dataclasses.MISSING
    needed = [f.name for f in fields if f.default is empty and f.default_factory is empty]

    @functools.wraps(generated)
    def init(self: Method, *args: Any, **kwargs: Any) -> None:
        if args:
            raise ConfigError(f"{cls.__name__}({args[0]!r}): name each field, as in {cls.__name__}({known[-1]}=...)")
        for name in kwargs:
            if name not in known and name != "bookkeeping":
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {close[0]}?" if close else f"; its fields are {', '.join(known)}"
                raise ConfigError(f"{cls.__name__} has no field {name}{hint}")
        for name in needed:
            if name not in kwargs:
                raise ConfigError(f"{cls.__name__} needs {name}")
        check_common_fields(cls.__name__, **kwargs)
        generated(self, **kwargs)

    cls.__init__ = init
    METHODS.append(cls)
    return cls


def check_common_fields(
    name: str, task_type: object = None, modules_to_save: object = None, **others: object
) -> None:
    """Raise ConfigError for a value of the fields that every method has, which peft would not open."""
    if task_type is not None and task_type not in TASK_TYPES:
        raise ConfigError(f"{name}(task_type={task_type!r}): choose one of {', '.join(TASK_TYPES)} or None")
    is_list = isinstance(modules_to_save, Collection) and not isinstance(modules_to_save, str)
    if modules_to_save is not None and not (is_list and all(isinstance(m, str) and m for m in modules_to_save)):
        raise ConfigError(f"{name}(modules_to_save={modules_to_save!r}): give a list of module names")


def not_in_file(**kwargs: Any) -> Any:
    """A field that adapter_config.json does not hold."""
    return field(**kwargs, repr=False, compare=False, metadata={"in_file": False})


def require_positive(method: Method, *names: str) -> None:
    """Raise ConfigError unless each named field (and each value of a pattern field) is a whole number above 0."""
    for name in names:
        value = getattr(method, name)
        for number in _values(method, name):
            if not isinstance(number, int) or isinstance(number, bool) or number <= 0:
                raise ConfigError(f"{type(method).__name__}({name}={value!r}): {name} must be a whole number above 0")


def require_number(method: Method, *names: str) -> None:
    """Raise ConfigError unless each named field (and each value of a pattern field) is a finite number."""
    for name in names:
        value = getattr(method, name)
        for number in _values(method, name):
            if not _is_number(number):
                raise ConfigError(f"{type(method).__name__}({name}={value!r}): {name} must be a number")


def _values(method: Method, name: str) -> list[object]:
    value = getattr(method, name)
    if not name.endswith("_pattern"):
        return [value]
    if not isinstance(value, Mapping):
        raise ConfigError(f"{type(method).__name__}({name}={value!r}): give a dict of names (or regular expressions)")
    return list(value.values())


def require_share(method: Method, name: str) -> None:
    """Raise ConfigError unless the named field is a probability below 1."""
    value = getattr(method, name)
    if not _is_number(value) or not 0 <= value < 1:
        raise ConfigError(f"{type(method).__name__}({name}={value!r}): {name} must be at least 0 and below 1")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
