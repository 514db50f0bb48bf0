"""The same weights in our code and in the reference: compare, and name the first layer that differs.

Levels: P0 parameters counted · P1 outputs · P2 gradients of every adapter tensor · P3 losses over AdamW steps ·
P4 merged = unmerged = the reference's merged · P5 files both ways. Random weights everywhere (so B ≠ 0), float64.

`prove` compares with peft. `prove_stored` compares with tensors that another library made once, for methods peft lacks.
"""

from __future__ import annotations

import copy
import html
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

import peftlab
from peftlab import surgery
from peftlab.errors import PeftLabError
from peftlab.methods.base import METHODS, Method

LEVELS = ("P0", "P1", "P2", "P3", "P4", "P5")
CLAIMS = {
    "P0": "trainable parameters: formula = ours = {0}'s",
    "P1": "outputs",
    "P2": "gradients",
    "P3": "losses while training with AdamW",
    "P4": "merged = unmerged = {0}'s merged",
    "P5": "files, ours opened by {0} and {0}'s by us",
}


@dataclass(frozen=True)
class Row:
    """One level: the largest relative difference, and where it was."""

    level: str
    difference: float
    tolerance: float
    where: str = ""

    @property
    def ok(self) -> bool:
        return self.difference <= self.tolerance


@dataclass
class Proof:
    """The rows of a comparison. Shows itself as a table."""

    title: str
    rows: list[Row] = field(default_factory=list)
    left_out: Mapping[str, str] = field(default_factory=dict)
    reference: str = "peft"

    @property
    def ok(self) -> bool:
        return bool(self.rows) and all(row.ok for row in self.rows)

    def check(self) -> Proof:
        """Raise AssertionError, with the table, unless every row holds."""
        if not self.ok:
            raise AssertionError(f"not equal to the reference:\n{self}")
        return self

    def lines(self) -> list[tuple[str, str, str, str]]:
        """(level, claim, result, verdict): the verdict says equal or not within the tolerance, for any processor."""
        claims = {level: claim.format(self.reference) for level, claim in CLAIMS.items()}
        lines = [
            (row.level, claims[row.level], _verdict(row), "✓ equal" if row.ok else "✗ DIFFERENT") for row in self.rows
        ]
        return lines + [(level, claims[level], why, "– does not apply") for level, why in self.left_out.items()]

    def __str__(self) -> str:
        return "\n".join([self.title, *(f"  {a}  {d:14}  {b}  [{c}]" for a, b, c, d in self.lines())])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        body = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in line) + "</tr>"
            for line in self.lines()
        )
        heads = "".join(
            f"<th style='text-align:left'>{h}</th>" for h in ("level", "compared", "largest difference", "result")
        )
        return f"<table><caption>{html.escape(self.title)}</caption><tr>{heads}</tr>{body}</table>"


def _verdict(row: Row) -> str:
    if row.ok:
        return "none" if row.tolerance == 0 else f"below {row.tolerance:.0e} of the largest value"
    return f"{row.difference:.1e}, allowed {row.tolerance:.0e}, at {row.where}"


def prove(
    model: nn.Module,
    method: Method,
    inputs: Mapping[str, Any] | Tensor,
    *,
    levels: tuple[str, ...] = LEVELS,
    steps: int = 10,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    tolerance: float = 1e-10,
) -> Proof:
    """Compare `method` with peft's on copies of `model`; `model` itself stays as it is.

    inputs: the arguments of one call, by name, or one tensor. tolerance: on differences relative to the largest
    reference value; for files it is at least float32's rounding, because peft stores adapters so.
    """
    base = copy.deepcopy(model).to(dtype).eval()
    inputs = _in_dtype(inputs, dtype)
    torch.manual_seed(seed)
    ours = peftlab.attach(copy.deepcopy(base), method)
    _randomise(ours)
    torch.manual_seed(seed)  # some starts draw: both sides draw the same
    theirs = reference(base, ours)
    proof = Proof(f"{type(method).__name__} on {type(model).__name__}: ours against peft")
    known = ours.peftlab.methods["default"].card.levels
    compare = {"P0": _counts, "P1": _outputs, "P2": _gradients, "P3": _training, "P4": _merging, "P5": _files}
    for level in levels:
        if level in known:
            proof.left_out = {**proof.left_out, level: known[level]}
            continue
        try:
            difference, where = compare[level](base, ours, theirs, inputs, steps)
        except PeftLabError as refusal:  # a refused merge or file is a difference too, and the table says where
            difference, where = float("inf"), str(refusal)
        allowed = {"P0": 0.0, "P5": max(tolerance, 1e-6)}.get(level, tolerance)
        proof.rows.append(Row(level, difference, allowed, where))
    return proof


# ---- against stored tensors ---------------------------------------------------------------------------------------


