"""Greedy completion: padding, routing, the end of an answer."""

from __future__ import annotations

import pytest
import torch

import peftlab
from peftlab.errors import PeftLabError
from peftlab.methods import LoRA
from peftlab.tasks.generation import complete, first_line


class Words:
    """A tokenizer of single letters: a = 3, b = 4, …; 0 pads, 1 begins, 2 ends."""

    pad_token_id, eos_token_id, padding_side = 0, 2, "right"

    def __call__(self, texts, return_tensors, padding):
        from transformers import BatchEncoding

        assert self.padding_side == "left", "rows must end at the same place"
        rows = [[ord(letter) - 94 for letter in text] for text in texts]
        longest = max(map(len, rows))
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
        return BatchEncoding({"input_ids": ids, "attention_mask": (ids != 0).long()})

    def batch_decode(self, rows, skip_special_tokens):
        return ["".join(chr(int(i) + 94) for i in row if i > 2) for row in rows]


@pytest.fixture
def model():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
    return LlamaForCausalLM(LlamaConfig(vocab_size=29, **sizes)).eval()


def test_a_batch_writes_what_each_prompt_writes_alone(model):
    prompts = ["abc", "q", "hello"]
    alone = [complete(model, Words(), [prompt], max_new_tokens=5)[0] for prompt in prompts]
    assert complete(model, Words(), prompts, max_new_tokens=5, batch_size=2) == alone


def test_each_row_gets_its_own_adapter(model):
    for name in ("one", "two"):
        peftlab.attach(model, LoRA(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False), name=name)
    apart = []
    for name in ("one", "two"):
        peftlab.use(model, name)
        apart += complete(model, Words(), ["abc"], max_new_tokens=6)
    with peftlab.disabled(model):
        apart += complete(model, Words(), ["abc"], max_new_tokens=6)
    names = ["one", "two", "__base__"]
    assert complete(model, Words(), ["abc"] * 3, max_new_tokens=6, adapter_names=names) == apart


def test_writing_stops_at_the_end_token(model):
    with torch.no_grad():
        model.lm_head.weight.zero_()  # every token is equally likely: greedy takes the first, which is 0
    tokenizer = Words()
    tokenizer.eos_token_id = 0
    assert complete(model, tokenizer, ["abc"], max_new_tokens=5) == [""]


def test_the_tokenizer_is_left_as_it_was(model):
    tokenizer = Words()
    complete(model, tokenizer, ["ab"], max_new_tokens=1)
    assert tokenizer.padding_side == "right"


@pytest.mark.parametrize(("prompts", "names", "says"), [([], None, "no prompt"), (["a", "b"], ["one"], "1 adapter")])
def test_bad_input_is_refused(model, prompts, names, says):
    with pytest.raises(PeftLabError, match=says):
        complete(model, Words(), prompts, adapter_names=names)


def test_only_the_first_line_counts():
    assert first_line("\n a river \nmore") == "a river" and first_line("  ") == ""
