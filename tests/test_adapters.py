"""Bottleneck adapters: equal to the `adapters` package's tensors, near the base at first, merged where they can be."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import peftlab
from peftlab import checkpoint, hosts, parity, surgery
from peftlab.errors import CheckpointError, ConfigError, NotMergeable, PeftLabError
from peftlab.methods import Compacter, CompacterPlusPlus, Houlsby, LNTuning, LoRA, ParallelAdapter, Pfeiffer
from peftlab.methods.additive import bottleneck, compacter
from peftlab.methods.additive.adapter_drop import drop_adapters
from peftlab.surgery import Site
from tests import tiny

pytestmark = pytest.mark.usefixtures("quiet")
GOLDEN = sorted(
    p for p in (Path(__file__).parent / "golden" / "adapters").glob("*.safetensors") if "host" not in p.name
)
PHM = {"reduction_factor": 6, "phm_dim": 4}
ALL = {
    "houlsby": Houlsby(),
    "pfeiffer": Pfeiffer(),
    "pfeiffer-before-norm": Pfeiffer(original_ln_before=False),
    "parallel": ParallelAdapter(),
    "compacter": Compacter(**PHM),
    "compacter++": CompacterPlusPlus(**PHM),
}
every = pytest.mark.parametrize("method", ALL.values(), ids=ALL)


def attached(name, method, dtype=torch.float32, adapter="default"):
    torch.manual_seed(0)
    return tiny.randomise(peftlab.attach(tiny.fresh(name, dtype), method, name=adapter))


def sites(model):
    return list(surgery.adapted_modules(model))


# ---- equal to the reference ---------------------------------------------------------------------------------------


def test_there_is_a_file_for_every_method_and_placement():
    about = {}
    for path in GOLDEN:
        with safe_open(path, "pt") as file:
            about[path.stem] = file.metadata()
    seen = {(a["method"], a["host"]) for a in about.values()}
    assert {method for method, _ in seen} == {type(method).__name__ for method in ALL.values()}
    assert {host for method, host in seen if method in ("Houlsby", "Pfeiffer", "Compacter")} == {
        "bert",
        "gpt2",
        "llama",
    }
    assert all(a["reference"] == "adapters 1.3.0" for a in about.values())
    assert sum(path.stat().st_size for path in GOLDEN[0].parent.iterdir()) < 600_000


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_equal_to_the_stored_tensors(path):
    proof = parity.prove_stored(path).check()
    assert [row.level for row in proof.rows] == ["P0", "P1", "P2", "P3"] and set(proof.left_out) == {"P4", "P5"}
    assert "formula = ours = adapters's" in str(proof) and "does not apply" in str(proof)
    tensors = load_file(path)
    assert all(t.abs().max() > 0.05 for n, t in tensors.items() if n.startswith("tensor/"))  # nothing is left at zero
    assert any(t.abs().max() > 1e-4 for n, t in tensors.items() if n.startswith("grad/"))


def no_residual(self, h):
    return self.delta(h).to(h.dtype)


def twice_normed(self, inner, v):
    y = inner(v)
    return y + self.delta(y)


def reads_the_output(self, inner, x, *args):
    h = inner(x, *args)
    return h + self.delta(h)


def reads_h(self, inner, h, x):
    return inner(h, x + self.delta(inner(h, x)))


def unscaled(self, x):
    return self.adapter_up(self.f(self.adapter_down(x)))


def bent_after_the_way_up(self, x):
    return self.scaling * self.f(self.adapter_up(self.adapter_down(x)))


def kron_the_other_way(self):
    A = self.phm_rule if self.rule is None else self.rule.phm_rule
    return sum(torch.kron(B_i, A_i) for A_i, B_i in zip(A, self.W_left @ self.W_right, strict=True)).T


MUTANTS = {
    "houlsby-without-residual": ("houlsby_bert", bottleneck.Behind, "after", no_residual),
    "houlsby-nonlinearity-at-the-end": ("houlsby_gpt2", bottleneck.Bottleneck, "delta", bent_after_the_way_up),
    "pfeiffer-behind-the-norm": ("pfeiffer_bert", bottleneck.BehindNorm, "forward", twice_normed),
    "parallel-reads-the-output": ("parallel_normed_gpt2", bottleneck.Beside, "forward", reads_the_output),
    "parallel-reads-the-norm": ("parallel_bert", bottleneck.BesideNorm, "forward", reads_h),
    "parallel-unscaled": ("parallel_bert", bottleneck.Bottleneck, "delta", unscaled),
    "kronecker-the-other-way": ("compacter_bert", compacter.PHMLayer, "weight", property(kron_the_other_way)),
}


@pytest.mark.parametrize(("file", "where", "name", "mutant"), MUTANTS.values(), ids=MUTANTS)
def test_a_wrong_adapter_is_noticed(file, where, name, mutant, monkeypatch):
    monkeypatch.setattr(where, name, mutant)
    proof = parity.prove_stored(next(path for path in GOLDEN if path.stem == file))
    assert {row.level for row in proof.rows if not row.ok} == {"P1", "P2", "P3"}


def test_a_wrong_count_and_wrong_files_are_noticed(monkeypatch, tmp_path):
    path = next(path for path in GOLDEN if path.stem == "pfeiffer_bert")
    right = Pfeiffer.parameters_at
    with monkeypatch.context() as patch:
        patch.setattr(Pfeiffer, "parameters_at", lambda self, site: right(self, site) + 1)
        assert {row.level for row in parity.prove_stored(path).rows if not row.ok} == {"P0"}
    with pytest.raises(PeftLabError, match="no stored tensors"):
        parity.prove_stored(tmp_path / "nothing.safetensors")
    with safe_open(path, "pt") as file:
        about = file.metadata()
    save_file({k: v for k, v in load_file(path).items() if "adapter_up.bias" not in k}, tmp_path / "a", about)
    (tmp_path / "host_bert.safetensors").write_bytes(path.with_name("host_bert.safetensors").read_bytes())
    with pytest.raises(PeftLabError, match="same tensors.*adapter_up.bias"):
        parity.prove_stored(tmp_path / "a")


def test_peft_is_not_asked_for_what_it_lacks():
    with pytest.raises(PeftLabError, match="peft has no Houlsby.*prove_stored"):
        parity.prove(tiny.fresh("bert"), Houlsby(), tiny.batch("bert"))


# ---- where they go ------------------------------------------------------------------------------------------------

PLACES = {
    "bert": (["attention.output.dense", "output.dense"], "output.LayerNorm", "output", "bert.encoder.layer"),
    "gpt2": (["attn.c_proj", "mlp.c_proj"], "", "mlp", "transformer.h"),
    "llama": (["self_attn.o_proj", "mlp.down_proj"], "", "mlp", "model.layers"),
}


@pytest.mark.parametrize("name", PLACES)
def test_the_places(name):
    two, behind, beside, blocks = PLACES[name]

    def full(*ends):
        return {".".join(part for part in (blocks, block, end) if part) for block in ("0", "1") for end in ends}

    kept = {"classifier"} if name == "bert" else set()
    for method in (Houlsby(), Compacter(**PHM)):
        assert set(sites(attached(name, method))) == full(*two) | kept
    for method in (Pfeiffer(), CompacterPlusPlus(**PHM)):
        assert set(sites(attached(name, method))) == full(behind) | kept
    assert set(sites(attached(name, Pfeiffer(original_ln_before=False)))) == full(two[1]) | kept
    assert set(sites(attached(name, ParallelAdapter()))) == full(beside) | kept
    assert set(sites(attached(name, Houlsby(leave_out=[0])))) == {s for s in full(*two) if ".1." in s} | kept


@pytest.mark.parametrize("kind", ["Roberta", "Electra", "Mistral", "Qwen2", "Qwen3"])
def test_relatives_of_bert_and_llama(kind):
    sizes = {"vocab_size": 31, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "pad_token_id": 0}
    sizes |= {"num_attention_heads": 4, "max_position_embeddings": 32, "num_key_value_heads": 2, "embedding_size": 24}
    sizes["head_dim"] = 8
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**sizes)).eval()
    ids = tiny.tokens(2, 5) % 30 + 1
    for method in (Houlsby(), Pfeiffer(), ParallelAdapter()):
        before = model(ids).last_hidden_state
        peftlab.attach(model, method)
        adapters = [wrapper.adapters["default"] for wrapper in surgery.adapted_modules(model).values()]
        assert len(adapters) == (4 if isinstance(method, Houlsby) else 2)
        assert {adapter.adapter_up.out_features for adapter in adapters} == {24}
        tiny.randomise(model)
        assert not torch.allclose(model(ids).last_hidden_state, before)
        peftlab.detach(model)
        assert torch.equal(model(ids).last_hidden_state, before)


def test_the_formulas_by_hand_on_bert():
    """The three placements, written out from the block's own layers."""
    base, x = tiny.fresh("bert", torch.float64).bert.encoder.layer[0], torch.randn(2, 5, 48).double()
    output = copy.deepcopy(base.output)
    inside = torch.randn(2, 5, 80).double()
    h, norm = output.dense(inside), output.LayerNorm

    def A(a, v):
        z = a.f(F.linear(v, a.adapter_down.weight, a.adapter_down.bias))
        return a.scaling * F.linear(z, a.adapter_up.weight, a.adapter_up.bias)

    for method, expected in (
        (Houlsby(), lambda a: norm(h + A(a, h) + x)),
        (Pfeiffer(), lambda a: norm(h + A(a, norm(h + x)) + x)),
        (ParallelAdapter(), lambda a: norm(h + A(a, x) + x)),
    ):
        model = attached("bert", method, torch.float64)
        block = model.bert.encoder.layer[0].output
        adapter = next(
            w.adapters["default"] for s, w in surgery.adapted_modules(model).items() if ".0.output" in s[-20:]
        )
        torch.testing.assert_close(block(inside, x), expected(adapter))


