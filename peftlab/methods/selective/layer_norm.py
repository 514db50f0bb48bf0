r"""LayerNorm tuning (Zhao et al., 2023, arXiv:2312.11420): train the normalisation layers, freeze the rest.

$$h = \gamma' \odot \frac{x - \mu(x)}{\sigma(x)} + \beta'$$

$\gamma', \beta' \in \mathbb{R}^{d}$ start as copies of the pretrained $\gamma, \beta$, which stay as they are.
"""

from __future__ import annotations

from peftlab.errors import ConfigError
from peftlab.methods.base import Adapter, Card, Copy, Method, Shared, method
from peftlab.surgery import Site

TWO_AND_FINAL = ["input_layernorm", "post_attention_layernorm", "norm"]
FOUR_AND_FINAL = [*TWO_AND_FINAL[:2], "pre_feedforward_layernorm", "post_feedforward_layernorm", "norm"]
NORMS = {
    "bart": ["self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"],
    "bert": ["LayerNorm"],
    "bloom": ["input_layernorm", "post_attention_layernorm", "ln_f"],
    "falcon": ["input_layernorm", "post_attention_layernorm", "ln_f"],
    "gemma": TWO_AND_FINAL,
    "gemma2": FOUR_AND_FINAL,
    "gemma3_text": FOUR_AND_FINAL,
    "gpt2": ["ln_1", "ln_2", "ln_f"],
    "gptj": ["ln_1", "ln_f"],
    "llama": TWO_AND_FINAL,
    "mistral": TWO_AND_FINAL,
    "mt5": ["layer_norm", "final_layer_norm"],
    "phi": ["input_layernorm", "final_layernorm"],
    "qwen2": ["post_attention_layernorm"],
    "qwen3": ["post_attention_layernorm"],
    "t5": ["layer_norm", "final_layer_norm"],
}


@method
class LNTuning(Method):
    """LayerNorm tuning. `peft.LNTuningConfig`'s fields, defaults and semantics (we also know BERT's norms)."""

    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None

    peft_type = "LN_TUNING"
    default_targets = NORMS
    card = Card(
        title="Tuning LayerNorm in Attention: Towards Efficient Multi-Modal LLM Finetuning",
        year=2023,
        arxiv="2312.11420",
        equation="section 3",
        family="selective",
        reference="peft.LNTuningConfig",
        formula="h = γ' ⊙ (x - μ) / σ + β'",
        shapes="γ', β' (d) per normalisation layer; RMSNorm has no β'",
        parameters="2 d per LayerNorm, d per RMSNorm",
        mergeable=True,
        inference_cost="none: it replaces the layer's own vectors",
        traps=("Two such adapters cannot be active at once: each replaces the same vectors.",),
        use_when="a small shift of style or domain, at next to no parameters",
        avoid_when="the task is far from what the model can already do",
        unknown="why so few numbers are sometimes enough",
    )

    def build(self, site: Site, shared: Shared | None) -> Adapter:
        if next(site.module.parameters(), None) is None:
            raise ConfigError(f"LNTuning: {site.name}, a {type(site.module).__name__}, has no parameters to train")
        return Copy(site, prefix="ln_tuning_layers.")

    def parameters_at(self, site: Site) -> int:
        return sum(parameter.numel() for parameter in site.module.parameters())
