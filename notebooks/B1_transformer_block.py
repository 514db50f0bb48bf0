# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["header"]
# # B1 · A transformer block and its names
#
# *20 minutes (12 without the exercises), of which your machine computes for less than half a minute. You need PyTorch basics and matrix products. No GPU, no network.*

# %% [markdown]
# You found a line in a tutorial: `LoraConfig(r=8, target_modules=["query", "value"])`. It runs, and `peft` reports a number.

# %%
import copy

import torch
import torch.nn.functional as F

from peftlab.course.exercise import check, hint, solution, use
from peftlab.course.question import predict, quiz
from peftlab.show import bridge_figures, plots
from peftlab.tasks import models

plots.style()

# %%
from peft import LoraConfig, get_peft_model

model, tokenizer = models.load("minilm")
adapted = get_peft_model(copy.deepcopy(model), LoraConfig(r=8, target_modules=["query", "value"]))
adapted.print_trainable_parameters()

# %% [markdown]
# Which weights are `query` and `value`? What do they compute? And why 73,728, not one more? On this page you rebuild one block of a real model from its own weights. Then you can answer all three, for any model that you can print.
#
# ## One block, printed
#
# MiniLM is a small model that makes vectors of sentences. It cuts a text into pieces, the *tokens*, turns each into a vector of $d = 384$ numbers and sends all of them through six **blocks** of the same build. Here is the first:

# %%
block = model.encoder.layer[0]
print(block)

# %% [markdown]
# Every word in round brackets is a part of a **name**. Read from the outside in, they give `encoder.layer.0.attention.self.query`, and its weight is a tensor `encoder.layer.0.attention.self.query.weight`. Two things to know when you read such a printout:
#
# - `Linear(in_features=384, out_features=1536)` computes $x W^\top + b$. Its weight $W$ is stored as $(d_{out}, d_{in})$.
# - What a block *computes* is not in the printout. It lists parts, and says little about the order or what is added to what. (`Dropout` does nothing here: it is for training only.)
#
# ### Exercise 1 · The shapes (3 minutes)
#
# Fill in the shapes of four tensors of this block.

# %% tags=["exercise"]
shapes = {
    "attention.self.key.weight": ...,
    "attention.self.key.bias": ...,
    "intermediate.dense.weight": ...,
    "output.dense.weight": ...,
}
check("B1.shapes", shapes)
# Stuck? Run hint("B1.shapes", 1), then hint("B1.shapes", 2), then solution("B1.shapes").

# %%
predict("B1.most")

# %% [markdown]
# Count by name, and by formula:

# %%
d, d_ff, vocabulary, blocks = 384, 1536, 30_522, 6
size = {name: p.numel() for name, p in model.named_parameters()}
attention = sum(n for name, n in size.items() if ".attention." in name and n == d * d)
feed_forward = sum(n for name, n in size.items() if ".dense." in name and n == d * d_ff)
words = size["embeddings.word_embeddings.weight"]
plots.table([
    {"part": "word embeddings", "formula": "30,522 d", "gives": vocabulary * d, "counted": words},
    {"part": "attention, 4 matrices a block", "formula": "6 · 4 d²", "gives": blocks * 4 * d * d, "counted": attention},
    {"part": "feed-forward, 2 a block", "formula": "6 · 2 d · 1536", "gives": blocks * 2 * d * d_ff,
     "counted": feed_forward},
    {"part": "biases, LayerNorms, positions, pooler", "formula": "the rest", "gives": None,
     "counted": sum(size.values()) - words - attention - feed_forward},
], caption="MiniLM: parameters")

# %% [markdown]
# In the last row, *positions* are vectors that say where in the text a token stands, and the *pooler* is one more linear layer, after the last block.
#
# ## The stream
#
# A sentence of $n$ tokens enters the block as $x$, of shape $(n, 384)$: one row for each token. Picture the rows as a **residual stream** that runs through the whole model. A block never replaces it. It reads a copy, computes something, and *adds* the result. (MiniLM also rescales the sum each time, with a LayerNorm.) Each block does so twice: once with the **attention**, where tokens look at one another, and once with the **feed-forward** network, which works on each token by itself.
#
# We ask the model for its stream before and after the first block. That is what we want to rebuild.

