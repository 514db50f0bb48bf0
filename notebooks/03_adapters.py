# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["header"]
# # 03 · Adapters
#
# *60 minutes (45 without the exercises), of which your machine computes for a minute or two. Builds on [B1 · A transformer block and its names](B1_transformer_block.ipynb). No GPU, no network.*

# %% [markdown]
# LoRA, the best-known method of this course, costs nothing when the model runs: train a small $\Delta W$ beside $W$, then **merge** it, $W + \Delta W$, and the model is as fast as before.
#
# Two years before LoRA came **adapters** (Houlsby et al., 2019). They are still used, and they cost time in every forward pass, to this day.
#
# Why does nobody merge them? Try it. In this lesson you
#
# 1. build an adapter from raw tensors, place it in three ways, and wreck a model with it before its first step,
# 2. *try to merge one*: put the best possible matrix in its place and see what is left,
# 3. take out what stood in the way, and measure what not merging costs.

# %%
import copy
import inspect

import torch

import peftlab
from peftlab.bench.results import Results
from peftlab.course import linear_fit
from peftlab.course.exercise import check, hint, solution, use
from peftlab.course.question import predict, quiz
from peftlab.methods import Compacter, Houlsby, LoRA, ParallelAdapter, Pfeiffer
from peftlab.show import adapter_figures, plots
from peftlab.tasks import datasets, metrics, models
from peftlab.tasks.training import train

plots.style()
stored, timed = Results.load("adapter_widths"), Results.load("adapter_latency")
data = datasets.load("wordnet_topics")
base, tokenizer = models.load("minilm", num_labels=len(data.classes))

# %% [markdown]
# The model is MiniLM: six transformer blocks, $d = 384$ numbers for each token. The task: read a dictionary definition, name its topic, one of twelve. For that MiniLM gets one new layer at its end, the **head**: 384 numbers in, 12 scores out. It starts random and trains in every run. (The heads of the attention are something else. Not sure what a block is made of? [Bridge B1](B1_transformer_block.ipynb) takes one apart.)
#
# ## Down, bend, up
#
# An adapter is a small network that reads the vector of one token and adds something to it. One symbol at a time:
#
# | symbol | shape | here | what |
# |---|---|---|---|
# | $h$ | $d$ | 384 | what a layer of the model puts out for a token |
# | $W_{down}$, $b_{down}$ | $m \times d$, $m$ | 16 × 384, 16 | squeeze $h$ to $m$ numbers: the **bottleneck** |
# | $f$ | | ReLU | bend: a nonlinear function, number by number |
# | $W_{up}$, $b_{up}$ | $d \times m$, $d$ | 384 × 16, 384 | back to full size |
#
# $$h + \Delta h(h), \qquad \Delta h(h) = W_{up}\, f(W_{down}\, h + b_{down}) + b_{up}$$
#
# The pretrained weights stay frozen; these four tensors train.
#
# ### Exercise 1 · One adapter (4 minutes)

# %% tags=["exercise"]
def adapter_forward(h, W_down, b_down, W_up, b_up):
    """h + Δh(h) with f = ReLU. h (…, d), W_down (m, d), b_down (m), W_up (d, m), b_up (d)."""
    return ...


check("03.adapter_forward", adapter_forward)
# Stuck? Run hint("03.adapter_forward", 1), then hint("03.adapter_forward", 2), then solution("03.adapter_forward").

# %%
adapter_forward = use("03.adapter_forward", adapter_forward)

# %% [markdown]
# Here is the library's class, which allows two things more: another $f$, and a factor $s$ on the change. (`.to` converts number formats, the dropout is off, `Behind` means: behind a layer.)

# %%
from peftlab.methods.additive.bottleneck import Behind, Bottleneck

print(inspect.getsource(Bottleneck.delta))
print(inspect.getsource(Behind.after))

# %% [markdown]
# ## Where it stands
#
# The formula is half of the method. The other half is *where in the block* it reads and adds:

# %%
adapter_figures.placements()