def test_an_adapter_reads_the_normed_input_of_the_network_on_llama():
    model = attached("llama", ParallelAdapter(), torch.float64)
    seen = {}
    layer = model.model.layers[1]
    layer.post_attention_layernorm.register_forward_hook(lambda m, a, out: seen.update(normed=out))
    layer.mlp.adapters["default"].adapter_down.register_forward_pre_hook(lambda m, a: seen.update(read=a[0]))
    tiny.outputs(model, tiny.batch("llama"))
    assert torch.equal(seen["read"], seen["normed"])


def test_the_hidden_states_of_a_pre_norm_model_are_those_before_pfeiffers_adapter():
    """A trap that the card names: transformers takes them from the block itself. The next block reads others."""
    model, seen = attached("llama", Pfeiffer()), []
    model.model.layers[1].register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    shown = model(**tiny.batch("llama"), output_hidden_states=True).hidden_states[1]
    adapter = model.model.layers[0].adapters["default"]
    assert not torch.equal(shown, seen[0])
    torch.testing.assert_close(adapter.after(shown), seen[0])
    assert any("output_hidden_states" in trap for trap in Pfeiffer.card.traps)


def test_other_layers_by_name():
    model, x = tiny.fresh("conv"), tiny.batch("conv")
    before = tiny.outputs(model, x)
    peftlab.attach(model, ParallelAdapter(target_modules=["head"], reduction_factor=40))
    adapter = model.head.adapters["default"]
    assert adapter.adapter_down.weight.shape == (4, 160) and adapter.adapter_up.weight.shape == (7, 4)
    assert torch.equal(tiny.outputs(model, x), before)
    peftlab.detach(model)
    peftlab.attach(model, Houlsby(target_modules=["head"], reduction_factor=2))
    assert model.head.adapters["default"].adapter_down.weight.shape == (3, 7)


