# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["header"]
# # 05 · Selective tuning
#
# *80 minutes (50 without the exercises), of which your machine computes for about a minute. Builds on [B1 · A transformer block and its names](B1_transformer_block.ipynb). No GPU, no network.*

# %% [markdown]
# Here is a bet. A pretrained model has 22.6 million numbers. You may train one in two hundred, 0.5 %, wherever you like; all others stay. Three people choose:
#
# - one takes the numbers that the task is most *sensitive* to (highest **Fisher information**),
# - one takes the *largest* numbers,
# - one draws them *at random*.
#
# All three get the same data, the same number of steps, and each the learning rate ("rate" for short) that suits it. By how much will the first beat the last? Write down your guess.

# %%
import copy
import inspect

import torch

import peftlab
from peftlab.bench.results import Results
from peftlab.course.exercise import check, hint, solution, use
from peftlab.course.question import predict, quiz
from peftlab.methods import BEFT, BitFit, FishMask, LastLayers, SHiRA
from peftlab.methods.selective import sparse
from peftlab.methods.selective.fishmask import empirical_fisher
from peftlab.show import plots, selective_figures
from peftlab.tasks import datasets, models
from peftlab.tasks.training import train

# %%
plots.style()
stored = Results.load("selective")
data = datasets.load("wordnet_topics")
base, tokenizer = models.load("minilm", num_labels=len(data.classes))

# %% [markdown]
# The model is MiniLM, six transformer blocks, 384 numbers for each token. The task: read a dictionary definition, name its topic, one of twelve. A new layer at the end, the **head**, turns the model's vector into twelve scores; it starts random and trains in every run. All else is the **encoder**; the bet is about its numbers.
#
# ## A mask
#
# Write all numbers of the encoder as one long vector $\theta \in \mathbb{R}^N$, here $N$ = 22,565,376. A **selective method** trains
#
# $$\theta' = \theta + m \odot \delta, \qquad m \in \{0, 1\}^N .$$
#
# $\delta$ is the change, $\odot$ multiplies entry by entry, and the **mask** $m$ has $k$ ones. Nothing is added: the trained model has its old shape and speed. But *which* ones?
#
# ## How much does the task feel a number?
#
# Show the model one definition $x$ with its topic $y$, and take the gradient of $\log p_\theta(y \mid x)$ with respect to $\theta_j$. Large, of either sign, means: a small step of this number changes much of what the model says. Sung et al. (2021) square it and average over $n$ examples:
#
# $$\hat F_j = \frac{1}{n} \sum_{i=1}^{n} \left( \frac{\partial \log p_\theta(y_i \mid x_i)}{\partial \theta_j} \right)^2 .$$
#
# The Fisher information is a matrix of $N \times N$; this is its diagonal, estimated from examples ("empirical"). Their method, **FISH Mask**, trains the $k$ numbers where it is largest. It scores *before* training, so the head is still random. Keep that in mind.
#
# ### Exercise 1 · Fisher (3 minutes)
#
# `G` holds the gradients of one tensor, one example after the other: its first dimension counts examples.

# %% tags=["exercise"]
def fisher(G):
    """F̂ of every entry of a tensor. G (n, *shape): its gradient for each of n examples. Returns (*shape)."""
    return ...


check("05.fisher", fisher)
# Stuck? Run hint("05.fisher", 1), then hint("05.fisher", 2), then solution("05.fisher").

# %% [markdown]
# The gradients must come one example at a time. A training step averages over its batch first, and there opposite signs cancel. Check your function on one matrix, and see what that shortcut would choose. (The model's loss is $-\log p$; the square removes the sign.)

