# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["header"]
# # 02 · The PEFT landscape
#
# *45 minutes (30 without the exercises), of which your machine computes for about a minute. Builds on [00 · Start here](00_start_here.ipynb). No GPU, no network.*

# %% [markdown]
# Somebody hands you two copies of a model, one from before training and one from after. They say that they trained it *efficiently*. You can open both and compare them, number by number. What will you find?
#
# That depends on how they did it, and less on the name of the method than on one decision: **where the change lives**. In this lesson you
#
# 1. train one real model in five ways, for some seconds each, and look at which numbers moved,
# 2. put the methods of this course on a map, by that decision,
# 3. ask five questions that tell you what to try first. Often the answer is not to train at all.

# %%
import copy

import torch

import peftlab
from peftlab.course import landscape
from peftlab.course.exercise import check, hint, solution, use
from peftlab.course.question import predict, quiz
from peftlab.methods import Houlsby, LoRA
from peftlab.show import landscape_figures, plots
from peftlab.tasks import datasets, models
from peftlab.tasks.training import train

plots.style()

# %%
data = datasets.load("wordnet_topics")
base, tokenizer = models.load("minilm", num_labels=len(data.classes))
before = {name: tensor for name, tensor in landscape.own_tensors(base).items() if "classifier" not in name}
print(len(before), "pretrained tensors,", f"{sum(t.numel() for t in before.values()):,} numbers")

# %% [markdown]
# The model is MiniLM, a text encoder of six transformer blocks. The task: read a dictionary definition and name its topic, one of twelve. For that it gets a new last layer, the **head**, which starts random; all five ways train it. The comparison is about the 101 tensors that were pretrained.
#
# ## A microscope for models
#
# ### Exercise 1 · What changed? (4 minutes)
#
# `before` and `after` are dictionaries of tensors. Which tensors of `before` changed, and in how many entries? `after` may hold new tensors as well; leave them out.

# %% tags=["exercise"]
def changed(before, after):
    """{name: number of entries that differ (!=)} for every tensor of `before` with at least one of them."""
    return ...


check("02.changed", changed)
# Stuck? Run hint("02.changed", 1), then hint("02.changed", 2), then solution("02.changed").

# %%
changed = use("02.changed", changed)

# %% [markdown]
# Now the five ways. *Full* fine-tuning trains everything, *head only* nothing but the head. The other three stand for three families that you will meet all through this course: **Houlsby**'s adapters put small layers in; **biases and norms** trains a few tensors that are there; **LoRA**, which you used in lesson 00, learns the change of some matrices in a short form. (Lessons 03, 05 and 06 take them apart.)

# %% tags=["nbval-ignore-output"]
def fresh():
    torch.manual_seed(0)
    return copy.deepcopy(base)


full, head, some = fresh(), fresh().requires_grad_(False), fresh()
head.classifier.requires_grad_(True)
for name, parameter in some.named_parameters():
    parameter.requires_grad_("bias" in name or "LayerNorm" in name or name.startswith("classifier"))
houlsby = peftlab.attach(fresh(), Houlsby(reduction_factor=24, non_linearity="relu"))
lora = peftlab.attach(fresh(), LoRA(r=8, lora_alpha=16, target_modules=["query", "value"]))

# %% [markdown]
# Twenty steps of 16 definitions for each (the first takes longest):

# %% tags=["nbval-ignore-output"]
few, held_out = data.train[:800], data.test[:300]
short = dict(steps=20, batch_size=16, seed=0)
ways = {"full": (full, 1e-4), "head only": (head, 3e-3), "Houlsby": (houlsby, 5e-3),
        "biases and norms": (some, 3e-3), "LoRA": (lora, 3e-3)}
runs = {name: train(model, tokenizer, few, lr=lr, name=name, **short) for name, (model, lr) in ways.items()}

# %% [markdown]
# The training is done, and nothing has been looked at. LoRA is *merged* next: its change is added to the weights, as if somebody had trained them.

# %%
predict("02.merged")

# %%
predict("02.full")

