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
# *90 minutes (60 without the exercises), of which your machine computes for about a minute. Builds on [06 · LoRA, with scissors](06_lora.ipynb). No GPU, no network.*

# %% [markdown]
# Tuning a model of 65 billion parameters in the usual way takes more than 780 GB of memory. In 2023, a single card of 48 GB did it (Dettmers et al., 2023). Half of the trick is LoRA. The other half sounds absurd: let every frozen weight take one of only **16 values**.
#
# How can 16 be enough, and which 16? Here you place them yourself, race yours against those that the world uses, train on top of them, and walk into a trap. Then a riddle: one model of this course fits into 4 bits almost without error. Why?

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
# Write it for several blocks, one in each row of `w`, and any codebook `levels`: return $\hat w$.

# %% tags=["exercise"]
def round_trip(w, levels):
    """Each row of w, (blocks, n), is a block: what quantisation to the levels, (k,), makes of it. Same shape."""
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
    back = quantize(spoiled, kind="int4", blocksize=blocksize, double=False).dequantize()
    print(f"one scale for {blocksize:>6} weights: error of the other rows {(back - W)[1:].norm() / W[1:].norm():.1%}")

# %% [markdown]
# With one scale for the matrix, every other weight is rounded to 0: error 100 %. Blocks of at most a row, 256 weights, keep the damage inside it (Dettmers et al., 2021). QLoRA takes 64 weights to a scale. (LLM.int8() meets outliers of another kind, in what flows *through* the layers: a few features, which from about 6.7 billion parameters on are found in every layer. Columns with a value above 6 are multiplied in 16 bits, the others in 8: Dettmers et al., 2022, and `peftlab.quant.int8`.)
#
# ## Place 16 levels
#
# Below is the histogram of that query matrix, each weight divided by its scale. Where would you put 16 levels? Get your error as low as you can, and only then ask for the others.

# %%
from peftlab.show.widgets.sixteen_levels import place_levels

explorer = place_levels(W, "a query matrix of the tiny model")
explorer

# %% [markdown]
# Even levels have 10.0 %. The integers $-7, \dots, 7$ of *int4* are even too, but only 15, for the sake of having 0 among them: 10.8 %. **FP4**, as bitsandbytes ships it, does worst, 12.2 %: four of its 16 codes mean nearly zero. **NF4** has 9.2 %, without having seen this matrix. Fitting 16 levels to it gains little more: 8.8 %. So where do NF4's levels come from?
#
# ## NF4 from its definition
#
# Pretrained weights are roughly normally distributed. So let every level answer for the same share of them. Let $\Phi(z)$ be the share of a standard normal distribution below $z$. The **quantile** $\Phi^{-1}(p)$ is the number below which lies the share $p$. Evenly spaced $p$ give levels that crowd where weights crowd.
#
# Two wishes bend the plan (Dettmers et al., 2023, section 3): 0 must stay 0, and the largest weight of a block, $\pm 1$, must stay too. So these are levels. Hence two halves, 7 levels below 0 and 8 above. Each goes from $p = ½$ to a last $p = 1 - \delta$ ($p = 1$ would be infinite) and is divided by its largest. The authors take $\delta = ½(\tfrac{1}{30} + \tfrac{1}{32})$, in their code $1 - \delta = 0.9677083$.
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
assert torch.allclose(nf4, levels_of("nf4"), atol=1e-6)

# %% mystnb={"image": {"alt": "Above, a histogram of the query matrix's weights divided by their scales: a bell around 0 with small towers at -1 and 1. Below, a row of marks for each codebook. Yours (even, if nothing was dragged) and int4 are evenly spaced; FP4 has wide gaps around 0 with two marks close together in the middle; NF4's marks crowd around 0 and spread towards the ends."}}
_ = quant_figures.codebooks(W, explorer.levels)

# %% [markdown]
# The paper calls this codebook information-theoretically optimal for normal weights. Does every level really answer for the same share?

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
# The library that everybody uses is bitsandbytes. Equal means: every code, every scale, every value that comes back.

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
# The course's tests do this for many shapes and formats, and for whole training runs beside `peft`. They found a fault: on some processors bitsandbytes reads a matrix back wrongly, without a word, if its width is no multiple of the block, like the 688 of one of ours. How is your processor?