def prove_stored(path: str | Path, *, tolerance: float = 1e-10) -> Proof:
    """Compare one of our methods with what another library computed once, for methods that peft lacks.

    path: a file of tests/golden, which holds the adapter's tensors and what the reference made of them: outputs,
    gradients, losses while training. The base model lies in the same folder. All in float64, P0 to P3.

    Raises PeftLabError if the file's tensors are not those that our adapter has.
    """
    path = Path(path)
    about, stored = _stored(path)
    host, kept = _stored(path.with_name(f"host_{about['host']}.safetensors"))
    base = _stored_model(host, _under(kept, "tensor/"))
    inputs, target = _under(kept, "input/"), stored["target"].double()
    cls = next(cls for cls in METHODS if cls.__name__ == about["method"])
    method = cls(**json.loads(about["fields"]))
    ours = peftlab.attach(copy.deepcopy(base), method)
    tensors, given = our_tensors(ours), _under(stored, "tensor/")
    if tensors.keys() != given.keys():
        odd = sorted(tensors.keys() ^ given.keys())
        raise PeftLabError(f"{path.name} and our adapter do not have the same tensors: {', '.join(odd[:3])}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(given[name])

    def loss_of(model: nn.Module) -> Tensor:
        return (output(model, inputs) - target).square().mean()

    loss_of(ours).backward()
    counts = {predicted_parameters(base, method), peftlab.count_parameters(ours).trainable}
    counts.add(sum(tensor.numel() for tensor in given.values()))
    reference_, largest = _under(stored, "grad/"), max(float(p.grad.abs().max()) for p in tensors.values())
    gradients = {name: relative_difference(tensors[name].grad, reference_[name], largest / 100) for name in reference_}
    worst = max(gradients, key=gradients.get)
    with torch.no_grad():
        outputs = relative_difference(output(ours, inputs), stored["output"])
    losses = _losses(ours, loss_of, len(stored["losses"]), float(about["learning_rate"]))
    rows = [
        Row("P0", float(max(counts) - min(counts)), 0.0, f"{sorted(counts)}"),
        Row("P1", outputs, tolerance),
        Row("P2", gradients[worst], tolerance, worst),
        Row("P3", relative_difference(losses, stored["losses"]), tolerance, f"after {len(losses)} steps"),
    ]
    title = f"{cls.__name__} on {type(base).__name__}: ours against {about['reference']} ({about['config']})"
    return Proof(title, rows, dict(method.card.levels), reference=about["reference"].split()[0])


def _stored(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not path.is_file():
        raise PeftLabError(f"there are no stored tensors at {path}")
    with safe_open(path, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _stored_model(about: Mapping[str, str], tensors: Mapping[str, Tensor]) -> nn.Module:
    import transformers

    config = getattr(transformers, about["model"].replace("Model", "Config"))(**json.loads(about["config"]))
    model = getattr(transformers, about["model"])(config).double().eval()
    model.load_state_dict(tensors)
    return model


# ---- the two sides ------------------------------------------------------------------------------------------------


def reference(base: nn.Module, ours: nn.Module, name: str = "default") -> nn.Module:
    """peft's model for the adapter `name` of `ours`, holding the same numbers. `base` is copied."""
    import peft
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    method = ours.peftlab.methods[name]
    if method.peft_type is None:
        raise PeftLabError(
            f"peft has no {type(method).__name__}; it is proven against stored tensors of {method.card.reference}: "
            "parity.prove_stored"
        )
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(method.peft_type)]
    known = config_class.__dataclass_fields__
    fields = {k: v for k, v in method.to_config().items() if k in known and k not in ("peft_type", "inference_mode")}
    dtype = next(base.parameters()).dtype
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = config_class(**fields)
        if getattr(method, "mask_fn", None) is not None:  # an attribute in peft, not a field
            config.mask_fn = lambda layer, r, **_: method.mask_fn(layer, r)
        theirs = peft.get_peft_model(copy.deepcopy(base), config, autocast_adapter_dtype=False)
    theirs = theirs.to(dtype).train(ours.training)
    with torch.no_grad():
        source, target = our_tensors(ours, name), their_tensors(theirs)
        unknown = [key for key in source if key not in target]
        if unknown:
            raise PeftLabError(f"peft's adapter has no tensor {unknown[0]!r}; it has {', '.join(list(target)[:3])} ...")
        for key, tensor in source.items():
            target[key].copy_(tensor)
    return theirs


def our_tensors(model: nn.Module, name: str = "default") -> dict[str, Tensor]:
    """The adapter's own tensors (the very objects), by their name in peft's file."""
    found: dict[str, Tensor] = {}
    if name in model.peftlab.shared:
        shared = model.peftlab.shared[name]
        own = shared.state_dict(keep_vars=True)
        names = shared.file_names()
        found |= {names.get(k, k): v for k, v in own.items()}
    for site, wrapper in surgery.adapted_modules(model).items():
        if name in wrapper.adapters:
            own = wrapper.adapters[name].state_dict(keep_vars=True)
            files = wrapper.adapters[name].file_names()
            prefix = f"{model.peftlab.methods[name].file_prefix}{site}."
            found |= {prefix + files[k]: v for k, v in own.items()}
    return found


def their_tensors(model: nn.Module, name: str = "default") -> dict[str, Tensor]:
    """The same of a peft model."""
    from peft import get_peft_model_state_dict

    if model.peft_config[name].is_prompt_learning:
        encoder = dict(model.prompt_encoder[name].named_parameters())
        network = any(key.startswith(("transform", "mlp_head")) for key in encoder)
        prompt = {"embedding.weight": "prompt_embeddings"}
        found = {(f"network.{k}" if network else prompt.get(k, k)): p for k, p in encoder.items()}
        everything = dict(model.base_model.named_parameters())
        kept = {k: p for k, p in everything.items() if ".modules_to_save." in k}
        return found | {f"base_model.{k.replace(f'.modules_to_save.{name}', '')}": p for k, p in kept.items()}
    everything = model.state_dict(keep_vars=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_peft_model_state_dict(
            model, state_dict=everything, adapter_name=name, save_embedding_layers=False
        )


def _randomise(model: nn.Module) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)


def _in_dtype(inputs: Mapping[str, Any] | Tensor, dtype: torch.dtype) -> dict[str, Any] | Tensor:
    def cast(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    return cast(inputs) if isinstance(inputs, Tensor) else {name: cast(value) for name, value in inputs.items()}


def _call(model: nn.Module, inputs: Mapping[str, Any] | Tensor) -> Any:
    return model(inputs) if isinstance(inputs, Tensor) else model(**inputs)


def output(model: nn.Module, inputs: Mapping[str, Any] | Tensor) -> Tensor:
    """Logits, last hidden state, or the tensor itself."""
    result = _call(model, inputs)
    if isinstance(result, Tensor):
        return result
    for name in ("logits", "last_hidden_state"):
        if getattr(result, name, None) is not None:
            return getattr(result, name)
    raise PeftLabError(f"a {type(result).__name__} has neither logits nor a last hidden state to compare")


def _loss(model: nn.Module, inputs: Mapping[str, Any] | Tensor) -> Tensor:
    result = _call(model, inputs)
    loss = getattr(result, "loss", None)
    return output(model, inputs).square().mean() if loss is None else loss


def relative_difference(a: Tensor, b: Tensor, at_least: float = 1e-30) -> float:
    """max |a - b| over max |b| (or over `at_least`); infinite if the shapes differ or a value is not finite."""
    if a.shape != b.shape or not torch.isfinite(a).all() or not torch.isfinite(b).all():
        return float("inf")
    if a.numel() == 0 or torch.equal(a, b):
        return 0.0
    return float((a - b).abs().max() / b.abs().max().clamp_min(at_least))


# ---- the levels ---------------------------------------------------------------------------------------------------


def _counts(base: nn.Module, ours: nn.Module, theirs: nn.Module, inputs: Any, steps: int) -> tuple[float, str]:
    mine = peftlab.count_parameters(ours)
    trainable, total = theirs.get_nb_trainable_parameters()
    formula = predicted_parameters(base, ours.peftlab.methods["default"])
    differ = max(abs(mine.trainable - trainable), abs(mine.total - total), abs(formula - mine.trainable))
    return float(differ), f"formula {formula:,}, ours {mine.trainable:,}, peft {trainable:,}"


def predicted_parameters(model: nn.Module, method: Method) -> int:
    """Trainable parameters by the card's formulas, before anything is attached."""
    method = method.prepare(model)
    modules = surgery.base_modules(model)
    sites = method.sites(model)
    total = sum(method.parameters_at(site) for site in sites) + method.shared_parameters(model)
    kept = method.kept_sites(modules)
    total += sum(p.numel() for site in kept for p in site.module.parameters())
    biases = {
        id(parameter): parameter.numel()  # a tied one counts once
        for name, own in method.trainable_biases(modules, {s.name for s in sites}).items()
        if not any(name == site.name or name.startswith(f"{site.name}.") for site in kept)
        for parameter in own.values()
    }
    return total + sum(biases.values())


def _outputs(base: nn.Module, ours: nn.Module, theirs: nn.Module, inputs: Any, steps: int) -> tuple[float, str]:
    with torch.no_grad():
        difference = relative_difference(output(ours, inputs), output(theirs, inputs))
    return difference, first_difference(ours, theirs, inputs) if difference > 1e-12 else ""


def first_difference(ours: nn.Module, theirs: nn.Module, inputs: Any, tolerance: float = 1e-12) -> str:
    """The name of the first module, in the order they run, whose output differs; '' if none does."""
    mine = _record(ours, surgery.modules_in_place(ours), inputs)
    inside = {name: m for name, m in theirs.get_base_model().named_modules() if "base_layer" not in name.split(".")}
    reference_ = _record(theirs, inside, inputs)
    for name, tensor in mine.items():
        if name in reference_ and relative_difference(tensor, reference_[name]) > tolerance:
            return name
    return ""


def _record(model: nn.Module, modules: Mapping[str, nn.Module], inputs: Any) -> dict[str, Tensor]:
    """The outputs of these modules in one call of the model, in the order in which they finish."""
    outputs: dict[str, Tensor] = {}
    handles = []
    for name, module in modules.items():
        if not name:
            continue

        def keep(_: nn.Module, __: Any, result: Any, name: str = name) -> None:
            first = result[0] if isinstance(result, tuple) and result else result
            if isinstance(first, Tensor):
                outputs.pop(name, None)
                outputs[name] = first.detach()

        handles.append(module.register_forward_hook(keep))
    try:
        with torch.no_grad():
            _call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def _gradients(base: nn.Module, ours: nn.Module, theirs: nn.Module, inputs: Any, steps: int) -> tuple[float, str]:
    ours.zero_grad(), theirs.zero_grad()
    _loss(ours, inputs).backward()
    _loss(theirs, inputs).backward()
    mine, reference_ = our_tensors(ours), their_tensors(theirs)
    trained = [key for key, tensor in mine.items() if tensor.requires_grad]
    if not any(mine[key].grad is not None and mine[key].grad.any() for key in trained):
        return float("inf"), "no tensor of the adapter has a gradient: nothing to compare"
    # Some gradients are zero on paper (a key's bias: softmax ignores it), and their rounding noise equals nothing.
    largest = max(float(mine[key].grad.abs().max()) for key in trained if mine[key].grad is not None)
    differences = {key: _gradient_difference(mine[key], reference_[key], largest / 100) for key in trained}
    worst = max(differences, key=differences.get)
    return differences[worst], worst


def _gradient_difference(a: Tensor, b: Tensor, at_least: float) -> float:
    if (a.grad is None) != (b.grad is None) or a.requires_grad != b.requires_grad:
        return float("inf")
    return 0.0 if a.grad is None else relative_difference(a.grad, b.grad, at_least)


def _training(base: nn.Module, ours: nn.Module, theirs: nn.Module, inputs: Any, steps: int) -> tuple[float, str]:
    def loss_of(model: nn.Module) -> Tensor:
        return _loss(model, inputs)

    mine, reference_ = (_losses(copy.deepcopy(model), loss_of, steps) for model in (ours, theirs))
    difference = relative_difference(mine, reference_)
    return difference, f"after {steps} steps"


def _losses(model: nn.Module, loss_of: Callable[[nn.Module], Tensor], steps: int, lr: float = 1e-3) -> Tensor:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    losses = []
    for _ in range(steps):
        loss = loss_of(model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


@torch.no_grad()
def _merging(base: nn.Module, ours: nn.Module, theirs: nn.Module, inputs: Any, steps: int) -> tuple[float, str]:
    unmerged = output(ours, inputs)
    with peftlab.folded(ours):
        folded = output(ours, inputs)
    merged = output(peftlab.merge(copy.deepcopy(ours), untie=True), inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference_ = output(copy.deepcopy(theirs).merge_and_unload(), inputs)
    found = {"folded": folded, "merged": merged, "peft's merged": reference_}
    differences = {name: relative_difference(tensor, unmerged) for name, tensor in found.items()}
    worst = max(differences, key=differences.get)
    return differences[worst], worst


@torch.no_grad()
def _files(base: nn.Module, ours: nn.Module, theirs: nn.Module, inputs: Any, steps: int) -> tuple[float, str]:
    import peft

    want, dtype = output(ours, inputs), next(base.parameters()).dtype
    with tempfile.TemporaryDirectory() as ours_folder, tempfile.TemporaryDirectory() as their_folder:
        peftlab.save(ours, ours_folder)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            opened = peft.PeftModel.from_pretrained(copy.deepcopy(base), ours_folder)
            theirs.save_pretrained(their_folder)
        missing = [str(w.message) for w in caught if "missing adapter keys" in str(w.message)]
        if missing:
            return float("inf"), missing[0]
        back = peftlab.load(copy.deepcopy(base), their_folder)
    differences = {
        "ours opened by peft": relative_difference(output(opened.to(dtype).eval(), inputs), want),
        "peft's opened by us": relative_difference(output(back, inputs), want),
    }
    worst = max(differences, key=differences.get)
    return differences[worst], worst
