# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["header"]
# # 13 · Quantisation and QLoRA
#
# *80 minutes (60 without the exercises), of which your machine computes for about a minute. Builds on [06 · LoRA, with scissors](06_lora.ipynb). No GPU, no network.*

# %% [markdown]
# Tuning a model of 65 billion parameters in the usual way takes more than 780 GB of memory. In 2023, a single card of 48 GB did it (Dettmers et al., 2023). Half of the trick is LoRA. The other half sounds absurd: let every frozen weight take one of only **16 values**.
#
# How can 16 be enough, and which 16? Place them yourself, race yours against those that the world uses, train on top of them, and walk into a trap. Then a riddle: one model of this course fits into *one* 4-bit format almost without error. Why?

# %%
import copy

import torch

import peftlab
from peftlab.bench import quant_race
from peftlab.bench.results import Results
from peftlab.course import sixteen_levels
from peftlab.course.exercise import check, hint, solution, use
from peftlab.course.question import predict, quiz
from peftlab.quant import levels_of, quantize, quantize_model
from peftlab.show import plots, quant_figures
from peftlab.tasks import datasets, metrics, models

plots.style()

# %% [markdown]
# Our model is the course's tiny Llama, with 8 blocks. Like QLoRA, we store their matrices in 4 bits and leave tables, norms and the head alone.

# %%
base, tokenizer = models.load("tiny")
matrices = sixteen_levels.block_matrices(base)
W = matrices["model.layers.3.self_attn.q_proj"]
count, total = sum(m.numel() for m in matrices.values()), sum(p.numel() for p in base.parameters())
print(f"{len(matrices)} matrices, {count:,} of {total:,} numbers; one of them: {tuple(W.shape)}")

# %% [markdown]
# ## From a weight to a code
#
# Take a **block** of weights $w_1, \dots, w_n$. They share one number, the **scale**, the largest size among them:
#
# $$c = \max_i |w_i| .$$
#
# Divided by it, every weight lies between −1 and 1. Fix 16 **levels** $\ell_0, \dots, \ell_{15}$ there, the **codebook**. Of each weight we store the number of the nearest level, its **code**, 4 bits:
#
# $$q_i = \arg\min_k \left|\frac{w_i}{c} - \ell_k\right| \in \{0, \dots, 15\} .$$
#
# To compute, we look the level up and scale it back: $\hat w_i = c\, \ell_{q_i}$.
#
# ### Exercise 1 · There and back (4 minutes)
#
# Write it for several blocks, one in each row of `w`, and any ascending `levels`: return $\hat w$.

# %% tags=["exercise"]
def round_trip(w, levels):
    """Each row of w, (blocks, n), is a block: what quantisation to the ascending levels, (k,), makes of it."""
    return ...


check("13.round_trip", round_trip)
# Stuck? Run hint("13.round_trip", 1), then hint("13.round_trip", 2), then solution("13.round_trip").

# %%
round_trip = use("13.round_trip", round_trip)
block, even = W.reshape(-1, 64)[:1], torch.linspace(-1, 1, 16)
back = round_trip(block, even)
for name, values in (("w ", block), ("ŵ ", back)):
    print(name, "  ".join(f"{v:+.3f}" for v in values[0, :8].tolist()))
print(f"different values in ŵ: {len(back.unique())}; error ‖ŵ - w‖ / ‖w‖ = {(back - block).norm() / block.norm():.1%}")

# %% [markdown]
# ## Why blocks
#
# One large weight coarsens the grid of all that share its scale. Make one 20 times larger than the largest, and look at the error of *all other rows*:

# %%
spoiled = W.clone()
spoiled[0, 0] = 20 * W.abs().max()
for blocksize in (W.numel(), 256, 64):
    backs = [quantize(w, kind="int4", blocksize=blocksize, double=False).dequantize() for w in (W, spoiled)]
    plain, beside = (((back - W)[1:].norm() / W[1:].norm()).item() for back in backs)
    print(f"one scale for {blocksize:>6} weights: error of the other rows {plain:.1%}, with the outlier {beside:.1%}")