# %% tags=["nbval-ignore-output"]
if theirs:
    D = matrices["model.layers.3.mlp.down_proj"]
    packed, state = theirs.quantize_4bit(D, blocksize=64, quant_type="nf4")
    for who, back in (("theirs", theirs.dequantize_4bit(packed, state)), ("ours", quantize(D).dequantize())):
        print(f"{who:6} error of a {D.shape[0]} × {D.shape[1]} matrix: {(back - D).norm() / D.norm():.1%}")

# %% [markdown]
# Around 9 % is right. If the first line says far more, you see the fault: the stored bytes are right, what is read from them is not.
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
rows.append({"levels": "yours", "block": 64, "bits": rows[0]["bits"],
             **{f"{model}, error in %": 100 * error for model, error in mine.items()}})
plots.table(rows, caption="All matrices of the blocks together; scales in 8 bits, and counted")

# %% [markdown]
# Look at equal bits, not at equal blocks. With blocks of 64, asymmetric int4 beats NF4 on 54 of the tiny model's 56 matrices. But it pays 4.25 bits for that, as much as NF4 with blocks of 32, which has the smaller error on all 92. At 4.13 bits the same: 9.2 % against 10.1 % and, for symmetric int4, 10.8 %.
#
# But nobody reads weights. What happens to *text*? We take 1,200 documents that the tiny model has never seen: definitions of nouns and of other words, Bible verses in modern and in King James English. Their loss is 3.600 nats per token with full weights, a perplexity of 36.6.

# %%
predict("13.race")

# %% mystnb={"image": {"alt": "Two charts of the loss above fp32. Above, against bits per weight, from 4.03 to 4.51, a line for each of four formats over block sizes, with bars of six draws. NF4 stays lowest and nearly flat, from 0.042 at 4.03 bits to 0.035 at 4.25; symmetric int4 falls from 0.076 to 0.039, FP4 from 0.101 to 0.060, asymmetric int4 from 0.060 at 4.06 bits to 0.024 at 4.51. Below, the same points against the squared error of the weights: all lie near one rising line."}}
stored = Results.load("quant_race")
_ = quant_figures.race(stored)

# %% [markdown]
# Slow down: we were nearly fooled. Measured once, in blocks of 64, NF4 and int4 cost 0.045 and 0.047 nats per token more than full weights. A bootstrap over documents (in pairs, 95 %) put their difference between −0.004 and 0.009: perhaps none. And it found NF4 better with blocks of *128* than of 64, by 0.008, the interval excluding 0, though its weights are less exact.
#
# That interval knows the text's luck. There is another kind: a weight between two levels goes up or down by a hair, and six million such accidents add up. *One rounding is one draw.* So we drew again: shuffle the columns of each matrix, so that every weight gets other neighbours and another scale, quantise, put them back. Same format, same bits, same text, and the loss moves by up to 0.027. Points in the figure are means of six draws, bars go from the lowest to the highest.
#
# With both kinds of luck in view:
#
# - **NF4 does less harm than symmetric int4** at the same 4.13 bits: 0.034 against 0.049 nats, and in all six orders. With fewer scales it is further ahead: 0.042 against 0.076 in blocks of 256.
# - **Asymmetric int4** needs 0.13 bits more to come as far: 0.036 at 4.25 bits, and 0.051 at 4.13.
# - **FP4 is worst**: 0.071.
# - **The harm follows the square of the error** (lower chart): over all 16 points, their correlation is 0.98. Where training has made the loss flat, a random change of the weights by $\epsilon$ costs about $\epsilon^2$.
#
# So the error of the weights is a good guide, one measurement of the loss a poor one. With NF4, a perplexity of 36.6 becomes 37.8, a rise of 3 %. From 125 million to 13 billion parameters, Dettmers et al. (2023, table 2) report the same winner: mean perplexities of 34.34 for Int4, 31.07 for FP4 (E2M1) and 27.41 for NF4 with double quantisation. Why does FP4 beat Int4 there and not here? bitsandbytes' smallest level is 1/192; with 1/12, as E2M1 has it, FP4's error falls from 12.2 % to 10.6 %, below int4's. Ours is one model, seventeen times smaller than their smallest: a large one with outliers, measured with as many draws, could change our mind.
#
# What is NF4 for, then? A *fixed* codebook, one number to store for a block, and the smallest error at its bits in both models. A good default, no law of nature: 16 levels fitted to the model would have a slightly smaller one (8.9 % and 9.1 % instead of 9.2 % and 9.4 %).