# %% tags=["nbval-ignore-output"]
found = {name: changed(before, landscape.own_tensors(model)) for name, (model, _) in ways.items()}
kept = {name: landscape.file_bytes(model) for name, (model, _) in ways.items()}
peftlab.merge(lora)
found["LoRA, merged"] = changed(before, landscape.own_tensors(lora))

rows = [{"way": name, "numbers trained": run.trainable, "file, MB": kept[name] / 1e6,
         "tensors changed": len(found[name]), "numbers changed": sum(found[name].values())}
        for name, run in runs.items()]
rows.append({"way": "LoRA, merged", "numbers trained": "", "file, MB": "",
             "tensors changed": len(found["LoRA, merged"]), "numbers changed": sum(found["LoRA, merged"].values())})
plots.table(rows, caption="After 20 steps: what has to be kept, and what changed among the 101 pretrained tensors")

# %% mystnb={"image": {"alt": "Six rows of 101 cells, one cell for each pretrained tensor of MiniLM, in the model's order. Full: all cells changed, except that the first three, the embedding tables, are only partly changed. Head only: none changed. Houlsby: none changed, with two triangles in each of six blocks where new layers stand. Biases and norms: every second cell changed, and both norms. LoRA: none changed, with two triangles in each block. LoRA, merged: two cells changed in each block."}} tags=["nbval-ignore-output"]
layers = {"Houlsby": landscape.places_of_new(houlsby),
          "LoRA": [name.removesuffix(".weight") for name in found["LoRA, merged"]]}
landscape_figures.changes(before, found, layers)

# %%
half = sum(found["full"].values()) / sum(tensor.numel() for tensor in before.values())
assert len(found["full"]) == 101 and 0.4 < half < 0.6
assert len(found["LoRA, merged"]) == 12 and not (found["head only"] or found["Houlsby"] or found["LoRA"])
assert len(found["biases and norms"]) == 62

# %% [markdown]
# Read it row by row.
#
# - **Full** moved all 101 tensors, and yet half of the numbers are bit-identical. Look at the hatched cells: they are tables with one row for each word piece, each position and each kind of text. A row that no definition used has a gradient of exactly zero, and stays. The table of word pieces alone is more than half of MiniLM. (Ours was AdamW without weight decay. With it, unused rows would shrink a little in every step.) And our microscope is sharp: six of the 101, the key biases, cannot change any output, because softmax cancels them. They moved by rounding noise.
# - **Head only** and **Houlsby**: not one bit of the 101 changed. All that was learned is elsewhere, in the file.
# - **Biases and norms**: 62 tensors, all of them short. No matrix.
# - **LoRA** is two things. Unmerged, it is like Houlsby: the base is untouched. Merged, twelve matrices differ, query and value in each of six blocks: 1.77 million numbers, and all of that came from 78,348 trained ones, the head included.
#
# Which of the five is best? These runs cannot say: 20 steps, one seed, learning rates from experience.
#
# ## The principle
#
# Let $\theta$ be all pretrained numbers of the model, $N$ of them: here 22.6 million. A model computes $f(x; \theta)$ from a text $x$. Fine-tuning in full looks for a new $\theta$. Parameter-efficient fine-tuning keeps $\theta$ **frozen** and trains a small vector $\varphi$ of $k$ numbers beside it, $k \ll N$:
#
# $$\min_{\varphi} \; \mathcal{L}\big(f(x;\, \theta, \varphi),\, y\big), \qquad \theta \text{ fixed} ,$$
#
# where $\mathcal{L}$ is the loss and $y$ the right answer. One base $\theta$, and for each task a small $\varphi$. *How* $\varphi$ enters $f$ is the decision that makes the families:
#
# | family | where the change lives | in training | at inference |
# |---|---|---|---|
# | **additive** | something new: small layers (adapters), vectors that multiply what a layer gives out, or vectors that no one can type before the text (prompts, prefixes); $\theta$ stays as it is | the new parts are computed too, and prompts make every text longer | the parts stay, in every pass |
# | **selective** | in a few entries of $\theta$, the set $S$: $\theta_S + \varphi$, written over in place (keep the old $\theta_S$ if you want to go back) | whole biases or norms add no work of their own; scattered entries have to be found first, and PyTorch computes the gradient of their whole matrix | nothing: the model has its old shape |
# | **reparameterisation** | in a short form of the change: $\theta + g(\varphi)$, with a fixed rule $g$ | $g$ and its gradient are computed in every step | nothing once merged; unmerged the extra products, which buy many tasks from one base |
# | **hybrid** | in several of these at once | the sum, and a longer search for good settings | one part that does not merge is enough to keep its cost |
#
# What most of them save in training is the same: gradients and optimiser states (AdamW's two running averages for each number that trains) of what is frozen. What none saves is the forward pass. And the error travels back as far as the lowest part that trains: through nearly the whole model for most methods, not at all for a head alone ([bridge B4](B4_backward_and_adam.ipynb) takes that apart).
#
# The families are a convention (Lialin et al., 2023), not nature. Selective training *is* a reparameterisation: $g$ puts $\varphi$ at the places $S$ and zeros elsewhere. And IA³ multiplies activations by trained vectors. It counts as additive, but a factor on a layer's output is a factor on the rows of its weight, so it merges. If it matters to you, ask the formula: **can the trained model be written as the old one with other weights?**
#
# ## The map
#
# Every method of the course, with its formula, what it trains on a model of your choice, and where you will meet it. The numbers are for each method's default settings, without a head (where it has none, ours, such as 20 virtual tokens). (MiniLM has its pooler here, a last layer that our classifier leaves out.) Two things to look for: which family reaches lowest, and what becomes of BitFit when you go from MiniLM to Llama.

