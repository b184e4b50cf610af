"""The GPU's kernel of `keyed_numbers`: bits stay in registers, where elementary operations would move each of a dozen through memory."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit  # type: ignore[untyped-decorator]
def _kernel(keys, out, count, NORMAL: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    bits = tl.load(keys + row) + (place.to(tl.int64) // 2 + 1) * -7046029254386353131
    bits = (bits ^ ((bits >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    bits = (bits ^ ((bits >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    bits = bits ^ ((bits >> 31) & 0x1FFFFFFFF)
    lower = ((bits >> 8) & 0xFFFFFF).to(tl.float32) * 5.9604644775390625e-08
    upper = ((bits >> 40) & 0xFFFFFF).to(tl.float32) * 5.9604644775390625e-08
    if NORMAL:
        length = tl.sqrt(-2.0 * tl.log(lower + 2.98023223876953125e-08))
        turn = 6.283185307179586 * upper
        value = length * tl.where(place % 2 == 0, tl.cos(turn), tl.sin(turn))
    else:
        value = tl.where(place % 2 == 0, lower, upper)
    tl.store(out + row * count + place, value, mask=place < count)


def draw(keys: Tensor, count: int, *, normal: bool) -> Tensor:
    """See `keyed_numbers`."""
    rows = keys.reshape(-1).contiguous()
    out = torch.empty(len(rows), count, dtype=torch.float32, device=keys.device)
    _kernel[(triton.cdiv(count, BLOCK), len(rows))](rows, out, count, NORMAL=normal, BLOCK=BLOCK)
    return out.view(*keys.shape, count)