# %% [markdown]
# ## QLoRA
#
# Now train. The 4-bit weight $\hat W$ is frozen; beside it stands a LoRA in 32 bits (lesson 06), with $s = \alpha / r$:
#
# $$h = \hat W x + b + s\, B A x .$$
#
# Codes are whole numbers and have no gradient. $x$ has one: adapters in earlier layers need it. This is the layer's whole arithmetic:

# %%
import inspect

from peftlab.quant.linear import MatMul4bit

print(inspect.getsource(MatMul4bit))

# %% [markdown]
# $\hat W$ is made when needed, twice in each step, and thrown away: time for memory.
#
# ### Exercise 4 · What trains? (3 minutes)
#
# Which of these get an update from the optimiser in QLoRA? `True` or `False`.

# %% tags=["exercise"]
trains = {"codes": ..., "scales": ..., "A": ..., "B": ..., "norms": ...}

check("13.trains", trains)

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
plots.losses(runs)


def loss(model):
    return metrics.evaluate(model, tokenizer, held_out, max_length=64).loss


print(f"held-out words: frozen {loss(base):.2f}, LoRA {loss(lora):.2f}, QLoRA {loss(qlora):.2f} nats per token")

# %%
assert runs[1].losses[-1] < runs[1].losses[0] and abs(runs[0].losses[-1] - runs[1].losses[-1]) < 0.5

# %% [markdown]
# The curves nearly cover each other. Stored runs go further: 120 steps, learning rates chosen on validation data, three seeds.

# %%
trained = Results.load("qlora_tiny")
ways = {"lora": "LoRA on fp32", "qlora": "QLoRA on NF4", "loftq": "NF4 with LoftQ's start"}
plots.table([
    {"way": name, "before training": trained["cells"][f"start/{way}"], "after": sum(after) / 3,
     "lowest": min(after), "highest": max(after)}
    for way, name in ways.items() for after in [quant_figures.losses_of(trained, way)]
], caption="Loss on 300 held-out definitions, nats per token")

# %% [markdown]
# QLoRA ends 0.020 nats higher than LoRA, in all three seeds. That is 1 % of what training gains. But the seeds share one rounding, and another draw could move it. Dettmers et al. (2023) find no loss against 16 bits, on larger models and other tasks.
#
# **LoftQ** (Li et al., 2023) is the third row. It lets the adapter begin as the best rank-$r$ copy of the rounding error, quantises what is left, and repeats. Five rounds at $r = 8$ bring the error of the weights from 9.2 % to 8.1 %. That is little: rounding errors look like noise, without a few strong directions (lesson 06). Before training it is the worst of the three (5.15); after, it ends at 3.219, no better than QLoRA's 3.214. Li et al. gained most at 2 bits, where there is more error.
#
# ## Where the memory goes
#
# A step needs memory for weights, adapters, gradients, the optimiser's two numbers for each trained one, and activations. `peftlab.costs` predicts each from a model's config. On a processor we can count every byte.

# %% tags=["nbval-ignore-output"]
from peftlab.course.step_memory import compared

everything = copy.deepcopy(base).requires_grad_(True)
plots.table([
    {"tiny model, 8 × 64 tokens": "full fine-tuning", **compared(everything, "full")},
    {"tiny model, 8 × 64 tokens": "LoRA", **compared(lora, method)},
    {"tiny model, 8 × 64 tokens": "QLoRA", **compared(qlora, method, quantize="nf4")},
])

# %% [markdown]
# Predicted and measured agree. Between steps QLoRA holds a third of what LoRA holds. Its peak is only 16 % lower: here most of it is **activations, which quantisation does not touch**. On a large model the weights rule. Back to the beginning:

# %%
predict("13.card")