# %%
from peftlab.show.widgets.method_map import method_map

method_map()

# %% [markdown]
# BitFit trains the biases, and Llama has none. Lowest on MiniLM is a selective method, BEFT, with 2,304 numbers; but the additive and the reparameterising family have one below ten thousand each, and smaller settings would bring many lower. Diff pruning trains 45 million, two for each of MiniLM's, to find the few that it keeps: small is the file, not the training. Accuracy is not on this map, on purpose: it depends on the task, the settings and the learning rate, and needs several seeds. Later lessons measure it.
#
# ## A trap in two lines
#
# Selective training takes a loop, and you find them everywhere like this:
#
# ```python
# for name, parameter in model.named_parameters():
#     parameter.requires_grad_("bias" in name or "LayerNorm" in name)
# ```
#
# No error, no warning, the loss falls. What is wrong with it?

# %% tags=["nbval-ignore-output"]
from peftlab.tasks.metrics import evaluate

trap = fresh()
for name, parameter in trap.named_parameters():
    parameter.requires_grad_("bias" in name or "LayerNorm" in name)
runs["trap"] = train(trap, tokenizer, few, lr=3e-3, name="trap", **short)
right = {}
for name, model in (("trap", trap), ("biases and norms", some)):
    losses, right[name] = runs[name].losses, evaluate(model, tokenizer, held_out).accuracy
    print(f"{name}: loss {losses[0]:.2f} → {sum(losses[-4:]) / 4:.2f}, {right[name]:.0%} of 300 right, guessing 8%")

# %% [markdown]
# Your microscope finds it. Compare the head before and after:

# %%
heads = {name: tensor for name, tensor in landscape.own_tensors(base).items() if name.startswith("classifier")}
for name, model in (("trap", trap), ("biases and norms", some)):
    print(f"{name}: {', '.join(changed(heads, landscape.own_tensors(model)))}")

# %%
assert list(changed(heads, landscape.own_tensors(trap))) == ["classifier.bias"]
assert right["trap"] < right["biases and norms"] - 0.1

