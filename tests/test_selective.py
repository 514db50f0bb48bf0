"""Selective methods against their definitions: training in place, closed forms, peft's SHiRA. Files, and refusals."""

from __future__ import annotations

import copy
import warnings

import peft
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import peftlab
from peftlab import checkpoint, parity, surgery
from peftlab.errors import CheckpointError, ConfigError, PeftLabError
from peftlab.methods import (
    BEFT,
    LTSFT,
    BitFit,
    DiffPruning,
    FishMask,
    LastLayers,
    LNTuning,
    LoRA,
    PartialTuning,
    SHiRA,
    Supertuning,
    TrainableTokens,
)
from peftlab.methods.selective import sparse
from peftlab.methods.selective.diff_pruning import HardConcreteDelta
from peftlab.methods.selective.fishmask import empirical_fisher
from peftlab.quant import quantize_model
from peftlab.surgery import Site
from tests import tiny

pytestmark = pytest.mark.usefixtures("quiet")


class Odd(nn.Module):
    """Layers that are not square, with and without biases, a norm, an embedding, a convolution."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.mix = nn.Conv1d(6, 5, 3, padding=1, bias=False)
        self.norm = nn.LayerNorm(5)
        self.inside = nn.ModuleDict({"wide": nn.Linear(5, 9), "narrow": nn.Linear(9, 3, bias=False)})

    def forward(self, ids):
        h = self.mix(self.words(ids).transpose(1, 2)).transpose(1, 2)
        return self.inside["narrow"](torch.tanh(self.inside["wide"](self.norm(h))))


def odd(dtype=torch.float64):
    torch.manual_seed(0)
    return Odd().to(dtype)


IDS = torch.tensor([[1, 4, 7, 2], [10, 0, 3, 3], [5, 5, 6, 1]])


def target(model, ids=IDS):
    return model(ids).square().mean() + model(ids)[..., 0].mean()


def losses_of(model, loss, parameters=None, steps=4, lr=0.05, masks=None):
    """Losses over Adam steps; `masks` zeroes the gradients of all entries that are not chosen, in place."""
    parameters = [p for p in model.parameters() if p.requires_grad] if parameters is None else parameters
    optimizer, found = torch.optim.Adam(parameters, lr=lr), []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(model)
        value.backward()
        for name, parameter in model.named_parameters() if masks is not None else ():
            keep = torch.zeros(parameter.numel(), dtype=parameter.dtype)
            keep[masks.get(name, torch.tensor([], dtype=torch.long))] = 1
            parameter.grad = None if parameter.grad is None else parameter.grad * keep.view(parameter.shape)
        optimizer.step()
        found.append(value.detach())
    return torch.stack(found)


# ---- the Fisher information ---------------------------------------------------------------------------------------


class Regression(nn.Module):
    """A softmax regression: its Fisher information has a closed form."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3).double()

    def forward(self, x):
        return self.layer(x)


def nll(model, row):
    return F.cross_entropy(model(row["x"]), row["y"])


def test_the_fisher_information_is_the_mean_of_squared_gradients_of_single_examples():
    torch.manual_seed(1)
    model, x, y = Regression(), torch.randn(7, 4).double(), torch.tensor([0, 2, 1, 1, 0, 2, 2])
    with torch.no_grad():
        error = F.one_hot(y, 3).double() - model(x).softmax(dim=1)  # d log p / d logits, (7, 3)
    by_hand = {
        "layer.weight": (error[:, :, None] * x[:, None, :]).square().mean(0),
        "layer.bias": error.square().mean(0),
    }
    for batches in ([{"x": x, "y": y}], [{"x": x[:2], "y": y[:2]}, {"x": x[2:], "y": y[2:]}]):
        fisher = empirical_fisher(model, batches, nll)
        assert fisher.keys() == by_hand.keys()
        for name, F_hat in by_hand.items():
            torch.testing.assert_close(fisher[name], F_hat.float())
    F.cross_entropy(model(x), y).backward()  # the trap: one gradient of the whole batch, squared
    assert not torch.allclose(model.layer.weight.grad.square().float(), fisher["layer.weight"], rtol=0.1)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_the_fisher_information_leaves_the_model_as_it_was(name):
    model = tiny.fresh(name).train()
    tiny.outputs(model, tiny.batch(name))
    next(model.parameters()).requires_grad_(False)
    before = tiny.snapshot(model)
    fisher = empirical_fisher(model, [tiny.batch(name)])
    assert tiny.differences(before, tiny.snapshot(model)) == []
    assert all(parameter.grad is None for parameter in model.parameters())
    assert fisher.keys() == sparse.candidates(model).keys() and all((f >= 0).all() for f in fisher.values())
    with pytest.raises(ZeroDivisionError):
        empirical_fisher(model, [tiny.batch(name)], lambda *_: 1 / 0)
    assert tiny.differences(before, tiny.snapshot(model)) == []


def test_what_the_fisher_information_refuses(refused):
    model = tiny.fresh("llama")
    with refused(model, "no examples", error=ConfigError):
        empirical_fisher(model, [])
    with refused(model, "rows", "[2, 3]", error=ConfigError):
        empirical_fisher(model, [{"input_ids": tiny.tokens(3), "labels": tiny.tokens(2)}])
    peftlab.attach(model, LNTuning())
    with refused(model, "detach"):
        empirical_fisher(model, [tiny.batch("llama")])


# ---- a mask over all parameters -----------------------------------------------------------------------------------


def test_the_k_largest_scores_of_all_tensors_together():
    torch.manual_seed(3)
    scores = {"a": torch.rand(3, 5), "b": torch.rand(7), "c": torch.rand(2, 2, 2), "none": torch.zeros(4, 1)}
    mask = sparse.top_k(scores, 11)
    chosen = torch.cat([scores[name].flatten()[flat] for name, flat in mask.items()])
    left = torch.cat(
        [s.flatten()[[i for i in range(s.numel()) if i not in mask.get(n, [])]] for n, s in scores.items()]
    )
    assert len(chosen) == 11 and chosen.min() >= left.max() and "none" not in mask
    assert all((flat.diff() > 0).all() for flat in mask.values())
    assert sum(len(flat) for flat in sparse.top_k(scores, 34).values()) == 34
    with pytest.raises(ConfigError, match="not finite"):
        sparse.top_k({"a": torch.tensor([1.0, float("nan")])}, 1)
    for k in (0, 35):
        with pytest.raises(ConfigError, match="34"):
            sparse.top_k(scores, k)


