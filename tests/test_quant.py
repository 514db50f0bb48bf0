"""Quantisation held to its definitions. What bitsandbytes makes of the same numbers: test_quant_bitsandbytes.py."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from peftlab.errors import PeftLabError
from peftlab.quant import (
    CODEBOOKS,
    AdamW8bit,
    levels_of,
    linear_int8,
    loftq,
    outlier_columns,
    quantize,
    quantize_int8,
)
from peftlab.quant.blockwise import nearest
from peftlab.quant.double_quant import double_quantize
from peftlab.quant.eight_bit import dynamic_levels, quantize_8bit
from peftlab.quant.nf4 import LAST_PROBABILITY
from peftlab.quant.packing import pack, unpack

pytestmark = pytest.mark.usefixtures("quiet")
KINDS = list(CODEBOOKS)
SHAPES = [(1, 1), (1, 3), (7, 64), (17, 31), (5, 96), (48, 258), (2, 3, 40), (4097,)]


# ---- codebooks ----------------------------------------------------------------------------------------------------


def test_nf4_levels_are_evenly_spaced_in_probability():
    levels = levels_of("nf4")
    assert levels.shape == (16,) and levels[0] == -1 and levels[7] == 0 and levels[15] == 1
    largest = torch.special.ndtri(torch.tensor(LAST_PROBABILITY, dtype=torch.float64))
    p = torch.special.ndtr(levels.double() * largest)
    below, above = p[:8].diff(), p[7:].diff()
    assert torch.allclose(below, below.mean().expand(7), atol=1e-7)
    assert torch.allclose(above, above.mean().expand(8), atol=1e-7)
    assert abs(LAST_PROBABILITY - (1 - (1 / 30 + 1 / 32) / 2)) < 1e-7


def test_nf4_levels_are_those_of_the_paper():
    """QLoRA, appendix E, to the digits printed there."""
    printed = [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ]  # fmt: skip
    assert torch.equal(levels_of("nf4"), torch.tensor(printed))


def test_fp4_levels():
    levels = levels_of("fp4")
    assert torch.equal(levels[8:], -levels[:8]) and not levels[[0, 8]].any() and not levels.signbit()[8]
    large = (levels[2:8] * 12).round(decimals=4).sort().values
    assert large.tolist() == [2, 3, 4, 6, 8, 12]  # twice the larger levels of E2M1
    assert levels[1] == torch.tensor(0.0625 / 12)


def test_int4_levels():
    assert torch.allclose(levels_of("int4").diff(), torch.tensor(1 / 7)) and levels_of("int4")[7] == 0
    asymmetric = levels_of("int4_asymmetric")
    assert len(asymmetric) == 16 and asymmetric[0] == 0 and asymmetric[-1] == 1


@pytest.mark.parametrize(("signed", "smallest"), [(True, 5.5e-7), (False, 3.25e-7)])
def test_dynamic_levels_spend_their_bits_on_large_values_and_reach_small_ones(signed, smallest):
    levels = dynamic_levels(signed)
    assert levels.shape == (256,) and levels.diff().min() > 0 and levels[-1] == 1 and (levels == 0).sum() == 1
    assert float(levels[levels > 0].min()) == pytest.approx(smallest, rel=1e-5)
    per_decade = [int(((levels > 10.0**-e / 10) & (levels < 10.0**-e)).sum()) for e in range(7)]
    assert per_decade == [2 ** (6 - e) if signed else 2 ** (7 - e) for e in range(7)]
    if signed:
        assert torch.equal(levels[:-1], -levels[:-1].flip(0))  # all but the 1


# ---- packing, nearest levels --------------------------------------------------------------------------------------


def test_the_first_code_is_in_the_high_half():
    assert pack(torch.tensor([0x3, 0xA, 0xF]), 7).tolist() == [[0x3A], [0xF7]]


@pytest.mark.parametrize("n", [1, 2, 7, 64, 1001])
def test_unpacking_undoes_packing(n):
    codes = torch.randint(16, (n,))
    packed = pack(codes, 0)
    assert packed.shape == ((n + 1) // 2, 1) and packed.dtype == torch.uint8
    assert torch.equal(unpack(packed, n).long(), codes)


@pytest.mark.parametrize("kind", KINDS)
def test_nearest_is_the_nearest(kind):
    levels = levels_of(kind)
    unit = torch.rand(5000) * 2 - 1
    distance = (unit[:, None].double() - levels[None].double()).abs()
    chosen = distance.gather(1, nearest(unit, levels)[:, None]).flatten()
    assert (chosen - distance.amin(dim=1)).max() < 1e-7


def test_halfway_between_two_levels_the_lower_one():
    levels = torch.tensor([-1.0, 0.0, 1.0])
    assert nearest(torch.tensor([-0.5, 0.5, 0.5001]), levels).tolist() == [0, 1, 2]


# ---- a weight in 4 bits -------------------------------------------------------------------------------------------


def by_definition(w: torch.Tensor, kind: str, blocksize: int) -> torch.Tensor:
    """Block by block, value by value, in float64: the slow way."""
    levels, flat, out = levels_of(kind).double(), w.reshape(-1).double(), []
    for start in range(0, flat.numel(), blocksize):
        block = flat[start : start + blocksize]
        low, scale = (block.min(), block.max() - block.min()) if "asym" in kind else (0.0, block.abs().max())
        choices = low + scale * levels
        out += [choices[(choices - value).abs().argmin()] for value in block]
    return torch.stack(out).reshape(w.shape)


@pytest.mark.parametrize("blocksize", [2, 30, 64, 256])
@pytest.mark.parametrize("kind", KINDS)
def test_quantised_as_defined(kind, blocksize):
    for shape in SHAPES[:6]:
        w = torch.randn(shape)
        q = quantize(w, kind, blocksize, double=False)
        wanted = by_definition(w, kind, blocksize)
        error, best = (q.dequantize() - w).abs(), (wanted - w).abs()
        assert q.dequantize().shape == w.shape and q.codes.shape == w.shape
        assert (error - best).max() < 1e-6  # as near as any level, halfway values included


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_quantised_quantises_again_without_a_loss(kind):
    """The detective's clue: a weight that is exactly representable was quantised before."""
    w = quantize(torch.randn(33, 50), kind, double=False).dequantize()
    assert torch.allclose(quantize(w, kind, double=False).dequantize(), w, rtol=0, atol=1e-6)
    if kind != "int4_asymmetric":
        assert torch.equal(quantize(w, kind, double=False).dequantize(), w)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtype_and_shape_come_back(dtype):
    w = torch.randn(5, 7, 9).to(dtype)
    q = quantize(w, double=True)
    assert q.dequantize().dtype == dtype and q.dequantize(torch.float32).dtype == torch.float32
    assert q.dequantize().shape == w.shape and (q.dequantize() - w).abs().max() < 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("double", [False, True])