# %% [markdown]
# (`int4` has the integers −7 … 7 as levels; `double` comes later.) With one scale for the matrix, the outlier rounds every other weight to 0: error 100 %. Blocks of at most a row, 256 weights, keep the damage inside it (Dettmers et al., 2021). Shorter ones are more exact anyway: QLoRA takes 64.
#
# ## Place 16 levels
#
# The histogram of that query matrix, each weight divided by its scale. Where would you put 16 levels? Get your error low, then ask for the others.

# %%
from peftlab.show.widgets.sixteen_levels import place_levels

explorer = place_levels(W, "a query matrix of the tiny model")
explorer

# %% [markdown]
# Even levels have 10.0 %. The integers $-7, \dots, 7$ of *int4* are even too, but only 15, for the sake of having 0 among them: 10.8 %. **FP4**, as bitsandbytes ships it, does worst, 12.2 %: four of its 16 codes mean nearly zero (+0 and −0, which are one level, and ±1/192). **NF4** has 9.2 %, without having seen this matrix. Fitting 16 levels to it gains little more: 8.8 %. So where do NF4's levels come from?
#
# ## NF4 from its definition
#
# Pretrained weights are roughly normally distributed. So let every level answer for the same share of them. The **quantile** $\Phi^{-1}(p)$ is the number below which lies the share $p$ of a standard normal distribution. Evenly spaced $p$ give levels that crowd where weights crowd.
#
# Two wishes bend the plan (Dettmers et al., 2023, section 3): 0 must stay 0, and the largest weight of a block, $\pm 1$, must stay too. With −1, 0 and 1 among the 16, an odd number is left: the lower half gets 7 levels and the upper 8, ends included. Each half goes from $p = ½$ to a last $p = 1 - \delta$ ($p = 1$ would be infinite) and is divided by its largest. The authors' code has $1 - \delta = 0.9677083$, that is $\delta = ½(\tfrac{1}{30} + \tfrac{1}{32})$: half a share of 15 and half a share of 16, averaged.
#
# ### Exercise 2 · Half of NF4 (7 minutes)
#
# Return the upper half with `n` levels: ascending, without the 0, ending at 1. `quantile(p)` is $\Phi^{-1}$ of a tensor.

# %% tags=["exercise"]
from peftlab.quant.nf4 import quantile


def half(n):
    """n levels above 0, (n,), ascending to 1: quantiles of evenly spaced p from 1/2 to 0.9677083, the 0 left out."""
    return ...


check("13.half", half)

# %%
half = use("13.half", half)
nf4 = torch.cat([-half(7).flip(0), torch.zeros(1), half(8)])
print("  ".join(f"{level:+.4f}" for level in nf4.tolist()))
back = round_trip(W.reshape(-1, 64), nf4).reshape(W.shape)
print(f"your levels, your round trip: error {(back - W).norm() / W.norm():.1%}")
assert torch.allclose(nf4, levels_of("nf4"), atol=1e-6)

# %% mystnb={"image": {"alt": "Above, a histogram of the query matrix's weights divided by their scales: a bell around 0 with small towers at -1 and 1. Below, a row of marks for each codebook. Yours (even, if nothing was dragged) and int4 are evenly spaced; FP4 has wide gaps around 0 with two marks close together in the middle; NF4's marks crowd around 0 and spread towards the ends."}}
_ = quant_figures.codebooks(W, explorer.levels)

# %% [markdown]
# (The small towers at ±1 are the largest weights of the 1,024 blocks.) The paper calls NF4 information-theoretically optimal for normal weights. Does every level really answer for the same share?

# %%
share = quantize(W, kind="nf4").codes.flatten().bincount(minlength=16) / W.numel()
print("share of the weights, level by level:", "  ".join(f"{s:.1%}" for s in share.tolist()))

# %% [markdown]
# No: from 1.7 % at the upper end to 9.3 % just below 0. What is quantised is $w$ divided by the largest of its block, and that is not normal: its spread depends on the block's size (Yoshida, 2023).
#
# ## What it costs: count the bits
#
# A byte holds two codes. The first goes into the upper half:

