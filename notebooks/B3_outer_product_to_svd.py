# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["header"]
# # B3 · From outer product to SVD
#
# *20 minutes (12 without the exercises), of which your machine computes for less than half a minute. You need matrix products. No GPU, no network.*

# %% [markdown]
# A multiplication table for 9 × 12 holds 108 products. How many numbers must you keep to write it down again?

# %%
import torch

from peftlab.course.exercise import check, hint, solution, use
from peftlab.course.question import predict, quiz
from peftlab.show import bridge_figures, plots
from peftlab.show.sliders import drag
from peftlab.tasks import models

plots.style()
b, a = torch.arange(1.0, 10), torch.arange(1.0, 13)
times_table = torch.outer(b, a)
print(times_table.int())
rank = torch.linalg.matrix_rank(times_table).item()
print("products:", times_table.numel(), " margins:", len(b) + len(a), " rank:", rank)

# %% [markdown]
# The margins are enough: the 9 numbers $b$ down the left edge and the 12 numbers $a$ along the top, 21 in all. The table is their **outer product** $b\,a^\top$: the entry in row $i$ and column $j$ is $b_i a_j$. All its rows are multiples of one row, so it has **rank one**. And every matrix of rank one is such a multiplication table, with margins that need not be 1, 2, 3.
#
# As a layer, $b\,a^\top x = b\,(a^\top x)$: it takes *one* number from the input, $a^\top x$, and writes it along *one* direction, $b$. That is little. So add up several.
#
# ## A sum of tables
#
# Put $r$ columns $b_1, \dots, b_r$ side by side into a matrix $B$, of shape $(d_{out}, r)$, and $r$ rows $a_1^\top, \dots, a_r^\top$ on top of one another into $A$, of shape $(r, d_{in})$. Their product is the sum of $r$ multiplication tables:
#
# $$B A = \sum_{i=1}^{r} b_i\, a_i^\top .$$
#
# ### Exercise 1 · The terms (4 minutes)
#
# Return the $r$ tables of this sum, not added up but stacked into one tensor of shape $(r, d_{out}, d_{in})$, in the order of the sum.

# %% tags=["exercise"]
def rank_one_terms(B, A):
    """The r outer products whose sum is B A, of shape (r, d_out, d_in). Shapes: B (d_out, r), A (r, d_in)."""
    return ...


check("B3.rank_one_terms", rank_one_terms)
# Stuck? Run hint("B3.rank_one_terms", 1), then hint("B3.rank_one_terms", 2), then solution("B3.rank_one_terms").

# %%
rank_one_terms = use("B3.rank_one_terms", rank_one_terms)
g = torch.Generator().manual_seed(0)
B, A = torch.randn(5, 3, generator=g), torch.randn(3, 7, generator=g)
terms = rank_one_terms(B, A)
print("sum of the terms = B A:", torch.allclose(terms.sum(0), B @ A, atol=1e-5))
for count in (1, 2, 3):
    print(f"{count} of {len(A)} terms: rank {torch.linalg.matrix_rank(terms[:count].sum(0))}")

# %% [markdown]
# The **rank** of a matrix is the smallest number of tables that add up to it. For $BA$ it is at most $r$, and with random numbers it is $r$.
#
# ### Exercise 2 · How many numbers? (4 minutes)
#
# A layer has $d_{in} = 384$ and $d_{out} = 1536$. Fill in whole numbers, with pencil and paper. The third is the largest $r$ for which $B$ and $A$ together hold fewer numbers than the whole matrix.

# %% tags=["exercise"]
numbers = {"the whole matrix": ..., "B and A, r = 8": ..., "largest r that is still smaller": ...}

check("B3.numbers", numbers)

