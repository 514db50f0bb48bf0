# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["header"]
# # 07 · LoRA at work
#
# *75 minutes (55 without the exercises), of which your machine computes for about a minute. Builds on [06 · LoRA, with scissors](06_lora.ipynb). No GPU, no network.*

# %% [markdown]
# Your team has fine-tuned a language model for three jobs: one writes dictionary entries, one sorts texts by topic, one finds a word you cannot think of. Three requests arrive in the same second, one for each job.
#
# Three models in memory? One model that is reloaded all the time? Or **one model that does all three jobs in the same batch**, each row in its own way?
#
# You will do the third. Then you take its cost away by merging, find out what merging breaks, and add adapters together.

# %%
import copy

import torch

import peftlab
from peftlab.bench.results import Results
from peftlab.course.exercise import check, hint, solution, use
from peftlab.course.question import predict, quiz
from peftlab.show import plots, work_figures
from peftlab.tasks import datasets, models
from peftlab.tasks.generation import complete

plots.style()
trained, answered = Results.load("three_tasks"), Results.load("adapters")

# %% [markdown]
# ## Three adapters and one base
#
# The base is SmolLM2, a chat model of 135 million parameters. (Its package holds each weight rounded to one of 16 levels. We turn them back into 32-bit numbers, so it is not quite the original.) The course has trained three LoRAs on it, with $r = 8$ and $\alpha = 16$, on the query and value matrices of the 30 blocks:
#
# | adapter | reads | writes |
# |---|---|---|
# | `define` | a word | its definition |
# | `topic` | a definition | one of twelve topics |
# | `reverse` | a definition | the word |
#
# They are in `data/adapters/`, in `peft`'s format.
#
# ### Exercise 1 · Sizes (4 minutes)
#
# The query matrix is 576 × 576, the value matrix 192 × 576. (There are nine query heads and three value heads: each value head serves three.) Every number takes 4 bytes, in the adapter and in the model. The model has 134,515,008 of them.

# %% tags=["exercise"]
sizes = {"bytes of one adapter": ..., "adapters in the space of one copy": ...}

check("07.sizes", sizes)
# Stuck? Run hint("07.sizes", 1), then hint("07.sizes", 2), then solution("07.sizes").

# %%
adapters = datasets.data_folder() / "adapters"
sizes = use("07.sizes", sizes)
for folder in (adapters / name for name in ("define", "reverse", "topic")):
    size = (folder / "adapter_model.safetensors").stat().st_size
    names = size - sizes["bytes of one adapter"]
    print(f"{folder.name:8} {size:,} bytes on disk ({names:,} of them for names)")

# %% [markdown]
# A second full copy of the model takes as much disk as 289 such files. For a larger model the ratio is larger still: with the width $d$ of a model, matrices grow as $d^2$ and adapters as $d$.
#
# ## Switch
#
# Load the base once and hang all three into it.

# %% tags=["nbval-ignore-output"]
model, tokenizer = models.load("smollm2")
for name in ("define", "topic", "reverse"):
    peftlab.load(model, adapters / name, name=name)

prompt = datasets.define_prompt("lantern")
print(repr(prompt))
for name in ("define", "topic", "reverse"):
    peftlab.use(model, name)
    print(f"{name:8} {complete(model, tokenizer, [prompt])[0]}")
with peftlab.disabled(model):
    print(f"{'(none)':8} {complete(model, tokenizer, [prompt])[0]}")

# %% [markdown]
# All four get the same text. Only `define` was trained on this form. The base was not: it has no idea where a definition ends. Nothing was reloaded: switching changes which small matrices take part.
#
# ## One batch
#
# Now the three requests at once. Each row names its adapter; `"__base__"` asks for none. Change texts and names, and press the button.

# %% tags=["nbval-ignore-output"]
from peftlab.show.desk import Desk

PROMPTS = {"define": datasets.define_prompt, "topic": datasets.topic_prompt, "reverse": datasets.reverse_prompt,
           "__base__": datasets.define_prompt}


def answer(texts, names):
    prompts = [PROMPTS[name](text) for text, name in zip(texts, names, strict=True)]
    return complete(model, tokenizer, prompts, adapter_names=names)


