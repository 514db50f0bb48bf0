# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["header"]
# # 01 · The scaling dilemma
#
# *60 minutes (45 without the exercises), of which your machine computes for less than half a minute. Builds on [00 · Start here](00_start_here.ipynb). No GPU, no network.*

# %% [markdown]
# Llama 2 7B is a file that anybody may load, 6.74 billion numbers. You want it to write as your customers do, so you train it further: all of it, **full fine-tuning**, on the machine in front of you. What stands in the way?
#
# A wall, and you can compute where it stands. In this lesson you
#
# 1. find the wall of your own machine, and see what it is made of,
# 2. ask whether a smaller model would do, on a ladder of nine models that we trained, and against the laws that others found,
# 3. count what else it costs: time, money, disk, energy,
# 4. see how far LoRA and QLoRA move the wall, and where they do not.

# %%
import numpy as np

from peftlab.bench import memory as memory_bench
from peftlab.bench.results import Results
from peftlab.costs import energy, flops, memory, scaling
from peftlab.costs.configs import architecture, published
from peftlab.course import ladder, wall
from peftlab.course.exercise import check, hint, solution, use
from peftlab.course.question import predict, quiz
from peftlab.show import plots, wall_figures
from peftlab.show.widgets.wall import memory_wall
from peftlab.tasks import models

plots.style()

# %% [markdown]
# ## Your wall
#
# One training step of the whole model, in bf16, 2 bytes a number, on a single text. How much memory must be there at once?

# %%
predict("01.seven")

# %% tags=["nbval-ignore-output"]
seven = memory.training("llama-2-7b", "full", batch=1, sequence=512, device="cpu")
mine = wall.this_machine()
print(seven)
short = seven.gib - mine
print(f"\nThis machine has {mine:.1f} GiB: {abs(short):.1f} GiB {'too few' if short > 0 else 'to spare'}.")
largest = next(iter(memory.what_fits(mine, "full", batch=1, device="cpu")), "none")
print(f"The largest of {len(published())} published models that it can train in full: {largest}")

# %% [markdown]
# (*Step* is when the optimiser changes the weights. A GPU does that without working space: 50.2 GiB. Of your machine's memory less is free.)
#
# The text hardly counts. Each of the $N$ numbers needs four places: itself, its **gradient**, and the two running averages that AdamW, the usual optimiser, keeps for it. In bf16 that is 8 bytes a number, 50 GiB for Llama 2 7B. And this is the lean form. Careful training keeps AdamW's averages, and a second copy of the weights, in fp32, because small steps are rounded away in 16 bits: 2 + 2 + 3 · 4 = 16 bytes a number ([bridge B4](B4_backward_and_adam.ipynb) takes this apart).
#
# Three of four places are there for training alone. A number that is **frozen** needs only the first.
#
# ### Exercise 1 · Beside a frozen base (4 minutes)
#
# The base has $N$ numbers of $c$ bytes each, all frozen. Beside it, $k$ new numbers of $p$ bytes each train with AdamW. Gradients and averages have the format of the number they belong to. How many bytes do weights, gradients and averages take together?

# %% tags=["exercise"]
def bytes_beside(N, c, k, p):
    """Bytes of N frozen numbers of c bytes each, and k numbers of p bytes each that train with AdamW."""
    return ...


check("01.bytes_beside", bytes_beside)
# Stuck? Run hint("01.bytes_beside", 1), then hint("01.bytes_beside", 2), then solution("01.bytes_beside").

# %%
bytes_beside = use("01.bytes_beside", bytes_beside)
N = architecture("llama-2-7b").parameters
k = wall.trained_numbers("llama-2-7b")
print(f"LoRA with r = 16 on every matrix of every block trains k = {k:,} numbers, {k / N:.2%} of N")
for name, c in {"bf16, 2 bytes a number": 2, "4 bits (embedding and head stay in bf16)": 0.574}.items():
    beside = bytes_beside(N, c, k, 4) / 2**30  # the adapter in fp32
    print(f"frozen in {name}: {beside:.1f} GiB; full, in bf16: {8 * N / 2**30:.1f} GiB")

# %% [markdown]
# That is what **LoRA** and **QLoRA** do to the wall: one freezes the base, the other also stores it in 4 bits (lessons 06 and 13). A solved problem? No: a step keeps **activations** as well, what each layer passed on, until the backward pass has used them.

# %%
predict("01.gpt2")

