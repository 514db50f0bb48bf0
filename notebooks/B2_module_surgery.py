# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["header"]
# # B2 · Module surgery
#
# *20 minutes (12 without the exercises), of which your machine computes for less than half a minute. You need PyTorch basics. No GPU, no network.*

# %% [markdown]
# You freeze a model and put a small trainable path beside one of its layers. It runs. It gives the right output. Then you count what trains.

# %%
import copy
import inspect

import torch
from torch import nn

import peftlab
from peftlab import surgery
from peftlab.course.exercise import check, hint, solution, use
from peftlab.course.question import predict, quiz
from peftlab.tasks import models

model, tokenizer = models.load("minilm")
model = model.requires_grad_(False)
ids = tokenizer("a thin wafer-like bread", return_tensors="pt")["input_ids"]


# %%
class Plus(nn.Module):
    """A frozen layer (`base`), and beside it a path, r numbers wide, whose output is added."""
    def __init__(self, base, r=4):
        super().__init__()
        self.base = base
        self.path = [nn.Linear(base.in_features, r, bias=False), nn.Linear(r, base.out_features, bias=False)]
        nn.init.zeros_(self.path[1].weight)  # so that it adds nothing at first

    def forward(self, x):
        return self.base(x) + self.path[1](self.path[0](x))


attention = model.encoder.layer[0].attention.self
attention.query = Plus(attention.query)
print(peftlab.count_parameters(model))

# %%
predict("B2.zero")

# %% [markdown]
# ## A model is a tree
#
# An `nn.Module` keeps three lists of what belongs to it: **modules** inside it, **parameters** (tensors that training may change) and **buffers** (tensors that go along to the GPU, but that no optimiser changes). Whatever walks through a model, be it `parameters()`, `to("cuda")`, `state_dict()` or the optimiser, walks along these lists and sees nothing else.

# %%
print("children:  ", [name for name, _ in attention.named_children()])
print("in Plus:   ", [name for name, _ in attention.query.named_modules()])
print("parameters:", [name for name, _ in attention.query.named_parameters()])
print("buffers:   ", [name for name, _ in model.named_buffers()])

# %% [markdown]
# In `Plus` there is the base, and no path: assigning a module puts it on the list, assigning a plain Python list of modules does not. Use `nn.ModuleList`, `nn.Sequential` or an attribute for each.

# %%
class Plus(nn.Module):
    """A frozen layer (`base`), and beside it a path, r numbers wide, whose output is added."""
    def __init__(self, base, r=4):
        super().__init__()
        self.base = base
        down, up = nn.Linear(base.in_features, r, bias=False), nn.Linear(r, base.out_features, bias=False)
        self.path = nn.Sequential(down, up)
        nn.init.zeros_(self.path[1].weight)

    def forward(self, x):
        return self.base(x) + self.path(x)

query = attention.query.base  # the pretrained layer
attention.query = Plus(query)
print(peftlab.count_parameters(model))

# %% [markdown]
# Now $4 \cdot (384 + 384) = 3{,}072$ numbers train. Note *where* we put the wrapper: we set an attribute of the layer's **parent**, `attention`. The layer itself cannot know who holds it. So whoever replaces a module by its dotted name must find the parent first. `model.get_submodule("layer.0")` finds a module by its name, and `setattr(parent, "dense", new)` sets an attribute whose name is in a string.
#
# ### Exercise 1 · Borrow a place (4 minutes)
#
# Run a model while another module stands at a dotted name such as `"layer.0.dense"`. Then put the old one back, so that nobody notices. (A name may also have no dot. Then the parent is the model itself, and `get_submodule("")` gives just that.)

# %% tags=["exercise"]
def output_with(model, name, new, x):
    """model(x) while the module `new` stands at the place called `name`. Afterwards the model is as it was."""
    return ...


check("B2.output_with", output_with)
# Stuck? Run hint("B2.output_with", 1), 2, 3, then solution("B2.output_with").

# %% [markdown]
# Half of that function, on its own, is all the surgery there is:

# %%
def replace(model, name, new):
    """Put `new` at the place called `name`; return what stood there."""
    parent_name, _, last = name.rpartition(".")
    parent = model.get_submodule(parent_name)
    old = getattr(parent, last)
    setattr(parent, last, new)
    return old

output_with, place = use("B2.output_with", output_with), "encoder.layer.0.attention.self.query"
wrapper = replace(model, place, query)  # the plain layer goes back in, and the wrapper comes out
with torch.no_grad():
    plain = model(ids).last_hidden_state
    wrapped = output_with(model, place, wrapper, ids).last_hidden_state
print("the path still adds nothing:", torch.equal(wrapped, plain))
print("in its place again, the very same object:", model.get_submodule(place) is query)

# %% [markdown]
# The output is bit for bit the same, because the path adds zeros. The layer is the very same object, because we kept it and put it back. Had we added a trained path into its weight and subtracted it again, rounding would remain.
#
# ## What wrapping does to names
#
# A name in a `state_dict` is the way through the tree. A wrapper makes the way longer.

# %%
before = set(model.state_dict())
replace(model, place, Plus(query))
after = set(model.state_dict())
print("gone:", *sorted(before - after), "new:", *sorted(after - before), sep="\n  ")

