"""What every method promises, whatever its formula. Methods are found by scanning: a new one is tested unasked."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
import transformers
from torch import nn

import peftlab
from peftlab import hosts, parity, surgery
from peftlab.errors import ConfigError, NotMergeable, PeftLabError
from peftlab.methods import (
    BEFT,
    CPT,
    IA3,
    METHODS,
    LlamaAdapter,
    LNTuning,
    LoRA,
    MultitaskPromptTuning,
    PartialTuning,
    PrefixTuning,
    PromptTuning,
    VeRA,
)
from peftlab.methods.additive import adapter_drop
from peftlab.methods.additive.prefix_tuning import PrefixMethod
from peftlab.methods.additive.prompt_tuning import PromptMethod
from peftlab.methods.base import Adapter, Card, Chain, Copy, Overlay
from peftlab.methods.reparam import dora
from peftlab.methods.reparam.oft import Rotation
from peftlab.methods.selective.sparse import SparseMethod
from tests import tiny

pytestmark = pytest.mark.usefixtures("quiet")

LLAMA = tiny.every_method()
# The variants are spelt for Llama; the other models get every method as it is, where it knows their layers.
OTHERS = [(name, cls) for name in ("gpt2", "bert", "conv") for cls in METHODS]


def other(name, cls):
    fields = {}
    if "target_modules" in cls.__dataclass_fields__:
        fields["target_modules"] = tiny.TARGETS.get(name)
    if cls is LNTuning:
        fields["target_modules"] = tiny.NORMS.get(name)
    elif cls is PartialTuning:
        fields["target_modules"] = tiny.PARTS[name]
    elif cls is BEFT and name == "gpt2":
        fields["target_modules"] = ["c_attn"]  # peft has no default there
    elif issubclass(cls, SparseMethod):
        fields = {}  # entries anywhere
    elif cls is LlamaAdapter:
        fields = {}
    elif name == "conv" and cls is IA3:
        fields["feedforward_modules"] = ["narrow"]
    elif name == "conv" and cls is not LoRA:
        fields["target_modules"] = ["head"]
    return tiny.small(cls, **{key: value for key, value in fields.items() if key in cls.__dataclass_fields__})


def attached(name, method, adapter="default"):
    torch.manual_seed(0)
    return tiny.randomise(peftlab.attach(tiny.fresh(name), method, name=adapter))


def has_seat(model, adapter="default"):
    shared = model.peftlab.shared
    return adapter in shared and shared[adapter].has_seat


every_method = pytest.mark.parametrize("method", LLAMA.values(), ids=LLAMA)


def test_the_scan_finds_the_methods():
    expected = {"LoRA", "OFT", "VeRA", "LNTuning", "IA3", "PromptTuning", "PrefixTuning"}
    assert expected <= {cls.__name__ for cls in METHODS}
    assert len({cls.__name__ for cls in METHODS}) == len(METHODS)


# ---- on, off, away ------------------------------------------------------------------------------------------------


def check_life_cycle(base, method, inputs):
    """attach, disabled, folded, detach on one model: each step's promise."""
    plain = tiny.outputs(base, inputs)  # before the snapshot: the first call writes into BERT's config
    before = tiny.snapshot(base)
    model = peftlab.attach(base, method)
    assert model is base
    start = tiny.outputs(model, inputs)
    if not has_seat(model):  # prompts and prefixes disturb from the start; all others begin as the base
        torch.testing.assert_close(start, plain, atol=tiny.starts_near(method), rtol=0)
    tiny.randomise(model)
    adapted = tiny.outputs(model, inputs)
    assert adapted.shape != plain.shape or not torch.allclose(adapted, plain, atol=1e-5)
    with peftlab.disabled(model) as inside:
        assert inside is model
        assert torch.equal(tiny.outputs(model, inputs), plain)
    assert torch.equal(tiny.outputs(model, inputs), adapted)
    if not tiny.merges(method):
        with pytest.raises(NotMergeable), peftlab.folded(model):
            pass
    else:
        with peftlab.folded(model):
            folded = tiny.outputs(model, inputs)
        torch.testing.assert_close(folded, adapted, atol=1e-5, rtol=1e-4)
        merged = tiny.outputs(peftlab.merge(copy.deepcopy(model), untie=True), inputs)
        assert torch.equal(merged, folded)
    assert torch.equal(tiny.outputs(model, inputs), adapted)
    assert peftlab.detach(model) is base
    assert tiny.differences(before, tiny.snapshot(model)) == []
    assert torch.equal(tiny.outputs(model, inputs), plain)
    copy.deepcopy(model)


@every_method
def test_life_cycle_on_llama(method):
    check_life_cycle(tiny.fresh("llama"), method, tiny.batch("llama"))


@pytest.mark.parametrize(("name", "cls"), OTHERS)
def test_life_cycle_on_other_models(name, cls):
    try:
        check_life_cycle(tiny.fresh(name), other(name, cls), tiny.batch(name))
    except PeftLabError as refusal:  # fine, if it says of which layer or model, and left nothing behind
        model = tiny.fresh(name)
        before = tiny.snapshot(model)
        assert re.search("Conv1D|embeddings|attention|phm_dim", str(refusal))
        with pytest.raises(PeftLabError):
            peftlab.attach(model, other(name, cls))
        assert tiny.differences(before, tiny.snapshot(model)) == []


@every_method
def test_an_exception_inside_disabled_or_folded_changes_nothing(method):
    model, inputs = attached("llama", method), tiny.batch("llama")
    adapted = tiny.outputs(model, inputs)
    with pytest.raises(KeyError), peftlab.disabled(model):
        raise KeyError
    assert torch.equal(tiny.outputs(model, inputs), adapted)
    if tiny.merges(method):
        with pytest.raises(KeyError), peftlab.folded(model):
            raise KeyError
        assert torch.equal(tiny.outputs(model, inputs), adapted)


