# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["header"]
# # 06 · LoRA, with scissors
#
# *110 minutes (75 without the exercises), of which your machine computes for a minute or two. You need PyTorch basics and matrix products. No GPU, no network.*

# %% [markdown]
# Fine-tune every weight of a language model. Now take scissors. In each weight matrix of its blocks, keep 8 of 384 directions of what training has changed, and cut the rest away.
#
# How much of the new skill is left?
#
# Before you read on, say a number to yourself. In this lesson you measure it, and the answer leads to **LoRA**, which you build from raw tensors, prove equal to Hugging Face `peft`, and train.
#
# (An exercise that you leave open does not stop the lesson: the course's own answer steps in and says so.)

# %%
import copy

import torch
import torch.nn.functional as F

import peftlab
from peftlab.bench.results import Results
from peftlab.course import scissors
from peftlab.course.exercise import check, hint, solution, use
from peftlab.course.question import predict, quiz
from peftlab.methods import LoRA
from peftlab.show import lora_figures, plots
from peftlab.show.widgets.scissors import scissors_explorer
from peftlab.tasks import datasets, metrics, models
from peftlab.tasks.training import train

plots.style()
stored = Results.load("scissors")

# %% [markdown]
# ## The task: what is this a definition of?
#
# Our data are 4,800 dictionary definitions from WordNet in twelve topics. The model sees a definition and names the topic. Guessing is right once in twelve.
#
# Our model is MiniLM: six transformer blocks, vectors of size $d = 384$, pretrained to make vectors of whole sentences. On top sits a fresh linear layer, the *head*, that turns such a vector into twelve scores.

# %%
data = datasets.load("wordnet_topics")
base, tokenizer = models.load("minilm", num_labels=len(data.classes))
print(data)
for text, label in list(zip(data.test.texts, data.test.labels, strict=True))[:4]:
    print(f"{data.classes[label]:>14}  {text}")

# %% [markdown]
# ## Tune everything
#
# **Full fine-tuning** trains all 22.6 million parameters. We keep it short: 40 steps of 16 definitions. Then we ask for the topics of 300 definitions that the model has never seen.

# %% tags=["nbval-ignore-output"]
few, held_out = data.train[:800], data.test[:300]
short = dict(steps=40, batch_size=16, seed=0)

tuned = copy.deepcopy(base).requires_grad_(True)
full_run = train(tuned, tokenizer, few, lr=3e-4, name="full fine-tuning", **short)
full_accuracy = metrics.accuracy(tuned, tokenizer, held_out)
print(f"test accuracy after full fine-tuning: {full_accuracy:.2f} (guessing: {1 / 12:.2f})")

# %%
assert 0.70 < full_accuracy < 0.95, "far from what we saw: has something in the set-up changed?"

# %% [markdown]
# ## Look at the change
#
# In each block, six weight matrices do the work: query, key, value and output of the attention, and the two of the feed-forward network. To each of these 36 matrices, training made a change
#
# $$\Delta W = W_{\text{after}} - W_{\text{before}}, \qquad \Delta W \in \mathbb{R}^{d_{out} \times d_{in}} .$$
#
# The **singular value decomposition** (SVD) splits any matrix into directions, sorted by how much they matter:
#
# $$\Delta W = U\,\mathrm{diag}(S)\,V^\top = \sum_{i} s_i\, u_i v_i^\top, \qquad s_1 \ge s_2 \ge \dots \ge 0 .$$
#
# Each term $s_i u_i v_i^\top$ reads one direction $v_i$ of the input and writes one direction $u_i$ of the output, with strength $s_i$. A matrix with $r$ terms of strength $s_i > 0$ has **rank** $r$. Keeping the first $r$ terms gives the best approximation of rank at most $r$ (in squared error; Eckart and Young, 1936).

# %% [markdown]
# ### Exercise 1 · The cut (4 minutes)
#
# Write the scissors: return the best rank-$r$ approximation of `dW`. `torch.linalg.svd` does the splitting. (The library has the same cut for all 36 matrices at once; the experiment below uses that.)

# %% tags=["exercise"]
def best_cut(dW, r):
    """The best approximation of rank r of dW, a matrix of shape (d_out, d_in)."""
    return ...