# %% [markdown]
# - **Houlsby** (2019): two in each block, one after the attention, one after the feed-forward network, both before the residual is added.
# - **Pfeiffer** (2020, in the paper MAD-X): one in each block. On models that normalise after the sum, such as BERT and MiniLM, take $v = x + h$, the sum that is about to be normalised. The adapter reads norm($v$) and adds to $v$; then the norm runs.
# - **Parallel** (He et al., 2021): beside the feed-forward network, reading what that network reads. Its change is multiplied by a fixed $s$, often 4.
#
# (Houlsby et al. also train the LayerNorms. Here they stay frozen.)
#
# ### Exercise 2 · How many numbers? (6 minutes)
#
# MiniLM has six blocks and $d = 384$. Count what trains, without the head: Houlsby's adapters with $m = 16$, then Pfeiffer's. And how wide may Pfeiffer's be, at most, without training more numbers than Houlsby's at $m = 16$?

# %% tags=["exercise"]
parameters = {"Houlsby, m = 16": ..., "Pfeiffer, m = 16": ..., "widest Pfeiffer": ...}

check("03.parameters", parameters)  # stuck? hint("03.parameters", 1)

# %% [markdown]
# Does the library agree? `reduction_factor` is $d / m$. For a classifier, `attach` trains the new head too, 12 · 384 + 12 numbers.

# %%
parameters = use("03.parameters", parameters)
for name, method in {"Houlsby, m = 16": Houlsby(reduction_factor=384 / 16),
                     "Pfeiffer, m = 16": Pfeiffer(reduction_factor=384 / 16)}.items():
    counted = peftlab.count_parameters(peftlab.attach(copy.deepcopy(base), method))
    print(f"{name}: by your count {parameters[name]:,} and the head 4,620; {counted}")

# %% [markdown]
# ## Start near the identity
#
# An adapter stands *in the way* of everything that the model computes. So it begins small: then $h + \Delta h(h) \approx h$. Houlsby et al. draw the weights with a standard deviation of $10^{-2}$; our code, like the `adapters` library, with 0.02.
#
# How large is too large? MiniLM's sentence vectors by themselves sort definitions by topic, if you compare each with the mean vector of every topic's examples. Without any adapter that way gets 77 % right. We put *untrained* adapters in and look what is left of that.

# %% tags=["nbval-ignore-output"]
from peftlab.course import luck

encoder, _ = models.load("minilm")
examples, probes = data.train[:180], data.test[:120]
topics = [torch.tensor(split.labels) for split in (examples, probes)]


def left(std):
    torch.manual_seed(0)
    wrecked = peftlab.attach(copy.deepcopy(encoder), Houlsby(reduction_factor=24, non_linearity="relu", init_std=std))
    known, asked = (luck.sentence_vectors(wrecked, tokenizer, split) for split in (examples, probes))
    return ((asked @ luck.topic_means(known, topics[0]).T).argmax(1) == topics[1]).float().mean().item()


# %% [markdown]
# Drag. At which stop does it fall below 70 %? (On the website the slider is asleep; the next cell prints five of its stops.)

# %% tags=["nbval-ignore-output"]
from peftlab.show.sliders import drag

drag("init_std", [0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0], left, start=0.02,
     describe=lambda std, share: f"standard deviation {std:g}: {share:.0%} right before the first step")

# %% tags=["nbval-ignore-output"]
found = {std: left(std) for std in (0.0, 0.02, 0.05, 0.1, 0.5)}
print({std: f"{share:.0%}" for std, share in found.items()}, "guessing: 8%")
assert min(found[0.02], found[0.05]) > found[0.0] - 0.06 and found[0.5] < 0.5 * found[0.0]

# %% [markdown]
# Up to about 0.05 next to nothing is lost. From there it goes fast: twice the deviation, four times the change (two matrices), in twelve places in a row. LoRA and the parallel adapter avoid the question: one of their two matrices starts at exactly zero.
#
# ## Is it really Houlsby's adapter?
#
# Hugging Face `peft` has no bottleneck adapters. The library of their authors, `adapters`, does, but it needs an older `transformers` than this course. So we ran it once, in an environment of its own, and stored what it computes for random weights: outputs, gradients, five training losses. Ours must give the same:

# %%
from peftlab import parity

golden = datasets.data_folder().parent / "tests" / "golden" / "adapters"
parity.prove_stored(golden / "houlsby_bert.safetensors", reasons=False)

# %% [markdown]
# The tests do this for 20 such files: all placements, Compacter, three architectures.
#
# ## Train it
#
# Sixty steps of 16 definitions, one seed: the head alone, and Houlsby's adapters with $m = 16$ and ReLU. (The head at the stored runs' learning rate, the adapters at half of it, as the batches are half as large.)