# %%
first, second = 11, 6
byte = first << 4 | second
print(f"{first:04b} and {second:04b} in one byte: {byte:08b} = {byte};  back: {byte >> 4}, {byte & 0b1111}")

# %% [markdown]
# And the scales? One 32-bit scale for 64 weights adds half a bit to each. **Double quantisation** quantises the scales too: take away their mean, store the rest in 8 bits, with one 32-bit number for every 256 scales.
#
# ### Exercise 3 · Bits (5 minutes)
#
# How many bits does a weight cost? (The mean and the codebook, a few numbers a matrix, are not counted.)

# %% tags=["exercise"]
def bits(blocksize, double):
    """Bits for each weight: its 4-bit code and its share of the scales, 32 bits each or doubly quantised."""
    return ...


check("13.bits", bits)

# %%
bits = use("13.bits", bits)
for double in (False, True):
    q = quantize(W, kind="nf4", blocksize=64, double=double)
    print(f"double={double!s:5}: by the formula {bits(64, double):.3f}, counted {q.bits_per_parameter:.3f}")

# %% [markdown]
# For 65 billion weights, the 0.373 bits saved are 3 GB.
#
# ## Is it really NF4? The proof
#
# Beside bitsandbytes, the library that everybody uses: every code, every scale, every value that comes back.

# %% tags=["nbval-ignore-output"]
try:
    import bitsandbytes.functional as theirs
except ImportError:
    theirs = None
    print("bitsandbytes is not installed, so there is nothing to compare with: pip install '.[quant]' brings it.")
for kind in ("nf4", "fp4") if theirs else ():
    packed, state = theirs.quantize_4bit(W, blocksize=64, compress_statistics=True, quant_type=kind)
    q = quantize(W, kind, blocksize=64, double=True)
    same = {"codes": torch.equal(q.packed, packed), "scales": torch.equal(q.absmax.inner.codes, state.absmax),
            "values": torch.equal(q.dequantize(), theirs.dequantize_4bit(packed, state))}
    print(kind, "bit for bit equal:", same)
    assert all(same.values())

# %% [markdown]
# The course's tests do this for many shapes and formats, and for training beside `peft`, step by step. They found a fault: on processors with AVX-512, bitsandbytes 0.50.2 reads a matrix back wrongly, without a word, if its width is a multiple of 16 but not of the block, like `down_proj`'s 688. How is yours?

# %% tags=["nbval-ignore-output"]
if theirs:
    D = matrices["model.layers.3.mlp.down_proj"]
    packed, state = theirs.quantize_4bit(D, blocksize=64, quant_type="nf4")
    for who, back in (("theirs", theirs.dequantize_4bit(packed, state)), ("ours", quantize(D).dequantize())):
        print(f"{who:6} error of a {D.shape[0]} × {D.shape[1]} matrix: {(back - D).norm() / D.norm():.1%}")

# %% [markdown]
# Around 9 % is right. If the first line says far more, you see the fault: the stored bytes are right, what is read from them is not. (The tests of training leave that layer dense.)
#
# ## The race
#
# One matrix is an anecdote. Here are all 56 of the tiny model, all 36 of MiniLM, and your levels. A fourth format joins: *asymmetric* int4 puts 16 even levels between a block's smallest and largest weight, so it stores two numbers a block.

# %% tags=["nbval-ignore-output"]
minilm, _ = models.load("minilm", num_labels=12)
both = {"tiny": matrices, "MiniLM": sixteen_levels.block_matrices(minilm)}
entries = [("int4", 64), ("fp4", 64), ("nf4", 64), ("int4_asymmetric", 128), ("nf4", 32), ("int4_asymmetric", 64)]
rows = []
for kind, size in entries:
    found = {model: quant_race.errors(each, kind, size) for model, each in both.items()}
    rows.append({"levels": kind, "block": size, "bits": found["tiny"]["bits"],
                 **{f"{model}, error in %": 100 * f["error"] for model, f in found.items()}})
