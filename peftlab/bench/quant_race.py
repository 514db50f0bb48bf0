"""Which four bits? Int4, FP4 and NF4 on the error of all matrices, and on text that the tiny model has never read.

Every format is measured with several block sizes, its scales (and for int4_asymmetric its minima) in 8 bits, so that
formats can be compared at equal bits. "fitted" are 16 levels that Lloyd's algorithm fitted to the model's own weights:
what a fixed codebook could reach at best, nearly.

The text: 300 documents of each of four kinds, none of which the tiny model was trained on. Differences are paired,
document by document, with a 95 % interval from a bootstrap over documents. That interval knows the luck of the text,
not that of the rounding: a weight just beside a boundary goes up or down by chance. So every format is measured again
with the columns of each matrix shuffled before and put back after: other neighbours, other scales, other roundings.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftlab.bench.results import Results
from peftlab.course import sixteen_levels
from peftlab.course.sixteen_levels import block_matrices
from peftlab.quant import CODEBOOKS, levels_of, quantize
from peftlab.tasks import datasets, models

KINDS = tuple(CODEBOOKS)
BLOCKSIZES = (32, 64, 128, 256)
DOCUMENTS = 300  # of each kind of text
RESAMPLES = 2000
REFERENCE = "nf4/64"
SHUFFLES = (1, 2, 3, 4, 5)  # seeds: 0 is the order of columns as it is
Rounding = Callable[[Tensor], Tensor]


def run(results: Results) -> None:
    torch.set_num_threads(1)
    results.settings(
        kinds=KINDS, blocksizes=BLOCKSIZES, double=True, documents=DOCUMENTS, resamples=RESAMPLES,
        threads=1, reference=REFERENCE, shuffles=SHUFFLES,
    )  # fmt: skip
    loaded = {name: models.load(name) for name in ("tiny", "minilm")}
    for name, (model, _) in loaded.items():
        matrices = block_matrices(model)
        for kind in KINDS:
            for blocksize in BLOCKSIZES:
                results.cell(f"error/{name}/{kind}/{blocksize}", partial(errors, matrices, kind, blocksize))
        results.cell(f"levels/{name}", partial(fitted_levels, matrices))
        results.cell(f"error/{name}/fitted/64", partial(fitted_error, matrices, results.content["cells"], name))
        results.cell(f"shape/{name}", partial(shape, matrices))

    model, tokenizer = loaded["tiny"]
    texts = held_out()
    nats = cache(lambda form: document_nats(model, tokenizer, texts, rounding(form, results.content["cells"])))
    formats = [f"{kind}/{b}" for kind in KINDS for b in BLOCKSIZES]
    for form in dict.fromkeys(["fp32", REFERENCE, *formats, "fitted/64"]):
        results.cell(f"text/tiny/{form}", lambda form=form: compared(form, nats))
    for form in formats:
        rounds = rounding(form, results.content["cells"])
        for seed in SHUFFLES:
            results.cell(f"shuffled/tiny/{form}/{seed}", lambda r=rounds, seed=seed: mean_loss(
                *document_nats(model, tokenizer, texts, lambda W: shuffled(r, W, seed))))  # fmt: skip


# ---- errors ---------------------------------------------------------------------------------------------------------


def errors(matrices: dict[str, Tensor], kind: str, blocksize: int) -> dict[str, Any]:
    """‖Ŵ - W‖ / ‖W‖ over all matrices and of each one, and the bits that a weight costs, scales included."""
    single, off, size, bits, count = [], 0.0, 0.0, 0.0, 0
    for W in matrices.values():
        q = quantize(W, kind, blocksize, double=True)
        d, w = (q.dequantize() - W).double().square().sum().item(), W.double().square().sum().item()
        single.append(round((d / w) ** 0.5, 5))
        off, size = off + d, size + w
        bits, count = bits + q.bits_per_parameter * W.numel(), count + W.numel()
    return {"error": round((off / size) ** 0.5, 5), "bits": round(bits / count, 4), "matrices": single}


def fitted_levels(matrices: dict[str, Tensor]) -> list[float]:
    """Lloyd's algorithm on all matrices together, from NF4's levels."""
    found = sixteen_levels.fitted(sixteen_levels.moments(matrices.values()), levels_of("nf4"))
    return [round(level, 5) for level in found.tolist()]


def fitted_error(matrices: dict[str, Tensor], cells: dict[str, Any], name: str) -> dict[str, Any]:
    off = size = 0.0
    for W in matrices.values():
        off += (sixteen_levels.round_trip(W, cells[f"levels/{name}"]) - W).double().square().sum().item()
        size += W.double().square().sum().item()
    return {"error": round((off / size) ** 0.5, 5), "bits": cells[f"error/{name}/nf4/64"]["bits"]}


def shape(matrices: dict[str, Tensor]) -> dict[str, float]:
    """How far from normal the weights are: the median excess kurtosis of a matrix (normal: 0), and the largest."""
    found = sorted(((w - w.mean()).pow(4).mean() / w.var(correction=0).square() - 3).item() for w in matrices.values())
    return {"kurtosis_median": round(found[len(found) // 2], 3), "kurtosis_largest": round(found[-1], 3)}


def shuffled(rounded: Rounding, W: Tensor, seed: int) -> Tensor:
    """W rounded with its columns in another order, and then put back: every block has other weights of the same row."""
    order = torch.randperm(W.shape[1], generator=torch.Generator().manual_seed(seed))
    return rounded(W[:, order])[:, order.argsort()]


# ---- text -----------------------------------------------------------------------------------------------------------


def held_out() -> dict[str, list[str]]:
    """Four kinds of text that are in none of the tiny model's training documents, and share no document."""
    topics = datasets.read_splits(datasets.data_folder() / "wordnet_topics.csv",
                                  ("split", "topic", "word", "definition"), datasets.SPLITS)  # fmt: skip
    nouns = [f"{row['word']}: {row['definition']}." for row in topics if row["split"] == "test"][:DOCUMENTS]
    seen = {text.partition(": ")[2] for text in nouns}
    words = [f"{e.word}: {e.definition}." for e in datasets.load("define_word").test if f"{e.definition}." not in seen]
    verses = datasets.load("verse_pairs").test[:DOCUMENTS]
    return {
        "nouns": nouns,
        "words": words[:DOCUMENTS],
        "modern verses": [pair.modern for pair in verses],
        "King James verses": [pair.archaic for pair in verses],
    }


