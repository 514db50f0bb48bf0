# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["header"]
# # 05x · Learn the mask
#
# *35 minutes (20 without the exercises), of which your machine computes for less than half a minute. Builds on [05 · Selective tuning](05_selective.ipynb), [B4 · What backward computes and what Adam stores](B4_backward_and_adam.ipynb). No GPU, no network.*

# %% [markdown]
# Lesson 05 chose the places first and trained after that. Why not let *training* choose? Because a choice has no gradient: an entry is in the mask or it is not.
#
# There are two ways round. **Lottery tickets** (LT-SFT, Ansell et al., 2021): train everything, look which entries moved, go back, and train only those. **Diff pruning** (Guo et al., 2020): make the choice soft, so that it *has* a gradient, and lets entries be exactly zero all the same. You build both for 40 numbers, where the right answer is known. What do they bring in a real model?

# %%
import inspect
import math

import torch

from peftlab.bench.results import Results
from peftlab.course.exercise import check, hint, solution, use
from peftlab.course.question import predict, quiz
from peftlab.methods.selective.diff_pruning import HardConcreteDelta
from peftlab.show import plots, selective_figures
from peftlab.show.sliders import drag

plots.style()
stored = Results.load("selective")

# %% [markdown]
# ## A model with 40 numbers
#
# The pretrained model is $\theta \in \mathbb{R}^{40}$ and answers $x^\top \theta$. The task differs in **four** places only: its answers are $x^\top (\theta + \delta^*)$ and noise. We have 200 examples.

# %%
def problem(seed):
    torch.manual_seed(seed)
    theta, delta_star = torch.randn(40), torch.zeros(40)
    delta_star[:4] = torch.tensor([2.0, -1.5, 1.0, -0.7])
    X = torch.randn(200, 40)
    return theta, X, X @ (theta + delta_star) + 0.5 * torch.randn(200)


theta, X, y = problem(0)


def loss(delta):
    return (X @ (theta + delta) - y).square().mean()


# %% [markdown]
# ## Lottery tickets: look what moved
#
# LT-SFT's first phase trains all of $\theta$. Its mask is the $k$ entries with the largest $|\theta^{(1)}_j - \theta^{(0)}_j|$, where $\theta^{(0)}$ is the start and $\theta^{(1)}$ the end.

# %%
predict("05x.movement")

# %% tags=["nbval-ignore-output"]
def right_after(seed, batch, stops=(1, 2, 5, 20, 50)):
    """How many of the four are among the four that moved farthest; and the share that moved about as far as any."""
    theta, X, y = problem(seed)
    moved, found = torch.zeros(40, requires_grad=True), {}
    adam = torch.optim.Adam([moved], lr=0.02)
    for t in range(1, max(stops) + 1):
        rows = torch.randperm(200)[:batch]
        adam.zero_grad()
        (X[rows] @ (theta + moved) - y[rows]).square().mean().backward()
        adam.step()
        far = moved.detach().abs()
        found[t] = (far.topk(4).indices < 4).sum().item(), (far > 0.9 * far.max()).float().mean().item()
    return [found[t] for t in stops]


# %% tags=["nbval-ignore-output"]
right = {}
for batch in (8, 200):
    mean = torch.tensor([right_after(seed, batch) for seed in range(20)]).mean(0)
    right[batch] = mean[:, 0]
    for t, (hits, level) in zip((1, 2, 5, 20, 50), mean.tolist(), strict=True):
        print(f"batches of {batch:3}, step {t:2}: {hits:.1f} of the four; {level:4.0%} of all moved nearly as far")

# %%
assert right[8][0] < 1.5 and 1 < right[8][2] < 3.5 and right[8][4] > 3.5
assert right[200][0] < 1.5 and right[200][2] > 3

