# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["header"]
# # 04x · A prefix is a gated parallel adapter
#
# *25 minutes (15 without the exercises), of which your machine computes for less than half a minute. Builds on [04 · Soft prompts](04_soft_prompts.ipynb). No GPU, no network.*

# %% [markdown]
# A prefix puts keys and values in front of a text. An adapter is a small network beside a layer: down to a few numbers, a nonlinearity, up again. One takes part in attention, the other adds to an output. They look like two ideas.
#
# He et al. (2021, section 3.1) show in a few lines that they are nearly one: **a prefix is a small network beside attention, with a gate.** Here you do the lines, check them inside a real model, and look at the gate. Then you find out where the likeness ends.

# %%
import torch

import peftlab
from peftlab.course import gates
from peftlab.course.exercise import check, hint, solution, use
from peftlab.course.question import predict, quiz
from peftlab.course.typed_prompt import attach_text
from peftlab.methods import PrefixTuning
from peftlab.show import plots, prompt_figures
from peftlab.tasks import datasets, models

plots.style()
model, tokenizer = models.load("smollm2")
peftlab.load(model, datasets.data_folder() / "adapters" / "define_prefix", name="trained")  # 20 virtual tokens
ids = tokenizer("Word: river\nDefinition: a large natural stream of water", return_tensors="pt")["input_ids"][0]
found = gates.heads(model, ids, layer=12, name="trained")
print("x", tuple(found.x.shape), " q", tuple(found.q.shape), " K", tuple(found.K.shape), " P_K", tuple(found.P_K.shape))

# %% [markdown]
# `gates.heads` ran the model and kept what layer 12 computed: $T = 12$ tokens, $H = 9$ query heads of width $d_h = 64$, $n = 20$ virtual tokens. (SmolLM2's heads share keys and values three by three. Here each head has its copy.)
#
# ## Split the softmax
#
# Take one head and one query $q \in \mathbb{R}^{d_h}$. Attention is a weighted mean of values, and a key $k$ has the weight $e^{s(k)}$ with the score $s(k) = q k^\top / \sqrt{d_h}$:
#
# $$\mathrm{head} = \frac{\sum_{j \le n} e^{s(P_{K,j})}\, P_{V,j} + \sum_i e^{s(K_i)}\, V_i}{\sum_{j \le n} e^{s(P_{K,j})} + \sum_i e^{s(K_i)}} .$$
#
# Here $P_{K,j}$ are the prefix's keys and $K_i$ those of the text that the token may see. Two sums above, two below. Let $\lambda$ be the prefix's share of what stands below:
#
# $$\lambda(x) = \frac{\sum_j e^{s(P_{K,j})}}{\sum_j e^{s(P_{K,j})} + \sum_i e^{s(K_i)}} .$$
#
# ### Exercise 1 · The prefix's share (4 minutes)
#
# Given the scores with the prefix's keys and those with the text's own, return $\lambda$ for every query. Keys that a token may not see have the score $-\infty$.

# %% tags=["exercise"]
def share(S_P, S):
    """λ, of shape (..., T), from scores with the prefix (..., T, n) and with the text's own keys (..., T, T)."""
    return ...


check("04x.share", share)
# Stuck? Run hint("04x.share", 1), then hint("04x.share", 2), then solution("04x.share").

# %% [markdown]
# Divide each sum above by its own sum below, and two ordinary attentions appear:
#
# $$\mathrm{head} = (1 - \lambda)\,\mathrm{Attn}(q, K, V) + \lambda\,\mathrm{Attn}(q, P_K, P_V) .$$
#
# No approximation was made. The left part is what the model would do *without* a prefix. Compare with what the model really gave:

# %%
share = use("04x.share", share)
S_P, S = found.scores()
gate = share(S_P, S)[..., None]  # (H, T, 1)
without = S.softmax(-1) @ found.V
prefix_part = S_P.softmax(-1) @ found.P_V
split = (1 - gate) * without + gate * prefix_part
print("split = the model's attention:       ", torch.allclose(split, found.out, atol=1e-4))
print("without the prefix it is another one:", not torch.allclose(without, found.out, atol=1e-1))

