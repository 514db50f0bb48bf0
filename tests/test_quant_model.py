"""Linear4bit, models made of it, and every method of the course on top of them. Needs no bitsandbytes."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

import peftlab
from peftlab import surgery
from peftlab.errors import CheckpointError, ConfigError, PeftLabError
from peftlab.methods import LoRA
from peftlab.quant import CODEBOOKS, Linear4bit, adopt, attach_loftq, quantize, quantize_model
from peftlab.quant.files import fill_quantized, load_quantized, save_quantized
from tests import tiny

pytestmark = pytest.mark.usefixtures("quiet")


def layer(d_in=70, d_out=33, bias=True, kind="nf4", double=True, dtype=torch.float32):
    dense = nn.Linear(d_in, d_out, bias=bias).to(dtype)
    return Linear4bit(quantize(dense.weight.detach(), kind, 64, double), dense.bias), dense


def bits(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---- the layer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CODEBOOKS)
@pytest.mark.parametrize("bias", [True, False])
def test_it_computes_with_the_dequantised_weight(kind, bias):
    quantised, dense = layer(bias=bias, kind=kind)
    W = quantised.quantized.dequantize().requires_grad_()
    a, b = (torch.randn(2, 5, 70, generator=torch.Generator().manual_seed(0)).requires_grad_() for _ in range(2))
    y, z = quantised(a), F.linear(b, W, dense.bias)
    g = torch.randn_like(y)
    y.backward(g), z.backward(g)
    assert torch.equal(y, z) and torch.allclose(a.grad, b.grad, atol=1e-6)
    assert not any(p.requires_grad for p in quantised.parameters())


def test_a_bias_can_be_trained_though_the_weight_cannot():
    quantised, dense = layer()
    quantised.bias.requires_grad_(True)
    x = torch.randn(4, 3, 70)
    quantised(x).square().sum().backward()
    want = torch.autograd.functional.jacobian(
        lambda b: F.linear(x, quantised.quantized.dequantize(), b).square().sum(), dense.bias.detach()
    )
    assert torch.allclose(quantised.bias.grad, want, rtol=1e-4)


def test_autograd_keeps_no_dense_copy():
    quantised, dense = layer(200, 300, bias=False)
    x, kept = torch.randn(2, 200, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        quantised(x).sum()
        assert max(kept, default=0) < 200 * 300
        kept.clear()
        F.linear(x, quantised.quantized.dequantize().requires_grad_()).sum()
        assert max(kept) == 200 * 300  # the hook sees what an ordinary layer keeps


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_casting_the_model_leaves_codes_and_scales(dtype):
    quantised, _ = layer()
    before = quantised.quantized
    after = quantised.to(dtype).quantized
    assert quantised.bias.dtype == dtype and after.packed.dtype == torch.uint8
    assert torch.equal(after.absmax.inner.absmax, before.absmax.inner.absmax)
    assert after.absmax.offset.dtype == torch.float32 and torch.equal(after.dequantize(), before.dequantize())


def test_inputs_of_half_precision_and_a_compute_dtype():
    quantised, _ = layer(dtype=torch.bfloat16)
    x = torch.randn(3, 70).bfloat16()
    assert quantised(x).dtype == torch.bfloat16
    quantised.compute_dtype = torch.float32
    W = quantised.quantized.dequantize(torch.float32)  # not rounded to bf16 before the product
    assert torch.equal(quantised(x), F.linear(x.float(), W, quantised.bias.float()).bfloat16())


def test_a_copy_is_a_copy():
    quantised, _ = layer()
    twin = copy.deepcopy(quantised)
    before = bits(quantised)
    twin.weight.data.zero_()
    twin._scales.absmax.inner.codes.zero_()
    assert same(bits(quantised), before)


@pytest.mark.parametrize("kind", CODEBOOKS)
@pytest.mark.parametrize("double", [False, True])
def test_state_dict_round_trip(kind, double):
    one, _ = layer(kind=kind, double=double)
    other, _ = layer(kind="nf4", double=not double)
    other.load_state_dict(one.state_dict())  # strict: nothing missing, nothing extra
    x = torch.randn(2, 70)
    assert same(bits(one), bits(other)) and torch.equal(one(x), other(x))
    assert other.quantized.kind == kind


def test_state_dicts_that_do_not_fit():
    quantised, dense = layer()
    before = bits(quantised)
    with pytest.raises(RuntimeError, match="not in 4 bits.*quantize_model"):
        quantised.load_state_dict(dense.state_dict())
    with pytest.raises(RuntimeError, match="33, 64"):
        quantised.load_state_dict(layer(64, 33)[0].state_dict())
    found = quantised.state_dict()
    for name, words in [("weight.absmax", "absmax"), ("weight.nested_quant_map", "nested_quant_map")]:
        with pytest.raises(CheckpointError, match=words):
            quantised.load_state_dict({k: v for k, v in found.items() if k != name})
    label = "weight.quant_state.bitsandbytes__nf4"
    facts = json.loads(bytes(found[label].tolist()))
    for change, words in [
        ({"blocksize": 32}, "blocks of 32"),
        ({"shape": [33, 71]}, r"\(33, 71\)"),
        ({"quant_type": "fp4"}, "fp4"),
        ({"dtype": "load"}, "damaged"),
        ({"quant_type": None}, "None"),
    ]:
        blob = torch.tensor(list(json.dumps(facts | change).encode()), dtype=torch.uint8)
        with pytest.raises(CheckpointError, match=words):
            quantised.load_state_dict({**found, label: blob})
    with pytest.raises(CheckpointError, match="not readable"):
        quantised.load_state_dict({**found, label: torch.zeros(3, dtype=torch.uint8)})
    with pytest.raises(CheckpointError, match="codebook"):
        quantised.load_state_dict({**found, "weight.quant_map": found["weight.quant_map"].flip(0)})
    assert same(bits(quantised), before)


def test_only_matrices_make_a_layer():
    with pytest.raises(PeftLabError, match=r"\(2, 3, 4\)"):
        Linear4bit(quantize(torch.randn(2, 3, 4)))


# ---- a model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_a_model_in_4_bits(name):
    dense = tiny.fresh(name)
    model = quantize_model(copy.deepcopy(dense))
    linear = {n for n, m in dense.named_modules() if surgery.Site(n, m).kind == "linear"}
    quantised = {n for n, m in model.named_modules() if isinstance(m, Linear4bit)}
    assert linear - quantised == ({"classifier"} if name == "bert" else {"lm_head"})
    inputs = tiny.batch(name)
    for layer_name in quantised:  # the same model with dequantised weights answers the same
        W, b = surgery.dense(model.get_submodule(layer_name))
        site = dense.get_submodule(layer_name)
        surgery.replace(dense, layer_name, surgery.with_dense(site, W, b))
    assert torch.allclose(tiny.outputs(model, inputs), tiny.outputs(dense, inputs), atol=1e-5)
    assert peftlab.count_parameters(model).total == peftlab.count_parameters(dense).total


def test_what_is_quantised_can_be_chosen_and_is_not_quantised_twice():
    model = quantize_model(tiny.fresh("llama"), "int4", target_modules=["q_proj", "v_proj"], double=False)
    first = bits(model)
    quantize_model(model, "nf4", exclude_modules=["down_proj"])
    kinds = {n.rpartition(".")[2]: m.quantized.kind for n, m in model.named_modules() if isinstance(m, Linear4bit)}
    assert kinds["q_proj"] == "int4" and kinds["up_proj"] == "nf4" and "down_proj" not in kinds
    q = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(model.state_dict()[q], first[q])
    quantize_model(model)
    with pytest.raises(PeftLabError, match="in 4 bits already"):
        quantize_model(model)


def test_a_model_that_cannot_be_quantised_stays_as_it_was(refused):
    model = tiny.fresh("llama")
    with refused(model, "nf5"):
        quantize_model(model, "nf5")
    with refused(model, "embed_tokens", "Embedding", "linear"):
        quantize_model(model, target_modules=["q_proj", "embed_tokens"])
    model.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("inf")
    with refused(model, "not finite"):
        quantize_model(model)
    with refused(model, "no 4-bit layers of bitsandbytes"):
        adopt(model)
    with refused(model, "4 bits"):
        save_quantized(model, "nowhere")
    peftlab.attach(model, LoRA(r=2))
    with refused(model, "adapters are attached", "merge or detach"):
        quantize_model(model)
    with refused(model, "adapters", "LoftQ"):
        attach_loftq(model, LoRA(r=2), name="second")


# ---- adapters on a 4-bit base ---------------------------------------------------------------------------------------

NO_4_BITS = ("PiSSA", "LastLayers", "PartialTuning")  # they train, or split, the weights themselves
ON_4_BITS = {name: method for name, method in tiny.every_method().items() if name not in NO_4_BITS}


@pytest.mark.parametrize("name", ON_4_BITS)
def test_every_method_works_on_a_4_bit_base(name, tmp_path):
    method = ON_4_BITS[name]
    base = quantize_model(tiny.fresh("llama"))
    inputs, tasks = tiny.batch("llama"), tiny.tasks(method)
    before, plain = bits(base), tiny.outputs(base, inputs)
    model = tiny.randomise(peftlab.attach(copy.deepcopy(base), method))
    adapted = tiny.outputs(model, inputs, **tasks)
    assert adapted.shape != plain.shape or not torch.allclose(adapted, plain)  # prompts come in front
    model(**inputs, **tasks).loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert trained and all(p.grad is not None and p.dtype == torch.float32 for p in trained)
    with peftlab.disabled(model):
        assert torch.equal(tiny.outputs(model, inputs), plain)
    peftlab.save(model, tmp_path)
    back = peftlab.load(copy.deepcopy(base), tmp_path)
    assert torch.allclose(tiny.outputs(back, inputs, **tasks), adapted, atol=1e-6)
    if tiny.merges(method):
        with peftlab.folded(model):
            assert torch.allclose(tiny.outputs(model, inputs), adapted, atol=1e-5)
        merged = peftlab.merge(copy.deepcopy(model), untie=True)
        assert torch.allclose(tiny.outputs(merged, inputs), adapted, atol=1e-5)
    assert same(bits(peftlab.detach(model)), before)


def test_adapters_on_a_half_precision_4_bit_base_are_float32():
    model = quantize_model(tiny.fresh("llama", torch.bfloat16))
    peftlab.attach(model, LoRA(r=2, target_modules="all-linear"))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    tiny.loss(model, tiny.batch("llama")).backward()
    assert peftlab.merge(model).model.layers[0].self_attn.q_proj.weight.dtype == torch.bfloat16


def test_merging_gives_dense_layers_and_quantising_again_is_a_step_of_its_own():
    model = tiny.randomise(peftlab.attach(quantize_model(tiny.fresh("llama")), LoRA(r=2, target_modules=["q_proj"])))
    inputs = tiny.batch("llama")
    adapted = tiny.outputs(model, inputs)
    peftlab.merge(model)
    attention = model.model.layers[0].self_attn
    assert type(attention.q_proj) is nn.Linear and type(attention.k_proj) is Linear4bit
    assert torch.allclose(tiny.outputs(model, inputs), adapted, atol=1e-5)
    k = attention.k_proj.weight.clone()
    quantize_model(model)
    assert type(attention.q_proj) is Linear4bit and torch.equal(attention.k_proj.weight, k)
    assert not torch.allclose(tiny.outputs(model, inputs), adapted, atol=1e-3)  # the adapter was rounded too


def test_counting_sees_through_the_packing():
    dense = peftlab.attach(tiny.fresh("llama"), LoRA(r=2))
    packed = peftlab.attach(quantize_model(tiny.fresh("llama")), LoRA(r=2))
    assert peftlab.count_parameters(packed) == peftlab.count_parameters(dense)


def test_starts_that_need_a_dense_weight(refused):
    model = quantize_model(tiny.fresh("llama"))
    for how in ("pissa", "olora"):
        with refused(model, how, "q_proj", "attach_loftq", error=ConfigError):
            peftlab.attach(model, LoRA(r=2, init_lora_weights=how))
    with refused(model, "modules_to_save", "down_proj", "exclude_modules", error=ConfigError):
        peftlab.attach(model, LoRA(r=2, modules_to_save=["mlp.down_proj"]))


def test_gradient_checkpointing_and_generation():
    adapted = peftlab.attach(quantize_model(tiny.fresh("llama")), LoRA(r=2, target_modules="all-linear"))
    tiny.randomise(adapted).train()
    inputs, grads = tiny.batch("llama"), []
    for checkpointing in (False, True):
        model = copy.deepcopy(adapted)
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(**inputs).loss.backward()
        grads.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*grads, strict=True))
    assert any(g.any() for g in grads[0])
    ids = model.eval().generate(inputs["input_ids"], max_new_tokens=3, do_sample=False)
    assert ids.shape[1] == inputs["input_ids"].shape[1] + 3


# ---- LoftQ --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_loftq_starts_nearer_to_the_model_than_qlora(name):
    dense, inputs = tiny.fresh(name), tiny.batch(name)
    want = tiny.outputs(dense, inputs)
    method = LoRA(r=6, lora_alpha=9, target_modules="all-linear", bias="none")
    qlora = peftlab.attach(quantize_model(copy.deepcopy(dense), double=False), method)
    model = copy.deepcopy(dense)
    errors = attach_loftq(model, method, iterations=5)
    assert errors.keys() == surgery.adapted_modules(model).keys()
    assert all(row[-1] < 0.9 * row[0] and len(row) == 6 for row in errors.values())
    near, far = (tiny.outputs(m, inputs) - want for m in (model, qlora))
    assert near.square().mean() < 0.9 * far.square().mean()
    site, wrapper = next(iter(surgery.adapted_modules(model).items()))
    W, _ = surgery.dense(dense.get_submodule(site))
    rest = W - surgery.dense(wrapper.base)[0] - wrapper.adapters["default"].delta_weight()
    assert float(torch.linalg.norm(rest)) == pytest.approx(errors[site][-1], rel=1e-3)  # with the adapter's own α/r
    assert type(surgery.module_at(peftlab.detach(model), site)) is Linear4bit


def test_loftq_with_trained_biases():
    model = tiny.fresh("bert")
    errors = attach_loftq(model, LoRA(r=3, bias="lora_only"), iterations=1)
    assert len(errors) == 4 and all(row[1] < row[0] for row in errors.values())


def test_loftq_refuses(refused):
    model = tiny.fresh("llama")
    for method in (LoRA(r=2, use_dora=True), LoRA(r=2, init_lora_weights="pissa"), tiny.small(peftlab.methods.VeRA)):
        with refused(model, "attach_loftq", error=ConfigError):
            attach_loftq(model, method)
    with refused(model, "embed_tokens", error=ConfigError):
        attach_loftq(model, LoRA(r=2, target_modules=["embed_tokens"]))
    with refused(model, "cannot name an adapter"):
        attach_loftq(model, LoRA(r=2), name="a.b")
    with refused(model, "r=64"):
        attach_loftq(model, LoRA(r=64))
    quantize_model(model)
    with refused(model, "Linear4bit", "dense", error=ConfigError):
        attach_loftq(model, LoRA(r=2))


# ---- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_model_comes_back_from_its_folder(name, tmp_path):
    model = quantize_model(tiny.fresh(name))
    save_quantized(model, tmp_path)
    back = load_quantized(tmp_path)
    assert same(bits(back), bits(model)) and not back.training
    assert torch.equal(tiny.outputs(back, tiny.batch(name)), tiny.outputs(model, tiny.batch(name)))
    if name == "gpt2":
        assert back.lm_head.weight is back.transformer.wte.weight  # still tied
    config = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert config["bnb_4bit_quant_type"] == "nf4" and config["llm_int8_skip_modules"] == ["lm_head"]


def test_folders_that_do_not_open(tmp_path):
    with pytest.raises(CheckpointError, match="no saved model"):
        load_quantized(tmp_path)
    dense = tiny.fresh("llama")
    dense.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="no tensor of this file is in 4 bits.*quantize_model"):
        load_quantized(tmp_path)
    save_quantized(quantize_model(dense), tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    save_file({k: v for k, v in tensors.items() if k != "model.norm.weight"}, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match="missing.*model.norm.weight"):
        load_quantized(tmp_path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_quantized(tmp_path)
    with pytest.raises(CheckpointError, match="model needs"):
        fill_quantized(tiny.llama(intermediate_size=90), tensors)
    with pytest.raises(CheckpointError, match="no linear layer there"):
        fill_quantized(tiny.llama(num_hidden_layers=1), tensors)


def test_models_that_transformers_would_not_open(tmp_path):
    for kind in ("int4", "int4_asymmetric"):
        with pytest.raises(PeftLabError, match="all nf4 or all fp4"):
            save_quantized(quantize_model(tiny.fresh("llama"), kind), tmp_path)
    mixed = quantize_model(tiny.fresh("llama"), "fp4", target_modules=["q_proj"])
    with pytest.raises(PeftLabError, match="all nf4 or all fp4"):
        save_quantized(quantize_model(mixed), tmp_path)
    adapted = peftlab.attach(quantize_model(tiny.fresh("llama")), LoRA(r=2))
    with pytest.raises(PeftLabError, match="peftlab.save"):
        save_quantized(adapted, tmp_path)
    assert not list(tmp_path.iterdir())