# %% [markdown]
# Now move the wall. Three things to find:
#
# - GPT-2 on 8 GiB: what does LoRA save, and what *is* it that remains?
# - Llama 2 7B on a card of 24 GiB: LoRA trains less than a hundredth of the numbers. Does it fit?
# - The largest model on 48 GiB.

# %%
memory_wall()

# %% [markdown]
# For GPT-2, full fine-tuning needs 2.9 GiB and LoRA 2.7: a saving of 5 %. Three quarters of the 2.9 are activations and logits (scores for 50,257 words, at every token). At that peak, right after the loss, no gradient is there yet to be saved; AdamW's averages are, 0.46 GiB. But LoRA keeps *more* activations, 1.31 GiB against 1.03: `peft` holds adapters in fp32, and each keeps an fp32 copy of its input. Full fine-tuning keeps it once, in bf16. (With bf16 adapters, LoRA would save about three times as much.)
#
# For Llama 2 7B, LoRA needs 30.5 GiB: it does *not* fit into 24. Over half are activations, and 6.3 GiB of these the price of fp32 copies. **Gradient checkpointing** throws activations away and computes them again, and then 14.3 GiB are enough. It does nothing for full fine-tuning here: that peak is the end of the backward pass, with activations gone and all gradients there. Only together do LoRA, 4 bits and checkpointing bring Llama 3.1 70B onto 48 GiB, with 44.6; full fine-tuning would take 525.7.
#
# All this is for steps of 4 × 512 tokens. With 2 × 512, LoRA needs 21.8 GiB: try a smaller batch first, with gradients added up over several. (A card may have less than its name says.)
#
# ### Is the calculator right?
#
# It sees only a config: no model was loaded. Hold it against a real step, its allocated bytes counted:

# %% tags=["nbval-ignore-output"]
gaps = {}
for method in ("full", "lora"):
    model, _ = models.load("minilm", num_labels=12)
    step = {"method": method, "checkpointing": False, "batch": 4, "sequence": 32}
    guess = memory_bench.predict(model.config.to_dict(), **step).total
    found = memory_bench.measure(model, **step)["measured"]
    gaps[method] = guess / found - 1
    print(f"MiniLM, {method}: predicted {guess / 1e6:.0f} MB, measured {found / 1e6:.0f} MB ({gaps[method]:+.1%})")

# %%
assert all(abs(gap) < 0.1 for gap in gaps.values())

# %% [markdown]
# In our stored runs of three small models on a processor it is within 1 %. And on an H100, for random weights in two Llama shapes (three rounds; full fine-tuning, `peft`'s LoRA, and the same on bitsandbytes' 4-bit layers), the prediction was off by 1.0 % at most. (For our own 4-bit layers it is up to 3.2 % too low.)

# %% mystnb={"image": {"alt": "Bars of measured memory at the peak of a step, in GiB, each with a mark for the prediction, which sits on its top. 1.1B: full 10.6, with checkpointing 8.2; LoRA 8.4 and 3.1; QLoRA 7.1 and 1.8. 6.7B: full 50.2 with and without checkpointing; LoRA 30.5 and 14.3; QLoRA 21.6 and 5.3."}}
scale = Results.load("qlora_scale")
wall_figures.peaks(scale)

# %% [markdown]
# (`nvidia-smi` shows more: PyTorch keeps memory that it once had. The last QLoRA bar is 5.3 GiB, but 14.3 were reserved, since we loaded the weights in bf16 and quantised them then. Count the loading too.)
#
# ## Would a smaller model do?
#
# Are small models as good? We trained nine Llamas from nothing, from 24 thousand to 38 million parameters $N$, not counting the embedding, on the same 11.5 million tokens of old English (novels, speeches, a dictionary, and two Bibles, which tell the same twice), each token *once*. For each size the learning rate was chosen on validation data. The number that counts is the loss $L$ on test texts, in nats per token: how surprised the model is by the next token.

# %%
rungs = ladder.rungs(Results.load("ladder"))
plots.table([{"width": r.width, "layers": r.layers, "N": r.N, "L, mean": r.loss, "lowest of 3 seeds": min(r.losses),
              "highest": max(r.losses)} for r in rungs[:5]], caption="The five small rungs")

# %% [markdown]
# ### Exercise 2 · A power law (7 minutes)
#
# Many such ladders follow a **power law**: $L = a\, N^{-b}$, every tenfold of $N$ lowers $L$ by the same *share*. Fit one: given lists of $N$ and $L$, return $a$ and $b$, by least squares on logarithms.

# %% tags=["exercise"]
def power_law(N, L):
    """(a, b) of L = a * N**(-b), the straight line through log N and log L."""
    return ...


check("01.power_law", power_law)

