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

from peftlab.quant.quantized import CODEBOOKS, Quantized, levels_of, quantize

__all__ = ["CODEBOOKS", "Quantized", "levels_of", "quantize"]
