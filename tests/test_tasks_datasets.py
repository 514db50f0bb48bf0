"""The dictionary and its three tasks: loading, prompts, batches, and what a broken file says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from peftlab.errors import PeftLabError
from peftlab.tasks import datasets
from peftlab.tasks.datasets import Completions, Dictionary, Entry

DATA = Path(__file__).resolve().parents[1] / "data"
HEADER = "split,word,part_of_speech,topic,definition\n"
ROWS = (
    "train,river,noun,object,a large natural stream of water\n"
    "validation,run,verb,motion,move fast\n"
    "test,bright,adjective,all,emitting light\n"
)


@pytest.fixture(autouse=True)
def shipped_data(monkeypatch):
    monkeypatch.delenv("PEFTLAB_DATA", raising=False)


@pytest.fixture
def other_folder(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("PEFTLAB_DATA", str(tmp_path))
    return tmp_path


def test_the_shipped_dictionary_loads():
    words = datasets.load("define_word")
    assert [len(words.train), len(words.validation), len(words.test)] == [6000, 300, 300]
    river = next(entry for entry in words.test if entry.word == "river")
    assert river == Entry("river", "noun", "object", "a large natural stream of water (larger than a creek)")
    assert repr(words) == "Dictionary('define_word': train 6,000, validation 300, test 300)"


def test_the_three_tasks_are_put_as_the_lessons_show_them():
    entry = Entry("river", "noun", "object", "a stream")
    words = Dictionary("small", (entry,), (), ())
    assert words.definitions("train") == Completions(["Word: river\nDefinition:"], [" a stream"])
    assert words.reverse("train") == Completions(["Definition: a stream\nWord:"], [" river"])
    assert len(words.definitions("test")) == 0

    split = datasets.Split(["a tree with cones"], [1])
    topics = datasets.Dataset("small", ("animal", "plant"), split, split, split).topics("test")
    assert topics == Completions(["Definition: a tree with cones\nTopic:"], [" plant"])


def test_a_space_belongs_to_the_completion_not_to_the_prompt():
    words, topics = datasets.load("define_word"), datasets.load("wordnet_topics")
    for task in (words.definitions("test"), words.reverse("test"), topics.topics("test")):
        assert all(prompt.endswith(":") for prompt in task.prompts)
        assert all(text.startswith(" ") and text.strip() == text[1:] for text in task.completions)


def test_both_directions_keep_the_order_of_the_entries():
    words = datasets.load("define_word")
    for number in (0, 7, 299):
        entry = words.validation[number]
        assert words.definitions("validation").prompts[number] == datasets.define_prompt(entry.word)
        assert words.reverse("validation").prompts[number] == datasets.reverse_prompt(entry.definition)
        assert words.reverse("validation").completions[number] == f" {entry.word}"


def test_a_split_that_there_is_not_is_named():
    with pytest.raises(PeftLabError, match="no split 'dev'.*train, validation, test"):
        datasets.load("define_word").definitions("dev")
    with pytest.raises(PeftLabError, match="no split 'dev'"):
        datasets.load("wordnet_topics").topics("dev")


def test_all_three_tasks_fit_48_tokens_and_survive_being_tokenised_apart():
    """The tokens of prompt and completion, joined, are those of the joined text: nothing is odd at the seam."""
    from peftlab.tasks import models

    transformers = pytest.importorskip("transformers")
    if models.find_local(models.SMOLLM2) is None:
        pytest.skip("SmolLM2 is not on this machine")
    tokenizer = transformers.AutoTokenizer.from_pretrained(models.find(models.SMOLLM2).source)
    words, topics = datasets.load("define_word"), datasets.load("wordnet_topics")
    for task in (words.definitions("train"), words.reverse("train"), topics.topics("train"), words.definitions("test")):
        prompts = tokenizer(task.prompts)["input_ids"]
        completions = tokenizer(task.completions, add_special_tokens=False)["input_ids"]
        apart = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
        together = tokenizer([p + c for p, c in zip(task.prompts, task.completions, strict=True)])["input_ids"]
        assert apart == together
        assert max(map(len, apart)) + 1 <= 48  # the end-of-text token


def test_a_good_file_elsewhere_is_read(other_folder):
    (other_folder / "define_word.csv").write_text(HEADER + ROWS)
    assert datasets.load("define_word").validation == (Entry("run", "verb", "motion", "move fast"),)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("word,definition\n", "is damaged: it has columns"),
        ("", r"has columns \[\], not"),
        (HEADER, "has no rows"),
        (HEADER + "train,river,noun,object,a stream\n", "no validation rows"),
        (HEADER + ROWS + "test,lake,noun\n", "row 4 is"),
        (HEADER + ROWS + "test,lake,noun,object,water, still\n", "row 4 is"),
        (HEADER + ROWS + "test,lake,noun,object,\n", "row 4 is"),
        (HEADER + ROWS + "dev,lake,noun,object,still water\n", "row 4 is"),
        (HEADER + ROWS + 'test,lake,noun,object,"still wat', "is damaged"),
    ],
)
def test_a_damaged_dictionary_is_named_with_its_mend(other_folder, content, says):
    (other_folder / "define_word.csv").write_text(content)
    with pytest.raises(PeftLabError, match=f"(?s)define_word.csv.*{says}.*git checkout data/define_word.csv"):
        datasets.load("define_word")


def test_a_binary_or_missing_dictionary_is_named_with_its_mend(other_folder):
    with pytest.raises(PeftLabError, match="define_word.csv is missing.*git checkout"):
        datasets.load("define_word")
    (other_folder / "define_word.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PeftLabError, match="define_word.csv is damaged.*git checkout"):
        datasets.load("define_word")


def test_a_damaged_topics_file_is_found_by_the_same_checks(other_folder):
    shutil.copy(DATA / "wordnet_topics.csv", other_folder)
    with (other_folder / "wordnet_topics.csv").open("a") as file:
        file.write("test,plant,fir\n")
    with pytest.raises(PeftLabError, match="wordnet_topics.csv is damaged: its row 4801"):
        datasets.load("wordnet_topics")


def test_an_unknown_data_set_is_answered_with_the_known_ones():
    with pytest.raises(PeftLabError, match="no data set 'imdb'.*'wordnet_topics', 'define_word', 'verse_pairs'"):
        datasets.load("imdb")
