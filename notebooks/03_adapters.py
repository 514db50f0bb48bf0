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
# LoRA costs nothing when the model runs: train a small $\Delta W$ beside $W$, then **merge** it, $W + \Delta W$, and the model is as fast as before.
#
# Two years before LoRA came **adapters** (Houlsby et al., 2019). They are still used, and they cost time in every forward pass. Why does nobody merge them? Try it. You
#
# 1. build an adapter from raw tensors, place it in three ways, and wreck a model with it before its first step,
# 2. train adapters of several widths beside full fine-tuning,
# 3. *try to merge one*, and then take out what stood in the way.

# %%
import copy
import inspect

import torch

import peftlab
from peftlab.bench.results import Results
from peftlab.course import linear_fit
from peftlab.course.exercise import check, hint, solution, use
from peftlab.course.question import predict, quiz
from peftlab.methods import Houlsby, LoRA, ParallelAdapter, Pfeiffer
from peftlab.show import adapter_figures, plots
from peftlab.tasks import datasets, metrics, models
from peftlab.tasks.training import train

# %%
plots.style()
stored, timed = Results.load("adapter_widths"), Results.load("adapter_latency")
data = datasets.load("wordnet_topics")
base, tokenizer = models.load("minilm", num_labels=len(data.classes))

# %% [markdown]
# The model is MiniLM: six transformer blocks, $d = 384$ numbers for each token. The task: read a dictionary definition, name its topic, one of twelve. For that it gets one new layer at its end, the **head**: 384 numbers in, 12 scores out. It starts random and trains in every run. (Not the heads of the attention.)
#
# ## Down, bend, up
#
# An adapter is a small network that reads the vector of one token and adds something to it:
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
# Here is the library's class, which also allows another $f$ and a factor $s$ on the change. (`.to` converts number formats; the dropout is off.)

# %%
from peftlab.methods.additive.bottleneck import Behind, Bottleneck

print(inspect.getsource(Bottleneck.delta))
print(inspect.getsource(Behind.after))

# %% [markdown]
# ## Where it stands
#
# The other half of the method is *where in the block* it reads and adds:

# %%
adapter_figures.placements()

# %% [markdown]
# - **Houlsby** (2019): two in each block, one after the attention, one after the feed-forward network, both before the residual is added.
# - **Pfeiffer** (2020, in the paper MAD-X): one in each block. In BERT and MiniLM it stands where the block is about to normalise the sum $v = x + h$. It reads norm($v$) and adds to $v$; then the norm runs.
# - **Parallel** (He et al., 2021): beside the feed-forward network, reading what that network reads. Its change is multiplied by a fixed $s$, often 4.
#
# (Houlsby's paper also trains the LayerNorms. Here they stay frozen.)
#
# ### Exercise 2 · How many numbers? (6 minutes)
#
# Count what trains in MiniLM's six blocks, $d = 384$, without the head: Houlsby's adapters with $m = 16$, then Pfeiffer's. And how wide may Pfeiffer's be, at most, without training more numbers than Houlsby's at $m = 16$?

# %% tags=["exercise"]
parameters = {"Houlsby, m = 16": ..., "Pfeiffer, m = 16": ..., "widest Pfeiffer": ...}

check("03.parameters", parameters)
# Stuck? hint("03.parameters", 1), hint("03.parameters", 2), solution("03.parameters")

# %% [markdown]
# Does the library agree? `reduction_factor` is $d / m$. `attach` trains the head too, 12 · 384 + 12 numbers.

# %%
parameters = use("03.parameters", parameters)
for name, method in {"Houlsby, m = 16": Houlsby(reduction_factor=384 / 16),
                     "Pfeiffer, m = 16": Pfeiffer(reduction_factor=384 / 16)}.items():
    counted = peftlab.count_parameters(peftlab.attach(copy.deepcopy(base), method))
    print(f"{name}: by your count {parameters[name]:,} and the head 4,620; {counted}")

