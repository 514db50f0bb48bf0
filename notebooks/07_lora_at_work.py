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
# *60 minutes (45 without the exercises), of which your machine computes for about a minute. Builds on [06 · LoRA, with scissors](06_lora.ipynb). No GPU, no network.*

# %% [markdown]
# Your team has fine-tuned a language model for three jobs: one writes dictionary entries, one sorts texts by topic, one finds a word you cannot think of. Three requests arrive in the same second, one for each job.
#
# Three models in memory? One model that is reloaded all the time? Or **one model that does all three jobs in the same batch**, each row in its own way?
#
# You will do the third, with real adapters. Then you take its cost away by merging, find out what merging breaks, and add adapters together, which works less well than people hope.

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
# The base is SmolLM2, a chat model of 135 million parameters. (It comes rounded to 4 bits and is de-quantised here, so it is not quite the original.) The course has trained three LoRAs on it. Each has rank $r = 8$ and scale $\alpha = 16$, on the query and value matrices of the 30 blocks:
#
# | adapter | reads | writes |
# |---|---|---|
# | `define` | a word | its definition |
# | `topic` | a definition | one of twelve topics |
# | `reverse` | a definition | the word |
#
# They are in `data/adapters/`, in `peft`'s format. How large are they?
#
# ### Exercise 1 · Sizes (4 minutes)
#
# The query matrix is 576 × 576, the value matrix 192 × 576 (SmolLM2's heads share values, three by three). Every number takes 4 bytes, in the adapter and in the model. The model has 134,515,008 of them.

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
# A second full copy of the model would take as much disk as 291 adapters. For a model of 7 billion parameters and a LoRA on the same matrices, the ratio is larger still: with the width $d$ of a model, matrices grow as $d^2$ and adapters as $d$.
#
# ## Switch
#
# Load the base once and hang all three into it. `use` says which one is on.

# %% tags=["nbval-ignore-output"]
model, tokenizer = models.load("smollm2")
for name in ("define", "topic", "reverse"):
    peftlab.load(model, adapters / name, name=name)

prompt = datasets.define_prompt("lantern")
for name in ("define", "topic", "reverse"):
    peftlab.use(model, name)
    print(f"{name:8} {complete(model, tokenizer, [prompt])[0]}")
with peftlab.disabled(model):
    print(f"{'(none)':8} {complete(model, tokenizer, [prompt])[0]}")

# %% [markdown]
# The same weights, the same prompt, four behaviours. Nothing was copied or reloaded: switching changes which small matrices take part.
#
# ## One batch
#
# Now the three requests at once. Each row of the batch names its adapter; `"__base__"` asks for none. Change the texts and the names, and press the button.

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
# How does one forward pass serve four rows in four ways? As in lesson 06, $W_0$ is the frozen weight of a layer, $x$ its input, and $A$ and $B$ are the adapter's thin matrices. The expensive part, $W_0 x$, is the same for all rows and needs to be computed only once for the whole batch. Only the thin part $\frac{\alpha}{r} B A x$ differs from row to row.
#
# ### Exercise 2 · Route the rows (10 minutes)
#
# Write it for one linear layer without a bias.

# %% tags=["exercise"]
def routed(x, W, adapters, names, scale):
    """W x for every row, plus scale · B A x of the row's own adapter. A name that `adapters` lacks gets none.

    x (batch, tokens, d_in), W (d_out, d_in), adapters {name: (A (r, d_in), B (d_out, r))}, names: one a row.
    """
    return ...


check("07.routed", routed)

# %% [markdown]
# Is a mixed batch really the same as asking one at a time? Compare the scores of the next token (the *logits*), row by row. One thing must be taken care of: rows of different length are padded, so we use prompts of the same length.