# %% [markdown]
# ## Look at the gate
#
# $\lambda$ was never trained. It comes out of the query and all the keys, so every token and every head has its own. Left to right, four layers of the trained prefix:

# %% mystnb={"image": {"alt": "Four heat maps, layers 0, 6, 12 and 24, with nine heads as rows and twelve positions as columns; bright is a large share for the prefix. In layers 0, 6 and 12 most heads are brightest at the first positions and darker to the right, with single dark cells in between. In layer 24 nearly all heads stay bright throughout."}} tags=["nbval-ignore-output"]
shown = (0, 6, 12, 24)


def gate_of(layer, name):
    return share(*gates.heads(model, ids, layer, name).scores())


_ = prompt_figures.gates(torch.stack([gate_of(layer, "trained") for layer in shown]), shown)

# %% [markdown]
# The first token has no other key but itself, so in most heads of the later layers the prefix takes nearly all of it. Further right, the text's own keys compete, and the prefix's share tends to fall. It differs from head to head and from word to word. The longer the text, the smaller the prefix's share tends to be. An adapter's strength does not depend on length.

# %%
predict("04x.share")

# %% [markdown]
# Now the mean over all 30 layers, beside lesson 04's *typed* prompt of 67 tokens and a prefix of 20 tokens at random, which ruins the model. How much of it goes to the first virtual token alone? And how large is what the prefix brings, beside what the text brings (the lengths of the two vectors that add up to a head's output)?

# %% tags=["nbval-ignore-output"]
words = datasets.load("define_word").definitions("train")
examples = "".join(f"{p}{c}\n\n" for p, c in zip(words.prompts[:4], words.completions[:4], strict=True))
attach_text(model, tokenizer, examples, "typed")
torch.manual_seed(0)
peftlab.attach(model, PrefixTuning(num_virtual_tokens=20), name="random")
seen = {}
for name in ("trained", "typed", "random"):
    peftlab.use(model, name)
    layers = [gates.heads(model, ids, layer, name) for layer in range(30)]
    lam = torch.stack([share(*layer.scores()) for layer in layers])  # (30, H, T)
    seen[name] = {"λ": lam.mean().item(), **gates.sizes(layers)}
plots.table([{"prefix": name, **values} for name, values in seen.items()],
            caption="Means over 30 layers, 9 heads, 12 tokens")

# %%
for name in ("trained", "typed"):
    assert seen[name]["λ"] > 0.5 and seen[name]["to the first one alone"] > 0.25 * seen[name]["λ"]
    assert seen["random"]["prefix's part"] > 1.5 * seen[name]["prefix's part"]
assert 0.7 < seen["random"]["λ"] < 0.9 and seen["random"]["to the first one alone"] < 0.1

# %% [markdown]
# Both good prefixes take more than half of all attention here, and a large part of that goes to *one* token, the first. Language models park attention on the first token of a text whatever it is (an **attention sink**, Xiao et al., 2023), and with a prefix in front, the first token is a virtual one. So a large $\lambda$ shows where attention goes, not what the prefix does. Look at the random one: its $\lambda$ is not much larger, and the model is ruined. But it has no quiet place to park attention. All of its share brings random values, and its part is about twice as large.
#
# ## The adapter inside
#
# Look at the right part alone. With $q = x W_q^\top$ for the layer's input $x \in \mathbb{R}^{d}$ (a row),
#
# $$\mathrm{Attn}(q, P_K, P_V) = \mathrm{softmax}\!\left(\frac{x W_q^\top P_K^\top}{\sqrt{d_h}}\right) P_V = f(x W_1)\, W_2 .$$
#
# Down to $n$ numbers, a nonlinearity $f$, up again: a bottleneck of width $n$. (Lesson 03 calls the two matrices $W_{down}^\top$ and $W_{up}^\top$.)
#
# ### Exercise 2 · Its two matrices (6 minutes)
#
# Write $W_1$ and $W_2$ for one head, with $f = \mathrm{softmax}$.

# %% tags=["exercise"]
def as_adapter(W_q, P_K, P_V):
    """(W₁, W₂) with softmax(x W₁) W₂ = Attn(q, P_K, P_V). W_q (d_h, d) as in nn.Linear, P_K and P_V (n, d_h)."""
    return ...


