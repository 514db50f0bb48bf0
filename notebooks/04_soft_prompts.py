# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["header"]
# # 04 · Soft prompts
#
# *75 minutes (50 without the exercises), of which your machine computes for about a minute. You need PyTorch basics, and what attention does (bridge B1). No GPU, no network.*

# %% [markdown]
# Type a few worked examples in front of a question, and a language model answers in their way. Nothing was trained. The text alone did it.
#
# So what *is* a prompt, for the model? In this lesson you take a typed prompt apart into the numbers that it leaves behind, put only those numbers back, and get the same answers. Then comes the idea: if a prompt is numbers, why should somebody type it? **Train the numbers.**
#
# You will
#
# 1. capture a typed prompt as keys and values, and load it as a *prefix*,
# 2. break it with a wrong position, and mend it,
# 3. build *prompt tuning* from raw tensors, and see both methods equal Hugging Face `peft`,
# 4. put typed prompts, trained prompts and LoRA on one leaderboard, with a prompt of your own, and ask why soft prompts have a reputation for learning slowly.

# %%
import inspect
from contextlib import nullcontext

import torch

import peftlab
from peftlab.bench.results import Results
from peftlab.course.exercise import check, hint, solution, use
from peftlab.course.question import predict, quiz
from peftlab.course.typed_prompt import anew, attach_text, loaded_anew
from peftlab.methods import LoRA, PrefixTuning, PromptTuning
from peftlab.show import plots, prompt_figures
from peftlab.tasks import datasets, models
from peftlab.tasks.generation import complete
from peftlab.tasks.prompts import captured, front_ids, start_from

plots.style()
stored, tasks = Results.load("soft_prompts"), Results.load("three_tasks")

# %% [markdown]
# ## A typed prompt
#
# The model is SmolLM2 with 135 million parameters, the task is lesson 00's: a word in, its dictionary definition out. First without a prompt, then with four examples in front.

# %% tags=["nbval-ignore-output"]
model, tokenizer = models.load("smollm2")
words = datasets.load("define_word")
train_rows, test_rows = words.definitions("train"), words.definitions("test")
examples = "".join(f"{p}{c}\n\n" for p, c in zip(train_rows.prompts[:4], train_rows.completions[:4], strict=True))
print(examples)
for word in ("river", "courage"):
    question = datasets.define_prompt(word)
    print(f"{word}, no prompt:     {complete(model, tokenizer, [question])[0]}")
    print(f"{word}, with examples: {complete(model, tokenizer, [examples + question])[0]}")

# %% [markdown]
# The style of a dictionary, from four examples. (The style, not the truth: see lesson 00.)
#
# ## What is left of it
#
# How do the examples reach the question? In a causal model a token never looks ahead, so nothing about the question flows into the examples. And the question can see the examples in one way only. In every layer, **attention** compares the *query* $q$ of a token with the **keys** $K$ of the tokens before it, and takes a weighted mean of their **values** $V$:
#
# $$\mathrm{head} = \mathrm{softmax}\!\left(\frac{q\,K^\top}{\sqrt{d_h}}\right) V .$$
#
# So the examples' keys and values in every layer are *all* that the question ever gets of them. SmolLM2 computes them in 30 layers, with 3 key-value heads of $d_h = 64$ numbers, for each of the $n = 67$ tokens. While a model writes, it keeps them, so as not to compute them again: the **key-value cache**. We read the examples once and take it.

# %%
ids = front_ids(tokenizer, examples)  # (n,), as they are when a word comes after them
with torch.no_grad():
    cache = model(input_ids=ids[None], use_cache=True).past_key_values
layers = [(layer.keys, layer.values) for layer in cache.layers]
print(f"{len(ids)} tokens, {len(layers)} layers, keys {tuple(layers[0][0].shape)}, values {tuple(layers[0][1].shape)}")

# %% [markdown]
# We call $n$ such keys and values a **prefix**, $P_K$ and $P_V$, as if $n$ *virtual tokens* stood in front:
#
# $$\mathrm{head} = \mathrm{softmax}\!\left(\frac{q\,[P_K; K]^\top}{\sqrt{d_h}}\right) [P_V; V] .$$
#
# ### Exercise 1 · How many numbers? (4 minutes)
#
# There are two ways to have virtual tokens. A *prompt* is $n$ vectors of the model's width $d = 576$, put in front of the embedded text, before the first layer. A *prefix* is keys and values in all 30 layers. SmolLM2 has 9 query heads of 64; its 3 key-value heads are shared, three by three. Take $n = 20$.