desk = Desk([("lantern", "define"), ("a small boat moved by oars", "topic"),
             ("a person who repairs shoes", "reverse"), ("lantern", "__base__")], list(PROMPTS), answer)
desk.serve()
desk

# %% [markdown]
# How does one forward pass serve four rows in four ways? As in lesson 06, $W_0$ is a layer's frozen weight, $x$ its input, and $A$ and $B$ are the adapter's thin matrices. The expensive part, $W_0 x$, is one formula for all rows: one product for the whole batch. Only the thin part $\frac{\alpha}{r} B A x$ differs from row to row.
#
# ### Exercise 2 · Route the rows (10 minutes)
#
# Write it for one layer without a bias.

# %% tags=["exercise"]
def routed(x, W, adapters, names, scale):
    """W x for every row, plus scale · B A x of the row's own adapter. A name that `adapters` lacks gets none.

    x (batch, tokens, d_in), W (d_out, d_in), adapters {name: (A (r, d_in), B (d_out, r))}, names: one a row.
    """
    return ...


check("07.routed", routed)

# %% [markdown]
# Is a mixed batch the same as asking one at a time? Compare the scores of the next token (*logits*). (Rows of different length would be padded, so ours are equally long.)

# %% tags=["nbval-ignore-output"]
routed = use("07.routed", routed)
names = ["reverse", "__base__", "define", "topic"]
generator = torch.Generator().manual_seed(0)
layer = model.model.layers[0].self_attn.v_proj  # W₀ is layer.base.weight, and layer.adapters holds three LoRAs
x = torch.randn(4, 6, 576, generator=generator)
ids = torch.randint(1000, 40_000, (4, 12), generator=generator)


def compare(what, a, b, atol=1e-3):
    print(f"{what} differ by at most {(a - b).abs().max():.0e}; the values go up to {b.abs().max():.0f}")
    assert torch.allclose(a, b, atol=atol)


# %% tags=["nbval-ignore-output"]
with torch.no_grad():
    parts = {name: (lora.lora_A.weight, lora.lora_B.weight) for name, lora in layer.adapters.items()}
    mine = routed(x, layer.base.weight, parts, names, scale=16 / 8)
    compare("your layer and the model's layer", mine, layer.mixed(names, x), atol=1e-4)
    together = model(ids, adapter_names=names).logits
    apart = [model(row[None], adapter_names=[name]).logits[0] for row, name in zip(ids, names, strict=True)]
    compare("mixed batch and one row at a time", together, torch.stack(apart))
    wrong = model(ids, adapter_names=names[::-1]).logits
print(f"with the names in the wrong order they would differ by up to {(wrong - together).abs().max():.0f}")

# %% [markdown]
# Hugging Face `peft` has the same argument. Let it open our files and answer the same batch:

# %% tags=["nbval-ignore-output"]
from peft import PeftModel

reference, _ = models.load("smollm2")
reference = PeftModel.from_pretrained(reference, adapters / "define", adapter_name="define").eval()
for name in ("topic", "reverse"):
    reference.load_adapter(adapters / name, adapter_name=name)
with torch.no_grad():
    theirs = reference(input_ids=ids, adapter_names=names).logits
compare("peft's mixed batch and ours", theirs, together)
del reference

# %% [markdown]
# (Inside, `peft` computes $W_0 x$ once for all rows, as you did. Our library sends each group of rows through the whole formula: that works for every method, and costs time. Systems built for serving, such as [Punica](https://arxiv.org/abs/2310.18547) and [S-LoRA](https://arxiv.org/abs/2311.03285), have a GPU program of their own for the thin part.)
#
# ## How good are they?
#
# For this table, LoRA and full fine-tuning were trained on an H100, for 180 steps of 32 examples, with three seeds. Beside them: the base as it is, the base with eight worked examples in its prompt, and your three stored adapters, which saw about a quarter as many examples. Learning rates were chosen on validation data. The loss is per token of the answer and its end mark, on test data, in *nats*: 10.8 nats is guessing among all 49,152 tokens. Where the answer is one word, *right* means that the model would write it (what comes after it does not count).

# %%
work_figures.tasks(trained, answered)