check("06.best_cut", best_cut)
# Stuck? Run hint("06.best_cut", 1), then hint("06.best_cut", 2), then solution("06.best_cut").

# %%
best_cut = use("06.best_cut", best_cut)
after, before = (m.bert.encoder.layer[0].attention.self.query.weight.detach() for m in (tuned, base))
dW = after - before
print(f"ΔW {tuple(dW.shape)}, cut to 8 directions: rank {torch.linalg.matrix_rank(best_cut(dW, 8))}")

# %% [markdown]
# ### Predict
#
# The LoRA paper starts from a hypothesis: the change that fine-tuning makes has a low "intrinsic rank" (Hu et al., 2021, section 4.1). If the matrix $\Delta W$ itself were of low rank, eight of 384 directions would hold nearly all of it. We measure how much with the **energy**, the sum of squared singular values $\sum_i s_i^2$, which is also the sum of squares of all entries.

# %%
predict("06.energy")

# %% mystnb={"image": {"alt": "Line chart. For each of 36 weight matrices, the share of the change's energy that the top r directions hold, rising from about a tenth at r = 1 to all of it at 384. At r = 8 the lines lie between roughly two tenths and eight tenths. A dashed line for random noise lies far below all of them."}} tags=["nbval-ignore-output"]
changes = scissors.weight_changes(base, tuned)
lora_figures.spectrum(changes)
at_8 = [change.energy(8) for change in changes.values()]
print(f"top 8 directions: {min(at_8):.0%} to {max(at_8):.0%} of the energy, {sum(at_8) / len(at_8):.0%} on average")

# %% [markdown]
# Each thin line is one of the 36 matrices. The dashed line is random noise, 384 × 384.
#
# In our stored runs (five seeds, trained for 90 steps on all the training data) the top 8 directions hold 20 % to 78 % of the energy of a matrix, 43 % on average. Noise would give 8 %. So there is structure, far more than in noise. But **this change is not low-rank**: more than half of it, on average, lies outside the top 8 directions. That makes the next result surprising.

# %% [markdown]
# ## Scissors
#
# Now the experiment from the first paragraph. Take the fine-tuned model. Each of the 36 matrices becomes $W_{\text{before}} + \Delta W_r$, where $\Delta W_r$ is your `best_cut(ΔW, r)`. Everything else (embeddings, biases, LayerNorms, head) stays as trained. Then test.
#
# At $r = 384$ nothing is cut. Set what you expect for fewer, then look. Below the curves you can cut a real ΔW yourself, and see its directions go.

# %%
explorer = scissors_explorer()
explorer

# %% [markdown]
# These are stored runs: five seeds on all 1,200 test definitions, with the smallest and the largest run as a band. The second line is the control: $r$ of ΔW's own directions, drawn at random.
#
# Is it true of *your* model too? Every stop of this slider cuts the model that you have just trained, and tests it.

# %% tags=["nbval-ignore-output"]
from peftlab.show.sliders import drag


def accuracy_with(r):
    with scissors.only(tuned, changes, scissors.top(r)):
        return metrics.accuracy(tuned, tokenizer, held_out[:240])


drag("keep r =", [0, 1, 2, 4, 8, 16, 32, 384], accuracy_with, start=384,
     describe=lambda r, found: f"{r} of 384 directions kept: accuracy {found:.2f} on 240 test definitions")

# %% mystnb={"image": {"alt": "Line chart of test accuracy against the number of directions kept in every matrix. Keeping the top directions, accuracy climbs from about 0.17 at zero to 0.39 at one, 0.76 at four, 0.85 at eight, and is flat from sixteen on. Keeping random directions, it stays below 0.25 up to eight and reaches the top only when all are kept."}}
lora_figures.scissors(stored, guess={int(r): accuracy for r, accuracy in explorer.guess.items()})
plots.table([
    {"directions kept": r, "top": sum(top) / 5, "random": sum(other) / 5}
    for r in (0, 1, 4, 8, 32, 384)
    for top, other in [(lora_figures.accuracies(stored, f"cut/{how}/{r}") for how in ("top", "random"))]
], caption="Test accuracy, mean of five seeds")