# %%
routed = use("07.routed", routed)
names = ["reverse", "__base__", "define", "topic"]
generator = torch.Generator().manual_seed(0)
layer = model.model.layers[0].self_attn.v_proj  # W₀ is layer.base.weight, and layer.adapters holds three LoRAs
x = torch.randn(4, 6, 576, generator=generator)
ids = torch.randint(1000, 40_000, (4, 12), generator=generator)

with torch.no_grad():
    parts = {name: (lora.lora_A.weight, lora.lora_B.weight) for name, lora in layer.adapters.items()}
    mine = routed(x, layer.base.weight, parts, names, scale=16 / 8)
    print("your layer = the model's layer:  ", torch.allclose(mine, layer.mixed(names, x), atol=1e-4))
    together = model(ids, adapter_names=names).logits
    apart = [model(row[None], adapter_names=[name]).logits[0] for row, name in zip(ids, names, strict=True)]
    print("mixed batch = one row at a time: ", torch.allclose(together, torch.stack(apart), atol=1e-3))

# %% [markdown]
# Hugging Face `peft` does it with the same argument, `adapter_names`. Let it open our files and answer the same batch:

# %%
from peft import PeftModel

reference, _ = models.load("smollm2")
reference = PeftModel.from_pretrained(reference, adapters / "define", adapter_name="define").eval()
for name in ("topic", "reverse"):
    reference.load_adapter(adapters / name, adapter_name=name)
with torch.no_grad():
    theirs = reference(input_ids=ids, adapter_names=names).logits
print("peft's mixed batch = ours:", torch.allclose(theirs, together, atol=1e-3))
del reference

# %% [markdown]
# (One difference inside: `peft` computes $W_0 x$ once for all rows, as you did. Our library sends each group of rows through its own copy of the whole formula. That works for every method, not for LoRA alone, and costs time in large mixed batches. Systems built for serving, such as [Punica](https://arxiv.org/abs/2310.18547) and [S-LoRA](https://arxiv.org/abs/2311.03285), have a GPU program of their own for the thin part.)
#
# ## How good are they?
#
# For this table, LoRA and full fine-tuning were trained on an H100, for 180 steps of 32 examples. Beside them: the base as it is, and the base with eight worked examples in its prompt. Learning rates were chosen on validation data. The loss is per token of the answer and its end mark, in nats, on test data. Where the answer is one word, we also ask your three stored adapters how often they would write it.

# %%
work_figures.tasks(trained, answered)

# %% [markdown]
# Read the losses first. LoRA reaches 2.82 in defining, full fine-tuning 2.76; in naming topics it is 0.16 against 0.17; finding words 1.91 against 1.92. In defining, full fine-tuning is ahead by several times what three seeds differ by. In the other two jobs the gap is no larger than that: a draw, with 0.34 % as many new numbers as the model has. One adapter for all three jobs, with three times the steps, gets to 2.81, 0.18 and 1.95. If your jobs are known beforehand, *one adapter for all* is a strong rival to three.
#
# Learning rates matter more than these gaps. The best were 0.004 or 0.008 for LoRA and 0.0001 or 0.0002 for full fine-tuning, so LoRA wants 20 to 80 times more. And there is a cliff: at 0.016, four times its best, the adapter for all three jobs has 5.99 in defining (one run, validation data). The base with no training at all has 4.94.
#
# Now the answers. The base names the topic in 3 % of cases, with eight examples in its prompt in 21 %, and with its adapter in 85 %. The right word comes in 15 % of cases: WordNet's own word, not a synonym. One hundred questions each, so a standard error of up to 5 percentage points. The stored adapters saw about a quarter as many examples as those of the losses.
#
# ## Merge, and the cost is gone
#
# Unmerged, a LoRA computes two thin products beside each matrix it adapts. **Merging** makes it a part of the weights, $W = W_0 + \frac{\alpha}{r} B A$, and the model is an ordinary model again, with no adapter and no extra time. `peftlab.merge` does it for good, `peftlab.folded` for a while.
#
# How much time does that save?

# %%
predict("07.latency")

