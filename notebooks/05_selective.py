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
# *75 minutes (50 without the exercises), of which your machine computes for about a minute. Builds on [B1 · A transformer block and its names](B1_transformer_block.ipynb). No GPU, no network.*

# %% [markdown]
# Here is a bet. A pretrained model has 22.6 million numbers. You may train one in two hundred, 0.5 %, wherever you like; all others stay. Three people choose:
#
# - one takes the numbers that the task is most *sensitive* to (highest **Fisher information**),
# - one takes the *largest* numbers,
# - one draws them *at random*.
#
# All three get the same data, the same number of steps, and each the learning rate that suits the choice. By how much will the first beat the last?

# %%
from peftlab.course.question import predict, quiz

predict("05.bet")

# %%
import copy
import inspect
import tempfile

import torch

import peftlab
from peftlab.bench.results import Results
from peftlab.course.exercise import check, hint, solution, use
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
# The model is MiniLM, six transformer blocks, 384 numbers for each token. The task: read a dictionary definition, name its topic, one of twelve. A new layer at the end, the **head**, turns the model's vector into twelve scores; it starts random and trains in every run. All else is the **encoder**, and the bet is about its numbers.
#
# ## A mask
#
# Write all numbers of the encoder as one long vector $\theta \in \mathbb{R}^N$, here $N$ = 22,565,376. A **selective method** trains
#
# $$\theta' = \theta + m \odot \delta, \qquad m \in \{0, 1\}^N .$$
#
# $\delta$ is the change, $\odot$ multiplies entry by entry, and the **mask** $m$ has $k$ ones. Nothing is added: the trained model has its old shape and speed.
#
# The question is: *which* ones?
#
# ## How much does the task feel a number?
#
# Show the model one definition $x$ with its topic $y$, and take the gradient of $\log p_\theta(y \mid x)$ with respect to $\theta_j$. A large gradient, of either sign, means: a small step of this number changes much of what the model says. Sung et al. (2021) square it and average over $n$ examples:
#
# $$\hat F_j = \frac{1}{n} \sum_{i=1}^{n} \left( \frac{\partial \log p_\theta(y_i \mid x_i)}{\partial \theta_j} \right)^2 .$$
#
# This is the diagonal of the **empirical Fisher information**. Their method, **FISH Mask**, trains the $k$ numbers where it is largest.
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
# The gradients must come one example at a time. A training step averages over its batch first, where opposite signs cancel, and squares taken after that are something else. Check your function on one matrix, against the library's, and see what the shortcut would choose.

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
# ### Exercise 2 · One ranking for all (8 minutes)
#
# Now the mask. The scores are a dictionary, name of tensor → scores. All tensors compete in one ranking: a tensor may get many places, or none. Return True where a number trains.

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
# The numbers are percent of the choice. **Fisher** crowds into the top: in the stored runs, with 1,024 examples, 56 % of its choice lies in the last block, and 29 % in the output matrices of the attention. Queries and keys get 1 % together. Of the **largest** numbers, 40 % lie exactly there. The **random** choice takes what there is most of: 53 % is embeddings, mostly of words that no definition uses. 46 % of the random numbers have a Fisher information of exactly zero: none of the 1,024 examples gives them any gradient.
#
# Would you change your bet?

# %% [markdown]
# ## The class
#
# The library keeps $k$ values and their places, and adds them to the frozen tensor in every pass:

# %%
print(inspect.getsource(sparse.added_at))
print(inspect.getsource(sparse.SparseDelta.changed))

# %% [markdown]
# Hugging Face `peft` has no FISH Mask. It has **SHiRA** (Bhardwaj et al., 2024), which trains chosen entries of single linear layers, the same number in each, and takes any mask you give it. There the two formulas are one, so there we compare, with a mask of largest magnitudes.

# %%
from peftlab import parity


def largest(layer, r):
    flat = layer.weight.detach().abs().flatten()
    places = flat.topk(r * (layer.in_features + layer.out_features)).indices
    return torch.zeros_like(flat).index_fill(0, places, 1.0).view_as(layer.weight)


shira = SHiRA(r=2, mask_type="largest", mask_fn=largest, target_modules=["query", "value"])
parity.prove(base, shira, next(datasets.batches(data.train, tokenizer, batch_size=5, seed=0)))

