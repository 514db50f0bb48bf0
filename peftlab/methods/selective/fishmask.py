r"""FISH Mask (Sung et al., 2021, arXiv:2111.09839): train the entries of largest Fisher information.

$$\hat F_j = \frac{1}{N} \sum_{i=1}^{N} \left( \frac{\partial \log p_\theta(y_i \mid x_i)}{\partial \theta_j} \right)^2,
\qquad \theta' = \theta + m \odot \delta, \quad m_j = 1 \text{ for the } k \text{ largest } \hat F_j$$

$\hat F \in \mathbb{R}^{|\theta|}$ is the diagonal of the empirical Fisher information: large where a small change of an
entry changes much of what the model says about the examples. The mask is chosen once, over all parameters together,
before training, and stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from peftlab.errors import ConfigError, PeftLabError
from peftlab.methods.base import Card, method
from peftlab.methods.selective.sparse import SparseMethod, candidates

Batch = Mapping[str, Any] | Tensor


def empirical_fisher(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
) -> dict[str, Tensor]:
    """The diagonal of the empirical Fisher information, by full name of parameter: a mean over examples, in float32.

    batches: arguments of calls, by name. Each is cut into single rows, because the square of a mean gradient over a
    batch is not the mean of squares. loss(model, row) gives -log p(y | x) of one row; by default it is the model's own
    loss, which for language models is a mean over tokens. The model is in eval mode meanwhile, and comes back as it
    was.

    Raises PeftLabError for a model with adapters on it, and ConfigError if there are no examples.
    """
    if hasattr(model, "peftlab"):
        raise PeftLabError("the Fisher information is that of the plain model; detach its adapters first")
    parameters, modes = candidates(model), {module: module.training for module in model.modules()}
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    total, n = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}, 0
    try:
        model.eval().requires_grad_(False)
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        for row in _rows(batches):
            log_p = -(model(**row).loss if loss is None else loss(model, row))
            gradients = torch.autograd.grad(log_p, list(parameters.values()), allow_unused=True)
            for F_j, gradient in zip(total.values(), gradients, strict=True):
                F_j += 0 if gradient is None else gradient.float().square()
            n += 1
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(flags[name])
        for module, mode in modes.items():
            module.training = mode
    if not n:
        raise ConfigError("empirical_fisher was given no examples")
    return {name: F_j / n for name, F_j in total.items()}


def _rows(batches: Iterable[Batch]) -> Iterator[Any]:
    """Every single row of every batch, as a batch of one."""
    for batch in batches:
        if isinstance(batch, Tensor):
            yield from batch.split(1)
            continue
        sizes = {value.shape[0] for value in batch.values() if isinstance(value, Tensor) and value.ndim}
        if len(sizes) != 1:
            raise ConfigError(f"the tensors of a batch have {sorted(sizes)} rows; give them one number of rows")
        for i in range(sizes.pop()):
            yield {k: v[i : i + 1] if isinstance(v, Tensor) and v.ndim else v for k, v in batch.items()}


@method
class FishMask(SparseMethod):
    """A fixed sparse mask: FishMask(keep_ratio=0.005, scores=empirical_fisher(model, batches))."""

    peftlab_type = "FISH_MASK"
    wanted = "scores=empirical_fisher(model, batches)"
    card = Card(
        title="Training Neural Networks with Fixed Sparse Masks",
        year=2021,
        arxiv="2111.09839",
        equation="the empirical Fisher information, and the k largest of its diagonal",
        family="selective",
        reference="the definition; on linear layers peft.ShiraConfig with the same mask",
        formula="θ' = θ + m ⊙ δ, m the k entries of largest Fisher information",
        shapes="values (k_i) and flat places (k_i) for each parameter i that has chosen entries; the k_i sum to k",
        parameters="k = keep_ratio · N, over all parameters together",
        mergeable=True,
        inference_cost="none once merged; unmerged a copy of every chosen parameter in every pass",
        traps=(
            "Sparse is not fast: a step computes the gradient of whole matrices and picks k entries out of it. What it "
            "saves is optimiser states and the file.",
            "The file is twice the trained numbers: each comes with its place, in int32.",
            "Squares of a batch's mean gradient are not the Fisher information; take gradients one example at a time.",
            "The scores belong to a model with its head: with a new, random head they say what that head is "
            "sensitive to.",
            "The entries of largest magnitude in a whole model are its norms' weights, which lie near one: "
            "scores='magnitude' finds these before any matrix.",
            "Tied embeddings are never chosen here: a change of one side would part them.",
            "Choosing costs a backward pass for each example, and as much memory as the model.",
        ),
        use_when="a file of one task must be tiny, and the change may be anywhere in the model",
        avoid_when="training time or activation memory is what is short, or the base is quantised",
        unknown="how much better such a mask is than a random one of equal size",
        levels={"P5": "peft has no such file; SHiRA's holds one layer's r (d_in + d_out) entries, no global choice"},
    )