# %% [markdown]
# ## Start near the identity
#
# An adapter stands *in the way* of everything that the model computes. So it begins small: then $h + \Delta h(h) \approx h$. Houlsby et al. draw the weights with a standard deviation of $10^{-2}$, our code with 0.02.
#
# How large is too large? MiniLM's sentence vectors by themselves sort definitions by topic: compare each with the mean vector of every topic's examples. We put *untrained* adapters in and look what is left.

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
# At 0 the model is untouched. At which stop is it wrecked? Guess, then drag. (On the website the slider is asleep; the next cell prints some stops.)

# %% tags=["nbval-ignore-output"]
from peftlab.show.sliders import drag

drag("init_std", [0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0], left, start=0.02,
     describe=lambda std, share: f"standard deviation {std:g}: {share:.0%} right before the first step")

# %% tags=["nbval-ignore-output"]
found = {std: left(std) for std in (0.0, 0.02, 0.05, 0.1, 0.5)}
print({std: f"{share:.0%}" for std, share in found.items()}, "guessing: 8%")
assert min(found[0.02], found[0.05]) > found[0.0] - 0.06 and found[0.5] < 0.5 * found[0.0]

# %% [markdown]
# Up to about 0.05 next to nothing is lost. Then it goes fast: twice the deviation is four times the change (two matrices), in twelve places in a row. LoRA and the parallel adapter start with a change of exactly zero.
#
# ## Is it really Houlsby's adapter?
#
# Hugging Face `peft` has no bottleneck adapters. The library `adapters` does, but needs an older `transformers`. So we ran it once and stored what it computes for random weights. Ours must give the same:

# %%
from peftlab import parity

golden = datasets.data_folder().parent / "tests" / "golden" / "adapters"
proof = parity.prove_stored(golden / "houlsby_bert.safetensors").check()
proof.left_out = {}  # what does not apply, and why, is the question of this lesson
proof

# %% [markdown]
# The tests do this for 20 such files.
#
# ## Train it
#
# Sixty steps of 16 definitions, one seed: the head alone, and Houlsby's adapters with $m = 16$ and ReLU, at half the learning rate of the stored runs, as the batches are half as large.

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
# One short run proves little. The stored runs are longer: 90 steps of 32, learning rates chosen on validation data (one seed, one width), 1,200 test definitions, three seeds for adapters, five for the others. Large marks are means, small ones single seeds; the axis begins at 80 %.

# %% mystnb={"image": {"alt": "Test accuracy against trained parameters on a logarithmic axis. Houlsby’s adapters with m = 1, 16 and 64 form a flat line at about 0.86. Pfeiffer's and the parallel adapters with m = 16 and Compacter with m = 12 lie at the same height. LoRA on all matrices, ranks 1 to 8, lies a little higher and ends at 0.87. A dotted line for the head alone lies at 0.81, a solid one for full fine-tuning at 0.87."}}
scissors = Results.load("scissors")
_ = adapter_figures.widths(stored, scissors)

# %% [markdown]
# **Width hardly matters here.** Houlsby's adapters: with $m = 1$ they reach 86.0 %, with 16 85.4 %, with 64 85.6 %. The head alone has 80.6 %, LoRA on query and value 86.0 %, on all matrices with $r = 8$ 86.9 %, full fine-tuning 87.4 %. With $m = 1$, what an adapter adds at a token depends on a *single number*: 13,836 parameters, and about four fifths of the way from the head alone to full fine-tuning is done.
#
# **No difference between the places shows.** Pfeiffer's adapters reach 85.4 % and the parallel ones 85.8 %, both with $m = 16$ and half as many parameters as Houlsby's; Compacter (more below) reaches 86.0 % with a tenth. These rows differ by about as much as the seeds do, and by less than the error of 1,200 texts, about one point. A harder task may differ.
#
# ## Try to merge it
#
# Houlsby's adapter stands right behind a linear layer that computes $h = W x + b$ (in MiniLM `attention.output.dense` or `output.dense`). Suppose $\Delta h(h) = M h + c$, with a matrix $M$ of shape $d \times d$ and a vector $c$ of size $d$. Then the adapter could go.
#
# ### Exercise 3 · Merge what stands behind (8 minutes)
#
# Return the weight and bias of *one* linear layer that gives $h + M h + c$ when it reads $x$.