def test_zeros_stay_zeros(kind, double):
    w = torch.randn(4, 64)
    w[1] = 0
    back = quantize(w, kind, double=double).dequantize()
    allowed = 0.02 if kind == "int4_asymmetric" and double else 0  # there the minimum, 0, is stored in 8 bits
    assert back[1].abs().max() <= allowed


@pytest.mark.parametrize("double", [False, True])
def test_a_weight_of_zeros(double):
    q = quantize(torch.zeros(3, 5), double=double)
    assert not q.dequantize().any()


def test_asymmetric_blocks_keep_their_ends_and_constants():
    w = torch.rand(3, 64) + 5  # far from zero
    q = quantize(w, "int4_asymmetric", double=False)
    back = q.dequantize()
    assert torch.allclose(back.amax(1), w.amax(1)) and torch.equal(back.amin(1), w.amin(1))
    assert (back - w).abs().max() <= 1 / 30 + 1e-6  # half a step
    assert (quantize(w, "int4", double=False).dequantize() - w).abs().max() > 0.2  # the symmetric one wastes its levels
    threes = torch.full((65,), 3.0)
    assert torch.equal(quantize(threes, "int4_asymmetric", double=False).dequantize(), threes)


def test_a_short_last_block_does_not_see_its_padding():
    w = torch.rand(70) + 1  # if zeros filled up the last block, its minimum would be 0
    assert quantize(w, "int4_asymmetric", double=False).minimum[1] == w[64:].min()
    assert quantize(w, "nf4", double=False).absmax[1] == w[64:].max()