mine = {m: sixteen_levels.error(sixteen_levels.moments(each.values()), explorer.levels) for m, each in both.items()}
rows.append({"levels": "yours (even, if not moved)", "block": 64, "bits": rows[0]["bits"],
             **{f"{model}, error in %": 100 * error for model, error in mine.items()}})
plots.table(rows, caption="All matrices of the blocks together; scales in 8 bits, and counted")

# %% [markdown]
# Look at equal bits. With blocks of 64, asymmetric int4 beats NF4 on 54 of the tiny model's 56 matrices. But it pays 4.25 bits for that, as much as NF4 with blocks of 32, which has the smaller error on all 92. At 4.13 bits the same: 9.2 % against 10.1 % and, for symmetric int4, 10.8 %.
#
# But nobody reads weights. What happens to *text*? We take 1,200 definitions and Bible verses that the tiny model has never seen. Their loss is 3.600 nats per token with full weights, a perplexity of 36.6 ($e$ to the loss).

# %%
predict("13.race")

# %% mystnb={"image": {"alt": "Two charts of the loss above fp32. Above, against bits per weight, from 4.03 to 4.51, a line for each of four formats over block sizes, with bars of six draws. NF4 stays lowest and nearly flat, from 0.042 at 4.03 bits to 0.035 at 4.25; symmetric int4 falls from 0.076 to 0.039, FP4 from 0.101 to 0.060, asymmetric int4 from 0.060 at 4.06 bits to 0.024 at 4.51. Below, the same points against the squared error of the weights: all lie near one rising line."}}
stored = Results.load("quant_race")
_ = quant_figures.race(stored)

# %% [markdown]
# A point is the mean of six *draws*, its bar goes from the lowest to the highest. For a draw we shuffle a matrix's columns before rounding and put them back after: every weight gets other neighbours and another scale. Same format, same bits, same text, and the loss moves by up to 0.027.
#
# - **NF4 does less harm than symmetric int4** at the same 4.13 bits: 0.034 against 0.049 nats. It is ahead in all six draws, twice by a hair (95 % interval of the difference, over draws: 0.001 to 0.030). With fewer scales it is beyond doubt: 0.042 against 0.076 in blocks of 256.
# - **At 4.25 bits nobody can tell**: NF4 0.035, asymmetric int4 0.036, symmetric int4 0.039. At 4.13, asymmetric int4 has 0.051.
# - **FP4 is worst**: 0.071.
# - **The harm grows about as the square of the error** (lower chart): where errors up and down cancel, the curvature's part stays. The correlation is 0.98, which does not settle the power: with the error itself it is 0.97, with its cube 0.99.
#
# We were nearly fooled. Measured once, in blocks of 64, NF4 and int4 cost 0.045 and 0.047 nats per token more than full weights: a tie. An interval over texts ([bridge B5](B5_validation_seeds_intervals.ipynb)) even found blocks of *128* better for NF4, though less exact. It knows the text's luck, not the rounding's: a weight between two levels goes up or down by a hair, and six million such accidents add up. *One rounding is one draw.*
#
# So the error of the weights guides well between codebooks, one measurement of the loss badly. With NF4, a perplexity of 36.6 becomes 37.8, a rise of 3 %. From 125 million to 13 billion parameters, Dettmers et al. (2023, table 2) report the same winner: mean perplexities of 34.34 for Int4, 31.07 and 29.48 for two kinds of FP4, and 27.41 for NF4 with double quantisation. Why FP4 beats Int4 there, and not here, we do not know. Our model is seventeen times smaller than their smallest: a large one, with as many draws, could change our mind.
#
# NF4 is a good default: a *fixed* codebook, one number for a block, and of these four the smallest error of the weights at its bits. 16 levels fitted to the model would have a slightly smaller one (8.9 % and 9.1 % instead of 9.2 % and 9.4 %).