# %%
power_law = use("01.power_law", power_law)
known = 5
a, b = power_law([r.N for r in rungs[:known]], [r.loss for r in rungs[:known]])
print(f"L = {a:.1f} / N^{b:.3f}")

# %%
predict("01.line")

# %% mystnb={"image": {"alt": "Line chart, both axes logarithmic, of test loss against parameters. Five known points from 24 thousand to 1.2 million parameters lie near a dashed falling line, the outer two above it and the middle three below. Four more points, up to 38 million, lie above the line, by 0.12 nats at first and by 0.36 at the end."}}
_ = wall_figures.ladder(rungs, known, (a, b), hidden=False)
for rung in rungs[known:]:
    print(f"N = {rung.N:>10,}: your line says {a * rung.N**-b:.2f}, trained {rung.loss:.2f}")
print("the five known, against the line:", *(f"{rung.loss - a * rung.N**-b:+.3f}" for rung in rungs[:known]))

# %% [markdown]
# Each of the four is too high, the last by 0.36 nats, more than five times the widest spread between seeds: not chance. The line bends. Look at the last line printed: plus, minus, minus, minus, plus. A bow, not scatter, and it was there before we looked. **Before you follow a line, look at what is left beside it.**
#
# Between the rungs of 3 and 6 million, twice the size brings 0.01 nats, less than the seeds differ. What if each model reads the text four times?

# %%
predict("01.again")

# %% mystnb={"image": {"alt": "Two falling lines of test loss against parameters, both axes logarithmic. One pass: from 4.72 at 24 thousand parameters, flattening to 3.86 at 38 million. Four passes, five models: from 4.57 to 3.29, steeper, and flattening later."}}
again = ladder.rungs(Results.load("ladder"), passes=4)
_ = wall_figures.passes(rungs, again)

# %% [markdown]
# The smallest gains 0.16 nats and the largest 0.57. Small models were full; large ones were hungry for text. **At a fixed amount of text, size buys less and less:** from 6 to 38 million parameters, six times the size, 0.12 nats. In much larger runs, up to four passes were about as good as fresh text (Muennighoff et al., 2023). It cannot go on for ever: on the last training texts the largest is now 0.72 nats better than on test texts. With one pass it was 0.30, and those were new to it: so the test texts are harder. The rest it has begun to know by heart.
#
# *What we do not know.* Four passes are four times the text, and also four times the steps; only fresh text could tell them apart, and we have none. They are one seed, and they kept the learning rate that was chosen for one pass; tuned anew, they might be lower, and not all by as much. The last rung falls again, by 0.07 nats, and we cannot say why.
#
# ### A trap: one learning rate for all
#
# Nine models, one recipe: that sounds fair. Here is the ladder that we would have climbed, had we tuned the smallest model and kept its learning rate. (Losses on validation texts, one seed each.)

# %%
tried = ladder.validation(Results.load("ladder"))
rate = 0.008  # the smallest model's best; try 0.002 and 0.004 (only these three were tried on all nine)
plots.table([{"width": width, f"L at {rate}": found[rate], "L at its own best": min(found.values()),
              "which is": f"{min(found, key=found.get):.2g}"} for width, found in tried.items()])

# %% [markdown]
# Above width 96, larger is *worse*, and the largest is the worst of all nine. A clear finding, and false. From the second rung on, the best rate never rises, and falls from about 0.02 to 0.001. Our mend is dear: tune each model you compare, or you compare how well your recipe fits them. (Another is to set models up so that one rate suits every width: µP, Yang et al., 2022.)
#
# ## What the published laws say
#
# A formula that can bend has a term for each wall:
#
# $$L(N, D) = E + \frac{A}{N^{\alpha}} + \frac{B}{D^{\beta}} .$$
#
# $D$ is the number of tokens; $E$, $A$, $B$, $\alpha$ and $\beta$ are constants, fitted to runs. As $N$ grows, the second term vanishes and the third stays: that is a bend like ours. What neither size nor data removes is $E$. Training costs about $C = 6 N D$ FLOPs: for each token and parameter 2 in the forward pass and 4 backwards. So on a given budget $C$, a larger model sees less text. Which is best? Take the budget that a model called Chinchilla cost.

# %%
predict("01.advice")

# %% [markdown]
# Three answers. Kaplan et al. (2020): put most of it into size. Hoffmann et al. (2022), who trained Chinchilla: size and data alike. Besiroglu et al. (2024) refitted what they could read off a figure of the latter.