def rounding(form: str, cells: dict[str, Any]) -> Rounding | None:
    """What a form does to a weight: 'nf4/64', 'fitted/64'; None for 'fp32'."""
    kind, _, blocksize = form.partition("/")
    if kind == "fp32":
        return None
    if kind == "fitted":
        return lambda W: sixteen_levels.round_trip(W, cells["levels/tiny"], int(blocksize))
    return lambda W: quantize(W, kind, int(blocksize), double=True).dequantize()


@torch.no_grad()
def document_nats(
    model: nn.Module, tokenizer: Any, texts: dict[str, list[str]], rounded: Rounding | None, batch_size: int = 50
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """For each kind of text: the nats of every document, and its tokens. Each document begins after an end of text."""
    model = copy.deepcopy(model).eval()
    if rounded is not None:
        for module in model.modules():
            if isinstance(module, nn.Linear) and module is not model.lm_head:
                module.weight.copy_(rounded(module.weight))
    end = tokenizer.eos_token_id
    nats, tokens = {}, {}
    for kind, documents in texts.items():
        rows = [torch.tensor([end, *ids]) for ids in tokenizer(documents)["input_ids"]]
        nats[kind], tokens[kind] = torch.zeros(len(rows)), torch.tensor([len(row) - 1 for row in rows])
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for start in range(0, len(order), batch_size):
            at = order[start : start + batch_size]
            labels = nn.utils.rnn.pad_sequence([rows[i] for i in at], batch_first=True, padding_value=-100)
            logits = model(input_ids=labels.clamp_min(0), attention_mask=(labels >= 0).long()).logits
            loss = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], ignore_index=-100, reduction="none")
            nats[kind][at] = loss.sum(dim=1)
    return nats, tokens


def mean_loss(nats: dict[str, Tensor], tokens: dict[str, Tensor]) -> float:
    """Nats per token, all texts together."""
    return round((sum(n.sum() for n in nats.values()) / sum(t.sum() for t in tokens.values())).item(), 5)


def compared(form: str, nats: Callable[[str], Any]) -> dict[str, Any]:
    """Loss per token, overall and by kind of text, and how much higher it is than that of fp32 and of NF4."""
    own, tokens = nats(form)
    loss = mean_loss(own, tokens)
    found: dict[str, Any] = {
        "loss": loss,
        "perplexity": round(float(torch.tensor(loss).exp()), 3),
        "tokens": int(sum(t.sum() for t in tokens.values())),
        "by_text": {kind: round((own[kind].sum() / tokens[kind].sum()).item(), 5) for kind in own},
    }
    for name, other in (("over_fp32", "fp32"), ("over_nf4", REFERENCE)):
        if form != other:
            found[name] = rise(own, nats(other)[0], tokens)
            found[f"{name}_by_text"] = {
                kind: rise({kind: own[kind]}, {kind: nats(other)[0][kind]}, tokens) for kind in own
            }
    return found


def rise(own: dict[str, Tensor], other: dict[str, Tensor], tokens: dict[str, Tensor]) -> list[float]:
    """Mean difference in nats per token, and a 95 % interval: documents are drawn anew within their kind of text."""
    g = torch.Generator().manual_seed(0)
    up, size = torch.zeros(RESAMPLES), torch.zeros(RESAMPLES)
    for kind in own:
        n = len(own[kind])
        drawn = torch.randint(n, (RESAMPLES, n), generator=g)
        up += (own[kind] - other[kind])[drawn].sum(dim=1)
        size += tokens[kind][drawn].sum(dim=1)
    mean = sum((own[k] - other[k]).sum() for k in own) / sum(tokens[k].sum() for k in own)
    low, high = torch.quantile(up / size, torch.tensor([0.025, 0.975])).tolist()
    return [round(value, 5) for value in (mean.item(), low, high)]