# %% [markdown]
# So a file saved before no longer fits: `load_state_dict` looks for `query.base.weight`, does not find it, and has no use for the file's `query.weight`. That is one reason why `peft` and `peftlab` do not save the whole tree. They save what was trained, and the base stays in its own file.
#
# ## A trap: run the cell twice
#
# To adapt every linear layer, a loop is enough. But what is a linear layer, the second time round?

# %%
def wrap_all(model):
    places = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for name in places:
        replace(model, name, Plus(model.get_submodule(name)))
    return sum(isinstance(module, Plus) for module in model.modules())


net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
print("wrappers after one run:", wrap_all(net), " after two:", wrap_all(net))

# %% [markdown]
# Three linear layers are inside each wrapper: the base and two of the path. All get wrapped in turn. Libraries check for their own wrappers first. And do make the list of places *before* you replace anything, as `wrap_all` does: a tree that changes while you walk through it gives errors at best.
#
# ## The other way: a hook
#
# A **forward hook** is a function that a module calls with its inputs (`args`) and its output. What the hook returns takes the output's place. No parent, no new names:

# %%
replace(model, place, query)
path = nn.Sequential(nn.Linear(384, 4, bias=False), nn.Linear(4, 384, bias=False))
with torch.no_grad():
    handle = query.register_forward_hook(lambda module, args, output: output + path(args[0]))
    hooked = model(ids).last_hidden_state
    handle.remove()
    print("the hook changes the output:", not torch.equal(hooked, plain))
    print("removed, it leaves no trace:", torch.equal(model(ids).last_hidden_state, plain))
print("the model knows of the path:", any(p is path[0].weight for p in model.parameters()))

# %% [markdown]
# Fine for looking at a model or steering it. But the path belongs to nobody: `to("cuda")`, the optimiser and the file all miss it, as with the plain list. (`peftlab` uses a hook on the model for what is not beside a layer, such as a trained prompt in front of the text.)
#
# ### Exercise 2 · Three patients (5 minutes)
#
# Each patient gets a model with a frozen first layer and a head that trains, and puts a path beside the first layer. The next two cells make and train them. The loss falls for all three, because of the head. But the path never moves. Why? For each one, pick the cause, 1 to 4, from the list in the third cell.

# %%
def patient_a(model):
    replace(model, "0", Plus(model[0]))
    model[0].requires_grad_(False)  # freeze the first layer
    return model, torch.optim.AdamW(model.parameters(), lr=0.1), model[0].path

def patient_b(model):
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
    replace(model, "0", Plus(model[0]))
    return model, optimiser, model[0].path

def patient_c(model):
    adapted = copy.deepcopy(model)
    replace(adapted, "0", Plus(adapted[0]))
    return model, torch.optim.AdamW([*model.parameters(), *adapted.parameters()], lr=0.1), adapted[0].path


# %%
torch.manual_seed(0)
x, y = torch.randn(20, 3), torch.randn(20, 2)
for patient in (patient_a, patient_b, patient_c):
    model_, optimiser, path = patient(
        nn.Sequential(nn.Linear(3, 4).requires_grad_(False), nn.Tanh(), nn.Linear(4, 2)))
    start, losses = copy.deepcopy(path.state_dict()), []
    for _ in range(5):
        losses.append((model_(x) - y).square().mean())
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    moved = any(not torch.equal(value, start[name]) for name, value in path.state_dict().items())
    print(f"{patient.__name__}: loss falls: {(losses[-1] < losses[0]).item()}, path moves: {moved}")

# %% tags=["exercise"]
# 1: the optimiser was made before the path
# 2: the path was frozen after it was put in
# 3: the path is in a plain list
# 4: the path is in a copy, not in the model that trains
why = {"A": ..., "B": ..., "C": ...}

check("B2.why", why)

# %% [markdown]
# The order that works: **freeze, attach, then make the optimiser.** And know what a name stands for. `backup = model` makes no backup, only a second name for one object; `copy.deepcopy(model)` makes another object, and what you do to one the other does not see.
#
# ## What `attach` does
#
# Now you can read the heart of `peftlab.attach`. `Adapted` is its `Plus`, with room for several adapters by name. `_parent` finds the parent, `_modules` holds its children by name, and `state` says which adapters are on.

# %%
from peftlab.methods import LoRA

print(inspect.getsource(surgery.put))
before = {name: value.clone() for name, value in model.state_dict().items()}
peftlab.attach(model, LoRA(r=8, target_modules=["query", "value"]))
print(type(model.get_submodule(place)).__name__, "|", peftlab.count_parameters(model))
peftlab.detach(model)
after = model.state_dict()
assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
print("detached: the same names, the same values, the same object:", model.get_submodule(place) is query)

# %%
quiz("B2")

# %% [markdown]
# ## Take away
#
# - What is not a registered module, parameter or buffer does not exist for the optimiser, the file and the GPU.
# - To replace a module, set an attribute of its parent. Keep the old one, and you can put it back bit for bit.
# - Wrappers change names; hooks do not, but what they add belongs to nobody.
# - Freeze, attach, make the optimiser, count. In this order.

# %% [markdown] tags=["footer"]
# ---
#
# **Next:** [B3 · From outer product to SVD](B3_outer_product_to_svd.ipynb), build a matrix from a few directions, and take one apart.