# %% tags=["exercise"]
def merge_behind(W, b, M, c):
    """W' and b' with W' x + b' = h + M h + c, where h = W x + b. W (d, d_in), b (d), M (d, d), c (d)."""
    return ...


check("03.merge_behind", merge_behind)
# Stuck? hint("03.merge_behind", 1), hint("03.merge_behind", 2), solution("03.merge_behind")

# %%
merge_behind = use("03.merge_behind", merge_behind)

# %% [markdown]
# With ReLU inside, no $M$ and $c$ are exactly right. But perhaps nearly: a unit of ReLU that is *always* on is linear, and so is one that is always off.
#
# Record what each of the twelve trained adapters reads and adds, and how often its units are on.

# %% mystnb={"image": {"alt": "Dots for the units of each of twelve adapters: the share of tokens for which each is on. In your short run most lie below one half, none at one. Grey ones, of the stored runs, crowd at zero."}} tags=["nbval-ignore-output"]
fitted_on = linear_fit.recorded(model, tokenizer, data.validation[:400])
shares = linear_fit.units(model, fitted_on)
every = torch.tensor([share for each in shares.values() for share in each])
print(f"{len(every)} units: {(every == 1).sum()} always on, {(every == 0).sum()} always off")
_ = adapter_figures.units(shares, stored)

# %% [markdown]
# None is always on. The grey ones, of the stored runs (more data, twice the rate), are mostly *off*: of 576 in three runs 45 are always off, and the median unit is on for 2 % of the tokens. For 12 % to 98 % of the tokens, by adapter, *no* unit is on: there it adds $b_{up}$, the same every time. A map that is right there may still miss the other tokens.
#
# Now the best linear map: for each adapter the $M$ and $c$ with the smallest squared error over the tokens of 400 validation definitions (stored runs: 720). Test them on *other* definitions, and on text of another kind, Bible verses.

# %%
print(inspect.getsource(linear_fit.fit))

# %% mystnb={"image": {"alt": "Two panels, R² of the linear map for each of twelve adapters. On other definitions those of the short run lie between one half and nearly one, the grey ones of the stored runs mostly lower. On Bible verses nearly all are lower, and some below zero."}} tags=["nbval-ignore-output"]
maps = {site: linear_fit.fit(*tokens) for site, tokens in fitted_on.items()}
other_rows = linear_fit.recorded(model, tokenizer, held_out[:200])
other_text = linear_fit.recorded(model, tokenizer, linear_fit.verses(100))
here, there = ({site: linear_fit.explained(maps[site], *tokens[site]) for site in maps}
               for tokens in (other_rows, other_text))
_ = adapter_figures.explained(here, there, stored)

# %% [markdown]
# $R^2$ is the share of what *varies* in $\Delta h$, from token to token, that the map explains. It is 1 for all of it, and below zero where a constant, the mean, would be better. Most of your adapters are nearly linear. The grey ones, trained longer, are not: the median of the 36 adapters is 0.48 on other definitions and 0.22 on Bible verses, where 11 lie below zero.
#
# And the model? Merge the twelve maps, each into the layer in front of it. For comparison: only the *mean* of what each adapter adds, a constant; and no adapters at all. The trained head stays.

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
longer = [1.0, *adapter_figures.same_answers(stored).values()]
plots.table([{"in their place": name, "right": right[name], "same answer": same[name], "same answer, stored runs": old}
             for name, old in zip(said, longer, strict=True)],
            caption="300 test definitions, one short run; stored: 1,200, mean of three runs")

# %%
assert right["nothing"] < right["the adapters themselves"] + 0.01 and 0.5 < same["nothing"] < 0.98
assert same["best linear maps, merged"] > 0.85 and sum(here.values()) / len(here) < 0.9