# %% tags=["nbval-ignore-output"]
fisher = use("05.fisher", fisher)
name = "bert.encoder.layer.5.attention.output.dense.weight"
rows = next(datasets.batches(data.train, tokenizer, batch_size=32, seed=0))
singles = [{key: value[i : i + 1] for key, value in rows.items()} for i in range(32)]
matrix = base.eval().get_parameter(name)
G = torch.stack([torch.autograd.grad(base(**one).loss, matrix)[0] for one in singles])
scores = empirical_fisher(base, [rows])
print("yours is the library's:", torch.allclose(fisher(G), scores[name], rtol=1e-3, atol=1e-12))

k = G[0].numel() // 200
right, shortcut = (F.flatten().topk(k).indices for F in (fisher(G), G.mean(0) ** 2))
print(f"of its top 0.5 %, the square of the mean finds {torch.isin(shortcut, right).float().mean():.0%}")

# %% [markdown]
# ### Exercise 2 · One ranking for all (10 minutes)
#
# Now the mask. The scores are a dictionary, name of tensor → scores. All tensors compete in one ranking: a tensor may get many places, or none. Return True where a number trains. (There are 22 million scores: `topk` manages so many, `quantile` does not.)

# %% tags=["exercise"]
def top_k_masks(scores, k):
    """name -> mask of True and False, shaped like the tensor; k True in all tensors together."""
    return ...


check("05.top_k_masks", top_k_masks)

# %% mystnb={"image": {"alt": "Three maps of where the chosen numbers lie, block by block and kind by kind. Fisher's choice crowds into the last block, into values, the attention's output and the feed-forward network. The largest numbers lie in queries, keys, the feed-forward network of the lower blocks, and word embeddings. Half of the random choice lies in the word embeddings, the rest evenly in all blocks."}} tags=["nbval-ignore-output"]
top_k_masks = use("05.top_k_masks", top_k_masks)
encoder = {name: F for name, F in scores.items() if not name.startswith("classifier")}
N = sum(F.numel() for F in encoder.values())
sizes = {name: base.get_parameter(name).detach().abs() for name in encoder}
masks = {"highest Fisher": top_k_masks(encoder, round(0.005 * N)),
         "largest magnitude": top_k_masks(sizes, round(0.005 * N)),
         "at random": top_k_masks({name: torch.rand(F.shape) for name, F in encoder.items()}, round(0.005 * N))}
_ = selective_figures.where({title: selective_figures.counts(mask) for title, mask in masks.items()})

# %% [markdown]
# The numbers are percent of the choice. **Fisher** crowds into the top: in the stored runs, which have 1,024 examples where you have 32, 56 % of its choice lies in the last block, and 29 % in the output matrices of the attention. Queries and keys get 1 % together. Of the **largest** numbers, 40 % are queries and keys. The **random** choice takes what there is most of: 53 % is embeddings, mostly of words that no definition uses. 46 % of the random numbers have a Fisher information of exactly zero.
#
# Would you change your bet?

# %% [markdown]
# ## The class
#
# The library keeps $k$ values and their places:

# %%
print(inspect.getsource(sparse.added_at))

# %% [markdown]
# Hugging Face `peft` has no FISH Mask. It has **SHiRA** (Bhardwaj et al., 2024), which trains chosen entries of single linear layers, $r\,(d_{in} + d_{out})$ of each. On one layer its formula is ours, so there we compare. (P0 to P5 are the course's levels of proof.)

# %%
from peftlab import parity

shira = SHiRA(r=2, target_modules=["query", "value"])
parity.prove(base, shira, next(datasets.batches(data.train, tokenizer, batch_size=5, seed=0)))

# %% [markdown]
# ## A trap: one rate for all
#
# Now train: 20 steps of 16 definitions, one seed. The head has a rate of its own, 3e-3; we set that of the mask. First the obvious comparison: Fisher and random at the *same* rate, 1e-3. Then random at ten times that. (This takes about half a minute.)

# %%
few, held_out = data.train[:320], data.test[:200]


def masked(scores):
    torch.manual_seed(0)
    return peftlab.attach(copy.deepcopy(base), FishMask(keep_ratio=0.005, scores=scores))