# %% [markdown]
# ## QLoRA
#
# Now train. Beside the 4-bit weight $\hat W$ stands a LoRA in 32 bits (lesson 06), with $s = \alpha / r$:
#
# $$h = \hat W x + b + s\, B A x .$$
#
# ### Exercise 4 · What gets a gradient? (3 minutes)
#
# Take such a layer in the middle of the model, with input `x`. For which of these does the backward pass compute a gradient? (`norms`: the norms' weights.) `True` or `False`.

# %% tags=["exercise"]
gradient = {"codes": ..., "scales": ..., "A": ..., "B": ..., "x": ..., "norms": ...}

check("13.gradient", gradient)

# %%
gradient = use("13.gradient", gradient)

# %% [markdown]
# PyTorch would keep every dense $\hat W$ for the backward pass. So both directions are written by hand: `forward` computes $\hat W x + b$; `backward` makes $\hat W$ again, sends the output's gradient through it to $x$, and has none for $\hat W$. (`ctx` carries things over.)

# %%
import inspect

from peftlab.quant.linear import MatMul4bit

print(inspect.getsource(MatMul4bit))

# %% [markdown]
# $\hat W$ is made in each pass and thrown away: time for memory. With *checkpointing*, which throws activations away too and computes them again in the backward pass, it is made a third time.

# %%
from peftlab.methods import LoRA

method = LoRA(r=8, lora_alpha=16, target_modules="all-linear")


def fresh(*, four_bits):
    torch.manual_seed(0)  # the same A for both
    model = copy.deepcopy(base)
    return peftlab.attach(quantize_model(model) if four_bits else model, method)


lora, qlora = fresh(four_bits=False), fresh(four_bits=True)
print(qlora.model.layers[0].self_attn.q_proj)
print([name for name, p in qlora.named_parameters() if p.requires_grad][:2], "…")

# %% [markdown]
# The task: define a word. Same start of $A$, same data, same order:

# %% mystnb={"image": {"alt": "Line chart of the training loss over 24 steps for LoRA on the fp32 base and QLoRA on the NF4 base. Both fall from about 5 to below 4, and the two lines almost cover each other."}} tags=["nbval-ignore-output"]
from peftlab.tasks.training import train

words = datasets.load("define_word")
few, held_out = words.definitions("train"), words.definitions("test")[:100]
short = dict(steps=24, lr=2e-3, batch_size=12, max_length=48, seed=0)
runs = [train(model, tokenizer, few, name=name, **short) for name, model in (("LoRA", lora), ("QLoRA", qlora))]
_ = plots.losses(runs)


def loss(model):
    return metrics.evaluate(model, tokenizer, held_out, max_length=64).loss


print(f"held-out words: frozen {loss(base):.2f}, LoRA {loss(lora):.2f}, QLoRA {loss(qlora):.2f} nats per token")

# %%
assert runs[1].losses[-1] < runs[1].losses[0] and abs(runs[0].losses[-1] - runs[1].losses[-1]) < 0.5

# %% [markdown]
# Nearly one curve. Stored runs go further: 120 steps, learning rates chosen on validation data, three seeds.

# %%
trained = Results.load("qlora_tiny")
ways = {"lora": "LoRA on fp32", "qlora": "QLoRA on NF4", "loftq": "NF4 with LoftQ's start"}
plots.table([
    {"way": name, "before training": trained["cells"][f"start/{way}"], "after": sum(after) / 3,
     "lowest": min(after), "highest": max(after)}
    for way, name in ways.items() for after in [quant_figures.losses_of(trained, way)]
], caption="Loss on 300 held-out definitions, nats per token")