# %% [markdown]
# Eight directions out of 384 in every matrix, and the model still names the topic in 85 % of cases. The whole of ΔW gives 87 %. Eight random directions of the same ΔW give 23 %. (The 17 % at $r = 0$ are not the pretrained model: its head, embeddings and LayerNorms were trained for other matrices.)
#
# The story writes itself: *the new skill sits in a few special directions*. Before you believe it, ask what else differs between the top 8 directions and 8 random ones.
#
# ### How to be fooled
#
# They differ in energy. The top 8 hold 43 % of it, 8 random ones about 2 %. So make the comparison fair: draw random directions for as long as they fit into the energy of the top $r$. Or keep all directions and shrink the whole ΔW until it has that energy. Or turn it round, and keep everything *but* the top $r$.

# %%
plots.table(lora_figures.controls(stored), caption="Test accuracy at the energy of the top r, mean of five seeds")

# %% [markdown]
# With the energy of the top 8, random directions reach 83 %, not far from the top 8 themselves. The shrunken whole reaches 87 %. And without its top 8 the model still has 70 %. So the simple story is wrong: the skill does not sit in eight special directions.
#
# But energy is not the whole story either. All but the top 32 hold as much energy as the top 4 (29 % and 28 %), and give 26 % (row 32, last column). The whole ΔW, shrunk to that energy, gives 86 % (row 4). What we may say: the skill is spread over some tens of strong directions, with much repetition, and the weak tail adds little. **Eight strong directions are enough. They are not the only ones that work.** Enough is all that LoRA needs.
#
# One more control. At $r = 1$ the accuracy falls to 39 %. Is the skill gone? Freeze the cut model and train its head again: 85 %. With *no* direction left ($r = 0$) a head trained again gives 82 %, where the old head gave 17 %. So the low end of our curve measures mostly a head that no longer fits.
#
# How sure are we? With 1,200 test definitions, the standard error of one accuracy is about 1 percentage point. Averaging seeds hardly shrinks it, because all runs share the same texts ([bridge B5](B5_validation_seeds_intervals.ipynb) shows why). From $r = 8$ on, the seeds of the top line spread by under 3 points. And this is one task, with little data. For code, Biderman et al. (2024) find changes of 10 to 100 times the rank of a usual LoRA, and ranks of 16 to 64 tended *not* to be enough.

# %% [markdown]
# ## From scissors to LoRA
#
# If a change of small rank is enough, why compute all of ΔW first? **Train a change of small rank from the start.**
#
# A matrix of rank at most $r$ is a product of two thin matrices. Write
#
# $$\Delta W = \frac{\alpha}{r}\, B A, \qquad A \in \mathbb{R}^{r \times d_{in}}, \quad B \in \mathbb{R}^{d_{out} \times r},$$
#
# freeze the pretrained weight $W_0$, and train $A$ and $B$. That is LoRA, *low-rank adaptation* (Hu et al., 2021). For one layer, with a bias $b$:
#
# $$h = W_0 x + b + \frac{\alpha}{r}\, B A x .$$
#
# Read it from the right. $A$ takes the input $x \in \mathbb{R}^{d_{in}}$ down to $r$ numbers. $B$ takes these to $\mathbb{R}^{d_{out}}$. The constant $\alpha / r$ scales the result; you choose $\alpha$.

# %% tags=["nbval-ignore-output"]
d_in, d_out, r = 384, 1536, 8
A, B = torch.randn(r, d_in) / d_in**0.5, torch.zeros(d_out, r)
x = torch.randn(5, d_in)  # five inputs, one in each row

z = x @ A.T  # A x
delta = z @ B.T  # B A x
print("x", tuple(x.shape), "→ A x", tuple(z.shape), "→ B A x", tuple(delta.shape))
print(f"W₀ has {d_out * d_in:,} numbers, A and B together {r * (d_in + d_out):,}")

# %% [markdown]
# The rows of `x` are inputs, so $A x$ is written `x @ A.T`. The number of trained values is
#
# $$r\,(d_{in} + d_{out}) \quad\text{instead of}\quad d_{in}\, d_{out} .$$
#
# ### Exercise 2 · LoRA's forward pass (8 minutes)
#
# Write the formula. $r$ is not an argument: read it off `A`. The check uses a layer that is not square, two batch dimensions, $B \ne 0$ and $\alpha \ne r$.

