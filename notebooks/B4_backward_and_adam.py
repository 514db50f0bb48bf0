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
# *20 minutes (12 without the exercises), of which your machine computes for less than half a minute. You need PyTorch basics and matrix products. No GPU, no network.*

# %% [markdown]
# You freeze 99 % of a model. What is left to pay for? Here is our small language model, with a fresh head that sorts definitions into 12 topics, and four ways to train it.

# %%
import copy
from functools import partial

import torch
from torch.autograd.graph import saved_tensors_hooks
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
base.set_attn_implementation("eager")  # step by step; the usual fused form computes its softmax twice
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
# One training step each, on 24 texts of 32 tokens. We count the bytes of all tensors that it has to hold.

# %% mystnb={"image": {"alt": "Four stacked bars of the bytes of one training step. Everything: 254 MB, of which weights 30, gradients 30, Adam's m and v 59, kept from the forward pass 136. LoRA: 123 MB, weights 30 and kept 92, the other two too thin to see. Last block: 56 MB, weights 30, kept 17, the rest thin. Head: 30 MB, nearly all weights."}}
steps = {name: backward.step(model, batch) for name, model in ways.items()}
backward_figures.stacked({name: step.memory for name, step in steps.items()})
total = {name: sum(step.memory.values()) for name, step in steps.items()}
assert 0.4 < total["LoRA"] / total["everything"] < 0.6 and total["last block"] < total["LoRA"] / 2
stays = sum(steps["everything"].memory[part] for part in (backward.WEIGHTS, backward.KEPT))
assert 0.6 < stays / total["everything"] < 0.7

# %% [markdown]
# Half. Gradients and Adam's memory are all but gone; the weights have to stay. But why does the forward pass of a frozen model leave so much behind? And why so little where the last block trains, which has *more* trained numbers than LoRA?
#
# ## Two products
#
# Take one linear layer and one input: $h = W x$, with $W$ of shape $(d_{out}, d_{in})$. In the backward pass $g = \partial \mathcal{L} / \partial h$ arrives from above: how the loss $\mathcal{L}$ changes with each output. Since $h_i = \sum_j W_{ij}\, x_j$, a change of $W_{ij}$ reaches $h_i$ alone, times $x_j$. A change of $x_j$ reaches every $h_i$, times $W_{ij}$. So
#
# $$\frac{\partial \mathcal{L}}{\partial W} = g\, x^\top, \qquad \frac{\partial \mathcal{L}}{\partial x} = W^\top g .$$
#
# The first product is for the layer's own weight. It needs $x$, which must be **kept** from the forward pass. The second goes down to the layer before, as *its* $g$. It needs $W$, which is there anyway.

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
# Now with a bias, $h = W x + b$, and for all tokens of several texts. In code, a row is an input.

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
predict("B4.flops")

# %% [markdown]
# ## What a frozen layer still pays
#
# Each of the three products, $W x$, $g\,x^\top$ and $W^\top g$, takes one multiplication and one addition for each weight and token: 2 **FLOPs**. A trained layer pays 6, the rule of thumb for training ([Kaplan et al., 2020](https://arxiv.org/abs/2001.08361)). A frozen one leaves out $g\,x^\top$ and pays 4. PyTorch counted during our steps:

# %%
each = batch["input_ids"].numel() * sum(p.numel() for p in base.model.layers.parameters() if p.ndim == 2)
full = steps["everything"].forward + steps["everything"].backward
plots.table([
    {"trained": name, "forward": step.forward / each, "backward": step.backward / each,
     "share of a full step": (step.forward + step.backward) / full}
    for name, step in steps.items()
], caption="FLOPs for each weight of the blocks and each token")

# %% [markdown]
# (A little more than 2 and 4: attention also multiplies activations with one another.) LoRA pays for two products of three. Its $g$ has only one way down to the lowest $A$ and $B$, through every frozen layer above them.
#
# But if nothing *below* a frozen layer trains, nobody asks for its $W^\top g$ either. The **graph**, autograd's record of what to go back through, begins at the lowest trained parameter. `requires_grad` says whether a tensor is in it:

# %%
for name in ("LoRA", "last block"):
    streams = ways[name](**few, output_hidden_states=True).hidden_states  # before block 0, after it, …, at the end
    print(f"{name:10}", " ".join("in" if stream.requires_grad else "–" for stream in streams))