# %% [markdown]
# QLoRA ends 0.020 nats higher than LoRA, in all three seeds. That is 1 % of what training gains. The seeds share one rounding; in six draws (seed 0) it ends 0.019 to 0.025 higher. Dettmers et al. (2023) find no loss against 16 bits, on larger models and other tasks.
#
# **LoftQ** (Li et al., 2023), the third row, lets the adapter begin as the best rank-$r$ copy of the rounding error, quantises the rest, and repeats. Five rounds at $r = 8$ bring the error of the weights from 9.2 % to 8.1 %: rounding errors look like noise, without a few strong directions (lesson 06). It ends at 3.219, no better than QLoRA's 3.214; Li et al. gained most at 2 bits. Even before training, over six draws, it has 5.12 on average and QLoRA 5.08: on one kind of text, a smaller error is no promise.
#
# ## Where the memory goes
#
# A step needs memory for weights, adapters, gradients, the optimiser's two numbers for each trained one (its *moments*), and activations. `peftlab.costs` predicts each from a model's config. On a processor we can count every byte.

# %% tags=["nbval-ignore-output"]
from peftlab.course.step_memory import compared

everything = copy.deepcopy(base).requires_grad_(True)
plots.table([
    {"tiny model, 8 × 64 tokens": "full fine-tuning", **compared(everything, "full")},
    {"tiny model, 8 × 64 tokens": "LoRA", **compared(lora, method)},
    {"tiny model, 8 × 64 tokens": "QLoRA", **compared(qlora, method, quantize="nf4")},
])

# %% [markdown]
# Between steps QLoRA holds a third of what LoRA holds. Its peak is only 16 % lower: here most of it is **activations and logits, which quantisation does not touch**. Does that matter for a large model?

# %%
predict("13.activations")

# %% mystnb={"image": {"alt": "Horizontal bars of memory in GiB for one training step of a 65B model with LoRA of rank 64, against a line at 48. LoRA on 16-bit weights takes 137, nearly all weights. QLoRA takes 47; with 8-bit AdamW 40, with the optimiser's states paged out 39. QLoRA without checkpointing takes 62, of which 21 are activations."}}
from peftlab.costs.memory import training

print(f"full, 16-bit weights and gradients, 32-bit moments: {65.2e9 * (2 + 2 + 4 + 4) / 1e9:.0f} GB before activations")
big = dict(model="llama-65b", method=LoRA(r=64, target_modules="all-linear"), batch=1, sequence=512)
steps = {
    "LoRA, 16 bits": training(**big, checkpointing=True),
    "QLoRA": training(**big, checkpointing=True, quantize="nf4"),
    "QLoRA, 8-bit AdamW": training(**big, checkpointing=True, quantize="nf4", optimizer="adamw8bit"),
    "QLoRA, paged AdamW": training(**big, checkpointing=True, quantize="nf4", optimizer="paged_adamw"),
    "QLoRA, no checkpointing": training(**big, quantize="nf4"),
}
_ = quant_figures.memory(steps, line=48, label="48 GiB")

# %% [markdown]
# Twelve bytes for each of 65.2 billion parameters fit the paper's 780 GB. LoRA removes all but the two of the weights, QLoRA makes half a byte of these. (Rank 64 on all linear layers is what the authors' script sets.) Each bar is the moment of the peak, without checkpointing before there are gradients; *working space* is mostly a copy that PyTorch's AdamW makes. And 47 of a card's 48 GiB leave nothing for the driver. Two ways down:
#
# **8-bit AdamW** keeps the moments in 8 bits, block by block (Dettmers et al., 2021; `peftlab.quant.AdamW8bit`). **Paged** optimisers let the driver move them to the host, and back for the update, as far as there is room (so 39 is a lower bound).

# %% [markdown]
# ### On a GPU
#
# One step on an H100, for a model of 6.7 billion parameters with random weights (memory does not depend on them, speed hardly): 4 × 512 tokens, medians of three rounds (speeds: lowest to highest). *Ours* is this lesson's 4-bit layer under our LoRA; the other QLoRA is `peft` on bitsandbytes.

# %%
plots.table(quant_figures.on_a_gpu(Results.load("qlora_scale"), "6.7B"))