# %% [markdown]
# **The longer-trained adapters are not linear.** The best map leaves about half of what differs from token to token unexplained.
#
# **And the accuracy hardly notices.** Stored, three seeds: with the adapters 85.4 % are right, with the maps 85.3 %, and 98 % of the answers are the same. Even a constant does: the means give 85.0 % and 96 % of the answers. Without any, 76.3 % are left, less than the 80.6 % of a head that was trained alone: this one, we take it, has learnt to expect the adapters.
#
# How can both be true? Because most of what they add does *not* differ from token to token. Of all that they add to other definitions, $\sum \|\Delta h\|^2$, their mean alone makes up 77 %, the map 91 %. What the map misses lies in the rest, which varies. This task needs mostly a shift, the same for every token, and a shift merges into a bias. The control: adapters of which only $b_{up}$ trains, 4,608 numbers in all. They reach 85.9 %, as much as the whole adapters with their 152,256.
#
# Can you merge an adapter, then? Not as a function. On this test the two look alike; on 200 Bible verses the maps keep 93 % of the answers, the means 89 %, nothing 47 %. If you merge an approximation, compare answers, not only accuracy, on the kind of text that will come.
#
# ## Take out what stands in the way
#
# So leave $f$ out from the start: $\Delta h(h) = W_{up} W_{down}\, h + (W_{up}\, b_{down} + b_{up})$: a matrix $M$ of *rank* at most $m$ (no more than $m$ directions to write in: [Bridge B3](B3_outer_product_to_svd.ipynb)). It merges exactly. What does that cost in accuracy?

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
# It merges exactly, up to rounding, and no loss shows: stored, three seeds, at the rate chosen for ReLU, 85.2 % without the bend, 85.4 % with it. (It merges *because* it stands behind one linear layer. Pfeiffer's, behind a norm, and the parallel one, around a whole network, do not, even without $f$.)
#
# ### And you have LoRA
#
# Leave out the biases too, and move the linear adapter from *behind* a layer to *beside* it: it reads what the layer reads, $x$,
#
# $$W x + s\, W_{up} W_{down}\, x .$$
#
# Call $W_{down}$ by the name $A$, $W_{up}$ by the name $B$, and $s$ by the name $\alpha / r$. That is **LoRA** (Hu et al., 2021), letter by letter; its rank $r$ is our $m$, and $\alpha$ is a number you choose. Same numbers in both, on query and value. (With `target_modules`, `ParallelAdapter` stands beside *one* linear layer, and then it merges.)

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
# To be merged, an adapter has to give up its bend and stand next to one linear layer. LoRA does both. *Beside* the layer, $BA$ reads and writes like $W$; one matrix at zero makes the start exact.
#
# ## The price of not merging
#
# What does it cost to keep the adapter? Its matrices are thin. Guess what the clock says.

# %%
predict("03.latency")

# %% [markdown]
# One thread of a CPU: MiniLM with 1 to 32 texts of 32 or 128 tokens, SmolLM2 with three smaller sizes. All variants take turns; each mark is a median at one size. Upper marks are the first session, lower the second. ($m = 16$ in MiniLM, 24 in SmolLM2; LoRA $r = 8$; ReLU, but GELU in Compacter.) The model without an adapter is measured twice, and merged LoRA is the same arithmetic: the grey rows show the noise.

# %% mystnb={"image": {"alt": "Two panels of marks, MiniLM and SmolLM2, one row for each variant, time relative to the model without an adapter, two sessions. The second measurement of that model and merged LoRA lie around 1. Pfeiffer, parallel, Houlsby and LoRA on query and value lie between 0.98 and 1.13 in MiniLM, in no strict order of size. LoRA on all matrices lies between 1.20 and 1.43, Compacter between 1.05 and 1.38. In SmolLM2 the distances are smaller."}}
_ = adapter_figures.latency(timed)