# %% tags=["exercise"]
sizes = {"numbers in the prompt": ..., "numbers in the prefix": ...}

check("04.sizes", sizes)
# Stuck? Run hint("04.sizes", 1), then hint("04.sizes", 2), then solution("04.sizes").

# %%
sizes = use("04.sizes", sizes)
for name, method in (("prompt", PromptTuning(num_virtual_tokens=20)), ("prefix", PrefixTuning(num_virtual_tokens=20))):
    peftlab.attach(model, method, name="count")
    print(f"{name}: {sizes[f'numbers in the {name}']:,} by hand; {peftlab.count_parameters(model)}")
    peftlab.detach(model, "count")

# %% [markdown]
# The prefix has 20 times as many numbers as the prompt. The LoRA of lesson 00, on query and value with $r = 8$, has 460,800.
#
# ### Exercise 2 · From the cache to a prefix (8 minutes)
#
# `peft` keeps a prefix as one table with a row for each virtual token: layer by layer, first the keys of all heads, then the values. Make that table from `layers`, the list of the cell above.

# %% tags=["exercise"]
def table(layers):
    """(n, layers · 2 · heads · d_h) from a list with (keys, values) of each layer, both (1, heads, n, d_h)."""
    return ...


check("04.table", table)

# %% [markdown]
# Now load the table as a prefix, and ask the question *alone*. Compare the scores of the next token (the logits) with those for the typed prompt.

# %%
table = use("04.table", table)
question = tokenizer(datasets.define_prompt("river"), return_tensors="pt")
with torch.no_grad():
    typed = model(input_ids=torch.cat([ids[None], question["input_ids"]], dim=1)).logits[0, len(ids) :]
    anew(model, PrefixTuning(num_virtual_tokens=len(ids)), "typed")
    start_from(model, table(layers), name="typed")
    loaded = model(**question).logits[0]
print("typed prompt = captured prefix:", torch.allclose(typed, loaded, atol=2e-3), tuple(loaded.shape))
with peftlab.disabled(model):
    print("your table = the library's:    ", torch.equal(table(layers), captured(model, ids)))

# %% [markdown]
# The same scores, up to rounding. In the second run the model was given six tokens and a table of numbers.
#
# ## A trap: where does the question stand?
#
# One thing was done for you. In this model, position is an angle: keys and queries are turned by it (*rotary* positions), and attention feels the difference. The keys in the cache have been turned already, to positions 0 to 66. So the question's positions must count on from 67. Whoever feeds keys and values by hand, and lets positions start at 0, gets no error.
#
# What does it cost? We take 24 test words. The loss is lesson 00's, the mean over the tokens of the right answer, with the natural logarithm; its unit is the *nat*.

# %%
batch = datasets.encode(test_rows[:24], range(24), tokenizer, max_length=48)
steps = torch.arange(batch["input_ids"].shape[1])[None]


def loss_from(first):
    peftlab.use(model, "typed")
    with torch.no_grad():  # the library adds len(ids) to positions that it is given
        return model(**batch, position_ids=(steps + first - len(ids)).expand(24, -1)).loss.item()


with torch.no_grad(), peftlab.disabled(model):
    no_prompt = model(**batch).loss.item()
print(f"no prompt: {no_prompt:.1f}, question from position 67: {loss_from(67):.1f}")

# %%
predict("04.from_zero")

# %% [markdown]
# Drag the place where the question's positions begin. Where is the worst? (On the website the slider is asleep; the next cell prints some of its stops.)

# %% tags=["nbval-ignore-output"]
from peftlab.show.sliders import drag

drag("positions from", [-100, -40, 0, 16, 32, 48, 60, 66, 67, 68, 80, 150, 300], loss_from, start=67,
     describe=lambda first, loss: f"from {first}: loss {loss:.2f}. No prompt at all: {no_prompt:.2f}")

