"""How much of a Fisher mask hangs on a few loud inputs (lesson 05). MiniLM, WordNet topics; no training.

The masks are those of `selective` at 0.5 %, with the head of seed 0. For every matrix of the blocks: how many entries
are chosen, and which share of them stands in the columns of its five loudest inputs. For the loudest features of what
the feed-forward networks read: mean and standard deviation over tokens. And where the mask would lie if every score
were divided by the loudness of its input.
"""

from __future__ import annotations

import tempfile
from collections import Counter

import torch

from peftlab.bench import selective
from peftlab.bench.results import Results
from peftlab.course import loud_inputs

TEXTS = 256  # whose tokens say how loud an input is
LOUDEST = 5


def run(results: Results) -> None:
    torch.set_num_threads(1)
    scale = selective.Scale()
    results.settings(budget=5e-3, texts=TEXTS, loudest=LOUDEST, examples=scale.examples, seed=0, model="minilm")
    _, tokenizer, data = selective.loaded()
    read = loud_inputs.inputs(selective.fresh(0), tokenizer, data.train[:TEXTS])
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("fisher", "random"):
            mask = selective.mask(scale, f"{kind}/0.005", 0, folder)
            shares = loud_inputs.in_loudest(mask, read, LOUDEST)
            cell = {name: {"chosen": len(mask[name]), "in_loudest": round(share, 4)} for name, share in shares.items()}
            results.cell(f"{kind}/0.005", lambda cell=cell: cell)
        quiet = selective.mask(scale, "fisher_quiet/0.005", 0, folder)
        results.cell("fisher_quiet/0.005", lambda: by_block(quiet))
    results.cell("features", lambda: features(read))


def by_block(mask: dict[str, torch.Tensor]) -> dict[str, int]:
    """How many entries each block gets."""
    found: Counter[str] = Counter()
    for name, flat in mask.items():
        found[selective.block(name)] += len(flat)
    return dict(found)


def features(read: dict[str, torch.Tensor]) -> dict[str, list[list[float]]]:
    """Of what each feed-forward network reads, the loudest features: number, mean, standard deviation, root mean square
    of all features together."""
    found = {}
    for name, x in read.items():
        if "intermediate" in name:
            top = x.square().mean(0).topk(LOUDEST).indices.tolist()
            rest = float(x.square().mean().sqrt())
            found[name] = [[j, *(round(float(v), 3) for v in (x[:, j].mean(), x[:, j].std(), rest))] for j in top]
    counted = Counter(int(row[0]) for rows in found.values() for row in rows)
    return found | {"often": [[feature, times] for feature, times in counted.most_common(LOUDEST)]}