def test_an_outlier_spoils_its_own_block_only():
    w = torch.randn(4, 64)
    spoilt = w.clone()
    spoilt[2, 5] = 1000
    a, b = (quantize(x, double=False).dequantize() for x in (w, spoilt))
    rows = torch.tensor([0, 1, 3])
    assert torch.equal(a[rows], b[rows]) and b[2].abs().sort().values[:-1].max() == 0


@pytest.mark.parametrize(
    ("kind", "blocksize", "double", "bits"),
    [
        ("nf4", 64, False, 4.5),
        ("nf4", 64, True, 4 + 8 / 64 + 32 / (64 * 256)),
        ("nf4", 128, False, 4.25),
        ("fp4", 32, False, 5.0),
        ("int4", 64, False, 4.5),
        ("int4_asymmetric", 64, False, 5.0),
        ("int4_asymmetric", 64, True, 4 + 2 * (8 / 64 + 32 / (64 * 256))),
    ],
)
def test_bits_per_parameter(kind, blocksize, double, bits):
    q = quantize(torch.randn(1024, 1024), kind, blocksize, double)
    means = 32 * (0 if not double else 2 if "asym" in kind else 1)
    assert q.bits_per_parameter == bits + means / 2**20
    assert round(quantize(torch.randn(1024, 1024)).bits_per_parameter, 3) == 4.127


def test_bits_of_an_awkward_shape_are_counted_not_computed():
    q = quantize(torch.randn(3, 23), double=False)  # 69 weights: 35 bytes, 2 scales
    assert q.bits_per_parameter == (35 * 8 + 2 * 32) / 69


def test_double_quantisation_keeps_the_scales_nearly():
    c = torch.rand(1000) + 0.5
    q = double_quantize(c)
    assert (q.dequantize() - c).abs().max() < 0.005 and torch.equal(q.offset, c.mean())
    assert q.bits == 8 * 1000 + 32 * 4 + 32


REFUSED = {
    "kind": (lambda: quantize(torch.ones(4), "nf5"), ["'nf5'", "nf4", "fp4"]),
    "blocksize-zero": (lambda: quantize(torch.ones(4), blocksize=0), ["blocksize=0", "64"]),
    "blocksize-odd": (lambda: quantize(torch.ones(4), blocksize=33), ["33", "even"]),
    "blocksize-float": (lambda: quantize(torch.ones(4), blocksize=64.0), ["64.0"]),
    "integers": (lambda: quantize(torch.ones(4, dtype=torch.uint8)), ["uint8", "dequantize()"]),
    "no-tensor": (lambda: quantize([1.0]), ["list"]),
    "empty": (lambda: quantize(torch.empty(0, 3)), ["empty", "(0, 3)"]),
    "nan": (lambda: quantize(torch.tensor([1.0, float("nan")])), ["not finite"]),
    "int8-shape": (lambda: quantize_int8(torch.ones(3)), ["matrix"]),
    "int8-width": (lambda: linear_int8(torch.ones(2, 3), quantize_int8(torch.ones(4, 5))), ["3 features", "5"]),
    "loftq-rank": (lambda: loftq(torch.randn(4, 9), 5), ["r=5", "1 to 4"]),
    "loftq-vector": (lambda: loftq(torch.randn(4), 1), ["matrix"]),
    "loftq-iterations": (lambda: loftq(torch.randn(4, 4), 1, iterations=0), ["iterations=0"]),
    "adamw": (lambda: AdamW8bit([nn.Parameter(torch.ones(2))], lr=-1), ["lr=-1"]),
}