# %% [markdown]
# ## A trap: one rate for all
#
# Now train. Twenty-four steps of 16 definitions, one seed. The head has a learning rate of its own, 3e-3; we set that of the mask. First the obvious comparison: Fisher and random at the *same* rate, 1e-3. Then random once more, at ten times that.

# %%
few, held_out = data.train[:384], data.test[:240]


def masked(scores):
    torch.manual_seed(0)
    return peftlab.attach(copy.deepcopy(base), FishMask(keep_ratio=0.005, scores=scores))


def run(name, model, lr):
    own = dict(model.named_parameters())
    head = [p for n, p in own.items() if p.requires_grad and "classifier" in n]
    rest = [p for n, p in own.items() if p.requires_grad and "classifier" not in n]
    adamw = torch.optim.AdamW([{"params": head, "lr": 3e-3}, {"params": rest, "lr": lr}], weight_decay=0.0)
    return train(model, tokenizer, few, held_out, optimizer=adamw, steps=24, batch_size=16, name=name)


# %% mystnb={"image": {"alt": "Line chart of training loss over 24 steps. Head only and random at the rate 1e-3 fall slowly and lie close together. Fisher at 1e-3 and random at 1e-2 fall faster and end clearly lower, close to each other."}} tags=["nbval-ignore-output"]
head = copy.deepcopy(base).requires_grad_(False)
head.classifier.requires_grad_(True)
fish = masked(encoder)
runs = {"head": run("head only", head, 1.0),
        "fisher": run("Fisher, rate 1e-3", fish, 1e-3),
        "same": run("random, rate 1e-3", masked("random"), 1e-3),
        "own": run("random, rate 1e-2", masked("random"), 1e-2)}
plots.losses(list(runs.values()))
plots.runs(list(runs.values()), caption="24 steps of 16, one seed, 240 test definitions")

# %%
ends = {name: sum(each.losses[-5:]) / 5 for name, each in runs.items()}
assert ends["fisher"] < ends["same"] - 0.1 and ends["own"] < ends["same"] - 0.1 and ends["same"] < ends["head"] + 0.05

# %% [markdown]
# At the same rate Fisher is far ahead, and random is hardly better than no mask at all. With a rate of its own, random is back in the race. **Equal settings are not a fair comparison. Equal search is.** Of random masks, Xu and Zhang (2024) say so too: they allow, and need, large rates.
#
# ## The bet, settled
#
# One seed and 24 steps prove little. The stored runs: 90 steps of 32 on all 2,880 definitions, five seeds, 1,200 test definitions. For every way to choose *and every budget*, the rate was searched on validation data with seed 0, until the best one had a worse neighbour on either side.

# %% mystnb={"image": {"alt": "Test accuracy against the share of the encoder that trains, from 0.01 to 50 percent, logarithmic; the axis begins at 0.80. Three curves with bands. At 0.01 percent Fisher lies above the other two; at 0.1 percent all three meet; at 0.5 and 2 percent random lies above largest, and largest above Fisher; from 10 percent on all lie at the line of full fine-tuning. LayerNorms lie above all curves at their budget, BitFit on them, the last block far below."}}
_ = selective_figures.budgets(stored)

# %% [markdown]
# (Bands: lowest to highest seed. The axis begins at 80 %.)
#
# **At 0.5 %, random wins.** It has 86.6 %, the largest numbers 85.7 %, Fisher's choice 85.5 %. Random is ahead of Fisher with every one of the five seeds, by 0.8 to 1.4 points (a 95 % interval for the mean, as far as seeds go: 0.8 to 1.5). At 2 % it is ahead with every seed again, by 1.2 points on average. And it did so with a handicap: after training, 41 % of its numbers stood exactly where they started. Draw from the six blocks only, no embeddings, and 0.5 % of the numbers reach 87.0 %. Training everything, we reach 87.0 %. ([Lesson 06](06_lora.ipynb) says 87.4 %: there the head has the same rate as the rest.)
#
# **At 0.01 %, Fisher wins.** With 2,257 numbers it has 84.6 %, random 83.7 %; it is ahead with every seed, by 0.1 to 1.4 points. At 0.1 % the three cannot be told apart. From 10 % on it does not matter how you choose.
#
# How sure is that? The seeds agree, but all arms share one task, one small model and 1,200 texts. A standard error of one accuracy is about 1 point. Whether largest beats Fisher, we cannot say: of five seeds it is ahead with two.
#
# Sung et al. report that their mask with 0.5 % matches full training on GLUE, with BERT-large. Here it stays 1.5 points below. A task where random loses although its rate was searched would change our mind.
#
# ### How to be fooled
#
# Why does the rate decide so much? Each point is one run, seed 0.