# %% [markdown]
# In general, $B$ and $A$ together hold $r\,(d_{in} + d_{out})$ numbers, the matrix $d_{in}\, d_{out}$.
#
# ## Taking a matrix apart
#
# So far we have built. Now someone hands you a matrix and asks for the tables in it. There are many ways to split it. The **singular value decomposition** (SVD) gives one that is sorted, the strongest table first:
#
# $$M = \sum_i s_i\, u_i v_i^\top, \qquad s_1 \ge s_2 \ge \dots \ge 0 .$$
#
# Each $u_i$ is a column of $d_{out}$ numbers, each $v_i$ one of $d_{in}$. The $u_i$ have length one and stand at right angles to one another, and so do the $v_i$. (In the code, $u_i$ is a column of `U`, and $v_i^\top$ a row of `Vh`.) All the size is in the numbers $s_i$, the **singular values**. We hide three tables in a little noise, and look.

# %%
hidden = torch.randn(40, 3, generator=g) @ torch.randn(3, 60, generator=g)
noise = torch.randn(40, 60, generator=g)
M = (hidden + 0.1 * noise).double()
U, S, Vh = torch.linalg.svd(M, full_matrices=False)
print("U", tuple(U.shape), " S", tuple(S.shape), " Vh", tuple(Vh.shape))
print("singular values:", [round(s, 1) for s in S[:6].tolist()], "…")
print("energy: sum of s² equals the sum of squared entries:", torch.allclose(S.square().sum(), M.square().sum()))

# %% [markdown]
# Three large values, then a long tail of small ones: the noise. The matrix has full rank, strictly speaking. Rank counts a direction however weak it is. The **energy** $\sum_i s_i^2$ says how much is in it: it is the sum of squares of all entries, split by direction.
#
# ## Are the first terms really the best?
#
# Eckart and Young proved in 1936 that no matrix of rank $r$ comes closer to $M$, in squared error, than its first $r$ terms. Let us try to beat them on a harder matrix: with random directions, and with gradient descent on $B$ and $A$.

# %%
predict("B3.descent")

# %%
M = (torch.randn(40, 12, generator=g) @ torch.randn(12, 60, generator=g) + noise).double()
U, S, Vh = torch.linalg.svd(M, full_matrices=False)
r = 4
by_svd = U[:, :r] * S[:r] @ Vh[:r]
A = torch.randn(r, 60, generator=g).double()
by_chance = M @ torch.linalg.pinv(A) @ A  # random directions of the input; M @ pinv(A) is the best B for them
B, A = (torch.randn(40, r, generator=g).double().requires_grad_(), A.requires_grad_())
optimiser = torch.optim.Adam([B, A], lr=0.05)
for _ in range(600):
    optimiser.zero_grad()
    (M - B @ A).square().sum().backward()
    optimiser.step()

# %%
missed = {name: ((M - found).square().sum() / M.square().sum()).item()
          for name, found in {"SVD": by_svd, "random": by_chance, "gradient descent": B @ A}.items()}
for name, share in missed.items():
    print(f"{name:17} misses {share:.3f} of the energy")
assert abs(missed["SVD"] - S[r:].square().sum() / S.square().sum()) < 1e-9  # exactly the tail
assert -1e-9 < missed["gradient descent"] - missed["SVD"] < 1e-3 and missed["random"] > 2 * missed["SVD"]

# %% [markdown]
# Descent knows nothing of singular values, and comes out at the same error, to the digits we print. What the SVD misses is exactly the tail, $\sum_{i>r} s_i^2$.
#
# ## A real weight matrix
#
# Now the query matrix of MiniLM's first block, $384 \times 384$.

# %%
predict("B3.energy")

# %% mystnb={"image": {"alt": "Line chart of the share of energy in the top r directions, r from 0 to 384. A product of rank 8 reaches all of it at r = 8. MiniLM's query matrix rises slowly, above random noise all the way, and needs well over a hundred directions for nine tenths."}}
model, _ = models.load("minilm")
W = model.encoder.layer[0].attention.self.query.weight.detach()
gaussian = torch.randn(384, 384, generator=g)
rank_8 = torch.randn(384, 8, generator=g) @ torch.randn(8, 384, generator=g)
bridge_figures.energies({"rank 8": rank_8, "MiniLM, query of block 0": W, "random noise": gaussian})
held = bridge_figures.energy(W)
print(f"top 8 directions: {held[7]:.0%}; for nine tenths of the energy: {int((held < 0.9).sum()) + 1} directions")