# %% [markdown]
# **After one step the list is chance**: all 40 have moved by exactly the learning rate. Adam divides each gradient by its own recent size, so a tiny gradient moves an entry as far as a large one. Then, where a gradient shrinks or turns, the steps shrink. With all 200 examples in each step, the order is mostly right after five, by a hair. With batches of eight, noise eats such a margin; it takes some fifty, until entries arrive where they belong and stop.
#
# The second phase goes back to $\theta^{(0)}$ and trains the chosen entries only, as in lesson 05.
#
# ## Diff pruning: a gate with a gradient
#
# Give every entry a change $w_j$ and a **gate** $z_j$ between 0 and 1, and train $\theta + z \odot w$. The gate should be *exactly* 0 for most entries, or nothing is sparse. And it should have a gradient. A sigmoid has a gradient and is never 0.
#
# The **hard concrete** gate (Louizos et al., 2017) has both. It is drawn anew in every step, from a number $\alpha_j$ that is learned and noise $u$, uniform between 0 and 1:
#
# $$s = \sigma\!\left(\log \frac{u}{1 - u} + \alpha\right), \qquad \bar s = s\,(R - L) + L, \qquad z = \min(1, \max(0, \bar s)) .$$
#
# $s$ lies between 0 and 1. It is *stretched* to reach from $L$, below 0, to $R$, above 1. Then it is cut. What falls below 0 becomes exactly 0, what falls above 1 exactly 1, and between them there is a slope. ($\alpha$ is not LoRA's. Guo et al. write $l$ and $r$ for $L$ and $R$; Louizos et al. also divide by a temperature before the sigmoid.)
#
# ### Exercise 1 · The gate (4 minutes)

# %% tags=["exercise"]
def gate(alpha, u, L, R):
    """z, drawn with the noise u (between 0 and 1). alpha, u: tensors of one shape. L < 0 and R > 1: numbers."""
    return ...


check("05x.gate", gate)
# Stuck? Run hint("05x.gate", 1), then hint("05x.gate", 2), then solution("05x.gate").

# %% mystnb={"image": {"alt": "Three histograms of 20,000 drawn gates. For alpha minus three nearly all gates are exactly zero. For alpha zero about half are exactly zero, a sixth exactly one, and the rest lie between. For alpha three most are exactly one and few zero."}} tags=["nbval-ignore-output"]
gate = use("05x.gate", gate)
L, R = -1.5, 1.5
many = 20_000
_ = selective_figures.gates(lambda alpha: gate(torch.full((many,), alpha), torch.rand(many), L, R), (-3.0, 0.0, 3.0))

# %% [markdown]
# Two spikes, at exactly 0 and exactly 1, and a thin bridge for the gradient. $\alpha$ moves the mass from one to the other.
#
# ### Exercise 2 · How often is it open? (10 minutes)
#
# We want few open gates, so we need a price. Their number jumps, but its *expected value* is smooth. For one gate: what is the chance that $z > 0$, as a function of $\alpha$? Pencil first: which $s$ gives $z = 0$? Which $u$ gives that $s$? It comes out in one line.

# %% tags=["exercise"]
def chance_open(alpha, L, R):
    """The chance of z > 0, for each alpha, if u is uniform between 0 and 1."""
    return ...


check("05x.chance_open", chance_open)

# %% tags=["nbval-ignore-output"]
chance_open = use("05x.chance_open", chance_open)
for alpha in (-2.0, 0.0, 2.0):
    drawn = gate(torch.full((100_000,), alpha), torch.rand(100_000), -0.1, 1.3)
    formula = chance_open(torch.tensor(alpha), -0.1, 1.3)
    print(f"α = {alpha:+}: open in {(drawn > 0).float().mean():.3f} of 100,000 draws, by the formula {formula:.3f}")
    assert abs((drawn > 0).float().mean() - formula) < 0.01

# %% [markdown]
# Now train $w$ and $\alpha$ together, with a price $\lambda$ for every gate that is open:
#
# $$\min_{w, \alpha}\; \mathcal{L}(\theta + z \odot w) + \lambda \sum_j P(z_j > 0) .$$
#
# All gates start nearly always open, at $\alpha = 5$. Which price finds the four? Guess, then drag.