# %% mystnb={"image": {"alt": "Validation accuracy against the learning rate. Fisher at 0.5 percent is best at 1e-3, begins to fall at 3e-3 and lies at 0.08 from 1e-2 on. Largest is best at 1e-2, random at 3e-2; random still has 0.77 at 1e-1. Full fine-tuning is best at 3e-4."}}
_ = selective_figures.rates(stored, {"fisher/0.005": "0.5 %, Fisher", "magnitude/0.005": "0.5 %, largest",
                                     "random/0.005": "0.5 %, random", "full": "full fine-tuning"})

# %% [markdown]
# Fisher's numbers want a rate of 1e-3, the largest 1e-2. Random ones are content with any from 3e-3 to 3e-2, the last being best by a hair. At 1e-2 random has 86.8 % on validation data and Fisher 7.5 %, less than guessing. So one rate for all gives any winner you like: at 1e-3, as above, Fisher; at 1e-2, random by 79 points. (A finer grid may give Fisher some tenths.)
#
# In the end Fisher's numbers had moved by 0.007 (root mean square), the random ones by 0.14, twenty times as far. The budget matters too: random ones want 1e-1 at 0.01 %, 3e-4 at 50 %. The fewer train, the further each has to go.
#
# ### Is it the entries, or the tensors?
#
# Fisher decides two things: *how many* numbers each tensor gets, and *which* ones inside it. Take them apart: keep its numbers per tensor and draw the entries at random, or give every tensor the same share and take the best entries. Each row has its own search for the rate.

# %%
plots.table(selective_figures.two_by_two(stored), caption="Test accuracy by share that trains, mean of five seeds")

# %% [markdown]
# At 0.5 % and 2 %, *either half* of Fisher's choice costs about as much as the whole. At 0.1 % something else shows: its entries, spread evenly over all tensors, are the best of all, 85.6 % against 84.9 % for random, ahead with every seed. So sensitivity is a fair guide while there is little to spend, if it may not crowd.
#
# Does Fisher at least know the task? We shuffled the labels and chose again: 88 % of the entries were the same, and they gave 85.3 % instead of 85.5 %. With 32 examples instead of 1,024, 72 % were the same, and gave 85.3 %. With the head of another seed, 70 %; with a trained head, 62 %, and 85.5 % again. **This mask says much about the model and little about the task.**
#
# ### What Fisher found
#
# Look at one weight of a linear layer, $W_{ij}$. For one token its gradient is $g_i x_j$, the error at output $i$ times the input $x_j$ ([bridge B4](B4_backward_and_adam.ipynb)). Squared: $g_i^2\, x_j^2$. So an entry also scores high because its *input is loud*, whatever the task. Are some inputs loud? Count how much of each choice stands in the columns of the five loudest of 384 inputs.

# %% tags=["nbval-ignore-output"]
from peftlab.course import loud_inputs

read = loud_inputs.inputs(base, tokenizer, data.train[:128])
shares = {title: loud_inputs.in_loudest(mask, read, n=5) for title, mask in masks.items()}
names = [f"bert.encoder.layer.{block}.{part}.weight"
         for part in ("attention.self.value", "intermediate.dense") for block in (1, 3, 5)]
plots.table([{"matrix": name.removeprefix("bert.encoder.").removesuffix(".weight"),
              **{title: f"{share.get(name, 0):.0%}" for title, share in shares.items()}} for name in names])

# %%
loud = shares["highest Fisher"]
assert loud["bert.encoder.layer.3.attention.self.value.weight"] > 0.9
assert shares["at random"]["bert.encoder.layer.3.attention.self.value.weight"] < 0.06