# %% [markdown]
# `classifier.bias` has "bias" in its name, so it trains. `classifier.weight` does not, so it stays what it was at the start: *random*. The encoder spends its few numbers on making the best of random scores. Everything new must train, whatever it is called. `peftlab.attach` sees to that for a classifier, and `peft` if its config says `task_type="SEQ_CLS"`; without that, `peft` freezes the random head as silently as the loop does. The mend is the line above: `or name.startswith("classifier")`. The check is one line too: print what trains.
#
# ## Five questions before you train
#
# Ask them in this order, and stop at the first that settles it.
#
# 1. **Is prompting enough?** A clear instruction, a few examples in it, and a measurement on real cases. Nothing is cheaper to try. (Count the calls: a long prompt is paid for in each.)
# 2. **Is it knowledge, and does it change?** Then put the facts beside the model and look them up for each question: **retrieval** (Lewis et al., 2020). You can correct them, and name the source.
# 3. **Do you need a label, and is the head alone enough?** Frozen encoder, trained last layer. On this task, full-length runs of lesson 06, five seeds each, gave on average 80.6 % for the head alone, 86.0 % for LoRA and 87.4 % for full fine-tuning; seeds differ by up to 2.2 points. But the head had only as many steps as the others. Trained to the end, with a penalty chosen on validation data, it has 83.4 %. Is the difference worth anything to whoever uses it?
# 4. **How will it be served?** Many tasks from one base, mixed in a batch: leave the adapters unmerged. One task on a program that knows plain models only, or no time to lose: LoRA, merged.
# 5. **What memory have you?** First what a step needs for its activations ([lesson 01](01_scaling_dilemma.ipynb)'s calculator counts it; fewer tokens or checkpointing make it less). If weights, gradients and AdamW's averages of the whole model fit beside that: full fine-tuning is open to you. If the weights do: LoRA. If not even these: QLoRA, which stores them in 4 bits.
#
# ### Exercise 2 · The first thing to try (8 minutes)
#
# For each case, the number of the question that settles it and what to try first: `"prompt"`, `"retrieval"`, `"head only"`, `"LoRA, merged"`, `"LoRA, unmerged"`, `"QLoRA"` or `"full fine-tuning"`. Write each as a pair, such as `(5, "full fine-tuning")`.
#
# - **invoices**: read the total out of fifty invoices a day. With five examples in the prompt, 98 of 100 test invoices came out right; 95 are needed.
# - **price list**: answer customers from a list of 40,000 prices, new every Monday. Each answer must say which line it rests on.
# - **tickets**: sort two million support tickets a day into eight queues. A trained head on a frozen encoder gets 91 of 100 right on validation data; 90 are needed. A prompt in each call would cost too much.
# - **customers**: write replies in the house style of 300 customers. The style manuals in the prompt were measured, and were not enough. One GPU has to answer all of them, in mixed batches.
# - **keyboard**: suggest the next word in one dialect, on telephones. Prompting failed, facts are not the problem, and the program there loads plain models only. Your own machine cannot train the model in full.
# - **one card**: teach a model of 70 billion parameters a new language for commands, from 20,000 examples. Prompting, retrieval and a small model were tried; how it is served is open. There is one card with 48 GB.

# %% tags=["exercise"]
first_try = {"invoices": ..., "price list": ..., "tickets": ..., "customers": ..., "keyboard": ..., "one card": ...}

check("02.first_try", first_try)

# %%
first_try = use("02.first_try", first_try)

# %% [markdown]
# **Where opinions differ.** The order is ours, from cheap to dear, and each step has its critics.
#
# - *Prompting first?* Liu et al. (2022) say it in their title: few-shot fine-tuning can be "better and cheaper than in-context learning", since examples in a prompt are paid for in every call. With many calls a day, count.
# - *Facts only by retrieval?* Ovadia et al. (2023) found retrieval ahead of further training on raw text, for old facts and for new ones. Zhao et al. (2025) find that facts are not in themselves harder to train than style, and that the form of the data decides.
# - *Does LoRA give anything away?* Biderman et al. (2024) saw it learn less than full fine-tuning on large data, and forget less. Schulman et al. (2025) saw no gap on data sets of moderate size, with LoRA on all layers and a learning rate of its own.
#
# Whatever you take, compare it with the step before.
#
# ## How it came about
#
# Placed by the month of the first version on arXiv. Filled marks are built in our library, the others only named so far.