# %% [markdown]
# With checkpointing, QLoRA takes 5.3 GiB where LoRA takes 14.3 and full fine-tuning 50.2 (the same as plain: its peak comes with the last gradient, when activations are gone). Plain, most of QLoRA's 21.6 are activations. (Loading 16-bit weights, to quantise them on the card, takes more.)
#
# The price is time. Plain, QLoRA trains 7 % fewer tokens a second than LoRA (23 % in one round of the three); with checkpointing 6 %; with 1.1 billion parameters, 35 %. Ours, with our LoRA too, reaches 71 % of the speed of bitsandbytes (92 % at 1.1 billion), probably because it dequantises in three operations and bitsandbytes in one. LoRA itself, as `peft` ships it, is slower here than full fine-tuning: see [lesson 01](01_scaling_dilemma.ipynb).

# %% [markdown]
# ## A trap: merged into four bits
#
# You merge, as in lesson 06. The weights are dense again, $\hat W + s B A$. So quantise again, same NF4, same blocks: it *was* a 4-bit model before.

# %%
predict("13.requantise")

# %% mystnb={"image": {"alt": "Line chart of the loss on held-out definitions after 15, 30, 60 and 120 steps of training. Merged into the 4-bit base and left dense, it falls from 3.57 to 3.21; merged into the original weights and then quantised, the line nearly covers the first. Merged into the 4-bit base and quantised again, it starts at 4.20 after 15 steps and falls to 3.29 after 120. A dotted line far above marks the untrained model."}}
_ = quant_figures.merging(trained)

# %% [markdown]
# After 15 steps, when training has changed the weights by 2.4 % of their size, 0.3 % of the codes move, and 40 % of the gain is gone, without a word. After the 30 of your guess it is 1.3 % and 29 %. After 120 steps and a change of 6.7 %, 7.2 % of the codes move, and 4 % is lost. (Four lengths, each with its own schedule.) Now your own adapter:

# %% tags=["nbval-ignore-output"]
frozen = quantize_model(copy.deepcopy(base))
merged = peftlab.merge(copy.deepcopy(qlora))
again = quantize_model(copy.deepcopy(merged))
changed, rounded, size, moved = 0.0, 0.0, 0.0, 0
for name, dense in sixteen_levels.block_matrices(merged).items():
    old, new = (model.get_submodule(name).quantized for model in (frozen, again))
    changed += (dense - old.dequantize()).square().sum()
    rounded += (matrices[name] - old.dequantize()).square().sum()
    size += matrices[name].square().sum()
    moved += (new.codes != old.codes).sum()
print(f"training changed the weights by {(changed / size).sqrt():.1%} of their size")
print(f"rounding had changed them by    {(rounded / size).sqrt():.1%}")
print(f"codes that differ after quantising again: {moved / count:.2%}")
print(f"loss: merged {loss(merged):.2f}, quantised again {loss(again):.2f}, never trained {loss(base):.2f}")

# %% [markdown]
# Every weight of $\hat W$ sits *exactly on a level*. A change of less than half the way to the next is rounded away, and after a short training nearly all are. (Scales are measured again too, but matter little: the new scales alone bring the loss from 5.13 to 5.00, the new codes alone to 4.21.)
#
# How can so few codes keep so much? In part because the first bit of a change does most: a tenth of it, left dense, brings 47 % of the gain (15 steps, seed 0). And the few are no random few: 1.8 % move in the value matrices and 1.5 % in the output matrices, under 0.2 % elsewhere.
#
# Original weights lie between levels, so a small change tips some of them over: on average it survives. Hence the mend, the dashed line with squares: put the adapter on the *original* weights, then quantise. That costs 0.017 nats at most, on average over seeds (0.019 in the worst run). Or ship the 4-bit base with the adapter beside it.
#
# ## The riddle
#
# One matrix of SmolLM2, as this course has it, in four formats, and the last one again with its scales in 8 bits:

# %%
smollm2, _ = models.load("smollm2", dtype=torch.bfloat16)
V = smollm2.model.layers[15].self_attn.q_proj.weight.detach().float()
del smollm2
formats = [("nf4", 64, False), ("int4", 32, False), ("int4_asymmetric", 64, False)]
for kind, size, double in [*formats, ("int4_asymmetric", 32, False), ("int4_asymmetric", 32, True)]:
    q = quantize(V, kind, size, double=double)
    error = (q.dequantize() - V).norm() / V.norm()
    print(f"{kind:15} blocks of {size}: error {error:.2%}, {q.bits_per_parameter:.2f} bits")