# %% mystnb={"image": {"alt": "Four line charts of time relative to the merged model against the number of rows in the batch: an H100 above, one CPU thread below, reading 32 tokens on the left, writing one token on the right, all on one scale. On the H100, unmerged LoRA on all seven matrices lies a little above twice the merged time, on query and value at about one and a half times, and three adapters routed climb from two to three times. On the CPU all lines lie close to one: query and value hardly above it, all seven matrices and routing a little higher. No adapter lies around one everywhere."}}
_ = work_figures.latency(Results.load("lora_latency_gpu"), Results.load("lora_latency"))

# %% [markdown]
# The merged model is 1. On an H100, an unmerged LoRA on query and value makes a forward pass 1.3 to 1.5 times as long, on all seven matrices of a block 2.0 to 2.4 times, at every batch size we tried. On one thread of a CPU it is 1.0 to 1.1 times and 1.1 to 1.3 times.
#
# How sure is that? No adapter and merged are the same arithmetic, so what they differ by is noise: up to 11 % on the H100, up to 14 % on the CPU, where each point is the median of five runs only. So no single point on query and value of the CPU proves a cost. Together they do: 11 of the 12 lie above 1, the middle one 5 % above.
#
# The thin products are few: 0.4 % more multiplications in the blocks on query and value, 2.3 % on all seven matrices. But each is a call of its own. Reading 32 rows takes the H100 only 1.1 times as long as reading one: it is waiting for calls, so every further call costs. The CPU takes 20 times as long: it is busy computing, and most of the calls disappear in that. (Not all: on seven matrices it pays more than 2.3 %, and we have not found out why.) With a larger model or longer texts, the same calls weigh less on a GPU. Hu et al. (2021, table 1) met this with adapters on GPT-2, most for short texts and small batches.
#
# Routing three adapters on query and value costs 1.9 to 3.4 times the merged time on the H100 and 1.1 to 1.6 times on the CPU. Our library takes the batch apart in every layer: the price of code that you can read. (One row has one adapter only, two rows two.)
#
# And on your machine? One row of 32 tokens, three ways, in turns. We take the fastest of eight, because whatever else your machine does can only add time:

# %% tags=["nbval-ignore-output"]
from contextlib import nullcontext

from peftlab.bench.lora_latency import timed

peftlab.use(model, "define")
row = torch.randint(1000, 40_000, (1, 32), generator=generator)
ways = {"no adapter": peftlab.disabled, "merged": peftlab.folded, "unmerged": nullcontext}
seconds = {way: [] for way in ways}
for _ in range(4):
    for way, switched in ways.items():
        with switched(model), torch.no_grad():
            seconds[way] += [timed(lambda: model(row), "cpu") for _ in range(2)]
for way in ways:
    print(f"{way:10} {min(seconds[way]) / min(seconds['merged']):.2f} of the merged model's time")

# %% [markdown]
# (How far is *no adapter* from 1? That is your noise.)
#
# Are the answers the same? And the weights, afterwards?

# %%
with torch.no_grad():
    unmerged = model(ids).logits
    before = layer.base.weight.clone()
    with peftlab.folded(model):
        folded = model(ids).logits
    print("folded = unmerged:        ", torch.allclose(folded, unmerged, atol=1e-3))
    print("weights back, bit for bit:", torch.equal(layer.base.weight, before))

# %% [markdown]
# ## What merging breaks: the way back
#
# `folded` keeps the original weights in memory and puts them back. Many libraries, `peft` among them, save that memory. They get $W_0$ back by *subtracting* $\frac{\alpha}{r} B A$ again.
#
# In exact arithmetic that is the same. Computers round.

# %%
predict("07.way_back")

# %% tags=["nbval-ignore-output"]
lora = layer.adapters["define"]
delta = lora.delta_weight().detach()
for dtype in (torch.float32, torch.bfloat16):
    W0 = before.to(dtype)
    merged = (W0 + delta).to(dtype)
    again = (merged - delta).to(dtype)
    print(f"{str(dtype):14}: {(again == W0).float().mean():7.2%} of the weights are back, "
          f"and {(merged == W0).float().mean():7.2%} never moved")