# ---- how they start -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["bert", "houlsby", "mam_adapter"])
def test_starts(start):
    torch.manual_seed(0)
    model = peftlab.attach(tiny.fresh("llama"), Houlsby(init_weights=start, reduction_factor=1))
    D, U = (torch.cat([p.flatten() for n, p in model.named_parameters() if f"{e}.weight" in n]) for e in ("down", "up"))
    assert all(not p.any() for n, p in model.named_parameters() if "adapter" in n and "bias" in n)
    if start == "mam_adapter":
        assert not U.any() and D.std() > 0.01
    else:
        std = {"bert": 0.02, "houlsby": 0.01 * 0.88}[start]  # cut off at two deviations, it is narrower
        assert abs(float(U.std()) / std - 1) < 0.05 and abs(float(D.std()) / std - 1) < 0.05
        assert start == "bert" or max(D.abs().max(), U.abs().max()) <= 0.02


@every
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_a_fresh_adapter_is_near_the_base_and_a_large_start_is_not(method, name):
    inputs = tiny.batch(name)
    plain = tiny.outputs(tiny.fresh(name), inputs)
    torch.manual_seed(0)
    near = (tiny.outputs(peftlab.attach(tiny.fresh(name), method), inputs) - plain).abs().max()
    assert near < 0.05
    large = {"init_weights": "bert", "init_std": 1.0} if hasattr(method, "init_std") else {"phm_init_range": 3.0}
    far = tiny.outputs(peftlab.attach(tiny.fresh(name), dataclasses.replace(method, **large)), inputs)
    far = (far - plain).abs().max()
    assert far > max(10 * near, plain.std() / 100)  # the tiny BERT's logits are small numbers