# %% mystnb={"image": {"alt": "Line chart with logarithmic axes: the best size N for a budget C from 1e18 to 1e25 FLOPs by three laws. Kaplan's line is the steepest, the lines of Hoffmann and Besiroglu are flatter, the former the flattest. They cross between 1e19 and 1e20. The mark for Chinchilla lies on Besiroglu's line, Llama 2 70B a little below it, and Llama 2 7B below all three."}}
C = 6 * 70e9 * 1.4e12
print(scaling.advice(C))
_ = wall_figures.advice()

# %% [markdown]
# Same budget: a model of 490 billion parameters on 0.18 trillion tokens, one of 41 billion on 2.4 trillion, or one of 73 billion on 1.3 trillion. (Kaplan's law counts the least possible compute, half of what its usual batch costs; we converted. Its losses are in other nats: compare only the advice.) Hoffmann et al. made three estimates, between 40 and 70 billion, and took the upper end; this formula is the lowest. Pearce and Song (2024) trace much of the first gap to what $N$ counts, and to small models: Kaplan left the embeddings out. All three seek the least loss for a *training* budget. Whoever serves a model for years wants a small one, trained longer: Llama 2 7B lies below every line.
#
# ### And two digits
#
# The second and third line printed are *one* fit. The paper has $\alpha = 0.34$ and $\beta = 0.28$; its source has 0.3392 and 0.2849. At this budget the printed ones advise 93 tokens a parameter, the unrounded ones 59, the refit 18. Besiroglu et al. found this, and that the fit had not converged. **Give exponents with the digits that the advice needs, and say how far you extrapolate.**
#
# ## What else it costs
#
# ### Exercise 3 · Hours (5 minutes)
#
# A card is sold with a peak of `flops` FLOPs a second and reaches a share of it, the **utilisation**. How many hours does one card take to train $N$ parameters on $D$ tokens?

# %% tags=["exercise"]
def card_hours(N, D, flops, utilisation):
    """Hours of one card to train all N parameters on D tokens. flops: the card's peak, in FLOPs a second."""
    return ...


check("01.card_hours", card_hours)

# %%
card_hours = use("01.card_hours", card_hours)
print(f"Llama 2 7B from nothing, 2 trillion tokens, A100, 40 %: {card_hours(N, 2e12, 312e12, 0.4):,.0f} hours")
hours = card_hours(N, 10e6, 989e12, 0.4)
print(f"tuned on 10 million tokens, H100, 40 %: {60 * hours:.0f} minutes, {3 * hours:.2f} $ at 3 $ an hour")
tuning = flops.training("llama-2-7b", "lora", batch=4, sequence=512).per_parameter_and_token
print(f"LoRA: {tuning:.2f} FLOPs for each parameter and token, full: {flops.rule('full')}")

# %% [markdown]
# Meta reports 184,320 A100 hours for Llama 2 7B (Touvron et al., 2023): by your formula these cards ran at 39 % of their peak, a usual share. (3 dollars an hour is our assumption; prices differ by multiples.) Tuning on ten million tokens is a matter of *minutes*. So is time a wall that PEFT takes down? It still needs 4 of 6 FLOPs (4.14, with the adapters' own work and attention), for the way through the frozen layers and back.

# %%
predict("01.speed")

# %%
rows = []
for method, name in wall_figures.METHOD_NAMES.items():
    cells = {kind: wall_figures.peak_cells(scale, "6.7B", method, kind) for kind in ("plain", "checkpointing")}
    plain, again_ = (np.median([cell["tokens_a_second"] for cell in found]) for found in cells.values())
    each = flops.training("llama-2-7b", method, batch=4, sequence=512).per_token
    rows.append({"6.7B on an H100": name, "tokens a second": int(plain), "utilisation": f"{plain * each / 989e12:.0%}",
                 "with checkpointing, tokens a second": int(again_)})
plots.table(rows, caption="Median of three rounds, steps of 4 × 512 tokens")

# %% [markdown]
# A third less work, and 8 % *slower*. Count, then measure: full fine-tuning keeps the card busy, at a utilisation of 36 %; LoRA reaches 22 %. Its many small products are suspects, and the conversions between bf16 and the adapters' fp32; lesson 15 takes them away one by one. For the 1.1B shape, LoRA is 39 % slower. That is `peft` as it comes, in one version on one card. (One of three QLoRA rounds with checkpointing was 40 % slower than the others; we do not know why.)
#
# **Energy** goes with time. For the ten million tokens above, in full, with every assumption; the range is wide because they are:

# %%
print(energy.of_flops(6 * N * 10e6, "h100"))

