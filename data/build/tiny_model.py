"""Train the tiny language model on one GPU, from nothing, and write it where the course loads it.

    python data/build/tiny_model.py train CORPUS RUNS        # each learning rate in turn; goes on where it stopped
    python data/build/tiny_model.py export CORPUS RUNS OUT   # the run with the lowest validation loss, as float16

CORPUS is what tiny_corpus.py wrote. Every run keeps the weights of its best validation loss; the test split is read
once, at export. On one H100 a run takes a minute or two. On a CPU it works too, for a very patient person.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END, PADDING = "<|endoftext|>", "<|padding|>"
CONTEXT = 256
IGNORED = -100
BATCH = 128  # windows of CONTEXT tokens
CANDIDATES = ((1e-3, 12), (2e-3, 12), (4e-3, 12), (8e-3, 12), (2e-3, 24), (4e-3, 24))  # learning rate, epochs
WARMUP, FINAL = 0.03, 0.02  # share of the steps; share of the learning rate that is left at the end
WEIGHT_DECAY, BETAS, CLIP = 0.1, (0.9, 0.95), 1.0
EVALUATIONS = 24  # of the validation loss, evenly over a run
SEED = 0


def new_model(vocabulary: int) -> LlamaForCausalLM:
    """7.4 million parameters, float32, drawn with SEED."""
    torch.manual_seed(SEED)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary, hidden_size=256, intermediate_size=688, num_hidden_layers=8, num_attention_heads=4,
            num_key_value_heads=4, max_position_embeddings=CONTEXT, tie_word_embeddings=True, attention_dropout=0.0,
            bos_token_id=0, eos_token_id=0, pad_token_id=1,
        )
    )  # fmt: skip


# ---- data -----------------------------------------------------------------------------------------------------------


@dataclass
class Corpus:
    """One split: all documents' tokens one after the other, each closed by the end-of-text token (number 0)."""

    tokens: np.ndarray  # (tokens,) uint16
    lengths: np.ndarray  # (documents,)
    characters: np.ndarray  # (documents,)
    sources: np.ndarray  # (documents,) number of the source
    names: list[str]

    @classmethod
    def read(cls, folder: Path, split: str) -> Corpus:
        with np.load(folder / f"{split}.npz", allow_pickle=False) as arrays:
            names = [str(name) for name in arrays["names"]]
            return cls(arrays["tokens"], arrays["lengths"], arrays["characters"], arrays["sources"], names)

    def documents(self) -> list[np.ndarray]:
        return np.split(self.tokens, np.cumsum(self.lengths)[:-1])


