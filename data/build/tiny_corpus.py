"""The corpus of the tiny language model: split by document, a tokenizer, and token numbers ready to train on.

    python data/build/tiny_corpus.py PACKAGES CORPUS [--wordnet FOLDER]

PACKAGES holds the six packages that texts.py names. CORPUS gets tokenizer.json, one .npz for each split, and
corpus.json, which says what went in. Nothing of it is committed: the texts are their packages', the model is ours.

What is held out is held out whole: a novel, plays, addresses, books of the Bible (in both translations), the end of
Moby Dick; and of WordNet every entry whose definition stands in a validation or test split of the course's data sets,
so that the tiny model has not read the answers it will be asked for.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import verses
from texts import Document, definition_in, documents
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from wordnet import INSTALLED, normalised

DATA = Path(__file__).resolve().parents[1]
VOCABULARY = 4096
END, PADDING = "<|endoftext|>", "<|padding|>"
HELD_OUT = {  # source -> split -> beginnings of titles
    "plays": {"validation": ("julius-caesar",), "test": ("the-tempest",)},
    "novels": {
        "validation": tuple(f"Northanger Abbey {n}" for n in range(1, 16)),
        "test": tuple(f"Northanger Abbey {n}" for n in range(16, 32)),
    },
    "whale": {
        "validation": tuple(f"chapter_{n}" for n in range(113, 123)),
        "test": (*(f"chapter_{n}" for n in range(123, 136)), "epilogue"),
    },
}
ADDRESSES_IN = 32  # one address in so many is for validation, another for test


class Splitter:
    """Which split a document belongs to. Reads the held-out rows of the course's data sets from `data`."""

    def __init__(self, data: Path = DATA) -> None:
        self.definitions: dict[str, str] = {}
        for name in ("define_word", "wordnet_topics"):
            for row in _rows(data / f"{name}.csv"):
                key = normalised(row["definition"])
                if row["split"] == "test" or (row["split"] == "validation" and self.definitions.get(key) != "test"):
                    self.definitions[key] = row["split"]
        self.books = {book: split for split, books in verses.HELD_OUT.items() for book in books}

    def __call__(self, document: Document) -> str:
        if document.source == "wordnet":
            return self.definitions.get(definition_in(document), "train")
        if document.source in ("kjv", "web"):
            book, _, _ = document.title.rpartition(" ")
            return self.books.get(book, "train")
        if document.source == "addresses":
            lot = int(hashlib.sha256(document.title.encode()).hexdigest(), 16) % ADDRESSES_IN
            return {0: "test", 1: "validation"}.get(lot, "train")
        for split, titles in HELD_OUT[document.source].items():
            if document.title in titles:
                return split
        return "train"


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Byte-level BPE with 4,096 tokens. Any text can be written with it: the 256 bytes are among them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END, PADDING],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=True,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def write_split(path: Path, tokenizer: Tokenizer, found: list[Document]) -> None:
    """tokens: uint16, all documents one after the other, each with the end-of-text token; lengths; sources."""
    end = tokenizer.token_to_id(END)
    rows = [[*encoding.ids, end] for encoding in tokenizer.encode_batch([document.text for document in found])]
    sources = sorted({document.source for document in found})
    temporary = path.with_suffix(f".{os.getpid()}.tmp.npz")
    np.savez_compressed(
        temporary,
        tokens=np.concatenate([np.array(row, dtype=np.uint16) for row in rows]),
        lengths=np.array([len(row) for row in rows], dtype=np.int64),
        characters=np.array([len(document.text) for document in found], dtype=np.int64),
        sources=np.array([sources.index(document.source) for document in found], dtype=np.uint8),
        names=np.array(sources),
    )
    os.replace(temporary, path)


def build(packages: Path, corpus: Path, wordnet: Path) -> dict:
    """Write the corpus; return what corpus.json says."""
    split_of = Splitter()
    splits: dict[str, list[Document]] = {"train": [], "validation": [], "test": []}
    for document in documents(packages, wordnet):
        splits[split_of(document)].append(document)
    tokenizer = train_tokenizer(document.text for document in splits["train"])

    corpus.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(corpus / "tokenizer.json"))
    about: dict = {"vocabulary": tokenizer.get_vocab_size(), "splits": {}}
    for split, found in splits.items():
        write_split(corpus / f"{split}.npz", tokenizer, found)
        about["splits"][split] = _sizes(corpus / f"{split}.npz", found)
    (corpus / "corpus.json").write_text(json.dumps(about, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return about


def _sizes(path: Path, found: list[Document]) -> dict:
    """Documents, bytes and tokens of each source."""
    documents_of = Counter(document.source for document in found)
    bytes_of: Counter[str] = Counter()
    for document in found:
        bytes_of[document.source] += len(document.text.encode())
    arrays = np.load(path, allow_pickle=False)
    tokens = np.bincount(arrays["sources"], weights=arrays["lengths"])
    return {
        str(name): {"documents": documents_of[name], "bytes": bytes_of[name], "tokens": int(tokens[number])}
        for number, name in enumerate(map(str, arrays["names"]))
    }


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("packages", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--wordnet", type=Path, default=INSTALLED, help=f"WordNet's data files; default: {INSTALLED}")
    arguments = parser.parse_args()
    about = build(arguments.packages, arguments.corpus, arguments.wordnet)
    for split, sources in about["splits"].items():
        total = sum(source["tokens"] for source in sources.values())
        print(f"{split:10} {total:>12,} tokens: " + ", ".join(f"{k} {v['tokens']:,}" for k, v in sources.items()))


if __name__ == "__main__":
    main()