# %% mystnb={"image": {"alt": "Line chart of training loss over 60 steps. Both curves start at the same height. The head alone falls slowly; Houlsby's adapters fall faster and end clearly lower."}} tags=["nbval-ignore-output"]
few, held_out = data.train[:800], data.test[:300]
short = dict(steps=60, batch_size=16, seed=0)

head = copy.deepcopy(base).requires_grad_(False)
head.classifier.requires_grad_(True)
torch.manual_seed(0)
model = peftlab.attach(copy.deepcopy(base), Houlsby(reduction_factor=24, non_linearity="relu"))
runs = [train(head, tokenizer, few, held_out, lr=3e-3, name="head only", **short),
        train(model, tokenizer, few, held_out, lr=5e-3, name="Houlsby, m = 16", **short)]
plots.losses(runs)
plots.runs(runs, caption="60 steps of 16, one seed, 300 test definitions")

# %%
assert runs[1].accuracy > runs[0].accuracy - 0.02 and runs[1].losses[-1] < runs[0].losses[-1]

# %% [markdown]
# One short run proves little. The stored runs are longer: 90 steps of 32, learning rates chosen on validation data, 1,200 test definitions, three seeds for adapters and five for the others. Large marks are means, small ones single seeds; the axis begins at 80 %.

# %% mystnb={"image": {"alt": "Test accuracy against trained parameters on a logarithmic axis. Houlsby’s adapters with m = 1, 16 and 64 form a flat line at about 0.86. Pfeiffer's and the parallel adapters with m = 16 and Compacter with m = 12 lie at the same height. LoRA on all matrices, ranks 1 to 8, lies a little higher and ends at 0.87. A dotted line for the head alone lies at 0.81, a solid one for full fine-tuning at 0.87."}}
scissors = Results.load("scissors")
_ = adapter_figures.widths(stored, scissors)

# %% [markdown]
# **Width hardly matters here.** Houlsby's adapters: with $m = 1$ they reach 86.0 %, with 16 85.4 %, with 64 85.6 %. The head alone has 80.6 %, LoRA on query and value 86.0 %, on all matrices 86.9 % at $r = 8$, full fine-tuning 87.4 %. With $m = 1$, what an adapter adds at a token depends on a *single number*: 13,836 parameters in twelve places, and about four fifths of the way from the head alone to full fine-tuning is done.
#
# **No difference between the places shows.** Pfeiffer's adapters reach 85.4 % and the parallel ones 85.8 %, both with $m = 16$ and half as many parameters as Houlsby's; Compacter, which you meet further down, reaches 86.0 % with a tenth.
#
# How sure? The rows differ by about as much as the seeds do, and by less than the error of 1,200 texts, about one point. On a harder task width may matter.
#
# ## Try to merge it
#
# Houlsby's adapter stands right behind a linear layer (`attention.output.dense` or `output.dense`) that computes $h = W x + b$. Suppose that $\Delta h$ were linear, $\Delta h(h) = M h + c$ with a matrix $M$ of shape $d \times d$ and a vector $c$ of size $d$. Then the adapter could go.
#
# ### Exercise 3 · Merge what stands behind (8 minutes)
#
# Return the weight and bias of *one* linear layer that gives $h + M h + c$ when it reads $x$.

# %% tags=["exercise"]
def merge_behind(W, b, M, c):
    """W' and b' with W' x + b' = h + M h + c, where h = W x + b. W (d, d_in), b (d), M (d, d), c (d)."""
    return ...


check("03.merge_behind", merge_behind)  # stuck? hint("03.merge_behind", 1)

# %%
merge_behind = use("03.merge_behind", merge_behind)

# %% [markdown]
# A real adapter has ReLU inside, so no $M$ and $c$ are exactly right. But perhaps nearly: a unit of ReLU that is *always* on is linear, and so is one that is always off. Only units that switch bend.

# First record what each of the twelve trained adapters reads and adds, token by token, and how often its units are on.

# %% mystnb={"image": {"alt": "Dots for the 16 units of each of twelve adapters: the share of tokens for which each is on. Most lie below one half, several at or near zero, none at one. Grey crosses, a stored run, lie far lower, most below one tenth."}} tags=["nbval-ignore-output"]
fitted_on = linear_fit.recorded(model, tokenizer, data.validation[:400])
shares = linear_fit.units(model, fitted_on)
every = torch.tensor([share for each in shares.values() for share in each])
print(f"{len(every)} units: {(every == 1).sum()} always on, {(every == 0).sum()} always off")
_ = adapter_figures.units(shares, stored)

