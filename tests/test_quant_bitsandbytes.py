"""Bit for bit what bitsandbytes computes on a CPU; where it is wrong, held to the definition instead."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import peftlab
from peftlab import parity, surgery
from peftlab.methods import IA3, OFT, LoRA, VeRA
from peftlab.quant import AdamW8bit, Linear4bit, adopt, levels_of, linear_int8, quantize, quantize_int8, quantize_model
from peftlab.quant.eight_bit import dynamic_levels, quantize_8bit
from peftlab.quant.files import load_quantized, save_quantized
from peftlab.quant.state import read_quantized, scales_to_tensors
from peftlab.tasks import models
from tests import tiny

bnb = pytest.importorskip(
    "bitsandbytes", reason="bitsandbytes, the reference for quantisation, is not installed (pip install '.[quant]')"
)
F = bnb.functional

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
BLOCKSIZES = [32, 64, 128, 256, 512, 1024, 2048, 4096]
SHAPES = [
    (1, 1), (1, 3), (3, 5), (7, 64), (64, 64), (33, 48), (5, 96), (2, 160), (17, 31), (128, 100), (6, 688), (48, 258),
    (1, 4096), (257, 130), (3, 2048), (2, 2, 64), (4097,),
]  # fmt: skip


@pytest.fixture(autouse=True)
def plainly(quiet):
    """Some kernels of bitsandbytes compile themselves on first use: the same numbers, after a long wait."""
    import torch._dynamo

    with torch._dynamo.config.patch(disable=True):
        yield


# ---- codebooks ----------------------------------------------------------------------------------------------------


def test_codebooks():
    for kind in ("nf4", "fp4"):
        assert torch.equal(levels_of(kind), F.get_4bit_type(kind, device="cpu"))
    for signed in (True, False):
        assert torch.equal(dynamic_levels(signed), F.create_dynamic_map(signed=signed))


# ---- a weight in 4 bits -------------------------------------------------------------------------------------------


def weight(shape, dtype, seed=0):
    """Normal numbers; where there is room a block of zeros, values halfway between two levels, and zeros at the end."""
    w = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    flat = w.view(-1)
    if flat.numel() > 200:
        flat[64:128] = 0
        levels = levels_of("nf4")
        flat[128:143], flat[143] = (levels[1:] + levels[:-1]) / 2, 1.0
        flat[-40:] = 0
    return w.to(dtype)


def wrong_rows(shape, blocksize) -> bool:
    """Where bitsandbytes' AVX-512 path starts each row of the matrix with a new scale, though blocks run on."""
    width = shape[-1]
    return width % 16 == 0 and width % blocksize != 0 and blocksize < 2048 and math.prod(shape) > blocksize


def fault_is_here() -> bool:
    w = torch.randn(4, 48)
    packed, state = F.quantize_4bit(w, blocksize=64, quant_type="nf4")
    return not torch.equal(F.dequantize_4bit(packed, state), quantize(w, "nf4", 64, double=False).dequantize())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_codes_scales_and_values(kind, double, dtype):
    here = fault_is_here()
    for shape in SHAPES:
        w = weight(shape, dtype)
        for blocksize in BLOCKSIZES:
            packed, state = F.quantize_4bit(w, blocksize=blocksize, compress_statistics=double, quant_type=kind)
            q = quantize(w, kind, blocksize, double)
            where = f"{shape}, blocks of {blocksize}"
            assert torch.equal(q.packed, packed), where
            if double:
                assert torch.equal(q.absmax.inner.codes, state.absmax), where
                assert torch.equal(q.absmax.inner.absmax, state.state2.absmax), where
                assert torch.equal(q.absmax.offset, state.offset), where
                scales = F.dequantize_blockwise(state.absmax, state.state2) + state.offset
                assert torch.equal(q.absmax.dequantize(), scales), where
            else:
                assert torch.equal(q.absmax, state.absmax), where
            values = q.dequantize()
            assert torch.equal(values, by_definition(q)), where
            if not (here and wrong_rows(shape, blocksize)):
                theirs = F.dequantize_4bit(packed, state)
                assert values.dtype == theirs.dtype and torch.equal(values, theirs.reshape(shape)), where