def test_tied_root_and_quantised_parameters_are_no_candidates():
    tied = sparse.candidates(tiny.fresh("gpt2"))
    assert "transformer.wte.weight" not in tied and "lm_head.weight" not in tied and "transformer.wpe.weight" in tied
    assert "lm_head.weight" in sparse.candidates(tiny.fresh("llama"))
    packed = sparse.candidates(quantize_model(tiny.fresh("llama")))
    assert not any("proj" in name for name in packed) and "model.norm.weight" in packed
    root = nn.Linear(2, 3)
    root.inner = nn.Linear(3, 1)
    assert sparse.candidates(root).keys() == {"inner.weight", "inner.bias"}


@pytest.mark.parametrize("scores", ["fisher", "magnitude", "random"])
def test_training_under_a_mask_is_training_in_place_with_masked_gradients(scores):
    """θ + m ⊙ δ takes the very steps that θ takes when all other gradients are zeroed (Adam, without decay)."""
    base = odd()
    wanted = empirical_fisher(base, [IDS], target) if scores == "fisher" else scores
    method = FishMask(keep_ratio=0.13, scores=wanted)
    ours = peftlab.attach(copy.deepcopy(base), method)
    mask = ours.peftlab.methods["default"].mask
    total = sum(p.numel() for p in base.parameters())
    assert sum(len(flat) for flat in mask.values()) == round(0.13 * total) == peftlab.count_parameters(ours).trainable
    in_place = copy.deepcopy(base)
    theirs = losses_of(in_place, target, masks=mask)
    torch.testing.assert_close(losses_of(ours, target), theirs, atol=1e-12, rtol=1e-10)
    found, moved = sparse.changes(ours), dict(in_place.named_parameters())
    for name, before in base.named_parameters():
        delta = found.get(name, torch.zeros_like(before))
        torch.testing.assert_close(before + delta, moved[name], atol=1e-12, rtol=1e-10)
        outside = [i for i in range(before.numel()) if i not in mask.get(name, [])]
        assert not delta.flatten()[outside].any()
    merged = peftlab.merge(copy.deepcopy(ours))
    torch.testing.assert_close(merged(IDS), in_place(IDS), atol=1e-12, rtol=1e-10)
    assert all(torch.equal(a, b) for a, b in zip(peftlab.detach(ours).parameters(), base.parameters(), strict=True))


def test_weight_decay_pulls_a_change_back_to_the_pretrained_value_and_not_to_zero():
    model = peftlab.attach(odd(), FishMask(keep_ratio=0.2, scores="magnitude"))
    tiny.randomise(model)
    before = {name: delta.norm() for name, delta in sparse.changes(model).items()}
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.1, weight_decay=5.0)
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, delta in sparse.changes(model).items():
        torch.testing.assert_close(delta.norm(), 0.5 * before[name])


