r"""Multitask prompt tuning (Wang et al., 2023, arXiv:2303.02861): prompt decomposition.

$$[P_k; X] \quad\text{with}\quad P_k = P \odot (u_k v_k^\top)$$

All tasks share the prompt $P$. Task $k$ multiplies it, number by number, with a matrix of low rank $r$ (in the paper
$r = 1$), so it adds only $r (n + d)$ numbers of its own.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from peftlab import hosts
from peftlab.errors import ConfigError, PeftLabError
from peftlab.methods.additive.prompt_tuning import Prompt, PromptTuning
from peftlab.methods.base import Card, Method, method, require_positive
from peftlab.runtime import Uncopied
from peftlab.surgery import Site

FROM_FILE = ("AVERAGE_SOURCE_TASKS", "EXACT_SOURCE_TASK", "ONLY_SOURCE_SHARED")


class MultitaskPrompt(Prompt):
    """P (n, d), and for each of the tasks u_k (n, r) and v_kᵀ (r, d)."""

    takes_task_ids = True

    def __init__(self, P: Tensor, tasks: int, r: int, model: nn.Module) -> None:
        super().__init__(P, model)
        n, d = P.shape
        self.prefix_task_cols = nn.Parameter(0.02 * torch.randn(tasks, n, r))
        self.prefix_task_rows = nn.Parameter(0.02 * torch.randn(tasks, r, d))
        self.now = Uncopied()  # the task_ids of this call

    def vectors(self, batch: int) -> Tensor:
        k = self.checked(self.now.value, batch)
        u, v_T = self.prefix_task_cols[k], self.prefix_task_rows[k]  # (batch, n, r), (batch, r, d)
        return self.prompt_embeddings * (u @ v_T)  # P ⊙ (u_k v_kᵀ)

    def on_inputs(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        self.now.value = kwargs["task_ids"]
        return super().on_inputs({name: value for name, value in kwargs.items() if name != "task_ids"})

    def checked(self, k: Tensor | None, batch: int) -> Tensor:
        """task_ids as whole numbers, one for each row. With a single task there is nothing to choose."""
        tasks = len(self.prefix_task_cols)
        if k is None and tasks == 1:
            k = torch.zeros(batch, dtype=torch.long)
        if k is None:
            raise PeftLabError(f"say which of the {tasks} tasks each row belongs to: call the model with task_ids=...")
        k = torch.as_tensor(k, device=self.prefix_task_cols.device)
        if k.shape != (batch,) or k.is_floating_point() or k.dtype == torch.bool:
            raise PeftLabError(
                f"task_ids must be {batch} whole numbers, one for each row, not {k.dtype} of shape {tuple(k.shape)}"
            )
        if not all(0 <= each < tasks for each in k.tolist()):
            raise PeftLabError(f"task_ids={k.tolist()}: this adapter has the tasks 0 to {tasks - 1}")
        return k.long()

    def file_names(self) -> dict[str, str]:
        return {name: name for name in self.state_dict()}


@method
class MultitaskPromptTuning(PromptTuning):
    """Multitask prompt tuning. `peft.MultitaskPromptTuningConfig`'s fields, defaults and semantics."""

    prompt_tuning_init_state_dict_path: str | None = None  # a .safetensors file, for starts from a source adapter
    prompt_tuning_init_task: int = 0
    num_ranks: int = 1
    num_tasks: int = 1

    peft_type = "MULTITASK_PROMPT_TUNING"
    STARTS: ClassVar[tuple[str, ...]] = ("RANDOM", "SAMPLE_VOCAB", "TEXT", *FROM_FILE)
    card = Card(
        title="Multitask Prompt Tuning Enables Parameter-Efficient Transfer Learning",
        year=2023,
        arxiv="2303.02861",
        equation="prompt decomposition",
        family="additive",
        reference="peft.MultitaskPromptTuningConfig",
        formula="[P_k; X],  P_k = P ⊙ (u_k v_kᵀ)",
        shapes="P (n, d), u_k (n, r), v_kᵀ (r, d) for each task k",
        parameters="n d + tasks r (n + d)",
        mergeable=False,
        inference_cost="n more positions in every layer, and n fewer of the context left; rows may differ in task",
        traps=(
            "Both factors start near 0.02 · N(0, 1), as in peft, so with r = 1 the first prompt is about 2,500 times "
            "smaller than P: it starts as n nearly empty vectors, even from a text.",
            "The paper also distils source prompts into P before it adapts; peft, and so this method, does not.",
            "A start from a source adapter makes exactly one task (except ONLY_SOURCE_SHARED).",
        ),
        use_when="several related tasks are trained together, or a new one is to start from them",
        avoid_when="the tasks have nothing in common, or there is one task only",
        unknown="which tasks help each other",
        levels={"P4": "a prompt is an input, there is no weight to merge it into"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_ranks", "num_tasks")
        start, path = self.prompt_tuning_init, self.prompt_tuning_init_state_dict_path
        task = self.prompt_tuning_init_task
        if start not in FROM_FILE:
            return
        if not path or not str(path).endswith(".safetensors"):
            raise ConfigError(
                f"prompt_tuning_init={start!r} needs prompt_tuning_init_state_dict_path, the .safetensors file of an "
                f"adapter, not {path!r} (other files can run code when opened: save that adapter again with peft)"
            )
        if start != "ONLY_SOURCE_SHARED" and self.num_tasks != 1:
            raise ConfigError(f"prompt_tuning_init={start!r} makes one task out of others; num_tasks must be 1")
        if not isinstance(task, int) or isinstance(task, bool) or task < 0:
            raise ConfigError(f"prompt_tuning_init_task={task!r}: give the number of a source task, from 0 on")

    def for_loading(self) -> Method:
        """The start does not matter, and what it came from may be gone."""
        return dataclasses.replace(self, prompt_tuning_init="RANDOM")

    def shared(self, model: nn.Module, sites: list[Site]) -> MultitaskPrompt:
        P = self.first_prompt(hosts.word_embeddings(model))
        prompt = MultitaskPrompt(P, self.num_tasks, self.num_ranks, model)
        if self.prompt_tuning_init in FROM_FILE:
            self.start_from_file(prompt)
        return prompt

    def start_from_file(self, prompt: MultitaskPrompt) -> None:
        """P of a source adapter; and of its tasks' factors the mean, one task's, or none."""
        from peftlab import checkpoint

        start, number = self.prompt_tuning_init, self.prompt_tuning_init_task
        found = checkpoint.read_tensors(self.prompt_tuning_init_state_dict_path)
        factors = () if start == "ONLY_SOURCE_SHARED" else ("prefix_task_cols", "prefix_task_rows")
        for name in ("prompt_embeddings", *factors):
            source, own = found.get(name), prompt.state_dict()[name]
            if source is None:
                raise ConfigError(f"{self.prompt_tuning_init_state_dict_path} holds no {name}: it is of another method")
            if name in factors and start == "AVERAGE_SOURCE_TASKS":
                source = source.mean(0, keepdim=True)
            elif name in factors:
                if number >= len(source):
                    raise ConfigError(f"prompt_tuning_init_task={number}: the source has tasks 0 to {len(source) - 1}")
                source = source[number : number + 1]
            if source.shape != own.shape:
                raise ConfigError(
                    f"the source's {name} is {tuple(source.shape)}, but num_virtual_tokens, num_ranks and the model "
                    f"make {tuple(own.shape)}; choose them as the source's"
                )
            own.copy_(source)

    def shared_parameters(self, model: nn.Module) -> int:
        n, d = self.num_virtual_tokens, hosts.word_embeddings(model).embedding_dim
        return n * d + self.num_tasks * self.num_ranks * (n + d)