# %% tags=["exercise"]
def lora_forward(x, W, b, A, B, alpha):
    """h = W x + b + alpha/r B A x. Shapes: x (..., d_in), W (d_out, d_in), b (d_out), A (r, d_in), B (d_out, r)."""
    return ...


check("06.lora_forward", lora_forward)

# %% tags=["nbval-ignore-output"]
lora_forward = use("06.lora_forward", lora_forward)
dense = base.bert.encoder.layer[0].intermediate.dense
W, b = dense.weight, dense.bias
plain = F.linear(x, W, b)
for what, other in (("B = 0", B), ("B random", torch.randn(d_out, r) / r**0.5)):
    gap = (lora_forward(x, W, b, A, other, alpha=16) - plain).abs().max()
    print(f"{what}: the adapted layer differs by up to {gap:.2g}, from values of up to {plain.abs().max():.1f}")

# %% [markdown]
# ### Why B starts at zero
#
# With $B = 0$ the product $BA$ is zero, so training starts from exactly the pretrained model. With both random, the model is disturbed before the first step. With both zero, something else goes wrong.
#
# ### Exercise 3 · The first step (5 minutes)
#
# $A$ is random, $B$ is zero, and a loss is computed from $h$. Which gradients are zero at this moment? Fill in `True` or `False`, with pencil and paper first.

# %% tags=["exercise"]
first_step = {"A's gradient is zero": ..., "B's gradient is zero": ...}

check("06.first_step", first_step)

# %%
W, b = W.detach(), b.detach()
for start_A, start_B in (("random", "zero"), ("zero", "zero")):
    A = (torch.randn(r, d_in) if start_A == "random" else torch.zeros(r, d_in)).requires_grad_()
    B = torch.zeros(d_out, r, requires_grad=True)
    lora_forward(x, W, b, A, B, alpha=16).square().mean().backward()
    print(f"A {start_A:6}, B {start_B}: A's gradient zero: {not A.grad.any()},  B's gradient zero: {not B.grad.any()}")

# %% [markdown]
# The first line is LoRA's start. $B$ moves in the first step; $A$ follows from the second step on, once $B$ is no longer zero. In the second line both gradients are zero, and stay zero: that adapter never learns.
#
# ## The class
#
# Here is LoRA as `peftlab` has it. Compare `forward` with your own. `inner` is the layer that was there before.

# %%
import inspect

from peftlab.methods.reparam.lora import LoRALinear

print(inspect.getsource(LoRALinear.forward))
print(inspect.getsource(LoRALinear.delta_weight))

# %% [markdown]
# `peftlab.attach` puts such a layer around every module you name and freezes all else. We start where the paper did, with the query and value matrices of the attention.
# The head starts random, so it must train too: `attach` sees a classifier and takes the head along.

# %%
predict("06.parameters")

# %%
lora = LoRA(r=8, lora_alpha=16, target_modules=["query", "value"])
model = peftlab.attach(copy.deepcopy(base), lora)

formula = 6 * 2 * lora.r * (384 + 384) + (384 * 12 + 12)
print("by the formula:", f"{formula:,}")
print("by counting:   ", peftlab.count_parameters(model))

# %% [markdown]
# ## Is it really LoRA? The proof
#
# A class that looks right can still be wrong by a factor or a transpose. So we compare with `peft`: the same base, the same random numbers in $A$, $B$ and the head, in double precision. Outputs, the gradient of every tensor, the losses of ten steps of AdamW (the optimiser), the merged model, and the files on disk, saved by one library and opened by the other.

# %%
from peftlab import parity

batch = next(datasets.batches(few, tokenizer, batch_size=5, seed=0))
parity.prove(base, lora, batch)

# %% [markdown]
# Equal at every level. What this lesson finds out about our class holds for `peft` as well, and your adapter opens there.
#
# Can this proof fail? Break the class and see. Here the scale $\alpha / r$ is forgotten. Try other mistakes: a minus, a missing `inner(x)`.

# %% tags=["nbval-ignore-output"]
from unittest.mock import patch


def broken(self, inner, x):
    return inner(x) + x @ self.lora_A.weight.T @ self.lora_B.weight.T


