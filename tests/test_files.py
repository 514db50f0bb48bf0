"""Files: both ways to peft and back, whole or not at all, and every broken one refused with a reason."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import pickle
import warnings
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

import peftlab
from peftlab import checkpoint, parity, surgery
from peftlab.errors import CheckpointError, ConfigError, PeftLabError
from peftlab.methods import (
    CPT,
    IA3,
    Cartridge,
    LlamaAdapter,
    LNTuning,
    LoRA,
    MultitaskPromptTuning,
    PrefixTuning,
    PromptTuning,
    PTuning,
    VeRA,
)
from peftlab.methods.additive.cartridge import start_from_text
from peftlab.methods.base import METHODS
from tests import tiny

pytestmark = pytest.mark.usefixtures("quiet")
METHODS_HERE = tiny.every_method()
every_method = pytest.mark.parametrize("method", METHODS_HERE.values(), ids=METHODS_HERE)


def trained(method, name="llama", dtype=torch.float32, adapter="default"):
    torch.manual_seed(0)
    return tiny.randomise(peftlab.attach(tiny.fresh(name, dtype), method, name=adapter))


def opened_by_peft(folder, name="llama"):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = peft.PeftModel.from_pretrained(tiny.fresh(name), folder)
    words = [str(w.message) for w in caught]
    assert not any("adapter keys" in text or "unexpected" in text.lower() for text in words), words
    return model.eval()


def written_by_peft(folder, config, name="llama", seed=1):
    torch.manual_seed(0)
    model = peft.get_peft_model(tiny.fresh(name), config)
    tiny.randomise(model, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
    return model.eval()


# ---- there and back -----------------------------------------------------------------------------------------------


@every_method
def test_there_and_back(method, tmp_path):
    model, inputs = trained(method), tiny.batch("llama")
    adapted = tiny.outputs(model, inputs)
    assert peftlab.save(model, tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert sorted(p.name for p in (tmp_path / "a" / "b").iterdir()) == [checkpoint.CONFIG, checkpoint.WEIGHTS]
    again = peftlab.load(tiny.fresh("llama"), str(tmp_path / "a" / "b"))
    torch.testing.assert_close(tiny.outputs(again, inputs), adapted, atol=1e-6, rtol=0)
    peftlab.save(again, tmp_path / "c")
    first, second = (load_file(tmp_path / f / checkpoint.WEIGHTS) for f in ("a/b", "c"))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    configs = [json.loads((tmp_path / f / checkpoint.CONFIG).read_text()) for f in ("a/b", "c")]
    assert configs[0] == configs[1]


PEFT_HAS_IT = {name: method for name, method in METHODS_HERE.items() if method.peft_type}
PEFT_LACKS_IT = {name: method for name, method in METHODS_HERE.items() if not method.peft_type}


@pytest.mark.parametrize("method", PEFT_LACKS_IT.values(), ids=PEFT_LACKS_IT)
def test_a_method_that_peft_lacks_says_whose_it_is(method, tmp_path):
    model = trained(method)
    peftlab.save(model, tmp_path)
    config = json.loads((tmp_path / checkpoint.CONFIG).read_text())
    assert config["peftlab_type"] == method.peftlab_type and "peft_type" not in config
    used = model.peftlab.methods["default"]
    for name, value in dataclasses.asdict(used).items():
        if name in used.fields_in_file():  # a mask is in the file of tensors
            assert config[name] == value, name
        else:
            assert name not in config or name in method.bookkeeping, name
    with pytest.raises(Exception, match="peft_type|peft config"):  # peft's own matter, but it must not open as another
        peft.PeftModel.from_pretrained(tiny.fresh("llama"), tmp_path)


@pytest.mark.parametrize("method", PEFT_HAS_IT.values(), ids=PEFT_HAS_IT)
def test_the_config_opens_in_peft_with_equal_fields(method, tmp_path):
    model = trained(method)
    peftlab.save(model, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = peft.PeftConfig.from_pretrained(tmp_path)
    method = model.peftlab.methods["default"]
    assert config.peft_type == method.peft_type and config.inference_mode is True
    own = {name: getattr(method, name) for name in method.fields_in_file()} | method.bookkeeping
    for name, value in own.items():
        if name not in ("bookkeeping", "modules_to_save") or hasattr(config, name):
            theirs = getattr(config, name, None)
            if name != "bookkeeping":
                assert sorted(theirs) == sorted(value) if isinstance(theirs, set) else theirs == value, name
    theirs = tiny.outputs(opened_by_peft(tmp_path), tiny.batch("llama"), **tiny.tasks(method))
    torch.testing.assert_close(theirs, tiny.outputs(model, tiny.batch("llama")))


@pytest.mark.parametrize("method", [LoRA(r=2), IA3()], ids=["LoRA", "IA3"])
def test_conv1d_says_so_in_the_config(method, tmp_path):
    peftlab.save(trained(method, "gpt2"), tmp_path)
    assert json.loads((tmp_path / checkpoint.CONFIG).read_text())["fan_in_fan_out"] is True
    opened_by_peft(tmp_path, "gpt2")


@pytest.mark.parametrize("trainable", [False, True])
@every_method
def test_loading_to_train_or_only_to_run(method, trainable, tmp_path):
    peftlab.save(trained(method), tmp_path)
    model = peftlab.load(tiny.fresh("llama"), tmp_path, trainable=trainable)
    adapter = parity.our_tensors(model)
    assert not model.training
    training = {key for key, tensor in adapter.items() if tensor.requires_grad}
    assert bool(training) is trainable
    assert all(p.requires_grad is False for n, p in model.named_parameters() if ".base." in n)
    assert (peftlab.count_parameters(model).trainable > 0) is trainable
    if trainable:
        before = {key: adapter[key].detach().clone() for key in training}
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        tiny.loss(model, tiny.batch("llama")).backward()
        optimizer.step()
        assert not any(torch.equal(before[key], adapter[key]) for key in training)


def test_a_projected_prefix_trains_on_as_a_table(tmp_path):
    method = METHODS_HERE["PrefixTuning-network"]
    model = trained(method)
    peftlab.save(model, tmp_path / "first")
    again = peftlab.load(tiny.fresh("llama"), tmp_path / "first", trainable=True)
    assert peftlab.count_parameters(again).trainable == 3 * 2 * 2 * 24
    tiny.randomise(again)
    peftlab.save(again, tmp_path / "second")
    config = json.loads((tmp_path / "second" / checkpoint.CONFIG).read_text())
    assert config["prefix_projection"] is True and config["encoder_hidden_size"] == 11
    inputs = tiny.batch("llama")
    torch.testing.assert_close(tiny.outputs(opened_by_peft(tmp_path / "second"), inputs), tiny.outputs(again, inputs))


def test_under_another_name_beside_a_first_one(tmp_path):
    inputs = tiny.batch("llama")
    for name, seed in (("one", 1), ("two", 2)):
        model = tiny.randomise(peftlab.attach(tiny.fresh("llama"), LoRA(r=2), name=name), seed=seed)
        peftlab.save(model, tmp_path / name)
        if name == "two":
            wanted = tiny.outputs(model, inputs)
    model = peftlab.load(tiny.fresh("llama"), tmp_path / "one", name="eins")
    first = tiny.outputs(model, inputs)
    peftlab.load(model, tmp_path / "two", name="zwei", trainable=True)
    assert torch.equal(tiny.outputs(model, inputs), first)
    assert peftlab.count_parameters(model).trainable == 0
    peftlab.use(model, "zwei")
    assert torch.equal(tiny.outputs(model, inputs), wanted)
    assert peftlab.count_parameters(model).trainable > 0
    peftlab.save(model, tmp_path / "copy", name="eins")
    a, b = (load_file(tmp_path / f / checkpoint.WEIGHTS) for f in ("one", "copy"))
    assert all(torch.equal(a[key], b[key]) for key in a)
    peftlab.use(model, ["eins", "zwei"])
    with pytest.raises(PeftLabError, match="eins, zwei"):
        peftlab.save(model, tmp_path / "which")
    assert not (tmp_path / "which").exists()


PEFT_CONFIGS = {
    "lora-as-it-comes": peft.LoraConfig(r=2),
    "lora-patterns-and-biases": peft.LoraConfig(
        r=4, rank_pattern={"v_proj": 2}, alpha_pattern={"q_proj": 3}, use_rslora=True, modules_to_save=["lm_head"]
    ),
    "lora-layers": peft.LoraConfig(r=2, target_modules=["q_proj"], layers_to_transform=[0], layers_pattern="layers"),
    "lora-regex": peft.LoraConfig(r=2, target_modules=r".*\.1\..*up_proj"),
    "lora-all-linear": peft.LoraConfig(r=2, target_modules="all-linear", exclude_modules=["down_proj"]),
    "lora-embedding": peft.LoraConfig(r=2, target_modules=["embed_tokens", "v_proj"]),
    "lora-head": peft.LoraConfig(r=2, target_modules=["lm_head"]),
    "lora-gaussian": peft.LoraConfig(r=2, init_lora_weights="gaussian", lora_dropout=0.1, task_type="CAUSAL_LM"),
    "lora-Gaussian": peft.LoraConfig(r=2, init_lora_weights="Gaussian"),
    "dora": peft.LoraConfig(r=2, use_dora=True),
    "pissa": peft.LoraConfig(r=2, init_lora_weights="pissa"),
    "OLoRA": peft.LoraConfig(r=2, init_lora_weights="OLoRA"),
    "oft": peft.OFTConfig(oft_block_size=8),
    "oft-blocks": peft.OFTConfig(r=4, oft_block_size=0, use_cayley_neumann=False),
    "vera": peft.VeraConfig(r=4),
    "vera-no-bases": peft.VeraConfig(r=4, save_projection=False),
    "layer-norm": peft.LNTuningConfig(),
    "ia3": peft.IA3Config(),
    "ia3-random": peft.IA3Config(init_ia3_weights=False, task_type="CAUSAL_LM", exclude_modules=["0.mlp.down_proj"]),
    "ia3-regexes": peft.IA3Config(target_modules=r".*(k|up)_proj", feedforward_modules=r".*1\.mlp\.up_proj"),
    "ia3-all-linear": peft.IA3Config(target_modules="all-linear"),
    "ia3-keys-only": peft.IA3Config(target_modules=["k_proj"]),
    "prompt": peft.PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"),
    "prompt-encoder": peft.PromptEncoderConfig(num_virtual_tokens=2, task_type="CAUSAL_LM", encoder_hidden_size=7),
    "prompt-lstm": peft.PromptEncoderConfig(
        num_virtual_tokens=2, task_type="CAUSAL_LM", encoder_reparameterization_type="LSTM", encoder_num_layers=1
    ),
    "llama-adapter": peft.AdaptionPromptConfig(adapter_len=4, adapter_layers=1, task_type="CAUSAL_LM"),
    "cartridge": peft.CartridgeConfig(num_virtual_tokens=3, num_frozen_tokens=2, task_type="CAUSAL_LM"),
    "cpt": peft.CPTConfig(cpt_token_ids=[5, 9, 7], cpt_tokens_type_mask=[1, 2, 4], task_type="CAUSAL_LM"),
    "prefix": peft.PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"),
    "prefix-network": peft.PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM", prefix_projection=True),
}


@pytest.mark.parametrize("config", PEFT_CONFIGS.values(), ids=PEFT_CONFIGS)
def test_what_peft_writes_opens_here(config, tmp_path):
    theirs = written_by_peft(tmp_path, copy.deepcopy(config))
    inputs = tiny.batch("llama")
    model = peftlab.load(tiny.fresh("llama"), tmp_path)
    torch.testing.assert_close(tiny.outputs(model, inputs), tiny.outputs(theirs, inputs), atol=2e-6, rtol=1e-5)
    peftlab.save(model, tmp_path / "again")
    again = opened_by_peft(tmp_path / "again")
    torch.testing.assert_close(tiny.outputs(again, inputs), tiny.outputs(theirs, inputs), atol=2e-6, rtol=1e-5)
    peftlab.detach(model)
    assert torch.equal(tiny.outputs(model, inputs), tiny.outputs(tiny.fresh("llama"), inputs))


@pytest.mark.parametrize("name", ["ia3-all-linear", "ia3-keys-only"])
def test_an_ia3_that_peft_writes_but_does_not_open_again(name, tmp_path):
    """It fills in default feedforward_modules that target_modules does not name, and then calls that an error."""
    written_by_peft(tmp_path, copy.deepcopy(PEFT_CONFIGS[name]))
    with pytest.raises(ValueError, match="subset"):
        peft.PeftModel.from_pretrained(tiny.fresh("llama"), tmp_path)
    model = peftlab.load(tiny.fresh("llama"), tmp_path)  # the outputs: in the test above
    assert model.peftlab.methods["default"].feedforward_modules == ".*(down_proj)"


def test_a_classifier_of_peft_brings_its_head(tmp_path):
    config = peft.LoraConfig(r=2, task_type="SEQ_CLS", bias="all")
    theirs, inputs = written_by_peft(tmp_path, config, "bert"), tiny.batch("bert")
    model = peftlab.load(tiny.fresh("bert"), tmp_path)
    torch.testing.assert_close(tiny.outputs(model, inputs), tiny.outputs(theirs, inputs))
    assert not torch.equal(
        surgery.adapted_modules(model)["classifier"].adapters["default"].copy.weight, model.classifier.base.weight
    )


def test_half_precision_adapters_become_float32(tmp_path):
    peftlab.save(trained(LoRA(r=2)), tmp_path)
    path = tmp_path / checkpoint.WEIGHTS
    save_file({key: tensor.bfloat16() for key, tensor in load_file(path).items()}, path)
    model = peftlab.load(tiny.fresh("llama", torch.bfloat16), tmp_path)
    assert {tensor.dtype for tensor in parity.our_tensors(model).values()} == {torch.float32}


def test_two_tensors_that_share_memory_can_be_saved(tmp_path):
    model = peftlab.attach(tiny.bert("MaskedLM"), LoRA(r=2, modules_to_save=["cls"]))
    peftlab.save(model, tmp_path / "kept")  # predictions.bias and decoder.bias are one tensor
    peftlab.load(tiny.bert("MaskedLM"), tmp_path / "kept")
    model = peftlab.attach(tiny.bert("MaskedLM"), LoRA(r=2, bias="all"))
    peftlab.save(model, tmp_path / "biases")
    peftlab.load(tiny.bert("MaskedLM"), tmp_path / "biases")


# ---- starts from the weight ---------------------------------------------------------------------------------------

PLAIN = {
    "pissa-random": (LoRA(r=3, lora_alpha=5, init_lora_weights="pissa_niter_2"), None),
    "pissa-random-biases-ranks": (
        LoRA(r=3, init_lora_weights="pissa_niter_2", bias="lora_only", rank_pattern={"query": 2}, use_rslora=True),
        None,
    ),
    "pissa": (LoRA(r=3, lora_alpha=5, init_lora_weights="pissa"), True),
    "olora-all-biases": (LoRA(r=3, init_lora_weights="olora", bias="all", lora_dropout=0.1), True),
}


@pytest.mark.parametrize(("method", "as_plain_lora"), PLAIN.values(), ids=PLAIN)
def test_a_changed_base_is_written_as_a_plain_lora_of_twice_the_rank(method, as_plain_lora, tmp_path):
    model, inputs = trained(method, "bert"), tiny.batch("bert")
    wanted = tiny.outputs(model, inputs)
    peftlab.save(model, tmp_path, as_plain_lora=as_plain_lora)
    config = json.loads((tmp_path / checkpoint.CONFIG).read_text())
    assert (config["r"], config["init_lora_weights"], config["use_rslora"]) == (6, True, False)
    for again in (peftlab.load(tiny.fresh("bert"), tmp_path), opened_by_peft(tmp_path, "bert")):
        torch.testing.assert_close(tiny.outputs(again, inputs), wanted, atol=1e-5, rtol=1e-4)
    assert torch.equal(tiny.outputs(model, inputs), wanted)


def test_pefts_random_start_is_refused_because_its_base_is_lost(tmp_path, refused):
    written_by_peft(tmp_path, peft.LoraConfig(r=2, init_lora_weights="pissa_niter_2"))
    model = tiny.fresh("llama")
    with refused(model, "random approximation", "plain LoRA", error=CheckpointError):
        peftlab.load(model, tmp_path)


def test_only_lora_can_be_plain(tmp_path, refused):
    for method, word in ((LoRA(r=2, use_dora=True), "DoRA"), (VeRA(r=2), "VeRA"), (LNTuning(), "LNTuning")):
        model = trained(method)
        with refused(model, word, error=ConfigError):
            peftlab.save(model, tmp_path / "x", as_plain_lora=True)
    assert not (tmp_path / "x").exists()


def test_sites_whose_names_end_alike_keep_their_ranks(tmp_path):
    """In a rank pattern a key is the end of a name, so the plain "proj" must not catch "side.proj"."""

    def build():
        torch.manual_seed(0)
        side = torch.nn.ModuleDict({"proj": torch.nn.Linear(4, 4)})
        return torch.nn.ModuleDict({"proj": torch.nn.Linear(4, 4), "side": side})

    method = LoRA(r=2, target_modules=["proj"], init_lora_weights="pissa_niter_1", rank_pattern={"^proj": 1})
    model = tiny.randomise(peftlab.attach(build(), method))
    peftlab.save(model, tmp_path)
    again = peftlab.load(build(), tmp_path)
    ranks = {site: wrapper.adapters["default"].r for site, wrapper in surgery.adapted_modules(again).items()}
    assert ranks == {"proj": 2, "side.proj": 4}
    peft.PeftModel.from_pretrained(build(), tmp_path)


# ---- written whole or not at all ----------------------------------------------------------------------------------


@pytest.mark.parametrize("failing_call", [1, 2], ids=["first file", "second file"])
@pytest.mark.parametrize("what", ["write", "rename"])
def test_a_failing_write_leaves_the_old_files(what, failing_call, tmp_path, monkeypatch):
    peftlab.save(trained(LoRA(r=2)), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    calls = []

    def fail(right):
        def call(*args):
            calls.append(args)
            if len(calls) == failing_call:
                if what == "write":
                    right(args[0], args[1][:20])  # the disk is full half-way through
                raise OSError("no space left on device")
            return right(*args)

        return call

    if what == "write":
        monkeypatch.setattr(Path, "write_bytes", fail(Path.write_bytes))
    else:
        monkeypatch.setattr(os, "replace", fail(os.replace))
    with pytest.raises(OSError, match="no space"):
        peftlab.save(trained(LoRA(r=3)), tmp_path)
    now = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert now.keys() == before.keys()  # no half file is left lying about
    if (what, failing_call) == ("rename", 2):
        assert now[checkpoint.CONFIG] == before[checkpoint.CONFIG]  # one file is new, but both are whole
        load_file(tmp_path / checkpoint.WEIGHTS)
    else:
        assert now == before


def test_what_cannot_be_written_is_noticed_before_anything_is(tmp_path):
    with pytest.raises(TypeError, match="adapter_config.json"):
        checkpoint.write(tmp_path / "new", {"peft_type": object()}, {})
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="is a file"):
        peftlab.save(trained(LoRA(r=2)), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_is_overwritten_by_the_newer_adapter(tmp_path):
    peftlab.save(trained(LoRA(r=2)), tmp_path)
    peftlab.save(trained(LoRA(r=4)), tmp_path)
    assert peftlab.load(tiny.fresh("llama"), tmp_path).peftlab.methods["default"].r == 4


# ---- broken files -------------------------------------------------------------------------------------------------


def config_with(folder, **fields):
    path = folder / checkpoint.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def tensors_with(folder, change):
    path = folder / checkpoint.WEIGHTS
    tensors = load_file(path)
    change(tensors, next(iter(sorted(tensors))))
    save_file(tensors, path)


def no_config(folder):
    (folder / checkpoint.CONFIG).unlink()


def no_weights(folder):
    (folder / checkpoint.WEIGHTS).unlink()


def only_a_pickle(folder):
    no_weights(folder)
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(str(folder / "exploded"))))


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def truncated(folder):
    path = folder / checkpoint.WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


def empty(folder):
    (folder / checkpoint.WEIGHTS).write_bytes(b"")


def a_pickle_called_safetensors(folder):
    (folder / checkpoint.WEIGHTS).write_bytes(pickle.dumps(Bomb(str(folder / "exploded"))))


def broken_json(folder):
    (folder / checkpoint.CONFIG).write_text('{"peft_type": "LORA", ')


def not_text(folder):
    (folder / checkpoint.CONFIG).write_bytes(b"\xff\xfe\x00\x80")


def a_list(folder):
    (folder / checkpoint.CONFIG).write_text('["LORA"]')


def missing_tensor(folder):
    tensors_with(folder, lambda tensors, key: tensors.pop(key))


def extra_tensor(folder, name="base_model.model.model.layers.9.lora_A.weight"):
    tensors_with(folder, lambda tensors, key: tensors.update({name: torch.ones(2)}))


def extra_tensor_in_disguise(folder):
    extra_tensor(folder, "base_model.model.x.modules_to_save.weight")


def wrong_shape(folder):
    tensors_with(folder, lambda tensors, key: tensors.update({key: torch.ones(7, 7)}))


def not_a_number(folder):
    tensors_with(folder, lambda tensors, key: tensors[key].view(-1)[3:4].fill_(float("nan")))


def infinite(folder):
    tensors_with(folder, lambda tensors, key: tensors[key].view(-1)[3:4].fill_(float("inf")))


def without(field):
    def change(folder):
        path = folder / checkpoint.CONFIG
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != field}))

    return change


def field(**fields):
    return lambda folder: config_with(folder, **fields)


BROKEN = {
    "no-config": (no_config, ["adapter_config.json"]),
    "no-weights": (no_weights, ["adapter_model.safetensors"]),
    "only-a-pickle": (only_a_pickle, ["pickle", "safe_serialization"]),
    "truncated": (truncated, ["not a whole safetensors file"]),
    "empty": (empty, ["not a whole safetensors file"]),
    "pickle-called-safetensors": (a_pickle_called_safetensors, ["not a whole safetensors file"]),
    "broken-json": (broken_json, ["not valid JSON"]),
    "not-text": (not_text, ["not valid JSON"]),
    "json-list": (a_list, ["peft_type"]),
    "no-peft-type": (without("peft_type"), ["peft_type"]),
    "unknown-peft-type": (field(peft_type="POLY"), ["POLY", "LORA"]),
    "unknown-peftlab-type": (field(peftlab_type="HOOLSBY"), ["peftlab_type 'HOOLSBY'", "HOULSBY"]),
    "peftlab-type-that-is-no-word": (field(peftlab_type=3), ["peftlab_type"]),
    "missing-tensor": (missing_tensor, ["missing in the file", "q_proj.lora_A"]),
    "extra-tensor": (extra_tensor, ["not in the model", "layers.9"]),
    "extra-tensor-in-disguise": (extra_tensor_in_disguise, ["not in the model"]),
    "wrong-shape": (wrong_shape, ["(7, 7)", "(2, 48)"]),
    "wrong-rank": (field(r=5), ["of another shape"]),
    "nan": (not_a_number, ["not finite"]),
    "infinite": (infinite, ["not finite"]),
    "other-targets": (field(target_modules=["up_proj"]), ["missing in the file", "not in the model"]),
    "targets-of-another-model": (field(target_modules=["query"]), ["query", "q_proj"]),
    "field-that-matters": (field(alora_invocation_tokens=[3, 4]), ["alora_invocation_tokens", "peft.PeftModel"]),
    "another-field-that-matters": (field(lora_bias=True), ["lora_bias=True"]),
    "a-field-of-tomorrow": (field(turbo="full"), ["turbo"]),
    "rank-zero": (field(r=0), ["r=0", "above 0"]),
    "rank-as-text": (field(r="2"), ["r='2'"]),
    "alpha-as-text": (field(lora_alpha="16"), ["lora_alpha"]),
    "unknown-start": (field(init_lora_weights="corda"), ["corda"]),
    "unknown-task": (field(task_type="POETRY"), ["POETRY", "SEQ_CLS"]),
    "kept-module-that-is-not-there": (field(modules_to_save=["lm_heads"]), ["lm_heads", "lm_head"]),
}


@pytest.mark.parametrize(("spoil", "words"), BROKEN.values(), ids=BROKEN)
def test_broken_files_are_refused_and_the_model_untouched(spoil, words, tmp_path, refused):
    peftlab.save(trained(LoRA(r=2)), tmp_path)
    spoil(tmp_path)
    model = tiny.fresh("llama")
    with refused(model, *words):
        peftlab.load(model, tmp_path)
    beside = trained(VeRA(r=2), adapter="first")  # nor is a model that carries another adapter
    with refused(beside, *words):
        peftlab.load(beside, tmp_path, name="second")
    assert not (tmp_path / "exploded").exists()


def test_a_prompt_without_its_length_is_refused(tmp_path, refused):
    peftlab.save(trained(PromptTuning(num_virtual_tokens=2)), tmp_path)
    without("num_virtual_tokens")(tmp_path)
    model = tiny.fresh("llama")
    with refused(model, "num_virtual_tokens", error=ConfigError):
        peftlab.load(model, tmp_path)


def test_a_folder_that_is_not_there(refused, tmp_path):
    model = tiny.fresh("llama")
    with refused(model, "not a folder", "adapter_config.json", error=CheckpointError):
        peftlab.load(model, tmp_path / "nowhere")


def test_unknown_fields_that_change_nothing_pass(tmp_path):
    model = trained(LoRA(r=2))
    peftlab.save(model, tmp_path)
    neutral = {"alora_invocation_tokens": None, "lora_bias": False, "corda_config": {}, "extras": [], "gain": 0}
    config_with(tmp_path, **neutral, revision="main", peft_version="0.99", rank_pattern=None)
    again = peftlab.load(tiny.fresh("llama"), tmp_path)
    assert torch.equal(tiny.outputs(again, tiny.batch("llama")), tiny.outputs(model, tiny.batch("llama")))
    peftlab.save(again, tmp_path / "next")
    config = json.loads((tmp_path / "next" / checkpoint.CONFIG).read_text())
    assert config["revision"] == "main" and config["rank_pattern"] == {}  # bookkeeping is kept


@pytest.mark.parametrize("cls", [cls for cls in METHODS if cls.peft_type], ids=lambda cls: cls.__name__)
def test_every_field_of_pefts_config_is_supported_kept_or_refused(cls):
    """Each field, changed to something that matters, must be known here or refused: none may be dropped silently."""
    config_class = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(cls.peft_type)]
    small = {"num_virtual_tokens": 2, "adapter_len": 2, "adapter_layers": 1, "token_indices": [3]}
    needed = {name: value for name, value in small.items() if name in config_class.__dataclass_fields__}
    if cls.__name__ == "CPT":
        needed = {"task_type": "CAUSAL_LM"}
    as_it_comes = {k: v for k, v in config_class(**needed).to_dict().items()}
    cls.from_config(as_it_comes)
    known = {f.name for f in dataclasses.fields(cls)} | cls.BOOKKEEPING
    for name in set(as_it_comes) - known:
        with pytest.raises(ConfigError, match=name):
            cls.from_config({**as_it_comes, name: "something"})


# ---- another base -------------------------------------------------------------------------------------------------


def test_an_adapter_of_another_base_with_trained_embeddings(tmp_path, refused):
    written_by_peft(tmp_path, peft.LoraConfig(r=2, target_modules=["embed_tokens"]))
    model = tiny.fresh("llama")
    assert any("base_layer" in key for key in load_file(tmp_path / checkpoint.WEIGHTS))  # peft wrote the embedding too
    peftlab.load(model, tmp_path)
    other = tiny.fresh("llama")
    other.model.embed_tokens.weight.data[5] += 1
    with refused(other, "another", "embed_tokens.weight", error=CheckpointError):
        peftlab.load(other, tmp_path)


def test_an_adapter_of_a_larger_model(tmp_path, refused):
    peftlab.save(peftlab.attach(tiny.llama(hidden_size=64), LoRA(r=2)), tmp_path)
    model = tiny.fresh("llama")
    with refused(model, "(2, 64)", "(2, 48)", "trained on", error=CheckpointError):
        peftlab.load(model, tmp_path)


def test_a_prefix_of_a_deeper_model(tmp_path, refused):
    peftlab.save(peftlab.attach(tiny.llama(num_hidden_layers=3), PrefixTuning(num_virtual_tokens=2)), tmp_path)
    model = tiny.fresh("llama")
    with refused(model, "(2, 144)", "(2, 96)", error=CheckpointError):
        peftlab.load(model, tmp_path)


# ---- training that goes on from a file, which peft refuses for prompts ----------------------------------------------

GOING_ON = {
    "prompt": PromptTuning(num_virtual_tokens=3),
    "multitask": MultitaskPromptTuning(num_virtual_tokens=3, num_ranks=2),
    "prefix": PrefixTuning(num_virtual_tokens=3),
    "cartridge": Cartridge(num_virtual_tokens=4, num_frozen_tokens=2),
    "llama-adapter": LlamaAdapter(adapter_len=3, adapter_layers=1),
}


def descend(model, steps):
    for _ in range(steps):
        model.zero_grad()
        tiny.loss(model, tiny.batch("llama")).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter -= 0.1 * parameter.grad
    return model


@pytest.mark.parametrize("method", GOING_ON.values(), ids=GOING_ON)
def test_training_goes_on_from_a_file_as_if_it_had_never_stopped(method, tmp_path):
    whole = descend(trained(method), 4)
    peftlab.save(descend(trained(method), 2), tmp_path)
    again = descend(peftlab.load(tiny.fresh("llama"), tmp_path, trainable=True), 2)
    mine, wanted = parity.our_tensors(again), parity.our_tensors(whole)
    assert mine.keys() == wanted.keys() and all(torch.equal(mine[key], wanted[key]) for key in wanted)
    assert {k for k, t in mine.items() if t.requires_grad} == {k for k, t in wanted.items() if t.requires_grad}
    if method.peft_type != "ADAPTION_PROMPT":
        with pytest.raises(ValueError, match="prompt learning"):
            peft.PeftModel.from_pretrained(tiny.fresh("llama"), tmp_path, is_trainable=True)


def test_a_llama_adapter_takes_a_new_head_along_where_peft_leaves_it_untrained(tmp_path):
    def classifier():
        sizes = {"vocab_size": 97, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_labels": 5, "pad_token_id": 0}
        torch.manual_seed(0)
        return LlamaForSequenceClassification(LlamaConfig(**sizes, **heads)).eval()

    fields, inputs = {"adapter_len": 2, "adapter_layers": 1}, {"input_ids": tiny.tokens()}
    theirs = peft.get_peft_model(classifier(), peft.AdaptionPromptConfig(task_type="SEQ_CLS", **fields))
    assert not any("score" in name for name, p in theirs.named_parameters() if p.requires_grad)
    ours = tiny.randomise(peftlab.attach(classifier(), LlamaAdapter(**fields)))
    peftlab.save(ours, tmp_path)
    wanted = tiny.outputs(ours, inputs)
    assert torch.equal(tiny.outputs(peftlab.load(classifier(), tmp_path), inputs), wanted)
    with pytest.warns(UserWarning, match="modules_to_save"):  # a field that peft's config for this method lacks
        opened = peft.PeftModel.from_pretrained(classifier(), tmp_path).eval()
    torch.testing.assert_close(tiny.outputs(opened, inputs), wanted)


@pytest.mark.parametrize("kind", ["MLP", "LSTM"])
def test_p_tuning_saves_its_result_and_trains_on_as_a_prompt(kind, tmp_path):
    method = PTuning(num_virtual_tokens=3, encoder_reparameterization_type=kind, encoder_hidden_size=7)
    model = descend(trained(method), 2)
    peftlab.save(model, tmp_path / "first")
    held = load_file(tmp_path / "first" / checkpoint.WEIGHTS)
    assert {key: tuple(tensor.shape) for key, tensor in held.items()} == {"prompt_embeddings": (3, 48)}
    again = peftlab.load(tiny.fresh("llama"), tmp_path / "first", trainable=True)
    assert peftlab.count_parameters(again).trainable == 3 * 48 < peftlab.count_parameters(model).trainable
    before = tiny.loss(again, tiny.batch("llama")).item()
    assert tiny.loss(descend(again, 5), tiny.batch("llama")).item() < before
    peftlab.save(again, tmp_path / "second")
    config = json.loads((tmp_path / "second" / checkpoint.CONFIG).read_text())
    assert (config["encoder_reparameterization_type"], config["encoder_hidden_size"]) == (kind, 7)
    theirs = tiny.outputs(opened_by_peft(tmp_path / "second"), tiny.batch("llama"))
    torch.testing.assert_close(theirs, tiny.outputs(again, tiny.batch("llama")))


def test_p_tuning_saves_without_dropout_where_peft_saves_with_it(tmp_path):
    fields = {"num_virtual_tokens": 2, "encoder_reparameterization_type": "LSTM", "encoder_dropout": 0.5}
    model = trained(PTuning(**fields)).train()
    for folder in ("one", "two"):
        peftlab.save(model, tmp_path / folder)
    one, two = (load_file(tmp_path / f / checkpoint.WEIGHTS)["prompt_embeddings"] for f in ("one", "two"))
    assert torch.equal(one, two) and model.peftlab.shared["default"].network.training
    theirs = peft.get_peft_model(tiny.fresh("llama"), peft.PromptEncoderConfig(task_type="CAUSAL_LM", **fields)).train()
    first, second = (theirs.get_prompt_embedding_to_save("default") for _ in range(2))
    assert not torch.equal(first, second)


def test_a_cpt_that_is_loaded_has_its_ball_around_what_was_loaded(tmp_path):
    method = CPT(cpt_token_ids=[5, 9, 7], cpt_tokens_type_mask=[1, 2, 4])
    peftlab.save(descend(trained(method), 3), tmp_path)
    again = peftlab.load(tiny.fresh("llama"), tmp_path, trainable=True)
    shared = again.peftlab.shared["default"]
    held = load_file(tmp_path / checkpoint.WEIGHTS)["prompt_embeddings"]
    descend(again, 3)
    away = (shared.tensors()["prompt_embeddings"] - held).norm(dim=1)
    radius = 0.1 * (48 / 2048) ** 0.5
    assert (away[:2] <= radius * 1.0001).all() and (away[:2] > 0).all() and away[2] == 0  # the label stays


# ---- multitask prompts from a source adapter ------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path):
    """The file of a multitask prompt that was trained on three tasks."""
    method = MultitaskPromptTuning(num_virtual_tokens=3, num_tasks=3, num_ranks=2)
    return str(peftlab.save(trained(method), tmp_path / "source") / checkpoint.WEIGHTS)


SOURCE_STARTS = {
    "mean": {"prompt_tuning_init": "AVERAGE_SOURCE_TASKS"},
    "one-task": {"prompt_tuning_init": "EXACT_SOURCE_TASK", "prompt_tuning_init_task": 2},
    "shared-only": {"prompt_tuning_init": "ONLY_SOURCE_SHARED"},
}


@pytest.mark.parametrize("start", SOURCE_STARTS.values(), ids=SOURCE_STARTS)
def test_a_multitask_prompt_that_starts_from_a_source_equals_pefts(start, source, tmp_path):
    fields = {"num_virtual_tokens": 3, "num_ranks": 2, "prompt_tuning_init_state_dict_path": source, **start}
    ours = peftlab.attach(tiny.fresh("llama"), MultitaskPromptTuning(**fields))
    theirs = peft.get_peft_model(
        tiny.fresh("llama"), peft.MultitaskPromptTuningConfig(task_type="CAUSAL_LM", **fields)
    )
    mine, reference = parity.our_tensors(ours), parity.their_tensors(theirs)
    same = {key for key in mine if torch.equal(mine[key], reference[key])}
    assert same == ({"prompt_embeddings"} if "ONLY" in start["prompt_tuning_init"] else set(mine))
    peftlab.save(ours, tmp_path / "new")
    os.remove(source)  # loading does not ask for it
    peftlab.load(tiny.fresh("llama"), tmp_path / "new")


BAD_SOURCES = {
    "other-rank": ({"num_ranks": 3}, ["prefix_task_cols", "(1, 3, 2)", "(1, 3, 3)"]),
    "other-length": ({"num_virtual_tokens": 2}, ["prompt_embeddings", "(3, 48)", "(2, 48)"]),
    "no-such-task": ({"prompt_tuning_init_task": 3}, ["tasks 0 to 2"]),
    "no-such-file": ({"prompt_tuning_init_state_dict_path": "nowhere.safetensors"}, ["nowhere.safetensors"]),
}


@pytest.mark.parametrize(("change", "words"), BAD_SOURCES.values(), ids=BAD_SOURCES)
def test_a_source_that_does_not_fit(change, words, source, refused):
    fields = {"num_virtual_tokens": 3, "num_ranks": 2, "prompt_tuning_init": "EXACT_SOURCE_TASK"}
    method = MultitaskPromptTuning(**{**fields, "prompt_tuning_init_state_dict_path": source, **change})
    model = tiny.fresh("llama")
    with refused(model, *words):
        peftlab.attach(model, method)


def test_a_source_of_another_method(tmp_path, refused):
    path = peftlab.save(trained(PromptTuning(num_virtual_tokens=2)), tmp_path) / checkpoint.WEIGHTS
    fields = {"num_virtual_tokens": 2, "prompt_tuning_init_state_dict_path": str(path)}
    model = tiny.fresh("llama")
    with refused(model, "prefix_task_cols", "another method", error=ConfigError):
        peftlab.attach(model, MultitaskPromptTuning(prompt_tuning_init="AVERAGE_SOURCE_TASKS", **fields))
    peftlab.attach(model, MultitaskPromptTuning(prompt_tuning_init="ONLY_SOURCE_SHARED", **fields))


# ---- a cartridge from a text ----------------------------------------------------------------------------------------


def word_tokenizer():
    words = {f"w{i}": i for i in range(tiny.VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0")


CHAT = "{% for m in messages %}w90 {{ m['content'] }} w91{% endfor %}"


@pytest.mark.parametrize("chat", [None, CHAT], ids=["plain", "chat-template"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("method", [Cartridge(num_virtual_tokens=3), PrefixTuning(num_virtual_tokens=3)])
def test_keys_and_values_of_a_text_equal_pefts_and_the_text_typed(method, name, chat):
    tokenizer, text = word_tokenizer(), "w7 w8 w9" if chat is None else "w7 w8 w9 w10"
    tokenizer.chat_template = chat
    base, question = tiny.fresh(name), tiny.tokens()
    ours = peftlab.attach(tiny.fresh(name).train(), method)
    theirs = parity.reference(base, ours.eval())
    ours.train()
    read = start_from_text(ours, tokenizer, text)
    assert ours.training and not ours.peftlab.state.disabled
    peft.initialize_kv_prefix_from_text(theirs.eval(), tokenizer, text=text)
    table = ours.eval().peftlab.shared["default"].table()
    torch.testing.assert_close(table, theirs.get_prompt_embedding_to_save("default"), atol=1e-6, rtol=1e-5)
    typed = torch.cat([read.expand(3, -1), question], dim=1)
    wanted = tiny.outputs(base, {"input_ids": typed})[:, 3:]
    torch.testing.assert_close(tiny.outputs(ours, {"input_ids": question}), wanted, atol=1e-5, rtol=1e-4)


def test_a_text_that_cannot_start_a_cartridge(refused):
    model = peftlab.attach(tiny.fresh("llama"), Cartridge(num_virtual_tokens=3))
    for adapter, method in {
        "network": PrefixTuning(num_virtual_tokens=2, prefix_projection=True),
        "lora": LoRA(r=2),
    }.items():
        peftlab.attach(model, method, name=adapter)
        with refused(model, adapter, "no cartridge"):
            start_from_text(model, word_tokenizer(), "w1 w2 w3", name=adapter)
    with refused(model, "2 tokens", "3 positions", "longer text"):
        start_from_text(model, word_tokenizer(), "w1 w2")
    with refused(model, "2 tokens"):
        start_from_text(model, word_tokenizer(), "w1 w2 w3", max_length=2)
    with pytest.raises(PeftLabError, match="no cartridge"):
        start_from_text(tiny.fresh("llama"), word_tokenizer(), "w1 w2 w3")


# ---- prompts from words -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 7])
def test_a_prompt_that_starts_from_a_text_equals_pefts(n, tmp_path):
    word_tokenizer().save_pretrained(tmp_path)
    fields = {
        "num_virtual_tokens": n,
        "prompt_tuning_init": "TEXT",
        "prompt_tuning_init_text": "w7 w8 w9",
        "tokenizer_name_or_path": str(tmp_path),
    }
    ours = peftlab.attach(tiny.fresh("llama"), PromptTuning(**fields))
    theirs = peft.get_peft_model(tiny.fresh("llama"), peft.PromptTuningConfig(task_type="CAUSAL_LM", **fields))
    P = ours.peftlab.shared["default"].prompt_embeddings
    assert torch.equal(P, theirs.get_prompt_embedding_to_save("default"))
    assert torch.equal(P[0], ours.model.embed_tokens.weight[7])
    peftlab.save(ours, tmp_path / "saved")
    (tmp_path / "tokenizer.json").unlink()  # loading needs no tokenizer
    peftlab.load(tiny.fresh("llama"), tmp_path / "saved")


def test_a_prompt_that_starts_from_the_vocabulary():
    model = peftlab.attach(tiny.fresh("llama"), PromptTuning(num_virtual_tokens=4, prompt_tuning_init="SAMPLE_VOCAB"))
    vocabulary = model.model.embed_tokens.weight
    for row in model.peftlab.shared["default"].prompt_embeddings:
        assert (vocabulary == row).all(dim=1).any()
