"""Which modules a pattern means, exactly as Hugging Face peft 0.21.2 resolves it.

A method says *where* it goes with four fields whose names are peft's:

    target_modules        ["q_proj", "v_proj"]   a list: names, or ends of names after a dot
                          ".*[.]0[.].*_proj"     a string: a regular expression, whole name
                          "all-linear"           every linear layer but the output head
                          None                   the default for the model's type
    exclude_modules       a list or a string, read in the same two ways; it wins
    layers_to_transform   a layer index, or a list of them; only with a list of names
    layers_pattern        what stands before the index in a name, e.g. "layers" or "h"

Nothing here changes a model. The tests hold every rule to peft's own resolver. Where peft
surprises, the surprise is kept: an adapter_config.json must mean the same in both libraries.

Known difference: for models whose experts transformers 5 stores as stacked parameters (Mixtral,
Qwen2-MoE), peft first rewrites a LoRA request in terms of `target_parameters`. That is not done
here. It has side effects: in peft, `target_modules=None` fails on Mixtral, and a regular
expression for one layer reaches all of them.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from torch import nn

from peftlab.errors import PeftLabError

T = TypeVar("T")
NamedModule = tuple[str, nn.Module]

ALL_LINEAR = "all-linear"
CLASSIFIER_HEADS = ("score", "classifier")
CONDENSED_FROM = 20  # from this many entries on, peft shortens the list before it matches

# What `target_modules=None` means for LoRA, by `config.model_type`. peft has no entry for
# distilbert, phi3 or vit, so there is none here: what works here must work there.
LORA_DEFAULTS: dict[str, str | tuple[str, ...]] = {
    "bart": ("q_proj", "v_proj"),
    "bert": ("query", "value"),
    "bloom": ("query_key_value",),
    "codegen": ("qkv_proj",),
    "deberta": ("in_proj",),
    "deberta-v2": ("query_proj", "value_proj"),
    "electra": ("query", "value"),
    "falcon": ("query_key_value",),
    "gemma": ("q_proj", "v_proj"),
    "gemma2": ("q_proj", "v_proj"),
    "gemma3_text": ("q_proj", "v_proj"),
    "gemma4": r".*language_model\..*\.(q_proj|v_proj)",
    "gpt2": ("c_attn",),
    "gpt_bigcode": ("c_attn",),
    "gpt_neo": ("q_proj", "v_proj"),
    "gpt_neox": ("query_key_value",),
    "gptj": ("q_proj", "v_proj"),
    "llama": ("q_proj", "v_proj"),
    "mistral": ("q_proj", "v_proj"),
    "mixtral": ("q_proj", "v_proj"),
    "mpt": ("Wqkv",),
    "mt5": ("q", "v"),
    "opt": ("q_proj", "v_proj"),
    "phi": ("q_proj", "v_proj", "fc1", "fc2"),
    "qwen2": ("q_proj", "v_proj"),
    "qwen3": ("q_proj", "v_proj"),
    "roberta": ("query", "value"),
    "stablelm": ("q_proj", "v_proj"),
    "t5": ("q", "v"),
    "xlm-roberta": ("query", "value"),
}


class TargetError(PeftLabError):
    """The request names no module of this model, or contradicts itself."""


class TargetWarning(UserWarning):
    """A part of the request has no effect on this model."""


# ------------------------------------------------------------------------------------- the verbs


def resolve_targets(
    model: nn.Module,
    target_modules: str | Collection[str] | None,
    *,
    exclude_modules: str | Collection[str] | None = None,
    layers_to_transform: int | Collection[int] | None = None,
    layers_pattern: str | Collection[str] | None = None,
    modules_to_save: Collection[str] | None = None,
    task_type: str | None = None,
    default: Mapping[str, str | Collection[str]] | None = None,
    modules: Mapping[str, nn.Module] | None = None,
    skip: Callable[[str, nn.Module], bool] | None = None,
) -> list[str]:
    """Names of the modules meant, in the order of `modules`.

    The first four fields are explained at the top of this file. The others:

    modules_to_save: modules trained whole; they, and all inside them, are never targets.
    task_type: peft's field. "SEQ_CLS" lets "all-linear" leave out `score` or `classifier`.
    default: {model_type: target_modules} for `target_modules=None`; `LORA_DEFAULTS` if None.
    modules: what may be meant, by name; `model.named_modules()` if None. For a model that carries
        adapters: its modules as they were before.
    skip: `skip(name, module)` is true for a module that is no candidate, and nothing inside it
        either: another way to keep out the insides of attached adapters.

    Raises TargetError, a ValueError, when no module is left, a regular expression is invalid or
    the fields contradict each other. Warns with TargetWarning of parts without effect.
    """
    _refuse_wrong_types(
        target_modules=target_modules,
        exclude_modules=exclude_modules,
        layers_to_transform=layers_to_transform,
        layers_pattern=layers_pattern,
        modules_to_save=modules_to_save,
    )
    _refuse_contradictions(target_modules, layers_to_transform, layers_pattern)
    remarks: list[str] = []
    # peft reads an empty list as "all layers", but an empty tuple as "no layer".
    by_layer = layers_to_transform is not None and layers_to_transform != []
    if target_modules is None:
        target_modules = default_targets(model, LORA_DEFAULTS if default is None else default)
        if by_layer and isinstance(target_modules, str):
            # peft refuses layers beside a user's string, yet is silent beside such a default.
            remarks.append("layers_to_transform is ignored: this model's default is a string.")

    modules = dict(model.named_modules()) if modules is None else modules
    candidates = _candidates(modules, skip)
    matched = _matching(target_modules, candidates, model, task_type)
    if not matched:
        raise TargetError(_nothing_matched(target_modules, candidates))
    if not isinstance(target_modules, str):
        remarks += _dead_entries(target_modules, candidates)

    if by_layer and not isinstance(target_modules, str):
        wanted = _as_set(layers_to_transform)
        layer_of = _layer_reader(layers_pattern)
        # A module named in full is taken in any layer: peft asks for the layer only after a match
        # by ending. Shortening a long list can turn a full name into an ending.
        in_full = _condensed(target_modules, modules)
        in_layers = [name for name in matched if name in in_full or layer_of(name) in wanted]
        present = {layer for name in matched if (layer := layer_of(name)) is not None}
        if not in_layers:
            raise TargetError(_no_layer_matched(matched, wanted, layers_pattern, present))
        if missing := wanted - present:
            remarks.append(
                f"layers_to_transform: no module matches in layer {_ranges(missing)}; "
                f"layers with a match: {_ranges(present)}."
            )
    else:
        in_layers = matched

    excluded = _exclusion(exclude_modules, modules_to_save)
    targets = [name for name in in_layers if not excluded(name)]
    if not targets:
        raise TargetError(
            f"All {len(in_layers)} modules meant by target_modules={_shown(target_modules)} are "
            f"excluded (exclude_modules={_shown(exclude_modules)}, "
            f"modules_to_save={_shown(modules_to_save)}): exclude less, or target more."
        )
    if exclude_modules and len(targets) == len(in_layers):
        remarks.append(
            f"exclude_modules={_shown(exclude_modules)} removes no targeted module. A name excludes"
            " the module of that name, not what is inside it; a regular expression can."
        )
    for remark in remarks:
        warnings.warn(remark, TargetWarning, stacklevel=2)
    return targets


def default_targets(
    model: nn.Module, table: Mapping[str, str | Collection[str]]
) -> list[str] | str:
    """What `target_modules=None` means for this model: the table's entry for its `model_type`.

    Raises TargetError when the model states no type or the table does not know it.
    """
    config = getattr(model, "config", None)
    if isinstance(config, Mapping):
        model_type = config.get("model_type")
    else:
        model_type = getattr(config, "model_type", None)
    if model_type not in table:
        whose = f"model type {model_type!r}" if model_type else f"a {type(model).__name__}"
        census = _linear_census(_candidates(dict(model.named_modules())))
        raise TargetError(f"No default targets for {whose}: name target_modules. {census}")
    chosen = table[model_type]
    return chosen if isinstance(chosen, str) else list(chosen)


def pattern_value(patterns: Mapping[str, T], module_name: str, default: T) -> T:
    """One module's value in `rank_pattern` or `alpha_pattern`; `default` where no key applies.

    A key is a regular expression for the end of a name, from the name's start or from after a
    dot. The first key that matches decides, in the mapping's order: no key is "more specific".

    Raises TargetError for an invalid regular expression.
    """
    for key, value in patterns.items():
        # Plain groups, as in peft: a back-reference in a key counts them.
        if _compile("rank_pattern or alpha_pattern", key, r"(.*\.)?(", ")").fullmatch(module_name):
            return value
    # For a key that is the name itself but, read as a regular expression, does not match it.
    return patterns.get(module_name, default)


# ---------------------------------------------------------------------------------- the matching


def _candidates(
    modules: Mapping[str, nn.Module], skip: Callable[[str, nn.Module], bool] | None = None
) -> list[NamedModule]:
    """Every module but the root and what `skip` takes out."""
    kept = []
    skipped = None
    for name, module in modules.items():
        inside_skipped = skipped is not None and name.startswith(skipped + ".")
        if not name or inside_skipped:
            continue
        if skip is not None and skip(name, module):
            skipped = name  # its insides come next: the order is depth first
            continue
        kept.append((name, module))
    return kept


def _matching(
    target_modules: str | Collection[str],
    candidates: list[NamedModule],
    model: nn.Module,
    task_type: str | None,
) -> list[str]:
    """The candidates that target_modules alone means, before layers and exclusions."""
    names = [name for name, _ in candidates]
    if not isinstance(target_modules, str):
        endings = set(target_modules)
    elif target_modules.lower() == ALL_LINEAR:
        # peft turns the layers it finds into a list of names, so each also counts as an ending:
        # a Linear "proj" at the root takes "block.proj" along, whatever class that is.
        endings = {name for name, module in candidates if _is_linear(module)}
        endings -= _head_names(model, candidates, task_type)
    else:
        whole_name = _compile("target_modules", target_modules)
        return [name for name in names if whole_name.fullmatch(name)]
    return [name for name in names if _is_or_ends_with(name, endings)]


def _is_or_ends_with(name: str, entries: Collection[str]) -> bool:
    return any(ending in entries for ending in _endings(name))


def _endings(name: str) -> list[str]:
    """a.b.c -> c, b.c, a.b.c"""
    parts = name.split(".")
    return [".".join(parts[start:]) for start in reversed(range(len(parts)))]


def _is_linear(module: nn.Module) -> bool:
    """nn.Linear, its quantised subclasses, Conv1D; a wrapper counts as what it wraps."""
    if callable(getattr(module, "get_base_layer", None)):
        module = module.get_base_layer()
    return isinstance(module, nn.Linear) or _is_transformers_class(module, "Conv1D")


def _is_transformers_class(thing: object, class_name: str) -> bool:
    """isinstance against a class of transformers, without importing transformers."""
    return any(
        base.__name__ == class_name and base.__module__.partition(".")[0] == "transformers"
        for base in type(thing).__mro__
    )


def _head_names(model: nn.Module, candidates: list[NamedModule], task_type: str | None) -> set[str]:
    """The output head that "all-linear" leaves out of a transformers model.

    Only the module itself: where `classifier` is a block of layers (RoBERTa), peft targets the
    layers inside it unless modules_to_save names the block.
    """
    if not _is_transformers_class(model, "PreTrainedModel"):
        return set()
    head = model.get_output_embeddings()
    if head is None and task_type == "SEQ_CLS":
        heads = (getattr(model, name, None) for name in CLASSIFIER_HEADS)
        head = next((found for found in heads if found is not None), None)
    # Both lists, because a head that carries an adapter is another object in each.
    return {name for name, module in [*model.named_modules(), *candidates] if module is head}


def _exclusion(
    exclude_modules: str | Collection[str] | None, modules_to_save: Collection[str] | None
) -> Callable[[str], bool]:
    """name -> is it taken out?"""
    saved = [
        _compile("modules_to_save", name, r"(.*\.)?", r"(\.|$)") for name in modules_to_save or ()
    ]
    if exclude_modules and isinstance(exclude_modules, str):
        whole_name = _compile("exclude_modules", exclude_modules)
    else:
        whole_name = None

    def excluded(name: str) -> bool:
        if any(pattern.match(name) for pattern in saved):
            return True
        if whole_name is not None:
            return whole_name.fullmatch(name) is not None
        return _is_or_ends_with(name, exclude_modules or ())

    return excluded


def _layer_reader(layers_pattern: str | Collection[str] | None) -> Callable[[str], int | None]:
    """name -> layer index or None, as peft reads it from the name."""
    if not layers_pattern:
        return _third_or_later_number
    # The index is the last group, and the lazy start finds its first place in the name. The pattern
    # stands without brackets, as in peft: "h|layers" means "h" or "layers.3." at the name's start,
    # which finds next to nothing. Write ["h", "layers"].
    regexes = [
        _compile("layers_pattern", pattern, r"(?:.*?\.)??", r"\.(\d+)\.")
        for pattern in _as_list(layers_pattern)
    ]

    def layer_of(name: str) -> int | None:
        for regex in regexes:
            if match := regex.match(name):
                digits = match.group(regex.groups)
                return None if digits is None else int(digits)
        return None

    return layer_of


def _third_or_later_number(name: str) -> int | None:
    """The first number in a dotted name that is third or later and has more after it.

    So `model.layers.3.mlp` is in layer 3, but `layers.3.mlp` (in a bare decoder) is in none.
    """
    return next((int(part) for part in name.split(".")[2:-1] if part.isdecimal()), None)


def _condensed(entries: Collection[str], all_names: Collection[str]) -> set[str]:
    """The entries as peft keeps them: of a long list, the shortest endings that still separate.

    The same modules match. What changes is which entries are still the full name of a module.
    """
    entries = set(entries)
    if len(entries) < CONDENSED_FROM:
        return entries
    unmatched = [name for name in all_names if not _is_or_ends_with(name, entries)]
    taken = {ending for name in unmatched for ending in _endings(name)}
    shortest = {
        next((ending for ending in _endings(entry) if ending not in taken), entry)
        for entry in entries
    }
    return shortest if len(shortest) < len(entries) else entries


def _as_list(value: str | Collection[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _as_set(value: int | Collection[int]) -> set[int]:
    return {value} if isinstance(value, int) else set(value)


# ------------------------------------------------------------------------------ refusals, messages


def _refuse_wrong_types(**fields: object) -> None:
    for field, value in fields.items():
        kind, one, many = (str, "a string", "strings")
        if field == "layers_to_transform":
            kind, one, many = (int, "an integer", "integers")
        one_is_enough = field != "modules_to_save"
        if value is None or (one_is_enough and isinstance(value, kind)):
            continue
        is_list = isinstance(value, Collection) and not isinstance(value, (str, bytes))
        if not is_list or not all(isinstance(item, kind) for item in value):
            wanted = f"{one}, a list of {many}" if one_is_enough else f"a list of {many}"
            raise TargetError(f"{field} must be {wanted} or None, not {value!r}.")


def _refuse_contradictions(
    target_modules: str | Collection[str] | None,
    layers_to_transform: int | Collection[int] | None,
    layers_pattern: str | Collection[str] | None,
) -> None:
    given = {"layers_to_transform": layers_to_transform, "layers_pattern": layers_pattern}
    for field, value in given.items():
        if isinstance(target_modules, str) and value is not None:
            raise TargetError(
                f"{field} cannot be used when target_modules is a string: write the layer into the "
                "regular expression, or give target_modules as a list of names."
            )
    if layers_pattern and layers_to_transform is None:
        raise TargetError(
            f"layers_pattern={_shown(layers_pattern)} says where the layer index stands: also give "
            "layers_to_transform, the indices."
        )


def _compile(field: str, written: str, before: str = "", after: str = "") -> re.Pattern[str]:
    """The pattern a user wrote, set between ours; an error speaks of the user's part only."""
    try:
        return re.compile(f"{before}{written}{after}")
    except re.error as problem:
        position = max(0, (problem.pos or 0) - len(before))
        place = repr(written[position:]) if position < len(written) else "the end"
        raise TargetError(
            f"{field}: {written!r} is not a valid regular expression: {problem.msg} at position "
            f"{position} ({place}). For all names that end with 'q_proj' write the list ['q_proj']."
        ) from None