# %%
loss_at = {first: loss_from(first) for first in (-40, 0, 32, 67, 300)}
print({first: round(loss, 1) for first, loss in loss_at.items()}, "no prompt:", round(no_prompt, 1))
assert loss_at[32] > loss_at[0]  # in the middle of the examples is worse still
assert abs(loss_at[0] - 5.6) < 0.2
assert loss_at[67] < no_prompt - 0.4 < no_prompt < loss_at[0] - 0.4 and abs(loss_at[300] - loss_at[67]) < 0.3
assert loss_at[67] < loss_at[-40] < no_prompt  # in front of its own prompt, and better than without

# %% [markdown]
# From 67 the examples help. From 0 the loss is *worse than with no prompt at all*, and from 32 worse still: the question stands among its own examples. Go on past 67: even 300 does little harm here. Go in front of them, to -40: better than no prompt. What hurts is to stand where the examples stand.
#
# ## From capturing to training
#
# $P_K$ and $P_V$ need not come from a text. Make them parameters, freeze the model, and follow the gradient: that is **prefix tuning** (Li and Liang, 2021). Or train only what goes in at the bottom, $n$ vectors $P$ in front of the embedded text $X$, and let the model compute the keys and values of all layers from them. That is **prompt tuning** (Lester et al., 2021):
#
# $$[P; X] \in \mathbb{R}^{(n + T) \times d}$$
#
# for a text of $T$ tokens.
#
# ### Exercise 3 · Prompt tuning by hand (8 minutes)
#
# Put $P$ in front of $X$, for every row of the batch. Two more things must grow with it: the attention mask (1 where a position may be looked at) and the labels (the token that each position is scored on; `-100` where the loss is to look away).

# %% tags=["exercise"]
def prepend(P, X, mask, labels):
    """([P; X], mask, labels), with n more positions. P (n, d), X (batch, T, d), mask and labels (batch, T)."""
    return ...


check("04.prepend", prepend)

# %%
prepend = use("04.prepend", prepend)
anew(model, PromptTuning(num_virtual_tokens=20), "mine")
P = model.peftlab.shared["mine"].prompt_embeddings.detach()
X = model.get_input_embeddings()(batch["input_ids"])
with torch.no_grad(), peftlab.disabled(model):
    inputs, mask, labels = prepend(P, X, batch["attention_mask"], batch["labels"])
    by_hand = model(inputs_embeds=inputs, attention_mask=mask, labels=labels).loss
with torch.no_grad():
    print("by hand = the library's:", torch.allclose(by_hand, model(**batch).loss, atol=1e-4))

# %% [markdown]
# In the library, a prompt is your `prepend`, with care for `generate()`. A prefix changes what each attention sees:

# %%
from peftlab.methods.additive.prefix_tuning import Prefix

print(inspect.getsource(Prefix.on_attention))

# %% [markdown]
# Is that what everybody else calls by these names? Ours against `peft`'s, on the course's tiny model, with the same numbers in both, in double precision: outputs, gradients, training losses, files. (P0 to P5 are the course's levels of proof.)

# %%
from peftlab import parity

tiny, tiny_tokenizer = models.load("tiny")
small = next(datasets.batches(train_rows[:8], tiny_tokenizer, batch_size=3, seed=0, max_length=64))
parity.prove(tiny, PrefixTuning(num_virtual_tokens=5), small)

# %%
parity.prove(tiny, PromptTuning(num_virtual_tokens=5), small)

# %% [markdown]
# ## What training makes of it
#
# How much can one trained vector do?

# %%
predict("04.one_vector")

# %% mystnb={"image": {"alt": "Dot plot of test loss, eleven lines. No prompt 4.94; one typed example 4.18, eight 4.02, thirty-two 3.91. Trained: a prompt of one vector 3.23, of twenty 2.96 from a random start and 2.92 from a text; a prefix of twenty 3.10 from peft's random start and 2.82 from a text's keys and values. LoRA 2.82 and full fine-tuning 2.76, with three seeds that lie close together."}}
_ = prompt_figures.leaderboard(stored, tasks)