def run(name, model, lr):
    own = dict(model.named_parameters())
    head = [p for n, p in own.items() if p.requires_grad and "classifier" in n]
    rest = [p for n, p in own.items() if p.requires_grad and "classifier" not in n]
    adamw = torch.optim.AdamW([{"params": head, "lr": 3e-3}, {"params": rest, "lr": lr}], weight_decay=0.0)
    return train(model, tokenizer, few, held_out, optimizer=adamw, steps=20, batch_size=16, name=name)


# %% mystnb={"image": {"alt": "Line chart of training loss over 20 steps. Random at the rate 1e-3 falls slowly. Fisher at 1e-3 and random at 1e-2 fall faster and end clearly lower, close to each other."}} tags=["nbval-ignore-output"]
fish = masked(encoder)
runs = {"fisher": run("Fisher, rate 1e-3", fish, 1e-3),
        "same": run("random, rate 1e-3", masked("random"), 1e-3),
        "own": run("random, rate 1e-2", masked("random"), 1e-2)}
plots.losses(list(runs.values()))
plots.runs(list(runs.values()), caption="20 steps of 16, one seed, 200 test definitions")

# %%
ends = {name: sum(each.losses[-5:]) / 5 for name, each in runs.items()}
assert ends["fisher"] < ends["same"] - 0.1 and ends["own"] < ends["same"] - 0.1

# %% [markdown]
# At the same rate Fisher is far ahead. With a rate of its own, random is back in the race. **Equal settings are not a fair comparison. Equal search is.** That random masks need large rates is what Xu and Zhang (2024) found.
#
# ## The bet, settled
#
# The stored runs: 90 steps of 32 on all 2,880 definitions, five seeds, 1,200 test definitions. For every way to choose and every budget, the rate was searched on 720 validation definitions with seed 0, until the best one had a worse neighbour on either side. Lock in your bet.

# %%
predict("05.bet")

# %% mystnb={"image": {"alt": "Test accuracy against the share of the encoder that trains, from 0.01 to 50 percent, logarithmic; the axis begins at 0.80. Three curves with whiskers. At 0.01 percent Fisher lies above the other two; at 0.1 percent all three meet; at 0.5 and 2 percent random lies above largest, and largest above Fisher; from 10 percent on all lie at the line of full fine-tuning, inside its grey band. Head only lies far below."}}
_ = selective_figures.budgets(stored)

# %% [markdown]
# (Whiskers and grey band: lowest to highest seed.)
#
# **At 0.5 %, random beats Fisher.** It has 86.6 %, Fisher's choice 85.5 %, and is ahead with every one of the five seeds, by 0.8 to 1.4 points. At 2 % it is ahead with every seed again, by 1.2 points on average. The largest numbers have 85.7 %; of five seeds random is ahead with four, which settles nothing.
#
# And 41 % of the random numbers stood, after training, exactly where they started: dead, mostly words that never come. Draw from the six blocks only, and 0.5 % of the numbers reach 87.0 % (ahead with three of five: no sure gain). Training everything, we reach 87.0 % in 90 steps. With 180 steps random has 87.6 %, everything 88.4 %. ([Lesson 06](06_lora.ipynb) says 87.4 % after 90: there the head has the rate of the rest. What the fixed head rate costs the other arms we do not know.)
#
# **At 0.01 %, Fisher is ahead.** With 2,257 numbers it has 84.6 %, random 83.7 %, every seed agrees. A point for sensitivity? Not yet: of random's numbers two in five are dead, Fisher's all work, and a random draw from the blocks we have not run here. At 0.1 %, ten times as many bring Fisher nothing (84.7 %), and the three cannot be told apart. From 10 % on it does not matter how you choose.
#
# How sure is that? It is one task, one small model and 1,200 texts: a standard error of about 1 point. The search is coarse; at 0.1 % and 2 % a single validation text decided Fisher's rate. At 0.5 % its peak is clear.
#
# Sung et al. report that their mask with 0.5 % matches full training on GLUE, a set of language tasks. Here it stays 1.5 points below. They compare with a random mask too; in their published scripts it trains at Fisher's rate, 5e-5, on every task, where BitFit has rates of its own. By what you saw, this may be far too small. A task where random loses at 0.5 %, its rate searched, would change our mind.
#
# ### How to be fooled
#
# Each point is one run, seed 0.

