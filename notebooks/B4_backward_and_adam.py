# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["header"]
# # B4 · What backward computes and what Adam stores
#
# *20 minutes (12 without the exercises), of which your machine computes for less than half a minute. You need PyTorch basics, matrix products, and bridge B1. No GPU, no network.*

# %% [markdown]
# You freeze 99 % of a model. What is left to pay for? Here is our small language model, with a fresh head for 12 topics, and four ways to train it. (LoRA freezes a matrix $W$ and trains two thin ones beside it, $A$ and then $B$; here at each `q_proj` and `v_proj`.)

# %%
import copy
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

import peftlab
from peftlab.course import backward
from peftlab.course.exercise import check, hint, solution, use
from peftlab.course.question import predict, quiz
from peftlab.methods import LoRA
from peftlab.show import backward_figures, plots
from peftlab.tasks import datasets, models

# %%
plots.style()
base, tokenizer = models.load("tiny", num_labels=12)
base.set_attn_implementation("eager")  # attention step by step
base.config.use_cache = False  # a store for generating text, not needed here
batch = next(datasets.batches(datasets.load("wordnet_topics").train, tokenizer, batch_size=24, seed=0))
few = {name: rows[:4] for name, rows in batch.items()}  # where it does not matter how many
def only(part):
    model = copy.deepcopy(base).requires_grad_(False)
    model.get_submodule(part).requires_grad_(True)
    return model

lora = peftlab.attach(copy.deepcopy(base), LoRA(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]))
ways = {"everything": base, "LoRA": lora, "last block": only("model.layers.7"), "head": only("score")}
print("\n".join(f"{name:10} {peftlab.count_parameters(model)}" for name, model in ways.items()))
predict("B4.memory")

# %% [markdown]
# One training step each, on 24 texts, padded to 32 tokens. We count the bytes that it holds, each kind at its largest. (Not all at once: what is kept goes as the gradients come.)

# %% mystnb={"image": {"alt": "Four stacked bars of the bytes of one training step. Everything: 254 MB, of which weights are about 30, gradients 30, Adam's m and v 59, kept from the forward pass 136. LoRA: 123 MB, weights about 30 and kept 92, the other two too thin to see. Last block: 56 MB, weights about 30, kept 17, the rest thin. Head: 30 MB, nearly all weights."}}
steps = {name: backward.step(model, batch) for name, model in ways.items()}
backward_figures.stacked({name: step.memory for name, step in steps.items()})
total = {name: sum(step.memory.values()) for name, step in steps.items()}
assert 0.4 < total["LoRA"] / total["everything"] < 0.6 and total["last block"] < total["LoRA"] / 2
stays = sum(steps["everything"].memory[part] for part in (backward.WEIGHTS, backward.KEPT))
falls = 1 - steps["LoRA"].memory[backward.KEPT] / steps["everything"].memory[backward.KEPT]
assert 0.6 < stays / total["everything"] < 0.7 and 0.28 < falls < 0.38

# %% [markdown]
# Half. Why does the forward pass of a frozen model leave so much behind? And why so little where the last block trains, with *more* trained numbers than LoRA?
#
# ## Two products
#
# Take one linear layer and one input: $h = W x$, $W$ of shape $(d_{out}, d_{in})$. From above comes $g = \partial \mathcal{L} / \partial h$: how the loss $\mathcal{L}$ changes with each output. A change of $W_{ij}$ reaches $h_i$ alone, times $x_j$. A change of $x_j$ reaches every $h_i$, times $W_{ij}$. So
#
# $$\frac{\partial \mathcal{L}}{\partial W} = g\, x^\top, \qquad \frac{\partial \mathcal{L}}{\partial x} = W^\top g .$$
#
# The first, for the layer's own weight, needs $x$, **kept** from the forward pass. The second goes down to the layer before, as *its* $g$, and needs only $W$.