check("04x.as_adapter", as_adapter)

# %% [markdown]
# One thing stands between this and our model: it turns each query to its position, $q = x W_q^\top R_t$, where $R_t$ is a rotation by an angle that grows with the position $t$. Since $q P_K^\top = x W_q^\top (P_K R_t^\top)^\top$, we may turn the keys *back* instead: the same `cos`, and `sin` with a minus. So for each position there *is* such a $W_1$. Check it for one head at two positions:

# %%
from transformers.models.llama.modeling_llama import rotate_half

as_adapter = use("04x.as_adapter", as_adapter)
head = 4
W_q = model.model.layers[12].self_attn.q_proj.weight.detach()[head * 64 : (head + 1) * 64]
for t in (3, 11):
    turned_back = found.P_K[head] * found.cos[t] - rotate_half(found.P_K[head]) * found.sin[t]
    W_1, W_2 = as_adapter(W_q, turned_back, found.P_V[head])
    bottleneck = (found.x[t] @ W_1).softmax(-1) @ W_2
    print(f"token {t}: W₁ {tuple(W_1.shape)}, W₂ {tuple(W_2.shape)},",
          "softmax(x W₁) W₂ = the prefix's part:", torch.allclose(bottleneck, prefix_part[head, t], atol=1e-4))

# %% [markdown]
# ## Where the likeness ends
#
# | | parallel adapter | prefix |
# |---|---|---|
# | adds | $h + s\, f(x W_1)\, W_2$ | $(1 - \lambda)\, h + \lambda\, f(x W_1)\, W_2$ |
# | strength | $s$, a constant that you choose | $\lambda(x)$, never 0, tends to fall as the text grows |
# | what was there | stays | is scaled down by $1 - \lambda$ |
# | $f$ | each unit for itself, such as ReLU | softmax: the $n$ units share a sum of 1 |
# | $W_1$ | the same at every position | turned with the position |
# | acts on | the layer's whole output, width $d$ | each head apart; here three heads share $P_K$ and $P_V$ |
# | width | $m$ | $n$ |
#
# The gate has a part in two things of lesson 04. A random prefix is no small disturbance: it scales down by $1 - \lambda$ what the model would have computed, and puts its own values there. And a prefix of zeros is not *nothing*: every key of zeros has the weight $e^0 = 1$, takes its share, and gives nothing back. In the stored sweep, before any training, the loss is 4.94 with no prefix, 6.17 with a prefix of 20 zeros, and 15.46 with a random one.
#
# Fix the gate, use ReLU, let it act on the whole output, and you have the parallel adapter. Not that each of these is a gain: with few parameters, He et al. find the gate slightly useful and separate heads clearly so. With more, a change beside the feed-forward part did better than one in attention (sections 4.4 and 4.5).

# %%
quiz("04x")

# %% [markdown]
# ## Take away
#
# - Attention with a prefix is exactly $(1 - \lambda)$ of the old attention and $\lambda$ of a small network beside it.
# - That network has width $n$, softmax as its nonlinearity, and $W_1$ made of the model's own $W_q$.
# - $\lambda$ is not trained and not additive: it takes away what it gives, and tends to fall as the text grows.
# - Much of $\lambda$ goes to the first virtual token, as it would go to the first token of any text. A share of attention is not a contribution.
#
# ## Sources
#
# - J. He, C. Zhou, X. Ma, T. Berg-Kirkpatrick, G. Neubig: *Towards a Unified View of Parameter-Efficient Transfer Learning*, 2021, [arXiv:2110.04366](https://arxiv.org/abs/2110.04366).
# - G. Xiao, Y. Tian, B. Chen, S. Han, M. Lewis: *Efficient Streaming Language Models with Attention Sinks*, 2023, [arXiv:2309.17453](https://arxiv.org/abs/2309.17453).
# - R. Zhang et al.: *LLaMA-Adapter*, 2023, [arXiv:2303.16199](https://arxiv.org/abs/2303.16199).

# %% [markdown] tags=["footer"]
# ---
#
# **Next:** [05x · Learn the mask](05x_learned_masks.ipynb), give a mask a gradient, and find four numbers among forty.