# %% [markdown]
# **Disk** is where PEFT wins by the most. A tuned copy of Llama 2 7B is 13.5 GB, a LoRA file 160 MB:

# %%
for customers in (1, 10, 1000):
    copies, adapters = customers * 2 * N, 2 * N + customers * 4 * k
    print(f"{customers:5} customers: {copies / 1e9:9,.1f} GB as copies, {adapters / 1e9:6,.1f} GB as base and adapters")

# %% [markdown]
# Disk is cheap. What is dear: every copy wants a card of its own to answer from, while adapters share one base in memory, even in one batch (lesson 07).
#
# ## The case against
#
# - **You may not need it.** What fits in full needs no trick, as GPT-2 showed.
# - **You may not need training.** A better prompt, or facts looked up beside the model, costs no memory in training, and a longer text in every call ([lesson 02](02_landscape.ipynb) asks those questions first).
# - **It can learn less.** On code and mathematics with billions of tokens, LoRA at usual ranks stayed behind full fine-tuning, and forgot less (Biderman et al., 2024). A possible reason that they give: full fine-tuning's change had 10 to 100 times LoRA's usual rank.
# - **Activations remain,** fp32 adapters add to them, and with long texts they *are* the wall. Checkpointing pays for them in time.
# - **Four bits are not free.** The base is rounded, each step unpacks it, and an adapter merged back into it is rounded again (lesson 13).
# - **The base decides.** An adapter inherits what the large model knows and gets wrong. That is the scaling dilemma: the models worth adapting are those that few can train.
#
# **Unknown:** whether any of these laws holds at ten times the size; what your task's loss has to do with the loss of a text model; where the curve for *tuned* models bends.
#
# ## Check yourself

# %%
quiz("01")

# %% [markdown]
# ## Take away
#
# - Training in full takes 8 bytes a number in bf16 and 16 with fp32 states, before any text. Three of four places serve training alone: freezing takes them away.
# - Then activations are the wall. For small models and long texts they were all along.
# - A line through small models said 3.50 for the largest, and 3.86 came. With fixed text, more size buys less and less; with one learning rate for all, you measure the recipe.
# - FLOPs fall by a third, the clock perhaps not at all, and disk, for each further task, by a factor of about 80.
# - Predict before you rent: the config is enough to know the peak.
#
# ## Sources
#
# - J. Kaplan et al.: *Scaling Laws for Neural Language Models*, 2020, [arXiv:2001.08361](https://arxiv.org/abs/2001.08361).
# - J. Hoffmann et al.: *Training Compute-Optimal Large Language Models*, 2022, [arXiv:2203.15556](https://arxiv.org/abs/2203.15556).
# - T. Besiroglu et al.: *Chinchilla Scaling: A Replication Attempt*, 2024, [arXiv:2404.10102](https://arxiv.org/abs/2404.10102).
# - T. Pearce, J. Song: *Reconciling Kaplan and Chinchilla Scaling Laws*, 2024, [arXiv:2406.12907](https://arxiv.org/abs/2406.12907).
# - G. Yang et al.: *Tensor Programs V: Tuning Large Neural Networks via Zero-Shot Hyperparameter Transfer*, 2022, [arXiv:2203.03466](https://arxiv.org/abs/2203.03466).
# - N. Muennighoff et al.: *Scaling Data-Constrained Language Models*, 2023, [arXiv:2305.16264](https://arxiv.org/abs/2305.16264).
# - H. Touvron et al.: *Llama 2: Open Foundation and Fine-Tuned Chat Models*, 2023, [arXiv:2307.09288](https://arxiv.org/abs/2307.09288).
# - E. Hu et al.: *LoRA: Low-Rank Adaptation of Large Language Models*, 2021, [arXiv:2106.09685](https://arxiv.org/abs/2106.09685).
# - T. Dettmers et al.: *QLoRA: Efficient Finetuning of Quantized LLMs*, 2023, [arXiv:2305.14314](https://arxiv.org/abs/2305.14314).
# - D. Biderman et al.: *LoRA Learns Less and Forgets Less*, 2024, [arXiv:2405.09673](https://arxiv.org/abs/2405.09673).
# - Stored runs: `python -m peftlab.bench ladder` and `qlora_scale`, one H100; the JSON in `data/results/` says which versions. The texts are those of the course's tiny model; its card lists them. The grid's intensities: Ember, electricity of 2023.

# %% [markdown] tags=["footer"]
# ---
#
# **Next:** [02 · The PEFT landscape](02_landscape.ipynb), open a model before and after training, and see where each family hides the change.