assert steps["LoRA"].backward > 3 * steps["last block"].backward

# %% [markdown]
# Not even LoRA's graph holds the stream before block 0: the embedding is frozen.
#
# ## What the forward pass leaves behind
#
# Autograd passes each tensor that it keeps to a hook of ours. We count every piece of memory once, and leave out the weights.

# %%
def kept(model):
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    pieces = {}

    def pack(tensor):
        memory = tensor.untyped_storage()
        if memory.data_ptr() not in weights:
            pieces[memory.data_ptr()] = memory  # once, however many layers keep it
        return tensor.detach()
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        model(**batch)
    return sum(memory.nbytes() for memory in pieces.values())

kept_by_lora = kept(lora)
print(f"LoRA: {kept_by_lora / 1e6:.0f} MB, as in the figure: {kept_by_lora == steps['LoRA'].memory[backward.KEPT]}")

# %% [markdown]
# One block of eight (its parts are those of [B1](B1_transformer_block.ipynb)), split by the layer that asked for each tensor first:

# %% mystnb={"image": {"alt": "Two stacked bars of the bytes that block 3 keeps. Everything trained: 17 MB, of which linear layers 4, norms 3, softmax and its products 3, SiLU and gate 6. LoRA: 12 MB; linear layers 1 and norms 2, softmax and its products 3 and SiLU and gate 6 as before."}}
parts = {name: backward.kept_by_part(ways[name], batch, block=3) for name in ("everything", "LoRA")}
backward_figures.stacked(parts, backward_figures.SHADES)
before, after = parts["everything"], parts["LoRA"]
assert after[backward.LINEAR] < before[backward.LINEAR] / 4 and after[backward.GATE] == before[backward.GATE]
assert after[backward.ATTENTION] == before[backward.ATTENTION] and 10e6 < sum(after.values()) < 13e6

# %% [markdown]
# The frozen linear layers no longer keep their $x$ (what remains is for $A$ and $B$), nor the norms what their own factors needed. But all that is *not* linear keeps its own. The slope of SiLU depends on its input. Where two activations are multiplied, gate times up or queries times keys, each is needed for the gradient of the other. Softmax keeps its output, a norm its input.
#
# Against these helps **gradient checkpointing** ([Chen et al., 2016](https://arxiv.org/abs/1604.06174)): keep only what enters each block, and run the block a second time when the backward pass gets there.

# %%
def checkpointed(model, **how):
    for block in model.model.layers:
        block.forward = partial(lambda run, x, **rest: checkpoint(partial(run, **rest), x, **how), block.forward)
    return model

saving = backward.step(checkpointed(copy.deepcopy(lora), use_reentrant=False), batch)
extra = saving.backward - steps["LoRA"].backward
print(f"kept: {saving.memory[backward.KEPT] / 1e6:.0f} MB instead of {kept_by_lora / 1e6:.0f} MB")
print(f"more to compute: {extra / saving.forward:.1f} of a forward pass")
assert saving.memory[backward.KEPT] < kept_by_lora / 8 and 0.6 < extra / saving.forward <= 1

# %% [markdown]
# Memory for time: at most one more forward pass. (Each second run stops before the block's last product, which nobody needs. While it lasts, that block's own 12 MB are there too.)
#
# ## A trap: the gradient that never came
#
# PyTorch has an older form, `use_reentrant=True`, that older code still uses. We train LoRA and the head with it, four steps on four texts.

# %%
broken = backward.train(checkpointed(copy.deepcopy(lora), use_reentrant=True), few)
assert broken.losses[-1] < broken.losses[0] and broken.with_gradient == 1
print(broken)

# %% [markdown]
# The loss falls, because the head learns. No tensor of LoRA has a gradient, and there is no error, only a warning that scrolls by. The embedding is frozen, so what enters the first block is not in the graph. The older form looks at nothing else, and misses the $A$ and $B$ inside. Two mends:

# %%
print(newer := backward.train(checkpointed(copy.deepcopy(lora), use_reentrant=False), few))
older = checkpointed(copy.deepcopy(lora), use_reentrant=True)
older.enable_input_require_grads()  # puts the embedding's output into the graph; its weights stay frozen
print(mended := backward.train(older, few))
assert newer.with_gradient == mended.with_gradient == mended.trained