def _nothing_matched(target_modules: str | Collection[str], candidates: list[NamedModule]) -> str:
    names = [name for name, _ in candidates]
    if not target_modules:
        problem = "target_modules is empty: name at least one module."
    else:
        problem = f"target_modules={_shown(target_modules)} matches no module of this model."
    return f"{problem}{_hints(target_modules, names)} {_linear_census(candidates)}"


def _dead_entries(entries: Collection[str], candidates: list[NamedModule]) -> list[str]:
    """A remark on the entries that match nothing, if there are any; peft ignores them silently."""
    names = [name for name, _ in candidates]
    alive = {ending for name in names for ending in _endings(name)}
    dead = [entry for entry in entries if entry not in alive]
    if not dead:
        return []
    return [f"target_modules: {_shown(dead)} matches no module, ignored.{_hints(dead, names)}"]


def _hints(unmatched: str | Collection[str], names: list[str], most: int = 5) -> str:
    """What the user may have meant: nothing, or sentences that begin with a space."""
    if isinstance(unmatched, str):
        hints = [_hint_for_string(unmatched, names)]
    else:
        hints = [_hint_for_entry(entry, names) for entry in unmatched]
    return "".join(f" {hint}" for hint in [hint for hint in hints if hint][:most])


def _hint_for_string(pattern: str, names: list[str]) -> str:
    if pattern.lower() == ALL_LINEAR:
        return ""
    if by_ending := sum(_is_or_ends_with(name, {pattern}) for name in names):
        return (
            "A string is a regular expression for the whole name; the list "
            f"[{pattern!r}] matches {by_ending} modules by their ending."
        )
    words = re.findall(r"[^\W\d]\w+", pattern)
    return _did_you_mean(words[-1], names) if words else ""