# %%
torch.manual_seed(0)
W, x, g = torch.randn(3, 5), torch.randn(5), torch.randn(3)
W.requires_grad_(), x.requires_grad_()
(W @ x).backward(g)  # autograd, given our g
with torch.no_grad():
    print("g xᵀ:", torch.allclose(torch.outer(g, x), W.grad), "  Wᵀ g:", torch.allclose(W.T @ g, x.grad))


# %% [markdown]
# ### Exercise 1 · A whole batch (4 minutes)
#
# Now with a bias, $h = W x + b$, and for all tokens of several texts. In code, a row is an input, and `...` may be one dimension, two or three.

# %% tags=["exercise"]
def linear_backward(x, W, g):
    """(dx, dW, db), the gradients of x, W and b. Shapes: x (..., d_in), W (d_out, d_in), g (..., d_out)."""
    return ...


check("B4.linear_backward", linear_backward)
# Stuck? Run hint("B4.linear_backward", 1), then hint("B4.linear_backward", 2), then solution("B4.linear_backward").

# %%
linear_backward = use("B4.linear_backward", linear_backward)
layer = torch.nn.Linear(40, 60)
x, g = torch.randn(4, 7, 40, requires_grad=True), torch.randn(4, 7, 60)
layer(x).backward(g)
found = linear_backward(x.detach(), layer.weight.detach(), g)
wanted = (x.grad, layer.weight.grad, layer.bias.grad)
print("as autograd has it:", [torch.allclose(a, b, atol=1e-4) for a, b in zip(found, wanted, strict=True)])

# %% [markdown]
# ## What a frozen layer still pays
#
# A multiplication or an addition is a **FLOP**.

# %%
predict("B4.flops")

# %% [markdown]
# Each of the three products, $W x$, $g\,x^\top$ and $W^\top g$, takes one of each for each weight and token: 2 FLOPs. A trained layer pays 6, the rule of thumb ([Kaplan et al., 2020](https://arxiv.org/abs/2001.08361)). A frozen one leaves out $g\,x^\top$ and pays 4. PyTorch counted:

# %%
each = batch["input_ids"].numel() * sum(p.numel() for p in base.model.layers.parameters() if p.ndim == 2)
full = steps["everything"].forward + steps["everything"].backward
plots.table([
    {"trained": name, "forward": step.forward / each, "backward": step.backward / each,
     "share of a full step": (step.forward + step.backward) / full}
    for name, step in steps.items()
], caption="FLOPs for each weight of the blocks and each token")

# %% [markdown]
# (Attention's products of activations add a little, LoRA's own $A$ and $B$ a hundredth.) LoRA pays for two products of three: down to its lowest $A$ and $B$, $g$ goes through every frozen layer.
#
# If nothing *below* a frozen layer trains, nobody asks for its $W^\top g$ either. The **graph**, autograd's record of what to go back through, begins at the lowest trained parameter. `requires_grad` says whether a tensor is in it:

# %%
for name in ("LoRA", "last block"):
    streams = ways[name](**few, output_hidden_states=True).hidden_states  # before block 0, after it, …, at the end
    print(f"{name:10}", " ".join("in" if stream.requires_grad else "–" for stream in streams))
assert steps["LoRA"].backward > 3 * steps["last block"].backward
assert 1.005 < steps["LoRA"].forward / steps["everything"].forward < 1.015

# %% [markdown]
# ## What the forward pass leaves behind
#
# Autograd tells what it keeps (`backward.kept_by_part`). Here is one block of eight (parts as in [B1](B1_transformer_block.ipynb)), split by the layer that asked first:

# %% mystnb={"image": {"alt": "Two stacked bars of the bytes that block 3 keeps. Everything trained: 17 MB, of which linear layers 4, norms 3, softmax and its products 3, SiLU and gate 6. LoRA: 12 MB; linear layers 1 and norms 2, softmax and its products 3 and SiLU and gate 6 as before."}}
parts = {name: backward.kept_by_part(ways[name], batch, block=3) for name in ("everything", "LoRA")}
backward_figures.stacked(parts, backward_figures.SHADES)
before, after = parts["everything"], parts["LoRA"]
assert after[backward.LINEAR] < before[backward.LINEAR] / 4 and after[backward.GATE] == before[backward.GATE]
assert after[backward.ATTENTION] == before[backward.ATTENTION] and 10e6 < sum(after.values()) < 13e6

