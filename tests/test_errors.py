"""Bad input: one clear error that names cause and mend, and a model that is bit for bit what it was."""

from __future__ import annotations

import copy
import dataclasses
import warnings

import peft
import pytest
import torch
from torch import nn

import peftlab
from peftlab import parity
from peftlab.errors import CheckpointError, ConfigError, NotMergeable, PeftLabError
from peftlab.methods import (
    CPT,
    IA3,
    OFT,
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
from peftlab.targeting import TargetError
from tests import tiny

pytestmark = pytest.mark.usefixtures("quiet")


def adapted(name="llama", method=None, adapter="default"):
    return tiny.randomise(peftlab.attach(tiny.fresh(name), method or LoRA(r=2), name=adapter))


# ---- hyperparameters ----------------------------------------------------------------------------------------------

BAD_FIELDS = {
    "rank-zero": (lambda: LoRA(r=0), ["r=0", "above 0"]),
    "rank-negative": (lambda: LoRA(r=-4), ["r=-4"]),
    "rank-fraction": (lambda: LoRA(r=1.5), ["r=1.5", "whole number"]),
    "rank-true": (lambda: LoRA(r=True), ["r=True"]),
    "rank-none": (lambda: LoRA(r=None), ["r=None"]),
    "rank-in-a-pattern": (lambda: LoRA(rank_pattern={"q": 0}), ["rank_pattern", "above 0"]),
    "pattern-that-is-a-number": (lambda: LoRA(rank_pattern=4), ["rank_pattern=4"]),
    "alpha-as-text": (lambda: LoRA(lora_alpha="16"), ["lora_alpha", "number"]),
    "alpha-not-a-number": (lambda: LoRA(lora_alpha=float("nan")), ["lora_alpha"]),
    "alpha-in-a-pattern": (lambda: LoRA(alpha_pattern={"q": None}), ["alpha_pattern"]),
    "dropout-one": (lambda: LoRA(lora_dropout=1.0), ["lora_dropout=1.0", "below 1"]),
    "dropout-as-text": (lambda: LoRA(lora_dropout="0.1"), ["lora_dropout"]),
    "bias": (lambda: LoRA(bias="some"), ["'some'", "lora_only"]),
    "start": (lambda: LoRA(init_lora_weights="pizza"), ["'pizza'", "gaussian"]),
    "start-number": (lambda: LoRA(init_lora_weights="pissa_niter_many"), ["pissa_niter_many"]),
    "start-that-does-not-iterate": (lambda: LoRA(init_lora_weights="olora_niter_4"), ["olora_niter_4"]),
    "start-for-no-file": (lambda: LoRA(use_dora=True, init_lora_weights="pissa_niter_4"), ["no file", "'pissa'"]),
    "unknown-field": (lambda: LoRA(gain=8), ["LoRA has no field gain", "its fields are", "lora_alpha"]),
    "close-field": (lambda: LoRA(alpha=8), ["no field alpha"]),
    "field-of-another-method": (lambda: LNTuning(num_virtual_tokens=3), ["num_virtual_tokens", "target_modules"]),
    "hint": (lambda: LoRA(target_module=["q"]), ["did you mean target_modules?"]),
    "without-a-name": (lambda: LoRA(8), ["LoRA(8)", "name each field"]),
    "missing-field": (lambda: PrefixTuning(), ["PrefixTuning needs num_virtual_tokens"]),
    "task": (lambda: LoRA(task_type="SEQ_CLASS"), ["SEQ_CLASS", "SEQ_CLS"]),
    "kept-as-text": (lambda: LoRA(modules_to_save="classifier"), ["modules_to_save='classifier'", "list"]),
    "kept-empty-name": (lambda: LoRA(modules_to_save=[""]), ["modules_to_save"]),
    "oft-both": (lambda: OFT(r=4), ["r=4", "oft_block_size=32"]),
    "oft-neither": (lambda: OFT(oft_block_size=0), ["one of the two"]),
    "oft-negative": (lambda: OFT(oft_block_size=-2), ["oft_block_size"]),
    "oft-one-term": (lambda: OFT(num_cayley_neumann_terms=1), ["num_cayley_neumann_terms"]),
    "oft-dropout": (lambda: OFT(module_dropout=0.1), ["module_dropout"]),
    "vera-start": (lambda: VeRA(init_weights=False), ["init_weights"]),
    "vera-rank": (lambda: VeRA(r=0), ["r=0"]),
    "ia3-start": (lambda: IA3(init_ia3_weights="ones"), ["init_ia3_weights='ones'", "True"]),
    "ia3-inputs-number": (lambda: IA3(feedforward_modules=3), ["feedforward_modules=3", "list of names"]),
    "ia3-inputs-of-numbers": (lambda: IA3(feedforward_modules=["fc2", 3]), ["feedforward_modules", "list of names"]),
    "ia3-inputs-regex": (lambda: IA3(feedforward_modules=".*[fc2"), [".*[fc2", "regular expression"]),
    "ia3-inputs-that-are-no-target": (
        lambda: IA3(target_modules=["k_proj", "fc2"], feedforward_modules=["fc1", "fc2"]),
        ["names fc1", "target_modules does not", "k_proj"],
    ),
    "prompt-length": (lambda: PromptTuning(num_virtual_tokens=0), ["num_virtual_tokens"]),
    "prompt-start": (lambda: PromptTuning(num_virtual_tokens=2, prompt_tuning_init="WORDS"), ["WORDS", "TEXT"]),
    "prompt-text": (lambda: PromptTuning(num_virtual_tokens=2, prompt_tuning_init="TEXT"), ["prompt_tuning_init_text"]),
    "multitask-rank": (lambda: MultitaskPromptTuning(num_virtual_tokens=2, num_ranks=0), ["num_ranks"]),
    "multitask-start": (
        lambda: MultitaskPromptTuning(num_virtual_tokens=2, prompt_tuning_init="MEAN"),
        ["MEAN", "AVERAGE_SOURCE_TASKS"],
    ),
    "multitask-without-a-source": (
        lambda: MultitaskPromptTuning(num_virtual_tokens=2, prompt_tuning_init="ONLY_SOURCE_SHARED"),
        ["prompt_tuning_init_state_dict_path", ".safetensors"],
    ),
    "multitask-from-a-pickle": (
        lambda: MultitaskPromptTuning(
            num_virtual_tokens=2,
            prompt_tuning_init="AVERAGE_SOURCE_TASKS",
            prompt_tuning_init_state_dict_path="adapter_model.bin",
        ),
        ["adapter_model.bin", "run code"],
    ),
    "multitask-mean-of-two": (
        lambda: MultitaskPromptTuning(
            num_virtual_tokens=2,
            num_tasks=2,
            prompt_tuning_init="AVERAGE_SOURCE_TASKS",
            prompt_tuning_init_state_dict_path="a.safetensors",
        ),
        ["num_tasks must be 1"],
    ),
    "encoder": (lambda: PTuning(num_virtual_tokens=2, encoder_reparameterization_type="GRU"), ["GRU", "LSTM"]),
    "encoder-width": (lambda: PTuning(num_virtual_tokens=2, encoder_hidden_size=-1), ["encoder_hidden_size"]),
    "encoder-dropout": (lambda: PTuning(num_virtual_tokens=2, encoder_dropout=1), ["encoder_dropout"]),
    "cartridge-all-frozen": (lambda: Cartridge(num_virtual_tokens=1), ["num_frozen_tokens=1", "at least one trains"]),
    "cartridge-negative": (lambda: Cartridge(num_virtual_tokens=3, num_frozen_tokens=-1), ["0 to 2"]),
    "llama-adapter-length": (lambda: LlamaAdapter(adapter_len=0, adapter_layers=1), ["adapter_len=0"]),
    "llama-adapter-layers": (lambda: LlamaAdapter(adapter_len=2), ["needs adapter_layers"]),
    "llama-adapter-targets": (
        lambda: LlamaAdapter(adapter_len=2, adapter_layers=1, target_modules=["self_attn"]),
        ["target_modules", "one name"],
    ),
    "cpt-empty": (lambda: CPT(cpt_token_ids=[]), ["cpt_token_ids=[]"]),
    "cpt-lengths": (lambda: CPT(cpt_token_ids=[1, 2], cpt_tokens_type_mask=[1]), ["cpt_tokens_type_mask", "2 whole"]),
    "cpt-radius": (lambda: CPT(opt_projection_epsilon=-0.1), ["negative"]),
    "cpt-task": (lambda: CPT(task_type="SEQ_CLS"), ["CAUSAL_LM"]),
    "cpt-decay": (lambda: CPT(opt_weighted_loss_type="decay"), ["no field opt_weighted_loss_type"]),
    "prefix-start": (lambda: PrefixTuning(num_virtual_tokens=2, init_weights="ones"), ["ones", "zero"]),
    "prefix-width": (lambda: PrefixTuning(num_virtual_tokens=2, encoder_hidden_size=0), ["encoder_hidden_size"]),
}


@pytest.mark.parametrize(("make", "words"), BAD_FIELDS.values(), ids=BAD_FIELDS)
def test_bad_fields(make, words):
    with pytest.raises(ConfigError) as caught:
        make()
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_method_cannot_be_changed_but_replaced():
    method = LoRA(r=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.r = 4
    with pytest.raises(ConfigError, match="above 0"):
        dataclasses.replace(method, r=0)
    with pytest.raises(ConfigError, match="no field"):
        dataclasses.replace(method, rank=3)
    assert dataclasses.replace(method, r=4) == LoRA(r=4) != method


# ---- attach -------------------------------------------------------------------------------------------------------

BAD_PLACES = {
    "matches-nothing": ("llama", LoRA(target_modules=["query"]), ["query", "q_proj", "v_proj"], TargetError),
    "nearly": ("llama", LoRA(target_modules=["q_porj"]), ["did you mean 'q_proj'"], TargetError),
    "broken-regex": ("llama", LoRA(target_modules=".*[q_proj"), ["not a valid regular expression"], TargetError),
    "all-excluded": ("llama", LoRA(exclude_modules=["q_proj", "v_proj"]), ["excluded"], TargetError),
    "no-such-layer": ("llama", LoRA(target_modules=["q_proj"], layers_to_transform=[7]), ["0-1"], TargetError),
    "no-default": ("conv", LoRA(), ["No default targets", "name target_modules"], TargetError),
    "not-a-linear": ("llama", LoRA(target_modules=["input_layernorm"]), ["LlamaRMSNorm", "linear"], ConfigError),
    "a-container": ("llama", LoRA(target_modules=["mlp"]), ["model.layers.0.mlp", "LlamaMLP"], ConfigError),
    "nested": ("llama", LoRA(target_modules=["up_proj", "mlp"]), ["model.layers.0.mlp"], ConfigError),
    "second-layer-does-not-fit": ("conv", LoRA(target_modules=["wide", "norm"]), ["norm", "BatchNorm2d"], ConfigError),
    "dora-on-a-convolution": ("conv", LoRA(target_modules=["head", "wide"], use_dora=True), ["wide"], ConfigError),
    "pissa-on-an-embedding": (
        "llama",
        LoRA(target_modules=["embed_tokens"], init_lora_weights="pissa"),
        ["embed_tokens", "linear"],
        ConfigError,
    ),
    "oft-on-a-convolution": ("conv", OFT(oft_block_size=2, target_modules=["head", "wide"]), ["wide"], ConfigError),
    "oft-of-size-one": ("llama", OFT(oft_block_size=1), ["size 1"], ConfigError),
    "vera-on-a-convolution": ("conv", VeRA(r=2, target_modules=["wide"]), ["wide", "Conv2d"], ConfigError),
    "ia3-on-an-embedding": (
        "llama",
        IA3(target_modules=["embed_tokens"], feedforward_modules=[]),
        ["embed_tokens", "Embedding", "linear and conv2d"],
        ConfigError,
    ),
    "ia3-no-default": ("conv", IA3(), ["No default targets", "name target_modules"], TargetError),
    "ia3-no-default-inputs": ("conv", IA3(target_modules=["head"]), ["feedforward_modules", "ConvNet"], ConfigError),
    "ia3-inputs-that-are-no-default-target": (
        "llama",
        IA3(feedforward_modules=["o_proj"]),
        ["o_proj", "target_modules", "down_proj"],
        ConfigError,
    ),
    "norm-without-parameters": ("llama", LNTuning(target_modules=["act_fn"]), ["act_fn", "no parameters"], ConfigError),
    "kept-and-target": ("llama", LoRA(modules_to_save=["j_proj", "oj"]), ["j_proj"], ConfigError),
    "kept-is-not-there": ("llama", LoRA(modules_to_save=["lm_heads"]), ["did you mean 'lm_head'?"], ConfigError),
    "kept-within-a-word": ("llama", LoRA(modules_to_save=["proj"]), ["both a target and in"], ConfigError),
    "prompt-without-words": ("conv", PromptTuning(num_virtual_tokens=2), ["ConvNet", "embeddings"], PeftLabError),
    "prefix-without-attention": ("conv", PrefixTuning(num_virtual_tokens=2), ["ConvNet", "attention"], PeftLabError),
    "cartridge-without-attention": ("conv", Cartridge(num_virtual_tokens=2), ["ConvNet", "attention"], PeftLabError),
    "llama-adapter-on-bert": (
        "bert",
        LlamaAdapter(adapter_len=2, adapter_layers=1),
        ["llama, mistral, gpt2", "is bert", "another method"],
        PeftLabError,
    ),
    "llama-adapter-without-a-config": (
        "conv",
        LlamaAdapter(adapter_len=2, adapter_layers=1),
        ["ConvNet", "none of them"],
        PeftLabError,
    ),
    "llama-adapter-on-more-layers": (
        "llama",
        LlamaAdapter(adapter_len=2, adapter_layers=3),
        ["adapter_layers=3", "2 modules called self_attn"],
        ConfigError,
    ),
    "llama-adapter-elsewhere": (
        "llama",
        LlamaAdapter(adapter_len=2, adapter_layers=1, target_modules="mlp"),
        ["model.layers.1.mlp", "LlamaMLP", "not an attention layer"],
        ConfigError,
    ),
    "cpt-on-a-classifier": ("bert", CPT(cpt_token_ids=[1]), ["BertForSequenceClassification"], ConfigError),
    "cpt-unknown-word": ("llama", CPT(cpt_token_ids=[97]), ["97", "0 to 96"], ConfigError),
    "a-string-is-no-method": ("llama", "LoRA", ["LoRA(r=8)", "str"], PeftLabError),
    "a-class-is-no-method": ("llama", LoRA, ["LoRA(r=8)", "not LoRA"], PeftLabError),
    "pefts-config-is-no-method": ("llama", peft.LoraConfig(r=2), ["LoraConfig"], PeftLabError),
}


@pytest.mark.parametrize(("name", "method", "words", "error"), BAD_PLACES.values(), ids=BAD_PLACES)
def test_attach_refuses_and_leaves_nothing_behind(name, method, words, error, refused):
    model = tiny.fresh(name)
    with refused(model, *words, error=error):
        peftlab.attach(model, method)
    other = adapted(name, LoRA(r=2, target_modules=tiny.TARGETS.get(name)), adapter="first")
    with refused(other, *words, error=error):
        peftlab.attach(other, method, name="second")
    peftlab.detach(other)


@pytest.mark.parametrize(
    "name",
    ["", "a.b", "a b", "ä", "__base__", "type", "keys", "pop", "forward", "training", "_modules", "train", None, 3],
)
def test_names_that_cannot_be_used(name, refused):
    model = tiny.fresh("llama")
    with refused(model, repr(name), "cannot name an adapter"):
        peftlab.attach(model, LoRA(r=2), name=name)


def test_a_name_that_is_taken(refused, tmp_path):
    model = adapted(adapter="mine")
    with refused(model, "'mine' is attached already", "detach"):
        peftlab.attach(model, LoRA(r=4), name="mine")
    peftlab.save(model, tmp_path)
    with refused(model, "'mine' is attached already"):
        peftlab.load(model, tmp_path, name="mine")
    peftlab.attach(model, LoRA(r=4), name="yours")
    with refused(model, "'yours' is attached already"):
        peftlab.add_weighted_adapter(model, ["mine"], [1.0], "yours")


def test_an_attention_implementation_that_prefixes_do_not_know(refused):
    model = tiny.fresh("llama")
    model.config._attn_implementation_internal = "flex_attention"
    with refused(model, "flex_attention", "sdpa"):
        peftlab.attach(model, PrefixTuning(num_virtual_tokens=2))
    peftlab.attach(model, LoRA(r=2))  # which others do not mind


def test_a_bias_of_the_model_itself(refused):
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.bias = nn.Linear(4, 4), nn.Parameter(torch.zeros(4))

    model = Root()
    with refused(model, "bias", "Root itself", error=ConfigError):
        peftlab.attach(model, LoRA(r=2, target_modules=["layer"], bias="all"))


def test_layers_that_are_read_but_never_called(refused):
    encoder = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    model = nn.ModuleDict({"encoder": encoder})
    with refused(model, "linear1", "set_fastpath_enabled(False)"):
        peftlab.attach(model, LoRA(r=2, target_modules=["linear1"]))
    with refused(model, "out_proj", "without calling it", "exclude_modules"):
        peftlab.attach(model, LoRA(r=2, target_modules=["out_proj"]))
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        x, plain = torch.randn(2, 3, 8), encoder.eval()
        with torch.no_grad():
            before = plain(x)
            peftlab.attach(model, LoRA(r=2, target_modules=["linear1", "linear2"], init_lora_weights=False))
            assert not torch.allclose(encoder(x), before)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_models_that_cannot_take_adapters(refused):
    with pytest.raises(PeftLabError, match="torch.nn.Module, not into a dict"):
        peftlab.attach({}, LoRA(r=2))
    theirs = peft.get_peft_model(tiny.fresh("llama"), peft.LoraConfig(r=2))
    with refused(theirs, "adapters of peft", "unload"):
        peftlab.attach(theirs, LoRA(r=2))
    taken = nn.ModuleDict({"peftlab": nn.Linear(2, 2)})
    with refused(taken, "attribute called peftlab"):
        peftlab.attach(taken, LoRA(r=2, target_modules=["peftlab"]))


def test_a_part_of_a_model_and_the_whole(refused):
    whole = adapted()
    with refused(whole, "another model object"):
        peftlab.attach(whole.model, LoRA(r=2), name="inner")
    whole = tiny.fresh("llama")
    peftlab.attach(whole.model, LoRA(r=2), name="inner")
    with refused(whole, "another model object"):
        peftlab.attach(whole, LoRA(r=2), name="outer")
    peftlab.detach(whole.model)
    peftlab.attach(whole, LoRA(r=2), name="outer")


def test_a_letter_by_letter_match_is_said(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        peftlab.attach(tiny.fresh("llama"), LoRA(r=2, modules_to_save=["norm"]))
    assert any("also takes" in str(w.message) and "input_layernorm" in str(w.message) for w in caught)


# ---- which adapters are on ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["use", "disabled", "folded", "merge", "detach", "save", "add_weighted_adapter"])
def test_nothing_is_attached(verb, refused, tmp_path):
    model = tiny.fresh("llama")
    arguments = {"use": ["a"], "save": [tmp_path / "x"], "add_weighted_adapter": [["a"], [1.0], "b"]}.get(verb, [])
    with refused(model, "nothing is attached", "peftlab.attach"):
        result = getattr(peftlab, verb)(model, *arguments)
        with result:
            pass


def test_an_adapter_that_is_not_there(refused, tmp_path):
    model = adapted(adapter="mine")
    for call in (
        lambda: peftlab.use(model, "yours"),
        lambda: peftlab.use(model, ["mine", "yours"]),
        lambda: peftlab.detach(model, "yours"),
        lambda: peftlab.save(model, tmp_path / "x", name="yours"),
        lambda: peftlab.add_weighted_adapter(model, ["mine", "yours"], [1, 1], "sum"),
    ):
        with refused(model, "'yours'", "attached are: mine"):
            call()
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("names", [[], (), ["mine", "mine"]])
def test_use_needs_each_name_once(names, refused):
    model = adapted(adapter="mine")
    with refused(model, "at least one", "once", "disabled"):
        peftlab.use(model, names)


def test_two_adapters_that_replace_the_same_parameters(refused):
    model = adapted("bert", LoRA(r=2), "a")  # each keeps a classifier of its own
    peftlab.attach(model, LoRA(r=2), name="b")
    with refused(model, "classifier", "only one of them"):
        peftlab.use(model, ["a", "b"])
    model = adapted("llama", LNTuning(), "a")
    peftlab.attach(model, LNTuning(), name="b")
    with refused(model, "input_layernorm", "only one of them"):
        peftlab.use(model, ["a", "b"])


def test_changes_while_folded(refused, tmp_path):
    model = adapted(adapter="a")
    peftlab.attach(model, LoRA(r=2), name="b")
    with peftlab.folded(model):
        for call in (
            lambda: peftlab.use(model, "b"),
            lambda: peftlab.merge(model),
            lambda: peftlab.detach(model),
            lambda: peftlab.detach(model, "b"),
            lambda: peftlab.attach(model, LoRA(r=2), name="c"),
        ):
            with refused(model, "leave peftlab.folded"):
                call()
        peftlab.save(model, tmp_path)  # only reads


# ---- mixed batches ------------------------------------------------------------------------------------------------


BAD_ROWS = {
    "too-few": (["a", "a"], ["2 entries", "3 rows"]),
    "too-many": (["a"] * 4, ["4 entries", "3 rows"]),
    "none": ([], ["0 entries"]),
    "unknown": (["a", "z", "__base__"], ["z", "attached are: a, prompt", "__base__"]),
    "one-string": ("aaa", ["one string", "list"]),
    "not-a-name": (["a", None, 3], ["None", "attached are"]),
    "prompt": (["a", "prompt", "a"], ["'prompt'", "peft does not allow"]),
}


@pytest.mark.parametrize(("rows", "words"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_bad_rows(rows, words, refused):
    model = adapted(adapter="a")
    peftlab.attach(model, PromptTuning(num_virtual_tokens=2), name="prompt")
    inputs = {"input_ids": tiny.tokens(3)}
    with refused(model, *words):
        tiny.outputs(model, inputs, adapter_names=rows)
    with refused(model, *words):
        model.generate(tiny.tokens(3), max_new_tokens=2, adapter_names=rows)
    tiny.outputs(model, inputs)


def test_bad_rows_on_a_plain_torch_model(refused):
    model, x = adapted("conv", LoRA(r=2, target_modules=["head"])), tiny.batch("conv")
    with refused(model, "2 entries", "3 rows"):
        tiny.outputs(model, x, adapter_names=["default", "__base__"])


def test_rows_while_a_prompt_is_active(refused):
    for method in (PromptTuning(num_virtual_tokens=2), PrefixTuning(num_virtual_tokens=2)):
        model = adapted(adapter="a")
        peftlab.attach(model, method, name="seat")
        peftlab.use(model, "seat")
        with refused(model, "seat", "whole batch"):
            tiny.outputs(model, {"input_ids": tiny.tokens(3)}, adapter_names=["a", "__base__", "a"])


def test_rows_for_a_llama_adapter(refused):
    model = adapted(adapter="a")
    peftlab.attach(model, LlamaAdapter(adapter_len=2, adapter_layers=1), name="prompt")
    with refused(model, "'prompt' is LlamaAdapter", "one cache"):
        tiny.outputs(model, {"input_ids": tiny.tokens(3)}, adapter_names=["a", "prompt", "a"])


BAD_TASKS = {
    "none": (None, ["which of the 2 tasks"]),
    "one-for-all": (torch.tensor(1), ["3 whole numbers", "()"]),
    "too-few": ([0, 1], ["3 whole numbers", "(2,)"]),
    "fractions": ([0.0, 1.0, 1.0], ["torch.float32"]),
    "no-such-task": ([0, 1, 2], ["[0, 1, 2]", "0 to 1"]),
    "negative": ([0, -1, 0], ["0 to 1"]),
}


@pytest.mark.parametrize(("tasks", "words"), BAD_TASKS.values(), ids=BAD_TASKS)
def test_bad_task_ids(tasks, words, refused):
    model = adapted(method=MultitaskPromptTuning(num_virtual_tokens=2, num_tasks=2))
    given = {} if tasks is None else {"task_ids": tasks}
    with refused(model, *words):
        tiny.outputs(model, {"input_ids": tiny.tokens(3)}, **given)
    with refused(model, *words):
        model.generate(tiny.tokens(3), max_new_tokens=2, **given)


def test_a_cpt_context_without_a_label(refused):
    config = peft.CPTConfig(cpt_token_ids=[5, 9], task_type="CAUSAL_LM")  # with the default types, all 1
    assert peft.get_peft_model(tiny.fresh("llama"), config)(**tiny.batch("llama")).loss.isnan()
    model = adapted(method=CPT(cpt_token_ids=[5, 9]))
    with refused(model, "no label counts", "multiple of 4"):
        model(**tiny.batch("llama"))
    tiny.outputs(model, {"input_ids": tiny.tokens(3)})
    model = adapted(method=CPT(cpt_token_ids=[5, 9], cpt_tokens_type_mask=[1, 4]))
    with refused(model, "input_type_mask", "(3, 2)", "(3, 7)"):
        model(**tiny.batch("llama"), input_type_mask=torch.full((3, 2), 4))


def test_a_weighted_cpt_loss_in_a_file(tmp_path, refused):
    config = {"cpt_token_ids": [5, 9], "cpt_tokens_type_mask": [1, 4], "opt_weighted_loss_type": "decay"}
    theirs = peft.get_peft_model(tiny.fresh("llama"), peft.CPTConfig(task_type="CAUSAL_LM", **config))
    theirs.save_pretrained(tmp_path)
    model = tiny.fresh("llama")
    with refused(model, "opt_weighted_loss_type='decay'", error=ConfigError):
        peftlab.load(model, tmp_path)


def test_a_prompt_needs_tokens(refused):
    model = adapted(method=PromptTuning(num_virtual_tokens=2))
    with refused(model, "input_ids or inputs_embeds"):
        model(attention_mask=torch.ones(1, 3))
    with refused(model, "attention_mask of shape (batch, tokens)", error=ConfigError):
        model(input_ids=tiny.tokens(3), attention_mask=torch.ones(3, 1, 7, 7))


# ---- merging ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [m for m in tiny.every_method().values() if not tiny.merges(m)])
def test_what_is_no_weight_does_not_merge(method, refused):
    model = adapted(method=method)
    with refused(model, type(method).__name__, "cannot be merged", "merge", error=NotMergeable):
        peftlab.merge(model)
    with refused(model, "cannot be merged", error=NotMergeable), peftlab.folded(model):
        pass


def test_tied_embeddings_need_a_word_of_consent(refused):
    for targets, site in ((["wte"], "transformer.wte"), (["c_attn", "lm_head"], "lm_head")):
        model = adapted("gpt2", LoRA(r=2, target_modules=targets))
        with refused(model, site, "shares its weight", "untie=True", error=NotMergeable):
            peftlab.merge(model)
        inputs = tiny.batch("gpt2")
        before = tiny.outputs(model, inputs)
        peftlab.merge(model, untie=True)
        torch.testing.assert_close(tiny.outputs(model, inputs), before)
        same = tiny.fresh("gpt2").lm_head.weight
        kept, changed = model.lm_head.weight, model.transformer.wte.weight
        if site == "lm_head":
            kept, changed = changed, kept
        assert torch.equal(kept, same) and not torch.equal(changed, same)


def test_a_trained_bias_on_a_tied_layer_merges_without_asking():
    inputs = {"input_ids": tiny.tokens()}
    model = tiny.randomise(peftlab.attach(tiny.bert("MaskedLM"), LoRA(r=2, bias="all")))
    before = tiny.outputs(model, inputs)
    peftlab.merge(model)
    torch.testing.assert_close(tiny.outputs(model, inputs), before)
    decoder, words = model.cls.predictions.decoder, model.bert.embeddings.word_embeddings
    assert decoder.weight is words.weight and model.config.tie_word_embeddings


def test_grouped_convolutions_do_not_merge(refused):
    model = peftlab.attach(tiny.conv(groups=2), LoRA(r=2, target_modules=["wide", "head"]))
    for verb in (peftlab.merge, lambda m: peftlab.folded(m).__enter__()):
        with refused(model, "wide", "2 groups", error=NotMergeable):
            verb(model)


def test_a_rank_that_does_not_fit_the_groups(refused):
    model = tiny.conv(groups=2)
    with refused(model, "r=3", "groups (2)", error=ConfigError):
        peftlab.attach(model, LoRA(r=3, target_modules=["head", "wide"]))
    model = nn.Sequential(nn.Conv2d(3, 3, 3, dilation=2))
    with refused(model, "dilation", "exclude", error=ConfigError):
        peftlab.attach(model, LoRA(r=3, target_modules=["0"]))


def test_values_that_are_not_finite_do_not_merge(refused):
    model = adapted()
    model.model.layers[1].self_attn.v_proj.adapters["default"].lora_A.weight.data[0, 0] = float("inf")
    with refused(model, "layers.1.self_attn.v_proj", "not finite", error=NotMergeable):
        peftlab.merge(model)


# ---- saving, combining --------------------------------------------------------------------------------------------


def test_a_head_that_would_be_lost(refused, tmp_path):
    model = adapted()
    model.lm_head.weight.requires_grad_(True)  # the classic: unfrozen by hand after attach
    with refused(model, "lm_head.weight", "modules_to_save"):
        peftlab.save(model, tmp_path / "x")
    assert not (tmp_path / "x").exists()
    for parameter in model.model.parameters():
        parameter.requires_grad_(True)
    with refused(model, "and others"):
        peftlab.save(model, tmp_path / "x")


def test_combining(refused):
    model = adapted(adapter="a")
    peftlab.attach(model, LoRA(r=3), name="larger")
    peftlab.attach(model, LoRA(r=2, use_dora=True), name="dora")
    peftlab.attach(model, LoRA(r=2, modules_to_save=["lm_head"]), name="head")
    peftlab.attach(model, LoRA(r=2, bias="all", target_modules="all-linear"), name="biases")
    peftlab.attach(model, LoRA(r=2, init_lora_weights="pissa"), name="pissa")
    peftlab.attach(model, VeRA(r=2), name="vera")
    peftlab.attach(model, PromptTuning(num_virtual_tokens=2), name="prompt")
    peftlab.attach(model, IA3(), name="ia3")
    peftlab.attach(model, IA3(feedforward_modules=[]), name="outputs")
    peftlab.attach(model, IA3(modules_to_save=["lm_head"]), name="ia3-head")
    bad = {
        "choose 'cat' or 'linear'": (["a"], [1.0], "svd"),
        "2 adapters and 1 weights": (["a", "a"], [1.0], "cat"),
        "0 adapters": ([], [], "cat"),
        "equal rank": (["a", "larger"], [1.0, 1.0], "linear"),
        "only plain LoRA": (["a", "dora"], [1.0, 1.0], "cat"),
        "which copy": (["a", "head"], [1.0, 1.0], "cat"),
        "only plain LoRA ": (["a", "pissa"], [1.0, 1.0], "cat"),
        "only plain": (["a", "vera"], [1.0, 1.0], "cat"),
        "can be combined": (["prompt"], [1.0], "cat"),
        "IA3 with IA3": (["ia3", "a"], [1.0, 1.0], "linear"),
        "can only be added": (["ia3", "ia3"], [0.5, 0.5], "cat"),
        "scales model.layers.0.mlp.down_proj's input": (["ia3", "outputs"], [0.5, 0.5], "linear"),
        "which copy ": (["ia3", "ia3-head"], [0.5, 0.5], "linear"),
    }
    for words, (names, weights, how) in bad.items():
        with refused(model, words, error=ConfigError):
            peftlab.add_weighted_adapter(model, names, weights, "new", how)


@pytest.mark.parametrize("how", ["cat", "linear"])
def test_combining_equals_peft(how):
    base, inputs = tiny.fresh("gpt2", torch.float64), tiny.batch("gpt2")
    ours, theirs = copy.deepcopy(base), None
    for seed, (name, alpha) in enumerate((("a", 3), ("b", 5))):
        fields = {"r": 2, "lora_alpha": alpha, "target_modules": ["c_attn", "wte"]}
        peftlab.attach(ours, LoRA(**fields), name=name)
        peftlab.use(ours, name)
        tiny.randomise(ours, seed=seed)
        config = peft.LoraConfig(**fields, fan_in_fan_out=True)
        if theirs is None:
            theirs = peft.get_peft_model(copy.deepcopy(base), config, name, autocast_adapter_dtype=False).double()
        else:
            theirs.add_adapter(name, config)
            theirs = theirs.double()
        with torch.no_grad():
            for key, tensor in parity.our_tensors(ours, name).items():
                parity.their_tensors(theirs, name)[key].copy_(tensor)
    for weights in ([0.5, 2.0], [1.0, -0.7]):
        label = f"sum{len(ours.peftlab.methods)}"
        peftlab.add_weighted_adapter(ours, ["a", "b"], weights, label, how)
        theirs.add_weighted_adapter(["a", "b"], weights, label, how)
        peftlab.use(ours, label)
        theirs.set_adapter(label)
        mine, reference = tiny.outputs(ours, inputs), tiny.outputs(theirs.eval(), inputs)
        assert parity.relative_difference(mine, reference) < 1e-6  # peft makes the new adapter in float32


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_combining_ia3_equals_peft(name, tmp_path):
    """Also where only one of the two has a vector: the other counts as zero there, not as one."""
    base, inputs = tiny.fresh(name, torch.float64), tiny.batch(name)
    first, second = {
        "llama": ({}, {"target_modules": ["v_proj", "up_proj"], "feedforward_modules": []}),
        "gpt2": ({}, {"target_modules": ["c_attn", "c_fc"], "feedforward_modules": ["c_fc"]}),
    }[name]
    ours, theirs = copy.deepcopy(base), None
    for seed, (label, fields) in enumerate((("a", first), ("b", second))):
        peftlab.attach(ours, IA3(**fields), name=label)
        peftlab.use(ours, label)
        tiny.randomise(ours, seed=seed)
        config = peft.IA3Config(**fields, fan_in_fan_out=name == "gpt2")
        if theirs is None:
            theirs = peft.get_peft_model(copy.deepcopy(base), config, label, autocast_adapter_dtype=False).double()
        else:
            theirs.add_adapter(label, config)
            theirs = theirs.double()
        with torch.no_grad():
            for key, tensor in parity.our_tensors(ours, label).items():
                parity.their_tensors(theirs, label)[key].copy_(tensor)
    alone = tiny.outputs(ours, inputs)
    for weights in ([0.5, 0.5], [1.5, -0.7]):
        label = f"sum{len(ours.peftlab.methods)}"
        peftlab.add_weighted_adapter(ours, ["a", "b"], weights, label, "linear")
        theirs.add_weighted_adapter(["a", "b"], weights, label)
        peftlab.use(ours, label)
        theirs.set_adapter(label)
        mine, reference = tiny.outputs(ours, inputs), tiny.outputs(theirs.eval(), inputs)
        assert parity.relative_difference(mine, reference) < 1e-6  # peft makes the new adapter in float32
        assert parity.relative_difference(mine, alone) > 1e-3
    peftlab.save(ours, tmp_path)
    back = tiny.outputs(peftlab.load(copy.deepcopy(base), tmp_path), inputs)
    assert parity.relative_difference(back, mine) < 1e-6
    opened = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path).double().eval()
    assert parity.relative_difference(tiny.outputs(opened, inputs), mine) < 1e-6


def test_a_combination_can_be_saved(tmp_path):
    model = adapted("llama", LoRA(r=2, target_modules=["q_proj"]), "a")
    peftlab.attach(model, LoRA(r=3, target_modules=["q_proj", "up_proj"]), name="b")
    peftlab.use(model, "b")
    tiny.randomise(model)
    peftlab.add_weighted_adapter(model, ["a", "b"], [1.0, 0.5], "sum")
    peftlab.use(model, "sum")
    inputs = tiny.batch("llama")
    wanted = tiny.outputs(model, inputs)
    peftlab.save(model, tmp_path)
    torch.testing.assert_close(tiny.outputs(peftlab.load(tiny.fresh("llama"), tmp_path), inputs), wanted)
    theirs = peft.PeftModel.from_pretrained(tiny.fresh("llama"), tmp_path).eval()
    torch.testing.assert_close(tiny.outputs(theirs, inputs), wanted)


# ---- the shape of errors ------------------------------------------------------------------------------------------


def test_every_error_is_a_value_error_of_ours():
    for error in (ConfigError, CheckpointError, NotMergeable, TargetError):
        assert issubclass(error, PeftLabError) and issubclass(error, ValueError)


def test_a_word_that_is_no_verb():
    with pytest.raises(AttributeError, match="its verbs are attach"):
        peftlab.atach  # noqa: B018
    assert {"attach", "merge", "PeftLabError"} <= set(dir(peftlab))
    assert all(callable(getattr(peftlab, verb)) for verb in peftlab.__all__)