# %% [markdown]
# Without a prompt the loss is 4.94 nats per token. 32 typed examples, 526 tokens of context, bring it to 3.91. **One trained vector brings it to 3.23.** Twenty vectors reach 2.92. A prefix of twenty, started from a text's keys and values, reaches 2.82, and LoRA with twice as many numbers has 2.82 too. Full fine-tuning has 2.76.
#
# How sure is that? The soft prompts are *one seed each*, 180 steps of 32 words on an H100. That run was cut short before its other seeds came, so we read nothing into small gaps. (LoRA's three seeds differ by 0.01. Whether soft prompts vary as little, we do not know.) Learning rates were chosen on validation data. For the single vector and for the prefix from a text, the best rate was the highest we tried, so they may still have more to give.
#
# And is it fair? The typed examples are the first 32 of the training file, not the best 32. The trained prompts saw thousands.
#
# ## Your own prompt
#
# Now you. The course keeps a prompt and a prefix of 20 virtual tokens and a LoRA, all three trained for 200 steps of 8 words on a CPU, each at a learning rate chosen in other, longer runs. We test them on 40 words, and your prompt on the same 40.

# %% tags=["nbval-ignore-output"]
from peftlab.show.prompt_bench import PromptBench
from peftlab.tasks.metrics import evaluate

few = test_rows[:40]
with peftlab.disabled(model):
    board = {"nothing": evaluate(model, tokenizer, few, max_length=48).loss}
ways = {"define": "LoRA", "define_prompt": "prompt, 20 vectors", "define_prefix": "prefix, 20 vectors"}
for name, label in ways.items():
    loaded_anew(model, datasets.data_folder() / "adapters" / name, name)
    board[f"trained: {label}"] = evaluate(model, tokenizer, few, max_length=48).loss

# %%
assert board["trained: prefix, 20 vectors"] < board["nothing"] - 1.2
assert abs(board["trained: prompt, 20 vectors"] - board["trained: LoRA"]) < 0.3

# %% [markdown]
# Write whatever you like into the box: better examples, an instruction, both. It should end where a line `Word: …` can follow. How near do you come to a trained one? (On the website the button is asleep.)

# %% tags=["nbval-ignore-output"]
def measure(text):
    attach_text(model, tokenizer, text.rstrip() + "\n\n", "yours")
    tokens = model.peftlab.methods["yours"].num_virtual_tokens
    return tokens, evaluate(model, tokenizer, few, max_length=48).loss


PromptBench(measure, examples.rstrip(), beside=board)

# %% [markdown]
# On the first hundred test words the three have 3.03 (prompt), 3.00 (prefix) and 2.98 (LoRA), and with nothing in front the loss is 5.03. One seed and a hundred words each: we would not rank them. Now compare the files: 46 kB, 0.9 MB and 1.9 MB.
#
# A low loss is not a true answer. Look at what is written:

# %% tags=["nbval-ignore-output"]
for name in (*ways, "yours"):
    peftlab.use(model, name)
    print(f"{name:14}", complete(model, tokenizer, [datasets.define_prompt(word) for word in ("courage", "gravel")]))

# %% [markdown]
# ## Do they learn slowly?
#
# Soft prompts have that reputation, on small models most of all. Lester et al. (2021) see prompt tuning catch up with full training only at billions of parameters. On `peft`'s own example, a user reports the same accuracy after every epoch, that of always giving the more frequent answer ([peft #2642](https://github.com/huggingface/peft/issues/2642), open, cause not known). On the leaderboard above, a prompt on a model of 135 million came close to LoRA in the same number of steps. Who is right?
#
# Start a prompt as `peft` does by default: 20 vectors of random numbers from $\mathcal N(0, 1)$. Train it once with LoRA's learning rate and once with a larger one, and LoRA beside them. We use the course's tiny model of 7 million parameters, 40 steps of 8 words, and test on 60 validation words.

# %% mystnb={"image": {"alt": "Line chart of training loss over 40 steps on the tiny model. LoRA falls fastest and ends lowest. The prompt with rate 1 comes second. The prompt with LoRA's rate, 0.004, falls slowest and ends highest, about a nat above LoRA."}} tags=["nbval-ignore-output"]
from peftlab.tasks.training import train

prompt = PromptTuning(num_virtual_tokens=20)
trials = {"LoRA, rate 0.004": (LoRA(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]), 4e-3),
          "prompt, LoRA's rate 0.004": (prompt, 4e-3), "prompt, rate 1": (prompt, 1.0)}
settings, runs = dict(steps=40, batch_size=8, max_length=64, seed=0), {}
unseen = words.definitions("validation")[:60]
for name, (method, rate) in trials.items():
    torch.manual_seed(0)
    peftlab.attach(tiny, method)
    runs[name] = train(tiny, tiny_tokenizer, train_rows, unseen, lr=rate, name=name, **settings)
    peftlab.detach(tiny)
    print(f"{name:26} validation loss {runs[name].evaluations[-1][2]:.2f}")
