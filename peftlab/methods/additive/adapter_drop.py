r"""AdapterDrop (Rücklé et al., 2020, arXiv:2010.11918): leave the adapters of the first n blocks out.

$$\mathrm{block}_l' = \begin{cases} \mathrm{block}_l & l < n \\ \mathrm{block}_l \text{ with its adapters} & l \ge n
\end{cases}$$

Blocks without adapters need no backward pass, and at inference their output is the same for every task. Two ways:

    specialised   n is fixed before training: Houlsby(leave_out=[0, 1, 2])
    robust        train with another n in every step, and choose n when the adapter runs: drop_adapters(model, n)
"""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from peftlab import hosts, surgery
from peftlab.errors import PeftLabError
from peftlab.methods.base import Card
from peftlab.runtime import Runtime


def drop_adapters(model: nn.Module, blocks: int | Collection[int], name: str | None = None) -> list[str]:
    """Pass the adapters of the first `blocks` blocks by (or of these blocks, given by number), until the next call.

    The tensors stay where they are: a later call, `drop_adapters(model, 0)`, brings all adapters back. Merging leaves
    dropped adapters out; `save` writes them. name: of one adapter; all of them if None. Works with every method that
    has sites inside the blocks. Returns the names of the sites that are now passed by.

    Raises PeftLabError if nothing is attached, the adapters are folded, or the blocks are not there.
    """
    runtime = getattr(model, "peftlab", None)
    if not isinstance(runtime, Runtime):
        raise PeftLabError("nothing is attached to this model, nothing to drop; call peftlab.attach first")
    if name is not None and name not in runtime.methods:
        raise PeftLabError(f"no adapter is called {name!r}; attached are: {', '.join(runtime.methods)}")
    names = list(runtime.methods) if name is None else [name]
    here = {
        site: [wrapper.adapters[n] for n in names if n in wrapper.adapters]
        for site, wrapper in surgery.adapted_modules(model).items()
        if hosts.block_number(site) is not None
    }
    if any(wrapper.folded is not None for wrapper in surgery.adapted_modules(model).values()):
        raise PeftLabError("the adapters are folded into the layers at the moment; leave peftlab.folded, then drop")
    present = {hosts.block_number(site) for site, adapters in here.items() if adapters}
    wanted = _numbers(blocks)
    if missing := sorted(wanted - set(range(max(present, default=-1) + 1))):
        raise PeftLabError(f"there is no adapter in block {missing[0]}; blocks with adapters: {sorted(present)}")
    for site, adapters in here.items():
        for adapter in adapters:
            adapter.dropped = hosts.block_number(site) in wanted
    return [site for site, adapters in here.items() if adapters and hosts.block_number(site) in wanted]


def _numbers(blocks: int | Collection[int]) -> set[int]:
    if type(blocks) is int and blocks >= 0:
        return set(range(blocks))
    numbers = isinstance(blocks, Collection) and not isinstance(blocks, str)
    if not numbers or not all(type(n) is int and n >= 0 for n in blocks):
        raise PeftLabError(f"blocks={blocks!r}: give how many of the first blocks to drop, or a list of block numbers")
    return set(blocks)


CARD = Card(
    title="AdapterDrop: On the Efficiency of Adapters in Transformers",
    year=2020,
    arxiv="2010.11918",
    equation="section 3",
    family="additive",
    reference="adapters' leave_out (1.3.0), through golden tensors; dropping later equals it block by block",
    formula="the first n blocks as pretrained, the others with their adapters",
    shapes="none of its own",
    parameters="those of the method, for the blocks that are left",
    mergeable=False,
    inference_cost="that of the method, for the blocks that are left; the first n are computed once for all tasks",
    traps=("Dropping blocks of an adapter that was trained with all of them costs accuracy: train with a changing n.",),
    use_when="several tasks run on one text, or training must be cheaper",
    avoid_when="one task, and accuracy above all",
    unknown="which blocks a given task can spare, before it is tried",
    levels={
        "P4": "what is left can be merged exactly if the method can",
        "P5": "files hold all adapters; how many blocks are dropped is chosen when they run",
    },
)