def test_disabled_and_folded_nest():
    model, inputs = attached("llama", LoRA(r=3)), tiny.batch("llama")
    base, adapted = tiny.outputs(tiny.fresh("llama"), inputs), tiny.outputs(model, inputs)
    with peftlab.disabled(model):
        with peftlab.disabled(model), peftlab.folded(model):
            assert torch.equal(tiny.outputs(model, inputs), base)
        assert torch.equal(tiny.outputs(model, inputs), base)
    with peftlab.folded(model):
        folded = tiny.outputs(model, inputs)
        with peftlab.folded(model), peftlab.disabled(model):
            assert torch.equal(tiny.outputs(model, inputs), base)
        assert torch.equal(tiny.outputs(model, inputs), folded)
        twin = copy.deepcopy(model)  # which is not folded: nothing would ever unfold it
        assert {wrapper.folded for wrapper in surgery.adapted_modules(twin).values()} == {None}
    assert torch.equal(tiny.outputs(twin, inputs), adapted)
    assert not torch.equal(folded, base)


def test_folded_costs_no_adapter_call(monkeypatch):
    model = attached("llama", LoRA(r=3))
    monkeypatch.setattr(LoRA.build.__globals__["LoRALinear"], "forward", None)
    with pytest.raises(TypeError):
        tiny.outputs(model, tiny.batch("llama"))
    with peftlab.folded(model):
        tiny.outputs(model, tiny.batch("llama"))


# ---- training -----------------------------------------------------------------------------------------------------


def steps(model, inputs, number=3, lr=0.1):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr)
    for _ in range(number):
        optimizer.zero_grad()
        tiny.loss(model, inputs).backward()
        optimizer.step()


@every_method
def test_only_the_adapter_moves(method):
    untouched = {n: p.detach().clone() for n, p in tiny.fresh("llama").named_parameters()}
    model = attached("llama", method)
    trained = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    assert trained
    steps(model.train(), tiny.batch("llama"))
    now = dict(model.named_parameters())
    still = [n for n in trained if torch.equal(trained[n], now[n])]
    assert not still
    peftlab.detach(model)
    assert all(torch.equal(p, untouched[n]) for n, p in model.named_parameters())


@every_method
def test_predicted_parameters_are_the_actual_ones(method):
    model = tiny.fresh("llama")
    predicted = parity.predicted_parameters(model, method)
    count = peftlab.count_parameters(peftlab.attach(model, method))
    assert predicted == count.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert 0 < count.share < 1 and f"{count.trainable:,}" in str(count)


@every_method
def test_train_and_eval_reach_the_adapters(method):
    model = tiny.fresh("llama")
    model.model.layers[0].train()  # a part in another mode, as people leave dropout or norms
    modes = {n: m.training for n, m in model.named_modules()}
    peftlab.attach(model, method)
    for n, wrapper in surgery.adapted_modules(model).items():
        assert wrapper.training == modes[n] and all(a.training == modes[n] for a in wrapper.adapters.values())
    assert {n: m.training for n, m in surgery.base_modules(model).items()} == modes
    model.train()
    assert all(m.training for m in model.modules())
    model.eval()
    assert not any(m.training for m in model.modules())


def test_attach_leaves_the_mode_of_what_is_inside_a_wrapped_container():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.bias = nn.BatchNorm1d(4), nn.Parameter(torch.ones(4))

        def forward(self, x):
            return self.norm(x) + self.bias

    model = nn.Sequential(nn.Linear(4, 4), Block())
    model[1].norm.eval()
    peftlab.attach(model, LoRA(r=2, target_modules=["0"], bias="all"))
    assert model.training and model[1].training and not model[1].base.norm.training
    tiny.randomise(model)
    with peftlab.folded(model):
        model(torch.randn(3, 4))
    assert not model[1].base.norm.training


CHECKPOINTED = {k: m for k, m in LLAMA.items()} | {"LoRA-dropout": LoRA(r=3, lora_dropout=0.3)}


@pytest.mark.parametrize("method", CHECKPOINTED.values(), ids=CHECKPOINTED)
def test_gradient_checkpointing_gives_the_same_gradients(method):
    found = {}
    for how in ("without", "default", {"use_reentrant": False}, {"use_reentrant": True}):
        model = attached("llama", method).train()
        if how == "default":
            model.gradient_checkpointing_enable()
        elif how != "without":
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)
        torch.manual_seed(4)
        tiny.loss(model, tiny.batch("llama")).backward()
        found[str(how)] = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert all(grad is not None and grad.any() for grad in found["without"].values())
    for grads in found.values():
        for name, grad in found["without"].items():
            if name.endswith("shared.default.phm_rule"):  # a sum over all sites, added up in another order
                torch.testing.assert_close(grads[name], grad, atol=0, rtol=1e-4)
            else:
                assert torch.equal(grads[name], grad), name


PROMPTS_ELSEWHERE = [
    (name, key)
    for name in ("gpt2", "bert")
    for key, method in LLAMA.items()
    if isinstance(method, PromptMethod | PrefixMethod)
]
PROMPTS_ELSEWHERE = [pair for pair in PROMPTS_ELSEWHERE if pair != ("bert", "CPT")] + [("gpt2", "LlamaAdapter")]


@pytest.mark.parametrize(("name", "key"), PROMPTS_ELSEWHERE)
def test_prompts_and_prefixes_train_with_checkpointing_on_gpt2_and_bert(name, key):
    grads = []
    for reentrant in (None, False, True):
        model = attached(name, LLAMA[key])
        for module in model.modules():  # dropout draws anew: not what is compared here
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            for attribute in ("attention_dropout", "dropout_prob"):
                if isinstance(getattr(module, attribute, None), float):
                    setattr(module, attribute, 0.0)
        model.train()
        if reentrant is not None:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        tiny.loss(model, tiny.batch(name)).backward()
        grads.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(grad is not None and grad.any() for grad in grads[0])
    for found in grads[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found, grads[0], strict=True))