def by_definition(q) -> torch.Tensor:
    """Each value by itself: its code's level times the scale of the block that its place in the flat tensor is in."""
    scales = q.absmax if isinstance(q.absmax, torch.Tensor) else q.absmax.dequantize()
    i = torch.arange(q.numel)
    byte = q.packed.flatten()[i // 2]
    codes = torch.where(i % 2 == 0, byte // 16, byte % 16)
    return (levels_of(q.kind)[codes.long()] * scales[i // q.blocksize]).to(q.dtype).reshape(q.shape)


def test_the_fault_of_bitsandbytes():
    """Rows that are no multiple of the block come back wrong from AVX-512 code, silently; ours come back right."""
    if not fault_is_here():
        pytest.skip("this processor runs another path of bitsandbytes, which is right")
    for shape, blocksize in [((33, 48), 64), ((5, 96), 64), ((6, 688), 64), ((64, 64), 128)]:
        assert wrong_rows(shape, blocksize)
        w = torch.randn(shape)
        packed, state = F.quantize_4bit(w, blocksize=blocksize, quant_type="nf4")
        q = quantize(w, "nf4", blocksize, double=False)
        assert torch.equal(q.packed, packed) and torch.equal(q.absmax, state.absmax)  # what is stored is right
        theirs = (F.dequantize_4bit(packed, state) - w).square().mean()
        assert theirs > 1.5 * (q.dequantize() - w).square().mean()
    right, wrong = (6, 704), (6, 688)
    assert not wrong_rows(right, 64) and wrong_rows(wrong, 64)


# ---- 8 bits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("signed", [True, False])
def test_8_bits(signed, dtype):
    levels = F.create_dynamic_map(signed=signed)
    for n in (1, 3, 255, 256, 257, 1000, 100_000):
        for scale in (1, 37, 1e-4):
            x = torch.randn(n) * scale
            x = (x if signed else x.abs()).to(dtype)
            if n > 600:
                x[256:512] = 0
            codes, state = F.quantize_blockwise(x, code=levels, blocksize=256)
            q = quantize_8bit(x, signed=signed)
            assert torch.equal(q.codes, codes) and torch.equal(q.absmax, state.absmax)
            back = F.dequantize_blockwise(codes, absmax=state.absmax, code=levels, blocksize=256)
            assert torch.equal(q.dequantize(), back)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_int8_rows(dtype):
    x = torch.randn(7, 33).to(dtype)
    codes, scales, _ = F.int8_vectorwise_quant(x.clone())
    q = quantize_int8(x)
    assert torch.equal(q.codes, codes) and torch.equal(q.absmax, scales)


def test_int8_products():
    """Equal up to one factor: on a CPU bitsandbytes writes 1/127² as 6.200124e-05, and two digits are missing there."""
    x, W = torch.randn(9, 40), quantize_int8(torch.randn(30, 40))
    X = quantize_int8(x)
    theirs = torch.ops.bitsandbytes.int8_scaled_mm(X.codes, W.codes, X.absmax, W.absmax, dtype=torch.float32)
    ours = linear_int8(x, W, threshold=0)
    factor = float((ours * theirs).sum() / theirs.square().sum())
    assert factor == pytest.approx(1, rel=3e-5)
    assert torch.allclose(ours, theirs * factor, rtol=1e-5, atol=1e-5)


# ---- AdamW --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_adamw_8bit(dtype, decay):
    start = [torch.randn(shape).to(dtype) for shape in [(3, 5), (64, 64), (100, 77), (4097,)]]
    mine, theirs = ([nn.Parameter(w.clone()) for w in start] for _ in range(2))
    one = AdamW8bit(mine, lr=0.01, weight_decay=decay)
    other = bnb.optim.AdamW8bit(theirs, lr=0.01, weight_decay=decay)
    for step in range(30):
        for a, b in zip(mine, theirs, strict=True):
            a.grad = torch.randn_like(a) * (3 if step % 5 == 0 else 0.1)
            b.grad = a.grad.clone()
        one.step(), other.step()
    for a, b in zip(mine, theirs, strict=True):
        assert torch.equal(a, b)
        if a.numel() >= 4096:
            for moment, codes, scales in (("m", "state1", "absmax1"), ("v", "state2", "absmax2")):
                assert torch.equal(one.state[a][moment].codes, other.state[b][codes])
                assert torch.equal(one.state[a][moment].absmax, other.state[b][scales])


# ---- a layer ------------------------------------------------------------------------------------------------------


def their_layer(dense: nn.Linear, kind: str, double: bool, compute_dtype=None) -> nn.Module:
    layer = bnb.nn.Linear4bit(
        dense.in_features, dense.out_features, dense.bias is not None, compute_dtype, double, kind
    )
    layer.load_state_dict(dense.state_dict())
    return layer.to(dense.weight.dtype).to("cpu")


@pytest.mark.parametrize("compute", [None, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_layers_compute_the_same(kind, double, dtype, compute):
    for d_in, d_out, bias in [(64, 48, True), (128, 7, False)]:
        dense = nn.Linear(d_in, d_out, bias=bias).to(dtype)
        theirs = their_layer(dense, kind, double, compute).train()  # eval() may take a bf16 kernel
        ours = Linear4bit(quantize(dense.weight.detach(), kind, 64, double), dense.bias, compute)
        x = torch.randn(3, 5, d_in).to(dtype)
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        y, z = ours(a), theirs(b)
        assert torch.equal(y, z) and y.dtype == z.dtype
        g = torch.randn_like(y)
        y.backward(g), z.backward(g)
        assert torch.equal(a.grad, b.grad)
        mine, yours = ours.state_dict(), theirs.state_dict()
        assert mine.keys() == yours.keys()
        assert all(torch.equal(mine[name], yours[name].data) for name in mine if name != "bias")  # (they cast the bias)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_state_dicts_go_both_ways(kind, double):
    w = torch.randn(6, 23).bfloat16()  # 138 weights: an odd width, a short last block
    q = quantize(w, kind, 64, double)
    tensors = {"weight": q.packed, **scales_to_tensors(q, "weight.")}
    stats = {name: tensor for name, tensor in tensors.items() if name != "weight"}
    theirs = bnb.nn.Params4bit.from_prequantized(q.packed, stats, device="cpu")
    assert torch.equal(F.dequantize_4bit(theirs.data, theirs.quant_state), q.dequantize())
    packed, state = F.quantize_4bit(w, blocksize=64, compress_statistics=double, quant_type=kind)
    found = {"weight": packed, **{f"weight.{k}": v for k, v in state.as_dict(packed=True).items()}}
    assert found.keys() == tensors.keys() and all(torch.equal(found[k], tensors[k]) for k in found)
    assert torch.equal(read_quantized(found, "weight").dequantize(), q.dequantize())


def test_bytes_kept_in_wider_numbers_are_read():
    w = torch.randn(8, 64)
    packed, state = F.quantize_4bit(w, quant_type="nf4", quant_storage=torch.bfloat16)
    found = {"weight": packed, **{f"weight.{k}": v for k, v in state.as_dict(packed=True).items()}}
    assert packed.dtype == torch.bfloat16
    assert torch.equal(read_quantized(found, "weight").dequantize(), F.dequantize_4bit(packed, state))
    layer = Linear4bit(quantize(torch.randn(8, 64), double=False))
    layer.load_state_dict(found)
    assert torch.equal(layer.quantized.dequantize(), F.dequantize_4bit(packed, state))


# ---- whole models -------------------------------------------------------------------------------------------------


def small_model(name: str, dtype=torch.float32) -> nn.Module:
    """Widths that are multiples of 64, so that bitsandbytes is right too; no dropout."""
    import transformers

    torch.manual_seed(0)
    if name == "llama":
        return tiny.llama(hidden_size=64, intermediate_size=128).to(dtype)
    config = transformers.GPT2Config(
        vocab_size=97, n_embd=64, n_layer=2, n_head=4, n_positions=64, embd_pdrop=0, attn_pdrop=0, resid_pdrop=0,
        **tiny.SPECIAL,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config).to(dtype)


def in_4_bits(folder, kind="nf4", double=True, dtype=torch.float32, skip=None) -> nn.Module:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=skip,
    )
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, dtype=dtype)


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("kind", "double"), [("nf4", True), ("nf4", False), ("fp4", True)])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_files_of_whole_models(name, kind, double, dtype, tmp_path):
    from transformers import AutoModelForCausalLM

    dense = small_model(name, dtype)
    dense.save_pretrained(tmp_path / "dense")
    theirs = in_4_bits(tmp_path / "dense", kind, double, dtype)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = quantize_model(dense, kind, double=double, compute_dtype=dtype)
    assert equal(ours.state_dict(), theirs.state_dict())
    assert equal(load_quantized(tmp_path / "theirs").state_dict(), ours.state_dict())
    save_quantized(ours, tmp_path / "ours")
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert equal(opened.state_dict(), ours.state_dict())
    assert any(isinstance(m, bnb.nn.Linear4bit) for m in opened.modules())
    want = opened.train()(tiny.tokens()).logits
    assert torch.equal(adopt(opened).train()(tiny.tokens()).logits, want)
    assert not any(isinstance(m, bnb.nn.Linear4bit) for m in opened.modules())


def test_a_layer_that_bitsandbytes_has_repacked_is_adopted_as_it_was():
    dense = nn.Sequential(nn.Linear(64, 64))
    theirs = nn.Sequential(their_layer(dense[0], "nf4", True)).eval()
    theirs(torch.randn(2, 64))  # on some processors eval mode stores the codes in another order
    assert torch.equal(adopt(theirs)[0].weight, quantize(dense[0].weight.detach()).packed)


def test_layers_of_bitsandbytes_are_not_merged_into_by_mistake():
    theirs = nn.Sequential(their_layer(nn.Linear(64, 64), "nf4", True))
    peftlab.attach(theirs, LoRA(r=2, target_modules=["0"]))
    with pytest.raises(peftlab.PeftLabError, match="adopt"):
        peftlab.merge(theirs)
    peftlab.detach(theirs)
    with pytest.raises(peftlab.PeftLabError, match="quantised already; dequantize|uint8"):
        quantize_model(theirs, target_modules=["0"])
    peftlab.merge(peftlab.attach(adopt(theirs), LoRA(r=2, target_modules=["0"])))


# ---- QLoRA --------------------------------------------------------------------------------------------------------


def test_the_fault_costs_a_model_its_words():
    """The tiny model whole in 4 bits: ours nearly as good as dense; bitsandbytes loses its 8 down_proj matrices."""
    if not fault_is_here():
        pytest.skip("this processor runs another path of bitsandbytes, which is right")
    dense, tokenizer = models.load("tiny")
    theirs = in_4_bits(models.find(models.TINY).source).train()
    ids = tokenizer(PSALM, return_tensors="pt").input_ids
    with torch.no_grad():
        before, after = (float(m(input_ids=ids, labels=ids).loss) for m in (dense, theirs))
        ours = float(quantize_model(dense)(input_ids=ids, labels=ids).loss)
    assert abs(ours - before) < 0.1 and after - before > 0.2


PSALM = (
    "The Lord is my shepherd; I shall not want. He maketh me to lie down in green pastures: he leadeth me beside the "
    "still waters. He restoreth my soul: he leadeth me in the paths of righteousness for his name's sake."
)


@pytest.fixture(scope="module")
def qlora():
    """The tiny model in 4 bits, ours and bitsandbytes' with peft's LoRA around it, and a batch of its own words.

    down_proj stays dense: its 688 inputs are no multiple of 64, where bitsandbytes errs on some processors.
    """
    model, tokenizer = models.load("tiny")
    theirs = in_4_bits(models.find(models.TINY).source, skip=["lm_head", "down_proj"]).train()
    ours = quantize_model(model, exclude_modules=["down_proj"]).train()
    text = "Once upon a time there was a small model that learnt to read. " * 3
    ids = tokenizer([text, text[20:], text[37:]], return_tensors="pt", padding=True, truncation=True, max_length=40)
    return ours, theirs, {**ids, "labels": ids["input_ids"]}


def test_qlora_trains_as_peft_on_bitsandbytes_step_for_step(qlora):
    base, reference, batch = qlora
    theirs_by_name = dict(reference.named_modules())
    layers = {name: m for name, m in base.named_modules() if isinstance(m, Linear4bit)}
    assert len(layers) == 48
    for name, layer in layers.items():
        other = theirs_by_name[name].weight
        assert torch.equal(layer.quantized.dequantize(), F.dequantize_4bit(other.data, other.quant_state)), name
    torch.manual_seed(0)
    ours = peftlab.attach(copy.deepcopy(base), LoRA(r=4, lora_alpha=6, target_modules="all-linear"))
    for tensor in parity.our_tensors(ours).values():
        tensor.data += 0.01 * torch.randn_like(tensor)  # so B ≠ 0
    theirs = parity.reference(reference, ours)
    count = peftlab.count_parameters(ours)
    assert (count.trainable, count.total) == theirs.get_nb_trainable_parameters()
    losses = []
    for model in (ours, theirs):
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        losses.append([])
        for _ in range(8):
            loss = model(**batch).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.detach())
    mine, reference_losses = (torch.stack(row) for row in losses)
    assert mine[-1] < mine[0]
    assert parity.relative_difference(mine, reference_losses) <= 1e-6
    adapters, other = parity.our_tensors(ours), parity.their_tensors(theirs)
    assert max(parity.relative_difference(adapters[name], other[name]) for name in adapters) <= 1e-5
    for name, layer in surgery.base_modules(ours).items():
        if isinstance(layer, Linear4bit):
            assert torch.equal(layer.weight, layers[name].weight), "the base moved"


def test_merging_and_quantising_again_is_what_peft_does(qlora):
    """peft's merge quantises again, silently; ours gives dense layers, and again only when told to."""
    base, reference, batch = qlora
    ours = tiny.randomise(peftlab.attach(copy.deepcopy(base), LoRA(r=4, target_modules=["q_proj", "up_proj"])), 0.02)
    theirs = parity.reference(reference, ours).merge_and_unload()
    with torch.no_grad():
        before = ours(**batch).logits
        merged = peftlab.merge(ours)
        exact = parity.relative_difference(merged(**batch).logits, before)
        again = quantize_model(merged, exclude_modules=["down_proj"])
        lossy = parity.relative_difference(again(**batch).logits, before)
    assert exact < 1e-4 < 1e-2 < lossy
    for name, layer in theirs.named_modules():
        if isinstance(layer, bnb.nn.Linear4bit):
            assert torch.equal(again.get_submodule(name).weight, layer.weight.data), name


METHODS = {
    "LoRA": LoRA(r=3, lora_alpha=5, target_modules="all-linear"),
    "rsLoRA": LoRA(r=3, lora_alpha=5, use_rslora=True),
    "DoRA": LoRA(r=3, lora_alpha=5, use_dora=True),
    "VeRA": VeRA(r=5),
    "IA3": IA3(),
    "OFT": OFT(oft_block_size=4),
}


@pytest.mark.parametrize("name", METHODS)
def test_methods_on_4_bits_are_pefts(name, tmp_path):
    dense = small_model("llama")
    dense.save_pretrained(tmp_path)
    theirs = in_4_bits(tmp_path).train()
    ours = tiny.randomise(peftlab.attach(quantize_model(dense).train(), METHODS[name]))
    theirs = parity.reference(theirs, ours)
    inputs, outputs = tiny.batch("llama"), []
    for model in (ours, theirs):
        outputs.append(model(**inputs).logits)
        tiny.loss(model, inputs).backward()
    assert parity.relative_difference(*outputs) <= 1e-6
    mine, reference = parity.our_tensors(ours), parity.their_tensors(theirs)
    trained = [key for key, tensor in mine.items() if tensor.requires_grad]
    largest = max(float(mine[key].grad.abs().max()) for key in trained)
    assert largest > 0
    for key in trained:
        assert parity.relative_difference(mine[key].grad, reference[key].grad, largest / 100) <= 1e-4, key