@pytest.mark.parametrize(("make", "words"), REFUSED.values(), ids=REFUSED)
def test_refused(make, words):
    with pytest.raises(PeftLabError) as caught:
        make()
    assert all(word in str(caught.value) for word in words), str(caught.value)


# ---- 8 bits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("signed", "one_in"), [(True, 700), (False, 350)])
def test_the_table_is_nearly_the_search(signed, one_in):
    x = torch.randn(200_000) if signed else torch.randn(200_000).abs()
    table, exact = quantize_8bit(x, signed=signed), quantize_8bit(x, signed=signed, exact=True)
    differ = table.codes != exact.codes
    assert float(differ.float().mean()) == pytest.approx(1 / one_in, rel=0.25)
    assert (table.dequantize() - x).abs().max() < 0.04 and torch.equal(table.absmax, exact.absmax)
    best = (exact.dequantize() - x).abs()
    assert ((table.dequantize() - x).abs() - best).max() < 2e-4  # a bin's width, times the scale


def test_zero_in_8_bits():
    x = torch.tensor([1.0, 0.0])
    assert quantize_8bit(x, exact=True).dequantize()[1] == 0
    assert 0 < quantize_8bit(x).dequantize()[1] < 1e-4  # the table's bins are wider than the smallest levels
    assert not quantize_8bit(torch.zeros(300)).dequantize().any()


@pytest.mark.parametrize("shape", [(1,), (255,), (256,), (257,), (3, 100)])
def test_8_bits_keep_the_shape(shape):
    q = quantize_8bit(torch.randn(shape))
    assert q.codes.shape == shape and q.dequantize().shape == shape
    assert q.bits == 8 * q.codes.numel() + 32 * -(-q.codes.numel() // 256)


# ---- LLM.int8() ---------------------------------------------------------------------------------------------------


def test_int8_by_hand():
    q = quantize_int8(torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]]))
    assert q.codes.tolist() == [[64, -127, 32], [0, 0, 0]] and q.absmax.tolist() == [2, 0]  # 63.5 and 31.75, rounded
    assert not q.dequantize()[1].any()
    assert q.bits_per_parameter == 8 + 32 * 2 / 6


def test_outliers_are_what_makes_int8_fail_and_columns_what_mends_it():
    W, b = torch.randn(20, 33), torch.randn(20)
    x = torch.randn(2, 5, 33)
    x[..., 4] *= 40
    wanted = x @ W.T + b
    q = quantize_int8(W)
    plain, mended = linear_int8(x, q, b, threshold=0), linear_int8(x, q, b)
    assert plain.shape == wanted.shape
    assert outlier_columns(x.reshape(-1, 33)).tolist() == [4]
    tame = x.clone()
    tame[..., 4] = 0
    columns = tame @ W.T - linear_int8(tame, q, threshold=0)
    assert (mended - wanted).std() < 0.7 * (plain - wanted).std()
    rest = wanted - b - x[..., 4:5] * q.dequantize()[:, 4] - tame @ W.T  # from rounding W's column 4
    assert torch.allclose(mended, wanted - columns - rest, atol=1e-4)


def test_without_outliers_the_threshold_changes_nothing():
    x, q = torch.rand(3, 16), quantize_int8(torch.randn(4, 16))
    assert torch.equal(linear_int8(x, q, threshold=0), linear_int8(x, q, threshold=6))
    assert linear_int8(x.half(), q).dtype == torch.float16


