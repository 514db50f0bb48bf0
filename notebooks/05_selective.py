# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["header"]
# # 05 · Selective tuning

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
from peftlab.tasks import datasets, metrics, models
from peftlab.tasks.training import train

plots.style()
stored, steps = Results.load("selective"), Results.load("selective_steps")
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
# $\delta$ is the change, $\odot$ multiplies entry by entry, and the **mask** $m$ has $k$ ones. Where it has a zero nothing ever changes. Adapters and prompts put something *new* into a model; here nothing is added, and the trained model has its old shape and speed.
#
# So the only question is: *which* ones?
#
# ## How much does the task feel a number?
#
# Show the model one definition $x$ with its topic $y$, and take the gradient of $\log p_\theta(y \mid x)$ with respect to $\theta_j$. A large gradient, of either sign, means: move this number a little, and what the model says about this example moves much. Sung et al. (2021) square it and average over $n$ examples:
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
# The gradients must come one example at a time. A training step averages over its batch first, where opposite signs cancel; squares taken after that are something else. Check your function on one matrix of the real model, against the library's, and see what the shortcut would have chosen.

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

# %% mystnb={"image": {"alt": "ALT-WHERE-LIVE"}} tags=["nbval-ignore-output"]
top_k_masks = use("05.top_k_masks", top_k_masks)
encoder = {name: F for name, F in scores.items() if not name.startswith("classifier")}
N = sum(F.numel() for F in encoder.values())
sizes = {name: base.get_parameter(name).detach().abs() for name in encoder}
masks = {"highest Fisher": top_k_masks(encoder, round(0.005 * N)),
         "largest magnitude": top_k_masks(sizes, round(0.005 * N)),
         "at random": top_k_masks({name: torch.rand(F.shape) for name, F in encoder.items()}, round(0.005 * N))}
_ = selective_figures.where({title: selective_figures.counts(mask) for title, mask in masks.items()})

# %% [markdown]
# TEXT-WHERE

# %% [markdown]
# ## The class
#
# Where training really happens, the library keeps $k$ values and their places, and adds them to the frozen tensor in every pass:

# %%
print(inspect.getsource(sparse.added_at))
print(inspect.getsource(sparse.SparseDelta.changed))

# %% [markdown]
# Hugging Face `peft` has no FISH Mask. It has **SHiRA** (Bhardwaj et al., 2024), which trains chosen entries of single linear layers, the same number in each, and takes any mask you give it. There the two formulas are one, so that is where we compare; the mask is of largest magnitudes.

# %%
from peftlab import parity


def largest(layer, r):
    flat = layer.weight.detach().abs().flatten()
    places = flat.topk(r * (layer.in_features + layer.out_features)).indices
    return torch.zeros_like(flat).index_fill(0, places, 1.0).view_as(layer.weight)


shira = SHiRA(r=2, mask_type="largest", mask_fn=largest, target_modules=["query", "value"])
parity.prove(base, shira, next(datasets.batches(data.train, tokenizer, batch_size=5, seed=0)))

# %% [markdown]
# ## Train
#
# Thirty steps of 16 definitions, one seed. We give the head a learning rate of its own, so that what we set is the rate of the mask alone. First the obvious comparison: Fisher and random with the *same* rate, one that suits Fisher. Then random with a rate of its own, ten times as high.

# %%
few, held_out = data.train[:480], data.test[:300]


def masked(scores):
    torch.manual_seed(0)
    return peftlab.attach(copy.deepcopy(base), FishMask(keep_ratio=0.005, scores=scores))


def run(name, model, lr):
    own = dict(model.named_parameters())
    head = [p for n, p in own.items() if p.requires_grad and "classifier" in n]
    rest = [p for n, p in own.items() if p.requires_grad and "classifier" not in n]
    adamw = torch.optim.AdamW([{"params": head, "lr": 3e-3}, {"params": rest, "lr": lr}], weight_decay=0.0)
    return train(model, tokenizer, few, held_out, optimizer=adamw, steps=30, batch_size=16, name=name)


# %% mystnb={"image": {"alt": "ALT-LOSSES"}} tags=["nbval-ignore-output"]
head = copy.deepcopy(base).requires_grad_(False)
head.classifier.requires_grad_(True)
fish = masked(encoder)
runs = {"head": run("head only", head, 1.0), "fisher": run("Fisher, rate 1e-3", fish, 1e-3),
        "same": run("random, rate 1e-3", masked("random"), 1e-3), "own": run("random, rate 1e-2", masked("random"), 1e-2)}
plots.losses(list(runs.values()))
plots.runs(list(runs.values()), caption="30 steps of 16, one seed, 300 test definitions")

# %%
assert runs["fisher"].losses[-1] < runs["fisher"].losses[0] and runs["own"].accuracy > runs["head"].accuracy - 0.02

# %% [markdown]
# TEXT-TRAIN
#
# ## The bet, settled
#
# TEXT-BUDGETS

