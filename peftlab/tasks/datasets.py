"""The course's data sets, and how text becomes batches.

    data = load("wordnet_topics")
    data.train.texts[0], data.classes[data.train.labels[0]]
    for batch in batches(data.train, tokenizer, batch_size=16, seed=0): ...

    words = load("define_word")
    words.definitions("test")         # "Word: river\\nDefinition:" -> " a large natural stream of water ..."

Two kinds of split go through the same functions: `Split` (texts and class numbers) for classifiers,
`Completions` (prompts and the text that should follow) for causal language models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import torch
from torch import Tensor

from peftlab.errors import PeftLabError
from peftlab.tasks.data_files import data_folder, read_splits

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from peftlab.tasks.bias_probes import WinoBias, Winogender
    from peftlab.tasks.images import ImageDataset
    from peftlab.tasks.verses import VersePairs

IGNORED = -100  # label of a position that the loss leaves out; cross_entropy's own default


@dataclass(frozen=True)
class Split:
    """Texts and their class numbers, as long as each other. A slice of it is a Split again."""

    texts: list[str]
    labels: list[int]

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.labels):
            raise PeftLabError(f"{len(self.texts)} texts but {len(self.labels)} labels.")

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, rows: slice) -> Self:
        _check_slice(rows)
        return type(self)(self.texts[rows], self.labels[rows])


@dataclass(frozen=True)
class Completions:
    """Prompts and completions, as long as each other. A slice of it is Completions again.

    The two are joined as they are: a space between them belongs to one of them.
    """

    prompts: list[str]
    completions: list[str]

    def __post_init__(self) -> None:
        if len(self.prompts) != len(self.completions):
            raise PeftLabError(
                f"{len(self.prompts)} prompts but {len(self.completions)} completions."
            )

    @classmethod
    def of(cls, pairs: Sequence[tuple[str, str]]) -> Self:
        """From a list of (prompt, completion) pairs."""
        return cls([prompt for prompt, _ in pairs], [completion for _, completion in pairs])

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, rows: slice) -> Self:
        _check_slice(rows)
        return type(self)(self.prompts[rows], self.completions[rows])


@dataclass(frozen=True)
class Dataset:
    """A classification data set with fixed splits. `classes[label]` is a label's name."""

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split

    def topics(self, split: str) -> Completions:
        """The same task put to a causal model: topic_prompt(text) is to be followed by " plant"."""
        chosen: Split = getattr(self, checked_split(split))
        names = [f" {self.classes[label]}" for label in chosen.labels]
        return Completions([topic_prompt(text) for text in chosen.texts], names)

    def definitions(self, split: str) -> Completions:
        """The way back, for writing: about_prompt("plant") is to be followed by " a tree with cones"."""
        chosen: Split = getattr(self, checked_split(split))
        topics = [about_prompt(self.classes[label]) for label in chosen.labels]
        return Completions(topics, [f" {text}" for text in chosen.texts])

    def __repr__(self) -> str:
        sizes = ", ".join(f"{s} {len(getattr(self, s)):,}" for s in SPLITS)
        return f"Dataset({self.name!r}: {len(self.classes)} classes; {sizes})"


SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Entry:
    """One line of a dictionary. topic: the drawer in which WordNet's editors filed this sense."""

    word: str
    part_of_speech: str  # noun, verb or adjective
    topic: str
    definition: str


@dataclass(frozen=True)
class Dictionary:
    """Words and what they mean, with fixed splits that share no word and no definition."""

    name: str
    train: tuple[Entry, ...]
    validation: tuple[Entry, ...]
    test: tuple[Entry, ...]

    def definitions(self, split: str) -> Completions:
        """Word -> definition: "Word: river\\nDefinition:" is to be followed by " a large natural ..."."""
        entries: tuple[Entry, ...] = getattr(self, checked_split(split))
        return Completions.of([(define_prompt(entry.word), f" {entry.definition}") for entry in entries])

    def reverse(self, split: str) -> Completions:
        """Definition -> word: "Definition: a large natural ...\\nWord:" is to be followed by " river"."""
        entries: tuple[Entry, ...] = getattr(self, checked_split(split))
        return Completions.of([(reverse_prompt(entry.definition), f" {entry.word}") for entry in entries])

    def __repr__(self) -> str:
        sizes = ", ".join(f"{s} {len(getattr(self, s)):,}" for s in SPLITS)
        return f"Dictionary({self.name!r}: {sizes})"