_ = plots.losses(list(runs.values()))

# %%
lora, slow, fast = (run.evaluations[-1][2] for run in runs.values())
assert lora + 0.5 < fast < slow - 0.4, "the order we saw: LoRA, then the large rate, then LoRA's rate"

# %% [markdown]
# Same prompt, same steps, another learning rate. With AdamW, an entry moves by about the learning rate in a step. Forty steps that fall evenly from 0.004 to zero move it by about 0.08 at most. It started at random with a size of about 1: **this prompt can hardly leave the random place where it was put.** No error comes, and the loss falls a little. That is one way to seem slow.
#
# But LoRA is still more than half a nat ahead. We have stored no sweep of rates for this model, so how much a better rate would win back is open; the reputation looks partly earned here. On SmolLM2, nearly twenty times as large, the gap from a random start was 0.13. Steps and batches differ as well: a hint, no proof, in the direction that Lester et al. report.
#
# SmolLM2 says the same. Stored runs from one random start, 200 steps of 8 words, tested on a hundred: LoRA's rate ends at 3.36, a rate of 0.3 at 3.07. (A start from a text with its best rate: 3.03.) Do not say that a prompt which hardly moves learns nothing, though: at LoRA's rate its vectors, 24.0 long, moved by only 1.9, and that brought the loss from 5.68 to 3.36.
#
# Now SmolLM2's stored sweep, for starts of four kinds each. Prompts start from random numbers of size 1 (`peft`'s default), from random numbers as small as word vectors, from the vectors of random words, or of a text. Prefixes start from random numbers of size 1 (`peft`'s default), from zeros, from a text's keys and values, or their table comes out of a small network that trains (`prefix_projection`).

# %% mystnb={"image": {"alt": "Two panels of validation loss against the learning rate. Left, prompts: four starts, all between 2.95 and 3.15 from 0.003 to 3, flat in the middle; the start from a text is lowest at 0.01 and 0.03; the random start rises at 10. Right, prefixes: from a text's keys and values lowest, falling to 2.86 at 0.1; zeros at about 3.02; through a network 2.93 at 0.001, 2.92 at 0.003 and off the scale at 0.01; peft's random start 3.9, 3.1 and off the scale at 0.01, 0.03 and 0.1."}}
_ = prompt_figures.rates(stored)

# %% [markdown]
# Open triangles lie above the scale. **Left.** Once the rate is large enough, prompts all do alike: from 0.01 to 0.3, all runs lie within 0.08 nats. With its best rate, every start comes to a test loss between 2.92 and 2.96. The random start wanted 0.3, LoRA in the same setting 0.008.
#
# **Right.** For a prefix, in so few steps, the start matters most. From `peft`'s random start the loss *before* training is 15.46, three times that of no prompt. Of three rates one ends at a test loss of 3.10, one at 3.84, and one at 6.34, worse than no prompt. From a text's keys and values it begins at 4.52 and ends at 2.82. Li and Liang (2021, section 7.4) saw that the start matters with little data. They train through a network, because training the table itself was unstable for them: here that gives 2.87, and at the next higher rate it breaks.
#
# Why does the same random start ruin a prefix and not a prompt? The obvious suspect is its size: real values in the first layer are some twenty times smaller than $\mathcal N(0, 1)$. So give the random numbers the size of the real ones, layer by layer, and ask again. And as a control: the keys and values of twenty *random words*. What do you expect?

# %%
from peftlab.tasks.prompts import at_the_size_of

g = torch.Generator().manual_seed(0)
with peftlab.disabled(model):
    real = captured(model, ids[:20])
    of_random_words = captured(model, torch.randint(1000, 40_000, (20,), generator=g))
noise = torch.randn(real.shape, generator=g)
anew(model, PrefixTuning(num_virtual_tokens=20), "start")
before = {"no prompt": no_prompt}
for name, start in {"N(0, 1)": noise, "N(0, 1) at the real size": at_the_size_of(noise, real, layers=30),
                    "of twenty random words": of_random_words, "of the examples": real}.items():
    with torch.no_grad():
        before[name] = start_from(model, start, name="start")(**batch).loss.item()