# %% [markdown]
# Read the losses first. In defining, full fine-tuning is ahead by several times what three seeds differ by. In the other two jobs the gap is no larger than that: a draw, with 0.34 % as many new numbers as the model has. *One adapter for all three*, with three times the steps, comes close everywhere. If your jobs are known beforehand, it is a strong rival.
#
# The answers: the base names the topic in 3 % of cases, and with its adapter in 85 %. Eight examples in the prompt give 21 %, but that is no fair trial: 32 of the 100 questions ask for topics that these eight do not show. With twelve, one for each topic, it is 9 %, about as often as by guessing. Prompts differ a lot, by their examples and perhaps their order, and we tried these two. The right word, WordNet's own and no synonym, comes in 15 % of cases. With one hundred questions each, the [standard error](B5_validation_seeds_intervals.ipynb) is up to 5 percentage points.
#
# ## Merge, and the cost is gone
#
# Unmerged, a LoRA computes two thin products beside each matrix it adapts. **Merging** makes it a part of the weights, $W = W_0 + \frac{\alpha}{r} B A$: an ordinary model again, with no extra time. `peftlab.merge` does it for good, `peftlab.folded` for a while.
#
# How much time does that save?

# %%
predict("07.latency")

# %% mystnb={"image": {"alt": "Four line charts of time relative to the merged model against the number of rows in the batch: an H100 above, one CPU thread below, reading 32 tokens on the left, writing one token on the right, all on one scale. On the H100, unmerged LoRA on all seven matrices lies a little above twice the merged time, on query and value at about one and a half times, and three adapters routed climb from two to three times. On the CPU all lines lie close to one: query and value hardly above it, all seven matrices and routing a little higher. No adapter lies around one everywhere."}}
_ = work_figures.latency(Results.load("lora_latency_gpu"), Results.load("lora_latency"))

# %% [markdown]
# The merged model is 1. Over all batch sizes and both kinds of work, the others take:
#
# | | H100 | one CPU thread |
# |---|---|---|
# | one unmerged, on query and value | 1.3 to 1.5 times | 1.0 to 1.1 times |
# | one unmerged, on all seven matrices of a block | 2.0 to 2.4 times | 1.1 to 1.3 times |
# | three routed, on query and value | 1.9 to 3.4 times | 1.1 to 1.6 times |
# | no adapter: off by, which is noise | up to 11 % | up to 14 % |
#
# No adapter and merged are the same arithmetic, so their difference is noise. On the CPU, no single point of query and value proves a cost; together they do: 11 of the 12 lie above 1, the median 5 % above.
#
# Why so much on the H100? The thin products are few: 0.4 % more multiplications in the blocks on query and value, 2.3 % on all seven matrices. But each is a call of its own. The base is in bfloat16 there and the adapters in 32 bits, as `peft` does by default, so each layer also converts its input and its result. (What part of the cost that is, we did not measure.) And the H100 is waiting for calls: reading 32 rows takes it about as long as reading one (0.8 and 1.1 times, in our two series). The CPU, all in 32 bits, takes 20 times as long: it is busy computing.
#
# Hu et al. (2021, table 1) met such a cost with bottleneck adapters, which cannot be merged. LoRA, merged, avoids it. (Routing costs more, even for one row: our library takes the batch apart in every layer, the price of code that you can read.)
#
# And on your machine? One row of 32 tokens, three ways, in turns. Each round is compared with its own merged time; we take the median of nine:

# %% tags=["nbval-ignore-output"]
from contextlib import nullcontext
from statistics import median

from peftlab.bench.lora_latency import timed

peftlab.use(model, "define")
row = torch.randint(1000, 40_000, (1, 32), generator=generator)
ways = {"no adapter": peftlab.disabled, "merged": peftlab.folded, "unmerged": nullcontext}
seconds = {way: [] for way in ways}
for _ in range(9):
    for way, switched in ways.items():
        with switched(model), torch.no_grad():
            seconds[way].append(timed(lambda: model(row), "cpu"))
for way, found in seconds.items():
    print(f"{way:10} {median(a / b for a, b in zip(found, seconds['merged'], strict=True)):.2f} of the merged time")

# %% [markdown]
# (If *no adapter* is not between 0.95 and 1.05, close what else runs and repeat.)
#
# Are the answers the same? And the weights, afterwards?