# %% mystnb={"image": {"alt": "ALT-BUDGETS"}}
_ = selective_figures.budgets(stored)

# %% [markdown]
# TEXT-AFTER-BUDGETS
#
# ### How to be fooled
#
# TEXT-FOOLED

# %% mystnb={"image": {"alt": "ALT-RATES"}}
_ = selective_figures.rates(stored, {"fisher/0.005": "0.5 %, Fisher", "random/0.005": "0.5 %, random",
                                     "random/0.1": "10 %, random", "full": "full fine-tuning"})

# %% [markdown]
# TEXT-AFTER-RATES
#
# ### Is it the entries, or the tensors?
#
# TEXT-TWO-BY-TWO

# %%
plots.table(selective_figures.two_by_two(stored), caption="Test accuracy by share that trains, mean of five seeds")

# %% [markdown]
# TEXT-AFTER-TWO
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
# TEXT-BITFIT
#
# A bias cannot look at the input: it adds the same vector to every token. So one of them can do nothing at all. Which?

# %% tags=["nbval-ignore-output"]
bitfit(**rows).loss.backward()
site = "bert.encoder.layer.5.attention.self"
for part in ("query", "key", "value"):
    gradient = peftlab.surgery.adapted_modules(bitfit)[f"{site}.{part}"].adapters["default"].bias.grad
    print(f"{part:5} gradient of the bias, largest entry {gradient.abs().max():.0e}")

# %% [markdown]
# The **key's bias**. It adds the same to the scores of all keys of a query, and the softmax ignores what is equal for all. Its gradient is rounding noise. (And Adam, which divides noise by noise, moves it all the same.)
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
# **BEFT** (Huang et al., 2025) adds a vector of zeros behind the values' projections and trains that. It is no longer selective: the model gets new numbers, and on disk a bias that its config does not know. (`peft` refuses to merge it for that reason; our library merges and warns in its card.)
#
# ## What it costs on disk
#
# Sparse changes make small files. How small? Each value must say where it belongs.
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
# TEXT-FILES
#
# ## What it costs to train
#
# One number in two hundred trains. What does that do to the time of a step?

# %%
predict("05.step")

# %% tags=["nbval-ignore-output"]
from peftlab.bench.selective_steps import live_bytes, passes_of
from peftlab.bench.step_time import side_by_side

last = peftlab.attach(copy.deepcopy(base), LastLayers(num_layers=1))
full = copy.deepcopy(base).requires_grad_(True)
arms = {"full": full, "0.5 %, Fisher": fish, "biases": bitfit, "last block": last}
seconds = side_by_side({name: passes_of(model, rows) for name, model in arms.items()}, repeats=3)
for name, model in arms.items():
    memory = live_bytes(model, rows)
    print(f"{name:14} forward and backward {seconds[name] / seconds['full']:.2f} of the time, "
          f"peak {memory['peak'] / 1e6:3.0f} MB, of which AdamW's states {memory['states'] / 1e6:5.1f} MB")

# %%
assert seconds["0.5 %, Fisher"] > 0.7 * seconds["full"] and seconds["last block"] < 0.75 * seconds["full"]

# %% [markdown]
# TEXT-COST
#
# ## A trap: the rate you are used to
#
# TEXT-TRAP

# %% tags=["nbval-ignore-output"]
TRAP

# %% [markdown]
# TEXT-AFTER-TRAP
#
# ## When to use selective tuning
#
# TEXT-WHEN
#
# ## Check yourself

# %%
quiz("05")

# %% [markdown]
# ## Take away
#
# TEXT-TAKE
#
# ## Sources
#
# - Y.-L. Sung, V. Nair, C. Raffel: *Training Neural Networks with Fixed Sparse Masks*, 2021, [arXiv:2111.09839](https://arxiv.org/abs/2111.09839).
# - E. Ben Zaken, S. Ravfogel, Y. Goldberg: *BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models*, 2021, [arXiv:2106.10199](https://arxiv.org/abs/2106.10199).
# - J. Xu, J. Zhang: *Random Masking Finds Winning Tickets for Parameter Efficient Fine-tuning*, 2024, [arXiv:2405.02596](https://arxiv.org/abs/2405.02596).
# - K. Bhardwaj et al.: *Sparse High Rank Adapters*, 2024, [arXiv:2406.13175](https://arxiv.org/abs/2406.13175).
# - B. Huang et al.: *BEFT: Bias-Efficient Fine-Tuning of Language Models in Low-Data Regimes*, 2025, [arXiv:2509.15974](https://arxiv.org/abs/2509.15974).
# - Data: WordNet 3.0, Princeton University. Model: all-MiniLM-L6-v2, Apache-2.0. Stored runs: `python -m peftlab.bench selective` on one H100, `selective_steps` on one thread of a CPU; the JSON in `data/results/` says which versions.