# %% [markdown]
# Frozen linear layers no longer keep their $x$ (what remains is for $A$ and $B$), nor norms what their factors needed. But what is *not* linear keeps its own. The slope of SiLU depends on its input. Where activations are multiplied, gate times up or queries times keys, each is needed for the other's gradient. A norm keeps its input, softmax its output, which grows with the square of the length. (The usual fused attention keeps less and computes softmax again.)
#
# Against this helps **gradient checkpointing** ([Chen et al., 2016](https://arxiv.org/abs/1604.06174)): keep only what enters each block, and run it again in the backward pass.

# %%
def checkpointed(model, **how):
    for block in model.model.layers:
        block.forward = partial(lambda run, x, **rest: checkpoint(partial(run, **rest), x, **how), block.forward)
    return model

kept_by_lora = steps["LoRA"].memory[backward.KEPT]
saving = backward.step(checkpointed(copy.deepcopy(lora), use_reentrant=False), batch)
extra = saving.backward - steps["LoRA"].backward
print(f"kept: {saving.memory[backward.KEPT] / 1e6:.0f} MB instead of {kept_by_lora / 1e6:.0f} MB")
print(f"more to compute: {extra / saving.forward:.1f} of a forward pass")
assert saving.memory[backward.KEPT] < kept_by_lora / 8 and 0.6 < extra / saving.forward <= 1

# %% [markdown]
# Memory for time: at most one more forward pass. (The second run of a block stops early: nobody needs its last product again. Meanwhile the block's own 12 MB come back.)
#
# ## A trap: the gradient that never came
#
# Older code uses an older form, `use_reentrant=True`. We train LoRA and the head with it:

# %%
broken = backward.train(checkpointed(copy.deepcopy(lora), use_reentrant=True), few)
assert broken.losses[-1] < broken.losses[0] and broken.with_gradient == 1
print(broken)

# %% [markdown]
# The loss falls, because the head learns. No tensor of LoRA has a gradient, and no error says so, only a warning. The embedding is frozen, so what enters the first block is not in the graph. The older form looks at nothing else. Two mends:

# %%
print(newer := backward.train(checkpointed(copy.deepcopy(lora), use_reentrant=False), few))
older = checkpointed(copy.deepcopy(lora), use_reentrant=True)
older.enable_input_require_grads()  # puts the embedding's output into the graph; its weights stay frozen
print(mended := backward.train(older, few))
assert newer.with_gradient == mended.with_gradient == mended.trained

# %% [markdown]
# **After the first backward pass, look for trained tensors whose `grad` is None.**
#
# ## What Adam stores
#
# Adam ([Kingma and Ba, 2014](https://arxiv.org/abs/1412.6980)) keeps two running averages for each trained parameter $w$: $m$ of its gradient (from here on this is $g$; above it was $g\,x^\top$) and $v$ of the gradient's square. In step $t = 1, 2, \dots$
#
# $$m \leftarrow \beta_1 m + (1 - \beta_1)\, g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2)\, g^2,$$
#
# $$\hat m = \frac{m}{1 - \beta_1^t}, \qquad \hat v = \frac{v}{1 - \beta_2^t}, \qquad w \leftarrow w - \eta \left( \frac{\hat m}{\sqrt{\hat v} + \epsilon} + \lambda w \right).$$
#
# Both start at zero and are too small at first; the division mends that. The decay $\lambda w$ pulls weights towards zero; that it stands here, not in $g$, is the W of AdamW ([Loshchilov and Hutter, 2017](https://arxiv.org/abs/1711.05101)). PyTorch also multiplies it by $\eta$, and so do we.
#
# ### Exercise 2 · One step of AdamW (4 minutes)
#
# Take $\beta_1 = 0.9$, $\beta_2 = 0.999$, $\epsilon = 10^{-8}$; `lr`, the learning rate, is $\eta$; `decay` is $\lambda$.