# %% mystnb={"image": {"alt": "Validation accuracy against the learning rate. The axis begins at 0.75. Fisher at 0.5 percent is best at 1e-3, begins to fall at 3e-3 and lies at 0.08 from 1e-2 on, drawn as arrows at the edge. Largest is best at 1e-2, random at 3e-2; random still has 0.77 at 1e-1. Full fine-tuning is best at 3e-4."}}
_ = selective_figures.rates(stored, {"fisher/0.005": "0.5 %, Fisher", "magnitude/0.005": "0.5 %, largest",
                                     "random/0.005": "0.5 %, random", "full": "full fine-tuning"})

# %% [markdown]
# (Arrows: below the axis.) Fisher's numbers want a rate of 1e-3, the largest 1e-2. Random ones are content with any from 3e-3 to 3e-2. So one rate for all gives any winner you like: at 1e-3, as in the trap, Fisher; at 1e-2 the largest (87.2 %, random 86.8 %, Fisher 7.5 %, less than guessing); at 3e-2 random (86.9 %, largest 83.2 %, Fisher 8.3 %).
#
# The budget matters too: random ones want 1e-1 at 0.01 %, 3e-4 at 50 %.
#
# ### Is it the entries, or the tensors?
#
# Fisher decides two things: *how many* numbers each tensor gets, and *which* ones inside it. Take them apart, each with its own search for the rate.

# %%
plots.table(selective_figures.two_by_two(stored), caption="Test accuracy with 0.5 % of the numbers, mean of five seeds")

# %% [markdown]
# *Either half* of Fisher's choice costs about as much as the whole; so it does at 2 %. (At 0.1 % Fisher's entries, spread evenly, are ahead of random with every seed, 85.6 % against 84.9 %; but none of them is dead.) The largest, taken evenly, are level with random.
#
# ### Does Fisher know the task?

# %%
predict("05.labels")

# %% [markdown]
# 88 % of the entries were the same, and they gave 85.3 % instead of 85.5 %. With a random head that is no wonder: it does not know one label from another. Chosen with a head that was trained first, 62 % were the same, and gave 85.5 % again. (Both at Fisher's rate.) **A Fisher mask with a fresh head knows next to nothing of the labels.** Whether the *texts* matter to it, we have not tested.
#
# ### What Fisher found
#
# Look at one weight of a linear layer, $W_{ij}$. For one token its gradient is $g_i x_j$, the error at output $i$ times the input $x_j$ ([bridge B4](B4_backward_and_adam.ipynb)); over a definition these are added up. So an entry also scores high because its *input is loud*, whatever the task. Are some inputs loud? Count how much of each choice stands in the columns of the five loudest inputs.

# %% tags=["nbval-ignore-output"]
from peftlab.course import loud_inputs

read = loud_inputs.inputs(base, tokenizer, data.train[:128])
shares = {title: loud_inputs.in_loudest(mask, read, n=5) for title, mask in masks.items()}
names = [f"bert.encoder.layer.{block}.{part}.weight"
         for part in ("attention.self.value", "intermediate.dense") for block in (1, 3, 5)]
plots.table([{"matrix": name.removeprefix("bert.encoder.").removesuffix(".weight"),
              **{title: f"{share.get(name, 0):.0%}" for title, share in shares.items()}} for name in names])

# %% tags=["nbval-ignore-output"]
x, first = read[names[4]], loud_inputs.first_tokens(tokenizer, data.train[:128])
for feature in (223, 99):
    here, others = x[first, feature], x[~first, feature]
    print(f"block 3, feature {feature}: {here.mean():.0f} at [CLS]; {others.mean():.1f} ± {others.std():.1f} elsewhere")

