r"""Partial unfreezing: some modules train whole, the last k blocks say, and all others stay.

$$\theta' = (\theta_1, \dots, \theta_{n-k}, \; \theta'_{n-k+1}, \dots, \theta'_n)$$

The oldest of all selective methods. Lee et al. (2019, arXiv:1911.03090) measure how many of the last blocks are needed.
Here the trained tensors are copies beside the frozen ones, so that taking them out leaves the model as it was; in place
they would cost no second copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from peftlab import hosts, surgery
from peftlab.errors import ConfigError
from peftlab.methods.base import Adapter, Card, Method, Overlay, Shared, method, require_positive
from peftlab.surgery import Site
from peftlab.targeting import resolve_targets


class UnfreezingMethod(Method):
    """Methods that train every parameter inside some modules."""

    default_targets: ClassVar[Mapping[str, object]] = {}

    def tops(self, model: nn.Module) -> list[str]:
        """The names of the modules that train, with all that is inside them."""
        raise NotImplementedError

    def sites(self, model: nn.Module) -> list[Site]:
        modules = surgery.base_modules(model)
        kept = {site.name for site in self.kept_sites(modules)}
        inside = {name for top in self.tops(model) for name in modules if name == top or name.startswith(f"{top}.")}
        outside = {name for name in inside if any(name == k or name.startswith(f"{k}.") for k in kept)}
        with_own = [name for name in modules if name in inside - outside and any(own_parameters(modules[name]))]
        if not with_own:
            raise ConfigError(f"{type(self).__name__}: none of the modules that are to train has parameters")
        return [Site(name, modules[name]) for name in with_own]

    def build(self, site: Site, shared: Shared | None) -> Adapter:
        name = type(self).__name__
        if not surgery.is_dense(site.module):
            raise ConfigError(
                f"{name} would train a copy of {site.name}, but its weight is quantised and cannot be trained; "
                "leave it out, or use a LoRA there"
            )
        return Overlay(site, own_parameters(site.module))

    def prepare(self, model: nn.Module) -> Method:
        prepared = super().prepare(model)
        for site in prepared.sites(model):
            tied = surgery.tied_names(model, site.module)
            if tied:
                raise ConfigError(
                    f"{type(self).__name__} would train {site.name}, whose weight is also that of {', '.join(tied)} "
                    "(tied embeddings), and a copy of one side would part them; leave both out"
                )
        return prepared

    def parameters_at(self, site: Site) -> int:
        return sum(parameter.numel() for parameter in own_parameters(site.module).values())


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The module's own parameters, by their own names, without those of modules inside it."""
    return {own: parameter for own, parameter in module._parameters.items() if parameter is not None}


FACTS: dict[str, Any] = {
    "title": "What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning",
    "year": 2019,
    "arxiv": "1911.03090",
    "family": "selective",
    "reference": "the definition (requires_grad on these parameters alone)",
    "shapes": "those of the parameters that train",
    "mergeable": True,
    "inference_cost": "none: the model has its old shape",
    "levels": {"P5": "peft has no such method, so its files open here only; modules_to_save is its nearest relative"},
}
NO_TWO = "Two such adapters cannot be active at once where they train the same module: each replaces its parameters."
COPIES = "A copy beside the frozen tensor costs its memory twice while training; merging gives it back."


@method
class PartialTuning(UnfreezingMethod):
    """Every parameter inside the named modules trains. target_modules: names or a regular expression, as everywhere."""

    target_modules: list[str] | str
    exclude_modules: list[str] | str | None = None

    peftlab_type = "PARTIAL"
    card = Card(
        **FACTS,
        equation="the method, for any modules",
        formula="θ' = θ with θ'_i trained for the modules i that are named",
        parameters="those of the named modules",
        traps=(NO_TWO, COPIES, "A file is as large as the modules: 4 bytes for every parameter that trains."),
        use_when="you know which part must change: a new head's last layers, one tower of two, the norms",
        avoid_when="many tasks share one base: every task stores whole layers",
        unknown="which part that is, before it is tried",
    )

    def __post_init__(self) -> None:
        if not self.target_modules:
            raise ConfigError("PartialTuning needs target_modules: which modules train, such as ['attention.output']")

    def tops(self, model: nn.Module) -> list[str]:
        return resolve_targets(
            model,
            self.target_modules,
            exclude_modules=self.exclude_modules,
            modules_to_save=self.modules_to_save,
            modules=surgery.base_modules(model),
        )


@method
class LastLayers(UnfreezingMethod):
    """The last `num_layers` transformer blocks train whole. A classifier's head trains too; norms after them do not."""

    num_layers: int = 1

    peftlab_type = "LAST_LAYERS"
    card = Card(
        **FACTS,
        equation="the method",
        formula="θ' = (θ_1, …, θ_{n-k}, θ'_{n-k+1}, …, θ'_n)",
        parameters="those of the last k blocks",
        traps=(
            NO_TWO,
            COPIES,
            "Nothing below the first trained block needs a backward pass, which saves time; as soon as anything lower "
            "trains too (embeddings, the biases of all layers), that is lost.",
        ),
        use_when="training time is short, and the task is near what the model was trained on",
        avoid_when="the input itself is new (another language, another domain): the low blocks would have to change",
        unknown="how many blocks are enough, before it is tried",
    )

    def __post_init__(self) -> None:
        require_positive(self, "num_layers")

    def tops(self, model: nn.Module) -> list[str]:
        blocks = transformer_blocks(model)
        number = max(blocks.values(), default=-1) + 1
        if not number:
            raise ConfigError(
                f"LastLayers found no numbered blocks with attention in {type(model).__name__}; "
                "name the modules in PartialTuning(target_modules=…)"
            )
        if self.num_layers > number:
            raise ConfigError(f"LastLayers(num_layers={self.num_layers}): {type(model).__name__} has {number} blocks")
        return [name for name, index in blocks.items() if index >= number - self.num_layers]


def transformer_blocks(model: nn.Module) -> dict[str, int]:
    """Names of the modules that hold one block each, and their numbers: `model.layers.3` is block 3."""
    modules = surgery.base_modules(model)
    with_attention = [n for n in modules if "attention" in type(modules[n]).__name__.lower()]
    found = {}
    for name in modules:
        index = hosts.block_number(name)
        last = name.rpartition(".")[2]
        if index is not None and last == str(index) and any(n.startswith(f"{name}.") for n in with_attention):
            found[name] = index
    return found
