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
# *60 minutes (45 without the exercises), of which your machine computes for a minute or two. Builds on [06 · LoRA, with scissors](06_lora.ipynb). No GPU, no network.*

# %% [markdown]
# Your team has fine-tuned a language model for three jobs: one writes dictionary entries, one sorts texts by topic, one finds a word you cannot think of. Three requests arrive in the same second, one for each job.
#
# Three models in memory? One model that is reloaded all the time? Or **one model that does all three jobs in the same batch**, each row in its own way?
#
# You do the third in a few minutes, with real adapters. Then you ask what it costs, take the cost away by merging, find out what merging breaks, and add adapters together, which works less well than people hope.

# %%
import copy

import torch
import torch.nn.functional as F

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
# The base is SmolLM2, a chat model of 135 million parameters. (It comes rounded to 4 bits and is de-quantised here, so its numbers are a little worse than the original's.) The course has trained three LoRAs on it, with $r = 8$ on the query and value matrices of its 30 blocks:
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
for folder in sorted(path for path in adapters.iterdir() if path.is_dir()):
    size = (folder / "adapter_model.safetensors").stat().st_size
    names = size - sizes["bytes of one adapter"]
    print(f"{folder.name:8} {size:,} bytes on disk ({names:,} of them for names)")

# %% [markdown]
# A second full copy of the model would take as much disk as 291 adapters. For a model of 7 billion parameters and a LoRA on the same matrices, the ratio is larger still: matrices grow with $d^2$, adapters with $d$.
#
# ## Switch
#
# Load the base once and hang all three into it. `use` says which one is on.

# %% tags=["nbval-ignore-output"]
base, tokenizer = models.load("smollm2")
model = base
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
# How does one forward pass serve four rows in four ways? The expensive part, $W_0 x$, is the same for all rows and needs to be computed only once for the whole batch. Only the thin part $\frac{\alpha}{r} B A x$ differs from row to row.
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
# (One difference inside: `peft` computes $W_0 x$ once for all rows, as you did. Our library sends each group of rows through its own copy of the whole formula. That works for every method, not for LoRA alone, and costs time in large mixed batches, as you will see. Systems built for serving, such as [Punica](https://arxiv.org/abs/2310.18547) and [S-LoRA](https://arxiv.org/abs/2311.03285), have a GPU program of their own for the thin part.)
#
# ## How good are they?
#
# Each adapter was trained for 180 steps of 32 examples. Beside it: the base as it is, the base with eight worked examples in its prompt, and full fine-tuning for as many steps. Learning rates were chosen on validation data. The loss is per token of the answer, in nats. Where the answer is one word we also count how often the model would write it.

# %%
work_figures.tasks(trained, answered)

# %% [markdown]
# Read the losses first. LoRA reaches 2.85 in defining, full fine-tuning 2.77; in naming topics it is 0.16 against 0.16; finding words 1.92 against 1.94. Small gaps, with 0.34 % as many new numbers as the model has. (Both learning rates were the largest that was tried, so both may be a little under-trained. And these runs were made on another machine, with a release of the tokenizer that ended answers with another token. All rows of the table share that.) One adapter for all three jobs, with three times the steps, gets to 2.83, 0.19 and 1.97. If your jobs are known beforehand, *one adapter for all* is a strong rival to three.
#
# Now the answers. The base names the topic in 3 % of cases, with eight examples in its prompt in 21 %, and with its adapter in 85 %. The right word comes in 15 % of cases: WordNet's own word, not a synonym. One hundred questions, so a standard error of up to 5 percentage points. The stored adapters were trained on two laptop cores, for a quarter as long as the runs of the table.
#
# ## Merge, and the cost is gone
#
# An unmerged LoRA computes two thin products beside each matrix it adapts. How much time is that?

# %%
predict("07.latency")

# %% mystnb={"image": {"alt": "Two line charts of time relative to the merged model against the number of rows in the batch, for reading 32 tokens and for writing one. Unmerged LoRA on all seven matrices lies at about twice the merged time at every batch size, on query and value at about one and a half times, and three adapters routed at two to three times. No adapter lies at one."}}
_ = work_figures.latency(Results.load("lora_latency_gpu"))

# %% [markdown]
# The merged model is 1. On an H100, an unmerged LoRA on query and value makes a forward pass 1.3 to 1.5 times as long, on all seven matrices of a block 2.0 to 2.4 times, at every batch size we tried. (In the same runs no adapter at all takes between 0.89 and 1.03: that is the noise.) This is not the arithmetic: two products of rank 8 are about one part in a hundred of the work. But each of them is a call of its own, and a GPU that runs a small model spends its time waiting for calls, not computing. For a larger model, or longer texts, the same calls weigh less. Hu et al. (2021, table 1) met the same effect with adapters on GPT-2: largest for short texts and small batches.
#
# Routing three adapters in one batch costs 1.9 to 3.4 times the merged time in our library, because it takes the batch apart in every layer. That is the price of code that you can read. Serving systems exist to bring it down.
#
# And on your machine? One row of 32 tokens, the three variants in turns:

# %% tags=["nbval-ignore-output"]
from peftlab.bench.lora_latency import prepared, side_by_side

variants = prepared(models.load("smollm2")[0], "qv")
seconds = side_by_side(variants, "read", batch=1, device="cpu")
for name in ("base", "merged", "unmerged", "routed"):
    print(f"{name:9} {seconds[name] / seconds['merged']:.2f} of the merged model's time")
del variants

# %% [markdown]
# (How far is *base* from 1? The two are the same work, so this is your noise.)
#
# **Merging** makes the adapter a part of the weights: $W = W_0 + \frac{\alpha}{r} B A$. The merged model is an ordinary model again, with no adapter and no extra time. `peftlab.merge` does it for good, `peftlab.folded` for a while:

# %%
peftlab.use(model, "define")
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
# The first column: adding and subtracting the same numbers does not return what was there. Switch adapters by merging and unmerging a thousand times a day, and the base drifts. The mend costs memory: keep the originals.
#
# The second column is worse. bfloat16 keeps 8 significant bits. Where an entry of the change is smaller than half the last bit of its weight, the sum rounds back to the old weight, and *the change is lost*. Does it matter for the answers? Measure it: the same adapter in a bf16 model, unmerged (the thin path adds its part to the output, in 32 bits) and merged.

# %% tags=["nbval-ignore-output"]
half, _ = models.load("smollm2", dtype=torch.bfloat16)
peftlab.load(half, adapters / "define", name="define")
test = datasets.load("define_word").definitions("test")[:100]
from peftlab.tasks.metrics import evaluate

losses = {"32 bit, unmerged": evaluate(model, tokenizer, test, max_length=48).loss,
          "bf16, unmerged": evaluate(half, tokenizer, test, max_length=48).loss}
losses["bf16, merged"] = evaluate(peftlab.merge(half), tokenizer, test, max_length=48).loss
for name, loss in losses.items():
    print(f"{name:18} {loss:.4f} nats per token")

# %% [markdown]
# In the stored measurement, over all 60 matrices and three adapters, 94 % of the weights are back in bfloat16, 97 % in 32 bits. And 5 % of the bfloat16 weights never moved. What becomes of the answers? On a hundred test rows of each job, merged and unmerged in bf16 differ by at most 0.005 nats per token. So in this case the lost bits do not matter. They add up in a service that merges and unmerges all day, and they matter more where the change is small beside the weight.
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

# %% mystnb={"image": {"alt": "Three panels, one for each task, with test loss per token for exact and linear sums of two and three adapters, with weights one half and one. The base and the task's own adapter are horizontal lines. In defining, exact sums with weights of one half lie nearest to the own adapter, and the sum with all of the topic adapter lies above the base. In naming topics, exact sums with weights of one lie nearest to the own adapter."}}
_ = work_figures.combinations(answered)

# %% [markdown]
# Low is good. Each panel tests one job. The solid line is that job's own adapter, the dotted one the base. Look at the exact sum of `define` and `topic`: half of each keeps 57 % of what the adapter gained in defining words, and 98 % in naming topics. The loss flatters it, though. It names the topic in 73 % of cases, the adapter alone in 85 %. With weights of 1 the loss in defining is 5.16, and the base without any adapter has 5.03: adding all of `topic` makes definitions worse than with no adapter at all. And the exact sum of all three, weights 1, names the topic in 74 % of cases, 'linear' in 1 %.
#
# So a sum of adapters is no sum of skills. The two jobs want different weights, and which one survives depends on how large each change is and where it writes. At the same weights, the exact sum does better than 'linear' in most places, though not in all: the cross terms also make the change larger, and that can help by chance. All of this is one seed and one hundred questions for each job. What you can take from it: test every job after every sum. And compare with the row *one adapter for all three* in the first table, which has no such trouble.
#
# ## A trap: the wrong base
#
# Somebody merged `define` into the model and saved the result. Now `topic` is loaded into that model. The shapes fit, the names fit. What warning do you expect, from us or from `peft`?

# %% tags=["nbval-ignore-output"]
wrong, _ = models.load("smollm2")
peftlab.merge(peftlab.load(wrong, adapters / "define", name="define"))
peftlab.load(wrong, adapters / "topic", name="topic")

questions = datasets.load("wordnet_topics").topics("test")[:60]
peftlab.use(model, "topic")
for name, served in (("right base", model), ("wrong base", wrong)):
    answers = complete(served, tokenizer, questions.prompts, max_new_tokens=6)
    right = sum(a == c.strip() for a, c in zip(answers, questions.completions, strict=True))
    print(f"{name}: {right} of {len(answers)} topics right")

# %% [markdown]
# No warning at all, from either library. You see it in the count, though, if you test. An adapter's file names its base (`base_model_name_or_path`) but holds no fingerprint of its weights. Yet you know this model already: merge one, load another, and you have $W_0 + \Delta W_1 + \Delta W_2$, the combination with weights 1 from above. The mend: never save a merged model under the base's name, and keep a checksum of the base beside the adapter.
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
# - Merged, LoRA costs no time. Unmerged it costs some, most where little else is computed.
# - Subtracting what was added does not give the same bits back. In bf16 part of a change can vanish in the merge.
# - $\sum w_i \Delta W_i$ is easy to compute exactly. Whether it *does* both jobs must be measured.
#
# ## Sources
#
# - E. Hu et al.: *LoRA: Low-Rank Adaptation of Large Language Models*, 2021, [arXiv:2106.09685](https://arxiv.org/abs/2106.09685). Merging: section 4.1.
# - L. Chen et al.: *Punica: Multi-Tenant LoRA Serving*, 2023, [arXiv:2310.18547](https://arxiv.org/abs/2310.18547).
# - Y. Sheng et al.: *S-LoRA: Serving Thousands of Concurrent LoRA Adapters*, 2023, [arXiv:2311.03285](https://arxiv.org/abs/2311.03285).
# - Data: WordNet 3.0, Princeton University. Model: SmolLM2-135M-Instruct, Apache-2.0, as packaged in 4 bits. Stored runs: `python -m peftlab.bench three_tasks` and `lora_latency`; the JSON files in `data/results` say which machine and versions.

# %% [markdown] tags=["footer"]
# ---
#
# *This is the last one so far.*