# %% [markdown]
# None is always on. In the stored runs (grey: more data, twice the rate) the units are mostly *off*: of 576 in three runs 45 are always off, and the median unit is on for 2 % of the tokens. For 12 % to 98 % of the tokens, by adapter, *no* unit is on. There the adapter adds $b_{up}$, the same vector every time. Off for most tokens, on for a few: a map that is right for the many may miss the few.
#
# Now the best linear map. For each adapter, take the tokens of 400 validation definitions as rows of a matrix, and find the $M$ and $c$ with the smallest squared error, by least squares. Test them on *other* definitions, and on text of another kind.

# %%
print(inspect.getsource(linear_fit.fit))

# %% mystnb={"image": {"alt": "R² of the linear map for each of twelve adapters. On other definitions they lie between one half and nearly one. On Bible verses nearly all are lower, and one or more are below zero. Grey marks, the stored runs, lie lower: most between one fifth and nine tenths on definitions, and several below zero on verses."}} tags=["nbval-ignore-output"]
maps = {site: linear_fit.fit(*tokens) for site, tokens in fitted_on.items()}
other_rows = linear_fit.recorded(model, tokenizer, held_out[:200])
other_text = linear_fit.recorded(model, tokenizer, linear_fit.verses(100))
here, there = ({site: linear_fit.explained(maps[site], *tokens[site]) for site in maps}
               for tokens in (other_rows, other_text))
_ = adapter_figures.explained(here, there, stored)

# %% [markdown]
# $R^2$ is the share of what *varies* in $\Delta h$, from token to token, that the map explains; 1 would be all of it. Your adapters, after a short run, are nearly linear. The grey ones, trained longer, are not: the median of the 36 adapters falls from 0.48 on other definitions to 0.22 on Bible verses, where 11 lie below zero. There the map is worse than the constant that is their mean.
#
# And the model? Merge the twelve maps, each into the layer in front of it. For comparison: only the *mean* of what each adapter adds, a constant (it goes into the bias); and no adapters at all. The trained head stays in all of them.

# %%
predict("03.merged")

# %% tags=["nbval-ignore-output"]
site = next(iter(maps))
layer = peftlab.surgery.adapted_modules(model)[site].base
instead = {"the adapters themselves": model, "best linear maps, merged": linear_fit.merged(model, maps),
           "their means, merged": linear_fit.merged(model, linear_fit.means(fitted_on)),
           "nothing": linear_fit.without(model)}
W, b = merge_behind(layer.weight, layer.bias, *maps[site])
theirs = instead["best linear maps, merged"].get_submodule(site)
print("your merged layer is the model's:", torch.allclose(W, theirs.weight, atol=1e-5))

# %% tags=["nbval-ignore-output"]
truth = torch.tensor(held_out.labels)
said = {name: linear_fit.answers(each, tokenizer, held_out) for name, each in instead.items()}
same = {name: (each == said["the adapters themselves"]).float().mean().item() for name, each in said.items()}
right = {name: (each == truth).float().mean().item() for name, each in said.items()}
plots.table([{"in their place": name, "right": right[name], "same answer as with the adapters": same[name]}
             for name in said], caption="300 test definitions, one short run")

# %%
assert right["nothing"] < right["the adapters themselves"] + 0.01 and 0.5 < same["nothing"] < 0.98
assert same["best linear maps, merged"] > 0.85 and sum(here.values()) / len(here) < 0.9