# %% mystnb={"image": {"alt": "Horizontal bars of memory in GiB for one training step of a 65B model with LoRA of rank 64, against a line at 48. LoRA on 16-bit weights takes 137, nearly all weights. QLoRA takes 47; with 8-bit AdamW 40, with the optimiser's states paged out 41. QLoRA without checkpointing takes 62, of which 21 are activations."}}
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
# Twelve bytes for each of 65.2 billion parameters: there are the 780 GB. LoRA removes all but the two of the weights, QLoRA makes half a byte of these. (Rank 64 on all linear layers is what the authors' script for a 65B model sets.) Without checkpointing, the activations of one text of 512 tokens are already too much.
#
# **8-bit AdamW** keeps the two moments in 8 bits, in blocks of 256 with a scale each: about 2 bytes a trained parameter instead of 8 (Dettmers et al., 2021; `peftlab.quant.AdamW8bit`, bit for bit that of bitsandbytes). **Paged** optimisers keep them where the driver can move them from card to host, so that a long text pushes them out for a moment instead of crashing the run. A processor has nothing to move: we cannot show it here.
#
# On SmolLM2 and a laptop's processor, measured once, eight steps of QLoRA held 364 MB of tensors at the peak, and eight of LoRA 734 MB (`qlora_smollm2`). What it does to quality that model cannot tell: wait for the riddle.

# %% [markdown]
# ### On a GPU
#
# The same on an H100, for a model of 6.7 billion parameters with random weights (neither memory nor speed depends on them): 4 × 512 tokens, three rounds. *Ours* is this lesson's 4-bit layer under our LoRA; the other QLoRA is `peft` on bitsandbytes.

# %%
plots.table(quant_figures.on_a_gpu(Results.load("qlora_scale"), "6.7B"))

# %% [markdown]
# With checkpointing, QLoRA takes 5.3 GiB where LoRA takes 14.3 and full fine-tuning 50.2. Without, activations are most of it, and QLoRA still takes 21.6. It is bought with time: every weight is dequantised in each pass, so QLoRA trains 7 % fewer tokens a second than LoRA. Ours reaches 71 % of the speed of bitsandbytes: a look-up, a product and a cast one after the other, where bitsandbytes has a kernel that does them at once. And LoRA itself, as `peft` ships it, is slower here than full fine-tuning: [lesson 01](01_scaling_dilemma.ipynb) has more on that.

# %% [markdown]
# ## A trap: merged into four bits
#
# Training is done. You merge, as in lesson 06. The weights are dense again, $\hat W + s B A$, and memory is back where it was. So quantise again, same NF4, same blocks: it *was* a 4-bit model before.

# %%
predict("13.requantise")

# %% mystnb={"image": {"alt": "Line chart of the loss on held-out definitions after 15, 30, 60 and 120 steps of training. Merged into the 4-bit base and left dense, it falls from 3.57 to 3.21; merged into the original weights and then quantised, the line nearly covers the first. Merged into the 4-bit base and quantised again, it starts at 4.20 after 15 steps and falls to 3.29 after 120. A dotted line far above marks the untrained model."}}
_ = quant_figures.merging(trained)

# %% [markdown]
# After 15 steps, when training has changed the weights by 2.4 % of their size, 0.3 % of the codes move, and 40 % of the gain is gone, without a word. After 120 steps and a change of 6.7 %, 7.2 % of the codes move, and 4 % is lost. Why so few moved codes keep so much of the gain we do not know. Where the rest goes, your own adapter shows:

# %% tags=["nbval-ignore-output"]
frozen = quantize_model(copy.deepcopy(base))
before = {name: frozen.get_submodule(name).quantized for name in matrices}
merged = peftlab.merge(copy.deepcopy(qlora))
dense = sixteen_levels.block_matrices(merged)
again = quantize_model(copy.deepcopy(merged))
name = "model.layers.3.self_attn.q_proj"
start, now = before[name].dequantize(), again.get_submodule(name).quantized
print(f"training changed the weights by {(dense[name] - start).norm() / start.norm():.1%} of their size")
print(f"rounding had changed them by    {(start - W).norm() / W.norm():.1%}")
print(f"codes that differ after quantising again: {(now.codes != before[name].codes).float().mean():.2%}")
print(f"loss: merged {loss(merged):.2f}, quantised again {loss(again):.2f}, never trained {loss(base):.2f}")

# %% [markdown]
# Every weight of $\hat W$ sits *exactly on a level*. A change of less than half the way to the next is rounded away, and after a short training nearly all are. Original weights lie between levels, so a small change tips some of them over: on average it survives. Hence the mend, the dashed line: put the adapter on the *original* weights, then quantise. That costs 0.017 nats at most. Or ship the 4-bit base with the adapter beside it.
#
# ## The riddle
#
# SmolLM2, as this course has it, loses almost nothing in 4 bits. One of its matrices under four settings:

# %%
smollm2, _ = models.load("smollm2", dtype=torch.bfloat16)
V = smollm2.model.layers[15].self_attn.q_proj.weight.detach().float()
del smollm2
for kind, size in (("nf4", 64), ("int4", 32), ("int4_asymmetric", 64), ("int4_asymmetric", 32)):
    back = quantize(V, kind, size, double=False).dequantize()
    print(f"{kind:15} blocks of {size}: error {(back - V).norm() / V.norm():.2%}")

# %% [markdown]
# Three ordinary errors, and one of 0.14 %. A clever model? How many *different* values does a run of neighbouring weights have? Move the slider, and find the length at which something changes.

# %% tags=["nbval-ignore-output"]
from peftlab.show.sliders import drag


def most_values(length):
    return max(len(run.unique()) for run in V.reshape(-1, length))


drag("neighbours:", [8, 16, 32, 64, 96], most_values, start=8,
     describe=lambda n, found: f"no run of {n} neighbours has more than {found} different values")

# %%
assert most_values(32) == 16 and most_values(64) > 16
run = V.flatten()[:32].unique()
print("steps between the values of the first 32:", "  ".join(f"{s:.3f}" for s in run.diff().tolist()))

# %% [markdown]
# In 32 neighbours there are never more than 16 values, on an even grid. **Somebody has quantised this model before**: 16 even levels between the smallest and the largest of each 32 weights, two 16-bit numbers a block, 5 bits a weight. That is Q4_1, the format of its file. Asymmetric int4 in blocks of 32 finds the same grid again; the 0.14 % are the rounding of those grid points to 16 bits.
#
# **A small quantisation error can be a fact about the model's past.** Before you report one, ask what the weights went through. That is why our races ran on the two other models.
#
# ## When to use it
#
# **Use QLoRA when** the frozen weights do not fit: large models, short texts, checkpointing on.
#
# **Avoid it when** the model fits without (making $\hat W$ anew costs time in every step), when activations fill the memory (shorten texts or checkpoint first), or when you need one merged 4-bit model and have no original weights.
#
# **Unknown:** which format is best for *your* model, until you have measured it, on text, with more than one draw.
#
# ## Check yourself

# %%
quiz("13")

# %% [markdown]
# ## Take away
#
# - A block of weights shares one scale; each keeps the number of the nearest of 16 levels: 4.5 bits with the scales, 4.127 with double quantisation.
# - NF4's levels are normal quantiles, with 0 and ±1 forced in: a good fixed codebook.
# - Compare formats at equal bits, on held-out text, and mind two kinds of luck: the text's and the rounding's.
# - QLoRA trains LoRA on a 4-bit base. It shrinks the weights, not the activations.
# - Merged into its 4-bit base and quantised again, a lightly trained adapter is partly rounded away. Test what you ship.
#
# ## Sources
#
# - T. Dettmers et al.: *QLoRA: Efficient Finetuning of Quantized LLMs*, 2023, [arXiv:2305.14314](https://arxiv.org/abs/2305.14314); the script: [finetune_guanaco_65b.sh](https://github.com/artidoro/qlora/blob/main/scripts/finetune_guanaco_65b.sh).
# - T. Dettmers et al.: *8-bit Optimizers via Block-wise Quantization*, 2021, [arXiv:2110.02861](https://arxiv.org/abs/2110.02861).
# - T. Dettmers et al.: *LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale*, 2022, [arXiv:2208.07339](https://arxiv.org/abs/2208.07339).
# - Y. Li et al.: *LoftQ: LoRA-Fine-Tuning-Aware Quantization for Large Language Models*, 2023, [arXiv:2310.08659](https://arxiv.org/abs/2310.08659).
# - D. Yoshida: *NF4 Isn't Information Theoretically Optimal (and that's Good)*, 2023, [arXiv:2306.06965](https://arxiv.org/abs/2306.06965).
# - Stored runs: `python -m peftlab.bench quant_race`, `qlora_tiny`, `qlora_smollm2`; on one H100, `qlora_scale`.

# %% [markdown] tags=["footer"]
# ---
#
# *This is the last one so far.*