def _hint_for_entry(entry: str, names: list[str]) -> str:
    if entry.lower() == ALL_LINEAR:
        return f"{ALL_LINEAR!r} is understood as a string, not inside a list."
    if re.search(r"[*+?|^$()\[\]\\]", entry):
        return f"{entry!r} is a pattern, but a list holds plain names: give patterns as a string."
    return _did_you_mean(entry, names)


def _did_you_mean(entry: str, names: list[str]) -> str:
    depth = entry.count(".") + 1
    endings = {".".join(name.split(".")[-depth:]) for name in names} - {entry}
    close = difflib.get_close_matches(entry, sorted(endings), n=3)
    return f"For {entry!r}, did you mean {' or '.join(map(repr, close))}?" if close else ""


def _linear_census(candidates: list[NamedModule], most: int = 12) -> str:
    """The last parts of the names of the linear layers (or, without any, of all layers)."""
    layers = [name for name, module in candidates if _is_linear(module)]
    title = "Linear layers here"
    if not layers:
        layers = [name for name, module in candidates if list(module.parameters(False))]
        title = "No linear layers here; layers with weights"
    counts = Counter(name.rpartition(".")[2] for name in layers)
    listed = [f"{name} ({count})" for name, count in counts.most_common(most)]
    if len(counts) > most:
        listed.append(f"{len(counts) - most} more names")
    return f"{title}: {', '.join(listed) or 'none'}."