# %% tags=["nbval-ignore-output"]
def learned(price, steps=400):
    """Gates and changes after training, at u = 1/2: no noise."""
    torch.manual_seed(1)
    w, alpha = torch.zeros(40, requires_grad=True), torch.full((40,), 5.0, requires_grad=True)
    adam = torch.optim.Adam([{"params": w, "lr": 0.02}, {"params": alpha, "lr": 0.1}])
    for _ in range(steps):
        z = gate(alpha, torch.rand(40).clamp(1e-6, 1 - 1e-6), L, R)
        adam.zero_grad()
        (loss(z * w) + price * chance_open(alpha, L, R).sum()).backward()
        adam.step()
    return gate(alpha, torch.full((40,), 0.5), L, R).detach(), w.detach()


# %% tags=["nbval-ignore-output"]
def says(price, found):
    z, w = found
    opened, right = int((z > 0).sum()), int((z[:4] > 0).sum())
    return f"λ = {price:g}: {opened} gates open, {right} of the four; loss {loss(z * w):.2f}"


drag("λ =", [0.0, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0], learned, start=0.0, describe=says)

# %% tags=["nbval-ignore-output"]
found = {price: learned(price) for price in (0.0, 1e-2, 1e-1, 1.0)}
for price, each in found.items():
    print(says(price, each))
is_open = {price: z > 0 for price, (z, _) in found.items()}
assert is_open[0.0].all() and is_open[0.1].sum() <= 6 and is_open[0.1][:4].all()

# %% [markdown]
# Without a price all gates stay open. With a good one, exactly the four are left. With a high price the smallest true change is not worth it. (The loss is lowest without one, because 40 free numbers also fit the noise.)
#
# The library, for every parameter of a layer:

# %%
print(inspect.getsource(HardConcreteDelta.changed))

# %% [markdown]
# A third phase follows: keep the $k$ largest $|z_j w_j|$, as many as you ordered, and train these with the mask fixed.
#
# ## A trap: a price that Adam does not see
#
# In a real model $\lambda$ counts for millions of gates, so it must be tiny. The gradient of the price on one gate is $\lambda\,\sigma'(\alpha)$. And Adam's step is $\eta\, m / (\sqrt v + \epsilon)$ with $\epsilon = 10^{-8}$, where $m$ and $\sqrt v$ follow the gradient and its size ([bridge B4](B4_backward_and_adam.ipynb)). What if the gradient is smaller than $\epsilon$?

# %%
for price in (1e-9, 1e-7, 1e-5, 1e-3):
    alpha = torch.tensor([5.0], requires_grad=True)
    adam = torch.optim.Adam([alpha], lr=0.1)
    (price * chance_open(alpha, L, R).sum()).backward()
    size = alpha.grad.abs().item()
    adam.step()
    step = 5 - alpha.item()
    print(f"λ = {price:g}: gradient {size:.1e}, first step {step:.4f} (Adam would like 0.1); 5 / step: {5 / step:,.0f}")

# %% [markdown]
# Adam is said not to care about the scale of a loss. That holds down to $\epsilon$. Below it the step shrinks with $\lambda$: a price of $10^{-9}$ moves a gate by a thousandth of a full step, as if the model wanted all its gates open. The last number is about how many steps a gate needs from 5 to 0.
#
# ## In a real model
#
# Back to MiniLM and the bet of lesson 05: 0.5 % of 22.6 million numbers, five seeds, the rate of each last phase searched. LT-SFT and diff pruning train twice, 90 steps to find a mask and 90 for its numbers; so a random mask gets 180 as well.

# %%
predict("05x.real")

# %%
plots.table(selective_figures.rows(stored, {
    "random/0.005": "0.5 %, random", "random_blocks/0.005": "0.5 %, random, in the blocks",
    "full": "everything", "moved/0.005": "0.5 %, LT-SFT, 90 + 90 steps", "diff/0.005": "0.5 %, diff pruning, 90 + 90",
    "long/random/0.005": "0.5 %, random, 180 steps", "long/full": "everything, 180 steps",
}, trained=112_827), caption="Test accuracy, five seeds, 1,200 definitions; 90 steps unless it says more")

