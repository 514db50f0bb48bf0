"""Ours equals peft's, level by level; and the proof fails when ours is made wrong."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from functools import partial

import peft
import pytest
import torch
import torch.nn.functional as F
import transformers
from peft.tuners.ia3 import IA3Layer
from peft.utils import constants
from torch import nn

import peftlab
from peftlab import checkpoint, parity, surgery
from peftlab.methods import (
    BEFT,
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
    SHiRA,
    Supertuning,
    TrainableTokens,
    VeRA,
)
from peftlab.methods.additive.cartridge import FrozenStartPrefix
from peftlab.methods.additive.cpt import ContextPrompt
from peftlab.methods.additive.ia3 import FEEDFORWARD, ScaledInput, ScaledOutput
from peftlab.methods.additive.llama_adapter import AdaptionPrompt
from peftlab.methods.additive.multitask_prompt_tuning import MultitaskPrompt
from peftlab.methods.additive.p_tuning import Encoder
from peftlab.methods.additive.prefix_tuning import Prefix
from peftlab.methods.additive.prompt_tuning import Prompt
from peftlab.methods.reparam.dora import DoRALinear
from peftlab.methods.reparam.lora import LoRAConv2d, LoRALinear
from peftlab.methods.reparam.oft import Rotation
from peftlab.methods.reparam.vera import VeRALinear
from peftlab.methods.selective.layer_norm import NORMS
from peftlab.methods.selective.shira import SHiRALinear
from peftlab.methods.selective.supertuning import SuperLinear
from peftlab.methods.selective.trainable_tokens import TokensLayer
from peftlab.targeting import LORA_DEFAULTS
from tests import tiny

pytestmark = pytest.mark.usefixtures("quiet")
DoRA = partial(LoRA, use_dora=True)
FLOAT32 = {"dtype": torch.float32, "tolerance": 2e-5}  # for starts that decompose the weight: peft refuses float64

# ---- the matrix ---------------------------------------------------------------------------------------------------

LSTM = PTuning(
    num_virtual_tokens=3, encoder_reparameterization_type="LSTM", encoder_hidden_size=7, encoder_num_layers=3
)
METHODS = {
    "lora": LoRA(r=3, lora_alpha=7),
    "lora-all-linear-rslora-bias": LoRA(r=3, lora_alpha=7, target_modules="all-linear", use_rslora=True, bias="all"),
    "lora-own-biases": LoRA(r=3, bias="lora_only"),
    "dora": DoRA(r=3, lora_alpha=5),
    "dora-own-biases": DoRA(r=3, bias="lora_only"),
    "dora-all-biases": DoRA(r=3, bias="all"),
    "oft": OFT(oft_block_size=4),
    "oft-inverse-by-blocks": OFT(oft_block_size=0, r=3, use_cayley_neumann=False),
    "vera": VeRA(r=5),
    "vera-without-bases-in-file": VeRA(r=5, save_projection=False, projection_prng_key=7, d_initial=0.3),
    "layer-norm": LNTuning(),
    "shira": SHiRA(r=3),
    "shira-everywhere-by-seed": SHiRA(r=2, random_seed=5, target_modules="all-linear"),
    "supertuning": Supertuning(sparsity=0.9),
    "supertuning-smallest-and-not-saved": Supertuning(sparsity=0.75, select_top=False, save_precomputed_indices=False),
    "beft": BEFT(),
    "trainable-tokens": TrainableTokens(token_indices=[14, 50, 85]),
    "ia3": IA3(),
    "ia3-all-linear-random": IA3(target_modules="all-linear", init_ia3_weights=False),
    "prompt": PromptTuning(num_virtual_tokens=3),
    "p-tuning": PTuning(num_virtual_tokens=3, encoder_hidden_size=11),
    "p-tuning-as-wide-as-the-model": PTuning(num_virtual_tokens=2),
    "p-tuning-lstm": LSTM,
    "multitask-prompt": MultitaskPromptTuning(num_virtual_tokens=3, num_tasks=2, num_ranks=2),
    "llama-adapter": LlamaAdapter(adapter_len=5, adapter_layers=2),
    "cartridge": Cartridge(num_virtual_tokens=4, num_frozen_tokens=2),
    "prefix": PrefixTuning(num_virtual_tokens=3),
    "prefix-network": PrefixTuning(num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=11),
}
NOT_HERE = {("gpt2", "oft"), ("gpt2", "oft-inverse-by-blocks")}  # Conv1D: peft's OFT does not know it either
NOT_HERE |= {("bert", "llama-adapter")}  # nor does peft's
NOT_HERE |= {("gpt2", name) for name in METHODS if name.startswith(("shira", "supertuning", "beft"))}  # Conv1D again
NOT_HERE |= {("llama", "beft")}  # all but merging, which peft refuses: see test_selective.py
NOT_HERE |= {("bert", "trainable-tokens")}  # peft's takes no head along
MATRIX = [(model, method) for model in ("llama", "gpt2", "bert") for method in METHODS]
MATRIX = [pair for pair in MATRIX if pair not in NOT_HERE]


@pytest.mark.parametrize(("model", "method"), MATRIX)
def test_every_method_on_every_model(model, method):
    inputs = {**tiny.batch(model), **tiny.tasks(METHODS[method])}
    proof = parity.prove(tiny.fresh(model), METHODS[method], inputs, steps=3)
    proof.check()
    assert {row.level for row in proof.rows} | set(proof.left_out) == set(parity.LEVELS)


SPECIAL = {
    "rank-and-alpha-patterns": (
        "gpt2",
        LoRA(
            r=4,
            target_modules=["c_fc", "c_proj", "c_attn"],
            rank_pattern={"h.1.mlp.c_fc": 2, "attn.*": 5},
            alpha_pattern={"mlp.c_proj": 16, r"h\.[01]\.attn\.c_attn": 0.5},
        ),
    ),
    "rslora-with-patterns": ("llama", LoRA(r=4, use_rslora=True, rank_pattern={"v_proj": 1}, lora_alpha=3)),
    "layers-to-transform": ("llama", LoRA(r=2, target_modules=["q_proj", "down_proj"], layers_to_transform=[1])),
    "exclude": ("bert", LoRA(r=2, target_modules=["dense"], exclude_modules=["pooler.dense"])),
    "embedding": ("llama", LoRA(r=4, target_modules=["embed_tokens", "q_proj"])),
    "head-and-embedding-kept": ("llama", LoRA(r=2, modules_to_save=["lm_head", "embed_tokens"])),
    "kept-by-letters": ("llama", LoRA(r=2, modules_to_save=["norm"])),  # peft: also input_layernorm
    "oft-size-that-does-not-divide": ("llama", OFT(oft_block_size=5)),
    "oft-size-between-two-divisors": ("llama", OFT(oft_block_size=20)),
    "oft-size-above-d_in": ("llama", OFT(oft_block_size=100)),
    "oft-blocks-that-do-not-divide": ("llama", OFT(oft_block_size=0, r=5)),
    "oft-2-terms": ("llama", OFT(oft_block_size=4, num_cayley_neumann_terms=2)),
    "oft-3-terms": ("llama", OFT(oft_block_size=4, num_cayley_neumann_terms=3)),
    "oft-6-terms": ("llama", OFT(oft_block_size=4, num_cayley_neumann_terms=6)),
    "prefix-zero-start": ("bert", PrefixTuning(num_virtual_tokens=1, init_weights="zero")),
    "llama-adapter-top-layer": ("llama", LlamaAdapter(adapter_len=1, adapter_layers=1)),
    "cartridge-all-trained": ("gpt2", Cartridge(num_virtual_tokens=2, num_frozen_tokens=0)),
    "conv": ("conv", LoRA(r=4, target_modules=["wide", "narrow", "head"], lora_alpha=6)),
    "conv-with-kept-modules": ("conv", LoRA(r=3, target_modules=["wide"], modules_to_save=["head", "norm"])),
    "conv-biases": ("conv", LoRA(r=3, target_modules=["wide", "narrow"], bias="all")),
    "conv-own-biases": ("conv", LoRA(r=3, target_modules=["wide", "narrow"], bias="lora_only")),
    "conv-norm": ("conv", LNTuning(target_modules=["norm"])),
    "conv-head-dora": ("conv", DoRA(r=3, target_modules=["head"])),
    "conv-head-vera": ("conv", VeRA(r=3, target_modules=["head"])),
    "conv-head-oft": ("conv", OFT(oft_block_size=5, target_modules=["head"])),
    "ia3-outputs-only": ("llama", IA3(feedforward_modules=[])),
    "ia3-inputs-only": (
        "bert",
        IA3(target_modules=["dense"], exclude_modules=["pooler.dense"], feedforward_modules=".*dense"),
    ),
    "ia3-kept": ("llama", IA3(modules_to_save=["lm_head"])),
    "ia3-names-that-overlap": (
        "gpt2",
        IA3(target_modules=["c_proj", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"]),
    ),
    "ia3-ends-by-letters": ("llama", IA3(target_modules=["o_proj", "down_proj", "proj"], feedforward_modules=["proj"])),
    "ia3-default-inputs-are-no-targets": ("llama", IA3(target_modules=["k_proj"])),
    "ia3-default-inputs-named-otherwise": ("gpt2", IA3(target_modules=["c_proj", "c_fc"])),
    "conv-ia3": ("conv", IA3(target_modules=["wide", "narrow", "head"], feedforward_modules=[])),
    "conv-ia3-inputs": (
        "conv",
        IA3(target_modules=["wide", "narrow", "head"], feedforward_modules=["wide", "narrow", "head"]),
    ),
}


@pytest.mark.parametrize(("model", "method"), SPECIAL.values(), ids=SPECIAL)
def test_fields_that_take_another_path(model, method):
    parity.prove(tiny.fresh(model), method, tiny.batch(model), steps=3).check()


CONTEXTS = {
    "one-example": CPT(cpt_token_ids=[5, 9, 6, 7], cpt_tokens_type_mask=[1, 2, 3, 4]),
    "two-examples-and-no-type": CPT(
        cpt_token_ids=[1, 5, 9, 7, 5, 8, 6],
        cpt_tokens_type_mask=[0, 1, 2, 4, 5, 6, 8],
        opt_projection_epsilon=3.0,
        opt_projection_format_epsilon=0.4,
    ),
}


@pytest.mark.parametrize("model", ["llama", "gpt2"])
@pytest.mark.parametrize("method", CONTEXTS.values(), ids=CONTEXTS)
def test_cpt_with_and_without_its_loss(model, method):
    """peft computes the loss in the model's float64, transformers (and so we) in float32: hence the tolerance there.

    In P3, a copy of peft's model has lost the hook that keeps labels untrained; only its ball of 1e-10 holds them.
    """
    base, inputs = tiny.fresh(model), tiny.batch(model)
    unlabelled = {"input_ids": inputs["input_ids"]}
    parity.prove(base, method, unlabelled, levels=("P0", "P1", "P2", "P4", "P5")).check()
    parity.prove(base, method, unlabelled, levels=("P3",), steps=3, tolerance=1e-8).check()
    for kinds in (None, torch.tensor([[0, 2, 4, 4, 4, 0, 8]] * 3)):
        typed = {**inputs} if kinds is None else {**inputs, "input_type_mask": kinds.clone()}
        ours = tiny.randomise(peftlab.attach(tiny.fresh(model), method))
        theirs = parity.reference(base, ours)
        given = {k: v.clone() for k, v in typed.items()}
        mine, reference = ours(**typed).loss, theirs(**given).loss
        torch.testing.assert_close(mine, reference, atol=1e-5, rtol=0)
        assert kinds is None or not torch.equal(given["input_type_mask"], kinds)  # peft writes into the caller's
    parity.prove(base, method, inputs, steps=3, tolerance=2e-6).check()


@pytest.mark.parametrize("model", ["llama", "gpt2", "bert"])
@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_starts_from_the_weight(model, start):
    if (model, start) == ("gpt2", "olora"):
        pytest.skip("peft's OLoRA fails on Conv1D; ours is tested below")
    method = LoRA(r=3, lora_alpha=5, init_lora_weights=start)
    parity.prove(tiny.fresh(model), method, tiny.batch(model), steps=3, **FLOAT32).check()


STARTS = {
    "pissa-trained-biases": LoRA(r=3, init_lora_weights="pissa", bias="lora_only", rank_pattern={"query": 2}),
    "pissa-dora": DoRA(r=3, init_lora_weights="pissa"),
    "olora-dora-biases": DoRA(r=3, init_lora_weights="olora", bias="all"),
}


@pytest.mark.parametrize("method", STARTS.values(), ids=STARTS)
def test_starts_from_the_weight_with_other_fields(method):
    parity.prove(tiny.fresh("bert"), method, tiny.batch("bert"), steps=3, **FLOAT32).check()


def test_random_svd_start_is_equal_with_equal_seeds_but_for_files():
    method = LoRA(r=3, init_lora_weights="pissa_niter_4")
    proof = parity.prove(tiny.fresh("llama"), method, tiny.batch("llama"), steps=3, **FLOAT32)
    assert {row.level for row in proof.rows if not row.ok} == {"P5"}  # peft's own file does not hold its base
    assert "random approximation" in str(proof)


def test_olora_on_conv1d_starts_as_the_base_where_peft_fails():
    model = tiny.fresh("gpt2")
    method = LoRA(r=3, init_lora_weights="olora")
    theirs = peft.get_peft_model(
        tiny.fresh("gpt2"), peft.LoraConfig(r=3, init_lora_weights="olora", fan_in_fan_out=True)
    )
    with pytest.raises(RuntimeError, match="shape|size"):
        tiny.outputs(theirs, tiny.batch("gpt2"))
    before = tiny.outputs(model, tiny.batch("gpt2"))
    peftlab.attach(model, method)
    torch.testing.assert_close(tiny.outputs(model, tiny.batch("gpt2")), before, atol=1e-5, rtol=0)


def test_grouped_convolutions():
    """All but merging, which neither library can do: A reads every channel, a grouped weight only its own."""
    method = LoRA(r=4, target_modules=["wide", "head"])
    levels = tuple(level for level in parity.LEVELS if level != "P4")
    parity.prove(tiny.conv(groups=2), method, tiny.batch("conv"), steps=3, levels=levels).check()


@pytest.mark.parametrize("inputs", [[], ["wide"]], ids=["outputs", "inputs"])
def test_ia3_on_grouped_convolutions_also_merges(inputs):
    method = IA3(target_modules=["wide", "head"], feedforward_modules=inputs)
    parity.prove(tiny.conv(groups=2), method, tiny.batch("conv"), steps=3).check()


@pytest.mark.parametrize("inputs", [[], ["0", "2"], ["2"]], ids=["outputs", "inputs", "both"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_ia3_on_odd_shapes_with_and_without_biases(bias, inputs):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7, bias=bias), nn.Tanh(), nn.Linear(7, 3, bias=bias))
    method = IA3(target_modules=["0", "2"], feedforward_modules=inputs)
    parity.prove(model, method, torch.randn(2, 1, 5), steps=3).check()


def test_ia3_on_grouped_query_attention_with_biases():
    base = tiny.llama(attention_bias=True, mlp_bias=True)
    assert base.model.layers[0].self_attn.k_proj.bias.any() and base.config.num_key_value_heads == 2
    parity.prove(base, IA3(), tiny.batch("llama"), steps=3).check()


# ---- heads that come along ----------------------------------------------------------------------------------------


def test_token_classification_takes_its_head_along():
    inputs = {"input_ids": tiny.tokens(), "attention_mask": tiny.padding("right"), "labels": tiny.tokens() % 5}
    for method in (LoRA(r=2), PrefixTuning(num_virtual_tokens=2)):
        parity.prove(tiny.bert("TokenClassification"), method, inputs, steps=3).check()


def test_question_answering_takes_its_head_along():
    model = peftlab.attach(tiny.bert("QuestionAnswering", num_labels=2), LoRA(r=2))
    method = model.peftlab.methods["default"]
    assert (method.task_type, method.modules_to_save) == ("QUESTION_ANS", ["qa_outputs"])
    config = peft.LoraConfig(r=2, task_type="QUESTION_ANS")
    theirs = peft.get_peft_model(tiny.bert("QuestionAnswering", num_labels=2), config)
    assert peftlab.count_parameters(model).trainable == theirs.get_nb_trainable_parameters()[0]


def test_two_layer_heads_go_as_in_peft():
    """DistilBERT: peft compares ends of names, so `classifier` takes `pre_classifier` along. RoBERTa: a block."""
    sizes = {"vocab_size": 97, "dim": 48, "hidden_dim": 80, "n_layers": 1, "n_heads": 4, "max_position_embeddings": 64}
    distil = transformers.DistilBertForSequenceClassification(transformers.DistilBertConfig(**sizes, num_labels=5))
    inputs = tiny.batch("bert")
    parity.prove(distil, LoRA(r=2, target_modules=["q_lin"]), inputs, steps=2).check()
    config = transformers.RobertaConfig(
        vocab_size=97,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=70,
        num_labels=5,
    )
    roberta = transformers.RobertaForSequenceClassification(config)
    parity.prove(roberta, LoRA(r=2, target_modules="all-linear"), inputs, steps=2).check()


def test_a_bias_that_two_layers_share_stays_one_bias():
    inputs = {"input_ids": tiny.tokens(), "labels": tiny.tokens()}
    parity.prove(tiny.bert("MaskedLM"), LoRA(r=2, bias="all"), inputs, steps=3).check()


def test_tied_embeddings_merge_apart_where_peft_changes_the_head_too():
    proof = parity.prove(tiny.fresh("gpt2"), LoRA(r=2, target_modules=["wte"]), tiny.batch("gpt2"), steps=2)
    wrong = [row for row in proof.rows if not row.ok]
    assert [(row.level, row.where) for row in wrong] == [("P4", "peft's merged")]


# ---- attention implementations, padding ---------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("model", ["llama", "gpt2", "bert"])
def test_prompts_and_prefixes_with_padding(model, attention, side):
    base = {"llama": tiny.llama, "gpt2": tiny.gpt2, "bert": tiny.bert}[model](attn_implementation=attention)
    assert base.config._attn_implementation == attention
    inputs = {"input_ids": tiny.tokens(), "attention_mask": tiny.padding(side)}
    names = ["prefix", "prompt", "p-tuning", "multitask-prompt", "cartridge"]
    if model != "bert" and (attention, side) != ("eager", "left"):  # there Llama in float64 gives NaN at the padding
        names.append("llama-adapter")
    for method in (METHODS[name] for name in names):
        parity.prove(base, method, {**inputs, **tiny.tasks(method)}, levels=("P1", "P2")).check()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("model", ["llama", "gpt2"])
def test_prefix_without_any_mask(model, attention):
    base = {"llama": tiny.llama, "gpt2": tiny.gpt2}[model](attn_implementation=attention)
    parity.prove(base, PrefixTuning(num_virtual_tokens=3), {"input_ids": tiny.tokens()}, levels=("P1", "P2")).check()


@pytest.mark.parametrize("method", ["lora", "prompt", "prefix", "multitask-prompt", "llama-adapter", "cartridge"])
def test_one_row_one_token(method):
    inputs = {"input_ids": tiny.tokens(1, 1), **tiny.tasks(METHODS[method], 1)}
    parity.prove(tiny.fresh("llama"), METHODS[method], inputs, levels=("P1", "P2")).check()


def test_positions_that_the_caller_gives_are_shifted_by_the_prefix():
    inputs = {"input_ids": tiny.tokens(), "position_ids": torch.arange(7).flip(0).expand(3, -1)}
    parity.prove(tiny.fresh("llama"), PrefixTuning(num_virtual_tokens=3), inputs, levels=("P1",)).check()


def test_llama_adapter_on_mistral():
    sizes = {"vocab_size": 97, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    mistral = transformers.MistralForCausalLM(transformers.MistralConfig(**sizes, **heads, **tiny.SPECIAL)).eval()
    parity.prove(mistral, METHODS["llama-adapter"], tiny.batch("llama"), steps=3).check()


def test_llama_adapter_with_heads_of_a_size_of_their_own_where_peft_fails():
    """d is 48, but 4 heads of size 20 make 80: peft takes the number of key heads from the ratio of the sizes."""
    base, inputs = tiny.llama(head_dim=20), tiny.batch("llama")
    config = peft.AdaptionPromptConfig(adapter_len=2, adapter_layers=1, task_type="CAUSAL_LM")
    with pytest.raises(RuntimeError, match="shape|size"):
        tiny.outputs(peft.get_peft_model(copy.deepcopy(base), config), inputs)
    plain = tiny.outputs(base, inputs)
    ours = peftlab.attach(base, LlamaAdapter(adapter_len=2, adapter_layers=1))
    assert torch.equal(tiny.outputs(ours, inputs), plain)
    assert not torch.allclose(tiny.outputs(tiny.randomise(ours), inputs), plain)


def test_with_its_gate_closed_a_llama_adapter_first_moves_its_gate_only():
    ours = peftlab.attach(tiny.fresh("llama"), METHODS["llama-adapter"])
    tiny.loss(ours, tiny.batch("llama")).backward()
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.any().item() is name.endswith("gate")


def test_p_tuning_ignores_what_belongs_to_the_lstm_and_says_so():
    with pytest.warns(UserWarning, match="belong to the LSTM"):
        peftlab.attach(tiny.fresh("llama"), PTuning(num_virtual_tokens=2, encoder_dropout=0.5))


# ---- chance -------------------------------------------------------------------------------------------------------

DRAWS = {
    "llama": ("llama", {"target_modules": "all-linear"}, {}),
    "llama-gaussian": ("llama", {"target_modules": "all-linear"}, {"init_lora_weights": "gaussian"}),
    "llama-patterns": ("llama", {"rank_pattern": {"v_proj": 2}}, {}),
    "llama-embedding": ("llama", {"target_modules": ["embed_tokens", "q_proj"]}, {}),
    "llama-neither-zero": ("llama", {}, {"init_lora_weights": False}),
    "gpt2-conv1d": ("gpt2", {}, {}),
    "gpt2-conv1d-gaussian": ("gpt2", {}, {"init_lora_weights": "gaussian"}),
    "conv": ("conv", {"target_modules": ["wide", "narrow", "head"]}, {}),
}


@pytest.mark.parametrize(("name", "where", "how"), DRAWS.values(), ids=DRAWS)
def test_equal_seeds_draw_equal_starts(name, where, how):
    fields = {"r": 3, **where, **how}
    torch.manual_seed(5)
    ours = peftlab.attach(tiny.fresh(name), LoRA(**fields))
    torch.manual_seed(5)
    theirs = peft.get_peft_model(tiny.fresh(name), peft.LoraConfig(fan_in_fan_out=name == "gpt2", **fields))
    mine, reference = parity.our_tensors(ours), parity.their_tensors(theirs)
    assert mine.keys() == reference.keys()
    assert all(torch.equal(mine[key], reference[key]) for key in mine)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_equal_seeds_draw_equal_scales(name):
    torch.manual_seed(5)
    mine = parity.our_tensors(peftlab.attach(tiny.fresh(name), IA3(init_ia3_weights=False)))
    torch.manual_seed(5)
    config = peft.IA3Config(init_ia3_weights=False, fan_in_fan_out=name == "gpt2")
    reference = parity.their_tensors(peft.get_peft_model(tiny.fresh(name), config))
    scales = [key for key in mine if key.endswith("ia3_l")]
    assert scales and all(torch.equal(mine[key], reference[key]) for key in scales)


DROPPING = {
    "lora": ("gpt2", LoRA(r=3, lora_dropout=0.3)),
    "lora-all": ("llama", LoRA(r=3, lora_dropout=0.3, target_modules="all-linear")),
    "dora": ("llama", DoRA(r=3, lora_dropout=0.3)),
    "dora-biases": ("bert", DoRA(r=3, lora_dropout=0.3, bias="lora_only")),
    "vera": ("bert", VeRA(r=5, vera_dropout=0.3)),
    "p-tuning-lstm": ("llama", dataclasses.replace(LSTM, encoder_dropout=0.3)),
    "conv": ("conv", LoRA(r=4, lora_dropout=0.3, target_modules=["wide", "narrow", "head"])),
}


def with_dropout(name, method):
    """Outputs and gradients of both sides in train mode, after the same seed."""
    base = tiny.fresh(name, torch.float64)
    ours = tiny.randomise(peftlab.attach(copy.deepcopy(base), method))
    theirs = parity.reference(base, ours)
    found = []
    inputs = parity._in_dtype(tiny.batch(name), torch.float64)
    for model in (ours, theirs):
        model.train()
        torch.manual_seed(3)
        loss = tiny.loss(model, inputs)
        loss.backward()
        found.append(loss.detach())
    difference, _ = max(
        (parity._gradient_difference(parity.our_tensors(ours)[key], parity.their_tensors(theirs)[key], 1e-4), key)
        for key in parity.our_tensors(ours)
        if parity.our_tensors(ours)[key].requires_grad
    )
    return max(difference, parity.relative_difference(*found))


@pytest.mark.parametrize(("name", "method"), DROPPING.values(), ids=DROPPING)
def test_dropout_in_train_mode_with_equal_seeds(name, method):
    assert with_dropout(name, method) < 1e-10


def test_dropout_without_its_scale_is_noticed(monkeypatch):
    right = LoRALinear.__init__

    def wrong(self, site, r, scaling, dropout):
        right(self, site, r, scaling * (1 - dropout), dropout)

    monkeypatch.setattr(LoRALinear, "__init__", wrong)
    assert with_dropout(*DROPPING["lora"]) > 1e-3


# ---- defaults -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "table"),
    [
        (LoRA, constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING),
        (VeRA, constants.TRANSFORMERS_MODELS_TO_VERA_TARGET_MODULES_MAPPING),
        (OFT, constants.TRANSFORMERS_MODELS_TO_OFT_TARGET_MODULES_MAPPING),
        (LNTuning, constants.TRANSFORMERS_MODELS_TO_LNTUNING_TARGET_MODULES_MAPPING),
        (IA3, constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_default_targets_are_pefts(method, table):
    def plain(entry):
        return entry if isinstance(entry, str) else list(entry)

    mine = {kind: plain(entry) for kind, entry in method.default_targets.items() if kind in table}
    assert mine == {kind: plain(table[kind]) for kind in mine}
    extra = set(method.default_targets) - set(table)
    assert extra == ({"bert"} if method is LNTuning else set())
    assert set(NORMS) <= set(LORA_DEFAULTS) and "llama" in mine


def test_default_feedforward_modules_are_pefts():
    table = constants.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING
    assert {kind: list(names) for kind, names in FEEDFORWARD.items()} == {kind: table[kind] for kind in FEEDFORWARD}
    assert set(FEEDFORWARD) == set(IA3.default_targets) == set(LORA_DEFAULTS) & set(table)


PROMPTS = [PromptTuning, PTuning, MultitaskPromptTuning, PrefixTuning, Cartridge, LlamaAdapter, CPT]


@pytest.mark.parametrize("method", [LoRA, OFT, VeRA, LNTuning, IA3, *PROMPTS], ids=lambda m: m.__name__)
def test_field_names_and_defaults_are_pefts(method):
    config = parity_config(method)
    needed = {"num_virtual_tokens": 2, "adapter_len": 2, "adapter_layers": 1, "task_type": "CAUSAL_LM"}
    theirs = config(**{name: value for name, value in needed.items() if name in config.__dataclass_fields__})
    ours = method(**{name: value for name, value in needed.items() if name in method.__dataclass_fields__})
    names = [field.name for field in dataclasses.fields(method) if field.name != "bookkeeping"]
    if method in PROMPTS:
        names.remove("modules_to_save")  # peft keeps heads of prompt methods too, but has no field to say so
    assert {name: getattr(ours, name) for name in names} == {name: getattr(theirs, name) for name in names}


def parity_config(method):
    return peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(method.peft_type)]


# ---- IA³: scaling, unscaling --------------------------------------------------------------------------------------


def unmerged_by_peft(base, ours):
    """The adapted layers of a peft model after merge_adapter and unmerge_adapter, by name."""
    theirs = parity.reference(base, ours)
    theirs.merge_adapter()
    theirs.unmerge_adapter()
    modules = theirs.get_base_model().named_modules()
    return {name: module.base_layer for name, module in modules if isinstance(module, IA3Layer)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_pefts_division_does_not_return_the_bits_of_a_weight_but_detach_does(name, dtype):
    base = tiny.fresh(name, dtype)
    tiny.outputs(base, tiny.batch(name))  # before the snapshot: the first call writes into BERT's config
    model = copy.deepcopy(base)
    before = tiny.snapshot(model)
    tiny.randomise(peftlab.attach(model, IA3()))
    changed, number = 0, 0
    for site, layer in unmerged_by_peft(base, model).items():
        W = base.get_submodule(site).weight
        changed, number = changed + int((layer.weight != W).sum()), number + W.numel()
        torch.testing.assert_close(layer.weight, W, atol=2e-2 if dtype == torch.bfloat16 else 1e-6, rtol=2e-2)
    assert changed > 0.01 * number  # near, but not the same
    with peftlab.folded(model):
        tiny.outputs(model, tiny.batch(name))
    peftlab.detach(model)
    assert tiny.differences(before, tiny.snapshot(model)) == []


def test_a_scale_of_zero_loses_the_weight_in_peft_but_not_here():
    base = tiny.fresh("bert")
    model = peftlab.attach(copy.deepcopy(base), IA3())
    site = "bert.encoder.layer.0.attention.self.key"
    with torch.no_grad():
        surgery.adapted_modules(model)[site].adapters["default"].ia3_l[3] = 0
    inputs = tiny.batch("bert")
    adapted = tiny.outputs(model, inputs)
    with peftlab.folded(model):  # merging is fine: a row of zeros is what was asked for
        torch.testing.assert_close(tiny.outputs(model, inputs), adapted, atol=1e-6, rtol=1e-5)
    key = unmerged_by_peft(base, model)[site]
    assert not key.weight[3].any() and key.bias[3] == 0
    peftlab.detach(model)
    assert torch.equal(model.get_submodule(site).weight, base.get_submodule(site).weight)
    assert base.get_submodule(site).weight[3].all()


def test_in_bfloat16_a_scale_near_one_does_nothing():
    """bfloat16 keeps 8 binary digits, so a product that is less than 2⁻⁹ away rounds back: merged or not."""
    inputs = tiny.batch("llama")
    for away, same in ((0.0015, True), (0.02, False)):
        model = tiny.fresh("llama", torch.bfloat16)
        plain = tiny.outputs(model, inputs)
        peftlab.attach(model, IA3())
        for tensor in parity.our_tensors(model).values():
            assert tensor.dtype == torch.float32
            tensor.data += away
        assert torch.equal(tiny.outputs(model, inputs), plain) is same
        with peftlab.folded(model):
            assert torch.equal(tiny.outputs(model, inputs), plain) is same
        tiny.loss(model, inputs).backward()  # the gradient is there all the same
        assert all(tensor.grad.any() for tensor in parity.our_tensors(model).values())


def test_merging_without_the_bias_is_noticed(monkeypatch):
    right = ScaledOutput.merged
    monkeypatch.setattr(ScaledOutput, "merged", lambda self, W, b: (right(self, W, b)[0], b))
    proof = parity.prove(tiny.fresh("bert"), IA3(), tiny.batch("bert"), steps=2)
    assert {row.level for row in proof.rows if not row.ok} == {"P4"}


# ---- where it differs ---------------------------------------------------------------------------------------------

PLACES = {
    "llama": ("model.layers.1.self_attn.v_proj", LoRA(r=2)),
    "gpt2": ("transformer.h.1.attn.c_attn", LoRA(r=2)),
    "bert": ("bert.encoder.layer.1.attention.self.value", LoRA(r=2)),
    "conv": ("narrow", LoRA(r=2, target_modules=["wide", "narrow", "head"])),
}


@pytest.mark.parametrize("name", PLACES)
def test_first_difference_names_the_layer(name):
    site, method = PLACES[name]
    base, inputs = tiny.fresh(name, torch.float64), parity._in_dtype(tiny.batch(name), torch.float64)
    ours = tiny.randomise(peftlab.attach(copy.deepcopy(base), method))
    theirs = parity.reference(base, ours)
    assert parity.first_difference(ours, theirs, inputs) == ""
    with torch.no_grad():
        parity.their_tensors(theirs)[f"base_model.model.{site}.lora_A.weight"][0, 0] += 1
    assert parity.first_difference(ours, theirs, inputs) == site


@pytest.mark.parametrize("method", [PromptTuning(num_virtual_tokens=2), PrefixTuning(num_virtual_tokens=2)])
def test_first_difference_under_a_prompt(method):
    base, inputs = tiny.fresh("llama", torch.float64), tiny.batch("llama")
    ours = peftlab.attach(copy.deepcopy(base), method)
    theirs = parity.reference(base, ours)
    assert parity.first_difference(ours, theirs, inputs) == ""
    with torch.no_grad():
        theirs.get_base_model().model.layers[1].mlp.up_proj.weight[0, 0] += 1
    assert parity.first_difference(ours, theirs, inputs) == "model.layers.1.mlp.up_proj"


def test_first_difference_with_awkward_module_names():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = nn.ModuleDict({"adapters": nn.Linear(5, 4), "base": nn.Linear(4, 3)})

        def forward(self, x):
            return self.base["base"](self.base["adapters"](x))

    base, x = Odd().double(), torch.randn(3, 5).double()
    ours = tiny.randomise(peftlab.attach(copy.deepcopy(base), LoRA(r=2, target_modules=["base.adapters", "base.base"])))
    theirs = parity.reference(base, ours)
    assert parity.first_difference(ours, theirs, x) == ""
    with torch.no_grad():
        ours.base["adapters"].adapters["default"].lora_A.weight[0, 0] += 1
    assert parity.first_difference(ours, theirs, x) == "base.adapters"


# ---- the checker can fail -----------------------------------------------------------------------------------------


def alpha_ignored(self, inner, x):
    return inner(x) + self.lora_B(self.lora_A(x))


def a_and_b_swapped(self, inner, x):
    return inner(x) + F.linear(F.linear(x, self.lora_B.weight.T), self.lora_A.weight.T) * self.scaling


def a_detached(self, inner, x):
    return inner(x) + F.linear(F.linear(x, self.lora_A.weight.detach()), self.lora_B.weight) * self.scaling


def unscaled_delta(self):
    return self.lora_B.weight @ self.lora_A.weight


def one_parameter_too_many(self, site):
    return self.r * (site.in_features + site.out_features) + 1


def norm_with_gradient(self):
    return torch.linalg.norm(self.frozen()[0] + self.delta_weight(), dim=1)


def columns_instead_of_rows(self):
    return torch.linalg.norm(self.frozen()[0] + self.delta_weight(), dim=0).detach()


def rotated_the_other_way(self, right=Rotation.matrices):
    return right(self).transpose(-2, -1)


def lambdas_swapped(self, inner, x):
    A, B = self.matrices()
    n = len(self.vera_lambda_d)
    z = self.vera_lambda_b[:n] * F.linear(x, A)
    return inner(x) + F.linear(z, B)


def scaled_at_the_input(self, inner, x):
    return inner(self.ia3_l.flatten() * x)


def not_scaled_when_merged(self, W, b):
    return W.clone(), b


def without_shifted_positions(self, kwargs, right=Prefix.on_inputs):
    shifted = right(self, kwargs)
    return {**shifted, "position_ids": shifted["position_ids"] - len(self.table())}


def keys_as_values(self, layer, right=Prefix.of_layer):
    P_K, P_V = right(self, layer)
    return P_V, P_K


def encoder_skipped(self):
    return self.embedding.weight + 0 * self.mlp_head(self.embedding.weight)


def tasks_mixed_up(self, k, batch, right=MultitaskPrompt.checked):
    return right(self, k, batch).flip(0)


def task_added_not_multiplied(self, batch):
    k = self.checked(self.now.value, batch)
    return self.prompt_embeddings + self.prefix_task_cols[k] @ self.prefix_task_rows[k]


def one_softmax_for_all(self, inner, *args, right=AdaptionPrompt.forward, **kwargs):
    output, *rest = right(self, inner, *args, **kwargs)
    plain, *_ = inner(*args, **kwargs)
    return (1 - self.adaption_gate) * plain + output - plain, *rest


def everything_trains(self, requires_grad=True):
    return nn.Module.requires_grad_(self, requires_grad)


def without_a_ball(self):
    return self.delta_embedding.weight


def prompt_trained_on(self, kwargs, right=Prompt.on_inputs):
    changed = right(self, kwargs)
    if "labels" in changed:
        changed["labels"] = changed["labels"].where(changed["labels"] >= 0, 5)
    return changed


def rows_and_columns_swapped(self):
    j, i = self.shira_indices.long()
    return i * self.site.in_features + j


def replaced_not_added(self, own, tensor):
    return tensor.flatten().scatter(0, self.flat(), self.shira_weight).view(tensor.shape)


def one_place_off(self, own, tensor):
    places = (self.supertuning_indices.long() + 1) % tensor.numel()
    return tensor.flatten().scatter_add(0, places, self.supertuning_values).view(tensor.shape)


def rows_added(self, own, tensor):
    return tensor.index_add(0, torch.tensor(self.tokens), self.shared.rows[self.which])


ALL_BUT_THE_COUNT = {"P1", "P2", "P3", "P4", "P5"}
SQUARE = LoRA(r=3, lora_alpha=7, target_modules=["q_proj", "o_proj"])
MUTANTS = {
    "alpha-ignored": (SQUARE, LoRALinear, "forward", alpha_ignored, ALL_BUT_THE_COUNT),
    "a-and-b-swapped-on-square-layers": (SQUARE, LoRALinear, "forward", a_and_b_swapped, ALL_BUT_THE_COUNT),
    "no-gradient-for-a": (SQUARE, LoRALinear, "forward", a_detached, {"P2", "P3"}),
    "merging-without-the-scale": (SQUARE, LoRALinear, "delta_weight", unscaled_delta, {"P4"}),
    "wrong-formula-for-the-count": (SQUARE, LoRA, "parameters_at", one_parameter_too_many, {"P0"}),
    "dora-norm-trained-through": (DoRA(r=3), DoRALinear, "norm", norm_with_gradient, {"P2", "P3"}),
    "dora-norm-over-the-outputs": (
        DoRA(r=3, target_modules=["q_proj"]),
        DoRALinear,
        "norm",
        columns_instead_of_rows,
        ALL_BUT_THE_COUNT,
    ),
    "oft-the-other-way": (
        OFT(oft_block_size=4), Rotation, "matrices", rotated_the_other_way, ALL_BUT_THE_COUNT
    ),
    "vera-lambdas-swapped": (
        VeRA(r=5, target_modules=["q_proj"]), VeRALinear, "forward", lambdas_swapped, ALL_BUT_THE_COUNT
    ),
    "ia3-scaled-at-the-wrong-side": (
        IA3(target_modules=["q_proj"], feedforward_modules=[]),
        ScaledOutput,
        "forward",
        scaled_at_the_input,
        ALL_BUT_THE_COUNT,
    ),
    "ia3-merged-without-the-scale": (METHODS["ia3"], ScaledInput, "merged", not_scaled_when_merged, {"P4"}),
    "prefix-positions-from-zero": (
        METHODS["prefix"], Prefix, "on_inputs", without_shifted_positions, {"P1", "P2", "P3", "P5"}
    ),
    "prefix-keys-as-values": (METHODS["prefix"], Prefix, "of_layer", keys_as_values, {"P1", "P2", "P3", "P5"}),
    "p-tuning-without-its-network": (
        PTuning(num_virtual_tokens=3), Encoder, "forward", encoder_skipped, {"P1", "P2", "P3", "P5"}
    ),
    "multitask-other-task": (
        METHODS["multitask-prompt"], MultitaskPrompt, "checked", tasks_mixed_up, {"P1", "P2", "P3", "P5"}
    ),
    "multitask-added": (
        METHODS["multitask-prompt"], MultitaskPrompt, "vectors", task_added_not_multiplied, {"P1", "P2", "P3", "P5"}
    ),
    "llama-adapter-one-softmax": (
        METHODS["llama-adapter"], AdaptionPrompt, "forward", one_softmax_for_all, {"P1", "P2", "P3", "P5"}
    ),
    "cartridge-frozen-part-trains": (
        METHODS["cartridge"], FrozenStartPrefix, "requires_grad_", everything_trains, {"P0", "P2", "P3"}
    ),
    "cpt-without-its-ball": (
        CONTEXTS["one-example"], ContextPrompt, "project", without_a_ball, {"P1", "P2", "P3", "P5"}
    ),
    "shira-places-transposed": (
        SHiRA(r=3, target_modules=["q_proj"]), SHiRALinear, "flat", rows_and_columns_swapped, ALL_BUT_THE_COUNT
    ),
    "shira-values-in-the-place-of-entries": (
        METHODS["shira"], SHiRALinear, "changed", replaced_not_added, ALL_BUT_THE_COUNT
    ),
    "supertuning-one-place-off": (
        METHODS["supertuning"], SuperLinear, "changed", one_place_off, ALL_BUT_THE_COUNT
    ),
    "tokens-added-not-replaced": (
        METHODS["trainable-tokens"], TokensLayer, "changed", rows_added, ALL_BUT_THE_COUNT
    ),
    "prompt-counted-in-the-loss": (METHODS["prompt"], Prompt, "on_inputs", prompt_trained_on, {"P2", "P3"}),
}


@pytest.mark.parametrize(("method", "where", "name", "mutant", "levels"), MUTANTS.values(), ids=MUTANTS)
def test_a_wrong_method_fails_exactly_where_it_is_wrong(monkeypatch, method, where, name, mutant, levels):
    monkeypatch.setattr(where, name, mutant)
    inputs = {**tiny.batch("llama"), "task_ids": torch.tensor([0, 1, 1])} if tiny.tasks(method) else tiny.batch("llama")
    inputs = {"input_ids": inputs["input_ids"]} if isinstance(method, CPT) else inputs
    proof = parity.prove(tiny.fresh("llama"), method, inputs, steps=3)
    assert {row.level for row in proof.rows if not row.ok} == levels
    assert not proof.ok and "DIFFERENT" in str(proof)
    with pytest.raises(AssertionError, match="not equal"):
        proof.check()


def test_a_wrong_file_fails_at_the_files(monkeypatch):
    right = checkpoint.write
    monkeypatch.setattr(
        checkpoint, "write", lambda folder, config, tensors: right(folder, config, dict(list(tensors.items())[:-1]))
    )
    proof = parity.prove(tiny.fresh("llama"), LoRA(r=3), tiny.batch("llama"), steps=3)
    assert {row.level for row in proof.rows if not row.ok} == {"P5"}
    assert "missing adapter keys" in str(proof)


def test_a_wrong_convolution_fails(monkeypatch):
    def transposed(self):
        return (self.lora_B.weight.flatten(1) @ self.lora_A.weight.transpose(2, 3).flatten(1)).view_as(
            self.site.module.weight
        ) * self.scaling

    monkeypatch.setattr(LoRAConv2d, "delta_weight", transposed)
    proof = parity.prove(tiny.fresh("conv"), SPECIAL["conv"][1], tiny.batch("conv"), levels=("P1", "P4"))
    assert [row.ok for row in proof.rows] == [True, False]


def test_an_adapter_without_gradients_is_no_proof():
    """With B = 0 and A frozen by hand there would be nothing to compare: that must not count as equal."""
    ours = peftlab.attach(tiny.fresh("llama"), LoRA(r=3))
    theirs = parity.reference(tiny.fresh("llama"), ours)
    inputs = {"input_ids": tiny.tokens(), "labels": torch.full((3, 7), -100)}
    difference, where = parity._gradients(None, ours, theirs, inputs, 1)
    assert difference == float("inf") and "no tensor" in where


def test_relative_difference():
    a = torch.tensor([1.0, 2.0])
    assert parity.relative_difference(a, a.clone()) == 0
    assert parity.relative_difference(a, torch.tensor([1.0, 4.0])) == 0.5
    assert parity.relative_difference(a, a[:1]) == float("inf")
    assert parity.relative_difference(a, torch.tensor([1.0, float("nan")])) == float("inf")
    assert parity.relative_difference(a, torch.zeros(2)) > 1e20


def test_a_proof_leaves_the_model_alone_and_shows_itself():
    model = tiny.fresh("llama")
    before = tiny.snapshot(model)
    proof = parity.prove(model, PromptTuning(num_virtual_tokens=2), tiny.batch("llama"), levels=("P1", "P4"))
    assert tiny.differences(before, tiny.snapshot(model)) == []
    assert "does not apply" in str(proof) and "no weight to merge" in str(proof)
    assert proof._repr_html_().count("<tr>") == 3
    assert not parity.Proof("nothing compared").ok


# ---- mixed batches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_mixed_batches_equal_pefts(name):
    base = tiny.fresh(name, torch.float64)
    ours = copy.deepcopy(base)
    config = {"r": 3, "target_modules": ["q_proj", "v_proj"] if name == "llama" else ["c_attn"]}
    fan = {"fan_in_fan_out": name == "gpt2"}
    theirs = None
    for i, adapter in enumerate(("first", "second")):
        peftlab.attach(ours, LoRA(**{**config, "r": 3 + i}), name=adapter)
        peftlab.use(ours, adapter)
        tiny.randomise(ours, seed=i)
        peft_config = peft.LoraConfig(**{**config, "r": 3 + i}, **fan)
        if theirs is None:
            theirs = peft.get_peft_model(copy.deepcopy(base), peft_config, adapter, autocast_adapter_dtype=False)
        else:
            theirs.add_adapter(adapter, peft_config, autocast_adapter_dtype=False)
        theirs = theirs.double()
        with torch.no_grad():
            for key, tensor in parity.our_tensors(ours, adapter).items():
                parity.their_tensors(theirs, adapter)[key].copy_(tensor)
    theirs.eval()
    rows = ["second", "__base__", "first", "second", "first"]
    ids = tiny.tokens(5)
    with torch.no_grad():
        mine = ours(input_ids=ids, adapter_names=rows).logits
        reference = theirs(input_ids=ids, adapter_names=rows).logits
    assert parity.relative_difference(mine, reference) < 1e-12
    length = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    mine = ours.generate(ids, adapter_names=rows, **length)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = theirs.generate(input_ids=ids, adapter_names=rows, **length)
    assert torch.equal(mine, reference)