# %%
inputs = tokenizer("a thin wafer-like bread", return_tensors="pt")
with torch.no_grad():
    stream = model(**inputs, output_hidden_states=True).hidden_states
x, wanted = stream[0][0], stream[1][0]  # before and after block 0; the last [0] is the only sentence
tensors = {name: p.detach() for name, p in block.named_parameters()}
print("x:", tuple(x.shape), " tokens:", tokenizer.convert_ids_to_tokens(inputs["input_ids"][0]))


# %% [markdown]
# ## Attention
#
# Three matrices read the stream. For each token, `query` writes down what it looks for, `key` what it can be found by, `value` what it has to give: $q = x W_q^\top + b_q$, and so for $k$ and $v$. The 384 columns are then split into 12 **heads** of $d_h = 32$ columns. Each head compares every query with every key: $q\,k^\top$, of shape $(n, n)$. Softmax turns the scores of one query into weights that add up to one, and these mix the values:
#
# $$\text{head} = \mathrm{softmax}\!\left(\frac{q\,k^\top}{\sqrt{d_h}}\right) v .$$
#
# ### Exercise 2 · One head (5 minutes)
#
# The division by $\sqrt{d_h}$ keeps the scores from growing with the width of the head ([Vaswani et al., 2017](https://arxiv.org/abs/1706.03762)). Write the function. Its `q`, `k` and `v` belong to one head already. The check uses other sizes than MiniLM's.

# %% tags=["exercise"]
def one_head(q, k, v):
    """Attention of one head. Shapes: q (queries, d_h), k (keys, d_h), v (keys, d_v); returns (queries, d_v)."""
    return ...


check("B1.one_head", one_head)

# %% [markdown]
# The heads stand side by side again, `attention.output.dense` mixes them, and the result is added to the stream. LayerNorm then gives each row mean 0 and variance 1, and multiplies and shifts each column by two trained vectors.

# %%
one_head = use("B1.one_head", one_head)

def linear(x, name):
    return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

def layer_norm(x, name):
    rows = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-12).sqrt()
    return rows * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

q, k, v = (linear(x, f"attention.self.{name}") for name in ("query", "key", "value"))
heads = [one_head(q[:, c : c + 32], k[:, c : c + 32], v[:, c : c + 32]) for c in range(0, 384, 32)]
x1 = layer_norm(x + linear(torch.cat(heads, dim=1), "attention.output.dense"), "attention.output.LayerNorm")

# %% [markdown]
# ## Feed-forward
#
# Up to 1536 columns, through the curve GELU, down to 384, and onto the stream:

# %%
hidden = F.gelu(linear(x1, "intermediate.dense"))
x2 = layer_norm(x1 + linear(hidden, "output.dense"), "output.LayerNorm")

assert torch.allclose(x2, wanted, atol=1e-5)
print("our block gives what MiniLM's gives, up to rounding:", tuple(x2.shape))

# %% [markdown]
# That is a whole block: six matrices, two sums. (In a batch, short texts are filled up with padding tokens, and the attention is told to leave them out.)
#
# ## The same under other names
#
# Most language models that you will adapt are of Llama's kind. SmolLM2 is one. Compare:

# %% mystnb={"image": {"alt": "Two diagrams of transformer blocks, side by side, each with a vertical residual stream that two branches read from and add to. MiniLM: query, key and value, each 384 by 384, then attention.output.dense, added to the stream, LayerNorm; then intermediate.dense, 1536 by 384, GELU, output.dense, 384 by 1536, added, LayerNorm. SmolLM2: a norm first, then q_proj, 576 by 576, k_proj and v_proj, 192 by 576, then o_proj, added; a norm, gate_proj and up_proj, 1536 by 576, down_proj, 576 by 1536, added."}}
bridge_figures.two_blocks()

