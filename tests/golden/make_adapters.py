"""Make the golden tensors of the bottleneck adapters, from the `adapters` package. See README.md in this folder.

    python make_adapters.py          writes adapters/*.safetensors beside this file

It runs in an environment of its own and imports nothing of peftlab. All that it shares with peftlab are names: each
tensor is stored under the name that peftlab's file gives it.
"""

from __future__ import annotations

import json
from pathlib import Path

import adapters
import torch
import transformers
from adapters import (
    CompacterConfig,
    CompacterPlusPlusConfig,
    DoubleSeqBnConfig,
    ParBnConfig,
    SeqBnConfig,
)
from safetensors.torch import save_file

HERE = Path(__file__).parent / "adapters"
VOCABULARY, WIDTH, INNER, LAYERS = 29, 24, 44, 2
VERSIONS = f"adapters {adapters.__version__}, transformers {transformers.__version__}, torch {torch.__version__}"
STEPS, LEARNING_RATE = 5, 1e-2
NORM = {"ln_before": True}  # see `norm_of_the_block`

# Layers that are not square, two rows of padding, grouped-query attention in Llama.
HOSTS = {
    "bert": (
        "BertModel",
        {"hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": 4},
    ),
    "gpt2": ("GPT2Model", {"n_embd": WIDTH, "n_inner": INNER, "n_layer": LAYERS, "n_head": 4, "n_positions": 16}),
    "llama": (
        "LlamaModel",
        {
            "hidden_size": WIDTH,
            "intermediate_size": INNER,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        },
    ),
}
COMMON = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
COMMON |= {"max_position_embeddings": 16}

# name: (host, peftlab's class, peftlab's fields, the config in `adapters`)
PHM = {"reduction_factor": 3, "phm_dim": 4}
CASES = {
    "houlsby": (("bert", "gpt2", "llama"), "Houlsby", {"reduction_factor": 6}, DoubleSeqBnConfig, {}),
    "houlsby_linear": (("bert",), "Houlsby", {"reduction_factor": 6, "non_linearity": "linear"}, DoubleSeqBnConfig, {}),
    "houlsby_channel": (("llama",), "Houlsby", {"reduction_factor": 5, "scaling": "channel"}, DoubleSeqBnConfig, {}),
    "houlsby_leave_out": (("gpt2",), "Houlsby", {"reduction_factor": 6, "leave_out": [0]}, DoubleSeqBnConfig, {}),
    "pfeiffer": (("bert", "gpt2", "llama"), "Pfeiffer", {"reduction_factor": 5}, SeqBnConfig, {}),
    "pfeiffer_before_norm": (
        ("bert",),
        "Pfeiffer",
        {"reduction_factor": 5, "original_ln_before": False, "non_linearity": "gelu"},
        SeqBnConfig,
        {},
    ),
    "parallel": (("bert",), "ParallelAdapter", {"reduction_factor": 4}, ParBnConfig, {}),
    "parallel_learned": (
        ("bert",),
        "ParallelAdapter",
        {"reduction_factor": 4, "scaling": "learned", "non_linearity": "tanh"},
        ParBnConfig,
        {},
    ),
    "parallel_normed": (("gpt2",), "ParallelAdapter", {"reduction_factor": 4, "scaling": 1.0}, ParBnConfig, NORM),
    "compacter": (("bert", "gpt2", "llama"), "Compacter", PHM, CompacterConfig, {}),
    "compacter_own_rules": (
        ("bert",),
        "Compacter",
        {"reduction_factor": 4, "phm_dim": 3, "phm_rank": 2, "shared_phm_rule": False},
        CompacterConfig,
        {},
    ),
    "compacter_pp": (("bert", "llama"), "CompacterPlusPlus", PHM, CompacterPlusPlusConfig, {}),
    "compacter_pp_before_norm": (
        ("bert",),
        "CompacterPlusPlus",
        {**PHM, "original_ln_before": False},
        CompacterPlusPlusConfig,
        {},
    ),
}

# Where each adapter of the reference sits, and the site that peftlab has for it.
BLOCKS = {"bert": "encoder.layer", "gpt2": "h", "llama": "layers"}
THEIRS = {
    "bert": ("attention.output.adapters", "output.adapters"),
    "gpt2": ("attention_adapters.adapters", "output_adapters.adapters"),
    "llama": ("attention_adapters.adapters", "output_adapters.adapters"),
}
OURS = {
    "bert": {
        "attention": "attention.output.dense",
        "output": "output.dense",
        "after": "output.LayerNorm",
        "beside": "output",
    },
    "gpt2": {"attention": "attn.c_proj", "output": "mlp.c_proj", "after": "", "beside": "mlp"},
    "llama": {"attention": "self_attn.o_proj", "output": "mlp.down_proj", "after": "", "beside": "mlp"},
}