# %%
loud = shares["highest Fisher"]
assert loud["bert.encoder.layer.3.attention.self.value.weight"] > 0.9
assert shares["at random"]["bert.encoder.layer.3.attention.self.value.weight"] < 0.06
assert x[first, 99].mean() > 20 and x[~first, 99].abs().mean() < 2 and x[:, 223].max() < 0

# %% [markdown]
# In the stored mask (yours, from 32 examples, is near it), the five loudest columns hold 36 % of Fisher's choice in the matrices of the blocks, and 1 % of random's. Below the last block it is 79 %, **in the values of blocks 0 to 3 at least 99 %**; in the last block, where two thirds of the choice lie, 15 %.
#
# Two kinds of feature are loud. Number 223 is negative at every token: a trained column of it acts much like a **bias**. Number 99 is large at the first token, [CLS], and near 0 at all others: a trained column of it is a vector for that one token, which attention can hand on.
#
# Is loudness why Fisher loses? Divide each score by the loudness of its input, search the rate, train: 85.4 % at 0.5 %, no better than Fisher's 85.5 %. So loudness says where Fisher looks, and not why random does better. That we do not know.
#
# ## Biases only
#
# You need no scores at all to make a mask. **BitFit** (Ben Zaken et al., 2021) trains every bias, the $b$ of $h = Wx + b$, and nothing else.
#
# ### Exercise 3 · How many? (5 minutes)
#
# Count from the names: a block of MiniLM has query, key, value and the attention's output (384 numbers out, each), a feed-forward network (1,536 out, then 384 out), and two LayerNorms. One more LayerNorm stands behind the embeddings. The last line asks for the course's tiny language model, a Llama.

# %% tags=["exercise"]
biases = {"one block of MiniLM": ..., "the whole encoder": ..., "one block of the tiny model": ...}

check("05.biases", biases)

# %%
biases = use("05.biases", biases)
bitfit = peftlab.attach(copy.deepcopy(base), BitFit())
print(f"by your count {biases['the whole encoder']:,} and the head 4,620; {peftlab.count_parameters(bitfit)}")

# %%
predict("05.bitfit")

# %%
plots.table(selective_figures.rows(stored, {
    "head": "nothing", "bitfit": "biases (BitFit)", "layer_norm": "LayerNorms", "fisher/0.001": "0.1 %, Fisher",
    "random/0.001": "0.1 %, random", "last/1": "the last block", "last/2": "the last two blocks",
    "lora_qv/8": "LoRA on query and value, r = 8", "full": "everything",
}), caption="Test accuracy, five seeds, 1,200 definitions")

# %% [markdown]
# With a tenth of a percent of the numbers, BitFit goes 70 % of the way from the head alone (80.6 %) to full fine-tuning (87.0 %): it has 85.1 %. The LayerNorms, their weights and biases, are 9,984 numbers and reach 85.5 %: more than a random mask of 22,565 (of which 41 % are dead), with every seed. Ben Zaken et al. find BitFit competitive with full fine-tuning on small and medium data; here it stays 1.9 points below. A whole block, 1.8 million numbers, does no better.

# %% mystnb={"image": {"alt": "The three curves of the first such figure, and black marks. LayerNorms lie above all curves at their budget, BitFit on them, LoRA near the curves of random and largest, the last block and the last two blocks below them."}}
_ = selective_figures.budgets(stored, beside=True)

# %% [markdown]
# In [lesson 03](03_adapters.ipynb) most of what adapters added to this task was the same vector for every token, and that is what a bias is. We would not expect as much of a task that needs new features.
#
# One of attention's three biases can do nothing at all: query's, key's or value's? Write down the score $q \cdot k$ with a bias on each, then run the cell.