# %% [markdown]
# Three ordinary errors, and one of 0.14 %. A clever model? Count how many *different* values a run of neighbouring weights has, at most. Beside it, the tiny model:

# %%
def most_values(matrix, length):
    return max(len(run.unique()) for run in matrix.reshape(-1, length))


for length in (8, 16, 32, 64):
    found = {name: most_values(matrix, length) for name, matrix in (("SmolLM2", V), ("tiny", W))}
    print(f"{length:>2} neighbours:  ", ",  ".join(f"{name} {values:>2}" for name, values in found.items()))

# %%
assert most_values(V, 32) == 16 < most_values(V, 64) and most_values(W, 64) == 64
run = V.flatten()[:32].unique()
print("steps between the values of the first 32:", "  ".join(f"{s:.3f}" for s in run.diff().tolist()))

# %% [markdown]
# In the tiny model all neighbours can differ. In SmolLM2 the count stops at 16, up to 32 neighbours. All steps are multiples of 0.040 (this block leaves some levels out), 15 of them from end to end: room for 16. **Somebody has quantised this model before**: 16 even levels between the smallest and the largest of each 32 weights, two 16-bit numbers a block, 5 bits a weight. That is Q4_1, a format of llama.cpp, whose file our SmolLM2 comes from. Asymmetric int4 in blocks of 32 finds the same grid again, if its scales are exact; the 0.14 % are the rounding of the grid points to 16 bits.
#
# **A small quantisation error can be a fact about the model's past.** So ask what the weights went through. That is why our races ran on the two other models.
#
# ## When to use it
#
# **Use QLoRA when** the frozen weights do not fit: large models, short texts, checkpointing on.
#
# **Avoid it when** the model fits without (it costs time in every step), when activations fill the memory, or when you need one merged 4-bit model and have no original weights.
#
# **Unknown:** which format is best for *your* model, until you have measured it, on text, with more than one draw.
#
# ## Check yourself

# %%
quiz("13")

# %% [markdown]
# ## Take away
#
# - A block of weights shares one scale; each keeps the number of the nearest of 16 levels: 4.5 bits, 4.127 with double quantisation.
# - NF4's levels are normal quantiles, with 0 and ±1 forced in: a good fixed codebook.
# - Compare formats at equal bits, on text, and mind two kinds of luck: the text's and the rounding's.
# - QLoRA trains LoRA on a 4-bit base. It shrinks the weights, not the activations.
# - Merged into its 4-bit base and quantised again, a lightly trained adapter is partly rounded away. Test what you ship.
#
# ## Sources
#
# - T. Dettmers et al.: *QLoRA: Efficient Finetuning of Quantized LLMs*, 2023, [arXiv:2305.14314](https://arxiv.org/abs/2305.14314); the script: [finetune_guanaco_65b.sh](https://github.com/artidoro/qlora/blob/main/scripts/finetune_guanaco_65b.sh).
# - T. Dettmers et al.: *8-bit Optimizers via Block-wise Quantization*, 2021, [arXiv:2110.02861](https://arxiv.org/abs/2110.02861).
# - Y. Li et al.: *LoftQ: LoRA-Fine-Tuning-Aware Quantization for Large Language Models*, 2023, [arXiv:2310.08659](https://arxiv.org/abs/2310.08659).
# - D. Yoshida: *NF4 Isn't Information Theoretically Optimal (and that's Good)*, 2023, [arXiv:2306.06965](https://arxiv.org/abs/2306.06965).
# - Stored runs: `python -m peftlab.bench quant_race`, `qlora_tiny`, `qlora_smollm2`; on one H100, `qlora_scale`.

# %% [markdown] tags=["footer"]
# ---
#
# *This is the last one so far.*