# %% tags=["nbval-ignore-output"]
with torch.no_grad():
    unmerged = model(ids).logits
    before = layer.base.weight.clone()
    with peftlab.folded(model):
        folded = model(ids).logits
        inside = (layer.folded.weight != before).float().mean()
    compare("folded and unmerged", folded, unmerged)
    print(f"weights changed: {inside:.0%} while folded, {(layer.base.weight != before).float().mean():.0%} afterwards")

# %% [markdown]
# ## What merging breaks: the way back
#
# `folded` keeps the original weights in memory and puts them back. `peft` saves that memory and gets $W_0$ back by *subtracting* $\frac{\alpha}{r} B A$ again.
#
# **bfloat16** is a number of 16 bits with the range of a 32-bit one, but only 8 significant bits: two to three decimal digits. Models are often stored in it.

# %%
predict("07.way_back")

# %% tags=["nbval-ignore-output"]
lora = layer.adapters["define"]
delta = lora.delta_weight().detach()
for dtype in (torch.float32, torch.bfloat16):
    W0 = before.to(dtype)
    merged = (W0 + delta).to(dtype)
    again = merged - delta.to(dtype)  # as peft does: ΔW is rounded to the weights' type first
    print(f"{str(dtype):14}: {(again == W0).float().mean():7.2%} of the weights are back, "
          f"and {(merged == W0).float().mean():7.2%} never moved")

# %% [markdown]
# The first column: what was there does not all come back. This is one layer with one adapter. Over all 60 matrices and three adapters, stored, 92 % of the weights are back in bfloat16, 97 % in 32 bits.
#
# A service that swaps adapters does this all day. How far does the base go? Thousands of rounds in this one layer:

# %% tags=["nbval-ignore-output"]
changes = [lora.delta_weight().detach() for lora in layer.adapters.values()]
for dtype in (torch.float32, torch.bfloat16):
    for who, turns in (("one adapter", changes[:1]), ("three in turn", changes)):
        W = W0 = before.to(dtype)
        print(f"\n{str(dtype):14}, {who}, off by this much of ΔW after", end=" ")
        for swap in range(1, 3001):
            delta = turns[swap % len(turns)]
            W = (W + delta).to(dtype)  # merge
            W = W - delta.to(dtype)  # unmerge
            if swap in (1, 100, 300, 1000, 3000):
                print(f"{swap}: {(W - W0).float().norm() / changes[0].norm():.3%}", end="  ")

# %% [markdown]
# In 32 bits next to nothing. In bfloat16 the base drifts, then **settles**: rounding has reached a state that repeats. Over all 60 matrices, stored, that takes 256 swaps with one adapter and 768 with three in turn, and the base is off by 4.2 % and 11.4 % of one $\Delta W$.
#
# Do the answers suffer? Hardly. After a thousand swaps in turn, the three adapters have losses of 2.99, 0.26 and 2.07; before, 2.98, 0.27 and 2.06. But the base is no longer the file that you can checksum, and nothing warned you. The mend costs memory: keep the originals.
#
# Now the second column above. Where an entry of the change is smaller than about half the last bit of its weight, the sum rounds back to the old weight, and *the change is lost*. In this layer that is rare. Over all matrices, stored, 4.5 % of the bfloat16 weights never moved. Does it matter? Merge `topic`, round every weight to bf16, and measure (computing in 32 bits, so that only the rounding differs).

# %% tags=["nbval-ignore-output"]
from peftlab.tasks.metrics import evaluate

peftlab.use(model, "topic")
saved = peftlab.merge(copy.deepcopy(model)).to(torch.bfloat16).float()
test = datasets.load("wordnet_topics").topics("test")[:50]
for name, served in (("unmerged", model), ("merged, rounded to bf16", saved)):
    print(f"{name:24} {evaluate(served, tokenizer, test, max_length=48).loss:.4f} nats per token")

