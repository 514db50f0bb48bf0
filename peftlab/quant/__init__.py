"""Quantisation and QLoRA by hand, bit for bit what bitsandbytes computes on a CPU.

    from peftlab.quant import quantize, quantize_model

    q = quantize(weight, kind="nf4", blocksize=64, double=True)
    q.dequantize(), q.bits_per_parameter

    quantize_model(model)                                    # its linear layers become Linear4bit
    peftlab.attach(model, LoRA(r=8))                         # QLoRA: float adapters on a 4-bit base

Read in this order: `nf4`, `fp4`, `int4` (where the levels come from), `blockwise` (scales), `eight_bit` and
`double_quant` (scales in 8 bits), `packing`, `quantized` (all of it as one object), `linear` (a layer that computes
with it), `loftq` (a better start for LoRA), `optim8bit` (optimiser states in 8 bits), `state` (files), and `int8`
(LLM.int8(), another idea).
"""

from __future__ import annotations

from peftlab.quant.int8 import Int8, linear_int8, outlier_columns, quantize_int8
from peftlab.quant.linear import Linear4bit, adopt, quantize_model
from peftlab.quant.loftq import LoftQ, attach_loftq, loftq
from peftlab.quant.optim8bit import AdamW8bit
from peftlab.quant.quantized import CODEBOOKS, Quantized, levels_of, quantize
from peftlab.quant.state import read_quantized

__all__ = [
    "CODEBOOKS",
    "AdamW8bit",
    "Int8",
    "Linear4bit",
    "LoftQ",
    "Quantized",
    "adopt",
    "attach_loftq",
    "levels_of",
    "linear_int8",
    "loftq",
    "outlier_columns",
    "quantize",
    "quantize_int8",
    "quantize_model",
    "read_quantized",
]