# %% mystnb={"image": {"alt": "Timeline from 2019 to 2024 in four lanes. Additive: Houlsby early 2019, Pfeiffer 2020, prefix tuning, prompt tuning, Compacter and parallel adapter 2021, IA³ 2022, LLaMA-Adapter 2023. Selective: diff pruning end of 2020, BitFit and FishMask 2021, LayerNorm tuning end of 2023. Reparameterisation: intrinsic dimension end of 2020, LoRA and LoHa's FedPara 2021, AdaLoRA, QLoRA, OFT and VeRA 2023, DoRA 2024. Hybrid: MAM and UniPELT, October 2021."}}
landscape_figures.timeline()

# %% [markdown]
# Most of what we show is from two years. By the end of 2021 two papers already mixed the families; one, He et al., asked whether they are at heart the same (lesson 12 will). From 2023 on, reparameterisations are the largest group of newcomers, 7 of the 15 on our map; not all vary LoRA.
#
# ## Check yourself

# %%
quiz("02")

# %% [markdown]
# ## Take away
#
# - PEFT: $\theta$ frozen, a small $\varphi$ trained. The families differ in where $\varphi$ enters: beside the model, in chosen entries of it, or as a short form of its change.
# - Whether the trained model can be written as the old one with other weights decides about merging, speed and what a diff will show. The family's name does not.
# - Few *trained* numbers can be many *changed* ones (LoRA, merged), and full fine-tuning need not touch everything.
# - What saves memory in training is what has no gradient. The forward pass stays.
# - Before training: prompt, retrieval, head. Then serving and memory. And check that everything new trains.
#
# ## Sources
#
# - V. Lialin, V. Deshpande, A. Rumshisky: *Scaling Down to Scale Up: A Guide to Parameter-Efficient Fine-Tuning*, 2023, [arXiv:2303.15647](https://arxiv.org/abs/2303.15647).
# - N. Houlsby et al.: *Parameter-Efficient Transfer Learning for NLP*, 2019, [arXiv:1902.00751](https://arxiv.org/abs/1902.00751).
# - E. Hu et al.: *LoRA: Low-Rank Adaptation of Large Language Models*, 2021, [arXiv:2106.09685](https://arxiv.org/abs/2106.09685).
# - E. Ben Zaken, S. Ravfogel, Y. Goldberg: *BitFit*, 2021, [arXiv:2106.10199](https://arxiv.org/abs/2106.10199).
# - H. Liu et al.: *Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning*, 2022, [arXiv:2205.05638](https://arxiv.org/abs/2205.05638) (IA³).
# - J. He et al.: *Towards a Unified View of Parameter-Efficient Transfer Learning*, 2021, [arXiv:2110.04366](https://arxiv.org/abs/2110.04366).
# - T. Dettmers et al.: *QLoRA: Efficient Finetuning of Quantized LLMs*, 2023, [arXiv:2305.14314](https://arxiv.org/abs/2305.14314).
# - P. Lewis et al.: *Retrieval-Augmented Generation for Knowledge-Intensive NLP Tasks*, 2020, [arXiv:2005.11401](https://arxiv.org/abs/2005.11401).
# - O. Ovadia et al.: *Fine-Tuning or Retrieval? Comparing Knowledge Injection in LLMs*, 2023, [arXiv:2312.05934](https://arxiv.org/abs/2312.05934).
# - E. Zhao, P. Awasthi, N. Haghtalab: *From Style to Facts: Mapping the Boundaries of Knowledge Injection with Finetuning*, 2025, [arXiv:2503.05919](https://arxiv.org/abs/2503.05919).
# - D. Biderman et al.: *LoRA Learns Less and Forgets Less*, 2024, [arXiv:2405.09673](https://arxiv.org/abs/2405.09673).
# - J. Schulman and Thinking Machines Lab: *LoRA Without Regret*, 2025, [thinkingmachines.ai/blog/lora](https://thinkingmachines.ai/blog/lora/).
# - The other papers are linked from the map. Data: WordNet 3.0, Princeton University. Model: all-MiniLM-L6-v2, Apache-2.0. Stored runs: lesson 06's, in `data/results/scissors.json`, and `trained_head.json`.

# %% [markdown] tags=["footer"]
# ---
#
# **Next:** [03 · Adapters](03_adapters.ipynb), try to merge one; take out what stands in the way, and find LoRA.