# ---- LoftQ --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaling", [1.0, 2.0, 0.25, -1.5])
@pytest.mark.parametrize("shape", [(96, 160), (70, 33)])
def test_loftq_says_its_error_truly(shape, scaling):
    W = torch.randn(shape) * 0.02
    found = loftq(W, 8, iterations=3, scaling=scaling)
    start = quantize(W, double=False).dequantize()
    assert found.errors[0] == pytest.approx(float(torch.linalg.norm(W - start)), rel=1e-5)
    now = W - found.Q.dequantize() - scaling * found.B @ found.A
    assert found.errors[-1] == pytest.approx(float(torch.linalg.norm(now)), rel=1e-3)
    assert len(found.errors) == 4 and found.A.shape == (8, shape[1]) and found.B.shape == (shape[0], 8)
    assert found.errors[3] < found.errors[1] < found.errors[0]
    assert torch.linalg.norm(found.A).item() == pytest.approx(torch.linalg.norm(found.B).item(), rel=1e-3)


def test_one_iteration_of_loftq_is_the_best_low_rank_correction():
    W = torch.randn(40, 64)
    found = loftq(W, 5, iterations=1)
    S = torch.linalg.svdvals(W - quantize(W, double=False).dequantize())
    assert found.errors[1] == pytest.approx(float(S[5:].square().sum().sqrt()), rel=1e-4)
    assert torch.equal(found.Q.packed, quantize(W, double=False).packed)


# ---- AdamW in 8 bits ----------------------------------------------------------------------------------------------


def steps(optimizer, parameters, n: int, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n):
        for p in parameters:
            p.grad = (torch.randn(p.shape, generator=generator) + 0.3 * p.detach().float()).to(p.dtype)
        optimizer.step()


@pytest.mark.parametrize("shape", [(5,), (60, 60)])
def test_small_tensors_are_stepped_as_by_torch(shape):
    mine, theirs = (nn.Parameter(torch.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape)) for _ in range(2))
    steps(AdamW8bit([mine], lr=0.01), [mine], 20)
    steps(torch.optim.AdamW([theirs], lr=0.01), [theirs], 20)
    assert torch.allclose(mine, theirs, atol=1e-6)


def test_large_tensors_are_stepped_nearly_as_by_torch_with_a_quarter_of_the_memory():
    mine, theirs = (nn.Parameter(torch.linspace(-1, 1, 10_000)) for _ in range(2))
    optimizer = AdamW8bit([mine], lr=0.01)
    assert optimizer.state_bytes() == 0
    steps(optimizer, [mine], 20)
    steps(torch.optim.AdamW([theirs], lr=0.01), [theirs], 20)
    difference = (mine - theirs).abs()
    assert 0 < difference.mean() < 0.005
    assert optimizer.state_bytes() == 2 * (10_000 + 4 * 40)


def test_it_goes_on_from_its_state_dict():
    mine = nn.Parameter(torch.linspace(-1, 1, 5000))
    small = nn.Parameter(torch.ones(3))
    optimizer = AdamW8bit([mine, small], lr=0.01)
    steps(optimizer, [mine, small], 5)
    other = [nn.Parameter(p.detach().clone()) for p in (mine, small)]
    resumed = AdamW8bit(other, lr=0.5)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(optimizer, [mine, small], 5, seed=1)
    steps(resumed, other, 5, seed=1)
    assert torch.equal(mine, other[0]) and torch.equal(small, other[1])


def test_it_finds_a_minimum():
    target = torch.linspace(-1, 1, 4096)
    p = nn.Parameter(torch.zeros(4096))
    optimizer = AdamW8bit([p], lr=0.02, weight_decay=0.0)

    def closure():
        optimizer.zero_grad()
        loss = (p - target).square().sum()
        loss.backward()
        return loss

    first = float(optimizer.step(closure).detach())
    for _ in range(150):
        optimizer.step(closure)
    assert float((p - target).square().sum()) < first / 1000