# %% [markdown]
# The first column: adding and subtracting the same numbers does not return what was there. In the stored measurement, over all 60 matrices and three adapters, 94 % of the weights are back in bfloat16, 97 % in 32 bits. The others keep the rounding error of the sum.
#
# A service that swaps adapters does this all day. `peft` adds $\Delta W = \frac{\alpha}{r} B A$ in 32 bits and subtracts it rounded to the weight's own type. A thousand rounds of that, in this one layer:

# %% tags=["nbval-ignore-output"]
changes = [lora.delta_weight().detach() for lora in layer.adapters.values()]
W0 = before.bfloat16()
for who, turns in (("one adapter", changes[:1]), ("three in turn", changes)):
    W = W0
    for swap in range(1, 1001):
        delta = turns[swap % len(turns)]
        W = (W + delta).bfloat16()  # merge
        W = W - delta.bfloat16()  # unmerge
        if swap in (1, 10, 100, 1000):
            error = (W - W0).float().norm() / changes[0].norm()
            print(f"{who:14} after {swap:4} swaps the base is off by {error:6.2%} of one ΔW")

# %% [markdown]
# The base drifts, and further with several adapters in turn, and nothing warns you. The mend costs memory: keep the originals.
#
# Now the second column above. bfloat16 keeps 8 significant bits. Where an entry of the change is smaller than half the last bit of its weight, the sum rounds back to the old weight, and *the change is lost*: 5 % of the bfloat16 weights never moved. Does it matter for the answers? Merge `topic`, round every weight to bf16 as a saved model would hold it, and measure. (It computes in 32 bits: few laptops are fast in bf16, so only the rounding differs.)

# %% tags=["nbval-ignore-output"]
from peftlab.tasks.metrics import evaluate

peftlab.use(model, "topic")
saved = peftlab.merge(copy.deepcopy(model)).to(torch.bfloat16).float()
test = datasets.load("wordnet_topics").topics("test")[:50]
for name, served in (("unmerged", model), ("merged, rounded to bf16", saved)):
    print(f"{name:24} {evaluate(served, tokenizer, test, max_length=48).loss:.4f} nats per token")

# %% [markdown]
# Fifty rows of one job prove little. In the stored measurement, with arithmetic in bf16 too and a hundred test rows of each job, merged and unmerged differ by at most 0.005 nats per token. So here the lost bits do not matter.
#
# ## Add adapters together
#
# If $\Delta W_1$ knows one job and $\Delta W_2$ another, does $w_1 \Delta W_1 + w_2 \Delta W_2$ know both? It is tempting: no training, one adapter, mergeable. First get the sum right.
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
root = 0.5**0.5
linear = (root * factors[0][1] + root * factors[1][1]) @ (root * factors[0][0] + root * factors[1][0])
print(f"A {tuple(A.shape)}, B {tuple(B.shape)}; stacked = exact: {torch.allclose(B @ A, exact, atol=1e-6)}")
print(f"'linear' is off by {(linear - exact).norm() / exact.norm():.0%} of the exact sum")

# %% [markdown]
# `peft` calls your way `combination_type="cat"`. It also has `"linear"`, which adds the $A$'s and the $B$'s apart so that the rank stays. With two adapters and equal weights $w$ it multiplies out to
#
# $$w\,(B_1 + B_2)(A_1 + A_2) = w\,(B_1 A_1 + B_2 A_2 + B_1 A_2 + B_2 A_1).$$
#
# The last two are **cross terms** that nobody trained: $A_2$ reads a direction, and $B_1$ writes something that belongs to another one. And then there is `"svd"`, `peft`'s default, which computes the exact sum and cuts it to a smaller rank, with lesson 06's scissors.

# %%
predict("07.combination")