def test_one_mask_through_pefts_shira():
    """The global choice gives every layer its own number of entries; peft's layer computes with any number."""
    base = tiny.fresh("llama", torch.float64)
    fisher = empirical_fisher(base, [tiny.batch("llama")])
    ends = ("q_proj.weight", "down_proj.weight")  # their scores, made comparable: else one layer would win
    linear = {name: F_hat / F_hat.max() for name, F_hat in fisher.items() if name.endswith(ends)}
    mask = sparse.top_k(linear, 401)
    ours = tiny.randomise(peftlab.attach(copy.deepcopy(base), FishMask(mask=mask)))
    config = peft.ShiraConfig(r=1, target_modules=["q_proj", "down_proj"])
    theirs = peft.get_peft_model(copy.deepcopy(base), config, autocast_adapter_dtype=False).eval()
    layers = {n: m for n, m in theirs.get_base_model().named_modules() if hasattr(m, "shira_weight")}
    assert {f"{n}.weight" for n in layers} == mask.keys() and len({len(flat) for flat in mask.values()}) > 1
    for name, layer in layers.items():
        adapter = surgery.adapted_modules(ours)[name].adapters["default"]
        flat = adapter.weight_indices.long()
        layer.shira_indices["default"] = torch.stack([flat // layer.in_features, flat % layer.in_features]).int()
        layer.shira_weight["default"] = nn.Parameter(adapter.weight_values.detach().clone())
    inputs = tiny.batch("llama")
    assert torch.equal(tiny.outputs(ours, inputs), tiny.outputs(theirs, inputs))
    tiny.loss(ours, inputs).backward()
    tiny.loss(theirs, inputs).backward()
    for name, layer in layers.items():
        adapter = surgery.adapted_modules(ours)[name].adapters["default"]
        grad = layer.shira_weight["default"].grad
        assert grad.any() and torch.equal(adapter.weight_values.grad, grad)
    curve = losses_of(ours, lambda m: tiny.loss(m, inputs))
    assert torch.equal(curve, losses_of(theirs, lambda m: tiny.loss(m, inputs)))
    merged = tiny.outputs(peftlab.merge(ours), inputs)
    torch.testing.assert_close(merged, tiny.outputs(theirs.merge_and_unload(), inputs), atol=1e-12, rtol=1e-10)


def largest(layer, r):
    mask = torch.zeros(layer.weight.numel())
    mask[torch.topk(layer.weight.detach().abs().flatten(), r * sum(layer.weight.shape)).indices] = 1
    return mask.view_as(layer.weight)


def test_a_mask_of_ones_own_in_shira_equals_pefts_with_the_same_function():
    method = SHiRA(r=2, mask_type="largest", mask_fn=largest, target_modules=["k_proj", "down_proj"])
    parity.prove(tiny.fresh("llama"), method, tiny.batch("llama"), steps=3).check()


def test_shira_and_a_fish_mask_with_the_same_places_are_one():
    """The official way round: r (d_in + d_out) entries in each layer."""
    base, inputs = tiny.fresh("llama", torch.float64), tiny.batch("llama")
    shira = peftlab.attach(
        copy.deepcopy(base), SHiRA(r=1, mask_type="largest", mask_fn=largest, target_modules=["v_proj"])
    )
    mask = {
        f"{name}.weight": torch.where(largest(wrapper.base, 1).flatten())[0]
        for name, wrapper in surgery.adapted_modules(shira).items()
    }
    fish = peftlab.attach(copy.deepcopy(base), FishMask(mask=mask))
    tiny.randomise(shira), tiny.randomise(fish)
    assert torch.equal(tiny.outputs(shira, inputs), tiny.outputs(fish, inputs))


def test_the_largest_entries_of_a_whole_model_are_its_norms():
    mask = peftlab.attach(tiny.fresh("llama"), FishMask(scores="magnitude")).peftlab.methods["default"].mask
    assert mask and all("norm" in name for name in mask)


# ---- places drawn at random, and by magnitude ---------------------------------------------------------------------


def places(model):
    return {n: w.adapters["default"].shira_indices for n, w in surgery.adapted_modules(model).items()}


def test_no_seed_is_a_seed_too_and_layers_of_one_shape_get_one_mask():
    first, second = (places(peftlab.attach(tiny.fresh("llama"), SHiRA(r=3))) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(first["model.layers.0.self_attn.q_proj"], first["model.layers.1.self_attn.q_proj"])
    torch.manual_seed(5)
    theirs = peft.get_peft_model(tiny.fresh("llama"), peft.ShiraConfig(r=3))
    layer = theirs.get_base_model().model.layers[0].self_attn.q_proj
    assert torch.equal(layer.shira_indices["default"], first["model.layers.0.self_attn.q_proj"])
    other = places(peftlab.attach(tiny.fresh("llama"), SHiRA(r=3, random_seed=8)))
    assert not torch.equal(other["model.layers.0.self_attn.q_proj"], first["model.layers.0.self_attn.q_proj"])


def test_a_sparse_change_has_a_high_rank():
    model = tiny.randomise(peftlab.attach(tiny.fresh("llama"), SHiRA(r=2, target_modules=["q_proj"])))
    delta = sparse.changes(model)["model.layers.0.self_attn.q_proj.weight"]
    assert (delta != 0).sum() == 2 * (48 + 48) and torch.linalg.matrix_rank(delta) > 30


def test_supertunings_floor_is_of_a_float():
    model = nn.Sequential(nn.Linear(10, 10))
    ours = peftlab.attach(copy.deepcopy(model), Supertuning(sparsity=0.9, target_modules=["0"]))
    theirs = peft.get_peft_model(model, peft.SupertuningConfig(sparsity=0.9, target_modules=["0"]))
    assert peftlab.count_parameters(ours).trainable == theirs.get_nb_trainable_parameters()[0] == 9


# ---- what sparsity costs and saves --------------------------------------------------------------------------------


def flops(model, loss):
    with FlopCounterMode(display=False) as counter:
        loss(model).backward()
    return counter.get_total_flops()


def test_scattered_entries_make_a_step_no_cheaper_and_whole_last_layers_do():
    """The matrix products of one step, counted: a few entries cost what the whole matrices cost."""
    inputs = tiny.batch("llama")

    def step(model):
        return flops(model, lambda m: tiny.loss(m, inputs))

    def attached(method):
        return step(peftlab.attach(tiny.fresh("llama"), method))

    matrices = tiny.fresh("llama")
    for name, parameter in matrices.named_parameters():
        parameter.requires_grad_("proj" in name or "lm_head" in name)
    everything = step(tiny.fresh("llama"))
    few = attached(SHiRA(r=1, target_modules="all-linear", modules_to_save=["lm_head"]))
    assert few == step(matrices)
    assert attached(FishMask(keep_ratio=0.3, scores="random")) == everything
    assert attached(LastLayers(num_layers=1)) < few and attached(BitFit(add_missing=True)) < few


@pytest.mark.parametrize(
    ("method", "per_entry"),
    [(FishMask(keep_ratio=0.25, scores="random"), 8), (SHiRA(r=5), 12), (Supertuning(sparsity=0.7), 8)],
    ids=["fishmask", "shira", "supertuning"],
)
def test_the_real_size_of_a_sparse_file(method, per_entry, tmp_path):
    model = peftlab.attach(tiny.fresh("llama"), method)
    k, size = peftlab.count_parameters(model).trainable, sparse.file_size(model)
    assert size.total == per_entry * k and size.values == 4 * k and "indices" in str(size)
    peftlab.save(model, tmp_path)
    on_disk = (tmp_path / checkpoint.WEIGHTS).stat().st_size
    names = sum(len(key) + 100 for key in load_file(tmp_path / checkpoint.WEIGHTS))
    assert size.total < on_disk < size.total + names
    kinds = {key.rpartition("_")[2]: tensor.dtype for key, tensor in load_file(tmp_path / checkpoint.WEIGHTS).items()}
    assert kinds["indices"] == torch.int32


def test_a_kept_head_is_in_the_file_and_in_the_comparison():
    model = peftlab.attach(tiny.fresh("bert"), FishMask(keep_ratio=0.01, scores="random"))
    size, k = sparse.file_size(model), peftlab.count_parameters(model).trainable - (48 * 5 + 5)
    assert size.values == 4 * (k + 48 * 5 + 5) and size.indices == 4 * k
    touched = {n.rpartition("_")[0] for n in parity.our_tensors(model) if n.endswith("_indices")}
    base = dict(tiny.fresh("bert").named_parameters())
    whole = sum(base[n.removeprefix("base_model.model.")].numel() for n in touched) + 48 * 5 + 5
    assert size.dense == 4 * whole


def test_above_half_of_the_entries_a_sparse_file_is_larger_than_the_whole_tensors():
    def size(share):
        return sparse.file_size(peftlab.attach(odd(torch.float32), FishMask(keep_ratio=share, scores="random")))

    assert size(0.45).total < size(0.45).dense and size(0.55).total > size(0.55).dense
    with pytest.raises(PeftLabError, match="no adapter called 'other'"):
        sparse.file_size(peftlab.attach(odd(), FishMask(scores="random")), "other")


def test_in_bf16_a_small_change_rounds_away():
    model = tiny.fresh("llama", torch.bfloat16)
    plain = tiny.outputs(model, tiny.batch("llama"))
    peftlab.attach(model, Supertuning(sparsity=0.5))
    for wrapper in surgery.adapted_modules(model).values():
        adapter = wrapper.adapters["default"]
        with torch.no_grad():
            chosen = wrapper.base.weight.flatten()[adapter.supertuning_indices.long()]
            adapter.supertuning_values.copy_(0.001 * chosen.float())
    assert torch.equal(tiny.outputs(model, tiny.batch("llama")), plain)


# ---- files that are damaged or of another model -------------------------------------------------------------------

DAMAGED = {
    "fishmask": (FishMask(keep_ratio=0.1, scores="random"), "norm.weight_indices"),
    "shira": (SHiRA(r=3), "0.self_attn.q_proj.shira_indices"),
    "supertuning": (Supertuning(sparsity=0.8), "0.self_attn.q_proj.supertuning_indices"),
}


@pytest.mark.parametrize(("method", "which"), DAMAGED.values(), ids=DAMAGED)
def test_indices_that_make_no_sense(method, which, tmp_path, refused):
    peftlab.save(peftlab.attach(tiny.fresh("llama"), method), tmp_path)
    path = tmp_path / checkpoint.WEIGHTS
    good = load_file(path)
    key = next(key for key in good if key.endswith(which))
    for wrong in (10**6, -1, "twice"):
        bad = {name: tensor.clone() for name, tensor in good.items()}
        bad[key][..., 0] = bad[key][..., 1] if wrong == "twice" else wrong
        save_file(bad, path)
        model = tiny.fresh("llama")
        with refused(model, "damaged" if wrong == "twice" else "another model"):
            peftlab.load(model, tmp_path)


def test_a_sparse_file_without_its_indices(tmp_path, refused):
    peftlab.save(peftlab.attach(tiny.fresh("llama"), FishMask(scores="random")), tmp_path)
    path = tmp_path / checkpoint.WEIGHTS
    good = load_file(path)
    save_file({name: tensor for name, tensor in good.items() if not name.endswith("_indices")}, path)
    model = tiny.fresh("llama")
    with refused(model, "no indices", error=CheckpointError):
        peftlab.load(model, tmp_path)


def test_training_goes_on_from_a_sparse_file(tmp_path):
    inputs = tiny.batch("llama")
    whole = tiny.randomise(peftlab.attach(tiny.fresh("llama"), FishMask(keep_ratio=0.1, scores="random")))
    peftlab.save(whole, tmp_path)
    again = peftlab.load(tiny.fresh("llama"), tmp_path, trainable=True)
    wanted = losses_of(whole, lambda m: tiny.loss(m, inputs))
    assert torch.equal(losses_of(again, lambda m: tiny.loss(m, inputs)), wanted)


# ---- several at once ----------------------------------------------------------------------------------------------


def two(first, second, dtype=torch.float64):
    model = tiny.fresh("llama", dtype)
    for seed, (name, method) in enumerate({"a": first, "b": second}.items()):
        peftlab.attach(model, method, name=name)
        peftlab.use(model, name)
        tiny.randomise(model, seed=seed)
    return model


@pytest.mark.parametrize("second", [SHiRA(r=2, random_seed=3), Supertuning(sparsity=0.8), LTSFT(scores="random")])
def test_sparse_changes_add_up_as_in_peft(second):
    model, inputs = two(SHiRA(r=3), second), tiny.batch("llama")
    delta = [sparse.changes(model, name) for name in ("a", "b")]
    base = tiny.fresh("llama", torch.float64)
    with torch.no_grad():
        for found in delta:
            for name, parameter in base.named_parameters():
                parameter += found.get(name, 0)
    together = tiny.outputs(peftlab.use(model, ["a", "b"]), inputs)
    torch.testing.assert_close(together, tiny.outputs(base, inputs), atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(tiny.outputs(peftlab.use(model, ["b", "a"]), inputs), together, atol=1e-12, rtol=1e-10)
    with peftlab.folded(model):
        torch.testing.assert_close(tiny.outputs(model, inputs), together, atol=1e-12, rtol=1e-10)


def test_two_shiras_at_once_equal_pefts():
    model, inputs = two(SHiRA(r=3), SHiRA(r=2, random_seed=3)), tiny.batch("llama")
    theirs = peft.get_peft_model(
        tiny.fresh("llama", torch.float64), peft.ShiraConfig(r=3), "a", autocast_adapter_dtype=False
    )
    theirs.add_adapter("b", peft.ShiraConfig(r=2, random_seed=3), autocast_adapter_dtype=False)
    theirs = theirs.double().eval()
    with torch.no_grad():
        for adapter in ("a", "b"):
            for key, tensor in parity.our_tensors(model, adapter).items():
                parity.their_tensors(theirs, adapter)[key].copy_(tensor)
    theirs.base_model.set_adapter(["a", "b"])
    mine, reference = tiny.outputs(peftlab.use(model, ["a", "b"]), inputs), tiny.outputs(theirs, inputs)
    assert parity.relative_difference(mine, reference) < 1e-12


def test_a_change_of_the_weight_comes_before_what_stands_around_the_layer(refused):
    model, inputs = two(LoRA(r=2), SHiRA(r=3)), tiny.batch("llama")
    before = model.peftlab.state.active
    with refused(model, "'b' changes the parameters", "comes first"):
        peftlab.use(model, ["a", "b"])
    assert model.peftlab.state.active == before
    together = tiny.outputs(peftlab.use(model, ["b", "a"]), inputs)
    with peftlab.folded(model):
        torch.testing.assert_close(tiny.outputs(model, inputs), together, atol=1e-10, rtol=1e-8)
    for name in ("a", "b"):
        assert not torch.allclose(tiny.outputs(peftlab.use(model, name), inputs), together)


def test_what_replaces_parameters_stands_alone(refused):
    model = two(FishMask(keep_ratio=0.2, scores="random"), PartialTuning(target_modules=["norm"]))
    with refused(model, "only one of them"):
        peftlab.use(model, ["a", "b"])


# ---- BitFit -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_bitfit_trains_as_biases_do_in_place(name):
    base, inputs = tiny.fresh(name, torch.float64), tiny.batch(name)
    ours, in_place = peftlab.attach(copy.deepcopy(base), BitFit()), copy.deepcopy(base)
    for key, parameter in in_place.named_parameters():
        parameter.requires_grad_("bias" in key or key.startswith("classifier"))
    wanted = sum(p.numel() for p in in_place.parameters() if p.requires_grad)
    assert peftlab.count_parameters(ours).trainable == wanted
    theirs = losses_of(in_place, lambda m: tiny.loss(m, inputs))
    assert torch.equal(losses_of(ours, lambda m: tiny.loss(m, inputs)), theirs) and theirs[-1] < theirs[0]
    assert torch.equal(tiny.outputs(peftlab.merge(ours), inputs), tiny.outputs(in_place, inputs))


def test_bitfits_file_has_the_keys_that_peft_has_for_biases(tmp_path):
    peftlab.save(peftlab.attach(tiny.fresh("bert"), BitFit()), tmp_path / "ours")
    theirs = peft.get_peft_model(
        tiny.fresh("bert"), peft.LoraConfig(bias="all", target_modules=["query"], task_type="SEQ_CLS")
    )
    theirs.save_pretrained(tmp_path / "theirs")
    ours, peft_s = (set(load_file(tmp_path / f / checkpoint.WEIGHTS)) for f in ("ours", "theirs"))
    biases = {key.replace(".base_layer", "") for key in peft_s if key.endswith("bias") and "modules_to_save" not in key}
    assert {key for key in ours if key.endswith("bias")} == {key for key in biases if "original_module" not in key}


def test_a_model_without_biases_says_so_and_can_get_some(refused):
    model, inputs = tiny.fresh("llama"), tiny.batch("llama")
    with refused(model, "no", "add_missing=True", "BEFT"):
        peftlab.attach(model, BitFit())
    bert = tiny.fresh("bert")
    with refused(bert, "at its target_modules"):
        peftlab.attach(bert, BitFit(target_modules=["word_embeddings"]))
    added = tiny.randomise(peftlab.attach(model, BitFit(add_missing=True)))
    beft = tiny.randomise(peftlab.attach(tiny.fresh("llama"), BEFT(target_modules="all-linear")))
    assert surgery.adapted_modules(added).keys() == surgery.adapted_modules(beft).keys()
    assert torch.equal(tiny.outputs(added, inputs), tiny.outputs(beft, inputs))


def test_only_the_biases_of_some_modules():
    model = peftlab.attach(tiny.fresh("bert"), BitFit(target_modules=["query", "intermediate"]))
    names = {name for name in surgery.adapted_modules(model) if name != "classifier"}
    assert names == {
        f"bert.encoder.layer.{i}.{end}" for i in (0, 1) for end in ("attention.self.query", "intermediate.dense")
    }


def test_a_keys_bias_has_no_gradient_to_speak_of():
    """q · (k + b) = q · k + q · b for all keys alike, and softmax ignores what is alike."""
    model = peftlab.attach(tiny.fresh("bert", torch.float64), BitFit())
    tiny.loss(model, tiny.batch("bert")).backward()
    grads = {n: p.grad.abs().max() for n, p in model.named_parameters() if p.requires_grad}
    key = max(grad for name, grad in grads.items() if ".key." in name)
    assert key < 1e-10 * max(grad for name, grad in grads.items() if ".value." in name)


def test_a_bias_that_two_layers_share_is_trained_once():
    model = peftlab.attach(tiny.bert("MaskedLM"), BitFit())
    plain = tiny.bert("MaskedLM")
    assert peftlab.count_parameters(model).trainable == sum(
        p.numel() for n, p in plain.named_parameters() if "bias" in n
    )


# ---- BEFT ---------------------------------------------------------------------------------------------------------


def test_beft_on_a_model_without_biases_equals_pefts_but_for_merging_which_peft_refuses():
    levels = tuple(level for level in parity.LEVELS if level != "P4")
    method, inputs = BEFT(target_modules=["v_proj", "down_proj"]), tiny.batch("llama")
    parity.prove(tiny.fresh("llama"), method, inputs, steps=3, levels=levels).check()
    ours = tiny.randomise(peftlab.attach(tiny.fresh("llama"), method))
    adapted, theirs = tiny.outputs(ours, inputs), parity.reference(tiny.fresh("llama"), ours)
    with pytest.raises(ValueError, match="no bias"):
        theirs.merge_and_unload()
    torch.testing.assert_close(tiny.outputs(peftlab.merge(ours), inputs), adapted)


def test_a_merged_bias_that_the_config_does_not_know_is_lost_in_transformers_files(tmp_path):
    """The trap on the card, and its mend."""
    inputs = tiny.batch("llama")
    merged = peftlab.merge(tiny.randomise(peftlab.attach(tiny.fresh("llama"), BEFT()), size=1.0))
    adapted = tiny.outputs(merged, inputs)
    merged.save_pretrained(tmp_path / "a")
    again = type(merged).from_pretrained(tmp_path / "a").eval()
    assert again.model.layers[0].self_attn.v_proj.bias is None
    assert not torch.allclose(tiny.outputs(again, inputs), adapted, atol=1e-3)
    roomy = tiny.llama(attention_bias=True).state_dict()
    base = tiny.fresh("llama")
    filled = {name: base.state_dict().get(name, torch.zeros_like(tensor)) for name, tensor in roomy.items()}
    model = tiny.llama(attention_bias=True)
    model.load_state_dict(filled)
    merged = peftlab.merge(tiny.randomise(peftlab.attach(model, BEFT()), size=1.0))
    torch.testing.assert_close(tiny.outputs(merged, inputs), adapted)
    merged.save_pretrained(tmp_path / "b")
    again = type(merged).from_pretrained(tmp_path / "b").eval()
    torch.testing.assert_close(tiny.outputs(again, inputs), adapted)


# ---- partial unfreezing -------------------------------------------------------------------------------------------

UNFROZEN = {
    "last": ("llama", LastLayers(num_layers=1), lambda n: ".layers.1." in n),
    "all-blocks": ("gpt2", LastLayers(num_layers=2), lambda n: ".h." in n),
    "last-and-head": ("bert", LastLayers(num_layers=1), lambda n: ".layer.1." in n or n.startswith("classifier")),
    "named": ("gpt2", PartialTuning(target_modules=["mlp", "ln_f"]), lambda n: ".mlp." in n or "ln_f" in n),
    "pattern": (
        "bert",
        PartialTuning(target_modules=r".*\.0\.attention\.output"),
        lambda n: ".0.attention.output" in n or n.startswith("classifier"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "method", "trains"), UNFROZEN.values(), ids=UNFROZEN)
def test_unfreezing_is_training_in_place(name, method, trains):
    base, inputs = tiny.fresh(name, torch.float64), tiny.batch(name)
    ours, in_place = peftlab.attach(copy.deepcopy(base), method), copy.deepcopy(base)
    for key, parameter in in_place.named_parameters():
        parameter.requires_grad_(trains(key))
    theirs = losses_of(in_place, lambda m: tiny.loss(m, inputs), lr=0.01)
    assert torch.equal(losses_of(ours, lambda m: tiny.loss(m, inputs), lr=0.01), theirs)
    merged = peftlab.merge(copy.deepcopy(ours))
    assert torch.equal(tiny.outputs(merged, inputs), tiny.outputs(in_place, inputs))
    assert all(torch.equal(a, b) for a, b in zip(peftlab.detach(ours).parameters(), base.parameters(), strict=True))


def test_below_the_first_trained_block_nothing_needs_a_backward_pass():
    model = peftlab.attach(tiny.fresh("llama"), LastLayers(num_layers=1))
    seen = {}
    for i, block in enumerate(model.model.layers):
        block.register_forward_pre_hook(lambda _, args, i=i: seen.__setitem__(i, args[0].requires_grad))
        block.register_forward_hook(lambda _, __, out, i=i: seen.__setitem__(f"after {i}", out.requires_grad))
    tiny.loss(model, tiny.batch("llama"))
    assert seen == {0: False, "after 0": False, 1: False, "after 1": True}


def test_everything_inside_a_wrapped_model_can_be_unfrozen_beside_other_adapters():
    model = two(LoRA(r=2), LastLayers(num_layers=1))
    with pytest.raises(PeftLabError, match="only one of them"):
        peftlab.use(model, ["a", "b"])  # q_proj of the last block has both


def test_what_unfreezing_refuses(refused):
    llama, gpt2, conv = (tiny.fresh(name) for name in ("llama", "gpt2", "conv"))
    with refused(llama, "has 2 blocks", error=ConfigError):
        peftlab.attach(llama, LastLayers(num_layers=3))
    with refused(gpt2, "wte", "lm_head", "leave both out", error=ConfigError):
        peftlab.attach(gpt2, PartialTuning(target_modules=["wte"]))
    with refused(conv, "PartialTuning", error=ConfigError):
        peftlab.attach(conv, LastLayers())
    packed = quantize_model(tiny.fresh("llama"))
    with refused(packed, "quantised", "LoRA", error=ConfigError):
        peftlab.attach(packed, LastLayers())
    with pytest.raises(ConfigError, match="target_modules"):
        PartialTuning()
    with pytest.raises(ConfigError, match="attention.output"):
        PartialTuning(target_modules=[])


# ---- trainable tokens ---------------------------------------------------------------------------------------------


def test_only_the_chosen_rows_change_and_a_tied_head_follows():
    model, inputs = tiny.fresh("gpt2"), tiny.batch("gpt2")
    base = model.transformer.wte.weight.detach().clone()
    peftlab.attach(model, TrainableTokens(token_indices=[85, 14]))
    assert peftlab.count_parameters(model).trainable == 2 * 48
    curve = losses_of(model, lambda m: tiny.loss(m, inputs))
    assert curve[-1] < curve[0]
    adapted = tiny.outputs(model, inputs)
    peftlab.merge(model)
    assert model.lm_head.weight is model.transformer.wte.weight and model.config.tie_word_embeddings
    assert torch.equal(tiny.outputs(model, inputs), adapted)
    moved = (model.transformer.wte.weight != base).any(dim=1).nonzero().flatten()
    assert moved.tolist() == [14, 85]


def test_a_tied_head_keeps_its_bias_where_pefts_loses_it():
    base, inputs = tiny.bert("MaskedLM"), {"input_ids": tiny.tokens()}
    plain = tiny.outputs(base, inputs)
    assert base.cls.predictions.decoder.bias.any()
    theirs = peft.get_peft_model(copy.deepcopy(base), peft.TrainableTokensConfig(token_indices=[5]))
    assert not torch.allclose(tiny.outputs(theirs, inputs), plain, atol=1e-3)  # before any training
    ours = peftlab.attach(copy.deepcopy(base), TrainableTokens(token_indices=[5]))
    assert torch.equal(tiny.outputs(ours, inputs), plain)


def test_the_rows_of_several_adapters(refused, tmp_path):
    model, inputs = tiny.fresh("llama", torch.float64), tiny.batch("llama")
    for name, tokens in {"a": [14, 50], "b": [85], "c": [50]}.items():
        peftlab.attach(model, TrainableTokens(token_indices=tokens), name=name)
        peftlab.use(model, name)
        tiny.randomise(model)
    with refused(model, "50", "embed_tokens", "only one"):
        peftlab.use(model, ["a", "c"])
    both = tiny.outputs(peftlab.use(model, ["a", "b"]), inputs)
    assert torch.equal(tiny.outputs(peftlab.use(model, ["b", "a"]), inputs), both)
    peftlab.attach(model, FishMask(keep_ratio=0.5, scores="random"), name="d")
    with refused(model, "the weight of model.embed_tokens"):
        peftlab.use(model, ["a", "d"])
    with refused(model, "the weight of model.embed_tokens"):
        peftlab.use(model, ["d", "a"])


def test_rows_that_start_at_random_and_other_matrices():
    torch.manual_seed(0)
    model = peftlab.attach(tiny.fresh("llama"), TrainableTokens(token_indices=[14], init_weights=False))
    assert not torch.allclose(
        tiny.outputs(model, tiny.batch("llama")), tiny.outputs(tiny.fresh("llama"), tiny.batch("llama"))
    )
    method = TrainableTokens(token_indices=[14, 3], target_modules=["embed_tokens", "lm_head"])
    parity.prove(tiny.fresh("llama"), method, tiny.batch("llama"), steps=3).check()
    parity.prove(
        tiny.llama(tie_word_embeddings=True), TrainableTokens(token_indices=[14, 3]), tiny.batch("llama")
    ).check()


def test_what_trainable_tokens_refuse(refused):
    for wrong in ([], [3, 3], [-1], [1.5], "word", [True]):
        with pytest.raises(ConfigError, match="token_indices"):
            TrainableTokens(token_indices=wrong)
    llama = tiny.fresh("llama")
    with refused(llama, "97", "0 to 96", "resize_token_embeddings", error=ConfigError):
        peftlab.attach(llama, TrainableTokens(token_indices=[97]))
    with refused(llama, "LlamaRMSNorm", error=ConfigError):
        peftlab.attach(llama, TrainableTokens(token_indices=[7], target_modules=["norm"]))
    conv = tiny.fresh("conv")
    with refused(conv, "embeddings", "target_modules", error=ConfigError):
        peftlab.attach(conv, TrainableTokens(token_indices=[7]))


# ---- diff pruning -------------------------------------------------------------------------------------------------


def test_gates_are_exactly_zero_as_often_as_the_penalty_says():
    for alpha in (-1.0, 0.0, 1.3):
        layer = nn.Linear(400, 300)
        delta = HardConcreteDelta(Site("0", layer), ("weight", "bias"), alpha, 1.0)
        z = delta.gate("weight", drawn=True)
        assert 0 <= z.min() and z.max() <= 1 and (z == 0).any() and (z == 1).any()
        open_share = (z > 0).double().mean().item()
        expected = torch.sigmoid(torch.tensor(alpha)).item()  # l = -r, so the logarithm vanishes
        assert open_share == pytest.approx(expected, abs=0.005)
        assert delta.expected_entries().item() == pytest.approx(expected * (400 * 300 + 300), rel=1e-4)


def test_gates_are_drawn_in_training_only_and_merging_draws_nothing():
    model = tiny.randomise(peftlab.attach(odd(), DiffPruning(alpha_init=0.3)), size=0.5)
    model.train()
    assert not torch.equal(model(IDS), model(IDS))
    with peftlab.folded(model):
        settled = model(IDS)
        assert torch.equal(model(IDS), settled)
    model.eval()
    torch.testing.assert_close(model(IDS), settled, atol=1e-12, rtol=1e-10)
    again = tiny.randomise(peftlab.attach(odd(), DiffPruning(alpha_init=0.3)), size=0.5)
    assert torch.equal(again.eval()(IDS), model(IDS))


def test_the_penalty_closes_gates_and_without_it_they_stay_open():
    def trained(weight):
        torch.manual_seed(0)
        model = peftlab.attach(odd(), DiffPruning(alpha_init=1.0, sparsity_penalty=weight)).train()
        losses_of(model, lambda m: target(m) + peftlab.penalty(m), steps=40, lr=0.1)
        parts = [wrapper.adapters["default"] for wrapper in surgery.adapted_modules(model).values()]
        return sum(part.expected_entries().item() for part in parts)

    entries = sum(p.numel() for p in odd().parameters())
    assert trained(1e-2) < 0.3 * entries < 0.6 * entries < trained(0.0)


def test_the_three_phases(tmp_path):
    """Learn the gates, keep the k largest changes, go on with the mask fixed. Then the file is small."""
    base = odd()
    model = peftlab.attach(copy.deepcopy(base), DiffPruning(alpha_init=1.0, sparsity_penalty=1e-4)).train()
    total = sum(p.numel() for p in base.parameters())
    assert peftlab.count_parameters(model).trainable == 2 * total
    losses_of(model, lambda m: target(m) + peftlab.penalty(m), steps=20)
    found = sparse.changes(model)
    peftlab.detach(model)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), base.parameters(), strict=True))
    peftlab.attach(model, DiffPruning(keep_ratio=0.1, start=found))
    kept = sparse.changes(model)
    k = round(0.1 * total)
    assert sum((delta != 0).sum().item() for delta in kept.values()) == k == peftlab.count_parameters(model).trainable
    smallest = min(delta[delta != 0].abs().min() for delta in kept.values())
    for name, delta in found.items():
        stays = kept[name] != 0 if name in kept else torch.zeros_like(delta, dtype=torch.bool)
        torch.testing.assert_close(kept[name][stays] if stays.any() else delta[stays], delta[stays])
        assert (delta[~stays].abs() <= smallest + 1e-12).all()
    curve = losses_of(model, target, steps=5, lr=0.01)
    assert curve[-1] < curve[0]
    peftlab.save(model, tmp_path)
    assert sum(t.numel() for n, t in load_file(tmp_path / checkpoint.WEIGHTS).items() if n.endswith("values")) == k
    back = peftlab.load(copy.deepcopy(base), tmp_path)
    torch.testing.assert_close(back(IDS), model(IDS), atol=1e-12, rtol=1e-10)


# ---- LT-SFT -------------------------------------------------------------------------------------------------------


def test_lottery_tickets_are_the_entries_that_full_fine_tuning_moved_most():
    base = odd()
    in_place = copy.deepcopy(base)
    losses_of(in_place, target, steps=6)
    first = peftlab.attach(copy.deepcopy(base), PartialTuning(target_modules=".*"))
    losses_of(first, target, steps=6)
    moved = sparse.changes(first)
    after = dict(in_place.named_parameters())
    for name, before in base.named_parameters():
        torch.testing.assert_close(moved[name], after[name] - before, atol=1e-12, rtol=1e-10)
    second = peftlab.attach(peftlab.detach(first), LTSFT(keep_ratio=0.2, scores=moved))
    assert torch.equal(second(IDS), base(IDS))  # from the pretrained model again
    k = round(0.2 * sum(p.numel() for p in base.parameters()))
    wanted = sparse.top_k({name: delta.abs() for name, delta in moved.items()}, k)
    mask = second.peftlab.methods["default"].mask
    assert mask.keys() == wanted.keys() and all(torch.equal(mask[name], wanted[name]) for name in wanted)


def test_a_languages_change_and_a_tasks_add_up():
    model = tiny.fresh("llama", torch.float64)
    for seed, name in enumerate(("language", "task")):
        peftlab.attach(model, LTSFT(keep_ratio=0.05, scores="random", random_seed=seed), name=name)
        peftlab.use(model, name)
        tiny.randomise(model, seed=seed)
    both = tiny.outputs(peftlab.use(model, ["language", "task"]), tiny.batch("llama"))
    merged = peftlab.merge(copy.deepcopy(model))
    torch.testing.assert_close(tiny.outputs(merged, tiny.batch("llama")), both, atol=1e-12, rtol=1e-10)


# ---- what sparse methods refuse -----------------------------------------------------------------------------------

SHAPE = torch.ones(48)
WRONG_FIELDS = {
    "share-of-nothing": (lambda: FishMask(keep_ratio=0, scores="random"), "keep_ratio"),
    "share-above-one": (lambda: FishMask(keep_ratio=1.2, scores="random"), "keep_ratio"),
    "percent": (lambda: FishMask(keep_ratio="0.5 %"), "keep_ratio"),
    "scores-by-another-name": (lambda: FishMask(scores="fisher"), "magnitude"),
    "sparse-seed": (lambda: FishMask(scores="random", random_seed="today"), "random_seed"),
    "scores-a-tensor": (lambda: LTSFT(scores=torch.ones(3)), "dict of tensors"),
    "mask-of-lists": (lambda: FishMask(mask={"a.weight": [1, 2]}), "dict of tensors"),
    "penalty-below-zero": (lambda: DiffPruning(sparsity_penalty=-1), "negative"),
    "shira-mask-unnamed": (lambda: SHiRA(mask_fn=largest), "mask_type"),
    "shira-seed": (lambda: SHiRA(random_seed="today"), "random_seed"),
    "shira-r": (lambda: SHiRA(r=0), "r must"),
    "shira-start": (lambda: SHiRA(init_weights=False), "zero"),
    "beft-start": (lambda: BEFT(init_weights=False), "zero"),
    "supertuning-sparsity": (lambda: Supertuning(sparsity=1.0), "sparsity"),
    "supertuning-hybrid": (lambda: Supertuning(r=4), "no field r"),
    "supertuning-top": (lambda: Supertuning(select_top="yes"), "True or False"),
    "bitfit-add": (lambda: BitFit(add_missing="yes"), "True or False"),
    "bitfit-exclude": (lambda: BitFit(exclude_modules=["query"]), "target_modules"),
    "last-none": (lambda: LastLayers(num_layers=0), "num_layers"),
}


@pytest.mark.parametrize(("make", "words"), WRONG_FIELDS.values(), ids=WRONG_FIELDS)
def test_wrong_fields(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


NORM = "model.norm.weight"
WRONG_FOR_THE_MODEL = {
    "no-scores": (lambda: FishMask(), ("empirical_fisher", "random")),
    "no-movement": (lambda: LTSFT(), ("changes", "fine-tuning")),
    "unknown-name": (lambda: FishMask(scores={"model.norm.wieght": SHAPE}), ("did you mean", NORM)),
    "shape": (lambda: FishMask(scores={NORM: torch.ones(47)}), ("(47,)", "(48,)")),
    "start-shape": (
        lambda: FishMask(mask={NORM: torch.tensor([4])}, start={NORM: torch.ones(47)}),
        ("(47,)", "(48,)"),
    ),
    "mask-outside": (lambda: FishMask(mask={NORM: torch.tensor([48])}), ("0 to 47",)),
    "mask-twice": (lambda: FishMask(mask={NORM: torch.tensor([4, 4])}), ("once",)),
    "mask-empty": (lambda: FishMask(mask={NORM: torch.tensor([], dtype=torch.long)}), ("0 to 47",)),
    "not-finite": (lambda: FishMask(keep_ratio=1e-4, scores={NORM: SHAPE * float("inf")}), ("not finite",)),
    "exclude-alone": (lambda: FishMask(scores="random", exclude_modules=["norm"]), ("target_modules",)),
    "nowhere": (lambda: FishMask(scores="random", target_modules=["rotary_emb"]), ("no parameter",)),
    "shira-too-large": (lambda: SHiRA(r=40), ("choose r lower",)),
    "shira-mask-missing": (lambda: SHiRA(r=2, mask_type="mine"), ("mask_fn",)),
    "shira-mask-shape": (lambda: SHiRA(r=2, mask_type="mine", mask_fn=lambda m, r: torch.ones(3)), ("(48, 48)", "192")),
    "shira-mask-count": (lambda: SHiRA(r=2, mask_type="mine", mask_fn=lambda m, r: largest(m, 1)), ("192 ones",)),
    "shira-norm": (lambda: SHiRA(r=2, target_modules=["norm"]), ("LlamaRMSNorm",)),
    "supertuning-nothing-left": (lambda: Supertuning(sparsity=0.9999), ("no entry", "lower")),
}


@pytest.mark.parametrize(("make", "words"), WRONG_FOR_THE_MODEL.values(), ids=WRONG_FOR_THE_MODEL)
def test_what_does_not_fit_the_model(make, words, refused):
    model = tiny.fresh("llama")
    with refused(model, *words):
        peftlab.attach(model, make())


def test_a_mask_of_tied_embeddings_is_refused(refused):
    model = tiny.fresh("gpt2")
    with refused(model, "tied", error=ConfigError):
        peftlab.attach(model, FishMask(mask={"transformer.wte.weight": torch.tensor([1])}))


def test_changes_of_an_adapter_that_changes_no_parameter():
    with pytest.raises(PeftLabError, match="changes no parameter"):
        sparse.changes(peftlab.attach(tiny.fresh("llama"), LoRA(r=2)), "other")
    beft = sparse.changes(tiny.randomise(peftlab.attach(tiny.fresh("llama"), BEFT())))
    assert set(beft) == {f"model.layers.{i}.self_attn.v_proj.bias" for i in (0, 1)}
    packed = quantize_model(tiny.fresh("llama"))
    found = sparse.changes(tiny.randomise(peftlab.attach(packed, SHiRA(r=2, target_modules=["v_proj"]))))
    assert {name: int((delta != 0).sum()) for name, delta in found.items()} == {
        f"model.layers.{i}.self_attn.v_proj.weight": 2 * (48 + 24) for i in (0, 1)
    }
    kept = peftlab.attach(tiny.fresh("llama"), LNTuning())
    assert all("norm" in name for name in sparse.changes(tiny.randomise(kept)))


def test_shira_opens_in_peft_with_a_mask_of_ones_own(tmp_path):
    """mask_fn is no field: the file's places are what counts, in both libraries."""
    method = SHiRA(r=2, mask_type="largest", mask_fn=largest)
    model, inputs = tiny.randomise(peftlab.attach(tiny.fresh("llama"), method)), tiny.batch("llama")
    peftlab.save(model, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peft.PeftModel.from_pretrained(tiny.fresh("llama"), tmp_path).eval()
    assert torch.equal(tiny.outputs(theirs, inputs), tiny.outputs(model, inputs))
    assert torch.equal(tiny.outputs(peftlab.load(tiny.fresh("llama"), tmp_path), inputs), tiny.outputs(model, inputs))
