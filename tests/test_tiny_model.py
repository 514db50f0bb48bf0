"""The tiny model is what its card says: it opens, it fits, it has learnt, and it has not read the tests."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import peftlab
from peftlab.errors import PeftLabError
from peftlab.methods import LoRA
from peftlab.tasks import datasets, models
from peftlab.tasks.datasets import Completions
from peftlab.tasks.metrics import evaluate

DATA = Path(__file__).resolve().parents[1] / "data"
FOLDER = DATA / "models" / "tiny"
SENTENCES = [
    "The Congress of the United States should consider the condition of the public lands.",
    "And it came to pass, that the king arose, and went unto his own house.",
    "She was a very agreeable young woman, and her manners were much admired.",
]


@pytest.fixture(scope="module")
def tiny():
    return models.load("tiny")


def nats(model, tokenizer, text: str) -> float:
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return model(input_ids=ids, labels=ids).loss.item()


def test_it_opens_by_name_and_as_any_folder_with_the_same_weights(tiny):
    model, tokenizer = tiny
    again = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    text = "In the beginning"
    assert AutoTokenizer.from_pretrained(FOLDER)(text).input_ids == tokenizer(text).input_ids
    assert model.dtype == torch.float32 and not model.training


def test_its_size_is_the_cards_and_fits_a_repository(tiny):
    model, _ = tiny
    assert sum(p.numel() for p in model.parameters()) == models.TINY.parameters == 7_377_152
    assert (FOLDER / "model.safetensors").stat().st_size < 16 * 2**20
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_no_file_of_it_needs_to_be_unpickled():
    assert {path.suffix for path in FOLDER.iterdir()} == {".json", ".safetensors", ".md"}


def test_it_has_learnt_english(tiny):
    model, tokenizer = tiny
    for text in SENTENCES:
        words = text.split()
        backwards = " ".join(reversed(words))
        assert nats(model, tokenizer, text) < 5 < math.log(4096)
        assert nats(model, tokenizer, text) < nats(model, tokenizer, backwards) - 0.5


def test_its_loss_on_held_out_entries_is_near_the_stored_one(tiny):
    """The stored loss is over whole entries of WordNet, with their examples; here it is one small sample of them."""
    model, tokenizer = tiny
    stored = json.loads((FOLDER / "training.json").read_text())["test"]["wordnet"]["loss"]
    entries = datasets.load("define_word").test[:100]
    rows = Completions([f"{entry.word}:" for entry in entries], [f" {entry.definition}." for entry in entries])
    found = evaluate(model, tokenizer, rows, max_length=64).loss
    assert stored < found < stored + 0.9  # a definition is harder than the quotation after it


def test_any_text_survives_its_tokenizer(tiny):
    _, tokenizer = tiny
    text = 'Ünïcode, "quotes" -- 12 % of 3\n\tnew line, 漢字 and 🙂'
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_it_ends_what_it_was_taught_to_end(tiny):
    model, tokenizer = tiny
    batch = tokenizer("river:", return_tensors="pt")
    ids = model.generate(**batch, max_new_tokens=60, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    assert ids[0, -1] == tokenizer.eos_token_id


def test_an_adapter_of_it_names_its_folder_and_comes_back(tiny, tmp_path):
    model, _ = models.load("tiny")
    peftlab.attach(model, LoRA(r=2, target_modules=["q_proj"]))
    peftlab.save(model, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "data/models/tiny"


def test_without_its_folder_the_error_says_how_to_get_it_back(monkeypatch, tmp_path):
    monkeypatch.setenv("PEFTLAB_DATA", str(tmp_path))
    with pytest.raises(PeftLabError, match="git checkout data/models/tiny"):
        models.load("tiny")


def test_what_the_course_tests_on_was_held_out_of_its_corpus():
    sys.path.insert(0, str(DATA / "build"))
    try:
        corpus, texts = importlib.import_module("tiny_corpus"), importlib.import_module("texts")
    except ImportError as error:
        pytest.skip(f"the corpus' scripts need {error.name}")
    finally:
        sys.path.remove(str(DATA / "build"))
    split_of = corpus.Splitter()

    def entry(text: str) -> str:
        return split_of(texts.Document("wordnet", "some title", text))

    words, topics = datasets.load("define_word"), datasets.load("wordnet_topics")
    for part in ("test", "validation"):
        for row in getattr(words, part):
            assert entry(f'{row.word}, other: {row.definition}. For example: "x"') in ("test", "validation")
        assert all(entry(f"word: {text}.") in ("test", "validation") for text in getattr(topics, part).texts)
    assert entry("word: a thing that no data set of the course has.") == "train"
    for book, part in (("Proverbs", "test"), ("Ruth", "validation"), ("Genesis", "train")):
        for translation in ("kjv", "web"):
            assert split_of(texts.Document(translation, f"{book} 3", "text")) == part