peftlab.detach(model, "start")
plots.table([{"prefix": name, "loss before training": loss} for name, loss in before.items()], caption="24 test words")
spread = layers[0][1].std().item()
print(f"spread of the real values in the first layer: {spread:.2f}; N(0, 1) has 1")

# %%
assert 15 < 1 / spread < 25  # "some twenty times smaller"
assert before["N(0, 1) at the real size"] > before["no prompt"] + 4 > before["of twenty random words"] + 3

# %% [markdown]
# **Not the size.** Random keys and values of the right size are as ruinous, and those of random words (one draw), which say nothing about the task, do no harm worth speaking of. A prompt, however random, goes through the layers, and what they make of it are keys and values that belong together. A random table is none that any text could leave. Which part of that matters most we have not measured.
#
# What helps, then? For a prompt with a random start, a learning rate far above LoRA's. For a prefix, keys and values of a text to start from. Whether many more steps close the gaps, *we do not know*.
#
# ## Can you read a soft prompt?
#
# The kept prompt started from the first 20 tokens of our examples. Which words are its vectors nearest to, after training? For comparison: how near is a *random* direction to its nearest word?

# %% tags=["nbval-ignore-output"]
unit = torch.nn.functional.normalize
E = unit(model.get_input_embeddings().weight.detach(), dim=1)  # (49,152 words, 576)
P = model.peftlab.shared["define_prompt"].prompt_embeddings.detach()  # (20, 576)
first = model.get_input_embeddings().weight[ids[:20]].detach()  # where it started
cosine, nearest = (unit(P, dim=1) @ E.T).max(dim=1)
chance = (unit(torch.randn(500, 576, generator=torch.Generator().manual_seed(0)), dim=1) @ E.T).max(dim=1).values
plots.table([
    {"started as": repr(tokenizer.decode([ids[i]])), "is nearest to": repr(tokenizer.decode([nearest[i]])),
     "cosine": cosine[i].item(), "length, then": first[i].norm().item(), "now": P[i].norm().item()}
    for i in range(0, 20, 3)
], caption=f"Every third vector. A random direction's nearest word: cosine {chance.mean():.2f}")

# %%
print("vectors still nearest to the word they started from:", int((nearest == ids[:20]).sum()), "of 20")
assert (nearest == ids[:20]).all() and cosine.min() > chance.mean()

# %% [markdown]
# It looks like a readable text, and that is a trap. On average a vector started with a length of 2.8 and has moved by 5.2: *further than it was long*. And yet all 20 are nearest to the word that they started from. In 576 dimensions, moving far hardly ever means moving towards a word (see the caption). What you read is where it started, not what it learned.
#
# And a prompt that started at random and learned well (rate 0.3)? Its vectors moved by twice their length, and the words nearest to them are ` ideal`, ` <`, `buff`, with cosines of 0.11 to 0.19: as near as chance. It works, and there is nothing to read.
#
# ## What it costs
#
# A virtual token takes a place in the context (20 of 8,192 here), and in every layer a key and a value. For each row of a batch that is $20 \cdot 30 \cdot 2 \cdot 192$ numbers in the cache, 0.9 MB in 32 bits. And time?

# %%
predict("04.latency")

# %% [markdown]
# In our stored measurement (H100, batches of 1 to 32, reading 32 tokens and writing one), 20 or 100 virtual tokens of a prompt change the time by -3 % to +6 %: both signs for batches of 4, always a little slower for 16 and 32. At this size the work is too small to fill the card. (The prefix we have timed on a CPU only.)
#
# On your machine, one row of 32 tokens, in turns, the fastest of eight:

# %% tags=["nbval-ignore-output"]
from peftlab.bench.lora_latency import timed

row = torch.randint(1000, 40_000, (1, 32), generator=torch.Generator().manual_seed(0))
seconds = {"define_prompt": [], "define_prefix": [], "nothing": []}
for name in list(seconds) * 8:
    peftlab.use(model, name if name != "nothing" else "define")
    off = peftlab.disabled(model) if name == "nothing" else nullcontext()
    with torch.no_grad(), off:
        seconds[name].append(timed(lambda: model(row), "cpu"))
for name, found in seconds.items():
    print(f"{name:14} {min(found) / min(seconds['nothing']):.2f} of the time without")