with patch.object(LoRALinear, "forward", broken):
    proof = parity.prove(base, lora, batch, levels=("P1",))
proof

# %% [markdown]
# ## Train it
#
# Three runs, each with a learning rate chosen on validation data before: the **head only** (the model stays as it is), **LoRA**, and the full fine-tuning from above. Which gap will be larger, head to LoRA, or LoRA to full?

# %% mystnb={"image": {"alt": "Line chart of training loss over 40 steps for head only, LoRA and full fine-tuning. All three fall; the head alone ends clearly higher than the other two."}} tags=["nbval-ignore-output"]
head = copy.deepcopy(base).requires_grad_(False)
head.classifier.requires_grad_(True)
runs = {
    "head only": train(head, tokenizer, few, held_out, lr=3e-3, name="head only", **short),
    "LoRA": train(model, tokenizer, few, held_out, lr=3e-3, name="LoRA", **short),
    "full fine-tuning": full_run,
}
full_run.evaluations.append((40, full_accuracy, float("nan")))
plots.losses(list(runs.values()))
plots.runs(list(runs.values()), caption="40 steps of 16, one seed, 300 test definitions")

# %%
assert runs["LoRA"].accuracy > 0.65 and runs["LoRA"].losses[-1] < runs["LoRA"].losses[0]

# %% [markdown]
# One short run each, so do not read much into a point or two. The stored runs train for 90 steps of 32 on all 2,880 training definitions, with five seeds:

# %%
kinds = {"head": "head only", "lora_qv/8": "LoRA, r = 8, query and value",
         "lora_all/8": "LoRA, r = 8, all 36 matrices", "full": "full fine-tuning"}
plots.table([
    {"trained": name, "parameters": stored["cells"][f"{cell}/0"]["trainable"],
     "test accuracy": sum(runs_) / 5, "lowest": min(runs_), "highest": max(runs_)}
    for cell, name in kinds.items() for runs_ in [lora_figures.accuracies(stored, cell)]
], caption="WordNet topics, 1,200 test definitions, five seeds")

# %% [markdown]
# LoRA on query and value trains 0.35 % of the parameters and reaches 86.0 %. Full fine-tuning reaches 87.4 %, the head alone 80.6 %. Seed by seed, this LoRA is lower than full fine-tuning in all five, by 1.5 points on average. With all 36 matrices LoRA gets to 86.9 %. It is lower in four of five, by 0.6 points: these two we cannot tell apart.
#
# ### Trained at rank r, or cut to rank r?
#
# Cutting a finished ΔW to rank 1 left 39 %. What do you expect from *training* at rank 1?

# %%
predict("06.trained_at_1")

# %% mystnb={"image": {"alt": "Line chart of test accuracy against rank, for ranks 1, 2, 4, 8 and 32. Trained at rank r stays near 0.86 throughout, dipping slightly at 32. Full fine-tuning cut to rank r starts at 0.39 and catches up at rank 8. Cut with the head trained again starts at 0.85 and lies just below the first line. A dotted line marks full fine-tuning at 0.87."}}
_ = lora_figures.trained_against_cut(stored)

# %% [markdown]
# Trained with one direction in each matrix: 86.2 %. It is tempting to say that training finds a better direction than cutting does. Mind the head again: in LoRA's run it learns together with the matrices. Train it again for the cut model (which also keeps its trained embeddings, biases and LayerNorms), and 85 % comes back: about one point is left between the two.

# %% [markdown]
# ## What it costs
#
# LoRA saves only what it trained, as 32-bit numbers of 4 bytes each.

# %%
predict("06.file_size")

# %% [markdown]
# While training, AdamW keeps two more such numbers for every trained parameter.

# %% tags=["nbval-ignore-output"]
import tempfile

from peftlab.bench.step_time import side_by_side, step

folder = peftlab.save(model, tempfile.mkdtemp())
size = (folder / "adapter_model.safetensors").stat().st_size
trained, total = peftlab.count_parameters(model).trainable, sum(p.numel() for p in base.parameters())
print(f"file predicted {4 * trained / 1e6:.3f} MB, on disk {size / 1e6:.3f} MB; full model {4 * total / 1e6:.0f} MB")
print(f"AdamW's state: {8 * trained / 1e6:.1f} MB instead of {8 * total / 1e6:.0f} MB")