# %% [markdown]
# Stored numbers: three seeds, 90 steps, 1,200 test definitions. Two things are true at once.
#
# **These adapters are not linear.** The best map leaves about half of what differs from token to token unexplained.
#
# **And the accuracy hardly notices.** With the adapters 85.4 % are right, with the maps 85.3 %, and 98 % of the answers are the same. Even a constant does: the means give 85.0 % and 96 % of the answers. Without any, 76.3 % are left, less than the 80.6 % of a head that was trained alone: this head, we take it, has learnt to expect what the adapters add.
#
# How can both be true? Because most of what they add does *not* differ from token to token. Of all that they add, $\sum \|\Delta h\|^2$ on other definitions, their mean alone makes up 77 %, the map 91 %. What varies is the rest. What this task needs is mostly a shift, the same for every token, and a shift merges into a bias. The control: adapters of which only $b_{up}$ trains, a constant and nothing else, 4,608 numbers in all. Trained like the others they reach 85.9 %, as much as the whole adapters with their 152,256 numbers.
#
# Can you merge an adapter, then? Not as a function. On this test the two look alike. On 200 Bible verses the maps keep 93 % of the answers, the means 89 %. If you ever merge an approximation, compare answers, not only accuracy, and on the kind of text that will come.
#
# ## Take out what stands in the way
#
# So leave the nonlinearity out from the start. Without $f$, $\Delta h(h) = W_{up} W_{down}\, h + (W_{up}\, b_{down} + b_{up})$: a matrix $M$ of *rank* at most $m$ (it has no more than $m$ directions to write in: [bridge B3](B3_outer_product_to_svd.ipynb)), and it merges exactly. What does that cost in accuracy?

# %%
predict("03.without_f")

# %% tags=["nbval-ignore-output"]
torch.manual_seed(0)
straight = peftlab.attach(copy.deepcopy(base), Houlsby(reduction_factor=24, non_linearity="linear"))
straight_run = train(straight, tokenizer, few, held_out, lr=5e-3, name="Houlsby, linear", **short)
merged = peftlab.merge(copy.deepcopy(straight))
print(f"ReLU {runs[1].accuracy:.3f}, linear {straight_run.accuracy:.3f}, "
      f"linear and merged {metrics.accuracy(merged, tokenizer, held_out):.3f}")
batch = tokenizer(held_out.texts[:16], padding=True, return_tensors="pt")
with torch.no_grad():
    gap = (merged(**batch).logits - straight.eval()(**batch).logits).abs().max()
print(f"largest difference between merged and unmerged: {gap:.0e}, in scores of about 1 to 10")
assert gap < 1e-3

# %% [markdown]
# It merges exactly, up to rounding, and no loss shows: stored, three seeds, at the rate chosen for ReLU, 85.2 % without the bend, 85.4 % with it. (It merges *because* it stands behind one linear layer. Pfeiffer's place, behind a norm, and the parallel one, around a whole network, do not merge even without $f$.)
#
# ### And you have LoRA
#
# One step more. Leave out the biases, and move the linear adapter from *behind* a layer to *beside* it: it reads what the layer reads, $x$, and adds to what the layer puts out,
#
# $$W x + s\, W_{up} W_{down}\, x .$$
#
# Call $W_{down}$ by the name $A$, $W_{up}$ by the name $B$, the width $m$ by the name $r$, and write $s$ as a chosen $\alpha$ divided by $r$. That is **LoRA** (Hu et al., 2021), letter by letter. With `target_modules`, our `ParallelAdapter` stands beside any layer that you name, and beside *one* linear layer it merges. Same numbers in both, on query and value:

# %%
beside = ParallelAdapter(target_modules=["query", "value"], reduction_factor=48, scaling=2.0, non_linearity="linear")
branch = peftlab.attach(copy.deepcopy(base), beside)  # m = 384 / 48 = 8
lora = peftlab.attach(copy.deepcopy(base), LoRA(target_modules=["query", "value"], r=8, lora_alpha=16))
with torch.no_grad():
    for site, wrapper in peftlab.surgery.adapted_modules(branch).items():
        if site == "classifier":
            continue
        ours = wrapper.adapters["default"]
        theirs = peftlab.surgery.adapted_modules(lora)[site].adapters["default"]
        ours.adapter_up.weight.normal_(std=0.02)  # no longer zero; the biases stay zero, as LoRA has none
        theirs.lora_A.weight.copy_(ours.adapter_down.weight)
        theirs.lora_B.weight.copy_(ours.adapter_up.weight)
one, two = (peftlab.merge(each).get_parameter("bert.encoder.layer.0.attention.self.query.weight")
            for each in (branch, lora))
print("merged weights, bit for bit the same:", torch.equal(one, two))

# %% [markdown]
# To be merged, an adapter has to give up its bend and stand next to one linear layer. LoRA does both. Standing *beside* the layer makes $BA$ read and write like $W$; one matrix at zero makes the start exact.
#
# ## The price of not merging
#
# What does it cost to keep the adapter? Its matrices are thin. Guess what the clock says.

