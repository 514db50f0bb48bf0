"""A prompt that was run once, loaded as a prefix, answers as the prompt itself does."""

from __future__ import annotations

import pytest
import torch

import peftlab
from peftlab.errors import PeftLabError
from peftlab.methods import PrefixTuning, PromptTuning
from peftlab.tasks import models
from peftlab.tasks.prompts import at_the_size_of, captured, start_from


@pytest.fixture(scope="module")
def model():
    return models.load("tiny")[0].double()


def test_a_captured_prompt_gives_the_same_logits(model):
    ids = torch.randint(0, 4096, (2, 11), generator=torch.Generator().manual_seed(0))
    ids[1, :5] = ids[0, :5]  # the prompt
    with torch.no_grad():
        whole = model(input_ids=ids).logits[:, 5:]
    table = captured(model, ids[0, :5])
    assert table.shape == (5, 8 * 2 * 4 * 64) and table.dtype == torch.float32
    peftlab.attach(model, PrefixTuning(num_virtual_tokens=5))
    try:
        start_from(model, table)
        mask = torch.ones(2, 6, dtype=torch.long)
        with torch.no_grad():
            for extra in ({}, {"attention_mask": mask}, {"position_ids": torch.arange(6)[None]}):
                assert torch.allclose(model(input_ids=ids[:, 5:], **extra).logits, whole, atol=1e-4)
            assert not torch.allclose(model(input_ids=ids[:, 5:] + 1).logits, whole, atol=0.1)
    finally:
        peftlab.detach(model)


def test_a_table_of_another_shape_is_refused(model):
    peftlab.attach(model, PromptTuning(num_virtual_tokens=5))
    try:
        with pytest.raises(PeftLabError, match=r"\(5, 256\).*\(4, 256\)"):
            start_from(model, torch.zeros(4, 256))
    finally:
        peftlab.detach(model)


def test_a_projected_prefix_has_no_table_to_start_from(model):
    peftlab.attach(model, PrefixTuning(num_virtual_tokens=3, prefix_projection=True))
    try:
        with pytest.raises(PeftLabError, match="network"):
            start_from(model, captured(model, torch.tensor([1, 2, 3])))
    finally:
        peftlab.detach(model)


def test_noise_takes_the_size_of_each_layers_keys_and_values():
    generator = torch.Generator().manual_seed(0)
    noise, real = torch.randn(2, 7, 3 * 2 * 10, generator=generator)
    real = real * torch.arange(1.0, 7.0).repeat_interleave(10) + 5  # six parts, each of another size
    found = at_the_size_of(noise, real, layers=3)
    assert torch.allclose(
        found.unflatten(1, (6, 10)).std(dim=(0, 2)), real.unflatten(1, (6, 10)).std(dim=(0, 2)), rtol=1e-5
    )
    assert torch.allclose((found / noise).unflatten(1, (6, 10)).std(dim=(0, 2)), torch.zeros(6), atol=1e-5)
    with pytest.raises(PeftLabError, match="one shape"):
        at_the_size_of(noise, real[:, :-1], layers=3)