# %% [markdown]
# LT-SFT reaches 87.5 % and diff pruning 87.6 %. The random mask of lesson 05, 86.6 %, is behind both with every seed. Did learning pay? With 180 steps a random mask has 87.6 %: **with equal steps we see no difference.** LT-SFT is ahead of it with two seeds of five, and so is diff pruning. (Five seeds could miss a gap of a point.) And 41 % of the random mask is dead. What paid was training longer. Full fine-tuning with 180 steps has 88.4 %, ahead of LT-SFT with every seed, by 0.9 points.
#
# **The places are not the sensitive ones.** Of LT-SFT's, 0.4 % are in the Fisher mask too; of random places that have a gradient, 0.9 % would be. Fisher put 56 % of its choice into the last block, LT-SFT 12 %; next to none of its places are embeddings.
#
# **The gates did not choose.** We tried $\lambda$ from $10^{-9}$ to $10^{-6}$, and took $10^{-6}$. There 99.99 % of all gates were still open (at $u = 1/2$) after the first phase. So the pruning at the end chose, by magnitude. The trap above is one cause: with $\epsilon = 10^{-12}$ the same price leaves 12 % open. A second is likely, and not measured: our training cuts the whole gradient to length 1; the task's is several times longer, and the price shrinks with it. (Put $10^{-6}$ into the trap: there nothing is cut.)
#
# **Would they choose well?** A price of $10^{-5}$ leaves 0.65 % of the gates open, near the size we ordered. Validation accuracy then falls from 88.1 % to 84.4 %; at $10^{-4}$ no gate is open, and it has 82.8 %. (First phase only, one seed, rates not searched.)
#
# ## What it costs
#
# LT-SFT needs a full fine-tuning first. Diff pruning needs more than one: a change and a gate for every number, $2N$, and AdamW keeps two more for each. You get a *small file*, 0.9 MB instead of 90, and a random mask gives you the same for less. One thing remains: sparse changes in different places can be added up. Ansell et al. do so, one for a language and one for a task.
#
# **Use them when** changes are to be combined, or a random mask with as many steps has lost. **Avoid them when** a full fine-tuning does not fit. **Unknown:** whether another task, or more steps, would tell the masks apart.
#
# ## Check yourself

# %%
quiz("05x")

# %% [markdown]
# ## Take away
#
# - LT-SFT: train all, keep the places that moved most, go back, train those. In Adam's first steps movement says little: a tiny gradient moves an entry as far as a large one.
# - A hard concrete gate is exactly 0 or 1 much of the time, and has a gradient between. Its chance to be open is smooth, so it can have a price.
# - Adam does not see a gradient below $\epsilon$. In our runs gates stayed open, and magnitude chose.
# - Learned masks beat a random one that trained half as long, and not one that trained as long. Count all the steps.
#
# ## Sources
#
# - A. Ansell, E. M. Ponti, A. Korhonen, I. Vulić: *Composable Sparse Fine-Tuning for Cross-Lingual Transfer*, 2021, [arXiv:2110.07560](https://arxiv.org/abs/2110.07560).
# - D. Guo, A. M. Rush, Y. Kim: *Parameter-Efficient Transfer Learning with Diff Pruning*, 2020, [arXiv:2012.07463](https://arxiv.org/abs/2012.07463).
# - C. Louizos, M. Welling, D. P. Kingma: *Learning Sparse Neural Networks through L0 Regularization*, 2017, [arXiv:1712.01312](https://arxiv.org/abs/1712.01312).
# - Stored runs: `python -m peftlab.bench selective`, one H100; the JSON in `data/results/` says which versions.

# %% [markdown] tags=["footer"]
# ---
#
# *Back to your lesson.*