sixteen = next(datasets.batches(few, tokenizer, batch_size=16, seed=0))
seconds = side_by_side({"LoRA": step(model, sixteen), "full": step(tuned, sixteen)}, repeats=3)
print(f"one step with LoRA takes {seconds['LoRA'] / seconds['full']:.2f} of the time of a full one, here and now")

# %% [markdown]
# The file is 288 times smaller than the model: one base, many adapters. The optimiser's state shrinks as much. Memory as a whole shrinks less, because the frozen weights and most activations stay: Hu et al. report that it falls by up to two thirds for GPT-3. *Time* shrinks least. (On a busy machine your number may even pass 1.) In our stored measurement a LoRA step takes 68 % of the time of a full one on query and value, and 89 % on all 36 matrices: the whole model still runs forward, and gradients must still flow back through it to reach $A$ and $B$.
#
# At inference, an adapter costs two thin products in each layer. Or you **merge** it: $W_0 + \frac{\alpha}{r} B A$ is one matrix, and nothing is left to pay.
#
# ### Exercise 4 · Merge into GPT-2 (6 minutes)
#
# GPT-2 stores its linear layers the other way round: `Conv1D` computes `x @ weight + bias`, with `weight` of shape $(d_{in}, d_{out})$. Return the merged weight for such a layer, and leave the given one as it is.

# %% tags=["exercise"]
def merged_conv1d(weight, A, B, alpha):
    """The weight with LoRA merged in, of shape (d_in, d_out) like `weight`. A is (r, d_in), B is (d_out, r)."""
    return ...


check("06.merged_conv1d", merged_conv1d)

# %% tags=["nbval-ignore-output"]
from transformers.pytorch_utils import Conv1D

merged_conv1d = use("06.merged_conv1d", merged_conv1d)
conv, x = Conv1D(1536, 384), torch.randn(5, 384)  # 384 inputs, 1536 outputs, as in GPT-2's feed-forward layers
A, B = torch.randn(8, 384) / 384**0.5, torch.randn(1536, 8)
with torch.no_grad():
    unmerged = conv(x) + 16 / 8 * (x @ A.T @ B.T)
    conv.weight.copy_(merged_conv1d(conv.weight, A, B, alpha=16))
    print(f"Conv1D: differ by up to {(conv(x) - unmerged).abs().max():.0e}; largest {unmerged.abs().max():.0f}")

    texts = tokenizer(held_out.texts[:8], padding=True, return_tensors="pt")
    unmerged = model.eval()(**texts).logits
    merged = peftlab.merge(copy.deepcopy(model))(**texts).logits
    print(f"MiniLM: differ by up to {(merged - unmerged).abs().max():.0e}; largest {unmerged.abs().max():.1f}")
assert torch.allclose(merged, unmerged, atol=1e-4)

# %% [markdown]
# ## A trap: the rank changed, and α did not
#
# You raise the rank from 4 to 64 and leave `lora_alpha=8` where it was. The scale $\alpha / r$ falls from 2 to 1/8. The usual advice, also in a paper (Biderman et al., 2024), is to keep $\alpha = 2r$. In a robotics project people trained with α left at 8 beside $r = 64$, and the robot barely moved ([lerobot #3551](https://github.com/huggingface/lerobot/issues/3551); their learning rate was 1e-4).
#
# Test it, with two adapters of rank 64 and two learning rates, 12 steps each.

# %%
predict("06.alpha_and_rate")

# %% tags=["nbval-ignore-output"]
for rate in (3e-4, 1e-2):
    for alpha in (8, 128):
        trial = peftlab.attach(copy.deepcopy(base), LoRA(r=64, lora_alpha=alpha, target_modules=["query", "value"]))
        run = train(trial, tokenizer, few, lr=rate, steps=12, batch_size=16, schedule="constant", name=f"α = {alpha}")
        print(f"learning rate {rate:g}, α = {alpha:3}: loss {run.losses[0]:.2f} → {sum(run.losses[-4:]) / 4:.2f}")

# %% [markdown]
# With the small learning rate, $\alpha = 128$ learns faster. With the large one it is thrown off, while $\alpha = 8$ learns. The stored sweep shows the whole picture:

# %% mystnb={"image": {"alt": "Line chart of validation accuracy over learning rates from 3e-4 to 3e-2. The curves for r = 4 with alpha 8 and for r = 64 with alpha 8 lie almost on top of each other, rising from 0.51 to 0.87 at 3e-3 and 1e-2, and fall at 3e-2, to 0.08 and 0.45. The curve for r = 64 with alpha 128 starts at 0.78, has the same height at 3e-3, and falls to 0.08 at 1e-2."}}
_ = lora_figures.alpha_and_rate(stored)

# %% [markdown]
# Three things to see. On this grid the peaks are equally high, within the noise. The curves of $r = 4$ and $r = 64$ with the *same* α lie on top of each other up to 1e-2: they share α, not α/r. Why? Rank 64 adds sixteen times as many terms $b_i a_i^\top$. Adam moves each about as fast, and each counts one sixteenth: the sum moves as before. Leave α alone, and the learning rate you had still fits. (At 3e-2 both break.) And with α scaled along, small learning rates do better, 78 % against 51 % at 3e-4, while 1e-2, a fine rate before, ends at 8 %, which is guessing.
#
# So what is left of the advice? Not a law. Hu et al. (section 4.1) divide by $r$ so that little needs retuning when $r$ changes, and call tuning α roughly the same as tuning the learning rate with Adam, *if the start is scaled to match*. Our sweep agrees. Biderman et al. found otherwise for a model of 7 billion parameters at $r = 256$: there $\alpha = 2r$ was best at every rate they tried. **α and the learning rate belong together. If you change one, search the other again, and trust no fixed ratio.** (Another scale, $\alpha / \sqrt{r}$, waits in lesson 09.)
#
# Turn the knobs yourself. Every press of *Train* starts from the pretrained model again.

# %% tags=["nbval-ignore-output"]
from peftlab.show.knobs import retrain

retrain(base, tokenizer, few, held_out[:120], steps=20)

# %% [markdown]
# ## When to use LoRA
#
# **Use it when** you adapt a pretrained model to a task or a style, have one base and several tasks, or cannot afford optimiser state for all parameters. It is a good first choice.
#
# **Avoid it when** the model must absorb much new knowledge from much data: in continued pretraining, full fine-tuning has been measured to learn more (Biderman et al., 2024). And when training *time* is your only problem.
#
# **Unknown:** which rank a task needs. People try.
#
# ## Check yourself

# %%
quiz("06")

# %% [markdown]
# ## Take away
#
# - Fine-tuning's change is **not** low-rank, yet eight directions of every matrix keep nearly all of the accuracy. They are not the only ones that are. The weak tail alone is not enough.
# - A control can turn a story round: match the energy, retrain the head, then compare.
# - LoRA trains $\Delta W = \frac{\alpha}{r} B A$ with $W_0$ frozen: $r\,(d_{in} + d_{out})$ parameters for a layer. $B$ starts at zero.
# - The file and the optimiser's state shrink 288-fold, memory as a whole less, time by about a third. Merged, there is no cost at inference.
# - α and the learning rate belong together: if you change one, search the other again.
#
# ## Sources
#
# - E. Hu, Y. Shen, P. Wallis, Z. Allen-Zhu, Y. Li, S. Wang, L. Wang, W. Chen: *LoRA: Low-Rank Adaptation of Large Language Models*, 2021, [arXiv:2106.09685](https://arxiv.org/abs/2106.09685).
# - D. Biderman et al.: *LoRA Learns Less and Forgets Less*, TMLR, 2024, [arXiv:2405.09673](https://arxiv.org/abs/2405.09673).
# - C. Eckart, G. Young: *The approximation of one matrix by another of lower rank*, Psychometrika 1, 1936.
# - Data: WordNet 3.0, Princeton University. Model: all-MiniLM-L6-v2, Apache-2.0. Stored runs: `python -m peftlab.bench scissors`, one H100; the JSON in `data/results/` says which versions.

# %% [markdown] tags=["footer"]
# ---
#
# **Next:** [07 · LoRA at work](07_lora_at_work.ipynb), merge, swap, and serve three tasks from one base in one batch.