def our_site(host: str, block: int, attention: bool, cls: str, fields: dict) -> str:
    after_norm = cls in ("Pfeiffer", "CompacterPlusPlus") and fields.get("original_ln_before", True)
    place = "attention" if attention else "beside" if cls == "ParallelAdapter" else "after" if after_norm else "output"
    return ".".join(part for part in (BLOCKS[host], str(block), OURS[host][place]) if part)


def our_name(theirs: str, host: str, cls: str, fields: dict) -> str:
    """`encoder.layer.0.output.adapters.a.adapter_up.weight` -> peftlab's name of the same tensor."""
    if theirs.startswith("shared_parameters.a."):
        return "base_model." + theirs.removeprefix("shared_parameters.a.")
    block, rest = theirs.removeprefix(BLOCKS[host] + ".").split(".", 1)
    place, own = rest.split(".a.")
    own = own.replace("adapter_down.0.", "adapter_down.").replace("adapter_down.1.", "adapter_down.")
    site = our_site(host, int(block), place == THEIRS[host][0], cls, fields)
    return f"base_model.model.{site}.{own}"


def fresh(host: str) -> torch.nn.Module:
    kind, sizes = HOSTS[host]
    torch.manual_seed(0)
    config = getattr(transformers, kind.replace("Model", "Config"))(**{**COMMON, **sizes})
    model = getattr(transformers, kind)(config)
    for parameter in model.parameters():  # no bias is zero, no norm is one; numbers that float32 holds exactly
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.double().eval()


def inputs() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    mask = torch.ones(3, 5, dtype=torch.long)
    mask[0, 3:] = 0
    mask[2, 4:] = 0
    return {"input_ids": torch.randint(3, VOCABULARY, (3, 5)), "attention_mask": mask}


def norm_of_the_block(model: torch.nn.Module) -> None:
    """Give the adapter's own norm (ln_before) the numbers of the block's, and freeze it.

    In models that normalise first, `adapters` lets a parallel adapter read the residual stream; the paper's x is the
    input of the feed-forward network, which is the normed one. With this norm in front, both are the same.
    """
    for block in model.h:
        own = block.output_adapters.adapters["a"].adapter_norm_before
        own.load_state_dict(block.ln_2.state_dict())
        own.requires_grad_(False)


def make(name: str, host: str, cls: str, fields: dict, config: type, more: dict) -> None:
    model, given = fresh(host), inputs()
    adapters.init(model)
    torch.manual_seed(2)
    model.add_adapter("a", config=config(**fields, **more))
    model.train_adapter("a")
    model.double().eval()
    if more == NORM:
        norm_of_the_block(model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = (0.3 * torch.randn(parameter.shape)).double()
    trained = {
        our_name(key, host, cls, fields): parameter
        for key, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    tensors = {f"tensor/{key}": value.detach().float() for key, value in trained.items()}
    target = torch.randn(3, 5, WIDTH).double()

    def loss_and_output() -> tuple[torch.Tensor, torch.Tensor]:
        output = model(**given).last_hidden_state
        return (output - target).square().mean(), output

    loss, output = loss_and_output()
    loss.backward()
    tensors |= {f"grad/{key}": value.grad.clone() for key, value in trained.items()}
    optimizer = torch.optim.AdamW(list(trained.values()), lr=LEARNING_RATE)
    losses = []
    for _ in range(STEPS):
        loss, _ = loss_and_output()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    tensors |= {"output": output.detach(), "target": target.float(), "losses": torch.stack(losses)}
    about = {"host": host, "method": cls, "fields": json.dumps(fields), "reference": f"adapters {adapters.__version__}"}
    about |= {"config": f"{config.__name__}({json.dumps({**fields, **more})})", "versions": VERSIONS}
    about |= {"learning_rate": str(LEARNING_RATE)}
    save_file({k: v.contiguous() for k, v in tensors.items()}, HERE / f"{name}_{host}.safetensors", metadata=about)


def main() -> None:
    HERE.mkdir(exist_ok=True)
    for host, (kind, sizes) in HOSTS.items():
        tensors = {f"tensor/{key}": value.float().contiguous() for key, value in fresh(host).state_dict().items()}
        tensors |= {f"input/{key}": value for key, value in inputs().items()}
        about = {"model": kind, "config": json.dumps({**COMMON, **sizes}), "versions": VERSIONS}
        save_file(tensors, HERE / f"host_{host}.safetensors", metadata=about)
    for name, (hosts, cls, fields, config, more) in CASES.items():
        for host in hosts:
            make(name, host, cls, fields, config, more)
    size = sum(path.stat().st_size for path in HERE.iterdir())
    print(f"{len(list(HERE.iterdir()))} files, {size / 1000:.0f} kB, from {VERSIONS}")


if __name__ == "__main__":
    main()