def test_a_start_of_zero_is_the_base_exactly():
    inputs = tiny.batch("llama")
    for fields in ({"init_weights": "mam_adapter"}, {"init_std": 0.0}, {"init_weights": "houlsby", "init_std": 0}):
        model = peftlab.attach(tiny.fresh("llama"), Houlsby(**fields))
        assert torch.equal(tiny.outputs(model, inputs), tiny.outputs(tiny.fresh("llama"), inputs))


# ---- merging ------------------------------------------------------------------------------------------------------

MERGING = {
    "houlsby": ("llama", Houlsby(non_linearity="linear")),
    "houlsby-conv1d-learned": ("gpt2", Houlsby(non_linearity="linear", scaling="learned", leave_out=[1])),
    "houlsby-bert-channel": ("bert", Houlsby(non_linearity="linear", scaling="channel")),
    "pfeiffer-before-norm": ("bert", Pfeiffer(non_linearity="linear", original_ln_before=False)),
    "parallel-at-linear-layers": (
        "gpt2",
        ParallelAdapter(non_linearity="linear", target_modules=["c_attn", "c_fc", "mlp.c_proj"]),
    ),
    "compacter": ("llama", Compacter(non_linearity="linear", **PHM)),
}


@pytest.mark.parametrize(("name", "method"), MERGING.values(), ids=MERGING)
def test_without_the_nonlinearity_it_merges(name, method):
    model, inputs = attached(name, method, torch.float64), tiny.batch(name)
    for n, p in model.named_parameters():  # biases and scales too
        assert not p.requires_grad or p.abs().max() > 0, n
    unmerged, plain = tiny.outputs(model, inputs), tiny.outputs(tiny.fresh(name, torch.float64), inputs)
    assert not torch.allclose(unmerged, plain, atol=1e-3)
    with peftlab.folded(model):
        torch.testing.assert_close(tiny.outputs(model, inputs), unmerged, atol=1e-12, rtol=1e-10)
    peftlab.merge(model)
    assert not sites(model)
    torch.testing.assert_close(tiny.outputs(model, inputs), unmerged, atol=1e-12, rtol=1e-10)


@every
def test_with_it_nothing_merges_and_the_reason_is_given(method, refused):
    for name in ("bert", "gpt2", "llama"):
        model = attached(name, method)
        bent = f"{method.non_linearity} stands between its two matrices"
        possible = isinstance(method, Houlsby | Compacter) or getattr(method, "original_ln_before", True) is False
        more = "With non_linearity='linear' it can" if possible else "Nor could it be without"
        with refused(model, type(method).__name__, bent, more, error=NotMergeable):
            peftlab.merge(model)