# %% tags=["nbval-ignore-output"]
bitfit(**rows).loss.backward()
site = "bert.encoder.layer.5.attention.self"
for part in ("query", "key", "value"):
    gradient = peftlab.surgery.adapted_modules(bitfit)[f"{site}.{part}"].adapters["default"].bias.grad
    print(f"{part:5} gradient of the bias, largest entry {gradient.abs().max():.0e}")

# %% [markdown]
# The **key's bias**. It adds the same to all scores of a query, and the softmax ignores what is equal for all. Its gradient is rounding noise.
#
# And a model *without* biases, such as a Llama?

# %%
from peftlab.errors import PeftLabError

tiny, _ = models.load("tiny")
try:
    peftlab.attach(tiny, BitFit())
except PeftLabError as error:
    print("BitFit:", error)
with_biases = peftlab.attach(copy.deepcopy(tiny), BEFT())
print("BEFT:  ", peftlab.count_parameters(with_biases))

# %% [markdown]
# **BEFT** (Huang et al., 2025) adds a vector of zeros behind the values' projections and trains that. That is no longer selective: the model gets new numbers.
#
# ## What it costs on disk
#
# ### Exercise 4 · The file (5 minutes)
#
# A tensor has $n$ entries, of which $k$ were trained. Give the bytes of three ways to store the change. **places**: $k$ values (float32) and $k$ places (int32). **bitmap**: $k$ values, and for each of the $n$ entries one bit that says if it trains; files have whole bytes. **whole**: all $n$ entries.

# %% tags=["exercise"]
def file_bytes(n, k):
    """Bytes of the three forms, as whole numbers."""
    return {"places": ..., "bitmap": ..., "whole": ...}


check("05.file_bytes", file_bytes)

# %% tags=["nbval-ignore-output"]
file_bytes = use("05.file_bytes", file_bytes)
plots.table([{"share": f"{100 * share:g} %", **{form: f"{size / 1e6:.2f} MB" for form, size in sized.items()}}
             for share in (1e-4, 5e-3, 2e-2, 0.1, 0.5)
             for sized in [file_bytes(N, round(share * N))]])

# %% tags=["nbval-ignore-output"]
import tempfile

folder = peftlab.save(fish, tempfile.mkdtemp())
size, counted = (folder / "adapter_model.safetensors").stat().st_size, sparse.file_size(fish)
print(f"predicted: {file_bytes(N, round(0.005 * N))['places'] + 4 * 4620:,} bytes with the head")
print(f"on disk:   {size:,} bytes; {counted.values:,} for values, {counted.indices:,} for places, and a header")
assert 0 < size - counted.total < 30_000

# %% [markdown]
# A place costs as much as a value, so 0.5 % of the numbers make 1 % of the model's bytes. LoRA on query and value trains 73,728 numbers and needs no places: 0.3 MB (a mask of as many: 0.6 MB). From one chosen entry in 32 on, a bitmap is smaller. A random mask could be stored as its *seed*: then its places cost nothing.
#
# ## What it costs to train

# %%
predict("05.step")

# %%
from torch.utils.flop_counter import FlopCounterMode

from peftlab.bench.selective_steps import live_bytes, passes_of
from peftlab.bench.step_time import side_by_side

# %% tags=["nbval-ignore-output"]
last = peftlab.attach(copy.deepcopy(base), LastLayers(num_layers=1))
arms = {"full": copy.deepcopy(base).requires_grad_(True), "0.5 %, Fisher": fish, "biases": bitfit, "last block": last}
half = {key: value[:16] for key, value in rows.items()}
passes = {name: passes_of(model, half) for name, model in arms.items()}
seconds, flops = side_by_side(passes, repeats=2), {}
for name, model in arms.items():
    with FlopCounterMode(display=False) as counter:
        passes[name]()
    flops[name] = counter.get_total_flops()
    print(f"{name:14} passes: {seconds[name] / seconds['full']:.2f} of the time, {flops[name] / flops['full']:.2f} of "
          f"the work; peak {live_bytes(model, half)['peak'] / 1e6:3.0f} MB")

