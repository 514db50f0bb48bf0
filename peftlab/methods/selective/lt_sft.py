r"""LT-SFT: Lottery Ticket Sparse Fine-Tuning (Ansell et al., 2021, arXiv:2110.07560).

$$m_j = 1 \text{ for the } k \text{ largest } \bigl| \theta^{(1)}_j - \theta^{(0)}_j \bigr|, \qquad
\theta' = \theta^{(0)} + m \odot \delta$$

First all of $\theta$ is fine-tuned, to $\theta^{(1)}$. The k entries that moved most are the mask. Then the model goes
back to $\theta^{(0)}$, and only they are trained. Two such changes (a language's and a task's) can be added.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from peftlab.methods.base import Card, method
from peftlab.methods.selective.sparse import SparseMethod


@method
class LTSFT(SparseMethod):
    """The second phase of LT-SFT. scores: how far a full fine-tuning moved each entry, with or without sign.

    The first phase needs no second copy of the model by hand:
    attach PartialTuning(target_modules=".*"), train, scores = sparse.changes(model), detach.
    """

    peftlab_type = "LT_SFT"
    wanted = "scores=sparse.changes(model), after a full fine-tuning"
    card = Card(
        title="Composable Sparse Fine-Tuning for Cross-Lingual Transfer",
        year=2021,
        arxiv="2110.07560",
        equation="the method's two phases",
        family="selective",
        reference="the definition",
        formula="θ' = θ + m ⊙ δ, m the k entries that full fine-tuning moved most",
        shapes="values (k_i) and flat places (k_i) for each parameter i that has chosen entries; the k_i sum to k",
        parameters="k = keep_ratio · N; all N in the first phase",
        mergeable=True,
        inference_cost="none once merged; unmerged a copy of every chosen parameter in every pass",
        traps=(
            "It is dear to train: a full fine-tuning first, with all its memory, and then a sparse one on top.",
            "Sparse is not fast: also in the second phase a step computes the gradient of whole matrices.",
            "The second phase starts from the pretrained model again, δ = 0, not from what the first one found.",
            "Under Adam an entry with a tiny, steady gradient moves as far as any other: movement is not importance.",
        ),
        use_when="changes are to be added up (a language's and a task's), each in a file of its own",
        avoid_when="a full fine-tuning does not fit into memory: then there are no scores",
        unknown="whether the tickets matter beyond their number; the paper finds sparsity itself to be what helps",
        levels={"P5": "peft has no LT-SFT, so its files open here only"},
    )

    def ranked(self, model: nn.Module, pool: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        return {name: scores.abs() for name, scores in super().ranked(model, pool).items()}