# %% tags=["exercise"]
def adamw_step(w, g, m, v, t, lr, decay):
    """(w, m, v) after step number t = 1, 2, …; m and v are those from before it. All tensors have the shape of w."""
    return ...


check("B4.adamw_step", adamw_step)

# %%
adamw_step = use("B4.adamw_step", adamw_step)
theirs = torch.nn.Parameter(torch.randn(4, 6, dtype=torch.float64))
optimiser = torch.optim.AdamW([theirs], lr=0.05, weight_decay=0.1)
w, m, v = theirs.detach().clone(), torch.zeros(4, 6), torch.zeros(4, 6)
for t in (1, 2, 3):
    optimiser.zero_grad()
    (theirs ** 4).sum().backward()
    w, m, v = adamw_step(w, theirs.grad, m, v, t, lr=0.05, decay=0.1)
    optimiser.step()
    print(f"step {t}: the same weights as PyTorch's: {torch.allclose(w, theirs)}")
print("what PyTorch keeps:", {name: tuple(value.shape) for name, value in optimiser.state[theirs].items()})

# %% [markdown]
# `exp_avg` and `exp_avg_sq` are $m$ and $v$. Bytes for each parameter:
#
# | | weight | gradient | 32-bit copy | $m$ | $v$ | sum |
# |---|--:|--:|--:|--:|--:|--:|
# | trained, mixed precision | 2 | 2 | 4 | 4 | 4 | **16** |
# | trained, all in 32 bits | 4 | 4 | – | 4 | 4 | **16** |
# | frozen, 16 bits | 2 | – | – | – | – | **2** |
#
# *Mixed precision* computes in 16 bits; the optimiser changes a 32-bit copy, because 16 would round small steps away (bytes as in [Rajbhandari et al. (2019)](https://arxiv.org/abs/1910.02054); PyTorch's autocast keeps row two and makes 16-bit copies).
#
# Freezing saves a weight's gradient, $m$, $v$ and copy, one product of three, and $x$, unless another keeps it (LoRA's $A$ does). Nearly all else is saved only *below the lowest parameter that trains*. With many tokens activations rule, with four texts weights and Adam:

# %%
memory = backward.step(base, few).memory
print(", ".join(f"{part} {size / 1e6:.0f} MB" for part, size in memory.items()))
assert memory[backward.KEPT] < sum(memory.values()) / 5

# %%
quiz("B4")

# %% [markdown]
# ## Take away
#
# - A frozen layer pays 4 FLOPs for each weight and token, not 6, and does not need $x$.
# - Nothing trainable below: no graph, nothing kept, no backward pass.
# - What is not linear keeps activations, frozen or not. Checkpointing trades them for time.
# - AdamW stores two numbers for each *trained* parameter. There PEFT saves nearly all.
#
# ## Sources
#
# - D. P. Kingma, J. Ba: *Adam: A Method for Stochastic Optimization*, 2014, [arXiv:1412.6980](https://arxiv.org/abs/1412.6980).
# - T. Chen et al.: *Training Deep Nets with Sublinear Memory Cost*, 2016, [arXiv:1604.06174](https://arxiv.org/abs/1604.06174).
# - I. Loshchilov, F. Hutter: *Decoupled Weight Decay Regularization*, 2017, [arXiv:1711.05101](https://arxiv.org/abs/1711.05101).
# - S. Rajbhandari et al.: *ZeRO*, 2019, [arXiv:1910.02054](https://arxiv.org/abs/1910.02054).
# - J. Kaplan et al.: *Scaling Laws for Neural Language Models*, 2020, [arXiv:2001.08361](https://arxiv.org/abs/2001.08361).

# %% [markdown] tags=["footer"]
# ---
#
# **Next:** [B5 · Validation, seeds, intervals](B5_validation_seeds_intervals.ipynb), find out whether a difference is one, or luck.