# %%
assert flops["0.5 %, Fisher"] > 0.95 * flops["full"] and flops["last block"] < 0.6 * flops["full"]

# %% [markdown]
# (Work: multiplications and additions. Times differ from run to run.) **Scattered numbers make the passes no cheaper.** In the stored measurement (32 texts of 32 tokens, one thread) forward and backward pass with a random 0.5 % took about as long as training everything: autograd works out the gradient of each *whole* matrix and then picks the chosen entries out of it. The whole step took about 83 %, because AdamW has less to do. BitFit's passes took 71 %: no matrix needs a gradient. The last block's took 46 %, because nothing below it needs a backward pass.
#
# Memory there (your batch is another one): what AdamW keeps, two numbers for each that trains, shrinks from 181 MB to 0.9 MB. The peak falls from 481 MB to 346 MB, less far than with LoRA on query and value (243 MB), since whole gradients and changed copies of whole tensors live for a while.
#
# ## When to use selective tuning
#
# **Use it when** the model must keep its shape, and a task may cost next to nothing on disk: LayerNorms or biases first. If that is not enough: a random mask in the blocks, its rate searched. A clever mask should have to beat it.
#
# **Avoid it when** time or memory for training is short (take LoRA, or the last blocks), or the base is quantised (its weights are codes of few bits, which cannot take small steps).
#
# **Unknown:** when sensitivity pays. Can training choose the mask? [Deep dive 05x](05x_learned_masks.ipynb) tries.
#
# ## Check yourself

# %%
quiz("05")

# %% [markdown]
# ## Take away
#
# - A selective method trains $\theta + m \odot \delta$: nothing is added to the model, and the question is which numbers.
# - At 0.5 % a random choice beat Fisher's by 1.1 points, with every seed; at 0.01 % Fisher was ahead, perhaps because none of its numbers is dead. From 10 % on it did not matter.
# - Each choice has a rate of its own. At one rate for all, the rate picks the winner.
# - Fisher's mask, with a fresh head, hardly changes if the labels are shuffled. About a third of it follows a few loud inputs; that does not explain why it loses.
# - 9,984 numbers of LayerNorms bring 77 % of what training all 22.6 million adds to the head alone. A key's bias does nothing, and Llama has no biases.
# - Places cost as much as values. Scattered numbers save what AdamW keeps, and no time in the passes.
#
# ## Sources
#
# - Y.-L. Sung, V. Nair, C. Raffel: *Training Neural Networks with Fixed Sparse Masks*, 2021, [arXiv:2111.09839](https://arxiv.org/abs/2111.09839). Their scripts: [github.com/varunnair18/FISH](https://github.com/varunnair18/FISH).
# - E. Ben Zaken, S. Ravfogel, Y. Goldberg: *BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models*, 2021, [arXiv:2106.10199](https://arxiv.org/abs/2106.10199).
# - J. Xu, J. Zhang: *Random Masking Finds Winning Tickets for Parameter Efficient Fine-tuning*, 2024, [arXiv:2405.02596](https://arxiv.org/abs/2405.02596).
# - K. Bhardwaj et al.: *Sparse High Rank Adapters*, 2024, [arXiv:2406.13175](https://arxiv.org/abs/2406.13175).
# - B. Huang et al.: *BEFT: Bias-Efficient Fine-Tuning of Language Models in Low-Data Regimes*, 2025, [arXiv:2509.15974](https://arxiv.org/abs/2509.15974).
# - Data: WordNet 3.0, Princeton University. Model: all-MiniLM-L6-v2, Apache-2.0. Stored runs: `python -m peftlab.bench selective` on one H100, `selective_steps` and `loud_inputs` on one thread of a CPU; the JSON in `data/results/` says which versions.

# %% [markdown] tags=["footer"]
# ---
#
# **Next:** [06 · LoRA, with scissors](06_lora.ipynb), cut a real ΔW to a few directions; then train only those.