# %% [markdown]
# In the stored mask, **at least 99 % of Fisher's choice in the values of blocks 0 to 3 stands in five columns of 384**, and at least 93 % in the feed-forward networks of blocks 1 to 3. Over all matrices it is 36 %, for the random mask 1 %. MiniLM has a few features that are many times louder than the rest. At the feed-forward network of block 3, number 223 is -7.6 with a standard deviation of 3.1, while all features together have a root mean square of 0.8. A feature that is nearly the same for every token, times a trained column: that is nearly a **bias**.
#
# It fits what we saw. A score that follows the model's loud features cares little for labels. It wants small steps, as a loud input makes every step large. And it buys with 100,000 numbers much of what the next section has for 10,000. It is not all: in the last block, where most of the choice lies, columns are less crowded. And if we divide each score by the loudness of its input, the choice crowds elsewhere, 69 % into the last block. (We have not trained that one with five seeds.) So loudness tells where Fisher looks. Why random does better, we do not know.
#
# ## The surprise: biases
#
# You need no scores at all to make a mask. **BitFit** (Ben Zaken et al., 2021) trains the biases, every one, and nothing else: $h = W_0 x + b'$.
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
# With a tenth of a percent of the numbers, BitFit goes 70 % of the way from the head alone (80.6 %) to full fine-tuning (87.0 %): it has 85.1 %. The LayerNorms, their weights and biases, are 9,984 numbers and reach 85.5 %: more than a random mask of twice as many, with every seed. No scores and no places are needed. Ben Zaken et al. find BitFit competitive with full fine-tuning on small and medium data; here it stays 1.9 points below. A whole block, 1.8 million numbers, does no better.
#
# [Lesson 03](03_adapters.ipynb) has met this before: most of what its adapters added to this task was the same vector for every token, and a bias is just that. Do not expect as much of a task that needs new features.
#
# A bias cannot look at the input. One kind of bias can therefore do nothing at all. Which?

# %% tags=["nbval-ignore-output"]
bitfit(**rows).loss.backward()
site = "bert.encoder.layer.5.attention.self"
for part in ("query", "key", "value"):
    gradient = peftlab.surgery.adapted_modules(bitfit)[f"{site}.{part}"].adapters["default"].bias.grad
    print(f"{part:5} gradient of the bias, largest entry {gradient.abs().max():.0e}")

# %% [markdown]
# The **key's bias**. It adds the same to the scores of all keys of a query, and the softmax ignores what is equal for all. Its gradient is rounding noise.
#
# And a model *without* biases? Most language models since Llama are built so.

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
# **BEFT** (Huang et al., 2025) adds a vector of zeros behind the values' projections and trains that. That is no longer selective: the model gets new numbers. (`peft` refuses to merge them where the layer has no bias.)
#
# ## What it costs on disk
#
# ### Exercise 4 · The file (5 minutes)
#
# A tensor has $n$ entries, of which $k$ were trained. Give the bytes of three ways to store the change: **places**: $k$ values (float32) and $k$ places (int32). **bitmap**: $k$ values, and one bit for each of the $n$ entries that says if it trains; files have whole bytes. **whole**: all $n$ entries.

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
folder = peftlab.save(fish, tempfile.mkdtemp())
size, counted = (folder / "adapter_model.safetensors").stat().st_size, sparse.file_size(fish)
print(f"predicted: {file_bytes(N, round(0.005 * N))['places'] + 4 * 4620:,} bytes with the head")
print(f"on disk:   {size:,} bytes; {counted.values:,} for values, {counted.indices:,} for places, and a header")
assert 0 < size - counted.total < 30_000

# %% [markdown]
# An index costs as much as a value, so 0.5 % of the numbers make 1 % of the model's bytes. LoRA on query and value trains 73,728 numbers and needs no places: 0.3 MB against 0.9 MB. From one chosen entry in 32 on, a bitmap is smaller than places (neither `peft` nor we write one). From a half on, the sparse file is no smaller than the model. A random mask could be stored as its *seed*: then its places cost nothing.
#
# ## What it costs to train
#
# One number in two hundred trains. What does a step cost?

# %%
predict("05.step")

# %% tags=["nbval-ignore-output"]
from peftlab.bench.selective_steps import live_bytes, passes_of
from peftlab.bench.step_time import side_by_side

