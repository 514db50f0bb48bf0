"""Two 4-bit codes in one byte. The first of a pair sits in the high half, as in bitsandbytes."""

from __future__ import annotations

import torch
from torch import Tensor


def pack(codes: Tensor, filler: int) -> Tensor:
    """(n,) codes below 16 -> (⌈n/2⌉, 1) uint8. An odd n is filled up with `filler`, the code of zero."""
    codes = codes.to(torch.uint8)
    if codes.numel() % 2:
        codes = torch.cat([codes, codes.new_tensor([filler])])
    return (codes[0::2] << 4 | codes[1::2]).unsqueeze(1)


def unpack(packed: Tensor, n: int) -> Tensor:
    """(⌈n/2⌉, 1) uint8 -> the n codes, (n,) uint8."""
    byte = packed.reshape(-1)
    return torch.stack([byte >> 4, byte & 0b1111], dim=1).reshape(-1)[:n]