# %% [markdown]
# Whatever you train: **after the first backward pass, look for trained tensors whose `grad` is None.**
#
# ## What Adam stores
#
# Adam ([Kingma and Ba, 2014](https://arxiv.org/abs/1412.6980)) remembers two numbers for each trained parameter $w$: running averages $m$ of its gradient, here $g$, and $v$ of the gradient's square. In step $t = 1, 2, \dots$
#
# $$m \leftarrow \beta_1 m + (1 - \beta_1)\, g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2)\, g^2,$$
#
# $$\hat m = \frac{m}{1 - \beta_1^t}, \qquad \hat v = \frac{v}{1 - \beta_2^t}, \qquad w \leftarrow w - \eta \left( \frac{\hat m}{\sqrt{\hat v} + \epsilon} + \lambda w \right).$$
#
# Both start at zero and are too small at first; the division mends that. $\eta$ is the learning rate. The decay $\lambda w$ pulls weights towards zero; that it stands here, and not in $g$, is the W of AdamW ([Loshchilov and Hutter, 2017](https://arxiv.org/abs/1711.05101)).
#
# ### Exercise 2 · One step of AdamW (4 minutes)
#
# Take $\beta_1 = 0.9$, $\beta_2 = 0.999$, $\epsilon = 10^{-8}$; `lr` is $\eta$ and `decay` is $\lambda$.

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
# `exp_avg` and `exp_avg_sq` are $m$ and $v$. In bytes for each parameter:
#
# | | weight | gradient | 32-bit copy | $m$ | $v$ | sum | 7 billion |
# |---|--:|--:|--:|--:|--:|--:|--:|
# | trained, mixed precision | 2 | 2 | 4 | 4 | 4 | **16** | 112 GB |
# | trained, all in 32 bits | 4 | 4 | – | 4 | 4 | **16** | 112 GB |
# | trained, all in 16 bits | 2 | 2 | – | 2 | 2 | **8** | 56 GB |
# | frozen, 16 bits | 2 | – | – | – | – | **2** | 14 GB |
#
# *Mixed precision* computes in 16 bits and lets the optimiser change a 32-bit copy, because small steps would be rounded away in 16 (bytes as in [Rajbhandari et al. (2019)](https://arxiv.org/abs/1910.02054)).
#
# Back to the first figure. Freezing a weight saves its gradient, $m$, $v$ and copy. It saves one product of three, and with it the layer's $x$. Nearly all else is saved only *below the lowest parameter that trains*. How much that is in all depends on the batch: with few tokens weights and Adam rule, with many the activations. Try `backward.step(lora, few).memory`.

# %%
quiz("B4")

# %% [markdown]
# ## Take away
#
# - $g\,x^\top$, for the weight, needs the kept $x$; $W^\top g$, for the layer below, needs only $W$. A frozen layer pays the second alone: 4 FLOPs for each weight and token instead of 6.
# - Nothing trainable below: no graph, nothing kept, no backward pass.
# - What is not linear keeps activations, frozen or not. Checkpointing trades them for a second forward pass.
# - AdamW stores two numbers for each *trained* parameter. There PEFT saves nearly all.
#
# ## Sources
#
# - D. P. Kingma, J. Ba: *Adam: A Method for Stochastic Optimization*, 2014, [arXiv:1412.6980](https://arxiv.org/abs/1412.6980).
# - T. Chen et al.: *Training Deep Nets with Sublinear Memory Cost*, 2016, [arXiv:1604.06174](https://arxiv.org/abs/1604.06174).
# - I. Loshchilov, F. Hutter: *Decoupled Weight Decay Regularization*, 2017, [arXiv:1711.05101](https://arxiv.org/abs/1711.05101).
# - S. Rajbhandari et al.: *ZeRO: Memory Optimizations Toward Training Trillion Parameter Models*, 2019, [arXiv:1910.02054](https://arxiv.org/abs/1910.02054).
# - J. Kaplan et al.: *Scaling Laws for Neural Language Models*, 2020, [arXiv:2001.08361](https://arxiv.org/abs/2001.08361).

# %% [markdown] tags=["footer"]
# ---
#
# **Next:** [B5 · Validation, seeds, intervals](B5_validation_seeds_intervals.ipynb), find out whether a difference is one, or luck.