# %%
smollm2, _ = models.load("smollm2", dtype=torch.bfloat16)
layer = smollm2.model.layers[0]
shape = {name: tuple(p.shape) for name, p in layer.named_parameters()}
assert shape["self_attn.q_proj.weight"] == (9 * 64, 576) and shape["self_attn.k_proj.weight"] == (3 * 64, 576)
assert shape["mlp.gate_proj.weight"] == (1536, 576) and not any("bias" in name for name in shape)
print("biases: none; one norm:", type(layer.input_layernorm).__name__)
print("the head is the embedding:", smollm2.lm_head.weight is smollm2.model.embed_tokens.weight)

# %% [markdown]
# Four differences matter later:
#
# - **Grouped-query attention**: nine heads of queries share three heads of keys and values ([Ainslie et al., 2023](https://arxiv.org/abs/2305.13245)). So `k_proj` and `v_proj` are not square, and LoRA costs less there.
# - **A gate**: the feed-forward network has three matrices; `gate_proj`, through the curve SiLU, decides how much of `up_proj` passes.
# - **RMSNorm before each branch** ([Zhang and Sennrich, 2019](https://arxiv.org/abs/1910.07467)): it divides by the size of a row, without taking off the mean. The stream itself is only added to. There are no biases either, so a method that trains biases finds nothing.
# - **A tied embedding**: one matrix turns tokens into vectors and, in the end, vectors into scores for tokens. Counted once, it is 28,311,552 of 134,515,008 parameters. Change one, and you change the other. (This last matrix is the *output head*, `lm_head`. It has nothing to do with the heads of the attention.)
#
# Two more you will not meet in the names: in SmolLM2 a token attends only to itself and to those before it, and positions enter through the queries and keys.
#
# ## A trap: `"dense"`
#
# You want to adapt MiniLM's feed-forward network and read `dense` in the printout.

# %%
predict("B1.dense")

# %%
from peftlab.targeting import resolve_targets

for target_modules in (["dense"], ["output.dense"], r".*\.\d+\.output\.dense", ["intermediate.dense"], "all-linear"):
    found = resolve_targets(model, target_modules)
    kinds = sorted({name.partition("layer.")[2].partition(".")[2] or name for name in found})
    print(f"{target_modules!s:26} {len(found):2} modules: {', '.join(kinds)}")

# %% [markdown]
# An entry of the list matches every module whose name *ends* with it, after a dot. `dense` ends three names in every block, and the pooler's. `output.dense` still ends two: the feed-forward's and the attention's. A string instead of a list is a regular expression for the whole name, and can tell them apart: here `\d+`, the block's number, must stand right before `output.dense`. (`"all-linear"` takes every linear layer but an output head. Look who is among them: the pooler, which sentence vectors made by averaging never use.)
#
# No error, no warning: the wrong matrices train. **Print what your pattern hits before you train.**
#
# ## Back to the question
#
# `query` and `value` decide what each token looks for and what it gives away. They are 384 × 384 in each of six blocks, and LoRA with $r = 8$ trains $8 \cdot (384 + 384)$ numbers beside each:

# %%
by_formula = 6 * 2 * 8 * (384 + 384)
counted = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
assert by_formula == counted
print(f"{by_formula:,}")

# %%
quiz("B1")

# %% [markdown]
# ## Take away
#
# - A block reads a residual stream twice and adds to it twice: attention, then feed-forward.
# - `nn.Linear` prints in → out and stores $(d_{out}, d_{in})$.
# - Names differ between families of models; the parts are nearly the same.
# - A target matches by the end of a name. Print what it hits.
#
# ## Sources
#
# - A. Vaswani et al.: *Attention Is All You Need*, 2017, [arXiv:1706.03762](https://arxiv.org/abs/1706.03762).
# - J. Ainslie et al.: *GQA: Training Generalized Multi-Query Transformer Models from Multi-Head Checkpoints*, 2023, [arXiv:2305.13245](https://arxiv.org/abs/2305.13245).
# - B. Zhang, R. Sennrich: *Root Mean Square Layer Normalization*, 2019, [arXiv:1910.07467](https://arxiv.org/abs/1910.07467).
# - N. Elhage et al.: *A Mathematical Framework for Transformer Circuits*, 2021: the stream as the place where all parts read and write.

# %% [markdown] tags=["footer"]
# ---
#
# **Next:** [B2 · Module surgery](B2_module_surgery.ipynb), put a layer of your own inside a model that you did not write.