last = peftlab.attach(copy.deepcopy(base), LastLayers(num_layers=1))
full = copy.deepcopy(base).requires_grad_(True)
arms = {"full": full, "0.5 %, Fisher": fish, "biases": bitfit, "last block": last}
seconds = side_by_side({name: passes_of(model, rows) for name, model in arms.items()}, repeats=2)
for name, model in arms.items():
    memory = live_bytes(model, rows)
    print(f"{name:14} forward and backward {seconds[name] / seconds['full']:.2f} of the time, "
          f"peak {memory['peak'] / 1e6:3.0f} MB, of which AdamW's states {memory['states'] / 1e6:5.1f} MB")

# %%
assert seconds["0.5 %, Fisher"] > 0.7 * seconds["full"] and seconds["last block"] < 0.75 * seconds["full"]

# %% [markdown]
# **Scattered numbers make the passes no cheaper.** In the stored measurement (32 texts of 32 tokens, one thread) forward and backward pass with a random 0.5 % took 100 % of the time that training everything takes. Autograd works out the gradient of each *whole* matrix and then picks the chosen entries out of it. The whole step took 83 %, because AdamW has less to do, and that is the saving. BitFit's passes took 71 %: it needs no matrix's gradient at all. The last block alone took 46 %, because nothing below it needs a backward pass.
#
# Memory: AdamW's states shrink from 181 MB to 0.9 MB. The peak falls from 481 MB to 346 MB, less far than with LoRA on query and value (243 MB), since whole gradients and changed copies of whole tensors live for a while. And with *half* of all numbers in the mask the peak is 614 MB, more than full fine-tuning.
#
# ## When to use selective tuning
#
# **Use it when** the model must keep its shape, and a task may cost next to nothing on disk: LayerNorms or biases first. If that is not enough: a random mask in the blocks, its rate searched. Any clever mask should have to beat it.
#
# **Avoid it when** time or memory for training is short (take LoRA, or the last blocks), when the base is quantised (its codes cannot change), or, for BitFit, when the model has no biases.
#
# **Unknown:** when choosing by sensitivity pays. Here it did for a few thousand numbers and not for a hundred thousand. Masks that *training* chooses do better here, at a price: [deep dive 05x](05x_learned_masks.ipynb).
#
# ## Check yourself

# %%
quiz("05")

# %% [markdown]
# ## Take away
#
# - A selective method trains $\theta + m \odot \delta$: nothing is added to the model, and the question is which numbers.
# - At 0.5 % a random choice beat Fisher's by 1.1 points, with every seed; at 0.01 % Fisher was ahead. From 10 % on the choice did not matter.
# - Each choice has a learning rate of its own. At one rate for all, the rate picks the winner.
# - Fisher's mask hardly changes if the labels are shuffled. A good part of it follows a few loud inputs of the model.
# - 9,984 numbers of LayerNorms do 77 % of what 22.6 million do. A key's bias does nothing, and Llama has no biases.
# - Places cost as much as values. Scattered numbers save optimiser states, and no time in the passes.
#
# ## Sources
#
# - Y.-L. Sung, V. Nair, C. Raffel: *Training Neural Networks with Fixed Sparse Masks*, 2021, [arXiv:2111.09839](https://arxiv.org/abs/2111.09839).
# - E. Ben Zaken, S. Ravfogel, Y. Goldberg: *BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models*, 2021, [arXiv:2106.10199](https://arxiv.org/abs/2106.10199).
# - J. Xu, J. Zhang: *Random Masking Finds Winning Tickets for Parameter Efficient Fine-tuning*, 2024, [arXiv:2405.02596](https://arxiv.org/abs/2405.02596).
# - K. Bhardwaj et al.: *Sparse High Rank Adapters*, 2024, [arXiv:2406.13175](https://arxiv.org/abs/2406.13175).
# - B. Huang et al.: *BEFT: Bias-Efficient Fine-Tuning of Language Models in Low-Data Regimes*, 2025, [arXiv:2509.15974](https://arxiv.org/abs/2509.15974).
# - Data: WordNet 3.0, Princeton University. Model: all-MiniLM-L6-v2, Apache-2.0. Stored runs: `python -m peftlab.bench selective` on one H100, `selective_steps` and `loud_inputs` on one thread of a CPU; the JSON in `data/results/` says which versions.

# %% [markdown] tags=["footer"]
# ---
#
# **Next:** [06 · LoRA, with scissors](06_lora.ipynb), cut a real ΔW to a few directions; then train only those.