# %%
predict("03.latency")

# %% [markdown]
# We take MiniLM with 1 to 32 texts of 32 or 128 tokens, SmolLM2 with three smaller sizes, on one thread of a CPU. All variants take turns; each mark is a median at one size, and the larger it is, the more tokens there were. Upper marks are one session, lower marks another. ($m = 16$, Compacter 12; LoRA $r = 8$.) The model without an adapter is measured twice, and merged LoRA is the same arithmetic: they show the noise.

# %% mystnb={"image": {"alt": "Two panels of marks, MiniLM and SmolLM2, one row for each variant, time relative to the model without an adapter, two sessions. The second measurement of that model and merged LoRA lie around 1. Pfeiffer, parallel, Houlsby and LoRA on query and value lie between 0.98 and 1.13 in MiniLM, in no strict order of size. LoRA on all matrices lies between 1.20 and 1.43, Compacter between 1.05 and 1.38. In SmolLM2 the order is the same and the distances are smaller."}}
_ = adapter_figures.latency(timed)

# %% [markdown]
# Noise first. In each session the second measurement of the same model and merged LoRA stay within 5 % of 1. From one session to the next single ratios moved by up to 20 points. Trust the order of the rows, not the digits. The numbers below are means of both.
#
# Houlsby's adapters make one text of 32 tokens 10 % slower, 32 of them 3 %. They add 1.4 % to the multiplications in both cases; but each product is a call of its own, and for one short text the calls are most of the extra time, we think. Pfeiffer's and the parallel adapters, half as many, cost 7 % and 5 % for the one text. Hu et al. (2021, table 1), on GPT-2 medium and a GPU, found 30 % for one text of 128 tokens (21 % with a leaner placement) and 3 % for 32 texts of 512: the same direction, a cleaner curve. Compacter is the slowest adapter, 34 %.
#
# **Unmerged, LoRA costs time as adapters do.** On query and value it stands in twelve places, like Houlsby's adapters ($r = 8$ against $m = 16$), and costs 11 % for the one text. On all 36 matrices it costs 20 % to 33 % in MiniLM, more than Houlsby's at every size. (A part of that is our code: it multiplies by $s$ and adds in two passes over the whole output.) What LoRA has ahead is that you *may* merge it. A server that keeps many LoRAs apart pays too; how much depends on its code ([lesson 07](07_lora_at_work.ipynb)).
#
# All this is CPU time on a machine that did other work too. Try it on yours, for one text:

# %% tags=["nbval-ignore-output"]
from statistics import median

from peftlab.bench.adapter_latency import cpu_seconds

row = tokenizer(held_out.texts[:1], return_tensors="pt")
ways = {"no adapter": base, "linear, merged": merged, "Houlsby": model.eval()}
with torch.no_grad():
    rounds = [{way: cpu_seconds(lambda each=each: each(**row), calls=4) for way, each in ways.items()}
              for _ in range(13)]
for way in ways:
    print(f"{way:15} {median(each[way] / each['no adapter'] for each in rounds[1:]):.2f}")

# %% [markdown]
# ## Two ways to make them smaller
#
# **Compacter** (Karimi Mahabadi et al., 2021) keeps the formula and builds both matrices from less. The *Kronecker product* of two matrices puts a copy of the second in the place of every number of the first, multiplied by it. Compacter sums four of them. The first factors, 4 × 4, are shared by the whole model; each second one is an outer product of two thin pieces:

# %%
from peftlab.methods.additive.compacter import PHMLayer

print(inspect.getsource(PHMLayer.weight.fget))
compact = peftlab.attach(copy.deepcopy(base), Compacter())
print(peftlab.count_parameters(compact))

# %% [markdown]
# Twelve adapters of width 12 in 14,320 numbers; Houlsby's of that width have 115,344. Few numbers, but not little work: its matrices are multiplied out anew in every pass, which a server could do once and keep.
#
# **AdapterDrop** (Rücklé et al., 2020) leaves the adapters of the first blocks out: up to there the model computes the same for every task, once for all of them. (`drop_adapters` in the library; its cost in accuracy we have not measured.)
#
# ## A trap: the safest start of all
#
# Near the identity is good. Is *exactly* the identity better? Somebody sets `init_std=0`, and both matrices start at zero. No error, no warning, and the loss falls. What will $W_{up}$ look like after 20 steps? Decide, then run.

