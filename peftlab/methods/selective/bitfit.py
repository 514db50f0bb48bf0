r"""BitFit (Ben Zaken et al., 2021, arXiv:2106.10199), section 3: train the biases, freeze everything else.

$$h = W_0 x + b'$$

$b' \in \mathbb{R}^{d_{out}}$ starts as a copy of the pretrained bias, in every layer that has one: linear layers and
LayerNorms. A model without biases has nothing to train; `add_missing=True` gives its linear layers $b' = 0$ to start.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import ClassVar

from torch import nn

from peftlab import surgery
from peftlab.errors import ConfigError
from peftlab.methods.base import Adapter, Card, Method, Shared, method
from peftlab.methods.selective.beft import AddedBias
from peftlab.surgery import Site
from peftlab.targeting import resolve_targets


@method
class BitFit(Method):
    """Every bias trains: each parameter with "bias" in its name, as `requires_grad_("bias" in name)` would have it.

    target_modules: only the biases of these modules (and what is inside them); None: all of them.
    add_missing: linear layers without a bias, but for the output head, get one, which starts at zero.
    """

    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    add_missing: bool = False

    peftlab_type = "BITFIT"
    bias: ClassVar[str] = "all"  # what peft's field of this name trains beside a LoRA, here alone
    default_targets: ClassVar[Mapping[str, object]] = {}
    card = Card(
        title="BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models",
        year=2021,
        arxiv="2106.10199",
        equation="section 3",
        family="selective",
        reference="the definition (requires_grad on biases alone), and peft.LoraConfig(bias='all')'s keys in files",
        formula="h = W₀x + b', and only b' trains",
        shapes="b' (d_out) per layer that has a bias, LayerNorms included",
        parameters="d_out per layer that has a bias; with add_missing also per linear layer that has none",
        mergeable=True,
        inference_cost="none: the model has its old shape (with add_missing one vector per layer more)",
        traps=(
            "Llama, Mistral and most newer models have no biases: there is nothing to train unless add_missing=True.",
            "The key's bias does nothing: softmax ignores what is equal for all keys of a query, so its gradient is "
            "rounding noise.",
            "It wants a far larger learning rate than full fine-tuning: at that one's rate biases hardly move.",
            "A step skips the gradients of the matrices, but not the way back through them: it saves less than the "
            "count of trained numbers suggests.",
            "peft has no BitFit: LoraConfig(bias='all') trains the same biases, with a LoRA beside them.",
        ),
        use_when="an encoder with biases, few examples, and next to no storage for each task",
        avoid_when="the model has no biases, or the task needs features that it does not have",
        unknown="why so little is often enough, and how much of it is owed to the new head",
        levels={"P5": "peft has no BitFit, so its files open here only; they hold the keys that peft uses for biases"},
    )

    def __post_init__(self) -> None:
        if not isinstance(self.add_missing, bool):
            raise ConfigError(f"BitFit(add_missing={self.add_missing!r}): give True or False")
        if self.target_modules is None and self.exclude_modules is not None:
            raise ConfigError("BitFit: exclude_modules needs target_modules; '.*' is every module")

    def prepare(self, model: nn.Module) -> Method:
        prepared = super().prepare(model)
        if self.target_modules is not None:
            modules = surgery.base_modules(model)
            wanted = resolve_targets(
                model, self.target_modules, exclude_modules=self.exclude_modules,
                modules_to_save=prepared.modules_to_save, modules=modules,
            )  # fmt: skip
            inside = [n for n in modules if any(f"{n}.".startswith(f"{target}.") for target in wanted)]
            prepared = dataclasses.replace(prepared, target_modules=inside, exclude_modules=None)
        return prepared

    def no_place(self, model: nn.Module) -> str:
        where = "" if self.target_modules is None else " at its target_modules"
        return (
            f"BitFit trains biases, and this {type(model).__name__} has none{where}; BitFit(add_missing=True) adds "
            "biases of zero to linear layers, and BEFT to the values' projections"
        )

    def trainable_biases(
        self, modules: Mapping[str, nn.Module], targets: Collection[str]
    ) -> dict[str, dict[str, nn.Parameter]]:
        found = super().trainable_biases(modules, targets)
        return {name: own for name, own in found.items() if self.target_modules is None or name in self.target_modules}

    def sites(self, model: nn.Module) -> list[Site]:
        """Linear layers without a bias, where they are to get one."""
        if not self.add_missing:
            return []
        modules = surgery.base_modules(model)
        linear = resolve_targets(
            model, "all-linear", modules_to_save=self.modules_to_save, task_type=self.task_type, modules=modules
        )
        found = [Site(name, modules[name]) for name in linear if getattr(modules[name], "bias", None) is None]
        return [site for site in found if self.target_modules is None or site.name in self.target_modules]

    def build(self, site: Site, shared: Shared | None) -> Adapter:
        return AddedBias(site, "bias", (site.out_features,))

    def parameters_at(self, site: Site) -> int:
        return site.out_features