# %% [markdown]
# The top 8 of 384 directions hold 17 % of the energy; in noise it would be 8 %. For nine tenths you need 144 directions, and $B$ and $A$ would then hold three quarters of the numbers of $W$. **This weight is not of low rank, not even nearly.** Nor are the other 35 matrices in MiniLM's blocks: the top 8 of each hold less than a quarter. The LoRA paper does not claim otherwise: such matrices, it says, typically have full rank. LoRA leaves $W$ whole and asks for a low rank only of the *change* that training makes to it. Whether that change has one is the story of lesson 06.
#
# Move the slider, and see what each $r$ keeps and costs. (On the website it is asleep.)

# %% tags=["nbval-ignore-output"]
def in_words(r, share):
    return f"{r} of 384 directions: {share:.0%} of the energy, {r * 768:,} numbers (W has {384 * 384:,})"


drag("keep r =", [1, 2, 4, 8, 16, 32, 64, 128, 192, 384], lambda r: held[r - 1].item(), in_words, start=8)

# %% [markdown]
# ## What is not unique
#
# One matrix, many pairs of factors. Take any invertible $C$ of shape $(r, r)$:
#
# $$B A = (B C)(C^{-1} A) .$$
#
# The plainest is $C = -I$, with the identity matrix $I$: turn the sign of every number in $B$ and in $A$, and the product is the same. So two trainings may find the very same change with quite different $B$ and $A$.

# %%
predict("B3.average")

# %%
B, A, C = (torch.randn(*shape, generator=g).double() for shape in ((40, 4), (4, 60), (4, 4)))
B2, A2 = B @ C, torch.linalg.solve(C, A)  # solve(C, A) is C⁻¹ A
print("same product:", torch.allclose(B2 @ A2, B @ A), " same B:", torch.allclose(B2, B))
ours, theirs = (B, A), (-B, -A)
mean_B, mean_A = ((one + other) / 2 for one, other in zip(ours, theirs, strict=True))
print("the mean of the products is the change:", torch.equal((ours[0] @ ours[1] + theirs[0] @ theirs[1]) / 2, B @ A))
print("size of mean B times mean A:", (mean_B @ mean_A).abs().max().item())

# %% [markdown]
# Nothing is left. So compare, average and merge **products**, never the factors of different runs. What *is* unique is the product, and with it its rank, its singular values, and the space of directions that it reads from and writes to.

# %%
quiz("B3")

# %% [markdown]
# ## Take away
#
# - Rank one is a multiplication table. $BA$ is a sum of $r$ of them, kept as $r\,(d_{in} + d_{out})$ numbers.
# - The SVD sorts a matrix into such tables, strongest first. Its first $r$ terms are the best approximation of rank $r$, and miss exactly the tail's energy.
# - MiniLM's pretrained weights are not of low rank. LoRA's claim is about the change.
# - $B$ and $A$ are not unique; their product is.
#
# ## Sources
#
# - C. Eckart, G. Young: *The approximation of one matrix by another of lower rank*, Psychometrika 1, 1936.
# - P. Baldi, K. Hornik: *Neural networks and principal component analysis: Learning from examples without local minima*, Neural Networks 2, 1989.
# - E. Hu et al.: *LoRA: Low-Rank Adaptation of Large Language Models*, 2021, [arXiv:2106.09685](https://arxiv.org/abs/2106.09685).

# %% [markdown] tags=["footer"]
# ---
#
# **Next:** [B4 · What backward computes and what Adam stores](B4_backward_and_adam.ipynb), find out what a frozen layer still costs.