# The three tasks that lessons put to a causal model. A prompt ends without a space, because the
# completion begins with one: SmolLM2's tokenizer joins a space to the word that follows it.


def define_prompt(word: str) -> str:
    """What a causal model reads before it defines `word`."""
    return f"Word: {word}\nDefinition:"


def reverse_prompt(definition: str) -> str:
    """What a causal model reads before it names the word that means `definition`."""
    return f"Definition: {definition}\nWord:"


def topic_prompt(definition: str) -> str:
    """What a causal model reads before it names the topic of a word that means `definition`."""
    return f"Definition: {definition}\nTopic:"


def about_prompt(topic: str) -> str:
    """What a causal model reads before it makes up a definition of some word of this topic."""
    return f"Topic: {topic}\nDefinition:"


@overload
def load(name: Literal["wordnet_topics"]) -> Dataset: ...
@overload
def load(name: Literal["define_word"]) -> Dictionary: ...
@overload
def load(name: Literal["verse_pairs"]) -> VersePairs: ...
@overload
def load(name: Literal["winobias"]) -> WinoBias: ...
@overload
def load(name: Literal["winogender"]) -> Winogender: ...
@overload
def load(name: Literal["fashion_mnist"]) -> ImageDataset: ...
def load(name: str) -> Dataset | Dictionary | VersePairs | WinoBias | Winogender | ImageDataset:
    """A data set by name; data/README.md describes them all.

    "wordnet_topics": definitions of nouns, 12 topics. The first n rows of a split hold the classes in
    equal parts, so `data.train[:480]` is balanced.
    "define_word": words and their definitions, in random order.
    "verse_pairs": Bible verses in modern and in King James English, in random order.
    "winobias", "winogender": sentences that probe a model for gender bias; never for training.
    "fashion_mnist": small pictures of clothes, 10 classes.
    Raises PeftLabError if there is no such data set, or its file is missing or damaged.
    """
    if name not in LOADERS:
        raise PeftLabError(f"There is no data set {name!r}. The course has {', '.join(map(repr, LOADERS))}.")
    return LOADERS[name]()


def _topics() -> Dataset:
    rows = read_splits(data_folder() / "wordnet_topics.csv", ("split", "topic", "word", "definition"), SPLITS)
    classes = tuple(sorted({row["topic"] for row in rows}))
    label = {topic: number for number, topic in enumerate(classes)}

    def split(part: str) -> Split:
        chosen = [row for row in rows if row["split"] == part]
        return Split([r["definition"] for r in chosen], [label[r["topic"]] for r in chosen])

    return Dataset("wordnet_topics", classes, *map(split, SPLITS))


def _dictionary() -> Dictionary:
    columns = ("split", "word", "part_of_speech", "topic", "definition")
    rows = read_splits(data_folder() / "define_word.csv", columns, SPLITS)

    def split(part: str) -> tuple[Entry, ...]:
        return tuple(
            Entry(row["word"], row["part_of_speech"], row["topic"], row["definition"])
            for row in rows
            if row["split"] == part
        )

    return Dictionary("define_word", *map(split, SPLITS))


def _elsewhere(module: str, function: str) -> Callable[[], Any]:
    """A loader that lives in a module of its own, which is imported when the data set is asked for."""
    return lambda: getattr(import_module(f"peftlab.tasks.{module}"), function)()