def test_peft_refuses_a_prefix_where_checkpointing_is_on():
    base = tiny.fresh("llama").train()
    base.gradient_checkpointing_enable()
    with pytest.raises(ValueError, match="does not work with gradient checkpointing"):
        peft.get_peft_model(base, peft.PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"))
    model = peftlab.attach(base, PrefixTuning(num_virtual_tokens=2))
    tiny.loss(model, tiny.batch("llama")).backward()
    assert model.peftlab.shared["default"].prompt_embeddings.grad.any()


def test_training_after_a_mixed_batch_and_after_disabled():
    """Routing of one call must not reach into the next."""
    model = attached("llama", LoRA(r=3))
    inputs, rows = tiny.batch("llama"), ["__base__", "default", "__base__"]
    fresh_loss = tiny.loss(model, inputs)
    tiny.outputs(model, inputs, adapter_names=rows)
    with peftlab.disabled(model):
        tiny.outputs(model, inputs)
    assert torch.equal(tiny.loss(model, inputs), fresh_loss)


def test_a_part_of_the_model_called_alone_after_a_mixed_batch():
    model, ids = attached("llama", LoRA(r=3)), tiny.tokens()
    part = model.model(ids).last_hidden_state
    tiny.outputs(model, {"input_ids": ids}, adapter_names=["__base__", "default", "__base__"])
    assert torch.equal(model.model(ids).last_hidden_state, part)
    with pytest.raises(ValueError, match="batch_size"):  # also after a call that failed half-way
        tiny.outputs(model, {"input_ids": ids, "labels": ids[:, :3]}, adapter_names=["__base__"] * 3)
    # Another batch size may take another path through the matrix products, so not bit for bit.
    torch.testing.assert_close(model.model(ids[:1]).last_hidden_state, model.model(ids).last_hidden_state[:1])


def test_a_prefix_says_that_it_needs_the_whole_model():
    model = attached("llama", PrefixTuning(num_virtual_tokens=2))
    with pytest.raises(PeftLabError, match="call the model that it is attached to"):
        model.model(tiny.tokens())


def test_penalty_and_after_step_are_quiet_for_plain_methods():
    model = tiny.fresh("llama")
    assert peftlab.penalty(model) == 0
    peftlab.after_step(model, 1)
    attached_model = peftlab.attach(model, LoRA(r=2))
    assert peftlab.penalty(attached_model) == 0
    peftlab.after_step(attached_model, 1)


# ---- several adapters ---------------------------------------------------------------------------------------------


@every_method
def test_two_adapters_by_name(method):
    inputs = tiny.batch("llama")
    base = tiny.outputs(tiny.fresh("llama"), inputs)
    model = attached("llama", method, adapter="a")
    alone = tiny.outputs(model, inputs)
    peftlab.attach(model, method, name="b")  # the very same object: it is only hyperparameters
    assert torch.equal(tiny.outputs(model, inputs), alone)  # a new one waits
    assert peftlab.use(model, "b") is model
    tiny.randomise(model, seed=9)
    second = tiny.outputs(model, inputs)
    assert not torch.equal(second, alone)
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    peftlab.use(model, "a")
    assert torch.equal(tiny.outputs(model, inputs), alone)
    assert trained.isdisjoint({id(p) for p in model.parameters() if p.requires_grad})
    peftlab.detach(model, "a")
    assert torch.equal(tiny.outputs(model, inputs), second)  # the one that is left takes over
    with peftlab.disabled(model):
        assert torch.equal(tiny.outputs(model, inputs), base)
    peftlab.detach(model, "b")
    assert torch.equal(tiny.outputs(model, inputs), base)
    assert not hasattr(model, "peftlab")


def test_several_methods_side_by_side():
    inputs, model = tiny.batch("llama"), tiny.fresh("llama")
    before, found = tiny.snapshot(model), {}
    for name, method in LLAMA.items():
        torch.manual_seed(0)
        peftlab.attach(model, method, name=name)
        peftlab.use(model, name)
        tiny.randomise(model)
        found[name] = tiny.outputs(model, inputs)
        assert torch.equal(found[name], tiny.outputs(attached("llama", method), inputs))
    for name in reversed(LLAMA):
        peftlab.use(model, name)
        assert torch.equal(tiny.outputs(model, inputs), found[name])
        peftlab.detach(model, name)
    assert tiny.differences(before, tiny.snapshot(model)) == []


@pytest.mark.parametrize(
    "pair",
    [("LoRA", "VeRA"), ("LoRA", "DoRA"), ("DoRA", "LoRA"), ("OFT", "LoRA"), ("LoRA", "OFT"), ("OFT", "DoRA")]
    + [("IA3", "LoRA"), ("LoRA", "IA3"), ("DoRA", "IA3")],
    ids="-then-".join,
)
def test_two_active_at_once_fold_to_the_same(pair):
    model, inputs = tiny.fresh("llama", torch.float64), tiny.batch("llama")
    for seed, name in enumerate(pair):
        peftlab.attach(model, LLAMA[name], name=name)
        peftlab.use(model, name)
        tiny.randomise(model, seed=seed)
    alone = tiny.outputs(model, inputs)
    peftlab.use(model, pair)
    both = tiny.outputs(model, inputs)
    assert not torch.allclose(both, alone)
    with peftlab.folded(model):
        torch.testing.assert_close(tiny.outputs(model, inputs), both, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("pair", [("IA3", "DoRA"), ("DoRA", "IA3"), ("IA3", "LoRA")], ids="-then-".join)
def test_a_scaled_bias_folds_too_under_another_adapter(pair):
    """IA³ scales the bias as well, so what lies around it meets another bias than the pretrained one."""
    model, inputs = tiny.fresh("gpt2", torch.float64), tiny.batch("gpt2")
    for seed, name in enumerate(pair):
        peftlab.attach(model, LLAMA[name], name=name)
        peftlab.use(model, name)
        tiny.randomise(model, seed=seed)
    peftlab.use(model, pair)
    both = tiny.outputs(model, inputs)
    with peftlab.folded(model):
        torch.testing.assert_close(tiny.outputs(model, inputs), both, atol=1e-12, rtol=1e-10)


def test_prompt_sees_an_adapter_on_the_embedding():
    model, inputs = tiny.fresh("llama"), tiny.batch("llama")
    peftlab.attach(model, PromptTuning(num_virtual_tokens=2), name="prompt")
    peftlab.attach(model, LoRA(r=2, target_modules=["embed_tokens"]), name="words")
    peftlab.use(model, ["prompt", "words"])
    start = tiny.outputs(model, inputs)
    model.model.embed_tokens.adapters["words"].lora_embedding_A.data += 1
    assert not torch.allclose(tiny.outputs(model, inputs), start)


def test_a_kept_copy_is_free_of_another_adapters_wrappers():
    model = tiny.fresh("llama")
    peftlab.attach(model, LoRA(r=2, target_modules=["up_proj"]), name="inside")
    peftlab.attach(model, LoRA(r=2, modules_to_save=["mlp"]), name="whole")
    copied = surgery.adapted_modules(model)["model.layers.0.mlp"].adapters["whole"]
    assert sorted(copied.state_dict()) == [f"copy.{name}_proj.weight" for name in ("down", "gate", "up")]
    inputs = tiny.batch("llama")
    for name in ("inside", "whole"):
        peftlab.use(model, name)
        tiny.randomise(model)
    peftlab.use(model, ["inside", "whole"])
    both = tiny.outputs(model, inputs)
    with peftlab.folded(model):
        torch.testing.assert_close(tiny.outputs(model, inputs), both)
    peftlab.merge(model)
    torch.testing.assert_close(tiny.outputs(model, inputs), both)
    assert not surgery.adapted_modules(model) and type(model.model.layers[1].mlp.up_proj) is nn.Linear


# ---- mixed batches ------------------------------------------------------------------------------------------------


MIXABLE = {k: m for k, m in LLAMA.items() if m.mixable and not isinstance(m, PromptMethod | PrefixMethod)}


def two_adapters(method, dtype=torch.float64):
    model = tiny.fresh("llama", dtype)
    for seed, name in enumerate(("a", "b")):
        peftlab.attach(model, method, name=name)
        peftlab.use(model, name)
        tiny.randomise(model, seed=seed, size=0.3)
    return model


def one_by_one(model, rows, call):
    """The same call for each row alone, with that row's adapter switched on by hand."""
    found = []
    for i, name in enumerate(rows):
        if name == "__base__":
            with peftlab.disabled(model):
                found.append(call(i))
        else:
            peftlab.use(model, name)
            found.append(call(i))
    return torch.cat(found)


@pytest.mark.parametrize("method", MIXABLE.values(), ids=MIXABLE)
def test_mixed_batch_equals_row_by_row(method):
    model, rows = two_adapters(method), ["b", "__base__", "a", "a", "b"]
    ids = tiny.tokens(5)
    alone = one_by_one(model, rows, lambda i: tiny.outputs(model, {"input_ids": ids[i : i + 1]}))
    mixed = tiny.outputs(model, {"input_ids": ids}, adapter_names=rows)
    torch.testing.assert_close(mixed, alone, atol=1e-12, rtol=1e-10)
    only_base = tiny.outputs(model, {"input_ids": ids}, adapter_names=["__base__"] * 5)
    with peftlab.disabled(model):
        assert torch.equal(only_base, tiny.outputs(model, {"input_ids": ids}))
    with peftlab.disabled(model):
        assert torch.equal(tiny.outputs(model, {"input_ids": ids}, adapter_names=rows), only_base)
    if not tiny.merges(method):
        return
    with peftlab.folded(model):  # folding knows one adapter only: the rows still get their own
        torch.testing.assert_close(tiny.outputs(model, {"input_ids": ids}, adapter_names=rows), alone)


@pytest.mark.parametrize("beams", [1, 3])
def test_mixed_batch_in_generation(beams):
    model, rows = two_adapters(LoRA(r=3, target_modules="all-linear")), ["b", "__base__", "a"]
    ids = tiny.tokens(3)
    how = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "num_beams": beams}
    alone = one_by_one(model, rows, lambda i: model.generate(ids[i : i + 1], **how))
    mixed = model.generate(ids, adapter_names=rows, **how)
    assert torch.equal(mixed, alone)
    assert len({tuple(row[7:].tolist()) for row in mixed}) > 1
    assert torch.equal(model.generate(ids, **how), model.generate(ids, adapter_names=["a"] * 3, **how))  # unpinned


def test_mixed_batch_with_several_answers_for_each_row():
    model, rows, ids = two_adapters(LoRA(r=3)), ["b", "__base__", "a"], tiny.tokens(3)
    config = copy.deepcopy(model.generation_config)
    config.update(num_beams=4, num_return_sequences=2, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    alone = one_by_one(model, rows, lambda i: model.generate(ids[i : i + 1], config))
    assert torch.equal(model.generate(ids, config, adapter_names=rows), alone)
    assert torch.equal(model.generate(ids, generation_config=config, adapter_names=rows), alone)


def test_mixed_batch_with_a_prompt_at_rest():
    """A prompt that is attached, but not active, does not stand in the way; an all-base batch passes it by."""
    model = two_adapters(LoRA(r=3))
    peftlab.attach(model, PromptTuning(num_virtual_tokens=2), name="prompt")
    inputs = {"input_ids": tiny.tokens(3)}
    mixed = tiny.outputs(model, inputs, adapter_names=["a", "b", "__base__"])
    peftlab.use(model, "prompt")
    assert tiny.outputs(model, inputs).shape[1] == 7 + 2
    base = tiny.outputs(model, inputs, adapter_names=["__base__"] * 3)
    torch.testing.assert_close(base[2], mixed[2])


# ---- generation ---------------------------------------------------------------------------------------------------

FOR_LLAMA = ("LoRA-kept", "PiSSA", "LoRA-embedding", "ParallelAdapter-linear", "BEFT", "PartialTuning", "BitFit-values")
CACHED = {k: m for k, m in LLAMA.items() if isinstance(m, PromptMethod | PrefixMethod | LlamaAdapter)}
GENERATING = {name: LLAMA[name] for name in LLAMA if name not in FOR_LLAMA}


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "left-padded"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("method", GENERATING.values(), ids=GENERATING)
def test_generation_equals_pefts_and_each_row_alone(method, name, padded):
    base = tiny.fresh(name, torch.float64)
    try:
        ours = tiny.randomise(peftlab.attach(copy.deepcopy(base), method), size=0.4)
    except ConfigError as refusal:
        assert "Conv1D" in str(refusal)
        pytest.skip("not for Conv1D")
    theirs = parity.reference(base, ours) if method.peft_type else None
    ids, mask = tiny.tokens(), tiny.padding("left") if padded else torch.ones(3, 7, dtype=torch.long)
    ids = ids * mask
    how = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, **tiny.tasks(method)}
    alone = {**how, **tiny.tasks(method, 1)}
    mine = ours.generate(ids, attention_mask=mask, **how)
    for i in range(3):  # a row alone needs no padding
        row = ids[i : i + 1, int((mask[i] == 0).sum()) :]
        whole = {"attention_mask": torch.ones_like(row), **alone}
        assert torch.equal(ours.generate(row, **whole)[0, -5:], mine[i, -5:])
        assert theirs is None or torch.equal(theirs.generate(input_ids=row, **whole)[0, -5:], mine[i, -5:])
    without = ours.generate(ids, attention_mask=mask, use_cache=False, **how)
    assert torch.equal(without, mine)
    positions = padded and isinstance(method, PromptMethod)  # peft counts them through the padding
    if theirs is not None and not positions:
        assert torch.equal(theirs.generate(input_ids=ids, attention_mask=mask, **how), mine)
    plain = base.generate(ids, attention_mask=mask, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    with peftlab.disabled(ours):
        assert torch.equal(ours.generate(ids, attention_mask=mask, **how), plain)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["LoRA", *CACHED])
def test_a_text_in_two_pieces_with_a_cache(name, attention):
    """The second piece has several tokens: each may see the cache, the prompt and what stands before it."""
    for base in (tiny.llama(attn_implementation=attention), tiny.gpt2(attn_implementation=attention)):
        model = tiny.randomise(peftlab.attach(base, LLAMA[name]))
        ids = tiny.tokens(3, 9)
        for mask in (None, tiny.padding("left", 3, 9)):
            padded = {} if mask is None else {"attention_mask": mask}
            whole = tiny.outputs(model, {"input_ids": ids, **padded})[:, -4:]
            with torch.no_grad():
                first = model(ids[:, :5], use_cache=True, **{k: m[:, :5] for k, m in padded.items()})
                rest = model(ids[:, 5:], past_key_values=first.past_key_values, **padded).logits
            torch.testing.assert_close(rest, whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "left-padded"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("method", CACHED.values(), ids=CACHED)
def test_generation_with_a_static_cache(method, name, padded):
    """A prefix is in no cache, so any will do. A prompt would overflow one of fixed size, and says so."""
    model = tiny.randomise(peftlab.attach(tiny.fresh(name, torch.float64), method), size=0.4)
    mask = tiny.padding("left") if padded else torch.ones(3, 7, dtype=torch.long)
    ids = tiny.tokens() * mask
    how = {"attention_mask": mask, "max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    wanted = model.generate(ids, use_cache=False, **how)
    assert torch.equal(model.generate(ids, cache_implementation="dynamic", **how), wanted)
    if isinstance(method, PromptMethod):
        with pytest.raises(PeftLabError, match="static cache"):
            model.generate(ids, cache_implementation="static", **how)
    else:
        assert torch.equal(model.generate(ids, cache_implementation="static", **how), wanted)


# ---- prompts and prefixes together --------------------------------------------------------------------------------


def prompt_and_prefix(name, order, dtype=torch.float64):
    model = tiny.fresh(name, dtype)
    for seed, (adapter, method) in enumerate(
        {"prompt": PromptTuning(num_virtual_tokens=2), "prefix": PrefixTuning(num_virtual_tokens=3)}.items()
    ):
        torch.manual_seed(seed)
        peftlab.attach(model, method, name=adapter)
    return peftlab.use(model, order)


@pytest.mark.parametrize("side", [None, "left", "right"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_prompt_and_a_prefix_stand_as_in_a_cache_filled_by_hand(name, side):
    """The prefix takes positions 0 to 2, the prompt 3 and 4, the input goes on from 5, whichever was named first."""
    ids, mask = tiny.tokens(), torch.ones(3, 7, dtype=torch.long) if side is None else tiny.padding(side)
    found = []
    for order in (["prompt", "prefix"], ["prefix", "prompt"]):
        model = prompt_and_prefix(name, order)
        found.append(tiny.outputs(model, {"input_ids": ids, "attention_mask": mask}))
        given = {"position_ids": torch.arange(7).expand(3, -1), "attention_mask": mask}
        assert torch.equal(tiny.outputs(model, {"input_ids": ids, **given}), found[-1])
    assert torch.equal(*found)
    shared, base = model.peftlab.shared, tiny.fresh(name, torch.float64)
    prefix = shared["prefix"]
    parts = prefix.table().detach().view(3, prefix.layers, 2, prefix.heads, prefix.d_h).permute(1, 2, 3, 0, 4)
    cache = transformers.DynamicCache([(K.expand(3, -1, -1, -1), V.expand(3, -1, -1, -1)) for K, V in parts])
    P = shared["prompt"].prompt_embeddings.detach().expand(3, -1, -1)
    with torch.no_grad():
        by_hand = base(
            inputs_embeds=torch.cat([P, base.get_input_embeddings()(ids)], dim=1),
            attention_mask=torch.cat([mask.new_ones(3, 5), mask], dim=1),
            past_key_values=cache,
            position_ids=torch.arange(3, 12).expand(3, -1),
        ).logits
    seen = torch.cat([mask.new_ones(3, 2), mask], dim=1).bool()  # what is computed at padding means nothing
    torch.testing.assert_close(found[0][seen], by_hand[seen], atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_prompt_and_a_prefix_in_generation_and_under_checkpointing(name):
    mask = tiny.padding("left")
    ids, how = tiny.tokens() * mask, {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    for order in (["prompt", "prefix"], ["prefix", "prompt"]):
        model = prompt_and_prefix(name, order)
        said = model.generate(ids, attention_mask=mask, **how)
        assert torch.equal(model.generate(ids, attention_mask=mask, use_cache=False, **how), said)
        for i in range(3):
            row = ids[i : i + 1, int((mask[i] == 0).sum()) :]
            assert torch.equal(model.generate(row, attention_mask=torch.ones_like(row), **how)[0, -5:], said[i, -5:])
    grads = {}
    for reentrant in (None, False, True):
        model = prompt_and_prefix("llama", ["prefix", "prompt"]).train()
        if reentrant is not None:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        tiny.loss(model, tiny.batch("llama")).backward()
        grads[reentrant] = [p.grad for p in model.parameters() if p.requires_grad]
    assert len(grads[None]) == 2 and all(g.any() for g in grads[None])
    for found in grads.values():
        assert all(torch.equal(a, b) for a, b in zip(found, grads[None], strict=True))


@pytest.mark.parametrize("cls", [PromptTuning, PrefixTuning])
def test_two_of_a_kind_are_one_of_both(cls):
    """The first one named stands next to the input."""
    model, inputs = tiny.fresh("llama", torch.float64), tiny.batch("llama")
    for adapter, n in (("near", 2), ("far", 3)):
        peftlab.attach(model, cls(num_virtual_tokens=n), name=adapter)
    peftlab.attach(model, cls(num_virtual_tokens=5), name="both")
    parts = model.peftlab.shared
    with torch.no_grad():
        parts["both"].prompt_embeddings.copy_(
            torch.cat([parts["far"].prompt_embeddings, parts["near"].prompt_embeddings])
        )
    two = tiny.outputs(peftlab.use(model, ["near", "far"]), inputs)
    one = tiny.outputs(peftlab.use(model, "both"), inputs)
    torch.testing.assert_close(two, one, atol=1e-12, rtol=1e-10)


# ---- multitask prompts: which task each row belongs to ------------------------------------------------------------


@pytest.mark.parametrize("beams", [1, 2])
def test_rows_of_one_batch_can_belong_to_different_tasks(beams):
    method = MultitaskPromptTuning(num_virtual_tokens=2, num_tasks=3, num_ranks=2)
    model = tiny.randomise(peftlab.attach(tiny.fresh("llama", torch.float64), method), size=0.7)
    ids, tasks = tiny.tokens(), torch.tensor([2, 0, 2])
    mixed = tiny.outputs(model, {"input_ids": ids}, task_ids=tasks)
    how = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "num_beams": beams}
    said = model.generate(ids, task_ids=tasks, **how)
    for i in range(3):
        row = {"task_ids": tasks[i : i + 1]}
        torch.testing.assert_close(tiny.outputs(model, {"input_ids": ids[i : i + 1]}, **row)[0], mixed[i])
        assert torch.equal(model.generate(ids[i : i + 1], **row, **how)[0], said[i])
    assert not torch.allclose(tiny.outputs(model, {"input_ids": ids}, task_ids=[1, 1, 1]), mixed)
    assert model.peftlab.pinned_tasks is None
    base = tiny.outputs(tiny.fresh("llama", torch.float64), {"input_ids": ids})
    with peftlab.disabled(model):  # the same batch goes through the base
        assert torch.equal(tiny.outputs(model, {"input_ids": ids}, task_ids=tasks), base)
        model.generate(ids, task_ids=tasks, **how)


# ---- LLaMA-Adapter ------------------------------------------------------------------------------------------------


def test_llama_adapter_uses_what_other_adapters_make_of_its_layer():
    """Its keys, values and queries go through the layer's own projections, a LoRA around them included."""
    inputs, lora = tiny.batch("llama"), LoRA(r=2, target_modules=["q_proj", "k_proj"])
    model = tiny.randomise(peftlab.attach(tiny.fresh("llama", torch.float64), lora, name="lora"))
    merged = peftlab.merge(copy.deepcopy(model))
    for each in (model, merged):
        peftlab.attach(each, LlamaAdapter(adapter_len=3, adapter_layers=2), name="prompt")
        peftlab.use(each, "prompt")
        tiny.randomise(each, size=1.0)
        with torch.no_grad():
            for wrapper in surgery.adapted_modules(each).values():
                if "prompt" in wrapper.adapters:
                    wrapper.adapters["prompt"].adaption_prompt.fill_(0.3)
    plain = tiny.outputs(model, inputs)
    together = tiny.outputs(peftlab.use(model, ["lora", "prompt"]), inputs)
    torch.testing.assert_close(together, tiny.outputs(merged, inputs), atol=1e-10, rtol=1e-8)
    assert not torch.allclose(together, plain)


def test_rows_mixed_beside_a_llama_adapter_at_rest():
    """Its wrapper stands around the attention, but the batch is cut only where a row's own adapter sits."""
    model, rows = two_adapters(LoRA(r=3)), ["b", "__base__", "a"]
    inputs = {"input_ids": tiny.tokens(3)}
    mixed = tiny.outputs(model, inputs, adapter_names=rows)
    said = model.generate(**inputs, adapter_names=rows, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    peftlab.attach(model, LlamaAdapter(adapter_len=3, adapter_layers=2), name="prompt")
    assert torch.equal(tiny.outputs(model, inputs, adapter_names=rows), mixed)
    again = model.generate(**inputs, adapter_names=rows, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert torch.equal(again, said)


# ---- number formats, copies ---------------------------------------------------------------------------------------


HALVES = [("llama", key) for key in LLAMA]
HALVES += [("bert", cls.__name__) for cls in METHODS if cls not in (CPT, LlamaAdapter)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize(("name", "key"), HALVES)
def test_half_precision_base(name, key, dtype):
    method = LLAMA[key] if name == "llama" else other(name, type(LLAMA[key]))
    model = tiny.fresh(name, dtype)
    inputs = {k: v for k, v in tiny.batch(name).items() if k != "labels"}
    plain = tiny.outputs(model, inputs)
    peftlab.attach(model, method)
    start = tiny.outputs(model, inputs)
    assert start.dtype == dtype
    if not has_seat(model):
        torch.testing.assert_close(start, plain, atol=max(0.02, tiny.starts_near(method)), rtol=0)
    for wrapper in surgery.adapted_modules(model).values():
        for part in wrapper.adapters["default"].modules():
            if isinstance(part, Adapter) and not isinstance(part, Chain):
                own = dtype if isinstance(part, Copy | Overlay) else torch.float32  # copies of the base stay as it is
                assert {p.dtype for p in part.parameters()} <= {own}
    assert {p.dtype for p in model.peftlab.shared.parameters()} <= {torch.float32}
    tiny.randomise(model)
    adapted = tiny.outputs(model, inputs)
    assert adapted.dtype == dtype and torch.isfinite(adapted).all()
    tiny.loss(model, {**tiny.batch(name)}).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
    if tiny.merges(method):
        with peftlab.folded(model):
            folded = tiny.outputs(model, inputs)
        assert folded.dtype == dtype
        torch.testing.assert_close(folded, adapted, atol=0.1, rtol=0.1)
    with peftlab.disabled(model):
        assert torch.equal(tiny.outputs(model, inputs), plain)


@every_method
def test_a_deep_copy_is_independent(method):
    model, inputs = attached("llama", method), tiny.batch("llama")
    adapted = tiny.outputs(model, inputs)
    twin = copy.deepcopy(model)
    assert torch.equal(tiny.outputs(twin, inputs), adapted)
    assert {id(m) for m in twin.modules()}.isdisjoint({id(m) for m in model.modules()})
    tiny.randomise(twin)
    assert not torch.equal(tiny.outputs(twin, inputs), adapted)
    assert torch.equal(tiny.outputs(model, inputs), adapted)
    with peftlab.disabled(twin):
        assert torch.equal(tiny.outputs(model, inputs), adapted)
    how = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
    ids = tiny.tokens()
    twin_says = twin.generate(ids, **how)
    peftlab.detach(model)
    assert torch.equal(twin.generate(ids, **how), twin_says)
    peftlab.detach(twin)
    assert torch.equal(tiny.outputs(twin, inputs), tiny.outputs(model, inputs))


def test_a_method_is_copied_when_attached():
    targets = ["q_proj"]
    method = LoRA(r=2, target_modules=targets)
    model = peftlab.attach(tiny.fresh("llama"), method)
    targets.append("v_proj")
    assert model.peftlab.methods["default"].target_modules == ["q_proj"]


def test_merge_restores_requires_grad_and_leaves_plain_layers():
    model = tiny.fresh("gpt2")
    model.transformer.wpe.weight.requires_grad_(False)
    flags = {n: p.requires_grad for n, p in model.named_parameters(remove_duplicate=False)}
    names = list(model.state_dict())
    peftlab.attach(model, LoRA(r=2, target_modules=["wte", "c_attn"]))
    tiny.randomise(model)
    peftlab.merge(model, untie=True)
    assert {n: p.requires_grad for n, p in model.named_parameters(remove_duplicate=False)} == flags
    assert list(model.state_dict()) == names and not hasattr(model, "peftlab")
    assert "generate" not in vars(model) and not model._forward_pre_hooks
    assert model.config.tie_word_embeddings is False


def test_an_untied_model_survives_saving(tmp_path):
    model = tiny.fresh("gpt2")
    head = model.lm_head.weight.detach().clone()
    peftlab.attach(model, LoRA(r=2, target_modules=["wte"]))
    tiny.randomise(model)
    adapted = tiny.outputs(model, tiny.batch("gpt2"))
    peftlab.merge(model, untie=True)
    assert torch.equal(model.lm_head.weight, head)
    torch.testing.assert_close(tiny.outputs(model, tiny.batch("gpt2")), adapted)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    torch.testing.assert_close(tiny.outputs(again, tiny.batch("gpt2")), adapted)


# ---- awkward models -----------------------------------------------------------------------------------------------


def test_module_names_that_we_use_ourselves():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.base, self.adapters, self.state = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
            self.inner = nn.ModuleDict({"peftlab": nn.Linear(4, 4), "folded": nn.Linear(4, 4)})

        def forward(self, x):
            x = self.state(self.adapters(self.base(x)))
            return self.inner["folded"](self.inner["peftlab"](x))

    sites = ["base", "adapters", "state", "inner.peftlab", "inner.folded"]
    model, x = Odd(), torch.randn(3, 4)
    before, plain = tiny.snapshot(model), tiny.outputs(model, x)
    peftlab.attach(model, LoRA(r=2, target_modules="all-linear"))
    assert list(surgery.adapted_modules(model)) == sites
    tiny.randomise(model)
    adapted = tiny.outputs(model, x)
    with peftlab.folded(model):
        torch.testing.assert_close(tiny.outputs(model, x), adapted)
    with peftlab.disabled(model):
        assert torch.equal(tiny.outputs(model, x), plain)
    peftlab.detach(model)
    assert tiny.differences(before, tiny.snapshot(model)) == []


@pytest.mark.parametrize("name", ["weight", "bias", "_", "0", "a-b", "default_2", "base", "adapter"])
def test_adapter_names_that_are_allowed(name, tmp_path):
    model = tiny.fresh("llama")
    before = tiny.snapshot(model)
    peftlab.attach(model, LoRA(r=2), name=name)
    peftlab.attach(model, LNTuning(), name=f"{name}x")
    peftlab.use(model, f"{name}x")
    peftlab.save(model, tmp_path, name=name)
    tiny.outputs(model, {"input_ids": tiny.tokens()}, adapter_names=[name, "__base__", f"{name}x"])
    peftlab.detach(model)
    assert tiny.differences(before, tiny.snapshot(model)) == []


def test_a_model_that_runs_all_its_children():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(5, 3)
    before, plain = tiny.snapshot(model), tiny.outputs(model, x)
    peftlab.attach(model, LoRA(r=2, target_modules=["0", "2"]))
    assert torch.equal(tiny.outputs(model, x), plain)
    adapted = tiny.outputs(tiny.randomise(model), x)
    torch.testing.assert_close(tiny.outputs(peftlab.merge(copy.deepcopy(model)), x), adapted)
    assert tiny.differences(before, tiny.snapshot(peftlab.detach(model))) == []


def test_one_module_under_two_names():
    """As in peft, the adapter goes to the first name; the second one keeps the plain layer."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.again = self.first

        def forward(self, x):
            return self.again(self.first(x))

    model = Twice()
    before = tiny.snapshot(model)
    parity.prove(model, LoRA(r=2, target_modules=["first"]), torch.randn(3, 4), levels=("P0", "P1", "P2", "P3")).check()
    peftlab.attach(model, LoRA(r=2, target_modules=["first"]), name="a")
    assert list(surgery.base_modules(model)) == ["", "first"]
    with pytest.raises(PeftLabError, match="again"):
        peftlab.attach(model, LoRA(r=2, target_modules=["again"]), name="b")
    peftlab.detach(model)
    assert tiny.differences(before, tiny.snapshot(model)) == []


def test_a_plain_twin_of_a_container_shares_nothing_that_is_replaced():
    block = nn.Sequential(nn.Linear(2, 2))
    block.register_parameter("bias", nn.Parameter(torch.zeros(2)))
    twin = surgery.with_tensors(block, {"bias": torch.ones(2)})
    surgery.replace(twin, "0", nn.Identity())
    assert isinstance(block[0], nn.Linear) and not block.bias.any() and twin.bias.all()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_prefix_is_seen_by_all_and_hides_nothing(attention):
    """What stands in front: None means everything to eager attention, and causal to sdpa where the module is."""

    def widen(mask, queries, causal=True):
        module = nn.Identity()
        module.is_causal, module.config = causal, transformers.LlamaConfig(attn_implementation=attention)
        return hosts.widen_mask(module, mask, torch.zeros(1, 1, queries, 4), keys=5, n=2)

    assert widen(None, 1) is None and widen(None, 3, causal=False) is None
    if attention == "eager":
        assert widen(None, 3) is None
    else:  # 2 prefix positions, then 5 keys of which the first 3 are the queries' own; the rest is a static cache's
        assert widen(None, 3)[0, 0].int().tolist() == [[1] * 3 + [0] * 4, [1] * 4 + [0] * 3, [1] * 5 + [0] * 2]
    lowest = torch.finfo(torch.float32).min
    assert widen(torch.full((1, 1, 3, 5), lowest), 3)[0, 0, 0].tolist() == [0.0, 0.0] + [lowest] * 5
    assert widen(torch.zeros(1, 1, 3, 5, dtype=torch.bool), 3)[0, 0, 0].tolist() == [True, True] + [False] * 5


def test_hooks_on_a_wrapped_layer_keep_firing():
    model, seen = tiny.fresh("llama"), []
    layer = model.model.layers[0].self_attn.q_proj
    handle = layer.register_forward_hook(lambda *_: seen.append(1))
    for method in (LoRA(r=2), LoRA(r=2, bias="all"), LNTuning()):
        seen.clear()
        peftlab.attach(model, method)
        tiny.outputs(model, tiny.batch("llama"))
        assert seen == [1]
        peftlab.detach(model)
    assert handle.id in layer._forward_hooks


def test_a_generate_that_someone_put_on_the_model_stays():
    model = tiny.fresh("llama")
    model.generate = lambda *args, **kwargs: "mine"
    own = model.generate
    peftlab.attach(model, LoRA(r=2))
    assert model.generate(tiny.tokens()) == "mine"
    peftlab.detach(model)
    assert model.generate is own


def test_positional_arguments_and_embeddings_as_inputs():
    for method in (PromptTuning(num_virtual_tokens=2), PrefixTuning(num_virtual_tokens=2), LoRA(r=2)):
        model, ids = attached("llama", method), tiny.tokens()
        by_name = tiny.outputs(model, {"input_ids": ids})
        with torch.no_grad():
            assert torch.equal(model(ids).logits, by_name)
            embedded = model.get_input_embeddings()(ids)
            torch.testing.assert_close(model(inputs_embeds=embedded).logits, by_name)


def test_labels_of_whole_texts_are_not_widened_by_a_prompt():
    model = tiny.bert(num_labels=7, problem_type="multi_label_classification")
    peftlab.attach(model, PromptTuning(num_virtual_tokens=2))
    labels = torch.zeros(3, 7)
    loss = model(input_ids=tiny.tokens(), attention_mask=tiny.padding("right"), labels=labels).loss
    assert torch.isfinite(loss)


def test_the_two_forms_of_oft_turn_opposite_ways():
    """As in peft: a trap, because the field looks like a matter of speed alone."""
    exact, series = Rotation(2, 4, None), Rotation(2, 4, 12)
    with torch.no_grad():
        exact.weight.copy_(0.05 * torch.randn(2, 6))
        series.weight.copy_(exact.weight)
    torch.testing.assert_close(exact.matrices(), series.matrices().transpose(1, 2), atol=1e-5, rtol=0)
    orthogonal = exact.matrices() @ exact.matrices().transpose(1, 2)
    torch.testing.assert_close(orthogonal, torch.eye(4).expand(2, 4, 4), atol=1e-5, rtol=0)


def test_vera_bases_are_one_and_frozen():
    model = attached("llama", VeRA(r=4))
    layers = [wrapper.adapters["default"] for wrapper in surgery.adapted_modules(model).values()]
    assert len({id(layer.bases) for layer in layers}) == 1
    assert not any("vera_A" in name for name, _ in model.named_parameters())


# ---- cards, and a method in one new file ---------------------------------------------------------------------------

CARDS = {cls.__name__: cls.card for cls in METHODS} | {"DoRA": dora.CARD, "AdapterDrop": adapter_drop.CARD}


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_the_card_is_complete(card):
    assert isinstance(card, Card)
    for name in Card.__dataclass_fields__:
        value = getattr(card, name)
        if isinstance(value, str):
            assert len(value) > 2 and value == value.strip(), name
    assert re.fullmatch(r"\d{4}\.\d{4,5}", card.arxiv) and 2015 <= card.year <= 2030
    assert abs(card.year % 100 - int(card.arxiv[:2])) <= 1
    assert card.family in ("additive", "selective", "reparameterisation", "hybrid")
    assert card.traps and all(len(trap) > 20 for trap in card.traps)
    assert set(card.levels) <= set(parity.LEVELS) and all(len(reason) > 15 for reason in card.levels.values())
    assert card.mergeable or "P4" in card.levels


@every_method
def test_mergeable_means_mergeable(method):
    model = attached("llama", method)
    if tiny.merges(method):
        peftlab.merge(model)
    else:
        with pytest.raises(NotMergeable, match=type(method).__name__):
            peftlab.merge(model)


NEW_METHOD = '''
from peftlab.methods.base import Adapter, Card, Method, method
from torch import nn
import torch


class Gain(Adapter):
    def __init__(self, site):
        super().__init__(site)
        self.gain = nn.Parameter(torch.ones(site.out_features))

    def forward(self, inner, x):
        return inner(x) * self.gain

    def merged(self, W, b):
        return self.gain[:, None] * W, None if b is None else self.gain * b


@method
class Gains(Method):
    target_modules: list[str] | str | None = None
    peft_type = "GAINS"

    def build(self, site, shared):
        return Gain(site)

    def parameters_at(self, site):
        return site.out_features
'''
USE_IT = """
import torch, peftlab
from peftlab.methods import METHODS, Gains
assert Gains in METHODS
model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
x = torch.randn(4, 3)
before = model(x)
peftlab.attach(model, Gains(target_modules=["0"]))
assert torch.equal(model(x), before)
model[0].adapters["default"].gain.data.uniform_(1, 2)
adapted = model(x)
peftlab.save(model, "saved")
again = peftlab.load(peftlab.detach(model), "saved")
assert torch.equal(again(x), adapted) and not torch.equal(before, adapted)
torch.testing.assert_close(peftlab.merge(again)(x), adapted)
print("found")
"""


def test_a_method_in_one_new_file_is_found(tmp_path):
    package = Path(peftlab.__file__).parent
    shutil.copytree(package, tmp_path / "peftlab", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "peftlab" / "methods" / "reparam" / "gains.py").write_text(NEW_METHOD)
    ran = subprocess.run([sys.executable, "-c", USE_IT], cwd=tmp_path, capture_output=True, text=True)
    assert ran.stdout.strip() == "found", ran.stderr