# %% [markdown]
# (On fifty rows; the table's 0.27 is of a hundred.) In the stored measurement, computed in bf16 too, with a hundred rows of each job, merged and unmerged differ by at most 0.005 nats per token. So here the lost bits do not matter.
#
# ## Add adapters together
#
# If $\Delta W_1$ knows one job and $\Delta W_2$ another, does $w_1 \Delta W_1 + w_2 \Delta W_2$ know both? That would be one adapter without any training. First get the sum right.
#
# ### Exercise 3 · The sum of two adapters (8 minutes)
#
# Return *one* pair $A, B$ with $BA = \sum_i w_i B_i A_i$, exactly. The rank may grow.

# %% tags=["exercise"]
def weighted_sum(factors, weights):
    """A and B with B A = Σ wᵢ Bᵢ Aᵢ. factors: [(A₁, B₁), …], Aᵢ (r, d_in), Bᵢ (d_out, r); weights: [w₁, …]."""
    return ...


check("07.weighted_sum", weighted_sum)

# %%
weighted_sum = use("07.weighted_sum", weighted_sum)
factors = [parts["define"], parts["topic"]]
A, B = weighted_sum(factors, [0.5, 0.5])
exact = 0.5 * sum(B_i @ A_i for A_i, B_i in factors)
print(f"A {tuple(A.shape)}, B {tuple(B.shape)}, off by {(B @ A - exact).norm() / exact.norm():.0e} of the exact sum")

# %% [markdown]
# (The pair has rank $2r$. To keep the old $\alpha/r$, set $\alpha$ to 32.) `peft` calls your way `combination_type="cat"`. It also has `"linear"`, which keeps the rank: it gives each $A$ and each $B$ the factor $\sqrt{w}$, so that their product gets $w$, and adds the $A$'s and the $B$'s apart. With two adapters and equal weights:
#
# $$w\,(B_1 + B_2)(A_1 + A_2) = w\,(B_1 A_1 + B_2 A_2 + B_1 A_2 + B_2 A_1).$$
#
# The last two are **cross terms** that nobody trained: $A_2$ reads a direction, and $B_1$ writes something that belongs to another one. How large are they?

# %%
(A_1, B_1), (A_2, B_2) = factors
linear = 0.5 * (B_1 + B_2) @ (A_1 + A_2)
print(f"'linear' is off by {(linear - exact).norm() / exact.norm():.0%} of the exact sum")

# %% [markdown]
# About as large as what was trained. (`peft`'s default, `"svd"`, computes the exact sum and cuts it to a smaller rank, with lesson 06's scissors.)

# %%
predict("07.combination")

# %% mystnb={"image": {"alt": "Three panels, one for each task, with test loss per token for exact and linear sums of two and three adapters, with weights one half and one. The base is a dotted and the task's own adapter a solid horizontal line. In defining, exact sums with weights of one half lie nearest to the own adapter, and the exact sum of all of define and all of topic lies at about the height of the base. In naming topics, exact sums with weights of one lie nearest to the own adapter."}}
_ = work_figures.combinations(answered)

# %% [markdown]
# Low is good. The solid line is the job's own adapter, the dotted one the base. Three exact sums:
#
# - **Half `define`, half `reverse`** keeps 82 % and 99 % of what the adapters gained. The right word comes in 17 % of cases (alone 15 %).
# - **Half `define`, half `topic`** keeps 57 % and 98 %. The second number flatters: the right topic comes in 73 % of cases (alone 85 %).
# - **All of `define`, all of `topic`** has a loss of 5.16 in defining. That is no better than with no adapter at all (5.03, and one hundred questions cannot tell these apart: the difference is 0.13, its 95 % interval −0.14 to 0.40).
#
# A sum of adapters is not always a sum of skills, and you cannot tell beforehand. `topic` has the largest change: over all matrices, $\lVert \Delta W \rVert$ is 55.0, that of `reverse` 49.8 and of `define` 43.5. That may be why it drowns `define`. But `reverse` goes well with `define` and is not much smaller: we suspect that it also matters where they write.
#
# At equal weights the exact sum has a lower loss than 'linear' in 17 of 18 places. All three adapters, weights 1, name the topic in 74 % of cases as an exact sum, in 1 % as 'linear'. In the one place left (`topic` and `reverse`, weights 0.5, on `topic`: 0.65 against 0.80) size explains it: cross terms make the change 1.5 times as large, and an exact sum of that size (weights 0.75) has 0.44.
#
# All of this is one seed and one hundred questions for each job. Test every job after every sum. *One adapter for all three*, in the first table, has no such trouble.
#
# ## A trap: the wrong base
#
# `saved` has `topic` in its weights. Somebody takes it for the base and loads `define` into it. The shapes fit, the names fit. What warning do you expect?