def epochs(corpus: Corpus, device: torch.device, batch: int = BATCH, seed: int = SEED) -> Iterator[Tensor]:
    """Batches (batch, CONTEXT + 1) without end: documents in a new order in every epoch, cut into windows, shuffled."""
    documents = corpus.documents()
    random = np.random.default_rng(seed)
    while True:
        stream = np.concatenate([documents[number] for number in random.permutation(len(documents))])
        stream = np.roll(stream, random.integers(CONTEXT)).astype(np.int64)
        windows = torch.from_numpy(stream).unfold(0, CONTEXT + 1, CONTEXT)
        order = torch.from_numpy(random.permutation(len(windows) // batch * batch)).view(-1, batch)
        for rows in order:
            yield windows[rows].to(device, non_blocking=True)


def held_out(corpus: Corpus, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """inputs (windows, CONTEXT), targets (windows, CONTEXT) with IGNORED as padding, source (windows,).

    Every document by itself: an end-of-text token, then windows that do not overlap and do not see one another. That
    is a little pessimistic for long documents.
    """
    inputs, targets, sources = [], [], []
    for document, source in zip(corpus.documents(), corpus.sources, strict=True):
        whole = np.concatenate([[0], document]).astype(np.int64)
        for start in range(0, len(whole) - 1, CONTEXT):
            window = whole[start : start + CONTEXT + 1]
            padding = CONTEXT + 1 - len(window)
            inputs.append(np.pad(window[:-1], (0, padding)))
            targets.append(np.pad(window[1:], (0, padding), constant_values=IGNORED))
            sources.append(source)
    stacked = (torch.from_numpy(np.stack(array)).to(device) for array in (inputs, targets))
    return *stacked, torch.tensor(np.array(sources, dtype=np.int64), device=device)


# ---- training -------------------------------------------------------------------------------------------------------


def losses(model: torch.nn.Module, windows: Tensor) -> Tensor:
    """Mean nats per token over a batch (batch, CONTEXT + 1) of windows."""
    with torch.autocast(windows.device.type, torch.bfloat16, enabled=windows.device.type == "cuda"):
        logits = model(input_ids=windows[:, :-1], use_cache=False).logits
    return F.cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten())


@torch.no_grad()
def evaluate(model: torch.nn.Module, data: tuple[Tensor, Tensor, Tensor], names: list[str]) -> dict[str, dict]:
    """source -> {loss: nats per token, tokens}, and "all"."""
    inputs, targets, sources = data
    nats = torch.zeros(len(names), dtype=torch.float64, device=inputs.device)
    tokens = torch.zeros_like(nats)
    model.eval()
    for start in range(0, len(inputs), 2 * BATCH):
        rows = slice(start, start + 2 * BATCH)
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=inputs.device.type == "cuda"):
            logits = model(input_ids=inputs[rows], use_cache=False).logits
        each = F.cross_entropy(logits.float().flatten(0, 1), targets[rows].flatten(), reduction="none")
        nats.index_add_(0, sources[rows], each.view(-1, CONTEXT).sum(1).double())
        tokens.index_add_(0, sources[rows], (targets[rows] != IGNORED).sum(1).double())
    model.train()
    found = {name: (float(nats[n]), int(tokens[n])) for n, name in enumerate(names)}
    found["all"] = (float(nats.sum()), int(tokens.sum()))
    return {name: {"loss": round(total / count, 4), "tokens": count} for name, (total, count) in found.items()}


def learning_rate(step: int, steps: int, peak: float) -> float:
    """A short linear rise, then half a cosine down to FINAL of the peak."""
    rise = max(1, round(WARMUP * steps))
    if step < rise:
        return peak * (step + 1) / rise
    way = (step - rise) / max(1, steps - rise)
    return peak * (FINAL + (1 - FINAL) * 0.5 * (1 + math.cos(math.pi * way)))


def train(corpus: Path, folder: Path, peak: float, n_epochs: float, compiled: bool) -> dict:
    """One run. Writes the weights of the best validation loss and record.json to `folder`; returns the record."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    data = Corpus.read(corpus, "train")
    validation = Corpus.read(corpus, "validation")
    held = held_out(validation, device)
    model = new_model(_vocabulary(corpus)).to(device)
    fast = torch.compile(model) if compiled else model
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    gains = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=BETAS, fused=device.type == "cuda")

    steps = max(1, round(n_epochs * len(data.tokens) / (BATCH * CONTEXT)))
    every = max(1, steps // EVALUATIONS)
    curve: list[dict] = []
    best, since, recent = math.inf, time.perf_counter(), []
    folder.mkdir(parents=True, exist_ok=True)
    with PowerMeter() as power:
        stream = epochs(data, device)
        bar = tqdm(range(1, steps + 1), desc=f"lr {peak:g}, {n_epochs:g} epochs", mininterval=5)
        for step in bar:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step - 1, steps, peak)
            loss = losses(fast, next(stream))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            recent.append(loss.detach())
            if step % every == 0 or step == steps:
                mean = torch.stack(recent).mean().item()
                recent = []
                if not math.isfinite(mean):
                    raise SystemExit(f"The loss is {mean} at step {step}: lower the learning rate {peak:g}.")
                found = evaluate(model, held, validation.names)["all"]["loss"]
                curve.append({"step": step, "tokens": step * BATCH * CONTEXT, "train": round(mean, 4), "held": found})
                bar.set_postfix(train=f"{mean:.3f}", held=f"{found:.3f}")
                if found < best:
                    best = found
                    _save(model, folder / "best.safetensors")
    record = {
        "lr": peak, "epochs": n_epochs, "steps": steps, "batch": BATCH, "context": CONTEXT, "seed": SEED,
        "best": best, "curve": curve, "seconds": round(time.perf_counter() - since, 1),
        "watt_hours": power.watt_hours(), "environment": _environment(),
    }  # fmt: skip
    _write(folder / "record.json", record)
    return record


class PowerMeter:
    """What the GPU draws, asked of nvidia-smi once a second: the board, not the machine around it."""

    def __init__(self) -> None:
        self.readings: list[tuple[float, float]] = []  # seconds, watts
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> PowerMeter:
        if torch.cuda.is_available():
            self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _read(self) -> None:
        command = ["nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits", "--id=0"]
        while not self._stop.wait(1.0):
            try:
                answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                self.readings.append((time.perf_counter(), float(answer)))
            except (OSError, subprocess.CalledProcessError, ValueError):
                return  # no nvidia-smi: the record says None

    def watt_hours(self) -> float | None:
        """The area under the readings; None if there are fewer than two."""
        if len(self.readings) < 2:
            return None
        seconds, watts = zip(*self.readings, strict=True)
        return round(float(np.trapezoid(watts, seconds)) / 3600, 3)


# ---- export ---------------------------------------------------------------------------------------------------------


def export(corpus: Path, runs: Path, out: Path) -> dict:
    """Write the best run as a folder that transformers opens, float16, with training.json beside it."""
    records = {path.parent: json.loads(path.read_text()) for path in sorted(runs.glob("*/record.json"))}
    if not records:
        raise SystemExit(f"{runs} holds no finished run: train first.")
    chosen = min(records, key=lambda folder: records[folder]["best"])
    model = new_model(_vocabulary(corpus))
    model.load_state_dict(load_file(chosen / "best.safetensors"), strict=False)  # the head is the embedding
    model.generation_config = GenerationConfig(eos_token_id=0, bos_token_id=0, pad_token_id=1)
    model = model.half()
    model.save_pretrained(out)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(corpus / "tokenizer.json"), bos_token=END, eos_token=END, pad_token=PADDING,
        model_max_length=CONTEXT, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.save_pretrained(out)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    test = Corpus.read(corpus, "test")
    model = model.float().to(device)  # what is measured is what was saved: rounded to float16
    found = evaluate(model, held_out(test, device), test.names)
    characters = np.bincount(test.sources, weights=test.characters)
    for number, name in enumerate(test.names):
        bits = found[name]["loss"] * found[name]["tokens"] / math.log(2)
        found[name]["bits_per_character"] = round(bits / characters[number], 3)
    for values in found.values():
        values["perplexity"] = round(math.exp(values["loss"]), 1)
    about = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "chosen": records[chosen],
        "candidates": [{key: r[key] for key in _SUMMARY} for r in records.values()],
        "corpus": json.loads((corpus / "corpus.json").read_text()),
        "test": found,
    }
    _write(out / "training.json", about)
    return about


_SUMMARY = ("lr", "epochs", "steps", "best", "seconds", "watt_hours")


def _vocabulary(corpus: Path) -> int:
    return json.loads((corpus / "corpus.json").read_text())["vocabulary"]


def _save(model: torch.nn.Module, path: Path) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    save_file(tensors, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def _write(path: Path, content: dict) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _environment() -> dict[str, str]:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {"device": device, "torch": torch.__version__, "transformers": transformers.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("train", "export"):
        command = commands.add_parser(name)
        command.add_argument("corpus", type=Path)
        command.add_argument("runs", type=Path)
        if name == "export":
            command.add_argument("out", type=Path)
        else:
            command.add_argument("--only", type=float, nargs=2, metavar=("LR", "EPOCHS"), help="one run, not the grid")
            command.add_argument("--plain", action="store_true", help="without torch.compile")
    arguments = parser.parse_args()
    if arguments.command == "export":
        about = export(arguments.corpus, arguments.runs, arguments.out)
        print(json.dumps(about["test"], indent=1))
        return
    for peak, n_epochs in [arguments.only] if arguments.only else CANDIDATES:
        folder = arguments.runs / f"lr{peak:g}_epochs{n_epochs:g}"
        if (folder / "record.json").is_file():
            continue
        record = train(arguments.corpus, folder, peak, n_epochs, compiled=not arguments.plain)
        print(f"{folder.name}: validation {record['best']:.4f} in {record['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