LOADERS: dict[str, Callable[[], Any]] = {
    "wordnet_topics": _topics,
    "define_word": _dictionary,
    "verse_pairs": _elsewhere("verses", "verse_pairs"),
    "winobias": _elsewhere("bias_probes", "winobias"),
    "winogender": _elsewhere("bias_probes", "winogender"),
    "fashion_mnist": _elsewhere("images", "fashion_mnist"),
}


def batches(
    split: Split | Completions,
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch_size: int,
    max_length: int = 32,
    seed: int | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Go through the split once, in batches ready for `model(**batch)`.

    max_length: in tokens; longer texts are cut at the end. A batch is padded to its longest text.
    seed: shuffles, the same way every time; None keeps the order.
    Yields input_ids, attention_mask (batch, tokens) and labels: (batch,) class numbers for a Split,
    (batch, tokens) for Completions, see `encode`.
    """
    order = torch.arange(len(split))
    if seed is not None:
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    for start in range(0, len(split), batch_size):
        rows = order[start : start + batch_size].tolist()
        yield encode(split, rows, tokenizer, max_length=max_length)


def encode(
    split: Split | Completions,
    rows: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int = 32,
) -> dict[str, Tensor]:
    """One batch of the given rows.

    Completions: prompt and completion are tokenised apart and joined, and the end-of-text token is
    appended. `labels` repeats input_ids at the completion and its end, and is IGNORED at the prompt
    and the padding. Which is which is known by counting: comparing with the padding token would go
    wrong where it *is* the end-of-text token, as in SmolLM2.
    Raises PeftLabError if a prompt leaves no room for its completion.
    """
    if isinstance(split, Split):
        texts = [split.texts[row] for row in rows]
        batch = tokenizer(
            texts, truncation=True, max_length=max_length, padding=True, return_tensors="pt"
        )
        return {**batch, "labels": torch.tensor([split.labels[row] for row in rows])}

    prompts = tokenizer([split.prompts[row] for row in rows])["input_ids"]
    completions = tokenizer([split.completions[row] for row in rows], add_special_tokens=False)
    _check_room(prompts, rows, max_length)
    ids, labels = [], []
    for prompt, completion in zip(prompts, completions["input_ids"], strict=True):
        whole = (prompt + completion + [tokenizer.eos_token_id])[:max_length]
        ids.append(torch.tensor(whole))
        labels.append(torch.tensor([IGNORED] * len(prompt) + whole[len(prompt) :]))
    return {
        "input_ids": _pad(ids, tokenizer.pad_token_id),
        "attention_mask": _pad([torch.ones_like(row) for row in ids], 0),
        "labels": _pad(labels, IGNORED),
    }


def chat_prompt(tokenizer: PreTrainedTokenizerBase, message: str) -> str:
    """What a chat model reads when the user says `message`, up to where its answer begins."""
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True
    )


def _pad(rows: list[Tensor], value: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)


def check_prompts(split: Completions, tokenizer, max_length: int) -> None:
    """Raise PeftLabError if a prompt alone fills max_length: nothing would be left to predict."""
    _check_room(tokenizer(split.prompts)["input_ids"], range(len(split)), max_length)


def _check_room(prompts: list[list[int]], rows: Sequence[int], max_length: int) -> None:
    for row, prompt in zip(rows, prompts, strict=True):
        if len(prompt) >= max_length:
            raise PeftLabError(
                f"The prompt of row {row} has {len(prompt)} tokens: with max_length={max_length}"
                " nothing of its completion is left. Raise max_length, or shorten the prompt."
            )


def checked_split(split: str) -> str:
    """`split`, if it is train, validation or test; otherwise PeftLabError."""
    if split not in SPLITS:
        raise PeftLabError(f"There is no split {split!r}. There are {', '.join(SPLITS)}.")
    return split


def _check_slice(rows: object) -> None:
    if not isinstance(rows, slice):
        raise TypeError("A split is cut with a slice, such as split[:480].")