# %% tags=["nbval-ignore-output"]
starts = {"both matrices zero": Houlsby(reduction_factor=24, init_std=0.0),
          "only W_up zero": Houlsby(reduction_factor=24, init_weights="mam_adapter")}
ends = {}
for name, method in starts.items():
    trial = peftlab.attach(copy.deepcopy(base), method)
    run = train(trial, tokenizer, few, lr=5e-3, steps=20, batch_size=16, name=name)
    ups = [each.adapter_up.weight.abs().max().item() for each in linear_fit.adapters_behind(trial).values()]
    ends[name] = max(ups)
    print(f"{name}: loss {run.losses[0]:.2f} → {sum(run.losses[-4:]) / 4:.2f}, "
          f"largest number in any W_up: {max(ups):.3f}")

# %%
assert ends["both matrices zero"] == 0 < ends["only W_up zero"]

# %% [markdown]
# After 20 steps *all* of $W_{up}$ is still zero. The gradient of $W_{up}$ is built from $f(W_{down} h + b_{down})$, which is zero; the gradient of $W_{down}$ from $W_{up}$, which is zero too. Each waits for the other. What makes the loss fall is the head, and $b_{up}$, a constant. The accuracy would not have told you: this broken adapter *is* the control from above. The mend is one matrix at zero, not two. To notice the trap, look at the tensors that should have moved.
#
# ## When to use adapters
#
# **Use them when** you have reason to want a nonlinear change (our task gave none), or build on systems that stack and combine them (languages and tasks, say).
#
# **Avoid them when** latency for one short text counts, when LoRA on all matrices is as easy to have ($r = 8$ was ahead by 0.9 to 1.4 points here), when the software that serves the model knows nothing of them, or when you want peft's tools: it does not have them.
#
# **Unknown:** what the bend earns, and on which task. Here it is nothing that three seeds can show. But this is one easy task and one small model, one learning rate for each kind, and ReLU in all but Compacter.
#
# ## Check yourself

# %%
quiz("03")

# %% [markdown]
# ## Take away
#
# - An adapter goes down to $m$ numbers, bends, goes up, and is added. Where it stands is the other half of the method.
# - It starts near the identity: small weights, or *one* matrix at zero. Two zeros never learn, and neither loss nor accuracy need tell you.
# - The bend keeps it from merging. Here even a constant in its place kept nearly all the accuracy. The same accuracy is not the same function.
# - Without the bend, next to one linear layer, it merges. Beside that layer and without biases, it is LoRA.
# - Unmerged, every method costs time: adapters, and LoRA too. What can be merged need not.
#
# ## Sources
#
# - N. Houlsby et al.: *Parameter-Efficient Transfer Learning for NLP*, 2019, [arXiv:1902.00751](https://arxiv.org/abs/1902.00751).
# - J. Pfeiffer et al.: *MAD-X: An Adapter-Based Framework for Multi-Task Cross-Lingual Transfer*, 2020, [arXiv:2005.00052](https://arxiv.org/abs/2005.00052).
# - A. Rücklé et al.: *AdapterDrop: On the Efficiency of Adapters in Transformers*, 2020, [arXiv:2010.11918](https://arxiv.org/abs/2010.11918).
# - R. Karimi Mahabadi et al.: *Compacter: Efficient Low-Rank Hypercomplex Adapter Layers*, 2021, [arXiv:2106.04647](https://arxiv.org/abs/2106.04647).
# - E. Hu et al.: *LoRA: Low-Rank Adaptation of Large Language Models*, 2021, [arXiv:2106.09685](https://arxiv.org/abs/2106.09685). Latency: table 1.
# - J. He et al.: *Towards a Unified View of Parameter-Efficient Transfer Learning*, 2021, [arXiv:2110.04366](https://arxiv.org/abs/2110.04366).
# - Data: WordNet 3.0, Princeton University; World English Bible. Model: all-MiniLM-L6-v2, Apache-2.0. Stored runs: `python -m peftlab.bench adapter_widths` and `adapter_latency`, in `data/results`.

# %% [markdown] tags=["footer"]
# ---
#
# **Next:** [04 · Soft prompts](04_soft_prompts.ipynb), load a typed prompt as numbers, then train a prompt that nobody typed.