# %% mystnb={"image": {"alt": "Three panels, one for each task, with test loss per token for exact and linear sums of two and three adapters, with weights one half and one. The base is a dotted and the task's own adapter a solid horizontal line. In defining, exact sums with weights of one half lie nearest to the own adapter, and the sum with all of the topic adapter lies above the base. In naming topics, exact sums with weights of one lie nearest to the own adapter."}}
_ = work_figures.combinations(answered)

# %% [markdown]
# Low is good. Each panel tests one job. The solid line is that job's own adapter, the dotted one the base. Take the exact sum of `define` and `topic`. Half of each keeps 57 % of what the adapter gained in defining words, and 98 % in naming topics. The loss flatters it: it names the topic in 73 % of cases, the adapter alone in 85 %. With weights of 1 the loss in defining is 5.16, and the base without any adapter has 5.03 (on these hundred questions): adding all of `topic` makes definitions worse than with no adapter at all. And the exact sum of all three, weights 1, names the topic in 74 % of cases, 'linear' in 1 %.
#
# So a sum of adapters is no sum of skills. The two jobs want different weights, and which one survives depends on how large each change is and where it writes. At the same weights, the exact sum does better than 'linear' in most places, though not in all: the cross terms also make the change larger, and that can help by chance. All of this is one seed and one hundred questions for each job. What you can take from it: test every job after every sum. And compare with the row *one adapter for all three* in the first table, which has no such trouble.
#
# ## A trap: the wrong base
#
# `saved` has `topic` in its weights. Somebody takes it for the base and loads `define` into it. The shapes fit, the names fit. What warning do you expect, from us or from `peft`?

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
# No warning at all, from either library. You see it in the loss, if you test. An adapter's file names its base (`base_model_name_or_path`) but holds no fingerprint of its weights. And you know this model already: merge one, load another, and you have $W_0 + \Delta W_1 + \Delta W_2$, the sum with weights 1 from above. The mend: never save a merged model under the base's name, and keep a checksum of the base beside the adapter.
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
# **Use unmerged adapters when** many tasks share a base, tasks change often, or you still train. **Merge when** one task runs for long and latency counts, or the software that serves it knows nothing of adapters.
#
# **Unknown:** when sums of adapters work. There are better recipes than plain sums (lesson 16 will try some), and no theory that tells beforehand.

# %%
quiz("07")

# %% [markdown]
# ## Take away
#
# - One base serves many adapters, even in one batch: $W_0 x$ is common, the thin part is each row's own.
# - An adapter is hundreds of times smaller than a copy of the model. That changes what "one model per customer" costs.
# - Merged, LoRA costs no time. Unmerged it costs calls: dear on a GPU with a small model, cheap on a busy CPU.
# - Subtracting what was added does not give the same bits back, and swap by swap the error grows. In bf16 part of a change can vanish in the merge.
# - $\sum w_i \Delta W_i$ is easy to compute exactly. Whether it *does* both jobs must be measured.
#
# ## Sources
#
# - E. Hu et al.: *LoRA: Low-Rank Adaptation of Large Language Models*, 2021, [arXiv:2106.09685](https://arxiv.org/abs/2106.09685). Merging: section 4.1.
# - L. Chen et al.: *Punica: Multi-Tenant LoRA Serving*, 2023, [arXiv:2310.18547](https://arxiv.org/abs/2310.18547).
# - Y. Sheng et al.: *S-LoRA: Serving Thousands of Concurrent LoRA Adapters*, 2023, [arXiv:2311.03285](https://arxiv.org/abs/2311.03285).
# - Data: WordNet 3.0, Princeton University. Model: SmolLM2-135M-Instruct, Apache-2.0, as packaged in 4 bits. Stored runs: `python -m peftlab.bench three_tasks`, `adapters` and `lora_latency`, in `data/results`.

# %% [markdown] tags=["footer"]
# ---
#
# *This is the last one so far.*