# %% tags=["nbval-ignore-output"]
wrong = peftlab.load(saved, adapters / "define", name="define")
peftlab.use(model, "define")

words = ["lantern", "violin", "courage"]
test = datasets.load("define_word").definitions("test")[:40]
for name, served in (("right base", model), ("wrong base", wrong)):
    print(f"{name}: {evaluate(served, tokenizer, test, max_length=48).loss:.2f} nats per token")
    for word, text in zip(words, complete(served, tokenizer, [datasets.define_prompt(w) for w in words]), strict=True):
        print(f"    {word}: {text}")

# %% [markdown]
# No warning at all. You see it in the loss, if you test: an adapter's file names its base, but holds no fingerprint of its weights. And you know this model already. It is $W_0 + \Delta W_1 + \Delta W_2$, the sum with weights 1 from above. The mend: never save a merged model under the base's name, and keep a checksum of the base beside the adapter.
#
# ## Merged or unmerged?
#
# | | unmerged | merged |
# |---|---|---|
# | several tasks from one base, in one batch | yes | no, one model each |
# | switch tasks | at once | load another model, or fold and keep the originals |
# | extra latency | two thin products per adapted matrix | none |
# | memory | base + adapters | one full model per task |
# | 16- and 4-bit bases | the change keeps its own precision | the change is rounded to the base's |
#
# **Use unmerged adapters when** tasks share a base and change often. **Merge when** one task runs for long and latency counts, or the software that serves it knows nothing of adapters.
#
# **Unknown:** when sums of adapters work. Ilharco et al. (2022) add the changes of whole fine-tuned models, and Ortiz-Jimenez et al. (2023) have a theory of when that works. We know of none that predicts it for adapters like these. (Lesson 16 will try better recipes than plain sums.)

# %%
quiz("07")

# %% [markdown]
# ## Take away
#
# - One base serves many adapters, even in one batch: $W_0 x$ is common, the thin part is each row's own.
# - An adapter is hundreds of times smaller than a copy of the model.
# - Merged, LoRA costs no time. Unmerged it costs calls: dear on a GPU with a small model, cheap on a busy CPU.
# - Subtracting what was added does not give the same bits back. In bf16 the base drifts, then settles, and part of a change can vanish in the merge. Here the answers hardly changed; you must measure it.
# - $\sum w_i \Delta W_i$ is easy to compute exactly. Whether it *does* both jobs must be measured.
#
# ## Sources
#
# - E. Hu et al.: *LoRA: Low-Rank Adaptation of Large Language Models*, 2021, [arXiv:2106.09685](https://arxiv.org/abs/2106.09685). Merging: section 4.1.
# - G. Ilharco et al.: *Editing Models with Task Arithmetic*, 2022, [arXiv:2212.04089](https://arxiv.org/abs/2212.04089).
# - G. Ortiz-Jimenez, A. Favero, P. Frossard: *Task Arithmetic in the Tangent Space: Improved Editing of Pre-Trained Models*, 2023, [arXiv:2305.12827](https://arxiv.org/abs/2305.12827).
# - L. Chen et al.: *Punica: Multi-Tenant LoRA Serving*, 2023, [arXiv:2310.18547](https://arxiv.org/abs/2310.18547).
# - Y. Sheng et al.: *S-LoRA: Serving Thousands of Concurrent LoRA Adapters*, 2023, [arXiv:2311.03285](https://arxiv.org/abs/2311.03285).
# - Data: WordNet 3.0, Princeton University. Model: SmolLM2-135M-Instruct, Apache-2.0, as packaged in 4 bits. Stored runs: `python -m peftlab.bench three_tasks`, `adapters` and `lora_latency`, in `data/results`.

# %% [markdown] tags=["footer"]
# ---
#
# **Next:** [13 · Quantisation and QLoRA](13_quantisation.ipynb), place 16 levels by hand, train on top of them, and solve a riddle.