@pytest.mark.parametrize("method", [Pfeiffer(non_linearity="linear"), ParallelAdapter(non_linearity="linear")])
def test_a_linear_adapter_at_a_place_without_a_linear_layer_does_not_merge(method, refused):
    for name in ("bert", "gpt2", "llama"):
        with refused(model := attached(name, method), "no linear layer", type(method).__name__, error=NotMergeable):
            peftlab.merge(model)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_linear_parallel_adapter_at_a_linear_layer_is_a_lora(name):
    targets = {"llama": ["q_proj", "down_proj"], "gpt2": ["c_attn", "mlp.c_proj"]}[name]
    method = ParallelAdapter(non_linearity="linear", scaling=2.5, reduction_factor=16, target_modules=targets)
    model, inputs = attached(name, method, torch.float64), tiny.batch(name)
    ranks = {}
    with torch.no_grad():
        for site, wrapper in surgery.adapted_modules(model).items():
            adapter = wrapper.adapters["default"]
            adapter.adapter_down.bias.zero_(), adapter.adapter_up.bias.zero_()
            ranks[site] = adapter.adapter_down.out_features
    lora = LoRA(
        r=1, rank_pattern=ranks, alpha_pattern={s: 2.5 * r for s, r in ranks.items()}, target_modules=list(ranks)
    )
    twin = peftlab.attach(tiny.fresh(name, torch.float64), lora)
    with torch.no_grad():
        for site, wrapper in surgery.adapted_modules(twin).items():
            adapter = surgery.adapted_modules(model)[site].adapters["default"]
            wrapper.adapters["default"].lora_A.weight.copy_(adapter.adapter_down.weight)
            wrapper.adapters["default"].lora_B.weight.copy_(adapter.adapter_up.weight)
    torch.testing.assert_close(tiny.outputs(twin, inputs), tiny.outputs(model, inputs), atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(
        tiny.outputs(peftlab.merge(twin), inputs), tiny.outputs(peftlab.merge(model), inputs), atol=1e-12, rtol=1e-10
    )


def test_merging_without_a_bias_gives_the_layer_one():
    model = peftlab.merge(attached("llama", Houlsby(non_linearity="linear")))
    assert type(model.model.layers[0].self_attn.o_proj) is nn.Linear
    assert model.model.layers[0].self_attn.o_proj.bias.any()


# ---- PHM layers ---------------------------------------------------------------------------------------------------


def test_a_phm_layer_is_the_sum_of_kronecker_products():
    rule = compacter.PHMRule(3, 1.0)
    layer = compacter.PHMLayer(6, 9, 3, 2, rule)
    layer.b.data.normal_()
    H = torch.zeros(6, 9)
    for i in range(3):
        B = layer.W_left[i] @ layer.W_right[i]  # (2, 3)
        assert torch.linalg.matrix_rank(B) == 2
        for row in range(6):
            for column in range(9):
                H[row, column] += rule.phm_rule[i, row // 2, column // 3] * B[row % 2, column % 3]
    x = torch.randn(4, 6)
    torch.testing.assert_close(layer(x), x @ H + layer.b)
    assert sum(p.numel() for p in layer.parameters()) == 2 * (6 + 9) + 9


@pytest.mark.parametrize("cls", [Compacter, CompacterPlusPlus])
def test_the_shared_matrices_are_one_are_trained_and_are_saved(cls, tmp_path):
    model, inputs = attached("bert", cls(**PHM), adapter="mine"), tiny.batch("bert")
    shared = model.peftlab.shared["mine"]
    layers = [part for part in model.modules() if isinstance(part, compacter.PHMLayer)]
    assert len(layers) == (8 if cls is Compacter else 4) and {id(part.rule) for part in layers} == {id(shared)}
    assert not any("phm_rule" in key for part in layers for key in part.state_dict())
    tiny.loss(model, inputs).backward()
    assert shared.phm_rule.grad.any()
    wanted = tiny.outputs(model, inputs)
    peftlab.save(model, tmp_path)
    assert load_file(tmp_path / checkpoint.WEIGHTS)["base_model.phm_rule"].shape == (4, 4, 4)
    for trainable in (False, True):
        again = peftlab.load(tiny.fresh("bert"), tmp_path, trainable=trainable)
        assert torch.equal(tiny.outputs(again, inputs), wanted)
        assert again.peftlab.shared["default"].phm_rule.requires_grad is trainable
    tensors = load_file(tmp_path / checkpoint.WEIGHTS)
    del tensors["base_model.phm_rule"]  # what `adapters` 1.3.0 writes: without them the adapter is another one
    save_file(tensors, tmp_path / checkpoint.WEIGHTS)
    with pytest.raises(CheckpointError, match="missing in the file: base_model.phm_rule"):
        peftlab.load(tiny.fresh("bert"), tmp_path)


def test_two_compacters_do_not_share_with_each_other():
    model = attached("llama", Compacter(**PHM), adapter="a")
    peftlab.attach(model, Compacter(**PHM), name="b")
    assert model.peftlab.shared["a"].phm_rule is not model.peftlab.shared["b"].phm_rule
    assert model.peftlab.shared["a"].phm_rule.requires_grad and not model.peftlab.shared["b"].phm_rule.requires_grad


# ---- AdapterDrop --------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_dropped_blocks_are_as_if_never_adapted(method, name, tmp_path):
    model, inputs = attached(name, method), tiny.batch(name)
    whole = tiny.outputs(model, inputs)
    dropped = drop_adapters(model, 1)
    assert dropped == [site for site in sites(model) if hosts.block_number(site) == 0]
    less = tiny.outputs(model, inputs)
    fewer = peftlab.attach(tiny.fresh(name), dataclasses.replace(method, leave_out=[0]))
    with torch.no_grad():
        for key, tensor in parity.our_tensors(fewer).items():
            tensor.copy_(parity.our_tensors(model)[key])
    assert torch.equal(tiny.outputs(fewer, inputs), less) and not torch.equal(less, whole)
    peftlab.save(model, tmp_path)  # holds all of them
    assert torch.equal(tiny.outputs(peftlab.load(tiny.fresh(name), tmp_path), inputs), whole)
    rows = {"adapter_names": ["default", "__base__", "default"]}
    mixed, again = (tiny.outputs(m, {"input_ids": tiny.tokens()}, **rows) for m in (model, fewer))
    torch.testing.assert_close(mixed, again)
    assert drop_adapters(model, [1]) == [site for site in sites(model) if hosts.block_number(site) == 1]
    drop_adapters(model, 2)
    if name == "llama":
        assert torch.equal(tiny.outputs(model, inputs), tiny.outputs(tiny.fresh(name), inputs))
    assert drop_adapters(model, 0) == []
    assert torch.equal(tiny.outputs(model, inputs), whole)


def test_a_changing_number_of_blocks_while_training():
    model, inputs = attached("llama", Pfeiffer()).train(), tiny.batch("llama")
    model.gradient_checkpointing_enable()
    for n, expected in ((0, {0, 1}), (1, {1})):
        drop_adapters(model, n)
        model.zero_grad(set_to_none=True)
        tiny.loss(model, inputs).backward()
        got = {hosts.block_number(name) for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        assert got == expected


def test_dropped_adapters_are_not_merged_and_other_methods_can_be_dropped():
    model, inputs = attached("llama", Houlsby(non_linearity="linear")), tiny.batch("llama")
    drop_adapters(model, 1)
    less = tiny.outputs(model, inputs)
    with peftlab.folded(model), pytest.raises(PeftLabError, match="folded"):
        drop_adapters(model, 0)
    peftlab.merge(model)
    torch.testing.assert_close(tiny.outputs(model, inputs), less)
    first, fresh = model.model.layers[0].self_attn.o_proj, tiny.fresh("llama").model.layers[0].self_attn.o_proj
    assert torch.equal(first.weight, fresh.weight) and first.bias is None
    model = attached("llama", LoRA(r=2), adapter="a")
    peftlab.attach(model, Pfeiffer(), name="b")
    assert all("self_attn" in site for site in drop_adapters(model, 1, name="a"))
    assert not model.model.layers[0].adapters["b"].dropped


def test_bad_requests_to_drop(refused):
    model = attached("llama", Pfeiffer(), adapter="mine")
    for blocks, words in ((3, "block 2"), ([5], "block 5"), (-1, "-1"), (1.5, "1.5"), ("1", "'1'"), (True, "True")):
        with refused(model, words):
            drop_adapters(model, blocks)
    with refused(model, "'yours'", "mine"):
        drop_adapters(model, 1, name="yours")
    with pytest.raises(PeftLabError, match="nothing is attached"):
        drop_adapters(tiny.fresh("llama"), 1)


# ---- several, mixed batches, generation ---------------------------------------------------------------------------


@every
def test_mixed_generation_with_a_cache(method):
    """Also where the adapter stands behind a whole block, whose cache cannot be split into rows."""
    for name in ("gpt2", "llama"):
        model = tiny.fresh(name, torch.float64)
        for seed, adapter in enumerate(("a", "b")):
            peftlab.attach(model, method, name=adapter)
            peftlab.use(model, adapter)
            tiny.randomise(model, seed=seed, size=0.4)
        ids, rows = tiny.tokens(4), ["b", "__base__", "a", "b"]
        how = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
        mixed = model.generate(ids, adapter_names=rows, **how)
        for i, row in enumerate(rows):
            if row == "__base__":
                with peftlab.disabled(model):
                    alone = model.generate(ids[i : i + 1], **how)
            else:
                peftlab.use(model, row)
                alone = model.generate(ids[i : i + 1], **how)
            assert torch.equal(alone[0], mixed[i])


def test_a_mixed_batch_with_an_adapter_inside_the_block_of_another():
    model, ids = attached("llama", LoRA(r=2), torch.float64, adapter="inside"), tiny.tokens(4)
    peftlab.attach(model, Pfeiffer(), name="around")
    peftlab.use(model, "around")
    tiny.randomise(model)
    rows = ["around", "inside", "__base__", "around"]
    mixed = tiny.outputs(model, {"input_ids": ids}, adapter_names=rows)
    for name in ("around", "inside"):
        peftlab.use(model, name)
        mine = [i for i, row in enumerate(rows) if row == name]
        torch.testing.assert_close(mixed[mine], tiny.outputs(model, {"input_ids": ids})[mine])
    with peftlab.disabled(model):
        torch.testing.assert_close(mixed[2], tiny.outputs(model, {"input_ids": ids})[2])


def test_with_trained_norms_as_in_houlsbys_paper():
    model, inputs = attached("bert", Houlsby(), adapter="adapters"), tiny.batch("bert")
    norms = LNTuning()
    peftlab.attach(model, norms, name="norms")
    with pytest.raises(PeftLabError, match="classifier"):  # each brought a head of its own
        peftlab.use(model, ["adapters", "norms"])
    model = tiny.fresh("llama")
    for method, name in ((Houlsby(), "adapters"), (LNTuning(), "norms")):
        peftlab.attach(model, method, name=name)
    peftlab.use(model, ["adapters", "norms"])
    tiny.loss(model, tiny.batch("llama")).backward()
    trained = {n for n, p in model.named_parameters() if p.grad is not None}
    assert any("norm" in n for n in trained) and any("adapter_up" in n for n in trained) and len(inputs) == 3


def test_dropout_only_while_training():
    model, inputs = attached("llama", Houlsby(dropout=0.5)), tiny.batch("llama")
    once = tiny.outputs(model, inputs)
    assert torch.equal(tiny.outputs(model, inputs), once)
    model.train()
    assert not torch.equal(tiny.outputs(model, inputs), tiny.outputs(model, inputs))


# ---- bad input ----------------------------------------------------------------------------------------------------

BAD_FIELDS = {
    "reduction-zero": (lambda: Houlsby(reduction_factor=0), ["reduction_factor=0", "above 0"]),
    "reduction-by-layer": (lambda: Houlsby(reduction_factor={"1": 8}), ["reduction_factor", "number"]),
    "unknown-bend": (lambda: Pfeiffer(non_linearity="rellu"), ["'rellu'", "relu", "linear"]),
    "no-bend": (lambda: Pfeiffer(non_linearity=None), ["None", "linear"]),
    "scaling-word": (lambda: ParallelAdapter(scaling="big"), ["'big'", "learned", "channel"]),
    "scaling-infinite": (lambda: ParallelAdapter(scaling=float("inf")), ["scaling"]),
    "dropout": (lambda: Houlsby(dropout=1.0), ["dropout=1.0", "below 1"]),
    "start": (lambda: Houlsby(init_weights="zeros"), ["'zeros'", "mam_adapter"]),
    "start-std": (lambda: Houlsby(init_std=-1), ["init_std=-1"]),
    "start-std-as-text": (lambda: Houlsby(init_std="small"), ["init_std", "number"]),
    "start-std-for-zero": (lambda: ParallelAdapter(init_std=0.1), ["mam_adapter", "init_std"]),
    "leave-out-number": (lambda: Houlsby(leave_out=3), ["leave_out=3", "list"]),
    "leave-out-negative": (lambda: Houlsby(leave_out=[-1]), ["leave_out=[-1]", "counted from 0"]),
    "phm-dim": (lambda: Compacter(phm_dim=0), ["phm_dim=0", "above 0"]),
    "phm-rank": (lambda: Compacter(phm_rank=1.5), ["phm_rank=1.5", "whole"]),
    "phm-shared": (lambda: Compacter(shared_phm_rule="yes"), ["shared_phm_rule='yes'", "True or False"]),
    "phm-start": (lambda: Compacter(phm_init_range="tiny"), ["phm_init_range"]),
    "another-methods-field": (lambda: Compacter(init_weights="bert"), ["no field init_weights"]),
    "placement-is-the-method": (lambda: Houlsby(is_parallel=True), ["no field is_parallel"]),
}


@pytest.mark.parametrize(("make", "words"), BAD_FIELDS.values(), ids=BAD_FIELDS)
def test_bad_fields(make, words):
    with pytest.raises(ConfigError) as caught:
        make()
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert len(str(caught.value)) < 500


BAD_PLACES = {
    "unknown-model": ("conv", Houlsby(), ["ConvNet", "target_modules", "bert"]),
    "a-convolution": ("conv", ParallelAdapter(target_modules=["wide"]), ["wide", "Conv2d", "linear"]),
    "an-embedding": ("llama", Houlsby(target_modules=["embed_tokens"]), ["embed_tokens", "Embedding"]),
    "no-such-block": ("llama", Houlsby(leave_out=[2]), ["block 2", "[0, 1]"]),
    "every-block": ("gpt2", Pfeiffer(leave_out=[1, 0]), ["no block"]),
    "phm-does-not-divide-m": ("llama", Compacter(), ["phm_dim=4", "48", "to 1", "reduction_factor"]),
    "phm-does-not-divide-d": ("bert", CompacterPlusPlus(phm_dim=5, reduction_factor=4), ["phm_dim=5", "48"]),
}


@pytest.mark.parametrize(("name", "method", "words"), BAD_PLACES.values(), ids=BAD_PLACES)
def test_attach_refuses_and_leaves_nothing_behind(name, method, words, refused):
    model = tiny.fresh(name)
    with refused(model, *words):
        peftlab.attach(model, method)


def test_a_file_with_a_field_that_is_not_known_here(tmp_path, refused):
    peftlab.save(attached("llama", Houlsby()), tmp_path)
    path = tmp_path / checkpoint.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ln_after": True}))
    model = tiny.fresh("llama")
    with refused(model, "ln_after=True", "peftlab that wrote it", error=ConfigError):
        peftlab.load(model, tmp_path)


def test_the_count_by_hand():
    model = tiny.fresh("llama")  # d = 48, two blocks
    dense = 2 * 3 * 48 + 3 + 48
    for method, expected in (
        (Houlsby(), 4 * dense),
        (Pfeiffer(), 2 * dense),
        (Pfeiffer(leave_out=[0], scaling="learned"), dense + 1),
        (ParallelAdapter(reduction_factor=16, scaling="channel"), 2 * (dense + 48)),
        (Compacter(**PHM), 4 * (2 * (48 + 8) + 8 + 48) + 4**3),
        (Compacter(**PHM, shared_phm_rule=False, phm_rank=3), 4 * (6 * (48 + 8) + 8 + 48 + 2 * 4**3)),
    ):
        assert parity.predicted_parameters(model, method) == expected
        assert peftlab.count_parameters(peftlab.attach(copy.deepcopy(model), method)).trainable == expected


def test_widths_of_a_norm_without_weights():
    with pytest.raises(ConfigError, match="cannot stand at norm"):
        Houlsby().build(Site("norm", nn.LayerNorm(4, elementwise_affine=False)), None)