# %% [markdown]
# A prompt must be read: 52 positions pass through every matrix of the model instead of 32. (52 / 32 would be 1.6. A part of the time does not depend on the length.) A prefix has been read already; only attention has 20 more keys to look at. In both cases, every word that is written later looks at all of them, and nothing can be merged away: keys and values are no weights.
#
# ## Relatives
#
# | method | what is trained | made for |
# |---|---|---|
# | P-tuning (Liu et al., 2021) | a prompt that comes out of a small network | a steadier training; only its result is kept |
# | multitask prompt tuning (Wang et al., 2023) | one shared prompt, times a rank-one matrix for each task | a new task that can start from related ones |
# | LLaMA-Adapter (Zhang et al., 2023) | prompts in the upper layers, each with a softmax of its own and a gate that starts at zero | a start that does not disturb the model |
# | CPT (Blau et al., 2024) | the embeddings of worked examples, within small bounds | a handful of examples |
# | Cartridges (Eyuboglu et al., 2025) | a prefix that replaces a long text | the same document in many requests |
#
# All five are in `peftlab.methods` (`PTuning`, `MultitaskPromptTuning`, `LlamaAdapter`, `CPT`, `Cartridge`), each compared with `peft`'s. The deep dive [04x](04x_prefix_as_adapter.ipynb) shows which adapter hides in a prefix, and that every prefix has a gate already.
#
# ## When to use soft prompts
#
# **Use one when** one frozen model serves many tasks in one batch, and each should be a file of kilobytes. Use a prefix when you have a good text to start from.
#
# **Avoid it when** the context is tight, when the result must merge, or when you cannot afford to search the learning rate and the start.
#
# **Unknown:** how many virtual tokens a task needs, and, here, what more seeds and more steps would show.
#
# ## Check yourself

# %%
quiz("04")

# %% [markdown]
# ## Take away
#
# - To a causal model a prompt *is* its keys and values. Captured and loaded as a prefix, they give the same scores.
# - Prompt tuning trains $n\,d$ numbers at the bottom, prefix tuning $2\,n$ keys and values in every layer. Mask, labels and positions must make room.
# - One trained vector beat 32 typed examples; twenty came close to LoRA. One seed, one task.
# - Before you say *it learns slowly*: is the learning rate large enough for the start to move? And is the start of a prefix one that a text could leave?
# - Do not read a trained prompt by its nearest words. They tell where it started.
#
# ## Sources
#
# - B. Lester, R. Al-Rfou, N. Constant: *The Power of Scale for Parameter-Efficient Prompt Tuning*, 2021, [arXiv:2104.08691](https://arxiv.org/abs/2104.08691).
# - X. L. Li, P. Liang: *Prefix-Tuning: Optimizing Continuous Prompts for Generation*, 2021, [arXiv:2101.00190](https://arxiv.org/abs/2101.00190).
# - X. Liu et al.: *GPT Understands, Too*, 2021, [arXiv:2103.10385](https://arxiv.org/abs/2103.10385) (P-tuning).
# - Z. Wang et al.: *Multitask Prompt Tuning Enables Parameter-Efficient Transfer Learning*, 2023, [arXiv:2303.02861](https://arxiv.org/abs/2303.02861).
# - R. Zhang et al.: *LLaMA-Adapter: Efficient Fine-tuning of Language Models with Zero-init Attention*, 2023, [arXiv:2303.16199](https://arxiv.org/abs/2303.16199).
# - T. Blau et al.: *Context-aware Prompt Tuning: Advancing In-Context Learning with Adversarial Methods*, 2024, [arXiv:2410.17222](https://arxiv.org/abs/2410.17222).
# - S. Eyuboglu et al.: *Cartridges: Lightweight and general-purpose long context representations via self-study*, 2025, [arXiv:2506.06266](https://arxiv.org/abs/2506.06266).
# - Data: WordNet 3.0, Princeton University. Model: SmolLM2-135M-Instruct, Apache-2.0, rounded to 4 bits as shipped; all losses are of those weights. Stored runs: `python -m peftlab.bench soft_prompts`, `three_tasks` and `kept_prompts`; the JSON in `data/results/` says which versions, and that the cells of the first were read back from the log of a run that was cut short.

# %% [markdown] tags=["footer"]
# ---
#
# **Next:** [05 · Selective tuning](05_selective.ipynb), train random parameters against Fisher-chosen ones: guess the gap.