# %% [markdown]
# Noise first. In each session the grey rows stay within 5 % of 1. From one session to the next, single ratios moved by up to 20 points: trust the order of the rows, not the digits, which are means of both.
#
# Houlsby's adapters make one text of 32 tokens 10 % slower, 8 of them 9 %, 32 of them 3 %. They add 1.4 % to the multiplications in every case; for one short text the calls are most of the extra time, we think. Hu et al. (2021, table 1) measured 30 % for one text of 128 tokens (GPT-2 medium, a GPU), and 3 % for 32 texts of 512. Ours goes the same way, but is no clean curve.
#
# **Compacter** (Karimi Mahabadi et al., 2021) builds both matrices from small pieces, some shared by the whole model. Twelve adapters of width 12 take 14,320 numbers; Houlsby's of that width take 115,344. Yet Compacter is the slowest adapter, 34 %. Our code multiplies its matrices out anew in every pass; a server could do that once.
#
# **Unmerged, LoRA costs time as adapters do.** On query and value it stands in twelve places, like Houlsby's adapters ($r = 8$ against $m = 16$), and costs 11 % for the one text. On all 36 matrices it costs 20 % to 33 % in MiniLM, more than Houlsby's at every size; part of that are two passes over the whole output that our code could save. But LoRA you *may* merge. (A server that keeps many LoRAs apart pays too: [lesson 07](07_lora_at_work.ipynb).)
#
# All this is one thread on a machine that did other work too. Try yours, for one text:

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
# After 20 steps *all* of $W_{up}$ is still zero. Its gradient is built from $f(W_{down} h + b_{down})$, which is zero; that of $W_{down}$ from $W_{up}$, which is zero too. Each waits for the other. The loss falls by the head and $b_{up}$, a constant. The accuracy would not have told you: this broken adapter *is* the control from above. The mend is one matrix at zero, not two. To notice, look at the tensors that should have moved.
#
# ## When to use adapters
#
# **Use them when** you have reason to want a nonlinear change (our task gave none), or build on systems that combine them (languages and tasks, say). In our runs they came within a point of LoRA on query and value.
#
# **Avoid them when** latency for one short text counts, or when you serve with software that has none, such as peft. In our runs LoRA on all matrices, $r = 8$, was ahead of them by 0.9 to 1.4 points.
#
# **Unknown:** what the bend earns, and on which task. Here it is nothing that three seeds can show; but this is one easy task, one small model, one learning rate for each kind, and ReLU in all but Compacter (GELU).
#
# ## Check yourself

# %%
quiz("03")

# %% [markdown]
# ## Take away
#
# - An adapter goes down to $m$ numbers, bends, goes up, and is added, in a place that is half of the method.
# - It starts near the identity: small weights, or *one* matrix at zero. Two zeros never learn, and the loss need not tell you.
# - The bend keeps it from merging. Here even a constant in its place kept nearly all the accuracy; the same accuracy is not the same function.
# - Without the bend, next to one linear layer, it merges. Beside that layer and without biases, it is LoRA.
# - Unmerged, both cost time, adapters and LoRA. What can be merged need not.
#
# ## Sources
#
# - N. Houlsby et al.: *Parameter-Efficient Transfer Learning for NLP*, 2019, [arXiv:1902.00751](https://arxiv.org/abs/1902.00751).
# - J. Pfeiffer et al.: *MAD-X: An Adapter-Based Framework for Multi-Task Cross-Lingual Transfer*, 2020, [arXiv:2005.00052](https://arxiv.org/abs/2005.00052).
# - R. Karimi Mahabadi et al.: *Compacter: Efficient Low-Rank Hypercomplex Adapter Layers*, 2021, [arXiv:2106.04647](https://arxiv.org/abs/2106.04647).
# - E. Hu et al.: *LoRA: Low-Rank Adaptation of Large Language Models*, 2021, [arXiv:2106.09685](https://arxiv.org/abs/2106.09685). Latency: table 1.
# - J. He et al.: *Towards a Unified View of Parameter-Efficient Transfer Learning*, 2021, [arXiv:2110.04366](https://arxiv.org/abs/2110.04366).
# - Data: WordNet 3.0, Princeton University; World English Bible. Model: all-MiniLM-L6-v2, Apache-2.0. Stored runs: `python -m peftlab.bench adapter_widths` and `adapter_latency`, in `data/results`.

# %% [markdown] tags=["footer"]
# ---
#
# **Next:** [04 · Soft prompts](04_soft_prompts.ipynb), load a typed prompt as numbers, then train a prompt that nobody typed.