def _no_layer_matched(
    matched: list[str],
    wanted: set[int],
    layers_pattern: str | Collection[str] | None,
    present: set[int],
) -> str:
    asked = f"layers_to_transform={sorted(wanted)} leaves none of the {len(matched)} matches"
    if present:
        return f"{asked}: they are in layers {_ranges(present)}."
    if layers_pattern:
        return (
            f"{asked}: no layer index in names such as {matched[0]!r}, where "
            f"layers_pattern={_shown(layers_pattern)} should stand right before it."
        )
    return (
        f"{asked}: no layer index found in names such as {matched[0]!r}. Without layers_pattern it "
        "must be the third part of the name or later, with more after it; give layers_pattern, the "
        "part before the index."
    )


def _ranges(numbers: Collection[int]) -> str:
    """{0, 1, 2, 5} -> '0-2, 5'"""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _shown(value: str | Collection[str] | None, most: int = 6) -> str:
    """As the user wrote it, but never a screenful; sets in a stable order."""
    if value is None or isinstance(value, str):
        return repr(value)
    items = sorted(value) if isinstance(value, (set, frozenset)) else list(value)
    shown = [repr(item) for item in items[:most]]
    if len(items) > most:
        shown.append(f"and {len(items) - most} more")
    return f"[{', '.join(shown)}]"
